//! Cases that a release may already know: equal or near to a few-shot example, or to a case of the other split.
//!
//! Keys are passed in: one of the exact input, and some for inputs that may be near-duplicates. Two inputs that share the exact
//! key are equal; two that share another key are compared.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::case::Split;

/// An input with its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyed {
    /// Id of the case or the few-shot example.
    pub id: String,
    /// Split of the case; none for a few-shot example.
    pub split: Option<Split>,
    pub exact: String,
    pub near: Vec<String>,
}

/// Two inputs that must not be in these places together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Leak {
    pub case: String,
    pub other: String,
    /// Whether the other one is a few-shot example rather than a case of the other split.
    pub few_shot: bool,
    /// Whether the inputs are equal rather than near.
    pub exact: bool,
}

/// Returns each leak once, in order: an exact one hides the near one of the same pair. `is_near` compares two inputs by their
/// places.
pub fn leaks(inputs: &[Keyed], is_near: impl Fn(usize, usize) -> bool) -> Vec<Leak> {
    let mut by_key: BTreeMap<(bool, &str), Vec<usize>> = BTreeMap::new();
    for (index, input) in inputs.iter().enumerate() {
        by_key.entry((true, &input.exact)).or_default().push(index);
        for key in &input.near {
            by_key.entry((false, key)).or_default().push(index);
        }
    }
    let mut found: BTreeMap<(&str, &str, bool), bool> = BTreeMap::new();
    for ((exact, _), members) in by_key {
        for (position, a) in members.iter().enumerate() {
            for b in &members[position + 1..] {
                if inputs[*a].split == inputs[*b].split || !(exact || is_near(*a, *b)) {
                    continue;
                }
                let (a, b) = (&inputs[*a], &inputs[*b]);
                let (case, other) = if a.split > b.split { (a, b) } else { (b, a) };
                *found.entry((&case.id, &other.id, other.split.is_none())).or_default() |= exact;
            }
        }
    }
    let leak = |((case, other, few_shot), exact): ((&str, &str, bool), bool)| Leak {
        case: case.to_owned(),
        other: other.to_owned(),
        few_shot,
        exact,
    };
    found.into_iter().map(leak).collect()
}
