//! Clients in another language, made from the protocol's files.

use std::path::Path;
use std::process::Command;

use tallyhouse::transport::proto;

use crate::house::House;

/// Runs the tests in `tests/clients` with Node.js against a house.
#[tokio::test(flavor = "multi_thread")]
async fn clients_made_from_the_protocol_work_over_grpc_and_grpc_web() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let clients = root.join("tests/clients");
    let house = House::new().await;
    let descriptors = house.data_dir().join("tallyhouse.binpb");
    std::fs::write(&descriptors, proto::DESCRIPTORS).unwrap();
    run(Command::new("npm").args(["ci", "--silent"]).current_dir(&clients));
    run(Command::new("node")
        .args(["--test", "grpc.test.js", "grpc_web.test.js"])
        .current_dir(&clients)
        .env("TALLYHOUSE_URL", &house.url)
        .env("TALLYHOUSE_PROTO", root.join("proto"))
        .env("TALLYHOUSE_DESCRIPTORS", &descriptors));
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{command:?}\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
}
