//! The subscriptions that organizations make: which accepted events are handed to whom, and what became of them.
//!
//! This is the application behind gRPC, REST and the command line. Each subscription has an engine of its own (see
//! `tallyhouse-delivery`) that reads the log of accepted events; `lifecycle` creates, changes and deletes, `spec` says
//! what may be asked for, `observation` sums up for metrics and health. The event pipeline is not one of them.

mod lifecycle;
mod observation;
mod spec;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tallyhouse_delivery::domain::{
    DeadLetter, EventStatus, LetterNumber, SubscriptionId, SubscriptionStatus, UserStatus,
};
use tallyhouse_delivery::engine::{Clock, Engine, EngineBounds, EngineError, LETTERS_PER_CALL_MAX};
use tallyhouse_delivery::handler::{AddressPolicy, PullHandler};
use tallyhouse_delivery::store::{DeliveryStore, StoreError, SubscriptionRecord};

use super::stored_events::StoredEvents;
use crate::clock::ArrivalClock;
use crate::domain::{Error, OrgId};
use crate::log::{EventLog, LogReader};

pub use observation::DeliveryTotals;
pub use spec::{HandlerSpec, Start, Subscription, SubscriptionDraft};

/// Numbers of subscriptions begin here; smaller ones are the service's own.
pub const FIRST_SUBSCRIPTION: SubscriptionId = 16;
/// Dead letters of a list that asks for no number.
pub const LETTERS_DEFAULT: usize = 100;
/// Most bytes of the events in a list of dead letters, unless its first is longer.
const LETTERS_BYTES_MAX: usize = 2 << 20;
/// Most bytes of a user's id, as in events.
const USER_ID_BYTES_MAX: usize = 256;
/// How long a caller is told to wait while a subscription is not running.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The bounds of subscriptions. See the settings of the same names in [`crate::config::Config`].
#[derive(Clone, Copy, Debug)]
pub struct SubscriptionBounds {
    /// Most subscriptions of an organization.
    pub per_organization_max: usize,
    /// Most subscriptions of all organizations.
    pub subscriptions_max: usize,
    /// The bounds of each engine.
    pub engine: EngineBounds,
    /// Where webhooks may go.
    pub addresses: AddressPolicy,
}

/// A subscription that runs.
struct Running {
    record: SubscriptionRecord,
    handler: HandlerSpec,
    engine: Engine,
    reader: Arc<dyn LogReader>,
    pull: Option<Arc<PullHandler>>,
}

/// A place for a subscription under its name.
struct Entry {
    running: Mutex<Running>,
    /// Held while it is changed or deleted: one at a time. `false` once it is deleted.
    is_there: tokio::sync::Mutex<bool>,
}

impl Entry {
    fn engine(&self) -> Engine {
        self.running.lock().engine.clone()
    }
}

/// An organization and a name.
type Key = (String, String);

/// Which dead letters.
#[derive(Clone, Debug)]
pub enum Letters {
    /// All that there are at the time of the call.
    All,
    /// Those with these numbers.
    Numbers(Vec<LetterNumber>),
}

impl Letters {
    /// Those with these numbers, or all.
    ///
    /// # Errors
    /// `Invalid` unless exactly one of both is given, with 1 to 1,000 numbers.
    pub fn of(numbers: Vec<LetterNumber>, all: bool) -> Result<Self, Error> {
        match (numbers.len(), all) {
            (0, true) => Ok(Self::All),
            (1..=LETTERS_PER_CALL_MAX, false) => Ok(Self::Numbers(numbers)),
            (_, true) => Err(Error::invalid_field("numbers", "must be left out when 'all' is true")),
            (_, false) => Err(Error::invalid_field("numbers", "must be 1 to 1000 numbers, unless 'all' is true")),
        }
    }
}

/// A subscription's state.
#[derive(Clone, Debug)]
pub struct SubscriptionReport {
    /// The engine's.
    pub engine: SubscriptionStatus,
    /// Consumers that are connected.
    pub consumers: usize,
}

/// Where the events of subscriptions come from.
#[derive(Clone)]
pub struct SubscriptionSources {
    /// Those that are accepted now.
    pub log: Arc<dyn EventLog>,
    /// Those that are stored, for subscriptions that begin in the past.
    pub events: Arc<dyn StoredEvents>,
    /// Gives events their places in the order of arrival.
    pub arrivals: Arc<ArrivalClock>,
}

