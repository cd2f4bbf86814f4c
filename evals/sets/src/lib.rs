//! Eval cases and eval sets, pure: no I/O, no clock.
//!
//! * [`case`]: the record of one eval case. A case is never edited: its next version supersedes it.
//! * [`set`]: a versioned list of cases with a manifest of content hashes; the difference between two versions.
//! * [`status`]: how many cases of each kind a task has, against a target.
//! * [`leakage`]: cases that are equal or near to few-shot examples, or to cases of the other split.
//! * [`mod@erase`]: the content of cases goes with the runs that they were made of.
//! * [`redact`]: the hook of redaction before a set or an export is written.
//! * [`mod@export`]: projections of a set onto the formats of evaluation tools, one file each.
//! * [`mod@import`]: results of evaluation tools as `run.completed` events of stage `offline_eval`.
//!
//! Rules: the same set gives the same bytes in every export. A value that a format cannot hold is an error that names
//! the case and the limit, never a value cut without notice.

pub mod case;
pub mod erase;
pub mod export;
pub mod import;
pub mod leakage;
pub mod redact;
pub mod set;
pub mod status;

pub use case::{CaseKind, EvalCase, Grading, Message, Provenance, Role, RunIdentity, Split, Superseded};
pub use erase::ErasedRuns;
pub use export::{ExportFile, Exported, Format, LeftOut, Refusal, Unfit, export, formats};
pub use import::{Imported, ResultFormat, import};
pub use leakage::{Keyed, Leak, leaks};
pub use redact::Redactor;
pub use set::{Difference, EvalSet, Manifest, ManifestEntry};
pub use status::{Coverage, TARGET, coverage};
