//! D10: explains a change: whether the quality of slices changed or only their shares of the traffic, and which slices
//! caused it.
//!
//! * [`mix_and_rate`] decomposes a change of a rate exactly (Kitagawa, "Components of a difference between two rates",
//!   JASA 50, 1955). With shares w of the traffic, rates r of a slice, and overall rates R,
//!
//!   > mix = (w₁ − w₀)((r₀ + r₁)/2 − (R₀ + R₁)/2),  rate = (r₁ − r₀)(w₀ + w₁)/2,  Σ mix + Σ rate = R₁ − R₀
//!
//! * [`blame`] and [`explain`] implement Adtributor (Bhagwan et al., "Adtributor: Revenue Debugging in Advertising
//!   Systems", NSDI 2014, section 4): explanatory power is the part of the change that a slice makes, surprise measures
//!   how unusual its part is.
//! * [`risk_ratio`] is the measure of DIFF (Abuzaid et al., "DIFF: A Relational Interface for Large-Scale Data
//!   Explanation", VLDB 2019, section 3), and [`by_evidence`] ranks slices by statistical evidence.
//!
//! The first three are descriptive, not tests: a slice of ten runs can have any rate. Only [`by_evidence`] identifies
//! significant slices.

use crate::ebh;
use crate::invalid::Invalid;

/// Above this fraction of mix, a change is a change of traffic, not of quality.
pub const MOSTLY_MIX: f64 = 0.7;

/// Minimum part of the change for an element of an explanation (the paper's T_EEP).
pub const MIN_POWER: f64 = 0.1;

/// Minimum part of the change for an explanation (the paper's T_EP).
pub const MIN_TOTAL_POWER: f64 = 0.67;

/// One slice of the traffic before and after, or in the baseline and in the canary: amounts (bad outcomes, cost) and
/// units (runs).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Slice {
    /// Amount before.
    pub amount_a: f64,
    /// Units before.
    pub units_a: f64,
    /// Amount after.
    pub amount_b: f64,
    /// Units after.
    pub units_b: f64,
}

/// The contribution of a slice to the overall change.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Effect {
    /// Contribution of the change of its traffic share.
    pub mix: f64,
    /// Contribution of the change of its rate.
    pub rate: f64,
}

/// Adtributor's measures of a slice.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Blame {
    /// Its part of the change; all parts sum to 1. Negative if it works against the change.
    pub power: f64,
    /// Jensen–Shannon terms of its shares before and after, in nats.
    pub surprise: f64,
}

/// A dimension that explains a change, by as few slices as possible.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// Index of the dimension.
    pub dimension: usize,
    /// Indices of its slices, most surprising first.
    pub slices: Vec<usize>,
    /// Sum of their parts of the change.
    pub power: f64,
    /// Sum of their surprise, by which explanations are ranked.
    pub surprise: f64,
}

/// A slice with its evidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranked {
    /// Index of the slice.
    pub slice: usize,
    /// Its evidence, in nats.
    pub log_e: f64,
    /// True if it is among the discoveries at a false discovery rate of alpha.
    pub believed: bool,
}

/// Sums over slices.
fn whole(slices: &[Slice]) -> Result<Slice, Invalid> {
    let mut sum = Slice::default();
    for slice in slices {
        for (what, value) in [
            ("amount before", slice.amount_a),
            ("units before", slice.units_a),
            ("amount after", slice.amount_b),
            ("units after", slice.units_b),
        ] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Invalid::new(what, value, "a finite number, not negative"));
            }
        }
        sum.amount_a += slice.amount_a;
        sum.units_a += slice.units_a;
        sum.amount_b += slice.amount_b;
        sum.units_b += slice.units_b;
    }
    Ok(sum)
}

/// Returns the contribution of each slice to R₁ − R₀ through its share and its rate. A slice that is absent on one side
/// has no rate there: its whole contribution is mix. None if a side has no units at all.
///
/// # Errors
/// Fails if a number is negative or not finite.
pub fn mix_and_rate(slices: &[Slice]) -> Result<Option<Vec<Effect>>, Invalid> {
    let all = whole(slices)?;
    if all.units_a == 0.0 || all.units_b == 0.0 {
        return Ok(None);
    }
    let middle = f64::midpoint(all.amount_a / all.units_a, all.amount_b / all.units_b);
    let effects = slices.iter().map(|slice| {
        let (share_a, share_b) = (slice.units_a / all.units_a, slice.units_b / all.units_b);
        let (rate_a, rate_b) = match (slice.units_a > 0.0, slice.units_b > 0.0) {
            (true, true) => (slice.amount_a / slice.units_a, slice.amount_b / slice.units_b),
            (true, false) => (slice.amount_a / slice.units_a, slice.amount_a / slice.units_a),
            (false, true) => (slice.amount_b / slice.units_b, slice.amount_b / slice.units_b),
            (false, false) => (middle, middle),
        };
        Effect {
            mix: (share_b - share_a) * (f64::midpoint(rate_a, rate_b) - middle),
            rate: (rate_b - rate_a) * f64::midpoint(share_a, share_b),
        }
    });
    Ok(Some(effects.collect()))
}

