//! Deletes what an engine has of one user.

use tokio::sync::oneshot;

use super::driver::Driver;
use super::results::Refusal;
use crate::domain::LaneKey;
use crate::store::LetterChange;

impl Driver {
    /// A user is to be erased: nothing more of it is handed out until that is done, and what the handler has not begun with
    /// comes back.
    pub(super) fn begin_erasure(&mut self, key: LaneKey, reply: oneshot::Sender<usize>) {
        self.sequencer.hold(&key);
        self.handler.recall();
        self.erasing.push((key, reply));
    }

    /// Erases users of whom nothing is out, and nothing is just being written.
    pub(super) fn erase(&mut self) {
        if self.committing.is_some() || self.is_refusing {
            return;
        }
        let waiting = std::mem::take(&mut self.erasing);
        for (key, reply) in waiting {
            let is_out = self.out.values().flatten().any(|(out, _)| *out == key) || self.dirty.release.contains(&key);
            if is_out || !self.sequencer.is_home(&key) {
                self.erasing.push((key, reply));
                continue;
            }
            let count = self.erase_lane(&key);
            self.reply_when_recorded(reply, count);
        }
    }

    /// Returns how many events were deleted.
    fn erase_lane(&mut self, key: &LaneKey) -> usize {
        let mut gone = self.sequencer.remove(key);
        let refusals = std::mem::take(&mut self.refusals).into_iter();
        let (of_user, others): (Vec<Refusal>, Vec<Refusal>) =
            refusals.partition(|refusal| LaneKey::of(&refusal.pending.event) == *key);
        self.refusals = others;
        gone.extend(of_user.into_iter().map(|refusal| refusal.pending));
        for pending in &gone {
            self.by_id.remove(&pending.event.id);
            // One that the store has goes with the lane.
            self.window.settle(pending.position);
        }
        self.dirty.stored.retain(|stored| LaneKey::of(&stored.event) != *key);
        self.dirty.settlements.forget_user(key.as_str());
        let mut letters = 0;
        self.dirty.letters.retain(|change| {
            let is_of_user = matches!(change, LetterChange::Put(letter) if letter.event.user_id == key.as_str());
            letters += u64::from(is_of_user);
            !is_of_user
        });
        self.letters = self.letters.saturating_sub(letters);
        self.dirty.erased.push(key.clone());
        gone.len() + usize::try_from(letters).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use crate::domain::{Event, GapPolicy, LaneKey, Position, SubscriptionSettings};
    use crate::engine::{Clock, Engine, EngineBounds, EngineParts};
    use crate::handler::{Acknowledgement, PullHandler};
    use crate::source::MemorySource;
    use crate::store::{DeliveryStore, LaneRecord, SubscriptionRecord};

    fn event(user: &str, seq: u64) -> Event {
        Event { id: format!("{user}-{seq}"), user_id: user.to_owned(), seq, ..Event::default() }
    }

    fn parts(store: &Arc<DeliveryStore>, source: &Arc<MemorySource>, handler: &Arc<PullHandler>) -> EngineParts {
        let gap_policy = GapPolicy::Wait;
        let subscription = SubscriptionRecord {
            id: 20,
            org_id: "acme".to_owned(),
            name: "orders".to_owned(),
            settings: SubscriptionSettings { attempts_max: 1, gap_policy, ..SubscriptionSettings::default() },
            handler: String::new(),
            start: Position { segment: 1, row: 0 },
            created_at_ms: 1,
        };
        EngineParts {
            subscription,
            bounds: EngineBounds { settlements_max: 100, ..EngineBounds::default() },
            source: Arc::clone(source) as Arc<_>,
            handler: Arc::clone(handler) as Arc<_>,
            store: Arc::clone(store),
            clock: Clock::system(),
        }
    }

    #[tokio::test]
    async fn a_user_goes_once_nothing_of_it_is_out_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(DeliveryStore::open(&dir.path().join("delivery.redb")).unwrap());
        let source = Arc::new(MemorySource::default());
        let handler = Arc::new(PullHandler::new(Clock::system(), Duration::from_secs(60)));
        let engine = Engine::start(parts(&store, &source, &handler)).unwrap();
        let (consumer, mut deliveries) = handler.connect();
        consumer.add_credits(1);
        source.push([event("ann", 1), event("ann", 2), event("ann", 9), event("bob", 2)]);
        let failed = deliveries.recv().await.unwrap();
        let failure = Acknowledgement::Failed { error: "of ann".to_owned(), retry_after: None };
        consumer.acknowledge(failed.lease, failure).unwrap();
        consumer.add_credits(1);
        let out = deliveries.recv().await.unwrap();
        assert_eq!((out.delivery.event.id.as_str(), engine.letters(0, 9).await.unwrap().len()), ("ann-2", 1));
        let erasing = tokio::spawn({
            let engine = engine.clone();
            async move { engine.erase_user("ann").await }
        });
        while !engine.user("ann").await.unwrap().is_paused {
            tokio::task::yield_now().await;
        }
        assert!(!erasing.is_finished(), "the consumer has an event of the user");
        consumer.acknowledge(out.lease, Acknowledgement::Done).unwrap();
        assert_eq!(erasing.await.unwrap().unwrap(), 2, "the early event and the dead letter");
        let check = async |engine: &Engine| {
            let status = engine.status().await.unwrap();
            assert_eq!((status.waiting, status.buffered, status.dead_letters), (1, 1, 0));
            assert!(engine.event("ann-9").await.unwrap().is_none() && engine.event("bob-2").await.unwrap().is_some());
            for id in ["ann-1", "ann-2"] {
                let known = engine.event(id).await.unwrap().expect("its end is known");
                assert_eq!((known.user_id.as_str(), known.error.as_str()), ("", ""));
            }
            assert_eq!(store.lanes(20, &[LaneKey::of_user("ann")]).unwrap(), [LaneRecord::default()]);
        };
        check(&engine).await;
        engine.stop().await;
        let engine = Engine::start(parts(&store, &source, &handler)).unwrap();
        while engine.status().await.unwrap().waiting == 0 {
            tokio::task::yield_now().await;
        }
        check(&engine).await;
        // The user begins anew.
        consumer.add_credits(9);
        source.push([event("ann", 1)]);
        assert_eq!(deliveries.recv().await.unwrap().delivery.event.user_id, "ann");
        engine.stop().await;
    }

