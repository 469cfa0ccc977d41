//! Requests to the service over REST, and what it says against them, in words.

use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::{Client, Method, StatusCode, Url};
use serde_json::Value;

use crate::cli::connection::Address;

/// Longest an answer is waited for. (Rebuilding Redis takes a while.)
const ANSWER_WAIT: Duration = Duration::from_secs(600);

/// The answer to a request, if it is a good one. The path is given by its segments, which are encoded.
pub(super) async fn send(
    address: &Address,
    method: Method,
    path: &[&str],
    body: Option<&Value>,
) -> anyhow::Result<Value> {
    send_with_query(address, method, path, &[], body).await
}

/// The same, with parameters in the query.
pub(super) async fn send_with_query(
    address: &Address,
    method: Method,
    path: &[&str],
    query: &[(&str, String)],
    body: Option<&Value>,
) -> anyhow::Result<Value> {
    let base = address.url();
    let mut url = Url::parse(&base).with_context(|| format!("the address {base} is wrong"))?;
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    let client = Client::builder().timeout(ANSWER_WAIT).build().context("cannot make a request")?;
    let mut request = client.request(method, url.clone());
    if let Some(token) = address.token() {
        request = request.bearer_auth(token);
    }
    if let Some(body) = body {
        request = request.json(body);
    }
    let answer = request.send().await;
    let answer = answer.with_context(|| format!("no tallyhouse answers at {base}; start one with `tallyhouse dev`"))?;
    let status = answer.status();
    let text = answer.text().await.context("the answer broke off")?;
    let body: Value = if text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).with_context(|| format!("what answers at {url} is no tallyhouse"))?
    };
    if status.is_success() { Ok(body) } else { bail!(explain(status, &body)) }
}

/// An error in words for a person: what was wrong, field by field.
fn explain(status: StatusCode, body: &Value) -> String {
    let error = &body["error"];
    let message = error["message"].as_str().unwrap_or("the service refuses");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let details = error["details"].as_array().into_iter().flatten();
    let fields: Vec<String> =
        details.map(|detail| format!("{} {}", text(&detail["field"]), text(&detail["message"]))).collect();
    match status {
        StatusCode::UNAUTHORIZED => format!("{message}: give a token with --token or TALLYHOUSE_TOKEN"),
        StatusCode::NOT_FOUND if message.contains("path") => {
            "the service has no event pipeline: start it with TALLYHOUSE_PIPELINE=true".to_owned()
        }
        _ if !fields.is_empty() => format!("{message}: {}", fields.join("; ")),
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_wrong_is_said() {
        let check = |status: u16, error: Value, expected: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(explain(status, &json!({ "error": error })), expected);
        };
        let details = json!([{ "field": "userId", "message": "is required" }]);
        check(
            400,
            json!({ "message": "validation failed", "details": details }),
            "validation failed: userId is required",
        );
        let no_path = "the service has no event pipeline: start it with TALLYHOUSE_PIPELINE=true";
        check(404, json!({ "message": "there is no such path" }), no_path);
        check(503, json!({ "message": "Redis is away" }), "Redis is away");
    }
}
