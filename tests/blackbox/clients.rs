//! Clients in other languages: those made from what the service says of itself (the protocol's files, and the
//! description of the REST interface), and the unmodified libraries of other systems.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tallyhouse::transport::proto;

use crate::service::TestService;
use crate::tokens::{SECRET, Signer};

/// The directory of the clients.
fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// The directory of the clients, with the packages of those in JavaScript.
fn clients() -> PathBuf {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    let clients = directory();
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

/// The same for those in Python, with the packages of `requirements.txt`.
#[tokio::test(flavor = "multi_thread")]
async fn python_libraries_of_other_systems_work_unmodified_and_count_once() {
    let Some(python) = python() else { return };
    let service = TestService::with(&[("TALLYHOUSE_AUTH_HS256_SECRET", SECRET)]).await;
    run(Command::new(python)
        .args(["-m", "unittest", "compat_test"])
        .current_dir(directory())
        .env("TALLYHOUSE_URL", &service.url)
        .env("TALLYHOUSE_TOKEN", Signer::secret(SECRET).token("acme", "ingest read admin")));
}

/// The same for those that run in browsers, on a page of another origin in Chromium.
#[tokio::test(flavor = "multi_thread")]
async fn browser_libraries_of_other_systems_work_unmodified_and_count_once() {
    let chromium = std::env::var("CHROMIUM_BIN").unwrap_or_else(|_| "/usr/bin/chromium".to_owned());
    if !Path::new(&chromium).exists() {
        return leave_out(&format!("there is no {chromium}; scripts/install-test-servers installs it on Debian"));
    }
    let settings = [("TALLYHOUSE_AUTH_HS256_SECRET", SECRET), ("TALLYHOUSE_CORS_ORIGINS", "*")];
    let service = TestService::with(&settings).await;
    run(Command::new("node")
        .args(["--test", "browser.test.js"])
        .current_dir(clients())
        .env("CHROMIUM_BIN", chromium)
        .env("TALLYHOUSE_URL", &service.url)
        .env("TALLYHOUSE_TOKEN", Signer::secret(SECRET).token("acme", "ingest read admin")));
}

/// The Python of a virtual environment with the packages, which is made where it is missing or has others. None where
/// Python cannot make one.
fn python() -> Option<PathBuf> {
    let has_ensurepip = Command::new("python3").args(["-c", "import ensurepip"]).output();
    if !has_ensurepip.is_ok_and(|output| output.status.success()) {
        leave_out("Python has no ensurepip; install python3-venv");
        return None;
    }
    let (environment, required) = (directory().join(".venv"), directory().join("requirements.txt"));
    let (python, installed) = (environment.join("bin/python"), environment.join("requirements.txt"));
    if std::fs::read(&installed).ok() != std::fs::read(&required).ok() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment));
        let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
        run(Command::new(&python).args(install).arg(&required));
        std::fs::copy(&required, &installed).unwrap();
    }
    Some(python)
}

/// Says what is left out and why, unless the tests must not leave anything out.
fn leave_out(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    eprintln!("left out: {why}");
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{command:?}\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
}
