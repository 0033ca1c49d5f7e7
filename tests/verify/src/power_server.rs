//! The process behind a disk whose power can be cut: one directory with one file, served to the kernel (FUSE, protocol 7.31), whose unflushed
//! blocks are in memory only. Takes orders as lines: `off` (`off all`: nothing unflushed is left), `on`, `slow MICROSECONDS`,
//! `slow-writes MICROSECONDS`, `refuse`, `accept`, `hold`, `let-go`. Ends with its orders.

use crate::fault::Dice;
use pelton_bench::Outcome;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What it says when it serves.
pub const READY: &str = "ready";
/// Bytes.
pub const SIZE_OF_DISK: u64 = 4 << 30;
const BLOCK: usize = 4096;
const SECTOR: u64 = 512;
/// Blocks that a device keeps before it writes them by itself.
const BLOCKS_MAX: usize = 16 << 10;
/// Of a hundred unflushed blocks so many are lost, and so many torn.
const LOST: u64 = 60;
const TORN: u64 = 10;
/// Between two looks of a flush that is held whether it may go on.
const HELD: Duration = Duration::from_millis(1);
/// Most bytes of one write, as told to the kernel.
const WRITE_MAX: u32 = 1 << 20;
/// Flags of the protocol: writes of more than a page, and of so many pages as are said.
const BIG_WRITES: u32 = 1 << 5;
const MAX_PAGES: u32 = 1 << 22;

/// The volatile cache in front of what lasts.
#[derive(Debug)]
pub struct Cache {
    file: File,
    blocks: BTreeMap<u64, Vec<u8>>,
    dice: Dice,
}

impl Cache {
    /// Empty.
    pub fn new(file: File, seed: u64) -> Cache {
        Cache { file, blocks: BTreeMap::new(), dice: Dice::new(seed) }
    }

    fn block(&self, number: u64) -> std::io::Result<Vec<u8>> {
        match self.blocks.get(&number) {
            Some(block) => Ok(block.clone()),
            None => {
                let mut block = vec![0; BLOCK];
                self.file.read_exact_at(&mut block, number * BLOCK as u64)?;
                Ok(block)
            }
        }
    }

    /// What was written last.
    pub fn read(&self, offset: u64, size: usize) -> std::io::Result<Vec<u8>> {
        let size = size.min(SIZE_OF_DISK.saturating_sub(offset) as usize);
        let mut bytes = vec![0; size];
        self.file.read_exact_at(&mut bytes, offset)?;
        let (first, last) = (offset / BLOCK as u64, (offset + size as u64).div_ceil(BLOCK as u64));
        for (number, block) in self.blocks.range(first..last) {
            let at = number * BLOCK as u64;
            let (from, to) = (at.max(offset), (at + BLOCK as u64).min(offset + size as u64));
            let target = (from - offset) as usize..(to - offset) as usize;
            bytes[target].copy_from_slice(&block[(from - at) as usize..(to - at) as usize]);
        }
        Ok(bytes)
    }

    /// Takes a write into the cache.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let (number, within) = (at / BLOCK as u64, (at % BLOCK as u64) as usize);
            let part = (BLOCK - within).min(bytes.len() - done);
            let mut block = self.block(number)?;
            block[within..within + part].copy_from_slice(&bytes[done..done + part]);
            self.blocks.insert(number, block);
            done += part;
        }
        if self.blocks.len() > BLOCKS_MAX { self.flush() } else { Ok(()) }
    }

    /// What is in the cache lasts.
    pub fn flush(&mut self) -> std::io::Result<()> {
        for (number, block) in std::mem::take(&mut self.blocks) {
            self.file.write_all_at(&block, number * BLOCK as u64)?;
        }
        Ok(())
    }

    /// The power goes: blocks lost and torn, of how many. `wholly`: each of them is lost.
    pub fn lose(&mut self, wholly: bool) -> std::io::Result<(usize, usize)> {
        let blocks = std::mem::take(&mut self.blocks);
        let (mut lost, all) = (0, blocks.len());
        if wholly {
            return Ok((all, all));
        }
        for (number, block) in blocks {
            let kept = match self.dice.below(100) {
                draw if draw < LOST => 0,
                draw if draw < LOST + TORN => (SECTOR * self.dice.below(BLOCK as u64 / SECTOR)) as usize,
                _ => BLOCK,
            };
            lost += usize::from(kept < BLOCK);
            self.file.write_all_at(&block[..kept], number * BLOCK as u64)?;
        }
        Ok((lost, all))
    }
}

