//! A window as each release sees it: its own runs, and those of its baseline.
//!
//! A canary is judged against all releases in full rollout, a release in full rollout against the older ones among
//! them. The releases are therefore added up once, from the oldest to the newest: the cost of a window grows with the
//! number of its releases, not with the number of pairs.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::observation::{Measure, Minute, StratumRow};
use crate::windows::{OpenWindow, Windows};

/// Runs by stratum.
type Strata = BTreeMap<Arc<str>, Measure>;

/// The runs of a window, by side.
pub(super) struct Sides {
    pub(super) start: Minute,
    /// All runs of each release.
    own: BTreeMap<Arc<str>, Strata>,
    /// For each release in full rollout, the runs of the older ones.
    older: BTreeMap<Arc<str>, Strata>,
    /// All releases in full rollout.
    rolled_out: Strata,
}

// === impl Sides ===

impl Sides {
    /// Splits a window. `age` orders releases from the oldest to the newest.
    pub(super) fn of<Age: Ord>(windows: &Windows, window: &OpenWindow, age: impl Fn(&Arc<str>) -> Age) -> Self {
        let mut own: BTreeMap<Arc<str>, Strata> = BTreeMap::new();
        let mut full: BTreeMap<&Arc<str>, Vec<(&Arc<str>, &Measure)>> = BTreeMap::new();
        for ((release, canary, stratum), measure) in windows.cells(window) {
            own.entry(Arc::clone(release)).or_default().entry(Arc::clone(stratum)).or_default().add(measure);
            if !canary {
                full.entry(release).or_default().push((stratum, measure));
            }
        }
        let mut full: Vec<_> = full.into_iter().collect();
        full.sort_by_cached_key(|(release, _)| age(release));
        let (mut older, mut rolled_out) = (BTreeMap::new(), Strata::new());
        for (release, strata) in full {
            older.insert(Arc::clone(release), rolled_out.clone());
            for (stratum, measure) in strata {
                rolled_out.entry(Arc::clone(stratum)).or_default().add(measure);
            }
        }
        Self { start: window.start, own, older, rolled_out }
    }

    /// Returns true if a release has a cell, even one without runs.
    pub(super) fn has(&self, release: &str) -> bool {
        self.own.contains_key(release)
    }

    /// Returns a release and its baseline, by stratum; empty if neither has runs. A pinned baseline is the only one.
    pub(super) fn rows(&self, release: &str, pinned: Option<&Arc<str>>) -> Vec<StratumRow> {
        let none = Strata::new();
        let own = self.own.get(release).unwrap_or(&none);
        let baseline = match pinned {
            Some(pinned) if **pinned != *release => self.own.get(pinned).unwrap_or(&none),
            Some(_) => &none,
            None => self.older.get(release).unwrap_or(&self.rolled_out),
        };
        let mut rows: BTreeMap<&Arc<str>, (Option<&Measure>, Option<&Measure>)> = BTreeMap::new();
        baseline.iter().for_each(|(stratum, measure)| rows.entry(stratum).or_default().0 = Some(measure));
        own.iter().for_each(|(stratum, measure)| rows.entry(stratum).or_default().1 = Some(measure));
        let rows = rows.into_iter().map(|(stratum, (baseline, canary))| StratumRow {
            stratum: Arc::clone(stratum),
            baseline: baseline.cloned().unwrap_or_default(),
            canary: canary.cloned().unwrap_or_default(),
        });
        rows.filter(|row| !(row.baseline.is_empty() && row.canary.is_empty())).collect()
    }

    /// Returns the runs of all releases together, by stratum.
    pub(super) fn together(&self) -> Vec<StratumRow> {
        let mut all = Strata::new();
        for (stratum, measure) in self.own.values().flatten() {
            all.entry(Arc::clone(stratum)).or_default().add(measure);
        }
        let row = |(stratum, canary)| StratumRow { stratum, baseline: Measure::default(), canary };
        all.into_iter().map(row).collect()
    }
}
