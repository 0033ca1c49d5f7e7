//! "Did you mean": the known name nearest to a mistyped one. Never guesses across more than a third of the letters.

/// The candidate nearest to `wrong`, if it is near enough to be a typing error.
pub fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (wrong.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .map(|candidate| (distance(wrong, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// ` Did you mean "x"?`, or nothing.
pub fn hint<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(wrong, candidates).map(|name| format!(" Did you mean \"{name}\"?")).unwrap_or_default()
}

/// Edits between two words: insert, delete, replace, swap of neighbours; letter case costs nothing.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.to_lowercase().chars().collect();
    let right: Vec<char> = right.to_lowercase().chars().collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=right.len()).collect()];
    for i in 1..=left.len() {
        let mut row = vec![i];
        for j in 1..=right.len() {
            let replace = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_found_and_other_words_are_not() {
        let names = ["num.partitions", "node.id", "orders"];
        assert_eq!(nearest("num.partition", names), Some("num.partitions"));
        assert_eq!(nearest("oredrs", names), Some("orders"));
        assert_eq!(nearest("Orders", names), Some("orders"));
        assert_eq!(nearest("payments", names), None);
        assert_eq!(nearest("", names), None);
        assert_eq!(hint("ordrs", names), " Did you mean \"orders\"?");
    }
}