/// See the module.
pub struct Subscriptions {
    store: Arc<DeliveryStore>,
    sources: SubscriptionSources,
    clock: Clock,
    bounds: SubscriptionBounds,
    entries: RwLock<BTreeMap<Key, Arc<Entry>>>,
    /// Held while one is created, so that bounds are kept and names are unique.
    creating: tokio::sync::Mutex<()>,
    next_id: AtomicU64,
    observed: Mutex<observation::Observed>,
}

impl Subscriptions {
    fn entry(&self, org_id: &OrgId, name: &str) -> Result<Arc<Entry>, Error> {
        let entries = self.entries.read();
        let entry = entries.get(&(org_id.as_str().to_owned(), name.to_owned()));
        entry.cloned().ok_or_else(|| Error::not_found("there is no subscription with this name"))
    }

    fn engine(&self, org_id: &OrgId, name: &str) -> Result<Engine, Error> {
        Ok(self.entry(org_id, name)?.engine())
    }

    /// The engines of an organization's subscriptions, with what they are called.
    pub(super) fn engines_of(&self, org_id: &str) -> Vec<(String, Engine)> {
        let entries = self.entries.read();
        let own = entries.iter().filter(|((org, _), _)| org == org_id);
        own.map(|((_, name), entry)| (format!("the subscription '{name}'"), entry.engine())).collect()
    }

    /// The organization's subscriptions, by name.
    ///
    /// # Errors
    /// `Unavailable` when one is just being changed or the service is stopping.
    pub async fn list(&self, org_id: &OrgId) -> Result<Vec<Subscription>, Error> {
        let own: Vec<Arc<Entry>> = {
            let entries = self.entries.read();
            let first = (org_id.as_str().to_owned(), String::new());
            let own = entries.range(first..).take_while(|((org, _), _)| org == org_id.as_str());
            own.map(|(_, entry)| Arc::clone(entry)).collect()
        };
        let mut all = Vec::with_capacity(own.len());
        for entry in own {
            all.push(shown(&entry).await?);
        }
        Ok(all)
    }

    /// A subscription.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` when it is just being changed or the service is stopping.
    pub async fn find(&self, org_id: &OrgId, name: &str) -> Result<Subscription, Error> {
        let entry = self.entry(org_id, name)?;
        shown(&entry).await
    }

    /// Where consumers of a subscription connect.
    ///
    /// # Errors
    /// `NotFound`, or `Invalid` when the subscription has another handler.
    pub fn consumers(&self, org_id: &OrgId, name: &str) -> Result<Arc<PullHandler>, Error> {
        let pull = self.entry(org_id, name)?.running.lock().pull.clone();
        pull.ok_or_else(|| Error::invalid_field("subscription", "must be one whose handler is 'pull'"))
    }

    /// The state of a subscription.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` when it is just being changed or the service is stopping.
    pub async fn status(&self, org_id: &OrgId, name: &str) -> Result<SubscriptionReport, Error> {
        let entry = self.entry(org_id, name)?;
        let engine = entry.engine().status().await.map_err(failed)?;
        let consumers = entry.running.lock().pull.as_ref().map_or(0, |pull| pull.consumers());
        Ok(SubscriptionReport { engine, consumers })
    }

    /// Where an event is.
    ///
    /// # Errors
    /// `NotFound` when it does not wait, and no record of it is kept; `Unavailable` as above.
    pub async fn event(&self, org_id: &OrgId, name: &str, event_id: &str) -> Result<EventStatus, Error> {
        let found = self.engine(org_id, name)?.event(event_id).await.map_err(failed)?;
        found.ok_or_else(|| Error::not_found("no such event waits in the subscription, and no record of it is kept"))
    }

    /// The state of a user's events.
    ///
    /// # Errors
    /// `NotFound`, `Invalid` for a user id that is none, `Unavailable` as above.
    pub async fn user(&self, org_id: &OrgId, name: &str, user_id: &str) -> Result<UserStatus, Error> {
        let engine = self.engine(org_id, name)?;
        check_user(user_id)?;
        engine.user(user_id).await.map_err(failed)
    }

    /// Pauses a user, or lets it go on. That is recorded when this returns.
    ///
    /// # Errors
    /// As [`Subscriptions::user`].
    pub async fn pause_user(&self, org_id: &OrgId, name: &str, user_id: &str, is_paused: bool) -> Result<(), Error> {
        let engine = self.engine(org_id, name)?;
        check_user(user_id)?;
        engine.pause_user(user_id, is_paused).await.map_err(failed)
    }

