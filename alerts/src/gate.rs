//! The gate: reads what a canary and its baseline did, and asks [`bellwether_detect::Gate`] whether the canary may go on.
//!
//! * `gate/policy.rs`: the requirements, a TOML file; the shipped one is `gate/policy.toml`.
//! * `gate/metric.rs`: the metrics, each read by the query of a shipped rule; `gate/stated.rs`: how many runs state them.
//! * `gate/rows.rs`: the rows of `metrics` behind a slice; `gate/windows.rs`: the windows of both releases, by the same path as
//!   the rules; `gate/releases.rs`: the releases of a task, and the baseline.
//! * `gate/answer.rs`: the answer.
//!
//! Rules: only complete windows count, and each run counts once however often it was corrected. What cannot be read holds.

mod answer;
mod metric;
mod policy;
mod releases;
mod rows;
mod stated;
mod windows;

use std::time::Duration;

use bellwether_base::{Error, Result};
use bellwether_detect::{Guardrail, Minute, Slice as GateSlice, Window};
use bellwether_lake::{CommitLog, Lake, Layout};
use bellwether_queries::{Session, SessionSettings};
use bellwether_tables::Table;

pub use answer::{
    BaselineChoice, GateAnswer, GateComparison, GateCounts, GateDecision, GateEffect, GateMode, LeftOut, Unknown,
};
pub use metric::Metric;
pub use policy::{Goal, Policy, Requirement, Slices};

use self::releases::Life;
use self::rows::{Kind, Pairing, Runs};
use self::windows::{Latencies, Observer, Slice, rows_of};
use crate::contract::Contracts;
use crate::observe::MINUTE_MICROS;
use crate::progress::Progress;
use crate::rule::{Rule, Rules};

/// Minutes of a day: so many are read at once.
const DAY: i64 = 1440;

/// The comparison to make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// The task.
    pub task: String,
    /// The release on trial; none for the one that most recently began as a canary.
    pub canary: Option<String>,
    /// The baseline; none for that of the contract, or the release with most runs before the canary.
    pub baseline: Option<String>,
    /// The only tenant whose runs count.
    pub tenant: Option<String>,
    /// Earliest run, microseconds since the epoch; none for the beginning of the canary.
    pub since: Option<i64>,
    /// Compare runs of an offline evaluation.
    pub offline: bool,
}

/// Settings of the reader.
#[derive(Clone, Copy, Debug)]
pub struct GateSettings {
    /// A window is complete once every source is this far past its end.
    pub grace: Duration,
    /// Memory of a query.
    pub memory_bytes: usize,
    /// Most time for a query.
    pub timeout: Duration,
}

impl Default for GateSettings {
    fn default() -> Self {
        Self { grace: Duration::from_secs(30), memory_bytes: 256 << 20, timeout: Duration::from_secs(120) }
    }
}

/// Everything that answers questions.
#[derive(Clone, Debug)]
pub struct GateReader {
    /// Requirements.
    pub policy: Policy,
    /// Contracts of the tasks.
    pub contracts: Contracts,
    /// Settings.
    pub settings: GateSettings,
}

/// The two releases, and the span in which they are compared.
struct Pair<'a> {
    task: &'a str,
    /// Baseline and canary.
    releases: [&'a str; 2],
    from: Minute,
    to: Minute,
    pairing: Option<Pairing>,
}

/// The rows of one slice, with its name.
type NamedSlice = (String, Slice);

/// A metric that is judged: in which of the slices that were read, and by what.
struct Judged {
    metric: Metric,
    guardrail: Guardrail,
    goal: Goal,
    slices: Vec<(String, Vec<Window>, Option<f64>)>,
}

// === impl GateReader ===

