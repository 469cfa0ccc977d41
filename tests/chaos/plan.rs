//! A fault scenario, planned: everything random comes from the seed.
//!
//! What happens then still depends on how threads and processes are scheduled,
//! so a seed names a kind of day rather than one course of events. Faults are
//! tied to the progress of the work, which keeps repetitions close.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::event::Draft;
use crate::fault::{Fault, InsertFault, LedgerDamage, TABLES, Tear};
use crate::workload::{self, Script};

/// Everything about one day.
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// When the service's clock begins, in milliseconds since 1970.
    pub(crate) begins_at: i64,
    /// The service's settings, as environment variables.
    pub(crate) settings: Vec<(&'static str, String)>,
    /// Size of the disk of the log, in bytes; none: it shares this machine's.
    pub(crate) log_disk_bytes: Option<u64>,
    /// Every event that is ever sent.
    pub(crate) drafts: Vec<Draft>,
    /// What each producer sends.
    pub(crate) scripts: Vec<Script>,
    /// What goes wrong, in order, each once so many events have been settled.
    pub(crate) faults: Vec<(u64, Fault)>,
    /// In the end, the service is started anew and everything is sent again.
    pub(crate) is_sent_again: bool,
}

impl Plan {
    pub(crate) fn of(seed: u64, begins_at: i64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let own_disk = random.random_bool(0.15);
        let small_index = random.random_bool(0.3);
        let small_log = !own_disk && random.random_bool(0.1);
        let made = workload::make(&mut random, begins_at, small_index, 0);
        // Drawn apart: the faults of a seed are what they were before there were scattered events.
        let mut apart = StdRng::seed_from_u64(seed ^ 0xDA15);
        let scattered_days = if apart.random_bool(0.12) { apart.random_range(20..60) } else { 0 };
        let (drafts, scripts) = match scattered_days {
            0 => made,
            days => workload::make(&mut apart, begins_at, small_index, days),
        };
        let sends = scripts.iter().map(Script::sends).sum::<usize>() as u64;
        let mut settings = settings(&mut random, small_index, small_log);
        if scattered_days > 0 {
            // An insert writes a part for each day.
            settings.push(("TALLYHOUSE_INSERT_WAIT_MS_MAX", "5000".to_owned()));
        }
        let mut faults = faults(&mut random, sends, own_disk, small_index);
        // Drawn apart: the other faults of a seed are what they were before there was this one.
        let mut apart = StdRng::seed_from_u64(seed ^ 0xFA11);
        if apart.random_bool(0.15) {
            let table = apart.random_range(0..TABLES.len());
            faults.push((moment(&mut apart, sends), Fault::FailPart { table }));
            faults.sort_by_key(|(at, _)| *at);
        }
        let mut apart = StdRng::seed_from_u64(seed ^ 0xC10C);
        if apart.random_bool(0.15) {
            let days = [800, 30, -30][apart.random_range(0..3)];
            faults.push((moment(&mut apart, sends), Fault::JumpClock { days }));
            faults.sort_by_key(|(at, _)| *at);
        }
        let mut apart = StdRng::seed_from_u64(seed ^ 0x1ED6);
        settings.extend([
            ("TALLYHOUSE_LEDGER_WRITE_MS_MAX", ["10", "60", "60000"][apart.random_range(0..3)].to_owned()),
            ("TALLYHOUSE_LEDGER_RETAINED_BYTES_MAX", ["0", "100000", "268435456"][apart.random_range(0..3)].to_owned()),
        ]);
        for _ in 0..2 {
            if apart.random_bool(0.25) {
                let how = LedgerDamage::ALL[apart.random_range(0..LedgerDamage::ALL.len())];
                faults.push((moment(&mut apart, sends), Fault::DamageLedger { how }));
                faults.sort_by_key(|(at, _)| *at);
            }
        }
        let log_disk_bytes = own_disk.then_some(16 << 20);
        let is_sent_again = random.random_bool(0.25);
        Self { seed, begins_at, settings, log_disk_bytes, drafts, scripts, faults, is_sent_again }
    }
}

