//! What is wrong with an argument.

use std::fmt;

/// An argument outside its limits: which one, what it was, and what would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    what: &'static str,
    value: String,
    limit: &'static str,
}

// === impl Invalid ===

impl Invalid {
    /// Argument `what` was `value`; it has to be `limit`.
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

/// A number strictly between 0 and 1: a level, a share, a rate.
pub(crate) fn share(what: &'static str, value: f64) -> Result<f64, Invalid> {
    if value > 0.0 && value < 1.0 {
        Ok(value)
    } else {
        Err(Invalid::new(what, value, "between 0 and 1, ends excluded"))
    }
}

/// A finite number greater than 0.
pub(crate) fn positive(what: &'static str, value: f64) -> Result<f64, Invalid> {
    if value > 0.0 && value.is_finite() { Ok(value) } else { Err(Invalid::new(what, value, "a finite number above 0")) }
}

/// A factor by which log-increments are multiplied: 1, or less where runs come in clusters.
pub(crate) fn tempering(value: f64) -> Result<f64, Invalid> {
    if value > 0.0 && value <= 1.0 { Ok(value) } else { Err(Invalid::new("tempering", value, "above 0 and at most 1")) }
}
