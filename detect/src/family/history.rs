//! Comparison with earlier weeks: the baseline of an hour that has no concurrent one.

use std::collections::BTreeSet;
use std::sync::Arc;

use bellwether_stats::drift::WeeklyBaseline;
use bellwether_stats::wander::{UNKNOWN, Wander};

use super::Family;
use super::sides::Sides;
use crate::detector::{HOUR, Past};
use crate::observation::{Measure, Minute, StratumRow, Window};
use crate::weights::Arm;

/// Hours in a week.
const WEEK: i64 = 168;

/// Weeks of history that one hour is compared with.
const WEEKS: i64 = 4;

// === impl Family ===

impl Family {
    /// Compares an hour of a release that had no concurrent baseline with the same hour of earlier weeks. `windows` are
    /// those of the hour.
    pub(super) fn against_history(
        &self,
        release: &Arc<str>,
        hour: i64,
        first_hour: i64,
        windows: &[Sides],
    ) -> Option<Window> {
        if hour - first_hour >= WEEK {
            return None;
        }
        let (mut own, mut others) = (false, false);
        for sides in windows {
            for row in sides.rows(release, self.policy.pinned.as_ref()) {
                own |= row.canary.runs > 0;
                others |= row.baseline.runs > 0;
            }
        }
        if !own || others {
            return None;
        }
        let before = self.release_before(release, hour)?;
        let incidents = self.incidents.get::<str>(&before).map_or(&[][..], Vec::as_slice);
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
        let weeks: Vec<i64> = (1..=WEEKS).map(|week| self.season.weeks_before(hour, week)).collect();
        let pinned = self.policy.pinned.as_ref();
        let may = |name: &Arc<str>| match pinned {
            Some(pinned) => name == pinned && pinned != release,
            None => self.lives.contains_key::<str>(name) && self.is_older(name, release),
        };
        let with_runs = self.hours.iter().filter(|((name, _), hours)| {
            may(name) && weeks.iter().any(|hour| hours.range(*hour, hour + 1).next().is_some())
        });
        with_runs.map(|((name, _), _)| name).max_by_key(|name| self.age(name)).cloned()
    }
}
