//! Scalar functions of evidence: the log-increments of a block, and the evidence in their sums.

use bellwether_stats::drift::{HourCounts, WeeklyBaseline, bernoulli_increments, bernoulli_log_ratio, hour_of_week};
use bellwether_stats::e2x2::{Table, Test, kish_tempering, odds_ratio_interval};
use bellwether_stats::histogram_e::{Direction, Tilts, histogram_of, place_of, value_at};
use bellwether_stats::interval::Interval;
use bellwether_stats::special::log_mean_exp;
use bellwether_stats::{Sketch, ebh, rare, sequential, srm};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;

use super::arguments::ArgumentKind::{Count, Counts, Moment, Number, Numbers, Sketch as SketchKind};
use super::arguments::{ArgumentRow, Spec};
use super::scalar::{Value, scalar};

/// Microseconds of an hour.
const HOUR_MICROS: i64 = 3_600_000_000;

const TEMPERING: (&str, super::arguments::ArgumentKind, &str) =
    ("tempering", Number, "factor of the evidence, 1 by default; less for runs in clusters (kish_tempering)");
const EVENTS_A: (&str, super::arguments::ArgumentKind, &str) =
    ("events_a", Count, "runs of the baseline with the bad outcome");
const TOTAL_A: (&str, super::arguments::ArgumentKind, &str) = ("total_a", Count, "runs of the baseline");
const EVENTS_B: (&str, super::arguments::ArgumentKind, &str) =
    ("events_b", Count, "runs of the canary with the bad outcome");
const TOTAL_B: (&str, super::arguments::ArgumentKind, &str) = ("total_b", Count, "runs of the canary");
const EVENTS: (&str, super::arguments::ArgumentKind, &str) = ("events", Count, "runs with the bad outcome");
const RUNS: (&str, super::arguments::ArgumentKind, &str) = ("runs", Count, "all runs");

pub(super) fn all() -> Vec<ScalarUDF> {
    let mut functions = tables();
    functions.extend(histograms());
    functions.extend(drift());
    functions.extend(sums());
    functions
}

fn numbers(values: impl Into<Vec<f64>>) -> Result<Option<Value>> {
    Ok(Some(Value::Numbers(values.into())))
}

fn number(value: f64) -> Result<Option<Value>> {
    Ok(Some(Value::Number(value)))
}

/// Returns the table in the first four arguments.
pub(super) fn table(row: &ArgumentRow<'_>) -> Result<Table> {
    Table::new(row.count(0)?, row.count(1)?, row.count(2)?, row.count(3)?).map_err(|error| row.wrong(error))
}

/// Returns the increments of the table in the first four arguments, with the margin and tempering in the next.
pub(super) fn table_increments(row: &ArgumentRow<'_>) -> Result<[f64; 6]> {
    let test = Test::new(row.number_or(4, 1.0), row.number_or(5, 1.0)).map_err(|error| row.wrong(error))?;
    Ok(test.increments(&table(row)?))
}

/// The arguments of [`table_increments`].
pub(super) const TABLE_ARGUMENTS: &[(&str, super::arguments::ArgumentKind, &str)] = &[
    EVENTS_A,
    TOTAL_A,
    EVENTS_B,
    TOTAL_B,
    ("margin", Number, "odds ratio up to which the canary is not worse, 1 by default; 1.15 allows 15 % of the odds"),
    TEMPERING,
];

static E2X2: Spec = Spec {
    name: "e2x2",
    arguments: &[
        EVENTS_A,
        TOTAL_A,
        EVENTS_B,
        TOTAL_B,
        ("psi", Number, "odds ratio of the alternative"),
        ("psi0", Number, "greatest odds ratio that still counts as no worse"),
    ],
    required: 6,
    nulls: false,
    doc: "Log-increment, in nats, of a block of runs for the odds ratio `psi` against `psi0`: Fisher's noncentral \
          hypergeometric likelihoods of the canary's bad runs, given those of both arms. Sum it over blocks and strata; \
          `e2x2_increments` computes a whole grid.",
    example: "SELECT e2x2(7, 120, 15, 80, 2.2, 1.0) AS log_e",
};

