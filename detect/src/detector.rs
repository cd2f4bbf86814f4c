//! The detectors, one file each. A [`Detector`] holds the settings; [`Detector::start`] creates the state that is
//! folded over a series.
//!
//! Windows arrive in order of time. A detector knows earlier windows only through its state, so that a state copied at
//! a checkpoint can be stepped again through corrected windows with the correct result.

/// Implements packing for a state, field by field, without its settings. A field that is not listed is a compile error.
macro_rules! packed_state {
    ($settings:ident { $($field:ident),* $(,)? }) => {
        impl State {
            fn put(&self, to: &mut Packer) {
                let Self { settings: _, $($field),* } = self;
                $(bellwether_stats::pack::Pack::pack($field, to);)*
            }

            pub(super) fn unpack(settings: Arc<$settings>, from: &mut bellwether_stats::pack::Unpacker<'_>) -> Self {
                $(let $field = bellwether_stats::pack::Pack::unpack(from);)*
                Self { settings, $($field),* }
            }
        }
    };
}

mod burn_rate;
mod distance;
mod drift;
mod histogram;
mod occurrence;
mod ratio;
mod regression;
mod silence;
mod split;
mod tally;
mod threshold;

use std::sync::Arc;

use bellwether_stats::Invalid;
use bellwether_stats::drift::HourCounts;
use bellwether_stats::pack::{Packer, Unpacker};
use bellwether_stats::packed;
use bellwether_stats::sequential::EvidenceSums;

use crate::budget::{Spending, Thresholds};
use crate::crowd::CrowdMember;
use crate::evidence::Evidence;
use crate::hours::Hours;
use crate::machine::AlertTiming;
use crate::observation::{Minute, Window};
use crate::weights::Arm;

pub use burn_rate::BurnRate;
pub use distance::Distance;
pub use drift::Drift;
pub use histogram::{Histogram, Shape};
pub use occurrence::Occurrence;
pub use ratio::Ratio;
pub use regression::{COMBINED_STRATUM, Regression};
pub use silence::Silence;
pub use split::Split;
pub use threshold::{MICRO, Threshold};

/// Evidence of recovery at which an alert resolves, nats: ln 10⁴. Its CUSUM restarts again and again, so an alert with
/// a lasting cause resolves by mistake once in ten thousand blocks on average, not once in ten thousand alerts.
const RECOVERED: f64 = 9.210_340_371_976_184;

/// An alternative is still considered a candidate if its log-likelihood is at most this far, in nats, below the best
/// one.
const AS_LIKELY: f64 = 3.0;

packed!(Recovery { place, cusum });
packed!(Absence { present, since, others, gone });

/// Minutes in an hour and in a day.
pub(crate) const HOUR: i64 = 60;
pub(crate) const DAY: i64 = 24 * HOUR;

/// The outcome of a detector for a series after a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Undecided: no baseline yet, or too few runs.
    Unknown,
    /// No evidence, neither of a problem nor of recovery.
    Quiet,
    /// The condition is not met; if this lasts long enough, an alert resolves.
    Clear,
    /// At least half of the evidence needed.
    Suspect,
    /// Enough evidence for an alert.
    Alarm,
    /// Enough evidence of recovery.
    Recovered,
    /// The release no longer has runs while its task goes on.
    Gone,
}

/// A signal with its statistic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    pub signal: Signal,
    /// The statistic: evidence in nats, or the compared value.
    pub statistic: f64,
    /// The value at which the detector alarms.
    pub threshold: f64,
}

/// The series' own past, by hour: complete up to the window being judged, and beyond it during a replay of history.
#[derive(Clone, Copy, Debug)]
pub struct Past<'a> {
    /// Bad runs and runs by hour since the epoch.
    pub hours: &'a Hours,
    /// Incidents of this series, [from, to), excluded from baselines of rates. Silence learns from them as from any
    /// other hours.
    pub incidents: &'a [(Minute, Minute)],
    /// Position of the series in its crowd.
    pub member: Option<CrowdMember<'a>>,
}

