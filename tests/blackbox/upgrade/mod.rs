//! A newer service continues on an older one's tables, and an older one on tables that a newer one has extended.

mod old_data;
mod old_versions;

use std::path::Path;

use tallyhouse::transport::proto::{Durability, IngestBatchRequest};

use crate::events::{click, clicks, now_millis};
use crate::service::TestService;

/// The database of the older service.
const OLD: &str = "tallyhouse_old";
/// The last file of the schema that it knew.
const OLD_FILE: &str = "0014";

/// The statements of the schema's files up to one.
fn old_schema(last: &str) -> Vec<String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("clickhouse");
    let mut files: Vec<String> = std::fs::read_dir(dir.clone())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".sql") && name.as_str() <= format!("{last}~").as_str())
        .collect();
    files.sort();
    let mut statements = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(dir.join(&file)).unwrap();
        let text = text.replace("{database}", OLD).replace("{definer}", "tallyhouse");
        let is_statement = |part: &&str| part.lines().any(|line| !line.trim().is_empty() && !line.starts_with("--"));
        statements.extend(text.split(";\n").filter(is_statement).map(str::to_owned));
        let name = file.trim_end_matches(".sql");
        statements.push(format!("INSERT INTO {OLD}.schema_migrations (name) VALUES ('{name}')"));
    }
    statements
}

async fn send(service: &TestService, events: Vec<tallyhouse::transport::proto::Event>) {
    let request = IngestBatchRequest { events, durability: Durability::Stored.into(), ..Default::default() };
    service.ingest().await.ingest_batch(request).await.unwrap();
}

/// What each table counts in the older service's database.
async fn totals(service: &TestService) -> Vec<String> {
    let mut totals = Vec::new();
    for statement in [
        format!("SELECT uniqExact(event_id) FROM {OLD}.events"),
        format!("SELECT sum(events) FROM {OLD}.campaign_minutes"),
        format!("SELECT sum(events) FROM {OLD}.type_hours"),
        format!("SELECT sum(toInt32(c00)) FROM {OLD}.user_days"),
        format!("SELECT sum(toInt32(events)) FROM {OLD}.user_minutes"),
    ] {
        totals.push(service.sql(&statement).await);
    }
    totals
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_service_continues_on_older_tables() {
    let engine = TestService::new().await;
    for statement in old_schema(OLD_FILE) {
        engine.sql(&statement).await;
    }
    let at = now_millis() - 60_000;
    let columns =
        "org_id, event_id, type, campaign_id, creative_id, source, user_id, occurred_at, seq, properties, version";
    engine
        .sql(&format!(
            "INSERT INTO {OLD}.events ({columns}) SELECT 'default', concat('old-', toString(number)), 'click', 'camp_1', \
             'creative_1', 'test', 'user_1', fromUnixTimestamp64Milli({at}), 0, '', \
             18446744073709551615 - toUInt64({at} * 1000 + number) FROM numbers(100)"
        ))
        .await;
    let newer = engine.second(&[("TALLYHOUSE_CLICKHOUSE_DATABASE", OLD)]).await;
    let applied: usize = engine.sql(&format!("SELECT count() FROM {OLD}.schema_migrations")).await.parse().unwrap();
    let known: usize = engine.sql("SELECT count() FROM tallyhouse.schema_migrations").await.parse().unwrap();
    assert_eq!(applied, known, "every file is applied");

    send(&newer, (0..100).map(|n| click(&format!("old-{n}"), at)).collect()).await;
    assert_eq!(totals(&engine).await, vec!["100".to_owned(); 5], "what the older one has stored is known");
    send(&newer, clicks("new", 50, now_millis())).await;
    assert_eq!(totals(&engine).await, vec!["150".to_owned(); 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_can_be_extended_under_a_running_service() {
    let mut service = TestService::new().await;
    service.store(clicks("before", 100, now_millis())).await;
    // As a newer version does it: further columns with defaults, and a further file.
    for statement in [
        "ALTER TABLE events ADD COLUMN future String DEFAULT 'none'",
        "ALTER TABLE campaign_minutes ADD COLUMN future UInt64 DEFAULT 0",
        "INSERT INTO schema_migrations (name) VALUES ('9999_of_the_future')",
    ] {
        service.sql(statement).await;
    }
    service.store(clicks("meanwhile", 100, now_millis())).await;
    service.assert_counted(200).await;
    assert_eq!(service.stop(), Some(0));
    service.start().await;
    service.store(clicks("meanwhile", 100, now_millis())).await;
    service.store(clicks("afterwards", 100, now_millis())).await;
    service.assert_counted(300).await;
}
