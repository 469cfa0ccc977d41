//! Analysts ask ClickHouse itself, and can only read.

use crate::events::{clicks, now_millis};
use crate::service::TestService;

/// Asks as an analyst; the text of the answer, or of the error.
async fn ask(service: &TestService, statement: &str) -> Result<String, String> {
    let request = service.http.post(&service.sql_url).header("X-ClickHouse-User", "analyst").body(statement.to_owned());
    let answer = request.send().await.unwrap();
    let is_ok = answer.status().is_success();
    let text = answer.text().await.unwrap().trim_end().to_owned();
    if is_ok { Ok(text) } else { Err(text) }
}

#[tokio::test(flavor = "multi_thread")]
async fn analysts_read_each_event_once_and_change_nothing() {
    let service = TestService::new().await;
    service.store(clicks("event", 1_000, now_millis())).await;
    // Even of a row that somebody wrote twice, they see one.
    service.sql("INSERT INTO events SELECT * FROM events LIMIT 10").await;
    assert_eq!(ask(&service, "SELECT count() FROM tallyhouse_analytics.events").await.unwrap(), "1000");
    let users = "SELECT user_id, events FROM tallyhouse_analytics.top_users(org = 'default', \
                 from = now() - INTERVAL 1 DAY, to = now() + INTERVAL 1 HOUR) LIMIT 1";
    assert!(ask(&service, users).await.is_ok(), "{:?}", ask(&service, users).await);
    for forbidden in [
        "SELECT count() FROM tallyhouse.events",
        "INSERT INTO tallyhouse.events (event_id) VALUES ('x')",
        "DROP TABLE tallyhouse.events",
        "SET max_memory_usage = 0",
        "SELECT * FROM file('/etc/passwd', 'LineAsString', 'line String')",
    ] {
        assert!(ask(&service, forbidden).await.is_err(), "{forbidden}");
    }
}