/// The state of a detector on one series.
pub trait DetectorState: Send + Sync {
    /// Processes the next window.
    fn step(&mut self, window: &Window, past: &Past<'_>);

    /// Processes a window from before the series began, which describes the baseline but is no evidence.
    fn prime(&mut self, _window: &Window) {}

    /// Advances time to `until` without data. Returns the next time, at most `until`, at which there is something to
    /// judge; the caller repeats the call until it returns none.
    fn advance(&mut self, _until: Minute, _past: &Past<'_>) -> Option<Minute> {
        None
    }

    /// Returns the current verdict.
    fn verdict(&self, thresholds: &Thresholds) -> Verdict;

    /// Notes that an alert fires: from then on, evidence of recovery is gathered.
    fn on_fired(&mut self) {}

    /// Notes that the alert resolves: evidence starts from zero.
    fn on_resolved(&mut self) {}

    /// Returns the numbers behind the verdict.
    fn evidence(&self, thresholds: &Thresholds) -> Evidence;

    /// Appends a copy, without the settings, for a checkpoint. `Detector::unpack` reads it.
    fn pack(&self, to: &mut Packer);
}

/// A detector with its settings.
#[derive(Clone, Debug, PartialEq)]
pub enum Detector {
    /// D1: a bad outcome is more common in a release than in its baseline.
    Regression(Arc<Regression>),
    /// D2: a distribution of a release shifted against its baseline.
    Histogram(Arc<Histogram>),
    /// D3: a ratio of a release grew against its baseline.
    Ratio(Arc<Ratio>),
    /// D4, D5, D6: a rate grew against the series' own past.
    Drift(Arc<Drift>),
    /// D7: the distribution of a day is far from that of the preceding week.
    Distance(Arc<Distance>),
    /// D8: the error budget of an objective burns too fast.
    BurnRate(Arc<BurnRate>),
    /// D11: no runs arrive at an hour that usually has them.
    Silence(Arc<Silence>),
    /// D12: the traffic split between releases differs from the configured one.
    Split(Arc<Split>),
    /// A value exceeds a bound.
    Threshold(Arc<Threshold>),
    /// An event that must never happen has happened.
    Occurrence(Arc<Occurrence>),
}

// === impl Detector ===

impl Detector {
    /// Returns its name in rules and in the table of alerts.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Regression(_) => "regression",
            Self::Histogram(_) => "histogram",
            Self::Ratio(_) => "ratio",
            Self::Drift(_) => "drift",
            Self::Distance(_) => "distance",
            Self::BurnRate(_) => "burn_rate",
            Self::Silence(_) => "silence",
            Self::Split(_) => "split",
            Self::Threshold(_) => "threshold",
            Self::Occurrence(_) => "occurrence",
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// Fails if a setting is out of range, or the detector could never fire.
    pub fn validate(&self) -> Result<(), String> {
        let message = |result: Result<(), Invalid>| result.map_err(|invalid| invalid.to_string());
        match self {
            Self::Regression(it) => message(it.validate()),
            Self::Histogram(it) => message(it.validate()),
            Self::Ratio(it) => message(it.validate()),
            Self::Drift(it) => message(it.validate()),
            Self::Distance(it) => message(it.validate()),
            Self::BurnRate(it) => it.validate(),
            Self::Silence(it) => message(it.validate()),
            Self::Split(it) => message(it.validate()),
            Self::Threshold(it) => it.validate(),
            Self::Occurrence(_) => Ok(()),
        }
    }

    /// Creates the state before the first window.
    pub fn start(&self) -> Box<dyn DetectorState> {
        match self {
            Self::Regression(it) => Box::new(regression::State::new(Arc::clone(it))),
            Self::Histogram(it) => Box::new(histogram::State::new(Arc::clone(it))),
            Self::Ratio(it) => Box::new(ratio::State::new(Arc::clone(it))),
            Self::Drift(it) => Box::new(drift::State::new(Arc::clone(it))),
            Self::Distance(it) => Box::new(distance::State::new(Arc::clone(it))),
            Self::BurnRate(it) => Box::new(burn_rate::State::new(Arc::clone(it))),
            Self::Silence(it) => Box::new(silence::State::new(Arc::clone(it))),
            Self::Split(it) => Box::new(split::State::new(Arc::clone(it))),
            Self::Threshold(it) => Box::new(threshold::State::new(Arc::clone(it))),
            Self::Occurrence(it) => Box::new(occurrence::State::new(Arc::clone(it))),
        }
    }

