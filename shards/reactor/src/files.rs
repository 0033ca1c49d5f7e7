//! Files of partitions by what they hold: paths, and a bounded set of open descriptors. Opening, making directories and
//! closing happen on the ring's worker threads, never on the shard's.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use io_uring::{opcode, squeue, types};
use pelton_model::{ConnectionId, PartitionKey};
use pelton_shard::SegmentReader;
use pelton_shard::disk::{DiskError, FileKind, SegmentFile};

use crate::context::Context;
use crate::ops::Op;
use crate::pieces::PieceKey;
use crate::segments::SegmentJob;

/// Descriptors of segments a shard keeps open.
const OPEN_FILES_MAX: usize = 512;
/// How often a directory that vanishes under us is made again before we give up.
const MKDIRS_MAX: u8 = 8;

/// What a descriptor is for: writes are direct, reads go through the page cache (never splice from a direct one).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Mode {
    /// O_RDWR | O_CREAT | O_DIRECT.
    Write,
    /// O_RDONLY.
    Read,
    /// O_RDONLY | O_DIRECT.
    Direct,
}

impl Mode {
    /// Every purpose.
    pub const ALL: [Mode; 3] = [Mode::Write, Mode::Read, Mode::Direct];
}

/// A descriptor by file and purpose.
pub type Key = (SegmentFile, Mode);

/// An open descriptor; closed, on a worker thread, after its last user is done.
pub struct File {
    fd: RawFd,
    closing: Rc<RefCell<Vec<RawFd>>>,
}

impl File {
    /// The descriptor, open as long as the file lives.
    pub fn fd(&self) -> RawFd {
        self.fd
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.closing.borrow_mut().push(self.fd);
    }
}

/// Who waits for a file to be open.
pub enum Waiter {
    /// A disk operation, continued with the file.
    Job(SegmentJob),
    /// A connection with a file range to send.
    Connection(ConnectionId),
    /// A piece to be read.
    Piece(PieceKey),
}

enum Entry {
    Opening(Vec<Waiter>),
    Open { file: Rc<File>, used: u64 },
}

/// The jobs that waited for a file, and the file or the errno.
pub type Opened = (Vec<SegmentJob>, Result<Rc<File>, i32>);

/// What asking for a file gives.
pub enum Lookup {
    /// It is open.
    Open(Rc<File>),
    /// It is being opened; the waiter is told.
    Later,
}

/// The open files of a shard.
pub struct Files {
    root_path: PathBuf,
    root: Arc<std::fs::File>,
    entries: BTreeMap<Key, Entry>,
    closing: Rc<RefCell<Vec<RawFd>>>,
    clock: u64,
    /// Files whose directory entry may not be on stable storage yet.
    pub unsynced: BTreeSet<SegmentFile>,
    /// Partitions whose directory's own entry is.
    pub synced_directories: BTreeSet<PartitionKey>,
}

/// An operating system error as the shard hears it: what, where, why, and what to do.
pub fn disk_error(what: &str, path: &Path, errno: i32) -> DiskError {
    let no_space = matches!(errno, libc::ENOSPC | libc::EDQUOT);
    let remedy = match errno {
        libc::ENOSPC | libc::EDQUOT => "free space on the device or shorten retention",
        libc::EMFILE | libc::ENFILE => "raise the limit of open files (ulimit -n, LimitNOFILE)",
        libc::EACCES | libc::EPERM | libc::EROFS => "make the data directory writable for this user",
        libc::EINVAL => "check that the file system supports O_DIRECT (`pelton check` says)",
        libc::EIO => "the device failed; replace it and restore from replicas or a backup",
        _ => "see the kernel log",
    };
    let cause = io::Error::from_raw_os_error(errno);
    DiskError { no_space, text: format!("{what} {}: {cause}; {remedy}", path.display()) }
}

/// A file's path under the directory that holds the partitions' directories.
pub fn path_under(root_path: &Path, file: SegmentFile) -> PathBuf {
    let extension = match file.kind {
        FileKind::Log => "log",
        FileKind::Index => "index",
    };
    let base_offset = file.base_offset.0;
    let name = match file.generation {
        0 => format!("{base_offset:020}.{extension}"),
        generation => format!("{base_offset:020}-{generation:016x}.{extension}"),
    };
    root_path.join(file.partition.to_string()).join(name)
}