#[derive(Debug)]
struct Disk {
    cache: Mutex<Cache>,
    off: AtomicBool,
    refuses: AtomicBool,
    holds: AtomicBool,
    slow_us: AtomicU64,
    slow_writes_us: AtomicU64,
}

/// Numbers of the protocol's requests.
mod op {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const RELEASEDIR: u32 = 29;
    pub const BATCH_FORGET: u32 = 42;
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..at + N).and_then(|field| field.try_into().ok()).unwrap_or([0; N])
}

fn attributes(node: u64) -> Vec<u8> {
    let (size, mode) = if node == 1 { (0, 0o40755) } else { (SIZE_OF_DISK, 0o100600u32) };
    let mut out: Vec<u8> = [node, size, size / 512, 0, 0, 0].into_iter().flat_map(u64::to_le_bytes).collect();
    out.extend([0, 0, 0, mode, 1, 0, 0, 0, BLOCK as u32, 0].into_iter().flat_map(u32::to_le_bytes));
    out
}

impl Disk {
    /// The answer to one request, or an error number; none to one that wants none.
    fn answer(&self, request: u32, node: u64, body: &[u8]) -> Option<Result<Vec<u8>, i32>> {
        let held = || self.cache.lock().unwrap_or_else(|held| held.into_inner());
        let broken = |error: std::io::Error| error.raw_os_error().unwrap_or(libc::EIO);
        let live = |refuses: bool| match self.off.load(Ordering::SeqCst) || refuses {
            true => Err(libc::EIO),
            false => Ok(()),
        };
        let (offset, size) =
            (u64::from_le_bytes(number(body, 8)), u32::from_le_bytes(number(body, 16)) as usize);
        Some(match request {
            op::FORGET | op::BATCH_FORGET => return None,
            op::INIT => {
                let mut out: Vec<u8> = [7u32, 31, 65_536, BIG_WRITES | MAX_PAGES]
                    .into_iter()
                    .flat_map(u32::to_le_bytes)
                    .collect();
                out.extend([16u16, 12].into_iter().flat_map(u16::to_le_bytes));
                out.extend([WRITE_MAX, 1].into_iter().flat_map(u32::to_le_bytes));
                out.extend((WRITE_MAX / BLOCK as u32).to_le_bytes());
                out.resize(64, 0);
                Ok(out)
            }
            op::LOOKUP if body.strip_suffix(&[0]) != Some(b"disk") => Err(libc::ENOENT),
            op::LOOKUP => {
                let mut out: Vec<u8> =
                    [2u64, 2, 3600, 3600, 0].into_iter().flat_map(u64::to_le_bytes).collect();
                out.extend(attributes(2));
                Ok(out)
            }
            op::GETATTR => {
                let mut out: Vec<u8> = [3600u64, 0].into_iter().flat_map(u64::to_le_bytes).collect();
                out.extend(attributes(node));
                Ok(out)
            }
            // Past the page cache: it is not ours to keep anything from the disk.
            op::OPEN | op::OPENDIR => Ok([0u64, 1].into_iter().flat_map(u64::to_le_bytes).collect()),
            op::READ => {
                let cache = held();
                live(false).and_then(|()| cache.read(offset, size).map_err(broken))
            }
            op::WRITE => {
                std::thread::sleep(Duration::from_micros(self.slow_writes_us.load(Ordering::SeqCst)));
                let mut cache = held();
                let bytes = body.get(40..).unwrap_or_default();
                let live = live(self.refuses.load(Ordering::SeqCst));
                let written = live.and_then(|()| cache.write(offset, bytes).map_err(broken));
                written.map(|()| (bytes.len() as u64).to_le_bytes().to_vec())
            }
            op::FSYNC => {
                std::thread::sleep(Duration::from_micros(self.slow_us.load(Ordering::SeqCst)));
                while self.holds.load(Ordering::SeqCst) && !self.off.load(Ordering::SeqCst) {
                    std::thread::sleep(HELD);
                }
                let mut cache = held();
                live(false).and_then(|()| cache.flush().map_err(broken)).map(|()| Vec::new())
            }
            op::RELEASE | op::RELEASEDIR | op::FLUSH => Ok(Vec::new()),
            _ => Err(libc::ENOSYS),
        })
    }

