//! Aggregate functions of samples: totals and means of a population, agreement of raters, and success corrected for the
//! errors of a judge. Their states are multisets of rows, so that any order and any grouping yields the same bits.

use std::fmt;

use bellwether_stats::agreement::{Agreement, Pairs, Ratings};
use bellwether_stats::judge::{Corrected, Judged};
use bellwether_stats::survey::{Estimate, Survey};
use datafusion::common::{DataFusionError, Result, exec_datafusion_err};
use datafusion::logical_expr::AggregateUDF;

use super::aggregate::{State, StateReader, StateWriter, udaf};
use super::arguments::ArgumentKind::{Fact, Number, Text};
use super::arguments::{ArgumentKind, ArgumentRow, Spec};
use super::scalar::Value;

/// Confidence of all intervals, as of `wilson_low` and its neighbours.
const CONFIDENCE: f64 = 0.95;

/// Results of a function: the estimate, and the ends of its interval.
const VALUE: u8 = 0;
const LOW: u8 = 1;
const HIGH: u8 = 2;

pub(super) fn all() -> Vec<AggregateUDF> {
    let mut functions = vec![
        udaf::<Totals<VALUE>>(&HT_TOTAL),
        udaf::<Totals<LOW>>(&HT_TOTAL_LOW),
        udaf::<Totals<HIGH>>(&HT_TOTAL_HIGH),
        udaf::<Means<VALUE>>(&HAJEK_MEAN),
        udaf::<Means<LOW>>(&HAJEK_MEAN_LOW),
        udaf::<Means<HIGH>>(&HAJEK_MEAN_HIGH),
        udaf::<Cohen<VALUE>>(&COHENS_KAPPA),
        udaf::<Cohen<LOW>>(&COHENS_KAPPA_LOW),
        udaf::<Cohen<HIGH>>(&COHENS_KAPPA_HIGH),
        udaf::<Fleiss<VALUE>>(&FLEISS_KAPPA),
        udaf::<Fleiss<LOW>>(&FLEISS_KAPPA_LOW),
        udaf::<Fleiss<HIGH>>(&FLEISS_KAPPA_HIGH),
        udaf::<Alpha<VALUE>>(&KRIPPENDORFF_ALPHA),
        udaf::<Alpha<LOW>>(&KRIPPENDORFF_ALPHA_LOW),
        udaf::<Alpha<HIGH>>(&KRIPPENDORFF_ALPHA_HIGH),
    ];
    functions.extend([
        udaf::<Success<NAIVE, VALUE>>(&JUDGE_NAIVE),
        udaf::<Success<POWERED, VALUE>>(&JUDGE_CORRECTED),
        udaf::<Success<POWERED, LOW>>(&JUDGE_CORRECTED_LOW),
        udaf::<Success<POWERED, HIGH>>(&JUDGE_CORRECTED_HIGH),
        udaf::<Success<ROGAN_GLADEN, VALUE>>(&JUDGE_ROGAN_GLADEN),
        udaf::<Success<ROGAN_GLADEN, LOW>>(&JUDGE_ROGAN_GLADEN_LOW),
        udaf::<Success<ROGAN_GLADEN, HIGH>>(&JUDGE_ROGAN_GLADEN_HIGH),
        udaf::<Success<SENSITIVITY, VALUE>>(&JUDGE_SENSITIVITY),
        udaf::<Success<SPECIFICITY, VALUE>>(&JUDGE_SPECIFICITY),
    ]);
    functions
}

type Argument = (&'static str, ArgumentKind, &'static str);

/// Declares the specs of an estimate and of the ends of its 95 % interval.
macro_rules! estimate {
    ($arguments:ident, $required:literal, $nulls:literal, $name:literal, $doc:literal, $example:literal,
     $value:ident, $low:ident, $high:ident) => {
        estimate!($value, $arguments, $required, $nulls, $name, $doc, $name, $example);
        estimate!(
            $low,
            $arguments,
            $required,
            $nulls,
            concat!($name, "_low"),
            concat!("Lower end of the 95 % interval of `", $name, "`."),
            concat!($name, "_low"),
            $example
        );
        estimate!(
            $high,
            $arguments,
            $required,
            $nulls,
            concat!($name, "_high"),
            concat!("Upper end of the 95 % interval of `", $name, "`."),
            concat!($name, "_high"),
            $example
        );
    };
    ($spec:ident, $arguments:ident, $required:literal, $nulls:literal, $name:expr, $doc:expr, $called:expr, $example:literal) => {
        static $spec: Spec = Spec {
            name: $name,
            arguments: $arguments,
            required: $required,
            nulls: $nulls,
            doc: $doc,
            example: concat!("SELECT ", $called, $example),
        };
    };
}

