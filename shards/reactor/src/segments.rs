//! Disk operations on files of partitions, each a short chain of ring operations: open if need be, write or read until
//! done, sync the file and, the first time, the directories above it. Never blocks the shard's thread.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;

use bytes::Bytes;
use io_uring::{opcode, squeue, types};
use pelton_model::AlignedBuffer;
use pelton_model::limits::BLOCK_BYTES;
use pelton_shard::disk::{DiskError, SegmentFile, SegmentPiece, Ticket};

use crate::append::append_all;
use crate::buffers::{FrameBuffer, FramePool};
use crate::context::Context;
use crate::files::{File, Files, Key, Lookup, Mode, Opened, Waiter, c_path, disk_error};
use crate::meter;
use crate::ops::Op;

/// Bytes of one ring operation at most.
const PIECE_BYTES_MAX: usize = 1 << 30;

/// A disk operation on a partition's file, between two steps.
pub struct SegmentJob {
    ticket: Ticket,
    file: SegmentFile,
    step: Step,
}

enum Step {
    Write {
        open: Option<Rc<File>>,
        position: u64,
        bytes: Bytes,
        done: usize,
    },
    /// A write that is on stable storage when it is done.
    Lay {
        open: Option<Rc<File>>,
        position: u64,
        parts: Vec<Bytes>,
        pieces: Vec<libc::iovec>,
        done: usize,
    },
    Read {
        open: Option<Rc<File>>,
        position: u64,
        buffer: FrameBuffer,
    },
    SyncFile {
        open: Option<Rc<File>>,
    },
    OpenDirectory {
        path: CString,
    },
    SyncDirectory {
        directory: OwnedFd,
    },
    SyncRoot,
    Unlink {
        path: CString,
    },
    RemoveDirectory {
        path: CString,
    },
}

/// Pieces of one vectored write.
const PIECES_MAX: usize = 1024;

/// What is left of `parts` behind `done` bytes, as the kernel wants it told.
fn pieces_behind(parts: &[Bytes], mut done: usize, into: &mut Vec<libc::iovec>) {
    into.clear();
    let mut room = PIECE_BYTES_MAX;
    for part in parts {
        let from = done.min(part.len());
        done -= from;
        let rest = &part[from..];
        let length = rest.len().min(room);
        if length > 0 && into.len() < PIECES_MAX {
            into.push(libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: length });
            room -= length;
        }
        if length < rest.len() {
            return;
        }
    }
}

/// The bytes, at a memory address O_DIRECT accepts; copied only if they are not.
pub fn aligned(bytes: Bytes) -> Bytes {
    if bytes.as_ptr().align_offset(BLOCK_BYTES) == 0 {
        return bytes;
    }
    let mut copy = AlignedBuffer::zeroed(bytes.len());
    copy.as_mut_slice().copy_from_slice(&bytes);
    copy.freeze()
}

/// Starts operations on partitions' files and moves them on.
pub struct Segments {
    pub files: Files,
    pool: FramePool,
}

impl Segments {
    /// Over these open files; reads land in buffers of `pool`.
    pub fn new(files: Files, pool: FramePool) -> Segments {
        Segments { files, pool }
    }

    /// Writes whole blocks.
    pub fn write(
        &mut self,
        context: &mut Context,
        ticket: Ticket,
        file: SegmentFile,
        position: u64,
        bytes: Bytes,
    ) {
        if !position.is_multiple_of(BLOCK_BYTES as u64) || !bytes.len().is_multiple_of(BLOCK_BYTES) {
            let text = format!("segment write of {} bytes at {position} is not whole blocks", bytes.len());
            return context.disk_done(ticket, Err(DiskError { no_space: false, text }));
        }
        if bytes.is_empty() {
            return context.disk_done(ticket, Ok(bytes));
        }
        let step = Step::Write { open: None, position, bytes: aligned(bytes), done: 0 };
        self.next(context, SegmentJob { ticket, file, step });
    }