static E2X2_INCREMENTS: Spec = Spec {
    name: "e2x2_increments",
    arguments: TABLE_ARGUMENTS,
    required: 4,
    nulls: false,
    doc: "Log-increments, in nats, of a block of runs of one stratum for a grid of odds ratios (1.2 to 5 times the \
          margin): evidence that the bad outcome is more common in the canary. Sum them with `sum_increments`, then \
          `log_e`; an alarm at ln(1/α) is false with probability at most α, however often one looks.",
    example: "SELECT log_e(sum_increments(e2x2_increments(fa, ra, fb, rb, 1.15))) AS log_e \
              FROM (VALUES (7, 120, 15, 80), (9, 130, 12, 75)) AS blocks(fa, ra, fb, rb)",
};

static KISH: Spec = Spec {
    name: "kish_tempering",
    arguments: &[
        ("sizes_sum", Number, "Σ of the runs of each cluster, such as a session"),
        ("sizes_squares", Number, "Σ of their squares"),
        ("icc", Number, "correlation of runs within a cluster, 0 to 1; 1 is always safe"),
    ],
    required: 3,
    nulls: false,
    doc: "Factor that tempers the evidence of runs in clusters: 1 / (1 + (m − 1) · icc) with m = Σ size² / Σ size \
          (Kish 1965).",
    example: "SELECT kish_tempering(100, 500, 0.3) AS tempering",
};

const LISTS: &[(&str, super::arguments::ArgumentKind, &str)] = &[
    ("events_a", Counts, "bad runs of the baseline, by block"),
    ("totals_a", Counts, "runs of the baseline, by block"),
    ("events_b", Counts, "bad runs of the canary, by block"),
    ("totals_b", Counts, "runs of the canary, by block"),
    ("alpha", Number, "probability that the interval ever misses the truth, 0.05 by default"),
    TEMPERING,
];

static ODDS_LOW: Spec = Spec {
    name: "odds_ratio_low",
    arguments: LISTS,
    required: 4,
    nulls: false,
    doc: "Lower end of a confidence sequence for the odds ratio of canary to baseline, valid at all times at once; \
          0 if it is unbounded.",
    example: "SELECT odds_ratio_low(array_agg(fa), array_agg(ra), array_agg(fb), array_agg(rb)) AS low \
              FROM (VALUES (7, 120, 15, 80), (9, 130, 22, 75)) AS blocks(fa, ra, fb, rb)",
};

static ODDS_HIGH: Spec = Spec {
    name: "odds_ratio_high",
    arguments: LISTS,
    required: 4,
    nulls: false,
    doc: "Upper end of a confidence sequence for the odds ratio of canary to baseline, valid at all times at once; \
          infinite if it is unbounded.",
    example: "SELECT odds_ratio_high(array_agg(fa), array_agg(ra), array_agg(fb), array_agg(rb)) AS high \
              FROM (VALUES (7, 120, 15, 80), (9, 130, 22, 75)) AS blocks(fa, ra, fb, rb)",
};

fn odds_ratio(row: &ArgumentRow<'_>) -> Result<Interval> {
    let lists = [row.counts(0)?, row.counts(1)?, row.counts(2)?, row.counts(3)?];
    if lists.iter().any(|list| list.len() != lists[0].len()) {
        return Err(row.wrong("the four lists have different lengths; build them with array_agg over the same rows"));
    }
    let tables = (0..lists[0].len()).map(|n| Table::new(lists[0][n], lists[1][n], lists[2][n], lists[3][n]));
    let tables = tables.collect::<Result<Vec<_>, _>>().map_err(|error| row.wrong(error))?;
    odds_ratio_interval(&tables, row.number_or(5, 1.0), row.number_or(4, 0.05)).map_err(|error| row.wrong(error))
}

