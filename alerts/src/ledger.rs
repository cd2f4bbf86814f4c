//! The ledger: every transition in `alerts` that no later row has moved or retracted. It keeps transitions from being appended
//! twice, and shows the present state of each alert.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use bellwether_base::{Error, Result};
use bellwether_lake::Lake;
use bellwether_tables::Table;

use crate::record::{AlertRow, ChangeKind};

/// Days over which pages are counted, microseconds.
const MONTH_MICROS: i64 = 30 * 86_400 * 1_000_000;

/// A transition that no later row has moved or retracted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    /// End of the window that brought it, microseconds since the epoch.
    pub(crate) at: i64,
    /// Order of the rows, for transitions of one moment.
    order: u64,
    pub(crate) state: String,
    pub(crate) stale: bool,
}

/// An alert and its transitions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alert {
    pub(crate) rule: String,
    pub(crate) severity: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) transitions: BTreeSet<Entry>,
}

/// All alerts in the table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    alerts: BTreeMap<String, Alert>,
    order: u64,
    /// Number of the last evaluation.
    pub(crate) evaluations: i64,
    /// When pages had fired that a correction retracted, microseconds since the epoch.
    retracted_pages: Vec<i64>,
}

/// Columns that the ledger is read from.
const COLUMNS: [&str; 10] =
    ["evaluation", "alert_id", "rule", "severity", "labels", "at", "state_from", "state", "stale", "change"];

// === impl Ledger ===

impl Ledger {
    /// Reads the table.
    pub(crate) async fn load(lake: &Lake) -> Result<Self> {
        let mut columns = COLUMNS.to_vec();
        columns.push("was");
        let (_, files) = lake.active_files(Table::Alerts).await?;
        let mut rows = Vec::new();
        for file in &files {
            for batch in lake.read(Table::Alerts, file, Some(&columns)).await? {
                let text = |place: usize| cast(batch.column(place), &DataType::Utf8);
                let texts = [text(1)?, text(2)?, text(3)?, text(6)?, text(7)?, text(9)?];
                let numbers = batch.column(0).as_primitive::<Int64Type>();
                let (at, was) = (
                    batch.column(5).as_primitive::<TimestampMicrosecondType>(),
                    batch.column(10).as_primitive::<TimestampMicrosecondType>(),
                );
                let stale = batch.column(8).as_boolean();
                let labels = batch.column(4).as_map();
                for row in 0..batch.num_rows() {
                    let [id, rule, severity, from, state, change] =
                        texts.each_ref().map(|column| column.as_string::<i32>().value(row).to_owned());
                    let pairs = labels.value(row);
                    let (keys, values) =
                        (cast(pairs.column(0), &DataType::Utf8)?, cast(pairs.column(1), &DataType::Utf8)?);
                    let (keys, values) = (keys.as_string::<i32>(), values.as_string::<i32>());
                    let labels = (0..pairs.len())
                        .map(|place| (keys.value(place).to_owned(), values.value(place).to_owned()))
                        .collect();
                    let was = was.is_valid(row).then(|| was.value(row));
                    rows.push((
                        numbers.value(row),
                        Stored {
                            id,
                            rule,
                            severity,
                            labels,
                            at: at.value(row),
                            from,
                            state,
                            stale: stale.value(row),
                            change,
                            was,
                        },
                    ));
                }
            }
        }
        // Files are in no order, but the rows of one evaluation are.
        rows.sort_by_key(|(evaluation, _)| *evaluation);
        let mut ledger = Self::default();
        for (evaluation, row) in rows {
            ledger.evaluations = ledger.evaluations.max(evaluation);
            ledger.apply(row)?;
        }
        Ok(ledger)
    }

    fn apply(&mut self, row: Stored) -> Result<()> {
        self.order += 1;
        let order = self.order;
        let alert = self.alerts.entry(row.id.clone()).or_default();
        (alert.rule, alert.severity, alert.labels) = (row.rule, row.severity, row.labels);
        let entry = Entry { at: row.at, order, state: row.state, stale: row.stale };
        match row.change.as_str() {
            "new" | "late" | "restated" => {
                alert.transitions.insert(entry);
            }
            "moved" => {
                alert.take(row.was.unwrap_or(row.at), &entry.state, entry.stale);
                alert.transitions.insert(entry);
            }
            "retracted" => {
                // An alert that fired again after it was stale was no page of its own.
                let page = alert.severity == "page" && row.from == "firing" && alert.fired().any(|at| at == row.at);
                if alert.take(row.at, &row.from, row.stale) && page {
                    self.retracted_pages.push(row.at);
                }
            }
            other => {
                return Err(Error::data(format!("table `alerts` has an unknown change `{other}`"))
                    .with_hint("a newer version of bellwether has written the table; use that version"));
            }
        }
        Ok(())
    }

    /// Adds rows, and returns those that the table does not hold. A move of a transition that it does not hold is a late
    /// transition.
    pub(crate) fn add(&mut self, rows: Vec<AlertRow>) -> Vec<AlertRow> {
        let mut added = Vec::new();
        for mut row in rows {
            let known = |ledger: &Self, at: i64, state: &str| {
                ledger.alerts.get(&row.alert_id).is_some_and(|alert| alert.find(at, state, row.stale).is_some())
            };
            match row.change {
                ChangeKind::New | ChangeKind::Late | ChangeKind::Restated if known(self, row.at, row.state) => continue,
                ChangeKind::Moved if known(self, row.at, row.state) => continue,
                ChangeKind::Moved if !known(self, row.was.unwrap_or(row.at), row.state) => {
                    (row.change, row.was) =
                        (if row.restates() { ChangeKind::Restated } else { ChangeKind::Late }, None);
                }
                ChangeKind::Retracted if !known(self, row.at, row.state_from) => continue,
                _ => {}
            }
            if self.apply(Stored::of(&row)).is_ok() {
                added.push(row);
            }
        }
        added
    }

