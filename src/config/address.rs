//! HOST:PORT as people write it. Parses and classifies; resolves names only in `resolve`.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

/// A host name or address, without brackets, and a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostPort {
    /// The host.
    pub host: String,
    /// The port; 0 = any free one, where that makes sense.
    pub port: u16,
}

impl HostPort {
    /// As given.
    pub fn new(host: &str, port: u16) -> HostPort {
        HostPort { host: host.to_string(), port }
    }

    /// Reads `host:port` or `[v6]:port`.
    pub fn parse(text: &str) -> Result<HostPort, String> {
        let wrong = || "must be HOST:PORT, such as 127.0.0.1:9092 or [::1]:9092".to_string();
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or_else(wrong)?,
            None if host.contains(':') => return Err(wrong()),
            None => host,
        };
        if host.is_empty() || host.len() > 255 || host.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err(wrong());
        }
        Ok(HostPort::new(host, port))
    }

    /// As [`HostPort::parse`], with Kafka's `PLAINTEXT://` in front or not. One address only.
    pub fn parse_listener(text: &str) -> Result<HostPort, String> {
        if text.contains(',') {
            return Err("one listener only, so far".to_string());
        }
        match text.split_once("://") {
            None => HostPort::parse(text),
            Some(("PLAINTEXT", rest)) => HostPort::parse(rest),
            Some((protocol, _)) => Err(format!("{protocol} is not served yet; use PLAINTEXT://HOST:PORT")),
        }
    }

    fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// True for 0.0.0.0 and ::, which can be listened on but not connected to.
    pub fn is_unspecified(&self) -> bool {
        self.ip().is_some_and(|ip| ip.is_unspecified())
    }

    /// True if only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost") || self.ip().is_some_and(|ip| ip.is_loopback())
    }

    /// The first socket address of it. The error is in words.
    pub fn resolve(&self) -> Result<SocketAddr, String> {
        let mut found = (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map_err(|error| format!("{self}: the name cannot be resolved: {error}"))?;
        found.next().ok_or_else(|| format!("{self}: the name has no address"))
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip() {
            Some(IpAddr::V6(_)) => write!(f, "[{}]:{}", self.host, self.port),
            _ => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_refused() {
        assert_eq!(HostPort::parse("localhost:9092"), Ok(HostPort::new("localhost", 9092)));
        assert_eq!(HostPort::parse("[::1]:1").unwrap().to_string(), "[::1]:1");
        assert_eq!(HostPort::parse_listener("PLAINTEXT://0.0.0.0:9092"), Ok(HostPort::new("0.0.0.0", 9092)));
        for wrong in ["", "9092", ":9092", "a:b", "a:70000", "::1:9092", "[::1:9092", "a b:1", "http://a:1"] {
            assert!(HostPort::parse(wrong).is_err(), "{wrong}");
        }
        assert!(HostPort::parse_listener("SSL://a:1").unwrap_err().contains("SSL is not served"));
        assert!(HostPort::parse_listener("PLAINTEXT://a:1,PLAINTEXT://b:2").is_err());
    }

    #[test]
    fn addresses_are_classified() {
        assert!(HostPort::new("::", 1).is_unspecified() && HostPort::new("0.0.0.0", 1).is_unspecified());
        assert!(HostPort::new("127.0.0.5", 1).is_loopback() && HostPort::new("LOCALHOST", 1).is_loopback());
        assert!(!HostPort::new("10.0.0.1", 1).is_loopback() && !HostPort::new("broker", 1).is_unspecified());
    }
}