    /// Restores the state that [`DetectorState::pack`] appended.
    pub(crate) fn unpack(&self, from: &mut Unpacker<'_>) -> Box<dyn DetectorState> {
        match self {
            Self::Regression(it) => Box::new(regression::State::unpack(Arc::clone(it), from)),
            Self::Histogram(it) => Box::new(histogram::State::unpack(Arc::clone(it), from)),
            Self::Ratio(it) => Box::new(ratio::State::unpack(Arc::clone(it), from)),
            Self::Drift(it) => Box::new(drift::State::unpack(Arc::clone(it), from)),
            Self::Distance(it) => Box::new(distance::State::unpack(Arc::clone(it), from)),
            Self::BurnRate(it) => Box::new(burn_rate::State::unpack(Arc::clone(it), from)),
            Self::Silence(it) => Box::new(silence::State::unpack(Arc::clone(it), from)),
            Self::Split(it) => Box::new(split::State::unpack(Arc::clone(it), from)),
            Self::Threshold(it) => Box::new(threshold::State::unpack(Arc::clone(it), from)),
            Self::Occurrence(it) => Box::new(occurrence::State::unpack(Arc::clone(it), from)),
        }
    }

    /// Returns true if releases are compared with one another, false if a series is judged on its own.
    pub const fn compares_releases(&self) -> bool {
        matches!(self, Self::Regression(_) | Self::Histogram(_) | Self::Ratio(_) | Self::Split(_))
    }

    /// Returns how it spends the budget of false alarms; none if it controls no false alarm rate.
    pub const fn spending(&self) -> Option<Spending> {
        match self {
            Self::Regression(_) | Self::Histogram(_) => Some(Spending::Both),
            Self::Ratio(_) | Self::Split(_) => Some(Spending::Releases),
            Self::Drift(_) | Self::Distance(_) | Self::Silence(_) => Some(Spending::Time),
            Self::BurnRate(_) | Self::Threshold(_) | Self::Occurrence(_) => None,
        }
    }

    /// Returns the minimum number of minutes between two updates of a series.
    pub fn update_minutes(&self) -> i64 {
        match self {
            Self::Drift(it) => it.minutes,
            Self::Distance(_) => DAY,
            Self::BurnRate(_) => burn_rate::SLOT,
            Self::Silence(it) => it.minutes,
            _ => 1,
        }
    }

    /// Returns the minutes before the present hour whose windows stay in memory. A new release learns the properties of
    /// its baseline from four hours and more; otherwise they are there for corrections. Older windows are read again when
    /// they are needed, and so are sooner those of detectors with many numbers in a window.
    pub(crate) fn kept_minutes(&self) -> i64 {
        match self {
            Self::Regression(_) | Self::Histogram(_) | Self::Silence(_) => 5 * HOUR,
            Self::Ratio(_) | Self::Distance(_) => HOUR,
            _ => 3 * HOUR,
        }
    }

    /// Returns the number of past hours that it learns from.
    pub fn history_hours(&self) -> i64 {
        match self {
            Self::Drift(it) if it.reference.is_some() => 366 * 24,
            Self::Drift(it) if it.anchored => 85 * 24,
            Self::BurnRate(_) => 4 * 24,
            Self::Silence(_) => 57 * 24,
            Self::Drift(_) | Self::Regression(_) => 29 * 24,
            Self::Histogram(_)
            | Self::Ratio(_)
            | Self::Distance(_)
            | Self::Split(_)
            | Self::Threshold(_)
            | Self::Occurrence(_) => 0,
        }
    }

    /// Returns the timing of its alerts.
    pub fn timing(&self) -> AlertTiming {
        let timing = AlertTiming::default();
        match self {
            Self::Threshold(it) => AlertTiming { hold: it.hold, clear: it.clear, ..timing },
            Self::Occurrence(it) => AlertTiming { clear: it.clear, ..timing },
            // Missing data is what this detector reports, so its alerts never become stale.
            Self::Silence(_) => AlertTiming { stale_after: Minute::MAX, ..timing },
            Self::Distance(_) => AlertTiming { clear: 2 * DAY, stale_after: 2 * DAY, ..timing },
            _ => timing,
        }
    }
}

// === impl Past ===

impl Past<'_> {
    /// Returns the hours [from, to) outside incidents, named by the series' wall clock. Counts of unevenly weighted
    /// runs are scaled to runs of equal weight with the same information.
    pub fn hours(&self, from: i64, to: i64) -> Vec<HourCounts> {
        let arms = self.arms(from, to);
        let mut pool = Arm::default();
        arms.iter().for_each(|(_, arm)| pool.add(arm));
        let unit = pool.weight().is_none().then(|| pool.unit_weight());
        let mut left = (0.0, 0.0);
        arms.into_iter()
            .map(|(hour, arm)| {
                let (events, runs) = unit.map_or_else(|| arm.seen_counts(), |unit| arm.scaled(unit, &mut left));
                HourCounts { hour: self.hours.season().local_hour(hour), runs, events }
            })
            .collect()
    }

