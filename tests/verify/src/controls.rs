//! Can this run fail? Ledgers, logs and files that are wrong on purpose, made from the run's own, must each turn the verdict red. Files
//! are changed one at a time and put back as they were.

use crate::judge::{Evidence, judge};
use crate::replica::Logs;
use pelton_bench::{Outcome, batch};
use pelton_crash::payload::{self, Name};
use pelton_crash::producer::Fate;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A way to make the evidence wrong: its name, and what it changes; false if there is nothing to change.
type Lie = (&'static str, fn(&mut Evidence) -> bool);

fn acknowledged(evidence: &mut Evidence) -> Option<&mut crate::book::Line> {
    let all = evidence.lines.iter_mut().flatten();
    all.filter(|line| matches!(line.entry.fate, Fate::Acknowledged(_))).nth(10)
}

fn replica(evidence: &mut Evidence) -> Option<&mut crate::replica::Log> {
    evidence.replicas.last_mut()?.values_mut().find(|log| log.batches.len() > 20)
}

const LIES: &[Lie] = &[
    ("a batch is said to hold one more record", |evidence| {
        acknowledged(evidence).map(|line| line.entry.records += 1).is_some()
    }),
    ("a batch is said to be one offset further", |evidence| {
        let Some(line) = acknowledged(evidence) else { return false };
        let Fate::Acknowledged(offset) = line.entry.fate else { return false };
        line.entry.fate = Fate::Acknowledged(offset + 1);
        true
    }),
    ("a batch that was never sent is said to be acknowledged", |evidence| {
        let Some(line) = acknowledged(evidence).copied() else { return false };
        evidence.lines[0].push(line);
        true
    }),
    ("a batch in the log is said never to have been sent", |evidence| {
        let idempotent = evidence.producers.iter().position(|producer| producer.idempotent);
        idempotent.and_then(|producer| evidence.lines[producer].pop()).is_some()
    }),
    ("an acknowledged batch is said to be refused before it was appended", |evidence| {
        acknowledged(evidence).map(|line| line.entry.fate = Fate::Refused(19)).is_some()
    }),
    ("a batch of an idempotent producer is said to be unknown", |evidence| {
        let all =
            evidence.producers.iter().zip(&mut evidence.lines).filter(|(producer, _)| producer.idempotent);
        let line = all.flat_map(|(_, lines)| lines.last_mut()).next();
        line.map(|line| line.entry.fate = Fate::Unknown).is_some()
    }),
    ("a batch is said to have been sent after a later one was acknowledged", |evidence| {
        acknowledged(evidence).map(|line| line.sent_us = u64::MAX).is_some()
    }),
    ("a reader is said to have seen more than is there", |evidence| {
        let Some((found, verdict)) = evidence.read.first_mut() else { return false };
        let name = Name { batch: u64::MAX >> 1, producer: 0, index: 0 };
        let mut bytes = batch::build([&payload::build(name, 40)[..]].into_iter(), 0);
        bytes[..8].copy_from_slice(&found.next_offset().to_be_bytes());
        let Ok(Some(more)) = batch::take(&mut &bytes[..]) else { return false };
        found.add(0, &more, verdict).is_ok()
    }),
    ("a replica lacks a batch", |evidence| replica(evidence).map(|log| log.batches.remove(7)).is_some()),
    ("a replica has a batch twice", |evidence| {
        replica(evidence).map(|log| log.batches.insert(7, log.batches[7])).is_some()
    }),
    ("a replica has two batches in the other order", |evidence| {
        replica(evidence).map(|log| log.batches.swap(7, 8)).is_some()
    }),
    ("a replica has other bytes", |evidence| replica(evidence).map(|log| log.batches[7].1 ^= 1).is_some()),
    ("a replica lacks its end", |evidence| replica(evidence).map(|log| log.batches.truncate(9)).is_some()),
    ("a node has no log of a partition", |evidence| {
        evidence.replicas.first_mut().and_then(|logs| logs.pop_first()).is_some()
    }),
];

/// Tells every lie to the judge: name, and what went wrong, which is that the judge believed it.
pub fn lies(evidence: &Evidence) -> Vec<(String, Option<String>)> {
    // A run without readers has nothing to say about them.
    let meant = |lie: &&Lie| !(evidence.read.is_empty() && lie.0.starts_with("a reader"));
    LIES.iter()
        .filter(meant)
        .map(|(name, lie)| {
            let mut wrong = evidence.clone();
            let fault = match lie(&mut wrong) {
                false => Some("there was nothing to change".to_string()),
                true => judge(&wrong).passed().then(|| "was not noticed".to_string()),
            };
            (name.to_string(), fault)
        })
        .collect()
}

/// The largest file of records below a directory of partitions.
fn largest(root: &Path) -> Option<PathBuf> {
    let (mut directories, mut files) = (vec![root.to_path_buf()], Vec::new());
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).ok()?.flatten() {
            let (path, is_directory) = (entry.path(), entry.file_type().is_ok_and(|kind| kind.is_dir()));
            if is_directory { directories.push(path) } else { files.push(path) }
        }
    }
    let logs = files.into_iter().filter(|path| path.extension().is_some_and(|e| e == "log"));
    logs.max_by_key(|path| std::fs::metadata(path).map_or(0, |data| data.len()))
}

