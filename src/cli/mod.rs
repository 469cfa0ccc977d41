//! The command line: one file per command.
//!
//! The commands of the server side (`dev`, `serve`, `migrate`) only read their
//! settings here; [`crate::server`] runs them. The others are clients: they
//! know the protocol and an address, and nothing of the service's inside.

pub mod analyst;
pub mod audit;
pub mod bench;
pub mod connection;
pub mod demo;
pub mod events;
pub mod load;
pub mod moment;
pub mod paint;
pub mod plot;
pub mod sample;
pub mod segments;
pub mod send;
pub mod service;
pub mod settings;
pub mod stats;
pub mod table;
pub mod token;
pub mod top;
pub mod users;
pub mod watch;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::clickhouse::engine::ChildArgs;

/// The exit code when the question was answered with "no": some lines were
/// rejected, or there is no such event, or an hour is not known to be right.
pub const EXIT_NEGATIVE: u8 = 1;
/// The exit code when a command could not do its work; also of a wrong command
/// line.
pub const EXIT_FAILURE: u8 = 2;
/// The exit code after Ctrl-C: 128 and the signal's number, as shells have it.
pub const EXIT_INTERRUPTED: u8 = 130;

/// Exact event counting on ClickHouse: every event id is counted once.
#[derive(Parser)]
#[command(
    name = "tallyhouse",
    version,
    after_help = "Start with `tallyhouse dev`, and then, in another terminal, `tallyhouse demo`."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Run a service with an embedded ClickHouse on this machine.
    ///
    /// Everything listens on loopback, there is no authentication (unless a
    /// setting names keys), and the organisation is `default`. The settings are listed by `--help`.
    Dev(Box<service::ServiceArgs>),
    /// Run the service against a ClickHouse server.
    Serve(Box<service::ServiceArgs>),
    /// Bring the tables of a ClickHouse server up to date, and stop.
    Migrate(Box<service::ServiceArgs>),
    /// Print every setting of the service as a page of Markdown.
    Settings(settings::SettingsArgs),
    /// Make a token, for development.
    ///
    /// Signed with the secret of the settings (auth_hs256_secret), or with a
    /// private key in a PEM file. Shown with every request by the commands that
    /// take --token, or TALLYHOUSE_TOKEN.
    Token(Box<token::TokenArgs>),
    /// Print as whom an analyst reads by SQL.
    ///
    /// Of an organisation: who sees the rows of that one only, in the database
    /// tallyhouse_org. Without: who sees all, in tallyhouse_analytics. The user is
    /// one of the embedded ClickHouse; with --sql, the statements are printed that
    /// make it on a server of your own.
    Analyst(Box<analyst::AnalystArgs>),
    /// Measure speed and memory, each against ClickHouse alone.
    ///
    /// Load generator, service and embedded ClickHouse all run on this machine,
    /// in one run. Machines differ and are shared: compare the ratios.
    Bench(bench::BenchArgs),
    /// A command for a running service.
    #[command(flatten)]
    Client(ClientCommand),
    /// The embedded engine's own process, started by `dev`.
    #[command(hide = true)]
    Engine(ChildArgs),
}

/// A command for a running service. What is said here is the help; what is
/// said at the arguments' types is not shown.
#[derive(Subcommand)]
pub enum ClientCommand {
    /// Fill a service with a realistic sample and look at it.
    ///
    /// The sample is a day of twenty campaigns up to now, with everything that
    /// real producers do: repeated, contradicted, late and bad events. It is
    /// written to a file, sent as `send` does, and counted again.
    Demo(demo::DemoArgs),
    /// Send events from an NDJSON file or from standard input.
    ///
    /// Each line is one JSON object: event_id, type (or event_type),
    /// campaign_id, creative_id, source, user_id, occurred_at (or timestamp;
    /// RFC 3339), seq, metadata (or properties: an object). Other fields are ignored, blank lines skipped. A line that
    /// is no event is reported, and the others go on.
    ///
    /// Sending is safe to repeat: what was counted before is answered
    /// "duplicate". After any failure, send the same file again.
    Send(send::SendArgs),
    /// Show a campaign's impressions and clicks over time.
    ///
    /// Without a window: of the last hour.
    Stats(stats::StatsArgs),
    /// Rank users or campaigns by their events.
    ///
    /// Without a window: of the last 24 hours.
    Top(top::TopArgs),
    /// Count users.
    Users(users::UsersArgs),
    /// Count the different users of each day; short for `users daily`.
    ///
    /// Without a window: of the last 7 days. A window is taken outwards to
    /// whole days of UTC.
    Dau(users::DailyArgs),
    /// List stored events, newest first.
    ///
    /// With --json the output is NDJSON as `tallyhouse send` reads it, so
    /// `tallyhouse events --follow-pages --json` is also a way to take events
    /// from one house to another.
    Events(events::EventsArgs),
    /// Show one stored event.
    ///
    /// Exit codes: 0 there it is, 1 there is none of this id, 2 failure.
    Event(events::EventArgs),
    /// Load a directory of files: organisations, users, metrics and events.
    ///
    /// The files are those of `samples/`: organizations.csv, users.csv, user_orgs.csv, metrics.csv and events.ndjson.
    /// Any of them may be missing. Loading is safe to repeat.
    Load(Box<load::LoadArgs>),
    /// Follow the verdicts as they are made, until Ctrl-C.
    Watch(watch::WatchArgs),
    /// Compare what was counted with the events, hour by hour.
    ///
    /// Without a window: of the last 24 hours that are over. A window is taken
    /// outwards to whole hours of UTC. With --repair, counts that are wrong
    /// are made right.
    ///
    /// Exit codes: 0 everything is right, or has been repaired; 1 something is
    /// wrong, or could not be judged; 2 failure.
    Audit(audit::AuditArgs),
    /// Show what of the log is not in ClickHouse yet, or retry what it refused.
    Segments(segments::SegmentsArgs),
}

impl ClientCommand {
    /// Runs the command to its end.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Demo(args) => args.run().await,
            Self::Send(args) => args.run().await,
            Self::Stats(args) => args.run().await,
            Self::Top(args) => args.run().await,
            Self::Users(args) => args.run().await,
            Self::Dau(args) => args.run().await,
            Self::Events(args) => args.run().await,
            Self::Load(args) => args.run().await,
            Self::Event(args) => args.run().await,
            Self::Watch(args) => args.run().await,
            Self::Audit(args) => args.run().await,
            Self::Segments(args) => args.run().await,
        }
    }
}

/// Standard output did not take what was written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Whoever read it has had enough (`| head`), which is no failure.
    #[error("nobody reads the output any more")]
    Closed,
    /// Anything else, such as a full disk.
    #[error("cannot write the output: {0}")]
    Failed(io::Error),
}

/// Writes to standard output. (`print!` would panic when it is closed.)
pub(crate) fn print(text: &str) -> Result<(), OutputError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => OutputError::Closed,
        _ => OutputError::Failed(error),
    })
}

/// Writes a value to standard output as JSON for scripts.
pub(crate) fn print_json(value: &serde_json::Value) -> Result<(), OutputError> {
    print(&format!("{value:#}\n"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_commands_do_not_contradict_themselves() {
        Cli::command().debug_assert();
    }
}
