//! A service that is killed between a change and telling of it has told of it
//! when it is over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::Method;
use serde_json::json;

use crate::client::with;
use crate::receiver::{Behavior, Receiver, SECRET};
use crate::service::{Service, eventually};

fn service(url: &str) -> Service {
    Service::start(&[
        ("TALLYHOUSE_TICKETING_WEBHOOK_URL", url),
        ("TALLYHOUSE_TICKETING_WEBHOOK_SECRET", SECRET),
        ("TALLYHOUSE_TICKETING_NOTIFY_BACKOFF_MS_MAX", "1000"),
        ("TALLYHOUSE_TICKETING_NOTIFY_WAIT_MS_MAX", "60000"),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_notification_is_repeated_under_its_id() {
    let hanging = Receiver::new(Behavior::Hangs).await;
    let mut service = service(&hanging.url());
    let event = service.client().create(&json!({"status": "PUBLISHED", "internalNotes": "private"})).await;
    eventually("the first attempt", || async { !hanging.got().is_empty() }).await;
    service.kill();
    let (address, first) = (hanging.address, hanging.got()[0].id.clone());
    drop(hanging);

    let receiver = eventually_at(address).await;
    service.restart();
    eventually("all is told", || async { receiver.got().len() >= 2 }).await;
    let got = receiver.got();
    let id = event["id"].as_str().unwrap();
    let about = |kind: &str| (kind.to_owned(), id.to_owned());
    assert_eq!(
        got.iter().map(crate::receiver::Got::about).collect::<Vec<_>>(),
        [about("event.created"), about("event.published")]
    );
    assert_eq!(got[0].id, first, "a repetition has the same id");
    assert_ne!(got[1].id, first);
    assert_eq!(got[1].body["data"]["message"], "Event published: Hamlet");
    assert!(!format!("{got:?}").contains("private"));
    let client = service.client();
    eventually("all are known to have arrived", || async {
        let listed = client.admin_get("/notifications?state=DELIVERED").await.json();
        listed["pagination"]["total"] == 2
    })
    .await;
    assert_eq!(client.admin_get("/notifications?state=PENDING,GIVEN_UP").await.json()["notifications"], json!([]));
}

/// The port may be in use for a moment by connections that end.
async fn eventually_at(address: std::net::SocketAddr) -> Receiver {
    eventually("the port is free", || async { std::net::TcpListener::bind(address).is_ok() }).await;
    Receiver::at(address, Behavior::Answers).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_change_is_notified_after_kills() {
    let receiver = Receiver::new(Behavior::Answers).await;
    let mut service = service(&receiver.url());
    let mut answered = BTreeSet::new();
    for round in 0..3 {
        let (client, stop) = (service.client(), Arc::new(AtomicBool::new(false)));
        let writer = tokio::spawn({
            let stop = Arc::clone(&stop);
            async move {
                let mut ids = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let request =
                        client.admin_request(Method::POST, "/events").json(&with(&json!({"status": "CANCELLED"})));
                    // A service that dies answers nothing, or half.
                    let Ok(answer) = request.send().await else { break };
                    let Ok(event) = answer.json::<serde_json::Value>().await else { break };
                    ids.push(event["id"].as_str().unwrap().to_owned());
                }
                ids
            }
        });
        // Some are told, and the next is being made.
        let before = receiver.got().len();
        eventually("some are told", || async { receiver.got().len() > before + 3 * (round + 1) }).await;
        service.kill();
        stop.store(true, Ordering::Relaxed);
        answered.extend(writer.await.unwrap());
        service.restart();
    }
    let expected: BTreeSet<(String, String)> = answered
        .iter()
        .flat_map(|id| ["event.created", "event.cancelled"].map(|kind| (kind.to_owned(), id.clone())))
        .collect();
    assert!(expected.len() > 12);
    eventually("all are told", || async {
        let told: BTreeSet<_> = receiver.got().iter().map(crate::receiver::Got::about).collect();
        expected.is_subset(&told)
    })
    .await;
    // However often something was sent, it was under one id; and no two things were under the same.
    let mut ids: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    receiver.got().into_iter().for_each(|got| {
        ids.entry(got.about()).or_default().insert(got.id);
    });
    assert!(ids.values().all(|ids| ids.len() == 1), "{ids:?}");
    let all: BTreeSet<&String> = ids.values().flatten().collect();
    assert_eq!(all.len(), ids.len());
}