/// Returns the fraction of a change that is mix, from 0 to 1: |Σ mix| / (|Σ mix| + |Σ rate|). 0 if nothing changed.
/// Above [`MOSTLY_MIX`], report "the traffic changed".
pub fn mix_share(effects: &[Effect]) -> f64 {
    let mix = effects.iter().map(|effect| effect.mix).sum::<f64>().abs();
    let rate = effects.iter().map(|effect| effect.rate).sum::<f64>().abs();
    if mix + rate > 0.0 { mix / (mix + rate) } else { 0.0 }
}

/// Returns the surprise of a slice with a share that went from p to q: ½(p ln(2p/(p+q)) + q ln(2q/(p+q))), its term of
/// the Jensen–Shannon divergence.
pub fn surprise(p: f64, q: f64) -> f64 {
    let term = |x: f64| if x > 0.0 { x * (2.0 * x / (p + q)).ln() } else { 0.0 };
    0.5 * (term(p) + term(q))
}

/// Applies Adtributor to the rate Σ amount / Σ units. The baseline is first scaled to the units of the canary, so that
/// the size of an arm explains nothing. With amounts A₁ and units A₂ after, F₁ and F₂ before, a slice's power is
///
/// > ((A₁−F₁)_j F₂ − (A₂−F₂)_j F₁) / (F₂ (F₂ + (A₂−F₂)_j)), divided by the sum over all slices,
///
/// and its surprise is that of its share of the amounts plus that of its share of the units. None if a side has no
/// units or no amount.
///
/// # Errors
/// Fails if a number is negative or not finite.
pub fn blame(slices: &[Slice]) -> Result<Option<Vec<Blame>>, Invalid> {
    let all = whole(slices)?;
    if [all.units_a, all.units_b, all.amount_a, all.amount_b].contains(&0.0) {
        return Ok(None);
    }
    let scale = all.units_b / all.units_a;
    let (amounts, units) = (all.amount_a * scale, all.units_b);
    let power = |slice: &Slice| {
        let amount = slice.amount_b - slice.amount_a * scale;
        let unit = slice.units_b - slice.units_a * scale;
        let rest = units + unit;
        if rest > 0.0 { (amount * units - unit * amounts) / (units * rest) } else { 0.0 }
    };
    let total: f64 = slices.iter().map(power).sum();
    let blames = slices.iter().map(|slice| Blame {
        power: if total == 0.0 { 0.0 } else { power(slice) / total },
        surprise: surprise(slice.amount_a / all.amount_a, slice.amount_b / all.amount_b)
            + surprise(slice.units_a / all.units_a, slice.units_b / all.units_b),
    });
    Ok(Some(blames.collect()))
}

/// Returns the smallest set of slices that explains a change: slices with at least [`MIN_POWER`] each, most
/// surprising first, until their sum exceeds [`MIN_TOTAL_POWER`]. Empty if it never does.
pub fn succinct(blames: &[Blame]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..blames.len()).collect();
    order.sort_by(|a, b| blames[*b].surprise.total_cmp(&blames[*a].surprise).then(a.cmp(b)));
    let (mut chosen, mut power) = (Vec::new(), 0.0);
    for place in order {
        if blames[place].power > MIN_POWER {
            chosen.push(place);
            power += blames[place].power;
            if power > MIN_TOTAL_POWER {
                return chosen;
            }
        }
    }
    Vec::new()
}

/// Returns the dimensions that explain a change, most surprising first. Each dimension is a list of slices that
/// partitions the same traffic.
///
/// # Errors
/// Fails if a number is negative or not finite.
pub fn explain(dimensions: &[Vec<Slice>]) -> Result<Vec<Explanation>, Invalid> {
    let mut explanations = Vec::new();
    for (dimension, slices) in dimensions.iter().enumerate() {
        let Some(blames) = blame(slices)? else { continue };
        let chosen = succinct(&blames);
        if !chosen.is_empty() {
            let power = chosen.iter().map(|place| blames[*place].power).sum();
            let surprise = chosen.iter().map(|place| blames[*place].surprise).sum();
            explanations.push(Explanation { dimension, slices: chosen, power, surprise });
        }
    }
    explanations.sort_by(|a, b| b.surprise.total_cmp(&a.surprise).then(a.dimension.cmp(&b.dimension)));
    Ok(explanations)
}

