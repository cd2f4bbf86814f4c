//! The error type of every crate above the leaf crates. Its kind prescribes an action, its hint says what to change.

use std::error::Error as StdError;
use std::fmt;

use arrow::error::ArrowError;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What an error asks of whoever meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A setting is wrong: fix it and start again.
    Config,
    /// One message is bad: quarantine it and go on.
    BadEvent,
    /// Something outside is out of reach: try again.
    Unavailable,
    /// Another owner has committed: rebuild from the table.
    Fenced,
    /// What is stored contradicts itself: stop and call a person.
    Data,
    /// A rule of the program itself is broken.
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
    /// Makes an error of a kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    /// A setting is wrong.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// One message is bad.
    pub fn bad_event(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadEvent, message)
    }

    /// Something outside is out of reach.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// Another owner has committed.
    pub fn fenced(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Fenced, message)
    }

    /// What is stored contradicts itself.
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    /// A rule of the program itself is broken.
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Bug, message)
    }

    /// Adds what to do about it.
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

    /// What it asks of whoever meets it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What happened, without the cause.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The whole chain of causes in one line, for logs.
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
        Self::bug("a batch does not have the form its table asks for").with_source(source)
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
