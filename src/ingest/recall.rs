//! Late events: is an id below the index's floor known to ClickHouse?
//!
//! Asking for one id costs ClickHouse about as much as reading several hundred
//! events in a row, so a minute that is asked about often is *recalled*: all
//! its ids are read into the index, and from then on memory answers. Whether
//! that pays is not known beforehand. A minute is recalled once the look-ups
//! for it have cost what reading it costs, so that late events never cost more
//! than twice what they had to (the ski-rental rule: Karlin, Manasse, Rudolph
//! and Sleator, "Competitive snoopy caching", 1988). A minute of which nothing
//! is stored is recalled at once: history can be filled in at full speed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::fill::restore_all;
use super::fingerprint::Fingerprinter;
use super::index::{Index, Minute};
use super::store::{EventStore, MinuteSet, StoreError};
use crate::domain::OrgId;
use crate::fairness::{FairSemaphore, Shares, Tenant};

/// Reading so many events costs about as much as looking one up.
const ROWS_PER_LOOK_UP: u64 = 500;
/// Minutes whose look-ups are counted. Beyond, counting begins anew.
const MINUTES_MAX: usize = 100_000;

/// Longest a batch waits for its turn to recall minutes. Then its events are
/// looked up one by one: the recalls of others must not leave them undecided.
const TURN_WAIT_MAX: Duration = Duration::from_secs(1);

/// Answers whether ClickHouse knows the ids of late events, by look-ups or by reading minutes back
/// into the index.
pub struct Recall {
    index: Arc<Index>,
    prints: Fingerprinter,
    store: Arc<dyn EventStore>,
    /// One recall at a time: whoever comes meanwhile often wants the same.
    /// Organizations take turns.
    turns: Arc<FairSemaphore>,
    ledger: Mutex<HashMap<Minute, Account>>,
}

/// What a minute has cost, and would cost.
#[derive(Default)]
struct Account {
    look_ups: u64,
    /// Its events in ClickHouse, once they have been counted.
    rows: Option<u64>,
}

impl Account {
    /// Its events, when reading them pays.
    fn rows_if_due(&self) -> Option<u64> {
        self.rows.filter(|rows| *rows <= self.look_ups.saturating_mul(ROWS_PER_LOOK_UP))
    }
}

impl Recall {
    /// From this store into this index.
    pub fn new(index: Arc<Index>, prints: Fingerprinter, store: Arc<dyn EventStore>) -> Self {
        Self { index, prints, store, turns: FairSemaphore::new(Shares::one_each(1)), ledger: Mutex::default() }
    }

    /// An organization asks for so many ids of these minutes: recalls those of
    /// the minutes for which that pays. The others have to be looked up. So have
    /// all, where others recall for too long.
    ///
    /// # Errors
    /// When ClickHouse cannot be asked. Nothing is recalled then.
    pub async fn consider(&self, org_id: &OrgId, late: &HashMap<Minute, u64>) -> Result<(), StoreError> {
        let tenant = Tenant::from(org_id);
        let Ok(Ok(_turn)) = tokio::time::timeout(TURN_WAIT_MAX, self.turns.acquire(&tenant, 1)).await else {
            return Ok(());
        };
        let mut ledger = self.ledger.lock().await;
        if ledger.len() > MINUTES_MAX {
            ledger.clear();
        }
        let unknown: Vec<Minute> = late
            .iter()
            .filter(|(minute, _)| minute.is_exact())
            .filter(|(minute, look_ups)| {
                let account = ledger.entry(**minute).or_default();
                account.look_ups += **look_ups;
                account.rows.is_none()
            })
            .map(|(minute, _)| *minute)
            .collect();
        self.count(&mut ledger, &unknown).await?;

        let due = self.due(&ledger, late.keys().copied());
        if due.is_empty() {
            return Ok(());
        }
        self.recall(&due).await?;
        due.iter().for_each(|minute| _ = ledger.remove(minute));
        Ok(())
    }

    /// Those of the minutes that pay and fit, small ones first.
    fn due(&self, ledger: &HashMap<Minute, Account>, minutes: impl Iterator<Item = Minute>) -> Vec<Minute> {
        let due = minutes.filter_map(|minute| Some((ledger.get(&minute)?.rows_if_due()?, minute)));
        let mut due: Vec<(u64, Minute)> = due.collect();
        due.sort_unstable();
        let mut all_rows = 0;
        let fits = |(rows, minute): (u64, Minute)| {
            let ids = usize::try_from(all_rows + rows).unwrap_or(usize::MAX);
            self.index.has_room_to_recall(ids).then(|| {
                all_rows += rows;
                minute
            })
        };
        due.into_iter().map_while(fits).collect()
    }

    /// Notes how many events are stored of each of these minutes.
    async fn count(&self, ledger: &mut HashMap<Minute, Account>, minutes: &[Minute]) -> Result<(), StoreError> {
        if minutes.is_empty() {
            return Ok(());
        }
        let counted = self.store.minutes(&these(minutes)).await?;
        for minute in minutes {
            ledger.entry(*minute).or_default().rows = Some(0);
        }
        for (moment, rows) in counted {
            ledger.entry(Minute::of(moment)).or_default().rows = Some(rows);
        }
        Ok(())
    }

    async fn recall(&self, minutes: &[Minute]) -> Result<(), StoreError> {
        let mut begun = Begun { index: &self.index, minutes, is_complete: false };
        self.index.begin_recall(minutes);
        let ids = restore_all(&self.index, self.prints, &*self.store, &these(minutes)).await?;
        self.index.recalled(minutes, ids);
        begun.is_complete = true;
        tracing::debug!(minutes = minutes.len(), ids, "minutes were recalled");
        Ok(())
    }
}

/// A recall under way. Broken off by an error, or by a caller that waits no
/// longer, it leaves nothing behind that claims to be complete.
struct Begun<'a> {
    index: &'a Index,
    minutes: &'a [Minute],
    is_complete: bool,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if !self.is_complete {
            self.index.break_off_recall(self.minutes);
        }
    }
}

fn these(minutes: &[Minute]) -> MinuteSet {
    MinuteSet::These(minutes.iter().map(|minute| minute.start()).collect())
}
