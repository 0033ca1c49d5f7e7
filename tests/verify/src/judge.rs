//! The final check: the ledgers against what the leaders serve, what readers had seen, and what each replica has by itself. Never
//! forgives; says of each fault which record, which offset, which replica.

use crate::book::Line;
use crate::producer::Producer;
use crate::replica::{Log, Logs};
use pelton_crash::producer::{Entry, Fate};
use pelton_crash::verify::{Found, Verdict};

/// Everything that is held against everything else.
#[derive(Clone, Debug)]
pub struct Evidence {
    pub producers: Vec<Producer>,
    /// By producer.
    pub lines: Vec<Vec<Line>>,
    /// By partition, as its leader served it at the end.
    pub served: Vec<Log>,
    /// By partition, what readers beside the load have read.
    pub read: Vec<(Found, Verdict)>,
    /// By node from 1 on, what its files hold.
    pub replicas: Vec<Logs>,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    /// As the leaders serve it.
    pub served: Verdict,
    /// Each replica alone, all together.
    pub replicas: Verdict,
    /// Batches that differ between a replica and what its leader served.
    pub different: u64,
    /// Batches that a reader had seen and that are not there.
    pub unread: u64,
    /// Batches acknowledged before another was sent, and yet behind it.
    pub out_of_time: u64,
    /// Replicas that have no log of a partition.
    pub missing: u64,
    /// In words.
    pub notes: Vec<String>,
}

impl Judgement {
    /// True when nothing is wrong.
    pub fn passed(&self) -> bool {
        self.served.passed()
            && self.replicas.passed()
            && (self.different, self.unread, self.out_of_time, self.missing) == (0, 0, 0, 0)
    }

    fn note(&mut self, text: String) {
        if self.notes.len() < 40 {
            self.notes.push(text);
        }
    }

    /// In one line.
    pub fn summary(&self) -> String {
        let (served, replicas) = (&self.served, &self.replicas);
        format!(
            "lost {}, duplicated {}, reordered {}, foreign {}, unsettled {}; on replicas read alone: lost {}, duplicated {}, \
             reordered {}, foreign {}; batches different {}, read and gone {}, out of time {}, logs missing {}",
            served.lost,
            served.duplicated,
            served.reordered,
            served.foreign,
            served.unsettled,
            replicas.lost,
            replicas.duplicated,
            replicas.reordered,
            replicas.foreign,
            self.different,
            self.unread,
            self.out_of_time,
            self.missing
        )
    }
}

/// Judges.
pub fn judge(evidence: &Evidence) -> Judgement {
    let mut judgement = Judgement::default();
    for (partition, log) in evidence.served.iter().enumerate() {
        let mut verdict = log.verdict.clone();
        order(evidence, &mut verdict);
        ledgers(evidence, partition as i32, &log.found, &mut verdict);
        label(&mut verdict, &format!("partition {partition} as served"));
        judgement.served.add(verdict);
        out_of_time(evidence, partition as i32, &mut judgement);
    }
    for (producer, lines) in evidence.producers.iter().zip(&evidence.lines).filter(|(p, _)| p.idempotent) {
        let open = lines.iter().filter(|line| !matches!(line.entry.fate, Fate::Acknowledged(_))).count();
        judgement.served.unsettled += open as u64;
        if open > 0 {
            judgement.note(format!("idempotent producer {}: {open} batches never acknowledged", producer.id));
        }
    }
    readers(evidence, &mut judgement);
    for (index, logs) in evidence.replicas.iter().enumerate() {
        for partition in 0..evidence.served.len() {
            replica(evidence, index + 1, partition, logs, &mut judgement);
        }
    }
    let notes = [&judgement.served, &judgement.replicas].map(|verdict| verdict.notes.clone()).concat();
    notes.into_iter().for_each(|note| judgement.note(note));
    judgement
}

fn label(verdict: &mut Verdict, where_: &str) {
    verdict.notes.iter_mut().for_each(|note| *note = format!("{where_}: {note}"));
}

/// Each acknowledged batch at its offset and once, nothing from strangers, no refused one that says it is not there.
fn ledgers(evidence: &Evidence, partition: i32, found: &Found, verdict: &mut Verdict) {
    for (producer, lines) in evidence.producers.iter().zip(&evidence.lines) {
        let entries: Vec<Entry> = lines.iter().map(|line| line.entry).collect();
        if producer.partition == partition {
            found.judge(producer.id, &entries, 0, verdict);
            found.strangers(producer.id, &entries, verdict);
        } else {
            // Of a producer of another partition nothing may be here.
            found.strangers(producer.id, &[], verdict);
        }
    }
}

