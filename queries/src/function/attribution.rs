//! Functions that explain a change by the slices of traffic it came from: window functions over all slices of a dimension,
//! which GROUPING SETS makes in one statement.

use bellwether_stats::Invalid;
use bellwether_stats::attribution::{self, Slice};
use datafusion::common::{Result, exec_datafusion_err};
use datafusion::logical_expr::{ScalarUDF, WindowUDF};

use super::arguments::ArgumentKind::{Count, Fact, Number};
use super::arguments::{ArgumentKind, Columns, Spec};
use super::scalar::{Value, scalar};
use super::window::udwf;

pub(super) fn scalars() -> Vec<ScalarUDF> {
    vec![scalar(&RISK_RATIO, Number, |row| {
        let ratio = attribution::risk_ratio(row.count(0)?, row.count(1)?, row.count(2)?, row.count(3)?);
        Ok(ratio.map_err(|error| row.wrong(error))?.map(Value::Number))
    })]
}

pub(super) fn windows() -> Vec<WindowUDF> {
    vec![
        udwf(&MIX_EFFECT, Number, |columns, rows| {
            of_slices("mix_effect", columns, rows, |slices| {
                let effects = attribution::mix_and_rate(slices)?;
                Ok(effects.map(|all| all.iter().map(|effect| Value::Number(effect.mix)).collect()))
            })
        }),
        udwf(&RATE_EFFECT, Number, |columns, rows| {
            of_slices("rate_effect", columns, rows, |slices| {
                let effects = attribution::mix_and_rate(slices)?;
                Ok(effects.map(|all| all.iter().map(|effect| Value::Number(effect.rate)).collect()))
            })
        }),
        udwf(&EXPLANATORY_POWER, Number, |columns, rows| {
            of_slices("explanatory_power", columns, rows, |slices| {
                let blames = attribution::blame(slices)?;
                Ok(blames.map(|all| all.iter().map(|blame| Value::Number(blame.power)).collect()))
            })
        }),
        udwf(&SURPRISE, Number, |columns, rows| {
            of_slices("surprise", columns, rows, |slices| {
                let blames = attribution::blame(slices)?;
                Ok(blames.map(|all| all.iter().map(|blame| Value::Number(blame.surprise)).collect()))
            })
        }),
        udwf(&EXPLAINS, Fact, |columns, rows| {
            of_slices("explains", columns, rows, |slices| {
                let Some(blames) = attribution::blame(slices)? else { return Ok(None) };
                let chosen = attribution::succinct(&blames);
                let fact = |place: usize| Value::Count(u64::from(chosen.contains(&place)));
                Ok(Some((0..blames.len()).map(fact).collect()))
            })
        }),
    ]
}

const SLICE: &[(&str, ArgumentKind, &str)] = &[
    ("amount_a", Number, "baseline: runs with the bad outcome, or cost, of the slice"),
    ("runs_a", Number, "baseline: runs of the slice"),
    ("amount_b", Number, "canary, or after the change: the same"),
    ("runs_b", Number, "canary, or after the change: the same"),
];

static MIX_EFFECT: Spec = Spec {
    name: "mix_effect",
    arguments: SLICE,
    required: 4,
    nulls: false,
    doc: "The part of the change of the overall rate that comes from the share of the traffic in this slice (Kitagawa \
          1955). Over all slices of a dimension, `mix_effect` and `rate_effect` add up to the change exactly; if most of \
          it is mix, the traffic changed and not the quality. Null if a side has no runs.",
    example: "SELECT task, mix_effect(fa, ra, fb, rb) OVER () AS mix, rate_effect(fa, ra, fb, rb) OVER () AS rate \
              FROM (VALUES ('easy', 40, 800, 30, 600), ('hard', 40, 200, 80, 400)) AS slices(task, fa, ra, fb, rb)",
};

static RATE_EFFECT: Spec = Spec {
    name: "rate_effect",
    arguments: SLICE,
    required: 4,
    nulls: false,
    doc: "The part of the change of the overall rate that comes from the rate of this slice (Kitagawa 1955); see \
          `mix_effect`.",
    example: "SELECT task, rate_effect(fa, ra, fb, rb) OVER () AS rate \
              FROM (VALUES ('easy', 40, 800, 72, 600), ('hard', 40, 200, 80, 400)) AS slices(task, fa, ra, fb, rb)",
};