    /// Writes parts that follow each other, whole blocks each, and puts them on stable storage, with the file's name if that
    /// is new.
    pub fn lay(
        &mut self,
        context: &mut Context,
        ticket: Ticket,
        file: SegmentFile,
        position: u64,
        parts: Vec<Bytes>,
    ) {
        let total: usize = parts.iter().map(Bytes::len).sum();
        let whole = |part: &Bytes| part.len().is_multiple_of(BLOCK_BYTES) && !part.is_empty();
        if !position.is_multiple_of(BLOCK_BYTES as u64) || !parts.iter().all(whole) || total == 0 {
            let text = format!("segment write of {total} bytes at {position} is not whole blocks");
            return context.disk_done(ticket, Err(DiskError { no_space: false, text }));
        }
        let parts = parts.into_iter().map(aligned).collect();
        let step = Step::Lay { open: None, position, parts, pieces: Vec::new(), done: 0 };
        self.next(context, SegmentJob { ticket, file, step });
    }

    /// Reads up to `length` bytes.
    pub fn read(
        &mut self,
        context: &mut Context,
        ticket: Ticket,
        file: SegmentFile,
        position: u64,
        length: usize,
    ) {
        let step = Step::Read { open: None, position, buffer: self.pool.get(&[], length) };
        self.next(context, SegmentJob { ticket, file, step });
    }

    /// Puts a file's writes and its name on stable storage.
    pub fn sync(&mut self, context: &mut Context, ticket: Ticket, file: SegmentFile) {
        self.next(context, SegmentJob { ticket, file, step: Step::SyncFile { open: None } });
    }

    /// Appends to many files and puts all of it, with the files' names, on stable storage.
    pub fn append(&mut self, context: &mut Context, ticket: Ticket, pieces: Vec<SegmentPiece>) {
        let (path, root) = self.files.root();
        let bytes: usize = pieces.iter().flat_map(|piece| &piece.parts).map(Bytes::len).sum();
        meter::add(&context.meter.segment_writes, pieces.len() as u64);
        meter::add(&context.meter.segment_bytes, bytes as u64);
        context.spawn_blocking(ticket, move || append_all(&path, &root, &pieces).map(|()| Bytes::new()));
    }

    /// Cuts a file and syncs it.
    pub fn truncate(&mut self, context: &mut Context, ticket: Ticket, file: SegmentFile, length: u64) {
        let path = self.files.path(file);
        context.spawn_blocking(ticket, move || {
            let cut = || {
                let file = fs::OpenOptions::new().write(true).open(&path)?;
                file.set_len(length)?;
                file.sync_all()
            };
            cut().map(|()| Bytes::new()).map_err(|error: std::io::Error| {
                disk_error("truncate", &path, error.raw_os_error().unwrap_or(libc::EIO))
            })
        });
    }

    /// Removes a file, and its directory if that is empty then.
    pub fn delete(&mut self, context: &mut Context, ticket: Ticket, file: SegmentFile) {
        let path = c_path(&self.files.path(file));
        self.next(context, SegmentJob { ticket, file, step: Step::Unlink { path } });
    }

    /// Gives the job its file, or keeps it until the file is open.
    fn with_file(&mut self, context: &mut Context, mut job: SegmentJob, mode: Mode) {
        let key: Key = (job.file, mode);
        let mut waiting = Some(job);
        let lookup = self.files.lookup(context, key, || {
            Waiter::Job(waiting.take().expect("the closure is called once, before the job is taken back"))
        });
        if let Lookup::Open(open) = lookup {
            job = waiting.take().expect("an open file leaves the job with us");
            job.step.give(open);
            self.next(context, job);
        }
    }