    /// Returns the transitions between two moments that did not come out again when history was judged again.
    pub(crate) fn unconfirmed(
        &self,
        found: &BTreeSet<(String, i64, String, bool)>,
        from: i64,
        to: i64,
        rules: &BTreeSet<String>,
    ) -> Vec<(String, Entry)> {
        let mut missing = Vec::new();
        for (id, alert) in self.alerts.iter().filter(|(_, alert)| rules.contains(&alert.rule)) {
            for entry in alert.transitions.iter().filter(|entry| entry.at > from && entry.at <= to) {
                if !found.contains(&(id.clone(), entry.at, entry.state.clone(), entry.stale)) {
                    missing.push((id.clone(), entry.clone()));
                }
            }
        }
        missing
    }

    /// Returns all alerts by id.
    pub(crate) fn alerts(&self) -> impl Iterator<Item = (&String, &Alert)> {
        self.alerts.iter()
    }

    /// Returns the present state of an alert.
    pub(crate) fn state(&self, id: &str) -> &str {
        self.alerts.get(id).and_then(Alert::last).map_or("inactive", |last| &last.state)
    }

    /// Returns the number of pages that fired in the 30 days before a moment, and of pages of those days that were retracted.
    pub(crate) fn pages(&self, to: i64) -> (usize, usize) {
        let recent = |at: i64| at > to.saturating_sub(MONTH_MICROS) && at <= to;
        let pages = self.alerts.values().filter(|alert| alert.severity == "page");
        let fired = pages.map(|alert| alert.fired().filter(|at| recent(*at)).count()).sum();
        (fired, self.retracted_pages.iter().filter(|at| recent(**at)).count())
    }
}

// === impl Alert ===

impl Alert {
    fn find(&self, at: i64, state: &str, stale: bool) -> Option<&Entry> {
        self.transitions.iter().find(|entry| entry.at == at && entry.state == state && entry.stale == stale)
    }

    fn take(&mut self, at: i64, state: &str, stale: bool) -> bool {
        let found = self.find(at, state, stale).cloned();
        found.is_some_and(|entry| self.transitions.remove(&entry))
    }

    /// Returns the last transition.
    pub(crate) fn last(&self) -> Option<&Entry> {
        self.transitions.last()
    }

    /// Returns when the alert began to fire, each time.
    pub(crate) fn fired(&self) -> impl Iterator<Item = i64> + '_ {
        let mut before = "inactive";
        self.transitions.iter().filter_map(move |entry| {
            let begins = entry.state == "firing" && before != "firing";
            before = &entry.state;
            begins.then_some(entry.at)
        })
    }
}

/// A row as the ledger needs it.
struct Stored {
    id: String,
    rule: String,
    severity: String,
    labels: BTreeMap<String, String>,
    at: i64,
    from: String,
    state: String,
    stale: bool,
    change: String,
    was: Option<i64>,
}

impl Stored {
    fn of(row: &AlertRow) -> Self {
        let change = match row.change {
            ChangeKind::New => "new",
            ChangeKind::Restated => "restated",
            ChangeKind::Late => "late",
            ChangeKind::Moved => "moved",
            ChangeKind::Retracted => "retracted",
        };
        Self {
            id: row.alert_id.clone(),
            rule: row.rule.clone(),
            severity: row.severity.to_owned(),
            labels: row.labels.clone(),
            at: row.at,
            from: row.state_from.to_owned(),
            state: row.state.to_owned(),
            stale: row.stale,
            change: change.to_owned(),
            was: row.was,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(at: i64, from: &str, state: &str, stale: bool, change: &str) -> Stored {
        let [id, rule, severity] = ["a", "success_drift", "page"].map(str::to_owned);
        let [from, state, change] = [from, state, change].map(str::to_owned);
        Stored { id, rule, severity, labels: BTreeMap::new(), at, from, state, stale, change, was: None }
    }

    #[test]
    fn a_page_that_becomes_stale_and_fires_again_is_one_page() {
        let mut ledger = Ledger::default();
        for row in [
            row(1, "inactive", "pending", false, "new"),
            row(1, "pending", "firing", false, "new"),
            row(2, "firing", "firing", true, "restated"),
            row(3, "firing", "firing", false, "restated"),
            // As earlier versions wrote them.
            row(4, "firing", "firing", true, "new"),
            row(5, "firing", "firing", false, "new"),
        ] {
            ledger.apply(row).expect("a row of the table");
        }
        assert_eq!(ledger.pages(10), (1, 0));
        // Only that it fired again is retracted; the page remains.
        ledger.apply(row(5, "firing", "firing", false, "retracted")).expect("a row of the table");
        assert_eq!(ledger.pages(10), (1, 0));
        ledger.apply(row(1, "firing", "inactive", false, "retracted")).expect("a row of the table");
        assert_eq!(ledger.pages(10).1, 1);
        assert!(ledger.apply(row(6, "firing", "resolved", false, "unheard of")).is_err());
    }
}
