//! D11: no or next to no runs arrive at an hour that usually has them: a producer is silent.
//!
//! This is the only detector for which a window without runs is evidence. The usual traffic, and the probability of
//! silence, come from [`bellwether_stats::rhythm`], in the time zone of the series' [`crate::season::Season`].
//! Consecutive slots with next to no runs are judged together, from the first slot in which runs are expected. The
//! threshold follows from the budget: ln(series × slots a month / false alarms a month).
//!
//! Rules: an alarm excludes no hours from the past, so that recurring silence is learned. A series that falls silent
//! together with the others of its [`Crowd`](crate::crowd::Crowd) does not alarm; their common ancestor does. A day
//! that does not begin, with no other series to compare with, takes longer to alarm than a day that breaks off.

use std::sync::Arc;

use bellwether_stats::Invalid;
use bellwether_stats::pack::Packer;
use bellwether_stats::packed;
use bellwether_stats::rhythm::{QUIET_FRACTION, RecentHour, Rhythm, TrafficLevel, ln_silence};

use super::{DAY, DetectorState, HOUR, Past, Signal, Verdict};
use crate::budget::Thresholds;
use crate::crowd::{Activity, CrowdMember, SilenceTotals, rhythm};
use crate::evidence::{BaselineKind, Evidence};
use crate::observation::{Minute, Window};

/// Minimum duration of a silence, in minutes with expected runs.
const MIN_MINUTES: i64 = 15;

/// The same if all series are silent: a brief common interruption, such as a rollout, is no silence.
const MIN_MINUTES_OF_ALL: i64 = 25;

/// Minutes with expected runs after which a day that did not begin alarms without a comparable series.
const MAX_PATIENCE: i64 = 120;

/// Minutes without expected runs after which a silence is judged from zero.
const BREAK: i64 = 3 * HOUR;

/// Hours just before a silence, and hours of about a day before it, that determine the level of traffic; and the weight
/// of the latter.
const LAST_HOURS: i64 = 3;
const RECENT_HOURS: i64 = 26;
const RECENT_WEIGHT: f64 = 0.25;

/// Time, in minutes, for which past silences are remembered, and their greatest number.
const KEPT_MINUTES: i64 = 28 * DAY;
const KEPT_SILENCES: usize = 24;

/// A silence must be this much longer than the second longest past one: with exponentially distributed pauses, that
/// happens once in n² of n.
const TIMES_LONGER: f64 = 2.0;

/// From this fraction of the usual traffic on, the other series do not indicate a quiet day.
const NORMAL_TRAFFIC: f64 = 0.8;

/// Settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Silence {
    /// Minutes in a slot.
    pub minutes: i64,
}

impl Default for Silence {
    fn default() -> Self {
        Self { minutes: 5 }
    }
}

impl Silence {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        if self.minutes >= 1 && HOUR % self.minutes == 0 {
            Ok(())
        } else {
            Err(Invalid::new("minutes", self.minutes, "a divisor of 60"))
        }
    }
}

/// State of one series.
#[derive(Clone, Debug)]
pub(super) struct State {
    settings: Arc<Silence>,
    day: Option<i64>,
    rhythm: Option<Arc<Rhythm>>,
    /// The open slot: number and runs.
    open: Option<(i64, u64)>,
    stretch: Option<Stretch>,
    /// The last slot had runs.
    going: bool,
    /// For an inner node: the series that have been silent since the stretch began, each with its contribution, and the
    /// ones that were silent when the alert fired.
    silent: Vec<(usize, SilenceTotals)>,
    members: Vec<usize>,
    /// For an inner node: the number of consecutive slots of this silence in which the other series were silent too,
    /// and the last of them.
    excused: (i64, i64),
    /// Past silences: last slot, and runs expected in them.
    ended: Vec<(i64, f64)>,
}