const SAMPLED: &[Argument] = &[
    ("y", Number, "value of a sampled row, such as 1 for a failure and 0 for others"),
    ("probability", Number, "its inclusion probability, above 0 and at most 1"),
];

estimate!(
    SAMPLED,
    2,
    false,
    "ht_total",
    "Horvitz–Thompson estimate of a population's total from a sample: Σ y / probability. Its interval is Fay and Feuer's \
     gamma interval, or Student's t if a value is negative. Null without rows.",
    "(y, p) AS failures FROM (VALUES (1, 0.1), (0, 0.1), (1, 1.0)) AS t(y, p)",
    HT_TOTAL,
    HT_TOTAL_LOW,
    HT_TOTAL_HIGH
);
estimate!(
    SAMPLED,
    2,
    false,
    "hajek_mean",
    "Hájek's estimate of a population's mean from a sample: Σ (y / probability) / Σ (1 / probability). A share if all \
     values are 0 or 1; its interval is then Clopper and Pearson's, extended to unequal weights. Null without rows.",
    "(y, p) AS share FROM (VALUES (1, 0.1), (0, 0.1), (1, 1.0)) AS t(y, p)",
    HAJEK_MEAN,
    HAJEK_MEAN_LOW,
    HAJEK_MEAN_HIGH
);

const PAIRED: &[Argument] = &[
    ("first", Text, "category that the first rater gave to an item"),
    ("second", Text, "category that the second rater gave to it"),
];

estimate!(
    PAIRED,
    2,
    false,
    "cohens_kappa",
    "Cohen's κ, the agreement of two raters beyond chance: 1 is full agreement, 0 that of chance. Null if both use one \
     and the same category only.",
    "(a, b) AS kappa FROM (VALUES ('pass', 'pass'), ('pass', 'fail'), ('fail', 'fail'), ('fail', 'fail')) AS t(a, b)",
    COHENS_KAPPA,
    COHENS_KAPPA_LOW,
    COHENS_KAPPA_HIGH
);

const RATED: &[Argument] =
    &[("item", Text, "item that was rated, such as a run id"), ("category", Text, "category that a rater gave to it")];

estimate!(
    RATED,
    2,
    false,
    "fleiss_kappa",
    "Fleiss' κ, the agreement of several raters beyond chance, from one row for each rating. Items with one rating do \
     not count. Null if the others differ in their number of ratings, or if all ratings are the same.",
    "(item, category) AS kappa FROM (VALUES ('a', 'x'), ('a', 'x'), ('b', 'y'), ('b', 'x'), ('c', 'y'), ('c', 'y')) \
     AS t(item, category)",
    FLEISS_KAPPA,
    FLEISS_KAPPA_LOW,
    FLEISS_KAPPA_HIGH
);
estimate!(
    RATED,
    2,
    false,
    "krippendorff_alpha",
    "Krippendorff's α for categories, the agreement of any number of raters beyond chance, from one row for each rating; \
     ratings may be missing. Null if all ratings are the same, or if no item has two.",
    "(item, category) AS alpha FROM (VALUES ('a', 'x'), ('a', 'x'), ('b', 'y'), ('b', 'x'), ('c', 'y'), ('c', 'y'), \
     ('d', 'x'), ('d', 'x'), ('e', 'y')) AS t(item, category)",
    KRIPPENDORFF_ALPHA,
    KRIPPENDORFF_ALPHA_LOW,
    KRIPPENDORFF_ALPHA_HIGH
);

const JUDGED: &[Argument] = &[
    ("judge", Fact, "true if the judge passes the run"),
    ("person", Fact, "true if a person passes it; null if none reviewed it"),
    ("probability", Number, "probability with which the run was reported, 1 by default"),
    ("review_probability", Number, "probability with which it was reported and reviewed, as `probability` by default"),
];