fn tables() -> Vec<ScalarUDF> {
    vec![
        scalar(&E2X2, Number, |row| {
            let (psi, psi0) = (row.number(4), row.number(5));
            // The test checks its limits of odds ratios.
            for ratio in [psi, psi0] {
                Test::new(ratio, 1.0).map_err(|error| row.wrong(error))?;
            }
            number(table(&row)?.log_e(psi, psi0))
        }),
        scalar(&E2X2_INCREMENTS, Numbers, |row| numbers(table_increments(&row)?)),
        scalar(&KISH, Number, |row| {
            let factor = kish_tempering(row.number(0), row.number(1), row.number(2));
            number(factor.map_err(|error| row.wrong(error))?)
        }),
        scalar(&ODDS_LOW, Number, |row| number(odds_ratio(&row)?.low)),
        scalar(&ODDS_HIGH, Number, |row| number(odds_ratio(&row)?.high)),
    ]
}

static HISTOGRAM_OF: Spec = Spec {
    name: "histogram_of",
    arguments: &[("sketch", SketchKind, "a sketch, as returned by sketch_of or sketch_merge")],
    required: 1,
    nulls: false,
    doc: "Counts of a sketch by bin, lowest first: always the same 246 bins of 20 % width, so that two of them can be \
          compared bin by bin.",
    example: "SELECT histogram_of(sketch_of(ms, 1)) AS counts FROM (VALUES (120), (240)) AS t(ms)",
};

static HISTOGRAM_QUANTILE: Spec = Spec {
    name: "histogram_quantile",
    arguments: &[
        ("sketch", SketchKind, "a sketch, as returned by sketch_of or sketch_merge"),
        ("q", Number, "the quantile, 0 to 1"),
    ],
    required: 2,
    nulls: false,
    doc: "Quantile as an alert states it: interpolated in the bins of `histogram_of`, which are 20 % wide. \
          `sketch_quantile` is accurate to 1 %. Null for an empty sketch.",
    example: "SELECT histogram_quantile(sketch_of(ms, 1), 0.5) AS median FROM (VALUES (120), (240), (360)) AS t(ms)",
};

const TWO_HISTOGRAMS: &[(&str, super::arguments::ArgumentKind, &str)] = &[
    ("baseline", Counts, "counts of the baseline in this block, by bin"),
    ("canary", Counts, "counts of the canary in this block, by bin"),
    ("reference", Counts, "counts of the baseline's past, by bin; the same for all blocks"),
    TEMPERING,
];

static EHIST: Spec = Spec {
    name: "ehist_increments",
    arguments: TWO_HISTOGRAMS,
    required: 3,
    nulls: false,
    doc: "Log-increments, in nats, of a block for tilts of a distribution towards greater values: a shift of the \
          whole, or a heavier top 5 % or 1 %. Evidence that the canary is slower (or dearer, or longer); sum them with \
          `sum_increments`, then `log_e`.",
    example: "SELECT log_e(ehist_increments([40, 30, 5], [20, 30, 25], [400, 300, 60])) AS log_e",
};

static EHIST_CATEGORY: Spec = Spec {
    name: "ehist_category_increments",
    arguments: TWO_HISTOGRAMS,
    required: 3,
    nulls: false,
    doc: "As `ehist_increments`, for categories without order (finish reasons, error classes): evidence that the share \
          of one of them grew.",
    example: "SELECT log_e(ehist_category_increments([95, 5], [80, 20], [950, 50])) AS log_e",
};

static EHIST_DRIFT: Spec = Spec {
    name: "ehist_drift_increments",
    arguments: &[
        ("counts", Counts, "counts in this block, by bin"),
        ("reference", Counts, "counts of the past, by bin; the same for all blocks"),
        ("margin", Number, "greatest tilt that does not count as drift; usually 0.1"),
        TEMPERING,
    ],
    required: 3,
    nulls: false,
    doc: "Log-increments, in nats, of a block against its own past, towards greater values; for `esr` and `ecusum`.",
    example: "SELECT log_e(ehist_drift_increments([20, 30, 25], [400, 300, 60], 0.1)) AS log_e",
};

