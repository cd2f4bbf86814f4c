//! What is looked for: one file a kind. A [`Detector`] is its settings; [`Detector::start`] gives the state that a series
//! is folded through.
//!
//! Windows come in order of time. A detector knows nothing of the ones before but what its state holds, so that a state
//! copied at a checkpoint and stepped again through corrected windows is what it would have been.

mod burn_rate;
mod clusters;
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
use bellwether_stats::drift::Hour;
use bellwether_stats::sequential::Evidence as Sums;

use crate::budget::{Spending, Thresholds};
use crate::crowd::Among;
use crate::evidence::Evidence;
use crate::hours::Hours;
use crate::machine::Pace;
use crate::observation::{Minute, Window};
use crate::weights::Arm;

pub use burn_rate::BurnRate;
pub use distance::Distance;
pub use drift::Drift;
pub use histogram::{Histogram, Shape};
pub use occurrence::Occurrence;
pub use ratio::Ratio;
pub use regression::Regression;
pub use silence::Silence;
pub use split::Split;
pub use threshold::{MICRO, Threshold};

/// Evidence of recovery at which an alert resolves, nats: ln 10⁴. The CUSUM of it begins anew again and again, so that an
/// alert whose cause lasts resolves once in ten thousand blocks on average, not once in ten thousand alerts.
const RECOVERED: f64 = 9.210_340_371_976_184;

/// Nats by which an alternative may explain a change worse than the best does, and still be taken for it.
const AS_LIKELY: f64 = 3.0;

/// Minutes of an hour and of a day.
pub(crate) const HOUR: i64 = 60;
pub(crate) const DAY: i64 = 24 * HOUR;

/// What a detector says of a series after a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// It cannot tell: no baseline yet, or too few runs.
    Unknown,
    /// No evidence; says nothing about recovery.
    Quiet,
    /// The condition is plainly not met; held long enough, an alert resolves.
    Clear,
    /// Half of the evidence that is needed.
    Suspect,
    /// Enough.
    Alarm,
    /// Evidence that it is over.
    Recovered,
    /// The release has no runs any more while its task goes on.
    Gone,
}

/// A signal with the number it rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// What it says.
    pub signal: Signal,
    /// The statistic: evidence in nats, or the value compared.
    pub statistic: f64,
    /// What it has to reach.
    pub threshold: f64,
}

/// The series' own past, by hour: complete up to the window that is judged, and further where history is replayed.
#[derive(Clone, Copy, Debug)]
pub struct Past<'a> {
    /// Bad runs and runs by hour since the epoch.
    pub hours: &'a Hours,
    /// Incidents of this series, [from, to): left out of the baselines of rates. Silence learns from them as from all others.
    pub incidents: &'a [(Minute, Minute)],
    /// Where the series stands among others that may fall silent with it.
    pub among: Option<Among<'a>>,
}

/// State of a detector on one series.
pub trait Judge: Send + Sync {
    /// Takes in the next window.
    fn step(&mut self, window: &Window, past: &Past<'_>);

    /// Takes in a window from before the series began: what others were like. It is no evidence.
    fn prime(&mut self, _window: &Window) {}

    /// Time passes up to a moment without data. Returns the next moment, at most that, at which there is something to
    /// judge; called again until there is none.
    fn advance(&mut self, _until: Minute, _past: &Past<'_>) -> Option<Minute> {
        None
    }

    /// What it says now.
    fn verdict(&self, thresholds: &Thresholds) -> Verdict;

    /// An alert fired: from now on evidence of recovery is gathered.
    fn fired(&mut self) {}

    /// It resolved: evidence starts anew.
    fn resolved(&mut self) {}

    /// The numbers behind the verdict.
    fn evidence(&self, thresholds: &Thresholds) -> Evidence;

    /// A copy, for a checkpoint.
    fn boxed(&self) -> Box<dyn Judge>;
}

/// A kind of detector with its settings.
#[derive(Clone, Debug, PartialEq)]
pub enum Detector {
    /// D1: a bad outcome is commoner in a release than in its baseline.
    Regression(Arc<Regression>),
    /// D2: a distribution of a release moved against its baseline.
    Histogram(Arc<Histogram>),
    /// D3: a ratio of a release grew against its baseline.
    Ratio(Arc<Ratio>),
    /// D4, D5, D6: a rate grew against the series' own past.
    Drift(Arc<Drift>),
    /// D7: a distribution of a day is far from the week before.
    Distance(Arc<Distance>),
    /// D8: an objective's budget burns.
    BurnRate(Arc<BurnRate>),
    /// D11: nothing comes where much is usual.
    Silence(Arc<Silence>),
    /// D12: the split between releases is not what it was set to.
    Split(Arc<Split>),
    /// A value beyond a bound.
    Threshold(Arc<Threshold>),
    /// Something that must not happen at all happened.
    Occurrence(Arc<Occurrence>),
}

// === impl Detector ===

impl Detector {
    /// Name in rules and in the table of alerts.
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
    /// Where one is out of range, or the detector could never fire.
    pub fn validate(&self) -> Result<(), String> {
        let told = |result: Result<(), Invalid>| result.map_err(|invalid| invalid.to_string());
        match self {
            Self::Regression(it) => told(it.validate()),
            Self::Histogram(it) => told(it.validate()),
            Self::Ratio(it) => told(it.validate()),
            Self::Drift(it) => told(it.validate()),
            Self::Distance(it) => told(it.validate()),
            Self::BurnRate(it) => it.validate(),
            Self::Silence(it) => told(it.validate()),
            Self::Split(it) => told(it.validate()),
            Self::Threshold(it) => it.validate(),
            Self::Occurrence(_) => Ok(()),
        }
    }

