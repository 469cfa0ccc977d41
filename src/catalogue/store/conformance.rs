//! The conformance suite of [`CatalogueStore`](super::CatalogueStore), run for every implementation.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::future::join_all;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::test_postgres::PostgresServer;
use super::*;
use crate::domain::*;

/// Where a store's data is. Opening it twice is two services, or one that was
/// started again.
enum TestDatabase {
    Sqlite(tempfile::TempDir),
    Postgres(String),
}

impl TestDatabase {
    fn sqlite() -> Option<Self> {
        Some(Self::Sqlite(tempfile::tempdir().unwrap()))
    }

    fn postgres() -> Option<Self> {
        PostgresServer::shared().map(|server| Self::Postgres(server.new_database()))
    }

    async fn open(&self) -> Arc<dyn CatalogueStore> {
        match self {
            Self::Sqlite(dir) => Arc::new(SqliteStore::open(&dir.path().join("catalogue.sqlite")).await.unwrap()),
            Self::Postgres(url) => Arc::new(PostgresStore::connect(url).await.unwrap()),
        }
    }

    /// Runs a statement as somebody else's program.
    async fn execute(&self, statement: &'static str) {
        match self {
            Self::Sqlite(dir) => {
                let url = format!("sqlite://{}", dir.path().join("catalogue.sqlite").display());
                let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
                sqlx::query(statement).execute(&pool).await.unwrap();
            }
            Self::Postgres(url) => {
                let pool = sqlx::PgPool::connect(url).await.unwrap();
                sqlx::query(statement).execute(&pool).await.unwrap();
            }
        }
    }

    /// As many services as there may be.
    async fn open_all(&self) -> Vec<Arc<dyn CatalogueStore>> {
        match self {
            Self::Sqlite(_) => vec![self.open().await],
            Self::Postgres(_) => vec![self.open().await, self.open().await],
        }
    }
}

/// Declares each test once for every store.
macro_rules! of_every_store {
    ($($name:ident)+) => {
        mod sqlite {
            $( #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let database = super::TestDatabase::sqlite().unwrap();
                super::$name(database).await;
            } )+
        }

        mod postgres {
            $( #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let database = tokio::task::spawn_blocking(super::TestDatabase::postgres).await.unwrap();
                if let Some(database) = database {
                    super::$name(database).await;
                }
            } )+
        }
    };
}

