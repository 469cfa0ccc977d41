//! `tallyhouse doctor` names what is wrong in a set-up, and finds nothing in one that is in order.

use std::net::TcpListener;
use std::process::Command;

use serde_json::Value;

use crate::service::TestService;

struct Examined {
    code: Option<i32>,
    findings: Vec<Value>,
}

impl Examined {
    fn levels(&self, check: &str) -> Vec<&str> {
        let of_check = self.findings.iter().filter(|finding| finding["check"] == check);
        of_check.map(|finding| finding["level"].as_str().unwrap()).collect()
    }

    fn text(&self, check: &str) -> String {
        let of_check = self.findings.iter().filter(|finding| finding["check"] == check);
        of_check.map(|finding| format!("{} -> {}\n", finding["found"], finding["advice"])).collect()
    }
}

fn doctor(settings: &[(&str, &str)]) -> Examined {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallyhouse"));
    let defaults = [("TALLYHOUSE_LISTEN", "127.0.0.1:0"), ("TALLYHOUSE_CLICKHOUSE_HTTP_PORT", "0")];
    let settings = defaults.iter().chain(settings).map(|(name, value)| (*name, *value));
    let output = command.args(["doctor", "--json"]).envs(settings).output().unwrap();
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    Examined { code: output.status.code(), findings: value["findings"].as_array().unwrap().clone() }
}

#[test]
fn each_thing_that_is_wrong_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let new = dir.path().join("data");
    let new = new.to_str().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (check, settings, words) in [
        ("settings", vec![("TALLYHOUSE_SEGMENT_ROWS_MAX", "0")], "segment_rows_max"),
        ("settings", vec![("TALLYHOUSE_LISTEN", "0.0.0.0:0"), ("TALLYHOUSE_DATA_DIR", new)], "authentication"),
        ("data directory", vec![("TALLYHOUSE_DATA_DIR", "/proc/tallyhouse")], "data_dir"),
        ("ports", vec![("TALLYHOUSE_LISTEN", &address), ("TALLYHOUSE_DATA_DIR", new)], "listen"),
        (
            "clickhouse",
            vec![("TALLYHOUSE_CLICKHOUSE_URL", &format!("http://{closed}")), ("TALLYHOUSE_DATA_DIR", new)],
            "does not answer",
        ),
        (
            "tls",
            vec![
                ("TALLYHOUSE_TLS_CERTIFICATE_FILE", "/none/tls.crt"),
                ("TALLYHOUSE_TLS_KEY_FILE", "/none/tls.key"),
                ("TALLYHOUSE_DATA_DIR", new),
            ],
            "/none/tls",
        ),
        (
            "redis",
            vec![
                ("TALLYHOUSE_PIPELINE", "true"),
                ("TALLYHOUSE_REDIS_URL", &format!("redis://{closed}")),
                ("TALLYHOUSE_DATA_DIR", new),
            ],
            "redis_url",
        ),
        (
            "ticketing database",
            vec![
                ("TALLYHOUSE_TICKETING", "true"),
                ("TALLYHOUSE_TICKETING_DATABASE_URL", &format!("postgres://tallyhouse@{closed}/shows")),
                ("TALLYHOUSE_DATA_DIR", new),
            ],
            "ticketing_database_url",
        ),
        ("tokens", vec![("TALLYHOUSE_AUTH_JWKS_FILE", "/none/keys.json"), ("TALLYHOUSE_DATA_DIR", new)], "/none/keys"),
    ] {
        let examined = doctor(&settings);
        assert_eq!(examined.code, Some(1), "{settings:?}: {:?}", examined.findings);
        assert!(examined.levels(check).contains(&"error"), "{settings:?}: {:?}", examined.findings);
        assert!(examined.text(check).contains(words), "{settings:?}: {}", examined.text(check));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_runs_is_in_order_until_its_tables_are_not() {
    let service = TestService::new().await;
    let settings = [("TALLYHOUSE_DATA_DIR", service.data_dir().to_str().unwrap())];
    let examined = tokio::task::block_in_place(|| doctor(&settings));
    assert_eq!(examined.code, Some(0), "{:?}", examined.findings);
    assert_eq!(examined.levels("clickhouse tables"), ["ok"]);
    assert!(examined.text("data directory").contains("in use by process"), "{}", examined.text("data directory"));

    service.sql("ALTER TABLE type_hours MODIFY SETTING non_replicated_deduplication_window = 7").await;
    let examined = tokio::task::block_in_place(|| doctor(&settings));
    assert_eq!(examined.code, Some(1), "{:?}", examined.findings);
    assert!(examined.text("clickhouse tables").contains("ALTER TABLE tallyhouse.type_hours MODIFY SETTING"));

    let password = std::fs::read_to_string(service.data_dir().join("clickhouse/password")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let server = |password: &str| {
        doctor(&[
            ("TALLYHOUSE_DATA_DIR", dir.path().to_str().unwrap()),
            ("TALLYHOUSE_CLICKHOUSE_URL", &service.clickhouse_url),
            ("TALLYHOUSE_CLICKHOUSE_USER", "tallyhouse"),
            ("TALLYHOUSE_CLICKHOUSE_PASSWORD", password),
            // A user without a row policy sees every organization.
            ("TALLYHOUSE_CLICKHOUSE_READER_USER", "tallyhouse"),
            ("TALLYHOUSE_CLICKHOUSE_READER_PASSWORD", password),
        ])
    };
    service.store(crate::events::clicks("event", 3, crate::events::now_millis())).await;
    let examined = tokio::task::block_in_place(|| server(password.trim()));
    assert!(examined.text("clickhouse reader").contains("row policy"), "{:?}", examined.findings);
    let examined = tokio::task::block_in_place(|| server("wrong"));
    assert!(examined.text("clickhouse").contains("clickhouse_password"), "{:?}", examined.findings);
}

#[test]
fn a_redis_that_forgets_is_a_warning() {
    let Some(redis) = tallyhouse_testkit::TestRedis::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let examine = || {
        doctor(&[
            ("TALLYHOUSE_DATA_DIR", dir.path().to_str().unwrap()),
            ("TALLYHOUSE_PIPELINE", "true"),
            ("TALLYHOUSE_REDIS_URL", &redis.url()),
        ])
    };
    assert_eq!(examine().levels("redis"), ["ok"]);
    redis.ask::<String>(&["CONFIG", "SET", "appendonly", "no"]);
    let examined = examine();
    assert_eq!(examined.levels("redis"), ["warning"], "{:?}", examined.findings);
    assert!(examined.text("redis").contains("appendonly"));
}
