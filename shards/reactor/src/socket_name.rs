//! An address as the kernel reads it, and sockets of its family.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd};

/// See the module.
pub enum SocketName {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

impl From<SocketAddr> for SocketName {
    fn from(address: SocketAddr) -> SocketName {
        match address {
            SocketAddr::V4(v4) => SocketName::V4(libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(v6) => SocketName::V6(libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            }),
        }
    }
}

impl SocketName {
    /// Pointer and length, valid as long as the value stays where it is.
    pub fn raw(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        match self {
            SocketName::V4(name) => (std::ptr::from_ref(name).cast(), size_of_val(name) as libc::socklen_t),
            SocketName::V6(name) => (std::ptr::from_ref(name).cast(), size_of_val(name) as libc::socklen_t),
        }
    }

    /// A TCP socket for such addresses; blocking.
    pub fn stream_socket(&self) -> io::Result<OwnedFd> {
        let family = match self {
            SocketName::V4(_) => libc::AF_INET,
            SocketName::V6(_) => libc::AF_INET6,
        };
        // SAFETY: a plain system call.
        let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: fresh, no other owner.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}