static EXPLANATORY_POWER: Spec = Spec {
    name: "explanatory_power",
    arguments: SLICE,
    required: 4,
    nulls: false,
    doc: "The share of a slice in the change of the overall rate; all slices of a dimension add up to 1 (Adtributor, \
          NSDI 2014). Negative if a slice works against the change. Null if a side has no runs or no bad outcome.",
    example: "SELECT model, explanatory_power(fa, ra, fb, rb) OVER () AS power FROM (VALUES ('m1', 27, 340, 27, 340), \
              ('m2', 26, 330, 126, 330), ('m3', 27, 330, 27, 330)) AS slices(model, fa, ra, fb, rb)",
};

static SURPRISE: Spec = Spec {
    name: "surprise",
    arguments: SLICE,
    required: 4,
    nulls: false,
    doc: "How unusual the share of a slice is: Jensen-Shannon terms, in nats, of its shares of bad outcomes and of runs \
          (Adtributor, NSDI 2014). The dimension with the greatest sum over its explaining slices explains best.",
    example: "SELECT model, surprise(fa, ra, fb, rb) OVER () AS surprise FROM (VALUES ('m1', 27, 340, 27, 340), \
              ('m2', 26, 330, 126, 330), ('m3', 27, 330, 27, 330)) AS slices(model, fa, ra, fb, rb)",
};

static EXPLAINS: Spec = Spec {
    name: "explains",
    arguments: SLICE,
    required: 4,
    nulls: false,
    doc: "True for the few slices of a dimension that together make more than 67 % of the change, each at least 10 %, most \
          surprising first (Adtributor, NSDI 2014); false for all if no few slices do. It only describes: `e2x2_log_e` of \
          the slice tests it against chance.",
    example: "WITH counts(task, model, ra, fa, rb, fb) AS (VALUES ('refund', 'm1', 400, 20, 40, 2), \
              ('refund', 'm2', 400, 22, 40, 12), ('status', 'm1', 600, 24, 60, 3), ('status', 'm2', 600, 27, 60, 17)), \
              slices AS (SELECT CASE WHEN grouping(task) = 0 THEN 'task' ELSE 'model' END AS dimension, \
              coalesce(task, model) AS slice, sum(fa) AS fa, sum(ra) AS ra, sum(fb) AS fb, sum(rb) AS rb \
              FROM counts GROUP BY GROUPING SETS ((task), (model))) \
              SELECT dimension, slice, ra, rb, rate_effect(fa, ra, fb, rb) OVER (PARTITION BY dimension) AS rate, \
              explains(fa, ra, fb, rb) OVER (PARTITION BY dimension) AS explains, \
              surprise(fa, ra, fb, rb) OVER (PARTITION BY dimension) AS surprise, \
              e2x2(fa, ra, fb, rb, 2.2, 1.0) AS log_e FROM slices ORDER BY log_e DESC",
};

static RISK_RATIO: Spec = Spec {
    name: "risk_ratio",
    arguments: &[
        ("events_inside", Count, "runs of the slice with the bad outcome"),
        ("runs_inside", Count, "runs of the slice"),
        ("events_outside", Count, "all other runs with the bad outcome"),
        ("runs_outside", Count, "all other runs"),
    ],
    required: 4,
    nulls: false,
    doc: "How many times more common the bad outcome is inside a slice than outside it (as in DIFF, VLDB 2019); ∞ if \
          there is none outside, null if either has no runs.",
    example: "SELECT risk_ratio(29, 100, 5, 100) AS ratio",
};

/// Computes the values of all slices of a partition at once; rows with a null are not slices.
fn of_slices(
    name: &str,
    columns: &Columns,
    rows: usize,
    values: impl Fn(&[Slice]) -> std::result::Result<Option<Vec<Value>>, Invalid>,
) -> Result<Vec<Option<Value>>> {
    let (mut slices, mut places) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    for place in 0..rows {
        if let Some(row) = columns.row(place) {
            slices.push(Slice {
                amount_a: row.number(0),
                units_a: row.number(1),
                amount_b: row.number(2),
                units_b: row.number(3),
            });
            places.push(place);
        }
    }
    let mut answers = vec![None; rows];
    let found = values(&slices).map_err(|error| exec_datafusion_err!("{name}: {error}"))?;
    for (place, value) in places.into_iter().zip(found.unwrap_or_default()) {
        answers[place] = Some(value);
    }
    Ok(answers)
}