/// Reads segments under `root_path` for recovery. Blocks; for the start of a shard.
pub fn recovery_reader(root_path: PathBuf) -> SegmentReader {
    SegmentReader::new(move |file, position, length| {
        let path = path_under(&root_path, file);
        let read = |error: io::Error| format!("read {}: {error}", path.display());
        let mut open = match fs::File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            open => open.map_err(read)?,
        };
        open.seek(SeekFrom::Start(position)).map_err(read)?;
        let mut bytes = Vec::new();
        open.take(length as u64).read_to_end(&mut bytes).map_err(read)?;
        Ok(Some(Bytes::from(bytes)))
    })
}

/// A path for the kernel. Our own paths hold no NUL: the data directory was opened by the same bytes at start.
pub fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

impl Files {
    /// The files under `root_path`, which exists.
    pub fn new(root_path: PathBuf) -> io::Result<Files> {
        let root = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(&root_path)?;
        Ok(Files {
            root_path,
            root: Arc::new(root),
            entries: BTreeMap::new(),
            closing: Rc::new(RefCell::new(Vec::new())),
            clock: 0,
            unsynced: BTreeSet::new(),
            synced_directories: BTreeSet::new(),
        })
    }

    /// The descriptor of the directory that holds the partitions' directories.
    pub fn root_fd(&self) -> RawFd {
        self.root.as_raw_fd()
    }

    /// That directory, for work elsewhere: its path and itself.
    pub fn root(&self) -> (PathBuf, Arc<std::fs::File>) {
        (self.root_path.clone(), self.root.clone())
    }

    /// A partition's directory.
    pub fn directory(&self, partition: PartitionKey) -> PathBuf {
        self.root_path.join(partition.to_string())
    }

    /// A file's path.
    pub fn path(&self, file: SegmentFile) -> PathBuf {
        path_under(&self.root_path, file)
    }

    /// The file, open, or a promise that `waiter` will be told.
    pub fn lookup(&mut self, context: &mut Context, key: Key, waiter: impl FnOnce() -> Waiter) -> Lookup {
        self.clock += 1;
        match self.entries.get_mut(&key) {
            Some(Entry::Open { file, used }) => {
                *used = self.clock;
                Lookup::Open(file.clone())
            }
            Some(Entry::Opening(waiters)) => {
                waiters.push(waiter());
                Lookup::Later
            }
            None => {
                self.entries.insert(key, Entry::Opening(vec![waiter()]));
                let path = c_path(&self.path(key.0));
                start_open(context, key, path, 0);
                Lookup::Later
            }
        }
    }

    /// True while the file is being opened.
    pub fn is_opening(&self, key: Key) -> bool {
        matches!(self.entries.get(&key), Some(Entry::Opening(_)))
    }

    /// Keeps `waiter` until a file that is being opened is open.
    pub fn wait_for(&mut self, key: Key, waiter: Waiter) {
        if let Some(Entry::Opening(waiters)) = self.entries.get_mut(&key) {
            waiters.push(waiter);
        }
    }

    /// Forgets the descriptors of a file that is about to be removed.
    pub fn forget(&mut self, file: SegmentFile) {
        for mode in Mode::ALL {
            if let Some(Entry::Open { .. }) = self.entries.get(&(file, mode)) {
                self.entries.remove(&(file, mode));
            }
        }
        self.unsynced.remove(&file);
    }

    /// The directory of a file to be opened is made, or not.
    pub fn handle_mkdir(
        &mut self,
        context: &mut Context,
        (key, path, mkdirs): (Key, CString, u8),
        result: i32,
    ) -> Option<Opened> {
        if result >= 0 || result == -libc::EEXIST {
            start_open(context, key, path, mkdirs);
            return None;
        }
        Some(self.opened(context, key, Err(-result)))
    }

