//! D8: the burn rate of an objective's error budget, and when it is worth a page.
//!
//! Multiwindow, multi-burn-rate alerts (Google, "The Site Reliability Workbook", 2018, chapter 5) fire if the error
//! rates of a long and a short window both exceed factor × budget. This module adds two conditions. It rejects a window
//! with a threshold that no error rate can reach, because the usual factors were made for objectives of 99.9 %: at 95
//! %, a factor of 14.4 waits for 72 % of runs to fail. And because at low traffic two bad runs are a burn rate of 20,
//! the long window must be statistically significant: P(Binomial(n, gate × budget) ≥ s) < 10⁻⁴, exact, with at least 3
//! events.

use std::fmt;

use crate::invalid::{Invalid, positive, share};
use crate::pack::{Pack, Packer, Unpacker};
use crate::packed;
use crate::special::ln_binomial_tail;

/// Minimum number of bad runs in the long window.
pub const MIN_EVENTS: u64 = 3;

/// An alert fires only if the long window's count has a probability below this by chance.
pub const GATE_PROBABILITY: f64 = 1e-4;

/// Maximum error rate that a threshold may require: an app that fails half of its runs has paged long before.
pub const MAX_RATE: f64 = 0.5;

/// The urgency of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Pages the person on call.
    Page,
    /// Opens a ticket to look at within the day.
    Ticket,
}

/// A long and a short window with the burn rate that both must exceed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BurnWindows {
    /// Urgency of its alert.
    pub severity: Severity,
    /// Length of the long window, minutes.
    pub long_minutes: u32,
    /// Length of the short window, minutes: it ends the alert soon after the problem ends.
    pub short_minutes: u32,
    /// Burn rate: the error rate as a multiple of the budget.
    pub factor: f64,
}

packed!(BurnWindows { severity, long_minutes, short_minutes, factor });

impl Pack for Severity {
    fn pack(&self, to: &mut Packer) {
        (*self == Self::Page).pack(to);
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        if bool::unpack(from) { Self::Page } else { Self::Ticket }
    }
}

impl Pack for BurnVerdict {
    fn pack(&self, to: &mut Packer) {
        (*self as u8).pack(to);
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        let place = u8::unpack(from);
        let all = [Self::Fires, Self::Slow, Self::Over, Self::Chance, Self::NoRuns];
        all.into_iter().find(|verdict| *verdict as u8 == place).unwrap_or(Self::NoRuns)
    }
}

/// The workbook's windows, for a period of 30 days: 2 % of the budget in an hour, 5 % in six, 10 % in a day, 10 % in
/// three days.
pub const WORKBOOK: [BurnWindows; 4] = [
    BurnWindows { severity: Severity::Page, long_minutes: 60, short_minutes: 5, factor: 14.4 },
    BurnWindows { severity: Severity::Page, long_minutes: 360, short_minutes: 30, factor: 6.0 },
    BurnWindows { severity: Severity::Ticket, long_minutes: 1440, short_minutes: 120, factor: 3.0 },
    BurnWindows { severity: Severity::Ticket, long_minutes: 4320, short_minutes: 360, factor: 1.0 },
];

/// The fraction of runs that must be good, between 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective(f64);

/// Bad runs and all runs of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BurnCounts {
    /// Bad runs.
    pub events: u64,
    /// All runs.
    pub runs: u64,
}

/// The error for a threshold that no error rate can exceed, or only that of an app that is down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnreachableThreshold {
    /// The requested factor.
    pub factor: f64,
    /// The objective.
    pub objective: f64,
    /// The error rate that it requires.
    pub needs: f64,
    /// The greatest factor that can fire.
    pub greatest: f64,
}

/// The verdict on a pair of windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BurnVerdict {
    /// Both windows exceed the threshold, significantly.
    Fires,
    /// The long window does not burn fast enough.
    Slow,
    /// The long window exceeds the threshold, but the short one no longer does.
    Over,
    /// Too few bad runs, or not significant.
    Chance,
    /// A window has no runs.
    NoRuns,
}

// === impl Objective ===

impl Objective {
    /// Creates an objective from the fraction of good runs, such as 0.95.
    ///
    /// # Errors
    /// Fails if it is not between 0 and 1.
    pub fn new(value: f64) -> Result<Self, Invalid> {
        share("objective", value).map(Self)
    }

