//! Weights of candidates: powers of two from 1 to 128, so that inclusion probabilities need only counts by weight.

/// Number of different weights.
pub const LEVELS: usize = 8;

/// A weight, 2^level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u8);

/// Severity of a failure. Critical exceptions are taken in any case ([`crate::Candidate::must_take`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// ×1.
    Low,
    /// ×2.
    Medium,
    /// ×4.
    High,
    /// ×8.
    Critical,
}

/// Novelty of a run, such as that of its release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Novelty {
    /// Seen in the week before, ×1.
    #[default]
    Known,
    /// Seen again after a pause, ×2.
    Returned,
    /// First seen in this week, or on trial, ×4.
    New,
}

// === impl Weight ===

impl Weight {
    /// The least weight, 1.
    pub const ONE: Self = Self(0);

    /// Returns 2^level, at most 128.
    pub const fn of_level(level: u8) -> Self {
        if level as usize >= LEVELS { Self(LEVELS as u8 - 1) } else { Self(level) }
    }

    /// Returns severity × novelty × uncertainty. Uncertainty is 0 if all verdicts agree and 1 if they are evenly
    /// split; it counts ×1 below 1/3, ×2 below 2/3, and ×4 from there on. A value that is no number counts as 0.
    pub fn of(severity: Severity, novelty: Novelty, uncertainty: f64) -> Self {
        let unsure = if uncertainty >= 2.0 / 3.0 {
            2
        } else if uncertainty >= 1.0 / 3.0 {
            1
        } else {
            0
        };
        Self::of_level(severity as u8 + novelty as u8 + unsure)
    }

    /// Returns the exponent.
    pub const fn level(self) -> usize {
        self.0 as usize
    }

    /// Returns the weight.
    pub fn value(self) -> f64 {
        f64::from(1_u32 << self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_multiply_up_to_the_greatest_weight() {
        assert_eq!(Weight::of(Severity::Low, Novelty::Known, 0.0), Weight::ONE);
        assert_eq!(Weight::of(Severity::High, Novelty::Returned, 0.5).value(), 16.0);
        assert_eq!(Weight::of(Severity::Critical, Novelty::New, 1.0).value(), 128.0);
        assert_eq!(Weight::of(Severity::Medium, Novelty::Known, f64::NAN).value(), 2.0);
        assert_eq!(Weight::of_level(200).value(), 128.0);
    }
}
