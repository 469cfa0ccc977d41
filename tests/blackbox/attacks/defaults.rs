//! What is open, or weak, unless somebody thinks of closing it.

use std::process::{Command, Stdio};

use serde_json::json;
use tallyhouse::transport::proto;
use tonic::Code;

use crate::service::{TestService, eventually};
use crate::tokens::{SECRET, Signer, channel, key_set};

#[tokio::test(flavor = "multi_thread")]
async fn what_tells_of_the_whole_service_is_closed_unless_opened() {
    let mut service = TestService::with(&[("TALLYHOUSE_AUTH_HS256_SECRET", SECRET)]).await;
    let admin = Signer::secret(SECRET).token("acme", "ingest read admin");
    let metrics = async |service: &TestService| {
        let answer = service.http.get(format!("{}/metrics", service.url)).send().await.unwrap();
        answer.status().as_u16()
    };
    assert_eq!(metrics(&service).await, 401);
    let top = service.http.get(format!("{}/api/v1/organizations/top", service.url)).bearer_auth(&admin);
    let answer = top.send().await.unwrap();
    assert_eq!(answer.status(), 403);
    let body: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(body["error"]["code"], json!("PERMISSION_DENIED"));
    let mut organizations =
        proto::organization_service_client::OrganizationServiceClient::new(channel(&service, &admin).await);
    let refused = organizations.get_top_organizations(proto::GetTopOrganizationsRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(reflection(&service).await, Code::Unauthenticated);

    service.stop();
    service.set("TALLYHOUSE_METRICS_OPEN", "true");
    service.set("TALLYHOUSE_REFLECTION_OPEN", "true");
    service.start().await;
    assert_eq!((metrics(&service).await, reflection(&service).await), (200, Code::Ok));
}

/// What a list of services is answered.
async fn reflection(service: &TestService) -> Code {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(service.channel().await);
    match client.server_reflection_info(tokio_stream::iter([request])).await {
        Ok(answers) => answers.into_inner().message().await.map_or_else(|status| status.code(), |_| Code::Ok),
        Err(status) => status.code(),
    }
}

#[test]
fn a_service_does_not_start_with_a_secret_that_can_be_guessed() {
    for setting in ["AUTH_HS256_SECRET", "CURSOR_SECRET"] {
        for secret in [" ".repeat(32), "0".repeat(64), "0123456789abcdef0123456789abcdef".to_owned()] {
            let dir = tempfile::tempdir().unwrap();
            let output = Command::new(env!("CARGO_BIN_EXE_tallyhouse"))
                .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
                .arg(dir.path())
                .env("TALLYHOUSE_CLICKHOUSE_URL", "http://127.0.0.1:9")
                .env(format!("TALLYHOUSE_{setting}"), &secret)
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && said.contains(&setting.to_lowercase()), "{secret:?}: {said}");
            assert!(said.contains("too few characters") && !said.contains(&secret), "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fifo_in_place_of_the_key_file_blocks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.json");
    let signer = Signer::ed("old");
    std::fs::write(&path, key_set(&[&signer])).unwrap();
    let mut service = TestService::with(&[("TALLYHOUSE_AUTH_JWKS_FILE", path.to_str().unwrap())]).await;
    let fifo = dir.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    std::fs::rename(&fifo, &path).unwrap();
    eventually("a complaint", || async { service.stderr().contains("not a regular file") }).await;
    // The keys from before stay, and the service stops when it is told to.
    let top = service.http.get(format!("{}/users/top", service.url)).bearer_auth(signer.token("acme", "read"));
    assert_eq!(top.send().await.unwrap().status(), 200);
    assert_eq!(tokio::task::block_in_place(|| service.stop()), Some(0));
}
