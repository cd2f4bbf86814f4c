//! Agreement of raters beyond chance: Cohen's κ, Fleiss' κ and Krippendorff's α for categories.
//!
//! The interval of Cohen's κ uses the large-sample variance of Fleiss, Cohen and Everitt (Psychological Bulletin 72,
//! 1969). Those of Fleiss' κ and of α leave out one item at a time (jackknife; Efron & Tibshirani, "An Introduction to
//! the Bootstrap", 1993, chapter 11), because they have no simple variance that holds away from chance. All are Student's
//! t intervals for the number of items on the scale of Fisher's z, artanh of the coefficient, on which small samples are
//! less skewed. Full agreement has no variance: its lower end is that of the same items and one that the raters disagree
//! about.

use std::collections::BTreeMap;

use crate::interval::Interval;
use crate::survey::centred;

/// An agreement this close to 0 is that of chance, apart from rounding errors.
const CHANCE: f64 = 1e-12;

/// Agreement of raters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// The coefficient: 1 is full agreement, 0 that of chance.
    pub value: f64,
    /// Its standard error; `None` if there are too few items for one.
    pub standard_error: Option<f64>,
    /// Its interval; `None` if there are too few items for one.
    pub interval: Option<Interval>,
    /// Items with at least two ratings.
    pub items: u64,
}

/// Pairs of categories that two raters gave to the same items, with counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs(BTreeMap<(String, String), u64>);

/// Ratings: counts of each category by item.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ratings(BTreeMap<String, BTreeMap<String, u64>>);

// === impl Pairs ===

impl Pairs {
    /// Adds items to which the raters gave these categories.
    pub fn add(&mut self, first: &str, second: &str, count: u64) {
        let sum = self.0.entry((first.to_owned(), second.to_owned())).or_default();
        *sum = sum.saturating_add(count);
    }

    /// Adds the items of another part.
    pub fn merge(&mut self, other: &Self) {
        other.counts().for_each(|(first, second, count)| self.add(first, second, count));
    }

    /// Returns the counts, in a fixed order.
    pub fn counts(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        self.0.iter().map(|((first, second), count)| (first.as_str(), second.as_str(), *count))
    }

    /// Returns Cohen's κ (Educational and Psychological Measurement 20, 1960). `None` without items, or if both raters
    /// use one and the same category only: then chance explains everything.
    pub fn cohen(&self, confidence: f64) -> Option<Agreement> {
        let items: u64 = self.0.values().sum();
        let n = number(items);
        let mut rows: BTreeMap<&str, f64> = BTreeMap::new();
        let mut columns: BTreeMap<&str, f64> = BTreeMap::new();
        for (first, second, count) in self.counts() {
            *rows.entry(first).or_default() += number(count) / n;
            *columns.entry(second).or_default() += number(count) / n;
        }
        let share = |of: &BTreeMap<&str, f64>, name: &str| of.get(name).copied().unwrap_or(0.0);
        let observed: f64 =
            self.counts().filter(|(first, second, _)| first == second).map(|pair| number(pair.2) / n).sum();
        let expected: f64 = rows.iter().map(|(name, row)| row * share(&columns, name)).sum();
        if items == 0 || expected >= 1.0 {
            return None;
        }
        let kappa = (observed - expected) / (1.0 - expected);
        // Equation 13 of Fleiss, Cohen & Everitt.
        let mut sum = 0.0;
        for (first, second, count) in self.counts() {
            let p = number(count) / n;
            sum += if first == second {
                p * ((1.0 - expected) - (share(&rows, first) + share(&columns, first)) * (1.0 - observed)).powi(2)
            } else {
                let margin = share(&columns, first) + share(&rows, second);
                (1.0 - observed).powi(2) * p * margin * margin
            };
        }
        sum -= (observed * expected - 2.0 * expected + observed).powi(2);
        let error = (sum.max(0.0) / n).sqrt() / (1.0 - expected).powi(2);
        let found = Agreement::new(kappa, (items >= 3).then_some(error), items, confidence);
        if !full(kappa) {
            return Some(found);
        }
        let mut more = self.clone();
        let names: Vec<&str> = rows.keys().copied().collect();
        more.add(names[0], names[1], 1);
        Some(found.widened(more.cohen(confidence)))
    }
}

// === impl Ratings ===

