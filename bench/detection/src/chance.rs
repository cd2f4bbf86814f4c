//! Random numbers by key instead of by order: every number is a function of its purpose, so a run is the same whether
//! all of it or a single field is generated.

use std::f64::consts::TAU;

/// Identifies a random draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(u64);

// === impl Key ===

impl Key {
    /// Creates the key of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed).at(0x5eed)
    }

    /// Returns the key of item `place` under this one: SplitMix64's finaliser (Steele, Lea, Flood 2014) over both.
    #[must_use]
    pub fn at(self, place: u64) -> Self {
        let mut z = self.0.wrapping_add(place.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self(z ^ (z >> 31))
    }

    /// Returns 64 random bits.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Draws from the uniform distribution on (0, 1).
    #[expect(clippy::cast_precision_loss, reason = "53 bits are what a double holds")]
    pub fn uniform(self) -> f64 {
        ((self.0 >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// Draws an integer below `below`.
    pub fn below(self, below: u64) -> u64 {
        // The high half of the product: uniform to within 2⁻⁵⁰ for the small numbers drawn here.
        let product = u128::from(self.0) * u128::from(below);
        u64::try_from(product >> 64).unwrap_or(0)
    }

    /// Draws from the standard normal distribution by the Box–Muller transform.
    pub fn normal(self) -> f64 {
        (-2.0 * self.at(1).uniform().ln()).sqrt() * (TAU * self.at(2).uniform()).cos()
    }

    /// Draws from a Poisson distribution by Knuth's products, in steps that do not underflow.
    pub fn poisson(self, mean: f64) -> u64 {
        let (mut count, mut left, mut draw) = (0, mean, 0);
        let mut next = || {
            draw += 1;
            self.at(draw).uniform()
        };
        while left > 0.0 {
            let limit = (-left.min(30.0)).exp();
            let mut product = next();
            while product > limit {
                count += 1;
                product *= next();
            }
            left -= 30.0;
        }
        count
    }

    /// Draws from a binomial distribution, one trial at a time.
    pub fn binomial(self, n: u64, rate: f64) -> u64 {
        let happened = (0..n).filter(|draw| self.at(*draw).uniform() < rate);
        u64::try_from(happened.count()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_expected_moments() {
        let of = |draw: &dyn Fn(Key) -> f64| {
            let values: Vec<f64> = (0..20_000).map(|place| draw(Key::new(1).at(place))).collect();
            let mean = values.iter().sum::<f64>() / 20_000.0;
            (mean, values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 20_000.0)
        };
        for (name, (mean, variance), expected) in [
            ("uniform", of(&|key| key.uniform()), (0.5, 1.0 / 12.0)),
            ("normal", of(&|key| key.normal()), (0.0, 1.0)),
            ("poisson", of(&|key| key.poisson(45.0) as f64), (45.0, 45.0)),
            ("binomial", of(&|key| key.binomial(40, 0.25) as f64), (10.0, 7.5)),
            ("below", of(&|key| key.below(10) as f64), (4.5, 8.25)),
        ] {
            let error = (expected.1 / 20_000.0_f64).sqrt();
            assert!((mean - expected.0).abs() < 4.0 * error, "{name}: mean {mean}");
            assert!((variance / expected.1 - 1.0).abs() < 0.05, "{name}: variance {variance}");
        }
    }
}
