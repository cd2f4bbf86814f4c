//! The gates of the demo: may the bad canary go on, and may its harmless twin?

use std::sync::Arc;

use bellwether_alerts::gate::{GateAnswer, GateReader, Question};
use bellwether_base::Result;
use bellwether_lake::Lake;

use super::Demo;
use super::apps::{INVOICE_CANARY, SUPPORT_CANARY};
use crate::gate;

/// The canaries, each with its task.
const CANARIES: [(&str, &str); 2] = [("invoice_extraction", INVOICE_CANARY), ("refund_triage", SUPPORT_CANARY)];

/// Asks about both canaries, the bad one first.
///
/// # Errors
/// `Unavailable` if the tables do not answer.
pub(crate) async fn ask(reader: Arc<GateReader>, lake: Lake) -> Result<Vec<GateAnswer>> {
    let mut answers = Vec::new();
    for (task, canary) in CANARIES {
        let question = Question { task: task.to_owned(), canary: Some(canary.to_owned()), ..Question::default() };
        answers.push(Box::pin(reader.ask(&lake, &question)).await?);
    }
    Ok(answers)
}

/// Returns the answers for people, each with the command that asks again.
pub(crate) fn shown(demo: &Demo, answers: &[GateAnswer], width: Option<usize>) -> String {
    let one = |answer: &GateAnswer| {
        let command =
            format!("bellwether gate --root {} --task {} --canary {}", demo.root(), answer.task, answer.canary);
        format!("$ {command}\n{}\n", gate::shown(answer, width))
    };
    answers.iter().map(one).collect::<Vec<_>>().join("\n")
}
