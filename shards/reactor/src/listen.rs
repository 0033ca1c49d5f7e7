//! Listening sockets: reserved (bound) at start so that a taken port is an error the user sees, opened only when every
//! shard is ready, so that no client meets a half-started broker.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};

use crate::socket_name::SocketName;

/// Connections the kernel queues before they are accepted.
const BACKLOG: libc::c_int = 4096;

/// A bound socket that does not listen yet.
#[derive(Debug)]
pub struct Reserved {
    listener: TcpListener,
    /// Its address, with the port the kernel chose if 0 was asked for.
    pub address: SocketAddr,
}

/// Sets one socket option to an int.
fn set(fd: RawFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: a live int and its size.
    let code =
        unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), size_of_val(&value) as u32) };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Options of connections, inherited by accepted ones: TCP_NODELAY, and the congestion control named by
/// PELTON_TCP_CONGESTION if any.
pub fn configure(fd: RawFd) -> io::Result<()> {
    set(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    if let Ok(name) = std::env::var("PELTON_TCP_CONGESTION") {
        let (level, option) = (libc::IPPROTO_TCP, libc::TCP_CONGESTION);
        // SAFETY: pointer and length are of one live string.
        let code = unsafe { libc::setsockopt(fd, level, option, name.as_ptr().cast(), name.len() as u32) };
        if code < 0 {
            let error = io::Error::last_os_error();
            return Err(io::Error::new(error.kind(), format!("PELTON_TCP_CONGESTION={name}: {error}")));
        }
    }
    Ok(())
}

impl Reserved {
    /// Binds `address`. Options set here are inherited by every accepted connection, see [`configure`].
    pub fn new(address: SocketAddr) -> io::Result<Reserved> {
        let name = SocketName::from(address);
        let listener = TcpListener::from(name.stream_socket()?);
        let fd = listener.as_raw_fd();
        set(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        configure(fd)?;
        let (pointer, length) = name.raw();
        // SAFETY: pointer and length are of the live name.
        if unsafe { libc::bind(fd, pointer, length) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let address = listener.local_addr()?;
        Ok(Reserved { listener, address })
    }

    /// Starts listening.
    pub fn open(self) -> io::Result<TcpListener> {
        // SAFETY: a plain system call on a live socket.
        if unsafe { libc::listen(self.listener.as_raw_fd(), BACKLOG) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(self.listener)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn a_reserved_port_is_taken_but_refuses_until_it_is_open() {
        let reserved = Reserved::new("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = reserved.address;
        assert!(TcpStream::connect(address).is_err());
        let listener = reserved.open().unwrap();
        let _client = TcpStream::connect(address).unwrap();
        let (server, _) = listener.accept().unwrap();
        assert!(server.nodelay().unwrap(), "options are inherited");
        let error = Reserved::new(address).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
