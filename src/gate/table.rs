//! The answer of the gate for people: the decision, each comparison in a table that fits the terminal, and what is missing.

use bellwether_alerts::gate::{BaselineChoice, GateAnswer, GateComparison, GateCounts, GateMode, Goal, Metric};

use crate::screen::{self, Value};

/// Width without a terminal: no column is left out.
const WIDE: usize = 240;

/// Formats an answer.
pub(super) fn answer(answer: &GateAnswer, width: Option<usize>) -> String {
    let width = width.unwrap_or(WIDE);
    let mut lines = vec![head(answer)];
    lines.extend(context(answer));
    lines.push(answer.summary.clone());
    if let Some(unknown) = answer.unknown.as_ref().filter(|unknown| !unknown.near.is_empty()) {
        let near: Vec<String> = unknown.near.iter().map(|name| format!("`{name}`")).collect();
        lines.push(format!("did you mean {}?", near.join(" or ")));
    }
    let mut text: Vec<String> = lines.iter().flat_map(|line| screen::wrap(line, width)).collect();
    if !answer.comparisons.is_empty() {
        text.push(String::new());
        text.extend(comparisons(&answer.comparisons, width));
    }
    for left_out in &answer.left_out {
        text.extend(screen::wrap(&format!("not judged: {}: {}", left_out.metric.name(), left_out.why), width));
    }
    text.join("\n")
}

fn head(answer: &GateAnswer) -> String {
    let releases = match (answer.canary.as_str(), answer.baseline.as_str()) {
        ("", _) => String::new(),
        (canary, "") => format!(" {canary}"),
        (canary, baseline) => format!(" {canary} against {baseline}"),
    };
    format!("{}: {}{releases}", answer.decision.words(), answer.task)
}

