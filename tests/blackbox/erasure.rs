//! One user's data is deleted, and every count that is not by user stays.

use std::process::{Command, Output};

use crate::events::{clicks, now_millis};
use crate::service::TestService;

const HOUR_MILLIS: i64 = 3_600_000;

fn erase(service: &TestService, user: &str, more: &[&str]) -> Output {
    let data_dir = service.data_dir();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallyhouse"));
    command.args(["erase", "--org", "default", user]).args(more).arg("--data-dir").arg(data_dir).output().unwrap()
}

/// How many texts in all tables and views of the database contain this.
async fn mentions(service: &TestService, text: &str) -> u64 {
    let columns = "SELECT table || ' ' || name FROM system.columns WHERE database = currentDatabase() \
                   AND type IN ('String', 'LowCardinality(String)') AND default_kind != 'ALIAS'";
    let mut found = 0;
    for line in service.sql(columns).await.lines() {
        let (table, column) = line.split_once(' ').unwrap();
        let statement = format!("SELECT countIf({column} LIKE '%{text}%') FROM {table}");
        found += service.sql(&statement).await.parse::<u64>().unwrap();
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_user_is_in_no_table() {
    let mut service = TestService::new().await;
    let at = now_millis() - 3 * HOUR_MILLIS;
    let mut events = clicks("event", 200, at);
    for event in &mut events[..30] {
        event.user_id = "ann@example.com".to_owned();
        event.properties = r#"{"name":"ann@example.com"}"#.to_owned();
    }
    service.store(events.clone()).await;
    let put = serde_json::json!({"email": "ann@example.com", "name": "Ann", "role": "buyer"});
    let directory = format!("{}/api/v1/users/ann@example.com", service.url);
    service.http.put(directory).json(&put).send().await.unwrap();
    let by_campaign = "SELECT campaign_id, type, sum(events) FROM campaign_minutes GROUP BY ALL ORDER BY ALL";
    let by_hour = "SELECT type, sum(events) FROM type_hours GROUP BY ALL ORDER BY ALL";
    let before = (service.sql(by_campaign).await, service.sql(by_hour).await);
    assert!(mentions(&service, "ann@example").await > 0);

    let shown = erase(&service, "ann@example.com", &[]);
    assert!(shown.status.success() && String::from_utf8_lossy(&shown.stdout).contains("30 events"), "{shown:?}");
    assert!(mentions(&service, "ann@example").await > 0, "it is only shown");

    let erased = erase(&service, "ann@example.com", &["--confirm"]);
    assert!(erased.status.success(), "{erased:?}");
    assert_eq!(mentions(&service, "ann@example").await, 0);
    assert_eq!((service.sql(by_campaign).await, service.sql(by_hour).await), before);
    assert_eq!(service.sql("SELECT uniqExact(event_id) FROM events").await, "200");
    assert_eq!(service.sql("SELECT sum(toInt32(c00)) FROM user_days").await, "170");
    let audit = ["audit", "--address", &service.url, "--last", "6h"];
    let audited = Command::new(env!("CARGO_BIN_EXE_tallyhouse")).args(audit).output().unwrap();
    assert!(audited.status.success(), "the counts are those of the events: {audited:?}");

    // The ids are still known, in memory and after a restart.
    service.store(events[..30].to_vec()).await;
    service.stop();
    service.start().await;
    service.store(events[..30].to_vec()).await;
    assert_eq!((service.sql(by_campaign).await, service.sql(by_hour).await), before);
    assert_eq!(mentions(&service, "ann@example").await, 0);
    let other = erase(&service, "user_50", &["--confirm"]);
    assert!(other.status.success(), "{other:?}");
}
