//! Actions of people on alerts: acknowledge, silence, judge.
//!
//! * `action`: one action, and its row of `alert_actions`.
//! * `matcher`: labels that a silence matches, in Alertmanager's notation.
//! * `state`: the present state, a pure function of the actions in any order.
//! * `store`: reads the table, and appends to it exactly once.
//! * `precision`: the share of useful alerts of a rule, by feedback.
//!
//! Rules: an action is never changed; another one takes it back. The id of an action makes a repetition harmless.

mod action;
mod matcher;
mod precision;
mod state;
mod store;

use std::collections::BTreeMap;

pub use action::{Action, ActionKind, Origin, Verdict};
pub use matcher::{Match, Matcher, Matchers};
pub use precision::Precision;
pub use state::{Ack, Hands, Silence};
pub use store::{Appended, append};

/// Returns the labels that a silence can match: those of the alert, and `rule`, `severity` and, as Alertmanager calls the rule,
/// `alertname`. These take the place of labels of the same names.
pub fn matched_labels(rule: &str, severity: &str, labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut all = labels.clone();
    all.extend(["alertname", "rule"].map(|name| (name.to_owned(), rule.to_owned())));
    all.insert("severity".to_owned(), severity.to_owned());
    all
}
