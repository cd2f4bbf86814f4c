//! The inbox, and the form for the terminal.

use bellwether_sinks::page::{Severity, Status};
use bellwether_sinks::{Failure, terminal};
use serde_json::Value;

use crate::common::{NOW, assert_valid, notice, page, page_of, published, resolved, sink};

#[tokio::test]
async fn the_inbox_appends_lines_even_after_one_that_was_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("inbox.jsonl");
    let sink = sink(&format!("kind = \"inbox\"\npath = \"{}\"", path.display()));
    sink.send(&notice(vec![page()]), None).await.unwrap();
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.push_str("{\"format\":\"bellwether.pa");
    std::fs::write(&path, text).unwrap();
    let receipt = sink.send(&notice(vec![resolved(page())]), None).await.unwrap();
    assert_eq!(receipt.answer, format!("appended to {}", path.display()));
    let lines: Vec<Option<Value>> =
        std::fs::read_to_string(&path).unwrap().lines().map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(lines.len(), 3);
    let first = lines[0].as_ref().unwrap();
    assert_eq!(
        (first["format"].as_str(), first["time"].as_str()),
        (Some("bellwether.page/1"), Some("2026-09-21T14:13:20.000Z"))
    );
    for line in [&lines[0], &lines[2]] {
        assert_valid(&published("page"), line.as_ref().unwrap());
    }
    assert!(lines[1].is_none(), "the line that was cut off is kept as it is");
    assert_eq!(lines[2].as_ref().unwrap()["pages"][0]["status"], "resolved");
}

#[tokio::test]
async fn lines_that_are_written_at_the_same_time_stay_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("inbox.jsonl");
    let sink = sink(&format!("kind = \"inbox\"\npath = \"{}\"", path.display()));
    let notice = notice(vec![page_of(&"x".repeat(2000), 20)]);
    futures::future::try_join_all((0..20).map(|_| sink.send(&notice, None))).await.unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).count(), 20);
}

#[tokio::test]
async fn an_inbox_without_a_folder_is_tried_again() {
    let sink = sink("kind = \"inbox\"\npath = \"/nowhere/inbox.jsonl\"");
    let failure = sink.send(&notice(vec![page()]), None).await.unwrap_err();
    assert!(
        matches!(failure, Failure::Later { reason, .. } if reason.starts_with("cannot write `/nowhere/inbox.jsonl`: "))
    );
}

#[test]
fn a_page_looks_like_a_chat_message_in_the_terminal() {
    insta::assert_snapshot!("terminal", terminal(&page(), 90, false));
    insta::assert_snapshot!("terminal_resolved", terminal(&resolved(page()), 60, false));
}

#[test]
fn colour_follows_the_state() {
    let mut shown = page();
    let bar = |page: &bellwether_sinks::Page| terminal(page, 80, true).chars().take(5).collect::<String>();
    assert_eq!(bar(&shown), "\u{1b}[31m");
    shown.severity = Severity::Ticket;
    assert_eq!(bar(&shown), "\u{1b}[33m");
    shown.status = Status::Resolved;
    assert_eq!(bar(&shown), "\u{1b}[32m");
}

#[test]
fn the_terminal_gets_no_control_characters_and_no_long_lines() {
    let mut page = page_of("\u{1b}[31m<!channel>\u{7}\r\n\t長い", 20);
    page.started_at = NOW;
    for width in [0, 40, 77, 200] {
        let shown = terminal(&page, width, false);
        assert!(shown.chars().all(|character| character == '\n' || !character.is_control()));
        let widest = shown.lines().map(unicode_width::UnicodeWidthStr::width).max().unwrap();
        assert!(widest <= width.clamp(40, 120), "{width}: {widest}");
    }
}