    /// Serves until the file system is unmounted.
    fn serve(&self, mut device: &File) {
        let mut request = vec![0; WRITE_MAX as usize + 4096];
        loop {
            let length = match device.read(&mut request) {
                Ok(length) => length,
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return,
                Err(_) => continue,
            };
            let Some((header, body)) = request[..length].split_at_checked(40) else { continue };
            let (kind, node) =
                (u32::from_le_bytes(number(header, 4)), u64::from_le_bytes(number(header, 16)));
            let Some(answer) = self.answer(kind, node, body) else { continue };
            let (error, bytes) = match answer {
                Ok(bytes) => (0, bytes),
                Err(error) => (-error, Vec::new()),
            };
            let mut out = (16 + bytes.len() as u32).to_le_bytes().to_vec();
            out.extend(error.to_le_bytes());
            out.extend(&header[8..16]);
            out.extend(bytes);
            let _ = device.write_all(&out);
        }
    }

    fn order(&self, words: &str) -> Outcome<String> {
        let said = |text: &str| Ok(text.to_string());
        match words.split_once(' ').unwrap_or((words, "")) {
            ("off", how) => {
                // Nothing comes between the last write that counts and the loss.
                let mut cache = self.cache.lock().unwrap_or_else(|held| held.into_inner());
                self.off.store(true, Ordering::SeqCst);
                let (lost, all) = cache.lose(how == "all").map_err(|error| error.to_string())?;
                Ok(format!("{lost} of {all} unflushed blocks lost"))
            }
            ("on", _) => {
                self.off.store(false, Ordering::SeqCst);
                said("on")
            }
            ("slow", us) => {
                self.slow_us.store(us.parse().map_err(|_| format!("slow {us}"))?, Ordering::SeqCst);
                said("slow")
            }
            ("slow-writes", us) => {
                self.slow_writes_us
                    .store(us.parse().map_err(|_| format!("slow-writes {us}"))?, Ordering::SeqCst);
                said("slow-writes")
            }
            ("hold" | "let-go", _) => {
                self.holds.store(words == "hold", Ordering::SeqCst);
                said(words)
            }
            ("refuse" | "accept", _) => {
                self.refuses.store(words == "refuse", Ordering::SeqCst);
                said(words)
            }
            _ => Err(format!("the disk does not know {words}")),
        }
    }
}

/// Serves `<dir>/power.img` as `<dir>/raw/disk` until its standard input ends.
pub fn run(dir: &Path, seed: u64) -> Outcome<()> {
    let failed = |error: std::io::Error| format!("{}: {error}", dir.display());
    let file = File::options().read(true).write(true).open(dir.join("power.img")).map_err(failed)?;
    let device = File::options().read(true).write(true).open("/dev/fuse");
    let device = Arc::new(device.map_err(|error| format!("/dev/fuse: {error}"))?);
    let place = dir.join("raw");
    let text = |words: &[u8]| CString::new(words).map_err(|error| error.to_string());
    let (target, kind) = (text(place.as_os_str().as_encoded_bytes())?, text(b"fuse")?);
    let options = text(format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd()).as_bytes())?;
    // SAFETY: all strings end with NUL and live; the descriptor is open.
    let mounted =
        unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, options.as_ptr().cast()) };
    if mounted != 0 {
        return Err(format!("mounting {}: {}", place.display(), std::io::Error::last_os_error()));
    }
    let disk = Arc::new(Disk {
        cache: Mutex::new(Cache::new(file, seed)),
        off: AtomicBool::new(false),
        refuses: AtomicBool::new(false),
        holds: AtomicBool::new(false),
        slow_us: AtomicU64::new(0),
        slow_writes_us: AtomicU64::new(0),
    });
    let server = {
        let (disk, device) = (disk.clone(), device.clone());
        std::thread::spawn(move || disk.serve(&device))
    };
    println!("{READY}");
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        println!("{}", disk.order(line.trim()).unwrap_or_else(|error| error));
    }
    // SAFETY: as above; what is busy goes when it is not any more.
    unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    drop(device);
    // It may be in the middle of nothing: the process's end closes the device, and the kernel gives up.
    drop(server);
    Ok(())
}
