//! Scalar functions that measure: ratios with confidence sequences, distances, burn rates, tails, and liveness.

use bellwether_stats::burn_rate::{BurnCounts, BurnVerdict, Objective};
use bellwether_stats::distance;
use bellwether_stats::interval::RatioSums;
use bellwether_stats::liveness::{Liveness, Watermark, WindowRuns, ln_quiet};
use bellwether_stats::ratio_cs::{self, Estimate, Sides, TIGHTEST_AT};
use bellwether_stats::special::ln_binomial_tail;
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;

use super::arguments::ArgumentKind::{Count, Counts, Moment, Number, Numbers, Text};
use super::arguments::{ArgumentRow, Spec};
use super::scalar::{Value, scalar};

/// Microseconds of a second.
const SECOND_MICROS: f64 = 1e6;

type Argument = (&'static str, super::arguments::ArgumentKind, &'static str);

pub(super) fn all() -> Vec<ScalarUDF> {
    let mut functions = ratios();
    functions.extend(distances());
    functions.extend(objectives());
    functions
}

fn number(value: f64) -> Result<Option<Value>> {
    Ok(Some(Value::Number(value)))
}

static HALF_WIDTH: Spec = Spec {
    name: "acs_halfwidth",
    arguments: &[
        ("standard_error", Number, "standard error of the estimate now"),
        ("n", Number, "number of units behind it"),
        ("tightest_at", Number, "units at which the interval is tightest; usually 5000"),
        ("alpha", Number, "probability that it ever misses, 0 to 1"),
        ("sides", Count, "1 or 2"),
    ],
    required: 5,
    nulls: false,
    doc: "Half-width of an asymptotic confidence sequence (Waudby-Smith et al. 2024): an interval that is valid \
          at any time.",
    example: "SELECT acs_halfwidth(0.0316, 1000, 5000, 0.05, 2) AS half_width",
};

static ACS_LOG_E: Spec = Spec {
    name: "acs_log_e",
    arguments: &[
        ("estimate", Number, "the estimate"),
        ("standard_error", Number, "its standard error"),
        ("n", Number, "number of units behind it"),
        ("margin", Number, "greatest value that still counts as no worse, 0 by default"),
        ("alpha", Number, "level it is tuned for, 0.01 by default"),
        ("tightest_at", Number, "units at which it is most sensitive, 5000 by default"),
    ],
    required: 3,
    nulls: false,
    doc: "Evidence, ln E in nats, that an estimate exceeds a margin; one-sided, asymptotic. 0 if the standard error is 0.",
    example: "SELECT acs_log_e(0.12, 0.03, 4000, 0.05) AS log_e",
};

const COMPARED: &[Argument] = &[
    ("sums_a", Numbers, "baseline: [n, Σy, Σx, Σy², Σx², Σxy] over runs"),
    ("sums_b", Numbers, "canary: the same"),
    ("margin", Number, "greatest relative rise that still counts as no worse, 0.05 by default"),
    ("alpha", Number, "level it is tuned for, 0.01 by default"),
];

static ACS_RATIO: Spec = Spec {
    name: "acs_ratio",
    arguments: COMPARED,
    required: 2,
    nulls: false,
    doc: "Evidence, ln E in nats, that the canary's ratio Σy/Σx (cost per completed task) is more than the margin above \
          the baseline's: delta method on the log scale, asymptotic, for independent runs. Null below 30 units of x in \
          an arm.",
    example: "SELECT acs_ratio([500, 1300, 400, 4200, 400, 1050], [500, 1900, 380, 8900, 380, 1480]) AS log_e",
};

const COMPARED_GROUPS: &[Argument] = &[
    ("totals_y_a", Numbers, "baseline: Σy by random group, as returned by random_groups"),
    ("totals_x_a", Numbers, "baseline: Σx by random group"),
    ("runs_a", Number, "runs of the baseline"),
    ("totals_y_b", Numbers, "canary: Σy by random group"),
    ("totals_x_b", Numbers, "canary: Σx by random group"),
    ("runs_b", Number, "runs of the canary"),
    ("margin", Number, "greatest relative rise that still counts as no worse, 0.05 by default"),
    ("alpha", Number, "level it is tuned for, 0.01 by default"),
];

