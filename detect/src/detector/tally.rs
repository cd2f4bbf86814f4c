//! Totals over the blocks of a comparison: counts, evidence, and the common odds ratio.

use bellwether_stats::e2x2::{Table, Test};
use bellwether_stats::packed;
use bellwether_stats::ratio_cs::Estimate;
use bellwether_stats::sequential::EvidenceSums;

use crate::observation::Minute;

/// Evidence at which an odds ratio is excluded from the interval, nats: ln 20.
const LEVEL: f64 = 2.995_732_273_553_991;

/// Search range for the end of an interval, ln of an odds ratio, and number of bisection steps.
const SEARCH_RANGE: (f64, f64) = (-9.0, 9.0);
const BISECTIONS: u32 = 40;

/// Windows judged together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) start: Minute,
    pub(super) baseline: (u64, u64),
    pub(super) canary: (u64, u64),
}

/// Totals over the blocks of a stratum.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Start of the first block.
    pub(super) started: Option<Minute>,
    pub(super) sums: EvidenceSums,
    pub(super) baseline: (u64, u64),
    pub(super) canary: (u64, u64),
    pub(super) totals: Totals,
    /// Odds ratio of kept runs over the true one, as of the last block.
    odds: Option<f64>,
}

/// Sums of Mantel and Haenszel with the variance of Robins, Breslow and Greenland (Biometrics 42, 1986).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    r: f64,
    s: f64,
    /// R with the odds of kept runs corrected to true odds.
    r_true: f64,
    pr: f64,
    pr_qs: f64,
    qs: f64,
    pub(super) runs: f64,
    /// Bad runs that the canary would have at the baseline's rate of each block.
    pub(super) expected: f64,
}

packed!(Block { start, baseline, canary });
packed!(Tally { started, sums, baseline, canary, totals, odds });
packed!(Totals { r, s, r_true, pr, pr_qs, qs, runs, expected });

// === impl Tally ===

impl Tally {
    /// Adds a block; `odds` is its observed odds ratio over the true one.
    pub(super) fn add(&mut self, block: &Block, increments: &[f64], odds: f64) {
        self.started = Some(self.started.map_or(block.start, |started| started.min(block.start)));
        self.sums.add(increments);
        self.odds = Some(odds);
        // Without runs of both arms there is nothing to compare.
        if block.baseline.1 > 0 && block.canary.1 > 0 {
            for (sum, more) in [(&mut self.baseline, block.baseline), (&mut self.canary, block.canary)] {
                *sum = (sum.0.saturating_add(more.0), sum.1.saturating_add(more.1));
            }
            self.totals.add(block.baseline, block.canary, odds);
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.started = [self.started, other.started].into_iter().flatten().min();
        self.sums.merge(&other.sums);
        self.odds = other.odds.or(self.odds);
        for (sum, more) in [(&mut self.baseline, other.baseline), (&mut self.canary, other.canary)] {
            *sum = (sum.0.saturating_add(more.0), sum.1.saturating_add(more.1));
        }
        self.totals.merge(&other.totals);
    }

    /// Returns ln of the odds ratio with its standard error, and whether half a run had to be added to each cell.
    pub(super) fn log_odds_ratio(&self, tempering: f64) -> Option<(Estimate, bool)> {
        if let Some(estimate) = self.totals.log_odds_ratio(tempering) {
            return Some((estimate, false));
        }
        self.corrected(tempering).map(|estimate| (estimate, true))
    }

    /// Returns the lower end of a 95 % confidence sequence for the odds ratio if the baseline has no bad run, which
    /// leaves the upper end unbounded: the odds ratio that an e-process rejects with E = 20. None if the baseline has
    /// bad runs.
    pub(super) fn least_odds_ratio(&self, tempering: f64) -> Option<f64> {
        if self.baseline.0 > 0 || self.canary.0 == 0 {
            return None;
        }
        let table = Table::new(self.baseline.0, self.baseline.1, self.canary.0, self.canary.1).ok()?;
        let rejected = |ln_ratio: f64| {
            let mut sums = EvidenceSums::default();
            if let Ok(test) = Test::new(ln_ratio.exp(), tempering) {
                sums.add(&test.increments(&table));
            }
            sums.log_e() >= LEVEL
        };
        let (mut low, mut high) = SEARCH_RANGE;
        if !rejected(low) {
            return Some(0.0);
        }
        for _ in 0..BISECTIONS {
            let middle = f64::midpoint(low, high);
            if rejected(middle) { low = middle } else { high = middle }
        }
        Some(low.exp() / self.odds.unwrap_or(1.0))
    }

    /// Returns the odds ratio with an empty cell, for example if the baseline has no bad run: half a run is added to
    /// each cell (Haldane, Annals of Human Genetics 20, 1956).
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn corrected(&self, tempering: f64) -> Option<Estimate> {
        let ((sa, na), (sb, nb)) = (self.baseline, self.canary);
        if na == 0 || nb == 0 || sa.saturating_add(sb) == 0 {
            return None;
        }
        let cell = |count: u64| count as f64 + 0.5;
        let cells = [cell(sb), cell(na.saturating_sub(sa)), cell(nb.saturating_sub(sb)), cell(sa)];
        let variance: f64 = cells.iter().map(|cell| 1.0 / cell).sum();
        Some(Estimate {
            value: (cells[0] * cells[1] / (cells[2] * cells[3]) / self.odds.unwrap_or(1.0)).ln(),
            error: (variance / tempering).sqrt(),
            units: self.totals.runs,
            degrees: f64::INFINITY,
        })
    }
}

// === impl Totals ===

impl Totals {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub(super) fn add(&mut self, baseline: (u64, u64), canary: (u64, u64), odds: f64) {
        let (sa, na, sb, nb) = (baseline.0 as f64, baseline.1 as f64, canary.0 as f64, canary.1 as f64);
        let all = na + nb;
        if na == 0.0 || nb == 0.0 {
            return;
        }
        let (r, s) = (sb * (na - sa) / all, sa * (nb - sb) / all);
        let (p, q) = ((sb + na - sa) / all, (sa + nb - sb) / all);
        self.r += r;
        self.s += s;
        self.r_true += r / odds;
        self.pr += p * r;
        self.pr_qs += p * s + q * r;
        self.qs += q * s;
        self.runs += all;
        self.expected += nb * sa / na;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.r += other.r;
        self.r_true += other.r_true;
        self.s += other.s;
        self.pr += other.pr;
        self.pr_qs += other.pr_qs;
        self.qs += other.qs;
        self.runs += other.runs;
        self.expected += other.expected;
    }

    /// Returns ln of the common odds ratio with its standard error.
    pub(super) fn log_odds_ratio(&self, tempering: f64) -> Option<Estimate> {
        if self.r <= 0.0 || self.s <= 0.0 {
            return None;
        }
        let variance = self.pr / (2.0 * self.r * self.r)
            + self.pr_qs / (2.0 * self.r * self.s)
            + self.qs / (2.0 * self.s * self.s);
        let error = (variance / tempering).sqrt();
        Some(Estimate { value: (self.r_true / self.s).ln(), error, units: self.runs, degrees: f64::INFINITY })
    }
}
