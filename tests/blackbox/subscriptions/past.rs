//! Subscriptions that begin in the past: stored events first, then the log.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Value, json};

use super::receiver::{Received, Receiver};
use super::{create, create_webhook, event, send, service_with, status, webhook};
use crate::service::{TestService, eventually};

const USERS: u64 = 30;
const DAY_SECONDS: i64 = 86_400;
/// A segment leaves the log when its ids are in the id ledger.
const SHORT_LOG: (&str, &str) = ("TALLYHOUSE_LEDGER_WRITE_MS_MAX", "50");

/// Events of all users with these seqs, of each user in an order of its own.
fn events(seqs: std::ops::RangeInclusive<u64>) -> Vec<Value> {
    let mut placed: Vec<(u64, Value)> = Vec::new();
    for user in 0..USERS {
        for seq in seqs.clone() {
            let shift = (seq * 7_919 + user * 104_729) % 6;
            placed.push((seq * 10 + shift * 10, event(&format!("u{user}"), seq)));
        }
    }
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, event)| event).collect()
}

async fn send_all(service: &TestService, events: &[Value]) {
    for some in events.chunks(100) {
        send(service, some).await;
    }
}

/// Waits until ClickHouse has so many events, and the log none that it could hand on.
async fn gone_from_the_log(service: &TestService, events: usize) {
    service.assert_stored(events).await;
    eventually("the log has let them go", || async {
        let files = |dir: std::path::PathBuf| std::fs::read_dir(dir).into_iter().flatten().flatten();
        let all = files(service.log_dir()).chain(files(service.log_dir().join("held")));
        let is_segment = |name: &str| ["sealed", "stored", "held"].iter().any(|end| name.ends_with(end));
        all.filter_map(|file| file.file_name().into_string().ok()).all(|name| !is_segment(&name) || name == "held")
    })
    .await;
}

/// What came by the end of a run: only the last event of each user can come again.
struct End {
    received: usize,
    settled: HashSet<String>,
}

fn end(receiver: &Receiver) -> End {
    let received = receiver.received();
    let last: HashMap<&str, &str> = received.iter().map(|one| (one.user.as_str(), one.id.as_str())).collect();
    let is_settled = |one: &&Received| last.get(one.user.as_str()) != Some(&one.id.as_str());
    let settled = received.iter().filter(is_settled).map(|one| one.id.clone()).collect();
    End { received: received.len(), settled }
}