static ACS_RATIO_GROUPS: Spec = Spec {
    name: "acs_ratio_groups",
    arguments: COMPARED_GROUPS,
    required: 6,
    nulls: false,
    doc: "As `acs_ratio`, from totals by random group: valid for runs in sessions, too. Null below 30 units of x \
          in an arm.",
    example: "WITH t AS (SELECT random_groups(random_group(CAST(n AS VARCHAR)), 3 + n % 5) AS cost, \
              random_groups(random_group(CAST(n AS VARCHAR)), 1) AS completed FROM unnest(range(0, 600)) AS r(n)) \
              SELECT acs_ratio_groups(a.cost, a.completed, 600, b.cost, b.completed, 600) AS log_e \
              FROM t AS a CROSS JOIN t AS b",
};

/// Returns the sums of an arm, as [`COMPARED`] lists them.
fn sums(row: &ArgumentRow<'_>, place: usize) -> Result<RatioSums> {
    let list = row.numbers(place)?;
    let [n, y, x, yy, xx, xy] = list[..] else {
        return Err(row.wrong(format_args!("a list has {} sums; it must be [n, Σy, Σx, Σy², Σx², Σxy]", list.len())));
    };
    Ok(RatioSums { n, y, x, yy, xx, xy })
}

/// Returns the evidence of a difference of two logarithms; `None` if one of them is unknown.
fn compared(row: &ArgumentRow<'_>, arms: (Option<Estimate>, Option<Estimate>), margin: usize) -> Result<Option<Value>> {
    let (Some(a), Some(b)) = arms else { return Ok(None) };
    let rise = row.number_or(margin, 0.05);
    if !(rise > -1.0 && rise.is_finite()) {
        return Err(row.wrong(format_args!("margin is `{rise}`; it must be above -1, such as 0.05")));
    }
    let alpha = row.number_or(margin + 1, 0.01);
    let found = ratio_cs::log_e(&ratio_cs::difference(&a, &b), rise.ln_1p(), TIGHTEST_AT, alpha, Sides::One);
    number(found.map_err(|error| row.wrong(error))?)
}

fn ratios() -> Vec<ScalarUDF> {
    vec![
        scalar(&HALF_WIDTH, Number, |row| {
            let sides = match row.count(4)? {
                1 => Sides::One,
                2 => Sides::Two,
                other => return Err(row.wrong(format_args!("sides is `{other}`; it must be 1 or 2"))),
            };
            let found = ratio_cs::half_width(row.number(0), row.number(1), row.number(2), row.number(3), sides);
            number(found.map_err(|error| row.wrong(error))?)
        }),
        scalar(&ACS_LOG_E, Number, |row| {
            let estimate =
                Estimate { value: row.number(0), error: row.number(1), units: row.number(2), degrees: f64::INFINITY };
            let (margin, alpha) = (row.number_or(3, 0.0), row.number_or(4, 0.01));
            let found = ratio_cs::log_e(&estimate, margin, row.number_or(5, TIGHTEST_AT), alpha, Sides::One);
            number(found.map_err(|error| row.wrong(error))?)
        }),
        scalar(&ACS_RATIO, Number, |row| {
            compared(&row, (ratio_cs::log_ratio(&sums(&row, 0)?), ratio_cs::log_ratio(&sums(&row, 1)?)), 2)
        }),
        scalar(&ACS_RATIO_GROUPS, Number, |row| {
            let arm = |place: usize| -> Result<Option<Estimate>> {
                let (y, x) = (row.numbers(place)?, row.numbers(place + 1)?);
                Ok(ratio_cs::log_ratio_of_groups(&y, &x, row.number(place + 2)))
            };
            compared(&row, (arm(0)?, arm(3)?), 6)
        }),
    ]
}

const COUNTS_OF_TWO: &[Argument] = &[
    ("reference", Counts, "counts of the reference by bin or category"),
    ("current", Counts, "counts to compare, in the same order"),
];

/// Makes the spec of a distance.
macro_rules! distance {
    ($name:literal, $doc:literal) => {
        Spec {
            name: $name,
            arguments: COUNTS_OF_TWO,
            required: 2,
            nulls: false,
            doc: $doc,
            example: concat!("SELECT ", $name, "([400, 300, 60], [35, 30, 15]) AS value"),
        }
    };
}

