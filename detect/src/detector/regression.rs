//! D1: is a bad outcome commoner in a release than in its baseline? The conditional 2×2 e-process of
//! [`bellwether_stats::e2x2`], by stratum and common to all; and an e-detector over the same increments, which finds what
//! begins long after the release.

use std::collections::BTreeMap;
use std::sync::Arc;

use bellwether_stats::Invalid;
use bellwether_stats::e2x2::{ODDS_RATIOS, Table, Test};
use bellwether_stats::ratio_cs::{Estimate, TIGHTEST_AT, interval};
use bellwether_stats::sequential::{Detector, Evidence as Sums, stratified_log_e};

use super::clusters::tempering;
use super::{Absence, Judge, Past, Recovery, Signal, Verdict, weigh};
use crate::budget::Thresholds;
use crate::evidence::{Baseline, Evidence, StratumEvidence};
use crate::observation::{Groups, Measure, Minute, Window};

/// Strata that are told apart; what comes later is one more together.
const MOST_STRATA: usize = 64;

/// Name of the stratum of all later ones.
const OTHER: &str = "(other)";

/// Least margin against a baseline that is not of this moment.
const HISTORICAL_MARGIN: f64 = 1.2;

/// Minutes of one block against history: an hour of the week is one table.
const HISTORICAL_HOUR: i64 = 60;

/// Settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Regression {
    /// Odds ratio up to which all is well.
    pub margin: f64,
    /// Runs of both arms at which a block closes.
    pub block_runs: u64,
    /// Minutes at which it closes in any case.
    pub block_minutes: i64,
    /// Strata state events only; the stratum without a name states the runs of all of them.
    pub shared_runs: bool,
}

impl Default for Regression {
    fn default() -> Self {
        Self { margin: 1.15, block_runs: 20, block_minutes: 60, shared_runs: false }
    }
}

impl Regression {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        Test::new(self.margin, 1.0)?;
        if self.block_runs == 0 || self.block_minutes < 1 {
            return Err(Invalid::new(
                "block",
                format_args!("{} runs, {} minutes", self.block_runs, self.block_minutes),
                "at least one run and one minute",
            ));
        }
        Ok(())
    }
}

/// State of one series.
#[derive(Clone, Debug)]
pub(super) struct State {
    settings: Arc<Regression>,
    strata: BTreeMap<Arc<str>, Stratum>,
    /// The block that fills, of all strata together where they share their runs.
    detector: Detector,
    groups: [Groups; 2],
    totals: Totals,
    recovery: Option<(Option<Arc<str>>, Recovery)>,
    absence: Absence,
    historical: bool,
    restarted: bool,
    since: Option<Minute>,
}

/// One stratum: its evidence and the block that fills.
#[derive(Clone, Debug, Default)]
struct Stratum {
    order: usize,
    sums: Sums,
    open: Option<Block>,
    baseline: (u64, u64),
    canary: (u64, u64),
}

/// Windows judged together.
#[derive(Clone, Copy, Debug)]
struct Block {
    start: Minute,
    baseline: (u64, u64),
    canary: (u64, u64),
}

/// Sums of Mantel and Haenszel with the variance of Robins, Breslow and Greenland (Biometrics 42, 1986).
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    r: f64,
    s: f64,
    pr: f64,
    pr_qs: f64,
    qs: f64,
    runs: f64,
}

// === impl Totals ===

impl Totals {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn add(&mut self, baseline: (u64, u64), canary: (u64, u64)) {
        let (sa, na, sb, nb) = (baseline.0 as f64, baseline.1 as f64, canary.0 as f64, canary.1 as f64);
        let all = na + nb;
        if na == 0.0 || nb == 0.0 {
            return;
        }
        let (r, s) = (sb * (na - sa) / all, sa * (nb - sb) / all);
        let (p, q) = ((sb + na - sa) / all, (sa + nb - sb) / all);
        self.r += r;
        self.s += s;
        self.pr += p * r;
        self.pr_qs += p * s + q * r;
        self.qs += q * s;
        self.runs += all;
    }

