//! Makes things go wrong, in the order of the plan, and mends them again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rustix::process::Signal;

use crate::fault::{Fault, Kind, LedgerDamage, TABLES, Tally, Tear};
use crate::oracle::Oracle;
use crate::plan::Plan;
use crate::producer::{Field, produce};
use crate::service::{LOOK_EVERY, PATIENCE, TestService};
use crate::workload::{BATCH_EVENTS_MAX, Batch, Door, HOUR, Script, YOUNGEST};
use crate::{ledger_files, log_files};

/// How long the clock stays where it has jumped to: less than it takes to confirm it.
const JUMP: Duration = Duration::from_millis(400);
const DAY_SECONDS: i64 = 86_400;
/// Longest a fault waits for the moment it is meant for.
const MOMENT_WAIT_MAX: Duration = Duration::from_millis(400);
/// Longest the engine is stopped, and the disk full.
const STALL_MAX: Duration = Duration::from_millis(4_000);
/// Longest an audit is waited for in the middle of the work.
const AUDIT_WAIT_MAX: Duration = Duration::from_secs(4);
/// Names of parts that are taken away, of each of a table's partitions.
const PARTS_TAKEN: u64 = 50;
/// What the service's log then says of the insert.
const RENAME_FAILED: &str = "in rename: Not a directory";

/// Injects the faults of a plan, each once the work has come so far. Afterwards
/// everything runs.
pub(crate) async fn inject(service: &mut TestService, plan: &Plan, field: &Arc<Field>) -> Result<()> {
    let random = StdRng::seed_from_u64(plan.seed ^ 0xFA17);
    let Field { oracle, tally, .. } = &**field;
    let mut injector = Injector { service, field, oracle, tally, random, begins_at: plan.begins_at };
    for (at, fault) in &plan.faults {
        oracle.settled(*at).await;
        injector.inject(*fault).await?;
    }
    Ok(())
}

struct Injector<'a> {
    service: &'a mut TestService,
    field: &'a Arc<Field>,
    oracle: &'a Oracle,
    tally: &'a Tally,
    random: StdRng,
    begins_at: i64,
}

