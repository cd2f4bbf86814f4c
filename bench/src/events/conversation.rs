//! Conversations full of numbers, and of JSON in strings: what redaction costs most on.

use rand::RngExt;

use super::{BASE32, Generator};

impl Generator {
    /// Generates the messages of a conversation: questions, calls of tools, and their results as JSON in strings.
    pub(super) fn conversation(&mut self, json: &mut String) {
        json.push_str(r#"{"messages":["#);
        for turn in 0..6 {
            let (call, booking) = (self.text_of(24, BASE32), self.text_of(6, BASE32));
            let comma = if turn > 0 { "," } else { "" };
            let question = self.sentence(20);
            json.push_str(&format!(
                r#"{comma}{{"role":"user","content":"{question}"}},{{"role":"assistant","content":null,"tool_calls":[{{"id":"call_{call}","type":"function","function":{{"name":"get_reservation_details","arguments":"{{\"reservation_id\": \"{booking}\"}}"}}}}]}},{{"role":"tool","tool_call_id":"call_{call}","content":"{{\"reservation_id\": \"{booking}\", \"passengers\": ["#
            ));
            for passenger in 0..2 {
                let comma = if passenger > 0 { ", " } else { "" };
                let (year, month, day) = (self.number(1950, 2005), self.number(1, 12), self.number(1, 28));
                json.push_str(&format!(
                    r#"{comma}{{\"first_name\": \"Mia\", \"last_name\": \"Li\", \"dob\": \"{year}-{month:02}-{day:02}\"}}"#
                ));
            }
            json.push_str(r#"], \"flights\": ["#);
            for flight in 0..4 {
                let comma = if flight > 0 { ", " } else { "" };
                let (number, day, hour) = (self.number(100, 400), self.number(1, 28), self.number(0, 23));
                let (price, seats) = (self.number(50, 900), self.number(0, 20));
                json.push_str(&format!(
                    r#"{comma}{{\"flight_number\": \"HAT{number}\", \"origin\": \"JFK\", \"destination\": \"SEA\", \"date\": \"2026-05-{day:02}\", \"departs\": \"2026-05-{day:02}T{hour:02}:15:00\", \"price\": {price}, \"seats\": {seats}}}"#
                ));
            }
            let (payment, amount) = (self.number(1_000_000, 9_999_999), self.number(100, 2000));
            json.push_str(&format!(
                r#"], \"payment_history\": [{{\"payment_id\": \"gift_card_{payment}\", \"amount\": {amount}.50}}], \"insurance\": \"no\", \"status\": null}}"}}"#
            ));
        }
        json.push_str("]}");
    }

    fn number(&mut self, least: u32, most: u32) -> u32 {
        self.rng.random_range(least..=most)
    }
}