    /// ln of the common odds ratio with its standard error.
    fn log_odds_ratio(&self, tempering: f64) -> Option<Estimate> {
        if self.r <= 0.0 || self.s <= 0.0 {
            return None;
        }
        let variance = self.pr / (2.0 * self.r * self.r)
            + self.pr_qs / (2.0 * self.r * self.s)
            + self.qs / (2.0 * self.s * self.s);
        let error = (variance / tempering).sqrt();
        Some(Estimate { value: (self.r / self.s).ln(), error, units: self.runs, degrees: f64::INFINITY })
    }
}

// === impl State ===

impl State {
    pub(super) fn new(settings: Arc<Regression>) -> Self {
        Self {
            settings,
            strata: BTreeMap::new(),
            detector: Detector::new(ODDS_RATIOS.len()),
            groups: Default::default(),
            totals: Totals::default(),
            recovery: None,
            absence: Absence::default(),
            historical: false,
            restarted: false,
            since: None,
        }
    }

    /// 1 over how much more uncertain sessions make the runs, from what has been seen before this block.
    fn tempering(&self) -> f64 {
        tempering(&self.groups)
    }

    fn stratum(&mut self, name: &Arc<str>) -> Arc<str> {
        if self.strata.contains_key(name) {
            return Arc::clone(name);
        }
        let name = if self.strata.len() < MOST_STRATA { Arc::clone(name) } else { Arc::from(OTHER) };
        let order = self.strata.len() + 1;
        self.strata.entry(Arc::clone(&name)).or_insert_with(|| Stratum { order, ..Stratum::default() });
        name
    }

    /// Adds a window to a stratum's block and closes it where it is full; the increments of what closed.
    fn take(
        &mut self,
        name: &Arc<str>,
        start: Minute,
        historical: bool,
        pairs: [(u64, u64); 2],
        tempering: f64,
    ) -> Option<(Minute, Vec<f64>)> {
        let name = self.stratum(name);
        let rule = Arc::clone(&self.settings);
        let mut increments: Option<(Minute, Vec<f64>)> = None;
        let mut close = |state: &mut Self, block: Block, margin: f64| {
            let found = state.close(&name, block, margin, tempering);
            increments = Some(match increments.take() {
                Some((at, before)) => (at, before.iter().zip(&found).map(|(a, b)| a + b).collect()),
                None => (block.start, found),
            });
        };
        let open = self.strata.get_mut(&name)?.open.take();
        let mut block = Block { start, baseline: (0, 0), canary: (0, 0) };
        if let Some(before) = open {
            if historical || start - before.start >= rule.block_minutes {
                close(self, before, rule.margin);
            } else {
                block = before;
            }
        }
        for (sum, more) in [(&mut block.baseline, pairs[0]), (&mut block.canary, pairs[1])] {
            *sum = (sum.0 + more.0, sum.1 + more.1);
        }
        if historical {
            close(self, block, rule.margin.max(HISTORICAL_MARGIN));
        } else if block.baseline.1.min(block.canary.1) >= rule.block_runs {
            close(self, block, rule.margin);
        } else if let Some(stratum) = self.strata.get_mut(&name) {
            stratum.open = Some(block);
        }
        increments
    }

    /// Judges a block.
    fn close(&mut self, name: &Arc<str>, block: Block, margin: f64, tempering: f64) -> Vec<f64> {
        let silent = vec![0.0; ODDS_RATIOS.len()];
        let table = Table::new(block.baseline.0, block.baseline.1, block.canary.0, block.canary.1);
        let (Ok(table), Ok(test)) = (table, Test::new(margin, tempering)) else { return silent };
        let Some(stratum) = self.strata.get_mut(name) else { return silent };
        if block.baseline.1 > 0 && block.canary.1 > 0 {
            for (sum, more) in [(&mut stratum.baseline, block.baseline), (&mut stratum.canary, block.canary)] {
                *sum = (sum.0 + more.0, sum.1 + more.1);
            }
        }
        let increments = test.increments(&table);
        stratum.sums.add(&increments);
        if let Some((guilty, recovery)) = &mut self.recovery
            && guilty.as_ref().is_none_or(|guilty| guilty == name)
        {
            recovery.update(&increments);
        }
        self.totals.add(block.baseline, block.canary);
        increments.to_vec()
    }

