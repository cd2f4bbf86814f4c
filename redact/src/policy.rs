//! The policy: which texts are redacted, and how.

use std::collections::BTreeSet;
use std::fmt;

use sha2::{Digest, Sha256};

use crate::names::Names;
use crate::{Kind, Session};

/// Version of the detectors. It rises when a detector changes.
pub const DETECTORS: &str = "3";

/// Least length of a key, bytes: a shorter one can be guessed, and with it the values behind the placeholders.
pub const LEAST_KEY_BYTES: usize = 16;

/// Which texts are redacted, and how.
#[derive(Clone)]
pub struct Policy {
    /// Names of people that are redacted wherever they occur as whole words, in any case.
    pub names: Vec<String>,
    /// Kinds that are not redacted.
    pub keep: Vec<Kind>,
    /// Key of the placeholders. With a key, equal values have equal placeholders in all runs, so that they can be joined.
    pub key: Option<Vec<u8>>,
    /// Longest text that is searched, in bytes. A longer one is replaced.
    pub max_text_bytes: usize,
}

/// The setting of a policy that is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    Names,
    Key,
}

/// A setting that cannot be used. It names neither the key nor a name of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    pub setting: Setting,
    problem: String,
}

/// A compiled policy.
pub struct Redactor {
    pub(crate) names: Option<Names>,
    pub(crate) keep: Vec<Kind>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) max_text_bytes: usize,
    pub(crate) version: String,
    /// Finds what a text must not contain. A field, so that a test can make it fail, and a benchmark can leave it out.
    pub(crate) find: Option<crate::find::Find>,
}

// === impl Policy ===

impl Default for Policy {
    fn default() -> Self {
        Self { names: Vec::new(), keep: Vec::new(), key: None, max_text_bytes: 1 << 20 }
    }
}

impl fmt::Debug for Policy {
    /// Shows neither names nor the key.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (names, keyed) = (self.names.len(), self.key.is_some());
        write!(formatter, "Policy {{ names: {names}, keep: {:?}, keyed: {keyed} }}", self.keep)
    }
}

// === impl PolicyError ===

impl PolicyError {
    pub(crate) fn new(setting: Setting, problem: impl Into<String>) -> Self {
        Self { setting, problem: problem.into() }
    }
}

impl fmt::Display for PolicyError {
    /// Writes the problem as the end of a sentence that begins with the setting.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.problem)
    }
}

impl std::error::Error for PolicyError {}

// === impl Redactor ===

impl fmt::Debug for Redactor {
    /// Shows the version only.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Redactor {{ version: {:?} }}", self.version)
    }
}

impl Redactor {
    /// Compiles a policy.
    ///
    /// # Errors
    /// A name of the list is too short or too long, the list is too long, or the key is shorter than [`LEAST_KEY_BYTES`].
    pub fn new(policy: &Policy) -> Result<Self, PolicyError> {
        if let Some(key) = &policy.key
            && key.len() < LEAST_KEY_BYTES
        {
            let problem = format!("has {} bytes; a key must have at least {LEAST_KEY_BYTES}", key.len());
            return Err(PolicyError::new(Setting::Key, problem));
        }
        Ok(Self {
            names: if policy.names.is_empty() { None } else { Some(Names::new(&policy.names)?) },
            keep: policy.keep.clone(),
            key: policy.key.clone(),
            max_text_bytes: policy.max_text_bytes,
            version: version(policy),
            find: Some(crate::find::all),
        })
    }

    /// Redacts nothing. Only benchmarks use it, to measure what redaction costs.
    #[doc(hidden)]
    pub fn that_redacts_nothing() -> Self {
        Self { find: None, ..Self::default() }
    }

    /// Returns the version of the policy: that of the detectors, and a hash of the settings if they differ from the default.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Starts the texts of one run.
    pub fn session(&self) -> Session<'_> {
        self.session_of(b"")
    }

    /// Starts the texts of one run, all of which are in `message`: new placeholders differ from those that it contains.
    pub fn session_of<'a>(&'a self, message: &'a [u8]) -> Session<'a> {
        Session::new(self, message)
    }

    pub(crate) fn keeps(&self, kind: Kind) -> bool {
        self.keep.contains(&kind)
    }
}

impl Default for Redactor {
    /// Compiles the default policy.
    fn default() -> Self {
        Self::new(&Policy::default()).expect("the default policy has no names and no key")
    }
}

/// Returns the version of a policy, the same for the same settings in any order.
fn version(policy: &Policy) -> String {
    if policy.names.is_empty() && policy.keep.is_empty() && policy.key.is_none() {
        return DETECTORS.to_owned();
    }
    let mut hash = Sha256::new();
    for name in policy.names.iter().collect::<BTreeSet<_>>() {
        hash.update(name.as_bytes());
        hash.update([0]);
    }
    for kind in policy.keep.iter().collect::<BTreeSet<_>>() {
        hash.update(kind.name().as_bytes());
        hash.update([1]);
    }
    // A version says that there is a key, and nothing of the key itself.
    hash.update([u8::from(policy.key.is_some())]);
    let short: String = hash.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{DETECTORS}-{short}")
}
