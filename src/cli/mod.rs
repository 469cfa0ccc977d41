//! The command line: one file per command.
//!
//! The server commands (`dev`, `serve`, `migrate`) only read their settings here; [`crate::server`] runs
//! them. The others are clients: they use the protocol and an address, and do not depend on the
//! service's internals.

pub mod analyst;
pub mod audit;
pub mod backup;
pub mod connection;
pub mod deliveries;
pub mod demo;
pub mod doctor;
pub mod erase;
pub mod events;
pub mod generate;
pub mod load;
mod operator;
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
pub mod write_keys;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::clickhouse::engine::ChildArgs;

/// The exit code for a negative result: some lines were rejected, the event does not exist, or an
/// hour is not known to be right.
pub const EXIT_NEGATIVE: u8 = 1;
/// The exit code for a failure, and for an invalid command line.
pub const EXIT_FAILURE: u8 = 2;
/// The exit code after Ctrl-C: 128 and the signal's number, as in shells.
pub const EXIT_INTERRUPTED: u8 = 130;

/// Exact event counting on ClickHouse: every event id is counted once.
#[derive(Parser)]
#[command(
    name = "tallyhouse",
    version,
    after_help = "Start with `tallyhouse dev`, and then, in another terminal, `tallyhouse demo`."
)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The command.
#[derive(Subcommand)]
pub enum Command {
    /// Run a service with an embedded ClickHouse on this machine.
    ///
    /// The service listens on loopback. Without keys in the settings there is no authentication,
    /// and the organization is `default`. `--help` lists the settings.
    Dev(Box<service::ServiceArgs>),
    /// Run the service against a ClickHouse server.
    Serve(Box<service::ServiceArgs>),
    /// Bring the tables of a ClickHouse server up to date, and stop.
    Migrate(Box<service::ServiceArgs>),
    /// Print every setting of the service as a page of Markdown.
    Settings(settings::SettingsArgs),
    /// Create a token for development.
    ///
    /// The token is signed with the setting auth_hs256_secret, or with a private key in a PEM file.
    /// Pass it to other commands with --token or TALLYHOUSE_TOKEN.
    Token(Box<token::TokenArgs>),
    /// Print SQL credentials.
    ///
    /// With an organization: the user that reads the rows of that organization in the database
    /// tallyhouse_org. Without: the user that reads all rows in tallyhouse_analytics. The embedded
    /// ClickHouse has these users; for your own server, --sql prints the statements that create
    /// them.
    Analyst(Box<analyst::AnalystArgs>),
    /// Check a set-up, and say what is wrong and what to do.
    ///
    /// Reads the settings as `serve` does, and looks at the data directory, the
    /// disk, the clock, memory and limits, ports, keys, certificates and
    /// ClickHouse. A service may run meanwhile.
    ///
    /// Exit codes: 0 nothing is wrong, warnings included; 1 something is; 2 failure.
    Doctor(Box<doctor::DoctorArgs>),
    /// Back up the log, the service's keys and ClickHouse's tables, while the service runs.
    ///
    /// Run it where the data directory is, with the service's settings.
    Backup(Box<backup::BackupArgs>),
    /// Restore a backup into a new data directory and an empty ClickHouse.
    Restore(Box<backup::RestoreArgs>),
    /// Delete one user's data. Counts that are not by user stay as they are.
    ///
    /// The user's events lose their user and their properties; counts by user
    /// and what the directory knows of the user are deleted. Run it where the
    /// data directory is, with the service's settings.
    Erase(Box<erase::EraseArgs>),
    /// Print the completions of all commands for a shell.
    Completions(generate::CompletionsArgs),
    /// Print the manual page, or write the pages of all commands.
    Man(generate::ManArgs),
    /// A command for a running service.
    #[command(flatten)]
    Client(ClientCommand),
    /// The process of the embedded engine, started by `dev`.
    #[command(hide = true)]
    Engine(ChildArgs),
}

