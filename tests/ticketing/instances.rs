//! Two services on one PostgreSQL.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde_json::json;

use crate::receiver::{Behavior, Receiver, SECRET};
use crate::service::{Service, eventually};
use crate::test_postgres::PostgresServer;

#[tokio::test(flavor = "multi_thread")]
async fn two_services_make_each_transition_once_and_notify_once() {
    let Some(postgres) = tokio::task::block_in_place(PostgresServer::shared) else { return };
    let (database, receiver) = (postgres.new_database(), Receiver::new(Behavior::Answers).await);
    let settings = [
        ("TALLYHOUSE_TICKETING_DATABASE_URL", database.as_str()),
        ("TALLYHOUSE_TICKETING_WEBHOOK_URL", &receiver.url()),
        ("TALLYHOUSE_TICKETING_WEBHOOK_SECRET", SECRET),
        ("TALLYHOUSE_TICKETING_NOTIFY_POLL_MS", "10"),
        ("TALLYHOUSE_TICKETING_ADMIN_TOKENS", "one token for both"),
    ];
    let services = [Service::start(&settings), Service::start(&settings)];
    let clients = services
        .each_ref()
        .map(|service| crate::client::Client::new(service.client().url("").as_str(), "one token for both"));
    let mut events = Vec::new();
    for number in 0..10 {
        events.push(clients[number % 2].create(&json!({})).await["id"].as_str().unwrap().to_owned());
    }
    for id in &events {
        let changes = (0..12).map(|change| {
            let status = if change % 3 == 2 { "CANCELLED" } else { "PUBLISHED" };
            let (client, body) = (clients[change % 2].clone(), json!({"status": status}));
            async move { client.patch(id, &body).await }
        });
        for answer in join_all(changes).await {
            assert!([200, 400].contains(&answer.status), "{answer:?}");
        }
    }
    for id in &events {
        let read = clients.each_ref().map(|client| async { client.admin_get(&format!("/events/{id}")).await.json() });
        let read = join_all(read).await;
        assert_eq!(read[0], read[1], "both see the same");
        assert_eq!(read[0]["status"], "CANCELLED");
    }
    eventually("all is told", || async {
        let pending = clients[0].admin_get("/notifications?state=PENDING").await.json();
        pending["pagination"]["total"] == 0
    })
    .await;
    let mut told: BTreeMap<(String, String), usize> = BTreeMap::new();
    receiver.got().iter().for_each(|got| *told.entry(got.about()).or_default() += 1);
    assert!(told.values().all(|count| *count == 1), "nothing is told twice: {told:?}");
    for id in &events {
        for kind in ["event.created", "event.cancelled"] {
            assert!(told.contains_key(&(kind.to_owned(), id.clone())), "{kind} {id}");
        }
    }
    // A key that one has taken is known to the other.
    let body = crate::client::with(&json!({"title": "once"}));
    let calls = (0..10).map(|call| {
        let request = clients[call % 2].admin_request(reqwest::Method::POST, "/events");
        crate::client::send(request.header("idempotency-key", "shared").json(&body))
    });
    let answers = join_all(calls).await;
    assert!(answers.iter().all(|answer| answer.status == 201 && answer.text == answers[0].text), "{answers:?}");
}
