//! The audit finds where the rollups do not say what the events say, exactly,
//! repairs it, and takes nothing that is on its way for a difference.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tallyhouse::clickhouse::audit::AuditStore;
use tallyhouse::clickhouse::client::Endpoint;
use tallyhouse::config::Secret;
use tallyhouse::domain::Timestamp;
use tallyhouse::hour_versions::TouchedHours;
use tallyhouse::transport::proto::audit_response::Step;
use tallyhouse::transport::proto::audit_service_client::AuditServiceClient;
use tallyhouse::transport::proto::{self, HourResult, Rollup};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::events::{click, clicks, now_millis, window};
use crate::service::{TABLES, TestService, eventually, signal};

pub(crate) const HOUR: i64 = 3_600_000;
/// So that only the test itself audits.
pub(crate) const NO_BACKGROUND: (&str, &str) = ("TALLYHOUSE_AUDIT_BACKGROUND", "false");

/// The middle of an hour that is over.
pub(crate) fn closed_hour() -> i64 {
    let now = now_millis();
    now - now.rem_euclid(HOUR) - 2 * HOUR + HOUR / 2
}

pub(crate) struct Audited {
    /// The hours that are not simply consistent.
    pub(crate) hours: Vec<proto::AuditedHour>,
    pub(crate) summary: proto::AuditSummary,
}

impl Audited {
    pub(crate) fn results(&self) -> Vec<HourResult> {
        self.hours.iter().map(proto::AuditedHour::result).collect()
    }

    /// Rollup, keys, too few, too many: of the one hour that was found.
    fn found(&self) -> Vec<(Rollup, u64, u64, u64)> {
        assert_eq!(self.hours.len(), 1, "{:?}", self.hours);
        self.hours[0].found.iter().map(|found| (found.rollup(), found.keys, found.under, found.over)).collect()
    }
}

/// Audits, and repairs whatever differs if told so.
pub(crate) async fn try_audit(
    channel: Channel,
    window: Option<proto::Window>,
    repair: bool,
) -> Result<Audited, Status> {
    request_audit(channel, proto::AuditRequest { window, repair, unproven_removals_max: u64::MAX }).await
}

pub(crate) async fn request_audit(channel: Channel, request: proto::AuditRequest) -> Result<Audited, Status> {
    let mut steps = AuditServiceClient::new(channel).audit(request).await?.into_inner();
    let mut hours = Vec::new();
    while let Some(step) = steps.message().await? {
        match step.step.unwrap() {
            Step::Hour(hour) if hour.result() != HourResult::Consistent => hours.push(hour),
            Step::Hour(_) => {}
            Step::Summary(summary) => return Ok(Audited { hours, summary }),
        }
    }
    panic!("no summary");
}

/// Has no rows of `events` merged from now on, so that rows of the same id stay.
pub(crate) async fn keep_duplicates(service: &TestService) {
    service
        .sql(
            "ALTER TABLE events MODIFY SETTING max_bytes_to_merge_at_max_space_in_pool = 1, \
             max_bytes_to_merge_at_min_space_in_pool = 1",
        )
        .await;
}

/// Audits the hours around a moment.
async fn audit(service: &TestService, millis: i64, repair: bool) -> Audited {
    let window = window(millis - 2 * HOUR, millis + HOUR);
    try_audit(service.channel().await, window, repair).await.unwrap()
}

async fn assert_consistent(service: &TestService, millis: i64) {
    let audited = audit(service, millis, false).await;
    assert_eq!(audited.results(), [], "{:?}", audited.hours);
}

async fn merge_everything(service: &TestService) {
    for table in TABLES {
        service.sql(&format!("OPTIMIZE TABLE {table} FINAL")).await;
    }
}

