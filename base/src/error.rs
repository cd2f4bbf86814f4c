//! The error type of every crate above the leaf crates. Its kind prescribes an action, its hint says what to change.

use std::error::Error as StdError;
use std::fmt;

use arrow::error::ArrowError;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of an error, which prescribes an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A setting is wrong: fix it and start again.
    Config,
    /// One message is invalid: quarantine it and continue.
    BadEvent,
    /// An external system does not answer: retry.
    Unavailable,
    /// Another owner has committed: restart from the table.
    Fenced,
    /// Stored data is damaged or contradictory: stop and call a person.
    Data,
    /// The program violated one of its own rules: report it.
    Bug,
}

/// An error with a message, an optional hint and its cause.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Creates an error of a kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    /// Creates an error for a wrong setting.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// Creates an error for an invalid message.
    pub fn bad_event(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadEvent, message)
    }

    /// Creates an error for an external system that does not answer.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// Creates an error for a commit of another owner.
    pub fn fenced(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Fenced, message)
    }

    /// Creates an error for damaged or contradictory data.
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    /// Creates an error for a bug.
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Bug, message)
    }

    /// Adds a hint: the remedy.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns the kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the message, without the cause.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the hint.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Returns the message with all causes in one line, for logs.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = StdError::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}

impl From<ArrowError> for Error {
    fn from(source: ArrowError) -> Self {
        Self::bug("a batch does not have the schema of its table").with_source(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_leaves_the_cause_to_the_chain() {
        let error =
            Error::data("the log is torn").with_source(std::io::Error::other("short read")).with_hint("restore");
        assert_eq!(error.to_string(), "the log is torn");
        assert_eq!(error.chain(), "the log is torn: short read");
        assert_eq!(error.hint(), Some("restore"));
    }
}
