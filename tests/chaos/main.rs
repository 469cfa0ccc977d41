//! `tallyhouse-chaos`: seeded fault scenarios of the real service and a real
//! ClickHouse, and whether the promise was kept on them. See `docs/chaos.md`.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test says so by failing"
)]

mod check;
mod clock;
mod counts;
mod disk;
mod event;
mod fault;
mod faults;
mod http;
mod ledger_files;
mod log_files;
mod oracle;
mod plan;
mod producer;
mod proxy;
mod scenario;
mod service;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use fault::{Kind, Tally};
use scenario::Report;

/// Together these reached every kind of fault, each at least twice. (When a
/// fault comes too early or too late to do harm is a matter of timing, so only
/// long runs insist.)
const SEEDS: [u64; 15] = [3, 16, 30, 31, 32, 35, 112, 114, 130, 166, 171, 177, 235, 239, 275];
/// A run of so many seeds must have reached every kind of fault.
const SEEDS_FOR_ALL_KINDS: usize = 100;

/// What to do.
struct Args {
    seeds: Vec<u64>,
    jobs: usize,
    /// Where the days have their directories.
    room: PathBuf,
    /// When days begin, in milliseconds since 1970.
    begins_at: i64,
    must_reach_all: bool,
}

impl Args {
    /// Reads the command line; none when another test was asked for.
    fn read(mut words: impl Iterator<Item = String>) -> Result<Option<Self>> {
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
        let (mut from, mut count, mut only) = (1_u64, None, Vec::new());
        let (mut jobs, mut begins_at) = (2, now - now % 60_000);
        let mut room = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} wants a value"));
            match word.as_str() {
                "--seed" => only.push(value()?.parse()?),
                "--seeds" => count = Some(value()?.parse::<usize>()?),
                "--from" => from = value()?.parse()?,
                "--jobs" => jobs = value()?.parse()?,
                "--dir" => room = value()?.into(),
                "--now" => {
                    let time = OffsetDateTime::parse(&value()?, &Rfc3339)?;
                    begins_at = i64::try_from(time.unix_timestamp_nanos() / 1_000_000)?;
                }
                "--list" => return Ok(None),
                // What the usual test harness takes, and `cargo test` may pass on.
                "--nocapture" | "--quiet" | "-q" | "--show-output" | "--include-ignored" | "--exact" => {}
                flag if flag.starts_with("--test-threads=") || flag.starts_with("--color=") => {}
                "--test-threads" | "--color" | "--skip" => _ = value()?,
                "--ignored" => return Ok(None),
                flag if flag.starts_with('-') => bail!("unknown: {flag}"),
                name if "chaos".contains(name) => {}
                _ => return Ok(None),
            }
        }
        let (seeds, must_reach_all) = match (only.is_empty(), count) {
            (false, _) => (only, false),
            (true, Some(count)) => ((from..).take(count).collect(), count >= SEEDS_FOR_ALL_KINDS),
            (true, None) => (SEEDS.into_iter().chain([rand::random::<u64>() >> 32]).collect(), false),
        };
        Ok(Some(Self { seeds, jobs, room, begins_at, must_reach_all }))
    }
}

fn main() -> ExitCode {
    let ran = Args::read(std::env::args().skip(1)).and_then(|args| match args {
        Some(args) => tokio::runtime::Runtime::new()?.block_on(run(args)),
        None => Ok(true),
    });
    match ran {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs all seeds, some at a time, and says whether all was well.
async fn run(args: Args) -> Result<bool> {
    let begun = Instant::now();
    let dir = tempfile::tempdir_in(&args.room)?;
    let clock = clock::build(dir.path())?;
    let count = args.seeds.len();
    let places = Arc::new(Semaphore::new(args.jobs));
    let mut days = JoinSet::new();
    for seed in args.seeds {
        let (places, room, clock) = (Arc::clone(&places), args.room.clone(), clock.clone());
        days.spawn(async move {
            let _place = places.acquire().await?;
            scenario::live(seed, args.begins_at, &room, &clock).await.with_context(|| format!("seed {seed}"))
        });
    }
    let (total, mut failed) = (Tally::default(), Vec::new());
    while let Some(day) = days.join_next().await {
        let report = day.context("the simulator failed")??;
        total.absorb(&report.tally);
        print_day(&report, args.begins_at);
        if !report.faults.is_empty() {
            failed.push(report.seed);
        }
    }
    let missing = print_coverage(&total);
    let took = begun.elapsed();
    println!("{count} seeds, {} failed, {took:.0?}, {:.1?} a seed", failed.len(), took / count.max(1) as u32);
    if !failed.is_empty() {
        println!("FAILED: {failed:?}");
    }
    let unreached = args.must_reach_all && !missing.is_empty();
    if unreached {
        println!("FAILED: these were never reached: {}", missing.join(", "));
    }
    Ok(failed.is_empty() && !unreached)
}

fn print_day(report: &Report, begins_at: i64) {
    let Report { seed, tally, took, figures, faults, kept } = report;
    let state = if faults.is_empty() { "ok" } else { "FAILED" };
    println!("seed {seed} [{tally}] {figures} {:.1} s {state}", took.as_secs_f32());
    for fault in faults {
        println!("    {fault}");
    }
    if let Some(kept) = kept {
        let profile = if cfg!(debug_assertions) { "" } else { "--release " };
        let now = event::rfc3339(begins_at);
        println!("    again: cargo test {profile}--test chaos -- --seed {seed} --now {now}");
        println!("    kept: {}", kept.display());
    }
}

/// Prints how often each kind was reached, and returns those that never were. (The
/// moment in which a block is lost is too short to be met in every hundred days.)
fn print_coverage(total: &Tally) -> Vec<&'static str> {
    let reached: Vec<String> = Kind::ALL.iter().map(|kind| format!("{} {}", kind.name(), total.of(*kind))).collect();
    println!("reached: {}", reached.join(", "));
    let is_missing = |kind: &&Kind| **kind != Kind::LostBlock && total.of(**kind) == 0;
    Kind::ALL.iter().filter(is_missing).map(|kind| kind.name()).collect()
}
