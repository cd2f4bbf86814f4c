//! Scalar functions that measure: ratios with confidence sequences, distances, burn rates, tails, what silence means.

use bellwether_stats::burn_rate::{BurnCounts, BurnVerdict, Objective};
use bellwether_stats::distance;
use bellwether_stats::interval::RatioSums;
use bellwether_stats::liveness::{Liveness, Watermark, WindowRuns, ln_quiet};
use bellwether_stats::ratio_cs::{self, Estimate, Sides, TIGHTEST_AT};
use bellwether_stats::special::ln_binomial_tail;
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;

use super::arguments::Kind::{Count, Counts, Moment, Number, Numbers, Text};
use super::arguments::{Row, Spec};
use super::scalar::{Value, scalar};

/// Microseconds of a second.
const SECOND_MICROS: f64 = 1e6;

type Argument = (&'static str, super::arguments::Kind, &'static str);

/// Every one of them.
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
        ("n", Number, "units it rests on"),
        ("tightest_at", Number, "units at which the interval is tightest; 5000 is usual"),
        ("alpha", Number, "chance that it ever misses, 0 to 1"),
        ("sides", Count, "1 or 2"),
    ],
    required: 5,
    nulls: false,
    doc: "Half-width of an asymptotic confidence sequence (Waudby-Smith et al. 2024): an interval that may be looked at \
          at any time.",
    example: "SELECT acs_halfwidth(0.0316, 1000, 5000, 0.05, 2) AS half_width",
};

static ACS_LOG_E: Spec = Spec {
    name: "acs_log_e",
    arguments: &[
        ("estimate", Number, "the estimate"),
        ("standard_error", Number, "its standard error"),
        ("n", Number, "units it rests on"),
        ("margin", Number, "what is not worse yet, 0 where left out"),
        ("alpha", Number, "level that it is tuned for, 0.01 where left out"),
        ("tightest_at", Number, "units at which it is most sensitive, 5000 where left out"),
    ],
    required: 3,
    nulls: false,
    doc: "Evidence, ln E in nats, that an estimate exceeds a margin; one-sided, asymptotic. 0 without an error.",
    example: "SELECT acs_log_e(0.12, 0.03, 4000, 0.05) AS log_e",
};

const COMPARED: &[Argument] = &[
    ("sums_a", Numbers, "baseline: [n, Σy, Σx, Σy², Σx², Σxy] over runs"),
    ("sums_b", Numbers, "canary: the same"),
    ("margin", Number, "relative rise that is not worse, 0.05 where left out"),
    ("alpha", Number, "level that it is tuned for, 0.01 where left out"),
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
    ("totals_y_a", Numbers, "baseline: Σy by random group, as of random_groups"),
    ("totals_x_a", Numbers, "baseline: Σx by random group"),
    ("runs_a", Number, "runs of the baseline"),
    ("totals_y_b", Numbers, "canary: Σy by random group"),
    ("totals_x_b", Numbers, "canary: Σx by random group"),
    ("runs_b", Number, "runs of the canary"),
    ("margin", Number, "relative rise that is not worse, 0.05 where left out"),
    ("alpha", Number, "level that it is tuned for, 0.01 where left out"),
];

static ACS_RATIO_GROUPS: Spec = Spec {
    name: "acs_ratio_groups",
    arguments: COMPARED_GROUPS,
    required: 6,
    nulls: false,
    doc: "As `acs_ratio`, from totals by random group: right also where runs come in sessions. Null below 30 units of x \
          in an arm.",
    example: "WITH t AS (SELECT random_groups(random_group(CAST(n AS VARCHAR)), 3 + n % 5) AS cost, \
              random_groups(random_group(CAST(n AS VARCHAR)), 1) AS completed FROM unnest(range(0, 600)) AS r(n)) \
              SELECT acs_ratio_groups(a.cost, a.completed, 600, b.cost, b.completed, 600) AS log_e \
              FROM t AS a CROSS JOIN t AS b",
};

/// The rest of [`COMPARED`]'s sums.
fn sums(row: &Row<'_>, place: usize) -> Result<RatioSums> {
    let list = row.numbers(place)?;
    let [n, y, x, yy, xx, xy] = list[..] else {
        return Err(row.wrong(format_args!("a list has {} sums; it must be [n, Σy, Σx, Σy², Σx², Σxy]", list.len())));
    };
    Ok(RatioSums { n, y, x, yy, xx, xy })
}

