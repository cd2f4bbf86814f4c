//! The first window of a series in which there is something to judge.

use std::sync::Arc;

use super::sides::Sides;
use super::{Family, series_key};
use crate::budget::Budget;
use crate::detector::{Detector, HOUR};
use crate::observation::{Measure, Minute, StratumRow};
use crate::track::Track;

/// A release that may begin to be judged.
struct Candidate {
    release: Arc<str>,
    /// First judged window so far.
    known: Option<Minute>,
    /// The search is over the windows [first, until).
    first: Minute,
    until: Minute,
    /// Last windows with runs of the baseline and of the release.
    seen: [Option<Minute>; 2],
    concurrent: Option<Minute>,
    cutover: Option<Minute>,
}

// === impl Candidate ===

impl Candidate {
    /// Notes a window. With few runs, two active releases seldom share a minute: an hour is allowed, the length of the
    /// longest block.
    fn note(&mut self, start: Minute, rows: &[StratumRow]) {
        let of: [fn(&StratumRow) -> &Measure; 2] = [|row| &row.baseline, |row| &row.canary];
        let mut both = true;
        for (last, of) in self.seen.iter_mut().zip(of) {
            if rows.iter().any(|row| of(row).runs > 0) {
                *last = Some(start);
            }
            both &= last.is_some_and(|last| start - last < HOUR);
        }
        if both && start >= self.first {
            self.concurrent = Some(start);
        }
    }
}

// === impl Family ===

impl Family {
    /// Finds the series that began before `to` and registers them with the budget, which must know all series before
    /// any is judged.
    pub fn start_series(&mut self, to: Minute, budget: &mut Budget) {
        self.settle();
        let Some(dirty_from) = self.dirty_from else { return };
        let mut candidates = self.candidates(dirty_from, to);
        if self.detector.compares_releases() {
            self.search(&mut candidates);
        } else {
            for candidate in &mut candidates {
                candidate.concurrent = self.windows.first_in(dirty_from, candidate.until.max(dirty_from));
            }
        }
        for Candidate { release, known, concurrent, cutover, .. } in candidates {
            let Some(started) = concurrent.or(cutover) else { continue };
            let key = series_key(&self.name, &release);
            if let Some(before) = known {
                budget.forget(&key, before);
            }
            budget.register(&key, started);
            match self.tracks.get_mut::<str>(&release) {
                Some(track) => track.set_start(started),
                None => self.tracks.insert(release, Track::new(&self.detector, self.timing, started)),
            }
        }
    }

    /// Returns the releases that may begin with the windows that changed, from `dirty_from` on. Nothing changed before.
    fn candidates(&self, dirty_from: Minute, to: Minute) -> Vec<Candidate> {
        let compares = self.detector.compares_releases();
        let recent = dirty_from - HOUR;
        let mut found = Vec::new();
        for (release, life) in self.lives.iter() {
            let known = self.tracks.get::<str>(release).map(Track::started);
            let judged = known.is_some_and(|started| started <= dirty_from);
            // Without runs of its own within an hour, a release does not begin.
            if judged || self.dropped.contains_key::<str>(release) || (compares && life.last < recent) {
                continue;
            }
            // Nor does it without another one, or a complete hour to compare with earlier weeks.
            let first = life.first.max(dirty_from);
            let until = known.map_or(to, |started| started.min(to));
            let cutover =
                matches!(self.detector, Detector::Regression(_)) && first.div_euclid(HOUR) < until.div_euclid(HOUR);
            let pinned = self.policy.pinned.is_some();
            let others = || {
                let serves = |other: &Arc<str>, last| other != release && last >= recent;
                self.lives.iter().any(|(other, life)| serves(other, if pinned { life.last } else { life.last_full }))
            };
            if compares && !cutover && !others() {
                continue;
            }
            let release = Arc::clone(release);
            found.push(Candidate { release, known, first, until, seen: [None; 2], concurrent: None, cutover: None });
        }
        found
    }

    /// Searches for the beginnings of releases, hour by hour for all of them.
    fn search(&self, candidates: &mut [Candidate]) {
        let pinned = self.policy.pinned.as_ref();
        let cuts_over = matches!(self.detector, Detector::Regression(_));
        let from = candidates.iter().map(|candidate| candidate.first - HOUR + 1).min();
        let to = candidates.iter().map(|candidate| candidate.until.max(candidate.first)).max();
        let Some((from, to)) = from.zip(to) else { return };
        let mut next = self.windows.first_in(from, to);
        while let Some(hour) = next.map(|at| at.div_euclid(HOUR)) {
            let sides: Vec<Sides> = self.sides(hour * HOUR, ((hour + 1) * HOUR).min(to));
            for candidate in candidates.iter_mut().filter(|candidate| candidate.concurrent.is_none()) {
                let (first, until) = (candidate.first, candidate.until);
                let within = first - HOUR + 1..until.max(first);
                for sides in sides.iter().filter(|sides| within.contains(&sides.start)) {
                    if candidate.concurrent.is_none() {
                        candidate.note(sides.start, &sides.rows(&candidate.release, pinned));
                    }
                }
                let whole = (first.div_euclid(HOUR)..until.div_euclid(HOUR)).contains(&hour);
                if cuts_over && whole && candidate.concurrent.is_none() && candidate.cutover.is_none() {
                    let window = self.against_history(&candidate.release, hour, hour, &sides);
                    candidate.cutover = window.map(|window| window.start);
                }
            }
            if candidates.iter().all(|candidate| candidate.concurrent.is_some()) {
                return;
            }
            next = self.windows.first_in((hour + 1) * HOUR, to);
        }
    }
}