fn context(answer: &GateAnswer) -> Option<String> {
    let mut parts: Vec<String> = Vec::new();
    match answer.mode {
        GateMode::Live => {}
        GateMode::OfflinePaired => parts.push("offline evaluation, case by case".to_owned()),
        GateMode::OfflineUnpaired => parts.push("offline evaluation, without common cases".to_owned()),
    }
    parts.extend(answer.tenant.as_ref().map(|tenant| format!("tenant {tenant}")));
    if let (Some(from), Some(to)) = (&answer.from, &answer.to) {
        parts.push(format!("windows from {from} to {to}"));
    }
    match answer.baseline_choice {
        Some(BaselineChoice::Contract) => parts.push("baseline of the contract".to_owned()),
        Some(BaselineChoice::Traffic) => parts.push("baseline with most runs before the canary".to_owned()),
        Some(BaselineChoice::Given) | None => {}
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Formats comparisons as a table or, if it does not fit, as a list.
fn comparisons(all: &[GateComparison], width: usize) -> Vec<String> {
    let sliced = all.iter().any(|it| !it.slice.is_empty());
    let mut headers = vec!["metric", "finding", "more_runs", "canary", "baseline", "effect_(95_%)", "margin"];
    if sliced {
        headers.insert(1, "slice");
    }
    let headers: Vec<String> = headers.into_iter().map(str::to_owned).collect();
    let rows: Vec<Vec<Value>> = all.iter().map(|it| row(it, sliced)).collect();
    let table = screen::table(&headers, &rows, width);
    if table.left_out == 0 {
        return table.text.lines().map(str::to_owned).collect();
    }
    all.iter().flat_map(|it| entry(it, width)).collect()
}

fn row(it: &GateComparison, sliced: bool) -> Vec<Value> {
    let value = |text: String, right: bool| Value { text: screen::one_line(&text), whole: true, right };
    let mut row = vec![
        value(it.metric.name().to_owned(), false),
        value(finding(it).to_owned(), false),
        value(it.more_runs.map_or_else(String::new, |runs| runs.to_string()), true),
        value(counts(it.metric, &it.canary), true),
        value(counts(it.metric, &it.baseline), true),
        value(effect(it), true),
        value(it.margin.to_string(), true),
    ];
    if sliced {
        let slice = if it.slice.is_empty() { "all runs" } else { &it.slice };
        row.insert(1, Value { text: screen::one_line(slice), ..Value::default() });
    }
    row
}

fn entry(it: &GateComparison, width: usize) -> Vec<String> {
    let mut lines = screen::wrap(&format!("{}: {}", it.title(), it.words), width);
    let details = format!(
        "canary {}, baseline {}, effect {}, margin {}",
        counts(it.metric, &it.canary),
        counts(it.metric, &it.baseline),
        effect(it),
        it.margin
    );
    lines.extend(screen::wrap(&details, width.saturating_sub(4)).into_iter().map(|line| format!("    {line}")));
    lines
}

/// Returns the finding in a few words. A metric that must not be worse has no margin, so it is not called `within`.
fn finding(it: &GateComparison) -> &'static str {
    match (it.finding, it.goal) {
        ("within", Goal::NoRegression) => "no loss seen",
        (finding, _) => finding,
    }
}

fn counts(metric: Metric, counts: &GateCounts) -> String {
    let value = match (metric, counts.value) {
        (_, None) => "?".to_owned(),
        (Metric::Cost, Some(cost)) => format!("{cost:.4}"),
        (_, Some(rate)) => format!("{:.1} %", 100.0 * rate),
    };
    format!("{}/{} {value}", counts.events, counts.runs)
}

fn effect(it: &GateComparison) -> String {
    let Some(effect) = &it.effect else { return "?".to_owned() };
    let end = |end: Option<f64>, none: &str| end.map_or_else(|| none.to_owned(), |end| format!("{end:.2}"));
    let since = effect.since.as_ref().map(|since| format!(" since {since}")).unwrap_or_default();
    format!("{:.2} ({} to {}){since}", effect.value, end(effect.low, "0"), end(effect.high, "∞"))
}

#[cfg(test)]
mod tests {
    use bellwether_alerts::gate::{GateDecision, GateEffect, LeftOut, Unknown};
    use unicode_width::UnicodeWidthStr;

    use super::*;

    fn comparison(metric: Metric, slice: &str, finding: &'static str, words: &str) -> GateComparison {
        GateComparison {
            metric,
            slice: slice.to_owned(),
            of: "runs that did not succeed".to_owned(),
            finding,
            words: words.to_owned(),
            goal: Goal::NonInferiority,
            margin: 1.5,
            baseline: GateCounts { events: 80, runs: 1000, value: Some(0.08) },
            canary: GateCounts { events: 60, runs: 400, value: Some(0.15) },
            effect: Some(GateEffect { kind: "odds_ratio", value: 2.03, low: Some(1.31), high: None, since: None }),
            coverage: Some(1.0),
            more_runs: Some(340),
        }
    }

    fn example() -> GateAnswer {
        GateAnswer {
            version: 1,
            decision: GateDecision::Hold,
            summary: "not known yet: success (undecided; about 340 more canary runs)".to_owned(),
            task: "refund_triage".to_owned(),
            tenant: None,
            canary: "v18".to_owned(),
            baseline: "v17".to_owned(),
            baseline_choice: Some(BaselineChoice::Traffic),
            mode: GateMode::Live,
            from: Some("2026-11-24T10:00:00Z".to_owned()),
            to: Some("2026-11-24T18:00:00Z".to_owned()),
            roll_back_alpha: 0.05,
            promote_alpha: 0.05,
            comparisons: vec![
                comparison(Metric::Success, "", "undecided", "undecided; about 340 more canary runs"),
                GateComparison {
                    goal: Goal::NoRegression,
                    ..comparison(Metric::UnapprovedActions, "tenant acme\x1b[2J", "within", "no evidence of a loss")
                },
            ],
            left_out: vec![LeftOut { metric: Metric::Cost, why: "neither release states it".to_owned() }],
            unknown: None,
        }
    }

    #[test]
    fn an_answer_fits_any_terminal_and_omits_nothing() {
        for width in [40, 80, 120, 200] {
            let text = answer(&example(), Some(width));
            assert!(text.lines().all(|line| line.width() <= width), "{width}\n{text}");
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let parts =
                ["hold: refund_triage v18 against v17", "340", "60/400", "15.0 %", "80/1000", "2.03", "neither"];
            for part in parts {
                assert!(words.contains(part), "{width}: {part} is missing in\n{text}");
            }
            assert!(!text.contains('\x1b'), "control characters are shown as such");
        }
        let whole = answer(&example(), None);
        assert!(whole.contains("tenant acme"), "without a terminal nothing is cut");
        assert!(whole.contains("no loss seen") && !whole.contains(" within "), "{whole}");
    }

    #[test]
    fn an_unknown_name_lists_those_that_are_near() {
        let unknown = Unknown { what: "task", name: "refund".to_owned(), near: vec!["refunds".to_owned()] };
        let text = answer(&GateAnswer { unknown: Some(unknown), comparisons: Vec::new(), ..example() }, Some(80));
        assert!(text.contains("did you mean `refunds`?"), "{text}");
    }
}
