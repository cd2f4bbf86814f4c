//! Simulated traffic: runs in sessions, twenty tasks, three models, ten tenants, seasons by hour and weekday, variation
//! between days, heavy tails; and faults.
//!
//! Everything about a run is a function of the seed, the session and the run's index in it ([`crate::chance`]), so the
//! events that are sent and the counts of the fast path describe the same runs.

use crate::chance::Key;

/// Number of tasks, by decreasing share of the traffic (Zipf).
pub const TASKS: usize = 20;

/// Minutes in a day.
pub const DAY: i64 = 1440;

/// Minutes in a week.
pub const WEEK: i64 = 7 * DAY;

/// 2026-11-02 00:00 UTC, a Monday, in minutes since the epoch: the start of every world.
pub const EPOCH: i64 = 29_892_960;

/// Maximum number of runs in a session; the number is uniform from 1, with mean 5.
pub const SESSION: u64 = 9;

/// Σ size² / Σ size of such sessions.
pub const SESSION_EFFECTIVE: f64 = 19.0 / 3.0;

/// Minutes between the runs of a session.
const STEP: i64 = 3;

/// Maximum duration of a session, in minutes.
const LONGEST: i64 = STEP * (SESSION as i64 - 1) + 3;

/// Failure rates of easy and of hard tasks.
const FAILURE: [f64; 2] = [0.05, 0.20];

/// Bad outcomes of a run, apart from slowness and cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The task failed.
    Failure,
    /// The answer violated its schema.
    Schema,
    /// A person had to take over.
    Escalation,
    /// A tool call failed.
    Tool,
    /// A policy exception.
    Exception,
}

/// The traffic of a world.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Traffic {
    /// Mean runs per minute on a weekday.
    pub per_minute: f64,
    /// Fraction of sessions on the canary.
    pub canary: f64,
    /// Correlation of outcomes within a session; at 0, runs share only their release.
    pub icc: f64,
    /// Weight of hard tasks in the canary's traffic, relative to the baseline's.
    pub canary_hard: f64,
    /// False for a single task.
    pub tasks: bool,
    /// Standard deviation of quality from hour to hour on the logit scale, with a correlation time of some hours.
    pub wander: f64,
}

/// A change in a world.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// The runs that it affects.
    pub scope: Scope,
    /// First minute, since the start of the world.
    pub from: i64,
    /// Minutes until it has its full effect; 0 for an immediate change.
    pub ramp: i64,
    /// Duration in minutes; none for a permanent change.
    pub lasts: Option<i64>,
    /// Added to the failure rate.
    pub failure: f64,
    /// Factors on the rates of schema errors, escalations, failed tool calls and exceptions.
    pub rates: [f64; 4],
    /// Factor on latency.
    pub latency: f64,
    /// Fraction of runs that become ten times slower.
    pub slow: f64,
    /// Factor on tokens, and so on cost.
    pub tokens: f64,
    /// Factor on traffic.
    pub traffic: f64,
    /// Fraction of runs that end with `length` instead of `stop`, beyond the usual 2 %.
    pub truncated: f64,
}

/// The runs that a change affects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All runs.
    All,
    /// Runs of the canary.
    Canary,
    /// Runs of the canary for one task.
    CanaryTask(usize),
    /// Runs of one tenant.
    Tenant(u64),
}

/// A world: traffic, changes and a seed.
#[derive(Clone, Debug)]
pub struct World {
    pub seed: u64,
    pub traffic: Traffic,
    pub changes: Vec<Change>,
    /// Minutes without any run: from, to.
    pub gap: Option<(i64, i64)>,
    key: Key,
    /// Cumulative shares of tasks in the baseline and in the canary.
    shares: [[f64; TASKS]; 2],
    /// Deviations of days on the logit scale.
    days: Vec<f64>,
    /// Deviations of hours, of variance 1.
    hours: Vec<f64>,
}

/// A run. Times are minutes since the start of the world.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// The minute it ended in.
    pub minute: i64,
    /// Its task, 0 to 19.
    pub task: usize,
    /// True for the canary.
    pub canary: bool,
    pub session: Key,
    /// True for the first run of its session.
    pub first: bool,
    key: Key,
}

