//! How the work of aggregation is laid out over shards, as the log of `metrics` says it: whoever follows that table reads
//! here how far it goes.

use bellwether_tables::AppId;

use crate::commit::{Advance, Snapshot};

/// More shards than anybody needs; also what the number of rebuilds is multiplied by.
pub const MOST_SHARDS: u32 = 1000;

/// The application of a shard: its number is the version of `events` that it reads next.
pub fn app_of(shard: u32) -> String {
    AppId::Shard(shard).to_string()
}

/// How the runs are laid out over shards. It only grows as a number, and every commit of an aggregator expects it as it
/// was: after a rebuild all of them begin anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// How often everything was rebuilt.
    pub generation: i64,
    /// Shards.
    pub shards: u32,
}

// === impl Layout ===

impl Layout {
    /// The layout of a version of `metrics`; none where nothing has been committed yet.
    pub fn of(on: &Snapshot) -> Option<Self> {
        let Some(number) = on.next(&AppId::Layout.to_string()) else {
            return on.next(&app_of(0)).map(|_| Self { generation: 0, shards: 1 });
        };
        let shards = u32::try_from(number.rem_euclid(i64::from(MOST_SHARDS) + 1)).unwrap_or(1);
        Some(Self { generation: number.div_euclid(i64::from(MOST_SHARDS) + 1), shards })
    }

    /// The step of a commit that is made for this layout.
    pub fn advance(self, on: &Snapshot) -> Advance {
        let next = self.generation * (i64::from(MOST_SHARDS) + 1) + i64::from(self.shards);
        let app_id = AppId::Layout.to_string();
        Advance { expected: on.next(&app_id), app_id, next }
    }

    /// Where each shard stands: the version of `events` that it reads next.
    pub fn stands(self, on: &Snapshot) -> impl Iterator<Item = (u32, i64)> {
        (0..self.shards).map(|shard| (shard, on.next(&app_of(shard)).unwrap_or(0)))
    }

    /// The version of `events` that the shard furthest behind reads next: `metrics` holds all before it.
    pub fn reads_next(on: &Snapshot) -> i64 {
        Self::of(on).and_then(|layout| layout.stands(on).map(|(_, next)| next).min()).unwrap_or(0)
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
            assert_eq!(layout.stands(&on).next(), Some((0, 9)));
            assert_eq!(Layout::reads_next(&on), if shards == 1 { 9 } else { 0 });
        }
    }
}
