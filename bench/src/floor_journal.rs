//! The floor's durability: batches copied into aligned groups, one RWF_DSYNC write per group into written blocks, the next
//! group collects while DEPTH writes are in flight, answers in order. Never read back.

use crate::floor::{WRITE, push};
use crate::sys::{ALIGN, Aligned};
use crate::{Outcome, sys};
use io_uring::{IoUring, opcode, types};
use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Bytes of a group's buffer: the most one write carries.
const GROUP: usize = 8 << 20;
/// Bytes of the circular file.
const FILE: u64 = 256 << 20;

/// An answer that waits for its group.
#[derive(Debug)]
pub struct Ticket {
    pub conn: usize,
    pub answer: Vec<u8>,
}

#[derive(Debug)]
struct Group {
    sequence: u64,
    bytes: Aligned,
    filled: usize,
    tickets: Vec<Ticket>,
    written: bool,
}

/// The circular journal.
#[derive(Debug)]
pub struct Journal {
    file: File,
    depth: usize,
    position: u64,
    next_sequence: u64,
    /// Collected and not yet written, oldest first; the last one is still open.
    waiting: VecDeque<Group>,
    in_flight: VecDeque<Group>,
    spare: Vec<Group>,
}

impl Journal {
    /// Opens or makes the file, all of its blocks written.
    pub fn open(path: &Path, depth: usize) -> Outcome<Journal> {
        let file = sys::written_file(path, FILE)?;
        Ok(Journal {
            file,
            depth: depth.max(1),
            position: 0,
            next_sequence: 0,
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
            spare: Vec::new(),
        })
    }

    /// Copies a batch into the open group; its answer leaves after the group's write.
    pub fn append(&mut self, records: &[u8], conn: usize, answer: &mut dyn FnMut(&mut Vec<u8>)) {
        let room = self.waiting.back().is_some_and(|group| group.filled + records.len() <= GROUP);
        if !room {
            let group = self.spare.pop().unwrap_or_else(|| Group {
                sequence: 0,
                bytes: Aligned::new(GROUP),
                filled: 0,
                tickets: Vec::new(),
                written: false,
            });
            self.waiting.push_back(group);
        }
        let group = self.waiting.back_mut().expect("pushed above");
        group.bytes[group.filled..group.filled + records.len()].copy_from_slice(records);
        group.filled += records.len();
        let mut bytes = Vec::with_capacity(96);
        answer(&mut bytes);
        group.tickets.push(Ticket { conn, answer: bytes });
    }

    /// Starts as many writes as the depth allows.
    pub fn submit(&mut self, ring: &mut IoUring) {
        while self.in_flight.len() < self.depth {
            let Some(mut group) = self.waiting.pop_front() else { return };
            let length = group.filled.next_multiple_of(ALIGN);
            if self.position + length as u64 > FILE {
                self.position = 0;
            }
            group.sequence = self.next_sequence;
            self.next_sequence += 1;
            let write =
                opcode::Write::new(types::Fd(self.file.as_raw_fd()), group.bytes.as_ptr(), length as u32)
                    .offset(self.position)
                    .rw_flags(libc::RWF_DSYNC)
                    .build()
                    .user_data(WRITE | group.sequence);
            self.position += length as u64;
            self.in_flight.push_back(group);
            push(ring, &write);
        }
    }

    /// A write completed: the answers that are due now, in order.
    pub fn wrote(&mut self, sequence: u64, result: i32) -> Outcome<Vec<Ticket>> {
        let group = self.in_flight.iter_mut().find(|group| group.sequence == sequence);
        let group = group.ok_or("a write completed twice")?;
        if result as usize != group.filled.next_multiple_of(ALIGN) {
            return Err(format!("journal write of {} bytes returned {result}", group.filled));
        }
        group.written = true;
        let mut tickets = Vec::new();
        while self.in_flight.front().is_some_and(|group| group.written) {
            let mut group = self.in_flight.pop_front().expect("looked at above");
            tickets.append(&mut group.tickets);
            group.filled = 0;
            group.written = false;
            self.spare.push(group);
        }
        Ok(tickets)
    }
}
