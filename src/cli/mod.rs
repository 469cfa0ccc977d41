//! The command line: one file per command.
//!
//! The server commands (`dev`, `serve`, `migrate`) only read their settings here; [`crate::server`] runs
//! them. The others are clients: they use the protocol and an address, and do not depend on the
//! service's internals.

pub mod analyst;
pub mod audit;
pub mod bench;
pub mod connection;
pub mod demo;
pub mod events;
pub mod load;
mod repairs;
pub mod sample;
pub mod segments;
pub mod send;
pub mod service;
pub mod settings;
pub mod shows;
pub mod sparkline;
pub mod stats;
pub mod style;
pub mod table;
pub mod time_args;
pub mod token;
pub mod top;
pub mod users;
pub mod watch;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

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
    /// setting names keys), and the organization is `default`. The settings are listed by `--help`.
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
    /// Of an organization: who sees the rows of that one only, in the database
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
    /// RFC 3339), seq, metadata (or properties: an object). Other fields are not stored: the summary
    /// lists them, and --strict rejects their lines. Blank lines are skipped. A line that
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
    /// Load a directory of files: organizations, users, metrics and events.
    ///
    /// The files are those of `samples/`: organizations.csv, users.csv, user_orgs.csv, metrics.csv and events.ndjson.
    /// Any of them may be missing. Loading is safe to repeat.
    Load(Box<load::LoadArgs>),
    /// Follow the verdicts as they are made, until Ctrl-C.
    Watch(watch::WatchArgs),
    /// Compare what was counted with the events, hour by hour.
    ///
    /// Without a window: of the last 24 hours that are over. A window is taken
    /// outwards to whole hours of UTC. With --repair it is shown what a repair
    /// would change, and with --confirm as well it is changed: what the rollups
    /// lack is added, and what is shown to have been counted twice is taken away.
    /// `audit repairs` lists what was repaired, `audit undo` takes a repair back.
    ///
    /// Exit codes: 0 everything is right, or has been repaired; 1 something is
    /// wrong, or could not be judged; 2 failure.
    Audit(audit::AuditArgs),
    /// Show what of the log is not in ClickHouse yet, or retry what it refused.
    Segments(segments::SegmentsArgs),
    /// Create, publish, cancel and list the events of the ticketing catalogue.
    ///
    /// Requires a token of one of its administrators (--token or
    /// TALLYHOUSE_TOKEN). `tallyhouse dev` prints one.
    Shows(shows::ShowsArgs),
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
            Self::Shows(args) => args.run().await,
        }
    }
}

/// The settings of the service that these commands are about. Their help leaves the others out.
const SETTINGS_SHOWN: [(&str, &[&str]); 3] = [
    ("token", &["auth_hs256_secret", "auth_issuer", "auth_audience"]),
    ("load", &["auth_hs256_secret", "auth_issuer", "auth_audience"]),
    ("analyst", &["data_dir", "clickhouse_database", "analyst_orgs"]),
];
/// What the help of these commands says of the settings that it leaves out.
const SETTINGS_HIDDEN: &str = "All settings of the service are read here as well; `tallyhouse settings` lists them.";

/// Reads the command line. Ends the program where clap does: after a help text, and on a wrong command line.
pub fn parse() -> Cli {
    let matches = command().get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// All commands, with help texts that show what each is about.
fn command() -> clap::Command {
    SETTINGS_SHOWN.into_iter().fold(Cli::command(), |command, (name, shown)| {
        command.mut_subcommand(name, |subcommand| {
            let is_hidden =
                |arg: &clap::Arg| arg.get_help_heading() == Some("Settings") && !shown.contains(&arg.get_id().as_str());
            let subcommand = subcommand.mut_args(|arg| if is_hidden(&arg) { arg.hide(true) } else { arg });
            subcommand.after_help(SETTINGS_HIDDEN)
        })
    })
}

/// An error with its causes, each said once: many say what caused them in their own words.
pub fn in_words(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string).filter(|cause| !cause.is_empty()) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
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
    use super::*;

    #[test]
    fn the_help_of_a_command_shows_the_settings_it_is_about() {
        for (name, shown) in SETTINGS_SHOWN {
            let mut commands = command();
            let command = commands.find_subcommand_mut(name).unwrap();
            let help = command.render_long_help().to_string();
            assert!(help.lines().count() < 90, "{name}: {} lines", help.lines().count());
            for setting in shown {
                assert!(help.contains(&setting.replace('_', "-")), "{name}: {setting}");
            }
            assert!(!help.contains("segment-rows-max") && help.contains("tallyhouse settings"), "{help}");
        }
        let mut commands = command();
        let help = commands.find_subcommand_mut("serve").unwrap().render_long_help().to_string();
        assert!(help.contains("segment-rows-max"), "the service's own command shows all");
    }

    #[test]
    fn a_cause_is_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot listen: {source}")]
        struct Listen {
            source: io::Error,
        }
        let listen = || Listen { source: io::Error::other("the port is taken") };
        assert_eq!(in_words(&listen().into()), "cannot listen: the port is taken");
        let error = anyhow::Error::from(io::Error::other("disk full")).context("cannot write");
        assert_eq!(in_words(&error), "cannot write: disk full");
        assert_eq!(
            in_words(&anyhow::Error::from(listen()).context("no start")),
            "no start: cannot listen: the port is taken"
        );
    }

    #[test]
    fn the_commands_do_not_contradict_themselves() {
        command().debug_assert();
    }
}
