//! Eval sets and exports in folders. A version is written once, and files of others are never touched.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use bellwether_base::{Error, Result};
use bellwether_evalsets::export::{ExportManifest, MANIFEST_FILE};
use bellwether_evalsets::set::check_name;
use bellwether_evalsets::{EvalCase, EvalSet, Exported, Manifest};

const CASES: &str = "cases.jsonl";
const MANIFEST: &str = "manifest.json";
/// Marks a version that was released.
const RELEASED: &str = "released";
/// Ending of a file that has not taken its place yet.
const PART: &str = ".part";

/// A file that was written beside the one whose place it takes.
struct Part {
    written: PathBuf,
    target: PathBuf,
}

/// The versions of one set, in the folders `v1`, `v2` and so on.
pub(super) struct Store {
    folder: PathBuf,
    name: String,
}

// === impl Store ===

impl Store {
    pub(super) fn new(sets: &Path, name: &str) -> Self {
        Self { folder: sets.join(name), name: name.to_owned() }
    }

    /// Returns the folder of a version.
    pub(super) fn path(&self, version: u32) -> PathBuf {
        self.folder.join(format!("v{version}"))
    }

    pub(super) fn exists(&self) -> bool {
        check_name(&self.name).is_ok() && !self.versions().is_empty()
    }

    /// Returns the versions that are complete: their manifest is written last.
    pub(super) fn versions(&self) -> BTreeSet<u32> {
        let version = |entry: std::fs::DirEntry| {
            let version = entry.file_name().to_str()?.strip_prefix('v')?.parse().ok()?;
            entry.path().join(MANIFEST).is_file().then_some(version)
        };
        std::fs::read_dir(&self.folder).into_iter().flatten().flatten().filter_map(version).collect()
    }

    /// Returns the newest version that was released.
    pub(super) fn newest_released(&self) -> Option<u32> {
        self.versions().into_iter().rfind(|version| self.path(*version).join(RELEASED).is_file())
    }

    /// Reads a version, or the newest one.
    ///
    /// # Errors
    /// `Config` if there is no such version, `Data` if its files were edited.
    pub(super) fn version(&self, version: Option<u32>) -> Result<EvalSet> {
        // A path is made from a valid name only.
        check_name(&self.name)?;
        let Some(version) = version.or_else(|| self.versions().last().copied()) else {
            let sets = self.folder.parent().unwrap_or(&self.folder);
            return Err(Error::config(format!("no eval set `{}` in `{}`", self.name, sets.display()))
                .with_hint("make one with `bellwether evalset create`, or name the folder with --sets"));
        };
        self.read(version).map(|(set, _)| set)
    }

    /// Reads a version, with its manifest if that has not taken its place yet.
    fn read(&self, version: u32) -> Result<(EvalSet, Option<Part>)> {
        let folder = self.path(version);
        let read = |path: &Path| {
            std::fs::read_to_string(path)
                .map_err(|source| Error::config(format!("cannot read `{}` v{version}", self.name)).with_source(source))
        };
        let cases = read(&folder.join(CASES))?;
        let verified = |path: &Path| {
            let manifest: Manifest = serde_json::from_str(&read(path)?).map_err(|source| {
                Error::data(format!("the manifest of `{}` v{version} cannot be read", self.name)).with_source(source)
            })?;
            if manifest.name != self.name || manifest.version != version {
                let (folder, name) = (folder.display(), &manifest.name);
                return Err(Error::data(format!("`{folder}` holds `{name}` v{}", manifest.version)));
            }
            EvalSet::verified(&manifest, &cases, folder.join(RELEASED).is_file())
        };
        let pending = part_of(&without_links(&folder.join(MANIFEST)));
        match verified(&folder.join(MANIFEST)) {
            Ok(set) => Ok((set, None)),
            Err(error) => verified(&pending.written).map(|set| (set, Some(pending))).map_err(|_| error),
        }
    }

