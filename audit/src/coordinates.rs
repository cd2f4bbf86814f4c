//! Compares the rows of a partition with the offset ranges of commits: none is missing (L-1) or duplicated (L-2).
//!
//! Pure arithmetic. Offsets are held as runs of consecutive numbers, so that memory depends on the number of gaps and not of
//! rows. Several jobs may read one topic, each with its own commits; an offset may then be in one row for each of them.

/// Consecutive offsets [start, end), each in one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Run {
    pub(crate) start: i64,
    pub(crate) end: i64,
}

/// The offset range of one commit of one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) from: i64,
    pub(crate) next: i64,
    /// Number of offsets without a message, if the commit states it.
    pub(crate) passed_over: Option<i64>,
    /// Version of the commit.
    pub(crate) version: i64,
}

/// Rows between two offsets that retention or an erasure removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) from: i64,
    pub(crate) next: i64,
    pub(crate) rows: i64,
}

/// All that is known of one partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// Ranges of the commits of all jobs.
    pub(crate) taken: Vec<Taken>,
    /// Rows that were removed on purpose.
    pub(crate) removed: Vec<Removed>,
    /// Offsets from before the first log entry, which may have rows: their number is unknown.
    pub(crate) before: Vec<Run>,
    /// Offsets that `quarantine` has committed and `events` has not: rejected messages may be in `quarantine` already.
    pub(crate) pending: Vec<Run>,
    /// Offsets of rows of `events`.
    pub(crate) events: Vec<Run>,
    /// Offsets of rows of `quarantine`.
    pub(crate) quarantine: Vec<Run>,
}

/// Offsets in more rows than commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Surplus {
    pub(crate) run: Run,
    /// Rows of `events` at each of them.
    pub(crate) events: i64,
    /// Rows of `quarantine` at each of them.
    pub(crate) quarantine: i64,
    /// Number of commits with each of them in their range.
    pub(crate) taken: i64,
}

/// A commit, or several with overlapping ranges, with a number of rows that does not match the range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    pub(crate) run: Run,
    /// First and last version of the commits.
    pub(crate) versions: (i64, i64),
    /// Number of offsets in their ranges.
    pub(crate) offsets: i64,
    /// Number of these in `events` or `quarantine`.
    pub(crate) rows: i64,
    /// Number of these without a message; `None` if a commit does not state it.
    pub(crate) passed_over: Option<i64>,
    /// Number of these that were removed on purpose.
    pub(crate) removed: i64,
    /// The first offsets without a row.
    pub(crate) empty: Vec<Run>,
}

/// The result for a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) offsets: i64,
    pub(crate) events: i64,
    pub(crate) quarantined: i64,
    pub(crate) passed_over: i64,
    /// Rows that were removed on purpose.
    pub(crate) removed: i64,
    /// Rows of `quarantine` beyond the offset of `events`.
    pub(crate) pending: i64,
    pub(crate) surplus: Vec<Surplus>,
    pub(crate) mismatches: Vec<Mismatch>,
}

/// Most runs of offsets without a row that a finding names.
const EMPTY_KEPT: usize = 3;

/// Returns the offsets of rows as runs; a duplicated offset is in two runs.
pub(crate) fn runs(mut offsets: Vec<i64>) -> Vec<Run> {
    offsets.sort_unstable();
    let mut runs: Vec<Run> = Vec::new();
    for offset in offsets {
        match runs.last_mut() {
            Some(run) if run.end == offset => run.end += 1,
            _ => runs.push(Run { start: offset, end: offset + 1 }),
        }
    }
    runs
}

/// The kind of a run that begins or ends at an offset.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Taken,
    Before,
    Pending,
    Events,
    Quarantine,
}

/// Commits with overlapping ranges; adjacent ranges do not overlap. Removed rows join the commits that they may be of.
struct Group {
    run: Run,
    /// None if there are only removed rows.
    versions: Option<(i64, i64)>,
    offsets: i64,
    passed_over: Option<i64>,
    removed: i64,
    rows: i64,
    empty: Vec<Run>,
}

