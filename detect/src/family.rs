//! The releases of one task side by side: which is judged, and against what.
//!
//! A release is judged against runs of others in the same windows: a canary against the releases in full rollout, a
//! release in full rollout against the older ones. Where there are none in a whole hour, as after a cutover at once, that
//! hour is compared with the same hours of the week of the release before it, in the four weeks before; for a week, for
//! then each hour of the past has been used. How much that release wandered from hour to hour is learned from its past,
//! and evidence weighs as much less: hours of different weeks have not the weather in common that releases side by side
//! have. A pinned baseline is the only one there is.
//!
//! Detectors that look at a series' own past have one track, without a release.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bellwether_stats::drift::Baseline;
use bellwether_stats::wander::{UNKNOWN, Wander};

use crate::budget::{Budget, Thresholds};
use crate::crowd::Among;
use crate::detector::{Detector, HOUR, Past};
use crate::hours::Hours;
use crate::machine::Pace;
use crate::observation::{Measure, Minute, Row, Window};
use crate::season::Season;
use crate::track::{Around, Change, Track};
use crate::weights::Arm;

/// Hours of a week.
const WEEK: i64 = 168;

/// Minutes before a series began that tell what its baseline is like.
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
    /// True where the release is on trial, false in full rollout.
    pub canary: bool,
    /// Stratum; empty where there is one only.
    pub stratum: Arc<str>,
    /// What is added: the whole, or new less old.
    pub measure: Measure,
}

/// How releases are compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compare {
    /// The only baseline, where somebody named one.
    pub pinned: Option<Arc<str>>,
}

/// What an evaluation brought, of one series of the family.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// Release; empty for detectors that do not compare.
    pub release: Arc<str>,
    /// Releases that it is judged against, of the last hours.
    pub baselines: Vec<Arc<str>>,
    /// Its first window.
    pub begun: Minute,
    /// The change.
    pub change: Change,
}

type Key = (Arc<str>, bool, Arc<str>);

/// Releases of one task, or one series without releases.
pub struct Family {
    detector: Detector,
    pace: Pace,
    compare: Compare,
    season: Season,
    name: String,
    windows: BTreeMap<Minute, BTreeMap<Key, Measure>>,
    /// First window of each release.
    first: BTreeMap<Arc<str>, Minute>,
    hours: BTreeMap<(Arc<str>, Arc<str>), Hours>,
    tracks: BTreeMap<Arc<str>, Track>,
    /// Earliest window that was touched since the last evaluation.
    touched: Option<Minute>,
    /// Windows that are told apart no more.
    forgotten: Minute,
    evaluated: Minute,
    too_late: u64,
}

// === impl Family ===

impl Family {
    /// Nothing seen yet. `name` tells this family from the others of its rule.
    pub fn new(name: &str, detector: Detector, pace: Pace, compare: Compare) -> Self {
        Self {
            detector,
            pace,
            compare,
            season: Season::default(),
            name: name.to_owned(),
            windows: BTreeMap::new(),
            first: BTreeMap::new(),
            hours: BTreeMap::new(),
            tracks: BTreeMap::new(),
            touched: None,
            forgotten: Minute::MIN,
            evaluated: Minute::MIN,
            too_late: 0,
        }
    }

    /// The same with weeks that go by the clock of a zone; before anything is added.
    #[must_use]
    pub fn in_season(self, season: Season) -> Self {
        Self { season, ..self }
    }

    /// Adds runs, or a correction. Nothing is judged before [`Family::evaluate`].
    pub fn add(&mut self, cell: Cell) {
        let (release, stratum) = if self.detector.compares_releases() {
            (cell.release, cell.stratum)
        } else {
            (Arc::from(""), Arc::from(""))
        };
        let keep = self.detector.remembers();
        if keep > 0 {
            let place = (Arc::clone(&release), Arc::clone(&stratum));
            let hours = self.hours.entry(place).or_insert_with(|| Hours::of(self.season));
            hours.add_measure(cell.window.div_euclid(HOUR), &cell.measure, keep);
        }
        if cell.window < self.forgotten {
            self.too_late += 1;
            return;
        }
        let first = self.first.entry(Arc::clone(&release)).or_insert(cell.window);
        *first = (*first).min(cell.window);
        self.touched = Some(self.touched.map_or(cell.window, |touched| touched.min(cell.window)));
        let window = self.windows.entry(cell.window).or_default();
        window.entry((release, cell.canary, stratum)).or_default().add(&cell.measure);
    }

