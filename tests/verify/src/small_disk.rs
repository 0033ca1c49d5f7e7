//! A small file system of one node's own (ext4 in a file, mounted through a loop device), so that it can be full without anything else
//! being so. Never mounts or unmounts but below its own directory.

use pelton_bench::Outcome;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted file system.
#[derive(Debug)]
pub struct SmallDisk {
    image: PathBuf,
    /// Where it is mounted.
    pub path: PathBuf,
}

/// Runs a program: what it says if it fails.
pub fn run(program: &str, arguments: &[&str]) -> Outcome<()> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
    }
}

fn free(path: &Path) -> Outcome<u64> {
    let text = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|error| error.to_string())?;
    // SAFETY: zeroed bytes are a valid statvfs; the path ends with NUL.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: as above, and the struct lives.
    if unsafe { libc::statvfs(text.as_ptr(), &mut found) } != 0 {
        return Err(format!("{}: {}", path.display(), std::io::Error::last_os_error()));
    }
    Ok(found.f_bavail * found.f_frsize)
}

impl SmallDisk {
    /// Makes and mounts one of `bytes` at `<dir>/disk`.
    pub fn new(dir: &Path, bytes: u64) -> Outcome<SmallDisk> {
        let failed = |error: std::io::Error| format!("{}: {error}", dir.display());
        let (image, path) = (dir.join("disk.img"), dir.join("disk"));
        std::fs::create_dir_all(&path).map_err(failed)?;
        File::create(&image).and_then(|file| file.set_len(bytes)).map_err(failed)?;
        let (image_text, path_text) =
            (image.to_string_lossy().into_owned(), path.to_string_lossy().into_owned());
        // No blocks kept for root, whom the broker may run as.
        run("mkfs.ext4", &["-q", "-F", "-m", "0", &image_text])?;
        run("mount", &["-o", "loop", &image_text, &path_text])?;
        Ok(SmallDisk { image, path })
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }

    /// Takes all space that is left: how much that was.
    pub fn fill(&self) -> Outcome<u64> {
        let failed = |error: std::io::Error| format!("{}: {error}", self.filler().display());
        let file = File::options().create(true).append(true).open(self.filler()).map_err(failed)?;
        let before = free(&self.path)?;
        let mut piece = before;
        while piece >= 4096 {
            let from = file.metadata().map_err(failed)?.len();
            // SAFETY: a plain system call on a live descriptor.
            let result =
                unsafe { libc::fallocate(file.as_raw_fd(), 0, from as libc::off_t, piece as libc::off_t) };
            // One that fails may have taken blocks all the same.
            piece = if result == 0 { free(&self.path)?.min(piece) } else { piece / 2 };
        }
        Ok(before - free(&self.path)?.min(before))
    }

    /// Gives it back.
    pub fn empty(&self) -> Outcome<()> {
        std::fs::remove_file(self.filler()).map_err(|error| format!("{}: {error}", self.filler().display()))
    }

    fn unmount(&self) {
        let path = self.path.to_string_lossy().into_owned();
        for _ in 0..50 {
            if run("umount", &[&path]).is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        let _ = std::fs::remove_file(&self.image);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.unmount();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where no loop device can be mounted (not root), the run says so itself; there is nothing to test then.
    #[test]
    fn what_is_full_takes_nothing_and_what_is_emptied_does() {
        let dir = std::env::temp_dir().join(format!("pelton-small-disk-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        if let Ok(disk) = SmallDisk::new(&dir, 64 << 20) {
            let taken = disk.fill().unwrap();
            assert!((32 << 20..64 << 20).contains(&taken), "{taken} bytes taken");
            assert!(std::fs::write(disk.path.join("more"), [7; 8192]).is_err());
            disk.empty().unwrap();
            std::fs::write(disk.path.join("more"), [7; 8192]).unwrap();
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
