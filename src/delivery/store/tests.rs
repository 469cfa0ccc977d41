//! Tests that the store keeps what was committed when it is reopened, and of a commit everything or nothing.

use redb::{ReadableDatabase as _, ReadableTable as _};

use super::*;
use crate::domain::{DeadLetterReason, Event, FinalOutcome, Gaps, Position, SubscriptionSettings};

fn event(id: &str) -> Arc<Event> {
    Arc::new(Event { id: id.to_owned(), user_id: "ann".to_owned(), seq: 7, ..Event::default() })
}

fn letter(number: LetterNumber) -> DeadLetter {
    DeadLetter {
        number,
        event: event("e"),
        reason: DeadLetterReason::HandlerFailed,
        error: "no".to_owned(),
        attempts: 3,
        failed_at_ms: 9,
        is_replay: false,
    }
}

fn settlement(id: &str) -> Settlement {
    Settlement {
        event_id: id.to_owned(),
        user_id: "ann".to_owned(),
        event_type: "click".to_owned(),
        seq: 7,
        outcome: FinalOutcome::Processed,
        processed_at_ms: 1,
        attempts: 1,
        error: String::new(),
    }
}

fn stored(row: u64) -> StoredEvent {
    let position = Position { segment: 5, row };
    StoredEvent { position, event: event("s"), attempts: 1, error: "no".to_owned(), is_replay: false }
}

#[tokio::test]
async fn what_was_committed_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("delivery.redb");
    let mut gaps = Gaps::default();
    gaps.add(3, 4);
    let record = LaneRecord { next_seq: 8, gaps, ..LaneRecord::default() };
    let (lane, at) = (LaneKey::of_user("ann"), Position { segment: u128::MAX, row: 3 });
    let cursor = Cursor { resume: at, settled: vec![(at.next(), at.next())], missed: 3 };
    let cut = CutOver { arrival: 9, position: at };
    {
        let store = DeliveryStore::open(&path).unwrap();
        let commit = Commit {
            cursor: cursor.clone(),
            lanes: vec![(lane.clone(), record.clone())],
            stored: vec![stored(1), stored(2)],
            letters: vec![LetterChange::Put(letter(1)), LetterChange::Put(letter(2))],
            settlements: Arc::new(vec![Some(settlement("a"))]),
            settlements_max: 2,
            ..Commit::default()
        };
        store.commit(1, commit).await.unwrap();
        let commit = Commit {
            cursor: cursor.clone(),
            settlements: Arc::new(["b", "c"].map(|id| Some(settlement(id))).into()),
            settlements_max: 2,
            removed: vec![stored(1).position],
            letters: vec![LetterChange::Remove(1)],
            ..Commit::default()
        };
        store.commit(1, commit).await.unwrap();
        store.put_cut_over(1, cut).await.unwrap();
    }
    let store = DeliveryStore::open(&path).unwrap();
    assert_eq!(store.cursor(1).unwrap(), Some(cursor));
    assert_eq!((store.cut_over(1).unwrap(), store.cut_over(2).unwrap()), (Some(cut), None));
    assert_eq!(store.lanes(1, &[lane.clone(), LaneKey::of_user("bob")]).unwrap(), [record, LaneRecord::default()]);
    assert_eq!(store.events(1).unwrap(), [stored(2)]);
    assert_eq!(store.letters(1, 0, 10).unwrap(), [letter(2)]);
    assert_eq!(store.letter_counts(1).unwrap(), (1, 3));
    assert_eq!(store.settlement(1, "a").unwrap(), None, "only so many are kept");
    assert_eq!(store.settlement(1, "c").unwrap(), Some(settlement("c")));
    assert_eq!(store.settlements(1, 0, 10).unwrap().len(), 2);
    // Another subscription has none of it.
    assert_eq!((store.cursor(2).unwrap(), store.events(2).unwrap().len()), (None, 0));
    store.delete_subscription(1).await.unwrap();
    assert_eq!((store.cursor(1).unwrap(), store.letters(1, 0, 10).unwrap().len()), (None, 0));
    assert_eq!(store.cut_over(1).unwrap(), None);
    assert_eq!(store.lanes(1, &[lane]).unwrap(), [LaneRecord::default()]);
}