/// Consecutive slots with next to no runs.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stretch {
    /// Its first slot.
    started: i64,
    /// Slots with expected runs.
    slots: i64,
    /// Consecutive slots at its end without expected runs.
    idle: i64,
    runs: f64,
    expected: f64,
    /// Observed and expected runs as effective independent runs.
    effective: (f64, f64),
    level: TrafficLevel,
    /// Other series had, or were expected to have, runs meanwhile.
    compared: bool,
    /// For an inner node: number of silent series.
    series: u32,
}

// === impl Stretch ===

impl Stretch {
    fn at(slot: i64) -> Self {
        let level = TrafficLevel { share: 1.0, shape: 1.0, going: false };
        let (slots, idle, runs, expected, effective) = (0, 0, 0.0, 0.0, (0.0, 0.0));
        Self { started: slot, slots, idle, runs, expected, effective, level, compared: false, series: 1 }
    }

    /// Returns the evidence of silence, nats; 0 while the silence is too short, or no longer than past ones.
    fn evidence(&self, minutes: i64, usual: f64) -> f64 {
        let patience = if self.series > 1 && self.compared {
            MIN_MINUTES_OF_ALL
        } else if self.level.going || (self.compared && self.series == 1) {
            MIN_MINUTES
        } else {
            MAX_PATIENCE
        };
        if self.slots < 2 || self.slots * minutes < patience || self.expected < TIMES_LONGER * usual {
            return 0.0;
        }
        -ln_silence(self.effective.0, self.effective.1, self.level.shape)
    }
}

packed!(Stretch { started, slots, idle, runs, expected, effective, level, compared, series });
packed_state!(Silence { day, rhythm, open, stretch, going, silent, members, excused, ended });

// === impl State ===

impl State {
    pub(super) fn new(settings: Arc<Silence>) -> Self {
        let (day, rhythm, open, stretch) = (None, None, None, None);
        let (silent, members, ended) = (Vec::new(), Vec::new(), Vec::new());
        Self { settings, day, rhythm, open, stretch, going: false, silent, members, excused: (0, 0), ended }
    }

    /// Ends a silence and remembers it, whether or not it alarmed.
    fn end(&mut self, slot: i64) {
        let Some(stretch) = self.stretch.take().filter(|stretch| stretch.expected > 0.0) else { return };
        let first = slot - KEPT_MINUTES / self.settings.minutes;
        self.ended.retain(|(at, _)| *at >= first);
        self.ended.push((slot, stretch.expected));
        if self.ended.len() > KEPT_SILENCES {
            self.ended.sort_by(|a, b| b.1.total_cmp(&a.1));
            self.ended.truncate(KEPT_SILENCES);
        }
    }

    /// Returns the runs missed in the second longest silence of the last weeks: a length that has recurred.
    fn recurred(&self) -> f64 {
        let (mut longest, mut second) = (0.0_f64, 0.0_f64);
        for (_, expected) in &self.ended {
            (longest, second) = (longest.max(*expected), second.max(longest.min(*expected)));
        }
        second
    }

