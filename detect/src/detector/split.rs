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
use crate::weights::{Arm, Heaviest, ONE};

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
    arms: [Arm; 2],
    heaviest: Heaviest,
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
            arms: Default::default(),
            heaviest: Heaviest::default(),
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
        // Of releases that are sampled each its own way, a run counts as its weight is to the greatest.
        let alike = self.arms[0].weight().is_some() && self.arms[0].weight() == self.arms[1].weight();
        let of_one = if alike { None } else { Some(self.heaviest.weight() as f64 / ONE as f64) };
        self.arms.map(|arm| {
            let runs = of_one.map_or_else(|| arm.seen().1 as f64, |one| arm.weighted_runs() / one);
            (runs * weight) as u64
        })
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
                (self.share_micros, self.arms, self.since) = (stated, Default::default(), Some(window.start));
                self.groups = Groups::default();
                self.spent = false;
            }
        }
        self.absence.note(window.start, baseline, canary);
        self.since.get_or_insert(window.start);
        for row in &window.rows {
            self.arms[0].add(&Arm::of(&row.baseline));
            self.arms[1].add(&Arm::of(&row.canary));
            self.heaviest.note(window.start, row.baseline.heaviest().max(row.canary.heaviest()));
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
        self.arms = Default::default();
        self.groups = Groups::default();
    }

    fn evidence(&self, thresholds: &Thresholds) -> Evidence {
        // A release's runs among those of both.
        let of = |own: &Arm, other: &Arm| {
            let mut all = *own;
            all.add(other);
            Arm::joined(Arm { events: own.runs, sums: own.sums.of_all(), ..*own }, all)
        };
        let [a, b] = &self.arms;
        let mut evidence = Evidence::new("split", Baseline::Set, "share").with_arms(Some(&of(a, b)), &of(b, a), 1.0);
        evidence.baseline_value = self.share();
        evidence.canary_value = of(b, a).rate();
        evidence.effect = evidence.canary_value.zip(evidence.baseline_value).map(|(found, set)| found / set);
        evidence.log_e = self.log_e();
        evidence.threshold = Some(thresholds.e);
        evidence.false_alarm = Some((thresholds.alpha, "per_release"));
        evidence.since = self.since;
        let [a, b] = self.effective();
        if a + b < self.arms[0].seen().1 + self.arms[1].seen().1 {
            evidence.notes.push(format!(
                "runs of one session are dealt together, and weights may differ: they say as much as {} would",
                a + b
            ));
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
