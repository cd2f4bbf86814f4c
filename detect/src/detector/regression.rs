//! D1: a bad outcome is more common in a release than in its baseline. It uses the conditional 2×2 e-process of
//! [`bellwether_stats::e2x2`], by stratum and common to all, and an e-detector over the same increments, which finds
//! problems that begin long after the release.
//!
//! The evidence describes the subject of the alert: one stratum if it has more evidence than all together, and the time
//! since the change if the release was fine before. Counts, rates, effect and interval all refer to that subject.

use std::collections::BTreeMap;
use std::sync::Arc;

use bellwether_stats::Invalid;
use bellwether_stats::clusters::session_tempering;
use bellwether_stats::e2x2::{ODDS_RATIOS, Table, Test};
use bellwether_stats::pack::Packer;
use bellwether_stats::packed;
use bellwether_stats::ratio_cs::{TIGHTEST_AT, interval};
use bellwether_stats::sequential::{EDetector, EvidenceSums, stratified_log_e};
use bellwether_stats::wander::{UNKNOWN, Wander, table_variance};

use super::tally::{Block, Tally};
use super::{AS_LIKELY, Absence, DetectorState, Past, Recovery, Signal, Verdict, weigh};
use crate::budget::Thresholds;
use crate::evidence::{BaselineKind, Evidence, StratumEvidence};
use crate::observation::{Groups, Measure, Minute, SmallGroups, Window};
use crate::sorted::Sorted;
use crate::weights::{Arm, Factor, SamplingScheme};

/// Maximum number of strata; later ones are combined into one.
const MAX_STRATA: usize = 64;

/// Name of the stratum that combines the later ones.
pub const COMBINED_STRATUM: &str = "(other)";

/// Minimum margin against a historical baseline.
const HISTORICAL_MARGIN: f64 = 1.2;

/// Minutes of one block against history: one table per hour of the week.
const HISTORICAL_HOUR: i64 = 60;

/// Evidence at which another stratum is reported as affected too, nats: ln 20.
const ALSO_AFFECTED: f64 = 2.995_732_273_553_991;

/// Settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Regression {
    /// Largest acceptable odds ratio.
    pub margin: f64,
    /// Runs of both arms at which a block closes.
    pub block_runs: u64,
    /// Minutes after which it closes in any case.
    pub block_minutes: i64,
    /// Strata have events only; the stratum without a name has the runs of all of them.
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
    strata: Sorted<Arc<str>, Stratum>,
    /// The detector over the combined increments of all strata.
    detector: EDetector,
    groups: [SmallGroups; 2],
    fired: Option<Box<Fired>>,
    absence: Absence,
    historical: bool,
    restarted: bool,
    since: Option<Minute>,
}

/// One stratum: its evidence and its open block.
#[derive(Clone, Debug, Default)]
struct Stratum {
    order: usize,
    open: Option<Block>,
    /// Totals since the release began, and since the change began.
    whole: Tally,
    recent: Tally,
    /// How bad and good runs of baseline and canary are sampled.
    schemes: [SamplingScheme; 2],
}

/// The subject of an alert.
#[derive(Clone, Debug, Default, PartialEq)]
struct Subject {
    /// One stratum; none for all together.
    stratum: Option<Arc<str>>,
    /// True for the time since the change began, false for the time since the release began.
    recent: bool,
}

/// A firing alert: its subject and its recovery.
#[derive(Clone, Debug)]
struct Fired {
    subject: Subject,
    /// The stratum that must recover; none for all together.
    watched: Option<Arc<str>>,
    recovery: Recovery,
}

/// Properties of a window that all its strata share.
struct WindowFrame {
    start: Minute,
    /// Wander of the baseline, if the baseline is from earlier weeks.
    historical: Option<Wander>,
    tempering: f64,
}

/// A block that has closed, with its increments.
struct Closed {
    stratum: Arc<str>,
    block: Block,
    increments: Vec<f64>,
    /// Odds ratio of kept runs over the true one.
    odds: f64,
}

// === impl Stratum ===

impl Stratum {
    /// Returns the correction from the odds ratio of kept runs to the true one.
    fn factor(&self) -> Factor {
        self.schemes[1].against(&self.schemes[0])
    }
}

packed!(Stratum { order, open, whole, recent, schemes });
packed!(Subject { stratum, recent });
packed!(Fired { subject, watched, recovery });
packed_state!(Regression { strata, detector, groups, fired, absence, historical, restarted, since });

