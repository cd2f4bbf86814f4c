//! The parts of a page, the most important first.

use crate::page::{Arm, Evidence, ExampleRun, Page, SliceShare, Status};
use crate::render::{Detail, Line, PageWords, Part, Piece, heading, severity_word, status_word, valid_links};
use crate::{text, time};
use bellwether_base::grouped;

/// SQL longer than this is for the inbox and the webhook only.
const MAX_SQL: usize = 2500;

/// Puts a page into words.
pub(crate) fn words(page: &Page, detail: Detail) -> PageWords {
    let evidence = &page.evidence;
    let chars = detail.chars;
    let mut parts = Vec::new();
    let mut add = |label: &'static str, lines: Vec<Line>| {
        if !lines.is_empty() {
            parts.push(Part { label, lines, code: None });
        }
    };
    add("Effect", effect(evidence, chars));
    add("Numbers", numbers(evidence, chars));
    add("Certainty", sentence(evidence.false_alarm.as_deref(), chars));
    add("Since", since(page));
    add("Roll back", rollback(evidence, chars));
    add("Changed", changed(evidence, detail));
    add("Where", slices(evidence, detail));
    add("Mix and rate", mix(evidence));
    add("Cost", sentence(evidence.cost.as_ref().map(|cost| cost.words.as_str()), chars));
    add("Data", coverage(evidence));
    add("Examples", examples(evidence, detail));
    add("Also", suppressed(page, detail));
    add("Eval candidates", eval_candidates(evidence, detail));
    add("Notes", evidence.notes.iter().take(detail.lines).map(|note| vec![value(note, chars)]).collect());
    add("Labels", labels(page, detail));
    if let Some(reproduce) = &evidence.reproduce {
        let checked = if reproduce.checked { "returned the same numbers when checked" } else { "not checked" };
        let line = vec![
            Piece::Text(format!("version {} of ", reproduce.metrics_version)),
            Piece::Code("metrics".to_owned()),
            Piece::Text(format!(", {checked}")),
        ];
        let code = Some(text::block(&reproduce.sql, chars.saturating_mul(3).min(MAX_SQL)));
        parts.push(Part { label: "Reproduce", lines: vec![line], code });
    }
    parts.truncate(detail.parts);
    PageWords {
        title: heading(page),
        status: page.status,
        severity: page.severity,
        test: page.test,
        state: state(page),
        parts,
        links: valid_links(&page.links),
    }
}

/// Returns state, urgency, owner and the time that belongs to the state.
fn state(page: &Page) -> String {
    let since = match (page.status, page.ended_at) {
        (Status::Resolved, Some(ended)) => format!("{}, fired {}", time::words(ended), time::words(page.started_at)),
        _ => format!("since {}", time::words(page.started_at)),
    };
    let mut state = format!("{} · {}", status_word(page.status), severity_word(page.severity));
    if let Some(owner) = &page.owner {
        state.push_str(&format!(" · owner {}", text::line(owner, 60)));
    }
    format!("{state} · {since}")
}

fn effect(evidence: &Evidence, chars: usize) -> Vec<Line> {
    sentence(evidence.effect.as_ref().map(|effect| effect.words.as_str()), chars)
}

fn numbers(evidence: &Evidence, chars: usize) -> Vec<Line> {
    [&evidence.canary, &evidence.baseline].into_iter().flatten().map(|arm| arm_line(arm, chars)).collect()
}

/// Writes one side, such as "r142: 1,204 of 10,880 runs (11.1 %)".
fn arm_line(arm: &Arm, chars: usize) -> Line {
    vec![value(&arm.name, chars), Piece::Text(format!(": {}", arm_words(arm)))]
}

fn arm_words(arm: &Arm) -> String {
    match (arm.events, arm.runs, arm.value) {
        (Some(events), Some(runs), _) if runs > 0 => {
            format!("{} of {} runs ({})", grouped(events), grouped(runs), percent(ratio(events, runs)))
        }
        (_, Some(runs), Some(value)) => format!("{} over {} runs", figure(value), grouped(runs)),
        (_, Some(runs), None) => format!("{} runs", grouped(runs)),
        (Some(events), None, _) => format!("{} runs affected", grouped(events)),
        (_, None, Some(value)) => figure(value),
        (None, None, None) => "no number".to_owned(),
    }
}

fn since(page: &Page) -> Vec<Line> {
    let since = page.evidence.since;
    since.map(|since| vec![Piece::Text(format!("change estimated at {}", time::words(since)))]).into_iter().collect()
}

fn rollback(evidence: &Evidence, chars: usize) -> Vec<Line> {
    let Some(rollback) = &evidence.rollback else { return Vec::new() };
    let reason = value(&rollback.reason, chars);
    vec![vec![Piece::Text("to ".to_owned()), code(&rollback.release), Piece::Text(": ".to_owned()), reason]]
}

fn changed(evidence: &Evidence, detail: Detail) -> Vec<Line> {
    let side = |side: &Option<String>| match side {
        Some(side) => value(side, detail.chars.min(300)),
        None => Piece::Text("none".to_owned()),
    };
    let line = |change: &crate::page::Change| {
        let part = value(&change.part, 100);
        vec![
            part,
            Piece::Text(": ".to_owned()),
            side(&change.before),
            Piece::Text(" → ".to_owned()),
            side(&change.after),
        ]
    };
    limited(&evidence.changes, detail, line)
}

