//! A shard's own files: the circular journal (made once, of written blocks) and the two checkpoint slots.
//! What the bytes mean is the log crate's business.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use io_uring::{opcode, types};
use pelton_model::AlignedBuffer;
use pelton_model::limits::BLOCK_BYTES;
use pelton_shard::disk::{CheckpointFile, DiskError, Ticket};
use pelton_shard::{DiskImage, SegmentReader};

use crate::context::Context;
use crate::files::disk_error;
use crate::mapping::Mapping;
use crate::meter;
use crate::ops::Op;
use crate::write_back::WriteBack;

/// The journal is zeroed and read in pieces of this many bytes.
const PIECE_BYTES: usize = 1024 * 1024;
/// A group that need not be on stable storage goes through the page cache up to this size: it survives the process there,
/// and is there several times sooner than a device answers. A larger one would only be copied once more.
const CACHED_BYTES_MAX: usize = 256 * 1024;

/// A journal operation in flight.
pub struct JournalJob {
    ticket: Ticket,
    step: Step,
}

enum Step {
    Write { position: u64, bytes: Bytes, done: usize, sync: bool },
    Sync,
}

/// The journal and checkpoints of a shard.
pub struct Journal {
    directory: PathBuf,
    /// With O_DIRECT.
    file: fs::File,
    /// The same file through the page cache. A flush of either covers both.
    cached: fs::File,
    length: u64,
    cached_groups: WriteBack,
}

fn at(what: &str, path: &Path, error: io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => disk_error(what, path, errno).text,
        None => format!("{what} {}: {error}", path.display()),
    }
}

fn direct(path: &Path) -> io::Result<fs::File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(path)
}

/// Makes a directory's entries durable.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// Writes a journal of zeros beside its final name and moves it there: a crash leaves no half-made journal.
fn create(directory: &Path, path: &Path, length: u64) -> io::Result<()> {
    let new = directory.join("journal.new");
    let flags = libc::O_DIRECT;
    let file = OpenOptions::new().write(true).create(true).truncate(true).custom_flags(flags).open(&new)?;
    let zeros = AlignedBuffer::zeroed(PIECE_BYTES);
    let mut position = 0;
    while position < length {
        let piece = PIECE_BYTES.min((length - position) as usize);
        file.write_all_at(&zeros.as_ref()[..piece], position)?;
        position += piece as u64;
    }
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_directory(directory)
}

/// Whether a group goes through the page cache.
fn is_cached(bytes: &Bytes, sync: bool) -> bool {
    !sync && bytes.len() <= CACHED_BYTES_MAX
}

impl Journal {
    /// Opens the journal in `directory`, made with `length` bytes if there is none. Blocks; for the start of a shard.
    pub fn open(directory: &Path, length: u64) -> Result<Journal, String> {
        fs::create_dir_all(directory).map_err(|error| at("create", directory, error))?;
        if let Some(parent) = directory.parent() {
            sync_directory(parent).map_err(|error| at("sync", parent, error))?;
        }
        let path = directory.join("journal");
        if !path.exists() {
            create(directory, &path, length).map_err(|error| at("create", &path, error))?;
        }
        let file = direct(&path).map_err(|error| at("open", &path, error))?;
        let found = file.metadata().map_err(|error| at("stat", &path, error))?.len();
        if found != length {
            return Err(format!(
                "{} has {found} bytes, but pelton.journal.bytes is {length}; set it to {found}: \
                 a journal keeps the size it was made with",
                path.display()
            ));
        }
        let cached = OpenOptions::new().write(true).open(&path).map_err(|error| at("open", &path, error))?;
        Ok(Journal {
            directory: directory.to_path_buf(),
            file,
            cached,
            length,
            cached_groups: WriteBack::default(),
        })
    }

    /// Everything a shard recovers from. Blocks; for the start of a shard.
    pub fn image(&self, segments: SegmentReader) -> Result<DiskImage, String> {
        let path = self.directory.join("journal");
        let mut journal =
            Mapping::new(self.length as usize).map_err(|error| at("map memory for", &path, error))?;
        for (piece, bytes) in journal.as_mut_slice().chunks_mut(PIECE_BYTES).enumerate() {
            let position = (piece * PIECE_BYTES) as u64;
            self.file.read_exact_at(bytes, position).map_err(|error| at("read", &path, error))?;
        }
        let checkpoints = [self.checkpoint(0)?, self.checkpoint(1)?];
        Ok(DiskImage { checkpoints, journal: journal.freeze(), segments })
    }

    fn checkpoint_path(&self, slot: u8) -> PathBuf {
        self.directory.join(format!("checkpoint.{slot}"))
    }