estimate!(
    JUDGE_NAIVE,
    JUDGED,
    2,
    true,
    "judge_naive",
    "Share of runs that a judge passes, as it is. Null without runs.",
    "judge_naive",
    "(judge, person) AS share FROM (VALUES (true, true), (true, NULL), (false, false)) AS t(judge, person)"
);
estimate!(
    JUDGED,
    2,
    true,
    "judge_corrected",
    "Share of successful runs, corrected for a judge's errors by the runs that people reviewed: the prediction-powered \
     estimate, unbiased whatever the judge does. Null below two reviews.",
    "(judge, person, 1, 0.5) AS share FROM (VALUES (true, true), (true, NULL), (true, false), (false, false)) \
     AS t(judge, person)",
    JUDGE_CORRECTED,
    JUDGE_CORRECTED_LOW,
    JUDGE_CORRECTED_HIGH
);
estimate!(
    JUDGED,
    2,
    true,
    "judge_rogan_gladen",
    "Share of successful runs by Rogan and Gladen's formula from the judge's sensitivity and specificity, with Lang and \
     Reiczigel's interval. Null if people have not both passed and failed a run, or if the judge is no better than chance.",
    "(judge, person) AS share FROM (VALUES (true, true), (true, NULL), (false, NULL), (false, false)) AS t(judge, person)",
    JUDGE_ROGAN_GLADEN,
    JUDGE_ROGAN_GLADEN_LOW,
    JUDGE_ROGAN_GLADEN_HIGH
);
estimate!(
    JUDGE_SENSITIVITY,
    JUDGED,
    2,
    true,
    "judge_sensitivity",
    "Share of the runs passed by people that the judge passes too. Null without such a run.",
    "judge_sensitivity",
    "(judge, person) AS share FROM (VALUES (true, true), (false, true), (false, false)) AS t(judge, person)"
);
estimate!(
    JUDGE_SPECIFICITY,
    JUDGED,
    2,
    true,
    "judge_specificity",
    "Share of the runs failed by people that the judge fails too. Null without such a run.",
    "judge_specificity",
    "(judge, person) AS share FROM (VALUES (true, true), (true, false), (false, false)) AS t(judge, person)"
);

fn end<const END: u8>(found: Option<Estimate>) -> Option<Value> {
    let found = found?;
    Some(Value::Number(match END {
        LOW => found.interval.low,
        HIGH => found.interval.high,
        _ => found.value,
    }))
}

fn agreed<const END: u8>(found: Option<Agreement>) -> Option<Value> {
    let found = found?;
    match END {
        LOW => found.interval.map(|interval| Value::Number(interval.low)),
        HIGH => found.interval.map(|interval| Value::Number(interval.high)),
        _ => Some(Value::Number(found.value)),
    }
}

fn invalid(error: impl fmt::Display) -> DataFusionError {
    exec_datafusion_err!("a partial state is invalid: {error}")
}

fn write_survey(survey: &Survey, bytes: &mut StateWriter) {
    bytes.length(survey.distinct());
    for row in survey.rows() {
        bytes.float(row.y);
        bytes.float(row.probability);
        bytes.wide(i128::from(row.count));
    }
}

fn read_count(bytes: &mut StateReader<'_>) -> Result<u64> {
    u64::try_from(bytes.wide()?).map_err(invalid)
}

fn merge_survey(survey: &mut Survey, bytes: &mut StateReader<'_>) -> Result<()> {
    for _ in 0..bytes.length()? {
        let (y, probability, count) = (bytes.float()?, bytes.float()?, read_count(bytes)?);
        survey.add(y, probability, count).map_err(invalid)?;
    }
    Ok(())
}

/// Bytes of a distinct row in a map, with its share of the nodes.
const ROW_BYTES: usize = 40;

/// Declares the state of an estimate from a survey.
macro_rules! survey {
    ($name:ident, $method:ident) => {
        #[derive(Debug, Default)]
        struct $name<const END: u8>(Survey);

        impl<const END: u8> State for $name<END> {
            const OUTPUT: ArgumentKind = Number;
            fn update(&mut self, row: ArgumentRow<'_>) -> Result<()> {
                self.0.add(row.number(0), row.number(1), 1).map_err(|error| row.wrong(error))
            }
            fn write(&self, bytes: &mut StateWriter) {
                write_survey(&self.0, bytes);
            }
            fn merge(&mut self, bytes: &mut StateReader<'_>) -> Result<()> {
                merge_survey(&mut self.0, bytes)
            }
            fn value(&self) -> Option<Value> {
                end::<END>(self.0.$method(CONFIDENCE))
            }
            fn size(&self) -> usize {
                size_of::<Self>() + self.0.distinct() * ROW_BYTES
            }
        }
    };
}

survey!(Totals, total);
survey!(Means, mean);

