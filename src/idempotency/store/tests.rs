//! What the store says of keys, over restarts and bounds.

use super::*;

const BOUNDS: KeyBounds = KeyBounds { keys_max: 100, bytes_max: 1 << 20, share_percent: 100 };
const DAY: u64 = micros(RETENTION);

fn file(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("keys.redb")
}

async fn begin(store: &KeyStore, key: &str, print: u8, now: u64) -> KeyState {
    store.begin(key.as_bytes().to_vec(), [print; 32], now).await.unwrap()
}

#[tokio::test]
async fn a_call_that_was_broken_off_is_known_again_after_a_restart_and_an_answer_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = KeyStore::open(&file(&dir), BOUNDS).unwrap();
    assert_eq!(begin(&store, "a", 1, 5).await, KeyState::New { at: 5 });
    assert_eq!(begin(&store, "a", 1, 6).await, KeyState::Again { at: 5 });
    assert_eq!(begin(&store, "a", 2, 6).await, KeyState::OtherBody);
    drop(store);
    let store = KeyStore::open(&file(&dir), BOUNDS).unwrap();
    assert_eq!(begin(&store, "a", 1, 7).await, KeyState::Again { at: 5 });
    assert_eq!(begin(&store, "b", 2, 7).await, KeyState::New { at: 7 });
    store.finish(b"a".to_vec(), 5, b"done".to_vec()).await.unwrap();
    // Not that of this call.
    store.finish(b"b".to_vec(), 6, b"done".to_vec()).await.unwrap();
    drop(store);
    let store = KeyStore::open(&file(&dir), BOUNDS).unwrap();
    assert_eq!(begin(&store, "a", 1, 8).await, KeyState::Answered { at: 5, answer: b"done".to_vec() });
    assert_eq!(begin(&store, "a", 2, 8).await, KeyState::OtherBody);
    assert_eq!(begin(&store, "b", 2, 8).await, KeyState::Again { at: 7 });
    store.forget(b"b".to_vec(), 6).await.unwrap();
    assert_eq!(begin(&store, "b", 2, 9).await, KeyState::Again { at: 7 });
    store.forget(b"b".to_vec(), 7).await.unwrap();
    assert_eq!(begin(&store, "b", 3, 10).await, KeyState::New { at: 10 });
}

#[tokio::test]
async fn keys_are_forgotten_after_a_day_and_never_sooner() {
    let dir = tempfile::tempdir().unwrap();
    let store = KeyStore::open(&file(&dir), BOUNDS).unwrap();
    for n in 0..50 {
        assert_eq!(begin(&store, &format!("k{n}"), 1, n).await, KeyState::New { at: n });
    }
    assert_eq!(store.sweep(DAY - 1).await.unwrap(), 0);
    assert_eq!(begin(&store, "k0", 1, DAY - 1).await, KeyState::Again { at: 0 });
    assert_eq!(store.sweep(DAY + 9).await.unwrap(), 10);
    assert_eq!(store.sweep(DAY + 9).await.unwrap(), 0);
    assert_eq!(begin(&store, "k9", 2, DAY + 9).await, KeyState::New { at: DAY + 9 });
    // Not swept, and over all the same.
    assert_eq!(begin(&store, "k10", 2, DAY + 10).await, KeyState::New { at: DAY + 10 });
    assert_eq!(store.sweep(3 * DAY).await.unwrap(), 41);
    assert_eq!(begin(&store, "k9", 3, 3 * DAY).await, KeyState::New { at: 3 * DAY });
}