    #[tokio::test]
    async fn a_crash_during_an_erasure_leaves_the_user_unpaused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(DeliveryStore::open(&dir.path().join("delivery.redb")).unwrap());
        let source = Arc::new(MemorySource::default());
        let handler = Arc::new(PullHandler::new(Clock::system(), Duration::from_secs(60)));
        let engine = Engine::start(parts(&store, &source, &handler)).unwrap();
        let (consumer, mut deliveries) = handler.connect();
        consumer.add_credits(1);
        source.push([event("ann", 1), event("ann", 2)]);
        let _out = deliveries.recv().await.unwrap();
        let erasing = tokio::spawn({
            let engine = engine.clone();
            async move { engine.erase_user("ann").await }
        });
        while !engine.user("ann").await.unwrap().is_paused {
            tokio::task::yield_now().await;
        }
        // Something of another user is recorded meanwhile.
        consumer.add_credits(1);
        source.push([event("bob", 1)]);
        let of_bob = deliveries.recv().await.unwrap();
        consumer.acknowledge(of_bob.lease, Acknowledgement::Done).unwrap();
        while store.lanes(20, &[LaneKey::of_user("bob")]).unwrap()[0].next_seq == 1 {
            tokio::task::yield_now().await;
        }
        engine.crash().await;
        assert!(erasing.await.unwrap().is_err());
        assert_eq!(store.lanes(20, &[LaneKey::of_user("ann")]).unwrap(), [LaneRecord::default()]);
    }

    #[tokio::test]
    async fn a_store_without_an_engine_is_erased_and_copied_whole() {
        use crate::store::{Commit, CutOver, LetterChange, StoredEvent};

        let dir = tempfile::tempdir().unwrap();
        let store = DeliveryStore::open(&dir.path().join("delivery.redb")).unwrap();
        let stored = |user: &str, row: u64| StoredEvent {
            position: Position { segment: 7, row },
            event: Arc::new(event(user, row)),
            attempts: 0,
            error: String::new(),
            is_replay: false,
        };
        let letter = |number: u64, user: &str| {
            LetterChange::Put(crate::domain::DeadLetter {
                number,
                event: Arc::new(event(user, number)),
                reason: crate::domain::DeadLetterReason::HandlerFailed,
                error: "no".to_owned(),
                attempts: 1,
                failed_at_ms: 1,
                is_replay: false,
            })
        };
        let lane = |user: &str| (LaneKey::of_user(user), LaneRecord { next_seq: 5, ..LaneRecord::default() });
        let commit = Commit {
            lanes: vec![lane("ann"), lane("bob")],
            stored: vec![stored("ann", 1), stored("bob", 2)],
            letters: vec![letter(1, "ann"), letter(2, "bob"), letter(3, "ann")],
            ..Commit::default()
        };
        store.commit(20, commit).await.unwrap();
        store.put_cut_over(20, CutOver { arrival: 5, position: Position { segment: 9, row: 1 } }).await.unwrap();
        store.copy_to(&dir.path().join("copy.redb")).unwrap();
        assert_eq!(store.erase_user(20, "ann").unwrap(), 3);
        let copy = DeliveryStore::open(&dir.path().join("copy.redb")).unwrap();
        for (store, users) in [(&store, &["bob"][..]), (&copy, &["ann", "bob"][..])] {
            let waiting = store.events(20).unwrap();
            assert_eq!(waiting.iter().map(|stored| stored.event.user_id.as_str()).collect::<Vec<_>>(), users);
            let mut of_letters: Vec<String> =
                store.letters(20, 0, 9).unwrap().iter().map(|letter| letter.event.user_id.clone()).collect();
            of_letters.sort();
            of_letters.dedup();
            assert_eq!(of_letters.iter().filter(|user| *user == "ann").count(), users.len() - 1);
            assert_eq!(store.letter_counts(20).unwrap(), (if users.len() == 1 { 1 } else { 3 }, 4));
            let next = |user: &str| store.lanes(20, &[LaneKey::of_user(user)]).unwrap()[0].next_seq;
            assert_eq!((next("ann"), next("bob")), (if users.len() == 1 { 1 } else { 5 }, 5));
            assert!(store.cut_over(20).unwrap().is_some());
        }
    }
}