impl Ratings {
    /// Adds ratings of an item.
    pub fn add(&mut self, item: &str, category: &str, count: u64) {
        let counts = match self.0.get_mut(item) {
            Some(counts) => counts,
            None => self.0.entry(item.to_owned()).or_default(),
        };
        let sum = counts.entry(category.to_owned()).or_default();
        *sum = sum.saturating_add(count);
    }

    /// Adds the ratings of another part.
    pub fn merge(&mut self, other: &Self) {
        other.counts().for_each(|(item, category, count)| self.add(item, category, count));
    }

    /// Returns the counts, in a fixed order.
    pub fn counts(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        self.0.iter().flat_map(|(item, counts)| {
            counts.iter().map(|(category, count)| (item.as_str(), category.as_str(), *count))
        })
    }

    /// Returns Fleiss' κ (Psychological Bulletin 76, 1971). `None` without items with two ratings, if items differ in
    /// their number of ratings (α allows that), or if all ratings are the same.
    pub fn fleiss(&self, confidence: f64) -> Option<Agreement> {
        let table = self.table();
        let raters: f64 = table.first()?.iter().sum();
        let equal = table.iter().all(|counts| counts.iter().sum::<f64>() == raters);
        if !equal {
            return None;
        }
        jackknife(&table, fleiss_of, confidence)
    }

    /// Returns Krippendorff's α for categories ("Content Analysis", 4th ed., 2019, chapter 12). Items may have any number
    /// of ratings; those with one do not count. `None` without items with two ratings, or if all ratings are the same.
    pub fn krippendorff(&self, confidence: f64) -> Option<Agreement> {
        jackknife(&self.table(), alpha_of, confidence)
    }

    /// Returns the counts by category of each item with at least two ratings.
    fn table(&self) -> Vec<Vec<f64>> {
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, category, _) in self.counts() {
            let next = places.len();
            places.entry(category).or_insert(next);
        }
        let rows = self.0.values().filter(|counts| counts.values().sum::<u64>() >= 2).map(|counts| {
            let mut row = vec![0.0; places.len()];
            counts.iter().for_each(|(category, count)| row[places[category.as_str()]] += number(*count));
            row
        });
        rows.collect()
    }
}

/// Sums over items from which κ and α follow; subtracting an item leaves it out.
struct Sums {
    items: f64,
    /// Σ over items of the share of agreeing pairs.
    agreeing: f64,
    /// Σ over items of ratings × that share, as α weights them.
    coincident: f64,
    categories: Vec<f64>,
}

impl Sums {
    fn add(&mut self, row: &[f64], sign: f64) {
        let ratings: f64 = row.iter().sum();
        let share = row.iter().map(|count| count * (count - 1.0)).sum::<f64>() / (ratings * (ratings - 1.0));
        self.items += sign;
        self.agreeing += sign * share;
        self.coincident += sign * share * ratings;
        self.categories.iter_mut().zip(row).for_each(|(sum, count)| *sum += sign * count);
    }
}

fn fleiss_of(sums: &Sums) -> Option<f64> {
    let all: f64 = sums.categories.iter().sum();
    let expected: f64 = sums.categories.iter().map(|count| (count / all).powi(2)).sum();
    (expected < 1.0 - 1e-12).then(|| (sums.agreeing / sums.items - expected) / (1.0 - expected))
}

fn alpha_of(sums: &Sums) -> Option<f64> {
    let all: f64 = sums.categories.iter().sum();
    let expected: f64 = sums.categories.iter().map(|count| count * (count - 1.0)).sum::<f64>() / (all * (all - 1.0));
    (expected < 1.0 - 1e-12).then(|| 1.0 - (1.0 - sums.coincident / all) / (1.0 - expected))
}

