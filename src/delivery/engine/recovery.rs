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
        let begin = || Cursor { resume: subscription.start, ..Cursor::default() };
        let cursor = store.cursor(id)?.unwrap_or_else(begin);
        source.release(cursor.resume);
        let (recorded, missed_before) = (cursor.resume, cursor.missed);
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
            is_reading: false,
            dirty: Dirty::default(),
            committing: None,
            committed: Dirty::default(),
            committed_at: Instant::now(),
            recorded,
            missed_before,
            recorded_missed: missed_before,
            next_letter,
            letters,
            recorded_letters: letters,
            hold_until: None,
            holds: 0,
            handler_error: String::new(),
            read_after: None,
            holders: Vec::new(),
            counts: SubscriptionStatus::default(),
            erasing: Vec::new(),
        };
        for StoredEvent { position, event, attempts, error, is_replay } in stored {
            driver.offer(Pending { position, event, attempts, error, is_replay, read_at: 0 }, 0);
        }
        Ok(driver)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use async_trait::async_trait;

    use crate::domain::{Position, SubscriptionSettings};
    use crate::engine::{Clock, Engine, EngineBounds, EngineParts};
    use crate::handler::TrialHandler;
    use crate::source::{EventSource, MemorySource, SourceBatch, SourceError};
    use crate::store::{DeliveryStore, SubscriptionRecord};

    /// A source that has lost something.
    #[derive(Default)]
    struct Lossy {
        events: MemorySource,
        missed: AtomicU64,
    }

    #[async_trait]
    impl EventSource for Lossy {
        async fn read(&self, from: Position, events_max: usize) -> Result<SourceBatch, SourceError> {
            self.events.read(from, events_max).await
        }

        fn release(&self, position: Position) {
            self.events.release(position);
        }

        fn missed(&self) -> u64 {
            self.missed.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn missed_pieces_are_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(DeliveryStore::open(&dir.path().join("delivery.redb")).unwrap());
        let start = |source: &Arc<Lossy>| {
            let subscription = SubscriptionRecord {
                id: 20,
                org_id: "acme".to_owned(),
                name: "orders".to_owned(),
                settings: SubscriptionSettings::default(),
                handler: String::new(),
                start: Position { segment: 1, row: 0 },
                created_at_ms: 1,
            };
            let parts = EngineParts {
                subscription,
                bounds: EngineBounds::default(),
                source: Arc::clone(source) as Arc<_>,
                handler: Arc::new(TrialHandler::new(Clock::system(), Duration::ZERO)),
                store: Arc::clone(&store),
                clock: Clock::system(),
            };
            Engine::start(parts).unwrap()
        };
        for (missed_now, all) in [(2, 2), (0, 2), (3, 5)] {
            let source = Arc::new(Lossy::default());
            let engine = start(&source);
            source.missed.store(missed_now, Ordering::Relaxed);
            assert_eq!(engine.status().await.unwrap().missed, all);
            if missed_now == 3 {
                engine.stop().await;
                assert_eq!(store.cursor(20).unwrap().unwrap().missed, all, "a stop records it");
                return;
            }
            while missed_now > 0 && store.cursor(20).unwrap().is_none_or(|cursor| cursor.missed < all) {
                engine.status().await.unwrap(); // The engine looks whenever it is asked.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            engine.crash().await;
        }
    }
}
