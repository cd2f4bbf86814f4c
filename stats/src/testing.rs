//! Helpers for the tests of this crate: approximate equality and a seeded random number generator.

/// Panics if two numbers differ by more than 1e-9 × max(1, |golden|).
#[track_caller]
pub(crate) fn close(found: f64, golden: f64) {
    assert!((found - golden).abs() <= 1e-9 * golden.abs().max(1.0), "{found} instead of {golden}");
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough for simulation.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Draws from the uniform distribution on (0, 1).
    pub(crate) fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// Draws from a binomial distribution.
    pub(crate) fn binomial(&mut self, n: u64, rate: f64) -> u64 {
        (0..n).filter(|_| self.uniform() < rate).count() as u64
    }

    /// Draws from a Poisson distribution by Knuth's products, in steps that do not underflow.
    pub(crate) fn poisson(&mut self, mean: f64) -> u64 {
        let (mut count, mut left) = (0, mean);
        while left > 0.0 {
            let limit = (-left.min(30.0)).exp();
            let mut product = self.uniform();
            while product > limit {
                count += 1;
                product *= self.uniform();
            }
            left -= 30.0;
        }
        count
    }

    /// Draws from the standard normal distribution by the Box–Muller transform.
    pub(crate) fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (2.0 * std::f64::consts::PI * self.uniform()).cos()
    }
}