/// What analysts and callers are told of the service's events.
async fn answers(service: &TestService, millis: i64) -> Vec<String> {
    let mut query = service.query().await;
    let window = window(millis - 2 * HOUR, millis + HOUR);
    let stats = proto::GetCampaignStatsRequest {
        campaign_id: "camp_1".to_owned(),
        window,
        granularity: proto::Granularity::Minute.into(),
    };
    let stats = query.get_campaign_stats(stats).await.unwrap().into_inner().series;
    let users = proto::GetTopUsersRequest { window, limit: 200 };
    let users = query.get_top_users(users).await.unwrap().into_inner().users;
    let campaigns = proto::GetTopCampaignsRequest { window, limit: 200 };
    let campaigns = query.get_top_campaigns(campaigns).await.unwrap().into_inner().campaigns;
    let days = query.get_daily_active_users(proto::GetDailyActiveUsersRequest { window }).await.unwrap().into_inner();
    let mut answers =
        vec![format!("{stats:?}"), format!("{users:?}"), format!("{campaigns:?}"), format!("{:?}", days.days)];
    let (from, to) = ((millis - 2 * HOUR) / 1_000, (millis + HOUR) / 1_000);
    let times = format!("org = 'default', from = toDateTime({from}, 'UTC'), to = toDateTime({to}, 'UTC')");
    let days =
        format!("org = 'default', from = toDate(toDateTime({from}, 'UTC')), to = toDate(toDateTime({to}, 'UTC'))");
    for view in [
        format!("campaign_stats({times}, campaign = 'camp_1') ORDER BY ALL"),
        format!("top_campaigns({times})"),
        format!("top_users({times})"),
        format!("daily_active_users({days})"),
        format!("type_stats({times})"),
    ] {
        answers.push(service.sql(&format!("SELECT * FROM tallyhouse_analytics.{view}")).await);
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_the_last_second_of_an_hour_is_not_overlooked() {
    let service = TestService::with(&[NO_BACKGROUND]).await;
    // Alone in its month, and so in its part: ClickHouse chooses parts by
    // their first and last time.
    let last = closed_hour() - HOUR / 2 - 70 * 24 * HOUR - 2;
    service.store(vec![click("last", last)]).await;
    assert_consistent(&service, last).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_ingested_is_consistent() {
    let service = TestService::with(&[NO_BACKGROUND]).await;
    let at = closed_hour();
    service.store(clicks("now", 500, now_millis())).await;
    service.store(clicks("then", 500, at)).await;
    // The hour's edges, and events that count in only some of the rollups.
    let mut edges = vec![click("first", at - HOUR / 2), click("last", at + HOUR / 2 - 1)];
    edges.push(proto::Event { campaign_id: String::new(), ..click("no-campaign", at) });
    edges.push(proto::Event { user_id: String::new(), ..click("no-user", at) });
    service.store(edges).await;
    assert_consistent(&service, at).await;
    assert_consistent(&service, now_millis()).await;
    let audited = try_audit(service.channel().await, None, false).await.unwrap();
    assert_eq!((audited.summary.hours, audited.summary.consistent, audited.summary.ids), (24, 24, 504));
}

/// Runs `tallyhouse audit --json`: its exit code, and what it says.
pub(crate) fn command(service: &TestService, args: &[&str]) -> (Option<i32>, serde_json::Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_tallyhouse"))
        .args(["audit", "--json", "--address", &service.url])
        .args(args)
        .output()
        .unwrap();
    let value = serde_json::from_slice(&output.stdout);
    (output.status.code(), value.unwrap_or_else(|_| panic!("{output:?}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_event_rows_are_found_exactly_and_repaired() {
    let service = TestService::with(&[NO_BACKGROUND]).await;
    let at = closed_hour();
    service.store(clicks("event", 1_000, at)).await;
    let (right, told) = (service.totals().await, answers(&service, at).await);
    for _ in 0..2 {
        service
            .sql(
                "INSERT INTO events SELECT * FROM events WHERE event_id IN ('event-1', 'event-2', 'event-3') \
                 LIMIT 1 BY event_id SETTINGS insert_deduplicate = 0",
            )
            .await;
    }
    assert_ne!(answers(&service, at).await, told, "the rollups are wrong now");
    let audited = audit(&service, at, false).await;
    assert_eq!(audited.results(), [HourResult::Different]);
    assert_eq!(
        audited.found(),
        [
            (Rollup::CampaignMinutes, 3, 0, 6),
            (Rollup::TypeHours, 1, 0, 6),
            (Rollup::UserDays, 3, 0, 6),
            (Rollup::UserMinutes, 3, 0, 6),
        ]
    );
    let hour = &audited.hours[0];
    assert_eq!((hour.ids, hour.rows), (1_000, 1_006));
    let users: Vec<&str> = hour.found[3].differences.iter().map(|key| key.user_id.as_str()).collect();
    assert_eq!(users, ["user_1", "user_2", "user_3"]);
    assert!(hour.found[3].differences.iter().all(|key| key.actual == key.expected + 2));

    let (code, said) = command(&service, &["--last", "4h"]);
    assert_eq!((code, &said["different"]), (Some(1), &serde_json::json!(1)), "{said}");
    assert_eq!(said["findings"][0]["found"][0]["over"], 6);
    let (code, said) = command(&service, &["--last", "4h", "--repair", "--confirm", "--take-unproven", "6"]);
    assert_eq!((code, &said["repaired"]), (Some(0), &serde_json::json!(1)), "{said}");

    for merged in [false, true] {
        assert_eq!(service.totals().await, right, "merged: {merged}");
        assert_eq!(answers(&service, at).await, told, "merged: {merged}");
        assert_consistent(&service, at).await;
        merge_everything(&service).await;
    }
    let repairs = "SELECT rollup, keys, added, taken, author, countIf(state = 'begun'), countIf(state = 'done') \
                   FROM audit_repairs GROUP BY ALL ORDER BY audit_repairs.rollup FORMAT CSV";
    let rows: Vec<String> = ["campaign_minutes\",3", "type_hours\",1", "user_days\",3", "user_minutes\",3"]
        .map(|rollup| format!("\"{rollup},0,6,\"command\",1,1"))
        .into();
    assert_eq!(service.sql(repairs).await, rows.join("\n"));
    assert_repaired_since(&service, at).await;
}

/// What the forwarder asks before it repeats a segment.
async fn assert_repaired_since(service: &TestService, at: i64) {
    let password = std::fs::read_to_string(service.data_dir().join("clickhouse/password")).unwrap();
    let store = AuditStore::new(&Endpoint {
        url: service.clickhouse_url.clone(),
        user: "tallyhouse".to_owned(),
        password: Secret::new(password.trim().to_owned()),
        database: "tallyhouse".to_owned(),
    });
    let micros = |millis: i64| u64::try_from(millis).unwrap() * 1_000;
    for (org, millis, since, expected) in [
        ("default", at, micros(now_millis() - HOUR), true),
        ("default", at, micros(now_millis() + HOUR), false),
        ("default", at - HOUR, 0, false),
        ("another", at, 0, false),
    ] {
        let mut hours = TouchedHours::default();
        hours.touch("default", Timestamp::from_millis(at + 24 * HOUR));
        hours.touch(org, Timestamp::from_millis(millis));
        assert_eq!(store.repaired_since(&hours, since).await.unwrap(), expected, "{org} {millis} {since}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_whose_answer_is_lost_lands_once() {
    let service = TestService::with(&[NO_BACKGROUND]).await;
    let at = closed_hour();
    service.store(clicks("event", 5_000, at)).await;
    let right = service.totals().await;
    let mut cut = 0;
    for round in 0..6 {
        service
            .sql("INSERT INTO events SELECT * FROM events LIMIT 1 BY event_id SETTINGS insert_deduplicate = 0")
            .await;
        let before = service.sql("SELECT countIf(state = 'begun') FROM audit_repairs").await;
        let window = window(at - HOUR, at + HOUR);
        let repairs = try_audit(service.channel().await, window, true);
        let (repaired, ()) = tokio::join!(repairs, async {
            // Somewhere between the first record and the last.
            let begun = format!("SELECT countIf(state = 'begun') > {before} + {} FROM audit_repairs", round % 4);
            eventually("a repair", || async { service.sql(&begun).await == "1" }).await;
            signal(service.engine_pid(), "KILL");
        });
        cut += usize::from(repaired.is_err());
        eventually("a repaired hour", || async {
            try_audit(service.channel().await, window, true).await.is_ok_and(|audited| audited.summary.different == 0)
        })
        .await;
        assert_eq!(service.totals().await, right, "round {round}");
        assert_consistent(&service, at).await;
    }
    assert!(cut > 0, "no repair was cut off");
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_rollup_rows_are_found_exactly_and_repaired() {
    let service = TestService::with(&[NO_BACKGROUND]).await;
    let at = closed_hour();
    let hour = (at - HOUR / 2) / 1_000;
    service.store(clicks("event", 700, at)).await;
    let (right, told) = (service.totals().await, answers(&service, at).await);
    let insert = "SETTINGS insert_deduplicate = 0, deduplicate_insert = 'disable'";
    // Twice, as the same repair must be possible on two days.
    for round in 0..2 {
        merge_everything(&service).await;
        for wrong in [
            "ALTER TABLE campaign_minutes DELETE WHERE campaign_id = 'camp_1' SETTINGS mutations_sync = 2".to_owned(),
            "ALTER TABLE user_minutes DELETE WHERE user_id = 'user_5' SETTINGS mutations_sync = 2".to_owned(),
            format!("INSERT INTO type_hours {insert} VALUES ('default', toDateTime({hour}, 'UTC'), 'ghost', 9)"),
            // In a minute that is none.
            format!("INSERT INTO user_minutes {insert} VALUES ('default', toDateTime({hour} + 7, 'UTC'), 'nobody', 3)"),
            // Under a hash that is not the user's.
            format!(
                "INSERT INTO user_days SELECT org_id, day, 77 AS user_key, 'nobody' AS user_id, \
                   * EXCEPT (org_id, day, user_key, user_id) FROM user_days AS d WHERE d.user_id = 'user_9' {insert}"
            ),
        ] {
            service.sql(&wrong).await;
        }
        let audited = audit(&service, at, false).await;
        // Every rollup is wrong: nothing shows that no event is missing.
        assert_eq!(audited.results(), [HourResult::EventsMissing], "round {round}");
        let deleted: (u64, u64) = (
            service.sql("SELECT countIf(campaign_id = 'camp_1') FROM events").await.parse().unwrap(),
            service.sql("SELECT countIf(user_id = 'user_5') FROM events").await.parse().unwrap(),
        );
        let ninth: u64 = service.sql("SELECT countIf(user_id = 'user_9') FROM events").await.parse().unwrap();
        assert_eq!(
            audited.found(),
            [
                (Rollup::CampaignMinutes, 1, deleted.0, 0),
                (Rollup::TypeHours, 1, 0, 9),
                (Rollup::UserDays, 1, 0, ninth),
                (Rollup::UserMinutes, 2, deleted.1, 3),
            ],
            "round {round}"
        );
        let audited = audit(&service, at, true).await;
        assert_eq!(audited.results(), [HourResult::Repaired], "round {round}: {:?}", audited.hours);
        for merged in [false, true] {
            assert_eq!(service.totals().await, right, "round {round}, merged: {merged}");
            assert_eq!(answers(&service, at).await, told, "round {round}, merged: {merged}");
            assert_consistent(&service, at).await;
            merge_everything(&service).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_id_with_two_payloads_the_first_counts() {
    let service = TestService::with(&[NO_BACKGROUND]).await;
    let at = closed_hour();
    service.store(clicks("event", 100, at)).await;
    let (right, told) = (service.totals().await, answers(&service, at).await);
    // A higher version arrived earlier: this one is later.
    let again = |id: &str, campaign: &str, version: &str| {
        format!(
            "INSERT INTO events (org_id, event_id, type, campaign_id, creative_id, source, user_id, occurred_at, seq, \
               properties, schema_version, version) \
             SELECT org_id, event_id, 'impression', '{campaign}', creative_id, source, 'another', occurred_at, seq, \
               properties, schema_version, {version} FROM events WHERE event_id = '{id}'"
        )
    };
    service.sql(&again("event-7", "other", "version - 1")).await;
    let audited = audit(&service, at, true).await;
    assert_eq!(
        audited.found(),
        [
            (Rollup::CampaignMinutes, 1, 0, 1),
            (Rollup::TypeHours, 1, 0, 1),
            (Rollup::UserDays, 1, 0, 1),
            (Rollup::UserMinutes, 1, 0, 1),
        ]
    );
    assert_eq!(audited.hours[0].found[0].differences[0].campaign_id, "other");
    assert_eq!(service.totals().await, right);
    assert_eq!(answers(&service, at).await, told);
    // And this one was earlier: it is the first, and the other never counted.
    service.sql(&again("event-8", "earlier", "version + 1")).await;
    let audited = audit(&service, at, true).await;
    assert_eq!(audited.results(), [HourResult::Repaired]);
    assert_eq!(audited.hours[0].found[0].differences[0].campaign_id, "camp_1");
    assert_eq!(service.totals().await, right);
    assert_eq!(service.sql("SELECT sum(events) FROM campaign_minutes WHERE campaign_id = 'earlier'").await, "1");
    assert_consistent(&service, at).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_services_counted_both_is_found_and_repaired() {
    let service = Arc::new(TestService::with(&[NO_BACKGROUND]).await);
    keep_duplicates(&service).await;
    let second = service.second(&[NO_BACKGROUND]).await;
    let at = closed_hour();
    let events = clicks("raced", 20_000, at);
    let send = |mut client: proto::ingest_service_client::IngestServiceClient<Channel>, events: Vec<proto::Event>| {
        tokio::spawn(async move {
            let mut accepted = 0;
            for batch in events.chunks(1_000) {
                let durability = proto::Durability::Stored.into();
                let request = proto::IngestBatchRequest { events: batch.to_vec(), durability, ..Default::default() };
                accepted += client.ingest_batch(request).await.unwrap().into_inner().counts.unwrap().accepted;
            }
            accepted
        })
    };
    let (one, other) = (send(service.ingest().await, events.clone()), send(second.ingest().await, events.clone()));
    let accepted = one.await.unwrap() + other.await.unwrap();
    assert_eq!(accepted, 40_000, "neither knows of the other");
    assert_eq!(service.sql("SELECT sum(events) FROM type_hours").await, "40000");

    let audited = audit(&service, at, false).await;
    assert_eq!(audited.results(), [HourResult::Different]);
    assert!(audited.found().iter().all(|(_, _, under, over)| (*under, *over) == (0, 20_000)), "{:?}", audited.found());
    // Both repair at once, and what one repairs the other does not.
    let window = window(at - HOUR, at + HOUR);
    let (one, other) =
        tokio::join!(try_audit(service.channel().await, window, true), try_audit(second.channel().await, window, true));
    assert!(one.unwrap().summary.different + other.unwrap().summary.different == 0);
    assert_consistent(&service, at).await;
    assert_eq!(service.totals().await, ["20000"; 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_takes_nothing_that_is_on_its_way_for_a_difference() {
    let service = Arc::new(TestService::with(&[NO_BACKGROUND, ("TALLYHOUSE_SEGMENT_LINGER_MS", "20")]).await);
    let at = closed_hour();
    let done = Arc::new(AtomicBool::new(false));
    let sender = {
        let (service, done) = (Arc::clone(&service), Arc::clone(&done));
        tokio::spawn(async move {
            let mut ingest = service.ingest().await;
            let mut sent = 0;
            while !done.load(Ordering::Relaxed) {
                let request = proto::IngestBatchRequest {
                    events: clicks(&format!("b-{sent}"), 200, at),
                    durability: 0,
                    ..Default::default()
                };
                let counts = ingest.ingest_batch(request).await.unwrap().into_inner().counts.unwrap();
                assert_eq!(counts.accepted, 200);
                sent += 200;
            }
            sent
        })
    };
    let mut judged = 0;
    for round in 0..24 {
        if round % 6 == 3 {
            let ping = format!("{}/ping", service.clickhouse_url);
            eventually("a ClickHouse", || async { service.http.get(&ping).send().await.is_ok() }).await;
            signal(service.engine_pid(), "KILL");
        }
        match try_audit(service.channel().await, window(at - HOUR, at + HOUR), true).await {
            Ok(audited) => {
                let results = audited.results();
                judged += usize::from(results.is_empty());
                assert!(results.iter().all(|result| *result == HourResult::InFlight), "{:?}", audited.hours);
            }
            // ClickHouse is down.
            Err(status) => assert!(matches!(status.code(), Code::Unavailable | Code::Internal), "{status}"),
        }
    }
    done.store(true, Ordering::Relaxed);
    let sent = sender.await.unwrap();
    println!("{sent} events, {judged} of 24 audits found the hour consistent");
    assert!(judged > 0, "the audit gets its turn while events keep coming");
    service.assert_counted(sent).await;
    assert_consistent(&service, at).await;
    assert_eq!(service.sql("SELECT count() FROM audit_repairs").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_with_a_segment_under_way_is_in_flight() {
    let mut service = TestService::with(&[NO_BACKGROUND]).await;
    let at = closed_hour();
    service.store(clicks("before", 100, at)).await;
    // The last of the tables does not take the rows, so those before have them.
    service.sql("ALTER TABLE user_minutes ADD CONSTRAINT never CHECK events > 100").await;
    let request = proto::IngestBatchRequest { events: clicks("half", 50, at), durability: 0, ..Default::default() };
    service.ingest().await.ingest_batch(request).await.unwrap();
    let failed = |channel: Channel| async move {
        let mut client = proto::segment_service_client::SegmentServiceClient::new(channel);
        let listed = client.list_segments(proto::ListSegmentsRequest {}).await.unwrap().into_inner().segments;
        listed.iter().any(|segment| !segment.last_error.is_empty())
    };
    let channel = service.channel().await;
    eventually("a failed insert", || failed(channel.clone())).await;
    println!("half-way: {:?}", service.totals().await);
    assert_eq!(audit(&service, at, true).await.results(), [HourResult::InFlight]);
    service.kill();
    service.start().await;
    let audited = audit(&service, at, true).await;
    assert_eq!(audited.results(), [HourResult::InFlight], "a former run may have inserted it");
    assert!(audited.hours[0].reason.contains("segment"), "{}", audited.hours[0].reason);
    service.sql("ALTER TABLE user_minutes DROP CONSTRAINT never").await;
    service.assert_counted(150).await;
    assert_consistent(&service, at).await;
    assert_eq!(service.sql("SELECT count() FROM audit_repairs").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_background_finds_and_repairs_by_itself_and_says_so() {
    let settings = [
        ("TALLYHOUSE_AUDIT_AFTER_MINUTES", "0"),
        ("TALLYHOUSE_AUDIT_PAUSE_MS", "20"),
        ("TALLYHOUSE_AUDIT_HOURS", "4"),
        ("TALLYHOUSE_AUDIT_REPAIR", "false"),
    ];
    let mut service = TestService::with(&settings).await;
    keep_duplicates(&service).await;
    let at = closed_hour();
    service.store(clicks("event", 100, at)).await;
    service.sql("INSERT INTO events SELECT * FROM events LIMIT 5 SETTINGS insert_deduplicate = 0").await;
    // An hour that has lost its events.
    let lost = (at - HOUR - HOUR / 2) / 1_000;
    service.sql(&format!("INSERT INTO type_hours VALUES ('default', toDateTime({lost}, 'UTC'), 'click', 3)")).await;
    // A late event has both looked at again.
    service.store(vec![click("late", at)]).await;
    let shown = |service: &TestService, name: &'static str| {
        let answer = service.http.get(format!("{}/readyz", service.url)).send();
        async move {
            let body: serde_json::Value = answer.await.unwrap().json().await.unwrap();
            assert_eq!(body["status"], "ready", "differences do not make it unready: {body}");
            body["audit"][name].as_u64().unwrap()
        }
    };
    eventually("a difference", || async { shown(&service, "different").await >= 1 }).await;
    assert_eq!(service.sql("SELECT count() FROM audit_repairs").await, "0", "it was told not to");

    assert_eq!(service.stop(), Some(0));
    service.set("TALLYHOUSE_AUDIT_REPAIR", "true");
    service.start().await;
    eventually("a repair", || async { shown(&service, "repaired").await >= 1 }).await;
    eventually("the other hour", || async { shown(&service, "events_missing").await == 1 }).await;
    let totals = service.totals().await;
    assert_eq!(totals[1..], ["101", "104", "101", "101"], "what has no events is left to a command");
    assert_eq!(service.sql("SELECT groupUniqArray(author) FROM audit_repairs").await, "['background']");
    let metrics = service.http.get(format!("{}/metrics", service.url)).send().await.unwrap().text().await.unwrap();
    for expected in [
        ("tallyhouse_audit_checks_total{result=\"repaired\"", " 1"),
        ("tallyhouse_audit_repaired_total{direction=\"over\",rollup=\"type_hours\"", " 5"),
        ("tallyhouse_audit_last_timestamp_seconds", ""),
    ] {
        let (start, end) = expected;
        let is_there = metrics.lines().any(|line| line.starts_with(start) && line.ends_with(end));
        assert!(is_there, "{expected:?}: {metrics}");
    }
    let mut client = AuditServiceClient::new(service.channel().await);
    let status = client.get_audit_status(proto::GetAuditStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.events_missing.iter().map(|hour| hour.seconds).collect::<Vec<_>>(), [lost]);
    assert_eq!(audit(&service, at, true).await.results(), [HourResult::Repaired]);
    assert_eq!(service.sql("SELECT sum(events) FROM type_hours").await, "101");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_has_bounds() {
    let service = TestService::with(&[NO_BACKGROUND, ("TALLYHOUSE_RETENTION_DAYS", "3000")]).await;
    let now = now_millis();
    let too_long = try_audit(service.channel().await, window(now - 9_000 * HOUR, now), false).await.err().unwrap();
    assert_eq!(too_long.code(), Code::InvalidArgument);
    let ahead = try_audit(service.channel().await, window(now + 9 * HOUR, now + 10 * HOUR), false).await.err().unwrap();
    assert_eq!(ahead.code(), Code::InvalidArgument);
    // One at a time.
    let request =
        proto::AuditRequest { window: window(now - 8_000 * HOUR, now), repair: false, unproven_removals_max: 0 };
    let mut client = AuditServiceClient::new(service.channel().await);
    let mut first = client.audit(request).await.unwrap().into_inner();
    first.message().await.unwrap().unwrap();
    let second = try_audit(service.channel().await, None, false).await.err().unwrap();
    assert_eq!(second.code(), Code::ResourceExhausted);
    drop((first, client));
    eventually("an end of the first", || async { try_audit(service.channel().await, None, false).await.is_ok() }).await;
}
