//! A versioned list of cases. A version is written once; a change makes the next one.

use std::collections::BTreeMap;

use bellwether_base::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::case::{EvalCase, hex};

/// Longest name of a set. Names become folders.
const NAME_BYTES: usize = 64;

/// One version of an eval set. Its cases are in the order of their ids.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalSet {
    pub name: String,
    pub version: u32,
    /// Whether this version was released.
    pub frozen: bool,
    cases: Vec<EvalCase>,
}

/// The content of a version: a hash of each case, and one of all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub name: String,
    pub version: u32,
    pub cases: Vec<ManifestEntry>,
    /// Ids of the cases that lost their content by an erasure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub erased: Vec<String>,
    /// SHA-256 of the file with the cases.
    pub sha256: String,
}

/// One case in a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestEntry {
    pub id: String,
    pub version: u32,
    pub sha256: String,
}

/// The difference between two versions, as ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    /// Cases of which the second version has a later version.
    pub superseded: Vec<String>,
    /// Cases that have their content in one version only.
    pub erased: Vec<String>,
    pub unchanged: usize,
}

// === impl EvalSet ===

impl EvalSet {
    /// Makes a version of a set.
    ///
    /// # Errors
    /// `Config` if the name cannot be a folder, a case is invalid, or two cases have one id.
    pub fn new(name: &str, version: u32, mut cases: Vec<EvalCase>) -> Result<Self> {
        check_name(name)?;
        if cases.is_empty() {
            return Err(Error::config(format!("eval set `{name}` would have no case")));
        }
        cases.sort_by(|a, b| a.id.cmp(&b.id));
        for case in &cases {
            case.check()?;
        }
        if let Some(pair) = cases.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(Error::config(format!("case `{}` is there twice", pair[0].id))
                .with_hint("a set has one version of each case"));
        }
        Ok(Self { name: name.to_owned(), version, frozen: false, cases })
    }

    pub fn cases(&self) -> &[EvalCase] {
        &self.cases
    }

    /// Writes the cases, one JSON object a line.
    ///
    /// # Errors
    /// `Bug` if a case cannot be written.
    pub fn to_jsonl(&self) -> Result<String> {
        let mut text = String::new();
        for case in &self.cases {
            let line =
                serde_json::to_string(case).map_err(|source| Error::bug("cannot write a case").with_source(source))?;
            text.push_str(&line);
            text.push('\n');
        }
        Ok(text)
    }

    /// Returns the manifest.
    ///
    /// # Errors
    /// `Bug` if a case cannot be written.
    pub fn manifest(&self) -> Result<Manifest> {
        let entry =
            |case: &EvalCase| Ok(ManifestEntry { id: case.id.clone(), version: case.version, sha256: case.hash()? });
        Ok(Manifest {
            name: self.name.clone(),
            version: self.version,
            cases: self.cases.iter().map(entry).collect::<Result<_>>()?,
            erased: self.cases.iter().filter(|case| case.erased).map(|case| case.id.clone()).collect(),
            sha256: hex(&Sha256::digest(self.to_jsonl()?)),
        })
    }

    /// Reads a stored version, and verifies it against its manifest.
    ///
    /// # Errors
    /// `Data` if a case or the manifest was changed after it was written.
    pub fn verified(manifest: &Manifest, jsonl: &str, frozen: bool) -> Result<Self> {
        let cases = parse_cases(jsonl, &format!("{} v{}", manifest.name, manifest.version))?;
        let mut set = Self::new(&manifest.name, manifest.version, cases)?;
        set.frozen = frozen;
        if set.manifest()? != *manifest {
            return Err(Error::data(format!(
                "the cases of `{}` v{} differ from their manifest",
                manifest.name, manifest.version
            ))
            .with_hint("a version is written once; restore its files"));
        }
        Ok(set)
    }

    /// Makes the next version with these cases.
    ///
    /// # Errors
    /// `Config` if a case was edited without a new version, or goes back to an earlier one.
    pub fn next(&self, cases: Vec<EvalCase>) -> Result<Self> {
        let next = Self::new(&self.name, self.version + 1, cases)?;
        let before: BTreeMap<&str, &EvalCase> = self.cases.iter().map(|case| (case.id.as_str(), case)).collect();
        for case in &next.cases {
            let Some(old) = before.get(case.id.as_str()) else { continue };
            if case.version == old.version && case != *old {
                return Err(Error::config(format!("case `{}` version {} was edited", case.id, case.version))
                    .with_hint("a case is superseded, never edited: raise `version` and add `provenance.supersedes`"));
            }
            let supersedes = case.provenance.supersedes.as_ref().map(|superseded| superseded.version);
            if case.version != old.version && (case.version < old.version || supersedes != Some(old.version)) {
                return Err(Error::config(format!(
                    "case `{}` version {} does not supersede version {}",
                    case.id, case.version, old.version
                ))
                .with_hint("`provenance.supersedes.version` names the version that the set has now"));
            }
        }
        Ok(next)
    }

    /// Makes the next version without a case.
    ///
    /// # Errors
    /// `Config` if the set does not have the case, or has no other.
    pub fn without(&self, id: &str) -> Result<Self> {
        if !self.cases.iter().any(|case| case.id == id) {
            return Err(Error::config(format!("`{}` v{} has no case `{id}`", self.name, self.version))
                .with_hint("its manifest lists them"));
        }
        self.next(self.cases.iter().filter(|case| case.id != id).cloned().collect())
    }

    /// Compares with a later version.
    pub fn difference(&self, later: &Self) -> Difference {
        let by_id = |set: &Self| -> BTreeMap<String, (u32, bool)> {
            set.cases.iter().map(|case| (case.id.clone(), (case.version, case.erased))).collect()
        };
        let (before, after) = (by_id(self), by_id(later));
        let mut difference = Difference::default();
        for (id, (version, erased)) in &after {
            match before.get(id) {
                None => difference.added.push(id.clone()),
                Some((old, _)) if old != version => difference.superseded.push(id.clone()),
                Some((_, was)) if was != erased => difference.erased.push(id.clone()),
                Some(_) => difference.unchanged += 1,
            }
        }
        difference.removed = before.keys().filter(|id| !after.contains_key(*id)).cloned().collect();
        difference
    }
}

/// Reads cases, one JSON object a line.
///
/// # Errors
/// `Config` that names the line.
pub fn parse_cases(jsonl: &str, name: &str) -> Result<Vec<EvalCase>> {
    let mut cases = Vec::new();
    for (number, line) in jsonl.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let case = serde_json::from_str(line).map_err(|source| {
            Error::config(format!("`{name}` line {}: not an eval case: {source}", number + 1))
                .with_hint("docs/evals.md describes the record")
        })?;
        cases.push(case);
    }
    Ok(cases)
}

/// Checks the name of a set.
///
/// # Errors
/// `Config` with the permitted characters.
pub fn check_name(name: &str) -> Result<()> {
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    if name.is_empty() || name.len() > NAME_BYTES || !name.bytes().all(valid) {
        return Err(Error::config(format!("`{name}` is not a name of an eval set"))
            .with_hint(format!("use up to {NAME_BYTES} of a-z, 0-9, `-` and `_`")));
    }
    Ok(())
}
