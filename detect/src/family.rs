//! The releases of one task side by side, and the baseline of each.
//!
//! A release is judged against runs of other releases in the same windows: a canary against the releases in full
//! rollout, a release in full rollout against the older ones. If a whole hour has no baseline, for example after an
//! immediate cutover, that hour is compared with the previous release in the same hours of the week of the preceding
//! four weeks. This lasts one week, after which each past hour has been used once. The normal variation of that release
//! from hour to hour is learned from its past and reduces the weight of the evidence, because different weeks do not
//! share the conditions that concurrent releases share. A pinned baseline is the only one used.
//!
//! Detectors that use a series' own past have a single track without a release.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bellwether_stats::drift::WeeklyBaseline;
use bellwether_stats::wander::{UNKNOWN, Wander};

use crate::budget::{Budget, Thresholds};
use crate::crowd::CrowdMember;
use crate::detector::{Detector, HOUR, Past};
use crate::hours::Hours;
use crate::machine::AlertTiming;
use crate::observation::{Measure, Minute, StratumRow, Window};
use crate::season::Season;
use crate::track::{Change, Track, TrackContext};
use crate::weights::Arm;

/// Hours in a week.
const WEEK: i64 = 168;

/// Minutes before the start of a series from which the properties of its baseline are learned.
const PRIMED: i64 = 4 * HOUR;

/// Weeks of history that one hour is compared with.
const WEEKS: i64 = 4;

/// Runs of one release, stage and stratum in one window.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Start of the window.
    pub window: Minute,
    /// Release; empty for detectors that do not compare.
    pub release: Arc<str>,
    /// True if the release is a canary, false in full rollout.
    pub canary: bool,
    /// Stratum; empty if there is only one.
    pub stratum: Arc<str>,
    /// The counts to add; for a correction, new minus old.
    pub measure: Measure,
}

/// The choice of the baseline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaselinePolicy {
    /// The only baseline, if one is configured.
    pub pinned: Option<Arc<str>>,
}

/// A result of an evaluation for one series of the family.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesUpdate {
    /// Release; empty for detectors that do not compare.
    pub release: Arc<str>,
    /// Releases that it was judged against in the last hours.
    pub baselines: Vec<Arc<str>>,
    /// Its first window.
    pub started: Minute,
    pub change: Change,
}

type Key = (Arc<str>, bool, Arc<str>);

/// Releases of one task, or one series without releases.
pub struct Family {
    detector: Detector,
    timing: AlertTiming,
    policy: BaselinePolicy,
    season: Season,
    name: String,
    windows: BTreeMap<Minute, BTreeMap<Key, Measure>>,
    /// First window of each release.
    first: BTreeMap<Arc<str>, Minute>,
    hours: BTreeMap<(Arc<str>, Arc<str>), Hours>,
    tracks: BTreeMap<Arc<str>, Track>,
    /// Earliest window that changed since the last evaluation.
    dirty_from: Option<Minute>,
    /// Windows before this have been dropped.
    forgotten: Minute,
    evaluated: Minute,
    too_late: u64,
}

// === impl Family ===

impl Family {
    /// Creates an empty family. `name` distinguishes it from the other families of its rule.
    pub fn new(name: &str, detector: Detector, timing: AlertTiming, policy: BaselinePolicy) -> Self {
        Self {
            detector,
            timing,
            policy,
            season: Season::default(),
            name: name.to_owned(),
            windows: BTreeMap::new(),
            first: BTreeMap::new(),
            hours: BTreeMap::new(),
            tracks: BTreeMap::new(),
            dirty_from: None,
            forgotten: Minute::MIN,
            evaluated: Minute::MIN,
            too_late: 0,
        }
    }

    /// Sets the time zone of its weeks; call it before anything is added.
    #[must_use]
    pub fn with_season(self, season: Season) -> Self {
        Self { season, ..self }
    }

