//! The subject of an erasure, and its rows in `events`.
//!
//! A run is identified by tenant, source and run id, and a run and the statements about it are one subject. Which run a statement is
//! about is decided as in `runs.sql`: the run of its own source if there is one, otherwise every run of that id, but never that of
//! another tenant.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, StringViewArray};
use arrow::compute::{filter_record_batch, not};
use bellwether_base::{Error, Result};
use bellwether_lake::{AddedFile, Edit, Edited, Lake};
use bellwether_tables::Table;

use super::OwnedRun;
use crate::statement::StatementKind;

/// The columns of `events` that decide whose a row is.
pub(crate) const COLUMNS: [&str; 6] = ["run_id", "source", "tenant", "event_type", "user_key", "session_id"];

/// Whose rows are erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The runs of an id, and the statements about them.
    Run {
        /// Id.
        run_id: String,
        /// Only the run of this source.
        source: Option<String>,
        /// Only the run of this tenant.
        tenant: Option<String>,
    },
    /// The runs of a user, by `user_key`.
    User(String),
    /// The runs of a session.
    Session(String),
    /// Everything of a tenant.
    Tenant(String),
}

/// The rows of a subject in some files.
pub(super) struct Found {
    subject: Subject,
    /// By run id.
    runs: HashMap<String, Named>,
    completed: u64,
    statements: u64,
    /// Files with rows of the subject.
    files: Vec<AddedFile>,
}

/// The runs of one id, as tenant and source.
#[derive(Debug, Default)]
struct Named {
    /// Those of the subject.
    ours: BTreeSet<(String, String)>,
    /// Others.
    others: BTreeSet<(String, String)>,
}

/// The columns of some rows.
struct Columns<'a> {
    run_id: &'a StringViewArray,
    source: &'a StringViewArray,
    tenant: &'a StringViewArray,
    event_type: &'a StringViewArray,
    user_key: &'a StringViewArray,
    session_id: &'a StringViewArray,
}

// === impl Subject ===

impl Subject {
    /// Returns the identifiers that name the subject.
    pub fn identifiers(&self) -> impl Iterator<Item = &str> {
        let (Self::Run { run_id: id, .. } | Self::User(id) | Self::Session(id) | Self::Tenant(id)) = self;
        std::iter::once(id.as_str())
    }

    /// Returns the tenant, if all of a tenant is erased.
    pub fn tenant_erased(&self) -> Option<&str> {
        match self {
            Self::Tenant(tenant) => Some(tenant),
            _ => None,
        }
    }

    /// Returns true if a row names the subject by itself.
    fn is_named(&self, rows: &Columns<'_>, row: usize) -> bool {
        let text = |column: &StringViewArray| (!column.is_null(row)).then(|| column.value(row).to_owned());
        match self {
            Self::Run { run_id, source, tenant } => {
                let fits = |wanted: &Option<String>, column: &StringViewArray| {
                    wanted.as_ref().is_none_or(|wanted| column.value(row) == wanted)
                };
                rows.run_id.value(row) == run_id && fits(source, rows.source) && fits(tenant, rows.tenant)
            }
            Self::User(key) => text(rows.user_key).as_ref() == Some(key),
            Self::Session(id) => text(rows.session_id).as_ref() == Some(id),
            Self::Tenant(tenant) => rows.tenant.value(row) == tenant,
        }
    }
}

// === impl Columns ===

impl<'a> Columns<'a> {
    fn of(rows: &'a RecordBatch) -> Result<Self> {
        let column = |name: &str| {
            let found = rows.column_by_name(name).and_then(|column| column.as_string_view_opt());
            found.ok_or_else(|| Error::bug(format!("rows of `events` lack column `{name}`")))
        };
        Ok(Self {
            run_id: column("run_id")?,
            source: column("source")?,
            tenant: column("tenant")?,
            event_type: column("event_type")?,
            user_key: column("user_key")?,
            session_id: column("session_id")?,
        })
    }

    fn is_run(&self, row: usize) -> bool {
        StatementKind::of(self.event_type.value(row)) == StatementKind::Completed
    }

    fn of_run(&self, row: usize) -> (String, String) {
        (self.tenant.value(row).to_owned(), self.source.value(row).to_owned())
    }
}

// === impl Found ===