of_every_store! {
    a_show_is_read_as_it_was_kept
    changes_at_once_lose_nothing
    one_of_many_transitions_wins_and_notifies_once
    what_is_refused_or_so_already_changes_nothing
    a_key_is_used_once_by_calls_at_once
    a_key_is_free_again_after_24_hours
    lists_are_what_an_oracle_says
    a_page_and_its_total_are_of_the_same_moment
    a_notification_is_claimed_by_one_at_a_time
    notifications_of_a_show_are_claimed_in_order
    what_was_given_up_is_listed_and_can_be_retried
    the_outbox_counts_what_is_not_delivered
    only_what_is_over_is_swept
    an_older_service_opens_the_tables_of_a_newer_one
    tables_are_brought_up_to_date_once
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn show() -> Show {
    Show {
        id: ShowId::random(),
        title: Title::parse("Hamlet").unwrap(),
        start_at: at(1_000),
        end_at: at(2_000),
        location: Location::parse("Helsingør").unwrap(),
        status: Status::Draft,
        internal_notes: None,
        created_by: None,
        updated_at: at(10),
        version: Version::FIRST,
    }
}

fn notification(show: &Show, kind: NotificationKind) -> Notification {
    Notification::about(show, kind, show.updated_at)
}

fn key(key: &str, body: &str) -> KeyUse {
    let mut fields = Fields::default();
    fields.add("title", GivenValue::Text(body.to_owned()));
    KeyUse { key: IdempotencyKey::parse(key).unwrap(), fingerprint: Fingerprint::of(&fields) }
}

fn to(status: Status) -> impl Fn(&Show) -> Decision {
    move |show| ShowChange { status: Some(status), internal_notes: None }.decide(show, None, at(20))
}

async fn a_show_is_read_as_it_was_kept(database: TestDatabase) {
    let store = database.open().await;
    let shows = [
        show(),
        Show {
            title: Title::parse(&"🎭".repeat(200)).unwrap(),
            location: Location::parse("'; DROP TABLE shows; -- %_\\ \u{1} ẞ\u{301}").unwrap(),
            start_at: at(253_402_300_799_998),
            end_at: at(253_402_300_799_999),
            status: Status::Cancelled,
            internal_notes: InternalNotes::parse(&"\n \u{fffd}語".repeat(2_500)),
            created_by: CreatedBy::parse(""),
            updated_at: at(-1),
            version: Version::from_number(i64::MAX),
            ..show()
        },
    ];
    for show in &shows {
        assert_eq!(store.insert(show, &[], None).await.unwrap(), InsertOutcome::New);
    }
    drop(store);
    let store = database.open().await;
    for show in shows {
        assert_eq!(store.show(show.id).await.unwrap(), Some(show));
    }
    assert_eq!(store.show(ShowId::random()).await.unwrap(), None);
    assert!(matches!(store.change(ShowId::random(), &to(Status::Published)).await.unwrap(), ChangeOutcome::Missing));
}

async fn changes_at_once_lose_nothing(database: TestDatabase) {
    const CHANGES: usize = 60;
    let (stores, show) = (database.open_all().await, show());
    stores[0].insert(&show, &[], None).await.unwrap();
    let add_one = |show: &Show| {
        let notes = format!("{}x", show.internal_notes.as_ref().map_or("", InternalNotes::as_str));
        ShowChange { status: None, internal_notes: Some(InternalNotes::parse(&notes)) }.decide(show, None, at(20))
    };
    let changes = (0..CHANGES).map(|change| {
        let store = Arc::clone(&stores[change % stores.len()]);
        tokio::spawn(async move { store.change(show.id, &add_one).await })
    });
    for changed in join_all(changes).await {
        assert!(matches!(changed.unwrap().unwrap(), ChangeOutcome::Replaced(_)));
    }
    let kept = stores[0].show(show.id).await.unwrap().unwrap();
    assert_eq!(kept.internal_notes.unwrap().as_str().len(), CHANGES);
    assert_eq!(kept.version.number(), 61);
}

async fn one_of_many_transitions_wins_and_notifies_once(database: TestDatabase) {
    let (stores, show) = (database.open_all().await, show());
    stores[0].insert(&show, &[], None).await.unwrap();
    let changes = (0..40).map(|change| {
        let store = Arc::clone(&stores[change % stores.len()]);
        let status = if change % 4 < 2 { Status::Published } else { Status::Cancelled };
        tokio::spawn(async move { store.change(show.id, &to(status)).await })
    });
    let mut replaced = Vec::new();
    for changed in join_all(changes).await {
        match changed.unwrap().unwrap() {
            ChangeOutcome::Replaced(show) => replaced.push(show.status),
            ChangeOutcome::Kept(_) | ChangeOutcome::Refused(_) => {}
            ChangeOutcome::Missing => panic!("it is there"),
        }
    }
    // Cancelled from whatever it was; before that it may have been published.
    assert_eq!(replaced.iter().filter(|status| **status == Status::Cancelled).count(), 1);
    assert!(replaced.iter().filter(|status| **status == Status::Published).count() <= 1);
    let page = Page { number: 1, limit: 100 };
    let (records, total) = stores[0].notifications(&NotificationState::ALL, page).await.unwrap();
    assert_eq!(total, replaced.len() as u64);
    assert_eq!(records.len(), replaced.len());
}

async fn what_is_refused_or_so_already_changes_nothing(database: TestDatabase) {
    let (store, show) = (database.open().await, show());
    store.insert(&show, &[], None).await.unwrap();
    let kept = store.change(show.id, &to(Status::Draft)).await.unwrap();
    assert_eq!(kept, ChangeOutcome::Kept(Box::new(show.clone())));
    let refuse = |_: &Show| Decision::Refuse(Refusal::Outdated);
    assert_eq!(store.change(show.id, &refuse).await.unwrap(), ChangeOutcome::Refused(Refusal::Outdated));
    assert_eq!(store.show(show.id).await.unwrap(), Some(show));
    assert_eq!(store.claim(at(i64::MAX), at(i64::MAX), 10).await.unwrap(), []);
}

async fn a_key_is_used_once_by_calls_at_once(database: TestDatabase) {
    let stores = database.open_all().await;
    let calls = (0..30).map(|call| {
        let store = Arc::clone(&stores[call % stores.len()]);
        tokio::spawn(async move {
            let show = Show { internal_notes: InternalNotes::parse("as made"), ..show() };
            let inserted =
                store.insert(&show, &[notification(&show, NotificationKind::Created)], Some(&key("a", "body"))).await;
            (show, inserted.unwrap())
        })
    });
    let (mut made, mut kept) = (Vec::new(), Vec::new());
    for call in join_all(calls).await {
        match call.unwrap() {
            (show, InsertOutcome::New) => made.push(show),
            (_, InsertOutcome::Kept(answer)) => kept.push(answer),
        }
    }
    let [made] = &made[..] else { panic!("{} calls have made a show", made.len()) };
    let same = KeptAnswer::Same(Box::new(made.clone()));
    assert_eq!(kept, vec![same.clone(); 29]);
    assert_eq!(stores[0].claim(at(100), at(200), 10).await.unwrap().len(), 1);
    // The answer stays what it was.
    stores[0].change(made.id, &to(Status::Published)).await.unwrap();
    let store = database.open().await;
    assert_eq!(store.kept_answer(&key("a", "body"), at(20)).await.unwrap(), Some(same));
    assert_eq!(store.kept_answer(&key("a", "other"), at(20)).await.unwrap(), Some(KeptAnswer::OtherBody));
    assert_eq!(store.kept_answer(&key("A", "body"), at(20)).await.unwrap(), None);
    let other = show();
    let inserted = store.insert(&other, &[], Some(&key("a", "other"))).await.unwrap();
    assert_eq!(inserted, InsertOutcome::Kept(KeptAnswer::OtherBody));
    assert_eq!(store.show(other.id).await.unwrap(), None, "nothing of a refused call is kept");
}

async fn a_key_is_free_again_after_24_hours(database: TestDatabase) {
    let (store, first) = (database.open().await, show());
    store.insert(&first, &[], Some(&key("a", "body"))).await.unwrap();
    let last = at(first.updated_at.millis() + MILLIS_PER_DAY - 1);
    assert!(store.kept_answer(&key("a", "body"), last).await.unwrap().is_some());
    assert_eq!(store.kept_answer(&key("a", "body"), last.plus_millis(1)).await.unwrap(), None);
    let later = Show { updated_at: last, ..show() };
    assert!(matches!(store.insert(&later, &[], Some(&key("a", "body"))).await.unwrap(), InsertOutcome::Kept(_)));
    let later = Show { updated_at: last.plus_millis(1), ..later };
    assert_eq!(store.insert(&later, &[], Some(&key("a", "other"))).await.unwrap(), InsertOutcome::New);
    let kept = store.kept_answer(&key("a", "other"), last.plus_millis(2)).await.unwrap();
    assert_eq!(kept, Some(KeptAnswer::Same(Box::new(later))));
}

fn any_show() -> impl Strategy<Value = Show> {
    let location = "[aAbBßẞéÉ%_\\\\İıſ 语]{1,6}|STRASSE|Straße|Cafe\u{301}|CAFÉ|a,b";
    let hour = MILLIS_PER_DAY / 24;
    (0_i64..240, 1_i64..72, location, 0_usize..3).prop_map(move |(start, length, location, status)| Show {
        start_at: at(start * hour),
        end_at: at((start + length) * hour),
        location: Location::parse(&location).unwrap_or(Location::parse("x").unwrap()),
        status: Status::ALL[status],
        ..show()
    })
}

fn any_query() -> impl Strategy<Value = ListQuery> {
    let day = || prop::option::of(1_u32..12);
    let part = "[aAbBßẞéÉ%_\\\\İıſ语]{1,2}|ss|SS|straße|e\u{301}|é|a,s";
    let parts = prop::collection::vec(part, 0..3);
    let statuses = prop::option::of(prop::collection::vec(prop::sample::select(Status::ALL.to_vec()), 1..3));
    (day(), day(), parts, statuses, 1_u64..8, 1_u32..40).prop_map(|(from, to, parts, statuses, page, limit)| {
        let (from, to) = if from > to && to.is_some() { (to, from) } else { (from, to) };
        let mut params = vec![("page".to_owned(), page.to_string()), ("limit".to_owned(), limit.to_string())];
        let day = |day: u32| format!("1970-01-{day:02}");
        params.extend(from.map(|from| ("dateFrom".to_owned(), day(from))));
        params.extend(to.map(|to| ("dateTo".to_owned(), day(to))));
        params.push(("locations".to_owned(), parts.join(",")));
        let names = |statuses: Vec<Status>| statuses.into_iter().map(Status::as_str).collect::<Vec<_>>().join(",");
        params.extend(statuses.map(|statuses| ("status".to_owned(), names(statuses))));
        ListQuery::parse(&params, Audience::Admin).unwrap()
    })
}

async fn lists_are_what_an_oracle_says(database: TestDatabase) {
    let (store, mut runner) = (database.open().await, TestRunner::deterministic());
    let mut shows: Vec<Show> = prop::collection::vec(any_show(), 120).new_tree(&mut runner).unwrap().current();
    for show in &shows {
        store.insert(show, &[], None).await.unwrap();
    }
    shows.sort_by_key(|show| (show.start_at, show.id.to_string()));
    let mut found = 0;
    for _ in 0..400 {
        let query = any_query().new_tree(&mut runner).unwrap().current();
        let matching: Vec<&Show> = shows.iter().filter(|show| query.matches(show)).collect();
        let offset = usize::try_from(query.page.offset()).unwrap();
        let expected: Vec<Show> =
            matching.iter().skip(offset).take(query.page.limit as usize).map(|show| (*show).clone()).collect();
        found += usize::from(!expected.is_empty());
        let listing = store.list(&query).await.unwrap();
        assert_eq!(listing, Listing { shows: expected, total: matching.len() as u64 }, "{query:?}");
    }
    assert!(found > 100, "most queries find something: {found}");
    let beyond =
        ListQuery { page: Page { number: u64::MAX, limit: 100 }, ..ListQuery::parse(&[], Audience::Admin).unwrap() };
    assert_eq!(store.list(&beyond).await.unwrap(), Listing { shows: Vec::new(), total: 120 });
}

async fn a_page_and_its_total_are_of_the_same_moment(database: TestDatabase) {
    let (store, query) =
        (database.open().await, ListQuery::parse(&[("limit".to_owned(), "100".to_owned())], Audience::Admin));
    let query = query.unwrap();
    let writer = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            for _ in 0..80 {
                store.insert(&show(), &[], None).await.unwrap();
            }
        }
    });
    let mut reads = 0;
    while !writer.is_finished() {
        let listing = store.list(&query).await.unwrap();
        assert_eq!(listing.shows.len() as u64, listing.total);
        reads += 1;
    }
    writer.await.unwrap();
    assert!(reads > 0);
    assert_eq!(store.list(&query).await.unwrap().total, 80);
}

