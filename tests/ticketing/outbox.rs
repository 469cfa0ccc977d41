//! What metrics and probes say of notifications that are not delivered, and of a database that is away.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, send};
use crate::receiver::{Behavior, Receiver, SECRET};
use crate::service::{Service, eventually};
use crate::test_postgres::PostgresServer;

/// A service whose notifications go to this address.
fn service(receiver: SocketAddr, settings: &[(&str, &str)]) -> Service {
    let url = format!("http://{receiver}/hook");
    let to_receiver =
        [("TALLYHOUSE_TICKETING_WEBHOOK_URL", url.as_str()), ("TALLYHOUSE_TICKETING_WEBHOOK_SECRET", SECRET)];
    Service::start(&[&to_receiver, settings].concat())
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn receiver_at(address: SocketAddr) -> Receiver {
    eventually("the port is free", || async { TcpListener::bind(address).is_ok() }).await;
    Receiver::at(address, Behavior::Answers).await
}

/// The sum of a metric's series with this label.
async fn metric(service: &Service, name: &str, label: &str) -> f64 {
    let text = Client::new(service.main_url(), "").get("/metrics").await.text;
    let found: Vec<f64> = text
        .lines()
        .filter(|line| line.starts_with(name) && line.contains(label))
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    assert!(!found.is_empty(), "no {name} {label}");
    found.iter().sum()
}

/// What `/readyz` says: the status, and the reasons of the catalogue by code.
async fn reasons(service: &Service) -> (u16, Value, Vec<(String, String)>) {
    let answer = Client::new(service.main_url(), "").get("/readyz").await;
    let body = answer.json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let reasons = body["reasons"].as_array().unwrap().iter();
    let reasons = reasons.map(|reason| (text(&reason["code"]), text(&reason["message"]))).collect();
    (answer.status, body["status"].clone(), reasons)
}

/// Waits until the service is degraded for this reason alone, and returns the message.
async fn degraded_for(service: &Service, code: &str) -> String {
    eventually(code, || async { reasons(service).await.2.iter().any(|(found, _)| found == code) }).await;
    let (status, word, found) = reasons(service).await;
    assert_eq!((status, word, found.len()), (200, json!("degraded"), 1), "{found:?}");
    assert!(metric(service, "tallyhouse_health_reason", &format!("\"{code}\"")).await > 0.5);
    found[0].1.clone()
}

async fn ready(service: &Service) {
    eventually("ready", || async { reasons(service).await.1 == "ready" }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_that_wait_are_told_until_they_are_delivered() {
    let address = nobody();
    let service = service(
        address,
        &[
            ("TALLYHOUSE_TICKETING_NOTIFY_LATE_SECONDS", "1"),
            ("TALLYHOUSE_TICKETING_NOTIFY_BACKOFF_MS_MIN", "50"),
            ("TALLYHOUSE_TICKETING_NOTIFY_BACKOFF_MS_MAX", "200"),
        ],
    );
    ready(&service).await;
    assert!(metric(&service, "tallyhouse_ticketing_notifications_lag_seconds", "").await < 0.5);
    service.client().create(&json!({})).await;
    service.client().create(&json!({})).await;
    let message = degraded_for(&service, "NOTIFICATIONS_LATE").await;
    assert!(message.starts_with("2 notifications") && message.contains("ticketing_notify_late_seconds"), "{message}");
    assert!(metric(&service, "tallyhouse_ticketing_notifications", "\"pending\"").await > 1.5);
    assert!(metric(&service, "tallyhouse_ticketing_notifications_lag_seconds", "").await > 1.0);
    assert!(metric(&service, "tallyhouse_ticketing_notification_attempts_total", "\"failed\"").await > 0.5);
    assert!(metric(&service, "tallyhouse_ticketing_notification_attempts_total", "\"delivered\"").await < 0.5);

    let receiver = receiver_at(address).await;
    ready(&service).await;
    assert_eq!(receiver.got().len(), 2);
    assert!(metric(&service, "tallyhouse_ticketing_notifications", "\"pending\"").await < 0.5);
    assert!(metric(&service, "tallyhouse_ticketing_notifications_lag_seconds", "").await < 0.5);
    assert!(metric(&service, "tallyhouse_ticketing_notification_attempts_total", "\"delivered\"").await > 1.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_that_were_given_up_are_told_until_they_are_retried() {
    let address = nobody();
    let service = service(address, &[("TALLYHOUSE_TICKETING_NOTIFY_ATTEMPTS_MAX", "1")]);
    let client = service.client();
    client.create(&json!({})).await;
    let message = degraded_for(&service, "NOTIFICATIONS_GIVEN_UP").await;
    assert!(message.starts_with("1 notifications"), "{message}");
    assert!(metric(&service, "tallyhouse_ticketing_notifications", "\"given_up\"").await > 0.5);
    assert!(metric(&service, "tallyhouse_ticketing_notification_attempts_total", "\"given_up\"").await > 0.5);

    let receiver = receiver_at(address).await;
    let listed = client.admin_get("/notifications?state=GIVEN_UP").await.json();
    let id = listed["notifications"][0]["id"].as_str().unwrap().to_owned();
    let retried = send(client.admin_request(Method::POST, &format!("/notifications/{id}/retry"))).await;
    assert_eq!(retried.status, 202);
    ready(&service).await;
    assert_eq!(receiver.got()[0].id, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_told_until_it_is_back() {
    let Some(postgres) = tokio::task::block_in_place(PostgresServer::shared) else { return };
    let (database, others) = (postgres.new_database(), postgres.new_database());
    let service = Service::start(&[("TALLYHOUSE_TICKETING_DATABASE_URL", &database)]);
    let name = database.rsplit('/').next().unwrap();
    let run = |statement: String| {
        // From another database: nobody is let into this one.
        let ran = Command::new("psql").args([&others, "--quiet", "--command", &statement]).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    };
    ready(&service).await;
    run(format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"));
    run(format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"));
    degraded_for(&service, "TICKETING_UNAVAILABLE").await;
    let client = service.client();
    assert_eq!(client.post(&crate::client::with(&json!({}))).await.status, 503);
    run(format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"));
    ready(&service).await;
    client.create(&json!({})).await;
}