impl GateReader {
    /// Answers a question from the tables as they are now.
    ///
    /// # Errors
    /// `Config` if the question cannot be asked; `Unavailable` if the tables do not answer.
    pub async fn ask(&self, lake: &Lake, question: &Question) -> Result<GateAnswer> {
        if question.canary.is_some() && question.canary == question.baseline {
            let release = question.canary.as_deref().unwrap_or_default();
            return Err(Error::config(format!("canary and baseline are the same release `{release}`"))
                .with_hint("name two releases, or leave the baseline out"));
        }
        let (session, complete_to) = Box::pin(self.open(lake, question)).await?;
        let mode = if question.offline { GateMode::OfflineUnpaired } else { GateMode::Live };
        let held = |why: String| GateAnswer {
            tenant: question.tenant.clone(),
            ..GateAnswer::held(&question.task, mode, (self.policy.roll_back_alpha, self.policy.promote_alpha), why)
        };
        let Some(complete_to) = complete_to else { return Ok(held("no window is complete yet".to_owned())) };
        let since = question.since.map(|since| since.div_euclid(MINUTE_MICROS));
        let known = releases::releases(&session, &question.task, question.offline, since).await?;
        if known.is_empty() {
            let tasks = releases::tasks(&session).await?;
            if tasks.contains(&question.task) {
                let kind = if question.offline { "offline evaluation" } else { "production" };
                return Ok(held(format!("task `{}` has no runs in {kind}", question.task)));
            }
            let unknown = releases::unknown("task", &question.task, tasks);
            return Ok(GateAnswer { unknown: Some(unknown), ..held(format!("no run of task `{}`", question.task)) });
        }
        let Some(canary) = question.canary.clone().or_else(|| releases::newest_canary(&known)) else {
            return Ok(held(format!("no release of task `{}` is a canary", question.task)));
        };
        let Some(life) = known.get(&canary).copied() else {
            let unknown = releases::unknown("canary", &canary, known.into_keys());
            let why = format!("no run of release `{canary}` of task `{}`", question.task);
            return Ok(GateAnswer { unknown: Some(unknown), canary, ..held(why) });
        };
        let contract = self.contracts.get(&question.task).and_then(|contract| contract.baseline.as_deref());
        let chosen = match &question.baseline {
            Some(named) => Some((named.clone(), BaselineChoice::Given)),
            None => releases::baseline(&session, &question.task, (&canary, life), question.offline, contract).await?,
        };
        let Some((baseline, choice)) = chosen else {
            let why = format!("no other release of task `{}` has runs to compare `{canary}` with", question.task);
            return Ok(GateAnswer { canary, ..held(why) });
        };
        let answer = GateAnswer { baseline: baseline.clone(), baseline_choice: Some(choice), ..held(String::new()) };
        let Some(usual) = known.get(&baseline).copied() else {
            let others = known.into_keys().filter(|name| *name != canary);
            let unknown = releases::unknown("baseline", &baseline, others);
            let summary = format!("no run of release `{baseline}` of task `{}`", question.task);
            return Ok(GateAnswer { unknown: Some(unknown), canary, summary, ..answer });
        };
        let (from, to) = span(question.offline, [usual, life], since, complete_to);
        let mut pair = Pair { task: &question.task, releases: [&baseline, &canary], from, to, pairing: None };
        let answer = GateAnswer { canary: canary.clone(), ..answer };
        Box::pin(self.compare(&session, &mut pair, question.offline, answer)).await
    }

    /// Opens the tables, and finds up to when windows are complete.
    async fn open(&self, lake: &Lake, question: &Question) -> Result<(Session, Option<Minute>)> {
        let metrics = lake.log(Table::Metrics).load().await?;
        let events_next = Layout::reads_next(&metrics);
        let (progress, _) = Progress::at(lake, events_next).await?;
        let grace = i64::try_from(self.settings.grace.as_micros()).unwrap_or(i64::MAX);
        let complete_to = progress.complete_to(grace, Some(lake.clock().now_micros()));
        let mut at = vec![(Table::Metrics, metrics.version)];
        if events_next > 0 {
            at.push((Table::Events, events_next - 1));
        }
        let settings = SessionSettings { tenant: question.tenant.clone(), ..self.session_settings() };
        Ok((Session::frozen(lake, settings, &at).await?, complete_to))
    }

