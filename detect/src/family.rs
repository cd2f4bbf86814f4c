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
//!
//! The windows of the last hours stay in memory. A correction of an older window is counted, and [`Family::wants`] says
//! which windows are needed to judge again: [`Family::begin_again`] goes back, the windows are added once more in order,
//! and the last evaluation reports what changed (`family/again.rs`). A release without runs can be dropped; it comes
//! back in the same way.

mod again;
mod history;
mod sides;
mod starts;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::budget::{Budget, Thresholds};
use crate::crowd::CrowdMember;
use crate::detector::{Detector, HOUR};
use crate::hours::Hours;
use crate::machine::AlertTiming;
use crate::observation::{Measure, Minute, Window};
use crate::season::Season;
use crate::sorted::Sorted;
use crate::track::{Change, REACH, Track, TrackContext};
use crate::windows::{Key, Windows};
use sides::Sides;

/// Minutes before the start of a series from which the properties of its baseline are learned.
pub const PRIMED_MINUTES: i64 = 4 * HOUR;

/// Hours of the past that are kept beyond those that a detector learns from: for windows that are judged again.
const SPARE_HOURS: i64 = REACH / HOUR + 24;

/// Minutes after which a window is not expected to change any more.
const SETTLED: i64 = 5;

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

/// The windows of a release.
#[derive(Clone, Copy, Debug)]
struct Life {
    first: Minute,
    last: Minute,
    /// The last one in full rollout.
    last_full: Minute,
}

/// Releases of one task, or one series without releases.
pub struct Family {
    detector: Detector,
    timing: AlertTiming,
    policy: BaselinePolicy,
    season: Season,
    name: Arc<str>,
    windows: Windows,
    /// Cells that were added since the windows were last read.
    added: Vec<(Minute, Key, Measure)>,
    lives: Sorted<Arc<str>, Life>,
    hours: Sorted<(Arc<str>, Arc<str>), Hours>,
    tracks: Sorted<Arc<str>, Track>,
    /// First judged window of each release that was dropped.
    dropped: Sorted<Arc<str>, Minute>,
    /// Periods of firing of the releases that have any.
    incidents: Sorted<Arc<str>, Vec<(Minute, Minute)>>,
    /// Earliest window that changed since the last evaluation.
    dirty_from: Option<Minute>,
    /// Windows before this have been dropped.
    forgotten: Minute,
    evaluated: Minute,
    too_late: u64,
    /// Earliest correction of a window that is not in memory any more.
    late_from: Option<Minute>,
    /// The series have to be judged from their beginnings.
    from_scratch: bool,
    /// Windows are being judged again: until when they had been.
    again_to: Option<Minute>,
    /// The hours of the windows that are judged again are known.
    hours_known: bool,
}

// === impl Life ===

impl Life {
    fn note(&mut self, window: Minute, canary: bool) {
        (self.first, self.last) = (self.first.min(window), self.last.max(window));
        if !canary {
            self.last_full = self.last_full.max(window);
        }
    }
}

// === impl Family ===