    /// Adds runs, or a correction. They are judged in [`Family::evaluate`].
    pub fn add(&mut self, cell: Cell) {
        let (release, stratum) = if self.detector.compares_releases() {
            (cell.release, cell.stratum)
        } else {
            (Arc::from(""), Arc::from(""))
        };
        let keep = self.detector.history_hours();
        if keep > 0 {
            let place = (Arc::clone(&release), Arc::clone(&stratum));
            let hours = self.hours.entry(place).or_insert_with(|| Hours::new(self.season));
            hours.add_measure(cell.window.div_euclid(HOUR), &cell.measure, keep);
        }
        if cell.window < self.forgotten {
            self.too_late += 1;
            return;
        }
        let first = self.first.entry(Arc::clone(&release)).or_insert(cell.window);
        *first = (*first).min(cell.window);
        self.dirty_from = Some(self.dirty_from.map_or(cell.window, |dirty_from| dirty_from.min(cell.window)));
        let window = self.windows.entry(cell.window).or_default();
        window.entry((release, cell.canary, stratum)).or_default().add(&cell.measure);
    }

    /// Resumes an alert that has been firing since `at`, after its windows were dropped.
    pub fn resume(&mut self, at: Minute) {
        let mut track = Track::new(&self.detector, self.timing, at);
        track.resume(at);
        self.tracks.insert(Arc::from(""), track);
        self.first.insert(Arc::from(""), at);
    }

    /// Returns the number of additions to windows that had already been dropped; they affect baselines only.
    pub fn too_late(&self) -> u64 {
        self.too_late
    }

    /// Returns the time before which all windows have been judged.
    pub fn evaluated(&self) -> Minute {
        self.evaluated
    }

    /// Returns the earliest window to judge, or to judge again.
    pub fn dirty_from(&self) -> Option<Minute> {
        self.dirty_from
    }

    /// Iterates over the series, by release.
    pub fn tracks(&self) -> impl Iterator<Item = (&Arc<str>, &Track)> {
        self.tracks.iter()
    }

    /// Returns the series of a release.
    pub fn track(&self, release: &str) -> Option<&Track> {
        self.tracks.get(release)
    }

    /// Returns the thresholds of a series at time `now`.
    pub fn thresholds(&self, release: &str, budget: &Budget, now: Minute) -> Thresholds {
        let started = self.tracks.get(release).map_or(now, Track::started);
        budget.thresholds(&series_key(&self.name, release), started, now)
    }

    /// Finds the series that began before `to` and registers them with the budget, which must know all series before
    /// any is judged.
    pub fn start_series(&mut self, to: Minute, budget: &mut Budget) {
        let Some(dirty_from) = self.dirty_from else { return };
        let releases: Vec<Arc<str>> = self.first.keys().cloned().collect();
        for release in releases {
            let known = self.tracks.get(&release).map(Track::started);
            if known.is_some_and(|started| started <= dirty_from) {
                continue;
            }
            // Nothing changed before the earliest changed window.
            let until = known.map_or(to, |started| started.min(to));
            let Some(started) = self.first_judged_window(&release, dirty_from, until) else { continue };
            let key = series_key(&self.name, &release);
            if let Some(before) = known {
                budget.forget(&key, before);
            }
            budget.register(&key, started);
            match self.tracks.get_mut(&release) {
                Some(track) => track.set_start(started),
                None => {
                    self.tracks.insert(release, Track::new(&self.detector, self.timing, started));
                }
            }
        }
    }

    /// Returns the first window in which there is something to judge.
    fn first_judged_window(&self, release: &Arc<str>, from: Minute, to: Minute) -> Option<Minute> {
        if !self.detector.compares_releases() {
            return self.windows.range(from..to.max(from)).next().map(|(start, _)| *start);
        }
        let first = self.first.get(release)?.max(&from);
        // With few runs, two active releases seldom share a minute: allow an hour, the length of the longest block.
        let (mut baseline, mut canary) = (None, None);
        let concurrent = self.windows.range(*first - HOUR + 1..to.max(*first)).find_map(|(start, cells)| {
            let rows = self.arms(release, cells);
            let note = |last: &mut Option<Minute>, of: fn(&StratumRow) -> &Measure| {
                if rows.iter().any(|row| of(row).runs > 0) {
                    *last = Some(*start);
                }
                last.is_some_and(|last| start - last < HOUR)
            };
            let (one, other) = (note(&mut baseline, |row| &row.baseline), note(&mut canary, |row| &row.canary));
            (one && other && start >= first).then_some(*start)
        });
        let cutover = || {
            let hours = first.div_euclid(HOUR)..to.div_euclid(HOUR);
            hours.into_iter().find_map(|hour| self.against_history(release, hour, hour).map(|window| window.start))
        };
        match concurrent {
            None if matches!(self.detector, Detector::Regression(_)) => cutover(),
            found => found,
        }
    }