    /// Goes on with an alert that fired at a moment, whose windows are not known any more.
    pub fn resume(&mut self, at: Minute) {
        let mut track = Track::new(&self.detector, self.pace, at);
        track.resume(at);
        self.tracks.insert(Arc::from(""), track);
        self.first.insert(Arc::from(""), at);
    }

    /// Runs that came for windows which are told apart no more; they count for baselines only.
    pub fn too_late(&self) -> u64 {
        self.too_late
    }

    /// All windows before this moment have been judged.
    pub fn evaluated(&self) -> Minute {
        self.evaluated
    }

    /// Earliest window that waits to be judged, or judged again.
    pub fn touched(&self) -> Option<Minute> {
        self.touched
    }

    /// The series, by release.
    pub fn tracks(&self) -> impl Iterator<Item = (&Arc<str>, &Track)> {
        self.tracks.iter()
    }

    /// One series.
    pub fn track(&self, release: &str) -> Option<&Track> {
        self.tracks.get(release)
    }

    /// The thresholds of a series at a moment.
    pub fn thresholds(&self, release: &str, budget: &Budget, now: Minute) -> Thresholds {
        let begun = self.tracks.get(release).map_or(now, Track::begun);
        budget.thresholds(&series_key(&self.name, release), begun, now)
    }

    /// Finds the series that have begun before `to` and tells the budget, which has to know all of them before any is
    /// judged.
    pub fn begin(&mut self, to: Minute, budget: &mut Budget) {
        let Some(touched) = self.touched else { return };
        let releases: Vec<Arc<str>> = self.first.keys().cloned().collect();
        for release in releases {
            let known = self.tracks.get(&release).map(Track::begun);
            if known.is_some_and(|begun| begun <= touched) {
                continue;
            }
            // Before what was touched, nothing has changed.
            let until = known.map_or(to, |begun| begun.min(to));
            let Some(begun) = self.begins(&release, touched, until) else { continue };
            let key = series_key(&self.name, &release);
            if let Some(before) = known {
                budget.forget(&key, before);
            }
            budget.note(&key, begun);
            match self.tracks.get_mut(&release) {
                Some(track) => track.begins(begun),
                None => {
                    self.tracks.insert(release, Track::new(&self.detector, self.pace, begun));
                }
            }
        }
    }

