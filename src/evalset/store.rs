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

/// Extensions of the folders of a version that is replaced: the version to be, and the one before.
const NEW: &str = "new";
const OLD: &str = "old";

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
        let folder = self.path(version);
        let read = |name: &str| {
            std::fs::read_to_string(folder.join(name))
                .map_err(|source| Error::config(format!("cannot read `{}` v{version}", self.name)).with_source(source))
        };
        let manifest: Manifest = serde_json::from_str(&read(MANIFEST)?).map_err(|source| {
            Error::data(format!("the manifest of `{}` v{version} cannot be read", self.name)).with_source(source)
        })?;
        if manifest.name != self.name || manifest.version != version {
            return Err(Error::data(format!("`{}` holds `{}` v{}", folder.display(), manifest.name, manifest.version)));
        }
        EvalSet::verified(&manifest, &read(CASES)?, folder.join(RELEASED).is_file())
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
        let manifest = serde_json::to_string_pretty(&set.manifest()?)
            .map_err(|source| Error::bug("cannot write a manifest as JSON").with_source(source))?;
        replace(&folder.join(CASES), set.to_jsonl()?.as_bytes())?;
        replace(&folder.join(MANIFEST), format!("{manifest}\n").as_bytes())
    }

    /// Writes a version in place of the one that is there, for an erasure: as a whole, in a folder of its own that takes the place of
    /// the old one. [`Self::recover`] ends one that was interrupted.
    ///
    /// # Errors
    /// `Config` if the folder cannot be written.
    pub(super) fn replace(&self, set: &EvalSet) -> Result<()> {
        let folder = self.path(set.version);
        let (new, old) = (folder.with_extension(NEW), folder.with_extension(OLD));
        let manifest = serde_json::to_string_pretty(&set.manifest()?)
            .map_err(|source| Error::bug("cannot write a manifest as JSON").with_source(source))?;
        replace(&new.join(CASES), set.to_jsonl()?.as_bytes())?;
        if set.frozen {
            replace(&new.join(RELEASED), b"")?;
        }
        replace(&new.join(MANIFEST), format!("{manifest}\n").as_bytes())?;
        let moved = std::fs::rename(&folder, &old).and_then(|()| std::fs::rename(&new, &folder));
        moved.and_then(|()| std::fs::remove_dir_all(&old)).map_err(|source| unwritable(&folder, source))
    }

    /// Ends replacements of versions that were interrupted: each version is the old one or the new one, and nothing else stays.
    ///
    /// # Errors
    /// `Config` if the folder cannot be written.
    pub(super) fn recover(&self) -> Result<()> {
        let entries = std::fs::read_dir(&self.folder).map_err(|source| unwritable(&self.folder, source))?;
        let left: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        let of = |extension: &'static str| {
            left.iter().filter(move |path| path.extension().is_some_and(|it| it == extension))
        };
        for old in of(OLD) {
            let (folder, new) = (old.with_extension(""), old.with_extension(NEW));
            let ended = match folder.exists() {
                true => Ok(()),
                false => std::fs::rename(&new, &folder),
            };
            ended.and_then(|()| std::fs::remove_dir_all(old)).map_err(|source| unwritable(&folder, source))?;
        }
        for new in of(NEW).filter(|new| new.exists()) {
            std::fs::remove_dir_all(new).map_err(|source| unwritable(new, source))?;
        }
        Ok(())
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
    let old = std::fs::read(folder.join(MANIFEST_FILE)).ok().and_then(|bytes| manifest(&bytes));
    if let (Some(old), Some(new)) = (&old, &new)
        && (&old.set, &old.format) != (&new.set, &new.format)
    {
        return Err(Error::config(format!("`{}` is an export of {} as {}", folder.display(), old.set, old.format))
            .with_hint("name another folder"));
    }
    let known: BTreeSet<PathBuf> =
        old.iter().flat_map(|old| &old.files).map(|file| PathBuf::from(&file.path)).collect();
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
    for file in &exported.files {
        replace(&folder.join(&file.path), &file.bytes)?;
    }
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

/// Returns a file in a folder that is not a known part of an export, by its path below the folder. A link is a file, wherever it leads.
fn other_file(top: &Path, folder: &Path, known: &BTreeSet<PathBuf>) -> Option<PathBuf> {
    for entry in std::fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        let below = path.strip_prefix(top).unwrap_or(&path).to_owned();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if let Some(other) = other_file(top, &path, known) {
                return Some(other);
            }
        } else if below != Path::new(MANIFEST_FILE) && !known.contains(&below) {
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
    let written = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| {
        let part = path.with_file_name(format!("{}.part", path.file_name().unwrap_or_default().to_string_lossy()));
        std::fs::write(&part, bytes)?;
        std::fs::rename(&part, path)
    });
    written.map_err(|source| unwritable(path, source))
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
