//! Opening the id ledger of a data directory.

use std::path::Path;
use std::sync::Arc;

use tallyhouse_disk::RealDisk;
use tallyhouse_ledger::{Day, Ledger, LedgerError, LedgerSettings};

use crate::config::Config;
use crate::event_store::{DatabaseState, StoreError};
use crate::ingest::fingerprint::Fingerprinter;
use crate::ingest::index::Index;
use crate::ingest::lost_ids::doubt_lost;
use crate::ingest::warm_up::warm_up;
use crate::log::{EventLog, Holders};

/// A run takes one part in so many of the ids that may be in memory: as many are being written while
/// others come.
const RUNS_IN_MEMORY: usize = 4;

/// Opens the index in front of the ledger that belongs to this database, with the ids of those segments of
/// the log that the ledger does not cover. Blocks on the disk.
///
/// A ledger that is damaged, or was made for another database, is replaced by an empty one. It is not
/// complete then, and has to be rebuilt.
///
/// # Errors
/// `Retry` when the disk fails; `Refused` when a segment is another version's.
pub(super) fn open(
    config: &Config,
    fingerprinter: Fingerprinter,
    database: &DatabaseState,
    log: &dyn EventLog,
) -> Result<Arc<Index>, StoreError> {
    let failed = |error: LedgerError| StoreError::Retry(format!("the id ledger cannot be opened: {error}"));
    let settings = LedgerSettings {
        run_ids: (config.index_ids_max / RUNS_IN_MEMORY) as u64,
        ids_max: config.ledger_ids_max,
        key_check: fingerprinter.key_check(database.id.as_bytes()),
    };
    let ledger = open_or_replace(&config.data_dir.join("ledger"), settings).map_err(failed)?;
    let index = Arc::new(Index::new(config.index_ids_max, Arc::new(ledger)));
    let warm_up = warm_up(&index, fingerprinter, log)?;
    doubt_lost(&index, fingerprinter, log)?;
    let ledger = index.ledger();
    if !warm_up.unreadable.is_empty() {
        ledger.mark_complete(false).map_err(failed)?;
        log.release(&warm_up.unreadable, Holders::LEDGER);
    } else if database.events == 0 && !ledger.status().is_complete {
        // Nothing is stored: there is nothing to rebuild it from.
        ledger.mark_complete(true).map_err(failed)?;
    }
    let status = ledger.status();
    if status.ids / 2 > database.events + log.segments().rows() {
        tracing::error!(
            ids = status.ids,
            stored = database.events,
            "the id ledger knows more ids than ClickHouse has events: their repetitions are duplicates. If events were \
             deleted or an older backup was restored, stop the service and remove the directory `ledger`"
        );
    }
    if status.is_complete && database.events / 2 > status.ids + warm_up.ids && status.floor == Day::default() {
        tracing::warn!(
            ids = status.ids,
            stored = database.events,
            "ClickHouse has more events than the id ledger has ids: others have written them, and their ids are new to \
             this service. To read all ids again, stop the service and remove the directory `ledger`"
        );
    }
    let (ids, runs, is_complete) = (status.ids, status.runs, status.is_complete);
    tracing::info!(ids, runs, is_complete, recent = warm_up.ids, "the id ledger is open");
    Ok(index)
}

fn open_or_replace(dir: &Path, settings: LedgerSettings) -> Result<Ledger, LedgerError> {
    match Ledger::open(Arc::new(RealDisk), dir, settings) {
        Err(error) if error.is_damage() => {
            tracing::error!(%error, "the id ledger cannot be used and is rebuilt from ClickHouse");
            Ledger::replace(Arc::new(RealDisk), dir, settings)
        }
        opened => opened,
    }
}
