//! Window functions of detection: their value depends on the rows before, in order.

use std::fmt;

use bellwether_stats::block::{BlockRule, Blocks};
use bellwether_stats::ebh;
use bellwether_stats::sequential::EDetector;
use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, exec_datafusion_err};
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{Documentation, PartitionEvaluator, Signature, Volatility, WindowUDF, WindowUDFImpl};

use super::arguments::{ArgumentKind, Columns, Spec};
use super::identity::known_by_name;
use super::scalar::{Value, column};

/// Microseconds of a minute, the unit of blocks.
const MINUTE_MICROS: i64 = 60_000_000;

/// Computes the values of a partition; its rows are in order.
pub(super) type Compute = fn(&Columns, usize) -> Result<Vec<Option<Value>>>;

pub(super) fn all() -> Vec<WindowUDF> {
    vec![
        udwf(&ESR, ArgumentKind::Number, |columns, rows| detector(columns, rows, EDetector::log_shiryaev_roberts)),
        udwf(&ECUSUM, ArgumentKind::Number, |columns, rows| detector(columns, rows, EDetector::log_cusum)),
        udwf(&BLOCKS_SINCE_CHANGE, ArgumentKind::Count, |columns, rows| {
            each(columns, rows, |detector| detector.blocks_since_change().map(Value::Count))
        }),
        udwf(&E_BH, ArgumentKind::Fact, e_bh),
        udwf(&BLOCK_NUMBER, ArgumentKind::Count, block_number),
    ]
}

const INCREMENTS: &[(&str, ArgumentKind, &str)] = &[(
    "increments",
    ArgumentKind::Numbers,
    "log-increments of a window over a grid, nats; null if the window has none",
)];

static ESR: Spec = Spec {
    name: "esr",
    arguments: INCREMENTS,
    required: 1,
    nulls: true,
    doc: "ln of the mixture e-SR statistic up to this row (Shin, Ramdas, Rinaldo 2023): evidence of a change at an \
          unknown time. An alarm at ln A means at least A rows between false alarms on average. Needs ORDER BY time.",
    example: "SELECT t, esr(bernoulli_increments(failed, runs, 0.05)) OVER (ORDER BY t) AS log_sr \
              FROM (VALUES (1, 5, 100), (2, 9, 80), (3, 14, 120), (4, 16, 100)) AS w(t, failed, runs)",
};

static ECUSUM: Spec = Spec {
    name: "ecusum",
    arguments: INCREMENTS,
    required: 1,
    nulls: true,
    doc: "ln of the mixture e-CUSUM statistic up to this row, never above `esr`. Needs ORDER BY time.",
    example: "SELECT t, ecusum(bernoulli_increments(failed, runs, 0.05)) OVER (ORDER BY t) AS log_cusum \
              FROM (VALUES (1, 5, 100), (2, 9, 80), (3, 14, 120), (4, 16, 100)) AS w(t, failed, runs)",
};

static BLOCKS_SINCE_CHANGE: Spec = Spec {
    name: "rows_since_change",
    arguments: INCREMENTS,
    required: 1,
    nulls: true,
    doc: "Rows since the most likely time of the change, this one included; null if no change is more likely. \
          Needs ORDER BY time.",
    example: "SELECT t, rows_since_change(bernoulli_increments(failed, runs, 0.05)) OVER (ORDER BY t) AS rows \
              FROM (VALUES (1, 5, 100), (2, 9, 80), (3, 14, 120), (4, 16, 100)) AS w(t, failed, runs)",
};

static E_BH: Spec = Spec {
    name: "e_bh",
    arguments: &[
        ("log_e", ArgumentKind::Number, "evidence of a series, nats; null counts as none"),
        ("alpha", ArgumentKind::Number, "share of false alarms among all alarms, 0 to 1"),
    ],
    required: 2,
    nulls: true,
    doc: "True for the series that raise an alarm, chosen so that at most a share alpha of the alarms is false, however \
          the series depend on each other (Wang & Ramdas 2022). Uses all rows of its partition.",
    example: "SELECT task, e_bh(log_e, 0.05) OVER () AS alarms \
              FROM (VALUES ('a', 7.0), ('b', 0.3), ('c', 4.5)) AS t(task, log_e)",
};