    /// Returns the past of a series that is not compared with other releases.
    pub fn own_hours(&self) -> Option<&Hours> {
        self.hours.get(&(Arc::from(""), Arc::from("")))
    }

    /// Marks the windows from `from` on to be judged again because their context changed. Does nothing if a track
    /// cannot rewind that far.
    pub fn mark_dirty(&mut self, from: Minute) {
        if self.tracks.values().all(|track| track.earliest_checkpoint() <= from) {
            self.dirty_from = Some(self.dirty_from.map_or(from, |dirty_from| dirty_from.min(from)));
        }
    }

    /// Judges all windows before `to`, and corrected ones again.
    pub fn evaluate(&mut self, to: Minute, budget: &mut Budget) -> Vec<SeriesUpdate> {
        self.evaluate_among(to, budget, None)
    }

    /// Like [`Family::evaluate`] for a series in a crowd.
    pub fn evaluate_among(
        &mut self,
        to: Minute,
        budget: &mut Budget,
        member: Option<CrowdMember<'_>>,
    ) -> Vec<SeriesUpdate> {
        self.start_series(to, budget);
        let dirty_from = self.dirty_from.take();
        let to = to.max(self.evaluated);
        let mut updates = Vec::new();
        let releases: Vec<Arc<str>> = self.tracks.keys().cloned().collect();
        for release in releases {
            let Some(mut track) = self.tracks.remove(&release) else { continue };
            if dirty_from.is_some_and(|dirty_from| !track.rewind(dirty_from)) {
                self.too_late += 1;
            }
            updates.extend(self.judge(&release, member, &mut track, budget, to));
            self.tracks.insert(release, track);
        }
        self.evaluated = to;
        self.forget(to);
        // Later windows are judged when they are complete.
        self.dirty_from = self.windows.range(to..).next().map(|(start, _)| *start);
        updates
    }

    fn judge(
        &self,
        release: &Arc<str>,
        member: Option<CrowdMember<'_>>,
        track: &mut Track,
        budget: &Budget,
        to: Minute,
    ) -> Vec<SeriesUpdate> {
        let key = series_key(&self.name, release);
        let none = Hours::new(self.season);
        let hours = self.hours.get(&(Arc::clone(release), Arc::from(""))).unwrap_or(&none);
        let own = TrackContext { hours, member };
        let started = track.started();
        let compares = self.detector.compares_releases();
        if compares && track.next() == Minute::MIN {
            for (start, cells) in self.windows.range(started - PRIMED..started) {
                track.prime(&Window {
                    start: *start,
                    historical: false,
                    wander: None,
                    rows: self.arms(release, cells),
                });
            }
        }
        let mut from = track.next().max(started);
        while from < to {
            // Go hour by hour, so that an hour without a baseline is compared with history once it is over.
            let hour = from.div_euclid(HOUR);
            let end = ((hour + 1) * HOUR).min(to);
            for (start, cells) in self.windows.range(from..end) {
                let rows = if compares {
                    if track.is_dormant(*start) && !cells.keys().any(|key| key.0 == *release) {
                        track.pass(*start);
                        continue;
                    }
                    self.arms(release, cells)
                } else {
                    own_rows(cells)
                };
                if !rows.is_empty() {
                    let window = Window { start: *start, historical: false, wander: None, rows };
                    track.feed(&window, own, &budget.thresholds(&key, started, *start));
                }
            }
            if end == (hour + 1) * HOUR
                && matches!(self.detector, Detector::Regression(_))
                && let Some(window) = self.against_history(release, hour, started.div_euclid(HOUR))
            {
                track.feed(&window, own, &budget.thresholds(&key, started, window.start));
            }
            from = self.windows.range(end..to.max(end)).next().map_or(to, |(start, _)| *start);
        }
        let changes = track.finish(to, own, &budget.thresholds(&key, started, to));
        if changes.is_empty() {
            return Vec::new();
        }
        let baselines = if compares { self.baselines(release) } else { Vec::new() };
        let updates = changes.into_iter().map(|change| SeriesUpdate {
            release: Arc::clone(release),
            baselines: baselines.clone(),
            started,
            change,
        });
        updates.collect()
    }

