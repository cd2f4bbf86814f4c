//! From observations, window by window, to alerts: pure, without I/O, clock or randomness.
//!
//! * [`observation`]: what a window of one series holds.
//! * [`detector`]: what is looked for (DETECTION D1 to D8, D11, D12), one file a kind, each with incremental state.
//! * [`weights`]: runs that were sampled, and what they stand for.
//! * [`evidence`]: the numbers behind a verdict.
//! * [`machine`]: inactive, pending, firing, resolved, and stale.
//! * [`hours`]: a series' past by hour; [`season`]: the clock that its weeks go by.
//! * [`crowd`]: series that may fall silent together.
//! * [`track`]: one series folded over its windows; corrections are new less old, by folding again from a checkpoint.
//! * [`family`]: the releases of one task side by side, and which is whose baseline.
//! * [`budget`]: thresholds from "at most X false pages a month".
//!
//! Rule: the transitions of a series are a function of its windows alone. Whether they came one by one, late, or all at
//! once after a restart makes no difference; what a late correction changes is told as such.

pub mod budget;
pub mod crowd;
pub mod detector;
pub mod evidence;
pub mod family;
pub mod hours;
pub mod machine;
pub mod observation;
pub mod season;
pub mod track;
pub mod weights;

pub use bellwether_stats::Invalid;
pub use budget::{Budget, Thresholds};
pub use crowd::{Among, Crowd};
pub use detector::{Detector, Judge, Signal, Verdict};
pub use evidence::{Baseline, Evidence, StratumEvidence};
pub use family::{Cell, Compare, Family, Update};
pub use hours::Hours;
pub use machine::{Machine, Pace, State, Transition};
pub use observation::{Groups, Measure, Minute, RatioTotals, Row, Window, total_of};
pub use season::Season;
pub use track::{Around, Change, Told, Track};
pub use weights::{Arm, WeightSums, Weights};
