//! Measures the id ledger beside general key-value stores, in one run.
//!
//! Each store is asked for batches of ids, most of them new and random, and then given those that are
//! new: what ingest does. Afterwards batches of known ids are asked for. Processor time is that of the
//! whole process, background work included.

mod stores;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use stores::{Id, Store};

#[derive(Parser)]
struct Args {
    /// Ids that are stored before the measurement.
    #[arg(long, default_value_t = 100_000_000)]
    preload: u64,
    /// Ids of the measurement.
    #[arg(long, default_value_t = 5_000_000)]
    ids: u64,
    /// Ids of a batch.
    #[arg(long, default_value_t = 1_000)]
    batch: u64,
    /// One in so many ids of the measurement was seen before.
    #[arg(long, default_value_t = 100)]
    repeat_one_in: u64,
    /// Which stores: ledger, fjall, rocksdb.
    #[arg(long, value_delimiter = ',', default_value = "ledger,fjall")]
    stores: Vec<String>,
    /// Where the files go; a temporary directory otherwise.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// The id of a number: uniform bits, as a keyed hash has them.
fn id(n: u64) -> Id {
    SmallRng::seed_from_u64(n).random()
}

fn main() -> Result<()> {
    let args = Args::parse();
    println!("store    ids      ids/s     ids/s/core  batch p50 µs  p99 µs  known ids/s  bytes/id disk  memory MB");
    for name in &args.stores {
        let dir = tempfile::tempdir_in(args.dir.clone().unwrap_or_else(std::env::temp_dir))?;
        let store = stores::open(name, dir.path())?;
        measure(name, &*store, &args)?;
    }
    Ok(())
}

fn measure(name: &str, store: &dyn Store, args: &Args) -> Result<()> {
    for first in (0..args.preload).step_by(100_000) {
        let ids: Vec<Id> = (first..args.preload.min(first + 100_000)).map(id).collect();
        store.add(&ids)?;
    }
    store.settle()?;
    let mut random = SmallRng::seed_from_u64(1);
    let mut times = Histogram::<u64>::new(3)?;
    let (begun, processor) = (Instant::now(), processor_time());
    let mut next = args.preload;
    let mut left = args.ids;
    while left > 0 {
        let ids: Vec<Id> = (0..args.batch.min(left))
            .map(|_| {
                if next > 0 && random.random_range(0..args.repeat_one_in) == 0 {
                    return id(random.random_range(0..next));
                }
                next += 1;
                id(next - 1)
            })
            .collect();
        left -= ids.len() as u64;
        let asked = Instant::now();
        let known = store.known(&ids)?;
        let new: Vec<Id> = ids.iter().zip(known).filter(|(_, known)| !known).map(|(id, _)| *id).collect();
        store.add(&new)?;
        times.record(asked.elapsed().as_micros() as u64)?;
    }
    let (elapsed, used) = (begun.elapsed(), processor_time() - processor);
    let memory = memory_mb();
    let known_begun = Instant::now();
    let known = 200_000.min(next);
    for _ in 0..known / args.batch {
        let ids: Vec<Id> = (0..args.batch).map(|_| id(random.random_range(0..next))).collect();
        assert!(store.known(&ids)?.iter().all(|known| *known), "{name} has lost an id");
    }
    println!(
        "{name:8} {:>9} {:>9.0} {:>10.0} {:>10} {:>9} {:>12.0} {:>10.1} {:>10}",
        next,
        args.ids as f64 / elapsed.as_secs_f64(),
        args.ids as f64 / used.as_secs_f64(),
        times.value_at_quantile(0.5),
        times.value_at_quantile(0.99),
        known as f64 / known_begun.elapsed().as_secs_f64(),
        store.disk_bytes()? as f64 / next as f64,
        memory,
    );
    Ok(())
}

/// Time that all threads of this process have spent on processors.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks: u64 =
        stat.rsplit(") ").next().into_iter().flat_map(|rest| rest.split(' ').skip(11).take(2)).flat_map(str::parse::<u64>).sum();
    Duration::from_millis(ticks * 10)
}

fn memory_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or_default() / 1_024
}