/// Changes a file of the last node in two ways; reading that node again must show each. `read` reads the node's logs.
pub fn files(
    evidence: &Evidence,
    root: &Path,
    read: &dyn Fn() -> Outcome<Logs>,
) -> Outcome<Vec<(String, Option<String>)>> {
    let path = largest(root).ok_or(format!("{}: no segments, the run was too short", root.display()))?;
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = File::options().read(true).write(true).open(&path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let notices = |logs: Outcome<Logs>| {
        let Ok(logs) = logs else { return None };
        let mut wrong = evidence.clone();
        if let Some(last) = wrong.replicas.last_mut() {
            *last = logs;
        }
        judge(&wrong).passed().then(|| "was not noticed".to_string())
    };
    let mut results = Vec::new();
    let (at, mut byte) = (length / 2, [0]);
    file.read_exact_at(&mut byte, at).map_err(failed)?;
    file.write_all_at(&[byte[0] ^ 0x20], at).map_err(failed)?;
    results.push(("a bit of a replica's segment is another".to_string(), notices(read())));
    file.write_all_at(&byte, at).map_err(failed)?;
    let mut second_half = vec![0; (length - at) as usize];
    file.read_exact_at(&mut second_half, at).map_err(failed)?;
    file.set_len(at).map_err(failed)?;
    results.push(("a replica's segment ends too early".to_string(), notices(read())));
    file.write_all_at(&second_half, at).map_err(failed)?;
    let restored = notices(read()).is_none().then(|| "the files are not what they were".to_string());
    results.push(("the files as they were pass again".to_string(), restored));
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::Line;
    use crate::replica::Log;
    use pelton_crash::producer::Entry;
    use pelton_crash::verify::Verdict;
    use std::time::Duration;

    #[test]
    fn every_lie_is_noticed() {
        let producers: Vec<_> = crate::producer::all(1, Duration::ZERO, false).into_iter().take(2).collect();
        let (mut log, mut lines) = (Log::default(), vec![Vec::new(), Vec::new()]);
        for number in 0..60u64 {
            let producer = (number % 2) as u32;
            let name = Name { batch: number / 2, producer, index: 0 };
            let value = payload::build(name, 40);
            let mut bytes = batch::build([&value[..]].into_iter(), 0);
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            log.add(0, &bytes).unwrap();
            let entry = Entry { records: 1, fate: Fate::Acknowledged(number as i64) };
            lines[producer as usize].push(Line { entry, sent_us: number, acknowledged_us: number + 2 });
        }
        let read = vec![(log.found.clone(), Verdict::default())];
        let replicas = vec![[(0, log.clone())].into(); 3];
        let evidence = Evidence { producers, lines, read, replicas, served: vec![log] };
        assert!(judge(&evidence).passed());
        for (name, fault) in lies(&evidence) {
            assert_eq!(fault, None, "{name}");
        }
    }
}
