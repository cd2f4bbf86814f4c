//! An erasure in the folder of eval sets: every version loses the content of cases that were made of erased runs.

use std::path::{Path, PathBuf};

use bellwether_aggregate::erase::{Erasure, Subject};
use bellwether_base::{Error, Result};
use bellwether_evalsets::{ErasedRuns, RunIdentity};

use super::store::Store;

/// The outcome of an erasure in a folder of sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ErasedSets {
    /// Name, number of the version, and how many cases lost their content, of each version that changed.
    pub(crate) versions: Vec<(String, u32, usize)>,
    /// Files that still have an identifier.
    pub(crate) left: Vec<PathBuf>,
}

/// Erases a subject from all sets of a folder; with `dry_run`, only says from which. Then searches all files for its identifiers.
///
/// # Errors
/// `Data` if a version was edited by hand, `Config` if the folder cannot be read or written.
pub(crate) fn erase(sets: &Path, subject: &Subject, erasure: &Erasure, dry_run: bool) -> Result<ErasedSets> {
    let tokens = erasure.tokens();
    let are_named = |text: &str| tokens.are_in(text.as_bytes());
    let has = |run: &RunIdentity| is_of(subject, erasure, run);
    let mut found = ErasedSets::default();
    for name in folders(sets)? {
        let store = Store::new(sets, &name);
        if !dry_run {
            store.recover()?;
        }
        for version in store.versions() {
            let set = store.version(Some(version))?;
            let Some(without) = set.without_runs(ErasedRuns { has: &has, are_named: &are_named })? else { continue };
            found.versions.push((name.clone(), version, without.erased() - set.erased()));
            if !dry_run {
                store.replace(&without)?;
            }
        }
    }
    for file in files(sets)? {
        let bytes = std::fs::read(&file).map_err(|source| unreadable(&file, source))?;
        if tokens.are_in(&bytes) {
            found.left.push(file);
        }
    }
    Ok(found)
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
        Subject::User(_) | Subject::Session(_) => erasure.identifiers.contains(&run.run_id),
    }
}

fn unreadable(path: &Path, source: std::io::Error) -> Error {
    Error::config(format!("cannot read `{}`", path.display())).with_source(source)
}

/// Returns what is directly in a folder, in the order of names; nothing if it does not exist.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|source| unreadable(folder, source))?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<std::io::Result<Vec<_>>>().map_err(|source| unreadable(folder, source))?;
    paths.sort();
    Ok(paths)
}

/// Returns the names of the folders in a folder.
fn folders(sets: &Path) -> Result<Vec<String>> {
    let folders = entries(sets)?.into_iter().filter(|path| path.is_dir());
    Ok(folders.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
}

/// Returns all files below a folder. Links are not followed.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in entries(folder)? {
        match path.symlink_metadata() {
            Ok(about) if about.is_dir() => found.extend(files(&path)?),
            Ok(about) if about.is_file() => found.push(path),
            _ => {}
        }
    }
    Ok(found)
}
