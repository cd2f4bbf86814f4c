//! Blocks: windows judged together. A block closes on run counts and elapsed time, never on outcomes; this keeps the
//! evidence of [`crate::e2x2`] exact.

use crate::invalid::Invalid;

/// The condition under which a block closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRule {
    min_runs: u64,
    max_windows: u64,
}

/// Assigns windows of one stratum to numbered blocks.
#[derive(Clone, Debug)]
pub struct Blocks {
    rule: BlockRule,
    number: u64,
    runs: [u64; 2],
    start: Option<i64>,
}

// === impl BlockRule ===

impl BlockRule {
    /// Creates a rule that closes a block once both arms have `min_runs` runs, or once `max_windows` windows have
    /// passed since the block began.
    ///
    /// # Errors
    /// Fails if either is 0.
    pub fn new(min_runs: u64, max_windows: u64) -> Result<Self, Invalid> {
        if min_runs == 0 || max_windows == 0 {
            return Err(Invalid::new("runs and windows of a block", min_runs.min(max_windows), "at least 1"));
        }
        Ok(Self { min_runs, max_windows })
    }
}

impl Default for BlockRule {
    /// 20 runs in each arm, or an hour of one-minute windows.
    fn default() -> Self {
        Self { min_runs: 20, max_windows: 60 }
    }
}

// === impl Blocks ===

impl Blocks {
    /// Creates the state before the first window.
    pub fn new(rule: BlockRule) -> Self {
        Self { rule, number: 0, runs: [0; 2], start: None }
    }

    /// Returns the block number of the next window. `window` is the window's number since the epoch (minutes, for
    /// one-minute windows). Windows arrive in order; windows without runs may be omitted.
    pub fn next(&mut self, window: i64, runs_a: u64, runs_b: u64) -> u64 {
        let full = self.runs[0].min(self.runs[1]) >= self.rule.min_runs;
        let old = self.start.is_some_and(|start| window.abs_diff(start) >= self.rule.max_windows);
        if full || old {
            self.number += 1;
            self.runs = [0; 2];
            self.start = None;
        }
        self.start.get_or_insert(window);
        self.runs[0] = self.runs[0].saturating_add(runs_a);
        self.runs[1] = self.runs[1].saturating_add(runs_b);
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_closes_by_runs_or_by_time() {
        let mut blocks = Blocks::new(BlockRule::new(20, 60).expect("a rule"));
        let numbers: Vec<u64> =
            [(0, 15, 15), (1, 4, 9), (2, 1, 1), (3, 100, 2), (62, 5, 5), (63, 5, 5), (64, 90, 90), (65, 1, 1)]
                .into_iter()
                .map(|(window, a, b)| blocks.next(window, a, b))
                .collect();
        assert_eq!(numbers, [0, 0, 0, 1, 1, 2, 2, 3]);
        assert!(BlockRule::new(0, 60).is_err() && BlockRule::new(20, 0).is_err());
    }

    #[test]
    fn enormous_counts_do_not_overflow() {
        let mut blocks = Blocks::new(BlockRule::default());
        blocks.next(i64::MIN, u64::MAX, 1);
        assert_eq!(blocks.next(i64::MAX, u64::MAX, u64::MAX), 1);
    }
}