async fn a_notification_is_claimed_by_one_at_a_time(database: TestDatabase) {
    let stores = database.open_all().await;
    for _ in 0..50 {
        let show = show();
        stores[0].insert(&show, &[notification(&show, NotificationKind::Created)], None).await.unwrap();
    }
    let claims = (0..20).map(|call| {
        let store = Arc::clone(&stores[call % stores.len()]);
        tokio::spawn(async move { store.claim(at(100), at(200), 7).await.unwrap() })
    });
    let claimed: Vec<Claim> = join_all(claims).await.into_iter().flat_map(Result::unwrap).collect();
    let ids: HashSet<&str> = claimed.iter().map(|claim| claim.notification.id.as_str()).collect();
    assert_eq!(ids.len(), claimed.len(), "nothing is claimed twice");
    // Whoever was passed over comes again.
    let mut count = claimed.len();
    loop {
        let rest = stores[0].claim(at(100), at(200), 7).await.unwrap();
        if rest.is_empty() {
            break;
        }
        count += rest.len();
    }
    assert_eq!(count, 50);
    assert!(claimed.iter().all(|claim| claim.attempt == 1));
    // Those who claimed them are gone.
    assert_eq!(stores[0].claim(at(199), at(300), 100).await.unwrap(), []);
    let again = stores[0].claim(at(200), at(300), 100).await.unwrap();
    assert_eq!(again.len(), 50);
    assert!(again.iter().all(|claim| claim.attempt == 2));
    // One of them was not gone after all: what it says does not count any more.
    stores[0].settle(&claimed[0], &AttemptOutcome::Delivered, at(250)).await.unwrap();
    let page = Page { number: 1, limit: 100 };
    let (_, delivered) = stores[0].notifications(&[NotificationState::Delivered], page).await.unwrap();
    assert_eq!(delivered, 0);
    stores[0].settle(&again[0], &AttemptOutcome::Delivered, at(250)).await.unwrap();
    assert_eq!(stores[0].claim(at(300), at(400), 100).await.unwrap().len(), 49);
}

