//! Leaks of an eval set: cases that a prompt knows as few-shot examples, and near cases of both splits.

use bellwether_evalsets::{EvalCase, Keyed, Leak, Role, leaks};
use bellwether_sample::similar::Fingerprint;

/// An input with its fingerprints.
struct Input {
    keyed: Keyed,
    conversation: Fingerprint,
    /// The last question, which is all that a few-shot example has.
    question: Fingerprint,
}

/// Returns the leaks among cases and few-shot examples. An example is named by its place, from 1.
pub fn leaks_of(cases: &[EvalCase], few_shots: &[String]) -> Vec<Leak> {
    let shots = few_shots.iter().zip(1..).map(|(text, place): (_, usize)| Input::of_shot(text, place));
    let inputs: Vec<Input> = cases.iter().map(Input::of_case).chain(shots).collect();
    let keyed: Vec<Keyed> = inputs.iter().map(|input| input.keyed.clone()).collect();
    leaks(&keyed, |a, b| inputs[a].is_near(&inputs[b]))
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

// === impl Input ===

impl Input {
    fn of_case(case: &EvalCase) -> Self {
        let conversation = fingerprint(case);
        let last = case.input.iter().rfind(|message| message.role == Role::User);
        let question = last.map_or_else(|| conversation.clone(), |message| Fingerprint::of(&message.content));
        Self::new(case.id.clone(), Some(case.split), normalised(&whole(case)), conversation, question)
    }

    fn of_shot(text: &str, place: usize) -> Self {
        let print = Fingerprint::of(text);
        Self::new(place.to_string(), None, normalised(text), print.clone(), print)
    }

    fn new(
        id: String,
        split: Option<bellwether_evalsets::Split>,
        exact: String,
        conversation: Fingerprint,
        question: Fingerprint,
    ) -> Self {
        let mut near: Vec<String> =
            conversation.bands().chain(question.bands()).map(|band| format!("{band:x}")).collect();
        near.sort_unstable();
        near.dedup();
        Self { keyed: Keyed { id, split, exact, near }, conversation, question }
    }

    /// Returns true for near-duplicates. Conversations may end alike ("yes, please"), so two cases are compared as a whole.
    fn is_near(&self, other: &Self) -> bool {
        let with_shot = self.keyed.split.is_none() || other.keyed.split.is_none();
        self.conversation.near(&other.conversation) || (with_shot && self.question.near(&other.question))
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
        let question = "Where is my order 2378156? It was due three days ago, and nobody answers the phone.";
        let nearly = "where is my order 99? It was due three days ago and nobody answers the phone";
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