#[tokio::test]
async fn each_event_has_its_newest_record_and_old_ones_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("delivery.redb");
    {
        // As a former version wrote it.
        let store = DeliveryStore::open(&path).unwrap();
        let transaction = store.database.begin_write().unwrap();
        let row = tables::encode(&settlement("former")).unwrap();
        transaction.open_table(settlements::RUNS).unwrap().insert((1, 1), row.as_slice()).unwrap();
        transaction.open_table(settlements::FORMER_NUMBERS).unwrap().insert((1, "former"), 1).unwrap();
        transaction.commit().unwrap();
    }
    let store = DeliveryStore::open(&path).unwrap();
    let failed = |id: &str| Settlement { outcome: FinalOutcome::Failed, ..settlement(id) };
    let commit = async |settlements: Vec<Option<Settlement>>, again: &[&str], settlements_max: u64| {
        let settled_again = again.iter().map(|id| (*id).to_owned()).collect();
        let settlements = Arc::new(settlements);
        store.commit(1, Commit { settlements, settled_again, settlements_max, ..Commit::default() }).await.unwrap();
    };
    commit(vec![Some(failed("a")), Some(settlement("b")), None, Some(settlement("c"))], &["c"], 100).await;
    commit(vec![Some(settlement("d")), Some(settlement("a"))], &["a"], 100).await;
    let listed = |from: u64, max: usize| -> Vec<(u64, String)> {
        let all = store.settlements(1, from, max).unwrap();
        all.into_iter().map(|(number, record)| (number, record.event_id)).collect()
    };
    let all = [(1, "former"), (3, "b"), (5, "c"), (6, "d"), (7, "a")].map(|(number, id)| (number, id.to_owned()));
    assert_eq!(listed(0, 10), all);
    assert_eq!((listed(2, 2), listed(6, 10)), (all[1..3].to_vec(), all[3..].to_vec()));
    assert_eq!(store.settlement_count(1).unwrap(), 7);
    for id in ["former", "a", "b", "c", "d"] {
        assert_eq!(store.settlement(1, id).unwrap(), Some(settlement(id)), "{id}");
    }
    // Numbers 6 to 8 stay, and with 6 its whole run.
    commit(vec![Some(settlement("e"))], &[], 3).await;
    assert_eq!(listed(0, 10), [(6, "d"), (7, "a"), (8, "e")].map(|(number, id)| (number, id.to_owned())));
    for id in ["former", "b", "c"] {
        assert_eq!(store.settlement(1, id).unwrap(), None, "{id}");
    }
    store.erase_user(1, "ann").unwrap();
    let nobodys = Settlement { user_id: String::new(), ..settlement("a") };
    assert_eq!(store.settlement(1, "a").unwrap(), Some(nobodys));
    store.delete_subscription(1).await.unwrap();
    assert_eq!((store.settlement_count(1).unwrap(), store.settlement(1, "a").unwrap()), (0, None));
}

#[tokio::test]
async fn records_of_many_chapters_are_found_and_old_chapters_go() {
    const RUN: u64 = 3_000;
    let dir = tempfile::tempdir().unwrap();
    let store = DeliveryStore::open(&dir.path().join("delivery.redb")).unwrap();
    // Of two subscriptions, so that one could take the other's.
    for (run, id) in (0..12_u64).flat_map(|run| [(run, 1), (run, 2)]) {
        let records = (0..RUN).map(|n| Some(Settlement { seq: id, ..settlement(&(run * RUN + n).to_string()) }));
        let settlements = Arc::new(records.collect());
        store.commit(id, Commit { settlements, settlements_max: 20_000, ..Commit::default() }).await.unwrap();
    }
    // Event 0 has number 1. Numbers from 16,001 on stay, and with them the whole run from 15,001 on.
    let found = |id: SubscriptionId, n: u64| store.settlement(id, &n.to_string()).unwrap().map(|record| record.seq);
    for (n, id) in [15_000, 15_001, 17_500, 35_999].into_iter().flat_map(|n| [(n, 1), (n, 2)]) {
        assert_eq!(found(id, n), Some(id), "{n}");
    }
    assert_eq!((found(1, 0), found(1, 14_999), found(1, 36_000)), (None, None, None));
    let chapters = store.database.begin_read().unwrap().open_table(settlements::CHAPTERS).unwrap();
    let (first, _) = chapters.first().unwrap().unwrap();
    let (id, chapter, _) = first.value();
    assert_eq!((id, chapter), (1, 16_001 / 8_192), "chapters whose records are all too old are gone");
}