    /// Returns the error budget: the fraction of runs that may be bad.
    pub fn budget(self) -> f64 {
        1.0 - self.0
    }

    /// Returns the burn rate: the error rate as a multiple of the budget. None without runs.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub fn burn_rate(self, counts: BurnCounts) -> Option<f64> {
        (counts.runs > 0).then(|| counts.events as f64 / counts.runs as f64 / self.budget())
    }

    /// Returns the error rate that a factor requires.
    ///
    /// # Errors
    /// Fails if no working app reaches it: above [`MAX_RATE`].
    pub fn threshold(self, factor: f64) -> Result<f64, UnreachableThreshold> {
        let needs = factor * self.budget();
        // 1 − objective is not exact in floating point: allow a factor exactly at the limit.
        if needs > 0.0 && needs <= MAX_RATE + 1e-9 {
            return Ok(needs);
        }
        Err(UnreachableThreshold { factor, objective: self.0, needs, greatest: MAX_RATE / self.budget() })
    }

    /// Judges the counts of a pair of windows.
    ///
    /// # Errors
    /// Fails if the factor can never fire.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub fn judge(self, long: BurnCounts, short: BurnCounts, factor: f64) -> Result<BurnVerdict, UnreachableThreshold> {
        let rate = |counts: BurnCounts| counts.events as f64 / counts.runs as f64;
        self.judge_sampled([long, short], [rate(long), rate(short)], 1.0, factor)
    }

    /// Like [`Objective::judge`] for sampled runs: takes the observed counts of the long and the short window, their
    /// weighted error rates, and the odds of a bad run among kept runs relative to the true odds.
    ///
    /// # Errors
    /// Same as [`Objective::judge`].
    pub fn judge_sampled(
        self,
        [long, short]: [BurnCounts; 2],
        rates: [f64; 2],
        odds: f64,
        factor: f64,
    ) -> Result<BurnVerdict, UnreachableThreshold> {
        let threshold = self.threshold(factor)?;
        if long.runs == 0 || short.runs == 0 {
            return Ok(BurnVerdict::NoRuns);
        }
        Ok(if rates[0] <= threshold {
            BurnVerdict::Slow
        } else if long.events < MIN_EVENTS || self.ln_chance_sampled(long, odds, factor) >= GATE_PROBABILITY.ln() {
            BurnVerdict::Chance
        } else if rates[1] <= threshold {
            BurnVerdict::Over
        } else {
            BurnVerdict::Fires
        })
    }

    /// Returns ln of the probability of this many bad runs in the long window by chance. The assumed rate is twice the
    /// budget; for factors below 4 it is half of the factor and at least the budget itself, since a gate above the
    /// threshold would suppress the alerts that the threshold is for.
    pub fn ln_chance(self, long: BurnCounts, factor: f64) -> f64 {
        self.ln_chance_sampled(long, 1.0, factor)
    }

    /// Like [`Objective::ln_chance`] for sampled runs; for `odds` see [`Objective::judge_sampled`].
    pub fn ln_chance_sampled(self, long: BurnCounts, odds: f64, factor: f64) -> f64 {
        let gate = ((factor / 2.0).clamp(1.0, 2.0) * self.budget()).min(1.0);
        let seen = if odds == 1.0 || gate >= 1.0 { gate } else { gate * odds / (1.0 - gate + gate * odds) };
        ln_binomial_tail(long.events, long.runs, seen)
    }

    /// Returns the minutes until a long window fires after the error rate jumps from `before` to `after`. None if it
    /// never does.
    ///
    /// # Errors
    /// Fails if a rate is not from 0 to 1.
    pub fn minutes_to_fire(self, windows: &BurnWindows, before: f64, after: f64) -> Result<Option<f64>, Invalid> {
        for rate in [before, after] {
            if !(0.0..=1.0).contains(&rate) {
                return Err(Invalid::new("error rate", rate, "from 0 to 1"));
            }
        }
        let threshold = positive("factor", windows.factor)? * self.budget();
        if after <= threshold {
            return Ok(None);
        }
        let share = ((threshold - before) / (after - before)).max(0.0);
        Ok(Some(f64::from(windows.long_minutes) * share))
    }
}