    /// Returns the ids of cases that lost their content by an erasure, in any version.
    ///
    /// # Errors
    /// As [`Self::version`].
    pub(super) fn erased(&self) -> Result<BTreeSet<String>> {
        let mut erased = BTreeSet::new();
        for version in self.versions() {
            let set = self.version(Some(version))?;
            erased.extend(set.cases().iter().filter(|case| case.erased).map(|case| case.id.clone()));
        }
        Ok(erased)
    }

    /// Returns the cases that an earlier version had and a set does not, each as its last version had it.
    ///
    /// # Errors
    /// As [`Store::version`].
    pub(super) fn taken_out(&self, set: &EvalSet) -> Result<Vec<EvalCase>> {
        let mut seen: BTreeSet<String> = set.cases().iter().map(|case| case.id.clone()).collect();
        let mut taken_out = Vec::new();
        for version in self.versions().range(..set.version).rev() {
            let earlier = self.version(Some(*version))?;
            taken_out.extend(earlier.cases().iter().filter(|case| seen.insert(case.id.clone())).cloned());
        }
        Ok(taken_out)
    }

    /// Writes a new version.
    ///
    /// # Errors
    /// `Config` if the version exists, or the folder cannot be written.
    pub(super) fn write(&self, set: &EvalSet) -> Result<()> {
        let folder = self.path(set.version);
        if folder.join(MANIFEST).is_file() {
            return Err(Error::config(format!("`{}` v{} exists", set.name, set.version)));
        }
        replace(&folder.join(CASES), set.to_jsonl()?.as_bytes())?;
        replace(&folder.join(MANIFEST), &json_of(&set.manifest()?)?)
    }

    /// Writes a version in place of the one that is there, for an erasure. Links stay, and what they lead to is replaced. If that is
    /// interrupted between the two files, the manifest to be lies beside the other one, and [`Self::version`] reads it.
    ///
    /// # Errors
    /// `Config` if the folder cannot be written.
    pub(super) fn replace(&self, set: &EvalSet) -> Result<()> {
        let folder = self.path(set.version);
        let files = [(CASES, set.to_jsonl()?.into_bytes()), (MANIFEST, json_of(&set.manifest()?)?)];
        // Both are written before either takes its place.
        let parts = files.map(|(name, bytes)| part(&without_links(&folder.join(name)), &bytes));
        parts.into_iter().collect::<Result<Vec<_>>>()?.into_iter().try_for_each(Part::put)
    }

    /// Ends a replacement of a version that was interrupted.
    ///
    /// # Errors
    /// As [`Self::version`], and `Config` if the folder cannot be written.
    pub(super) fn recovered(&self, version: u32) -> Result<EvalSet> {
        let (set, pending) = self.read(version)?;
        match pending {
            Some(pending) => pending.put().map(|()| set),
            None => Ok(set),
        }
    }

    /// Marks a version as released.
    ///
    /// # Errors
    /// `Config` if the folder cannot be written.
    pub(super) fn release(&self, set: &EvalSet) -> Result<()> {
        replace(&self.path(set.version).join(RELEASED), b"")
    }
}

