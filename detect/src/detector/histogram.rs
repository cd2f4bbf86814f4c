//! D2: the distribution of a quantity (latency, cost) or the mix of categories of a release shifted against its
//! baseline. It uses the two-sample e-process of [`bellwether_stats::histogram_e`], and an e-detector over the same
//! increments.
//!
//! The reference for the tilts comes from the baseline's first runs, which are not used as evidence.

use std::sync::Arc;

use bellwether_stats::Invalid;
use bellwether_stats::histogram_e::{self, Direction, Tilts, bin_width};
use bellwether_stats::pack::Packer;
use bellwether_stats::sequential::{EDetector, EvidenceSums};

use super::{AS_LIKELY, Absence, DetectorState, Past, Recovery, Signal, Verdict, weigh};
use crate::budget::Thresholds;
use crate::evidence::{BaselineKind, Evidence};
use crate::observation::{Measure, Minute, SmallMeasure, Window, counts_of};
use crate::weights::{Arm, MaxWeight};

/// Runs of the baseline that form the reference.
const REFERENCE_RUNS: u64 = 200;

/// The quantiles that are compared.
const MEDIAN: f64 = 0.5;
const TAIL: f64 = 0.95;

/// The kind of the bins, and the direction that is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Bins of [`bellwether_stats::histogram_e::histogram_of`]; larger is worse.
    Up,
    /// The same bins; smaller is worse.
    Down,
    /// Categories without order.
    Categories,
}

/// Settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// The kind of the bins, and the direction that is worse.
    pub shape: Shape,
    /// Runs of both arms at which a block closes.
    pub block_runs: u64,
    /// Minutes after which it closes in any case.
    pub block_minutes: i64,
    /// Minimum ratio of the medians or of the 95th percentiles that is worth an alert (1.1: ten per cent).
    pub least_effect: f64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { shape: Shape::Up, block_runs: 20, block_minutes: 60, least_effect: 1.1 }
    }
}

impl Histogram {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        if self.block_runs == 0 || self.block_minutes < 1 {
            return Err(Invalid::new(
                "block",
                format_args!("{} runs, {} minutes", self.block_runs, self.block_minutes),
                "at least one run and one minute",
            ));
        }
        if !(self.least_effect >= 1.0 && self.least_effect.is_finite()) {
            return Err(Invalid::new("least effect", self.least_effect, "a ratio of at least 1"));
        }
        Ok(())
    }
}

/// State of one series.
#[derive(Clone, Debug)]
pub(super) struct State {
    settings: Arc<Histogram>,
    reference: SmallMeasure,
    /// Number of alternatives, which follow from the reference; none before it is complete.
    tilts: Option<usize>,
    open: Option<(Minute, SmallMeasure, SmallMeasure)>,
    max_weight: MaxWeight,
    /// Compared runs since the release began, and since the change began.
    seen: [SmallMeasure; 2],
    recent: [SmallMeasure; 2],
    /// Start of the first block of each.
    started: [Option<Minute>; 2],
    sums: EvidenceSums,
    recent_sums: EvidenceSums,
    detector: EDetector,
    recovery: Option<Recovery>,
    absence: Absence,
    restarted: bool,
    since: Option<Minute>,
}

packed_state!(Histogram {
    reference,
    tilts,
    open,
    max_weight,
    seen,
    recent,
    started,
    sums,
    recent_sums,
    detector,
    recovery,
    absence,
    restarted,
    since
});

// === impl State ===

impl State {
    pub(super) fn new(settings: Arc<Histogram>) -> Self {
        Self {
            settings,
            reference: SmallMeasure::default(),
            tilts: None,
            open: None,
            max_weight: MaxWeight::default(),
            seen: Default::default(),
            recent: Default::default(),
            started: [None, None],
            sums: EvidenceSums::default(),
            recent_sums: EvidenceSums::default(),
            detector: EDetector::new(0),
            recovery: None,
            absence: Absence::default(),
            restarted: false,
            since: None,
        }
    }

