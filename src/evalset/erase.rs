//! An erasure in the folder of eval sets: every version loses the content of cases that were made of erased runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bellwether_aggregate::erase::{Erasure, OwnedRun, Subject};
use bellwether_base::{Error, Result};
use bellwether_evalsets::set::check_name;
use bellwether_evalsets::{ErasedRuns, EvalSet, RunIdentity};
use bellwether_lake::Tokens;

use super::store::{Store, lock};

/// The outcome of an erasure in a folder of sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ErasedSets {
    /// Name, number of the version, and how many cases lost their content, of each version that changed.
    pub(crate) versions: Vec<(String, u32, usize)>,
    /// Files that still have an identifier or, of a dry run, would have one.
    pub(crate) left: Vec<PathBuf>,
    /// The files and versions that could not be read or written, with the reason.
    pub(crate) failed: Vec<String>,
}

/// A walk over the files of a folder.
#[derive(Default)]
struct Walk {
    /// Paths without links.
    files: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
    failed: Vec<String>,
}

// === impl ErasedSets ===

impl ErasedSets {
    /// Returns true if nothing is left, and nothing failed.
    pub(crate) fn is_clean(&self) -> bool {
        self.left.is_empty() && self.failed.is_empty()
    }
}

/// Erases a subject from all sets of a folder; with `dry_run`, only says from which. Then searches all files for its identifiers. What
/// fails is in the result, so that the rest is done.
pub(crate) fn erase(sets: &Path, subject: &Subject, erasure: &Erasure, dry_run: bool) -> ErasedSets {
    let mut found = ErasedSets::default();
    let _held = lock(sets, !dry_run).map_err(|error| found.failed.push(error.chain())).ok();
    let tokens = erasure.tokens();
    let are_named = |text: &str| tokens.are_in(text.as_bytes());
    let has = |run: &RunIdentity| is_of(subject, erasure, run);
    let erased = ErasedRuns { has: &has, are_named: &are_named };
    let mut clean = BTreeSet::new();
    for name in folders(sets) {
        let store = Store::new(sets, &name);
        for version in store.versions() {
            match erase_version(&store, version, erased, dry_run) {
                Ok((set, cases)) => {
                    found.versions.extend(cases.map(|cases| (name.clone(), version, cases)));
                    // Of a version that is whole, only what other runs do not have counts.
                    let path = store.path(version);
                    if !names(&set, &tokens) {
                        let written = ["cases.jsonl", "manifest.json"].map(|file| path.join(file).canonicalize());
                        clean.extend(written.into_iter().flatten());
                    }
                }
                Err(error) => found.failed.push(error.chain()),
            }
        }
    }
    let mut walk = Walk::default();
    walk.add(sets);
    for file in walk.files.into_iter().filter(|file| !clean.contains(file)) {
        match std::fs::read(&file) {
            Ok(bytes) if tokens.are_in(&bytes) => found.left.push(file),
            Ok(_) => {}
            Err(error) => found.failed.push(unreadable(&file, error).chain()),
        }
    }
    found.failed.extend(walk.failed);
    found
}

/// Erases from one version. Returns it as it is then, and how many cases lost their content, if it changed.
fn erase_version(
    store: &Store,
    version: u32,
    erased: ErasedRuns<'_>,
    dry_run: bool,
) -> Result<(EvalSet, Option<usize>)> {
    let set = if dry_run { store.version(Some(version))? } else { store.recovered(version)? };
    let Some(without) = set.without_runs(erased)? else { return Ok((set, None)) };
    if !dry_run {
        store.replace(&without)?;
    }
    let cases = without.erased() - set.erased();
    Ok((without, Some(cases)))
}

/// Returns true for a run of the subject. Of a user and a session, the tables know the runs.
fn is_of(subject: &Subject, erasure: &Erasure, run: &RunIdentity) -> bool {
    let tenant = run.tenant.as_deref().unwrap_or_default();
    match subject {
        Subject::Run { run_id, source, tenant: of } => {
            run.run_id == *run_id
                && source.as_ref().is_none_or(|source| *source == run.source)
                && of.as_ref().is_none_or(|of| of == tenant)
        }
        Subject::Tenant(name) => name == tenant,
        Subject::User(_) | Subject::Session(_) => erasure.owned.contains(&OwnedRun {
            tenant: tenant.to_owned(),
            source: run.source.clone(),
            run_id: run.run_id.clone(),
        }),
    }
}

/// Returns true if a case has an identifier other than the id of its runs, which are not the subject's.
fn names(set: &EvalSet, tokens: &Tokens) -> bool {
    set.cases().iter().any(|case| {
        let mut case = case.clone();
        let provenance = &mut case.provenance;
        provenance.run.iter_mut().chain(&mut provenance.runs).for_each(|run| run.run_id.clear());
        serde_json::to_vec(&case).is_ok_and(|bytes| tokens.are_in(&bytes))
    })
}

fn unreadable(path: &Path, source: std::io::Error) -> Error {
    Error::config(format!("cannot read `{}`", path.display())).with_source(source)
}

/// Returns the names of the folders that may hold a set.
fn folders(sets: &Path) -> Vec<String> {
    let names = std::fs::read_dir(sets).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| check_name(name).is_ok());
    names.sort();
    names
}

// === impl Walk ===

impl Walk {
    /// Adds all files below a folder, and those that links lead to.
    fn add(&mut self, path: &Path) {
        let whole = match path.canonicalize() {
            Ok(whole) => whole,
            Err(error) => return self.failed.push(unreadable(path, error).chain()),
        };
        if !whole.is_dir() {
            // Sockets and the like hold nothing.
            if whole.is_file() {
                self.files.insert(whole);
            }
            return;
        }
        if !self.folders.insert(whole.clone()) {
            return;
        }
        match std::fs::read_dir(&whole) {
            Ok(entries) => entries.flatten().for_each(|entry| self.add(&entry.path())),
            Err(error) => self.failed.push(unreadable(&whole, error).chain()),
        }
    }
}
