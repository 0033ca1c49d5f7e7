//! The file system and the block device under a directory. Looks only at metadata, never at the data.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::{Machine, read};

/// Numbers of `statfs.f_type` (statfs(2)) worth a name.
const FILE_SYSTEMS: &[(i64, &str)] = &[
    (0xEF53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683E, "btrfs"),
    (0x0102_1994, "tmpfs"),
    (0x794C_7630, "overlayfs"),
    (0x6969, "nfs"),
    (0xFF53_4D42, "cifs"),
    (0x6573_5546, "fuse"),
    (0xF2F5_2010, "f2fs"),
    (0x2FC1_2FC1, "zfs"),
];

fn statfs(path: &Path) -> Option<libc::statfs> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: `path` ends in a zero byte and `stat` is room for what the call writes.
    let done = unsafe { libc::statfs(path.as_ptr(), stat.as_mut_ptr()) };
    // SAFETY: zeroed is a valid statfs, and a successful call has filled it.
    (done == 0).then(|| unsafe { stat.assume_init() })
}

/// Bytes that an ordinary user may still write below `path`; none if it cannot be told.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let stat = statfs(path)?;
    Some((stat.f_bavail).saturating_mul(stat.f_bsize as u64))
}

/// The file system's name below `path`, or its number in hexadecimal.
pub fn file_system(path: &Path) -> Option<String> {
    let number = statfs(path)?.f_type;
    let name = FILE_SYSTEMS.iter().find(|(known, _)| *known == number).map(|(_, name)| (*name).to_string());
    Some(name.unwrap_or_else(|| format!("{number:#x}")))
}

/// `queue` directory of the disk (not of the partition) that `path` lies on; none for tmpfs, overlay and the like.
fn queue_directory(root: &Path, path: &Path) -> Option<PathBuf> {
    let device = fs::metadata(path).ok()?.dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    let block = fs::canonicalize(root.join(format!("sys/dev/block/{major}:{minor}"))).ok()?;
    [block.join("queue"), block.parent()?.join("queue")].into_iter().find(|queue| queue.is_dir())
}

/// The chosen word of a queue setting of the disk below the data directory.
pub fn queue_choice(machine: &Machine<'_>, setting: &str) -> Option<String> {
    read::chosen(&queue_directory(machine.root, machine.data_dir)?, setting)
}
