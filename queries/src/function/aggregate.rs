//! Aggregate functions of detection. Their states are sums of integers, so that any order and any grouping of the rows
//! yields the same bits.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use bellwether_stats::clusters::{GroupTotals, add_totals, session_tempering};
use bellwether_stats::drift::{HourCounts, WeeklyBaseline};
use bellwether_stats::sequential::{EvidenceSums, FixedPoint, LogSum, stratified_log_e};
use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, Signature, Volatility};

use super::arguments::{ArgumentKind, ArgumentRow, Spec};
use super::evidence::{TABLE_ARGUMENTS, past_hour, table_increments};
use super::identity::known_by_name;
use super::scalar::{Value, column};

/// The state of a group while rows arrive.
pub(super) trait State: Default + fmt::Debug + Send + Sync + 'static {
    const OUTPUT: ArgumentKind;
    /// True if rows can be removed again, so that sliding frames cost little.
    const RETRACTS: bool = false;
    fn update(&mut self, row: ArgumentRow<'_>) -> Result<()>;
    fn retract(&mut self, _row: ArgumentRow<'_>) -> Result<()> {
        Err(exec_datafusion_err!("rows cannot be removed"))
    }
    fn write(&self, bytes: &mut StateWriter);
    fn merge(&mut self, bytes: &mut StateReader<'_>) -> Result<()>;
    fn value(&self) -> Option<Value>;
    fn size(&self) -> usize;
}

pub(super) fn all() -> Vec<AggregateUDF> {
    vec![
        udaf::<SumIncrements>(&SUM_INCREMENTS),
        udaf::<TableEvidence>(&E2X2_LOG_E),
        udaf::<Strata>(&STRATIFIED_LOG_E),
        udaf::<LogSumExp>(&LOG_SUM_EXP),
        udaf::<LogMeanExp>(&LOG_MEAN_EXP),
        udaf::<SeasonalBaseline>(&SEASONAL_BASELINE),
        udaf::<SessionTempering>(&SESSION_TEMPERING),
    ]
}

static SUM_INCREMENTS: Spec = Spec {
    name: "sum_increments",
    arguments: &[("increments", ArgumentKind::Numbers, "log-increments of a block over a grid, nats")],
    required: 1,
    nulls: false,
    doc: "Exact sum of lists of log-increments: any order gives the same bits. `log_e` turns it into evidence.",
    example: "SELECT sum_increments(l) AS sums FROM (VALUES ([0.5, 1.0]), ([0.25, -2.0])) AS t(l)",
};

static E2X2_LOG_E: Spec = Spec {
    name: "e2x2_log_e",
    arguments: TABLE_ARGUMENTS,
    required: 4,
    nulls: false,
    doc: "Evidence, ln E in nats, that the bad outcome is more common in the canary, from rows that each hold a block of one \
          stratum: short for `log_e(sum_increments(e2x2_increments(…)))`.",
    example: "SELECT task, e2x2_log_e(fa, ra, fb, rb, 1.15) AS log_e FROM (VALUES ('a', 7, 120, 15, 80), \
              ('a', 9, 130, 12, 75), ('b', 3, 50, 2, 50)) AS blocks(task, fa, ra, fb, rb) GROUP BY task",
};

static STRATIFIED_LOG_E: Spec = Spec {
    name: "stratified_log_e",
    arguments: &[
        ("stratum", ArgumentKind::Text, "name of the stratum, such as the task"),
        ("increments", ArgumentKind::Numbers, "log-increments of a block of the stratum, nats"),
    ],
    required: 2,
    nulls: false,
    doc: "Evidence, ln E in nats, of all strata together and of each alone: ½ common + ½ mean of the strata. Finds a small \
          change of all as well as a large change of one.",
    example: "SELECT stratified_log_e(task, e2x2_increments(fa, ra, fb, rb)) AS log_e FROM (VALUES \
              ('a', 7, 120, 15, 80), ('b', 3, 50, 2, 50)) AS blocks(task, fa, ra, fb, rb)",
};

static LOG_SUM_EXP: Spec = Spec {
    name: "log_sum_exp",
    arguments: &[("x", ArgumentKind::Number, "a logarithm")],
    required: 1,
    nulls: false,
    doc: "ln Σ eˣ without overflow, in any order; −∞ without rows. With S the running sum of increments, \
          S + log_sum_exp(−lag(S)) OVER (ORDER BY window_start) is `esr`.",
    example: "SELECT log_sum_exp(x) AS log_sum FROM (VALUES (1000.0), (1000.0)) AS t(x)",
};

static LOG_MEAN_EXP: Spec = Spec {
    name: "log_mean_exp",
    arguments: &[("x", ArgumentKind::Number, "a logarithm")],
    required: 1,
    nulls: false,
    doc: "ln of the mean of eˣ without overflow, in any order: the evidence of a mixture. Null without rows.",
    example: "SELECT log_mean_exp(x) AS log_mean FROM (VALUES (1.0), (4.0)) AS t(x)",
};

static SEASONAL_BASELINE: Spec = Spec {
    name: "seasonal_baseline",
    arguments: &[
        ("window_start", ArgumentKind::Moment, "start of a window of the past"),
        ("events", ArgumentKind::Count, "runs with the bad outcome"),
        ("runs", ArgumentKind::Count, "all runs"),
    ],
    required: 3,
    nulls: false,
    doc: "The past of a series: rates by hour of the week, overdispersion, deviation of days and margin, as a list for \
          `baseline_increments`. Exclude the current day and hours during alerts. Null below 24 hours with runs.",
    example: "SELECT seasonal_baseline(to_timestamp(1767571200 + n * 3600), 4, 50) AS baseline \
              FROM unnest(range(0, 336)) AS r(n)",
};

static SESSION_TEMPERING: Spec = Spec {
    name: "session_tempering",
    arguments: &[
        ("canary", ArgumentKind::Fact, "true for the totals of the canary, false for those of the baseline"),
        ("totals_events", ArgumentKind::Numbers, "runs with the outcome by random group, as returned by random_groups"),
        ("totals_runs", ArgumentKind::Numbers, "runs by random group"),
    ],
    required: 3,
    nulls: false,
    doc: "Factor of log-increments for runs in sessions, 0 to 1: 1 over the design effect, estimated from totals by random \
          group of both arms, and shrunk towards ½ while events are few. 1 without sessions. The last argument of \
          `e2x2_increments`; to be valid, take the totals before the block.",
    example: "SELECT session_tempering(release = 'b', failed, runs) AS tempering FROM (SELECT release, \
              random_groups(random_group(session), failed) AS failed, random_groups(random_group(session), 1) AS runs \
              FROM (SELECT CASE n % 2 WHEN 0 THEN 'a' ELSE 'b' END AS release, 's' || (n / 10) AS session, \
              CASE WHEN n % 70 < 10 THEN 1 ELSE 0 END AS failed FROM unnest(range(0, 900)) AS r(n)) GROUP BY release)",
};

/// Writes a state as consecutive little-endian integers.
#[derive(Default)]
pub(super) struct StateWriter(Vec<u8>);

// === impl StateWriter ===

impl StateWriter {
    pub(super) fn long(&mut self, value: i64) {
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn wide(&mut self, value: i128) {
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn float(&mut self, value: f64) {
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn length(&mut self, value: usize) {
        self.long(i64::try_from(value).unwrap_or(i64::MAX));
    }

    pub(super) fn text(&mut self, text: &str) {
        self.length(text.len());
        self.0.extend(text.as_bytes());
    }
}

/// Reads a state that [`StateWriter`] wrote.
pub(super) struct StateReader<'a>(&'a [u8]);

// === impl StateReader ===

impl<'a> StateReader<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8]> {
        let (head, rest) =
            self.0.split_at_checked(bytes).ok_or_else(|| exec_datafusion_err!("a partial state ends early"))?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn long(&mut self) -> Result<i64> {
        let bytes = self.take(8)?;
        Ok(i64::from_le_bytes(bytes.try_into().unwrap_or_default()))
    }

    pub(super) fn wide(&mut self) -> Result<i128> {
        let bytes = self.take(16)?;
        Ok(i128::from_le_bytes(bytes.try_into().unwrap_or_default()))
    }

    pub(super) fn float(&mut self) -> Result<f64> {
        let bytes = self.take(8)?;
        Ok(f64::from_le_bytes(bytes.try_into().unwrap_or_default()))
    }

    pub(super) fn length(&mut self) -> Result<usize> {
        usize::try_from(self.long()?).map_err(|_| exec_datafusion_err!("a partial state has a negative length"))
    }

    pub(super) fn text(&mut self) -> Result<String> {
        let length = self.length()?;
        String::from_utf8(self.take(length)?.to_vec()).map_err(|_| exec_datafusion_err!("a partial state is not text"))
    }
}

fn write_evidence(evidence: &EvidenceSums, bytes: &mut StateWriter) {
    bytes.length(evidence.sums().len());
    evidence.sums().iter().for_each(|sum| bytes.wide(sum.0));
}

fn read_evidence(bytes: &mut StateReader<'_>) -> Result<EvidenceSums> {
    let length = bytes.length()?;
    // Each sum takes 16 bytes. A length that exceeds the bytes fails at the first missing sum.
    let mut sums = Vec::with_capacity(length.min(bytes.0.len() / 16));
    for _ in 0..length {
        sums.push(FixedPoint(bytes.wide()?));
    }
    Ok(EvidenceSums::from_sums(sums))
}

fn evidence_size(evidence: &EvidenceSums) -> usize {
    size_of::<EvidenceSums>() + size_of_val(evidence.sums())
}

#[derive(Debug, Default)]
struct SumIncrements(EvidenceSums);

impl State for SumIncrements {
    const OUTPUT: ArgumentKind = ArgumentKind::Numbers;
    const RETRACTS: bool = true;
    fn update(&mut self, row: ArgumentRow<'_>) -> Result<()> {
        self.0.add(&row.numbers(0)?);
        Ok(())
    }
    fn retract(&mut self, row: ArgumentRow<'_>) -> Result<()> {
        self.0.remove(&row.numbers(0)?);
        Ok(())
    }
    fn write(&self, bytes: &mut StateWriter) {
        write_evidence(&self.0, bytes);
    }
    fn merge(&mut self, bytes: &mut StateReader<'_>) -> Result<()> {
        self.0.merge(&read_evidence(bytes)?);
        Ok(())
    }
    fn value(&self) -> Option<Value> {
        Some(Value::Numbers(self.0.sums().iter().map(|sum| sum.value()).collect()))
    }
    fn size(&self) -> usize {
        evidence_size(&self.0)
    }
}

#[derive(Debug, Default)]
struct TableEvidence(EvidenceSums);

impl State for TableEvidence {
    const OUTPUT: ArgumentKind = ArgumentKind::Number;
    const RETRACTS: bool = true;
    fn update(&mut self, row: ArgumentRow<'_>) -> Result<()> {
        self.0.add(&table_increments(&row)?);
        Ok(())
    }
    fn retract(&mut self, row: ArgumentRow<'_>) -> Result<()> {
        self.0.remove(&table_increments(&row)?);
        Ok(())
    }
    fn write(&self, bytes: &mut StateWriter) {
        write_evidence(&self.0, bytes);
    }
    fn merge(&mut self, bytes: &mut StateReader<'_>) -> Result<()> {
        self.0.merge(&read_evidence(bytes)?);
        Ok(())
    }
    fn value(&self) -> Option<Value> {
        Some(Value::Number(self.0.log_e()))
    }
    fn size(&self) -> usize {
        evidence_size(&self.0)
    }
}

#[derive(Debug, Default)]
struct Strata(BTreeMap<String, EvidenceSums>);

impl State for Strata {
    const OUTPUT: ArgumentKind = ArgumentKind::Number;
    fn update(&mut self, row: ArgumentRow<'_>) -> Result<()> {
        let increments = row.numbers(1)?;
        match self.0.get_mut(row.text(0)) {
            Some(evidence) => evidence.add(&increments),
            None => self.0.entry(row.text(0).to_owned()).or_default().add(&increments),
        }
        Ok(())
    }
    fn write(&self, bytes: &mut StateWriter) {
        bytes.length(self.0.len());
        for (name, evidence) in &self.0 {
            bytes.text(name);
            write_evidence(evidence, bytes);
        }
    }
    fn merge(&mut self, bytes: &mut StateReader<'_>) -> Result<()> {
        for _ in 0..bytes.length()? {
            let name = bytes.text()?;
            self.0.entry(name).or_default().merge(&read_evidence(bytes)?);
        }
        Ok(())
    }
    fn value(&self) -> Option<Value> {
        Some(Value::Number(stratified_log_e(self.0.values())))
    }
    fn size(&self) -> usize {
        size_of::<Self>()
            + self.0.iter().map(|(name, evidence)| name.capacity() + evidence_size(evidence)).sum::<usize>()
    }
}

fn write_log_sum(sum: &LogSum, bytes: &mut StateWriter) {
    let (count, infinite, binades) = sum.parts();
    bytes.long(i64::try_from(count).unwrap_or(i64::MAX));
    bytes.long(i64::from(infinite));
    bytes.length(binades.len());
    for (binade, mantissas) in binades {
        bytes.long(binade);
        bytes.wide(mantissas);
    }
}

fn read_log_sum(bytes: &mut StateReader<'_>) -> Result<LogSum> {
    let (count, infinite) = (bytes.length()?, bytes.long()? != 0);
    let mut binades = Vec::new();
    for _ in 0..bytes.length()? {
        binades.push((bytes.long()?, bytes.wide()?));
    }
    Ok(LogSum::from_parts(u64::try_from(count).unwrap_or(u64::MAX), infinite, binades))
}

/// One state with two results: the sum, or (`MEAN`) the mean.
#[derive(Debug, Default)]
struct Logs<const MEAN: bool>(LogSum);

type LogSumExp = Logs<false>;
type LogMeanExp = Logs<true>;

impl<const MEAN: bool> State for Logs<MEAN> {
    const OUTPUT: ArgumentKind = ArgumentKind::Number;
    fn update(&mut self, row: ArgumentRow<'_>) -> Result<()> {
        let x = row.number(0);
        if x.is_nan() {
            return Err(row.wrong("a value is not a number"));
        }
        self.0.add(x);
        Ok(())
    }
    fn write(&self, bytes: &mut StateWriter) {
        write_log_sum(&self.0, bytes);
    }
    fn merge(&mut self, bytes: &mut StateReader<'_>) -> Result<()> {
        self.0.merge(&read_log_sum(bytes)?);
        Ok(())
    }
    fn value(&self) -> Option<Value> {
        if MEAN { self.0.log_mean().map(Value::Number) } else { Some(Value::Number(self.0.log_sum())) }
    }
    fn size(&self) -> usize {
        // At most 161 binades are kept.
        size_of::<Self>() + self.0.parts().2.len() * 32
    }
}

/// Runs and events by hour since the epoch.
#[derive(Debug, Default)]
struct SeasonalBaseline(BTreeMap<i64, (u64, u64)>);

impl SeasonalBaseline {
    fn add(&mut self, hour: i64, runs: u64, events: u64) {
        let sums = self.0.entry(hour).or_default();
        *sums = (sums.0.saturating_add(runs), sums.1.saturating_add(events));
    }
}

impl State for SeasonalBaseline {
    const OUTPUT: ArgumentKind = ArgumentKind::Numbers;
    fn update(&mut self, row: ArgumentRow<'_>) -> Result<()> {
        let HourCounts { hour, runs, events } = past_hour(&row)?;
        self.add(hour, runs, events);
        Ok(())
    }
    fn write(&self, bytes: &mut StateWriter) {
        bytes.length(self.0.len());
        for (hour, (runs, events)) in &self.0 {
            bytes.long(*hour);
            bytes.wide(i128::from(*runs));
            bytes.wide(i128::from(*events));
        }
    }
    fn merge(&mut self, bytes: &mut StateReader<'_>) -> Result<()> {
        let count = |value: i128| u64::try_from(value).map_err(|_| exec_datafusion_err!("a count is out of range"));
        for _ in 0..bytes.length()? {
            let (hour, runs, events) = (bytes.long()?, count(bytes.wide()?)?, count(bytes.wide()?)?);
            self.add(hour, runs, events);
        }
        Ok(())
    }
    fn value(&self) -> Option<Value> {
        let hours: Vec<HourCounts> = self
            .0
            .iter()
            .map(|(hour, (runs, events))| HourCounts { hour: *hour, runs: *runs, events: *events })
            .collect();
        // A past that is too short gives no baseline; events never exceed runs here.
        WeeklyBaseline::learn(&hours).ok().map(|baseline| Value::Numbers(baseline.to_numbers()))
    }
    fn size(&self) -> usize {
        size_of::<Self>() + self.0.len() * 48
    }
}

/// Totals by random group of the baseline and of the canary: events, runs.
#[derive(Debug, Default)]
struct SessionTempering([[Vec<i64>; 2]; 2]);

impl State for SessionTempering {
    const OUTPUT: ArgumentKind = ArgumentKind::Number;
    fn update(&mut self, row: ArgumentRow<'_>) -> Result<()> {
        #[expect(clippy::cast_possible_truncation, reason = "totals are whole numbers far below 2^53")]
        let totals =
            |place| -> Result<Vec<i64>> { Ok(row.numbers(place)?.iter().map(|total| *total as i64).collect()) };
        let [events, runs] = &mut self.0[usize::from(row.fact(0) == Some(true))];
        add_totals(events, &totals(1)?);
        add_totals(runs, &totals(2)?);
        Ok(())
    }
    fn write(&self, bytes: &mut StateWriter) {
        for totals in self.0.as_flattened() {
            bytes.length(totals.len());
            totals.iter().for_each(|total| bytes.long(*total));
        }
    }
    fn merge(&mut self, bytes: &mut StateReader<'_>) -> Result<()> {
        for sums in self.0.as_flattened_mut() {
            let more = (0..bytes.length()?).map(|_| bytes.long()).collect::<Result<Vec<i64>>>()?;
            add_totals(sums, &more);
        }
        Ok(())
    }
    fn value(&self) -> Option<Value> {
        let arms = self.0.iter().map(|[events, runs]| GroupTotals { events, runs });
        Some(Value::Number(session_tempering(arms)))
    }
    fn size(&self) -> usize {
        size_of::<Self>() + self.0.as_flattened().iter().map(|totals| totals.capacity() * 8).sum::<usize>()
    }
}

pub(super) fn udaf<S: State>(spec: &'static Spec) -> AggregateUDF {
    let signature = Signature::user_defined(Volatility::Immutable);
    AggregateUDF::from(Function::<S> { spec, signature, documentation: spec.documentation(), state: PhantomData })
}

/// An aggregate function around a state.
struct Function<S> {
    spec: &'static Spec,
    signature: Signature,
    documentation: Documentation,
    state: PhantomData<fn() -> S>,
}

known_by_name!(Function<S>);

impl<S: State> AggregateUDFImpl for Function<S> {
    fn name(&self) -> &str {
        self.spec.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        self.spec.coerce(found)
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(S::OUTPUT.data_type())
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![Field::new(format!("{}[state]", arguments.name), DataType::Binary, true).into()])
    }

    fn accumulator(&self, _arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(One { spec: self.spec, state: S::default() }))
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}

/// One group.
#[derive(Debug)]
struct One<S> {
    spec: &'static Spec,
    state: S,
}

impl<S: State> One<S> {
    fn each(&mut self, values: &[ArrayRef], step: fn(&mut S, ArgumentRow<'_>) -> Result<()>) -> Result<()> {
        let columns = self.spec.columns(values)?;
        (0..values[0].len()).filter_map(|row| columns.row(row)).try_for_each(|row| step(&mut self.state, row))
    }
}

impl<S: State> Accumulator for One<S> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.each(values, S::update)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.each(values, S::retract)
    }

    fn supports_retract_batch(&self) -> bool {
        S::RETRACTS
    }

    // A window function evaluates after every row, so that the state must be kept.
    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&column(S::OUTPUT, vec![self.state.value()])?, 0)
    }

    fn size(&self) -> usize {
        self.state.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut bytes = StateWriter::default();
        self.state.write(&mut bytes);
        Ok(vec![ScalarValue::Binary(Some(bytes.0))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let states = cast(&states[0], &DataType::Binary)?;
        states.as_binary::<i32>().iter().flatten().try_for_each(|bytes| self.state.merge(&mut StateReader(bytes)))
    }
}