/// Applies a coefficient to all items, and to all but each one.
fn jackknife(table: &[Vec<f64>], of: fn(&Sums) -> Option<f64>, confidence: f64) -> Option<Agreement> {
    let mut sums = Sums { items: 0.0, agreeing: 0.0, coincident: 0.0, categories: vec![0.0; table.first()?.len()] };
    table.iter().for_each(|row| sums.add(row, 1.0));
    let value = of(&sums)?;
    let n = sums.items;
    // An item without which all ratings are the same gives no value: 1, because then nothing disagrees.
    let without: Vec<f64> = table
        .iter()
        .map(|row| {
            sums.add(row, -1.0);
            let found = of(&sums).unwrap_or(1.0);
            sums.add(row, 1.0);
            found
        })
        .collect();
    let mean = without.iter().sum::<f64>() / n;
    let squares: f64 = without.iter().map(|found| (found - mean).powi(2)).sum();
    let error = (table.len() >= 3).then(|| ((n - 1.0) / n * squares).sqrt());
    let found = Agreement::new(value, error, table.len() as u64, confidence);
    if !full(value) {
        return Some(found);
    }
    // Full agreement has at least two categories, or it would have no value.
    let mut disagreed = vec![0.0; table[0].len()];
    disagreed[..2].fill(1.0);
    let mut more = table.to_vec();
    more.push(disagreed);
    Some(found.widened(jackknife(&more, of, confidence)))
}

// === impl Agreement ===

impl Agreement {
    fn new(value: f64, standard_error: Option<f64>, items: u64, confidence: f64) -> Self {
        // The agreement of chance is 0, not a rounding error below it.
        let value = if value.abs() < CHANCE { 0.0 } else { value };
        let valid = confidence > 0.0 && confidence < 1.0;
        let interval = standard_error.filter(|_| valid).map(|error| {
            if value.abs() >= 1.0 {
                return Interval { low: value, high: value };
            }
            let Interval { low, high } =
                centred(value.atanh(), error / (1.0 - value * value), number(items), confidence);
            Interval { low: low.tanh(), high: high.tanh() }
        });
        Self { value, standard_error, interval, items }
    }

    /// Takes the lower end from the same items and one more that the raters disagree about.
    fn widened(mut self, with_one_more: Option<Self>) -> Self {
        if let (Some(interval), Some(lower)) = (&mut self.interval, with_one_more.and_then(|found| found.interval)) {
            interval.low = interval.low.min(lower.low);
        }
        self
    }
}

/// Returns true for full agreement, for which no variance can be estimated.
fn full(value: f64) -> bool {
    value > 1.0 - 1e-9
}