    /// A slot's bytes; an empty file (a crash between making and filling it) counts as none.
    fn checkpoint(&self, slot: u8) -> Result<Option<Bytes>, String> {
        let path = self.checkpoint_path(slot);
        let mut bytes = Vec::new();
        match fs::File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(Bytes::from(bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at("read", &path, error)),
        }
    }

    /// Starts a write.
    pub fn write(&mut self, context: &mut Context, ticket: Ticket, position: u64, bytes: Bytes, sync: bool) {
        let block = BLOCK_BYTES as u64;
        let whole =
            position.is_multiple_of(block) && bytes.len().is_multiple_of(BLOCK_BYTES) && !bytes.is_empty();
        if !whole || position + bytes.len() as u64 > self.length {
            let text = format!(
                "journal write of {} bytes at {position} does not fit blocks of {BLOCK_BYTES} in {} bytes",
                bytes.len(),
                self.length
            );
            return context.disk_done(ticket, Err(DiskError { no_space: false, text }));
        }
        let bytes = crate::segments::aligned(bytes);
        let is_cached = is_cached(&bytes, sync);
        if let Some(due) = is_cached.then(|| self.cached_groups.add(position, bytes.len())).flatten() {
            self.write_back(context, due);
        }
        self.next(context, JournalJob { ticket, step: Step::Write { position, bytes, done: 0, sync } });
    }

    /// Starts a flush of what was written.
    pub fn sync(&mut self, context: &mut Context, ticket: Ticket) {
        self.next(context, JournalJob { ticket, step: Step::Sync });
    }

    fn next(&mut self, context: &mut Context, job: JournalJob) {
        let fd = types::Fd(self.file.as_raw_fd());
        let entry = match &job.step {
            Step::Write { position, bytes, done, sync } => {
                let fd = if is_cached(bytes, *sync) { types::Fd(self.cached.as_raw_fd()) } else { fd };
                let rest = &bytes[*done..];
                opcode::Write::new(fd, rest.as_ptr(), rest.len().min(1 << 30) as u32)
                    .offset(position + *done as u64)
                    .rw_flags(if *sync { libc::RWF_DSYNC } else { 0 })
                    .build()
            }
            Step::Sync => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
        };
        // SAFETY: the job owns a handle to the bytes; the journal's descriptor is open until all operations are done.
        unsafe { context.start(Op::Journal(job), |_| entry) };
    }

    /// Has the kernel begin to write what is in the page cache.
    fn write_back(&mut self, context: &mut Context, due: Range<u64>) {
        let entry =
            opcode::SyncFileRange::new(types::Fd(self.cached.as_raw_fd()), (due.end - due.start) as u32)
                .offset(due.start)
                .flags(libc::SYNC_FILE_RANGE_WRITE)
                .build();
        // SAFETY: no memory is named; the journal's descriptor is open until all operations are done.
        unsafe { context.start(Op::Ignored, |_| entry) };
    }

    /// A step is done.
    pub fn handle(&mut self, context: &mut Context, mut job: JournalJob, result: i32) {
        if matches!(-result, libc::EINTR | libc::EAGAIN) {
            return self.next(context, job);
        }
        let path = self.directory.join("journal");
        if result < 0 {
            return context.disk_done(job.ticket, Err(disk_error("write", &path, -result)));
        }
        if let Step::Write { bytes, done, .. } = &mut job.step {
            *done += result as usize;
            if *done < bytes.len() {
                if result == 0 || *done % BLOCK_BYTES != 0 {
                    let error = disk_error("short write to", &path, libc::EIO);
                    return context.disk_done(job.ticket, Err(error));
                }
                return self.next(context, job);
            }
            meter::add(&context.meter.journal_writes, 1);
            meter::add(&context.meter.journal_bytes, bytes.len() as u64);
        }
        context.disk_done(job.ticket, Ok(Bytes::new()));
    }

    /// Replaces a checkpoint slot. The other slot stays valid throughout, so a torn one costs nothing: its checksum fails.
    pub fn write_checkpoint(
        &mut self,
        context: &mut Context,
        ticket: Ticket,
        slot: u8,
        file: CheckpointFile,
    ) {
        let (path, directory) = (self.checkpoint_path(slot), self.directory.clone());
        context.spawn_blocking(ticket, move || {
            let replace = || -> io::Result<()> {
                let bytes = file.bytes();
                let mut file = fs::File::create(&path)?;
                file.write_all(&bytes)?;
                file.sync_all()?;
                sync_directory(&directory)
            };
            match replace() {
                Ok(()) => Ok(Bytes::new()),
                Err(error) => {
                    let errno = error.raw_os_error().unwrap_or(libc::EIO);
                    Err(disk_error("write checkpoint", &path, errno))
                }
            }
        });
    }
}
