//! A repair adds what is missing and takes away what was counted twice; counts
//! of events that are gone it leaves alone, and every repair can be taken back.

use std::process::Command;

use tallyhouse::transport::proto::audit_service_client::AuditServiceClient;
use tallyhouse::transport::proto::{
    AuditRequest, GetAuditStatusRequest, HourResult, ListRepairsRequest, Repair, RepairState, UndoRepairRequest,
};
use tonic::Code;

use crate::audit::{Audited, HOUR, NO_BACKGROUND, closed_hour, command, keep_duplicates, request_audit};
use crate::events::{click, clicks, window};
use crate::service::{TestService, eventually};

const BACKGROUND: [(&str, &str); 3] =
    [("TALLYHOUSE_AUDIT_AFTER_MINUTES", "0"), ("TALLYHOUSE_AUDIT_PAUSE_MS", "20"), ("TALLYHOUSE_AUDIT_HOURS", "4")];

async fn client(service: &TestService) -> AuditServiceClient<tonic::transport::Channel> {
    AuditServiceClient::new(service.channel().await)
}

/// Audits the hours around a moment and repairs them, taking away so much
/// without proof.
async fn repair(service: &TestService, millis: i64, unproven_removals_max: u64) -> Audited {
    let window = window(millis - HOUR, millis + HOUR);
    request_audit(service.channel().await, AuditRequest { window, repair: true, unproven_removals_max }).await.unwrap()
}

async fn repairs(service: &TestService, millis: i64) -> Vec<Repair> {
    let request = ListRepairsRequest { window: window(millis - HOUR, millis + HOUR) };
    client(service).await.list_repairs(request).await.unwrap().into_inner().repairs
}

