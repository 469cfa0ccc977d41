//! One fault scenario from its beginning to its judgement.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;

use crate::check::{check_places, check_verdicts, read_stored};
use crate::counts::{check_answers, check_rollups};
use crate::fault::{Kind, Tally};
use crate::faults::inject;
use crate::oracle::{Oracle, ReportedVerdict};
use crate::plan::Plan;
use crate::producer::{Field, produce};
use crate::service::TestService;
use crate::workload::{BATCH_EVENTS_MAX, Batch, Door, Script};

/// Longest a day may last. On an idle machine none takes a fifth of it.
const DAY_MAX: Duration = Duration::from_secs(300);
/// Most faults of the service that are told of one day.
const FAULTS_MAX: usize = 8;

/// What became of a day.
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) tally: Arc<Tally>,
    pub(crate) took: Duration,
    /// Events sent, different ids, and how many got which verdict.
    pub(crate) figures: String,
    /// What was wrong; nothing, if all was well.
    pub(crate) faults: Vec<String>,
    /// Where everything of a day that failed is kept.
    pub(crate) kept: Option<PathBuf>,
}

/// Lives through the day of a seed.
pub(crate) async fn live(seed: u64, begins_at: i64, room: &Path, clock: &Path) -> Result<Report> {
    let begun = Instant::now();
    let dir = tempfile::Builder::new().prefix(&format!("chaos-{seed}-")).tempdir_in(room)?;
    let tally = Arc::new(Tally::default());
    let mut plan = Plan::of(seed, begins_at);
    let (drafts, scripts) = (std::mem::take(&mut plan.drafts), std::mem::take(&mut plan.scripts));
    let field = Arc::new(Field { drafts, oracle: Oracle::default(), tally: Arc::clone(&tally) });
    let day = async {
        let mut service = TestService::build(dir.path(), &plan, clock, Arc::clone(&tally)).await?;
        let lived = work(&mut service, &plan, scripts, &field).await;
        let judged = match lived {
            Ok(()) => judge(&mut service, &field).await,
            Err(error) => Err(error),
        };
        let log = service.stderr_of_all_runs();
        tally.add_many(Kind::InsertTimeOut, log.matches("the insert took too long").count() as u64);
        tally.add_many(Kind::Settled, log.matches("a segment is settled").count() as u64);
        tally.add_many(Kind::LedgerRebuilt, log.matches("the id ledger is complete").count() as u64);
        tally.add_many(Kind::LedgerRepaired, log.matches("the id ledger is repaired").count() as u64);
        tally.add_many(Kind::LostBlock, service.lost_blocks());
        tally.add_many(Kind::DiskRefused, log.matches("the disk of the log is full").count() as u64);
        service.tear_down().await?;
        judged
    };
    let lived = tokio::time::timeout(DAY_MAX, day).await.context("the day did not end").and_then(|lived| lived);
    let mut faults = lived.unwrap_or_else(|error| vec![format!("{error:#}")]);
    faults.truncate(FAULTS_MAX);
    let figures = figures(&field, &tally);
    let kept = if faults.is_empty() {
        None
    } else {
        let trace: String = trace(&field, &plan, &faults);
        std::fs::write(dir.path().join("trace.txt"), trace)?;
        Some(dir.keep())
    };
    Ok(Report { seed, tally, took: begun.elapsed(), figures, faults, kept })
}

/// Producers and faults at once; then everything is brought to rest.
async fn work(service: &mut TestService, plan: &Plan, scripts: Vec<Script>, field: &Arc<Field>) -> Result<()> {
    service.start().await?;
    let mut producers = JoinSet::new();
    for script in scripts {
        producers.spawn(produce(Arc::clone(field), script, service.address()));
    }
    inject(service, plan, field).await?;
    while let Some(ended) = producers.join_next().await {
        ended.context("a producer failed")?;
    }
    service.proxy.calm().await;
    if plan.is_sent_again {
        // What is known must be known to a new run too, from the log and from
        // ClickHouse.
        service.stop().await?;
        service.start().await?;
        produce(Arc::clone(field), everything(field), service.address()).await;
    }
    service.drained().await
}

/// All events of the day, as one more producer would send them.
fn everything(field: &Field) -> Script {
    let all: Vec<usize> = (0..field.drafts.len()).collect();
    let batch = |drafts: &[usize]| Batch { drafts: drafts.to_vec(), ..Batch::default() };
    let batches = all.chunks(BATCH_EVENTS_MAX).map(batch).collect();
    Script { door: Door::Unary, batches, pause: Duration::ZERO, cuts_after: None }
}

