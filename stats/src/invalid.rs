//! The error for an argument out of range.

use std::fmt;

/// An argument outside its limits: its name, its value and the allowed range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    what: &'static str,
    value: String,
    limit: &'static str,
}

// === impl Invalid ===

impl Invalid {
    /// Creates an error: argument `what` is `value` and must be `limit`.
    pub fn new(what: &'static str, value: impl fmt::Display, limit: &'static str) -> Self {
        Self { what, value: value.to_string(), limit }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is `{}`; it must be {}", self.what, self.value, self.limit)
    }
}

impl std::error::Error for Invalid {}

/// Checks that a level, fraction or rate lies strictly between 0 and 1.
pub(crate) fn share(what: &'static str, value: f64) -> Result<f64, Invalid> {
    if value > 0.0 && value < 1.0 { Ok(value) } else { Err(Invalid::new(what, value, "between 0 and 1, exclusive")) }
}

/// Checks that a number is finite and greater than 0.
pub(crate) fn positive(what: &'static str, value: f64) -> Result<f64, Invalid> {
    if value > 0.0 && value.is_finite() {
        Ok(value)
    } else {
        Err(Invalid::new(what, value, "finite and greater than 0"))
    }
}

/// Checks a tempering factor: log-increments are multiplied by it. It is 1 for independent runs and less for runs in
/// clusters.
pub(crate) fn tempering(value: f64) -> Result<f64, Invalid> {
    if value > 0.0 && value <= 1.0 { Ok(value) } else { Err(Invalid::new("tempering", value, "above 0 and at most 1")) }
}
