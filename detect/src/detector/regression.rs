//! D1: is a bad outcome commoner in a release than in its baseline? The conditional 2×2 e-process of
//! [`bellwether_stats::e2x2`], by stratum and common to all; and an e-detector over the same increments, which finds what
//! begins long after the release.
//!
//! Evidence speaks of what raised the alert: of one stratum, where it says more than all together, and of the time since
//! the change, where the release had been well before. Counts, rates, effect and interval are all of that one subject.

use std::collections::BTreeMap;
use std::sync::Arc;

use bellwether_stats::Invalid;
use bellwether_stats::e2x2::{ODDS_RATIOS, Table, Test};
use bellwether_stats::ratio_cs::{TIGHTEST_AT, interval};
use bellwether_stats::sequential::{Detector, Evidence as Sums, stratified_log_e};
use bellwether_stats::wander::{UNKNOWN, Wander, table_variance};

use super::clusters::tempering;
use super::tally::{Block, Tally};
use super::{AS_LIKELY, Absence, Judge, Past, Recovery, Signal, Verdict, weigh};
use crate::budget::Thresholds;
use crate::evidence::{Baseline, Evidence, StratumEvidence};
use crate::observation::{Groups, Measure, Minute, Window};
use crate::weights::{Arm, Factor, Scheme};

/// Strata that are told apart; what comes later is one more together.
const MOST_STRATA: usize = 64;

/// Name of the stratum of all later ones.
const OTHER: &str = "(other)";

/// Least margin against a baseline that is not of this moment.
const HISTORICAL_MARGIN: f64 = 1.2;

/// Minutes of one block against history: an hour of the week is one table.
const HISTORICAL_HOUR: i64 = 60;

/// Evidence of a stratum by itself at which it counts as guilty too, nats: ln 20.
const ALSO_GUILTY: f64 = 2.995_732_273_553_991;

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
    fired: Option<Fired>,
    absence: Absence,
    historical: bool,
    restarted: bool,
    since: Option<Minute>,
}

/// One stratum: its evidence and the block that fills.
#[derive(Clone, Debug, Default)]
struct Stratum {
    order: usize,
    open: Option<Block>,
    /// Everything since the release began, and since the change began.
    whole: Tally,
    recent: Tally,
    /// How bad and good runs of baseline and canary are sampled.
    schemes: [Scheme; 2],
}

/// What an alert speaks of.
#[derive(Clone, Debug, Default, PartialEq)]
struct Subject {
    /// One stratum; none: all together.
    stratum: Option<Arc<str>>,
    /// Since the change began; else since the release began.
    recent: bool,
}

/// An alert that fires: what it speaks of, and whether that is over.
#[derive(Clone, Debug)]
struct Fired {
    subject: Subject,
    /// The stratum whose recovery counts; none: all together.
    watched: Option<Arc<str>>,
    recovery: Recovery,
}

/// A block that has closed, with its increments.
struct Closed {
    stratum: Arc<str>,
    block: Block,
    increments: Vec<f64>,
    /// Ratio of odds of kept runs over the true one.
    odds: f64,
}

// === impl Stratum ===

