//! D12: the traffic shares of releases differ from the configured split. While they do, comparisons of the releases may
//! be based on different traffic.

use std::sync::Arc;

use bellwether_stats::Invalid;
use bellwether_stats::clusters::design_effect;
use bellwether_stats::pack::Packer;
use bellwether_stats::srm::{CONCENTRATION, log_e};

use super::{Absence, DetectorState, Past, Signal, Verdict, weigh};
use crate::budget::Thresholds;
use crate::evidence::{BaselineKind, Evidence};
use crate::observation::{Groups, Minute, Window, count};
use crate::weights::{Arm, MaxWeight, ONE};

/// Settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Split {
    /// Traffic share configured for the newer release; none to use the share stated in the runs.
    pub share: Option<f64>,
}

impl Split {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        match self.share {
            Some(share) if !(share > 0.0 && share < 1.0) => {
                Err(Invalid::new("share", share, "between 0 and 1, exclusive"))
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
    max_weight: MaxWeight,
    /// Runs of the newer release (as events) and of both, by random group of sessions.
    groups: Groups,
    since: Option<Minute>,
    absence: Absence,
    /// α is spent once for each configured share.
    spent: bool,
}

packed_state!(Split { share_micros, arms, max_weight, groups, since, absence, spent });

// === impl State ===

impl State {
    pub(super) fn new(settings: Arc<Split>) -> Self {
        Self {
            settings,
            share_micros: 0,
            arms: Default::default(),
            max_weight: MaxWeight::default(),
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

    /// Returns the effective runs of both arms: sessions are assigned to a release as a whole, so their runs are
    /// correlated.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
    fn effective(&self) -> [u64; 2] {
        let weight = design_effect(self.groups.totals()).map_or(1.0, |(effect, _)| 1.0 / effect.max(1.0));
        // If releases are sampled differently, a run counts its weight over the maximum weight.
        let alike = self.arms[0].weight().is_some() && self.arms[0].weight() == self.arms[1].weight();
        let of_one = if alike { None } else { Some(self.max_weight.weight() as f64 / ONE as f64) };
        self.arms.map(|arm| {
            let runs = of_one.map_or_else(|| arm.seen_counts().1 as f64, |one| arm.weighted_runs() / one);
            (runs * weight) as u64
        })
    }

    fn log_e(&self) -> Option<f64> {
        let share = self.share()?;
        log_e(&self.effective(), &[1.0 - share, share], CONCENTRATION).ok()
    }
}

impl DetectorState for State {
    fn step(&mut self, window: &Window, _: &Past<'_>) {
        if window.historical {
            return;
        }
        let (mut baseline, mut canary) = (0, 0);
        for row in &window.rows {
            (baseline, canary) = (baseline + count(row.baseline.runs), canary + count(row.canary.runs));
            let stated = row.canary.share_micros;
            if stated != 0 && stated != self.share_micros {
                // A ramp: the split changed, so earlier runs say nothing about it.
                (self.share_micros, self.arms, self.since) = (stated, Default::default(), Some(window.start));
                self.groups = Groups::default();
                self.spent = false;
            }
        }
        self.absence.note(window.start, baseline, canary);
        self.since.get_or_insert(window.start);
        for row in &window.rows {
            self.arms[0].add(&Arm::from_measure(&row.baseline));
            self.arms[1].add(&Arm::from_measure(&row.canary));
            self.max_weight.note(window.start, row.baseline.max_weight().max(row.canary.max_weight()));
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
        if self.absence.has_left() {
            verdict.signal = Signal::Gone;
        }
        verdict
    }

    fn on_resolved(&mut self) {
        self.spent = true;
        self.arms = Default::default();
        self.groups = Groups::default();
    }

    fn evidence(&self, thresholds: &Thresholds) -> Evidence {
        // The runs of one release among those of both.
        let of = |own: &Arm, other: &Arm| {
            let mut all = *own;
            all.add(other);
            Arm::joined(Arm { events: own.runs, sums: own.sums.with_all_bad(), ..*own }, all)
        };
        let [a, b] = &self.arms;
        let mut evidence =
            Evidence::new("split", BaselineKind::Set, "share").with_arms(Some(&of(a, b)), &of(b, a), 1.0);
        evidence.baseline_value = self.share();
        evidence.canary_value = of(b, a).rate();
        evidence.effect = evidence.canary_value.zip(evidence.baseline_value).map(|(found, set)| found / set);
        evidence.log_e = self.log_e();
        evidence.threshold = Some(thresholds.e);
        evidence.false_alarm = Some((thresholds.alpha, "per_release"));
        evidence.since = self.since;
        let [a, b] = self.effective();
        if a + b < self.arms[0].seen_counts().1 + self.arms[1].seen_counts().1 {
            evidence.notes.push(format!(
                "runs of one session are assigned together, and weights may differ: these runs are as informative as {} independent runs",
                a + b
            ));
        }
        if self.share().is_none() {
            evidence.notes.push("no traffic share is configured for the release".to_owned());
        }
        evidence
    }

    fn pack(&self, to: &mut Packer) {
        self.put(to);
    }
}
