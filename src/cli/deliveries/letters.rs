//! `tallyhouse deliveries dead-letters`, `dead-letter`, `replay` and `discard`.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Output, path, render};
use crate::cli::connection::Address;
use crate::cli::deliveries::request::send_with_query;

/// Dead letters to list.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct LettersArgs {
    /// The subscription.
    name: String,
    /// The first number to list.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    from: u64,
    /// The most to list, 1 to 1,000.
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u32,
    #[command(flatten)]
    output: Output,
}

/// A dead letter to show.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct LetterArgs {
    /// The subscription.
    name: String,
    /// The dead letter's number.
    number: u64,
    #[command(flatten)]
    output: Output,
}

/// Dead letters to do something with.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct SelectionArgs {
    /// The subscription.
    name: String,
    /// The numbers of dead letters.
    #[arg(required_unless_present = "all", value_name = "NUMBER")]
    numbers: Vec<u64>,
    /// All dead letters.
    #[arg(long, conflicts_with = "numbers")]
    all: bool,
    #[command(flatten)]
    output: Output,
}

impl LettersArgs {
    /// Lists them.
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let Self { name, from, limit, output } = self;
        let address: &Address = &output.address;
        let query = [("from", from.to_string()), ("limit", limit.to_string())];
        let answer = send_with_query(address, Method::GET, &path(&name, &["dead-letters"]), &query, None).await?;
        output.show(&answer, render::letters)
    }
}

impl LetterArgs {
    /// Shows it.
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let number = self.number.to_string();
        self.output.lines(Method::GET, &path(&self.name, &["dead-letters", &number])).await
    }
}

impl SelectionArgs {
    /// Replays or discards them.
    pub(super) async fn run(self, verb: &str) -> anyhow::Result<()> {
        let body: Value = if self.all { json!({ "all": true }) } else { json!({ "numbers": self.numbers }) };
        let answer = self.output.ask(Method::POST, &path(&self.name, &["dead-letters", verb]), Some(&body)).await?;
        self.output.show(&answer, render::in_lines)
    }
}
