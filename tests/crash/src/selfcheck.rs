//! Can this test fail? Ledgers and logs that are wrong on purpose must be found wrong, with the data of the run itself.
//! Never touches a broker.

use crate::campaign::{Campaign, Tally};
use crate::producer::{Entry, Fate};
use crate::verify::{Found, Verdict};

/// A way to make the ledgers wrong: its name, and what it changes.
type Lie = (&'static str, fn(&mut Vec<Vec<Entry>>));

const LIES: &[Lie] = &[
    ("a batch is said to hold one more record", |ledgers| {
        if let Some(entry) = acknowledged(ledgers) {
            entry.records += 1;
        }
    }),
    ("a batch is said to be one offset further", |ledgers| {
        if let Some(entry) = acknowledged(ledgers)
            && let Fate::Acknowledged(offset) = &mut entry.fate
        {
            *offset += 1;
        }
    }),
    ("a batch that was never sent is said to be acknowledged", |ledgers| {
        if let Some(ledger) = ledgers.first_mut() {
            ledger.push(Entry { records: 1, fate: Fate::Acknowledged(0) });
        }
    }),
    ("a batch in the log is said never to have been sent", |ledgers| {
        if let Some(ledger) = ledgers
            .iter_mut()
            .find(|ledger| ledger.last().is_some_and(|entry| matches!(entry.fate, Fate::Acknowledged(_))))
        {
            ledger.pop();
        }
    }),
];

fn acknowledged(ledgers: &mut [Vec<Entry>]) -> Option<&mut Entry> {
    ledgers.iter_mut().flatten().find(|entry| matches!(entry.fate, Fate::Acknowledged(_)))
}

/// Tells each lie to the judge; one check each, failed when the judge believes it.
pub fn run(campaign: &Campaign<'_>, found: &[Found], ledgers: &[Vec<Entry>], tally: &mut Tally) {
    for (name, lie) in LIES {
        let mut wrong = ledgers.to_vec();
        lie(&mut wrong);
        let mut verdict = Verdict::default();
        campaign.judge_all(found, &wrong, &mut verdict);
        let believed = verdict.passed().then(|| "was not noticed".to_string());
        tally.count(&format!("self-check: {name}"), believed);
    }
}