static PSI: Spec = distance!(
    "psi",
    "Population stability index of two histograms, from 0; sparse bins are merged first. The number alone cannot \
     be judged; see `psi_p`."
);
static JS: Spec = distance!(
    "js",
    "Jensen–Shannon distance of two histograms (root of the divergence in nats), 0 to 0.83; sparse bins are merged first."
);
static W1: Spec = distance!(
    "w1",
    "Wasserstein distance of two histograms with bins of equal width, in standard deviations of the reference."
);
static PSI_P: Spec = distance!(
    "psi_p",
    "Probability of a population stability index of `psi` or more without any change, by its null distribution \
     (Yurdakul 2018). Not valid under repeated looks: use it for a report, not for a page."
);
static JS_P: Spec = distance!("js_p", "Probability of a Jensen–Shannon distance of `js` or more without any change.");
static W1_P: Spec = distance!("w1_p", "Probability of a Wasserstein distance of `w1` or more without any change.");

static PSI_THRESHOLD: Spec = Spec {
    name: "psi_threshold",
    arguments: &[
        ("reference_runs", Count, "runs of the reference"),
        ("current_runs", Count, "runs compared"),
        ("bins", Count, "number of bins"),
        ("alpha", Number, "probability of exceeding it without any change, 0 to 1"),
    ],
    required: 4,
    nulls: false,
    doc: "Population stability index that chance alone exceeds with probability alpha: (1/n + 1/m) χ².",
    example: "SELECT psi_threshold(1000, 10000, 10, 0.01) AS threshold",
};

fn distances() -> Vec<ScalarUDF> {
    fn pooled(row: &ArgumentRow<'_>) -> Result<distance::Pooled> {
        distance::pooled(&row.counts(0)?, &row.counts(1)?).map_err(|error| row.wrong(error))
    }
    fn w1(row: &ArgumentRow<'_>) -> Result<(f64, f64)> {
        distance::w1(&row.counts(0)?, &row.counts(1)?).map_err(|error| row.wrong(error))
    }
    vec![
        scalar(&PSI, Number, |row| number(pooled(&row)?.psi())),
        scalar(&JS, Number, |row| number(pooled(&row)?.js())),
        scalar(&W1, Number, |row| number(w1(&row)?.0)),
        scalar(&PSI_P, Number, |row| number(pooled(&row)?.psi_p_value())),
        scalar(&JS_P, Number, |row| number(pooled(&row)?.js_p_value())),
        scalar(&W1_P, Number, |row| number(w1(&row)?.1)),
        scalar(&PSI_THRESHOLD, Number, |row| {
            let bins = usize::try_from(row.count(2)?).unwrap_or(usize::MAX);
            let found = distance::psi_threshold(row.count(0)?, row.count(1)?, bins, row.number(3));
            number(found.map_err(|error| row.wrong(error))?)
        }),
    ]
}

static BINOMIAL_TAIL: Spec = Spec {
    name: "binomial_tail",
    arguments: &[("events", Count, "events"), ("runs", Count, "runs"), ("rate", Number, "rate, 0 to 1")],
    required: 3,
    nulls: false,
    doc: "Exact probability of `events` or more in `runs` at a rate.",
    example: "SELECT binomial_tail(9, 80, 0.05) AS p",
};

static QUIET_TAIL: Spec = Spec {
    name: "quiet_tail",
    arguments: &[
        ("runs", Count, "runs seen"),
        ("expected", Number, "runs expected"),
        ("overdispersion", Number, "variance as a multiple of the mean, 1 by default"),
    ],
    required: 2,
    nulls: false,
    doc: "Probability of at most so many runs: Poisson, or negative binomial if the variance exceeds the mean. A \
          producer counts as silent below 10⁻⁶ for two windows in a row.",
    example: "SELECT quiet_tail(40, 100, 5) AS p",
};

static BURN_RATE: Spec = Spec {
    name: "burn_rate",
    arguments: &[
        ("events", Count, "bad runs"),
        ("runs", Count, "all runs"),
        ("objective", Number, "share of runs that must be good, such as 0.95"),
    ],
    required: 3,
    nulls: false,
    doc: "Error rate as a multiple of the error budget; null without runs.",
    example: "SELECT burn_rate(30, 200, 0.95) AS factor",
};

