//! The detector of a rule: the keys of its file, and the detector that they make with a task's contract.

use std::sync::Arc;

use bellwether_detect::Detector;
use bellwether_detect::detector::{
    BurnRate, Distance, Drift, Histogram, Occurrence, Ratio, Regression, Shape, Silence, Split, Threshold,
};
use bellwether_stats::burn_rate::{BurnWindows, Objective, Severity, WORKBOOK};
use serde::Deserialize;

use crate::contract::Contract;

/// A bound: a number, or a key of the contract.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Bound {
    /// A number.
    Number(f64),
    /// A key of the task's contract.
    Contract(ContractKey),
}

/// Keys of a contract that a bound may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum ContractKey {
    /// `cost_ceiling`.
    #[serde(rename = "contract.cost_ceiling")]
    CostCeiling,
    /// `escalation_most`.
    #[serde(rename = "contract.escalation_most")]
    EscalationMost,
    /// `escalation_least`.
    #[serde(rename = "contract.escalation_least")]
    EscalationLeast,
}

/// A long and a short window of a burn rate, and its factor.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowPair {
    long: String,
    short: String,
    factor: f64,
}

/// Windows of the SRE workbook, by speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speed {
    /// An hour and six hours.
    Fast,
    /// A day and three days.
    Slow,
}

/// The direction in which a quantity gets worse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Worse {
    /// Larger is worse.
    #[default]
    Up,
    /// Smaller is worse.
    Down,
    /// Any: bins are categories without order.
    Categories,
}

/// The detector of a rule.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/alerts.md has each key, with its trade-off")]
pub enum DetectorSettings {
    Regression {
        margin: Option<f64>,
        block_runs: Option<u64>,
        block_minutes: Option<i64>,
        #[serde(default)]
        shared_runs: bool,
    },
    Histogram {
        #[serde(default)]
        worse: Worse,
        least_effect: Option<f64>,
        block_runs: Option<u64>,
        block_minutes: Option<i64>,
    },
    Ratio {
        margin: Option<f64>,
        scale: Option<f64>,
    },
    Drift {
        margin: Option<f64>,
        minutes: Option<i64>,
        least_hours: Option<usize>,
        #[serde(default)]
        rare: bool,
        #[serde(default)]
        anchored: bool,
        reference: Option<[String; 2]>,
    },
    Distance {
        least: Option<f64>,
        least_runs: Option<u64>,
    },
    BurnRate {
        objective: Option<f64>,
        speed: Option<Speed>,
        windows: Option<Vec<WindowPair>>,
    },
    Silence {
        minutes: Option<i64>,
    },
    Split {
        share: Option<f64>,
    },
    Threshold {
        above: Option<Bound>,
        below: Option<Bound>,
        hold: Option<i64>,
        clear: Option<i64>,
    },
    Occurrence {
        clear: Option<i64>,
    },
}

/// Columns that a query must return beside those of its series and strata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Sets of columns; one of each is enough.
    pub columns: &'static [&'static [&'static str]],
    /// Also `release_id` and `stage`.
    pub releases: bool,
    /// Also `window_start`.
    pub windows: bool,
}

// === impl DetectorSettings ===

impl DetectorSettings {
    /// Returns the columns that the rule's query must return.
    pub fn needs(&self) -> Needs {
        let columns: &'static [&'static [&'static str]] = match self {
            Self::Regression { .. } | Self::Drift { .. } | Self::BurnRate { .. } | Self::Occurrence { .. } => {
                &[&["events", "good"], &["runs"]]
            }
            Self::Histogram { .. } | Self::Distance { .. } => &[&["sketch", "bins"]],
            Self::Ratio { .. } => &[&["y"], &["x"], &["yy"], &["xx"], &["xy"], &["runs"]],
            Self::Silence { .. } | Self::Split { .. } => &[&["runs"]],
            Self::Threshold { .. } => &[&["value"]],
        };
        let releases =
            matches!(self, Self::Regression { .. } | Self::Histogram { .. } | Self::Ratio { .. } | Self::Split { .. });
        Needs { columns, releases, windows: !matches!(self, Self::Threshold { .. }) }
    }