    /// The state before the first window.
    pub fn start(&self) -> Box<dyn Judge> {
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

    /// True where releases are judged against one another, false where a series is judged by itself.
    pub const fn compares_releases(&self) -> bool {
        matches!(self, Self::Regression(_) | Self::Histogram(_) | Self::Ratio(_) | Self::Split(_))
    }

    /// How it spends a budget; none where it makes no promise about chance.
    pub const fn spending(&self) -> Option<Spending> {
        match self {
            Self::Regression(_) | Self::Histogram(_) => Some(Spending::Both),
            Self::Ratio(_) | Self::Split(_) => Some(Spending::Releases),
            Self::Drift(_) | Self::Distance(_) | Self::Silence(_) => Some(Spending::Time),
            Self::BurnRate(_) | Self::Threshold(_) | Self::Occurrence(_) => None,
        }
    }

    /// Minutes between two updates of a series, at the least.
    pub fn minutes(&self) -> i64 {
        match self {
            Self::Drift(it) => it.minutes,
            Self::Distance(_) => DAY,
            Self::BurnRate(_) => burn_rate::SLOT,
            Self::Silence(it) => it.minutes,
            _ => 1,
        }
    }

    /// Hours of the past that it learns from.
    pub fn remembers(&self) -> i64 {
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

    /// How quickly alerts of it move.
    pub fn pace(&self) -> Pace {
        let pace = Pace::default();
        match self {
            Self::Threshold(it) => Pace { hold: it.hold, clear: it.clear, ..pace },
            Self::Occurrence(it) => Pace { clear: it.clear, ..pace },
            // That nothing comes is what it tells: the alert does not grow stale of it.
            Self::Silence(_) => Pace { stale_after: Minute::MAX, ..pace },
            Self::Distance(_) => Pace { clear: 2 * DAY, stale_after: 2 * DAY, ..pace },
            _ => pace,
        }
    }
}

// === impl Past ===

impl Past<'_> {
    /// Hours [from, to) that are in no incident, as the series' wall clock names them. Where runs are weighted unevenly,
    /// counts of equal weight that say as much.
    pub fn hours(&self, from: i64, to: i64) -> Vec<Hour> {
        let arms = self.arms(from, to);
        let mut pool = Arm::default();
        arms.iter().for_each(|(_, arm)| pool.add(arm));
        let unit = pool.weight().is_none().then(|| pool.unit());
        let mut left = (0.0, 0.0);
        arms.into_iter()
            .map(|(hour, arm)| {
                let (events, runs) = unit.map_or_else(|| arm.seen(), |unit| arm.scaled(unit, &mut left));
                Hour { hour: self.hours.season().local_hour(hour), runs, events }
            })
            .collect()
    }

    /// All runs of the hours [from, to) that are in no incident.
    pub(crate) fn pool(&self, from: i64, to: i64) -> Arm {
        let mut pool = Arm::default();
        self.arms(from, to).iter().for_each(|(_, arm)| pool.add(arm));
        pool
    }

    fn arms(&self, from: i64, to: i64) -> Vec<(i64, Arm)> {
        let aside = |hour: i64| {
            let (start, end) = (hour * HOUR, (hour + 1) * HOUR);
            self.incidents.iter().any(|(begun, over)| *begun < end && start < *over)
        };
        self.hours.arms(from, to).filter(|(hour, _)| !aside(*hour)).collect()
    }
}

/// The verdict of evidence that only grows: half of what is needed is suspect.
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

/// Evidence that a change is over: the CUSUM of the same increments with null and alternative exchanged, for the least
/// alternative that explains the change about as well as the best one. The best one itself overstates a change that was
/// found early, and a smaller one that lasts would look like recovery.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Recovery {
    place: usize,
    cusum: f64,
}

impl Recovery {
    pub(crate) fn new(place: usize) -> Self {
        Self { place, cusum: 0.0 }
    }

    /// For a change that these sums speak of, over a grid of alternatives that grow.
    pub(crate) fn of(sums: &Sums) -> Self {
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

/// Whether a release has left while others of its task go on: no run for so long that, at the share of the traffic it
/// had, chance does not explain it.
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
    /// Minutes without a run after which a release may be taken to be gone.
    const MINUTES: i64 = 60;
    /// Chance of no run among so many of others, nats, below which it is: one in a million.
    const CHANCE: f64 = 13.815_510_557_964_274;
    /// Runs that are dealt together: sessions are, and a few of them can miss a release for hours.
    const TOGETHER: f64 = 5.0;

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

    /// −ln of the chance that none of the others' runs was the release's, at its share so far (one run of each added, so
    /// that a share is never 0 or 1).
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn surprise(&self) -> f64 {
        let (own, others) = (self.present.0 as f64 + 1.0, self.present.1 as f64 + 1.0);
        (others / (own + others)).ln() * -(self.others as f64) / Self::TOGETHER
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }
}