    fn close(&mut self, slot: i64, runs: u64, past: &Past<'_>) {
        if let Some(member) = past.member.filter(CrowdMember::is_above) {
            return self.close_above(slot, &member);
        }
        let start = slot * self.settings.minutes;
        let day = start.div_euclid(DAY);
        if self.day != Some(day) {
            let known = past.member.and_then(|member| member.rhythm(day));
            self.rhythm = known.or_else(|| rhythm(past.hours, day).map(Arc::new));
            self.day = Some(day);
        }
        let Some(rhythm) = self.rhythm.clone() else { return };
        self.slot(slot, runs, &rhythm, past);
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn slot(&mut self, slot: i64, runs: u64, rhythm: &Rhythm, past: &Past<'_>) {
        let minutes = self.settings.minutes;
        let usual = rhythm.usual(past.hours.season().local_hour((slot * minutes).div_euclid(HOUR)));
        let (found, expected) = (runs as f64, usual.expected * minutes as f64 / HOUR as f64);
        if expected <= 0.0 {
            self.unexpected(slot, found);
            return;
        }
        let mut stretch = self.stretch.unwrap_or_else(|| Stretch::at(slot));
        if found <= QUIET_FRACTION * expected && stretch.slots == 0 {
            stretch.level = rhythm.level(usual.shape, &recent(slot * minutes, rhythm, past));
        }
        self.going = found > QUIET_FRACTION * expected * stretch.level.share;
        if self.going {
            self.end(slot);
            return;
        }
        stretch.idle = 0;
        let (excused, others) = past.member.map_or((false, None), |member| member.others(slot));
        stretch.compared |= others.is_some();
        if excused {
            self.stretch = Some(stretch);
            return;
        }
        let expected = expected * stretch.level.share * (others.unwrap_or(1.0) / NORMAL_TRAFFIC).min(1.0);
        let c = rhythm.clumping();
        stretch.slots += 1;
        (stretch.runs, stretch.expected) = (stretch.runs + found, stretch.expected + expected);
        stretch.effective = (stretch.effective.0 + c * found, stretch.effective.1 + c * expected);
        self.stretch = Some(stretch);
    }

    /// Processes a slot without expected runs.
    fn unexpected(&mut self, slot: i64, found: f64) {
        self.going = found > 0.0;
        if self.going {
            self.end(slot);
            return;
        }
        let stretch = self.stretch.get_or_insert_with(|| Stretch::at(slot));
        stretch.idle += 1;
        if stretch.idle * self.settings.minutes >= BREAK && stretch.slots > 0 {
            *stretch = Stretch { idle: stretch.idle, started: stretch.started, ..Stretch::at(slot) };
        }
    }

    /// Judges an inner node: it is silent while most of its series are, the same ones from the beginning of the stretch
    /// on.
    fn close_above(&mut self, slot: i64, member: &CrowdMember<'_>) {
        let judged = member.judged(slot);
        self.going = if self.members.is_empty() {
            judged > 0 && member.activity(slot) != Activity::Silent
        } else {
            2 * member.present(&self.members, slot) >= self.members.len()
        };
        if judged == 0 {
            // No series has expected runs now.
            return;
        }
        let silent = member.silent(slot);
        // A silence reported once for all series is not reported again for a part of them when some others have a few
        // runs.
        let minutes = self.settings.minutes;
        let now = member.others(slot).0;
        let stood = self.excused.0 * minutes >= MIN_MINUTES;
        if member.activity(slot) != Activity::Silent {
            self.excused = (0, slot);
        } else if now {
            self.excused = (self.excused.0 + 1, slot);
        } else if !stood {
            self.excused.0 = 0;
        }
        let excused = now || (stood && (slot - self.excused.1) * minutes < DAY / 2);
        if member.activity(slot) != Activity::Silent || member.share(slot).silent < 2 || excused {
            self.end(slot);
            self.silent.clear();
            return;
        }
        self.silent.retain(|(node, _)| silent.binary_search(node).is_ok());
        if 2 * self.silent.len() < judged {
            self.end(slot);
            self.silent = silent.into_iter().map(|node| (node, SilenceTotals::default())).collect();
        }
        let stretch = self.stretch.get_or_insert_with(|| {
            let level =
                TrafficLevel { share: (member.level(slot) / NORMAL_TRAFFIC).min(1.0), shape: 1.0, going: false };
            Stretch { level, ..Stretch::at(slot) }
        });
        // The first of several tenants to begin its day waits for the others: all may have a holiday.
        stretch.compared |= !member.has_siblings() || member.others(slot).1.is_some();
        let (mut runs, mut expected, mut variance) = (0.0, 0.0, 0.0);
        for (node, sum) in &mut self.silent {
            let now = member.silence(*node, slot);
            let share = stretch.level.share * now.expected;
            *sum = SilenceTotals { runs: sum.runs + now.runs, expected: sum.expected + share, variance: now.variance };
            (runs, expected) = (runs + sum.runs, expected + sum.expected);
            variance += sum.expected * sum.variance;
        }
        stretch.slots += 1;
        stretch.series = u32::try_from(self.silent.len()).unwrap_or(u32::MAX);
        stretch.level.shape = expected.max(1e-9) / variance.max(1e-9);
        (stretch.runs, stretch.expected, stretch.effective) = (runs, expected, (runs, expected));
    }

    fn log_e(&self) -> f64 {
        self.stretch.map_or(0.0, |stretch| stretch.evidence(self.settings.minutes, self.recurred()))
    }
}

/// Returns the hours before the first missing runs, with their usual runs.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn recent(start: Minute, rhythm: &Rhythm, past: &Past<'_>) -> Vec<RecentHour> {
    let end = start.div_euclid(HOUR);
    let hours = past.hours.runs_by_clock(end - RECENT_HOURS, end);
    let first = i64::try_from(hours.len()).unwrap_or(0) - LAST_HOURS;
    (0..)
        .zip(hours)
        .map(|(place, (hour, runs))| RecentHour {
            runs: runs as f64,
            usual: rhythm.usual(hour).mean,
            weight: if place >= first { 1.0 } else { RECENT_WEIGHT },
        })
        .collect()
}

