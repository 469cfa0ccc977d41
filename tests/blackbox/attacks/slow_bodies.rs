//! Requests that are begun and never ended.

use axum::http::Method;
use tonic::Code;

use super::client::{Attacker, assert_serves, grpc_status, send};
use crate::service::{TestService, eventually};
use crate::tokens::{SECRET, Signer};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test(flavor = "multi_thread")]
async fn slow_bodies_without_a_token_keep_nobody_out() {
    let service =
        TestService::with(&[("TALLYHOUSE_AUTH_HS256_SECRET", SECRET), ("TALLYHOUSE_REQUESTS_IN_FLIGHT_MAX", "20")])
            .await;
    let token = Signer::secret(SECRET).token("acme", "ingest read");
    let (mut attackers, mut calls) = (Vec::new(), Vec::new());
    for _ in 0..8 {
        let mut attacker = Attacker::connect(&service, 1 << 16).await;
        for _ in 0..100 {
            let (answer, mut body) = attacker.begin(Method::POST, "/events", &[JSON]).await.unwrap();
            send(&mut body, b"{", false);
            calls.push((answer, body));
        }
        attackers.push(attacker);
    }
    for _ in 0..20 {
        assert_serves(&service, Some(&token)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_bodies_of_one_organization_keep_no_other_out() {
    let settings = [
        ("TALLYHOUSE_AUTH_HS256_SECRET", SECRET),
        ("TALLYHOUSE_REQUESTS_IN_FLIGHT_MAX", "20"),
        ("TALLYHOUSE_BODY_WAIT_MS_MAX", "15000"),
    ];
    let service = TestService::with(&settings).await;
    let [acme, beta] = ["acme", "beta"].map(|org| Signer::secret(SECRET).token(org, "ingest read"));
    let authorization = format!("Bearer {acme}");
    let headers = [JSON, ("authorization", &*authorization)];
    let mut attacker = Attacker::connect(&service, 1 << 16).await;
    let mut calls = Vec::new();
    for _ in 0..40 {
        let (answer, mut body) = attacker.begin(Method::POST, "/events", &headers).await.unwrap();
        send(&mut body, b"{", false);
        calls.push((answer, body));
    }
    let of_acme = async || {
        let answer = service.http.get(format!("{}/users/top", service.url)).bearer_auth(&acme).send().await.unwrap();
        answer.status().as_u16()
    };
    // A call that asks may have taken a place for a moment when the attack came: the attack goes on.
    for _ in 0..100 {
        if of_acme().await == 503 {
            break;
        }
        let (answer, mut body) = attacker.begin(Method::POST, "/events", &headers).await.unwrap();
        send(&mut body, b"{", false);
        calls.push((answer, body));
    }
    assert_eq!(of_acme().await, 503, "acme's share is taken");
    assert_serves(&service, Some(&beta)).await;
    // Until its bodies' time is over.
    let mut statuses = Vec::new();
    for (answer, _open) in calls {
        statuses.push(answer.await.unwrap().status().as_u16());
    }
    assert_eq!(statuses.iter().filter(|status| **status == 408).count(), 5, "a quarter of 20: {statuses:?}");
    assert!(statuses.iter().all(|status| [408, 503].contains(status)), "{statuses:?}");
    eventually("acme's share to be free", || async { of_acme().await == 200 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_never_end_are_bounded_in_sum_and_given_up() {
    let settings = [("TALLYHOUSE_REQUEST_BYTES_IN_FLIGHT_MAX", "2097152"), ("TALLYHOUSE_BODY_WAIT_MS_MAX", "3000")];
    let service = TestService::with(&settings).await;
    let mut start = vec![0];
    start.extend_from_slice(&(1_u32 << 20).to_be_bytes());
    start.resize(600_000, 0);
    let (mut attackers, mut calls) = (Vec::new(), Vec::new());
    for path in ["IngestBatch", "Ingest"].repeat(4) {
        let mut attacker = Attacker::connect(&service, 1 << 16).await;
        let path = format!("/tallyhouse.v1.IngestService/{path}");
        let (answer, mut message) = attacker.begin_call(&path, &[]).await.unwrap();
        send(&mut message, &start, false);
        calls.push((answer, message));
        attackers.push(attacker);
    }
    let mut statuses = Vec::new();
    for (answer, _open) in calls {
        statuses.push(grpc_status(answer).await.expect("a status"));
    }
    let count = |code: Code| statuses.iter().filter(|status| **status == code as i32).count();
    assert_eq!(count(Code::DeadlineExceeded) + count(Code::ResourceExhausted), 8, "{statuses:?}");
    assert!(count(Code::ResourceExhausted) >= 4, "2 MiB of 4.8: {statuses:?}");
    assert_serves(&service, None).await;
}