impl Found {
    /// Finds the runs of a subject in files, then all rows about them.
    pub(super) async fn of(lake: &Lake, subject: Subject, files: &[AddedFile]) -> Result<Self> {
        let mut found = Self::new(subject);
        match &found.subject {
            Subject::Run { run_id, .. } => {
                let id = Arc::new(HashSet::from([run_id.clone()]));
                for file in files {
                    if let Some(rows) = lake.find_rows(Table::Events, file, &COLUMNS, "run_id", &id).await? {
                        found.note_ours(&rows)?;
                    }
                }
            }
            _ => found.note_ours_in(lake, files).await?,
        }
        if found.runs.is_empty() {
            return Ok(found);
        }
        let ids: Arc<HashSet<String>> = Arc::new(found.runs.keys().cloned().collect());
        for file in files {
            if let Some(rows) = lake.find_rows(Table::Events, file, &COLUMNS, "run_id", &ids).await? {
                found.note_others(&rows)?;
            }
        }
        for file in files {
            let Some(rows) = lake.find_rows(Table::Events, file, &COLUMNS, "run_id", &ids).await? else { continue };
            if found.count(&rows)? > 0 {
                found.files.push(file.clone());
            }
        }
        Ok(found)
    }

    /// Returns the runs of a subject in files that no version may name any more, without the rows about them.
    pub(super) async fn runs_in(lake: &Lake, subject: &Subject, files: &[AddedFile]) -> Result<Self> {
        let mut found = Self::new(subject.clone());
        found.note_ours_in(lake, files).await?;
        Ok(found)
    }

    fn new(subject: Subject) -> Self {
        Self { subject, runs: HashMap::new(), completed: 0, statements: 0, files: Vec::new() }
    }

    async fn note_ours_in(&mut self, lake: &Lake, files: &[AddedFile]) -> Result<()> {
        for file in files {
            for rows in lake.read_in_pieces(Table::Events, file, Some(&COLUMNS)).await? {
                self.note_ours(&rows?)?;
            }
        }
        Ok(())
    }

    fn note_ours(&mut self, rows: &RecordBatch) -> Result<()> {
        let columns = Columns::of(rows)?;
        for row in (0..rows.num_rows()).filter(|row| self.subject.is_named(&columns, *row)) {
            let named = self.runs.entry(columns.run_id.value(row).to_owned()).or_default();
            if columns.is_run(row) {
                named.ours.insert(columns.of_run(row));
            }
        }
        Ok(())
    }

    fn note_others(&mut self, rows: &RecordBatch) -> Result<()> {
        let columns = Columns::of(rows)?;
        for row in (0..rows.num_rows()).filter(|row| columns.is_run(*row)) {
            let Some(named) = self.runs.get_mut(columns.run_id.value(row)) else { continue };
            let run = columns.of_run(row);
            // An attempt without the user is of the same run.
            if !named.ours.contains(&run) {
                named.others.insert(run);
            }
        }
        Ok(())
    }

    /// Counts the rows of the subject, and returns how many of these are.
    fn count(&mut self, rows: &RecordBatch) -> Result<usize> {
        let columns = Columns::of(rows)?;
        let ours: Vec<usize> = (0..rows.num_rows()).filter(|row| self.has(&columns, *row)).collect();
        let completed = ours.iter().filter(|row| columns.is_run(**row)).count();
        self.completed += completed as u64;
        self.statements += (ours.len() - completed) as u64;
        Ok(ours.len())
    }

    /// Returns true if there is no row of the subject.
    pub(super) fn is_empty(&self) -> bool {
        self.rows() == 0
    }

    /// Returns the files with rows of the subject.
    pub(super) fn files(&self) -> &[AddedFile] {
        &self.files
    }

    /// Returns the number of rows.
    pub(super) fn rows(&self) -> u64 {
        self.completed + self.statements
    }

    /// Returns the number of runs.
    pub(super) fn runs(&self) -> u64 {
        self.runs.values().map(|named| named.ours.len() as u64).sum()
    }

    /// Returns the number of rows that are no completed runs.
    pub(super) fn statements(&self) -> u64 {
        self.statements
    }

    /// Returns the ids of the runs.
    pub(super) fn run_ids(&self) -> impl Iterator<Item = &str> {
        self.runs.keys().map(String::as_str)
    }

    /// Returns the runs of the subject.
    pub(super) fn owned(&self) -> impl Iterator<Item = OwnedRun> {
        let run = |run_id: &str, (tenant, source): &(String, String)| OwnedRun {
            tenant: tenant.clone(),
            source: source.clone(),
            run_id: run_id.to_owned(),
        };
        self.runs.iter().flat_map(move |(id, named)| named.ours.iter().map(move |of| run(id, of)))
    }

    /// Returns the ids of runs by which figures of others than the erased tenant may change: all, unless a tenant is erased.
    pub(super) fn counted_ids(&self) -> impl Iterator<Item = &str> {
        let counts = |named: &Named| self.subject.tenant_erased().is_none() || !named.others.is_empty();
        self.runs.iter().filter(move |(_, named)| counts(named)).map(|(id, _)| id.as_str())
    }

    /// Returns true if some rows are of the subject, or about a run with the id of one of its runs.
    pub(super) fn concern(&self, rows: &RecordBatch) -> Result<bool> {
        let columns = Columns::of(rows)?;
        Ok((0..rows.num_rows())
            .any(|row| self.runs.contains_key(columns.run_id.value(row)) || self.subject.is_named(&columns, row)))
    }

