//! D8: how fast an objective's error budget burns, and when that is worth a page.
//!
//! Multiwindow, multi-burn-rate alerts (Google, "The Site Reliability Workbook", 2018, chapter 5): fire where the error
//! rate of a long and of a short window are both above factor × budget. Two things are added. A window whose threshold
//! no error rate can reach is refused with the reason, because the usual factors were made for objectives of 99.9 %: at
//! 95 %, a factor of 14.4 waits for 72 % of runs to fail. And at low traffic, where two bad runs are a burn rate of 20,
//! the long window must be beyond chance: P(Binomial(n, gate × budget) ≥ s) < 10⁻⁴, exact, with at least 3 events.

use std::fmt;

use crate::invalid::{Invalid, positive, share};
use crate::special::ln_binomial_tail;

/// Fewest bad runs of the long window.
pub const LEAST_EVENTS: u64 = 3;

/// Chance that the long window is a matter of chance, above which nothing fires.
pub const GATE_PROBABILITY: f64 = 1e-4;

/// Error rate that a threshold must not ask for: an app that fails half of its runs has been paged for long before.
pub const GREATEST_RATE: f64 = 0.5;

/// Who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Somebody is woken.
    Page,
    /// Somebody looks within the day.
    Ticket,
}

/// A long and a short window with the burn rate that both must pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Windows {
    /// Who is told.
    pub severity: Severity,
    /// Length of the long window, minutes.
    pub long_minutes: u32,
    /// Length of the short window, minutes: it ends the alert soon after the trouble ends.
    pub short_minutes: u32,
    /// Burn rate: the error rate as a multiple of the budget.
    pub factor: f64,
}

/// The workbook's windows, for a period of 30 days: 2 % of the budget in an hour, 5 % in six, 10 % in a day, 10 % in
/// three days.
pub const WORKBOOK: [Windows; 4] = [
    Windows { severity: Severity::Page, long_minutes: 60, short_minutes: 5, factor: 14.4 },
    Windows { severity: Severity::Page, long_minutes: 360, short_minutes: 30, factor: 6.0 },
    Windows { severity: Severity::Ticket, long_minutes: 1440, short_minutes: 120, factor: 3.0 },
    Windows { severity: Severity::Ticket, long_minutes: 4320, short_minutes: 360, factor: 1.0 },
];

/// The share of runs that have to be good, between 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective(f64);

/// Bad runs among all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Bad runs.
    pub events: u64,
    /// All runs.
    pub runs: u64,
}

/// A threshold that can never be passed, or only by an app that is down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Impossible {
    /// The factor asked for.
    pub factor: f64,
    /// The objective.
    pub objective: f64,
    /// The error rate it waits for.
    pub needs: f64,
    /// The greatest factor that can fire.
    pub greatest: f64,
}

/// What a pair of windows says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Both windows burn, beyond chance.
    Fires,
    /// The long window does not burn fast enough.
    Slow,
    /// The long window burns, but the short one does not any more.
    Over,
    /// Too few bad runs, or a chance result.
    Chance,
    /// A window has no runs: nothing is known.
    NoRuns,
}

// === impl Objective ===

impl Objective {
    /// A share of good runs, such as 0.95.
    ///
    /// # Errors
    /// Where it is not between 0 and 1.
    pub fn new(value: f64) -> Result<Self, Invalid> {
        share("objective", value).map(Self)
    }

    /// The share of runs that may be bad.
    pub fn budget(self) -> f64 {
        1.0 - self.0
    }

