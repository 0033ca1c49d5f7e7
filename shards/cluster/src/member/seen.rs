//! Changes of metadata that clients ask for are planned once for each time a node asks: deleting a topic again, by name, would
//! delete the next one of that name. A node that gets no answer asks again under another token.

use std::collections::{BTreeMap, VecDeque};

use pelton_model::NodeId;

use crate::control::asks::Token;

/// Tokens kept for each node: far more than may be under way when a frame comes for the second time.
const KEPT: usize = 256;

/// What nodes have asked lately.
#[derive(Default)]
pub(super) struct Seen {
    tokens: BTreeMap<NodeId, VecDeque<Token>>,
}

impl Seen {
    /// A node asks; false: it is the same question, come once more.
    pub(super) fn is_first(&mut self, from: NodeId, token: Token) -> bool {
        let tokens = self.tokens.entry(from).or_default();
        if tokens.contains(&token) {
            return false;
        }
        if tokens.len() == KEPT {
            tokens.pop_front();
        }
        tokens.push_back(token);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_counts_once_for_each_node_and_memory_is_bounded() {
        let mut seen = Seen::default();
        assert!(seen.is_first(NodeId(1), 7));
        assert!(!seen.is_first(NodeId(1), 7));
        assert!(seen.is_first(NodeId(2), 7), "another node's");
        for token in 8..7 + KEPT as u64 {
            assert!(seen.is_first(NodeId(1), token));
        }
        assert!(!seen.is_first(NodeId(1), 7), "the oldest that is kept");
        assert!(seen.is_first(NodeId(1), 1000));
        assert!(seen.is_first(NodeId(1), 7), "forgotten");
        assert_eq!(seen.tokens[&NodeId(1)].len(), KEPT);
    }
}
