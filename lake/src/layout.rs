//! The division of aggregation into shards, according to the log of `metrics`. A follower of that table learns here how far
//! it has been aggregated.

use bellwether_tables::AppId;

use crate::commit::{Advance, Snapshot};

/// Greatest number of shards. The number of [`AppId::Layout`] is the generation times this plus one, plus the shards.
pub const MOST_SHARDS: u32 = 1000;

/// Returns the application id of a shard. Its number is the version of `events` that the shard reads next.
pub fn app_of(shard: u32) -> String {
    AppId::Shard(shard).to_string()
}

/// The division of the runs into shards. As a number it only grows, and every commit of an aggregator requires it to be
/// unchanged: after a rebuild, all aggregators restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Number of rebuilds so far.
    pub generation: i64,
    pub shards: u32,
}

// === impl Layout ===

impl Layout {
    /// Returns the layout of a version of `metrics`; `None` if nothing has been committed yet.
    pub fn of(on: &Snapshot) -> Option<Self> {
        let Some(number) = on.next(&AppId::Layout.to_string()) else {
            return on.next(&app_of(0)).map(|_| Self { generation: 0, shards: 1 });
        };
        let shards = u32::try_from(number.rem_euclid(i64::from(MOST_SHARDS) + 1)).unwrap_or(1);
        Some(Self { generation: number.div_euclid(i64::from(MOST_SHARDS) + 1), shards })
    }

    /// Returns the advance, or the condition, of a commit for this layout.
    pub fn advance(self, on: &Snapshot) -> Advance {
        let next = self.generation * (i64::from(MOST_SHARDS) + 1) + i64::from(self.shards);
        let app_id = AppId::Layout.to_string();
        Advance { expected: on.next(&app_id), app_id, next }
    }

    /// Returns for each shard the version of `events` that it reads next.
    pub fn positions(self, on: &Snapshot) -> impl Iterator<Item = (u32, i64)> {
        (0..self.shards).map(|shard| (shard, on.next(&app_of(shard)).unwrap_or(0)))
    }

    /// Returns the version of `events` that the shard furthest behind reads next: `metrics` covers all earlier ones.
    pub fn reads_next(on: &Snapshot) -> i64 {
        Self::of(on).and_then(|layout| layout.positions(on).map(|(_, next)| next).min()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_layout_is_read_back_and_only_grows() {
        let empty = Snapshot::new(0, BTreeMap::new());
        assert_eq!(Layout::of(&empty), None);
        let old = Snapshot::new(3, BTreeMap::from([(app_of(0), 7)]));
        assert_eq!(Layout::of(&old), Some(Layout { generation: 0, shards: 1 }), "written before there were shards");
        let mut last = 0;
        for (generation, shards) in [(0, 1), (0, MOST_SHARDS), (1, 4), (2, 1), (3, 1)] {
            let layout = Layout { generation, shards };
            let advance = layout.advance(&empty);
            assert!(advance.next > last);
            last = advance.next;
            let on = Snapshot::new(1, BTreeMap::from([(advance.app_id, advance.next), (app_of(0), 9)]));
            assert_eq!(Layout::of(&on), Some(layout));
            assert_eq!(layout.positions(&on).next(), Some((0, 9)));
            assert_eq!(Layout::reads_next(&on), if shards == 1 { 9 } else { 0 });
        }
    }
}
