//! The report of an erasure: rows removed, and objects that are left, with the reason and the time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, UNIX_EPOCH};

use bellwether_aggregate::erase::{Erasure, Subject, Waiting};
use bellwether_lake::{Held, Holder, MaintainSettings, Scanned, Waits};
use bellwether_tables::Table;

use crate::evalset::erase::ErasedSets;
use crate::maintain::bytes;

/// Paths that are listed of each kind of object.
const LISTED: usize = 3;

/// The parts of a report.
pub(super) struct Report<'a> {
    pub(super) subject: &'a Subject,
    pub(super) erasure: &'a Erasure,
    /// None if there is no folder of eval sets.
    pub(super) sets: Option<&'a ErasedSets>,
    pub(super) scanned: &'a Scanned,
    pub(super) dry_run: bool,
}

/// When maintenance removes something.
#[derive(Clone, Copy)]
pub(super) struct Times<'a> {
    pub(super) now_micros: i64,
    pub(super) maintain: &'a MaintainSettings,
}

// === impl Report ===

impl Report<'_> {
    /// Returns the report.
    pub(super) fn text(&self, waiting: &[Waiting], times: Times<'_>) -> String {
        let mut text = format!("{}\n", self.summary());
        for (table, of) in &self.erasure.tables {
            let mut did = Vec::new();
            if of.rows > 0 {
                let verb = if self.dry_run { "would remove" } else { "removed" };
                did.push(format!("{verb} {}", count(of.rows, "row")));
            }
            if of.changed > 0 {
                let verb = if self.dry_run { "would change" } else { "changed" };
                did.push(format!("{verb} texts of {}", count(of.changed, "row")));
            }
            text.push_str(&format!("  {:<15}  {}, in {}\n", table.name(), did.join(", "), count(of.files, "file")));
        }
        for (name, version, cases) in self.sets.iter().flat_map(|sets| &sets.versions) {
            let verb = if self.dry_run { "would remove" } else { "removed" };
            let content = match cases {
                0 => "the names of runs".to_owned(),
                cases => format!("the content of {}", count(*cases as u64, "case")),
            };
            text.push_str(&format!("  eval set {name} v{version}: {verb} {content}\n"));
        }
        let Scanned { objects, bytes: size, held } = self.scanned;
        let identifiers = count(self.erasure.identifiers.len() as u64, "identifier");
        text.push_str(&format!("searched {} ({}) for {identifiers}\n", count(*objects, "object"), bytes(*size)));
        if held.is_empty() && self.sets.is_none_or(ErasedSets::is_clean) {
            text.push_str("nothing is left\n");
        }
        text.push_str(&self.about_sets());
        for line in left(held, self.dry_run, times) {
            text.push_str(&format!("  {line}\n"));
        }
        for Waiting { table, waits } in waiting {
            text.push_str(&format!("  {} waits {}\n", table.name(), waits_for(*waits)));
        }
        if !held.is_empty() && !self.dry_run {
            text.push_str("run `bellwether maintain`, or erase again with --now; erase again to verify\n");
        }
        if !self.erasure.tables.is_empty() {
            text.push_str("Kafka and backups may still hold the messages\n");
        }
        text
    }

    /// Says what is left in the folder of eval sets, and what was not searched.
    fn about_sets(&self) -> String {
        let Some(sets) = self.sets else {
            return "no eval sets were searched: name their folder with --sets\n".to_owned();
        };
        let verb = if self.dry_run { "would still name" } else { "names" };
        let left = sets.left.iter().map(|file| format!("  a file of eval sets {verb} it: {}\n", file.display()));
        let failed = sets.failed.iter().map(|why| format!("  eval sets: {}\n", crate::screen::one_line(why)));
        let mut text: String = left.chain(failed).collect();
        if matches!(self.subject, Subject::User(_) | Subject::Session(_)) && self.erasure.owned.is_empty() {
            text.push_str(
                "its runs are not known any more, so cases made of them were not looked for; name each by --run-id\n",
            );
        }
        text
    }

    fn summary(&self) -> String {
        let name = match self.subject {
            Subject::Run { run_id, .. } => format!("run `{run_id}`"),
            Subject::User(key) => format!("user `{key}`"),
            Subject::Session(id) => format!("session `{id}`"),
            Subject::Tenant(name) => format!("tenant `{name}`"),
        };
        let Erasure { tables, runs, statements, .. } = self.erasure;
        let note = if self.dry_run { " (dry run: nothing is changed)" } else { "" };
        match (tables.is_empty(), runs, statements) {
            (true, ..) => format!("{name}: nothing was found in the tables{note}"),
            (_, 0, 0) => format!("{name}: no run, but other rows name it{note}"),
            _ => format!("{name}: {}, {} about them{note}", count(*runs, "run"), count(*statements, "statement")),
        }
    }
}

