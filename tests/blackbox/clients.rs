//! Clients in another language, made from what the service says of itself: the
//! protocol's files, and the description of the REST interface.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tallyhouse::transport::proto;

use crate::service::TestService;
use crate::tokens::{SECRET, Signer};

/// The directory of the clients, with their packages.
fn clients() -> PathBuf {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    INSTALLED.get_or_init(|| run(Command::new("npm").args(["ci", "--silent"]).current_dir(&clients)));
    clients
}

/// Runs the tests in `tests/clients` with Node.js against a service.
#[tokio::test(flavor = "multi_thread")]
async fn clients_made_from_the_protocol_work_over_grpc_and_grpc_web() {
    let service = TestService::new().await;
    let descriptors = service.data_dir().join("tallyhouse.binpb");
    std::fs::write(&descriptors, proto::DESCRIPTORS).unwrap();
    run(Command::new("node")
        .args(["--test", "grpc.test.js", "grpc_web.test.js"])
        .current_dir(clients())
        .env("TALLYHOUSE_URL", &service.url)
        .env("TALLYHOUSE_PROTO", Path::new(env!("CARGO_MANIFEST_DIR")).join("proto"))
        .env("TALLYHOUSE_DESCRIPTORS", &descriptors));
}

/// Generates a client from `/openapi.json`, checks the types of what calls every
/// operation with it, and makes the calls.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_made_from_the_description_calls_every_operation() {
    let settings = [("TALLYHOUSE_AUTH_HS256_SECRET", SECRET), ("TALLYHOUSE_OPERATOR_ORG_ID", "acme")];
    let service = TestService::with(&settings).await;
    let clients = clients();
    let description = service.data_dir().join("openapi.json");
    let answer = service.http.get(format!("{}/openapi.json", service.url)).send().await.unwrap();
    std::fs::write(&description, answer.bytes().await.unwrap()).unwrap();
    let tool = |name: &str| {
        let mut command = Command::new(clients.join("node_modules/.bin").join(name));
        command.current_dir(&clients);
        command
    };
    run(tool("openapi-typescript").arg(&description).args(["--output", "generated/openapi.d.ts"]));
    run(tool("tsc").args(["--project", "tsconfig.json"]));
    run(Command::new("node")
        .args(["--test", "rest.test.js"])
        .current_dir(&clients)
        .env("TALLYHOUSE_URL", &service.url)
        .env("TALLYHOUSE_TOKEN", Signer::secret(SECRET).token("acme", "ingest read admin")));
}

/// Points the unmodified libraries of other systems at the service: see `docs/compatibility.md`.
#[tokio::test(flavor = "multi_thread")]
async fn libraries_of_other_systems_work_unmodified_and_count_once() {
    let service = TestService::with(&[("TALLYHOUSE_AUTH_HS256_SECRET", SECRET)]).await;
    let descriptors = service.data_dir().join("tallyhouse.binpb");
    std::fs::write(&descriptors, proto::DESCRIPTORS).unwrap();
    run(Command::new("node")
        .args(["--test", "compat.test.js", "connect.test.js"])
        .current_dir(clients())
        .env("TALLYHOUSE_URL", &service.url)
        .env("TALLYHOUSE_DESCRIPTORS", &descriptors)
        .env("TALLYHOUSE_TOKEN", Signer::secret(SECRET).token("acme", "ingest read admin")));
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{command:?}\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
}
