//! `tallyhouse deliveries create` and `change`.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{Output, path, render};
use crate::cli::print;
use crate::cli::style::Style;

/// A new subscription.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct CreateArgs {
    /// The name: 1 to 64 letters, digits, '_', '-' and '.'.
    name: String,
    /// Where it begins: `now`, `earliest`, or a time (RFC 3339).
    #[arg(long, value_name = "START")]
    start: Option<String>,
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    output: Output,
}

/// Changes of a subscription.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ChangeArgs {
    /// The subscription.
    name: String,
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    output: Output,
}

/// What can be set.
#[derive(Clone, Debug, clap::Args)]
struct SettingsArgs {
    /// Send webhooks to this URL.
    #[arg(long, value_name = "URL", group = "handler")]
    webhook: Option<String>,
    /// Consumers pull the events, with the gRPC method Consume.
    #[arg(long, group = "handler")]
    pull: bool,
    /// For trials: fail events whose properties have `"fail": true`, and do nothing with others.
    #[arg(long, group = "handler")]
    trial: bool,
    /// A secret for signing webhooks (`whsec_…`); several for a rotation. Without any, the service makes one for a new
    /// webhook, and those of another stay.
    #[arg(
        long,
        env = "TALLYHOUSE_WEBHOOK_SECRET",
        hide_env_values = true,
        value_name = "SECRET",
        requires = "webhook"
    )]
    secret: Vec<String>,
    /// Only events of these types.
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Only events of these campaigns.
    #[arg(long = "campaign", value_name = "ID")]
    campaigns: Vec<String>,
    /// Only events from these sources.
    #[arg(long = "source", value_name = "SOURCE")]
    sources: Vec<String>,
    /// All events, whatever the filter was.
    #[arg(long, conflicts_with_all = ["types", "campaigns", "sources"])]
    all_events: bool,
    /// The order of a user's events.
    #[arg(long, value_parser = ["per_user", "arrival"])]
    order: Option<String>,
    /// Attempts before an event becomes a dead letter.
    #[arg(long, value_name = "N")]
    attempts_max: Option<u32>,
    /// The wait after the first attempt, in milliseconds.
    #[arg(long, value_name = "MS")]
    backoff_ms_min: Option<u64>,
    /// The longest wait, in milliseconds.
    #[arg(long, value_name = "MS")]
    backoff_ms_max: Option<u64>,
    /// The longest time of an attempt, in milliseconds.
    #[arg(long, value_name = "MS")]
    timeout_ms: Option<u64>,
    /// How long missing seqs are waited for, in milliseconds; 0: without limit.
    #[arg(long, value_name = "MS")]
    skip_gaps_after_ms: Option<u64>,
    /// The number of users whose events are handled at a time.
    #[arg(long, value_name = "N")]
    concurrency: Option<u32>,
}

impl SettingsArgs {
    /// The body of a request, with what was given.
    fn body(&self) -> Map<String, Value> {
        let mut body = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                body.insert(name.to_owned(), value);
            }
        };
        let handler = match &self.webhook {
            Some(url) => Some(json!({ "type": "webhook", "url": url, "secrets": self.secret })),
            None if self.pull => Some(json!({ "type": "pull" })),
            None if self.trial => Some(json!({ "type": "trial" })),
            None => None,
        };
        put("handler", handler);
        let has_filter =
            self.all_events || [&self.types, &self.campaigns, &self.sources].iter().any(|list| !list.is_empty());
        let filter = json!({ "types": self.types, "campaign_ids": self.campaigns, "sources": self.sources });
        put("filter", has_filter.then_some(filter));
        put("order", self.order.clone().map(Value::from));
        put("attempts_max", self.attempts_max.map(Value::from));
        put("backoff_ms_min", self.backoff_ms_min.map(Value::from));
        put("backoff_ms_max", self.backoff_ms_max.map(Value::from));
        put("timeout_ms", self.timeout_ms.map(Value::from));
        put("skip_gaps_after_ms", self.skip_gaps_after_ms.map(Value::from));
        put("concurrency", self.concurrency.map(Value::from));
        body
    }
}

impl CreateArgs {
    /// Creates it, and shows it.
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let Self { name, start, settings, output } = self;
        let mut body = settings.body();
        body.insert("name".to_owned(), Value::from(name));
        if let Some(start) = start {
            body.insert("start".to_owned(), Value::from(start));
        }
        let body = Value::Object(body);
        let created = output.ask(Method::POST, &["api", "v1", "subscriptions"], Some(&body)).await?;
        output.show(&created, render::in_lines)?;
        if !output.json && created["secret"].is_string() {
            print(&format!("{}\n", Style::stdout().dim("This is the only time the secret is shown.")))?;
        }
        Ok(())
    }
}

impl ChangeArgs {
    /// Changes it, and shows it.
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let body = Value::Object(self.settings.body());
        let changed = self.output.ask(Method::PATCH, &path(&self.name, &[]), Some(&body)).await?;
        self.output.show(&changed, render::in_lines)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: ChangeArgs,
    }

    #[test]
    fn only_what_is_given_is_sent() {
        let check = |line: &[&str], expected: Value| {
            let line = Line::try_parse_from([&["change", "orders"], line].concat()).expect("a command line");
            assert_eq!(Value::Object(line.args.settings.body()), expected);
        };
        check(&[], json!({}));
        check(&["--attempts-max", "5", "--order", "arrival"], json!({ "attempts_max": 5, "order": "arrival" }));
        let all = json!({ "filter": { "types": [], "campaign_ids": [], "sources": [] } });
        check(&["--all-events"], all);
        let webhook = json!({ "type": "webhook", "url": "https://a.example/", "secrets": ["whsec_a", "whsec_b"] });
        let line = ["--webhook", "https://a.example/", "--secret", "whsec_a", "--secret", "whsec_b", "--type", "buy"];
        check(&line, json!({ "handler": webhook, "filter": { "types": ["buy"], "campaign_ids": [], "sources": [] } }));
        assert!(Line::try_parse_from(["change", "orders", "--pull", "--trial"]).is_err());
    }
}