    /// The burn rate of counts: their error rate as a multiple of the budget. None without runs.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub fn burn_rate(self, counts: Counts) -> Option<f64> {
        (counts.runs > 0).then(|| counts.events as f64 / counts.runs as f64 / self.budget())
    }

    /// The error rate that a factor waits for.
    ///
    /// # Errors
    /// Where no app that still works reaches it: above [`GREATEST_RATE`].
    pub fn threshold(self, factor: f64) -> Result<f64, Impossible> {
        let needs = factor * self.budget();
        // 1 − objective is not exact: a factor at the very limit is allowed.
        if needs > 0.0 && needs <= GREATEST_RATE + 1e-9 {
            return Ok(needs);
        }
        Err(Impossible { factor, objective: self.0, needs, greatest: GREATEST_RATE / self.budget() })
    }

    /// What a pair of windows says of their counts.
    ///
    /// # Errors
    /// Where the factor can never fire.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub fn judge(self, long: Counts, short: Counts, factor: f64) -> Result<Verdict, Impossible> {
        let rate = |counts: Counts| counts.events as f64 / counts.runs as f64;
        self.judge_sampled([long, short], [rate(long), rate(short)], 1.0, factor)
    }

    /// The same of runs that were sampled: counts of what was seen of the long and of the short window, their weighted error
    /// rates, and the odds of a bad run among kept runs over the true odds.
    ///
    /// # Errors
    /// As [`Objective::judge`].
    pub fn judge_sampled(
        self,
        [long, short]: [Counts; 2],
        rates: [f64; 2],
        odds: f64,
        factor: f64,
    ) -> Result<Verdict, Impossible> {
        let threshold = self.threshold(factor)?;
        if long.runs == 0 || short.runs == 0 {
            return Ok(Verdict::NoRuns);
        }
        Ok(if rates[0] <= threshold {
            Verdict::Slow
        } else if long.events < LEAST_EVENTS || self.ln_chance_sampled(long, odds, factor) >= GATE_PROBABILITY.ln() {
            Verdict::Chance
        } else if rates[1] <= threshold {
            Verdict::Over
        } else {
            Verdict::Fires
        })
    }

    /// ln of the probability that the long window has so many bad runs by chance. The rate that is allowed for is twice
    /// the budget; for factors below 4 it is half of the factor and at least the budget itself, since a gate above the
    /// threshold would hold back what the threshold is there for.
    pub fn ln_chance(self, long: Counts, factor: f64) -> f64 {
        self.ln_chance_sampled(long, 1.0, factor)
    }

    /// As [`Objective::ln_chance`], of runs that were sampled; `odds` as of [`Objective::judge_sampled`].
    pub fn ln_chance_sampled(self, long: Counts, odds: f64, factor: f64) -> f64 {
        let gate = ((factor / 2.0).clamp(1.0, 2.0) * self.budget()).min(1.0);
        let seen = if odds == 1.0 || gate >= 1.0 { gate } else { gate * odds / (1.0 - gate + gate * odds) };
        ln_binomial_tail(long.events, long.runs, seen)
    }

    /// Minutes until a long window fires, once the error rate goes from `before` to `after` at once. None where it never
    /// does.
    ///
    /// # Errors
    /// Where a rate is not from 0 to 1.
    pub fn minutes_to_fire(self, windows: &Windows, before: f64, after: f64) -> Result<Option<f64>, Invalid> {
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

impl fmt::Display for Impossible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { factor, objective, needs, greatest } = self;
        let percent = |share: f64| (share * 1e4).round() / 100.0;
        if factor.is_nan() || *factor <= 0.0 {
            return write!(f, "factor is `{factor}`; it must be above 0");
        }
        write!(
            f,
            "burn rate `{factor}` against an objective of {} % waits for {} % of runs to fail, {}; it must be at most \
             {:.2}",
            percent(*objective),
            percent(*needs),
            if *needs > 1.0 { "which cannot be" } else { "which is an app that is down" },
            (greatest * 100.0 + 1e-6).floor() / 100.0
        )
    }
}

impl std::error::Error for Impossible {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn objective(value: f64) -> Objective {
        Objective::new(value).expect("an objective")
    }

    #[test]
    fn a_window_that_cannot_fire_is_refused_with_the_reason() {
        let message = |value: f64, factor: f64| objective(value).threshold(factor).expect_err("refused").to_string();
        assert_eq!(
            message(0.9, 14.4),
            "burn rate `14.4` against an objective of 90 % waits for 144 % of runs to fail, which cannot be; it must be at most 5.00"
        );
        assert!(message(0.95, 14.4).contains("waits for 72 % of runs to fail, which is an app that is down"));
        assert!(message(0.9, -1.0).contains("above 0") && message(0.9, f64::NAN).contains("above 0"));
        assert!(message(0.95, 14.4).ends_with("at most 10.00") && objective(0.95).threshold(10.0).is_ok());
        assert!(objective(0.98).threshold(14.4).is_ok());
        assert!(Objective::new(1.0).is_err() && Objective::new(0.0).is_err() && Objective::new(f64::NAN).is_err());
    }

    #[test]
    fn both_windows_must_burn_beyond_chance() {
        let judge = |long: (u64, u64), short: (u64, u64)| {
            let counts = |(events, runs)| Counts { events, runs };
            objective(0.99).judge(counts(long), counts(short), 14.4).expect("a verdict")
        };
        assert_eq!(judge((200, 1000), (20, 80)), Verdict::Fires);
        assert_eq!(judge((200, 1000), (0, 80)), Verdict::Over);
        assert_eq!(judge((10, 1000), (20, 80)), Verdict::Slow);
        assert_eq!(judge((2, 8), (2, 8)), Verdict::Chance);
        assert_eq!(judge((0, 0), (2, 8)), Verdict::NoRuns);
        assert_eq!(judge((1_000_000_000, 1_000_000_000), (1, 1)), Verdict::Fires);
    }

    #[test]
    fn a_slow_burn_is_found_though_its_factor_is_one() {
        let slow = Counts { events: 700, runs: 10_000 };
        assert_eq!(objective(0.95).judge(slow, slow, 1.0), Ok(Verdict::Fires));
    }

    #[test]
    fn time_to_fire_is_that_of_the_workbook() {
        let found = objective(0.999).minutes_to_fire(&WORKBOOK[0], 0.0, 1.0).expect("minutes").expect("fires");
        assert!((found - 0.864).abs() < 1e-9, "{found}");
        assert_eq!(objective(0.999).minutes_to_fire(&WORKBOOK[0], 0.0, 0.01), Ok(None));
    }

    #[test]
    fn low_traffic_within_budget_never_pages_in_a_year() {
        // 60 runs an hour at half of the budget of 99.9 %: the ungated rule pages about four times a week.
        let (objective, factor) = (objective(0.999), 14.4);
        for seed in 0..10 {
            let mut random = Random(seed);
            let blocks: Vec<u64> = (0..5 * 7 * 24 * 12).map(|_| random.binomial(5, 0.0005)).collect();
            for end in 12..blocks.len() {
                let long = Counts { events: blocks[end - 12..end].iter().sum(), runs: 60 };
                let short = Counts { events: blocks[end - 1], runs: 5 };
                let verdict = objective.judge(long, short, factor).expect("a verdict");
                assert_ne!(verdict, Verdict::Fires, "seed {seed}, window {end}: {long:?}");
            }
        }
    }
}