    fn take_groups(&mut self, window: &Window) {
        for row in &window.rows {
            for (to, from) in self.groups.iter_mut().zip([&row.baseline, &row.canary]) {
                if let Some(groups) = &from.groups {
                    to.add(&groups.events, &groups.runs);
                }
            }
        }
    }

    fn log_e(&self) -> f64 {
        if self.restarted {
            // A second e-process of the same release would spend its α a second time; the e-detector watches on.
            return 0.0;
        }
        if !self.settings.shared_runs {
            return stratified_log_e(self.strata.values().map(|stratum| &stratum.sums));
        }
        // Strata come as they are first seen: each gets its part of the bet when it comes, the rest stays a bet on nothing.
        let mut common = Sums::default();
        let mut parts: Vec<f64> = Vec::with_capacity(self.strata.len() + 2);
        let mut left = 1.0_f64;
        for stratum in self.strata.values() {
            common.merge(&stratum.sums);
            let order = stratum.order as f64;
            let part = 1.0 / (order * (order + 1.0));
            left -= part;
            parts.push(stratum.sums.log_e() + (part / 2.0).ln());
        }
        parts.push((left.max(1e-12) / 2.0).ln());
        parts.push(common.log_e() - std::f64::consts::LN_2);
        let greatest = parts.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        greatest + parts.iter().map(|part| (part - greatest).exp()).sum::<f64>().ln()
    }

    /// The stratum that says more than all together, if one does.
    fn guilty(&self) -> Option<Arc<str>> {
        let mut common = Sums::default();
        self.strata.values().for_each(|stratum| common.merge(&stratum.sums));
        let (name, worst) = self.strata.iter().max_by(|a, b| a.1.sums.log_e().total_cmp(&b.1.sums.log_e()))?;
        (self.strata.len() > 1 && worst.sums.log_e() > common.log_e()).then(|| Arc::clone(name))
    }

    fn statistic(&self, thresholds: &Thresholds) -> (f64, f64, bool) {
        let (e, detector) = (self.log_e(), self.detector.log_shiryaev_roberts().max(0.0));
        if e - thresholds.e >= detector - thresholds.detector {
            (e, thresholds.e, true)
        } else {
            (detector, thresholds.detector, false)
        }
    }
}

impl Judge for State {
    fn prime(&mut self, window: &Window) {
        self.take_groups(window);
    }

    fn step(&mut self, window: &Window, _: &Past<'_>) {
        let tempering = self.tempering();
        let sum =
            |of: fn(&crate::observation::Row) -> &Measure| window.rows.iter().map(|row| of(row).pair().1).sum::<u64>();
        let (baseline_runs, canary_runs) = (sum(|row| &row.baseline), sum(|row| &row.canary));
        if !window.historical {
            self.absence.note(window.start, baseline_runs, canary_runs);
        }
        self.historical |= window.historical;
        // Where strata share their runs, those of the stratum without a name are every stratum's.
        let shared = self.settings.shared_runs.then(|| {
            let all = window.rows.iter().find(|row| row.stratum.is_empty());
            all.map_or((0, 0), |row| (row.baseline.pair().1, row.canary.pair().1))
        });
        let mut closed: Option<(Minute, Vec<f64>)> = None;
        let mut join = |more: Option<(Minute, Vec<f64>)>| {
            if let Some((at, more)) = more {
                closed = Some(match closed.take() {
                    Some((first, sum)) => (at.min(first), sum.iter().zip(&more).map(|(a, b)| a + b).collect()),
                    None => (at, more),
                });
            }
        };
        match shared {
            None => {
                for row in &window.rows {
                    let pairs = [row.baseline.pair(), row.canary.pair()];
                    join(self.take(&row.stratum, window.start, window.historical, pairs, tempering));
                }
            }
            Some((baseline, canary)) => {
                let mut events: BTreeMap<Arc<str>, [u64; 2]> =
                    self.strata.keys().map(|name| (Arc::clone(name), [0, 0])).collect();
                for row in window.rows.iter().filter(|row| !row.stratum.is_empty()) {
                    let found = events.entry(Arc::clone(&row.stratum)).or_default();
                    found[0] += crate::observation::count(row.baseline.events);
                    found[1] += crate::observation::count(row.canary.events);
                }
                for (name, [a, b]) in events {
                    let pairs = [(a.min(baseline), baseline), (b.min(canary), canary)];
                    join(self.take(&name, window.start, window.historical, pairs, tempering));
                }
            }
        }
        if let Some((at, increments)) = closed {
            self.detector.update(&increments);
            if self.detector.blocks_since_change().is_none_or(|blocks| blocks == 1) {
                self.since = Some(at);
            }
        }
        self.take_groups(window);
    }

