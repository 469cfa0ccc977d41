//! `tallyhouse shows`.

use std::process::{Command, Output};

use serde_json::Value;

use crate::service::Service;

fn shows(service: &Service, token: &str, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallyhouse"));
    command.arg("shows").args(args).env("TALLYHOUSE_ADDRESS", service.main_url()).env("TALLYHOUSE_TOKEN", token);
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_show_is_created_published_cancelled_and_listed() {
    let service = Service::start(&[]);
    let good = |args: &[&str]| {
        let ran = shows(&service, service.token(), args);
        assert!(ran.status.success(), "{args:?}: {}", text(&ran.stderr));
        text(&ran.stdout)
    };
    let bad = |token: &str, args: &[&str]| {
        let ran = shows(&service, token, args);
        assert_eq!(ran.status.code(), Some(2), "{args:?}");
        text(&ran.stderr)
    };
    let create = [
        "create",
        "--title",
        "Hamlet",
        "--start",
        "2100-05-17T19:30:00Z",
        "--end",
        "2100-05-17T22:00:00Z",
        "--location",
        "Globe",
        "--notes",
        "private",
        "--idempotency-key",
        "one",
    ];
    let made: Value = serde_json::from_str(&good(&create)).unwrap();
    let again: Value = serde_json::from_str(&good(&create)).unwrap();
    assert_eq!(made, again);
    let id = made["id"].as_str().unwrap();
    assert!(good(&["publish", id]).contains("\"PUBLISHED\""));
    assert!(good(&["cancel", id]).contains("\"CANCELLED\""));
    let list =
        good(&["list", "--locations", "GLOBE", "--status", "CANCELLED", "--from", "2100-05-17", "--to", "2100-05-17"]);
    assert!(list.contains("Hamlet") && list.contains(id) && list.contains("page 1 of 1, 1 events in all"), "{list}");
    assert!(good(&["list", "--status", "DRAFT"]).starts_with("page 1 of 0, 0 events in all"));
    let json: Value = serde_json::from_str(&good(&["list", "--json"])).unwrap();
    assert_eq!(json["events"][0]["internalNotes"], "private");
    assert!(good(&["notifications"]).contains("Event cancelled: Hamlet"));
    let refused = bad(service.token(), &["publish", id]);
    assert!(refused.contains("CANCELLED") && refused.contains("PUBLISHED"), "{refused}");
    let wrong = bad(service.token(), &["list", "--status", "other", "--limit", "0"]);
    assert!(wrong.contains("status must") && wrong.contains("limit must"), "{wrong}");
    assert!(bad("wrong", &["list"]).contains("--token or TALLYHOUSE_TOKEN"));
    assert!(bad(service.token(), &["publish", "../events"]).contains("is not an event's id"));
}