impl Family {
    /// Creates an empty family. `name` distinguishes it from the other families of its rule.
    pub fn new(name: impl Into<Arc<str>>, detector: Detector, timing: AlertTiming, policy: BaselinePolicy) -> Self {
        Self {
            detector,
            timing,
            policy,
            season: Season::default(),
            name: name.into(),
            windows: Windows::default(),
            added: Vec::new(),
            lives: Sorted::default(),
            hours: Sorted::default(),
            tracks: Sorted::default(),
            dropped: Sorted::default(),
            incidents: Sorted::default(),
            dirty_from: None,
            forgotten: Minute::MIN,
            evaluated: Minute::MIN,
            too_late: 0,
            late_from: None,
            from_scratch: false,
            again_to: None,
            hours_known: false,
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
        let late = cell.window < self.forgotten;
        // Most rules do not read what a late statement changes.
        if late && cell.measure.changes_nothing() {
            return;
        }
        let keep = self.detector.history_hours();
        if keep > 0 && !self.hours_known {
            let place = (Arc::clone(&release), Arc::clone(&stratum));
            let hours = self.hours.get_or_insert_with(&place, || Hours::new(self.season));
            hours.add_measure(cell.window.div_euclid(HOUR), &cell.measure, keep + SPARE_HOURS);
        }
        if late {
            self.note_late(&release, cell.window);
            return;
        }
        self.from_scratch |= self.again_to.is_none() && self.dropped.contains_key::<str>(&release);
        let born = Life { first: cell.window, last: cell.window, last_full: Minute::MIN };
        self.lives.get_or_insert_with(&release, || born).note(cell.window, cell.canary);
        self.dirty_from = Some(self.dirty_from.map_or(cell.window, |dirty_from| dirty_from.min(cell.window)));
        self.added.push((cell.window, (release, cell.canary, stratum), cell.measure));
    }

    /// Packs the cells that were added, which [`Family::evaluate`] does as well: after many cells this frees memory.
    pub fn settle(&mut self) {
        if !self.added.is_empty() {
            self.windows.add(std::mem::take(&mut self.added));
        }
    }

    /// Resumes an alert that has been firing since `at`, after its windows were dropped.
    pub fn resume(&mut self, at: Minute) {
        let mut track = Track::new(&self.detector, self.timing, at);
        track.resume(at);
        self.tracks.insert(Arc::from(""), track);
        self.lives.insert(Arc::from(""), Life { first: at, last: at, last_full: at });
    }

    /// Returns the number of additions to windows that are not in memory any more.
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

    /// Returns the past of a series that is not compared with other releases.
    pub fn own_hours(&self) -> Option<&Hours> {
        self.hours.get(&(Arc::from(""), Arc::from("")))
    }

    /// Marks the windows from `from` on to be judged again because their context changed. Does nothing if a track
    /// cannot rewind that far.
    pub fn mark_dirty(&mut self, from: Minute) {
        if self.tracks.values().all(|track| self.has_windows_since(track, from)) {
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
        let mut tracks = std::mem::take(&mut self.tracks);
        if let Some(dirty_from) = dirty_from.filter(|_| self.again_to.is_none()) {
            tracks.values_mut().for_each(|track| self.rewind(track, dirty_from));
        }
        self.judge(&mut tracks, member, budget, to);
        let mut updates = Vec::new();
        // While windows are judged again, the transitions so far are only a part.
        if self.again_to.is_none_or(|again_to| to >= again_to) {
            for (release, track) in tracks.iter_mut() {
                updates.extend(self.finish(release, track, member, budget, to));
            }
            (self.again_to, self.hours_known) = (None, false);
        }
        self.tracks = tracks;
        self.evaluated = to;
        self.forget(to);
        // Later windows are judged when they are complete.
        self.dirty_from = self.windows.first_in(to, Minute::MAX);
        updates
    }

    /// Judges the windows before `to`, hour by hour, so that an hour without a baseline is compared with history once
    /// it is over.
    fn judge(
        &mut self,
        tracks: &mut Sorted<Arc<str>, Track>,
        member: Option<CrowdMember<'_>>,
        budget: &Budget,
        to: Minute,
    ) {
        let mut at = tracks.values().map(|track| track.next().max(track.started())).min().unwrap_or(to);
        while at < to {
            let hour = at.div_euclid(HOUR);
            let end = ((hour + 1) * HOUR).min(to);
            // Only the comparison with earlier weeks looks back over the hour.
            let sides = self.sides(if self.compares_hour(hour, end) { hour * HOUR } else { at }, end);
            self.note_incidents(tracks);
            for (release, track) in tracks.iter_mut().filter(|(_, track)| track.next().max(track.started()) < end) {
                let key = series_key(&self.name, release);
                let thresholds = |track: &Track, at| budget.thresholds(&key, track.started(), at);
                self.judge_hour(release, track, &sides, member, thresholds, (hour, end));
            }
            at = self.windows.first_in(end, to).unwrap_or(to);
        }
        self.note_incidents(tracks);
    }

    /// Returns true if an hour is compared with earlier weeks when it has been judged up to `end`: it is over then.
    fn compares_hour(&self, hour: i64, end: Minute) -> bool {
        end == (hour + 1) * HOUR && matches!(self.detector, Detector::Regression(_))
    }

    /// Judges the windows of one hour up to `end`.
    fn judge_hour(
        &self,
        release: &Arc<str>,
        track: &mut Track,
        sides: &[Sides],
        member: Option<CrowdMember<'_>>,
        thresholds: impl Fn(&Track, Minute) -> Thresholds,
        (hour, end): (i64, Minute),
    ) {
        let none = Hours::new(self.season);
        let hours = self.hours.get(&(Arc::clone(release), Arc::from(""))).unwrap_or(&none);
        let own = TrackContext { hours, member };
        let (compares, pinned) = (self.detector.compares_releases(), self.policy.pinned.as_ref());
        let started = track.started();
        if compares && track.next() == Minute::MIN {
            for before in self.sides(started - PRIMED_MINUTES, started) {
                let rows = before.rows(release, pinned);
                track.prime(&Window { start: before.start, historical: false, wander: None, rows });
            }
        }
        let from = track.next().max(started);
        for sides in sides.iter().filter(|sides| sides.start >= from) {
            if compares && track.is_dormant(sides.start) && !sides.has(release) {
                track.pass(sides.start);
                continue;
            }
            let rows = if compares { sides.rows(release, pinned) } else { sides.together() };
            if !rows.is_empty() {
                let window = Window { start: sides.start, historical: false, wander: None, rows };
                let thresholds = thresholds(track, window.start);
                track.feed(&window, own, &thresholds);
            }
        }
        if self.compares_hour(hour, end)
            && let Some(window) = self.against_history(release, hour, started.div_euclid(HOUR), sides)
        {
            let thresholds = thresholds(track, window.start);
            track.feed(&window, own, &thresholds);
        }
    }

    fn finish(
        &self,
        release: &Arc<str>,
        track: &mut Track,
        member: Option<CrowdMember<'_>>,
        budget: &Budget,
        to: Minute,
    ) -> Vec<SeriesUpdate> {
        let none = Hours::new(self.season);
        let hours = self.hours.get(&(Arc::clone(release), Arc::from(""))).unwrap_or(&none);
        let started = track.started();
        let thresholds = budget.thresholds(&series_key(&self.name, release), started, to);
        let changes = track.finish(to, TrackContext { hours, member }, &thresholds);
        if changes.is_empty() {
            return Vec::new();
        }
        let baselines = if self.detector.compares_releases() { self.baselines(release) } else { Vec::new() };
        let updates = changes.into_iter().map(|change| SeriesUpdate {
            release: Arc::clone(release),
            baselines: baselines.clone(),
            started,
            change,
        });
        updates.collect()
    }

    /// Returns the windows [from, to) as the releases see them.
    fn sides(&self, from: Minute, to: Minute) -> Vec<Sides> {
        let windows = self.windows.range(from, to);
        windows.iter().map(|window| Sides::of(&self.windows, window, |release| self.age(release))).collect()
    }

    /// Keeps the periods of firing where the comparison with earlier weeks finds them, even after a release is dropped.
    fn note_incidents(&mut self, tracks: &Sorted<Arc<str>, Track>) {
        for (release, track) in tracks.iter() {
            if self.incidents.get::<str>(release).map_or(&[][..], Vec::as_slice) != track.incidents() {
                self.incidents.insert(Arc::clone(release), track.incidents().to_vec());
            }
        }
    }

    /// Orders releases by their first windows, then by name.
    fn age(&self, release: &Arc<str>) -> (Minute, Arc<str>) {
        (self.lives.get::<str>(release).map_or(Minute::MAX, |life| life.first), Arc::clone(release))
    }

    fn is_older(&self, other: &Arc<str>, release: &Arc<str>) -> bool {
        self.age(other) < self.age(release)
    }

    /// Returns the releases that a release has been judged against in the last hours.
    pub fn baselines(&self, release: &Arc<str>) -> Vec<Arc<str>> {
        if let Some(pinned) = &self.policy.pinned {
            return vec![Arc::clone(pinned)];
        }
        let mut names = BTreeSet::new();
        for keys in self.windows.keys_by_window() {
            let on_trial = !keys.iter().any(|(name, canary, _)| name == release && !canary);
            let serves =
                |(name, canary, _): &&&Key| name != release && !canary && (on_trial || self.is_older(name, release));
            names.extend(keys.iter().filter(serves).map(|key| Arc::clone(&key.0)));
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
        self.lives.keys().filter(|name| **name != release && self.is_older(name, &release)).cloned().collect()
    }

    /// Drops windows that nothing reads any more but late corrections.
    fn forget(&mut self, to: Minute) {
        let from = to - to.rem_euclid(HOUR) - self.detector.kept_minutes();
        if from > self.forgotten {
            self.windows.drop_before(from);
            self.forgotten = from;
        }
        self.windows.join(to - SETTLED);
    }

    /// Returns the bytes that its parts take, roughly: windows, hours and series.
    pub fn bytes(&self) -> [usize; 3] {
        let hours = self.hours.values().map(Hours::bytes).sum();
        let tracks = self.tracks.values().map(Track::bytes).sum();
        [self.windows.bytes(), hours, tracks]
    }
}

/// Returns the key of a series among all series of a rule.
pub fn series_key(family: &str, release: &str) -> String {
    if release.is_empty() { family.to_owned() } else { format!("{family}\u{1f}{release}") }
}
