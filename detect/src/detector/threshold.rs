//! A value beyond a bound: any SQL that returns `value`. It controls no false alarm rate; the condition must last
//! instead.

use std::sync::Arc;

use bellwether_stats::pack::Packer;

use super::{DetectorState, Past, Signal, Verdict};
use crate::budget::Thresholds;
use crate::evidence::{BaselineKind, Evidence};
use crate::observation::{Minute, Window};

/// Scale of a value stored as an integer: millionths.
pub const MICRO: f64 = 1e6;

/// Bounds must lie within ± this: values are stored in millionths in 64 bits and saturate beyond.
const MAX_BOUND: f64 = 9e12;

/// Settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    /// Fires above it.
    pub above: Option<f64>,
    /// Fires below it.
    pub below: Option<f64>,
    /// Minutes that the condition must hold.
    pub hold: i64,
    /// Minutes that the condition must be clear.
    pub clear: i64,
}

impl Default for Threshold {
    fn default() -> Self {
        Self { above: None, below: None, hold: 5, clear: 15 }
    }
}

impl Threshold {
    pub(super) fn validate(&self) -> Result<(), String> {
        for (name, bound) in [("above", self.above), ("below", self.below)] {
            if bound.is_some_and(|bound| !bound.is_finite()) {
                return Err(format!("`{name}` is not a finite number, so the rule can never fire"));
            }
        }
        for (name, bound) in [("above", self.above), ("below", self.below)] {
            if bound.is_some_and(|bound| bound.abs() > MAX_BOUND) {
                return Err(format!("`{name}` is beyond ±9e12, which no value can exceed; use a larger unit"));
            }
        }
        match (self.above, self.below) {
            (None, None) => Err("neither `above` nor `below` is set, so the rule can never fire".to_owned()),
            (Some(above), Some(below)) if below > above => {
                Err(format!("every value is above `{above}` or below `{below}`, so the rule would always fire"))
            }
            _ if self.hold < 0 || self.clear < 0 => Err("`hold` and `clear` must not be negative".to_owned()),
            _ => Ok(()),
        }
    }

    fn is_beyond(&self, value: f64) -> bool {
        self.above.is_some_and(|bound| value > bound) || self.below.is_some_and(|bound| value < bound)
    }
}

/// State of one series.
#[derive(Clone, Debug)]
pub(super) struct State {
    settings: Arc<Threshold>,
    value: Option<f64>,
    since: Option<Minute>,
}

packed_state!(Threshold { value, since });

// === impl State ===

impl State {
    pub(super) fn new(settings: Arc<Threshold>) -> Self {
        Self { settings, value: None, since: None }
    }
}

impl DetectorState for State {
    #[expect(clippy::cast_precision_loss, reason = "values in millionths are rounded already")]
    fn step(&mut self, window: &Window, _: &Past<'_>) {
        let sum = window.rows.iter().fold(0_i64, |sum, row| sum.saturating_add(row.canary.events));
        let value = match sum {
            i64::MAX => f64::INFINITY,
            i64::MIN => f64::NEG_INFINITY,
            sum => sum as f64 / MICRO,
        };
        if !self.value.is_some_and(|before| self.settings.is_beyond(before)) {
            self.since = Some(window.start);
        }
        self.value = Some(value);
    }

    fn verdict(&self, _: &Thresholds) -> Verdict {
        let threshold = self.settings.above.or(self.settings.below).unwrap_or(0.0);
        let signal = match self.value {
            None => Signal::Unknown,
            Some(value) if self.settings.is_beyond(value) => Signal::Alarm,
            Some(_) => Signal::Clear,
        };
        Verdict { signal, statistic: self.value.unwrap_or(0.0), threshold }
    }

    fn evidence(&self, _: &Thresholds) -> Evidence {
        let mut evidence = Evidence::new("threshold", BaselineKind::Set, "value");
        evidence.canary_value = self.value;
        evidence.effect = self.value;
        evidence.baseline_value = match (self.value, self.settings.above, self.settings.below) {
            (Some(value), Some(above), _) if value > above => Some(above),
            (_, above, below) => below.or(above),
        };
        evidence.since = self.since;
        if self.value.is_some_and(f64::is_infinite) {
            evidence.notes.push("the value is infinite: a division by 0, or out of range".to_owned());
        }
        evidence.notes.push("a plain bound: the false alarm rate is not controlled".to_owned());
        evidence
    }

    fn pack(&self, to: &mut Packer) {
        self.put(to);
    }
}