/// Describes the objects that hold the subject, by kind and table.
fn left(held: &[Held], dry_run: bool, times: Times<'_>) -> Vec<String> {
    let mut kinds: BTreeMap<(Kind, Option<Table>), Vec<&Held>> = BTreeMap::new();
    for one in held {
        kinds.entry((Kind::of(one.holder), one.table)).or_default().push(one);
    }
    let describe = |((kind, table), all): ((Kind, Option<Table>), Vec<&Held>)| {
        let number = all.len() as u64;
        let of = table.map(|table| format!(" of {}", table.name())).unwrap_or_default();
        let columns: BTreeSet<&str> = all.iter().flat_map(|held| &held.columns).map(String::as_str).collect();
        let columns = columns.into_iter().collect::<Vec<_>>().join(", ");
        let paths = paths(&all);
        match kind {
            Kind::Live if dry_run => format!("{}{of}, in {columns}", count(number, "file")),
            Kind::Live => format!("{}{of} in use: other rows name it in {columns} ({paths})", count(number, "file")),
            Kind::Replaced => {
                let until = until(&all, times.maintain.keep_replaced, times.now_micros);
                format!("{}{of}, to be removed {until}", count(number, "replaced file"))
            }
            Kind::Unnamed => {
                let until = until(&all, times.maintain.keep_unnamed, times.now_micros);
                format!("{}{of} that no commit names, to be removed {until} ({paths})", count(number, "file"))
            }
            Kind::Log => format!("{}{of}, to be removed with older log entries", count(number, "object of the log")),
            Kind::Other => format!("{}{of} ({paths})", count(number, "other object")),
        }
    };
    kinds.into_iter().map(describe).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Live,
    Replaced,
    Unnamed,
    Log,
    Other,
}

impl Kind {
    fn of(holder: Holder) -> Self {
        match holder {
            Holder::Live => Self::Live,
            Holder::Replaced { .. } => Self::Replaced,
            Holder::Unnamed { .. } => Self::Unnamed,
            Holder::Log => Self::Log,
            Holder::Other => Self::Other,
        }
    }
}

fn paths(held: &[&Held]) -> String {
    let mut names: Vec<&str> = held.iter().take(LISTED).map(|held| held.path.as_str()).collect();
    if held.len() > LISTED {
        names.push("…");
    }
    names.join(", ")
}

/// Says from when on objects can be removed that stay for so long.
fn until(held: &[&Held], keep: Duration, now_micros: i64) -> String {
    let at = held.iter().filter_map(|held| match held.holder {
        Holder::Replaced { at_micros } | Holder::Unnamed { at_micros } => at_micros,
        _ => None,
    });
    let Some(at) = at.max() else { return "by the next maintenance".to_owned() };
    let until = at.saturating_add(i64::try_from(keep.as_micros()).unwrap_or(i64::MAX));
    if until <= now_micros {
        return "by the next maintenance".to_owned();
    }
    let since = Duration::from_micros(u64::try_from(until).unwrap_or(0));
    let time = UNIX_EPOCH.checked_add(since).map(|time| humantime::format_rfc3339_seconds(time).to_string());
    format!("at the earliest at {}", time.unwrap_or_else(|| "the end of time".to_owned()))
}

fn waits_for(waits: Waits) -> String {
    match waits {
        Waits::Follower { name, version } => format!("for {name}, which reads version {version} next"),
        Waits::Clock { .. } => "for time to pass".to_owned(),
    }
}