/// Everything that is wrong.
async fn judge(service: &mut TestService, field: &Field) -> Result<Vec<String>> {
    let mut faults = field.oracle.complaints();
    let attempts = field.oracle.attempts();
    // A block that failed is missing from one table: for a rollup, the audit
    // is what puts that right. On all other days it must have nothing to do.
    if service.is_to_be_repaired {
        service.repair().await?;
    }
    let stored = read_stored(service, &mut faults).await?;
    check_verdicts(&field.drafts, &attempts, &field.oracle.lost_before(), &stored, &mut faults);
    if field.tally.of(Kind::ClockBack) + field.tally.of(Kind::ClockBackBetweenRuns) == 0 {
        check_places(&stored, &mut faults);
    }
    if !service.is_to_be_repaired {
        let repairs = service.sql("SELECT hour, rollup, state, keys, added, taken, author FROM audit_repairs").await?;
        faults.extend(repairs.iter().map(|repair| format!("the audit repaired what was not wrong: {repair}")));
    }
    check_rollups(service, &stored, &mut faults).await?;
    check_answers(service, &stored, &mut faults).await?;
    service.stop().await?;
    if service.stderr_of_all_runs().contains("panicked") {
        faults.push("the service panicked".to_owned());
    }
    let left: Vec<PathBuf> = ["open", "sealed", "parked"]
        .iter()
        .map(|state| crate::log_files::segments(&service.log_dir(), state))
        .collect::<Result<Vec<_>>>()?
        .concat();
    if !left.is_empty() {
        faults.push(format!("the log is empty, but these files are there: {left:?}"));
    }
    Ok(faults)
}

fn figures(field: &Field, tally: &Tally) -> String {
    let attempts = field.oracle.attempts();
    let ids: std::collections::HashSet<&str> =
        attempts.iter().map(|attempt| field.drafts[attempt.draft].id.as_str()).collect();
    let of = |is: fn(&Option<ReportedVerdict>) -> bool| attempts.iter().filter(|attempt| is(&attempt.told)).count();
    let concurrent = concurrent_duplicates(field);
    tally.add_many(Kind::ConcurrentDuplicate, concurrent);
    tally.add_many(Kind::AnotherTime, told_at_another_time(&attempts, field));
    format!(
        "events {} ids {} accepted {} duplicate {} conflict {} rejected {} undecided {} lost {}",
        attempts.len(),
        ids.len(),
        of(|told| *told == Some(ReportedVerdict::Accepted)),
        of(|told| *told == Some(ReportedVerdict::Duplicate)),
        of(|told| *told == Some(ReportedVerdict::Conflict)),
        of(|told| matches!(told, Some(ReportedVerdict::Rejected(_)))),
        of(|told| *told == Some(ReportedVerdict::Undecided)),
        of(Option::is_none),
    )
}

/// Conflicts of events whose id had been accepted with another time.
fn told_at_another_time(attempts: &[crate::oracle::Attempt], field: &Field) -> u64 {
    let drafts = |attempt: &crate::oracle::Attempt| &field.drafts[attempt.draft];
    let accepted: std::collections::HashMap<&str, Option<i64>> = attempts
        .iter()
        .filter(|attempt| attempt.told == Some(ReportedVerdict::Accepted))
        .map(|attempt| (drafts(attempt).id.as_str(), drafts(attempt).payload.occurred_at))
        .collect();
    let is_other = |attempt: &&crate::oracle::Attempt| {
        let first = accepted.get(drafts(attempt).id.as_str());
        attempt.told == Some(ReportedVerdict::Conflict)
            && first.is_some_and(|at| *at != drafts(attempt).payload.occurred_at)
    };
    attempts.iter().filter(is_other).count() as u64
}

/// Duplicates that were sent by somebody else while the first was still
/// unanswered.
fn concurrent_duplicates(field: &Field) -> u64 {
    let attempts = field.oracle.attempts();
    let accepted: std::collections::HashMap<&str, _> = attempts
        .iter()
        .filter(|attempt| attempt.told == Some(ReportedVerdict::Accepted))
        .map(|attempt| (field.drafts[attempt.draft].id.as_str(), attempt))
        .collect();
    let is_concurrent = |attempt: &&crate::oracle::Attempt| {
        let first = accepted.get(field.drafts[attempt.draft].id.as_str());
        attempt.told == Some(ReportedVerdict::Duplicate)
            && first.is_some_and(|first| {
                first.session != attempt.session && attempt.begun < first.ended && first.begun < attempt.ended
            })
    };
    attempts.iter().filter(is_concurrent).count() as u64
}

/// The course of a day, for a person to read.
fn trace(field: &Field, plan: &Plan, faults: &[String]) -> String {
    let mut trace = format!("seed {}\n{:#?}\n{:#?}\n", plan.seed, plan.settings, plan.faults);
    for fault in faults {
        let _ = writeln!(trace, "{fault}");
    }
    for attempt in field.oracle.attempts() {
        let draft = &field.drafts[attempt.draft];
        let _ = writeln!(trace, "{attempt:?} {:?} {:?} {:?}", draft.id, draft.flaw, draft.payload);
    }
    trace
}