fn histograms() -> Vec<ScalarUDF> {
    vec![
        scalar(&HISTOGRAM_OF, Counts, |row| {
            let sketch = Sketch::decode(row.bytes(0)).map_err(|error| row.wrong(error))?;
            Ok(Some(Value::Counts(histogram_of(&sketch))))
        }),
        scalar(&HISTOGRAM_QUANTILE, Number, |row| {
            let q = row.number(1);
            if !(0.0..=1.0).contains(&q) {
                return Err(row.wrong(format_args!("q is `{q}`; it must be between 0 and 1")));
            }
            let sketch = Sketch::decode(row.bytes(0)).map_err(|error| row.wrong(error))?;
            Ok(place_of(&histogram_of(&sketch), q).map(|place| Value::Number(value_at(place))))
        }),
        scalar(&EHIST, Numbers, |row| {
            let tilts = Tilts::ordered(&row.counts(2)?, Direction::Up);
            two_histograms(&row, tilts.map_err(|error| row.wrong(error))?)
        }),
        scalar(&EHIST_CATEGORY, Numbers, |row| {
            let tilts = Tilts::categories(&row.counts(2)?);
            two_histograms(&row, tilts.map_err(|error| row.wrong(error))?)
        }),
        scalar(&EHIST_DRIFT, Numbers, |row| {
            let tilts = Tilts::ordered(&row.counts(1)?, Direction::Up).map_err(|error| row.wrong(error))?;
            let found = tilts.drift_increments(&row.counts(0)?, row.number(2), row.number_or(3, 1.0));
            numbers(found.map_err(|error| row.wrong(error))?)
        }),
    ]
}

fn two_histograms(row: &ArgumentRow<'_>, tilts: Tilts) -> Result<Option<Value>> {
    let found = tilts.increments(&row.counts(0)?, &row.counts(1)?, row.number_or(3, 1.0));
    numbers(found.map_err(|error| row.wrong(error))?)
}

static BERN_LLR: Spec = Spec {
    name: "bern_llr",
    arguments: &[
        EVENTS,
        RUNS,
        ("p0", Number, "rate under the null hypothesis, 0 to 1"),
        ("q", Number, "rate under the alternative, 0 to 1"),
    ],
    required: 4,
    nulls: false,
    doc: "Log-likelihood ratio, in nats, of rate q against p0 after `events` of `runs`.",
    example: "SELECT bern_llr(9, 80, 0.05, 0.10) AS log_ratio",
};

static BERNOULLI: Spec = Spec {
    name: "bernoulli_increments",
    arguments: &[EVENTS, RUNS, ("null_rate", Number, "greatest rate that does not count as drift, 0 to 1"), TEMPERING],
    required: 3,
    nulls: false,
    doc: "Log-increments, in nats, of a window for odds 1.2 to 8 times those of `null_rate`; for `esr` and `ecusum`.",
    example: "SELECT bernoulli_increments(9, 80, 0.05) AS increments",
};

static POIS_LLR: Spec = Spec {
    name: "pois_llr",
    arguments: &[
        ("events", Count, "events"),
        RUNS,
        ("rate0", Number, "events per run under the null hypothesis"),
        ("ratio", Number, "rate under the alternative, as a multiple of rate0"),
    ],
    required: 4,
    nulls: false,
    doc: "Log-likelihood ratio, in nats, of Poisson counts: events · ln ratio − rate0 · runs · (ratio − 1).",
    example: "SELECT pois_llr(3, 1000, 0.001, 10) AS log_ratio",
};

static POISSON: Spec = Spec {
    name: "poisson_increments",
    arguments: &[
        ("events", Count, "events, such as policy exceptions"),
        RUNS,
        ("null_rate", Number, "greatest number of events per run that still counts as no worse"),
        TEMPERING,
    ],
    required: 3,
    nulls: false,
    doc: "Log-increments, in nats, of a window for 1.5 to 30 times `null_rate`; for `esr` and `ecusum`.",
    example: "SELECT poisson_increments(3, 1000, rate_bound(10, 100000, 0.9) * 1.25) AS increments",
};

static RATE_BOUND: Spec = Spec {
    name: "rate_bound",
    arguments: &[("events", Count, "past events"), RUNS, ("confidence", Number, "0 to 1, such as 0.9")],
    required: 3,
    nulls: false,
    doc: "Upper bound of a rate of rare events. For no events in n runs at 0.95 it is the rule of three, 3/n.",
    example: "SELECT rate_bound(0, 1000, 0.95) AS bound",
};

