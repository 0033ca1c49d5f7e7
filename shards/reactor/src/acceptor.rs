//! A listener and the operation that accepts on it, many times. What becomes of the sockets is its owner's business.

use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::{cqueue, opcode, types};
use pelton_shard::LogLevel;

use crate::context::Context;
use crate::ops::Op;

/// Out of descriptors or memory: accept again after this long, nanoseconds.
const ACCEPT_PAUSE_NS: u64 = 100_000_000;

/// See the module.
pub struct Acceptor {
    /// Names the operation.
    op: fn() -> Op,
    listener: Option<TcpListener>,
    accepting: Option<u64>,
    again_ns: Option<u64>,
}

impl Acceptor {
    /// One without a listener yet; its operations are `op`.
    pub fn new(op: fn() -> Op) -> Acceptor {
        Acceptor { op, listener: None, accepting: None, again_ns: None }
    }

    /// Starts accepting on `listener`.
    pub fn listen(&mut self, context: &mut Context, listener: TcpListener) {
        self.listener = Some(listener);
        self.accept(context);
    }

    fn accept(&mut self, context: &mut Context) {
        self.again_ns = None;
        if self.accepting.is_some() {
            return;
        }
        let Some(listener) = &self.listener else { return };
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let entry = opcode::AcceptMulti::new(types::Fd(listener.as_raw_fd())).flags(flags).build();
        // SAFETY: names no memory; the listener is closed only after this operation is done.
        self.accepting = Some(unsafe { context.start((self.op)(), |_| entry) });
    }

    /// Takes no further connections; those that wait in the kernel are refused.
    pub fn stop(&mut self, context: &mut Context) {
        self.again_ns = None;
        match self.accepting {
            Some(name) => context.cancel(name),
            None => self.listener = None,
        }
    }

    /// An accept operation reported. Returns the new socket.
    pub fn handle(
        &mut self,
        context: &mut Context,
        result: i32,
        flags: u32,
        stopping: bool,
        now_ns: u64,
    ) -> Option<OwnedFd> {
        if !cqueue::more(flags) {
            self.accepting = None;
            if stopping {
                self.listener = None;
            } else if matches!(-result, libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) {
                context.log(
                    LogLevel::Warn,
                    format!(
                        "cannot accept connections: {}; raise the limit of open files (ulimit -n, LimitNOFILE)",
                        std::io::Error::from_raw_os_error(-result)
                    ),
                );
                self.again_ns = Some(now_ns + ACCEPT_PAUSE_NS);
            } else {
                self.accept(context);
            }
        }
        // SAFETY: a descriptor the kernel has just made for us.
        (result >= 0).then(|| unsafe { OwnedFd::from_raw_fd(result) })
    }

    /// Does what is due by `now_ns`.
    pub fn handle_time(&mut self, context: &mut Context, now_ns: u64) {
        if self.again_ns.is_some_and(|at| at <= now_ns) {
            self.accept(context);
        }
    }

    /// When [`Acceptor::handle_time`] is next due.
    pub fn deadline(&self) -> Option<u64> {
        self.again_ns
    }
}