    fn is_older(&self, other: &Arc<str>, release: &Arc<str>) -> bool {
        let of = |name: &Arc<str>| (self.first.get(name).copied().unwrap_or(Minute::MAX), Arc::clone(name));
        of(other) < of(release)
    }

    /// Returns the cells of a window as a release and its baseline; empty if neither has runs.
    fn arms(&self, release: &Arc<str>, cells: &BTreeMap<Key, Measure>) -> Vec<StratumRow> {
        let on_trial = !cells.keys().any(|(name, canary, _)| name == release && !canary);
        let mut rows: BTreeMap<Arc<str>, StratumRow> = BTreeMap::new();
        for ((name, canary, stratum), measure) in cells {
            let own = name == release;
            let serves = match &self.policy.pinned {
                Some(pinned) => name == pinned && release != pinned,
                None => !own && !canary && (on_trial || self.is_older(name, release)),
            };
            if !own && !serves {
                continue;
            }
            let row = rows.entry(Arc::clone(stratum)).or_insert_with(|| StratumRow {
                stratum: Arc::clone(stratum),
                baseline: Measure::default(),
                canary: Measure::default(),
            });
            if own { row.canary.add(measure) } else { row.baseline.add(measure) }
        }
        rows.into_values().filter(|row| !(row.baseline.is_empty() && row.canary.is_empty())).collect()
    }

    /// Compares an hour of a release that had no concurrent baseline with the same hour of earlier weeks.
    fn against_history(&self, release: &Arc<str>, hour: i64, first_hour: i64) -> Option<Window> {
        if hour - first_hour >= WEEK {
            return None;
        }
        let before = self.release_before(release, hour)?;
        let (mut own, mut others) = (false, false);
        for cells in self.windows.range(hour * HOUR..(hour + 1) * HOUR).map(|(_, cells)| cells) {
            for row in self.arms(release, cells) {
                own |= row.canary.runs > 0;
                others |= row.baseline.runs > 0;
            }
        }
        if !own || others {
            return None;
        }
        let incidents = self.tracks.get(&before).map_or(&[][..], Track::incidents);
        let strata: BTreeSet<&Arc<str>> =
            self.hours.keys().filter(|(name, _)| name == release).map(|(_, stratum)| stratum).collect();
        let mut rows = Vec::new();
        let mut wander: Option<Wander> = None;
        for stratum in strata {
            let sum = |name: &Arc<str>, hour: i64| {
                let hours = self.hours.get(&(Arc::clone(name), Arc::clone(stratum)));
                hours.map_or_else(Arm::default, |hours| hours.arm(hour))
            };
            let canary = sum(release, hour);
            let baseline = (1..=WEEKS)
                .map(|week| self.season.weeks_before(hour, week))
                .filter(|hour| !incidents.iter().any(|(from, to)| *from < (hour + 1) * HOUR && hour * HOUR < *to))
                .map(|hour| sum(&before, hour))
                .fold(Arm::default(), |mut all, more| {
                    all.add(&more);
                    all
                });
            if canary.runs > 0 && baseline.runs > 0 {
                let found = self.wander(&before, stratum, hour, incidents);
                wander = Some(wander.map_or(found, |most| most.max(&found)));
                let (baseline, canary) = (Measure::from_arm(&baseline), Measure::from_arm(&canary));
                rows.push(StratumRow { stratum: Arc::clone(stratum), baseline, canary });
            }
        }
        (!rows.is_empty()).then_some(Window { start: (hour + 1) * HOUR - 1, historical: true, wander, rows })
    }

