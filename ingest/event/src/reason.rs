//! Why a message is rejected: a closed set of codes, each with a pointer and a sentence that says what to do.

use std::fmt;

/// Reason code of a problem. The code is what counters and the quarantine table show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// A null or empty message body.
    Tombstone,
    /// Larger than the limit.
    TooLarge,
    /// Not UTF-8.
    InvalidUtf8,
    /// Not JSON (NaN and Infinity included).
    NotJson,
    /// More than one value in one message.
    TrailingData,
    /// Nested deeper than the limit.
    TooDeep,
    /// A key stands twice in one object.
    DuplicateKey,
    /// A framing that is not accepted here.
    UnsupportedFraming,
    /// Body and headers contradict each other.
    HeaderMismatch,
    /// A major version of the contract that is not known.
    UnknownSpec,
    /// A required field is not there.
    MissingField,
    /// A field has the wrong type.
    WrongType,
    /// A closed field has a value that is not one of its values.
    UnknownValue,
    /// A number is out of its range.
    OutOfRange,
    /// A text is too short.
    TooShort,
    /// A text is too long.
    TooLong,
    /// A list or object has too many entries.
    TooMany,
    /// A text does not have its form.
    Pattern,
    /// Not an RFC 3339 time with a zone.
    TimeFormat,
    /// Further in the future than clocks may differ.
    TimeInFuture,
    /// Older than the pipeline accepts.
    TimeTooOld,
}

impl Reason {
    /// Every reason there is.
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

    /// The code as text.
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

/// One thing that is wrong with a message. Pointers are into the run event; `/ce_NAME` is a CloudEvents attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Why.
    pub reason: Reason,
    /// JSON pointer (RFC 6901) to what is wrong; empty for the whole message.
    pub pointer: String,
    /// What is wrong and what to do. Holds nothing of the message's values, so that it may be stored.
    pub message: String,
    /// The value that is wrong, shortened, for the eyes of whoever sent it; never stored.
    pub value: Option<String>,
    /// The event is rejected for it; otherwise it is kept without the value, or with as much of it as fits.
    pub rejects: bool,
}

impl Problem {
    /// Makes a problem that an event is rejected for.
    pub fn new(reason: Reason, pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason, pointer: pointer.into(), message: message.into(), value: None, rejects: true }
    }

    /// Adds the value that is wrong.
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

/// Why a message is not an event: at least one problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Every problem found, in the order of the message.
    pub problems: Vec<Problem>,
}

impl Rejection {
    /// A rejection for one problem.
    pub fn of(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }

    /// The problem that is counted and shown first.
    pub fn first(&self) -> Option<&Problem> {
        self.problems.first()
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