/// Compares a partition's rows with its commits.
pub(crate) fn judge(place: &Place) -> Verdict {
    let mut groups = groups(place);
    let mut verdict = Verdict { offsets: groups.iter().map(|group| group.offsets).sum(), ..Verdict::default() };
    verdict.removed = place.removed.iter().map(|removed| removed.rows).sum();
    verdict.passed_over = place.taken.iter().filter_map(|taken| taken.passed_over).sum();
    let edges = edges(place);
    let mut depth = [0_i64; 5];
    let (mut group, mut at) = (0, i64::MIN);
    for (position, of, step) in edges {
        if position > at {
            while groups.get(group).is_some_and(|group| group.run.end <= at) {
                group += 1;
            }
            segment(Run { start: at, end: position }, depth, groups.get_mut(group), &mut verdict);
            at = position;
        }
        depth[of as usize] += step;
    }
    // Rows may have been removed of commits from before the first log entry, too: then no more than so many are missing.
    let is_known = |group: &Group| place.before.iter().all(|before| before.end <= group.run.start);
    let wrong = |group: &Group| {
        let missing = group.offsets - group.rows - group.passed_over.unwrap_or(0);
        let explained = if is_known(group) { group.removed..=group.removed } else { 0..=group.removed };
        group.versions.is_some() && !explained.contains(&missing)
    };
    verdict.mismatches = groups
        .into_iter()
        .filter(wrong)
        .map(|Group { run, versions, offsets, passed_over, removed, rows, empty }| Mismatch {
            run,
            versions: versions.unwrap_or_default(),
            offsets,
            rows,
            passed_over,
            removed,
            empty,
        })
        .collect();
    verdict
}

/// Adds a run of offsets that are all in the same number of rows and commits.
fn segment(run: Run, depth: [i64; 5], group: Option<&mut Group>, verdict: &mut Verdict) {
    let [taken, before, pending, events, quarantine] = depth;
    if taken + before + pending + events + quarantine == 0 {
        return;
    }
    let length = run.end.saturating_sub(run.start);
    if events > taken + before || events + quarantine > taken + before + pending {
        let surplus = Surplus { run, events, quarantine, taken: taken + before };
        match verdict.surplus.last_mut() {
            Some(last) if last.run.end == run.start && Surplus { run, ..*last } == surplus => last.run.end = run.end,
            _ => verdict.surplus.push(surplus),
        }
    }
    let counted_events = events.min(taken);
    let counted_quarantine = quarantine.min(taken - counted_events);
    verdict.events += counted_events * length;
    verdict.quarantined += counted_quarantine * length;
    if pending > 0 {
        verdict.pending += (quarantine - counted_quarantine).min(pending) * length;
    }
    let counted = counted_events + counted_quarantine;
    if let Some(group) = group.filter(|_| taken > 0) {
        group.rows += counted * length;
        if counted < taken {
            let kept = group.empty.len();
            match group.empty.last_mut() {
                Some(last) if last.end == run.start => last.end = run.end,
                _ if kept < EMPTY_KEPT => group.empty.push(run),
                _ => {}
            }
        }
    }
}

/// Returns the commits in the order of their offsets. Overlapping ones form a group, together with the removed rows between
/// their offsets.
fn groups(place: &Place) -> Vec<Group> {
    let taken = place.taken.iter().map(|taken| Group {
        run: Run { start: taken.from, end: taken.next },
        versions: Some((taken.version, taken.version)),
        offsets: taken.next - taken.from,
        passed_over: taken.passed_over,
        removed: 0,
        rows: 0,
        empty: Vec::new(),
    });
    let removed = place.removed.iter().map(|removed| Group {
        run: Run { start: removed.from, end: removed.next },
        versions: None,
        offsets: 0,
        passed_over: Some(0),
        removed: removed.rows,
        rows: 0,
        empty: Vec::new(),
    });
    let mut sorted: Vec<Group> = taken.chain(removed).collect();
    sorted.sort_unstable_by_key(|group| group.run);
    let mut groups: Vec<Group> = Vec::new();
    for next in sorted {
        match groups.last_mut() {
            Some(group) if next.run.start < group.run.end => {
                group.run.end = group.run.end.max(next.run.end);
                group.versions = match (group.versions, next.versions) {
                    (Some(known), Some(more)) => Some((known.0.min(more.0), known.1.max(more.1))),
                    (known, more) => known.or(more),
                };
                group.offsets += next.offsets;
                group.removed += next.removed;
                group.passed_over = group.passed_over.zip(next.passed_over).map(|(sum, more)| sum + more);
            }
            _ => groups.push(next),
        }
    }
    groups
}