    /// Opening a file is done, or not. Returns the jobs to continue, with the file or the error.
    pub fn handle_open(
        &mut self,
        context: &mut Context,
        (key, path, mkdirs): (Key, CString, u8),
        result: i32,
    ) -> Option<Opened> {
        if result == -libc::ENOENT && key.1 == Mode::Write && mkdirs < MKDIRS_MAX {
            self.synced_directories.remove(&key.0.partition);
            start_mkdir(context, key, path, c_path(&self.directory(key.0.partition)), mkdirs + 1);
            return None;
        }
        if result < 0 {
            return Some(self.opened(context, key, Err(-result)));
        }
        let file = Rc::new(File { fd: result, closing: self.closing.clone() });
        Some(self.opened(context, key, Ok(file)))
    }

    fn opened(&mut self, context: &mut Context, key: Key, result: Result<Rc<File>, i32>) -> Opened {
        let Some(Entry::Opening(waiters)) = self.entries.remove(&key) else {
            return (Vec::new(), result);
        };
        if let Ok(file) = &result {
            self.make_room();
            self.entries.insert(key, Entry::Open { file: file.clone(), used: self.clock });
            if key.1 == Mode::Write {
                self.unsynced.insert(key.0);
            }
        }
        let mut jobs = Vec::new();
        for waiter in waiters {
            match waiter {
                Waiter::Job(job) => jobs.push(job),
                Waiter::Connection(connection) => {
                    let outcome = match &result {
                        Ok(_) => Ok(()),
                        Err(errno) => Err(disk_error("open", &self.path(key.0), *errno).text),
                    };
                    context.opened.push((connection, outcome));
                }
                Waiter::Piece(piece) => {
                    let outcome = match &result {
                        Ok(_) => Ok(()),
                        Err(errno) => Err(disk_error("open", &self.path(key.0), *errno).text),
                    };
                    context.opened_pieces.push((piece, outcome));
                }
            }
        }
        (jobs, result)
    }

    fn make_room(&mut self) {
        while self.entries.len() >= OPEN_FILES_MAX {
            let oldest = self.entries.iter().filter_map(|(key, entry)| match entry {
                Entry::Open { used, .. } => Some((*used, *key)),
                Entry::Opening(_) => None,
            });
            let Some((_, key)) = oldest.min() else { return };
            self.entries.remove(&key);
        }
    }

    /// Hands descriptors nobody uses any more to the ring for closing. Called once per turn.
    pub fn close_unused(&mut self, context: &mut Context) {
        // A worker thread closes: the last close of a removed file frees its blocks, which takes time.
        for fd in self.closing.borrow_mut().drain(..) {
            let entry = opcode::Close::new(types::Fd(fd)).build().flags(squeue::Flags::ASYNC);
            // SAFETY: names no memory; the descriptor has no other owner.
            unsafe { context.start(Op::Ignored, |_| entry) };
        }
    }

    /// Forgets every descriptor, for the end of the shard.
    pub fn forget_all(&mut self) {
        self.entries.clear();
    }
}

fn start_open(context: &mut Context, key: Key, path: CString, mkdirs: u8) {
    let flags = match key.1 {
        Mode::Write => libc::O_RDWR | libc::O_CREAT | libc::O_DIRECT | libc::O_CLOEXEC,
        Mode::Read => libc::O_RDONLY | libc::O_CLOEXEC,
        Mode::Direct => libc::O_RDONLY | libc::O_DIRECT | libc::O_CLOEXEC,
    };
    let pointer = path.as_ptr();
    let entry = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), pointer).flags(flags).mode(0o644).build();
    // SAFETY: the path's bytes are on the heap and owned by the operation.
    unsafe { context.start(Op::Open { key, path, mkdirs }, |_| entry) };
}

fn start_mkdir(context: &mut Context, key: Key, path: CString, directory: CString, mkdirs: u8) {
    let entry = opcode::MkDirAt::new(types::Fd(libc::AT_FDCWD), directory.as_ptr()).mode(0o755).build();
    let op = Op::Mkdir { key, path, _directory: directory, mkdirs };
    // SAFETY: the directory's bytes are on the heap and owned by the operation.
    unsafe { context.start(op, |_| entry) };
}
