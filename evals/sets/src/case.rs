//! The record of one eval case. All exports are projections of it.

use bellwether_base::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::set::EvalSet;

/// Longest expected answer, in bytes.
pub const EXPECTED_BYTES: usize = 256 * 1024;
/// Longest input, in bytes over all messages.
pub const INPUT_BYTES: usize = 1024 * 1024;
/// Longest id, in bytes. Langfuse takes 255.
pub const ID_BYTES: usize = 128;

/// One eval case in one version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalCase {
    /// Id, the same in all versions.
    pub id: String,
    /// Version of the case, from 1.
    #[serde(default = "first")]
    pub version: u32,
    pub task: String,
    #[serde(default)]
    pub split: Split,
    #[serde(default)]
    pub kind: CaseKind,
    /// Messages to the application. Empty if the content is missing.
    #[serde(default)]
    pub input: Vec<Message>,
    /// Address of the content, if it is not stored here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_ref: Option<String>,
    /// SHA-256 of the content in hexadecimal, if it is not stored here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// Rules by which an answer is graded. Without any, the answer must equal `expected`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grading: Vec<Grading>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_class: Option<String>,
    /// The run that it was made of was erased, and its content with it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub erased: bool,
    #[serde(default)]
    pub provenance: Provenance,
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    pub role: Role,
    pub content: String,
}

/// Author of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    System,
    User,
    Assistant,
}

/// Part of the set. Hold-out cases are not used to tune a release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    #[default]
    Regression,
    Holdout,
}

/// The kind of input that a case tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaseKind {
    Normal,
    Edge,
    #[default]
    Failure,
    MustFailSafely,
}

/// A rule by which an answer is graded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "snake_case")]
pub enum Grading {
    Equals(String),
    Contains(String),
    NotContains(String),
    Regex(String),
    /// Instruction to a grader that is a model or a person.
    Rubric(String),
}

/// The origin of a case.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Provenance {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunIdentity>,
    /// Name of the file from which the case was taken, if it was not made of a run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// All runs with this input that had been decided when the case was made, if there were several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<RunIdentity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release_fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reviewer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
    /// Probability with which the run was sampled, in (0, 1].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inclusion_probability: Option<f64>,
    /// The version of the case that this one replaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supersedes: Option<Superseded>,
}

/// Identity of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunIdentity {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    pub source: String,
    pub run_id: String,
    #[serde(default = "first")]
    pub attempt: u32,
}

/// A version of a case that was replaced, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Superseded {
    pub version: u32,
    pub reason: String,
}

fn first() -> u32 {
    1
}

fn is_false(some: &bool) -> bool {
    !some
}

// === impl EvalCase ===

impl EvalCase {
    /// Returns the SHA-256 of the whole record in hexadecimal.
    ///
    /// # Errors
    /// `Bug` if the record cannot be written as JSON.
    pub fn hash(&self) -> Result<String> {
        let text =
            serde_json::to_vec(self).map_err(|source| Error::bug("cannot write a case as JSON").with_source(source))?;
        Ok(hex(&Sha256::digest(text)))
    }

    /// Says which content is missing, and how to get it; none if the input is stored, or was erased.
    pub fn missing_content(&self) -> Option<String> {
        if !self.input.is_empty() || self.erased {
            return None;
        }
        let hash = self.content_sha256.as_ref().map_or_else(String::new, |hash| format!(" (SHA-256 {hash})"));
        let from = match (&self.content_ref, &self.provenance.run) {
            (Some(reference), _) => reference.clone(),
            (None, Some(run)) => format!("the producer `{}`, for run `{}`", run.source, run.run_id),
            (None, None) => "its producer".to_owned(),
        };
        Some(format!("get the content{hash} from {from}, and give it by `bellwether evalset complete`"))
    }

    /// Returns the rules by which an answer is graded: those stated, or equality with the expected answer.
    pub fn rules(&self) -> Vec<Grading> {
        if self.grading.is_empty() {
            return self.expected.iter().cloned().map(Grading::Equals).collect();
        }
        self.grading.clone()
    }

    /// Returns the fields that are neither input nor answer, as the metadata of an exported case of a set.
    pub fn metadata(&self, set: &EvalSet) -> Value {
        let mut value = serde_json::json!({
            "set": set.name, "set_version": set.version,
            "case_id": self.id, "case_version": self.version, "task": self.task, "split": self.split.name(),
            "kind": self.kind.name(), "tags": self.tags, "grading": self.rules(), "provenance": self.provenance,
        });
        if let Some(class) = &self.failure_class {
            value["failure_class"] = Value::from(class.as_str());
        }
        value
    }