/// Writes an export. A folder with other files is refused, so that none of them is lost or mistaken for a part of it.
///
/// # Errors
/// `Config` if the folder has other files or another export, or cannot be written.
pub(super) fn write_export(folder: &Path, exported: &Exported) -> Result<()> {
    let manifest = |bytes: &[u8]| serde_json::from_slice::<ExportManifest>(bytes).ok();
    let new = exported.files.iter().find(|file| file.path == MANIFEST_FILE).and_then(|file| manifest(&file.bytes));
    // The manifest is written first and takes its place last: an export that was interrupted is known by it.
    let place = folder.join(MANIFEST_FILE);
    let read = |path: &Path| std::fs::read(path).ok().and_then(|bytes| manifest(&bytes));
    let begun = read(&part_of(&place).written);
    let old = read(&place).or_else(|| begun.clone());
    if let (Some(old), Some(new)) = (&old, &new)
        && (&old.set, &old.format) != (&new.set, &new.format)
    {
        return Err(Error::config(format!("`{}` is an export of {} as {}", folder.display(), old.set, old.format))
            .with_hint("name another folder"));
    }
    let listed = old.iter().chain(&begun).flat_map(|one| &one.files);
    let known: BTreeSet<PathBuf> = listed.map(|file| PathBuf::from(&file.path)).collect();
    if let Some(outside) = known.iter().find(|path| !is_below(path)) {
        let (folder, outside) = (folder.display(), outside.display());
        return Err(Error::config(format!(
            "the manifest in `{folder}` names `{outside}`, which is not in that folder"
        ))
        .with_hint("name another folder"));
    }
    if let Some(other) = other_file(folder, folder, &known) {
        return Err(Error::config(format!("`{}` has another file: {}", folder.display(), other.display()))
            .with_hint("name a new or empty folder"));
    }
    let (last, others): (Vec<_>, Vec<_>) = exported.files.iter().partition(|file| file.path == MANIFEST_FILE);
    let last = last.into_iter().map(|file| part(&place, &file.bytes)).collect::<Result<Vec<_>>>()?;
    for file in others {
        replace(&folder.join(&file.path), &file.bytes)?;
    }
    last.into_iter().try_for_each(Part::put)?;
    // Files of an earlier version that this one does not have.
    for old in known.iter().filter(|old| exported.files.iter().all(|file| Path::new(&file.path) != old.as_path())) {
        std::fs::remove_file(folder.join(old)).ok();
    }
    Ok(())
}

/// Returns true if a path leads nowhere but below the folder that it is relative to.
fn is_below(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
}

/// Returns true for a file of an export, also for one that has not taken its place.
fn is_own(path: &Path, known: &BTreeSet<PathBuf>) -> bool {
    let is_file = |path: &Path| path == Path::new(MANIFEST_FILE) || known.contains(path);
    let whole = path.to_str().and_then(|path| path.strip_suffix(PART));
    is_file(path) || whole.is_some_and(|whole| is_file(Path::new(whole)))
}

/// Returns a file in a folder that is not a known part of an export, by its path below the folder. A link is a file, wherever it leads.
fn other_file(top: &Path, folder: &Path, known: &BTreeSet<PathBuf>) -> Option<PathBuf> {
    for entry in std::fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        let below = path.strip_prefix(top).unwrap_or(&path).to_owned();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if let Some(other) = other_file(top, &path, known) {
                return Some(other);
            }
        } else if !is_own(&below, known) {
            return Some(below);
        }
    }
    None
}

fn unwritable(path: &Path, source: std::io::Error) -> Error {
    Error::config(format!("cannot write `{}`", path.display())).with_source(source)
}

/// Writes a file as a whole: a reader sees the old bytes or the new ones.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    part(path, bytes)?.put()
}

/// Returns the names of a file and of what takes its place.
fn part_of(path: &Path) -> Part {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Part { written: path.with_file_name(format!("{name}{PART}")), target: path.to_owned() }
}

/// Returns the file that a link leads to, or the file itself.
fn without_links(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// Writes what is to take the place of a file.
fn part(path: &Path, bytes: &[u8]) -> Result<Part> {
    use std::io::Write;
    let part = part_of(path);
    let written = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| {
        let mut file = std::fs::File::create(&part.written)?;
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|source| unwritable(path, source)).map(|()| part)
}

fn json_of(manifest: &Manifest) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(manifest)
        .map_err(|source| Error::bug("cannot write a manifest as JSON").with_source(source))?;
    text.push(b'\n');
    Ok(text)
}