/// Evidence of a difference of two logarithms, or nothing where one of them is not known.
fn compared(row: &Row<'_>, arms: (Option<Estimate>, Option<Estimate>), margin: usize) -> Result<Option<Value>> {
    let (Some(a), Some(b)) = arms else { return Ok(None) };
    let rise = row.number_or(margin, 0.05);
    if !(rise > -1.0 && rise.is_finite()) {
        return Err(row.wrong(format_args!("margin is `{rise}`; it must be above -1, as 0.05")));
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

/// The spec of a distance.
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
    "Population stability index of two histograms, from 0; sparse bins are merged first. A number alone says nothing: \
     see `psi_p`."
);
static JS: Spec = distance!(
    "js",
    "Jensen–Shannon distance of two histograms (root of the divergence in nats), 0 to 0.83; sparse bins are merged first."
);
static W1: Spec = distance!(
    "w1",
    "Wasserstein's distance of two histograms with bins of equal width, in standard deviations of the reference."
);
static PSI_P: Spec = distance!(
    "psi_p",
    "Probability of a population stability index as great as `psi` without any change, by its null law (Yurdakul 2018). \
     Not for repeated looks: use it for a report, not for a page."
);
static JS_P: Spec = distance!("js_p", "Probability of a Jensen–Shannon distance as great as `js` without any change.");
static W1_P: Spec = distance!("w1_p", "Probability of a Wasserstein distance as great as `w1` without any change.");

static PSI_THRESHOLD: Spec = Spec {
    name: "psi_threshold",
    arguments: &[
        ("reference_runs", Count, "runs of the reference"),
        ("current_runs", Count, "runs compared"),
        ("bins", Count, "number of bins"),
        ("alpha", Number, "probability that it is passed without a change, 0 to 1"),
    ],
    required: 4,
    nulls: false,
    doc: "Population stability index that chance alone passes with probability alpha: (1/n + 1/m) χ².",
    example: "SELECT psi_threshold(1000, 10000, 10, 0.01) AS threshold",
};

fn distances() -> Vec<ScalarUDF> {
    fn pooled(row: &Row<'_>) -> Result<distance::Pooled> {
        distance::pooled(&row.counts(0)?, &row.counts(1)?).map_err(|error| row.wrong(error))
    }
    fn w1(row: &Row<'_>) -> Result<(f64, f64)> {
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
    doc: "Probability of `events` or more in `runs` at a rate, exact.",
    example: "SELECT binomial_tail(9, 80, 0.05) AS p",
};

static QUIET_TAIL: Spec = Spec {
    name: "quiet_tail",
    arguments: &[
        ("runs", Count, "runs seen"),
        ("expected", Number, "runs expected"),
        ("overdispersion", Number, "variance as a multiple of the mean, 1 where left out"),
    ],
    required: 2,
    nulls: false,
    doc: "Probability of so few runs or fewer: Poisson, or negative binomial where the variance exceeds the mean. Below \
          10⁻⁶ for two windows in a row, a producer is silent.",
    example: "SELECT quiet_tail(40, 100, 5) AS p",
};

static BURN_RATE: Spec = Spec {
    name: "burn_rate",
    arguments: &[
        ("events", Count, "runs that were bad"),
        ("runs", Count, "all runs"),
        ("objective", Number, "share of runs that has to be good, such as 0.95"),
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
        ("objective", Number, "share of runs that has to be good"),
        ("factor", Number, "burn rate that both have to pass"),
    ],
    required: 6,
    nulls: false,
    doc: "`fires` where both windows burn the error budget faster than the factor and the long one is beyond chance \
          (exact binomial tail below 10⁻⁴, at least 3 bad runs); otherwise `slow`, `over`, `chance` or `no_runs`. A \
          factor that can never fire is an error that says why.",
    example: "SELECT burn_verdict(200, 1000, 20, 80, 0.99, 14.4) AS verdict",
};

static LIVENESS: Spec = Spec {
    name: "liveness",
    arguments: &[
        ("window_end", Moment, "end of the window"),
        ("watermark", Moment, "event time that the source has passed; null where it has not been heard of"),
        ("now", Moment, "the time by the clock"),
        ("grace_seconds", Number, "how long after its end a window is awaited"),
        ("runs", Count, "runs of the window"),
        ("least_runs", Count, "runs that are needed to judge"),
    ],
    required: 6,
    nulls: true,
    doc: "What is known of a window: `enough`, `insufficient`, `no_traffic` (complete, the source is alive), `pending` \
          (not complete yet) or `no_data` (overdue: nothing may be concluded).",
    example: "SELECT liveness(timestamp '2026-01-31 12:00:00', timestamp '2026-01-31 12:03:00', \
              timestamp '2026-01-31 12:05:00', 300, 12, 20) AS state",
};

fn objectives() -> Vec<ScalarUDF> {
    fn objective(row: &Row<'_>, place: usize) -> Result<Objective> {
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
