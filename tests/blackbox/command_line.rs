//! What start-up and the commands say when something is wrong.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::service::TestService;

/// None of these may wait for something that does not come.
const AT_ONCE: Duration = Duration::from_secs(10);

/// Runs a command to its end, which must come at once.
fn run(args: &[&str], file: Option<&Path>) -> (Output, String) {
    let begun = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallyhouse"));
    let output = command.args(args).args(file).stdin(Stdio::null()).output().unwrap();
    assert!(begun.elapsed() < AT_ONCE, "{args:?} took {:?}", begun.elapsed());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, said)
}

fn file(text: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text).unwrap();
    file
}

fn line(event_id: &str, more: &Value) -> String {
    let mut event = json!({"event_id": event_id, "type": "click", "source": "s", "user_id": "u", "campaign_id": "c",
        "occurred_at": "2026-11-01T00:00:00Z"});
    event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    format!("{event}\n")
}

/// How often a text says something.
fn times(text: &str, what: &str) -> usize {
    text.matches(what).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_dev_in_the_same_directory_says_so_at_once() {
    let service = TestService::new().await;
    let dir = service.data_dir().to_str().unwrap();
    let (output, said) =
        run(&["dev", "--listen", "127.0.0.1:0", "--clickhouse-http-port", "0", "--data-dir", dir], None);
    assert!(!output.status.success());
    assert!(said.contains("in use by another tallyhouse") && said.contains(dir), "{said}");
    assert!(!said.contains("ClickHouse"), "{said}");
}

#[test]
fn a_data_directory_that_cannot_be_used_is_named_once() {
    let parent = tempfile::tempdir().unwrap();
    let below_a_file = parent.path().join("file/below");
    std::fs::write(parent.path().join("file"), "").unwrap();
    for dir in [below_a_file.to_str().unwrap(), "/proc/tallyhouse"] {
        for (command, url) in [("dev", ""), ("serve", "http://127.0.0.1:9")] {
            let (output, said) =
                run(&[command, "--listen", "127.0.0.1:0", "--clickhouse-url", url, "--data-dir", dir], None);
            assert!(!output.status.success());
            assert!(said.contains("data_dir"), "{said}");
            assert_eq!(times(&said, dir), 1, "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_cause_is_said_twice() {
    let service = TestService::new().await;
    let taken = service.url.trim_start_matches("http://");
    let dir = tempfile::tempdir().unwrap();
    let (_, said) = run(&["dev", "--listen", taken, "--data-dir", dir.path().to_str().unwrap()], None);
    assert_eq!(times(&said, "in use"), 1, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_of_clickhouse_is_told_from_a_tallyhouse() {
    let service = TestService::new().await;
    let events = file(line("a", &json!({})).as_bytes());
    for args in [
        &["send", "--address", &service.clickhouse_url][..],
        &["top", "users", "--address", &service.clickhouse_url],
        &["send", "--address", &service.sql_url],
        &["top", "users", "--address", &service.sql_url],
    ] {
        let (output, said) = run(args, (args[0] == "send").then_some(events.path()));
        assert_eq!(output.status.code(), Some(2));
        assert!(said.contains("is a ClickHouse, not a tallyhouse"), "{args:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_fields_and_conflicts_are_listed() {
    let service = TestService::new().await;
    let send = |more: &[&str], text: &str| {
        let args = [&["send", "--address", &service.url][..], more].concat();
        let (output, said) = run(&args, Some(file(text.as_bytes()).path()));
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), said)
    };
    let slip = line("slip", &json!({"campaing_id": "spring"}));
    let (code, shown, said) = send(&["--strict"], &slip);
    assert_eq!(code, Some(1), "{said}");
    assert!(shown.contains("campaing_id is not a field of an event; did you mean campaign_id?"), "{shown}");
    let (code, shown, said) = send(&[], &(slip.clone() + &line("good", &json!({"received_at": "x", "org_id": "o"}))));
    assert_eq!(code, Some(0), "{said}");
    assert!(shown.contains("campaing_id in 1 line, first in line 1; did you mean campaign_id?"), "{shown}");
    assert!(!shown.contains("org_id") && !shown.contains("received_at"), "{shown}");

    let conflicts = tempfile::NamedTempFile::new().unwrap();
    let path = conflicts.path().to_str().unwrap();
    let text = line("new", &json!({})) + &line("good", &json!({"user_id": "another"}));
    let (code, shown, said) = send(&["--conflicts", path], &text);
    assert_eq!(code, Some(0), "{said}");
    assert!(shown.contains("line 2         good"), "{shown}");
    assert_eq!(std::fs::read_to_string(path).unwrap(), "{\"line\":2,\"event_id\":\"good\"}\n");
    let (_, shown, _) = send(&["--json"], &(text + &slip));
    let summary: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(summary["first_conflicts"], json!([{"line": 2, "event_id": "good"}]));
    assert_eq!(summary["unknown_fields"], json!([{"field": "campaing_id", "lines": 1, "first_line": 3}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_ndjson_is_named_with_what_to_do() {
    let service = TestService::new().await;
    for (bytes, hint) in [
        (&[0x1f, 0x8b, 8, 0, 0, 0][..], "gunzip -c FILE | tallyhouse send -"),
        (b"[\n{\"event_id\":\"a\"}]", "jq -c '.[]' FILE"),
        (b"event_id,type\na,click\n", "this is CSV"),
    ] {
        let (output, said) = run(&["send", "--address", &service.url], Some(file(bytes).path()));
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(hint), "{said}");
        assert_eq!(times(&said, hint), 1, "{said}");
    }
}