/// Inserts the first rows of these ids again, as another service may.
async fn count_again(service: &TestService, ids: &str) {
    let again = format!("INSERT INTO events SELECT * FROM events WHERE event_id IN ({ids}) LIMIT 1 BY event_id");
    service.sql(&format!("{again} SETTINGS insert_deduplicate = 0, deduplicate_insert = 'disable'")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_of_events_that_are_gone_are_left_alone_and_said() {
    let service = TestService::with(&BACKGROUND).await;
    let at = closed_hour();
    service.store(clicks("event", 501, at)).await;
    service.sql("ALTER TABLE events DELETE WHERE event_id != 'event-0' SETTINGS mutations_sync = 2").await;
    let counted = service.totals().await;
    // It has the hour looked at again.
    service.store(vec![click("late", at)]).await;
    let hour = (at - HOUR / 2) / 1_000;
    eventually("the hour is reported", || async {
        let status = client(&service).await.get_audit_status(GetAuditStatusRequest {}).await.unwrap().into_inner();
        status.events_missing.iter().any(|missing| missing.seconds == hour)
    })
    .await;
    let (_, ready) = service.get("/readyz").await;
    assert_eq!((&ready["audit"]["events_missing"], &ready["audit"]["different"]), (&1.into(), &0.into()), "{ready}");
    let by_hand = repair(&service, at, 499).await;
    assert_eq!(by_hand.results(), [HourResult::EventsMissing], "{:?}", by_hand.hours);
    assert!(by_hand.hours[0].left.iter().all(|left| left.unproven == 500), "{:?}", by_hand.hours);
    assert_eq!(counted[1..], ["501"; 4]);
    assert_eq!(service.totals().await, ["2", "502", "502", "502", "502"]);
    assert_eq!(service.sql("SELECT count() FROM audit_repairs").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rollup_lacks_is_added_also_where_events_are_gone() {
    let service = TestService::with(&[NO_BACKGROUND]).await;
    let at = closed_hour();
    service.store(clicks("event", 300, at)).await;
    service.sql("ALTER TABLE events DELETE WHERE event_id = 'event-0' SETTINGS mutations_sync = 2").await;
    service.sql("ALTER TABLE type_hours DELETE WHERE 1 SETTINGS mutations_sync = 2").await;
    service.sql("ALTER TABLE user_minutes DELETE WHERE user_id = 'user_5' SETTINGS mutations_sync = 2").await;
    for round in 0..2 {
        let audited = repair(&service, at, 0).await;
        // type_hours agrees with the events afterwards, which shows nothing: it
        // was made to.
        assert_eq!(audited.results(), [HourResult::EventsMissing], "round {round}: {:?}", audited.hours);
        assert_eq!(service.totals().await, ["299", "300", "299", "300", "300"], "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_background_removes_only_proven_double_counts() {
    let service = TestService::with(&BACKGROUND).await;
    keep_duplicates(&service).await;
    let at = closed_hour();
    service.store(clicks("event", 300, at)).await;
    count_again(&service, "'event-1', 'event-2'").await;
    count_again(&service, "'event-2'").await;
    assert_eq!(service.totals().await, ["300", "303", "303", "303", "303"]);
    service.store(vec![click("late", at)]).await;
    eventually("a repair", || async { service.totals().await == ["301"; 5] }).await;
    // The rows of the same ids are still there. When events go now, they show
    // nothing any more.
    service.sql("ALTER TABLE events DELETE WHERE event_id IN ('event-1', 'event-2') SETTINGS mutations_sync = 2").await;
    service.store(vec![click("later", at)]).await;
    eventually("events are missed", || async { service.get("/readyz").await.1["audit"]["events_missing"] == 1 }).await;
    assert_eq!(service.totals().await, ["300", "302", "302", "302", "302"]);
    let authors = service.sql("SELECT groupUniqArray(author), sumIf(taken, state = 'done') FROM audit_repairs").await;
    assert_eq!(authors, "['background']\t12");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_shows_first_and_takes_no_more_than_it_is_told() {
    let service = TestService::with(&[NO_BACKGROUND]).await;
    let at = closed_hour();
    service.store(clicks("event", 300, at)).await;
    service.sql("ALTER TABLE events DELETE WHERE event_id IN ('event-1', 'event-2') SETTINGS mutations_sync = 2").await;
    for args in [
        &["--last", "4h"][..],
        &["--last", "4h", "--repair"],
        &["--last", "4h", "--repair", "--confirm"],
        &["--last", "4h", "--repair", "--confirm", "--take-unproven", "1"],
    ] {
        let (code, said) = command(&service, args);
        assert_eq!((code, &said["events_missing"]), (Some(1), &1.into()), "{args:?}: {said}");
        assert_eq!(said["findings"][0]["left"][1]["unproven"], 2, "{args:?}: {said}");
        assert_eq!(service.totals().await, ["298", "300", "300", "300", "300"], "{args:?}");
    }
    let shown = Command::new(env!("CARGO_BIN_EXE_tallyhouse"))
        .args(["audit", "--address", &service.url, "--last", "4h", "--repair"])
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("--repair --confirm --take-unproven 2"), "{shown}");
    let (code, said) = command(&service, &["--last", "4h", "--repair", "--confirm", "--take-unproven", "2"]);
    assert_eq!((code, &said["repaired"]), (Some(0), &1.into()), "{said}");
    assert_eq!(service.totals().await, ["298"; 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_is_taken_back_exactly_once_and_can_be_made_again() {
    let mut service = TestService::with(&[NO_BACKGROUND]).await;
    let at = closed_hour();
    service.store(clicks("event", 300, at)).await;
    // As if the rollups had it from nowhere: of one key they count too many, of another too few.
    service.sql("ALTER TABLE events DELETE WHERE event_id IN ('event-1', 'event-2') SETTINGS mutations_sync = 2").await;
    service.sql("ALTER TABLE user_minutes DELETE WHERE user_id = 'user_5' SETTINGS mutations_sync = 2").await;
    let wrong = service.totals().await;
    assert_eq!(repair(&service, at, 2).await.results(), [HourResult::Repaired]);
    assert_eq!(service.totals().await, ["298"; 5]);

    let made = repairs(&service, at).await;
    assert_eq!(made.len(), 4, "{made:?}");
    let mut client = client(&service).await;
    for repair in &made {
        assert_eq!((repair.state(), &*repair.author), (RepairState::Done, "command"), "{repair:?}");
        let request = UndoRepairRequest { repair_id: repair.id.clone() };
        let undone = client.undo_repair(request.clone()).await.unwrap().into_inner().repair.unwrap();
        assert_eq!((undone.added, undone.taken), (repair.taken, repair.added), "{undone:?}");
        assert_eq!((&undone.undoes, undone.state()), (&repair.id, RepairState::Done));
        assert_eq!(client.undo_repair(request).await.unwrap_err().code(), Code::Aborted, "once");
    }
    assert_eq!(service.totals().await, wrong);
    let states = repairs(&service, at).await.into_iter().filter(|repair| repair.state() == RepairState::Undone).count();
    assert_eq!(states, 4);
    let unknown = client.undo_repair(UndoRepairRequest { repair_id: "nobody's".to_owned() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);

    // The background does not make it again by itself; a command does.
    assert_eq!(service.stop(), Some(0));
    for (name, value) in BACKGROUND {
        service.set(name, value);
    }
    service.set("TALLYHOUSE_AUDIT_BACKGROUND", "true");
    service.start().await;
    eventually("the hour is looked at", || async { service.get("/readyz").await.1["audit"]["events_missing"] == 1 })
        .await;
    assert_eq!(service.totals().await, wrong);
    assert_eq!(repair(&service, at, 2).await.results(), [HourResult::Repaired]);
    assert_eq!(service.totals().await, ["298"; 5]);
}
