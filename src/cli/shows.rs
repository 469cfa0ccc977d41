//! `tallyhouse shows`: manages the ticketing catalogue.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use super::connection::Address;
use super::style::Style;
use super::table::Table;

/// The catalogue's path on the service's port.
const PREFIX: &str = "/ticketing";
/// Time-out of a request.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Manages shows.
#[derive(Clone, Debug, clap::Args)]
pub struct ShowsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Action {
    /// List events by their start.
    List(ListArgs),
    /// Create an event, as a draft unless --status says otherwise.
    Create(Box<CreateArgs>),
    /// Publish a draft.
    Publish(ChangeArgs),
    /// Cancel a draft or a published event.
    Cancel(ChangeArgs),
    /// List notifications, the newest first.
    Notifications(NotificationsArgs),
}

/// The events to list.
#[derive(Clone, Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    address: Address,
    /// The first day in UTC, such as 2030-05-17.
    #[arg(long, value_name = "DAY")]
    from: Option<String>,
    /// The last day in UTC.
    #[arg(long, value_name = "DAY")]
    to: Option<String>,
    /// Parts of locations, separated by commas.
    #[arg(long, value_name = "TEXT")]
    locations: Option<String>,
    /// DRAFT, PUBLISHED or CANCELLED; several separated by commas.
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    #[command(flatten)]
    page: PageArgs,
}

/// The page to show.
#[derive(Clone, Debug, clap::Args)]
struct PageArgs {
    /// The page, from 1.
    #[arg(long, default_value_t = 1)]
    page: u64,
    /// Lines on a page, 1 to 100.
    #[arg(long, default_value_t = 20)]
    limit: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The notifications to list.
#[derive(Clone, Debug, clap::Args)]
struct NotificationsArgs {
    #[command(flatten)]
    address: Address,
    /// PENDING, DELIVERED or GIVEN_UP; several separated by commas.
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    #[command(flatten)]
    page: PageArgs,
}

/// The event to create.
#[derive(Clone, Debug, clap::Args)]
struct CreateArgs {
    #[command(flatten)]
    address: Address,
    /// The title.
    #[arg(long)]
    title: String,
    /// The start, as RFC 3339.
    #[arg(long, value_name = "TIME")]
    start: String,
    /// The end, as RFC 3339.
    #[arg(long, value_name = "TIME")]
    end: String,
    /// The location.
    #[arg(long, value_name = "PLACE")]
    location: String,
    /// DRAFT, PUBLISHED or CANCELLED.
    #[arg(long)]
    status: Option<String>,
    /// Private notes.
    #[arg(long)]
    notes: Option<String>,
    /// The creator. Private.
    #[arg(long, value_name = "NAME")]
    created_by: Option<String>,
    /// An idempotency key: within 24 hours, the same key creates one event.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

/// The event to change.
#[derive(Clone, Debug, clap::Args)]
struct ChangeArgs {
    #[command(flatten)]
    address: Address,
    /// The event's id.
    id: String,
}

impl ShowsArgs {
    /// Runs the action and shows the answer.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self.action {
            Action::List(args) => args.run().await?,
            Action::Create(args) => args.run().await?,
            Action::Publish(args) => args.set("PUBLISHED").await?,
            Action::Cancel(args) => args.set("CANCELLED").await?,
            Action::Notifications(args) => args.run().await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl ListArgs {
    async fn run(self) -> anyhow::Result<()> {
        let mut query = self.page.query();
        for (name, value) in
            [("dateFrom", self.from), ("dateTo", self.to), ("locations", self.locations), ("status", self.status)]
        {
            query.extend(value.map(|value| (name, value)));
        }
        let answer = Call::get("/events", query).send(&self.address).await?;
        if self.page.json {
            super::print_json(&answer)?
        } else {
            super::print(&events(&answer, Style::stdout()))?
        }
        Ok(())
    }
}

impl NotificationsArgs {
    async fn run(self) -> anyhow::Result<()> {
        let mut query = self.page.query();
        query.extend(self.state.map(|state| ("state", state)));
        let answer = Call::get("/notifications", query).send(&self.address).await?;
        let text = || notifications(&answer, Style::stdout());
        if self.page.json {
            super::print_json(&answer)?
        } else {
            super::print(&text())?
        }
        Ok(())
    }
}

impl PageArgs {
    fn query(&self) -> Vec<(&'static str, String)> {
        vec![("page", self.page.to_string()), ("limit", self.limit.to_string())]
    }
}

impl CreateArgs {
    async fn run(self) -> anyhow::Result<()> {
        let mut body = json!({
            "title": self.title, "startAt": self.start, "endAt": self.end, "location": self.location,
        });
        let optional = [("status", self.status), ("internalNotes", self.notes), ("createdBy", self.created_by)];
        let given = optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Value::String(value?))));
        if let Some(body) = body.as_object_mut() {
            body.extend(given);
        }
        let call = Call { idempotency_key: self.idempotency_key, ..Call::with_body(Method::POST, "/events", body) };
        Ok(super::print_json(&call.send(&self.address).await?)?)
    }
}

impl ChangeArgs {
    async fn set(self, status: &str) -> anyhow::Result<()> {
        let id = &self.id;
        anyhow::ensure!(id.chars().all(|char| char.is_ascii_hexdigit() || char == '-'), "'{id}' is not an event's id");
        let call = Call::with_body(Method::PATCH, &format!("/events/{id}"), json!({ "status": status }));
        Ok(super::print_json(&call.send(&self.address).await?)?)
    }
}

