//! What a run says at its end: the faults by kind, how long partitions waited, the verdict in one line, and all of it as one JSON
//! object.

use crate::campaign::{Campaign, Done};
use crate::fault::ALL;
use crate::judge::{Evidence, Judgement};
use pelton_bench::Outcome;
use pelton_crash::producer::Fate;
use std::path::Path;
use std::sync::atomic::Ordering;

/// A quantile of sorted values; 0 of none.
pub fn quantile(sorted: &[u64], percent: usize) -> u64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(0)
}

/// Lines about the faults: how many of each kind, and the longest wait of a partition for an acknowledgement, from the fault's
/// beginning until all was well.
pub fn faults(done: &[Done]) -> String {
    let mut text = format!(
        "{:<16} {:>5} {:>12} {:>12} {:>12} {:>14}\n",
        "fault", "times", "gap p50 ms", "gap p99 ms", "gap max ms", "settled max ms"
    );
    for kind in ALL {
        let mut gaps: Vec<u64> =
            done.iter().filter(|done| done.kind == kind).map(|done| done.gap_ms).collect();
        gaps.sort_unstable();
        let settled =
            done.iter().filter(|done| done.kind == kind).map(|done| done.settled_ms).max().unwrap_or(0);
        if !gaps.is_empty() {
            text += &format!(
                "{:<16} {:>5} {:>12} {:>12} {:>12} {settled:>14}\n",
                kind.name(),
                gaps.len(),
                quantile(&gaps, 50),
                quantile(&gaps, 99),
                quantile(&gaps, 100)
            );
        }
    }
    text
}

/// What the ledgers hold: acknowledged records, batches acknowledged, refused and unknown.
pub fn counts(evidence: &Evidence) -> (u64, u64, u64, u64) {
    let mut counts = (0, 0, 0, 0);
    for line in evidence.lines.iter().flatten() {
        match line.entry.fate {
            Fate::Acknowledged(_) => {
                counts.0 += u64::from(line.entry.records);
                counts.1 += 1;
            }
            Fate::Refused(_) => counts.2 += 1,
            Fate::Unknown => counts.3 += 1,
        }
    }
    counts
}

fn text(value: &str) -> String {
    let escaped: String = value
        .chars()
        .map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            c if c.is_control() => " ".to_string(),
            c => c.to_string(),
        })
        .collect();
    format!("\"{escaped}\"")
}

/// The run as one JSON object.
pub fn json(
    campaign: &Campaign,
    evidence: &Evidence,
    judgement: &Judgement,
    seed: u64,
    failed: &[String],
) -> String {
    let (records, acknowledged, refused, unknown) = counts(evidence);
    let done: Vec<String> = campaign
        .done
        .iter()
        .map(|done| {
            format!(
                "{{\"kind\":\"{}\",\"what\":{},\"from_ms\":{},\"undone_ms\":{},\"settled_ms\":{},\"gap_ms\":{},\"waited\":{}}}",
                done.kind.name(),
                text(&done.what),
                done.from_ms,
                done.undone_ms,
                done.settled_ms,
                done.gap_ms,
                text(&done.waited)
            )
        })
        .collect();
    let codes: Vec<String> =
        campaign.book.codes().iter().map(|(code, count)| format!("\"{code}\":{count}")).collect();
    let stale: u64 = campaign.probers.iter().map(|prober| prober.stale.load(Ordering::Relaxed)).sum();
    let failed: Vec<String> = failed.iter().map(|fault| text(fault)).collect();
    format!(
        "{{\"seed\":{seed},\"seconds\":{:.1},\"namespaces\":{},\"acknowledged_records\":{records},\"acknowledged_batches\":{acknowledged},\
         \"refused_batches\":{refused},\"unknown_batches\":{unknown},\"unknown_present\":{},\"lost\":{},\"duplicated\":{},\
         \"reordered\":{},\"foreign\":{},\"unsettled\":{},\"different\":{},\"unread\":{},\"out_of_time\":{},\"missing\":{},\
         \"stale_answers\":{stale},\"codes\":{{{}}},\"failed\":[{}],\"faults\":[\n{}\n]}}\n",
        campaign.now_ms() as f64 / 1000.0,
        campaign.cluster.net.namespaces,
        judgement.served.unknown_present,
        judgement.served.lost,
        judgement.served.duplicated,
        judgement.served.reordered,
        judgement.served.foreign,
        judgement.served.unsettled,
        judgement.different,
        judgement.unread,
        judgement.out_of_time,
        judgement.missing,
        codes.join(","),
        failed.join(","),
        done.join(",\n")
    )
}

/// Writes every ledger, one batch a line: producer, partition, number, records, sent, acknowledged, what became of it.
pub fn history(evidence: &Evidence, path: &Path) -> Outcome<()> {
    let mut out = String::from("producer\tpartition\tbatch\trecords\tsent_us\tacknowledged_us\tfate\n");
    for (producer, lines) in evidence.producers.iter().zip(&evidence.lines) {
        for (number, line) in lines.iter().enumerate() {
            out += &format!(
                "{}\t{}\t{number}\t{}\t{}\t{}\t{:?}\n",
                producer.id,
                producer.partition,
                line.entry.records,
                line.sent_us,
                line.acknowledged_us,
                line.entry.fate
            );
        }
    }
    std::fs::write(path, out).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_text() {
        assert_eq!((quantile(&[1, 2, 3, 4], 50), quantile(&[1, 2, 3, 4], 100), quantile(&[], 50)), (3, 4, 0));
        assert_eq!(text("a \"b\"\n\\"), "\"a \\\"b\\\" \\\\\"");
    }
}