/// Declares the state of an agreement from counts of two texts.
macro_rules! agreement {
    ($name:ident, $state:ident, $method:ident) => {
        #[derive(Debug, Default)]
        struct $name<const END: u8> {
            counts: $state,
            /// Bytes of the texts that were added.
            text_bytes: usize,
        }

        impl<const END: u8> $name<END> {
            fn add(&mut self, left: &str, right: &str, count: u64) {
                self.text_bytes = self.text_bytes.saturating_add(left.len() + right.len() + 2 * ROW_BYTES);
                self.counts.add(left, right, count);
            }
        }

        impl<const END: u8> State for $name<END> {
            const OUTPUT: ArgumentKind = Number;
            fn update(&mut self, row: ArgumentRow<'_>) -> Result<()> {
                self.add(row.text(0), row.text(1), 1);
                Ok(())
            }
            fn write(&self, bytes: &mut StateWriter) {
                bytes.length(self.counts.counts().count());
                for (left, right, count) in self.counts.counts() {
                    bytes.text(left);
                    bytes.text(right);
                    bytes.wide(i128::from(count));
                }
            }
            fn merge(&mut self, bytes: &mut StateReader<'_>) -> Result<()> {
                for _ in 0..bytes.length()? {
                    let (left, right, count) = (bytes.text()?, bytes.text()?, read_count(bytes)?);
                    self.add(&left, &right, count);
                }
                Ok(())
            }
            fn value(&self) -> Option<Value> {
                agreed::<END>(self.counts.$method(CONFIDENCE))
            }
            fn size(&self) -> usize {
                size_of::<Self>() + self.text_bytes
            }
        }
    };
}

agreement!(Cohen, Pairs, cohen);
agreement!(Fleiss, Ratings, fleiss);
agreement!(Alpha, Ratings, krippendorff);

/// Figures of a judge.
const NAIVE: u8 = 0;
const POWERED: u8 = 1;
const ROGAN_GLADEN: u8 = 2;
const SENSITIVITY: u8 = 3;
const SPECIFICITY: u8 = 4;

#[derive(Debug, Default)]
struct Success<const FIGURE: u8, const END: u8>(Judged);

impl<const FIGURE: u8, const END: u8> State for Success<FIGURE, END> {
    const OUTPUT: ArgumentKind = Number;
    fn update(&mut self, row: ArgumentRow<'_>) -> Result<()> {
        let Some(judge) = row.fact(0) else { return Ok(()) };
        let probability = row.number_or(2, 1.0);
        self.0.add(judge, probability, 1).map_err(|error| row.wrong(error))?;
        match row.fact(1) {
            Some(person) => {
                self.0.review(judge, person, row.number_or(3, probability), 1).map_err(|error| row.wrong(error))
            }
            None => Ok(()),
        }
    }
    fn write(&self, bytes: &mut StateWriter) {
        bytes.length(self.0.judged().count());
        for (judge, probability, count) in self.0.judged() {
            bytes.long(i64::from(judge));
            bytes.float(probability);
            bytes.wide(i128::from(count));
        }
        bytes.length(self.0.reviews().count());
        for (judge, person, probability, count) in self.0.reviews() {
            bytes.long(i64::from(judge));
            bytes.long(i64::from(person));
            bytes.float(probability);
            bytes.wide(i128::from(count));
        }
    }
    fn merge(&mut self, bytes: &mut StateReader<'_>) -> Result<()> {
        for _ in 0..bytes.length()? {
            let (judge, probability, count) = (bytes.long()? != 0, bytes.float()?, read_count(bytes)?);
            self.0.add(judge, probability, count).map_err(invalid)?;
        }
        for _ in 0..bytes.length()? {
            let (judge, person) = (bytes.long()? != 0, bytes.long()? != 0);
            let (probability, count) = (bytes.float()?, read_count(bytes)?);
            self.0.review(judge, person, probability, count).map_err(invalid)?;
        }
        Ok(())
    }
    fn value(&self) -> Option<Value> {
        let Corrected { naive, sensitivity, specificity, rogan_gladen, prediction_powered } =
            self.0.corrected(CONFIDENCE)?;
        end::<END>(match FIGURE {
            POWERED => prediction_powered,
            ROGAN_GLADEN => rogan_gladen,
            SENSITIVITY => sensitivity,
            SPECIFICITY => specificity,
            _ => Some(naive),
        })
    }
    fn size(&self) -> usize {
        size_of::<Self>() + (self.0.judged().count() + self.0.reviews().count()) * ROW_BYTES
    }
}
