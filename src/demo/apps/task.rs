//! The tasks of the simulated apps.

/// Properties of a task.
pub(super) struct Task {
    pub(super) source: &'static str,
    pub(super) name: &'static str,
    pub(super) model: &'static str,
    pub(super) release: &'static str,
    pub(super) success: f64,
    pub(super) latency_ms: f64,
    pub(super) cost_nanos: f64,
    pub(super) escalation: f64,
}

pub(super) const REFUND: Task = Task {
    source: "support-assistant",
    name: "refund_triage",
    model: "gpt-5.4",
    release: "2026-11-12.2",
    success: 0.86,
    latency_ms: 2600.0,
    cost_nanos: 6_100_000.0,
    escalation: 0.11,
};

pub(super) const ORDER: Task = Task {
    source: "support-assistant",
    name: "order_status",
    model: "gpt-5.4-mini",
    release: "2026-11-12.2",
    success: 0.95,
    latency_ms: 1100.0,
    cost_nanos: 900_000.0,
    escalation: 0.03,
};

pub(super) const POLICY: Task = Task {
    source: "policy-assistant",
    name: "policy_answer",
    model: "claude-sonnet-4-5",
    release: "policy-41",
    success: 0.91,
    latency_ms: 3400.0,
    cost_nanos: 9_800_000.0,
    escalation: 0.05,
};

pub(super) const INVOICE: Task = Task {
    source: "invoice-extractor",
    name: "invoice_extraction",
    model: "gemini-2.5-flash",
    release: "extract-7.3",
    success: 0.93,
    latency_ms: 4200.0,
    cost_nanos: 3_200_000.0,
    escalation: 0.02,
};

/// Release of the invoice extractor's canary, which gets worse.
pub(crate) const INVOICE_CANARY: &str = "extract-7.4";

/// Release of the support assistant's canary, which is as good as its baseline.
pub(crate) const SUPPORT_CANARY: &str = "2026-11-23.1";

/// Returns the provider of a model.
pub(super) fn provider(model: &str) -> &'static str {
    match model.split('-').next() {
        Some("claude") => "anthropic",
        Some("gemini") => "google",
        _ => "openai",
    }
}
