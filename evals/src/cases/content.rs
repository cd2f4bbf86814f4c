//! The input and the answer of a run, as the column `content_json` has them.

use bellwether_evalsets::{Message, Role};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Decided;

/// Bytes of the hash that is a case's id.
const ID_BYTES: usize = 12;

/// The content of a run.
pub(super) struct Content {
    /// Empty if the input is neither stored nor fetched.
    pub(super) input: Vec<Message>,
    /// Whether the event has the input.
    is_stored: bool,
    pub(super) output: Option<String>,
    /// The event has a reference to the output, or its hash.
    pub(super) has_output_elsewhere: bool,
    /// Address of the input.
    pub(super) reference: Option<String>,
    /// SHA-256 of the input in hexadecimal.
    pub(super) sha256: Option<String>,
}

// === impl Content ===

impl Content {
    /// Returns the content of a run; `None` if its input is neither stored nor referred to.
    pub(super) fn of(run: &Decided) -> Option<Self> {
        let stored: Value = serde_json::from_str(run.content_json.as_deref()?).ok()?;
        let field = |name: &str| stored.get(name).and_then(Value::as_str).map(str::to_owned);
        let fetched = |text: &Option<String>| text.as_deref().map(value_of);
        let input = stored.get("input").map(messages).unwrap_or_default();
        let is_stored = !input.is_empty();
        let content = Self {
            input: if is_stored { input } else { fetched(&run.fetched.0).iter().flat_map(messages).collect() },
            is_stored,
            output: stored.get("output").and_then(text).or_else(|| fetched(&run.fetched.1).as_ref().and_then(text)),
            has_output_elsewhere: field("output_ref").or_else(|| field("output_sha256")).is_some(),
            reference: field("input_ref"),
            sha256: field("input_sha256").map(|hash| hash.trim_start_matches("sha256:").to_owned()),
        };
        let known = !content.input.is_empty() || content.reference.is_some() || content.sha256.is_some();
        known.then_some(content)
    }

    /// Returns the id of the case with this input: a hash of the task and the input, without regard to case and white space. It is
    /// the same whether an input that is stored elsewhere was fetched or not.
    pub(super) fn id(&self, task: &str) -> String {
        let mut hash = Sha256::new();
        let mut add = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        add(task);
        for message in self.input.iter().filter(|_| self.is_stored) {
            add(message.role.name());
            let words: Vec<String> = message.content.split_whitespace().map(str::to_lowercase).collect();
            add(&words.join(" "));
        }
        if !self.is_stored {
            add(self.sha256.as_deref().or(self.reference.as_deref()).unwrap_or_default());
        }
        hash.finalize().iter().take(ID_BYTES).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Returns a JSON string as it is, and other JSON as text; `None` for null and empty texts.
pub(super) fn text(value: &Value) -> Option<String> {
    let text = match value {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Some(text).filter(|text| !text.trim().is_empty())
}

/// Returns the messages of an input that was stored elsewhere: JSON, or else text.
pub fn input_of(text: &str) -> Vec<Message> {
    messages(&value_of(text))
}

fn value_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

/// Returns an input as messages: a list of messages as such, anything else as one message of the user.
fn messages(input: &Value) -> Vec<Message> {
    let list = input.get("messages").unwrap_or(input).as_array();
    if let Some(messages) = list.and_then(|list| list.iter().map(message).collect::<Option<Vec<_>>>()) {
        return messages;
    }
    text(input).into_iter().map(|content| Message { role: Role::User, content }).collect()
}

/// Returns a message of a conversation; `None` if it is not a text by a known author.
fn message(value: &Value) -> Option<Message> {
    let role = match value.get("role")?.as_str()? {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        _ => return None,
    };
    let content = match value.get("content")? {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts = parts.iter().map(|part| part.get("text").and_then(Value::as_str));
            texts.collect::<Option<Vec<&str>>>()?.join("\n")
        }
        _ => return None,
    };
    Some(Message { role, content })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn content(input: &Value) -> Option<Content> {
        let content_json = Some(json!({ "input": input }).to_string());
        Content::of(&Decided { content_json, ..Decided::default() })
    }

    fn roles(input: &Value) -> Vec<(Role, String)> {
        messages(input).into_iter().map(|one| (one.role, one.content)).collect()
    }

    #[test]
    fn conversations_stay_conversations_and_other_inputs_become_a_message() {
        let user = |text: &str| (Role::User, text.to_owned());
        let parts = json!([{ "type": "text", "text": "hi" }, { "type": "text", "text": "שלום 👋\u{0}" }]);
        let chat = json!([{ "role": "developer", "content": "be kind" }, { "role": "user", "content": parts }]);
        let expected = vec![(Role::System, "be kind".to_owned()), user("hi\nשלום 👋\u{0}")];
        assert_eq!(roles(&chat), expected);
        assert_eq!(roles(&json!({ "messages": chat })), expected);
        assert_eq!(roles(&json!("hi")), [user("hi")]);
        assert_eq!(roles(&json!({ "order": 7 })), [user("{\"order\":7}")]);
        // A tool's message would be lost in a conversation, so the whole input becomes text.
        let tool = json!([{ "role": "user", "content": "hi" }, { "role": "tool", "content": "7" }]);
        assert_eq!(roles(&tool), [user(&tool.to_string())]);
        for nothing in [json!(null), json!(""), json!(" \n"), json!([]), json!({ "messages": [] })] {
            assert!(content(&nothing).is_none(), "{nothing}");
        }
    }

    #[test]
    fn an_id_depends_on_the_task_the_authors_and_the_words() {
        let id = |task: &str, input: Value| content(&input).expect("content").id(task);
        let first = id("refund", json!("Refund order  7"));
        assert_eq!(id("refund", json!(" refund ORDER\n7")), first);
        for (task, input) in [
            ("other", json!("refund order 7")),
            ("refund", json!("refund order 77")),
            ("refund", json!([{ "role": "system", "content": "refund order 7" }])),
            ("refund", json!([{ "role": "user", "content": "refund" }, { "role": "user", "content": "order 7" }])),
        ] {
            assert_ne!(id(task, input.clone()), first, "{task} {input}");
        }
    }

    #[test]
    fn content_that_was_fetched_is_read_and_changes_no_id() {
        let stored = json!({ "input_ref": "s3://b/1", "output_ref": "s3://b/2" }).to_string();
        let run = Decided { content_json: Some(stored), ..Decided::default() };
        let chat = json!([{ "role": "user", "content": "hi" }]).to_string();
        let fetched = Decided { fetched: (Some(chat), Some("hello".to_owned())), ..run.clone() };
        let (before, after) = (Content::of(&run).expect("a reference"), Content::of(&fetched).expect("content"));
        assert_eq!((before.input.len(), after.input[0].content.as_str()), (0, "hi"));
        assert_eq!((before.output.as_deref(), after.output.as_deref()), (None, Some("hello")));
        assert_eq!(before.id("t"), after.id("t"));
    }
}
