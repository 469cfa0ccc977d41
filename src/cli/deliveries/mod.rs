//! `tallyhouse deliveries`: subscriptions and the event pipeline: what is handed to whom, and what became of it.

mod letters;
mod render;
mod request;
mod subscription;
mod watch;

use std::process::ExitCode;

use reqwest::Method;
use serde_json::Value;

use super::connection::Address;
use super::style::Style;
use letters::{LetterArgs, LettersArgs, SelectionArgs};
use request::send;
use subscription::{ChangeArgs, CreateArgs};
use watch::WatchArgs;

/// What to do.
#[derive(Clone, Debug, clap::Args)]
pub struct DeliveriesArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Action {
    /// Create a subscription: events are handed to webhooks, or to consumers that pull.
    Create(CreateArgs),
    /// List all subscriptions.
    List(Output),
    /// Show a subscription.
    Show(NamedArgs),
    /// Change a subscription. What is not given stays as it is.
    Change(ChangeArgs),
    /// Pause a subscription, or one user of it: the events wait.
    Pause(PauseArgs),
    /// Resume a subscription, or one user of it.
    Resume(PauseArgs),
    /// Delete a subscription, with its dead letters.
    Delete(NamedArgs),
    /// Show the state of a subscription, or of the event pipeline.
    Status(StatusArgs),
    /// Watch the lag, the rate, retries and dead letters of all subscriptions, until Ctrl-C.
    ///
    /// On a terminal, a table is drawn again for each look. Elsewhere, each look prints a line for each subscription.
    Watch(WatchArgs),
    /// Show where an event of a subscription is, or of the event pipeline.
    Event(EventArgs),
    /// Show the state of a user's events in a subscription.
    User(UserArgs),
    /// List the dead letters of a subscription: events that were given up.
    DeadLetters(LettersArgs),
    /// Show a dead letter.
    DeadLetter(LetterArgs),
    /// Deliver dead letters again.
    Replay(SelectionArgs),
    /// Delete dead letters.
    Discard(SelectionArgs),
    /// Write into Redis what it has lost of the pipeline's records.
    Rebuild(Output),
}

/// Where to ask, and how to show the answer.
#[derive(Clone, Debug, clap::Args)]
struct Output {
    #[command(flatten)]
    address: Address,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug, clap::Args)]
struct NamedArgs {
    /// The subscription.
    name: String,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Debug, clap::Args)]
struct PauseArgs {
    /// The subscription.
    name: String,
    /// Only this user of it.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Debug, clap::Args)]
struct StatusArgs {
    /// The subscription. Without it, the event pipeline.
    name: Option<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Debug, clap::Args)]
struct EventArgs {
    /// The event's id.
    id: String,
    /// The subscription. Without it, the event pipeline.
    #[arg(long, value_name = "NAME")]
    subscription: Option<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Debug, clap::Args)]
struct UserArgs {
    /// The subscription.
    name: String,
    /// The user.
    user: String,
    #[command(flatten)]
    output: Output,
}

/// The path of a subscription, or below it.
fn path<'a>(name: &'a str, below: &[&'a str]) -> Vec<&'a str> {
    ["api", "v1", "subscriptions", name].into_iter().chain(below.iter().copied()).collect()
}

impl DeliveriesArgs {
    /// Asks, and shows the answer.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self.action {
            Action::Create(args) => args.run().await?,
            Action::Change(args) => args.run().await?,
            Action::List(output) => {
                let answer = output.ask(Method::GET, &["api", "v1", "subscriptions"], None).await?;
                output.show(&answer, render::subscriptions)?;
            }
            Action::Show(NamedArgs { name, output }) => output.lines(Method::GET, &path(&name, &[])).await?,
            Action::Pause(args) => args.run("pause").await?,
            Action::Resume(args) => args.run("resume").await?,
            Action::Delete(NamedArgs { name, output }) => {
                output.ask(Method::DELETE, &path(&name, &[]), None).await?;
                super::print(&format!("deleted: {name}\n"))?;
            }
            Action::Status(args) => args.show().await?,
            Action::Watch(args) => args.run().await?,
            Action::Event(EventArgs { id, subscription, output }) => match &subscription {
                Some(name) => output.lines(Method::GET, &path(name, &["events", &id])).await?,
                None => {
                    let answer = output.ask(Method::GET, &["pipeline", "events", &id], None).await?;
                    super::print_json(&answer)?;
                }
            },
            Action::User(UserArgs { name, user, output }) => {
                output.lines(Method::GET, &path(&name, &["users", &user])).await?;
            }
            Action::DeadLetters(args) => args.run().await?,
            Action::DeadLetter(args) => args.run().await?,
            Action::Replay(args) => args.run("replay").await?,
            Action::Discard(args) => args.run("discard").await?,
            Action::Rebuild(output) => output.lines(Method::POST, &["pipeline", "rebuild"]).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl PauseArgs {
    async fn run(&self, verb: &str) -> anyhow::Result<()> {
        let path = match &self.user {
            Some(user) => path(&self.name, &["users", user, verb]),
            None => path(&self.name, &[verb]),
        };
        self.output.lines(Method::POST, &path).await
    }
}

impl StatusArgs {
    async fn show(&self) -> anyhow::Result<()> {
        let path = match &self.name {
            Some(name) => path(name, &["status"]),
            None => vec!["pipeline", "status"],
        };
        self.output.lines(Method::GET, &path).await
    }
}

impl Output {
    async fn ask(&self, method: Method, path: &[&str], body: Option<&Value>) -> anyhow::Result<Value> {
        send(&self.address, method, path, body).await
    }

    /// Asks, and shows the fields of the answer, one a line.
    async fn lines(&self, method: Method, path: &[&str]) -> anyhow::Result<()> {
        let answer = self.ask(method, path, None).await?;
        self.show(&answer, render::in_lines)
    }

    /// Shows an answer as JSON, or in this form.
    fn show(&self, answer: &Value, render: impl FnOnce(&Value, Style) -> String) -> anyhow::Result<()> {
        if self.json {
            super::print_json(answer)?;
        } else {
            super::print(&render(answer, Style::stdout()))?;
        }
        Ok(())
    }
}