    /// Checks one record.
    ///
    /// # Errors
    /// `Config` that names the case, the field and its limit.
    pub fn check(&self) -> Result<()> {
        let wrong =
            |what: String, hint: &str| Err(Error::config(format!("case `{}`: {what}", self.id)).with_hint(hint));
        if self.id.is_empty() || self.id.len() > ID_BYTES || self.id.chars().any(char::is_control) {
            return wrong(
                format!("its id is empty, over {ID_BYTES} bytes or has control characters"),
                "use a short id",
            );
        }
        if self.version == 0 || self.task.is_empty() {
            return wrong("it has version 0 or no task".to_owned(), "versions start at 1, and `task` is required");
        }
        let expected = self.expected.as_ref().map_or(0, String::len);
        if expected > EXPECTED_BYTES {
            return wrong(
                format!("its expected answer has {expected} bytes; the limit is {EXPECTED_BYTES}"),
                "state what matters about the answer as a rule under `grading`",
            );
        }
        let input: usize = self.input.iter().map(|message| message.content.len()).sum();
        if input > INPUT_BYTES {
            return wrong(
                format!("its input has {input} bytes; the limit is {INPUT_BYTES}"),
                "shorten the conversation",
            );
        }
        let lacks_input = self.input.is_empty() && self.content_ref.is_none() && self.content_sha256.is_none();
        if lacks_input && !self.erased {
            return wrong("it has neither `input` nor `content_ref` nor `content_sha256`".to_owned(), "add `input`");
        }
        if self.expected.is_none() && self.grading.is_empty() && !self.erased {
            return wrong("no answer could pass or fail it".to_owned(), "add `expected` or `grading`");
        }
        for rule in &self.grading {
            if rule.text().trim().is_empty() && !matches!(rule, Grading::Equals(_)) {
                return wrong("a rule under `grading` has an empty value".to_owned(), "remove it, or state its value");
            }
            if let Grading::Regex(pattern) = rule
                && let Some(problem) = pattern_problem(pattern)
            {
                return wrong(
                    format!("its rule `{pattern}` is no pattern: {problem}"),
                    "correct the regular expression",
                );
            }
        }
        if self.provenance.inclusion_probability.is_some_and(|p| !(p > 0.0 && p <= 1.0)) {
            return wrong("`inclusion_probability` is not in (0, 1]".to_owned(), "copy it from the candidate");
        }
        match &self.provenance.supersedes {
            Some(old) if old.version >= self.version => {
                wrong("it supersedes a version that is not older".to_owned(), "raise `version`")
            }
            None if self.version > 1 => wrong(
                format!("version {} does not say which version it supersedes", self.version),
                "add `provenance.supersedes` with `version` and `reason`",
            ),
            _ => Ok(()),
        }
    }
}

// === impl Role ===

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

// === impl Grading ===

impl Grading {
    /// Returns its text: what the answer is compared with, or the instruction.
    pub fn text(&self) -> &str {
        let (Self::Equals(text)
        | Self::Contains(text)
        | Self::NotContains(text)
        | Self::Regex(text)
        | Self::Rubric(text)) = self;
        text
    }

    pub(crate) fn text_mut(&mut self) -> &mut String {
        let (Self::Equals(text)
        | Self::Contains(text)
        | Self::NotContains(text)
        | Self::Regex(text)
        | Self::Rubric(text)) = self;
        text
    }
}

// === impl Split ===

impl Split {
    pub fn name(self) -> &'static str {
        match self {
            Self::Regression => "regression",
            Self::Holdout => "holdout",
        }
    }
}

// === impl CaseKind ===

impl CaseKind {
    /// All kinds, in the order in which `status` shows them.
    pub const ALL: [Self; 4] = [Self::Normal, Self::Edge, Self::Failure, Self::MustFailSafely];

    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Edge => "edge",
            Self::Failure => "failure",
            Self::MustFailSafely => "must_fail_safely",
        }
    }
}

/// Says what is wrong with a regular expression. Tools have dialects of their own, so what only some of them know is accepted.
fn pattern_problem(pattern: &str) -> Option<String> {
    let problem = regex::Regex::new(pattern).err()?.to_string();
    let known_to_some = ["look-around", "backreference", "escape sequence", "flag"];
    let last = problem.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
    (!known_to_some.iter().any(|part| problem.contains(part))).then_some(last)
}

/// Writes bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ignored = write!(text, "{byte:02x}");
        text
    })
}