static BURN_VERDICT: Spec = Spec {
    name: "burn_verdict",
    arguments: &[
        ("events_long", Count, "bad runs of the long window"),
        ("runs_long", Count, "runs of the long window"),
        ("events_short", Count, "bad runs of the short window"),
        ("runs_short", Count, "runs of the short window"),
        ("objective", Number, "share of runs that must be good"),
        ("factor", Number, "burn rate that both windows must exceed"),
    ],
    required: 6,
    nulls: false,
    doc: "`fires` if both windows burn the error budget faster than the factor and the long one exceeds chance \
          (exact binomial tail below 10⁻⁴, at least 3 bad runs); otherwise `slow`, `over`, `chance` or `no_runs`. A \
          factor that can never fire is an error, with the reason.",
    example: "SELECT burn_verdict(200, 1000, 20, 80, 0.99, 14.4) AS verdict",
};

static LIVENESS: Spec = Spec {
    name: "liveness",
    arguments: &[
        ("window_end", Moment, "end of the window"),
        ("watermark", Moment, "event time that the source has passed; null if it is unknown"),
        ("now", Moment, "the current time"),
        ("grace_seconds", Number, "seconds to wait for a window after its end"),
        ("runs", Count, "runs of the window"),
        ("least_runs", Count, "runs needed for a judgement"),
    ],
    required: 6,
    nulls: true,
    doc: "State of a window: `enough`, `insufficient`, `no_traffic` (complete, the source is alive), `pending` \
          (not complete yet) or `no_data` (overdue: nothing can be concluded).",
    example: "SELECT liveness(timestamp '2026-01-31 12:00:00', timestamp '2026-01-31 12:03:00', \
              timestamp '2026-01-31 12:05:00', 300, 12, 20) AS state",
};

fn objectives() -> Vec<ScalarUDF> {
    fn objective(row: &ArgumentRow<'_>, place: usize) -> Result<Objective> {
        Objective::new(row.number(place)).map_err(|error| row.wrong(error))
    }
    vec![
        scalar(&BINOMIAL_TAIL, Number, |row| {
            let rate = row.number(2);
            if !(0.0..=1.0).contains(&rate) {
                return Err(row.wrong(format_args!("rate is `{rate}`; it must be from 0 to 1")));
            }
            number(ln_binomial_tail(row.count(0)?, row.count(1)?, rate).exp())
        }),
        scalar(&QUIET_TAIL, Number, |row| {
            let found = ln_quiet(row.count(0)?, row.number(1), row.number_or(2, 1.0));
            number(found.map_err(|error| row.wrong(error))?.exp())
        }),
        scalar(&BURN_RATE, Number, |row| {
            let counts = BurnCounts { events: row.count(0)?, runs: row.count(1)? };
            Ok(objective(&row, 2)?.burn_rate(counts).map(Value::Number))
        }),
        scalar(&BURN_VERDICT, Text, |row| {
            let long = BurnCounts { events: row.count(0)?, runs: row.count(1)? };
            let short = BurnCounts { events: row.count(2)?, runs: row.count(3)? };
            let verdict = objective(&row, 4)?.judge(long, short, row.number(5)).map_err(|error| row.wrong(error))?;
            Ok(Some(Value::Text(match verdict {
                BurnVerdict::Fires => "fires",
                BurnVerdict::Slow => "slow",
                BurnVerdict::Over => "over",
                BurnVerdict::Chance => "chance",
                BurnVerdict::NoRuns => "no_runs",
            })))
        }),
        scalar(&LIVENESS, Text, |row| {
            let (Some(end), Some(now)) = (row.moment(0), row.moment(2)) else { return Ok(None) };
            let watermark = row.moment(1).map_or(Watermark::Unknown, Watermark::At);
            #[expect(clippy::cast_possible_truncation, reason = "a cast of a float saturates")]
            let grace = (row.number_or(3, 0.0) * SECOND_MICROS) as i64;
            let window = WindowRuns { end, runs: row.count(4)?, least_runs: row.count(5)? };
            let state = Liveness::new(&window, watermark, now, grace);
            Ok(Some(Value::Text(state.name())))
        }),
    ]
}