/// Each event came, those of a user in order, and none again that had been recorded.
fn judge(received: &[Received], ends: &[End], last_seq: u64) {
    let mut seen = HashSet::new();
    let mut of_user: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for one in received {
        if seen.insert(one.id.as_str()) {
            of_user.entry(&one.user).or_default().push(one.seq);
        }
    }
    assert_eq!(of_user.len() as u64, USERS);
    for (user, seqs) in of_user {
        assert_eq!(seqs, (1..=last_seq).collect::<Vec<u64>>(), "{user}");
    }
    for End { received: before, settled } in ends {
        let again: Vec<&str> =
            received[*before..].iter().map(|one| one.id.as_str()).filter(|id| settled.contains(*id)).collect();
        assert_eq!(again, Vec::<&str>::new(), "what was recorded came again");
    }
    let repeated = received.len() - seen.len();
    assert!(repeated as u64 <= USERS * ends.len() as u64, "{repeated} repetitions");
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_events_and_new_ones_come_once_and_in_order_across_a_kill_in_mid_catch_up() {
    let (mut service, receiver) = (service_with(&[SHORT_LOG]).await, Receiver::start().await);
    send_all(&service, &events(1..=100)).await;
    gone_from_the_log(&service, 3_000).await;
    let mut subscription = webhook("orders", &receiver);
    subscription["start"] = json!("earliest");
    let created = create(&service, &subscription).await;
    receiver.expect_secret(created["secret"].as_str().unwrap());
    let mut ends = Vec::new();
    send_all(&service, &events(101..=105)).await;
    eventually("some came", || async { receiver.received().len() > 300 }).await;
    let catching_up = status(&service, "orders", |_| true).await;
    service.kill();
    ends.push(end(&receiver));
    assert!(receiver.received().len() < 2_500, "it was killed in mid catch-up");
    assert!(catching_up["catching_up_to"].is_string() || catching_up["waiting"].as_u64() > Some(0), "{catching_up}");
    service.start().await;
    send_all(&service, &events(106..=110)).await;
    eventually("more came", || async { receiver.received().len() > 1_500 }).await;
    assert_eq!(service.stop(), Some(0));
    ends.push(end(&receiver));
    service.start().await;
    send_all(&service, &events(111..=115)).await;
    let is_done = |status: &Value| status["waiting"] == 0 && status["catching_up_to"].is_null();
    eventually("all came", || async {
        let ids: HashSet<String> = receiver.received().into_iter().map(|one| one.id).collect();
        ids.len() as u64 == USERS * 115
    })
    .await;
    let done = status(&service, "orders", is_done).await;
    assert_eq!((&done["missed_segments"], &done["dead_letters"]), (&json!(0), &json!(0)));
    // From now on it reads the log; a kill changes nothing about that.
    service.kill();
    ends.push(end(&receiver));
    service.start().await;
    send_all(&service, &events(116..=117)).await;
    status(&service, "orders", |status| is_done(status) && status["processed"].as_u64() >= Some(2 * USERS)).await;
    judge(&receiver.received(), &ends, 117);
    service.assert_stored(usize::try_from(USERS * 117).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_can_begin_at_any_time() {
    let (service, receiver) = (service_with(&[SHORT_LOG]).await, Receiver::start().await);
    send(&service, &[event("ann", 1)]).await;
    gone_from_the_log(&service, 1).await;
    let now = || time::OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339).unwrap();
    let between = now();
    send(&service, &[event("bob", 1)]).await;
    let later = (time::OffsetDateTime::now_utc() + time::Duration::seconds(3_600))
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap();
    for (start, expected) in [("now", 0_u64), (&between, 1), ("earliest", 2)] {
        let name = format!("from-{expected}");
        let trial = json!({ "name": name, "start": start, "handler": { "type": "trial" } });
        let created = create(&service, &trial).await;
        assert_eq!(created["start"] == "now", expected == 0, "{created}");
        status(&service, &name, |status| status["processed"] == expected && status["catching_up_to"].is_null()).await;
    }
    create(&service, &json!({ "name": "later", "start": later, "handler": { "type": "trial" } })).await;
    status(&service, "later", |status| status["catching_up_to"].is_null()).await;
    create_webhook(&service, "hooks", &receiver).await;
    send(&service, &[event("cid", 1)]).await;
    for (name, expected) in [("from-0", 1), ("from-1", 2), ("from-2", 3), ("hooks", 1), ("later", 0)] {
        status(&service, name, |status| status["processed"] == expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_passed_the_retention_period_is_not_handed_on() {
    let mut service = service_with(&[("TALLYHOUSE_AUDIT_BACKGROUND", "false")]).await;
    let at = time::OffsetDateTime::now_utc() - time::Duration::seconds(100 * DAY_SECONDS);
    let mut old = event("ann", 1);
    old["timestamp"] = json!(at.format(&time::format_description::well_known::Rfc3339).unwrap());
    send(&service, &[old, event("bob", 1)]).await;
    service.assert_stored(2).await;
    assert_eq!(service.stop(), Some(0));
    service.set("TALLYHOUSE_RETENTION_DAYS", "30");
    service.start().await;
    create(&service, &json!({ "name": "all", "start": "earliest", "handler": { "type": "trial" } })).await;
    status(&service, "all", |status| status["processed"] == 1 && status["catching_up_to"].is_null()).await;
    assert_eq!(service.sql("SELECT count() FROM events").await, "2", "it is stored still");
    assert_eq!(service.get("/api/v1/subscriptions/all/events/ann-1").await.0, 404);
}
