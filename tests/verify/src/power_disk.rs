//! A disk whose power can be cut, for real processes: ext4 on a loop device over a file that a process of ours serves (FUSE). What was
//! written and not flushed is in that process's memory only, as in a device's volatile cache; a cut loses a part of it, in no order, some
//! of it torn. Needs root, /dev/fuse and loop devices. Never mounts or unmounts but below its own directory.

use crate::power_server::{READY, SIZE_OF_DISK};
use crate::small_disk::run as command;
use pelton_bench::Outcome;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// `linux/fs.h`; the crate `libc` has neither.
const FIFREEZE: libc::c_ulong = 0xc004_5877;
const FITHAW: libc::c_ulong = 0xc004_5878;

/// Mounts made by this thread, and those it starts, are theirs alone from here on: a process that somebody starts in a namespace of its
/// own would keep a copy of them, and so the file system alive when it is unmounted here.
pub fn own_mounts() -> Outcome<()> {
    // SAFETY: plain system calls; the strings are literals that end with NUL.
    let done = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(
                std::ptr::null(),
                c"/".as_ptr(),
                std::ptr::null(),
                libc::MS_REC | libc::MS_PRIVATE,
                std::ptr::null(),
            ) == 0
    };
    if done { Ok(()) } else { Err(format!("mounts of our own: {}", std::io::Error::last_os_error())) }
}

/// How requests are queued when they are to be small: KiB of one, and how many at once.
const SMALL_REQUESTS: [(&str, &str); 2] = [("max_sectors_kb", "4"), ("nr_requests", "4")];

/// A mounted file system on such a disk.
#[derive(Debug)]
pub struct PowerDisk {
    server: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    dir: PathBuf,
    /// What was changed of the device's queue, and how it was.
    queued: Vec<(PathBuf, String)>,
    /// Where the file system is mounted.
    pub path: PathBuf,
}