/// A command for a running service. The comments here are the help texts; those of the argument
/// types are not shown.
#[derive(Subcommand)]
pub enum ClientCommand {
    /// Send realistic sample events to a service and show the counts.
    ///
    /// The sample covers twenty campaigns over the last day, with duplicates, conflicts, late and
    /// invalid events. It is written to a file and sent as by `send`. Then the counts are compared
    /// with the file.
    Demo(demo::DemoArgs),
    /// Send events from an NDJSON file or from standard input.
    ///
    /// Each line is one JSON object: event_id, type (or event_type), campaign_id, creative_id,
    /// source, user_id, occurred_at (or timestamp; RFC 3339), seq, metadata (or properties: an
    /// object). Other fields are not stored: the summary lists them, and --strict rejects their
    /// lines. Blank lines are skipped. Invalid lines are reported, and the others are sent.
    ///
    /// It is safe to repeat the command: events that were counted before are answered as
    /// duplicates. After any failure, send the same file again.
    Send(send::SendArgs),
    /// Show a campaign's impressions and clicks over time.
    ///
    /// Default window: the last hour.
    Stats(stats::StatsArgs),
    /// Rank users or campaigns by number of events.
    ///
    /// Default window: the last 24 hours.
    Top(top::TopArgs),
    /// Count users.
    Users(users::UsersArgs),
    /// Count distinct users per day; short for `users daily`.
    ///
    /// Default window: the last 7 days. A window is extended to whole days in UTC.
    Dau(users::DailyArgs),
    /// List stored events, newest first.
    ///
    /// With --json the output is NDJSON as `tallyhouse send` reads it, so
    /// `tallyhouse events --follow-pages --json` is also a way to take events
    /// from one service to another.
    Events(events::EventsArgs),
    /// Show one stored event.
    ///
    /// Exit codes: 0 found, 1 no event with this id, 2 failure.
    Event(events::EventArgs),
    /// Load a directory of files: organizations, users, metrics and events.
    ///
    /// The files are those of `samples/`: organizations.csv, users.csv, user_orgs.csv, metrics.csv
    /// and events.ndjson. Any of them may be missing. It is safe to repeat the command.
    Load(Box<load::LoadArgs>),
    /// Show verdicts as they occur, until Ctrl-C.
    Watch(watch::WatchArgs),
    /// Compare the counts with the stored events, hour by hour.
    ///
    /// Default window: the last 24 full hours. A window is extended to whole hours in UTC. --repair
    /// shows what a repair would change. With --confirm as well, the repair adds missing counts and
    /// removes counts that are proven to be double. `audit repairs` lists repairs, `audit undo`
    /// undoes one.
    ///
    /// Exit codes: 0 all counts are right or were repaired; 1 some counts are wrong or could not be
    /// checked; 2 failure.
    Audit(audit::AuditArgs),
    /// Show what of the log is not in ClickHouse yet, or retry what it refused.
    Segments(segments::SegmentsArgs),
    /// Create, list or revoke write keys.
    ///
    /// A write key goes where a token cannot: into a page, or into the configuration of somebody else's library. It
    /// may only send events of its organization.
    WriteKeys(write_keys::WriteKeysArgs),
    /// Show how events are handed on, and rebuild what Redis has lost of it.
    Deliveries(deliveries::DeliveriesArgs),
    /// Create, publish, cancel and list the events of the ticketing catalogue.
    ///
    /// Requires a token of one of its administrators (--token or
    /// TALLYHOUSE_TOKEN). `tallyhouse dev` prints one.
    Shows(shows::ShowsArgs),
}

impl ClientCommand {
    /// Runs the command.
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
            Self::WriteKeys(args) => args.run().await,
            Self::Deliveries(args) => args.run().await,
            Self::Shows(args) => args.run().await,
        }
    }
}

/// The settings that these commands use. Their help shows no others.
const SETTINGS_SHOWN: [(&str, &[&str]); 7] = [
    ("token", &["auth_hs256_secret", "auth_issuer", "auth_audience"]),
    ("load", &["auth_hs256_secret", "auth_issuer", "auth_audience"]),
    ("analyst", &["data_dir", "clickhouse_database", "analyst_orgs"]),
    ("backup", OPERATOR_SETTINGS),
    ("restore", OPERATOR_SETTINGS),
    ("erase", OPERATOR_SETTINGS),
    ("doctor", &["data_dir", "clickhouse_url", "listen"]),
];
/// The settings by which the commands that work without a service find the log and ClickHouse.
const OPERATOR_SETTINGS: &[&str] =
    &["data_dir", "clickhouse_url", "clickhouse_user", "clickhouse_password", "clickhouse_database"];
/// The note on hidden settings in the help of these commands.
const SETTINGS_HIDDEN: &str = "All settings of the service are read here as well; `tallyhouse settings` lists them.";

/// Parses the command line. Exits after a help text and on an invalid command line, as clap does.
pub fn parse() -> Cli {
    let matches = command().get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// All commands, with help texts that show the relevant settings.
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

/// An error with its causes, each once: many errors include the text of their cause.
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

/// Standard output could not be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The reader has closed it (`| head`). Not a failure.
    #[error("the output was closed by its reader")]
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

/// Writes a value to standard output as JSON.
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