static BASELINE_INCREMENTS: Spec = Spec {
    name: "baseline_increments",
    arguments: &[
        ("baseline", Numbers, "a baseline, as returned by seasonal_baseline"),
        ("window_start", Moment, "start of the window"),
        EVENTS,
        RUNS,
        ("least_odds", Number, "least margin as an odds ratio, 1.1 by default; 1.25 for an anchored reference"),
    ],
    required: 4,
    nulls: false,
    doc: "Log-increments, in nats, of a window against the past rate of its hour of the week, with the margin and \
          overdispersion of the baseline; for `esr` and `ecusum`.",
    example: "WITH past AS (SELECT to_timestamp(1767571200 + n * 3600) AS t, 50 AS runs, 4 AS failed \
              FROM unnest(range(0, 336)) AS r(n)), \
              learned AS (SELECT seasonal_baseline(t, failed, runs) AS b FROM past) \
              SELECT log_e(baseline_increments(b, timestamp '2026-01-20 10:00:00', 12, 50)) AS log_e FROM learned",
};

static HOUR_OF_WEEK: Spec = Spec {
    name: "hour_of_week",
    arguments: &[("moment", Moment, "a moment, UTC")],
    required: 1,
    nulls: false,
    doc: "Hour of the week, UTC: 0 is the first hour of a Monday, 167 the last of a Sunday.",
    example: "SELECT hour_of_week(timestamp '2026-01-05 01:30:00') AS hour",
};

/// Returns the hour of a moment, since the epoch.
pub(super) fn hour_of(row: &ArgumentRow<'_>, place: usize) -> i64 {
    row.moment(place).unwrap_or(0).div_euclid(HOUR_MICROS)
}

/// Returns an hour of the past, from start, events and runs.
pub(super) fn past_hour(row: &ArgumentRow<'_>) -> Result<HourCounts> {
    let (events, runs) = (row.count(1)?, row.count(2)?);
    if events > runs {
        return Err(row.wrong(format_args!("`{events}` events exceed `{runs}` runs")));
    }
    Ok(HourCounts { hour: hour_of(row, 0), runs, events })
}

fn drift() -> Vec<ScalarUDF> {
    vec![
        scalar(&BERN_LLR, Number, |row| {
            let found = bernoulli_log_ratio(row.count(0)?, row.count(1)?, row.number(2), row.number(3));
            number(found.map_err(|error| row.wrong(error))?)
        }),
        scalar(&BERNOULLI, Numbers, |row| {
            let found = bernoulli_increments(row.count(0)?, row.count(1)?, row.number(2), row.number_or(3, 1.0));
            numbers(found.map_err(|error| row.wrong(error))?)
        }),
        scalar(&POIS_LLR, Number, |row| {
            let found = rare::poisson_log_ratio(row.count(0)?, row.count(1)?, row.number(2), row.number(3));
            number(found.map_err(|error| row.wrong(error))?)
        }),
        scalar(&POISSON, Numbers, |row| {
            let found = rare::poisson_increments(row.count(0)?, row.count(1)?, row.number(2), row.number_or(3, 1.0));
            numbers(found.map_err(|error| row.wrong(error))?)
        }),
        scalar(&RATE_BOUND, Number, |row| {
            let found = rare::rate_bound(row.count(0)?, row.count(1)?, row.number(2));
            number(found.map_err(|error| row.wrong(error))?)
        }),
        scalar(&BASELINE_INCREMENTS, Numbers, |row| {
            let mut baseline = WeeklyBaseline::from_numbers(&row.numbers(0)?).map_err(|error| row.wrong(error))?;
            let least = row.number_or(4, 1.1);
            if !(1.0..=100.0).contains(&least) {
                return Err(row.wrong(format_args!("least_odds is `{least}`; it must be from 1 to 100")));
            }
            baseline.margin = baseline.margin.max(least.ln());
            let found = baseline.increments(hour_of(&row, 1), row.count(2)?, row.count(3)?);
            numbers(found.map_err(|error| row.wrong(error))?)
        }),
        scalar(&HOUR_OF_WEEK, Count, |row| {
            Ok(Some(Value::Count(u64::try_from(hour_of_week(hour_of(&row, 0))).unwrap_or(0))))
        }),
    ]
}