/// Returns every offset at which a run begins or ends, in order.
fn edges(place: &Place) -> Vec<(i64, Of, i64)> {
    let mut edges = Vec::new();
    let mut add = |of: Of, run: Run| {
        if run.start < run.end {
            edges.push((run.start, of, 1));
            edges.push((run.end, of, -1));
        }
    };
    place.taken.iter().for_each(|taken| add(Of::Taken, Run { start: taken.from, end: taken.next }));
    for (of, runs) in [
        (Of::Before, &place.before),
        (Of::Pending, &place.pending),
        (Of::Events, &place.events),
        (Of::Quarantine, &place.quarantine),
    ] {
        runs.iter().for_each(|run| add(of, *run));
    }
    edges.sort_unstable();
    edges
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(start: i64, end: i64) -> Run {
        Run { start, end }
    }

    fn taken(from: i64, next: i64, passed_over: i64) -> Taken {
        Taken { from, next, passed_over: Some(passed_over), version: from + 1 }
    }

    #[test]
    fn offsets_become_runs_and_one_that_is_there_twice_is_in_two() {
        assert_eq!(runs(vec![3, 1, 2, 7, 2]), [run(1, 3), run(2, 4), run(7, 8)]);
        assert_eq!(runs(Vec::new()), []);
    }

    #[test]
    fn rows_and_gaps_that_the_commits_explain_are_right() {
        let place = Place {
            taken: vec![taken(0, 10, 2), taken(10, 12, 0)],
            events: vec![run(0, 4), run(6, 9), run(10, 12)],
            quarantine: vec![run(9, 10)],
            ..Place::default()
        };
        let verdict = judge(&place);
        assert_eq!((verdict.surplus.len(), verdict.mismatches.len()), (0, 0), "{verdict:?}");
        assert_eq!((verdict.offsets, verdict.events, verdict.quarantined, verdict.passed_over), (12, 9, 1, 2));
    }

    #[test]
    fn a_lost_row_is_reported_with_its_commit_and_its_offset() {
        let place = Place {
            taken: vec![taken(0, 5, 0), taken(5, 9, 0)],
            events: vec![run(0, 6), run(7, 9)],
            ..Place::default()
        };
        let [mismatch] = judge(&place).mismatches.try_into().expect("one");
        assert_eq!((mismatch.run, mismatch.versions, mismatch.rows), (run(5, 9), (6, 6), 3));
        assert_eq!(mismatch.empty, [run(6, 7)]);
    }

    #[test]
    fn a_commit_that_explains_more_than_is_missing_is_wrong_too() {
        let place = Place { taken: vec![taken(0, 5, 1)], events: vec![run(0, 5)], ..Place::default() };
        assert_eq!(judge(&place).mismatches.len(), 1);
    }

    #[test]
    fn rows_that_are_twice_within_or_between_the_tables_are_found() {
        let place = Place {
            taken: vec![taken(0, 10, 0)],
            events: vec![run(0, 8), run(2, 4)],
            quarantine: vec![run(7, 10), run(9, 10)],
            ..Place::default()
        };
        let verdict = judge(&place);
        let found: Vec<(Run, i64, i64)> =
            verdict.surplus.iter().map(|one| (one.run, one.events, one.quarantine)).collect();
        assert_eq!(found, [(run(2, 4), 2, 0), (run(7, 8), 1, 1), (run(9, 10), 0, 2)]);
        assert_eq!(verdict.mismatches, [], "nothing is lost");
    }

    #[test]
    fn a_row_that_no_commit_took_is_found_and_one_that_is_underway_is_not() {
        let place = Place {
            taken: vec![taken(0, 4, 0)],
            pending: vec![run(4, 8)],
            events: vec![run(0, 5)],
            quarantine: vec![run(6, 7), run(9, 10)],
            ..Place::default()
        };
        let verdict = judge(&place);
        let found: Vec<Run> = verdict.surplus.iter().map(|one| one.run).collect();
        assert_eq!(found, [run(4, 5), run(9, 10)], "{verdict:?}");
        assert_eq!(verdict.pending, 1);
    }

    #[test]
    fn two_jobs_may_each_have_a_row_of_an_offset() {
        let place = Place {
            taken: vec![taken(0, 10, 0), taken(0, 6, 1)],
            events: vec![run(0, 10), run(1, 6)],
            ..Place::default()
        };
        let verdict = judge(&place);
        assert_eq!((verdict.surplus.len(), verdict.mismatches.len()), (0, 0), "{verdict:?}");
        let third = Place { events: [place.events.clone(), vec![run(3, 4)]].concat(), ..place };
        assert_eq!(judge(&third).surplus.len(), 1);
    }

    #[test]
    fn what_was_taken_before_the_log_begins_is_held_against_repeats_only() {
        let place = Place {
            taken: vec![taken(100, 110, 0)],
            before: vec![run(i64::MIN, 100)],
            events: vec![run(3, 50), run(60, 110), run(7, 8)],
            ..Place::default()
        };
        let verdict = judge(&place);
        assert_eq!(verdict.mismatches, []);
        assert_eq!(verdict.surplus.iter().map(|one| one.run).collect::<Vec<_>>(), [run(7, 8)]);
    }

    #[test]
    fn removed_rows_are_told_from_lost_ones() {
        let removed = |rows| vec![Removed { from: 2, next: 14, rows }];
        // Offsets 2, 3 and 13 were removed, of two of three commits.
        let place = |removed| Place {
            taken: vec![taken(0, 10, 0), taken(10, 15, 0), taken(15, 18, 0)],
            removed,
            events: vec![run(0, 2), run(4, 13), run(14, 18)],
            ..Place::default()
        };
        let verdict = judge(&place(removed(3)));
        assert_eq!((verdict.mismatches.len(), verdict.removed, verdict.events), (0, 3, 15), "{verdict:?}");
        let [lost] = judge(&place(removed(2))).mismatches.try_into().expect("one");
        assert_eq!((lost.run, lost.rows, lost.removed), (run(0, 15), 12, 2));
        assert_eq!(judge(&place(removed(4))).mismatches.len(), 1, "more than are missing");
        assert_eq!(judge(&place(Vec::new())).mismatches.len(), 2);
        // Some of them may be of commits that nothing is known of.
        let older = Place { before: vec![run(i64::MIN, 10)], taken: vec![taken(10, 15, 0)], ..place(removed(3)) };
        let older = Place { events: vec![run(0, 2), run(4, 13), run(14, 15)], ..older };
        assert_eq!(judge(&older).mismatches, []);
        let older = Place { events: vec![run(0, 2), run(4, 10)], ..older };
        assert_eq!(judge(&older).mismatches.len(), 1, "more is missing than was removed");
        let only = Place { before: vec![run(i64::MIN, 20)], removed: removed(3), ..Place::default() };
        assert_eq!(judge(&only).mismatches, []);
    }

    proptest! {
        /// Finds any single row that is removed or added, and nothing in an intact partition.
        #[test]
        fn any_row_lost_or_doubled_is_found(
            cuts in prop::collection::btree_set(1..200_i64, 0..12),
            fate in prop::collection::vec(0..4_u8, 200),
            victim in 0..200_usize,
        ) {
            let edges: Vec<i64> = [0].into_iter().chain(cuts).chain([200]).collect();
            let of = |kind: u8| (0..200_i64).filter(|n| fate[usize::try_from(*n).expect("small")] == kind).collect::<Vec<_>>();
            let gaps = of(3);
            let taken: Vec<Taken> = edges
                .windows(2)
                .map(|pair| taken(pair[0], pair[1], i64::try_from(gaps.iter().filter(|n| (pair[0]..pair[1]).contains(n)).count()).expect("small")))
                .collect();
            let events: Vec<i64> = (0..200).filter(|n| !gaps.contains(n) && !of(2).contains(n)).collect();
            let whole = Place { taken, events: runs(events.clone()), quarantine: runs(of(2)), ..Place::default() };
            let verdict = judge(&whole);
            prop_assert!(verdict.surplus.is_empty() && verdict.mismatches.is_empty(), "{verdict:?}");
            prop_assert_eq!(verdict.events + verdict.quarantined + verdict.passed_over, verdict.offsets);
            let victim = i64::try_from(victim).expect("small");
            let mut changed = events.clone();
            if events.contains(&victim) {
                changed.retain(|n| *n != victim);
            } else {
                changed.push(victim);
            }
            let verdict = judge(&Place { events: runs(changed), ..whole.clone() });
            prop_assert!(!verdict.surplus.is_empty() || !verdict.mismatches.is_empty(), "{victim}");
            let twice = [events.clone(), events].concat();
            let verdict = judge(&Place { events: runs(twice), ..whole.clone() });
            prop_assert_eq!(verdict.surplus.is_empty(), whole.events.is_empty());
        }
    }
}
