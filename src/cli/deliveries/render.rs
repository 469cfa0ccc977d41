//! Answers in lines and tables for people.

use serde_json::Value;

use crate::cli::style::Style;
use crate::cli::table::Table;

/// The fields of an answer, one a line.
pub(super) fn in_lines(answer: &Value, style: Style) -> String {
    let mut table = Table::new().text("what").number("value");
    for (name, value) in answer.as_object().into_iter().flatten() {
        table.row([name.clone(), text(value)]);
    }
    table.render(style)
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Subscriptions, one a line.
pub(super) fn subscriptions(answer: &Value, style: Style) -> String {
    let all: Vec<&Value> = answer["subscriptions"].as_array().into_iter().flatten().collect();
    if all.is_empty() {
        return "there are no subscriptions; create one: tallyhouse deliveries create NAME --webhook URL\n".to_owned();
    }
    let mut table = Table::new().text("name").text("handler").text("types").text("state");
    for subscription in all {
        let types: Vec<String> = subscription["filter"]["types"].as_array().into_iter().flatten().map(text).collect();
        let url = subscription["handler"]["url"].as_str().unwrap_or_default();
        let handler = format!("{} {url}", text(&subscription["handler"]["type"]));
        let state = if subscription["is_paused"] == true { "paused" } else { "active" };
        table.row([
            text(&subscription["name"]),
            handler.trim_end().to_owned(),
            if types.is_empty() { "all".to_owned() } else { types.join(", ") },
            state.to_owned(),
        ]);
    }
    table.render(style)
}

/// Dead letters, one a line.
pub(super) fn letters(answer: &Value, style: Style) -> String {
    let all: Vec<&Value> = answer["dead_letters"].as_array().into_iter().flatten().collect();
    if all.is_empty() {
        return "there are no dead letters\n".to_owned();
    }
    let mut table = Table::new()
        .number("number")
        .text("event")
        .text("user")
        .number("seq")
        .text("reason")
        .number("attempts")
        .text("error");
    for letter in all {
        let event = &letter["event"];
        table.row([
            text(&letter["number"]),
            text(&event["event_id"]),
            text(&event["user_id"]),
            text(&event["seq"]),
            text(&letter["reason"]),
            text(&letter["attempts"]),
            text(&letter["error"]),
        ]);
    }
    let more = answer["next"].as_u64().map(|next| format!("more: --from {next}\n")).unwrap_or_default();
    table.render(style) + &more
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_shown_line_by_line() {
        let text = in_lines(&json!({ "redis": "up", "waiting": 7, "oldest": null }), Style::plain());
        assert!(text.contains("redis") && text.contains("up") && text.contains('7'), "{text}");
        assert!(text.contains("oldest"), "{text}");
    }

    #[test]
    fn lists_say_when_they_are_empty_and_where_they_go_on() {
        let handler = json!({ "type": "webhook", "url": "https://a.example/" });
        let one = json!({ "name": "orders", "handler": handler, "filter": { "types": ["buy"] }, "is_paused": true });
        let text = subscriptions(&json!({ "subscriptions": [one] }), Style::plain());
        for part in ["orders", "webhook https://a.example/", "buy", "paused"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(subscriptions(&json!({ "subscriptions": [] }), Style::plain()).contains("deliveries create"));
        let letter = json!({ "number": 3, "event": { "event_id": "e-1", "user_id": null }, "reason": "seq_late" });
        let text = letters(&json!({ "dead_letters": [letter], "next": 4 }), Style::plain());
        assert!(text.contains("e-1") && text.contains("seq_late") && text.ends_with("more: --from 4\n"), "{text}");
        assert_eq!(letters(&json!({ "dead_letters": [] }), Style::plain()), "there are no dead letters\n");
    }
}