    /// Returns which rows are of the subject.
    pub(super) fn mask(&self, rows: &RecordBatch) -> Result<BooleanArray> {
        let columns = Columns::of(rows)?;
        Ok((0..rows.num_rows()).map(|row| Some(self.has(&columns, row))).collect())
    }

    fn has(&self, rows: &Columns<'_>, row: usize) -> bool {
        if self.subject.is_named(rows, row) {
            return true;
        }
        let Some(named) = self.runs.get(rows.run_id.value(row)) else { return false };
        if rows.is_run(row) {
            return named.ours.contains(&rows.of_run(row));
        }
        let (tenant, source) = rows.of_run(row);
        let may_mean = |run: &&(String, String)| tenant.is_empty() || tenant == run.0;
        let is_own = |run: &(String, String)| run.1 == source;
        let mut ours = named.ours.iter().filter(may_mean).peekable();
        if ours.peek().is_none() {
            return false;
        }
        ours.any(is_own) || !named.others.iter().filter(may_mean).any(is_own)
    }
}

impl Edit for Found {
    fn columns(&self) -> Option<&[&'static str]> {
        Some(&COLUMNS)
    }

    fn touches(&self, rows: &RecordBatch) -> Result<bool> {
        Ok(self.mask(rows)?.true_count() > 0)
    }

    fn edit(&self, rows: &RecordBatch) -> Result<Edited> {
        split(rows, &self.mask(rows)?)
    }
}

/// Divides rows by whether they go.
pub(super) fn split(rows: &RecordBatch, goes: &BooleanArray) -> Result<Edited> {
    let gone = filter_record_batch(rows, goes)?;
    Ok(Edited { stay: filter_record_batch(rows, &not(goes)?)?, gone, changed: 0 })
}

#[cfg(test)]
mod tests {
    use arrow::array::ArrayRef;
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    /// Rows: run id, source, tenant, kind, user, session.
    fn rows(of: &[[&str; 6]]) -> RecordBatch {
        let fields: Vec<Field> = COLUMNS.iter().map(|name| Field::new(*name, DataType::Utf8View, true)).collect();
        let column = |n: usize| {
            let values: StringViewArray =
                of.iter().map(|row| (!row[n].is_empty() || n < 4).then_some(row[n])).collect();
            Arc::new(values) as ArrayRef
        };
        RecordBatch::try_new(Arc::new(Schema::new(fields)), (0..6).map(column).collect()).expect("rows")
    }

    fn erased(subject: Subject, of: &[[&str; 6]]) -> Vec<bool> {
        let rows = rows(of);
        let mut found = Found::new(subject);
        found.note_ours(&rows).expect("reads");
        found.note_others(&rows).expect("reads");
        let count = found.count(&rows).expect("counts");
        let mask = found.mask(&rows).expect("decides");
        assert_eq!(count, mask.true_count());
        mask.iter().map(|goes| goes == Some(true)).collect()
    }

    #[test]
    fn a_run_and_its_statements_are_one_subject() {
        let all = [
            ["r1", "app", "a", "run.completed", "u1", "s1"],
            ["r1", "app", "a", "run.completed", "", ""],
            ["r1", "reviews", "", "run.review", "", ""],
            ["r1", "reviews", "b", "run.review", "", ""],
            ["r2", "app", "a", "run.completed", "u2", "s1"],
            ["r3", "app", "a", "run.score", "u1", ""],
        ];
        assert_eq!(erased(Subject::User("u1".into()), &all), [true, true, true, false, false, true]);
        assert_eq!(erased(Subject::Session("s1".into()), &all), [true, true, true, false, true, false]);
        let run = |source: Option<&str>| Subject::Run {
            run_id: "r1".into(),
            source: source.map(str::to_owned),
            tenant: None,
        };
        assert_eq!(erased(run(None), &all), [true, true, true, true, false, false]);
        assert_eq!(erased(run(Some("other")), &all), [false; 6]);
        assert_eq!(erased(Subject::User("u9".into()), &all), [false; 6]);
        assert_eq!(erased(Subject::Tenant("a".into()), &all), [true, true, true, false, true, true]);
    }

    #[test]
    fn statements_about_the_run_of_another_source_stay() {
        let all = [
            ["r1", "one", "", "run.completed", "u1", ""],
            ["r1", "two", "", "run.completed", "u2", ""],
            ["r1", "one", "", "run.score", "", ""],
            ["r1", "two", "", "run.score", "", ""],
            ["r1", "reviews", "", "run.review", "", ""],
        ];
        assert_eq!(erased(Subject::User("u1".into()), &all), [true, false, true, false, true]);
        let run = Subject::Run { run_id: "r1".into(), source: Some("two".into()), tenant: None };
        assert_eq!(erased(run, &all), [false, true, false, true, true]);
    }
}