// === impl State ===

impl State {
    pub(super) fn new(settings: Arc<Regression>) -> Self {
        Self {
            settings,
            strata: Sorted::default(),
            detector: EDetector::new(ODDS_RATIOS.len()),
            groups: Default::default(),
            fired: None,
            absence: Absence::default(),
            historical: false,
            restarted: false,
            since: None,
        }
    }

    /// Returns the tempering for correlation within sessions, estimated from the runs before this block.
    fn tempering(&self) -> f64 {
        let groups = self.groups.each_ref().map(SmallGroups::groups);
        session_tempering(groups.iter().map(Groups::totals))
    }

    fn stratum(&mut self, name: &Arc<str>) -> Arc<str> {
        if self.strata.contains_key::<str>(name) {
            return Arc::clone(name);
        }
        let name = if self.strata.len() < MAX_STRATA { Arc::clone(name) } else { Arc::from(COMBINED_STRATUM) };
        let order = self.strata.len() + 1;
        self.strata.get_or_insert_with(&name, || Stratum { order, ..Stratum::default() });
        name
    }

    /// Adds a window to a stratum's block and closes the block if it is full.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn take(&mut self, name: &Arc<str>, arms: [Arm; 2], window: &WindowFrame) -> Vec<Closed> {
        let WindowFrame { start, historical, tempering } = *window;
        let name = self.stratum(name);
        let mut closed = Vec::new();
        let pairs = arms.map(|arm| arm.seen_counts());
        let rule = Arc::clone(&self.settings);
        let Some(stratum) = self.strata.get_mut::<str>(&name) else { return closed };
        stratum.schemes.iter_mut().zip(&arms).for_each(|(scheme, arm)| scheme.note(arm));
        let mut block = Block { start, baseline: (0, 0), canary: (0, 0) };
        if let Some(before) = stratum.open.take() {
            if historical.is_some() || start - before.start >= rule.block_minutes {
                closed.push(self.close(&name, before, rule.margin, tempering));
            } else {
                block = before;
            }
        }
        for (sum, more) in [(&mut block.baseline, pairs[0]), (&mut block.canary, pairs[1])] {
            *sum = (sum.0.saturating_add(more.0), sum.1.saturating_add(more.1));
        }
        if let Some(wander) = historical {
            let variance = table_variance(block.baseline, block.canary);
            let weeks = block.baseline.1 as f64 / block.canary.1.max(1) as f64;
            let null = wander.against_history(rule.margin.max(HISTORICAL_MARGIN).ln(), weeks.min(4.0), variance);
            closed.push(self.close(&name, block, null.margin.exp(), tempering * null.tempering));
        } else if block.baseline.1.min(block.canary.1) >= rule.block_runs {
            closed.push(self.close(&name, block, rule.margin, tempering));
        } else if let Some(stratum) = self.strata.get_mut::<str>(&name) {
            stratum.open = Some(block);
        }
        closed
    }

    /// Judges a block.
    fn close(&mut self, name: &Arc<str>, block: Block, margin: f64, tempering: f64) -> Closed {
        let table = Table::new(block.baseline.0, block.baseline.1, block.canary.0, block.canary.1);
        // Observed runs are tested against the odds ratio expected among them when the true one equals the margin.
        let factor = self.strata.get::<str>(name).map_or(Factor::EVEN, Stratum::factor);
        let test = Test::new(margin * factor.odds, tempering * factor.tempering);
        let increments = match (table, test) {
            (Ok(table), Ok(test)) => test.increments(&table).to_vec(),
            _ => vec![0.0; ODDS_RATIOS.len()],
        };
        if let Some(stratum) = self.strata.get_mut::<str>(name) {
            stratum.whole.add(&block, &increments, factor.odds);
        }
        if let Some(fired) = &mut self.fired
            && fired.watched.as_ref().is_none_or(|watched| watched == name)
        {
            fired.recovery.update(&increments);
        }
        Closed { stratum: Arc::clone(name), block, increments, odds: factor.odds }
    }

    /// Feeds the blocks that closed in one window to the detector in one step. Its estimate of the change point also
    /// resets [`Stratum::recent`].
    fn note(&mut self, closed: &[Closed]) {
        let Some(at) = closed.iter().map(|closed| closed.block.start).min() else { return };
        let mut increments = vec![0.0; ODDS_RATIOS.len()];
        for closed in closed {
            increments.iter_mut().zip(&closed.increments).for_each(|(sum, more)| *sum += more);
        }
        self.detector.update(&increments);
        if self.detector.blocks_since_change().is_none_or(|blocks| blocks == 1) {
            self.since = Some(at);
            self.strata.values_mut().for_each(|stratum| stratum.recent = Tally::default());
        }
        for closed in closed {
            if let Some(stratum) = self.strata.get_mut::<str>(&closed.stratum) {
                stratum.recent.add(&closed.block, &closed.increments, closed.odds);
            }
        }
    }

    /// Replaces observed counts by weighted ones if runs are sampled.
    fn weigh(&self, subject: Option<&Arc<str>>, evidence: &mut Evidence) {
        let mut arms: [Arm; 2] = Default::default();
        let mut tempering = 1.0_f64;
        for (name, stratum) in self.strata.iter() {
            let factor = stratum.factor();
            if factor != Factor::EVEN {
                evidence.sampling.push((Arc::clone(name), factor.odds, factor.tempering));
            }
            if subject.is_some_and(|subject| subject != name) {
                continue;
            }
            tempering = tempering.min(factor.tempering);
            for (sum, scheme) in arms.iter_mut().zip(&stratum.schemes) {
                // Strata that share their runs have the same runs.
                *sum = if self.settings.shared_runs {
                    let more = scheme.pool();
                    let mut events = *sum;
                    events.add(&more);
                    Arm::joined(events, if more.runs > sum.runs { more } else { *sum })
                } else {
                    sum.add(&scheme.pool());
                    *sum
                };
            }
        }
        let (Some(a), Some(b)) = (evidence.baseline_counts, evidence.canary_counts) else { return };
        let [baseline, canary] = [(arms[0], a), (arms[1], b)].map(|(arm, seen)| arm.subset(seen));
        for found in &mut evidence.strata {
            if let Some(stratum) = self.strata.get::<str>(&found.stratum) {
                found.baseline = stratum.schemes[0].pool().weighted_subset(found.baseline);
                found.canary = stratum.schemes[1].pool().weighted_subset(found.canary);
            }
        }
        evidence.weigh(Some(&baseline), &canary, tempering);
    }

    fn take_groups(&mut self, window: &Window) {
        for row in &window.rows {
            for (to, from) in self.groups.iter_mut().zip([&row.baseline, &row.canary]) {
                if let Some(groups) = &from.groups {
                    to.add(groups);
                }
            }
        }
    }

    fn log_e(&self) -> f64 {
        if self.restarted {
            // A second e-process for the same release would spend its α twice; the e-detector continues.
            return 0.0;
        }
        if !self.settings.shared_runs {
            return stratified_log_e(self.strata.values().map(|stratum| &stratum.whole.sums));
        }
        // Strata appear over time: each gets its part of the wealth when it appears, the rest stays uninvested.
        let mut common = EvidenceSums::default();
        let mut parts: Vec<f64> = Vec::with_capacity(self.strata.len() + 2);
        let mut left = 1.0_f64;
        for stratum in self.strata.values() {
            common.merge(&stratum.whole.sums);
            let order = stratum.order as f64;
            let part = 1.0 / (order * (order + 1.0));
            left -= part;
            parts.push(stratum.whole.sums.log_e() + (part / 2.0).ln());
        }
        parts.push((left.max(1e-12) / 2.0).ln());
        parts.push(common.log_e() - std::f64::consts::LN_2);
        let greatest = parts.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        greatest + parts.iter().map(|part| (part - greatest).exp()).sum::<f64>().ln()
    }

    /// Returns the tally of a stratum, or of all together.
    fn tally(&self, subject: &Subject) -> Tally {
        let mut sum = Tally::default();
        for (name, stratum) in self.strata.iter() {
            if subject.stratum.as_ref().is_none_or(|subject| subject == name) {
                sum.merge(if subject.recent { &stratum.recent } else { &stratum.whole });
            }
        }
        sum
    }

    /// Returns the evidence for a stratum, or for all together, and whether it covers only the time since the change.
    /// The whole life of the release is used unless it explains the change much worse.
    fn score(&self, stratum: Option<&Arc<str>>) -> (f64, bool) {
        let of = |recent| self.tally(&Subject { stratum: stratum.cloned(), recent }).sums.log_e();
        let (whole, recent) = (of(false), of(true));
        if recent > whole + AS_LIKELY { (recent, true) } else { (whole, false) }
    }

    /// Returns the stratum with the most evidence, and whether it has more than all together.
    fn worst(&self) -> Option<(Arc<str>, bool)> {
        let scored = self.strata.keys().map(|name| (self.score(Some(name)).0, name));
        let (score, name) = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
        Some((Arc::clone(name), self.strata.len() > 1 && score > self.score(None).0))
    }

    /// Returns the subject of an alert that fires now, and the stratum that must recover. Strata that share their runs
    /// are different events in the same runs: adding them up is meaningless, so the worst one is the subject.
    fn subject(&self) -> (Subject, Option<Arc<str>>) {
        let Some((name, more)) = self.worst() else { return (Subject::default(), None) };
        let watched = more.then(|| Arc::clone(&name));
        let stratum = if self.settings.shared_runs { Some(name) } else { watched.clone() };
        let recent = self.score(stratum.as_ref()).1;
        (Subject { stratum, recent }, watched)
    }

    /// If the mix of blocks and strata makes the plain rates contradict the effect, replaces the baseline's rate by the
    /// rate it would have with the release's mix (direct standardisation).
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn standardise(&self, tally: &Tally, evidence: &mut Evidence) {
        let (Some(plain), Some(canary), Some(effect)) =
            (evidence.baseline_value, evidence.canary_value, evidence.effect)
        else {
            return;
        };
        let sampled = self.strata.values().any(|stratum| !stratum.schemes.iter().all(SamplingScheme::is_plain));
        if effect <= 1.0 || canary > plain || tally.canary.1 == 0 || sampled {
            return;
        }
        evidence.baseline_value = Some(tally.totals.expected / tally.canary.1 as f64);
        evidence.notes.push(format!(
            "the baseline's rate is standardised to the release's mix of hours and strata; the plain rate is {:.1} %",
            plain * 100.0
        ));
    }

    /// Adds every stratum with its own counts, the subject first.
    fn add_strata(&self, subject: &Subject, evidence: &mut Evidence) {
        let mut strata: Vec<StratumEvidence> = Vec::with_capacity(self.strata.len());
        for (name, stratum) in self.strata.iter() {
            let tally = if subject.recent { &stratum.recent } else { &stratum.whole };
            if let Some(started) = tally.started {
                evidence.starts.push((Arc::clone(name), started));
            }
            strata.push(StratumEvidence {
                stratum: Arc::clone(name),
                baseline: tally.baseline,
                canary: tally.canary,
                log_e: tally.sums.log_e(),
            });
        }
        let is_subject = |stratum: &StratumEvidence| subject.stratum.as_ref() == Some(&stratum.stratum);
        strata.sort_by(|a, b| {
            let guilt = b.log_e.total_cmp(&a.log_e);
            is_subject(b).cmp(&is_subject(a)).then(guilt).then_with(|| a.stratum.cmp(&b.stratum))
        });
        if let Some(name) = subject.stratum.as_ref().filter(|_| self.strata.len() > 1 || self.settings.shared_runs) {
            let own = strata.first().map_or(0.0, |stratum| stratum.log_e);
            evidence.notes.push(format!(
                "the numbers are those of `{name}`, with a log_e of {own:.1}; log_e and threshold are those of all {} strata together",
                self.strata.len()
            ));
            evidence.also = strata.iter().skip(1).filter(|stratum| stratum.log_e >= ALSO_AFFECTED).count();
        }
        evidence.recent = subject.recent;
        evidence.stratum = subject.stratum.clone();
        evidence.strata = strata;
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

impl DetectorState for State {
    fn prime(&mut self, window: &Window) {
        self.take_groups(window);
    }

    fn step(&mut self, window: &Window, _: &Past<'_>) {
        let sum = |of: fn(&crate::observation::StratumRow) -> &Measure| {
            window.rows.iter().map(|row| of(row).clamped_counts().1).sum::<u64>()
        };
        let (baseline_runs, canary_runs) = (sum(|row| &row.baseline), sum(|row| &row.canary));
        if !window.historical {
            self.absence.note(window.start, baseline_runs, canary_runs);
        }
        self.historical |= window.historical;
        let frame = WindowFrame {
            start: window.start,
            historical: window.historical.then(|| window.wander.unwrap_or(UNKNOWN)),
            tempering: self.tempering(),
        };
        // If strata share their runs, the stratum without a name has them.
        let shared = self.settings.shared_runs.then(|| {
            let all = window.rows.iter().find(|row| row.stratum.is_empty());
            all.map_or_else(Default::default, |row| [Arm::from_measure(&row.baseline), Arm::from_measure(&row.canary)])
        });
        let mut closed = Vec::new();
        match shared {
            None => {
                for row in &window.rows {
                    let arms = [Arm::from_measure(&row.baseline), Arm::from_measure(&row.canary)];
                    closed.extend(self.take(&row.stratum, arms, &frame));
                }
            }
            Some(runs) => {
                let mut events: BTreeMap<Arc<str>, [Arm; 2]> =
                    self.strata.keys().map(|name| (Arc::clone(name), Default::default())).collect();
                for row in window.rows.iter().filter(|row| !row.stratum.is_empty()) {
                    // The strata that are combined have the runs once, like any other.
                    let found = events.entry(self.stratum(&row.stratum)).or_default();
                    found[0].add(&Arm::from_measure(&row.baseline));
                    found[1].add(&Arm::from_measure(&row.canary));
                }
                for (name, events) in events {
                    let arms = [0, 1].map(|arm| Arm::joined(events[arm], runs[arm]));
                    closed.extend(self.take(&name, arms, &frame));
                }
            }
        }
        self.note(&closed);
        self.take_groups(window);
    }

    fn verdict(&self, thresholds: &Thresholds) -> Verdict {
        let (statistic, threshold, _) = self.statistic(thresholds);
        let mut verdict = weigh(statistic, threshold);
        if self.absence.has_left() {
            verdict.signal = Signal::Gone;
        } else if self.fired.as_ref().is_some_and(|fired| fired.recovery.is_over()) {
            verdict.signal = Signal::Recovered;
        }
        verdict
    }

    fn on_fired(&mut self) {
        let (subject, watched) = self.subject();
        let sums = self.tally(&Subject { stratum: watched.clone(), recent: subject.recent }).sums;
        self.fired = Some(Box::new(Fired { subject, watched, recovery: Recovery::from_sums(&sums) }));
    }

    fn on_resolved(&mut self) {
        let groups = std::mem::take(&mut self.groups);
        *self = Self { groups, restarted: true, ..Self::new(Arc::clone(&self.settings)) };
    }

    fn evidence(&self, thresholds: &Thresholds) -> Evidence {
        let (log_e, threshold, by_release) = self.statistic(thresholds);
        let subject = self.fired.as_ref().map_or_else(|| self.subject().0, |fired| fired.subject.clone());
        let tally = self.tally(&subject);
        let baseline = if self.historical { BaselineKind::Historical } else { BaselineKind::Concurrent };
        let mut evidence =
            Evidence::new("regression", baseline, "odds_ratio").with_counts(Some(tally.baseline), Some(tally.canary));
        let tempering = self.tempering();
        if let Some((estimate, corrected)) = tally.log_odds_ratio(tempering) {
            evidence.effect = Some(estimate.value.exp());
            evidence.interval =
                interval(&estimate, TIGHTEST_AT, 0.05).ok().map(|interval| (interval.low.exp(), interval.high.exp()));
            if corrected {
                evidence.notes.push(
                    "one side has no such run: the odds ratio is computed with half a run added to each cell"
                        .to_owned(),
                );
            }
        }
        if let Some(least) = tally.least_odds_ratio(tempering) {
            evidence.interval = Some((least, f64::INFINITY));
        }
        self.standardise(&tally, &mut evidence);
        evidence.log_e = Some(log_e);
        evidence.threshold = Some(threshold);
        evidence.false_alarm =
            Some(if by_release { (thresholds.alpha, "per_release") } else { (thresholds.alarms_per_month, "a_month") });
        evidence.since = self.since;
        evidence.log_e_from = self.strata.values().filter_map(|stratum| stratum.whole.started).min();
        evidence.is_detected = !by_release;
        self.add_strata(&subject, &mut evidence);
        if tempering < 1.0 {
            evidence
                .notes
                .push(format!("runs of one session are correlated: evidence is multiplied by {tempering:.2}"));
        }
        self.weigh(subject.stratum.as_ref(), &mut evidence);
        if self.historical {
            let hours = HISTORICAL_HOUR / 60;
            evidence.notes.push(format!(
                "part of the baseline is the previous release in the same {hours}-hour periods of earlier weeks: other changes since then affect the comparison too, and the SQL shows concurrent runs only"
            ));
        }
        evidence
    }

    fn pack(&self, to: &mut Packer) {
        self.put(to);
    }
}
