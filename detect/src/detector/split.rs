//! D12: do releases get the shares of traffic that the split was set to? While they do not, comparisons of them may be of
//! different traffic.

use std::sync::Arc;

use bellwether_stats::Invalid;
use bellwether_stats::srm::{CONCENTRATION, log_e};

use super::clusters::design_effect;
use super::{Absence, Judge, Past, Signal, Verdict, weigh};
use crate::budget::Thresholds;
use crate::evidence::{Baseline, Evidence};
use crate::observation::{Groups, Minute, Window, count};

/// Settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Split {
    /// Share of the traffic that the newer release is to get; none: what the runs state.
    pub share: Option<f64>,
}

impl Split {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        match self.share {
            Some(share) if !(share > 0.0 && share < 1.0) => {
                Err(Invalid::new("share", share, "between 0 and 1, ends excluded"))
            }
            _ => Ok(()),
        }
    }
}

/// State of one series.
#[derive(Clone, Debug)]
pub(super) struct State {
    settings: Arc<Split>,
    share_micros: i64,
    runs: [u64; 2],
    /// Runs of the newer release (as events) and of both by random group of sessions.
    groups: Groups,
    since: Option<Minute>,
    absence: Absence,
    /// α is spent once for each share that was set.
    spent: bool,
}

// === impl State ===

impl State {
    pub(super) fn new(settings: Arc<Split>) -> Self {
        Self {
            settings,
            share_micros: 0,
            runs: [0, 0],
            groups: Groups::default(),
            since: None,
            absence: Absence::default(),
            spent: false,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a share in millionths is exact")]
    fn share(&self) -> Option<f64> {
        let stated = (1..1_000_000).contains(&self.share_micros).then_some(self.share_micros as f64 / 1e6);
        self.settings.share.or(stated)
    }

    /// Runs of both, as many as would say as much if each had been dealt by itself: where sessions are dealt, their runs
    /// come and go together.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
    fn effective(&self) -> [u64; 2] {
        let weight = design_effect(&self.groups).map_or(1.0, |(effect, _)| 1.0 / effect.max(1.0));
        self.runs.map(|runs| (runs as f64 * weight) as u64)
    }

    fn log_e(&self) -> Option<f64> {
        let share = self.share()?;
        log_e(&self.effective(), &[1.0 - share, share], CONCENTRATION).ok()
    }
}

impl Judge for State {
    fn step(&mut self, window: &Window, _: &Past<'_>) {
        if window.historical {
            return;
        }
        let (mut baseline, mut canary) = (0, 0);
        for row in &window.rows {
            (baseline, canary) = (baseline + count(row.baseline.runs), canary + count(row.canary.runs));
            let stated = row.canary.share_micros;
            if stated != 0 && stated != self.share_micros {
                // A ramp: the split was set anew, and what came before says nothing about it.
                (self.share_micros, self.runs, self.since) = (stated, [0, 0], Some(window.start));
                self.groups = Groups::default();
                self.spent = false;
            }
        }
        self.absence.note(window.start, baseline, canary);
        self.since.get_or_insert(window.start);
        self.runs = [self.runs[0] + baseline, self.runs[1] + canary];
        for row in &window.rows {
            for (arm, newer) in [(&row.baseline, false), (&row.canary, true)] {
                if let Some(groups) = &arm.groups {
                    self.groups.add(if newer { &groups.runs } else { &[] }, &groups.runs);
                }
            }
        }
    }

    fn verdict(&self, thresholds: &Thresholds) -> Verdict {
        let Some(found) = self.log_e().filter(|_| !self.spent) else {
            return Verdict { signal: Signal::Unknown, statistic: 0.0, threshold: thresholds.e };
        };
        let mut verdict = weigh(found, thresholds.e);
        if self.absence.is_gone() {
            verdict.signal = Signal::Gone;
        }
        verdict
    }

    fn resolved(&mut self) {
        self.spent = true;
        self.runs = [0, 0];
        self.groups = Groups::default();
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn evidence(&self, thresholds: &Thresholds) -> Evidence {
        let all = self.runs[0] + self.runs[1];
        let mut evidence = Evidence::new("split", Baseline::Set, "share")
            .with_counts(Some((self.runs[0], all)), Some((self.runs[1], all)));
        evidence.baseline_value = self.share();
        evidence.canary_value = (all > 0).then(|| self.runs[1] as f64 / all as f64);
        evidence.effect = evidence.canary_value.zip(evidence.baseline_value).map(|(found, set)| found / set);
        evidence.log_e = self.log_e();
        evidence.threshold = Some(thresholds.e);
        evidence.false_alarm = Some((thresholds.alpha, "per_release"));
        evidence.since = self.since;
        let [a, b] = self.effective();
        if a + b < all {
            evidence.notes.push(format!("runs of one session are dealt together: they say as much as {} would", a + b));
        }
        if self.share().is_none() {
            evidence.notes.push("nobody stated what share the release was to get".to_owned());
        }
        evidence
    }

    fn boxed(&self) -> Box<dyn Judge> {
        Box::new(self.clone())
    }
}
