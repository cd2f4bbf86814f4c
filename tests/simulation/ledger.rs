//! Checks the rules of ARCHITECTURE.md against every commit that lands.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bellwether_ingest::commit_pipeline::app_id;
use bellwether_lake::PartitionRange;

use super::control::Violation;
use super::protocol::{JOB, Row, TOPIC};
use super::source::Broker;

/// A commit as the table shows it.
#[derive(Clone, Debug)]
pub(crate) struct Landed {
    pub(crate) version: i64,
    pub(crate) id: String,
    pub(crate) advances: Vec<(String, i64)>,
    pub(crate) ranges: Vec<PartitionRange>,
    /// Rows of each file; none if the file is missing.
    pub(crate) files: Vec<(String, Option<Vec<Row>>)>,
}

/// All commits that have landed.
pub(crate) struct Ledger {
    broker: Rc<Broker>,
    next: BTreeMap<i32, i64>,
    rejected_next: BTreeMap<i32, i64>,
    events: BTreeSet<(i32, i64)>,
    quarantine: BTreeSet<(i32, i64)>,
    lines: Vec<String>,
}

type Held = Result<(), Violation>;

fn broken(rule: &'static str, what: String) -> Held {
    Err(Violation { rule, what })
}

fn partition_of(app: &str) -> Option<i32> {
    app.strip_prefix(&format!("{JOB}/{TOPIC}/"))?.parse().ok()
}

fn rows(landed: &Landed, table: &str) -> Result<Vec<Row>, Violation> {
    let mut all = Vec::new();
    for (path, rows) in &landed.files {
        match rows {
            Some(rows) => all.extend(rows.iter().cloned()),
            None => {
                let what = format!("version {} of `{table}` names file {path}, which is not there", landed.version);
                return Err(Violation { rule: "L-1", what });
            }
        }
    }
    Ok(all)
}

// === impl Ledger ===

impl Ledger {
    pub(crate) fn new(broker: Rc<Broker>) -> Self {
        Self {
            broker,
            next: BTreeMap::new(),
            rejected_next: BTreeMap::new(),
            events: BTreeSet::new(),
            quarantine: BTreeSet::new(),
            lines: Vec::new(),
        }
    }

    /// Returns one line per commit.
    pub(crate) fn lines(&self) -> String {
        self.lines.join("\n")
    }

    /// Checks a commit to `quarantine`.
    pub(crate) fn quarantine(&mut self, landed: &Landed) -> Held {
        self.lines.push(format!("quarantine {} {landed:?}", landed.id));
        for (app, next) in &landed.advances {
            let Some(partition) = partition_of(app) else { continue };
            if self.rejected_next.insert(partition, *next).is_some_and(|before| before >= *next) {
                return broken("L-3", format!("`quarantine` moves {app} back to {next}"));
            }
        }
        for (partition, offset, _) in rows(landed, "quarantine")? {
            match self.broker.stored(partition, offset) {
                Some(stored) if stored.run.is_none() || stored.timed => {}
                _ => return broken("L-1", format!("{partition}:{offset} is no poison, and in `quarantine`")),
            }
            if !self.quarantine.insert((partition, offset)) {
                return broken("L-2", format!("message {partition}:{offset} is twice in `quarantine`"));
            }
            self.in_one_table(partition, offset)?;
        }
        Ok(())
    }

    /// Checks a commit to `events`.
    pub(crate) fn events(&mut self, landed: &Landed) -> Held {
        self.lines.push(format!("events {} {landed:?}", landed.id));
        let rows = rows(landed, "events")?;
        let moved: BTreeMap<&str, i64> = landed.advances.iter().map(|(app, next)| (app.as_str(), *next)).collect();
        for range in &landed.ranges {
            let PartitionRange { partition, from, next, .. } = range;
            let stands = self.next.get(partition).copied();
            if next <= from || stands.is_some_and(|stands| stands != *from) {
                return broken(
                    "L-3",
                    format!(
                        "version {} takes [{from}, {next}) of {partition}, which stood at {stands:?}",
                        landed.version
                    ),
                );
            }
            let app = app_id(JOB, TOPIC, *partition);
            if moved.get(app.as_str()) != Some(next) {
                let recorded = moved.get(app.as_str());
                return broken(
                    "L-3",
                    format!("version {} took [{from}, {next}) of {partition} and records {recorded:?}", landed.version),
                );
            }
            self.next.insert(*partition, *next);
        }
        for (partition, offset, run) in &rows {
            let inside =
                |range: &PartitionRange| range.partition == *partition && (range.from..range.next).contains(offset);
            if !landed.ranges.iter().any(inside) {
                return broken("L-3", format!("row {partition}:{offset} is outside its commit's ranges"));
            }
            if self.broker.stored(*partition, *offset).and_then(|stored| stored.run.as_ref()) != run.as_ref() {
                return broken("L-1", format!("row {partition}:{offset} is not the message, but {run:?}"));
            }
            if !self.events.insert((*partition, *offset)) {
                return broken("L-2", format!("message {partition}:{offset} is twice in `events`"));
            }
            self.in_one_table(*partition, *offset)?;
        }
        for range in &landed.ranges {
            self.passed(range.partition, range.from, range.next)?;
        }
        Ok(())
    }

    fn in_one_table(&self, partition: i32, offset: i64) -> Held {
        if self.events.contains(&(partition, offset)) && self.quarantine.contains(&(partition, offset)) {
            return broken("L-2", format!("message {partition}:{offset} is in `events` and in `quarantine`"));
        }
        Ok(())
    }

    /// Checks that every message between two offsets is in a table.
    fn passed(&self, partition: i32, from: i64, next: i64) -> Held {
        for offset in from..next {
            let Some(stored) = self.broker.stored(partition, offset) else { continue };
            let place = (partition, offset);
            let (accepted, rejected) = (self.events.contains(&place), self.quarantine.contains(&place));
            let (table, there) = match &stored.run {
                Some(_) if stored.timed => ("events` or `quarantine", accepted || rejected),
                Some(_) => ("events", accepted),
                None => ("quarantine", rejected),
            };
            if !there {
                return broken("L-1", format!("offset {partition}:{offset} was passed, and is not in `{table}`"));
            }
        }
        Ok(())
    }

    /// Checks that everything acknowledged to workers is in the table.
    pub(crate) fn acknowledged(&self, acknowledged: &BTreeMap<i32, i64>) -> Held {
        for (partition, next) in acknowledged {
            let stands = self.next.get(partition).copied().unwrap_or(0);
            if stands < *next {
                return broken(
                    "L-1",
                    format!("{partition} was acknowledged up to {next}, and the table stands at {stands}"),
                );
            }
        }
        Ok(())
    }

    /// Checks at the end that the tables have every message once.
    pub(crate) fn complete(&self, events: &[Row], quarantine: &[Row]) -> Held {
        let end: Vec<i64> = self.broker.ids().map(|partition| self.broker.end(partition)).collect();
        for (partition, end) in self.broker.ids().zip(end) {
            let start = self.broker.partitions[usize::try_from(partition).expect("a partition")][0].offset;
            self.passed(partition, start, end)?;
        }
        for (table, rows, known) in [("events", events, &self.events), ("quarantine", quarantine, &self.quarantine)] {
            let read: BTreeSet<(i32, i64)> = rows.iter().map(|row| (row.0, row.1)).collect();
            if read.len() != rows.len() {
                return broken("L-2", format!("`{table}` holds {} messages in {} rows", read.len(), rows.len()));
            }
            if read != *known {
                return broken("L-1", format!("`{table}` holds {} messages of {}", read.len(), known.len()));
            }
        }
        Ok(())
    }
}