fn settings(random: &mut StdRng, small_index: bool, small_log: bool) -> Vec<(&'static str, String)> {
    let mut one_of = |values: &[u64]| values[random.random_range(0..values.len())].to_string();
    vec![
        ("TALLYHOUSE_RETENTION_DAYS", workload::RETENTION_DAYS.to_string()),
        ("TALLYHOUSE_BATCH_EVENTS_MAX", workload::BATCH_EVENTS_MAX.to_string()),
        ("TALLYHOUSE_INDEX_IDS_MAX", one_of(if small_index { &[1_000, 1_300] } else { &[50_000] })),
        ("TALLYHOUSE_LOG_BYTES_MAX", one_of(if small_log { &[30_000, 60_000] } else { &[100_000_000] })),
        ("TALLYHOUSE_LOG_FREE_BYTES_MIN", "0".to_owned()),
        ("TALLYHOUSE_SEGMENT_ROWS_MAX", one_of(&[50, 200, 1_000, 100_000])),
        ("TALLYHOUSE_SEGMENT_LINGER_MS", one_of(&[5, 20, 60])),
        ("TALLYHOUSE_STREAM_BATCHES_IN_FLIGHT_MAX", one_of(&[2, 8, 32])),
        ("TALLYHOUSE_INSERTS_IN_FLIGHT_MAX", one_of(&[1, 2, 3])),
        ("TALLYHOUSE_INSERT_WAIT_MS_MAX", one_of(&[800, 1_200])),
        ("TALLYHOUSE_INSERT_BACKOFF_MS_MIN", "5".to_owned()),
        ("TALLYHOUSE_INSERT_BACKOFF_MS_MAX", one_of(&[20, 100])),
        ("TALLYHOUSE_STORED_WAIT_MS_MAX", "2000".to_owned()),
        ("TALLYHOUSE_SHUTDOWN_WAIT_MS_MAX", "1500".to_owned()),
        ("TALLYHOUSE_QUERY_WAIT_MS_MAX", one_of(&[500, 10_000])),
        // A jump that is taken back must not be confirmed; steps of an hour are, soon.
        ("TALLYHOUSE_CLOCK_CONFIRM_SECONDS", "2".to_owned()),
        // The audit repairs in the background, and must find nothing to repair (but for a
        // part that failed).
        ("TALLYHOUSE_AUDIT_AFTER_MINUTES", "0".to_owned()),
        ("TALLYHOUSE_AUDIT_PAUSE_MS", one_of(&[1, 30, 60_000])),
        ("TALLYHOUSE_AUDIT_HOLD_MS_MAX", one_of(&[100, 2_000])),
    ]
}

/// Draws faults and the moments at which they happen.
fn faults(random: &mut StdRng, sends: u64, own_disk: bool, small_index: bool) -> Vec<(u64, Fault)> {
    let mut faults = Vec::new();
    for _ in 0..random.random_range(2..=4) {
        faults.push(of_processes(random, own_disk));
    }
    if random.random_bool(0.3) {
        faults.push(Fault::Audit);
    }
    for _ in 0..random.random_range(2..=6) {
        faults.push(Fault::Insert(of_inserts(random)));
    }
    if small_index {
        for _ in 0..2 {
            faults.push(Fault::LookUp { cut: random.random_bool(0.5) });
        }
    }
    if own_disk {
        faults.push(Fault::FullDisk { left: left(random) });
    }
    let mut planned: Vec<(u64, Fault)> = faults.into_iter().map(|fault| (moment(random, sends), fault)).collect();
    planned.sort_by_key(|(at, _)| *at);
    planned
}

/// Neither at once nor when nearly everything is over.
fn moment(random: &mut StdRng, sends: u64) -> u64 {
    random.random_range(sends / 20..sends * 19 / 20)
}

fn of_processes(random: &mut StdRng, own_disk: bool) -> Fault {
    match random.random_range(0..100) {
        0..40 => {
            let (service, engine) = [(true, false), (false, true), (true, true)][random.random_range(0..3)];
            let in_insert = random.random_bool(0.6);
            Fault::Kill { service, engine, in_insert_micros: in_insert.then(|| random.random_range(0..40_000)) }
        }
        40..45 => Fault::StopService,
        45..55 => Fault::StallEngine { repeats: random.random_range(0..3) },
        55..65 if own_disk => Fault::FullDisk { left: left(random) },
        55..67 => {
            let hows = [Tear::Garbage, Tear::Zeros, Tear::HalfFrame, Tear::FlippedFrame, Tear::HalfHeader];
            Fault::TearLog { how: hows[random.random_range(0..hows.len())] }
        }
        67..74 => Fault::FlipSealed,
        74..79 => Fault::FlipOpen,
        79..84 => Fault::CutFill,
        84..92 => Fault::StepClock { seconds: step(random) },
        _ => Fault::StepClockBetweenRuns { seconds: step(random) },
    }
}

/// Often nothing: then a write fails that seemed to have room.
fn left(random: &mut StdRng) -> u64 {
    random.random_range(0..8_000_u64).saturating_sub(5_000)
}

/// Up to an hour, either way.
fn step(random: &mut StdRng) -> i64 {
    let seconds = [1, 60, 3_600][random.random_range(0..3)];
    if random.random_bool(0.6) { -seconds } else { seconds }
}

fn of_inserts(random: &mut StdRng) -> InsertFault {
    match random.random_range(0..100) {
        0..20 => InsertFault::LoseAnswer { hold: random.random_bool(0.3) },
        20..35 => InsertFault::CutRequest { percent: random.random_range(0..100) },
        35..45 => InsertFault::CutAnswer,
        45..75 => {
            let code = [241, 252][random.random_range(0..2)];
            InsertFault::Refuse { code, done: random.random_bool(0.5) }
        }
        _ => InsertFault::Repeat,
    }
}