/// Returns the ratio of the rates of bad outcomes inside and outside a slice. ∞ if there are none outside; none if
/// either side has no runs, or there are no bad outcomes at all.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn risk_ratio(
    events_inside: u64,
    runs_inside: u64,
    events_outside: u64,
    runs_outside: u64,
) -> Result<Option<f64>, Invalid> {
    for (events, runs) in [(events_inside, runs_inside), (events_outside, runs_outside)] {
        if events > runs {
            return Err(Invalid::new("events", format_args!("{events} of {runs}"), "at most the runs"));
        }
    }
    if runs_inside == 0 || runs_outside == 0 || events_inside + events_outside == 0 {
        return Ok(None);
    }
    let rate = |events: u64, runs: u64| events as f64 / runs as f64;
    Ok(Some(rate(events_inside, runs_inside) / rate(events_outside, runs_outside)))
}

/// Ranks slices by their evidence ([`crate::e2x2`]), greatest first, and marks those that e-BH keeps at `alpha`
/// ([`ebh::e_bh`]).
///
/// # Errors
/// Fails if `alpha` is not between 0 and 1.
pub fn by_evidence(log_e: &[f64], alpha: f64) -> Result<Vec<Ranked>, Invalid> {
    let believed = ebh::e_bh(log_e, alpha)?;
    let mut ranked: Vec<Ranked> = log_e
        .iter()
        .zip(believed)
        .enumerate()
        .map(|(slice, (log_e, believed))| {
            let log_e = if log_e.is_nan() { f64::NEG_INFINITY } else { *log_e };
            Ranked { slice, log_e, believed }
        })
        .collect();
    ranked.sort_by(|a, b| b.log_e.total_cmp(&a.log_e).then(a.slice.cmp(&b.slice)));
    Ok(ranked)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::close;

    const fn slice(amount_a: f64, units_a: f64, amount_b: f64, units_b: f64) -> Slice {
        Slice { amount_a, units_a, amount_b, units_b }
    }

    #[test]
    fn golden_values_of_the_decomposition() {
        // Two tasks; the second doubles its failures and its share.
        let effects = mix_and_rate(&[slice(40.0, 800.0, 3.0, 60.0), slice(20.0, 200.0, 8.0, 40.0)]);
        let effects = effects.expect("effects").expect("both sides");
        // By hand: shares 0.8→0.6 and 0.2→0.4, rates 0.05→0.05 and 0.1→0.2, overall 0.06→0.11.
        close(effects[0].mix, -0.2 * (0.05 - 0.085));
        close(effects[0].rate, 0.0);
        close(effects[1].mix, 0.2 * (0.15 - 0.085));
        close(effects[1].rate, 0.1 * 0.3);
        close(mix_share(&effects), 0.02 / 0.05);
    }

    #[test]
    fn golden_values_of_adtributor() {
        // The paper's formulas, in numpy (tests/statistics/check.py has the same).
        let slices = [slice(94.0, 1000.0, 10.0, 100.0), slice(6.0, 500.0, 30.0, 60.0), slice(50.0, 500.0, 5.0, 40.0)];
        let blames = blame(&slices).expect("blames").expect("both sides");
        for (blame, (power, surprise)) in blames.iter().zip(GOLDEN) {
            close(blame.power, power);
            close(blame.surprise, surprise);
        }
        assert_eq!(succinct(&blames), [1]);
    }

    const GOLDEN: [(f64, f64); 3] = [
        (0.020_924_012_796, 0.050_184_847_877),
        (0.951_544_391_421, 0.169_193_375_998),
        (0.027_531_595_784, 0.030_461_102_212),
    ];

    #[test]
    fn mix_alone_is_called_mix_and_quality_is_not() {
        // Hard tasks go from 20 % to 40 % of the traffic; no task changes.
        let mix = mix_and_rate(&[slice(40.0, 800.0, 30.0, 600.0), slice(40.0, 200.0, 80.0, 400.0)]);
        close(mix_share(&mix.expect("effects").expect("both sides")), 1.0);
        let rate = mix_and_rate(&[slice(40.0, 800.0, 80.0, 800.0), slice(40.0, 200.0, 60.0, 200.0)]);
        close(mix_share(&rate.expect("effects").expect("both sides")), 0.0);
        close(mix_share(&[]), 0.0);
    }

    #[test]
    fn the_dimension_that_broke_is_found_and_the_others_are_not() {
        // Model 2 broke for every task alike: by task all look the same, by model one explains the change.
        let by_task: Vec<Slice> = (0..5).map(|_| slice(16.0, 200.0, 36.0, 200.0)).collect();
        let by_model =
            vec![slice(27.0, 340.0, 27.0, 340.0), slice(26.0, 330.0, 126.0, 330.0), slice(27.0, 330.0, 27.0, 330.0)];
        let found = explain(&[by_task, by_model]).expect("explanations");
        assert_eq!(found[0].dimension, 1);
        assert_eq!(found[0].slices, [1]);
        close(found[0].power, 1.0);
        assert!(found.iter().skip(1).all(|other| other.surprise < 1e-12), "{found:?}");
    }

    #[test]
    fn slices_are_believed_by_evidence() {
        let ranked = by_evidence(&[0.3, 9.0, f64::NAN, 5.5], 0.05).expect("ranked");
        assert_eq!(ranked.iter().map(|ranked| ranked.slice).collect::<Vec<_>>(), [1, 3, 0, 2]);
        assert_eq!(ranked.iter().map(|ranked| ranked.believed).collect::<Vec<_>>(), [true, true, false, false]);
        assert!(by_evidence(&[1.0], 0.0).is_err());
    }

    #[test]
    fn edges_have_a_state_or_a_message() {
        assert!(risk_ratio(30, 100, 5, 100).expect("a ratio").is_some_and(|ratio| (ratio - 6.0).abs() < 1e-12));
        assert_eq!(risk_ratio(3, 100, 0, 100).expect("a ratio"), Some(f64::INFINITY));
        assert_eq!(risk_ratio(0, 100, 0, 100).expect("a ratio"), None);
        assert_eq!(risk_ratio(1, 1, 0, 0).expect("a ratio"), None);
        assert!(risk_ratio(2, 1, 0, 1).is_err());
        assert_eq!(mix_and_rate(&[]).expect("no side"), None);
        assert_eq!(blame(&[slice(0.0, 10.0, 0.0, 10.0)]).expect("no amount"), None);
        let error = mix_and_rate(&[slice(-1.0, 1.0, 1.0, 1.0)]).expect_err("refused").to_string();
        assert!(error.contains("amount before is `-1`"), "{error}");
        assert!(blame(&[slice(1.0, f64::NAN, 1.0, 1.0)]).is_err());
    }

    fn slices() -> impl Strategy<Value = Vec<Slice>> {
        let side =
            || (0_u32..500, 0_u32..2000).prop_map(|(amount, units)| (f64::from(amount.min(units)), f64::from(units)));
        prop::collection::vec((side(), side()).prop_map(|(a, b)| slice(a.0, a.1, b.0, b.1)), 1..12)
    }

    proptest! {
        #[test]
        fn parts_add_up_to_the_whole(slices in slices()) {
            let all = whole(&slices).expect("sums");
            if let Some(effects) = mix_and_rate(&slices).expect("effects") {
                let change = all.amount_b / all.units_b - all.amount_a / all.units_a;
                let sum: f64 = effects.iter().map(|effect| effect.mix + effect.rate).sum();
                prop_assert!((sum - change).abs() < 1e-12, "{} instead of {}", sum, change);
            }
            if let Some(blames) = blame(&slices).expect("blames") {
                let sum: f64 = blames.iter().map(|blame| blame.power).sum();
                prop_assert!(sum == 0.0 || (sum - 1.0).abs() < 1e-6, "{}", sum);
                prop_assert!(blames.iter().all(|blame| blame.surprise >= -1e-15));
            }
        }

        #[test]
        fn order_of_slices_and_size_of_the_baseline_do_not_matter(slices in slices(), factor in 1_u32..50) {
            let scaled: Vec<Slice> = slices
                .iter()
                .rev()
                .map(|slice| Slice {
                    amount_a: slice.amount_a * f64::from(factor),
                    units_a: slice.units_a * f64::from(factor),
                    ..*slice
                })
                .collect();
            let (one, other) = (mix_and_rate(&slices).expect("effects"), mix_and_rate(&scaled).expect("effects"));
            prop_assert_eq!(one.is_some(), other.is_some());
            for (a, b) in one.unwrap_or_default().iter().zip(other.unwrap_or_default().iter().rev()) {
                prop_assert!((a.mix - b.mix).abs() < 1e-12 && (a.rate - b.rate).abs() < 1e-12);
            }
            let surprise = |slices: &[Slice]| blame(slices).expect("blames").map(|blames| {
                blames.iter().map(|blame| blame.surprise).sum::<f64>()
            });
            if let (Some(a), Some(b)) = (surprise(&slices), surprise(&scaled)) {
                prop_assert!((a - b).abs() < 1e-9);
            }
        }
    }
}