    fn close(&mut self, start: Minute, baseline: Measure, canary: Measure) {
        if canary.runs <= 0 || baseline.runs <= 0 {
            if self.tilts.is_none() {
                self.learn(&baseline);
            }
            return;
        }
        let reference = self.reference.measure();
        let tilts = self.tilts.and_then(|_| self.tilts_of(&reference));
        let Some(tilts) = tilts else { return self.learn(&baseline) };
        let bins = reference.bins.len();
        // A run counts its weight over the maximum weight: an e-value raised to a power of at most 1 is an e-value.
        let weight = baseline.arm().weight();
        let alike = weight.is_some() && weight == canary.arm().weight();
        let of = |measure: &Measure| {
            let mut counts = if alike { counts_of(&measure.bins) } else { measure.weighted_bins() };
            counts.resize(bins, 0);
            counts
        };
        #[expect(clippy::cast_precision_loss, reason = "a weight needs no more digits than a double has")]
        let tempering = if alike { 1.0 } else { 1.0 / self.max_weight.weight() as f64 };
        let Ok(increments) = tilts.increments(&of(&baseline), &of(&canary), tempering) else { return };
        self.sums.add(&increments);
        self.detector.update(&increments);
        if self.detector.blocks_since_change().is_none_or(|blocks| blocks == 1) {
            self.since = Some(start);
            (self.recent, self.recent_sums, self.started[1]) = Default::default();
        }
        self.recent_sums.add(&increments);
        if let Some(recovery) = &mut self.recovery {
            recovery.update(&increments);
        }
        for started in &mut self.started {
            started.get_or_insert(start);
        }
        for arms in [&mut self.seen, &mut self.recent] {
            arms[0].add(&baseline);
            arms[1].add(&canary);
        }
    }

    /// Returns true if the numbers should cover only the time since the change: the release was fine before, and its
    /// whole life explains the change much worse.
    fn is_recent(&self) -> bool {
        self.restarted || self.recent_sums.log_e() > self.sums.log_e() + AS_LIKELY
    }

    /// Returns the runs that the numbers cover.
    fn arms(&self) -> [Measure; 2] {
        if self.is_recent() { &self.recent } else { &self.seen }.each_ref().map(SmallMeasure::measure)
    }

    /// Returns the alternatives for a reference: many numbers, which are cheaper to make than to keep.
    fn tilts_of(&self, reference: &Measure) -> Option<Tilts> {
        let counts = reference.effective_bins();
        let tilts = match self.settings.shape {
            Shape::Up => Tilts::ordered(&counts, Direction::Up),
            Shape::Down => Tilts::ordered(&counts, Direction::Down),
            Shape::Categories => Tilts::categories(&counts),
        };
        tilts.ok()
    }

    fn learn(&mut self, baseline: &Measure) {
        self.reference.add(baseline);
        let reference = self.reference.measure();
        if crate::observation::count(reference.runs) < REFERENCE_RUNS {
            return;
        }
        if let Some(tilts) = self.tilts_of(&reference) {
            let count = tilts.names().count();
            (self.detector, self.tilts) = (EDetector::new(count), Some(count));
        }
    }

    /// Returns the larger change, as a ratio, of the median and the 95th percentile, with the quantile it belongs to.
    fn change(&self) -> Option<(f64, f64)> {
        if self.settings.shape == Shape::Categories {
            return None;
        }
        let arms = self.arms();
        let change = |q: f64| {
            let places = [place_of(&arms[0], q)?, place_of(&arms[1], q)?];
            Some(((places[1] - places[0]) * bin_width()).exp())
        };
        let (middle, tail) = (change(MEDIAN)?, change(TAIL)?);
        let worse = |ratio: f64| if self.settings.shape == Shape::Down { 1.0 / ratio } else { ratio };
        Some(if worse(tail) > worse(middle) { (tail, TAIL) } else { (middle, MEDIAN) })
    }

    fn effect(&self) -> Option<f64> {
        self.change().map(|(ratio, _)| ratio)
    }

    fn statistic(&self, thresholds: &Thresholds) -> (f64, f64, bool) {
        let e = if self.restarted { 0.0 } else { self.sums.log_e() };
        let detector = if self.tilts.is_some() { self.detector.log_shiryaev_roberts().max(0.0) } else { 0.0 };
        if e - thresholds.e >= detector - thresholds.detector {
            (e, thresholds.e, true)
        } else {
            (detector, thresholds.detector, false)
        }
    }
}

/// Returns the position of a quantile, in bins and fractions of them.
fn place_of(measure: &Measure, q: f64) -> Option<f64> {
    let even = measure.arm().weight().is_some();
    let bins = if even { counts_of(&measure.bins) } else { measure.weighted_bins() };
    histogram_e::place_of(&bins, q)
}

impl DetectorState for State {
    fn prime(&mut self, window: &Window) {
        if self.tilts.is_none() {
            window.rows.iter().for_each(|row| self.learn(&row.baseline));
        }
    }