/// Keys of the random draws of a run.
mod field {
    pub(super) const OUTCOME: u64 = 16;
    pub(super) const COMMON: u64 = 32;
    pub(super) const SECOND: u64 = 1;
    pub(super) const LATENCY: u64 = 2;
    pub(super) const TAIL: u64 = 3;
    pub(super) const SLOW: u64 = 4;
    pub(super) const TOKENS: u64 = 5;
    pub(super) const FINISH: u64 = 6;
    pub(super) const TENANT: u64 = 7;
    pub(super) const USER: u64 = 8;
    pub(super) const ARM: u64 = 9;
    pub(super) const TASK: u64 = 10;
    pub(super) const SIZE: u64 = 11;
    pub(super) const PLACE: u64 = 12;
}

/// No change; the base of all changes.
pub const NONE: Change = Change {
    scope: Scope::All,
    from: 0,
    ramp: 0,
    lasts: None,
    failure: 0.0,
    rates: [1.0; 4],
    latency: 1.0,
    slow: 0.0,
    tokens: 1.0,
    traffic: 1.0,
    truncated: 0.0,
};

/// Returns true for hard tasks: 19 % of the traffic.
pub fn is_hard(task: usize) -> bool {
    task % 4 == 2
}

fn logit(rate: f64) -> f64 {
    (rate / (1.0 - rate)).ln()
}

