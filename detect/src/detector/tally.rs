//! Blocks of a comparison added up: counts, evidence, and the common odds ratio.

use bellwether_stats::e2x2::{Table, Test};
use bellwether_stats::ratio_cs::Estimate;
use bellwether_stats::sequential::Evidence as Sums;

use crate::observation::Minute;

/// Evidence against an odds ratio at which it is out of the interval, nats: ln 20.
const LEVEL: f64 = 2.995_732_273_553_991;

/// Where the end of an interval is sought, ln of an odds ratio, and how often that is halved.
const SOUGHT: (f64, f64) = (-9.0, 9.0);
const HALVINGS: u32 = 40;

/// Windows judged together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) start: Minute,
    pub(super) baseline: (u64, u64),
    pub(super) canary: (u64, u64),
}

/// Blocks of a stratum added up.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Start of the first block.
    pub(super) begun: Option<Minute>,
    pub(super) sums: Sums,
    pub(super) baseline: (u64, u64),
    pub(super) canary: (u64, u64),
    pub(super) totals: Totals,
    /// Ratio of odds of kept runs over the true one, as it was last.
    odds: Option<f64>,
}

/// Sums of Mantel and Haenszel with the variance of Robins, Breslow and Greenland (Biometrics 42, 1986).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    r: f64,
    s: f64,
    /// R where odds of kept runs are corrected to true ones.
    r_true: f64,
    pr: f64,
    pr_qs: f64,
    qs: f64,
    pub(super) runs: f64,
    /// Bad runs that the canary would have at the baseline's rate of each block.
    pub(super) expected: f64,
}

// === impl Tally ===

impl Tally {
    /// Takes in a block of runs whose odds ratio is to the true one as `odds`.
    pub(super) fn add(&mut self, block: &Block, increments: &[f64], odds: f64) {
        self.begun = Some(self.begun.map_or(block.start, |begun| begun.min(block.start)));
        self.sums.add(increments);
        self.odds = Some(odds);
        // Without runs of both there is nothing to compare.
        if block.baseline.1 > 0 && block.canary.1 > 0 {
            for (sum, more) in [(&mut self.baseline, block.baseline), (&mut self.canary, block.canary)] {
                *sum = (sum.0.saturating_add(more.0), sum.1.saturating_add(more.1));
            }
            self.totals.add(block.baseline, block.canary, odds);
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.begun = [self.begun, other.begun].into_iter().flatten().min();
        self.sums.merge(&other.sums);
        self.odds = other.odds.or(self.odds);
        for (sum, more) in [(&mut self.baseline, other.baseline), (&mut self.canary, other.canary)] {
            *sum = (sum.0.saturating_add(more.0), sum.1.saturating_add(more.1));
        }
        self.totals.merge(&other.totals);
    }

    /// ln of the odds ratio with its standard error, and whether half a run had to be added to each cell.
    pub(super) fn log_odds_ratio(&self, tempering: f64) -> Option<(Estimate, bool)> {
        if let Some(estimate) = self.totals.log_odds_ratio(tempering) {
            return Some((estimate, false));
        }
        self.corrected(tempering).map(|estimate| (estimate, true))
    }

    /// The least odds ratio that the evidence leaves, with 95 % at all times, where the baseline has no bad run and the
    /// greatest is without bound: the one at which an e-process against it would reach 20. None where the baseline has some.
    pub(super) fn least_odds_ratio(&self, tempering: f64) -> Option<f64> {
        if self.baseline.0 > 0 || self.canary.0 == 0 {
            return None;
        }
        let table = Table::new(self.baseline.0, self.baseline.1, self.canary.0, self.canary.1).ok()?;
        let rejected = |ln_ratio: f64| {
            let mut sums = Sums::default();
            if let Ok(test) = Test::new(ln_ratio.exp(), tempering) {
                sums.add(&test.increments(&table));
            }
            sums.log_e() >= LEVEL
        };
        let (mut low, mut high) = SOUGHT;
        if !rejected(low) {
            return Some(0.0);
        }
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(low, high);
            if rejected(middle) { low = middle } else { high = middle }
        }
        Some(low.exp() / self.odds.unwrap_or(1.0))
    }

    /// The odds ratio where a cell is empty, as where the baseline has no bad run at all: half a run is added to each
    /// (Haldane, Annals of Human Genetics 20, 1956).
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

    /// ln of the common odds ratio with its standard error.
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
