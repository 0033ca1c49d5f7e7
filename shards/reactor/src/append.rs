//! Appends of small pieces to many files at once, on the blocking pool: through the page cache, and then one flush for all.
//!
//! A direct write that extends a file, and a flush for each of thousands of files, cost tens of microseconds and several
//! device writes apiece. Written here they cost a few, and `syncfs` lets the file system bring all of them out together
//! with their metadata. But it also waits for what others have written to the same file system: where there is much of
//! that, files are flushed one by one, a few at a time, so that they share the device's flushes.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use pelton_shard::disk::{DiskError, SegmentPiece};

use crate::files::{disk_error, path_under};
use crate::journal::sync_directory;

/// So many files are flushed one by one.
const FLUSHED_ONE_BY_ONE: usize = 4;
/// With so much unwritten data of others on the machine too, bytes.
const OTHERS_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Flushes at a time.
const FLUSHERS: usize = 4;

fn open(path: &Path) -> io::Result<File> {
    match OpenOptions::new().write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(path.parent().unwrap_or(path))?;
            OpenOptions::new().write(true).create(true).truncate(false).open(path)
        }
        opened => opened,
    }
}

fn append(path: &Path, piece: &SegmentPiece) -> io::Result<File> {
    let file = open(path)?;
    let mut position = piece.position;
    for part in &piece.parts {
        file.write_all_at(part, position)?;
        position += part.len() as u64;
    }
    Ok(file)
}

/// Flushes the file, and the name of one that is new.
fn flush(path: &Path, piece: &SegmentPiece, file: &File) -> io::Result<()> {
    file.sync_data()?;
    match piece.position {
        // Whatever is in a segment already came with its name.
        0 => path.parent().map_or(Ok(()), sync_directory),
        _ => Ok(()),
    }
}

fn flush_all(root: &File) -> io::Result<()> {
    // SAFETY: a plain system call on an open descriptor.
    match unsafe { libc::syncfs(root.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Bytes in the page cache that wait to be written, whoever they belong to.
fn unwritten_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |line: &str| line.split_ascii_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    let lines = text.lines().filter(|line| line.starts_with("Dirty:") || line.starts_with("Writeback:"));
    lines.filter_map(kib).sum::<u64>() * 1024
}

/// Appends to each file, and flushes each if `flushing`.
fn append_each(root_path: &Path, pieces: &[SegmentPiece], flushing: bool) -> Result<(), DiskError> {
    for piece in pieces {
        let path = path_under(root_path, piece.file);
        let written = append(&path, piece).and_then(|file| match flushing {
            true => flush(&path, piece, &file),
            false => Ok(()),
        });
        written.map_err(|error| failed(&path, &error))?;
    }
    Ok(())
}

fn failed(path: &Path, error: &io::Error) -> DiskError {
    disk_error("append to", path, error.raw_os_error().unwrap_or(libc::EIO))
}

/// Appends all pieces under `root_path`, which is open as `root`, and makes them stable. Blocks.
pub fn append_all(root_path: &Path, root: &File, pieces: &[SegmentPiece]) -> Result<(), DiskError> {
    if pieces.len() > FLUSHED_ONE_BY_ONE && unwritten_bytes() <= OTHERS_BYTES_MAX {
        append_each(root_path, pieces, false)?;
        return flush_all(root).map_err(|error| failed(root_path, &error));
    }
    let share = pieces.len().div_ceil(FLUSHERS).max(1);
    std::thread::scope(|scope| {
        let flushers: Vec<_> = pieces
            .chunks(share)
            .map(|pieces| scope.spawn(move || append_each(root_path, pieces, true)))
            .collect();
        flushers.into_iter().try_for_each(|flusher| match flusher.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    if pieces.iter().any(|piece| piece.position == 0) {
        root.sync_all().map_err(|error| failed(root_path, &error))?;
    }
    Ok(())
}