static BLOCK_NUMBER: Spec = Spec {
    name: "block_number",
    arguments: &[
        ("window_start", ArgumentKind::Moment, "start of the window"),
        ("runs_a", ArgumentKind::Count, "runs of the baseline"),
        ("runs_b", ArgumentKind::Count, "runs of the canary"),
        ("least_runs", ArgumentKind::Count, "runs of both arms at which a block closes, 20 by default"),
        ("most_minutes", ArgumentKind::Count, "minutes after which it closes in any case, 60 by default"),
    ],
    required: 3,
    nulls: false,
    doc: "Number of the block that a window belongs to. Blocks close by runs and time, never by outcomes, which \
          keeps the evidence exact. Needs PARTITION BY stratum ORDER BY window_start.",
    example: "SELECT block_number(t, a, b) OVER (ORDER BY t) AS block FROM (VALUES \
              (timestamp '2026-01-31 12:00:00', 15, 15), (timestamp '2026-01-31 12:01:00', 9, 9), \
              (timestamp '2026-01-31 12:02:00', 1, 1)) AS w(t, a, b)",
};

fn each(columns: &Columns, rows: usize, value: impl Fn(&EDetector) -> Option<Value>) -> Result<Vec<Option<Value>>> {
    let mut detector: Option<EDetector> = None;
    let mut values = Vec::with_capacity(rows);
    for row in 0..rows {
        if let Some(increments) = columns.row(row).map(|row| row.numbers_or_none(0)).transpose()?.flatten() {
            detector.get_or_insert_with(|| EDetector::new(increments.len())).update(&increments);
        }
        values.push(detector.as_ref().and_then(&value));
    }
    Ok(values)
}

fn detector(columns: &Columns, rows: usize, of: fn(&EDetector) -> f64) -> Result<Vec<Option<Value>>> {
    each(columns, rows, |detector| Some(Value::Number(of(detector))))
}

fn e_bh(columns: &Columns, rows: usize) -> Result<Vec<Option<Value>>> {
    let of = |place: usize| -> Vec<f64> {
        (0..rows).map(|row| columns.row(row).map_or(f64::NAN, |row| row.number(place))).collect()
    };
    let (log_e, alphas) = (of(0), of(1));
    let Some(alpha) = alphas.first() else { return Ok(Vec::new()) };
    if alphas.iter().any(|other| other.to_bits() != alpha.to_bits()) {
        return Err(exec_datafusion_err!("e_bh: alpha differs between rows; it must be the same in all"));
    }
    let alarms = ebh::e_bh(&log_e, *alpha).map_err(|error| exec_datafusion_err!("e_bh: {error}"))?;
    Ok(alarms.into_iter().map(|alarm| Some(Value::Count(u64::from(alarm)))).collect())
}

fn block_number(columns: &Columns, rows: usize) -> Result<Vec<Option<Value>>> {
    let mut blocks: Option<Blocks> = None;
    let mut values = Vec::with_capacity(rows);
    for row in 0..rows {
        let Some(row) = columns.row(row) else {
            values.push(None);
            continue;
        };
        let rule = BlockRule::new(row.count_or(3, 20)?, row.count_or(4, 60)?).map_err(|error| row.wrong(error))?;
        let minute = row.moment(0).unwrap_or(0).div_euclid(MINUTE_MICROS);
        let blocks = blocks.get_or_insert_with(|| Blocks::new(rule));
        values.push(Some(Value::Count(blocks.next(minute, row.count(1)?, row.count(2)?))));
    }
    Ok(values)
}

/// Makes a window function that computes whole partitions.
pub(super) fn udwf(spec: &'static Spec, output: ArgumentKind, compute: Compute) -> WindowUDF {
    let signature = Signature::user_defined(Volatility::Immutable);
    WindowUDF::from(Function { spec, output, compute, signature, documentation: spec.documentation() })
}

/// A window function over whole partitions.
struct Function {
    spec: &'static Spec,
    output: ArgumentKind,
    compute: Compute,
    signature: Signature,
    documentation: Documentation,
}

known_by_name!(Function);

impl WindowUDFImpl for Function {
    fn name(&self) -> &str {
        self.spec.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        self.spec.coerce(found)
    }

    fn partition_evaluator(&self, _arguments: PartitionEvaluatorArgs<'_>) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Evaluator { spec: self.spec, output: self.output, compute: self.compute }))
    }

    fn field(&self, arguments: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Field::new(arguments.name(), self.output.data_type(), true).into())
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}

struct Evaluator {
    spec: &'static Spec,
    output: ArgumentKind,
    compute: Compute,
}

impl fmt::Debug for Evaluator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.spec.name)
    }
}

impl PartitionEvaluator for Evaluator {
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        column(self.output, (self.compute)(&self.spec.columns(values)?, rows)?)
    }
}
