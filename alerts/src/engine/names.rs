//! Names of releases and strata, each kept once however many series have it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bellwether_detect::Cell;

/// The names that the series of a rule share.
#[derive(Default)]
pub(super) struct Names(BTreeSet<Arc<str>>);

// === impl Names ===

impl Names {
    /// Replaces the names in a cell by the shared ones.
    pub(super) fn share(&mut self, cell: &mut Cell) {
        for name in [&mut cell.release, &mut cell.stratum] {
            match self.0.get(name) {
                Some(known) => *name = Arc::clone(known),
                None => drop(self.0.insert(Arc::clone(name))),
            }
        }
    }

    /// Forgets the names that no series has any more.
    pub(super) fn forget_unused(&mut self) {
        self.0.retain(|name| Arc::strong_count(name) > 1);
    }
}

#[cfg(test)]
mod tests {
    use bellwether_detect::Measure;

    use super::*;

    #[test]
    fn equal_names_are_one_and_unused_ones_go() {
        let cell = |release: &str| Cell {
            window: 0,
            release: Arc::from(release),
            canary: false,
            stratum: Arc::from(""),
            measure: Measure::default(),
        };
        let mut names = Names::default();
        let mut cells = [cell("v1"), cell("v1"), cell("v2")];
        cells.iter_mut().for_each(|cell| names.share(cell));
        assert!(Arc::ptr_eq(&cells[0].release, &cells[1].release) && Arc::ptr_eq(&cells[0].stratum, &cells[2].stratum));
        assert_eq!(&*cells[2].release, "v2");
        let kept = Arc::clone(&cells[0].release);
        drop(cells);
        names.forget_unused();
        assert_eq!(names.0.iter().map(|name| &**name).collect::<Vec<_>>(), ["v1"]);
        drop(kept);
        names.forget_unused();
        assert_eq!(names.0.len(), 0);
    }
}
