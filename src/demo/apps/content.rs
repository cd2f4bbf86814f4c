//! Questions of customers to the simulated apps, and the answers of the apps. The people are invented.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

const ITEMS: [&str; 12] = [
    "desk lamp",
    "rain jacket",
    "bread maker",
    "standing desk",
    "pair of headphones",
    "hiking boots",
    "coffee grinder",
    "backpack",
    "office chair",
    "water filter",
    "bicycle helmet",
    "picture frame",
];
const TROUBLES: [&str; 8] = [
    "arrived with a crack",
    "stopped working after two days",
    "is not the colour that I ordered",
    "is one size too small",
    "came without the charger",
    "was delivered to my neighbour, who has moved",
    "makes a loud noise",
    "is used: there is dust in it",
];
const WISHES: [&str; 6] = [
    "I want my money back.",
    "Please send a new one.",
    "Can I return it in a shop?",
    "Could you take half off the price?",
    "I would like to keep it and get a voucher.",
    "Tell me what I have to do.",
];
const NAMES: [&str; 8] =
    ["anna.weber", "j.okafor", "marie_dupont", "t.nguyen", "lars.holm", "priya.k", "sam.ortiz", "y.tanaka"];
const POLICIES: [(&str, &str); 6] = [
    ("How long may I keep something before I return it?", "You may return an item within 30 days of its delivery."),
    (
        "Who pays for the parcel if I send something back?",
        "We pay if the item is faulty; otherwise the label costs 4.90 EUR.",
    ),
    ("Do you deliver on Saturdays?", "Parcels are delivered from Monday to Saturday."),
    ("Can I change the address after I have ordered?", "You can change the address until the parcel is packed."),
    ("How long is the warranty for electronics?", "Electronics have a warranty of two years."),
    ("May I pay by invoice?", "You can pay by invoice for orders below 500 EUR."),
];
const SUPPLIERS: [&str; 6] = [
    "Brandt Papier GmbH",
    "Lakeside Catering Ltd",
    "Nordwind Logistik AG",
    "Ortega Hermanos SL",
    "Studio Marchetti srl",
    "Kessler Elektro KG",
];

/// The random choices of one conversation. They are separate from those of the run, which they must not change.
struct Words(StdRng);

/// Returns input and output of a run. The answer of one that failed is wrong in a way that a reviewer can see, and one that did not come
/// to an end has none.
pub(super) fn of(task: &str, seed: u64, status: &str, data: &Value) -> Value {
    let mut words = Words(StdRng::seed_from_u64(seed));
    let wrong = status == "failure";
    let mut content = match task {
        "refund_triage" => {
            let is_refund = |call: &Value| call["name"] == "issue_refund";
            words.refund(wrong, data["tool_calls"].as_array().is_some_and(|calls| calls.iter().any(is_refund)))
        }
        "order_status" => words.order(wrong),
        "policy_answer" => words.policy(wrong),
        _ => words.invoice(&data["validation"]),
    };
    if ["error", "timeout", "abandoned"].contains(&status) {
        content["output"] = Value::Null;
    }
    content
}

// === impl Words ===

