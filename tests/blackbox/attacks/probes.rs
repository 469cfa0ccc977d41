//! Health checks and reflection, which anybody may call.

use tonic::Code;

use super::client::{Attacker, assert_serves, grpc_status, resident_bytes, send};
use crate::service::{TestService, eventually};
use crate::tokens::{SECRET, Signer};

const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

#[tokio::test(flavor = "multi_thread")]
async fn health_checks_that_never_send_their_message_keep_nobody_out() {
    let service = TestService::with(&[("TALLYHOUSE_AUTH_HS256_SECRET", SECRET)]).await;
    let token = Signer::secret(SECRET).token("acme", "read");
    let (mut attackers, mut calls) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let mut attacker = Attacker::connect(&service, 1 << 16).await;
        for _ in 0..200 {
            calls.push(attacker.begin_call(CHECK, &[]).await.unwrap());
        }
        attackers.push(attacker);
    }
    assert_serves(&service, Some(&token)).await;
    // They end by themselves, though the attacker keeps them open.
    for (answer, _open) in calls {
        let status = grpc_status(answer).await.expect("a status");
        assert!([Code::DeadlineExceeded as i32, Code::ResourceExhausted as i32].contains(&status), "{status}");
    }
    assert_serves(&service, Some(&token)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_of_health_are_bounded_and_keep_no_check_out() {
    let service = TestService::with(&[("TALLYHOUSE_AUTH_HS256_SECRET", SECRET)]).await;
    let token = Signer::secret(SECRET).token("acme", "read");
    let (mut attackers, mut calls, mut refused) = (Vec::new(), Vec::new(), 0);
    for _ in 0..20 {
        let mut attacker = Attacker::connect(&service, 1 << 16).await;
        for _ in 0..8 {
            let (answer, mut message) = attacker.begin_call(WATCH, &[]).await.unwrap();
            send(&mut message, &[0; 5], true);
            let answer = answer.await.unwrap();
            match answer.headers().get("grpc-status") {
                Some(status) => {
                    assert_eq!(status, "8");
                    refused += 1;
                }
                None => calls.push(answer),
            }
        }
        attackers.push(attacker);
    }
    assert_eq!((calls.len(), refused), (64, 96), "4 on a connection, 64 in all");
    assert_serves(&service, Some(&token)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_health_and_reflection_messages_are_refused() {
    let service = TestService::with(&[("TALLYHOUSE_REFLECTION_OPEN", "true")]).await;
    let before = resident_bytes(service.pid());
    for path in [CHECK, REFLECTION] {
        let mut attacker = Attacker::connect(&service, 1 << 16).await;
        for _ in 0..100 {
            let Some((answer, mut message)) = attacker.begin_call(path, &[]).await else { break };
            // 4 MiB are announced, of which all but the last byte could be sent.
            let mut start = vec![0];
            start.extend_from_slice(&(4_u32 << 20).to_be_bytes());
            send(&mut message, &start, false);
            send(&mut message, &vec![0; 1 << 20], false);
            let status = grpc_status(answer).await.expect("an end");
            // The library that does reflection ends without saying why.
            let is_refused = status == Code::InvalidArgument as i32 || (path == REFLECTION && status == 0);
            assert!(is_refused, "{path}: {status}");
        }
    }
    eventually("its memory back", || async { resident_bytes(service.pid()) < before + (64 << 20) }).await;
    assert_serves(&service, None).await;
}
