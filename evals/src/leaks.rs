//! Leaks of an eval set: cases that a prompt knows as few-shot examples, and near cases of both splits.

use std::collections::BTreeSet;

use bellwether_evalsets::{EvalCase, Keyed, Leak, Role, leaks};
use bellwether_sample::similar::Fingerprint;

/// The fingerprints of an input.
struct Prints {
    conversation: Fingerprint,
    /// The last question, which is all that a few-shot example has.
    question: Fingerprint,
}

/// Returns the leaks among cases and few-shot examples. An example is named by its place, from 1. Erased cases have no input.
pub fn leaks_of(cases: &[EvalCase], few_shots: &[String]) -> Vec<Leak> {
    let shots = few_shots.iter().zip(1..).map(|(text, place): (_, usize)| of_shot(text, place));
    let (keyed, prints): (Vec<Keyed>, Vec<Prints>) =
        cases.iter().filter(|case| !case.erased).map(of_case).chain(shots).unzip();
    // Conversations may end alike ("yes, please"), so two cases are compared as a whole.
    leaks(&keyed, |a, b| {
        let with_shot = keyed[a].split.is_none() || keyed[b].split.is_none();
        let (a, b) = (&prints[a], &prints[b]);
        a.conversation.near(&b.conversation) || (with_shot && a.question.near(&b.question))
    })
}

/// Returns the fingerprint of the input of a case. Its system prompt is left out: all cases of a task have the same. An input that
/// is not known is near no other.
pub(crate) fn fingerprint(case: &EvalCase) -> Fingerprint {
    let said = case.input.iter().filter(|message| message.role != Role::System);
    let said: Vec<&str> = said.map(|message| message.content.as_str()).collect();
    if said.is_empty() { Fingerprint::of(&whole(case)) } else { Fingerprint::of(&said.join("\n")) }
}

fn whole(case: &EvalCase) -> String {
    let texts: Vec<&str> = case.input.iter().map(|message| message.content.as_str()).collect();
    if texts.is_empty() { case.id.clone() } else { texts.join("\n") }
}

/// Returns a text in lower case with single spaces, to compare texts.
fn normalised(text: &str) -> String {
    text.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}

fn of_case(case: &EvalCase) -> (Keyed, Prints) {
    let conversation = fingerprint(case);
    let last = case.input.iter().rfind(|message| message.role == Role::User);
    let question = last.map_or_else(|| conversation.clone(), |message| Fingerprint::of(&message.content));
    let prints = Prints { conversation, question };
    let exact = normalised(&whole(case));
    (Keyed { id: case.id.clone(), split: Some(case.split), exact, near: prints.keys() }, prints)
}

fn of_shot(text: &str, place: usize) -> (Keyed, Prints) {
    let conversation = Fingerprint::of(text);
    let prints = Prints { question: conversation.clone(), conversation };
    (Keyed { id: place.to_string(), split: None, exact: normalised(text), near: prints.keys() }, prints)
}

// === impl Prints ===

impl Prints {
    /// Returns the keys of inputs to compare this one with.
    fn keys(&self) -> Vec<String> {
        let bands = self.conversation.bands().chain(self.question.bands());
        let keys: BTreeSet<String> = bands.map(|band| format!("{band:x}")).collect();
        keys.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use bellwether_evalsets::{Message, Split};

    use super::*;

    const SYSTEM: &str =
        "You are the assistant of a shop. Be brief, be kind, never promise a refund, and ask for the order.";

    const CASE: &str = r#"{"id": "x", "task": "t", "expected": "y"}"#;

    fn case(id: &str, split: Split, messages: &[(Role, &str)]) -> EvalCase {
        let message = |(role, content): &(Role, &str)| Message { role: *role, content: (*content).to_owned() };
        let input = messages.iter().map(message).collect();
        EvalCase { id: id.to_owned(), split, input, ..serde_json::from_str(CASE).expect("a case") }
    }

    fn found(cases: &[EvalCase], shots: &[&str]) -> Vec<(String, String, bool)> {
        let shots: Vec<String> = shots.iter().map(|&shot| shot.to_owned()).collect();
        leaks_of(cases, &shots).into_iter().map(|leak| (leak.case, leak.other, leak.exact)).collect()
    }

    #[test]
    fn near_cases_of_both_splits_leak_and_a_shared_system_prompt_does_not() {
        use Role::{Assistant, System, User};
        use Split::{Holdout, Regression};
        let question = "Where is my order 2378156? It was due three days ago, and your hotline is always busy.";
        let nearly = "where is my order 99? It was due three days ago and your hotline is always busy";
        let cases = [
            case("a", Regression, &[(System, SYSTEM), (User, question)]),
            case("b", Holdout, &[(System, SYSTEM), (User, nearly)]),
            case("c", Holdout, &[(System, SYSTEM), (User, "Cancel my subscription at the end of the year.")]),
            case(
                "d",
                Holdout,
                &[(User, "I want to return shoes"), (Assistant, "Shall I send a label?"), (User, "Yes")],
            ),
            case(
                "e",
                Regression,
                &[(User, "My parcel is wet"), (Assistant, "Shall I call the courier?"), (User, "Yes")],
            ),
            case("f", Holdout, &[]),
        ];
        let leak = |case: &str, other: &str, exact| (case.to_owned(), other.to_owned(), exact);
        assert_eq!(found(&cases, &[]), [leak("b", "a", false)]);
        // A few-shot example is the question without the conversation before it.
        assert_eq!(found(&cases[1..], &["Cancel my subscription, at the end of the year"]), [leak("c", "1", false)]);
        assert_eq!(found(&[case("g", Regression, &[(User, question)])], &[question]), [leak("g", "1", true)]);
    }
}