    fn session_settings(&self) -> SessionSettings {
        let GateSettings { memory_bytes, timeout, .. } = self.settings;
        SessionSettings { memory_limit_bytes: memory_bytes, timeout: Some(timeout), ..SessionSettings::default() }
    }

    async fn compare(
        &self,
        session: &Session,
        pair: &mut Pair<'_>,
        offline: bool,
        mut answer: GateAnswer,
    ) -> Result<GateAnswer> {
        let mut shared = 1.0;
        if offline {
            (pair.pairing, shared) = self.pairing(session, pair).await?;
            if pair.pairing == Some(Pairing::Cases) {
                answer.mode = GateMode::OfflinePaired;
            }
        }
        let shipped = Rules::shipped();
        let memory = Session::in_memory(self.session_settings())?;
        let reader = SliceReader { gate: self, session, memory: &memory, rules: &shipped, pair };
        let (slow, skipped_to) = if offline { (Vec::new(), Minute::MIN) } else { reader.slow_bins().await? };
        let mut all = Vec::new();
        for kind in self.kinds() {
            all.push((kind.name(), reader.read(&kind, &slow).await?));
        }
        if !offline {
            answer.from = Some(answer::text_of(pair.from));
            answer.to = Some(answer::text_of(pair.to.max(pair.from)));
        }
        self.judge(&all, (&slow, skipped_to), shared, answer)
    }

    /// Returns how offline runs are put side by side, and the share of the runs that have a counterpart, of the release with the
    /// lower one.
    async fn pairing(&self, session: &Session, pair: &Pair<'_>) -> Result<(Option<Pairing>, f64)> {
        let mut counts = [(0_i64, 0_i64); 2];
        let answer = session.execute(&pair.runs().cases(&self.policy.case_segment)).await?.collect().await?;
        for batch in answer {
            let (names, numbers) = (releases::texts(&batch, 1)?, releases::numbers(&batch, 1)?);
            for (row, name) in names[0].iter().enumerate() {
                if let Some(place) = pair.releases.iter().position(|known| known == name) {
                    counts[place] = (numbers[0][row], numbers[1][row]);
                }
            }
        }
        if counts.iter().any(|(_, shared)| *shared == 0) {
            return Ok((Some(Pairing::Order), 1.0));
        }
        let shares = counts.map(|(runs, shared)| shared as f64 / runs.max(1) as f64);
        Ok((Some(Pairing::Cases), shares[0].min(shares[1])))
    }

    /// Returns the slices to read, all runs first.
    fn kinds(&self) -> Vec<Kind> {
        let slices = &self.policy.slices;
        let segments = slices
            .segments
            .iter()
            .flat_map(|(key, values)| values.iter().map(move |value| Kind::Segment(key.clone(), value.clone())));
        std::iter::once(Kind::All)
            .chain(slices.tenants.iter().cloned().map(Kind::Tenant))
            .chain(slices.tools.iter().cloned().map(Kind::Tool))
            .chain(segments)
            .collect()
    }

