//! D11: nothing, or next to nothing, comes where runs are usual at this hour: a producer is silent.
//!
//! This is the one detector for which a window without runs is news. What is usual, and how improbable silence is, is
//! [`bellwether_stats::rhythm`]'s, by the clock of the series' [`crate::season::Season`]. Slots in a row with next to no
//! runs are judged together, from the first of them at which runs could be expected. The threshold is that of the budget:
//! ln(series × slots a month / false alarms a month).
//!
//! Rules: an alarm takes no hour out of the past, so that what recurs is learned; a series that falls silent with the
//! others of its [`Crowd`](crate::crowd::Crowd) is not asked about by itself, what stands for all of them is; a day
//! that does not begin, with nobody to compare it with, is waited for longer than one that breaks off.

use std::sync::Arc;

use bellwether_stats::Invalid;
use bellwether_stats::rhythm::{Level, NEXT_TO_NOTHING, Recent, Rhythm, Usual, ln_silence};

use super::{DAY, HOUR, Judge, Past, Signal, Verdict};
use crate::budget::Thresholds;
use crate::crowd::{Among, Missing, Voice, rhythm};
use crate::evidence::{Baseline, Evidence};
use crate::observation::{Minute, Window};

/// Minutes that a silence lasts at the least, of those in which runs are expected.
const LEAST_MINUTES: i64 = 15;

/// The same where all are silent: what holds all of them up for a moment, as a rollout, is no silence.
const LEAST_OF_ALL: i64 = 25;

/// Minutes of expected runs after which a day that did not begin is news though nobody else tells whether it is one.
const PATIENCE: i64 = 120;

/// Minutes without any run to be expected after which a silence is judged anew.
const BREAK: i64 = 3 * HOUR;

/// Hours just before a silence, and those of about a day, that tell how much of the usual there is; and what a day counts.
const JUST_NOW: i64 = 3;
const LATELY: i64 = 26;
const LATELY_WEIGHS: f64 = 0.25;

/// Minutes for which silences that ended by themselves are remembered, and how many.
const REMEMBERED: i64 = 28 * DAY;
const ENDED: usize = 24;

/// How much longer than the second longest of them a silence has to be: runs that seldom pause exponentially do so once
/// in n² times of n.
const LONGER: f64 = 2.0;

/// Part of the usual that the others have, from which on they say nothing of a quiet day.
const BUSY: f64 = 0.8;

/// Settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Silence {
    /// Minutes of a slot.
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
    /// The slot that fills: number and runs.
    open: Option<(i64, u64)>,
    stretch: Option<Stretch>,
    /// Runs came in the last slot.
    going: bool,
    /// Of what stands for several: those silent since the stretch began, each with what it adds, and the silent ones of
    /// when the alert fired.
    silent: Vec<(usize, Missing)>,
    members: Vec<usize>,
    /// Of what stands for several: slots of this silence in a row in which the others were silent too, and the last of them.
    excused: (i64, i64),
    /// Silences that ended: slot, and runs that were expected in it.
    ended: Vec<(i64, f64)>,
}

/// Slots in a row with next to no runs.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stretch {
    /// Its first slot.
    begun: i64,
    /// Slots at which runs could be expected.
    slots: i64,
    /// Slots in a row, at its end, at which none could.
    idle: i64,
    runs: f64,
    expected: f64,
    /// The same as so many independent ones.
    effective: (f64, f64),
    level: Level,
    /// Others have had runs meanwhile, or could have.
    compared: bool,
    /// Of what stands for several: series that are silent.
    series: u32,
}

// === impl Stretch ===

impl Stretch {
    fn at(slot: i64) -> Self {
        let level = Level { share: 1.0, shape: 1.0, going: false };
        let (slots, idle, runs, expected, effective) = (0, 0, 0.0, 0.0, (0.0, 0.0));
        Self { begun: slot, slots, idle, runs, expected, effective, level, compared: false, series: 1 }
    }

    /// Evidence of silence, nats; none while it is too early to tell, or while it is no longer than silences are.
    fn evidence(&self, minutes: i64, usual: f64) -> f64 {
        let patience = if self.series > 1 && self.compared {
            LEAST_OF_ALL
        } else if self.level.going || (self.compared && self.series == 1) {
            LEAST_MINUTES
        } else {
            PATIENCE
        };
        if self.slots < 2 || self.slots * minutes < patience || self.expected < LONGER * usual {
            return 0.0;
        }
        -ln_silence(self.effective.0, self.effective.1, self.level.shape)
    }
}

// === impl State ===