impl PowerDisk {
    /// Makes, formats and mounts one at `<dir>/power`.
    pub fn new(dir: &Path, seed: u64) -> Outcome<PowerDisk> {
        let failed = |error: std::io::Error| format!("{}: {error}", dir.display());
        let path = dir.join("power");
        std::fs::create_dir_all(&path).map_err(failed)?;
        std::fs::create_dir_all(dir.join("raw")).map_err(failed)?;
        let backing = dir.join("power.img");
        File::create(&backing).and_then(|file| file.set_len(SIZE_OF_DISK)).map_err(failed)?;
        command("mkfs.ext4", &["-q", "-F", "-m", "0", &backing.to_string_lossy()])?;
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut server = Command::new(program)
            .arg("power-disk")
            .args(["--dir", &dir.to_string_lossy(), "--seed", &seed.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start a disk: {error}"))?;
        let (orders, answers) = (server.stdin.take(), server.stdout.take());
        let answers = BufReader::new(answers.ok_or("no answers of the disk")?);
        let mut disk =
            PowerDisk { server, orders, answers, dir: dir.to_path_buf(), queued: Vec::new(), path };
        match disk.answer()?.as_str() {
            READY => {}
            other => return Err(other.to_string()),
        }
        disk.mount()?;
        Ok(disk)
    }

    fn answer(&mut self) -> Outcome<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(|error| format!("the disk's process: {error}"))?;
        Ok(line.trim().to_string())
    }

    fn order(&mut self, words: &str) -> Outcome<String> {
        let orders = self.orders.as_mut().ok_or("the disk is gone")?;
        orders
            .write_all(format!("{words}\n").as_bytes())
            .map_err(|error| format!("the disk's process: {error}"))?;
        self.answer()
    }

    fn mount(&self) -> Outcome<()> {
        let file = self.dir.join("raw/disk");
        command("mount", &["-o", "loop", &file.to_string_lossy(), &self.path.to_string_lossy()])
    }

    /// A file of the kernel's that says how requests for the device are queued, and what it says.
    fn queue(&self, name: &str) -> Outcome<(PathBuf, String)> {
        let mounts =
            std::fs::read_to_string("/proc/thread-self/mounts").map_err(|error| error.to_string())?;
        let here = |line: &&str| line.split(' ').nth(1) == self.path.to_str();
        let device = mounts.lines().rev().find(here).and_then(|line| line.split(' ').next());
        let device =
            device.and_then(|device| device.strip_prefix("/dev/")).ok_or("the disk has no device")?;
        let file = PathBuf::from(format!("/sys/block/{device}/queue/{name}"));
        let value = std::fs::read_to_string(&file);
        let value = value.map_err(|error| format!("{}: {error}", file.display()))?;
        Ok((file, value.trim().to_string()))
    }

    /// Until it is mounted anew, the kernel asks for one block at a time and for few at once: of much that is to be written most still
    /// waits when a flush that was asked for later is done.
    pub fn small_requests(&mut self) -> Outcome<()> {
        for (name, value) in SMALL_REQUESTS {
            let (file, before) = self.queue(name)?;
            std::fs::write(&file, value).map_err(|error| format!("{}: {error}", file.display()))?;
            self.queued.push((file, before));
        }
        Ok(())
    }

    fn unmount(&mut self) -> Outcome<()> {
        for (file, before) in self.queued.drain(..) {
            let _ = std::fs::write(file, before);
        }
        let mut last = Ok(());
        for _ in 0..100 {
            last = command("umount", &[&self.path.to_string_lossy()]);
            if last.is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        last
    }

    /// The power goes: how many of the blocks that were not flushed are lost, of how many. Every request fails from here on.
    pub fn cut(&mut self) -> Outcome<String> {
        self.order("off")
    }

    /// The same, and nothing that was not flushed is left.
    pub fn cut_wholly(&mut self) -> Outcome<String> {
        self.order("off all")
    }

    /// Flushes come to no end from here on, and whatever comes behind them has to wait; or all go on.
    pub fn hold_flushes(&mut self, hold: bool) -> Outcome<()> {
        self.order(if hold { "hold" } else { "let-go" }).map(|_| ())
    }

    /// Each flush takes so many microseconds longer from here on.
    pub fn slow(&mut self, us: u64) -> Outcome<()> {
        self.order(&format!("slow {us}")).map(|_| ())
    }

    /// Each write takes so many microseconds longer from here on.
    pub fn slow_writes(&mut self, us: u64) -> Outcome<()> {
        self.order(&format!("slow-writes {us}")).map(|_| ())
    }

    /// Writes fail from here on, or do not any more.
    pub fn refuse_writes(&mut self, refuse: bool) -> Outcome<()> {
        self.order(if refuse { "refuse" } else { "accept" }).map(|_| ())
    }

    /// Every write to the file system waits from here on, also one to the page cache, or does not any more.
    pub fn freeze(&mut self, freeze: bool) -> Outcome<()> {
        let failed = |error: std::io::Error| format!("{}: {error}", self.path.display());
        let root = File::open(&self.path).map_err(failed)?;
        // SAFETY: both take no argument.
        let done = unsafe { libc::ioctl(root.as_raw_fd(), if freeze { FIFREEZE } else { FITHAW }, 0) };
        if done == 0 { Ok(()) } else { Err(failed(std::io::Error::last_os_error())) }
    }

    /// It is back: nobody may have files open. The file system is mounted anew, and what its journal has is replayed.
    pub fn restore(&mut self) -> Outcome<()> {
        self.unmount()?;
        self.order("on")?;
        self.mount()
    }
}

impl Drop for PowerDisk {
    fn drop(&mut self) {
        let _ = self.unmount();
        // Without orders it ends.
        drop(self.orders.take());
        let _ = self.server.wait();
        let _ = std::fs::remove_file(self.dir.join("power.img"));
    }
}

#[cfg(test)]
mod tests {
    use crate::power_server::Cache;
    use std::os::unix::fs::FileExt;

    /// The whole of it needs the program itself; that `pelton-verify` is started with a disk proves it in each run.
    #[test]
    fn what_was_flushed_stays_and_what_was_not_may_go() {
        let path = std::env::temp_dir().join(format!("pelton-power-{}", std::process::id()));
        let file =
            std::fs::File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
        file.set_len(1 << 20).unwrap();
        let mut cache = Cache::new(file, 7);
        cache.write(100, &[1; 8000]).unwrap();
        cache.flush().unwrap();
        (0..64).for_each(|block| cache.write(65_536 + block * 4096, &[2; 4096]).unwrap());
        assert_eq!(cache.read(65_536, 4096).unwrap(), [2; 4096]);
        let (lost, of) = cache.lose(false).unwrap();
        assert!(of == 64 && lost > 16 && lost < 64, "{lost} of {of}");
        let mut kept = [0; 8000];
        std::fs::File::open(&path).unwrap().read_exact_at(&mut kept, 100).unwrap();
        assert_eq!((kept, cache.read(100, 8000).unwrap()), ([1; 8000], vec![1; 8000]));
        cache.write(0, &[3; 4096]).unwrap();
        assert_eq!(cache.lose(true).unwrap(), (1, 1));
        assert_ne!(cache.read(0, 4096).unwrap(), [3; 4096]);
        std::fs::remove_file(&path).unwrap();
    }
}