    /// The first window of a stretch in which there is something to judge.
    fn begins(&self, release: &Arc<str>, from: Minute, to: Minute) -> Option<Minute> {
        if !self.detector.compares_releases() {
            return self.windows.range(from..to.max(from)).next().map(|(start, _)| *start);
        }
        let first = self.first.get(release)?.max(&from);
        // Where few runs come, two releases at work seldom share a minute: an hour is what the longest blocks are.
        let (mut baseline, mut canary) = (None, None);
        let concurrent = self.windows.range(*first - HOUR + 1..to.max(*first)).find_map(|(start, cells)| {
            let rows = self.arms(release, cells);
            let note = |last: &mut Option<Minute>, of: fn(&Row) -> &Measure| {
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

    /// The past of a series that does not compare releases.
    pub fn own_hours(&self) -> Option<&Hours> {
        self.hours.get(&(Arc::from(""), Arc::from("")))
    }

    /// Has the windows from a moment on judged again, because something beside them is other than it was. What no
    /// correction can reach stands.
    pub fn touch(&mut self, from: Minute) {
        if self.tracks.values().all(|track| track.keeps_from() <= from) {
            self.touched = Some(self.touched.map_or(from, |touched| touched.min(from)));
        }
    }

    /// Judges all windows before `to`, and again those that were corrected.
    pub fn evaluate(&mut self, to: Minute, budget: &mut Budget) -> Vec<Update> {
        self.evaluate_among(to, budget, None)
    }

    /// The same of a series among others.
    pub fn evaluate_among(&mut self, to: Minute, budget: &mut Budget, among: Option<Among<'_>>) -> Vec<Update> {
        self.begin(to, budget);
        let touched = self.touched.take();
        let to = to.max(self.evaluated);
        let mut updates = Vec::new();
        let releases: Vec<Arc<str>> = self.tracks.keys().cloned().collect();
        for release in releases {
            let Some(mut track) = self.tracks.remove(&release) else { continue };
            if touched.is_some_and(|touched| !track.rewind(touched)) {
                self.too_late += 1;
            }
            self.judge((&release, among), &mut track, budget, to, &mut updates);
            self.tracks.insert(release, track);
        }
        self.evaluated = to;
        self.forget(to);
        // What lies beyond is judged when it is complete.
        self.touched = self.windows.range(to..).next().map(|(start, _)| *start);
        updates
    }

    fn judge(
        &self,
        (release, among): (&Arc<str>, Option<Among<'_>>),
        track: &mut Track,
        budget: &Budget,
        to: Minute,
        updates: &mut Vec<Update>,
    ) {
        let key = series_key(&self.name, release);
        let none = Hours::of(self.season);
        let hours = self.hours.get(&(Arc::clone(release), Arc::from(""))).unwrap_or(&none);
        let own = Around { hours, among };
        let begun = track.begun();
        let compares = self.detector.compares_releases();
        if compares && track.next() == Minute::MIN {
            for (start, cells) in self.windows.range(begun - PRIMED..begun) {
                track.prime(&Window {
                    start: *start,
                    historical: false,
                    wander: None,
                    rows: self.arms(release, cells),
                });
            }
        }
        let mut from = track.next().max(begun);
        while from < to {
            // Hour by hour, so that an hour without a baseline is compared with history when it is over.
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
                    track.feed(&window, own, &budget.thresholds(&key, begun, *start));
                }
            }
            if end == (hour + 1) * HOUR
                && matches!(self.detector, Detector::Regression(_))
                && let Some(window) = self.against_history(release, hour, begun.div_euclid(HOUR))
            {
                track.feed(&window, own, &budget.thresholds(&key, begun, window.start));
            }
            from = self.windows.range(end..to.max(end)).next().map_or(to, |(start, _)| *start);
        }
        let changes = track.finish(to, own, &budget.thresholds(&key, begun, to));
        if changes.is_empty() {
            return;
        }
        let baselines = if compares { self.baselines(release) } else { Vec::new() };
        updates.extend(changes.into_iter().map(|change| Update {
            release: Arc::clone(release),
            baselines: baselines.clone(),
            begun,
            change,
        }));
    }

    fn is_older(&self, other: &Arc<str>, release: &Arc<str>) -> bool {
        let of = |name: &Arc<str>| (self.first.get(name).copied().unwrap_or(Minute::MAX), Arc::clone(name));
        of(other) < of(release)
    }

    /// A window's cells as a release and its baseline; empty where neither has runs.
    fn arms(&self, release: &Arc<str>, cells: &BTreeMap<Key, Measure>) -> Vec<Row> {
        let on_trial = !cells.keys().any(|(name, canary, _)| name == release && !canary);
        let mut rows: BTreeMap<Arc<str>, Row> = BTreeMap::new();
        for ((name, canary, stratum), measure) in cells {
            let own = name == release;
            let serves = match &self.compare.pinned {
                Some(pinned) => name == pinned && release != pinned,
                None => !own && !canary && (on_trial || self.is_older(name, release)),
            };
            if !own && !serves {
                continue;
            }
            let row = rows.entry(Arc::clone(stratum)).or_insert_with(|| Row {
                stratum: Arc::clone(stratum),
                baseline: Measure::default(),
                canary: Measure::default(),
            });
            if own { row.canary.add(measure) } else { row.baseline.add(measure) }
        }
        rows.into_values().filter(|row| !(row.baseline.is_empty() && row.canary.is_empty())).collect()
    }

    /// An hour of a release that had no baseline beside it, against the same hour of earlier weeks.
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
                wander = Some(wander.map_or(found, |most| most.or(&found)));
                let (baseline, canary) = (Measure::of(&baseline), Measure::of(&canary));
                rows.push(Row { stratum: Arc::clone(stratum), baseline, canary });
            }
        }
        (!rows.is_empty()).then_some(Window { start: (hour + 1) * HOUR - 1, historical: true, wander, rows })
    }

