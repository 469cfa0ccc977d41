//! Restores the state of an engine from the store.

use std::collections::HashMap;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::driver::Driver;
use super::results::Dirty;
use super::sequencer::{LaneBounds, Pending, Sequencer};
use super::window::Window;
use super::{Command, EngineError, EngineParts};
use crate::domain::{LaneKey, SubscriptionStatus};
use crate::store::{Cursor, StoredEvent};

impl Driver {
    /// Goes on where the store says.
    pub(super) fn recover(
        parts: EngineParts,
        commands: mpsc::Receiver<Command>,
        stop: CancellationToken,
    ) -> Result<Self, EngineError> {
        let EngineParts { subscription, bounds, source, handler, store, clock } = parts;
        let id = subscription.id;
        let begin = || Cursor { resume: subscription.start, settled: Vec::new() };
        let cursor = store.cursor(id)?.unwrap_or_else(begin);
        source.release(cursor.resume);
        let recorded = cursor.resume;
        let stored = store.events(id)?;
        let (letters, next_letter) = store.letter_counts(id)?;
        let lane_bounds = LaneBounds { user_buffered_max: bounds.user_buffered_max, waiting_max: bounds.waiting_max };
        let settings = &subscription.settings;
        let mut sequencer = Sequencer::new(settings.order, settings.gap_policy, lane_bounds);
        let mut keys: Vec<LaneKey> = stored.iter().map(|stored| LaneKey::of(&stored.event)).collect();
        keys.sort_unstable();
        keys.dedup();
        for (key, record) in keys.iter().zip(store.lanes(id, &keys)?) {
            sequencer.load(key.clone(), record);
        }
        let shape = handler.shape();
        let mut driver = Self {
            subscription,
            bounds,
            source,
            handler,
            store,
            clock,
            shape,
            commands,
            stop,
            started: Instant::now(),
            sequencer,
            window: Window::new(cursor),
            by_id: HashMap::new(),
            in_flight: JoinSet::new(),
            out: HashMap::new(),
            is_refusing: false,
            refusals: Vec::new(),
            intake: None,
            dirty: Dirty::default(),
            committing: None,
            committed: Dirty::default(),
            committed_at: Instant::now(),
            recorded,
            next_letter,
            letters,
            recorded_letters: letters,
            hold_until: None,
            holds: 0,
            handler_error: String::new(),
            read_after: None,
            holders: Vec::new(),
            counts: SubscriptionStatus::default(),
        };
        for StoredEvent { position, event, attempts, error, is_replay } in stored {
            driver.offer(Pending { position, event, attempts, error, is_replay, read_at: 0 }, 0);
        }
        Ok(driver)
    }
}
