//! Listening sockets: reserved (bound) at start so that a taken port is an error the user sees, opened only when every
//! shard is ready, so that no client meets a half-started broker.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

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

fn bind(fd: RawFd, address: SocketAddr) -> io::Result<()> {
    let code = match address {
        SocketAddr::V4(v4) => {
            let name = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: a live sockaddr_in and its size.
            unsafe { libc::bind(fd, (&raw const name).cast(), size_of_val(&name) as u32) }
        }
        SocketAddr::V6(v6) => {
            let name = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: a live sockaddr_in6 and its size.
            unsafe { libc::bind(fd, (&raw const name).cast(), size_of_val(&name) as u32) }
        }
    };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Reserved {
    /// Binds `address`. Options set here are inherited by every accepted connection: TCP_NODELAY, and the congestion
    /// control named by PELTON_TCP_CONGESTION if any.
    pub fn new(address: SocketAddr) -> io::Result<Reserved> {
        let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        // SAFETY: a plain system call.
        let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: fresh, no other owner.
        let listener = TcpListener::from(unsafe { OwnedFd::from_raw_fd(fd) });
        set(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        set(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
        if let Ok(name) = std::env::var("PELTON_TCP_CONGESTION") {
            let (level, option) = (libc::IPPROTO_TCP, libc::TCP_CONGESTION);
            // SAFETY: pointer and length are of one live string.
            let code =
                unsafe { libc::setsockopt(fd, level, option, name.as_ptr().cast(), name.len() as u32) };
            if code < 0 {
                let error = io::Error::last_os_error();
                return Err(io::Error::new(error.kind(), format!("PELTON_TCP_CONGESTION={name}: {error}")));
            }
        }
        bind(fd, address)?;
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