    /// Returns the wander of a release in the weeks before an hour.
    fn wander(&self, release: &Arc<str>, stratum: &Arc<str>, hour: i64, incidents: &[(Minute, Minute)]) -> Wander {
        let Some(hours) = self.hours.get(&(Arc::clone(release), Arc::clone(stratum))) else { return UNKNOWN };
        let past = Past { hours, incidents, member: None };
        let hours = past.hours(hour - WEEKS * WEEK, hour);
        WeeklyBaseline::learn(&hours).map_or(UNKNOWN, |baseline| Wander::learn(&hours, &baseline))
    }

    /// Returns the newest of the older releases that has runs in the same hour of earlier weeks.
    fn release_before(&self, release: &Arc<str>, hour: i64) -> Option<Arc<str>> {
        let has = |name: &Arc<str>| {
            self.hours.iter().filter(|((of, _), _)| of == name).any(|(_, hours)| {
                (1..=WEEKS)
                    .map(|week| self.season.weeks_before(hour, week))
                    .any(|hour| hours.range(hour, hour + 1).next().is_some())
            })
        };
        if let Some(pinned) = &self.policy.pinned {
            return (pinned != release && has(pinned)).then(|| Arc::clone(pinned));
        }
        let older = self.first.iter().filter(|(name, _)| self.is_older(name, release) && has(name));
        older.max_by(|a, b| (a.1, a.0).cmp(&(b.1, b.0))).map(|(name, _)| Arc::clone(name))
    }

    /// Returns the releases that a release has been judged against in the last hours.
    pub fn baselines(&self, release: &Arc<str>) -> Vec<Arc<str>> {
        if let Some(pinned) = &self.policy.pinned {
            return vec![Arc::clone(pinned)];
        }
        let mut names = BTreeSet::new();
        for cells in self.windows.values() {
            let on_trial = !cells.keys().any(|(name, canary, _)| name == release && !canary);
            let serves =
                |(name, canary, _): &&Key| name != release && !canary && (on_trial || self.is_older(name, release));
            names.extend(cells.keys().filter(serves).map(|key| Arc::clone(&key.0)));
        }
        names.into_iter().collect()
    }

    /// Returns the pinned baseline, if any.
    pub fn pinned(&self) -> Option<&Arc<str>> {
        self.policy.pinned.as_ref()
    }

    /// Returns the releases that began before a release: its baselines in full rollout.
    pub fn older_releases(&self, release: &str) -> Vec<Arc<str>> {
        let release = Arc::from(release);
        self.first.keys().filter(|name| **name != release && self.is_older(name, &release)).cloned().collect()
    }

    /// Drops windows that no correction can reach.
    fn forget(&mut self, to: Minute) {
        let kept = self.tracks.values().map(Track::earliest_checkpoint).min();
        // Without a track nothing has been judged, but a new release may still find its baseline in the last hours.
        let from = kept.unwrap_or(to).min(to - to.rem_euclid(HOUR) - PRIMED - HOUR);
        if from > self.forgotten && kept.is_none_or(|kept| kept > Minute::MIN) {
            self.windows = self.windows.split_off(&from);
            self.forgotten = from;
        }
    }
}

/// Returns the key of a series among all series of a rule.
pub fn series_key(family: &str, release: &str) -> String {
    if release.is_empty() { family.to_owned() } else { format!("{family}\u{1f}{release}") }
}

fn own_rows(cells: &BTreeMap<Key, Measure>) -> Vec<StratumRow> {
    let mut rows: BTreeMap<Arc<str>, StratumRow> = BTreeMap::new();
    for ((_, _, stratum), measure) in cells {
        let row = rows.entry(Arc::clone(stratum)).or_insert_with(|| StratumRow {
            stratum: Arc::clone(stratum),
            baseline: Measure::default(),
            canary: Measure::default(),
        });
        row.canary.add(measure);
    }
    rows.into_values().collect()
}
