//! Turns observations, window by window, into alerts. Pure: no I/O, clock or randomness.
//!
//! * [`observation`]: the contents of a window of one series.
//! * [`detector`]: the detectors (DETECTION D1 to D8, D11, D12), one file each, with incremental state.
//! * [`weights`]: weights of sampled runs.
//! * [`evidence`]: the numbers behind a verdict.
//! * [`machine`]: the states of an alert: inactive, pending, firing, resolved, and stale.
//! * [`hours`]: a series' past by hour; [`season`]: the time zone of its weekly season.
//! * [`crowd`]: series that may fall silent together.
//! * [`track`]: one series folded over its windows. Corrections go back to a checkpoint and fold again; the difference
//!   is reported.
//! * [`family`]: the releases of one task side by side, and the baseline of each.
//! * [`gate`]: whether a release may go on.
//! * [`budget`]: thresholds derived from "at most X false pages a month".
//!
//! Rule: the transitions of a series are a function of its windows alone. It makes no difference whether windows arrive
//! one by one, late, or all at once after a restart; changes caused by a late correction are reported as such.

pub mod budget;
mod checkpoints;
mod columns;
pub mod crowd;
pub mod detector;
pub mod evidence;
pub mod family;
pub mod gate;
pub mod hours;
pub mod machine;
pub mod observation;
pub mod season;
mod sorted;
pub mod track;
pub mod weights;
mod windows;

pub use bellwether_stats::Invalid;
pub use budget::{Budget, Thresholds};
pub use crowd::{Crowd, CrowdMember};
pub use detector::{Detector, DetectorState, Signal, Verdict};
pub use evidence::{BaselineKind, Evidence, StratumEvidence};
pub use family::{BaselinePolicy, Cell, Family, PRIMED_MINUTES, SeriesUpdate};
pub use gate::{Comparison, Decision, Finding, Gate, GateReason, GateVerdict, Guardrail, Slice};
pub use hours::Hours;
pub use machine::{AlertMachine, AlertState, AlertTiming, Transition};
pub use observation::{Groups, Measure, Minute, RatioTotals, StratumRow, Window, total_of};
pub use season::Season;
pub use track::{Change, Track, TrackContext, TransitionRecord};
pub use weights::{Arm, WeightSums, Weights};
