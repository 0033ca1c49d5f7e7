//! Dialing other nodes: names looked up by a thread of their own, for that may take seconds, and connecting through the ring.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use crossbeam::queue::SegQueue;
use io_uring::{opcode, types};
use pelton_shard::peer::Event;

use crate::context::Context;
use crate::listen::configure;
use crate::ops::Op;
use crate::socket_name::SocketName;
use crate::sync::Bell;

/// Names that wait to be looked up; more are refused, and dialed again later.
const LOOKUPS_MAX: usize = 64;

type Found = (u64, Result<SocketAddr, String>);

/// Looks names up, one after the other; the thread ends with the value.
struct Lookups {
    wanted: SyncSender<(u64, String, u16)>,
}

/// Attempts under way.
#[derive(Default)]
pub struct Dials {
    /// The connect operations, by attempt.
    connecting: BTreeMap<u64, u64>,
    /// Attempts whose name is being looked up.
    looking: Vec<u64>,
    lookups: Option<Lookups>,
    found: Arc<SegQueue<Found>>,
}

impl Lookups {
    fn start(found: Arc<SegQueue<Found>>, bell: Arc<Bell>) -> std::io::Result<Lookups> {
        let (wanted, wants) = sync_channel::<(u64, String, u16)>(LOOKUPS_MAX);
        std::thread::Builder::new().name("pelton-names".to_string()).spawn(move || {
            for (attempt, host, port) in wants {
                let address = (host.as_str(), port)
                    .to_socket_addrs()
                    .map_err(|error| format!("the name {host} cannot be resolved: {error}"))
                    .and_then(|mut all| all.next().ok_or_else(|| format!("the name {host} has no address")));
                found.push((attempt, address));
                bell.ring();
            }
        })?;
        Ok(Lookups { wanted })
    }
}

impl Dials {
    /// Begins an attempt. An end that is known at once is among the context's events.
    pub fn dial(&mut self, context: &mut Context, attempt: u64, host: String, port: u16) {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return self.connect(context, attempt, SocketAddr::new(ip, port));
        }
        if self.lookups.is_none() {
            match Lookups::start(self.found.clone(), context.bell.clone()) {
                Ok(lookups) => self.lookups = Some(lookups),
                Err(error) => {
                    return failed(context, attempt, format!("no thread to look names up: {error}"));
                }
            }
        }
        let Some(lookups) = &self.lookups else { return };
        match lookups.wanted.try_send((attempt, host, port)) {
            Ok(()) => self.looking.push(attempt),
            Err(_) => failed(context, attempt, "too many names wait to be looked up".to_string()),
        }
    }

    /// Gives an attempt up; its end may still be reported.
    pub fn undial(&mut self, context: &mut Context, attempt: u64) {
        self.looking.retain(|looking| *looking != attempt);
        if let Some(name) = self.connecting.remove(&attempt) {
            context.cancel(name);
        }
    }

    /// True if names were found and not taken in yet.
    pub fn has_found(&self) -> bool {
        !self.found.is_empty()
    }

    /// Goes on with attempts whose names are found.
    pub fn take_found(&mut self, context: &mut Context) {
        while let Some((attempt, address)) = self.found.pop() {
            let Some(at) = self.looking.iter().position(|looking| *looking == attempt) else { continue };
            self.looking.swap_remove(at);
            match address {
                Ok(address) => self.connect(context, attempt, address),
                Err(reason) => failed(context, attempt, reason),
            }
        }
    }

    fn connect(&mut self, context: &mut Context, attempt: u64, address: SocketAddr) {
        let name = Box::new(SocketName::from(address));
        let socket = name.stream_socket().and_then(|fd| {
            configure(fd.as_raw_fd())?;
            Ok(TcpStream::from(fd))
        });
        let socket = match socket {
            Ok(socket) => socket,
            Err(error) => return failed(context, attempt, error.to_string()),
        };
        let build = |op: &mut Op| {
            let Op::Connect { socket, name, .. } = op else { return opcode::Nop::new().build() };
            let (pointer, length) = name.raw();
            opcode::Connect::new(types::Fd(socket.as_raw_fd()), pointer, length).build()
        };
        // SAFETY: the operation owns the socket, and the name on the heap.
        let op = unsafe { context.start(Op::Connect { attempt, socket, name }, build) };
        self.connecting.insert(attempt, op);
    }

    /// A connect operation is done. The socket, if it is connected and still wanted.
    pub fn handle_connect(
        &mut self,
        context: &mut Context,
        attempt: u64,
        socket: TcpStream,
        result: i32,
    ) -> Option<TcpStream> {
        self.connecting.remove(&attempt)?;
        let connected = match result {
            0.. => socket.set_nonblocking(true).map(|()| socket),
            errno => Err(std::io::Error::from_raw_os_error(-errno)),
        };
        connected.map_err(|error| failed(context, attempt, error.to_string())).ok()
    }

    /// Gives all attempts up.
    pub fn stop(&mut self, context: &mut Context) {
        self.looking.clear();
        self.lookups = None;
        for (_, name) in std::mem::take(&mut self.connecting) {
            context.cancel(name);
        }
    }
}

fn failed(context: &mut Context, attempt: u64, reason: String) {
    context.peer_events.push_back(Event::NotDialed { attempt, reason });
}