async fn notifications_of_a_show_are_claimed_in_order(database: TestDatabase) {
    let (store, made) = (database.open().await, Show { status: Status::Published, ..show() });
    let kinds = [NotificationKind::Created, NotificationKind::Published];
    let both = kinds.map(|kind| notification(&made, kind));
    store.insert(&made, &both, None).await.unwrap();
    store.change(made.id, &to(Status::Cancelled)).await.unwrap();
    let other = show();
    store.insert(&other, &[notification(&other, NotificationKind::Created)], None).await.unwrap();
    let kinds = |claims: &[Claim]| -> Vec<(ShowId, NotificationKind)> {
        let mut kinds: Vec<_> =
            claims.iter().map(|claim| (claim.notification.show_id, claim.notification.kind)).collect();
        kinds.sort_by_key(|(id, _)| *id != made.id);
        kinds
    };
    let first = store.claim(at(100), at(200), 10).await.unwrap();
    assert_eq!(kinds(&first), [(made.id, NotificationKind::Created), (other.id, NotificationKind::Created)]);
    let created = first.iter().find(|claim| claim.notification.show_id == made.id).unwrap();
    assert_eq!(created.notification, both[0], "it is read as it was kept");
    assert_eq!(store.claim(at(100), at(200), 10).await.unwrap(), []);
    let later = AttemptOutcome::RetryAt { at: at(150), error: "no answer".to_owned() };
    store.settle(created, &later, at(100)).await.unwrap();
    assert_eq!(store.claim(at(149), at(200), 10).await.unwrap(), []);
    for kind in [NotificationKind::Created, NotificationKind::Published, NotificationKind::Cancelled] {
        let claims = store.claim(at(150), at(400), 10).await.unwrap();
        assert_eq!(kinds(&claims), [(made.id, kind)]);
        store.settle(&claims[0], &AttemptOutcome::Delivered, at(150)).await.unwrap();
    }
    assert_eq!(store.claim(at(150), at(400), 10).await.unwrap(), []);
}