    fn verdict(&self, thresholds: &Thresholds) -> Verdict {
        let (statistic, threshold, _) = self.statistic(thresholds);
        let mut verdict = weigh(statistic, threshold);
        if self.absence.is_gone() {
            verdict.signal = Signal::Gone;
        } else if self.recovery.as_ref().is_some_and(|(_, recovery)| recovery.is_over()) {
            verdict.signal = Signal::Recovered;
        }
        verdict
    }

    fn fired(&mut self) {
        let guilty = self.guilty();
        let mut sums = Sums::default();
        for (name, stratum) in &self.strata {
            if guilty.as_ref().is_none_or(|guilty| guilty == name) {
                sums.merge(&stratum.sums);
            }
        }
        self.recovery = Some((guilty, Recovery::of(&sums)));
    }

    fn resolved(&mut self) {
        let groups = std::mem::take(&mut self.groups);
        *self = Self { groups, restarted: true, ..Self::new(Arc::clone(&self.settings)) };
    }

    fn evidence(&self, thresholds: &Thresholds) -> Evidence {
        let (log_e, threshold, by_release) = self.statistic(thresholds);
        let sum = |of: fn(&Stratum) -> (u64, u64)| {
            // Shared runs are the same runs in every stratum.
            let all = self.strata.values().map(of);
            if self.settings.shared_runs {
                all.fold((0, 0), |sum, more| (sum.0 + more.0, sum.1.max(more.1)))
            } else {
                all.fold((0, 0), |sum, more| (sum.0 + more.0, sum.1 + more.1))
            }
        };
        let baseline = if self.historical { Baseline::Historical } else { Baseline::Concurrent };
        let mut evidence = Evidence::new("regression", baseline, "odds_ratio")
            .with_counts(Some(sum(|stratum| stratum.baseline)), Some(sum(|stratum| stratum.canary)));
        let tempering = self.tempering();
        if let Some(estimate) = self.totals.log_odds_ratio(tempering) {
            evidence.effect = Some(estimate.value.exp());
            evidence.interval =
                interval(&estimate, TIGHTEST_AT, 0.05).ok().map(|interval| (interval.low.exp(), interval.high.exp()));
        }
        evidence.log_e = Some(log_e);
        evidence.threshold = Some(threshold);
        evidence.false_alarm =
            Some(if by_release { (thresholds.alpha, "per_release") } else { (thresholds.alarms_a_month, "a_month") });
        evidence.since = self.since;
        let mut strata: Vec<StratumEvidence> = self
            .strata
            .iter()
            .map(|(name, stratum)| StratumEvidence {
                stratum: Arc::clone(name),
                baseline: stratum.baseline,
                canary: stratum.canary,
                log_e: stratum.sums.log_e(),
            })
            .collect();
        strata.sort_by(|a, b| b.log_e.total_cmp(&a.log_e).then_with(|| a.stratum.cmp(&b.stratum)));
        evidence.strata = strata;
        if tempering < 1.0 {
            evidence.notes.push(format!("runs of one session are alike: evidence is weighed by {tempering:.2}"));
        }
        if self.historical {
            let hours = HISTORICAL_HOUR / 60;
            evidence.notes.push(format!(
                "part of the baseline is the previous release in the same {hours}-hour stretches of earlier weeks: what else has changed since then counts too"
            ));
        }
        evidence
    }

    fn boxed(&self) -> Box<dyn Judge> {
        Box::new(self.clone())
    }
}