/// Waits until no other process works in a folder of sets, and keeps others out until the result is dropped: those that write or,
/// to `write`, all. A folder that does not exist is made only to write.
///
/// # Errors
/// `Config` if the folder cannot be made or locked.
pub(super) fn lock(sets: &Path, write: bool) -> Result<Option<std::fs::File>> {
    let failed = |source| Error::config(format!("cannot use the folder `{}`", sets.display())).with_source(source);
    if write {
        std::fs::create_dir_all(sets).map_err(failed)?;
    } else if !sets.exists() {
        return Ok(None);
    }
    let folder = std::fs::File::open(sets).map_err(failed)?;
    let free = if write { folder.try_lock() } else { folder.try_lock_shared() };
    match free {
        Ok(()) => Ok(Some(folder)),
        Err(std::fs::TryLockError::WouldBlock) => {
            crate::status_line::StatusLine::new()
                .show(&format!("waiting for another command that works in {}", sets.display()));
            let waited = if write { folder.lock() } else { folder.lock_shared() };
            waited.map_err(failed).map(|()| Some(folder))
        }
        // Some file systems know no locks.
        Err(std::fs::TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}

// === impl Part ===

impl Part {
    fn put(self) -> Result<()> {
        std::fs::rename(&self.written, &self.target).map_err(|source| unwritable(&self.target, source))
    }
}

#[cfg(test)]
mod tests {
    use bellwether_evalsets::export::ExportedFile;

    use super::*;

    /// Writes a manifest of an earlier export, as anybody may who can write to the folder.
    fn manifest(folder: &Path, path: &str) {
        let file = ExportedFile { path: path.to_owned(), sha256: String::new() };
        let (format, set) = ("csv".to_owned(), "refunds".to_owned());
        let manifest = ExportManifest { format, set, version: 1, cases: 1, left_out: Vec::new(), files: vec![file] };
        let text = serde_json::to_vec(&manifest).expect("JSON");
        std::fs::write(folder.join(MANIFEST_FILE), text).expect("writes");
    }

    #[test]
    fn an_export_removes_nothing_outside_its_folder() {
        let place = tempfile::tempdir().expect("a folder");
        let (folder, other) = (place.path().join("export"), place.path().join("mine"));
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::write(&other, "mine").expect("writes");
        for path in ["../mine", &other.display().to_string(), "a/../../mine"] {
            manifest(&folder, path);
            let error = write_export(&folder, &Exported { files: Vec::new(), left_out: Vec::new() })
                .expect_err("leads elsewhere");
            assert!(error.message().contains("not in that folder"), "{}", error.chain());
        }
        assert_eq!(std::fs::read_to_string(&other).expect("is there"), "mine");
    }

    #[test]
    fn an_export_that_was_interrupted_is_written_again() {
        let place = tempfile::tempdir().expect("a folder");
        let text = r#"{"format": "csv", "set": "refunds", "version": 1, "cases": 1, "files": [{"path": "cases.csv", "sha256": ""}]}"#;
        let file =
            |path: &str, text: &str| bellwether_evalsets::ExportFile { path: path.to_owned(), bytes: text.into() };
        let exported =
            Exported { files: vec![file("cases.csv", "a"), file(MANIFEST_FILE, text)], left_out: Vec::new() };
        // Ended before anything took its place, and in the middle.
        for left in [&["cases.csv.part"][..], &["cases.csv"]] {
            std::fs::write(place.path().join(format!("{MANIFEST_FILE}.part")), text).expect("writes");
            left.iter().for_each(|name| std::fs::write(place.path().join(name), "half").expect("writes"));
            write_export(place.path(), &exported).expect("writes again");
            assert_eq!(std::fs::read_to_string(place.path().join("cases.csv")).expect("reads"), "a");
            std::fs::remove_file(place.path().join(MANIFEST_FILE)).expect("removes");
        }
        std::fs::write(place.path().join("mine.csv"), "mine").expect("writes");
        assert!(write_export(place.path(), &exported).is_err(), "a file of somebody else");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_a_folder_is_a_file_of_somebody_else() {
        let place = tempfile::tempdir().expect("a folder");
        let (folder, other) = (place.path().join("export"), place.path().join("others"));
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::create_dir(&other).expect("a folder");
        std::fs::write(other.join("old.csv"), "mine").expect("writes");
        std::os::unix::fs::symlink(&other, folder.join("data")).expect("links");
        manifest(&folder, "data/old.csv");
        let error = write_export(&folder, &Exported { files: Vec::new(), left_out: Vec::new() }).expect_err("a link");
        assert!(error.message().contains("another file: data"), "{}", error.chain());
        assert!(other.join("old.csv").exists());
    }
}