#[expect(clippy::cast_precision_loss, reason = "counts of ratings are far below 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn near(found: f64, golden: f64, room: f64) {
        assert!((found - golden).abs() < room, "{found} instead of {golden}");
    }

    /// Ratings from a row of text for each rater; `.` is a missing one.
    fn ratings(raters: &[&str]) -> Ratings {
        let mut found = Ratings::default();
        for rater in raters {
            for (item, category) in rater.split_whitespace().enumerate().filter(|(_, category)| *category != ".") {
                found.add(&format!("{item:03}"), category, 1);
            }
        }
        found
    }

    #[test]
    fn cohens_kappa_matches_a_worked_example() {
        // Two readers of 50 proposals: 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no; κ = (0.7 − 0.5) / 0.5.
        let mut pairs = Pairs::default();
        for (first, second, count) in [("y", "y", 20), ("y", "n", 5), ("n", "y", 10), ("n", "n", 15)] {
            pairs.add(first, second, count);
        }
        let found = pairs.cohen(0.95).expect("a value");
        near(found.value, 0.4, 1e-12);
        // By numerical derivatives of κ and the multinomial covariance, computed apart: 0.126996.
        near(found.standard_error.expect("an error"), 0.126_996, 5e-7);
        assert_eq!(found.items, 50);
    }

    #[test]
    fn the_agreement_of_chance_is_zero_and_never_minus_zero() {
        for (rows, columns) in
            [((1, 1), (1, 1)), ((1, 2), (3, 7)), ((7, 3), (11, 19)), ((5, 6), (1, 9)), ((1, 6), (6, 1))]
        {
            let mut pairs = Pairs::default();
            for (first, row) in [("y", rows.0), ("n", rows.1)] {
                pairs.add(first, "y", row * columns.0);
                pairs.add(first, "n", row * columns.1);
            }
            let value = pairs.cohen(0.95).expect("a value").value;
            assert_eq!(format!("{value}"), "0", "{rows:?} {columns:?}");
        }
    }

    #[test]
    fn one_category_only_leaves_nothing_to_agree_about() {
        let mut pairs = Pairs::default();
        pairs.add("y", "y", 30);
        assert_eq!(pairs.cohen(0.95), None);
        assert_eq!(Pairs::default().cohen(0.95), None);
        assert_eq!(ratings(&["a a a", "a a a"]).krippendorff(0.95), None);
        assert_eq!(ratings(&["a b a"]).krippendorff(0.95), None);
    }

    #[test]
    fn full_agreement_about_few_items_is_uncertain() {
        let mut pairs = Pairs::default();
        pairs.add("y", "y", 6);
        pairs.add("n", "n", 4);
        let alike = ratings(&["y y y y y y n n n n", "y y y y y y n n n n"]);
        for found in [pairs.cohen(0.95), alike.krippendorff(0.95), alike.fleiss(0.95)] {
            let interval = found.expect("a value").interval.expect("an interval");
            assert!(interval.high == 1.0 && (-0.2..0.7).contains(&interval.low), "{found:?}");
        }
        assert_eq!(ratings(&["a b", "a b"]).krippendorff(0.95).expect("a value").interval, None);
    }

    #[test]
    fn fleiss_kappa_matches_its_published_example() {
        // 14 raters of 10 subjects in 5 categories: κ = 0.210 (Fleiss 1971's method; the table is widely reprinted).
        let table = [
            [0, 0, 0, 0, 14],
            [0, 2, 6, 4, 2],
            [0, 0, 3, 5, 6],
            [0, 3, 9, 2, 0],
            [2, 2, 8, 1, 1],
            [7, 7, 0, 0, 0],
            [3, 2, 6, 3, 0],
            [2, 5, 3, 2, 2],
            [6, 5, 2, 1, 0],
            [0, 2, 2, 3, 7],
        ];
        let mut found = Ratings::default();
        for (item, row) in table.iter().enumerate() {
            row.iter().enumerate().for_each(|(category, count)| {
                found.add(&format!("{item:02}"), &category.to_string(), *count);
            });
        }
        near(found.fleiss(0.95).expect("a value").value, 0.210, 5e-4);
    }

    #[test]
    fn alpha_matches_krippendorffs_published_examples() {
        // Krippendorff, "Computing Krippendorff's alpha-reliability" (2011), sections A, B and C.
        let two = ratings(&["0 1 0 0 0 0 0 0 1 0", "1 1 1 0 0 1 0 0 0 0"]);
        near(two.krippendorff(0.95).expect("a value").value, 0.095, 5e-4);
        let nominal = ratings(&["a a b b d c c c e d d a", "b a b b b c c c e d d d"]);
        near(nominal.krippendorff(0.95).expect("a value").value, 0.692, 5e-4);
        let missing = ratings(&[
            "1 2 3 3 2 1 4 1 2 . . .",
            "1 2 3 3 2 2 4 1 2 5 . 3",
            ". 3 3 3 2 3 4 2 2 5 1 .",
            "1 2 3 3 2 4 4 1 2 5 1 .",
        ]);
        let found = missing.krippendorff(0.95).expect("a value");
        near(found.value, 0.743, 5e-4);
        assert_eq!(found.items, 11, "the last item has one rating");
        assert_eq!(missing.fleiss(0.95), None, "Fleiss' needs equal numbers of ratings");
    }

    #[test]
    fn intervals_cover_the_agreement_of_simulated_raters() {
        // Raters see the true category with probability 0.8, and guess otherwise. Two categories in equal shares: both
        // coefficients are 0.64 in the long run.
        let (mut kappas, mut alphas) = (0, 0);
        let mut random = Random(31);
        for _ in 0..1_000 {
            let mut found = Ratings::default();
            let mut pairs = Pairs::default();
            for item in 0..60 {
                let truth = random.uniform() < 0.5;
                let mut rate = || if random.uniform() < 0.8 { truth } else { random.uniform() < 0.5 };
                let (first, second) = (rate().to_string(), rate().to_string());
                pairs.add(&first, &second, 1);
                found.add(&item.to_string(), &first, 1);
                found.add(&item.to_string(), &second, 1);
            }
            let covers = |found: Option<Agreement>| {
                let interval = found.and_then(|found| found.interval).expect("an interval");
                interval.low <= 0.64 && 0.64 <= interval.high
            };
            kappas += usize::from(covers(pairs.cohen(0.95)));
            alphas += usize::from(covers(found.krippendorff(0.95)));
        }
        assert!((935..=975).contains(&kappas) && (935..=975).contains(&alphas), "{kappas} and {alphas} of 1,000");
    }
}