    /// Returns the name of the kind of detector.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Regression { .. } => "regression",
            Self::Histogram { .. } => "histogram",
            Self::Ratio { .. } => "ratio",
            Self::Drift { .. } => "drift",
            Self::Distance { .. } => "distance",
            Self::BurnRate { .. } => "burn_rate",
            Self::Silence { .. } => "silence",
            Self::Split { .. } => "split",
            Self::Threshold { .. } => "threshold",
            Self::Occurrence { .. } => "occurrence",
        }
    }

    /// Refuses settings that no contract can make right.
    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            // Without an objective of its own, that of a task's contract will be used.
            Self::BurnRate { objective: None, .. } => {
                self.detector(Some(&Contract { success: Some(0.995), ..Contract::default() })).map(|_| ())
            }
            Self::Threshold { above, below, .. } if above.is_some() || below.is_some() => {
                let every = Contract {
                    cost_ceiling: Some(1.0),
                    escalation_most: Some(0.9),
                    escalation_least: Some(0.1),
                    ..Contract::default()
                };
                self.detector(Some(&every)).map(|_| ())
            }
            _ => self.detector(None).map(|_| ()),
        }
    }

    /// Returns the detector for a task; none if the contract lacks a key that it needs.
    ///
    /// # Errors
    /// Says why it could never fire, or which value is out of range.
    pub fn detector(&self, contract: Option<&Contract>) -> Result<Option<Detector>, String> {
        let detector = match self {
            Self::Regression { margin, block_runs, block_minutes, shared_runs } => {
                let default = Regression::default();
                Detector::Regression(Arc::new(Regression {
                    margin: contract.and_then(|contract| contract.margin).or(*margin).unwrap_or(default.margin),
                    block_runs: block_runs.unwrap_or(default.block_runs),
                    block_minutes: block_minutes.unwrap_or(default.block_minutes),
                    shared_runs: *shared_runs,
                }))
            }
            Self::Histogram { worse, least_effect, block_runs, block_minutes } => {
                let default = Histogram::default();
                let shape = match worse {
                    Worse::Up => Shape::Up,
                    Worse::Down => Shape::Down,
                    Worse::Categories => Shape::Categories,
                };
                Detector::Histogram(Arc::new(Histogram {
                    shape,
                    least_effect: least_effect.unwrap_or(default.least_effect),
                    block_runs: block_runs.unwrap_or(default.block_runs),
                    block_minutes: block_minutes.unwrap_or(default.block_minutes),
                }))
            }
            Self::Ratio { margin, scale } => {
                let default = Ratio::default();
                Detector::Ratio(Arc::new(Ratio {
                    margin: margin.unwrap_or(default.margin),
                    scale: scale.unwrap_or(default.scale),
                }))
            }
            Self::Drift { margin, minutes, least_hours, rare, anchored, reference } => {
                let default = Drift::default();
                let reference =
                    reference.as_ref().map(|[from, to]| Ok::<_, String>((hour_of(from)?, hour_of(to)?))).transpose()?;
                Detector::Drift(Arc::new(Drift {
                    minutes: minutes.unwrap_or(default.minutes),
                    margin: margin.unwrap_or(default.margin),
                    least_hours: least_hours.unwrap_or(default.least_hours),
                    rare: *rare,
                    anchored: *anchored,
                    reference,
                }))
            }
            Self::Distance { least, least_runs } => {
                let default = Distance::default();
                Detector::Distance(Arc::new(Distance {
                    least: least.unwrap_or(default.least),
                    least_runs: least_runs.unwrap_or(default.least_runs),
                }))
            }
            Self::BurnRate { objective, speed, windows } => {
                let Some(objective) = contract.and_then(|contract| contract.success).or(*objective) else {
                    return Ok(None);
                };
                let windows = match windows {
                    Some(pairs) => pairs.iter().map(windows_of).collect::<Result<Vec<_>, _>>()?,
                    None => workbook(*speed, objective)?,
                };
                Detector::BurnRate(Arc::new(BurnRate { objective, windows }))
            }
            Self::Silence { minutes } => {
                Detector::Silence(Arc::new(Silence { minutes: minutes.unwrap_or(Silence::default().minutes) }))
            }
            Self::Split { share } => Detector::Split(Arc::new(Split {
                share: contract.and_then(|contract| contract.canary_share).or(*share),
            })),
            Self::Threshold { above, below, hold, clear } => {
                let default = Threshold::default();
                let (above, below) = match (bound(above.as_ref(), contract), bound(below.as_ref(), contract)) {
                    // A key that the contract lacks is no bound. Without another bound there is no detector.
                    (None, None) if above.is_some() || below.is_some() => return Ok(None),
                    found => found,
                };
                Detector::Threshold(Arc::new(Threshold {
                    above,
                    below,
                    hold: hold.unwrap_or(default.hold),
                    clear: clear.unwrap_or(default.clear),
                }))
            }
            Self::Occurrence { clear } => {
                Detector::Occurrence(Arc::new(Occurrence { clear: clear.unwrap_or(Occurrence::default().clear) }))
            }
        };
        detector.validate()?;
        Ok(Some(detector))
    }
}