    /// Starts the job's next ring operation.
    fn next(&mut self, context: &mut Context, mut job: SegmentJob) {
        let entry = match &mut job.step {
            Step::Write { open: None, .. } | Step::Lay { open: None, .. } | Step::SyncFile { open: None } => {
                return self.with_file(context, job, Mode::Write);
            }
            Step::Read { open: None, .. } => return self.with_file(context, job, Mode::Read),
            Step::Write { open: Some(open), position, bytes, done } => {
                let rest = &bytes[*done..];
                let length = rest.len().min(PIECE_BYTES_MAX) as u32;
                opcode::Write::new(types::Fd(open.fd()), rest.as_ptr(), length)
                    .offset(*position + *done as u64)
                    .build()
            }
            Step::Lay { open: Some(open), position, parts, pieces, done } => {
                pieces_behind(parts, *done, pieces);
                opcode::Writev::new(types::Fd(open.fd()), pieces.as_ptr(), pieces.len() as u32)
                    .offset(*position + *done as u64)
                    .rw_flags(libc::RWF_DSYNC)
                    .build()
            }
            Step::Read { open: Some(open), position, buffer } => {
                let offset = *position + buffer.filled() as u64;
                let (pointer, rest) = buffer.rest();
                let length = rest.min(PIECE_BYTES_MAX) as u32;
                opcode::Read::new(types::Fd(open.fd()), pointer, length).offset(offset).build()
            }
            Step::SyncFile { open: Some(open) } => {
                opcode::Fsync::new(types::Fd(open.fd())).flags(types::FsyncFlags::DATASYNC).build()
            }
            Step::OpenDirectory { path } => {
                let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
                opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr()).flags(flags).build()
            }
            Step::SyncDirectory { directory } => opcode::Fsync::new(types::Fd(directory.as_raw_fd())).build(),
            Step::SyncRoot => opcode::Fsync::new(types::Fd(self.files.root_fd())).build(),
            Step::Unlink { path } => {
                let opening = Mode::ALL.map(|mode| (job.file, mode));
                if let Some(key) = opening.into_iter().find(|key| self.files.is_opening(*key)) {
                    // Removed once it is open, else its descriptor would stay with us.
                    return self.files.wait_for(key, Waiter::Job(job));
                }
                let entry = opcode::UnlinkAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr()).build();
                self.files.forget(job.file);
                self.files.close_unused(context);
                entry.flags(squeue::Flags::ASYNC)
            }
            Step::RemoveDirectory { path } => {
                let unlink = opcode::UnlinkAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr());
                unlink.flags(libc::AT_REMOVEDIR).build()
            }
        };
        // SAFETY: buffers, paths and descriptors are owned by the job (on the heap), the root's by the files.
        unsafe { context.start(Op::Segment(job), |_| entry) };
    }

    /// Files were opened, or not: their jobs go on, or fail.
    pub fn handle_opened(&mut self, context: &mut Context, (jobs, result): Opened) {
        for mut job in jobs {
            match &result {
                Ok(open) => {
                    job.step.give(open.clone());
                    self.next(context, job);
                }
                Err(errno) => match job.step {
                    Step::Unlink { .. } => self.next(context, job),
                    Step::Read { .. } if *errno == libc::ENOENT => {
                        context.disk_done(job.ticket, Ok(Bytes::new()))
                    }
                    _ => {
                        let error = disk_error("open", &self.files.path(job.file), *errno);
                        context.disk_done(job.ticket, Err(error));
                    }
                },
            }
        }
    }

    /// A ring operation of a job is done.
    pub fn handle(&mut self, context: &mut Context, mut job: SegmentJob, result: i32) {
        if matches!(-result, libc::EINTR | libc::EAGAIN) {
            return self.next(context, job);
        }
        match &mut job.step {
            Step::Unlink { .. } if result >= 0 || result == -libc::ENOENT => {
                let path = c_path(&self.files.directory(job.file.partition));
                job.step = Step::RemoveDirectory { path };
                return self.next(context, job);
            }
            Step::RemoveDirectory { .. } => {
                if result >= 0 {
                    self.files.synced_directories.remove(&job.file.partition);
                }
                return context.disk_done(job.ticket, Ok(Bytes::new()));
            }
            // The file and its directory were removed meanwhile: nothing to sync.
            Step::OpenDirectory { .. } if result == -libc::ENOENT => {
                return context.disk_done(job.ticket, Ok(Bytes::new()));
            }
            _ if result < 0 => return self.fail(context, &job, -result),
            _ => {}
        }
        self.succeed(context, job, result);
    }

    fn fail(&mut self, context: &mut Context, job: &SegmentJob, errno: i32) {
        let what = match job.step {
            Step::Write { .. } | Step::Lay { .. } => "write",
            Step::Read { .. } => "read",
            Step::Unlink { .. } | Step::RemoveDirectory { .. } => "remove",
            _ => "sync",
        };
        context.disk_done(job.ticket, Err(disk_error(what, &self.files.path(job.file), errno)));
    }

    fn succeed(&mut self, context: &mut Context, mut job: SegmentJob, result: i32) {
        let partition = job.file.partition;
        match &mut job.step {
            Step::Write { bytes, done, .. } => {
                *done += result as usize;
                if *done < bytes.len() {
                    if result == 0 || *done % BLOCK_BYTES != 0 {
                        return self.fail(context, &job, libc::EIO);
                    }
                    return self.next(context, job);
                }
                meter::add(&context.meter.segment_writes, 1);
                meter::add(&context.meter.segment_bytes, bytes.len() as u64);
            }
            Step::Lay { parts, done, .. } => {
                *done += result as usize;
                let total: usize = parts.iter().map(Bytes::len).sum();
                if *done < total {
                    if result == 0 || *done % BLOCK_BYTES != 0 {
                        return self.fail(context, &job, libc::EIO);
                    }
                    return self.next(context, job);
                }
                meter::add(&context.meter.segment_writes, 1);
                meter::add(&context.meter.segment_bytes, total as u64);
                if self.files.unsynced.contains(&job.file) {
                    let path = c_path(&self.files.directory(partition));
                    job.step = Step::OpenDirectory { path };
                    return self.next(context, job);
                }
            }
            Step::Read { buffer, .. } => {
                // SAFETY: the kernel reported that many bytes read to where `rest` pointed.
                unsafe { buffer.advance(result as usize) };
                if result > 0 && !buffer.is_full() {
                    return self.next(context, job);
                }
                let Step::Read { buffer, .. } = job.step else { return };
                return context.disk_done(job.ticket, Ok(buffer.freeze()));
            }
            Step::SyncFile { .. } if self.files.unsynced.contains(&job.file) => {
                let path = c_path(&self.files.directory(partition));
                job.step = Step::OpenDirectory { path };
                return self.next(context, job);
            }
            Step::OpenDirectory { .. } => {
                // SAFETY: the kernel has just opened it for us.
                let directory = unsafe { OwnedFd::from_raw_fd(result) };
                job.step = Step::SyncDirectory { directory };
                return self.next(context, job);
            }
            Step::SyncDirectory { .. } if !self.files.synced_directories.contains(&partition) => {
                job.step = Step::SyncRoot;
                return self.next(context, job);
            }
            Step::SyncRoot => {
                self.files.synced_directories.insert(partition);
                self.files.unsynced.remove(&job.file);
            }
            Step::SyncDirectory { .. } => {
                self.files.unsynced.remove(&job.file);
            }
            Step::SyncFile { .. } | Step::Unlink { .. } | Step::RemoveDirectory { .. } => {}
        }
        context.disk_done(job.ticket, Ok(Bytes::new()));
    }
}

impl Step {
    fn give(&mut self, file: Rc<File>) {
        if let Step::Write { open, .. }
        | Step::Lay { open, .. }
        | Step::Read { open, .. }
        | Step::SyncFile { open } = self
        {
            *open = Some(file);
        }
    }
}