impl fmt::Display for UnreachableThreshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { factor, objective, needs, greatest } = self;
        let percent = |share: f64| (share * 1e4).round() / 100.0;
        if factor.is_nan() || *factor <= 0.0 {
            return write!(f, "factor is `{factor}`; it must be above 0");
        }
        write!(
            f,
            "burn rate `{factor}` against an objective of {} % requires {} % of runs to fail, {}; it must be at most \
             {:.2}",
            percent(*objective),
            percent(*needs),
            if *needs > 1.0 { "which is impossible" } else { "which means that the app is down" },
            (greatest * 100.0 + 1e-6).floor() / 100.0
        )
    }
}

impl std::error::Error for UnreachableThreshold {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn objective(value: f64) -> Objective {
        Objective::new(value).expect("an objective")
    }

    #[test]
    fn a_window_that_cannot_fire_is_rejected_with_the_reason() {
        let message = |value: f64, factor: f64| objective(value).threshold(factor).expect_err("refused").to_string();
        assert_eq!(
            message(0.9, 14.4),
            "burn rate `14.4` against an objective of 90 % requires 144 % of runs to fail, which is impossible; it must be at most 5.00"
        );
        assert!(message(0.95, 14.4).contains("requires 72 % of runs to fail, which means that the app is down"));
        assert!(message(0.9, -1.0).contains("above 0") && message(0.9, f64::NAN).contains("above 0"));
        assert!(message(0.95, 14.4).ends_with("at most 10.00") && objective(0.95).threshold(10.0).is_ok());
        assert!(objective(0.98).threshold(14.4).is_ok());
        assert!(Objective::new(1.0).is_err() && Objective::new(0.0).is_err() && Objective::new(f64::NAN).is_err());
    }

    #[test]
    fn both_windows_must_burn_significantly() {
        let judge = |long: (u64, u64), short: (u64, u64)| {
            let counts = |(events, runs)| BurnCounts { events, runs };
            objective(0.99).judge(counts(long), counts(short), 14.4).expect("a verdict")
        };
        assert_eq!(judge((200, 1000), (20, 80)), BurnVerdict::Fires);
        assert_eq!(judge((200, 1000), (0, 80)), BurnVerdict::Over);
        assert_eq!(judge((10, 1000), (20, 80)), BurnVerdict::Slow);
        assert_eq!(judge((2, 8), (2, 8)), BurnVerdict::Chance);
        assert_eq!(judge((0, 0), (2, 8)), BurnVerdict::NoRuns);
        assert_eq!(judge((1_000_000_000, 1_000_000_000), (1, 1)), BurnVerdict::Fires);
    }

    #[test]
    fn a_slow_burn_is_detected_with_a_factor_of_one() {
        let slow = BurnCounts { events: 700, runs: 10_000 };
        assert_eq!(objective(0.95).judge(slow, slow, 1.0), Ok(BurnVerdict::Fires));
    }

    #[test]
    fn time_to_fire_is_that_of_the_workbook() {
        let found = objective(0.999).minutes_to_fire(&WORKBOOK[0], 0.0, 1.0).expect("minutes").expect("fires");
        assert!((found - 0.864).abs() < 1e-9, "{found}");
        assert_eq!(objective(0.999).minutes_to_fire(&WORKBOOK[0], 0.0, 0.01), Ok(None));
    }

    #[test]
    fn low_traffic_within_budget_never_pages_in_a_year() {
        // 60 runs an hour at half of the budget of 99.9 %: without the gate, the rule pages about four times a week.
        let (objective, factor) = (objective(0.999), 14.4);
        for seed in 0..10 {
            let mut random = Random(seed);
            let blocks: Vec<u64> = (0..5 * 7 * 24 * 12).map(|_| random.binomial(5, 0.0005)).collect();
            for end in 12..blocks.len() {
                let long = BurnCounts { events: blocks[end - 12..end].iter().sum(), runs: 60 };
                let short = BurnCounts { events: blocks[end - 1], runs: 5 };
                let verdict = objective.judge(long, short, factor).expect("a verdict");
                assert_ne!(verdict, BurnVerdict::Fires, "seed {seed}, window {end}: {long:?}");
            }
        }
    }
}
