//! Repeatable randomness: SplitMix64.

/// A generator of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Creates a generator from a seed; generators of one seed with different purposes are independent.
    pub(crate) fn new(seed: u64, purpose: &str) -> Self {
        let mixed = purpose.bytes().fold(seed ^ 0x5851_F42D_4C95_7F2D, |sum, byte| mix(sum ^ u64::from(byte)));
        Self(mixed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// Draws a number in [0, below).
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        assert!(below > 0, "no number is below 0");
        self.next() % below
    }

    /// Draws a number in [from, to].
    pub(crate) fn between(&mut self, from: i64, to: i64) -> i64 {
        from + self.below(u64::try_from(to - from + 1).expect("a range")) as i64
    }

    /// True once in `times` calls on average.
    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// The finaliser of SplitMix64.
pub(crate) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}