async fn what_was_given_up_is_listed_and_can_be_retried(database: TestDatabase) {
    let (store, made) = (database.open().await, show());
    store.insert(&made, &[notification(&made, NotificationKind::Created)], None).await.unwrap();
    let claims = store.claim(at(100), at(200), 10).await.unwrap();
    store.settle(&claims[0], &AttemptOutcome::GivenUp { error: "gone".to_owned() }, at(110)).await.unwrap();
    assert_eq!(store.claim(at(i64::MAX - 1), at(i64::MAX), 10).await.unwrap(), []);
    let page = Page { number: 1, limit: 10 };
    let (records, total) = store.notifications(&[NotificationState::GivenUp], page).await.unwrap();
    assert_eq!(total, 1);
    let expected = NotificationRecord {
        notification: claims[0].notification.clone(),
        state: NotificationState::GivenUp,
        attempts: 1,
        next_attempt_at: None,
        last_error: Some("gone".to_owned()),
    };
    assert_eq!(records, [expected]);
    assert!(!store.retry_given_up("msg_other", at(120)).await.unwrap());
    assert!(store.retry_given_up(&claims[0].notification.id, at(120)).await.unwrap());
    assert!(!store.retry_given_up(&claims[0].notification.id, at(120)).await.unwrap());
    let again = store.claim(at(120), at(200), 10).await.unwrap();
    assert_eq!(again, claims, "under the same id");
    let second = Page { number: 2, limit: 10 };
    assert_eq!(store.notifications(&NotificationState::ALL, second).await.unwrap(), (Vec::new(), 1));
}

