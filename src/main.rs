//! The `tallyhouse` binary: parses the command line, starts telemetry, and runs the command.

use std::process::ExitCode;

use anyhow::Context;
use tallyhouse::cli::service;
use tallyhouse::cli::{self, Command};
use tallyhouse::clickhouse::engine::run_child;
use tallyhouse::config::Config;
use tallyhouse::telemetry;

/// Many short-lived allocations on many threads: mimalloc keeps the resident
/// memory of a long-running service flatter than the system's allocator does.
/// Without huge pages (`no_thp`): of these, half stays resident when half is freed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The allocator's option for how long it keeps what was freed before the
/// system gets it back, in milliseconds (`mi_option_purge_delay`, which the
/// crate has no name for).
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// A tenth of a second after the last use of a large block (mimalloc takes ten
/// times this for those). With its default of a second, a tenth of the memory
/// was still held for seconds after the index was filled.
const PURGE_DELAY_MILLIS: std::ffi::c_long = 10;

fn main() -> ExitCode {
    give_memory_back_soon();
    match run(cli::parse().command) {
        Ok(code) => code,
        Err(error) if matches!(error.downcast_ref(), Some(cli::OutputError::Closed)) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tallyhouse: {}", cli::in_words(&error));
            ExitCode::from(cli::EXIT_FAILURE)
        }
    }
}

#[allow(unsafe_code, reason = "the allocator is a C library")]
fn give_memory_back_soon() {
    // SAFETY: it stores a number; no other thread runs yet.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, PURGE_DELAY_MILLIS) }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        // A child process of `dev`: it must not inherit a runtime or telemetry.
        Command::Engine(args) => Ok(run_child(args)),
        Command::Settings(args) => args.run(),
        Command::Token(args) => args.run(),
        Command::Analyst(args) => args.run(),
        Command::Dev(args) => {
            let config = args.config()?;
            run_service(&config, service::dev(config.clone()))
        }
        Command::Serve(args) => {
            let config = args.config()?;
            run_service(&config, service::serve(config.clone()))
        }
        Command::Migrate(args) => {
            let config = args.config()?;
            run_service(&config, service::bring_up_to_date(config.clone()))
        }
        Command::Client(command) => run_client(command.run()),
    }
}

/// Runs a command that talks to a service to its end.
fn run_client(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let result = runtime.block_on(command);
    // A read of standard input may still be waiting; nobody wants it.
    runtime.shutdown_background();
    result
}

/// Runs a command of the server side to its end.
fn run_service<E>(config: &Config, service: impl Future<Output = Result<(), E>>) -> anyhow::Result<ExitCode>
where
    anyhow::Error: From<E>,
{
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let export = {
        let _within = runtime.enter();
        telemetry::start(config)?
    };
    let served = runtime.block_on(service);
    export.end();
    served?;
    Ok(ExitCode::SUCCESS)
}