fn slices(evidence: &Evidence, detail: Detail) -> Vec<Line> {
    let line = |slice: &SliceShare| {
        let mut line = vec![
            value(&slice.dimension, 60),
            Piece::Text(" ".to_owned()),
            code(&text::line(&slice.value, detail.chars.min(200))),
            Piece::Text(format!(": {} of the change", percent(slice.share))),
        ];
        if let (Some(before), Some(now)) = (&slice.baseline, &slice.canary) {
            line.push(Piece::Text(format!(", {} against {}", arm_words(now), arm_words(before))));
        }
        line
    };
    limited(&evidence.slices, detail, line)
}

fn mix(evidence: &Evidence) -> Vec<Line> {
    let Some(mix) = evidence.mix else { return Vec::new() };
    let total = mix.mix + mix.rate;
    let words = if total.is_finite() && total.abs() > f64::EPSILON {
        let (mix, rate) = (percent(mix.mix / total), percent(mix.rate / total));
        format!("{rate} of the change is worse rates of the same runs, {mix} another mix of runs")
    } else {
        "the mix of runs and their rates cancel out".to_owned()
    };
    vec![vec![Piece::Text(words)]]
}

fn coverage(evidence: &Evidence) -> Vec<Line> {
    let Some(coverage) = &evidence.coverage else { return Vec::new() };
    let stated = coverage.stated.map(|stated| format!("; {} of the runs state the value", percent(stated)));
    let words = format!("complete to {}{}", time::words(coverage.complete_to), stated.unwrap_or_default());
    vec![vec![Piece::Text(words)]]
}

fn examples(evidence: &Evidence, detail: Detail) -> Vec<Line> {
    let line = |run: &ExampleRun| {
        let mut line = vec![value(&run.kind, 20), Piece::Text(" ".to_owned()), code(&text::line(&run.run_id, 100))];
        line.push(Piece::Text(format!(": {}", text::line(&run.summary, detail.chars))));
        for link in valid_links(&run.links) {
            line.push(Piece::Text(" · ".to_owned()));
            line.push(Piece::Link { name: link.name, url: link.url });
        }
        line
    };
    limited(&evidence.examples, detail, line)
}

fn suppressed(page: &Page, detail: Detail) -> Vec<Line> {
    let line = |alert: &crate::page::Suppressed| {
        let title = value(&alert.title, detail.chars);
        vec![
            Piece::Text("not sent: ".to_owned()),
            title,
            Piece::Text(", because ".to_owned()),
            value(&alert.reason, detail.chars),
        ]
    };
    limited(&page.suppressed, detail, line)
}

fn eval_candidates(evidence: &Evidence, detail: Detail) -> Vec<Line> {
    limited(&evidence.eval_candidates, detail, |id| vec![code(&text::line(id, 100))])
}

fn labels(page: &Page, detail: Detail) -> Vec<Line> {
    let pairs = page.labels.iter().take(20);
    let shown =
        pairs.map(|(name, value)| format!("{}={}", text::line(name, 60), text::line(value, detail.chars.min(100))));
    let shown: Vec<String> = shown.collect();
    if shown.is_empty() { Vec::new() } else { vec![vec![Piece::Text(shown.join("  "))]] }
}

/// Writes as many entries as are allowed, and how many there are besides.
fn limited<T>(entries: &[T], detail: Detail, line: impl Fn(&T) -> Line) -> Vec<Line> {
    let mut lines: Vec<Line> = entries.iter().take(detail.lines).map(line).collect();
    if entries.len() > lines.len() {
        lines.push(vec![Piece::Text(format!("and {} more", entries.len() - lines.len()))]);
    }
    lines
}

fn sentence(text: Option<&str>, chars: usize) -> Vec<Line> {
    text.map(|text| text::line(text, chars.max(80)))
        .filter(|text| !text.is_empty())
        .map(|text| vec![Piece::Text(text)])
        .into_iter()
        .collect()
}

fn value(text: &str, chars: usize) -> Piece {
    Piece::Text(text::line(text, chars))
}

fn code(text: &str) -> Piece {
    Piece::Code(text::line(text, 200))
}

/// A percentage is rounded anyway, so that the loss of precision of large counts does not show.
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// Writes a fraction in percent, with more places the smaller it is.
fn percent(fraction: f64) -> String {
    let percent = fraction * 100.0;
    if !percent.is_finite() {
        "an unknown share".to_owned()
    } else if percent == 0.0 || percent.abs() >= 10.0 {
        format!("{percent:.1} %")
    } else if percent.abs() >= 0.01 {
        format!("{percent:.2} %")
    } else {
        format!("{percent:.1e} %")
    }
}

/// Writes a number with about four digits.
fn figure(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        "an unknown value".to_owned()
    } else if size == 0.0 || (100.0..1e9).contains(&size) {
        format!("{value:.0}")
    } else if (0.001..100.0).contains(&size) {
        format!("{value:.3}")
    } else {
        format!("{value:.3e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(123), "123");
        assert_eq!(percent(0.1423), "14.2 %");
        assert_eq!(percent(0.0042), "0.42 %");
        assert_eq!(percent(f64::NAN), "an unknown share");
        assert_eq!(figure(1234.6), "1235");
        assert_eq!(figure(1.5), "1.500");
    }
}