async fn the_outbox_counts_what_is_not_delivered(database: TestDatabase) {
    let store = database.open().await;
    assert_eq!(store.outbox().await.unwrap(), OutboxTotals::default());
    let shows: Vec<Show> = (1..=4).map(|n| Show { updated_at: at(10 * n), ..show() }).collect();
    for made in &shows {
        store.insert(made, &[notification(made, NotificationKind::Created)], None).await.unwrap();
    }
    let expected =
        |pending, oldest: Option<i64>, given_up| OutboxTotals { pending, oldest_pending_at: oldest.map(at), given_up };
    assert_eq!(store.outbox().await.unwrap(), expected(4, Some(10), 0));
    let claims = store.claim(at(100), at(200), 10).await.unwrap();
    let error = || "gone".to_owned();
    let outcomes = [
        AttemptOutcome::Delivered,
        AttemptOutcome::GivenUp { error: error() },
        AttemptOutcome::RetryAt { at: at(300), error: error() },
        AttemptOutcome::GivenUp { error: error() },
    ];
    for (claim, attempted) in claims.iter().zip(&outcomes) {
        store.settle(claim, attempted, at(110)).await.unwrap();
    }
    let left = store.outbox().await.unwrap();
    assert_eq!((left.pending, left.given_up), (1, 2));
    assert_eq!(left.oldest_pending_at, Some(claims[2].notification.occurred_at));
    assert!(store.retry_given_up(&claims[1].notification.id, at(120)).await.unwrap());
    assert_eq!(store.outbox().await.unwrap().given_up, 1);
}

async fn only_what_is_over_is_swept(database: TestDatabase) {
    let (store, made) = (database.open().await, show());
    let all = [NotificationKind::Created, NotificationKind::Published, NotificationKind::Cancelled];
    store.insert(&made, &all.map(|kind| notification(&made, kind)), Some(&key("a", "body"))).await.unwrap();
    for attempted in [AttemptOutcome::Delivered, AttemptOutcome::GivenUp { error: String::new() }] {
        let claims = store.claim(at(100), at(200), 10).await.unwrap();
        store.settle(&claims[0], &attempted, at(100)).await.unwrap();
    }
    let page = Page { number: 1, limit: 10 };
    let total = async || store.notifications(&NotificationState::ALL, page).await.unwrap().1;
    store.sweep(at(MILLIS_PER_DAY), at(100)).await.unwrap();
    assert_eq!(total().await, 3);
    assert!(store.kept_answer(&key("a", "body"), at(11)).await.unwrap().is_some());
    store.sweep(at(MILLIS_PER_DAY + 10), at(101)).await.unwrap();
    assert_eq!(total().await, 2, "what was delivered goes");
    assert!(store.kept_answer(&key("a", "body"), at(11)).await.unwrap().is_none());
    assert!(store.show(made.id).await.unwrap().is_some());
}

async fn an_older_service_opens_the_tables_of_a_newer_one(database: TestDatabase) {
    database.open().await;
    database
        .execute(
            "INSERT INTO catalogue_migrations (version, description, success, checksum, execution_time) \
             SELECT 9999, 'of the future', success, checksum, 0 FROM catalogue_migrations WHERE version = 1",
        )
        .await;
    let (store, made) = (database.open().await, show());
    store.insert(&made, &[], None).await.unwrap();
    assert!(store.show(made.id).await.unwrap().is_some());
}

async fn tables_are_brought_up_to_date_once(database: TestDatabase) {
    if matches!(database, TestDatabase::Postgres(_)) {
        join_all((0..5).map(|_| database.open())).await;
    } else {
        database.open().await;
    }
    let made = show();
    database.open().await.insert(&made, &[], None).await.unwrap();
    assert!(database.open().await.show(made.id).await.unwrap().is_some());
}

#[tokio::test]
async fn claims_end_when_a_file_is_opened_again() {
    let (database, made) = (TestDatabase::sqlite().unwrap(), show());
    let store = database.open().await;
    store.insert(&made, &[notification(&made, NotificationKind::Created)], None).await.unwrap();
    let claims = store.claim(at(100), at(1_000_000), 10).await.unwrap();
    assert_eq!(claims.len(), 1);
    drop(store);
    let again = database.open().await.claim(at(101), at(1_000_000), 10).await.unwrap();
    assert_eq!(again[0].notification, claims[0].notification);
}

#[tokio::test]
async fn a_database_that_cannot_be_had_is_no_fault_of_the_request() {
    let error = PostgresStore::connect("postgres://127.0.0.1:1/none").await.err().unwrap();
    assert!(error.is_temporary(), "{error:?}");
    let database = TestDatabase::sqlite().unwrap();
    let TestDatabase::Sqlite(dir) = &database else { return };
    assert!(SqliteStore::open(&dir.path().join("missing/file")).await.is_err());
}

#[tokio::test]
async fn nobody_else_can_read_the_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("catalogue.sqlite")).await.unwrap();
    store.insert(&show(), &[], None).await.unwrap();
    let files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap).collect();
    assert!(files.len() > 1, "there is also its log");
    for file in files {
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", file.path());
    }
}