#[tokio::test]
async fn what_is_full_refuses_and_forgets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = KeyStore::open(&file(&dir), KeyBounds { keys_max: 3, ..BOUNDS }).unwrap();
    for n in 1..=3 {
        assert_eq!(begin(&store, &format!("k{n}"), 1, n * 1_000_000).await, KeyState::New { at: n * 1_000_000 });
    }
    let retry_after = RETENTION - Duration::from_secs(9);
    assert_eq!(begin(&store, "k4", 1, 10_000_000).await, KeyState::Full { retry_after });
    assert_eq!(begin(&store, "k1", 1, 10_000_000).await, KeyState::Again { at: 1_000_000 });
    assert_eq!(store.sweep(DAY + 1_000_000).await.unwrap(), 1);
    assert_eq!(begin(&store, "k4", 1, DAY + 1_000_000).await, KeyState::New { at: DAY + 1_000_000 });
    drop(store);

    // Bytes are bounded too, over restarts.
    let bounds = KeyBounds { bytes_max: 10_000, ..BOUNDS };
    for round in 0..2 {
        let store = KeyStore::open(&dir.path().join("bytes.redb"), bounds).unwrap();
        if round == 0 {
            assert_eq!(begin(&store, "a", 1, 5).await, KeyState::New { at: 5 });
            store.finish(b"a".to_vec(), 5, vec![b'x'; 10_000]).await.unwrap();
        }
        assert!(matches!(begin(&store, "b", 1, 6).await, KeyState::Full { .. }));
        if round == 1 {
            assert_eq!(store.sweep(DAY + 5).await.unwrap(), 1);
            assert_eq!(begin(&store, "b", 1, DAY + 6).await, KeyState::New { at: DAY + 6 });
        }
    }
}

#[tokio::test]
async fn an_organization_has_its_share_of_keys_and_others_have_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = KeyBounds { keys_max: 1_000, bytes_max: 1 << 20, share_percent: 50 };
    let store = KeyStore::open(&file(&dir), bounds).unwrap();
    for n in 0..500 {
        assert_eq!(begin(&store, &format!("greedy\0{n}"), 1, n).await, KeyState::New { at: n });
    }
    assert!(matches!(begin(&store, "greedy\0more", 1, 500).await, KeyState::Full { .. }));
    drop(store);
    // Also after a restart, and when what each has was not kept by a former release.
    let database = Database::create(file(&dir)).unwrap();
    let transaction = database.begin_write().unwrap();
    let mut sums = transaction.open_table(SUMS).unwrap();
    for name in [BY_ORGANIZATION, &keys_of("greedy"), &bytes_of("greedy")] {
        assert!(sums.remove(name).unwrap().is_some(), "{name}");
    }
    drop(sums);
    transaction.commit().unwrap();
    drop(database);
    let store = KeyStore::open(&file(&dir), bounds).unwrap();
    assert!(matches!(begin(&store, "greedy\0more", 1, 500).await, KeyState::Full { .. }));
    for n in 0..100 {
        assert_eq!(begin(&store, &format!("other\0{n}"), 1, n).await, KeyState::New { at: n });
    }
    // What goes is room again.
    store.forget(b"greedy\0".iter().copied().chain(*b"7").collect(), 7).await.unwrap();
    assert_eq!(begin(&store, "greedy\0more", 1, 501).await, KeyState::New { at: 501 });
    assert!(matches!(begin(&store, "greedy\0again", 1, 502).await, KeyState::Full { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_one_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(KeyStore::open(&file(&dir), BOUNDS).unwrap());
    let calls = (0..50).map(|n| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { begin(&store, "a", 1, n).await })
    });
    let calls = futures_util::future::join_all(calls.collect::<Vec<_>>()).await;
    let new = calls.into_iter().filter(|begun| matches!(begun, Ok(KeyState::New { .. }))).count();
    assert_eq!(new, 1);
}

#[tokio::test]
async fn trials_to_write_leave_keys_and_little_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = KeyStore::open(&file(&dir), BOUNDS).unwrap();
    assert_eq!(begin(&store, "a", 1, 5).await, KeyState::New { at: 5 });
    for _ in 0..20 {
        store.try_write().await.unwrap();
    }
    assert_eq!(begin(&store, "a", 1, 6).await, KeyState::Again { at: 5 });
    drop(store);
    let database = Database::create(file(&dir)).unwrap();
    let transaction = database.begin_write().unwrap();
    assert_eq!(transaction.open_table(TRIALS).unwrap().len().unwrap(), 1);
}