    /// How a release wandered in the weeks before an hour.
    fn wander(&self, release: &Arc<str>, stratum: &Arc<str>, hour: i64, incidents: &[(Minute, Minute)]) -> Wander {
        let Some(hours) = self.hours.get(&(Arc::clone(release), Arc::clone(stratum))) else { return UNKNOWN };
        let past = Past { hours, incidents, among: None };
        let hours = past.hours(hour - WEEKS * WEEK, hour);
        Baseline::learn(&hours).map_or(UNKNOWN, |baseline| Wander::learn(&hours, &baseline))
    }

    /// The newest of the older releases that has runs in the same hour of earlier weeks.
    fn release_before(&self, release: &Arc<str>, hour: i64) -> Option<Arc<str>> {
        let has = |name: &Arc<str>| {
            self.hours.iter().filter(|((of, _), _)| of == name).any(|(_, hours)| {
                (1..=WEEKS)
                    .map(|week| self.season.weeks_before(hour, week))
                    .any(|hour| hours.range(hour, hour + 1).next().is_some())
            })
        };
        if let Some(pinned) = &self.compare.pinned {
            return (pinned != release && has(pinned)).then(|| Arc::clone(pinned));
        }
        let older = self.first.iter().filter(|(name, _)| self.is_older(name, release) && has(name));
        older.max_by(|a, b| (a.1, a.0).cmp(&(b.1, b.0))).map(|(name, _)| Arc::clone(name))
    }

    /// The releases that one has been judged against in the last hours.
    pub fn baselines(&self, release: &Arc<str>) -> Vec<Arc<str>> {
        if let Some(pinned) = &self.compare.pinned {
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

    /// The only baseline, where one is pinned.
    pub fn pinned(&self) -> Option<&Arc<str>> {
        self.compare.pinned.as_ref()
    }

    /// Releases that began before one: those that it is judged against in full rollout.
    pub fn older(&self, release: &str) -> Vec<Arc<str>> {
        let release = Arc::from(release);
        self.first.keys().filter(|name| **name != release && self.is_older(name, &release)).cloned().collect()
    }

    /// Forgets windows that no correction can reach.
    fn forget(&mut self, to: Minute) {
        let kept = self.tracks.values().map(Track::keeps_from).min();
        // Without a track nothing has been judged; a release that comes may still find its baseline in the last hours.
        let from = kept.unwrap_or(to).min(to - to.rem_euclid(HOUR) - PRIMED - HOUR);
        if from > self.forgotten && kept.is_none_or(|kept| kept > Minute::MIN) {
            self.windows = self.windows.split_off(&from);
            self.forgotten = from;
        }
    }
}

/// Name of a series among all of a rule.
pub fn series_key(family: &str, release: &str) -> String {
    if release.is_empty() { family.to_owned() } else { format!("{family}\u{1f}{release}") }
}

fn own_rows(cells: &BTreeMap<Key, Measure>) -> Vec<Row> {
    let mut rows: BTreeMap<Arc<str>, Row> = BTreeMap::new();
    for ((_, _, stratum), measure) in cells {
        let row = rows.entry(Arc::clone(stratum)).or_insert_with(|| Row {
            stratum: Arc::clone(stratum),
            baseline: Measure::default(),
            canary: Measure::default(),
        });
        row.canary.add(measure);
    }
    rows.into_values().collect()
}