fn count(number: u64, what: &str) -> String {
    match (number, what.strip_prefix("object of")) {
        (1, _) => format!("1 {what}"),
        (_, Some(of)) => format!("{number} objects of{of}"),
        _ => format!("{number} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use bellwether_aggregate::erase::{ErasedFrom, OwnedRun};

    use crate::evalset::erase::ErasedSets;

    use super::*;

    const HOUR: i64 = 3_600_000_000;

    #[test]
    fn a_report_says_what_was_done_and_what_is_left_until_when() {
        let held = |path: &str, table, holder, column: Option<&str>| Held {
            path: path.to_owned(),
            table: Some(table),
            holder,
            columns: column.into_iter().map(str::to_owned).collect(),
        };
        let scanned = Scanned {
            objects: 90,
            bytes: 3 << 20,
            held: vec![
                held("events/a", Table::Events, Holder::Replaced { at_micros: Some(HOUR) }, Some("run_id")),
                held("events/b", Table::Events, Holder::Replaced { at_micros: Some(HOUR / 2) }, Some("run_id")),
                held("events/c", Table::Events, Holder::Live, Some("extra")),
                held("alerts/_delta_log/0.json", Table::Alerts, Holder::Log, None),
            ],
        };
        let tables = vec![
            (Table::Events, ErasedFrom { rows: 5, changed: 0, files: 2 }),
            (Table::Alerts, ErasedFrom { rows: 0, changed: 1, files: 1 }),
        ];
        let identifiers = ["u-1", "run-1"].map(str::to_owned).into();
        let run = ["", "app", "run-1"].map(str::to_owned);
        let [tenant, source, run_id] = run;
        let owned = [OwnedRun { tenant, source, run_id }].into();
        let erasure = Erasure { tables, runs: 3, statements: 2, identifiers, owned };
        let subject = Subject::User("u-1".to_owned());
        let sets = ErasedSets {
            versions: vec![("refunds".to_owned(), 2, 1), ("refunds".to_owned(), 3, 0)],
            left: vec!["evalsets/notes".into()],
            failed: vec!["cannot read `evalsets/x`".to_owned()],
        };
        let report =
            Report { subject: &subject, erasure: &erasure, sets: Some(&sets), scanned: &scanned, dry_run: false };
        let maintain = MaintainSettings::default();
        let waiting = [Waiting { table: Table::Events, waits: Waits::Follower { name: "aggregate", version: 9 } }];
        let expected = "user `u-1`: 3 runs, 2 statements about them
  events           removed 5 rows, in 2 files
  alerts           changed texts of 1 row, in 1 file
  eval set refunds v2: removed the content of 1 case
  eval set refunds v3: removed the names of runs
searched 90 objects (3.0 MiB) for 2 identifiers
  a file of eval sets names it: evalsets/notes
  eval sets: cannot read `evalsets/x`
  1 file of events in use: other rows name it in extra (events/c)
  2 replaced files of events, to be removed at the earliest at 1970-01-01T03:00:00Z
  1 object of the log of alerts, to be removed with older log entries
  events waits for aggregate, which reads version 9 next
run `bellwether maintain`, or erase again with --now; erase again to verify
Kafka and backups may still hold the messages
";
        assert_eq!(report.text(&waiting, Times { now_micros: HOUR, maintain: &maintain }), expected);
        let nothing = Erasure { identifiers: erasure.identifiers.clone(), ..Erasure::default() };
        let clean = Scanned { held: Vec::new(), ..scanned };
        let report = Report { subject: &subject, erasure: &nothing, sets: None, scanned: &clean, dry_run: true };
        let text = report.text(&[], Times { now_micros: HOUR, maintain: &maintain });
        assert!(text.starts_with("user `u-1`: nothing was found in the tables (dry run"), "{text}");
        assert!(
            text.ends_with("nothing is left\nno eval sets were searched: name their folder with --sets\n"),
            "{text}"
        );
        let sets = ErasedSets::default();
        let report =
            Report { subject: &subject, erasure: &nothing, sets: Some(&sets), scanned: &clean, dry_run: false };
        let text = report.text(&[], Times { now_micros: HOUR, maintain: &maintain });
        assert!(text.contains("nothing is left\nits runs are not known any more"), "{text}");
    }
}