/// Each producer's order. One that is not idempotent may have given up a batch that was still under way, in a connection it left
/// behind: that may be appended later than those after it, for nobody was told that it was.
fn order(evidence: &Evidence, verdict: &mut Verdict) {
    verdict.judge_late(|late| {
        let of = evidence.producers.iter().position(|producer| producer.id == late.producer);
        of.is_some_and(|index| {
            let line = evidence.lines[index].get(late.batch as usize);
            !evidence.producers[index].idempotent
                && line.is_some_and(|line| !matches!(line.entry.fate, Fate::Acknowledged(_)))
        })
    });
}

/// Who was acknowledged before another was sent lies before it (invariant I14).
fn out_of_time(evidence: &Evidence, partition: i32, judgement: &mut Judgement) {
    let here = evidence.producers.iter().zip(&evidence.lines).filter(|(p, _)| p.partition == partition);
    let mut acknowledged: Vec<(i64, &Line, u32)> = here
        .flat_map(|(producer, lines)| lines.iter().map(move |line| (line, producer.id)))
        .filter_map(|(line, id)| match line.entry.fate {
            Fate::Acknowledged(offset) => Some((offset, line, id)),
            _ => None,
        })
        .collect();
    acknowledged.sort_by_key(|(offset, ..)| std::cmp::Reverse(*offset));
    let mut earliest: Option<(u64, i64)> = None;
    for (offset, line, producer) in acknowledged {
        if let Some((done_us, behind)) = earliest
            && done_us < line.sent_us
        {
            judgement.out_of_time += 1;
            judgement.note(format!(
                "partition {partition}: the batch at offset {behind} was acknowledged at {done_us} us, the one of producer \
                 {producer} at offset {offset}, before it, was first sent at {} us",
                line.sent_us
            ));
        }
        if earliest.is_none_or(|(done_us, _)| line.acknowledged_us < done_us) {
            earliest = Some((line.acknowledged_us, offset));
        }
    }
}

/// What was read once is there at the end, at the same offset.
fn readers(evidence: &Evidence, judgement: &mut Judgement) {
    for (partition, ((found, verdict), served)) in evidence.read.iter().zip(&evidence.served).enumerate() {
        let mut verdict = verdict.clone();
        order(evidence, &mut verdict);
        label(&mut verdict, &format!("partition {partition} as read beside the load"));
        // What is counted there is not what is in the log at the end.
        (verdict.batches, verdict.records) = (0, 0);
        judgement.served.add(verdict);
        for (name, place) in found.places() {
            let now = served.found.places().get(name);
            if now != Some(place) {
                judgement.unread += 1;
                judgement.note(format!(
                    "partition {partition}: a reader saw batch {} of producer {} at {place:?}, at the end it is at {now:?}",
                    name.1, name.0
                ));
            }
        }
    }
}