    /// Dead letters from a number on, at most so many (1 to 1,000), and where the list goes on. Fewer when they are large.
    ///
    /// # Errors
    /// `NotFound`, `Invalid` for another `limit`, `Unavailable` as above.
    pub async fn letters(
        &self,
        org_id: &OrgId,
        name: &str,
        from: LetterNumber,
        limit: usize,
    ) -> Result<(Vec<DeadLetter>, Option<LetterNumber>), Error> {
        let engine = self.engine(org_id, name)?;
        if !(1..=LETTERS_PER_CALL_MAX).contains(&limit) {
            return Err(Error::invalid_field("limit", "must be 1 to 1000"));
        }
        let mut letters = engine.letters(from, limit).await.map_err(failed)?;
        let is_whole = letters.len() < limit;
        let mut bytes = 0_usize;
        let fitting = letters.iter().take_while(|letter| {
            let is_first = bytes == 0;
            bytes = bytes.saturating_add(letter.event.bytes());
            is_first || bytes <= LETTERS_BYTES_MAX
        });
        let fitting = fitting.count();
        let is_whole = is_whole && fitting == letters.len();
        letters.truncate(fitting);
        let next = letters.last().filter(|_| !is_whole).map(|last| last.number.saturating_add(1));
        Ok((letters, next))
    }

    /// A dead letter.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable` as above.
    pub async fn letter(&self, org_id: &OrgId, name: &str, number: LetterNumber) -> Result<DeadLetter, Error> {
        let found = self.engine(org_id, name)?.letters(number, 1).await.map_err(failed)?;
        let found = found.into_iter().find(|letter| letter.number == number);
        found.ok_or_else(|| Error::not_found("there is no dead letter with this number"))
    }

    /// Delivers dead letters again, in the order of their numbers. Returns how many there were, once that is recorded.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable` as above.
    pub async fn replay(&self, org_id: &OrgId, name: &str, letters: &Letters) -> Result<u64, Error> {
        let engine = self.engine(org_id, name)?;
        let mut replayed = 0;
        for numbers in numbers(&engine, letters).await? {
            replayed += engine.replay(&numbers).await.map_err(failed)? as u64;
        }
        Ok(replayed)
    }

    /// Deletes dead letters. Returns how many there were, once that is recorded.
    ///
    /// # Errors
    /// As [`Subscriptions::replay`].
    pub async fn discard(&self, org_id: &OrgId, name: &str, letters: &Letters) -> Result<u64, Error> {
        let engine = self.engine(org_id, name)?;
        let mut discarded = 0;
        for numbers in numbers(&engine, letters).await? {
            discarded += engine.discard(&numbers).await.map_err(failed)? as u64;
        }
        Ok(discarded)
    }
}

/// The numbers that are meant, in portions that the engine takes at a time.
async fn numbers(engine: &Engine, letters: &Letters) -> Result<Vec<Vec<LetterNumber>>, Error> {
    let numbers = match letters {
        Letters::Numbers(numbers) => numbers.clone(),
        Letters::All => engine.letter_numbers().await.map_err(failed)?,
    };
    Ok(numbers.chunks(LETTERS_PER_CALL_MAX).map(<[LetterNumber]>::to_vec).collect())
}

/// A subscription with its settings of now, which its engine may have changed.
async fn shown(entry: &Entry) -> Result<Subscription, Error> {
    let settings = entry.engine().settings().await.map_err(failed)?;
    entry.running.lock().subscription(settings)
}

fn check_user(user_id: &str) -> Result<(), Error> {
    let is_good = (1..=USER_ID_BYTES_MAX).contains(&user_id.len()) && !user_id.chars().any(char::is_control);
    let expected = "must be 1 to 256 bytes without control characters";
    if is_good { Ok(()) } else { Err(Error::invalid_field("user_id", expected)) }
}

fn failed(error: EngineError) -> Error {
    tracing::warn!(%error, "a subscription cannot be asked");
    Error::unavailable("the subscription is not running at the moment", RETRY_AFTER)
}

fn store_failed(error: StoreError) -> Error {
    tracing::error!(%error, "the store of subscriptions failed");
    Error::unavailable("subscriptions cannot be read or written at the moment", RETRY_AFTER)
}