static LOG_E: Spec = Spec {
    name: "log_e",
    arguments: &[("increments", Numbers, "sums of log-increments over a grid, as returned by sum_increments")],
    required: 1,
    nulls: false,
    doc: "Evidence, ln E in nats: the mean over the grid. At ln(1/α) or more it is an alarm at level α, at any time. 0 \
          for an empty list.",
    example: "SELECT log_e([1.5, 4.0, 2.0]) AS log_e",
};

static E_P_VALUE: Spec = Spec {
    name: "e_p_value",
    arguments: &[("log_e", Number, "evidence in nats")],
    required: 1,
    nulls: false,
    doc: "The p-value equivalent to the evidence, valid at any time: min(1, 1/E).",
    example: "SELECT e_p_value(4.6) AS p",
};

static ALARM_LOG_E: Spec = Spec {
    name: "alarm_log_e",
    arguments: &[("alpha", Number, "probability of a false alarm, ever; 0 to 1")],
    required: 1,
    nulls: false,
    doc: "Evidence at which to raise an alarm, ln(1/α): it is ever reached without cause with probability at most α.",
    example: "SELECT alarm_log_e(0.01) AS threshold",
};

static DETECTOR_THRESHOLD: Spec = Spec {
    name: "detector_threshold",
    arguments: &[
        ("series", Number, "number of series watched"),
        ("updates_a_month", Number, "updates of each series per month; 8,640 if one comes every five minutes"),
        ("false_alarms_a_month", Number, "false alarms of all series together per month, at most, on average"),
    ],
    required: 3,
    nulls: false,
    doc: "Value of `esr` at which to raise an alarm to keep false alarms within a budget.",
    example: "SELECT detector_threshold(200, 8640, 2) AS threshold",
};

static E_LOND: Spec = Spec {
    name: "e_lond_threshold",
    arguments: &[
        ("number", Count, "number of the hypothesis, such as a release, from 1"),
        ("rejected", Count, "number of earlier hypotheses that raised an alarm"),
        ("alpha", Number, "share of false alarms among alarms, 0 to 1"),
    ],
    required: 3,
    nulls: false,
    doc: "Evidence that the next in a sequence of hypotheses needs to raise an alarm (e-LOND, Xu & Ramdas 2024).",
    example: "SELECT e_lond_threshold(3, 1, 0.05) AS threshold",
};

static SRM: Spec = Spec {
    name: "srm",
    arguments: &[
        ("counts", Counts, "runs by arm"),
        ("shares", Numbers, "shares that the split was configured with, in the same order"),
        ("concentration", Number, "weight of the prior around the shares, 100 by default"),
    ],
    required: 2,
    nulls: false,
    doc: "Evidence, ln E in nats, that traffic is not split as configured (Lindon & Malek 2022).",
    example: "SELECT srm([15, 85], [0.1, 0.9]) AS log_e",
};

fn sums() -> Vec<ScalarUDF> {
    vec![
        scalar(&LOG_E, Number, |row| number(log_mean_exp(&row.numbers(0)?))),
        scalar(&E_P_VALUE, Number, |row| number(sequential::p_value(row.number(0)))),
        scalar(&ALARM_LOG_E, Number, |row| {
            number(sequential::alarm_threshold(row.number(0)).map_err(|error| row.wrong(error))?)
        }),
        scalar(&DETECTOR_THRESHOLD, Number, |row| {
            let found = sequential::detector_threshold(row.number(0), row.number(1), row.number(2));
            number(found.map_err(|error| row.wrong(error))?)
        }),
        scalar(&E_LOND, Number, |row| {
            let found = ebh::e_lond_threshold(row.count(0)?, row.count(1)?, row.number(2));
            number(found.map_err(|error| row.wrong(error))?)
        }),
        scalar(&SRM, Number, |row| {
            let found = srm::log_e(&row.counts(0)?, &row.numbers(1)?, row.number_or(2, srm::CONCENTRATION));
            number(found.map_err(|error| row.wrong(error))?)
        }),
    ]
}
