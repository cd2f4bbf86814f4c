//! The identity of a run, its hash, and its rank in a sample.
//!
//! The hash is XXH3-64 (xxHash specification 0.2.0, seed 0) of these bytes: the salt, the tenant, the source and the
//! run id, each as its length in bytes (64 bits, little-endian) followed by its UTF-8 text; then the attempt (64 bits,
//! little-endian, two's complement). The salt names the sample, such as `2026-W14`: another salt is an independent
//! sample.

use std::f64::consts::LN_2;

use xxhash_rust::xxh3::xxh3_64;

use crate::weight::Weight;

/// The identity of a run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run {
    /// Tenant; empty if there is none.
    pub tenant: String,
    /// Producer of the run's events.
    pub source: String,
    /// Id of the run, unique within its source.
    pub run_id: String,
    /// Number of the attempt.
    pub attempt: i64,
}

/// The place of a run in the order in which a group takes runs: smaller ranks first, then by identity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rank(f64);

// === impl Run ===

impl Run {
    /// Returns the hash of the identity under a salt.
    pub fn hash(&self, salt: &str) -> u64 {
        let texts = [salt, &self.tenant, &self.source, &self.run_id];
        let mut bytes = Vec::with_capacity(texts.iter().map(|text| text.len() + 8).sum::<usize>() + 8);
        for text in texts {
            bytes.extend((text.len() as u64).to_le_bytes());
            bytes.extend(text.as_bytes());
        }
        bytes.extend(self.attempt.to_le_bytes());
        xxh3_64(&bytes)
    }

    /// Returns true for a fixed share of runs, independent of their ranks: a first stage for populations too large to
    /// hold, such as all successes. Multiply the producer's probability by the share.
    pub fn admitted(&self, salt: &str, share: f64) -> bool {
        uniform(self.hash(&format!("{salt}/admission"))) < share
    }
}

// === impl Rank ===

impl Rank {
    /// Returns the rank of a hash: −ln u / weight.
    pub fn of(hash: u64, weight: Weight) -> Self {
        Self(-ln(uniform(hash)) / weight.value())
    }

    /// Returns the number.
    pub const fn value(self) -> f64 {
        self.0
    }
}

impl Eq for Rank {}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Returns a number between 0 and 1, exclusive, from the upper 53 bits of a hash.
#[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
pub fn uniform(hash: u64) -> f64 {
    ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

/// Returns ln x for a normal number x > 0, within 2e-16 of its magnitude or of 1. Unlike the logarithm of the standard
/// library it uses only operations that IEEE 754 rounds exactly, so that all machines draw the same sample.
fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = f64::from(u32::try_from(bits >> 52).unwrap_or(0)) - 1023.0;
    let mut mantissa = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa /= 2.0;
        exponent += 1.0;
    }
    // ln m = 2 artanh s with |s| < 0.172: 13 terms leave less than 1e-21.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let series = (0..13_u32).rev().fold(0.0, |sum, n| sum * s * s + 1.0 / f64::from(2 * n + 1));
    exponent * LN_2 + 2.0 * s * series
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(tenant: &str, source: &str, run_id: &str, attempt: i64) -> Run {
        Run { tenant: tenant.to_owned(), source: source.to_owned(), run_id: run_id.to_owned(), attempt }
    }

    #[test]
    fn the_hash_is_xxh3() {
        // Sanity values of the reference implementation: the empty input with seed 0.
        assert_eq!(xxh3_64(b""), 0x2d06_8005_38d3_94c2);
    }

    #[test]
    fn hashes_match_their_published_vectors() {
        // Computed by the Python package xxhash from the layout at the top of this module.
        for (run, salt, hash) in [
            (run("acme", "desk", "run-1", 1), "2026-W14", 0xc2a5_d2da_2a0b_05e0),
            (run("", "", "", 0), "", 0x114d_dfda_264d_5aa9),
            (run("", "büro", "run-1", -1), "2026-W14", 0xbd95_da5c_e3a2_49c7),
        ] {
            assert_eq!(run.hash(salt), hash, "{run:?}");
        }
    }

    #[test]
    fn fields_are_kept_apart_and_each_counts() {
        let all = [
            run("", "app", "r1", 1),
            run("a", "pp", "r1", 1),
            run("", "app", "r1", 2),
            run("", "appr", "1", 1),
            run("app", "", "r1", 1),
        ];
        let hashes: std::collections::BTreeSet<u64> = all.iter().map(|run| run.hash("2026-W14")).collect();
        assert_eq!(hashes.len(), all.len());
        assert_ne!(all[0].hash("2026-W14"), all[0].hash("2026-W15"));
    }

    #[test]
    fn the_logarithm_is_that_of_the_standard_library() {
        for n in 0..20_000_u64 {
            let x = uniform(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            assert!((ln(x) - x.ln()).abs() <= 4e-16 * x.ln().abs().max(1.0), "{x}");
        }
        assert!((ln(uniform(0)) + 54.0 * LN_2).abs() < 1e-14);
    }

    #[test]
    fn an_admitted_share_is_what_was_asked_for() {
        let admitted = (0..20_000).filter(|n| run("", "app", &format!("r{n}"), 1).admitted("w", 0.25)).count();
        assert!((4_800..5_200).contains(&admitted), "{admitted}");
    }
}
