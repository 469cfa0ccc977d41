//! Peers that ask for much and read nothing.

use std::time::Duration;

use axum::http::Response;
use h2::RecvStream;
use h2::client::ResponseFuture;
use tallyhouse::transport::proto;

use super::client::{Attacker, assert_serves, peak_bytes, reset_peak, resident_bytes, send};
use crate::events::{click, now_millis};
use crate::service::{PATIENCE, TestService};

/// Asks for a path often on each of several connections, and reads nothing.
async fn ask_and_do_not_read(
    service: &TestService,
    path: &str,
    headers: &[(&str, &str)],
    times: usize,
) -> (Vec<Attacker>, Vec<ResponseFuture>) {
    let (mut attackers, mut answers) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        let mut attacker = Attacker::connect(service, 0).await;
        for _ in 0..times {
            let Some(answer) = attacker.get(path, headers).await else { break };
            answers.push(answer);
        }
        attackers.push(attacker);
    }
    (attackers, answers)
}

/// The heads of answers, whose bodies have been made by then, and are waited
/// for but not read. Fewer, if connections have ended.
async fn heads(answers: Vec<ResponseFuture>) -> Vec<Response<RecvStream>> {
    let mut heads = Vec::new();
    for answer in answers {
        heads.extend(tokio::time::timeout(PATIENCE, answer).await.expect("a head, or the connection's end"));
    }
    heads
}

/// Asserts that connections whose peers do not read are closed.
async fn assert_cut_off(attackers: Vec<Attacker>) {
    for attacker in attackers {
        tokio::time::timeout(PATIENCE, attacker.connection).await.expect("the connection is cut off").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_answers_take_no_memory_and_are_cut_off() {
    let settings = [("TALLYHOUSE_WRITE_WAIT_MS_MAX", "3000"), ("TALLYHOUSE_RESPONSE_BYTES_IN_FLIGHT_MAX", "67108864")];
    let service = TestService::with(&settings).await;
    let gzip = [("accept-encoding", "gzip")];
    let asked: [(&str, &[(&str, &str)]); 4] = [
        ("/docs/swagger-ui-bundle.js", &[]),
        ("/docs/swagger-ui-bundle.js", &gzip),
        ("/metrics", &[]),
        ("/openapi.json", &gzip),
    ];
    for (path, headers) in asked {
        // Whatever is made once is made now.
        assert_eq!(service.http.get(format!("{}{path}", service.url)).send().await.unwrap().status(), 200);
        reset_peak(service.pid());
        let before = resident_bytes(service.pid());
        let (attackers, answers) = ask_and_do_not_read(&service, path, headers, 200).await;
        let _kept = heads(answers).await;
        let grown = peak_bytes(service.pid()).saturating_sub(before);
        assert!(grown < 128 << 20, "{path}: {grown} bytes more");
        assert_serves(&service, None).await;
        assert_cut_off(attackers).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_events_that_nobody_reads_are_bounded_in_sum() {
    let settings = [("TALLYHOUSE_WRITE_WAIT_MS_MAX", "3000"), ("TALLYHOUSE_RESPONSE_BYTES_IN_FLIGHT_MAX", "16777216")];
    let service = TestService::with(&settings).await;
    let events = (0..100).map(|n| proto::Event {
        properties: format!("{{\"x\":\"{}\"}}", "y".repeat(10_000)),
        ..click(&format!("large-{n}"), now_millis())
    });
    service.store(events.collect()).await;
    for headers in [&[][..], &[("accept-encoding", "gzip")]] {
        reset_peak(service.pid());
        let before = resident_bytes(service.pid());
        let (attackers, answers) = ask_and_do_not_read(&service, "/events?limit=500", headers, 50).await;
        // 500 pages of 1 MB are asked for.
        let kept = heads(answers).await;
        let refused = kept.iter().filter(|answer| answer.status() == 503).count();
        let grown = peak_bytes(service.pid()).saturating_sub(before);
        assert!(grown < 192 << 20, "{grown} bytes more, {headers:?}");
        assert!(refused > 0, "the sum is bounded, {headers:?}");
        assert_cut_off(attackers).await;
        assert_serves(&service, None).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_does_not_read_is_cut_off() {
    let service = TestService::with(&[("TALLYHOUSE_WRITE_WAIT_MS_MAX", "2000")]).await;
    let mut attacker = Attacker::connect(&service, 0).await;
    let (answer, mut message) = attacker.begin_call("/tallyhouse.v1.OutcomeService/Watch", &[]).await.unwrap();
    send(&mut message, &[0; 5], true);
    assert!(!answer.await.unwrap().headers().contains_key("grpc-status"), "it watches");
    // Nobody is cut off for having nothing to read.
    let is_over = tokio::time::timeout(Duration::from_secs(5), &mut attacker.connection).await.is_ok();
    assert!(!is_over, "a quiet watcher stays");
    service.store(vec![click("a", now_millis())]).await;
    assert_cut_off(vec![attacker]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_slowly_but_steadily_gets_everything() {
    let service = TestService::with(&[("TALLYHOUSE_WRITE_WAIT_MS_MAX", "2000")]).await;
    let path = "/docs/swagger-ui-bundle.js";
    let whole = service.http.get(format!("{}{path}", service.url)).send().await.unwrap().bytes().await.unwrap();
    let mut attacker = Attacker::connect(&service, 16_384).await;
    let mut body = attacker.get(path, &[]).await.unwrap().await.unwrap().into_body();
    let mut read = Vec::new();
    while let Some(data) = body.data().await {
        read.extend_from_slice(&data.unwrap());
        // A pause of its own after each of some hundred pieces.
        tokio::time::sleep(Duration::from_millis(30)).await;
        let capacity = body.flow_control().used_capacity();
        body.flow_control().release_capacity(capacity).unwrap();
    }
    assert!(read == whole, "{} of {} bytes", read.len(), whole.len());
}