impl State {
    pub(super) fn new(settings: Arc<Silence>) -> Self {
        let (day, rhythm, open, stretch) = (None, None, None, None);
        let (silent, members, ended) = (Vec::new(), Vec::new(), Vec::new());
        Self { settings, day, rhythm, open, stretch, going: false, silent, members, excused: (0, 0), ended }
    }

    /// A silence is over: an alarm teaches as much as one that was none.
    fn end(&mut self, slot: i64) {
        let Some(stretch) = self.stretch.take().filter(|stretch| stretch.expected > 0.0) else { return };
        let first = slot - REMEMBERED / self.settings.minutes;
        self.ended.retain(|(at, _)| *at >= first);
        self.ended.push((slot, stretch.expected));
        if self.ended.len() > ENDED {
            self.ended.sort_by(|a, b| b.1.total_cmp(&a.1));
            self.ended.truncate(ENDED);
        }
    }

    /// Runs that the second longest silence of the last weeks missed: what has recurred.
    fn recurred(&self) -> f64 {
        let (mut longest, mut second) = (0.0_f64, 0.0_f64);
        for (_, expected) in &self.ended {
            (longest, second) = (longest.max(*expected), second.max(longest.min(*expected)));
        }
        second
    }

    fn close(&mut self, slot: i64, runs: u64, past: &Past<'_>) {
        if let Some(among) = past.among.filter(Among::is_above) {
            return self.close_above(slot, &among);
        }
        let start = slot * self.settings.minutes;
        let day = start.div_euclid(DAY);
        if self.day != Some(day) {
            (self.day, self.rhythm) = (Some(day), rhythm(past.hours, day).map(Arc::new));
        }
        let Some(rhythm) = self.rhythm.clone() else { return };
        let usual = rhythm.usual(past.hours.season().local_hour(start.div_euclid(HOUR)));
        self.slot(slot, runs, usual, &rhythm, past);
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn slot(&mut self, slot: i64, runs: u64, usual: Usual, rhythm: &Rhythm, past: &Past<'_>) {
        let minutes = self.settings.minutes;
        let (found, expected) = (runs as f64, usual.expected * minutes as f64 / HOUR as f64);
        if expected <= 0.0 {
            self.unexpected(slot, found);
            return;
        }
        let mut stretch = self.stretch.unwrap_or_else(|| Stretch::at(slot));
        if found <= NEXT_TO_NOTHING * expected && stretch.slots == 0 {
            stretch.level = rhythm.level(usual.shape, &recent(slot * minutes, rhythm, past));
        }
        self.going = found > NEXT_TO_NOTHING * expected * stretch.level.share;
        if self.going {
            self.end(slot);
            return;
        }
        stretch.idle = 0;
        let (excused, others) = past.among.map_or((false, None), |among| among.others(slot));
        stretch.compared |= others.is_some();
        if excused {
            self.stretch = Some(stretch);
            return;
        }
        let expected = expected * stretch.level.share * (others.unwrap_or(1.0) / BUSY).min(1.0);
        let c = rhythm.clumping();
        stretch.slots += 1;
        (stretch.runs, stretch.expected) = (stretch.runs + found, stretch.expected + expected);
        stretch.effective = (stretch.effective.0 + c * found, stretch.effective.1 + c * expected);
        self.stretch = Some(stretch);
    }

    /// A slot at which no run could be expected.
    fn unexpected(&mut self, slot: i64, found: f64) {
        self.going = found > 0.0;
        if self.going {
            self.end(slot);
            return;
        }
        let stretch = self.stretch.get_or_insert_with(|| Stretch::at(slot));
        stretch.idle += 1;
        if stretch.idle * self.settings.minutes >= BREAK && stretch.slots > 0 {
            *stretch = Stretch { idle: stretch.idle, begun: stretch.begun, ..Stretch::at(slot) };
        }
    }

    /// What stands for several series: it is silent while most of them are, the same ones from its beginning on.
    fn close_above(&mut self, slot: i64, among: &Among<'_>) {
        let telling = among.telling(slot);
        self.going = if self.members.is_empty() {
            telling > 0 && among.voice(slot) != Voice::Silent
        } else {
            2 * among.there(&self.members, slot) >= self.members.len()
        };
        if telling == 0 {
            // Nothing is usual now, and nothing is known.
            return;
        }
        let silent = among.silent(slot);
        // What has been asked about once, of all, is not asked about again of a part when some others have a few runs.
        let minutes = self.settings.minutes;
        let now = among.others(slot).0;
        let stood = self.excused.0 * minutes >= LEAST_MINUTES;
        if among.voice(slot) != Voice::Silent {
            self.excused = (0, slot);
        } else if now {
            self.excused = (self.excused.0 + 1, slot);
        } else if !stood {
            self.excused.0 = 0;
        }
        let excused = now || (stood && (slot - self.excused.1) * minutes < DAY / 2);
        if among.voice(slot) != Voice::Silent || among.share(slot).silent < 2 || excused {
            self.end(slot);
            self.silent.clear();
            return;
        }
        self.silent.retain(|(node, _)| silent.binary_search(node).is_ok());
        if 2 * self.silent.len() < telling {
            self.end(slot);
            self.silent = silent.into_iter().map(|node| (node, Missing::default())).collect();
        }
        let stretch = self.stretch.get_or_insert_with(|| {
            let level = Level { share: (among.level(slot) / BUSY).min(1.0), shape: 1.0, going: false };
            Stretch { level, ..Stretch::at(slot) }
        });
        // Of several tenants, the first to begin its day waits for the others: they may all have a holiday.
        stretch.compared |= !among.has_siblings() || among.others(slot).1.is_some();
        let (mut runs, mut expected, mut variance) = (0.0, 0.0, 0.0);
        for (node, sum) in &mut self.silent {
            let now = among.missing(*node, slot);
            let share = stretch.level.share * now.expected;
            *sum = Missing { runs: sum.runs + now.runs, expected: sum.expected + share, variance: now.variance };
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

/// The hours before a moment at which runs begin to be missed, against what is usual.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn recent(start: Minute, rhythm: &Rhythm, past: &Past<'_>) -> Vec<Recent> {
    let end = start.div_euclid(HOUR);
    let hours = past.hours.runs_by_clock(end - LATELY, end);
    let first = i64::try_from(hours.len()).unwrap_or(0) - JUST_NOW;
    (0..)
        .zip(hours)
        .map(|(place, (hour, runs))| Recent {
            runs: runs as f64,
            usual: rhythm.usual(hour).mean,
            weight: if place >= first { 1.0 } else { LATELY_WEIGHS },
        })
        .collect()
}

impl Judge for State {
    fn step(&mut self, window: &Window, past: &Past<'_>) {
        let slot = window.start.div_euclid(self.settings.minutes);
        if let Some((open, runs)) = self.open.take_if(|open| open.0 != slot) {
            self.close(open, runs, past);
        }
        let runs: u64 = window.rows.iter().map(|row| row.canary.pair().1).sum();
        self.open.get_or_insert((slot, 0)).1 += runs;
    }

    fn advance(&mut self, until: Minute, past: &Past<'_>) -> Option<Minute> {
        let (slot, runs) = self.open?;
        let end = (slot + 1) * self.settings.minutes;
        if end > until {
            return None;
        }
        self.close(slot, runs, past);
        // The next one is open and empty.
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

    fn fired(&mut self) {
        self.members = self.silent.iter().map(|(node, _)| *node).collect();
    }

    fn resolved(&mut self) {
        self.members.clear();
    }

    #[expect(clippy::cast_possible_truncation, reason = "a cast of a float saturates")]
    #[expect(clippy::cast_sign_loss, reason = "counts are not negative")]
    fn evidence(&self, thresholds: &Thresholds) -> Evidence {
        let mut evidence = Evidence::new("silence", Baseline::Past, "runs");
        let verdict = self.verdict(thresholds);
        (evidence.log_e, evidence.threshold) = (Some(verdict.statistic), Some(verdict.threshold));
        evidence.false_alarm = Some((thresholds.alarms_a_month, "a_month"));
        if let Some(stretch) = self.stretch {
            let Stretch { begun, slots, runs, expected, level, series, .. } = stretch;
            evidence.canary_counts = Some((0, runs as u64));
            (evidence.baseline_value, evidence.canary_value) = (Some(expected), Some(runs));
            evidence.since = Some(begun * self.settings.minutes);
            let minutes = slots * self.settings.minutes;
            evidence.notes.push(format!(
                "{runs:.0} runs in {minutes} minutes where {expected:.1} are usual at this time of the week"
            ));
            if series > 1 {
                evidence.notes.push(format!(
                    "{series} series are silent at once: most of those that could be expected to have runs now"
                ));
            } else if level.share < 0.9 {
                evidence.notes.push(format!("traffic was {:.0} % of the usual before", 100.0 * level.share));
            }
        }
        evidence
    }

    fn boxed(&self) -> Box<dyn Judge> {
        Box::new(self.clone())
    }
}
