//! What an earlier run left that was killed: its small disk is unmounted, loop devices are let go, its data removed. Only of runs whose
//! process is gone, only below directories of their names. (Brokers end with their run, namespaces are removed with the next.)

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// In the directory of a run as long as it is one, or was killed: data that is kept on purpose has none.
const MARK: &str = "running";
/// What the directories of runs are called: then follow process id and time.
const NAMES: [&str; 2] = ["pelton-verify-", "pelton-sabotage-"];

/// The directory is one of a run under way.
pub fn mark(run: &Path) {
    let _ = std::fs::write(run.join(MARK), "");
}

/// Its data is to be kept.
pub fn keep(run: &Path) {
    let _ = std::fs::remove_file(run.join(MARK));
}

/// The process of the run that such a directory is of.
fn process(run: &Path) -> Option<u32> {
    let name = run.file_name()?.to_str()?;
    let rest = NAMES.iter().find_map(|prefix| name.strip_prefix(prefix))?;
    let (process, time) = rest.split_once('-')?;
    time.parse::<u64>().ok()?;
    process.parse().ok()
}

/// Another program may have the number by now: then what was left stays until that has ended.
fn lives(process: u32) -> bool {
    Path::new(&format!("/proc/{process}")).exists()
}

/// Where something is mounted, innermost last.
fn mounts() -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).collect()
}

fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Loop devices of the images below a run's directory.
fn let_go(run_dir: &Path) {
    let nodes = std::fs::read_dir(run_dir).into_iter().flatten().flatten();
    for image in nodes.map(|node| node.path().join("disk.img")).filter(|image| image.exists()) {
        let found = run("losetup", &["-j", &image.to_string_lossy()]).unwrap_or_default();
        for device in found.lines().filter_map(|line| line.split(':').next()) {
            run("losetup", &["-d", device]);
        }
        let _ = std::fs::remove_file(image);
    }
}

/// Removes what killed runs left below `base`, and whatever of theirs is still mounted anywhere: their directories.
pub fn remove(base: &Path) -> Vec<PathBuf> {
    let mounts = mounts();
    let mut runs: BTreeSet<PathBuf> = std::fs::read_dir(base)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join(MARK).exists())
        .collect();
    let of_mounts = mounts.iter().flat_map(|mount| mount.ancestors()).map(Path::to_path_buf);
    runs.extend(of_mounts.filter(|path| process(path).is_some()));
    runs.retain(|path| process(path).is_some_and(|process| !lives(process)));
    for path in &runs {
        for mount in mounts.iter().rev().filter(|mount| mount.starts_with(path)) {
            run("umount", &[&mount.to_string_lossy()]);
        }
        let_go(path);
        let free = !self::mounts().iter().any(|mount| mount.starts_with(path));
        if free && path.join(MARK).exists() {
            let _ = std::fs::remove_dir_all(path);
        }
    }
    runs.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::small_disk::SmallDisk;

    fn ended() -> u32 {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    }

    #[test]
    fn names_say_whose_they_are() {
        assert_eq!(process(Path::new("/x/pelton-verify-12-345")), Some(12));
        assert_eq!(process(Path::new("/x/pelton-sabotage-7-1")), Some(7));
        for other in ["pelton-verify-12", "pelton-verify-a-1", "pelton-bench-1-2", "pelton-verify-1-2-3", ""]
        {
            assert_eq!(process(&Path::new("/x").join(other)), None, "{other}");
        }
    }

    #[test]
    fn what_a_killed_run_left_goes_and_what_is_kept_or_lives_stays() {
        let base = std::env::temp_dir().join(format!("pelton-leftovers-{}", std::process::id()));
        let made = |name: String, marked: bool| {
            let path = base.join(name);
            std::fs::create_dir_all(path.join("node-1/data")).unwrap();
            if marked {
                mark(&path);
            }
            path
        };
        let killed = made(format!("pelton-verify-{}-1", ended()), true);
        let kept = made(format!("pelton-verify-{}-2", ended()), false);
        let other = made("something-1-2".to_string(), true);
        let of_mine = made(format!("pelton-verify-{}-3", std::process::id()), true);
        // Where no loop device can be mounted (not root) there is nothing mounted to be found.
        if let Ok(disk) = SmallDisk::new(&killed.join("node-1"), 16 << 20) {
            assert!(mounts().contains(&disk.path));
            std::mem::forget(disk);
        }
        let removed = remove(&base);
        assert!(removed.contains(&killed) && !killed.exists(), "{removed:?}");
        assert!(!mounts().iter().any(|mount| mount.starts_with(&killed)));
        assert!(kept.exists() && other.exists() && of_mine.exists());
        std::fs::remove_dir_all(&base).unwrap();
    }
}
