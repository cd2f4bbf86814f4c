//! The hook of a second redaction: an export passes every text through it before it writes anything.

use bellwether_base::Result;

use crate::case::{EvalCase, Grading};

/// Removes personal data and secrets from a text.
pub trait Redactor {
    /// Returns the text without personal data.
    ///
    /// # Errors
    /// Any error ends the export: nothing is written.
    fn redact(&self, text: &str) -> Result<String>;
}

impl<F: Fn(&str) -> Result<String>> Redactor for F {
    fn redact(&self, text: &str) -> Result<String> {
        self(text)
    }
}

/// Returns a case with all free text redacted. Ids and hashes stay: results refer to them.
pub(crate) fn redacted(case: &EvalCase, redactor: &dyn Redactor) -> Result<EvalCase> {
    let mut case = case.clone();
    for message in &mut case.input {
        message.content = redactor.redact(&message.content)?;
    }
    if let Some(expected) = &mut case.expected {
        *expected = redactor.redact(expected)?;
    }
    for rule in &mut case.grading {
        let (Grading::Equals(text)
        | Grading::Contains(text)
        | Grading::NotContains(text)
        | Grading::Regex(text)
        | Grading::Rubric(text)) = rule;
        *text = redactor.redact(text)?;
    }
    for tag in &mut case.tags {
        *tag = redactor.redact(tag)?;
    }
    let provenance = &mut case.provenance;
    for text in [&mut provenance.reviewer, &mut provenance.signature, &mut provenance.decision].into_iter().flatten() {
        *text = redactor.redact(text)?;
    }
    if let Some(superseded) = &mut provenance.supersedes {
        superseded.reason = redactor.redact(&superseded.reason)?;
    }
    Ok(case)
}
