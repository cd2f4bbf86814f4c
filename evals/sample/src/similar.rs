//! Near-duplicates: inputs that differ in little, by MinHash and locality-sensitive hashing (Broder, "On the resemblance
//! and containment of documents", 1997; Leskovec, Rajaraman & Ullman, "Mining of Massive Datasets", 3rd ed., chapter 3).
//!
//! 1. *Normalise*: small letters; each number becomes `0`; everything but letters and digits becomes one space.
//! 2. *Shingles*: all runs of five characters of the normalised text, hashed by XXH3-64 (seed 0) of their UTF-8 bytes. A
//!    shorter text is one shingle.
//! 3. *MinHash*: 128 values. Value i is the upper half of min over shingles x of mix(x ⊕ s_i), with s_0, s_1, … the
//!    outputs of SplitMix64 from state 0, and mix its finaliser (Steele, Lea & Flood 2014).
//! 4. *Bands*: 32 of 4 values. Two texts are compared if they share one; 32 × 4 finds a similarity of 0.8 with
//!    probability 0.99999995 and one of 0.3 with 0.23.
//! 5. *Near* means an estimated Jaccard similarity of at least 0.8: 103 of 128 equal values.

use xxhash_rust::xxh3::xxh3_64;

/// Values of a MinHash.
pub const VALUES: usize = 128;

/// Bands; each has `VALUES / BANDS` values.
pub const BANDS: usize = 32;

/// Equal values from which two texts are near.
const NEAR: usize = 103;

/// Characters of a shingle.
const SHINGLE: usize = 5;

/// Characters of a text that are read.
const READ: usize = 65_536;

/// A text's hash and MinHash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// XXH3-64 of the normalised text: equal for inputs that count as the same.
    pub exact: u64,
    minima: Vec<u32>,
}

/// Returns a text in small letters, with one `0` for each number and one space for everything else that is no letter.
pub fn normalised(text: &str) -> String {
    let mut found = String::new();
    for c in text.chars().take(READ) {
        if c.is_numeric() {
            if !found.ends_with('0') {
                found.push('0');
            }
        } else if c.is_alphabetic() {
            found.extend(c.to_lowercase());
        } else if !found.ends_with(' ') && !found.is_empty() {
            found.push(' ');
        }
    }
    found.truncate(found.trim_end().len());
    found
}

// === impl Fingerprint ===

impl Fingerprint {
    /// Returns the fingerprint of a text, which is normalised first.
    pub fn of(text: &str) -> Self {
        let text = normalised(text);
        let mut seeds = [0; VALUES];
        let mut state = 0_u64;
        for seed in &mut seeds {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            *seed = mix(state);
        }
        let mut minima = [u64::MAX; VALUES];
        for shingle in shingles(&text) {
            for (minimum, seed) in minima.iter_mut().zip(seeds) {
                *minimum = (*minimum).min(mix(shingle ^ seed));
            }
        }
        let minima = minima.iter().map(|minimum| (minimum >> 32) as u32).collect();
        Self { exact: xxh3_64(text.as_bytes()), minima }
    }

    /// Returns the estimated Jaccard similarity of the texts' shingles, 0 to 1, with a standard error of at most 0.045.
    #[expect(clippy::cast_precision_loss, reason = "128 values")]
    pub fn similarity(&self, other: &Self) -> f64 {
        self.equal(other) as f64 / VALUES as f64
    }

    /// Returns true for near-duplicates.
    pub fn near(&self, other: &Self) -> bool {
        self.exact == other.exact || self.equal(other) >= NEAR
    }

    /// Returns the values as bytes, little-endian, for storage.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.exact.to_le_bytes().into_iter().chain(self.minima.iter().flat_map(|value| value.to_le_bytes())).collect()
    }

    /// Reads what [`Self::to_bytes`] wrote; `None` if the length is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (exact, rest) = bytes.split_first_chunk::<8>()?;
        let (values, left) = rest.as_chunks::<4>();
        let whole = left.is_empty() && values.len() == VALUES;
        whole.then(|| Self {
            exact: u64::from_le_bytes(*exact),
            minima: values.iter().map(|value| u32::from_le_bytes(*value)).collect(),
        })
    }

    /// Returns a key for each band; texts that share one are compared.
    pub fn bands(&self) -> impl Iterator<Item = u64> {
        self.minima.chunks(VALUES / BANDS).zip(0_u32..).map(|(values, band)| {
            let bytes: Vec<u8> = [band].iter().chain(values).flat_map(|value| value.to_le_bytes()).collect();
            xxh3_64(&bytes)
        })
    }

    fn equal(&self, other: &Self) -> usize {
        self.minima.iter().zip(&other.minima).filter(|(left, right)| left == right).count()
    }
}

/// The finaliser of SplitMix64.
const fn mix(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn shingles(text: &str) -> Vec<u64> {
    let starts: Vec<usize> = text.char_indices().map(|(start, _)| start).chain([text.len()]).collect();
    if starts.len() <= SHINGLE {
        return vec![xxh3_64(text.as_bytes())];
    }
    let mut found: Vec<u64> =
        starts.windows(SHINGLE + 1).map(|ends| xxh3_64(&text.as_bytes()[ends[0]..ends[SHINGLE]])).collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_mixer_is_splitmix64() {
        // The first outputs from state 1234567 (Rosetta Code, "Pseudo-random numbers/Splitmix64").
        let mut state = 1_234_567_u64;
        for expected in [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423] {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            assert_eq!(mix(state), expected);
        }
    }

    #[test]
    fn fingerprints_are_stable() {
        // Fingerprints are stored. These values were computed in Python from the definition at the top of this module.
        let found = Fingerprint::of("Where is my order #W2378156? It was due 3 days ago!");
        assert_eq!(
            normalised("Where is my order #W2378156? It was due 3 days ago!"),
            "where is my order w0 it was due 0 days ago"
        );
        assert_eq!(
            (found.exact, &found.minima[..4]),
            (3_158_033_916_850_287_582, &[10_726_767, 68_172_399, 39_314_041, 216_816_021][..])
        );
        assert_eq!(Fingerprint::from_bytes(&found.to_bytes()), Some(found.clone()));
        assert_eq!(Fingerprint::from_bytes(&found.to_bytes()[1..]), None);
    }

    #[test]
    fn numbers_case_and_punctuation_do_not_matter() {
        let (left, right) =
            (Fingerprint::of("Refund order 12, please!"), Fingerprint::of("refund  ORDER 98765 please"));
        assert_eq!(left, right);
        assert!(Fingerprint::of("").near(&Fingerprint::of("?!")));
        assert!(!Fingerprint::of("refund order please").near(&Fingerprint::of("cancel my subscription")));
    }

    #[test]
    fn the_estimate_is_near_the_true_similarity() {
        let words: Vec<String> =
            (0..120).map(|n| format!("{:x}", mix(n)).replace(|c: char| c.is_numeric(), "")).collect();
        for changed in [0, 5, 20, 60, 110] {
            let left = words.join(" ");
            let right: Vec<String> = words
                .iter()
                .enumerate()
                .map(|(n, word)| if n < changed { format!("{word}qq") } else { word.clone() })
                .collect();
            let right = right.join(" ");
            let sets = [&left, &right].map(|text| shingles(&normalised(text)).into_iter().collect::<BTreeSet<u64>>());
            let truth = sets[0].intersection(&sets[1]).count() as f64 / sets[0].union(&sets[1]).count() as f64;
            let found = Fingerprint::of(&left).similarity(&Fingerprint::of(&right));
            assert!((found - truth).abs() < 0.14, "{found} instead of {truth}");
        }
    }
}