    /// Returns all runs of the hours [from, to) outside incidents.
    pub(crate) fn pool(&self, from: i64, to: i64) -> Arm {
        let mut pool = Arm::default();
        self.arms(from, to).iter().for_each(|(_, arm)| pool.add(arm));
        pool
    }

    fn arms(&self, from: i64, to: i64) -> Vec<(i64, Arm)> {
        let aside = |hour: i64| {
            let (start, end) = (hour * HOUR, (hour + 1) * HOUR);
            self.incidents.iter().any(|(started, over)| *started < end && start < *over)
        };
        self.hours.arms(from, to).filter(|(hour, _)| !aside(*hour)).collect()
    }
}

/// Returns the verdict for evidence that has no recovery of its own: from half of the threshold on it is suspect.
pub(crate) fn weigh(statistic: f64, threshold: f64) -> Verdict {
    let signal = if statistic >= threshold {
        Signal::Alarm
    } else if statistic >= threshold / 2.0 {
        Signal::Suspect
    } else {
        Signal::Quiet
    };
    Verdict { signal, statistic, threshold }
}

/// Evidence of recovery: the CUSUM of the same increments with null and alternative exchanged, for the smallest
/// alternative that explains the change about as well as the best one. The best alternative overestimates a change that
/// was found early, and a smaller lasting change would then look like recovery.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Recovery {
    place: usize,
    cusum: f64,
}

impl Recovery {
    pub(crate) fn new(place: usize) -> Self {
        Self { place, cusum: 0.0 }
    }

    /// Creates it for the change that these sums describe, over an ascending grid of alternatives.
    pub(crate) fn from_sums(sums: &EvidenceSums) -> Self {
        let best = sums.sums().iter().map(|sum| sum.value()).fold(f64::NEG_INFINITY, f64::max);
        Self::new(sums.sums().iter().position(|sum| sum.value() >= best - AS_LIKELY).unwrap_or(0))
    }

    pub(crate) fn update(&mut self, increments: &[f64]) {
        self.cusum = self.cusum.max(0.0) - increments.get(self.place).copied().unwrap_or(0.0);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.cusum >= RECOVERED
    }
}

/// Detects that a release was withdrawn while others of its task go on: it has had no runs for so long that chance
/// cannot explain it, given its earlier share of the traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Absence {
    /// Runs of the release and of others up to its last run.
    present: (u64, u64),
    since: Option<Minute>,
    /// Runs of others since then.
    others: u64,
    gone: bool,
}

impl Absence {
    /// Minutes without runs after which a release may count as withdrawn.
    const MINUTES: i64 = 60;
    /// The release counts as withdrawn if the probability of no runs is below this, in negative nats: one in a million.
    const CHANCE: f64 = 13.815_510_557_964_274;
    /// Assumed size of a session: sessions are assigned to a release as a whole, and a few of them can miss it for
    /// hours.
    const SESSION_SIZE: f64 = 5.0;

    pub(crate) fn note(&mut self, start: Minute, baseline_runs: u64, canary_runs: u64) {
        if canary_runs > 0 {
            let (own, others) = self.present;
            *self = Self { present: (own + canary_runs, others + self.others + baseline_runs), ..Self::default() };
        } else if baseline_runs > 0 {
            let since = *self.since.get_or_insert(start);
            self.others += baseline_runs;
            self.gone = start - since >= Self::MINUTES && self.surprise() >= Self::CHANCE;
        }
    }

    /// Returns −ln of the probability that none of the others' runs was the release's, at its share so far (with one
    /// run added to each side, so that a share is never 0 or 1).
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn surprise(&self) -> f64 {
        let (own, others) = (self.present.0 as f64 + 1.0, self.present.1 as f64 + 1.0);
        (others / (own + others)).ln() * -(self.others as f64) / Self::SESSION_SIZE
    }

    pub(crate) fn has_left(&self) -> bool {
        self.gone
    }
}
