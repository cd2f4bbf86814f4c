//! The ledger: the transitions in `alerts` that no later row has moved or retracted, and the episodes of firing that follow from
//! them.

use std::collections::{BTreeMap, BTreeSet};

use bellwether_base::{Error, Result};
use bellwether_evidence::AlertRecord;

/// The row that brought a transition: evaluation and time. It stays the same when a correction moves the transition.
pub(crate) type Birth = (i64, i64);

/// A transition that no later row has moved or retracted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at: i64,
    /// Order of the rows, for transitions of one moment.
    order: u64,
    state: String,
    stale: bool,
    birth: Birth,
}

/// A time during which an alert fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Episode {
    /// Of all its transitions, the first one first.
    pub(crate) births: Vec<Birth>,
    /// Start, microseconds since the epoch.
    pub(crate) at: i64,
    /// End; none while it fires.
    pub(crate) end: Option<i64>,
}

/// An alert, its transitions and its last rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alert {
    transitions: BTreeSet<Entry>,
    /// The last row.
    pub(crate) last: AlertRecord,
    /// The last row by which it began to fire or its start moved; the last row if there is none.
    pub(crate) firing: AlertRecord,
}

/// All alerts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    alerts: BTreeMap<String, Alert>,
    order: u64,
}

// === impl Ledger ===

impl Ledger {
    /// Takes in a row.
    ///
    /// # Errors
    /// `Data` if a newer version has written it.
    pub(crate) fn apply(&mut self, row: &AlertRecord) -> Result<()> {
        self.order += 1;
        let order = self.order;
        let alert = self.alerts.entry(row.alert_id.clone()).or_default();
        let mut entry =
            Entry { at: row.at, order, state: row.state.clone(), stale: row.stale, birth: (row.evaluation, row.at) };
        // Staleness is no transition: a correction may take the firing back and leave the row that it became stale.
        let restates = row.state_from == row.state;
        match row.change.as_str() {
            "new" | "late" | "restated" | "moved" if restates => {}
            "new" | "late" | "restated" => {
                alert.transitions.insert(entry);
            }
            "moved" => {
                if let Some(before) = alert.take(row.was.unwrap_or(row.at), &row.state, row.stale) {
                    entry.birth = before.birth;
                }
                alert.transitions.insert(entry);
            }
            "retracted" => {
                alert.take(row.at, &row.state_from, row.stale);
            }
            other => {
                return Err(Error::data(format!("table `alerts` has an unknown change `{other}`"))
                    .with_hint("a newer version of bellwether has written the table; use that version"));
            }
        }
        let fires = row.state == "firing" && !matches!(row.change.as_str(), "restated" | "retracted");
        if fires || alert.firing.alert_id.is_empty() {
            alert.firing = row.clone();
        }
        alert.last = row.clone();
        Ok(())
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Alert> {
        self.alerts.get(id)
    }

    pub(crate) fn alerts(&self) -> impl Iterator<Item = (&String, &Alert)> {
        self.alerts.iter()
    }
}

// === impl Alert ===

impl Alert {
    fn take(&mut self, at: i64, state: &str, stale: bool) -> Option<Entry> {
        let is_it = |entry: &&Entry| entry.at == at && entry.state == state && entry.stale == stale;
        let found = self.transitions.iter().find(is_it).cloned()?;
        self.transitions.take(&found)
    }

    /// Returns the episodes in order.
    pub(crate) fn episodes(&self) -> Vec<Episode> {
        let mut episodes: Vec<Episode> = Vec::new();
        let mut fires = false;
        for entry in &self.transitions {
            match (fires, entry.state == "firing") {
                (false, true) => episodes.push(Episode { births: vec![entry.birth], at: entry.at, end: None }),
                (true, fires) => {
                    if let Some(last) = episodes.last_mut() {
                        match fires {
                            true => last.births.push(entry.birth),
                            false => last.end = Some(entry.at),
                        }
                    }
                }
                (false, false) => {}
            }
            fires = entry.state == "firing";
        }
        episodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(evaluation: i64, at: i64, from: &str, state: &str, change: &str, was: Option<i64>) -> AlertRecord {
        AlertRecord {
            evaluation,
            at,
            was,
            alert_id: "a".to_owned(),
            state_from: from.to_owned(),
            state: state.to_owned(),
            change: change.to_owned(),
            ..AlertRecord::default()
        }
    }

    fn ledger(rows: &[AlertRecord]) -> Ledger {
        let mut ledger = Ledger::default();
        for row in rows {
            ledger.apply(row).expect("a row of the table");
        }
        ledger
    }

    #[test]
    fn an_episode_lasts_from_firing_to_the_next_other_state() {
        let ledger = ledger(&[
            row(1, 10, "pending", "firing", "new", None),
            row(2, 20, "firing", "firing", "restated", None),
            row(3, 30, "firing", "resolved", "new", None),
            row(4, 40, "pending", "firing", "new", None),
        ]);
        let episodes = ledger.get("a").expect("there").episodes();
        assert_eq!(
            episodes,
            [
                Episode { births: vec![(1, 10)], at: 10, end: Some(30) },
                Episode { births: vec![(4, 40)], at: 40, end: None }
            ]
        );
    }

    #[test]
    fn a_moved_episode_keeps_its_birth_and_a_retracted_one_is_gone() {
        let moved = [row(1, 10, "pending", "firing", "new", None), row(2, 8, "pending", "firing", "moved", Some(10))];
        let kept = ledger(&moved);
        assert_eq!(kept.get("a").expect("there").episodes(), [Episode { births: vec![(1, 10)], at: 8, end: None }]);
        let [first, second] = moved;
        let taken = ledger(&[first, second, row(3, 8, "firing", "inactive", "retracted", None)]);
        let alert = taken.get("a").expect("there");
        assert!(alert.episodes().is_empty());
    }

    #[test]
    fn an_alert_whose_firing_was_retracted_does_not_fire_because_it_was_stale() {
        let ledger = ledger(&[
            row(1, 10, "pending", "firing", "new", None),
            row(2, 70, "firing", "firing", "restated", None),
            row(3, 10, "firing", "inactive", "retracted", None),
        ]);
        assert!(ledger.get("a").expect("there").episodes().is_empty());
    }

    #[test]
    fn a_change_of_a_newer_version_is_refused() {
        let error = Ledger::default().apply(&row(1, 1, "pending", "firing", "unheard of", None)).expect_err("refused");
        assert!(error.message().contains("`unheard of`"));
    }
}
