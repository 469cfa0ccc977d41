//! Reads of the public, as impressions.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::client::Client;
use crate::service::{Service, eventually};

const READS: usize = 30;

#[tokio::test(flavor = "multi_thread")]
async fn each_read_of_the_public_is_counted_once() {
    let service = Service::start(&[("TALLYHOUSE_TICKETING_COUNT_READS", "true")]);
    let (client, main) = (service.client(), Client::new(service.main_url(), ""));
    let event = client.create(&json!({"status": "PUBLISHED"})).await;
    let id = event["id"].as_str().unwrap();
    let path = format!("/public/events/{id}");
    let answers = join_all((0..READS).map(|_| client.get(&path))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    client.get(&format!("{path}/summary")).await;
    client.get("/public/events").await;
    client.admin_get(&format!("/events/{id}")).await;
    let now = time::OffsetDateTime::now_utc();
    let day = |days: i64| (now + time::Duration::days(days)).date().to_string();
    let query =
        format!("/stats?campaign_id=show:{id}&from={}T00:00:00Z&to={}T00:00:00Z&granularity=hour", day(-1), day(2));
    eventually("all are counted", || async {
        let stats: Value = main.get(&query).await.json();
        let series = stats["series"].as_array().cloned().unwrap_or_default();
        let impressions: u64 = series.iter().filter_map(|bucket| bucket["impressions"].as_u64()).sum();
        assert!(impressions <= READS as u64, "{stats}");
        impressions == READS as u64
    })
    .await;
}