    fn step(&mut self, window: &Window, _: &Past<'_>) {
        if window.historical {
            return; // Historical hours have no histograms.
        }
        let (mut baseline, mut canary) = (Measure::default(), Measure::default());
        for row in &window.rows {
            baseline.add(&row.baseline);
            canary.add(&row.canary);
        }
        self.absence.note(window.start, baseline.clamped_counts().1, canary.clamped_counts().1);
        let rule = Arc::clone(&self.settings);
        let (start, mut a, mut b) = match self.open.take() {
            Some((start, a, b)) if window.start - start >= rule.block_minutes => {
                self.close(start, a.measure(), b.measure());
                (window.start, Measure::default(), Measure::default())
            }
            Some((start, a, b)) => (start, a.measure(), b.measure()),
            None => (window.start, Measure::default(), Measure::default()),
        };
        self.max_weight.note(window.start, baseline.max_weight().max(canary.max_weight()));
        a.add(&baseline);
        b.add(&canary);
        let full = a.clamped_counts().1.min(b.clamped_counts().1) >= rule.block_runs;
        if full { self.close(start, a, b) } else { self.open = Some((start, (&a).into(), (&b).into())) }
    }

    fn verdict(&self, thresholds: &Thresholds) -> Verdict {
        let (statistic, threshold, _) = self.statistic(thresholds);
        let mut verdict = weigh(statistic, threshold);
        let small = self.effect().is_some_and(|effect| {
            let worse = if self.settings.shape == Shape::Down { 1.0 / effect } else { effect };
            worse < self.settings.least_effect
        });
        if self.absence.has_left() {
            verdict.signal = Signal::Gone;
        } else if self.recovery.as_ref().is_some_and(Recovery::is_over) {
            verdict.signal = Signal::Recovered;
        } else if self.tilts.is_none() {
            verdict.signal = Signal::Unknown;
        } else if verdict.signal == Signal::Alarm && small {
            verdict.signal = Signal::Suspect;
        }
        verdict
    }

    fn on_fired(&mut self) {
        self.recovery = Some(Recovery::from_sums(&self.sums));
    }

    fn on_resolved(&mut self) {
        let (reference, tilts) = (std::mem::take(&mut self.reference), self.tilts.take());
        let detector = EDetector::new(tilts.unwrap_or(0));
        *self = Self { reference, tilts, detector, restarted: true, ..Self::new(Arc::clone(&self.settings)) };
    }

    fn evidence(&self, thresholds: &Thresholds) -> Evidence {
        let (log_e, threshold, by_release) = self.statistic(thresholds);
        let kind = if self.settings.shape == Shape::Categories { "mix" } else { "ratio" };
        let [baseline, canary] = &self.arms();
        let runs = [Arm::from_measure(baseline), Arm::from_measure(canary)];
        let mut evidence =
            Evidence::new("histogram", BaselineKind::Concurrent, kind).with_arms(Some(&runs[0]), &runs[1], 1.0);
        (evidence.baseline_value, evidence.canary_value) = (None, None);
        // Values, effect and name describe the same quantile: the one that changed more.
        if let Some((ratio, q)) = self.change() {
            evidence.baseline_value = quantile(baseline, q);
            evidence.canary_value = quantile(canary, q);
            evidence.effect = Some(ratio);
            evidence.of = Some(if q == TAIL { "95th percentile" } else { "median" });
        }
        evidence.recent = self.is_recent();
        let started = self.started[usize::from(evidence.recent)];
        evidence.starts.extend(started.map(|started| (Arc::from(""), started)));
        evidence.log_e = Some(log_e);
        evidence.threshold = Some(threshold);
        evidence.false_alarm =
            Some(if by_release { (thresholds.alpha, "per_release") } else { (thresholds.alarms_per_month, "a_month") });
        evidence.since = self.since;
        let likeliest = self
            .sums
            .likeliest()
            .filter(|_| self.tilts.is_some())
            .and_then(|place| self.tilts_of(&self.reference.measure())?.names().nth(place).map(str::to_owned));
        evidence.notes.extend(likeliest.map(|name| format!("best explanation: {name}")));
        evidence
    }

    fn pack(&self, to: &mut Packer) {
        self.put(to);
    }
}

/// Returns a quantile in the unit of the quantity, accurate to the width of a bin.
fn quantile(measure: &Measure, q: f64) -> Option<f64> {
    place_of(measure, q).map(histogram_e::value_at)
}