    fn judge(
        &self,
        all: &[NamedSlice],
        (slow, skipped_to): (&[(Metric, usize)], Minute),
        shared: f64,
        mut answer: GateAnswer,
    ) -> Result<GateAnswer> {
        let mut judged: Vec<Judged> = Vec::new();
        let (offline, pairs) = (answer.mode != GateMode::Live, answer.mode == GateMode::OfflinePaired);
        let bin_of = |metric: Metric| slow.iter().find(|(known, _)| *known == metric).map(|(_, bin)| *bin);
        for (metric, requirement) in &self.policy.metrics {
            let metric = *metric;
            if offline && metric.quantile().is_some() {
                let why =
                    "latency of offline runs is not judged: it depends on the machine of the evaluation".to_owned();
                answer.left_out.push(LeftOut { metric, why });
                continue;
            }
            let read = |(name, slice): &NamedSlice| {
                let mut windows = slice.windows(metric);
                if metric.quantile().is_some() {
                    windows.retain(|window| window.start >= skipped_to);
                }
                let coverage = metric.coverage(&slice.stated, &slice.currency()).map(|share| share * shared);
                (name.clone(), windows, coverage)
            };
            let whole = read(&all[0]);
            if requirement.optional && !all[0].1.states(metric) {
                answer.left_out.push(LeftOut { metric, why: "neither release states it".to_owned() });
                continue;
            }
            let guardrail = requirement.guardrail(metric, None, pairs);
            judged.push(Judged { metric, guardrail, goal: requirement.goal, slices: vec![whole] });
            let slices = &self.policy.slices;
            if all.len() > 1 && slices.judges(metric) {
                let guardrail = requirement.guardrail(metric, Some(slices), pairs);
                let own = all[1..].iter().map(read).collect();
                judged.push(Judged { metric, guardrail, goal: slices.goal, slices: own });
            }
        }
        let gate = self.policy.gate(judged.iter().map(|it| it.guardrail.clone()).collect());
        let slices: Vec<Vec<GateSlice<'_>>> = judged.iter().map(Judged::slices).collect();
        let verdict = gate.judge(&slices);
        let flat = judged.iter().flat_map(|it| it.slices.iter().map(move |slice| (it, slice)));
        answer.comparisons = flat
            .zip(&verdict.reasons)
            .map(|((it, (_, windows, coverage)), reason)| {
                let margin = self.policy.metrics.get(&it.metric).map_or(1.0, |requirement| requirement.margin);
                let numbers = (*coverage, bin_of(it.metric));
                GateComparison::new(it.metric, reason, windows, (it.goal, margin), numbers)
            })
            .collect();
        answer.decision = verdict.decision.into();
        answer.summary = answer.summarised();
        Ok(answer)
    }
}

// === impl Judged ===

impl Judged {
    fn slices(&self) -> Vec<GateSlice<'_>> {
        let slices = self.slices.iter();
        slices.map(|(name, windows, coverage)| GateSlice { name, windows, coverage: *coverage }).collect()
    }
}

// === impl Pair ===

impl Pair<'_> {
    fn runs(&self) -> Runs<'_> {
        Runs { task: self.task, releases: self.releases, from: self.from, to: self.to }
    }
}

/// Returns the windows in which both releases had runs: others compare nothing.
fn span(offline: bool, [baseline, canary]: [Life; 2], since: Option<Minute>, complete_to: Minute) -> (Minute, Minute) {
    let since = since.unwrap_or(Minute::MIN);
    if offline {
        return (baseline.first.min(canary.first).max(since), (baseline.last.max(canary.last) + 1).min(complete_to));
    }
    let from = baseline.first.max(canary.first).max(since);
    (from, (baseline.last.min(canary.last) + 1).min(complete_to))
}

/// Reads slices of a pair of releases.
struct SliceReader<'a> {
    gate: &'a GateReader,
    session: &'a Session,
    memory: &'a Session,
    rules: &'a Rules,
    pair: &'a Pair<'a>,
}

// === impl SliceReader ===