fn bound(bound: Option<&Bound>, contract: Option<&Contract>) -> Option<f64> {
    match bound? {
        Bound::Number(number) => Some(*number),
        Bound::Contract(key) => {
            let contract = contract?;
            match key {
                ContractKey::CostCeiling => contract.cost_ceiling,
                ContractKey::EscalationMost => contract.escalation_most,
                ContractKey::EscalationLeast => contract.escalation_least,
            }
        }
    }
}

/// Returns the windows of the SRE workbook for an objective. The factors there suit an objective of 99.9 %. For looser ones they
/// are lowered until they can fire, and windows that still cannot are left out.
fn workbook(speed: Option<Speed>, objective: f64) -> Result<Vec<BurnWindows>, String> {
    let budget = Objective::new(objective).map_err(|invalid| invalid.to_string())?.budget();
    let wanted = |severity: Severity| match speed {
        None => true,
        Some(Speed::Fast) => severity == Severity::Page,
        Some(Speed::Slow) => severity == Severity::Ticket,
    };
    let most = 0.5 / budget;
    let windows = WORKBOOK.iter().filter(|windows| wanted(windows.severity)).map(|windows| {
        // Half of the largest factor that could fire, so that a page does not need an app that is down.
        BurnWindows { factor: windows.factor.min((most / 2.0).max(1.0)), ..*windows }
    });
    let windows: Vec<BurnWindows> = windows.filter(|windows| windows.factor <= most).collect();
    if windows.is_empty() {
        Err(format!("no burn rate can fire for an objective of `{objective}`"))
    } else {
        Ok(windows)
    }
}

fn windows_of(pair: &WindowPair) -> Result<BurnWindows, String> {
    let minutes = |text: &str| {
        let parsed =
            humantime::parse_duration(text).ok().and_then(|duration| u32::try_from(duration.as_secs() / 60).ok());
        parsed
            .filter(|minutes| *minutes > 0)
            .ok_or_else(|| format!("a window is `{text}`; it must be a duration such as \"1h\""))
    };
    Ok(BurnWindows {
        severity: Severity::Page,
        long_minutes: minutes(&pair.long)?,
        short_minutes: minutes(&pair.short)?,
        factor: pair.factor,
    })
}

fn hour_of(text: &str) -> Result<i64, String> {
    let moment = humantime::parse_rfc3339_weak(text).ok();
    let since = moment.and_then(|moment| moment.duration_since(std::time::UNIX_EPOCH).ok());
    since
        .map(|since| i64::try_from(since.as_secs() / 3600).unwrap_or(i64::MAX))
        .ok_or_else(|| format!("reference has `{text}`; it must be two moments such as \"2026-01-31 00:00:00\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objective_of_the_contract_gives_windows_that_can_fire() {
        let burn = DetectorSettings::BurnRate { objective: None, speed: Some(Speed::Fast), windows: None };
        assert_eq!(burn.detector(None), Ok(None));
        for objective in [0.8, 0.9, 0.95, 0.99, 0.999] {
            let contract = Contract { success: Some(objective), ..Contract::default() };
            let Ok(Some(Detector::BurnRate(made))) = burn.detector(Some(&contract)) else { panic!("{objective}") };
            assert!(made.windows.iter().all(|windows| windows.factor * (1.0 - objective) <= 0.5), "{made:?}");
        }
        let factors = |objective: f64| {
            workbook(None, objective)
                .expect("windows")
                .iter()
                .map(|windows| (windows.factor * 1e6).round() / 1e6)
                .collect::<Vec<_>>()
        };
        assert_eq!(factors(0.999), [14.4, 6.0, 3.0, 1.0]);
        assert_eq!(factors(0.9), [2.5, 2.5, 2.5, 1.0]);
    }

    #[test]
    fn bounds_come_from_the_contract() {
        let settings = DetectorSettings::Threshold {
            above: Some(Bound::Contract(ContractKey::CostCeiling)),
            below: None,
            hold: None,
            clear: None,
        };
        assert_eq!(settings.detector(None), Ok(None));
        let contract = Contract { cost_ceiling: Some(0.5), ..Contract::default() };
        let Ok(Some(Detector::Threshold(made))) = settings.detector(Some(&contract)) else { panic!("a bound") };
        assert_eq!(made.above, Some(0.5));
    }
}
