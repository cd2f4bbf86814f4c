//! Judging again what is no longer in memory, and dropping what has no runs.

use std::sync::Arc;

use super::{Family, PRIMED_MINUTES, SPARE_HOURS, series_key};
use crate::budget::Budget;
use crate::detector::HOUR;
use crate::machine::AlertState;
use crate::observation::Minute;
use crate::track::Track;
use crate::windows::Windows;

// === impl Family ===

impl Family {
    /// Notes a correction of a window that is not in memory any more.
    pub(super) fn note_late(&mut self, release: &Arc<str>, window: Minute) {
        self.too_late += 1;
        self.late_from = Some(self.late_from.map_or(window, |late_from| late_from.min(window)));
        // A release that began earlier than it seemed is of another age, and so are those after it.
        let earlier = self.lives.get::<str>(release).is_none_or(|life| window < life.first);
        let reaches = |dropped: &Arc<str>| self.lives.get::<str>(dropped).is_some_and(|life| window <= life.last);
        self.from_scratch |= earlier || self.dropped.keys().any(reaches);
    }

    /// Returns the first window that a series reads when it is judged again from a checkpoint.
    fn read_from(&self, track: &Track, checkpoint: Minute) -> Minute {
        match checkpoint {
            Minute::MIN if self.detector.compares_releases() => track.started().saturating_sub(PRIMED_MINUTES),
            Minute::MIN => track.started(),
            _ => checkpoint.div_euclid(HOUR) * HOUR,
        }
    }

    /// Returns true if everything is in memory that judging again from a window on needs.
    pub(super) fn has_windows_since(&self, track: &Track, window: Minute) -> bool {
        let known = track.checkpoint_before(window);
        known
            .is_some_and(|checkpoint| checkpoint >= track.next() || self.read_from(track, checkpoint) >= self.forgotten)
    }

    /// Rewinds a series to before a corrected window, or notes that this needs windows that are not in memory.
    pub(super) fn rewind(&mut self, track: &mut Track, corrected: Minute) {
        if self.has_windows_since(track, corrected) {
            track.rewind(corrected);
        } else {
            self.too_late += 1;
            self.late_from = Some(self.late_from.map_or(corrected, |late_from| late_from.min(corrected)));
        }
    }

    /// Returns the first window that is needed to judge again what corrections changed; none if nothing waits for that,
    /// and the earliest possible one if the series have to be judged from their beginnings.
    pub fn wants(&self) -> Option<Minute> {
        if self.from_scratch {
            return Some(Minute::MIN);
        }
        let late_from = self.late_from?;
        let mut from = late_from.div_euclid(HOUR) * HOUR;
        for track in self.tracks.values().filter(|track| late_from < track.next()) {
            let Some(checkpoint) = track.checkpoint_before(late_from) else { return Some(Minute::MIN) };
            from = from.min(self.read_from(track, checkpoint));
        }
        Some(from)
    }

    /// Goes back to before what [`Family::wants`]. From then on, the caller adds all windows from there in order, with
    /// all corrections so far, and evaluates from time to time. The evaluation that reaches the time up to which
    /// windows had been judged, which is returned, reports the differences.
    pub fn begin_again(&mut self, budget: &mut Budget) -> Option<Minute> {
        let from = self.wants()?;
        let again_to = self.evaluated;
        (self.again_to, self.windows, self.added) = (Some(again_to), Windows::default(), Vec::new());
        if from == Minute::MIN {
            let judged = self.tracks.iter().map(|(release, track)| (release, track.started()));
            for (release, started) in judged.chain(self.dropped.iter().map(|(release, started)| (release, *started))) {
                budget.forget(&series_key(&self.name, release), started);
            }
            self.tracks = Default::default();
            self.dropped = Default::default();
            self.incidents = Default::default();
            self.lives = Default::default();
            self.hours = Default::default();
        } else if let Some(late_from) = self.late_from {
            self.tracks.values_mut().for_each(|track| {
                track.rewind(late_from);
            });
            self.hours_known = true;
        }
        (self.forgotten, self.evaluated) = (from, from);
        (self.late_from, self.from_scratch, self.dirty_from) = (None, false, None);
        Some(again_to)
    }

    /// Gives up judging again half-way, because the windows cannot be read: all of it has to be done once more.
    pub fn start_over(&mut self) {
        self.evaluated = self.again_to.take().unwrap_or(self.evaluated);
        (self.hours_known, self.from_scratch) = (false, true);
    }

    /// Returns the first judged window of each release, by which [`Family::come_back`] knows them again.
    pub fn retire(self) -> Vec<(Arc<str>, Minute)> {
        let judged = self.tracks.iter().map(|(release, track)| (Arc::clone(release), track.started()));
        judged.chain(self.dropped.iter().map(|(release, started)| (Arc::clone(release), *started))).collect()
    }

    /// Takes the place of a family that was dropped, to be judged from the beginning: [`Family::wants`] its windows.
    pub fn come_back(&mut self, retired: Vec<(Arc<str>, Minute)>) {
        retired.into_iter().for_each(|(release, started)| self.dropped.insert(release, started));
        self.from_scratch = true;
    }

    /// Drops the series of releases without windows since `before`, unless their alerts are pending or firing, and the
    /// past of releases that nothing reads any more.
    pub fn drop_idle(&mut self, before: Minute) {
        let lives = &self.lives;
        let ended = |release: &Arc<str>| lives.get::<str>(release).is_none_or(|life| life.last < before);
        let (count, compares) = (self.tracks.len(), self.detector.compares_releases());
        let dropped = &mut self.dropped;
        self.tracks.retain(|release, track| {
            let keep = !compares || is_active(track) || !ended(release);
            if !keep {
                dropped.insert(Arc::clone(release), track.started());
            }
            keep
        });
        let keep = self.detector.history_hours() + SPARE_HOURS;
        let oldest = self.evaluated.div_euclid(HOUR) - keep;
        let kept = self.hours.len();
        self.hours.retain(|_, hours| hours.end().is_some_and(|end| end > oldest));
        let hour = self.evaluated.div_euclid(HOUR);
        self.hours.values_mut().for_each(|hours| hours.close_before(hour));
        if self.tracks.len() < count || self.hours.len() < kept {
            self.windows.forget_keys();
        }
    }

    /// Returns true if it has had no windows since `before`, no alert of it is pending or firing, and nothing waits to
    /// be judged: the tables hold everything that it knows.
    pub fn is_idle(&self, before: Minute) -> bool {
        self.wants().is_none()
            && self.added.is_empty()
            && self.lives.iter().all(|(_, life)| life.last < before)
            && !self.tracks.values().any(is_active)
    }
}

fn is_active(track: &Track) -> bool {
    matches!(track.state(), AlertState::Pending | AlertState::Firing)
}
