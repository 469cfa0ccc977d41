//! Kills and stops of the service while a webhook is delivered, judged from what the receiver noted.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use super::receiver::{Received, Receiver};
use super::{create_webhook, event, failing, send, service, status};

const USERS: u64 = 20;
const PER_USER: u64 = 40;
/// Every so many-th seq of a user fails.
const FAILING: u64 = 20;

/// Events of several users, in order but for every tenth, which comes late among its neighbours.
fn shuffled(seed: u64) -> Vec<Value> {
    let mut state = seed;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let mut events: Vec<(u64, Value)> = Vec::new();
    for user in 0..USERS {
        for seq in 1..=PER_USER {
            let name = format!("u{user}");
            let event = if seq.is_multiple_of(FAILING) { failing(&name, seq) } else { event(&name, seq) };
            let place = seq * 1_000 + if random().is_multiple_of(10) { random() % 10_000 } else { 0 };
            events.push((place, event));
        }
    }
    events.sort_by_key(|(place, _)| *place);
    events.into_iter().map(|(_, event)| event).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_and_stops_lose_nothing_and_repeat_only_what_was_under_way() {
    let (mut service, receiver) = (service().await, Receiver::start().await);
    create_webhook(&service, "orders", &receiver).await;
    let events = shuffled(11);
    // What had been recorded as processed before each end: it must not come again after.
    let mut ends: Vec<(usize, HashSet<String>)> = Vec::new();
    for (round, some) in events.chunks(200).enumerate() {
        for batch in some.chunks(50) {
            send(&service, batch).await;
        }
        status(&service, "orders", |status| status["processed"].as_u64() > Some(0)).await;
        let mut recorded = HashSet::new();
        for event in some.iter().take(60) {
            let id = event["event_id"].as_str().unwrap();
            let (_, found) = service.get(&format!("/api/v1/subscriptions/orders/events/{id}")).await;
            if found["status"] == "processed" {
                recorded.insert(id.to_owned());
            }
        }
        if round % 2 == 0 {
            service.kill();
        } else {
            assert_eq!(service.stop(), Some(0));
        }
        ends.push((receiver.received().len(), recorded));
        service.start().await;
    }
    status(&service, "orders", |status| status["waiting"] == 0 && status["buffered"] == 0).await;
    judge(&receiver.received(), &ends);
    let ended = status(&service, "orders", |status| status["dead_letters"] == USERS * PER_USER / FAILING).await;
    assert_eq!(ended["missed_segments"], 0);
    service.assert_stored(usize::try_from(USERS * PER_USER).unwrap()).await;
}

fn judge(received: &[Received], ends: &[(usize, HashSet<String>)]) {
    for (at, recorded) in ends {
        let again: Vec<&str> =
            received[*at..].iter().map(|received| received.id.as_str()).filter(|id| recorded.contains(*id)).collect();
        assert_eq!(again, Vec::<&str>::new(), "what was recorded came again");
    }
    let mut handled: HashMap<&str, u64> = HashMap::new();
    let mut first_of: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for one in received {
        let count = handled.entry(&one.id).or_default();
        if *count == 0 {
            first_of.entry(&one.user).or_default().push(one.seq);
        }
        *count += 1;
    }
    assert_eq!(first_of.len() as u64, USERS);
    for (user, seqs) in first_of {
        assert_eq!(seqs, (1..=PER_USER).collect::<Vec<u64>>(), "{user}: each once, in order, none lost");
    }
    // Beyond its attempts, an event comes again only where a run ended: at most one of each user, which was not recorded.
    let is_extra = |received: &&Received| !received.seq.is_multiple_of(FAILING);
    let extra = received.iter().filter(is_extra).count() as u64 - (USERS * PER_USER - USERS * PER_USER / FAILING);
    assert!(extra <= USERS * ends.len() as u64, "{extra} repetitions in {} ends", ends.len());
}