impl DetectorState for State {
    fn step(&mut self, window: &Window, past: &Past<'_>) {
        let slot = window.start.div_euclid(self.settings.minutes);
        if let Some((open, runs)) = self.open.take_if(|open| open.0 != slot) {
            self.close(open, runs, past);
        }
        let runs: u64 = window.rows.iter().map(|row| row.canary.clamped_counts().1).sum();
        self.open.get_or_insert((slot, 0)).1 += runs;
    }

    fn advance(&mut self, until: Minute, past: &Past<'_>) -> Option<Minute> {
        let (slot, runs) = self.open?;
        let end = (slot + 1) * self.settings.minutes;
        if end > until {
            return None;
        }
        self.close(slot, runs, past);
        // The next slot is open and empty.
        self.open = Some((slot + 1, 0));
        Some(end)
    }

    fn verdict(&self, thresholds: &Thresholds) -> Verdict {
        let (statistic, threshold) = (self.log_e(), thresholds.detector);
        let signal = if self.going {
            Signal::Recovered
        } else if statistic >= threshold {
            Signal::Alarm
        } else if statistic >= threshold / 2.0 {
            Signal::Suspect
        } else {
            Signal::Quiet
        };
        Verdict { signal, statistic, threshold }
    }

    fn on_fired(&mut self) {
        self.members = self.silent.iter().map(|(node, _)| *node).collect();
    }

    fn on_resolved(&mut self) {
        self.members.clear();
    }

    #[expect(clippy::cast_possible_truncation, reason = "a cast of a float saturates")]
    #[expect(clippy::cast_sign_loss, reason = "counts are not negative")]
    fn evidence(&self, thresholds: &Thresholds) -> Evidence {
        let mut evidence = Evidence::new("silence", BaselineKind::Past, "runs");
        let verdict = self.verdict(thresholds);
        (evidence.log_e, evidence.threshold) = (Some(verdict.statistic), Some(verdict.threshold));
        evidence.false_alarm = Some((thresholds.alarms_per_month, "a_month"));
        if let Some(stretch) = self.stretch {
            let Stretch { started, slots, runs, expected, level, series, .. } = stretch;
            evidence.canary_counts = Some((0, runs as u64));
            (evidence.baseline_value, evidence.canary_value) = (Some(expected), Some(runs));
            evidence.since = Some(started * self.settings.minutes);
            let minutes = slots * self.settings.minutes;
            evidence
                .notes
                .push(format!("{runs:.0} runs in {minutes} minutes; {expected:.1} are usual at this time of the week"));
            if series > 1 {
                evidence
                    .notes
                    .push(format!("{series} series are silent at once: most of those expected to have runs now"));
            } else if level.share < 0.9 {
                evidence.notes.push(format!("traffic was at {:.0} % of the usual before", 100.0 * level.share));
            }
        }
        evidence
    }

    fn pack(&self, to: &mut Packer) {
        // The rhythm of a day is learned again from the same hours.
        Self { day: None, rhythm: None, ..self.clone() }.put(to);
    }
}
