//! A connection whose answers are asked for with a time limit, so that nobody waits for a broker that stands still.

use pelton_bench::{Outcome, client};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Largest answer that is believed, bytes.
const FRAME_MAX: usize = 64 << 20;
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_millis(400);

/// One connection to one broker.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    pub address: String,
    inbound: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub fn open(address: &str) -> Outcome<Connection> {
        let stream = client::connect(address, CONNECT)?;
        Ok(Connection { stream, address: address.to_string(), inbound: Vec::new() })
    }

    fn failed(&self, what: impl std::fmt::Display) -> String {
        format!("{}: {what}", self.address)
    }

    /// Sends a whole frame, or ends: half a frame is of no use.
    pub fn send(&mut self, frame: &[u8]) -> Outcome<()> {
        self.stream.write_all(frame).map_err(|error| self.failed(error))
    }

    /// The next answer without its size, if it comes within `wait`.
    pub fn poll(&mut self, wait: Duration) -> Outcome<Option<Vec<u8>>> {
        let deadline = Instant::now() + wait;
        loop {
            if let Some(size) = self.inbound.first_chunk::<4>() {
                let size = i32::from_be_bytes(*size) as usize;
                if size > FRAME_MAX {
                    return Err(self.failed(format!("an answer of {size} bytes")));
                }
                if self.inbound.len() >= 4 + size {
                    let rest = self.inbound.split_off(4 + size);
                    let frame = std::mem::replace(&mut self.inbound, rest);
                    return Ok(Some(frame[4..].to_vec()));
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left)).map_err(|error| self.failed(error))?;
            let mut piece = [0; 64 << 10];
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(self.failed("closed by the broker")),
                Ok(n) => self.inbound.extend_from_slice(&piece[..n]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    /// Sends a request and waits for its answer, which must be the next.
    pub fn call(&mut self, id: i32, frame: &[u8], wait: Duration) -> Outcome<Vec<u8>> {
        self.send(frame)?;
        let answer = self.poll(wait)?.ok_or_else(|| self.failed(format!("no answer within {wait:?}")))?;
        match answer.first_chunk::<4>().map(|bytes| i32::from_be_bytes(*bytes)) {
            Some(got) if got == id => Ok(answer),
            got => Err(self.failed(format!("correlation id {got:?} instead of {id}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn answers_in_pieces_and_none_at_all() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connection = Connection::open(&listener.local_addr().unwrap().to_string()).unwrap();
        let (mut other, _) = listener.accept().unwrap();
        assert_eq!(connection.poll(Duration::from_millis(5)).unwrap(), None);
        other.write_all(&[0, 0, 0, 5, 0, 0]).unwrap();
        assert_eq!(connection.poll(Duration::from_millis(5)).unwrap(), None);
        other.write_all(&[0, 7, 9, 0, 0, 0, 4, 0, 0, 0, 8]).unwrap();
        assert_eq!(connection.poll(Duration::from_secs(5)).unwrap().unwrap(), [0, 0, 0, 7, 9]);
        assert_eq!(connection.poll(Duration::from_secs(5)).unwrap().unwrap(), [0, 0, 0, 8]);
        other.write_all(&[0x7f, 0, 0, 0]).unwrap();
        assert!(connection.poll(Duration::from_secs(5)).unwrap_err().contains("an answer of"));
        drop(other);
    }
}
