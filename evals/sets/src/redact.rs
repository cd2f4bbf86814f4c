//! The hook of redaction: every text of a case passes through it before a set or an export is written.

use bellwether_base::Result;

use crate::case::EvalCase;

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

// === impl EvalCase ===

impl EvalCase {
    /// Returns the case with all free text redacted. Ids, references and hashes stay: results refer to them.
    ///
    /// # Errors
    /// Those of the redactor.
    pub fn redacted(&self, redactor: &dyn Redactor) -> Result<Self> {
        let mut case = self.clone();
        for message in &mut case.input {
            message.content = redactor.redact(&message.content)?;
        }
        if let Some(expected) = &mut case.expected {
            *expected = redactor.redact(expected)?;
        }
        for rule in &mut case.grading {
            let text = rule.text_mut();
            *text = redactor.redact(text)?;
        }
        for tag in &mut case.tags {
            *tag = redactor.redact(tag)?;
        }
        let provenance = &mut case.provenance;
        let named =
            [&mut provenance.reviewer, &mut provenance.signature, &mut provenance.decision, &mut provenance.file];
        for text in named.into_iter().flatten() {
            *text = redactor.redact(text)?;
        }
        if let Some(superseded) = &mut provenance.supersedes {
            superseded.reason = redactor.redact(&superseded.reason)?;
        }
        Ok(case)
    }
}