impl Words {
    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.0.random_range(0..of.len())]
    }

    fn number(&mut self, least: u32, most: u32) -> u32 {
        self.0.random_range(least..=most)
    }

    /// A message of a customer, some of whom say how to reach them.
    fn said(&mut self, text: String) -> Value {
        let text = match self.number(0, 9) {
            0 => format!("{text} My e-mail is {}@example.com.", self.one(&NAMES)),
            1 => format!("{text} Call me: +49 30 5550{:04}.", self.number(0, 9999)),
            _ => text,
        };
        json!([{ "role": "user", "content": text }])
    }

    fn refund(&mut self, wrong: bool, refunded: bool) -> Value {
        let (order, item) = (self.number(100_000, 999_999), self.one(&ITEMS));
        let asked = format!("The {item} of my order {order} {}. {}", self.one(&TROUBLES), self.one(&WISHES));
        // Returns are possible for 30 days.
        let days = if refunded == wrong { self.number(31, 60) } else { self.number(2, 30) };
        let decision = if refunded { "refund" } else { "decline" };
        let output = json!({ "order": order, "days_since_delivery": days, "decision": decision, "reason": "returns within 30 days" });
        json!({ "input": self.said(asked), "output": output })
    }

    fn order(&mut self, wrong: bool) -> Value {
        let (order, other) = (self.number(100_000, 999_999), self.number(100_000, 999_999));
        let asked = self.one(&[
            "Where is my order",
            "When will I get order",
            "Has it been sent? I mean order",
            "Still waiting for order",
        ]);
        let item = self.one(&ITEMS);
        let input = self.said(format!("{asked} {order}, the {item}?"));
        let about = if wrong { other } else { order };
        let state = self.one(&[
            "was packed this morning",
            "is with the courier",
            "waits for the supplier",
            "was delivered yesterday",
        ]);
        json!({ "input": input, "output": format!("Your order {about} {state}.") })
    }

    fn policy(&mut self, wrong: bool) -> Value {
        let (asked, answer) = self.one(&POLICIES);
        let other = self.one(&POLICIES).1;
        let opening = self.one(&["", "Hello, ", "A question about my order: ", "I could not find this on your page: "]);
        let other = if other == answer { "I am sorry, I do not know." } else { other };
        json!({ "input": self.said(format!("{opening}{asked}")), "output": if wrong { other } else { answer } })
    }

    fn invoice(&mut self, validation: &Value) -> Value {
        let (supplier, number) = (self.one(&SUPPLIERS), self.number(1000, 9999));
        let (quantity, cents) = (self.number(1, 12), self.number(500, 90_000));
        let price = |cents: u32| format!("{}.{:02}", cents / 100, cents % 100);
        let (each, total) = (price(cents), price(cents * quantity));
        let (item, day) = (self.one(&ITEMS), self.number(1, 28));
        let text = format!(
            "{supplier}\nInvoice {number}\nDue: 2026-12-{day:02}\n{quantity} x {item} at {each} EUR\nTotal {total} EUR\nIBAN DE89 3704 0044 0532 0130 00"
        );
        let mut output = json!({
            "supplier": { "name": supplier }, "invoice_number": number.to_string(), "due_date": format!("2026-12-{day:02}"), "currency": "EUR",
            "line_items": [{ "description": item, "quantity": quantity, "unit_price": each }], "total_amount": cents * quantity,
        });
        for field in validation["fields"].as_array().into_iter().flatten() {
            let wrong = match field["rule"].as_str() {
                Some("required") => Value::Null,
                Some("minimum") => json!(0),
                _ => json!("unknown"),
            };
            if let Some(place) = field["path"].as_str().and_then(|path| output.pointer_mut(path)) {
                *place = wrong;
            }
        }
        json!({ "input": [{ "role": "system", "content": "Return the invoice as JSON." }, { "role": "user", "content": text }], "output": output })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_of_its_run_and_failures_can_be_seen() {
        for task in ["refund_triage", "order_status", "policy_answer"] {
            let (good, bad) = (of(task, 7, "success", &Value::Null), of(task, 7, "failure", &Value::Null));
            assert_eq!(good["input"], bad["input"], "{task}");
            assert_ne!(good["output"], bad["output"], "{task}");
            assert!(of(task, 7, "timeout", &Value::Null)["output"].is_null(), "{task}");
        }
        let broken = json!({ "validation": { "fields": [{ "path": "/total_amount", "rule": "type" }] } });
        assert!(of("invoice_extraction", 7, "success", &Value::Null)["output"]["total_amount"].is_number());
        assert_eq!(of("invoice_extraction", 7, "failure", &broken)["output"]["total_amount"], "unknown");
    }
}
