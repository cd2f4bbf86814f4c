//! Verdicts: statements about a run that arrive minutes after it.

use serde_json::json;

use super::{Message, time};

/// Least and longest delay of the judge, a reviewer and a customer, seconds.
pub(super) const JUDGE_SECONDS: (i64, i64) = (120, 480);
pub(super) const REVIEW_SECONDS: (i64, i64) = (300, 1200);
pub(super) const REOPEN_SECONDS: (i64, i64) = (180, 900);

/// A later statement about a run.
pub(super) enum Verdict {
    Score { run_id: String, passed: bool },
    Review { run_id: String, reviewer: &'static str, accepts: bool },
    Reopened { run_id: String },
}

// === impl Verdict ===

impl Verdict {
    /// Returns the event that states the verdict.
    pub(super) fn message(self, now_micros: i64) -> Message {
        let (run_id, event_type, source, data) = match self {
            Self::Score { run_id, passed } => {
                let evaluator = json!({ "id": "policy-judge", "version": "3", "model": "claude-opus-4-6" });
                let data = json!({ "name": "answer_is_right", "kind": "llm", "evaluator": evaluator, "passed": passed, "sets_outcome": true });
                (run_id, "run.score", "policy-judge", data)
            }
            Self::Review { run_id, reviewer, accepts } => {
                let decision = if accepts { "accept" } else { "reject" };
                let data = json!({ "review_id": format!("rv_{run_id}"), "reviewer": reviewer, "queue": "policy", "decision": decision });
                (run_id, "run.review", "review-desk", data)
            }
            Self::Reopened { run_id } => {
                let data = json!({ "reason_code": "ticket_reopened", "initiated_by": "user", "to": "tier2", "phase": "after_answer" });
                (run_id, "run.escalated", "helpdesk", data)
            }
        };
        let event = json!({
            "spec": "run-event/1.0", "type": event_type, "source": source, "run_id": run_id, "time": time(now_micros), "data": data,
        });
        Message { key: run_id, payload: event.to_string().into_bytes() }
    }
}
