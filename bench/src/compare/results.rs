//! What the runs of a comparison gave: rows, and medians over their rounds. Never runs anything.

use super::systems::System;
use crate::Outcome;
use crate::load::{Latencies, Measured};

/// One run, or why there is none.
#[derive(Debug)]
pub struct Row {
    /// `H1` to `H9`.
    pub case: &'static str,
    /// What differs within the case, for example `4 tails`; may be empty.
    pub variant: String,
    pub system: System,
    pub round: usize,
    pub result: Outcome<Measured>,
}

/// A median with its spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Median {
    pub mid: f64,
    pub low: f64,
    pub high: f64,
    pub rounds: usize,
}

impl Median {
    /// Of values that are numbers; none without any.
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Median> {
        let mut sorted: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let mid = *sorted.get(sorted.len() / 2)?;
        Some(Median { mid, low: sorted[0], high: sorted[sorted.len() - 1], rounds: sorted.len() })
    }

    /// This over `other`; none while their spreads overlap, for then there is no difference to speak of.
    pub fn ratio(self, other: Median) -> Option<f64> {
        let apart = self.low > other.high || self.high < other.low;
        (apart && other.mid > 0.0).then(|| self.mid / other.mid)
    }
}

/// All rows of a comparison.
#[derive(Debug, Default)]
pub struct Results {
    pub rows: Vec<Row>,
}

impl Results {
    /// The runs of one cell.
    pub fn cell<'a>(
        &'a self,
        case: &'a str,
        variant: &'a str,
        system: System,
    ) -> impl Iterator<Item = &'a Measured> {
        let wanted = move |row: &&Row| row.case == case && row.variant == variant && row.system == system;
        self.rows.iter().filter(wanted).filter_map(|row| row.result.as_ref().ok())
    }

    /// Median of a figure over the rounds of a cell.
    pub fn median(
        &self,
        case: &str,
        variant: &str,
        system: System,
        figure: impl Fn(&Measured) -> f64,
    ) -> Option<Median> {
        Median::of(self.cell(case, variant, system).map(figure))
    }

    /// The histograms of a cell's rounds, merged.
    pub fn latencies(&self, case: &str, variant: &str, system: System) -> Option<Latencies> {
        let mut merged: Option<Latencies> = None;
        for latencies in self.cell(case, variant, system).filter_map(|run| run.latencies.as_ref()) {
            match &mut merged {
                None => merged = Some(latencies.clone()),
                Some(merged) => merged.merge(latencies).ok()?,
            }
        }
        merged
    }

    /// The variants of a case in the order they were first run.
    pub fn variants(&self, case: &str) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for row in self.rows.iter().filter(|row| row.case == case) {
            if !found.contains(&row.variant) {
                found.push(row.variant.clone());
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_spreads_have_no_ratio() {
        let of = |values: &[f64]| Median::of(values.iter().copied()).unwrap();
        assert_eq!(of(&[3.0, 1.0, 2.0]).mid, 2.0);
        assert_eq!(of(&[4.0, 5.0, 6.0]).ratio(of(&[1.0, 2.0, 2.5])), Some(2.5));
        assert_eq!(of(&[4.0, 5.0, 6.0]).ratio(of(&[1.0, 2.0, 4.5])), None);
        assert_eq!(Median::of([f64::NAN].into_iter()), None);
    }
}