fn expit(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[expect(clippy::cast_precision_loss, reason = "minutes of some weeks")]
fn days_of(minutes: i64) -> f64 {
    minutes as f64 / DAY as f64
}

// === impl Traffic ===

impl Traffic {
    /// Creates traffic without a canary.
    pub fn new(per_minute: f64) -> Self {
        Self { per_minute, canary: 0.0, icc: 0.0, canary_hard: 1.0, tasks: true, wander: 0.0 }
    }

    /// Adds a canary that gets a fraction of the sessions.
    #[must_use]
    pub fn canary(self, share: f64) -> Self {
        Self { canary: share, ..self }
    }
}

// === impl Change ===

impl Change {
    /// Returns its strength in a minute, 0 to 1.
    fn fraction(&self, minute: i64) -> f64 {
        let since = minute - self.from;
        if since < 0 || self.lasts.is_some_and(|lasts| since >= lasts) {
            0.0
        } else if since >= self.ramp {
            1.0
        } else {
            days_of(since) / days_of(self.ramp)
        }
    }

    fn applies_to(&self, run: &Run) -> bool {
        match self.scope {
            Scope::All => true,
            Scope::Canary => run.canary,
            Scope::CanaryTask(task) => run.canary && run.task == task,
            Scope::Tenant(tenant) => run.tenant() == tenant,
        }
    }
}

// === impl Run ===

impl Run {
    /// Returns the second of its minute in which it ended, with a fraction.
    pub fn second(&self) -> f64 {
        60.0 * self.key.at(field::SECOND).uniform()
    }

    /// Returns its id.
    pub fn id(&self) -> String {
        format!("run_{:016x}", self.key.bits())
    }

    /// Returns the session's id.
    pub fn session_id(&self) -> String {
        format!("s_{:016x}", self.session.bits())
    }

    /// Returns its tenant, 0 to 9, by decreasing share.
    pub fn tenant(&self) -> u64 {
        let draw = self.session.at(field::TENANT).uniform();
        // Shares 19 %, 17 %, … 1 %: the square root turns a uniform draw into a triangle.
        let place = 10.0 * (1.0 - (1.0 - draw).sqrt());
        (0..10).find(|tenant| place < f64::from(*tenant) + 1.0).map_or(9, |tenant: i32| tenant.unsigned_abs().into())
    }

    /// Returns its user; a few send most of the runs (Zipf over 5000, by inversion of the continuous distribution).
    pub fn user(&self) -> u64 {
        let draw = self.session.at(field::USER).uniform();
        let place = 5000_f64.powf(draw);
        // At least 1 and at most 5000.
        (place as u64).clamp(1, 5000)
    }

    /// Returns its model, by task.
    pub fn model(&self) -> usize {
        self.task % 3
    }
}

// === impl World ===

impl World {
    /// Creates a world without changes.
    pub fn new(seed: u64, traffic: Traffic) -> Self {
        let key = Key::new(seed);
        let shares = [1.0, traffic.canary_hard].map(|hard| {
            let mut cumulated = [0.0; TASKS];
            let mut sum = 0.0;
            for (task, place) in cumulated.iter_mut().enumerate() {
                #[expect(clippy::cast_precision_loss, reason = "twenty tasks")]
                let weight = if is_hard(task) { hard } else { 1.0 } / (task as f64 + 1.0);
                sum += if traffic.tasks || task == 0 { weight } else { 0.0 };
                *place = sum;
            }
            cumulated.map(|place| place / sum)
        });
        Self { seed, traffic, changes: Vec::new(), gap: None, key, shares, days: days(key), hours: hours(key) }
    }

    /// Adds a change.
    #[must_use]
    pub fn with(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }

    /// Returns a start for a release: a minute in the working hours of a weekday, Monday to Friday 8:00 to 16:00, in
    /// the first week.
    pub fn release_start(seed: u64) -> i64 {
        let key = Key::new(seed).at(77);
        let day = key.at(1).below(5).cast_signed();
        day * DAY + 8 * 60 + key.at(2).below(8 * 60).cast_signed()
    }

    /// Returns the usual runs per minute, as a baseline of some weeks would show.
    pub fn expected(&self, minute: i64) -> f64 {
        let weekend = if minute.rem_euclid(WEEK) >= 5 * DAY { 0.6 } else { 1.0 };
        // Minimum at 2:00, maximum at 14:00.
        let hour = 1.0 + 0.6 * (std::f64::consts::TAU * (days_of(minute) - 8.0 / 24.0)).sin();
        self.traffic.per_minute * weekend * hour
    }

    fn rate(&self, minute: i64) -> f64 {
        let changes = self.changes.iter();
        self.expected(minute)
            * changes.map(|change| 1.0 + (change.traffic - 1.0) * change.fraction(minute)).product::<f64>()
    }

    /// Calls `each` with every minute from `from` to `to` (exclusive) and the runs that ended in it.
    pub fn minutes(&self, from: i64, to: i64, mut each: impl FnMut(i64, &[Run])) {
        // Sessions that started earlier still have runs in the first minutes.
        let slots = usize::try_from(LONGEST + 1).unwrap_or(1);
        let mut ahead: Vec<Vec<Run>> = vec![Vec::new(); slots];
        let slot = |minute: i64| usize::try_from(minute.rem_euclid(LONGEST + 1)).unwrap_or(0);
        for minute in from - LONGEST..to {
            self.begin_sessions(minute, |run| ahead[slot(run.minute)].push(run));
            let runs = &mut ahead[slot(minute)];
            if minute >= from {
                let silent = self.gap.is_some_and(|(from, to)| (from..to).contains(&minute));
                each(minute, if silent { &[] } else { runs });
            }
            runs.clear();
        }
    }

    fn begin_sessions(&self, minute: i64, mut place: impl FnMut(Run)) {
        let key = self.key.at(1).at(minute.cast_unsigned());
        #[expect(clippy::cast_precision_loss, reason = "at most nine")]
        let sessions = key.at(1).poisson(self.rate(minute) * 2.0 / (SESSION as f64 + 1.0));
        for number in 0..sessions {
            let session = key.at(2).at(number);
            let canary = session.at(field::ARM).uniform() < self.traffic.canary;
            let size = 1 + session.at(field::SIZE).below(SESSION).cast_signed();
            for run in 0..size {
                let key = session.at(100 + run.cast_unsigned());
                // Correlated runs of a session share their task too; otherwise nothing ties them together.
                let drawn = if self.traffic.icc > 0.0 { session } else { key };
                let draw = drawn.at(field::TASK).uniform();
                let task = self.shares[usize::from(canary)].iter().position(|share| draw < *share).unwrap_or(0);
                let minute = minute + STEP * run + key.at(field::PLACE).below(3).cast_signed();
                place(Run { minute, task, canary, session, first: run == 0, key });
            }
        }
    }

    fn changed(&self, run: &Run, value: impl Fn(&Change, f64) -> f64) -> f64 {
        let changes = self.changes.iter().filter(|change| change.applies_to(run));
        changes.map(|change| value(change, change.fraction(run.minute))).sum()
    }

    /// Returns the probability of an outcome for a run.
    pub fn rate_of(&self, run: &Run, outcome: Outcome) -> f64 {
        let usual = match outcome {
            Outcome::Failure => {
                let hour = 0.25 * (std::f64::consts::TAU * (days_of(run.minute) - 0.1)).sin();
                let day = usize::try_from(run.minute.div_euclid(DAY)).ok().and_then(|day| self.days.get(day));
                let rate = FAILURE[usize::from(self.traffic.tasks && is_hard(run.task))];
                let wander =
                    usize::try_from(run.minute / 60).ok().and_then(|hour| self.hours.get(hour)).unwrap_or(&0.0);
                return (expit(logit(rate) + hour + day.unwrap_or(&0.0) + self.traffic.wander * wander)
                    + self.changed(run, |change, part| change.failure * part))
                .clamp(0.0, 1.0);
            }
            Outcome::Schema => 0.005,
            Outcome::Escalation => 0.05,
            Outcome::Tool => 0.02,
            Outcome::Exception => 1e-4,
        };
        let place = outcome as usize - 1;
        usual * (1.0 + self.changed(run, |change, part| (change.rates[place] - 1.0) * part))
    }

    /// Returns true if a run had a bad outcome. Outcomes within a session have the traffic's correlation: each run
    /// follows the session's common draw with probability √icc.
    pub fn has_outcome(&self, run: &Run, outcome: Outcome) -> bool {
        let place = outcome as u64;
        let own = run.key.at(field::OUTCOME + place);
        let draw = if self.traffic.icc > 0.0 && own.at(1).uniform() < self.traffic.icc.sqrt() {
            run.session.at(field::COMMON + place).uniform()
        } else {
            own.uniform()
        };
        draw < self.rate_of(run, outcome)
    }

    /// Returns the latency in microseconds: log-normal with σ 1, one in a hundred with a Pareto tail of index 1.5.
    pub fn latency_micros(&self, run: &Run) -> u64 {
        #[expect(clippy::cast_precision_loss, reason = "twenty tasks")]
        let usual = 1.5e6 * (1.0 + (run.task % 5) as f64);
        let tail = run.key.at(field::TAIL);
        let pareto = if tail.uniform() < 0.01 { tail.at(1).uniform().powf(-1.0 / 1.5) } else { 1.0 };
        let factor = 1.0 + self.changed(run, |change, part| (change.latency - 1.0) * part);
        let slow = self.changed(run, |change, part| change.slow * part);
        let slow = if run.key.at(field::SLOW).uniform() < slow { 10.0 } else { 1.0 };
        // At most an hour, when apps give up.
        (usual * run.key.at(field::LATENCY).normal().exp() * pareto * factor * slow).min(3.6e9) as u64
    }

    /// Returns the input tokens.
    pub fn tokens(&self, run: &Run) -> u64 {
        let factor = 1.0 + self.changed(run, |change, part| (change.tokens - 1.0) * part);
        (2400.0 * (0.6 * run.key.at(field::TOKENS).normal()).exp() * factor) as u64 + 20
    }

    /// Returns the cost in micro-units of the currency: by tokens, and 1.8 times as much for failed runs.
    pub fn cost_micros(&self, run: &Run) -> u64 {
        let failed = if self.has_outcome(run, Outcome::Failure) { 1.8 } else { 1.0 };
        #[expect(clippy::cast_precision_loss, reason = "some thousand tokens")]
        let tokens = self.tokens(run) as f64;
        (tokens * failed) as u64
    }

    /// Returns the finish reason: 0 `stop`, 1 `length`, 2 `tool_calls`, 3 `content_filter`.
    pub fn finish(&self, run: &Run) -> usize {
        let draw = run.key.at(field::FINISH).uniform();
        let length = 0.02 + self.changed(run, |change, part| change.truncated * part);
        [(length, 1), (length + 0.15, 2), (length + 0.155, 3)]
            .into_iter()
            .find(|(limit, _)| draw < *limit)
            .map_or(0, |(_, reason)| reason)
    }
}

/// Draws ten weeks of daily deviations on the logit scale: AR(1), coefficient 0.5, standard deviation 0.04.
fn days(key: Key) -> Vec<f64> {
    let mut deviation = 0.04 * key.at(3).normal();
    (0..70)
        .map(|day| {
            deviation = 0.5 * deviation + 0.04 * 0.75_f64.sqrt() * key.at(4).at(day).normal();
            deviation
        })
        .collect()
}

/// Draws ten weeks of hourly deviations: AR(1) with variance 1 and a correlation time of four hours.
fn hours(key: Key) -> Vec<f64> {
    let correlation = (-0.25_f64).exp();
    let mut deviation = key.at(5).normal();
    (0..70 * 24)
        .map(|hour| {
            deviation =
                correlation * deviation + (1.0 - correlation * correlation).sqrt() * key.at(6).at(hour).normal();
            deviation
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(world: &World, minutes: i64) -> Vec<Run> {
        let mut all = Vec::new();
        world.minutes(0, minutes, |_, runs| all.extend_from_slice(runs));
        all
    }

    fn share(runs: &[Run], of: impl Fn(&Run) -> bool) -> f64 {
        runs.iter().filter(|run| of(run)).count() as f64 / runs.len() as f64
    }

    #[test]
    fn traffic_is_as_stated() {
        let world = World::new(1, Traffic::new(30.0).canary(0.1));
        let runs = runs(&world, 5 * DAY);
        let per_minute = runs.len() as f64 / (5 * DAY) as f64;
        assert!((per_minute / 30.0 - 1.0).abs() < 0.02, "{per_minute}");
        assert!((share(&runs, |run| run.canary) - 0.1).abs() < 0.01);
        assert!((share(&runs, |run| run.task == 0) - 0.278).abs() < 0.01);
        assert!((share(&runs, |run| is_hard(run.task)) - 0.19).abs() < 0.01);
        assert!((share(&runs, |run| run.tenant() == 0) - 0.19).abs() < 0.01);
        let failed = share(&runs, |run| world.has_outcome(run, Outcome::Failure));
        assert!((0.07..0.09).contains(&failed), "{failed}");
        assert!((share(&runs, |run| world.has_outcome(run, Outcome::Escalation)) - 0.05).abs() < 0.003);
        let mut latencies: Vec<u64> = runs.iter().map(|run| world.latency_micros(run)).collect();
        latencies.sort_unstable();
        assert!((3_000_000..5_000_000).contains(&latencies[latencies.len() / 2]), "{}", latencies[latencies.len() / 2]);
        assert!(runs.iter().all(|run| (0..5 * DAY).contains(&run.minute)));
    }

    #[test]
    fn runs_of_a_session_have_the_stated_correlation() {
        for icc in [0.0, 0.4] {
            let world = World::new(2, Traffic { icc, ..Traffic::new(30.0) });
            let mut sessions = std::collections::HashMap::<u64, (f64, f64)>::new();
            let all = runs(&world, 5 * DAY);
            let rate = share(&all, |run| world.has_outcome(run, Outcome::Escalation));
            for run in &all {
                let sums = sessions.entry(run.session.bits()).or_default();
                let residual = f64::from(u8::from(world.has_outcome(run, Outcome::Escalation))) - rate;
                *sums = (sums.0 + residual, sums.1 + residual * residual);
            }
            // Pairs of runs of one session, by the square of a sum.
            let (mut products, mut pairs) = (0.0, 0.0);
            for (sum, squares) in sessions.values() {
                products += sum * sum - squares;
            }
            let mut sizes = std::collections::HashMap::<u64, f64>::new();
            all.iter().for_each(|run| *sizes.entry(run.session.bits()).or_default() += 1.0);
            sizes.values().for_each(|size| pairs += size * (size - 1.0));
            let found = products / pairs / (rate * (1.0 - rate));
            assert!((found - icc).abs() < 0.03, "{found} instead of {icc}");
            let effective = sizes.values().map(|size| size * size).sum::<f64>() / sizes.values().sum::<f64>();
            assert!((effective - SESSION_EFFECTIVE).abs() < 0.05, "{effective}");
        }
    }

    #[test]
    fn changes_start_ramp_up_and_end() {
        let change = Change { from: 100, ramp: 200, lasts: Some(400), ..NONE };
        let parts = [99, 100, 200, 300, 499, 500].map(|minute| change.fraction(minute));
        assert_eq!(parts, [0.0, 0.0, 0.5, 1.0, 1.0, 0.0]);
        let world = World::new(3, Traffic::new(30.0).canary(0.5)).with(Change {
            scope: Scope::Canary,
            failure: 0.1,
            latency: 2.0,
            ..NONE
        });
        let twin = World::new(3, Traffic::new(30.0).canary(0.5));
        for run in runs(&world, 600) {
            let more = world.rate_of(&run, Outcome::Failure) - twin.rate_of(&run, Outcome::Failure);
            assert!((more - if run.canary { 0.1 } else { 0.0 }).abs() < 1e-12);
            let slower = world.latency_micros(&run) as f64 / twin.latency_micros(&run) as f64;
            assert!((slower - if run.canary { 2.0 } else { 1.0 }).abs() < 0.01, "{slower}");
        }
    }

    #[test]
    fn a_part_of_a_world_equals_that_part_of_the_whole() {
        let world = World::new(4, Traffic::new(3.0).canary(0.1));
        let whole: Vec<Run> = runs(&world, 600).into_iter().filter(|run| run.minute >= 300).collect();
        let mut part = Vec::new();
        world.minutes(300, 600, |_, runs| part.extend_from_slice(runs));
        assert_eq!(part, whole);
    }
}
