//! Problems of a message: a closed set of reason codes, each with a pointer and a sentence that says what to do.

use std::fmt;

/// The reason code of a problem, as counters and the `quarantine` table show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// A null or empty message body.
    Tombstone,
    /// Larger than the limit.
    TooLarge,
    /// Not UTF-8.
    InvalidUtf8,
    /// Invalid JSON, including NaN and Infinity.
    NotJson,
    /// More than one value in one message.
    TrailingData,
    /// Nested deeper than the limit.
    TooDeep,
    /// A key occurs twice in one object.
    DuplicateKey,
    /// A framing that is not supported.
    UnsupportedFraming,
    /// Body and headers contradict each other.
    HeaderMismatch,
    /// An unknown major version of the contract.
    UnknownSpec,
    /// A required field is missing.
    MissingField,
    /// A field has the wrong type.
    WrongType,
    /// A field with a closed set of values has another value.
    UnknownValue,
    /// A number is out of its range.
    OutOfRange,
    /// A string is too short.
    TooShort,
    /// A string is too long.
    TooLong,
    /// An array or object has too many entries.
    TooMany,
    /// A string does not match its pattern.
    Pattern,
    /// Not an RFC 3339 time with a zone.
    TimeFormat,
    /// Further in the future than clocks may differ.
    TimeInFuture,
    /// Older than the pipeline accepts.
    TimeTooOld,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 21] = [
        Self::Tombstone,
        Self::TooLarge,
        Self::InvalidUtf8,
        Self::NotJson,
        Self::TrailingData,
        Self::TooDeep,
        Self::DuplicateKey,
        Self::UnsupportedFraming,
        Self::HeaderMismatch,
        Self::UnknownSpec,
        Self::MissingField,
        Self::WrongType,
        Self::UnknownValue,
        Self::OutOfRange,
        Self::TooShort,
        Self::TooLong,
        Self::TooMany,
        Self::Pattern,
        Self::TimeFormat,
        Self::TimeInFuture,
        Self::TimeTooOld,
    ];

    /// Returns the code as stored and counted.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Tombstone => "tombstone",
            Self::TooLarge => "too_large",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::NotJson => "not_json",
            Self::TrailingData => "trailing_data",
            Self::TooDeep => "too_deep",
            Self::DuplicateKey => "duplicate_key",
            Self::UnsupportedFraming => "unsupported_framing",
            Self::HeaderMismatch => "header_mismatch",
            Self::UnknownSpec => "unknown_spec",
            Self::MissingField => "missing_field",
            Self::WrongType => "wrong_type",
            Self::UnknownValue => "unknown_value",
            Self::OutOfRange => "out_of_range",
            Self::TooShort => "too_short",
            Self::TooLong => "too_long",
            Self::TooMany => "too_many",
            Self::Pattern => "pattern",
            Self::TimeFormat => "time_format",
            Self::TimeInFuture => "time_in_future",
            Self::TimeTooOld => "time_too_old",
        }
    }
}

/// One problem of a message. Pointers are into the run event; `/ce_NAME` is a CloudEvents attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub reason: Reason,
    /// JSON pointer (RFC 6901) to the malformed value; empty for the whole message.
    pub pointer: String,
    /// The problem and its remedy. Contains no values of the message, so that it may be stored.
    pub message: String,
    /// The malformed value, shortened, to show to the sender. Never stored.
    pub value: Option<String>,
    /// True if the problem rejects the event. Otherwise the event is kept without the value, or with as much of it as fits.
    pub rejects: bool,
}

impl Problem {
    /// Creates a problem that rejects the event.
    pub fn new(reason: Reason, pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason, pointer: pointer.into(), message: message.into(), value: None, rejects: true }
    }

    /// Adds the malformed value.
    #[must_use]
    pub(crate) fn with_value(mut self, value: String) -> Self {
        self.value = Some(value);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reason.code())?;
        if !self.pointer.is_empty() {
            write!(f, " at {}", self.pointer)?;
        }
        write!(f, ": {}", self.message)?;
        self.value.as_ref().map_or(Ok(()), |value| write!(f, " (found `{value}`)"))
    }
}

/// The problems that reject a message: at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Every problem found, in the order of the message.
    pub problems: Vec<Problem>,
}

impl Rejection {
    /// Returns the problem that is counted and stored.
    pub fn first(&self) -> Option<&Problem> {
        self.problems.first()
    }
}

impl From<Problem> for Rejection {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            write!(f, "{}{problem}", if n == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl std::error::Error for Rejection {}