impl<'a> SliceReader<'a> {
    fn rule(&self, metric: Metric) -> Result<&'a Rule> {
        self.rules
            .rules
            .iter()
            .find(|rule| rule.name == metric.rule())
            .ok_or_else(|| Error::bug(format!("there is no rule `{}`", metric.rule())))
    }

    /// Returns the metrics of the policy that are read from the same rows: unapproved actions, or all others.
    fn metrics(&self, unapproved: bool, whole: bool) -> Vec<Metric> {
        let sliced = |metric: &Metric| whole || self.gate.policy.slices.judges(*metric);
        let all = self.gate.policy.metrics.keys().copied().filter(sliced);
        all.filter(|metric| (*metric == Metric::UnapprovedActions) == unapproved).collect()
    }

    async fn read(&self, kind: &Kind, slow: &[(Metric, usize)]) -> Result<Slice> {
        let mut slice = Slice::default();
        for unapproved in [false, true] {
            let metrics = self.metrics(unapproved, *kind == Kind::All);
            if metrics.is_empty() && unapproved {
                continue;
            }
            let with_rule = |metric: &Metric| {
                let bin = slow.iter().find(|(known, _)| known == metric).map(|(_, bin)| *bin);
                Ok((*metric, self.rule(*metric)?, bin))
            };
            let metrics = metrics.iter().map(with_rule).collect::<Result<Vec<_>>>()?;
            let observer = Observer { memory: self.memory, releases: self.pair.releases, metrics };
            // The other metrics counted the runs that state a value.
            let stated = slice.stated.clone();
            for sql in self.queries(kind, unapproved) {
                let answer = self.session.execute(&sql).await?;
                let schema = std::sync::Arc::clone(&answer.schema);
                observer.put(schema, answer.collect().await?)?;
                observer.take(&mut slice).await?;
            }
            if unapproved {
                slice.stated = if self.metrics(false, *kind == Kind::All).is_empty() { slice.stated } else { stated };
            }
        }
        Ok(slice)
    }

    /// Returns the queries for the rows of a slice: sums over rows add up, so that days are read one by one.
    fn queries(&self, kind: &Kind, unapproved: bool) -> Vec<String> {
        let segment = &self.gate.policy.case_segment;
        if let Some(pairing) = self.pair.pairing {
            return vec![self.pair.runs().offline(kind, unapproved, pairing, segment)];
        }
        let days = self.pair.from.div_euclid(DAY)..=(self.pair.to - 1).div_euclid(DAY);
        days.map(|day| {
            let (from, to) = (self.pair.from.max(day * DAY), self.pair.to.min((day + 1) * DAY));
            let runs = Runs { from, to, ..self.pair.runs() };
            if kind.is_in_table() && !unapproved { runs.of_table(kind) } else { runs.computed(kind, unapproved) }
        })
        .collect()
    }

    /// Returns the bin above which runs are slow, for each latency of the policy, and the first window that may be judged by it.
    ///
    /// The quantiles come from the day before the canary or, if the baseline had too few runs then, from its first runs beside the
    /// canary. These are not judged: a quantile of the judged runs would depend on them.
    async fn slow_bins(&self) -> Result<(Vec<(Metric, usize)>, Minute)> {
        let metrics: Vec<Metric> =
            self.gate.policy.metrics.keys().copied().filter(|metric| metric.quantile().is_some()).collect();
        let Some(first) = metrics.first() else { return Ok((Vec::new(), Minute::MIN)) };
        let (rule, baseline) = (self.rule(*first)?, self.pair.releases[0]);
        let mut latencies = Latencies::default();
        let before = Runs { from: self.pair.from - DAY, to: self.pair.from, ..self.pair.runs() };
        latencies.add(&self.observed(rule, &before).await?, baseline);
        let mut skipped_to = Minute::MIN;
        if !latencies.suffice() {
            latencies = Latencies::default();
            let mut found = self.observed(rule, &self.pair.runs()).await?;
            found.sort_by_key(|observation| observation.cell.window);
            for same in found.chunk_by(|a, b| a.cell.window == b.cell.window) {
                latencies.add(same, baseline);
                skipped_to = same[0].cell.window + 1;
                if latencies.suffice() {
                    break;
                }
            }
        }
        let bins = metrics.into_iter().filter_map(|metric| Some((metric, latencies.bin_at(metric.quantile()?)?)));
        Ok((bins.collect(), skipped_to))
    }

    async fn observed(&self, rule: &Rule, runs: &Runs<'_>) -> Result<Vec<crate::observe::Observation>> {
        if runs.from >= runs.to {
            return Ok(Vec::new());
        }
        let answer = self.session.execute(&runs.of_table(&Kind::All)).await?;
        let schema = std::sync::Arc::clone(&answer.schema);
        self.memory.put(Table::Metrics, schema, answer.collect().await?)?;
        rows_of(self.memory, rule).await
    }
}