/// One replica alone: the same bytes as its leader served, up to the high watermark, and everything that was acknowledged.
fn replica(evidence: &Evidence, node: usize, partition: usize, logs: &Logs, judgement: &mut Judgement) {
    let served = &evidence.served[partition];
    let Some(log) = logs.get(&(partition as i32)) else {
        if served.end() > 0 {
            judgement.missing += 1;
            judgement.note(format!(
                "node {node} has no log of partition {partition}, which ends at {}",
                served.end()
            ));
        }
        return;
    };
    let (theirs, own) = (&served.batches, log.below(served.end()));
    let differing = theirs.iter().zip(own).filter(|(theirs, own)| theirs != own).count();
    let lacking = theirs.len().abs_diff(own.len());
    if differing + lacking > 0 {
        judgement.different += (differing + lacking) as u64;
        let first = theirs
            .iter()
            .zip(own)
            .position(|(theirs, own)| theirs != own)
            .unwrap_or(theirs.len().min(own.len()));
        judgement.note(format!(
            "partition {partition} on node {node}: {differing} batches differ from what its leader served, {lacking} too few or too \
             many; the first at offset {:?} there, {:?} here",
            theirs.get(first).map(|(base, _)| base),
            own.get(first).map(|(base, _)| base)
        ));
    }
    let mut verdict = log.verdict.clone();
    order(evidence, &mut verdict);
    ledgers(evidence, partition as i32, &log.found, &mut verdict);
    label(&mut verdict, &format!("partition {partition} on node {node}"));
    judgement.replicas.add(verdict);
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_bench::batch;
    use pelton_crash::payload::{self, Name};
    use std::time::Duration;

    fn producer(id: u32, partition: i32) -> Producer {
        let mut all = crate::producer::all(2, Duration::ZERO, false);
        let mut one = all.swap_remove(0);
        (one.id, one.partition) = (id, partition);
        one
    }

    fn log(batches: &[(u32, u64)]) -> Log {
        let mut log = Log::default();
        for (producer, number) in batches {
            let value = payload::build(Name { batch: *number, producer: *producer, index: 0 }, 40);
            let mut bytes = batch::build([&value[..]].into_iter(), 0);
            bytes[..8].copy_from_slice(&log.end().to_be_bytes());
            log.add(0, &bytes).unwrap();
        }
        log
    }

    fn line(offset: i64, sent_us: u64, acknowledged_us: u64) -> Line {
        Line { entry: Entry { records: 1, fate: Fate::Acknowledged(offset) }, sent_us, acknowledged_us }
    }

    fn sound() -> Evidence {
        let served = log(&[(0, 0), (1, 0), (0, 1)]);
        Evidence {
            producers: vec![producer(0, 0), producer(1, 0)],
            lines: vec![vec![line(0, 1, 5), line(2, 6, 9)], vec![line(1, 2, 8)]],
            read: vec![(served.found.clone(), Verdict::default())],
            replicas: vec![
                [(0, served.clone())].into(),
                [(0, log(&[(0, 0), (1, 0), (0, 1), (0, 2)]))].into(),
            ],
            served: vec![served],
        }
    }

    #[test]
    fn a_sound_run_passes_and_a_tail_above_the_high_watermark_may_differ() {
        let mut evidence = sound();
        evidence.lines[0].push(Line {
            entry: Entry { records: 1, fate: Fate::Unknown },
            sent_us: 9,
            acknowledged_us: 0,
        });
        let judgement = judge(&evidence);
        assert!(judgement.passed(), "{judgement:?}");
        // One that was given up may even come late.
        evidence.lines[0][2] = line(2, 9, 12);
        evidence.lines[0][1].entry.fate = Fate::Unknown;
        let late = log(&[(0, 0), (1, 0), (0, 2), (0, 1)]);
        evidence.replicas = vec![[(0, late.clone())].into()];
        (evidence.read[0].0, evidence.served[0]) = (late.found.clone(), late);
        let judgement = judge(&evidence);
        assert!(judgement.passed(), "{judgement:?}");
        evidence.producers[0].idempotent = true;
        assert_eq!(judge(&evidence).served.reordered, 1);
    }

    #[test]
    fn each_fault_is_found_and_named() {
        let red = |change: &dyn Fn(&mut Evidence), words: &str| {
            let mut evidence = sound();
            evidence.lines[0].push(Line {
                entry: Entry { records: 1, fate: Fate::Unknown },
                sent_us: 9,
                acknowledged_us: 0,
            });
            change(&mut evidence);
            let judgement = judge(&evidence);
            assert!(!judgement.passed(), "{words}");
            assert!(
                judgement.notes.iter().any(|note| note.contains(words)),
                "{words}: {:?}",
                judgement.notes
            );
        };
        red(&|e| e.served[0] = log(&[(0, 0), (1, 0)]), "batch 1: acknowledged at 2");
        red(&|e| e.served[0] = log(&[(0, 0), (1, 0), (0, 1), (1, 0)]), "at offsets 1 and 3");
        red(
            &|e| {
                e.replicas[1].insert(0, log(&[(0, 0), (0, 1), (1, 0)]));
            },
            "on node 2: 2 batches differ",
        );
        red(
            &|e| {
                e.replicas[1].insert(0, log(&[(0, 0), (1, 0)]));
            },
            "1 too few or too many",
        );
        red(
            &|e| {
                e.replicas[0].clear();
            },
            "node 1 has no log of partition 0",
        );
        red(
            &|e| e.read[0].0 = log(&[(0, 0), (1, 0), (0, 1), (1, 1)]).found,
            "a reader saw batch 1 of producer 1",
        );
        red(&|e| e.served[0] = log(&[(0, 1), (1, 0), (0, 0)]), "batch 0 of producer 0 after its batch 1");
        red(&|e| e.lines[1][0] = line(1, 10, 12), "before it, was first sent at 10 us");
    }
}