#[tokio::test]
async fn subscriptions_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = DeliveryStore::open(&dir.path().join("delivery.redb")).unwrap();
    let subscription = SubscriptionRecord {
        id: 4,
        org_id: "acme".to_owned(),
        name: "billing".to_owned(),
        settings: SubscriptionSettings::default(),
        handler: "{}".to_owned(),
        start: Position::START,
        created_at_ms: 1,
    };
    store.put_subscription(subscription.clone()).await.unwrap();
    assert_eq!(store.subscriptions().unwrap(), [subscription]);
    store.delete_subscription(4).await.unwrap();
    assert!(store.subscriptions().unwrap().is_empty());
}

#[tokio::test]
async fn records_of_many_replays_in_one_run_are_replaced_together() {
    const REPLAYS: u64 = 2_000;
    let dir = tempfile::tempdir().unwrap();
    let store = DeliveryStore::open(&dir.path().join("delivery.redb")).unwrap();
    let failed = |n: u64| Settlement { outcome: FinalOutcome::Failed, ..settlement(&n.to_string()) };
    let started = std::time::Instant::now();
    for run in 0..2 {
        let settlements = Arc::new((run * REPLAYS..(run + 1) * REPLAYS).map(|n| Some(failed(n))).collect());
        store.commit(1, Commit { settlements, settlements_max: 100_000, ..Commit::default() }).await.unwrap();
    }
    let first_time = started.elapsed();
    // The second half of the first run, and the first half of the second.
    let again: Vec<String> = (REPLAYS / 2..REPLAYS * 3 / 2).map(|n| n.to_string()).collect();
    let settlements = Arc::new(again.iter().map(|id| Some(settlement(id))).collect());
    let commit = Commit { settlements, settled_again: again, settlements_max: 100_000, ..Commit::default() };
    let started = std::time::Instant::now();
    store.commit(1, commit).await.unwrap();
    // A run is written once, not once for each of its records.
    let time = started.elapsed();
    assert!(time < 50 * first_time, "{time:?} after {first_time:?}");
    let all = store.settlements(1, 0, usize::MAX).unwrap();
    assert_eq!(all.len() as u64, 2 * REPLAYS);
    let is_failed = |n: u64| {
        let record = store.settlement(1, &n.to_string()).unwrap().expect("a record");
        record.outcome == FinalOutcome::Failed
    };
    let ends = [0, REPLAYS / 2 - 1, REPLAYS / 2, REPLAYS * 3 / 2 - 1, REPLAYS * 3 / 2, 2 * REPLAYS - 1];
    assert_eq!(ends.map(is_failed), [true, true, false, false, true, true]);
}

#[tokio::test]
async fn a_user_is_taken_out_of_runs_of_any_number() {
    const RUNS: u64 = 3 * settlements::RUNS_CHANGED_MAX as u64;
    let dir = tempfile::tempdir().unwrap();
    let store = DeliveryStore::open(&dir.path().join("delivery.redb")).unwrap();
    let of = |n: u64| {
        let user_id = if n.is_multiple_of(3) { "bob" } else { "ann" }.to_owned();
        Some(Settlement { user_id, error: "of this user".to_owned(), ..settlement(&n.to_string()) })
    };
    for run in 0..RUNS {
        let settlements = Arc::new((run * 3..run * 3 + 3).map(of).collect());
        store.commit(1, Commit { settlements, settlements_max: 100_000, ..Commit::default() }).await.unwrap();
    }
    store.erase_user(1, "ann").unwrap();
    let all = store.settlements(1, 0, usize::MAX).unwrap();
    assert_eq!(all.len() as u64, 3 * RUNS);
    for (number, record) in all {
        let expected = if (number - 1).is_multiple_of(3) { ("bob", "of this user") } else { ("", "") };
        assert_eq!((record.user_id.as_str(), record.error.as_str()), expected, "{number}");
    }
}