impl Stratum {
    /// How the odds ratio of kept runs differs from the true one.
    fn factor(&self) -> Factor {
        self.schemes[1].against(&self.schemes[0])
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
            fired: None,
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

    /// Adds a window to a stratum's block and closes it where it is full.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn take(
        &mut self,
        name: &Arc<str>,
        start: Minute,
        historical: Option<Wander>,
        arms: [Arm; 2],
        tempering: f64,
        closed: &mut Vec<Closed>,
    ) {
        let name = self.stratum(name);
        let pairs = arms.map(|arm| arm.seen());
        let rule = Arc::clone(&self.settings);
        let Some(stratum) = self.strata.get_mut(&name) else { return };
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
            let null = wander.against(rule.margin.max(HISTORICAL_MARGIN).ln(), weeks.min(4.0), variance);
            closed.push(self.close(&name, block, null.margin.exp(), tempering * null.tempering));
        } else if block.baseline.1.min(block.canary.1) >= rule.block_runs {
            closed.push(self.close(&name, block, rule.margin, tempering));
        } else if let Some(stratum) = self.strata.get_mut(&name) {
            stratum.open = Some(block);
        }
    }

    /// Judges a block.
    fn close(&mut self, name: &Arc<str>, block: Block, margin: f64, tempering: f64) -> Closed {
        let table = Table::new(block.baseline.0, block.baseline.1, block.canary.0, block.canary.1);
        // Runs that were seen, against the odds ratio that is to be seen of them where the true one is the margin.
        let factor = self.strata.get(name).map_or(Factor::EVEN, Stratum::factor);
        let test = Test::new(margin * factor.odds, tempering * factor.tempering);
        let increments = match (table, test) {
            (Ok(table), Ok(test)) => test.increments(&table).to_vec(),
            _ => vec![0.0; ODDS_RATIOS.len()],
        };
        if let Some(stratum) = self.strata.get_mut(name) {
            stratum.whole.add(&block, &increments, factor.odds);
        }
        if let Some(fired) = &mut self.fired
            && fired.watched.as_ref().is_none_or(|watched| watched == name)
        {
            fired.recovery.update(&increments);
        }
        Closed { stratum: Arc::clone(name), block, increments, odds: factor.odds }
    }

    /// Takes in what closed in one window: one step of the detector, whose likeliest begin of a change is that of
    /// [`Stratum::recent`] too.
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
            if let Some(stratum) = self.strata.get_mut(&closed.stratum) {
                stratum.recent.add(&closed.block, &closed.increments, closed.odds);
            }
        }
    }

    /// Puts what runs stand for in the place of runs that were seen, where they were sampled.
    fn weigh(&self, subject: Option<&Arc<str>>, evidence: &mut Evidence) {
        let mut arms: [Arm; 2] = Default::default();
        let mut tempering = 1.0_f64;
        for (name, stratum) in self.strata.iter().filter(|(name, _)| subject.is_none_or(|subject| subject == *name)) {
            let factor = stratum.factor();
            tempering = tempering.min(factor.tempering);
            if factor != Factor::EVEN {
                evidence.sampling.push((Arc::clone(name), factor.odds, factor.tempering));
            }
            for (sum, scheme) in arms.iter_mut().zip(&stratum.schemes) {
                // Strata that share their runs have the same ones.
                *sum = if self.settings.shared_runs {
                    let more = scheme.pool();
                    let mut events = *sum;
                    events.add(more);
                    Arm::joined(events, if more.runs > sum.runs { *more } else { *sum })
                } else {
                    sum.add(scheme.pool());
                    *sum
                };
            }
        }
        let (Some(a), Some(b)) = (evidence.baseline_counts, evidence.canary_counts) else { return };
        let [baseline, canary] = [(arms[0], a), (arms[1], b)].map(|(arm, seen)| arm.of_these(seen));
        for found in &mut evidence.strata {
            if let Some(stratum) = self.strata.get(&found.stratum) {
                found.baseline = stratum.schemes[0].pool().weighed(found.baseline);
                found.canary = stratum.schemes[1].pool().weighed(found.canary);
            }
        }
        evidence.weigh(Some(&baseline), &canary, tempering);
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
            return stratified_log_e(self.strata.values().map(|stratum| &stratum.whole.sums));
        }
        // Strata come as they are first seen: each gets its part of the bet when it comes, the rest stays a bet on nothing.
        let mut common = Sums::default();
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

    /// The tally of a stratum, or of all together.
    fn tally(&self, subject: &Subject) -> Tally {
        let mut sum = Tally::default();
        for (name, stratum) in &self.strata {
            if subject.stratum.as_ref().is_none_or(|subject| subject == name) {
                sum.merge(if subject.recent { &stratum.recent } else { &stratum.whole });
            }
        }
        sum
    }

    /// Evidence for a stratum, or for all together, and whether it lies in what came since the change: the whole life of
    /// the release speaks unless that explains the change much worse.
    fn score(&self, stratum: Option<&Arc<str>>) -> (f64, bool) {
        let of = |recent| self.tally(&Subject { stratum: stratum.cloned(), recent }).sums.log_e();
        let (whole, recent) = (of(false), of(true));
        if recent > whole + AS_LIKELY { (recent, true) } else { (whole, false) }
    }

    /// The stratum with the most evidence, and true where it says more than all together.
    fn worst(&self) -> Option<(Arc<str>, bool)> {
        let scored = self.strata.keys().map(|name| (self.score(Some(name)).0, name));
        let (score, name) = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
        Some((Arc::clone(name), self.strata.len() > 1 && score > self.score(None).0))
    }

    /// What an alert that fires now would speak of, and whose recovery would end it. Strata that share their runs are
    /// different things that happen to the same runs: together they are none, so that the worst of them speaks.
    fn guilty(&self) -> (Subject, Option<Arc<str>>) {
        let Some((name, more)) = self.worst() else { return (Subject::default(), None) };
        let watched = more.then(|| Arc::clone(&name));
        let stratum = if self.settings.shared_runs { Some(name) } else { watched.clone() };
        let recent = self.score(stratum.as_ref()).1;
        (Subject { stratum, recent }, watched)
    }

    /// Where the mix of blocks and strata makes the plain rates point the other way than the effect, the baseline's rate is
    /// the one it would have with the release's mix.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn standardise(&self, tally: &Tally, evidence: &mut Evidence) {
        let (Some(plain), Some(canary), Some(effect)) =
            (evidence.baseline_value, evidence.canary_value, evidence.effect)
        else {
            return;
        };
        let sampled = self.strata.values().any(|stratum| !stratum.schemes.iter().all(Scheme::is_plain));
        if effect <= 1.0 || canary > plain || tally.canary.1 == 0 || sampled {
            return;
        }
        evidence.baseline_value = Some(tally.totals.expected / tally.canary.1 as f64);
        evidence.notes.push(format!(
            "the baseline's rate is at the release's mix of hours and strata; without regard to the mix it is {:.1} %",
            plain * 100.0
        ));
    }

    /// Every stratum with its own counts, the subject first.
    fn tell_strata(&self, subject: &Subject, evidence: &mut Evidence) {
        let mut strata: Vec<StratumEvidence> = Vec::with_capacity(self.strata.len());
        for (name, stratum) in &self.strata {
            let tally = if subject.recent { &stratum.recent } else { &stratum.whole };
            if let Some(begun) = tally.begun {
                evidence.starts.push((Arc::clone(name), begun));
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
                "the numbers are those of `{name}`, whose own log_e is {own:.1}; log_e and threshold are of all {} strata together",
                self.strata.len()
            ));
            evidence.also = strata.iter().skip(1).filter(|stratum| stratum.log_e >= ALSO_GUILTY).count();
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
        let historical = window.historical.then(|| window.wander.unwrap_or(UNKNOWN));
        // Where strata share their runs, those of the stratum without a name are every stratum's.
        let shared = self.settings.shared_runs.then(|| {
            let all = window.rows.iter().find(|row| row.stratum.is_empty());
            all.map_or_else(Default::default, |row| [Arm::of(&row.baseline), Arm::of(&row.canary)])
        });
        let mut closed = Vec::new();
        match shared {
            None => {
                for row in &window.rows {
                    let arms = [Arm::of(&row.baseline), Arm::of(&row.canary)];
                    self.take(&row.stratum, window.start, historical, arms, tempering, &mut closed);
                }
            }
            Some(runs) => {
                let mut events: BTreeMap<Arc<str>, [Arm; 2]> =
                    self.strata.keys().map(|name| (Arc::clone(name), Default::default())).collect();
                for row in window.rows.iter().filter(|row| !row.stratum.is_empty()) {
                    let found = events.entry(Arc::clone(&row.stratum)).or_default();
                    found[0].add(&Arm::of(&row.baseline));
                    found[1].add(&Arm::of(&row.canary));
                }
                for (name, events) in events {
                    let arms = [0, 1].map(|arm| Arm::joined(events[arm], runs[arm]));
                    self.take(&name, window.start, historical, arms, tempering, &mut closed);
                }
            }
        }
        self.note(&closed);
        self.take_groups(window);
    }

    fn verdict(&self, thresholds: &Thresholds) -> Verdict {
        let (statistic, threshold, _) = self.statistic(thresholds);
        let mut verdict = weigh(statistic, threshold);
        if self.absence.is_gone() {
            verdict.signal = Signal::Gone;
        } else if self.fired.as_ref().is_some_and(|fired| fired.recovery.is_over()) {
            verdict.signal = Signal::Recovered;
        }
        verdict
    }

    fn fired(&mut self) {
        let (subject, watched) = self.guilty();
        let sums = self.tally(&Subject { stratum: watched.clone(), recent: subject.recent }).sums;
        self.fired = Some(Fired { subject, watched, recovery: Recovery::of(&sums) });
    }

    fn resolved(&mut self) {
        let groups = std::mem::take(&mut self.groups);
        *self = Self { groups, restarted: true, ..Self::new(Arc::clone(&self.settings)) };
    }

    fn evidence(&self, thresholds: &Thresholds) -> Evidence {
        let (log_e, threshold, by_release) = self.statistic(thresholds);
        let subject = self.fired.as_ref().map_or_else(|| self.guilty().0, |fired| fired.subject.clone());
        let tally = self.tally(&subject);
        let baseline = if self.historical { Baseline::Historical } else { Baseline::Concurrent };
        let mut evidence =
            Evidence::new("regression", baseline, "odds_ratio").with_counts(Some(tally.baseline), Some(tally.canary));
        let tempering = self.tempering();
        if let Some((estimate, corrected)) = tally.log_odds_ratio(tempering) {
            evidence.effect = Some(estimate.value.exp());
            evidence.interval =
                interval(&estimate, TIGHTEST_AT, 0.05).ok().map(|interval| (interval.low.exp(), interval.high.exp()));
            if corrected {
                evidence
                    .notes
                    .push("one side has no such run: the odds ratio is with half a run added to each cell".to_owned());
            }
        }
        if let Some(least) = tally.least_odds_ratio(tempering) {
            evidence.interval = Some((least, f64::INFINITY));
        }
        self.standardise(&tally, &mut evidence);
        evidence.log_e = Some(log_e);
        evidence.threshold = Some(threshold);
        evidence.false_alarm =
            Some(if by_release { (thresholds.alpha, "per_release") } else { (thresholds.alarms_a_month, "a_month") });
        evidence.since = self.since;
        self.tell_strata(&subject, &mut evidence);
        if tempering < 1.0 {
            evidence.notes.push(format!("runs of one session are alike: evidence is weighed by {tempering:.2}"));
        }
        self.weigh(subject.stratum.as_ref(), &mut evidence);
        if self.historical {
            let hours = HISTORICAL_HOUR / 60;
            evidence.notes.push(format!(
                "part of the baseline is the previous release in the same {hours}-hour stretches of earlier weeks: what else has changed since then counts too, and the SQL has the runs side by side only"
            ));
        }
        evidence
    }

    fn boxed(&self) -> Box<dyn Judge> {
        Box::new(self.clone())
    }
}