/// A request to the catalogue.
struct Call {
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    body: Option<Value>,
    idempotency_key: Option<String>,
}

impl Call {
    fn get(path: &str, query: Vec<(&'static str, String)>) -> Self {
        Self { method: Method::GET, path: path.to_owned(), query, body: None, idempotency_key: None }
    }

    fn with_body(method: Method, path: &str, body: Value) -> Self {
        Self { method, body: Some(body), ..Self::get(path, Vec::new()) }
    }

    /// The answer, or an error for any status but 2xx.
    async fn send(self, address: &Address) -> anyhow::Result<Value> {
        let url = format!("{}{PREFIX}{}", address.url().trim_end_matches('/'), self.path);
        let client = Client::builder().timeout(ANSWER_WAIT).build().context("cannot make a request")?;
        let mut request = client.request(self.method, &url).query(&self.query);
        if let Some(token) = address.token() {
            request = request.bearer_auth(token);
        }
        if let Some(key) = self.idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(body) = self.body {
            request = request.json(&body);
        }
        let answer = request
            .send()
            .await
            .with_context(|| format!("no tallyhouse answers at {}; start one with `tallyhouse dev`", address.url()))?;
        let status = answer.status();
        let body: Value = answer.json().await.with_context(|| format!("what answers at {url} is no tallyhouse"))?;
        if status.is_success() { Ok(body) } else { bail!(explain(status, &body)) }
    }
}

/// Describes an error, with every invalid field.
fn explain(status: StatusCode, body: &Value) -> String {
    let error = &body["error"];
    let message = error["message"].as_str().unwrap_or("the catalogue refuses");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let details = error["details"].as_array().into_iter().flatten();
    let fields: Vec<String> =
        details.map(|detail| format!("{} {}", text(&detail["field"]), text(&detail["message"]))).collect();
    match (status, error["code"].as_str()) {
        (StatusCode::UNAUTHORIZED, _) => format!("{message}: give one with --token or TALLYHOUSE_TOKEN"),
        (StatusCode::NOT_FOUND, _) if message.contains("path") => {
            "the service has no ticketing catalogue: start it with TALLYHOUSE_TICKETING=true".to_owned()
        }
        (_, Some("VALIDATION_ERROR")) => format!("{message}: {}", fields.join("; ")),
        _ => message.to_owned(),
    }
}

fn cell(item: &Value, field: &str) -> String {
    match &item[field] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn events(answer: &Value, paint: Style) -> String {
    let mut table = Table::new().text("start (UTC)").text("status").text("title").text("location").text("id");
    for event in answer["events"].as_array().into_iter().flatten() {
        table.row(["startAt", "status", "title", "location", "id"].map(|field| cell(event, field)));
    }
    with_pages(&table, answer, "events", paint)
}

fn notifications(answer: &Value, paint: Style) -> String {
    let mut table = Table::new()
        .text("occurred (UTC)")
        .text("state")
        .number("attempts")
        .text("message")
        .text("last error")
        .text("id");
    for told in answer["notifications"].as_array().into_iter().flatten() {
        table.row(["occurredAt", "state", "attempts", "message", "lastError", "id"].map(|field| cell(told, field)));
    }
    with_pages(&table, answer, "notifications", paint)
}

fn with_pages(table: &Table, answer: &Value, what: &str, paint: Style) -> String {
    let number = |field: &str| answer["pagination"][field].as_u64().unwrap_or_default();
    let pages = format!("page {} of {}, {} {what} in all", number("page"), number("totalPages"), number("total"));
    let lines = if table.is_empty() { String::new() } else { table.render(paint) };
    format!("{lines}{}\n", paint.dim(&pages))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_says_where_it_is() {
        let event = json!({
            "id": "5a0c3a44", "startAt": "2030-05-17T19:30:00.000Z", "status": "DRAFT", "title": "Ham\u{1b}let",
            "location": "Globe",
        });
        let pagination = json!({ "page": 1, "limit": 20, "total": 21, "totalPages": 2 });
        let text = events(&json!({ "events": [event], "pagination": pagination }), Style::plain());
        assert!(text.contains("2030-05-17T19:30:00.000Z  DRAFT"), "{text}");
        assert!(text.contains("Globe") && text.ends_with("page 1 of 2, 21 events in all\n"), "{text}");
        assert!(!text.contains('\u{1b}'));
        let none = events(&json!({ "events": [], "pagination": { "total": 0 } }), Style::plain());
        assert_eq!(none, "page 0 of 0, 0 events in all\n");
    }

    #[test]
    fn what_was_wrong_is_said_field_by_field() {
        let check = |status: u16, error: Value, expected: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(explain(status, &json!({ "error": error })), expected);
        };
        let details =
            json!([{ "field": "title", "message": "is required" }, { "field": "endAt", "message": "is wrong" }]);
        let invalid = json!({ "code": "VALIDATION_ERROR", "message": "validation failed", "details": details });
        check(400, invalid, "validation failed: title is required; endAt is wrong");
        let refused = json!({ "code": "INVALID_STATUS_TRANSITION", "message": "from A to B", "details": details });
        check(400, refused, "from A to B");
        let missing = json!({ "code": "UNAUTHORIZED", "message": "a token is needed" });
        check(401, missing, "a token is needed: give one with --token or TALLYHOUSE_TOKEN");
    }
}
