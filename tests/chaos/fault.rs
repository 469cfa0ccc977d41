//! What can go wrong on a fault scenario, and how often it has.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// A fault, with what the seed decided about it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// SIGKILL, so long after an insert was handed to the engine, or at once.
    Kill { service: bool, engine: bool, in_insert_micros: Option<u64> },
    /// SIGTERM to the service in the middle of the work: it must end well.
    StopService,
    /// SIGSTOP to the engine, until so many inserts were sent again.
    StallEngine { repeats: u64 },
    /// Something happens to the next insert on its way.
    Insert(InsertFault),
    /// The next look-up of late events fails.
    LookUp { cut: bool },
    /// The service is killed and its id ledger is gone, and ClickHouse's answers are cut while the next
    /// run rebuilds it.
    CutFill,
    /// The service is killed, and its id ledger is damaged.
    DamageLedger { how: LedgerDamage },
    /// The disk of the log has only so many bytes left for a while.
    FullDisk { left: u64 },
    /// The service is killed, and its log ends in what a crash may leave.
    TearLog { how: Tear },
    /// The service is killed, and a bit of an acknowledged frame of a sealed
    /// segment flips.
    FlipSealed,
    /// The same in the segment that was written to.
    FlipOpen,
    /// ClickHouse fails in an insert: when a table (of [`TABLES`]) has noted the
    /// block's token, and does not have the block yet.
    FailPart { table: usize },
    /// No fault: somebody audits and repairs while all this goes on.
    Audit,
    /// The service's wall clock steps while it runs.
    StepClock { seconds: i64 },
    /// The service's wall clock jumps by so many days, and is soon put right.
    JumpClock { days: i64 },
    /// The service is killed, and its next run begins at another time.
    StepClockBetweenRuns { seconds: i64 },
}

/// The tables that an insert reaches.
pub(crate) const TABLES: [&str; 5] = ["events", "campaign_minutes", "type_hours", "user_days", "user_minutes"];

/// What happens to an insert on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) enum InsertFault {
    /// It is done, and the answer never comes; the connection is cut, or held
    /// until the service gives up.
    LoseAnswer { hold: bool },
    /// The connection is cut after this share of the request, in percent.
    CutRequest { percent: u64 },
    /// It is done, and the answer is cut in the middle.
    CutAnswer,
    /// It is answered with an error, after it was done or instead.
    Refuse { code: u32, done: bool },
    /// It is done, and done once more when nobody expects it.
    Repeat,
}

/// How an id ledger is damaged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LedgerDamage {
    /// A bit of a run flips.
    FlipRun,
    /// A run ends too early.
    CutRun,
    /// A run is missing.
    RemoveRun,
    /// The manifest is missing.
    RemoveManifest,
    /// All of it is missing.
    RemoveAll,
    /// A bit of a segment that is kept for the ledger alone flips.
    FlipStored,
}

impl LedgerDamage {
    pub(crate) const ALL: [Self; 6] =
        [Self::FlipRun, Self::CutRun, Self::RemoveRun, Self::RemoveManifest, Self::RemoveAll, Self::FlipStored];
}

/// What a crash may leave behind the last good frame.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tear {
    Garbage,
    Zeros,
    HalfFrame,
    FlippedFrame,
    /// A new segment whose header is not all there.
    HalfHeader,
}

/// Declares the things that are counted, with their names in reports.
macro_rules! kinds {
    ($($kind:ident $name:literal),+ $(,)?) => {
        /// A kind of fault, or of what faults lead to.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Kind { $($kind),+ }

        impl Kind {
            pub(crate) const ALL: &[Self] = &[$(Self::$kind),+];

            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name),+ }
            }
        }
    };
}

kinds! {
    KillService "kill-service",
    KillEngine "kill-engine",
    KillBoth "kill-both",
    KillServiceInInsert "kill-service-in-insert",
    KillEngineInInsert "kill-engine-in-insert",
    KillBothInInsert "kill-both-in-insert",
    StopService "stop-service",
    StallEngine "stall-engine",
    LoseAnswer "lose-answer",
    HoldAnswer "hold-answer",
    CutRequest "cut-request",
    CutAnswer "cut-answer",
    TooManyParts "too-many-parts",
    TooManyPartsDone "too-many-parts-done",
    MemoryLimit "memory-limit",
    MemoryLimitDone "memory-limit-done",
    RepeatInsert "repeat-insert",
    FailPart "fail-part",
    LookUpFails "look-up-fails",
    CutFill "cut-fill",
    DamageLedger "damage-ledger",
    FlipStored "flip-stored",
    FullDisk "full-disk",
    TearLog "tear-log",
    FlipSealed "flip-sealed",
    FlipOpen "flip-open",
    ClockBack "clock-back",
    ClockForward "clock-forward",
    ClockJump "clock-jump",
    ClockBackBetweenRuns "clock-back-between-runs",
    ClockForwardBetweenRuns "clock-forward-between-runs",
    CutProducer "cut-producer",
    Audit "audit",
    // What follows is not injected but reached.
    LogFull "(log full)",
    IndexFull "(index full)",
    LookUp "(look-up)",
    InsertTimeOut "(insert time-out)",
    Settled "(settled)",
    LostBlock "(lost block)",
    DiskRefused "(disk refused)",
    Undecided "(undecided)",
    LedgerRebuilt "(ledger rebuilt)",
    LedgerRepaired "(ledger repaired)",
    AnotherTime "(another time)",
    ConcurrentDuplicate "(concurrent duplicate)",
}

/// Counts kinds.
pub(crate) struct Tally {
    counts: [AtomicU64; Kind::ALL.len()],
}

impl Default for Tally {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl Tally {
    pub(crate) fn add(&self, kind: Kind) {
        self.add_many(kind, 1);
    }

    pub(crate) fn add_many(&self, kind: Kind, count: u64) {
        self.counts[kind as usize].fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn of(&self, kind: Kind) -> u64 {
        self.counts[kind as usize].load(Ordering::Relaxed)
    }

    /// Adds another's counts.
    pub(crate) fn absorb(&self, other: &Self) {
        for kind in Kind::ALL {
            self.add_many(*kind, other.of(*kind));
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut space = "";
        for kind in Kind::ALL {
            let count = self.of(*kind);
            if count > 0 {
                let times = if count > 1 { format!("×{count}") } else { String::new() };
                write!(f, "{space}{}{times}", kind.name())?;
                space = " ";
            }
        }
        Ok(())
    }
}