impl Injector<'_> {
    async fn inject(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Kill { service, engine, in_insert_micros } => self.kill(service, engine, in_insert_micros).await,
            Fault::StopService => {
                self.service.stop().await?;
                self.tally.add(Kind::StopService);
                self.service.start().await
            }
            Fault::StallEngine { repeats } => self.stall(repeats).await,
            // These are counted when they have met their request.
            Fault::Insert(fault) => {
                self.service.proxy.arm_insert(fault);
                Ok(())
            }
            Fault::LookUp { cut } => {
                self.service.proxy.arm_look_up(cut);
                Ok(())
            }
            Fault::CutFill => {
                self.service.kill(true, false).await?;
                ledger_files::damage(&self.service.ledger_dir(), LedgerDamage::RemoveAll, &mut self.random)?;
                self.service.proxy.arm_fill();
                self.service.start().await
            }
            Fault::DamageLedger { how } => self.damage_ledger(how).await,
            Fault::Audit => {
                // Where the recent events lie.
                let to = self.begins_at - YOUNGEST;
                if self.service.audit(to - 2 * HOUR, to, AUDIT_WAIT_MAX).await? {
                    self.tally.add(Kind::Audit);
                }
                Ok(())
            }
            Fault::FullDisk { left } => self.fill_disk(left).await,
            Fault::TearLog { how } => self.tear(how).await,
            Fault::FlipSealed => self.flip("sealed", Kind::FlipSealed).await,
            Fault::FlipOpen => self.flip("open", Kind::FlipOpen).await,
            Fault::FailPart { table } => self.fail_part(TABLES[table]).await,
            Fault::StepClock { seconds } => {
                self.tally.add(if seconds < 0 { Kind::ClockBack } else { Kind::ClockForward });
                self.service.clock.step(seconds)
            }
            Fault::JumpClock { days } => {
                self.service.clock.step(days * DAY_SECONDS)?;
                tokio::time::sleep(JUMP).await; // The moment is the point.
                self.tally.add(Kind::ClockJump);
                self.service.clock.step(-days * DAY_SECONDS)
            }
            Fault::StepClockBetweenRuns { seconds } => {
                self.service.kill(true, false).await?;
                let kind = if seconds < 0 { Kind::ClockBackBetweenRuns } else { Kind::ClockForwardBetweenRuns };
                self.tally.add(kind);
                self.service.clock.step(seconds)?;
                self.service.start().await
            }
        }
    }

    /// The events are all there, so that nobody may be told anything that is not so, then or later.
    async fn damage_ledger(&mut self, how: LedgerDamage) -> Result<()> {
        self.service.kill(true, false).await?;
        let kind = if matches!(how, LedgerDamage::FlipStored) { Kind::FlipStored } else { Kind::DamageLedger };
        let is_damaged = if kind == Kind::FlipStored {
            log_files::flip(&self.service.log_dir(), "stored", &mut self.random)?.is_some()
        } else {
            ledger_files::damage(&self.service.ledger_dir(), how, &mut self.random)?
        };
        if is_damaged {
            self.tally.add(kind);
        }
        self.service.start().await
    }

    async fn kill(&mut self, service: bool, engine: bool, in_insert_micros: Option<u64>) -> Result<()> {
        let mut in_insert = false;
        if let Some(micros) = in_insert_micros {
            let mut inserts = self.service.proxy.inserts();
            inserts.mark_unchanged();
            in_insert = tokio::time::timeout(MOMENT_WAIT_MAX, inserts.changed()).await.is_ok();
            tokio::time::sleep(Duration::from_micros(micros)).await; // The moment is the point.
        }
        self.service.kill(service, engine).await?;
        self.tally.add(match (service, engine, in_insert) {
            (true, true, false) => Kind::KillBoth,
            (true, true, true) => Kind::KillBothInInsert,
            (true, false, false) => Kind::KillService,
            (true, false, true) => Kind::KillServiceInInsert,
            (false, _, false) => Kind::KillEngine,
            (false, _, true) => Kind::KillEngineInInsert,
        });
        if service { self.service.start().await } else { Ok(()) }
    }

    /// Stops the engine until so many inserts were sent again. With none, it
    /// goes on before any has been given up.
    async fn stall(&mut self, repeats: u64) -> Result<()> {
        let mut repeated = self.service.proxy.repeated();
        let until = *repeated.borrow_and_update() + repeats;
        self.service.signal_engine(Signal::STOP).await?;
        if repeats == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await; // Less than any time-out.
        } else {
            let _ = tokio::time::timeout(STALL_MAX, repeated.wait_for(|repeated| *repeated >= until)).await;
        }
        self.tally.add(Kind::StallEngine);
        self.service.signal_engine(Signal::CONT).await
    }

    /// Leaves the log's disk so few bytes, until the work has stood still for
    /// a moment. Meanwhile the engine takes nothing away.
    async fn fill_disk(&mut self, left: u64) -> Result<()> {
        let Some(disk) = &self.service.disk else { return Ok(()) };
        self.service.signal_engine(Signal::STOP).await?;
        let filling = disk.fill(left)?;
        self.tally.add(Kind::FullDisk);
        let mut before = u64::MAX;
        let _ = tokio::time::timeout(STALL_MAX, async {
            while before != self.oracle.progress() {
                before = self.oracle.progress();
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
        })
        .await;
        self.service.signal_engine(Signal::CONT).await?;
        drop(filling);
        Ok(())
    }

    /// Takes the names of the next parts of a table away until an insert has
    /// failed for it.
    async fn fail_part(&mut self, table: &str) -> Result<()> {
        let mut taken = Vec::new();
        for name in self.service.next_parts(table, PARTS_TAKEN).await? {
            // A part may have got its name meanwhile.
            if std::fs::File::create_new(&name).is_ok() {
                taken.push(name);
                self.service.is_to_be_repaired = true;
            }
        }
        let failed = async {
            while !self.service.stderr().contains(RENAME_FAILED) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let has_failed = tokio::time::timeout(MOMENT_WAIT_MAX, failed).await.is_ok();
        for name in &taken {
            std::fs::remove_file(name)?;
        }
        if has_failed {
            self.tally.add(Kind::FailPart);
        }
        Ok(())
    }

    async fn tear(&mut self, how: Tear) -> Result<()> {
        // The engine stands still, so that there is a log to harm.
        self.with_a_backlog().await?;
        let torn = log_files::tear(&self.service.log_dir(), how, &mut self.random)?;
        self.service.signal_engine(Signal::CONT).await?;
        self.service.start().await?;
        if let Some(torn) = torn {
            self.tally.add(Kind::TearLog);
            let kept = torn.with_extension("cut");
            ensure!(kept.exists(), "what was torn ({how:?}) was not cut off and kept");
            std::fs::remove_file(kept)?;
        }
        Ok(())
    }

    /// Stops the engine, lets the log grow for a moment, and kills the service.
    async fn with_a_backlog(&mut self) -> Result<()> {
        self.service.signal_engine(Signal::STOP).await?;
        let enough = self.oracle.progress() + 30;
        let _ = tokio::time::timeout(Duration::from_millis(250), self.oracle.settled(enough)).await;
        self.service.kill(true, false).await
    }

    /// A bit of an acknowledged frame flips, and nobody puts it right. The good frames must be stored without
    /// being asked for. The events of that frame are lost: they are sent again, and from then on everybody must
    /// be told the truth about them too.
    async fn flip(&mut self, state: &str, kind: Kind) -> Result<()> {
        self.with_a_backlog().await?;
        let flipped = log_files::flip(&self.service.log_dir(), state, &mut self.random)?;
        self.service.signal_engine(Signal::CONT).await?;
        let Some(flipped) = flipped else { return self.service.start().await };
        // A sealed segment may have been attempted: what is settled may be missing from a rollup.
        self.service.is_to_be_repaired |= state == "sealed";
        self.field.oracle.lost(flipped.lost.iter().cloned());
        self.service.start().await?;
        let kept = ["damaged", "cut"].map(|extension| flipped.path.with_extension(extension));
        ensure!(appears(&kept).await, "a damaged segment was not stored without its damaged frame, and kept");
        let drafts = self.field.drafts.iter().enumerate();
        let lost = drafts.filter(|(_, draft)| draft.flaw.is_none() && flipped.lost.contains(&draft.id));
        let lost: Vec<usize> = lost.map(|(position, _)| position).collect();
        let batch = |drafts: &[usize]| Batch { drafts: drafts.to_vec(), ..Batch::default() };
        let batches = lost.chunks(BATCH_EVENTS_MAX).map(batch).collect();
        let again = Script { door: Door::Unary, batches, pause: Duration::ZERO, cuts_after: None };
        produce(Arc::clone(self.field), again, self.service.address()).await;
        for file in kept {
            let _ = std::fs::remove_file(file); // One of them is not there.
        }
        self.tally.add(kind);
        Ok(())
    }
}

/// Waits for one of these files.
async fn appears(paths: &[PathBuf]) -> bool {
    let appeared = async {
        while !paths.iter().any(|path| path.exists()) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(PATIENCE, appeared).await.is_ok()
}
