//! Daily metrics: exact totals, counted by the service or sent by its clients.

use serde_json::{Value, json};

use crate::analytics::rfc3339;
use crate::events::{click, now_millis};
use crate::service::TestService;

const DAY: i64 = 24 * 3_600_000;

/// The first moment of a day some days ago, and its date.
pub(crate) fn day(ago: i64) -> (i64, String) {
    let midnight = now_millis().div_euclid(DAY) * DAY - ago * DAY;
    (midnight, rfc3339(midnight)[..10].to_owned())
}

/// Events of three users over three days, with a day without any.
pub(crate) async fn store_days(service: &TestService) {
    let event = |id: &str, ago: i64, millis: i64, user: &str, event_type: &str| {
        let mut event = click(id, day(ago).0 + millis);
        event.user_id = user.to_owned();
        event.r#type = event_type.to_owned();
        event
    };
    let events = vec![
        event("1", 4, 0, "u_1", "impression"),
        event("2", 4, DAY - 1, "u_2", "impression"),
        event("3", 4, 5, "u_1", "click"),
        event("4", 4, 5, "u_1", "impression"),
        event("5", 4, 6, "u_2", "impression"),
        event("6", 3, 0, "u_1", "page_view"),
        event("7", 1, 0, "u_3", "click"),
        event("8", 1, 0, "", "page_view"),
        event("before", 5, DAY - 1, "u_9", "click"),
        event("after", 0, 0, "u_9", "impression"),
    ];
    assert_eq!(service.store(events).await.counts.unwrap().accepted, 10);
}

/// A metric's total and daily values.
fn series<'a>(summary: &'a Value, name: &str) -> (&'a Value, Vec<&'a Value>) {
    let metrics = summary["metrics"].as_array().unwrap();
    let metric = metrics.iter().find(|metric| metric["name"] == name).unwrap_or_else(|| panic!("{name} of {summary}"));
    let daily = metric["daily"].as_array().unwrap();
    (&metric["total"], daily.iter().map(|day| &day["value"]).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_summary_has_every_day_and_totals_of_the_whole() {
    let service = TestService::new().await;
    store_days(&service).await;
    let (from, to) = (day(4).1, day(1).1);
    let range = format!("start_date={from}&end_date={to}");
    let ask = async |more: &str| service.get(&format!("/api/v1/metrics/summary?{range}{more}")).await;
    // Twice: the second answer comes from memory.
    for _ in 0..2 {
        let (status, summary) = ask("").await;
        assert_eq!(status, 200, "{summary}");
        assert_eq!(
            (&summary["org_id"], &summary["start_date"], &summary["end_date"]),
            (&json!("default"), &json!(from), &json!(to))
        );
        let check = |name: &str, total: Value, daily: [Value; 4]| {
            let expected: Vec<&Value> = daily.iter().collect();
            assert_eq!(series(&summary, name), (&total, expected), "{name}");
        };
        check("events", json!(8), [json!(5), json!(1), json!(0), json!(2)]);
        check("active_users", json!(3), [json!(2), json!(1), json!(0), json!(1)]);
        check("impressions", json!(4), [json!(4), json!(0), json!(0), json!(0)]);
        check("clicks", json!(2), [json!(1), json!(0), json!(0), json!(1)]);
        check("ctr", json!(0.5), [json!(0.25), json!(0.0), json!(0.0), json!(0.0)]);
        let dates: Vec<&Value> =
            summary["metrics"][0]["daily"].as_array().unwrap().iter().map(|day| &day["date"]).collect();
        let expected: Vec<Value> = (1..=4).rev().map(|ago| json!(day(ago).1)).collect();
        assert_eq!(dates, expected.iter().collect::<Vec<_>>());
    }
    let (_, summary) = ask("&metrics=events:page_view,clicks&metrics[]=events:none&metrics=clicks").await;
    let names: Vec<&Value> = summary["metrics"].as_array().unwrap().iter().map(|metric| &metric["name"]).collect();
    assert_eq!(names, ["events:page_view", "clicks", "events:none"]);
    assert_eq!(series(&summary, "events:page_view").0, &json!(2));
    assert_eq!(series(&summary, "events:none").0, &json!(0));

    let (status, dau) = service.get(&format!("/api/v1/metrics/dau?{range}")).await;
    let users: Vec<&Value> = dau["daily"].as_array().unwrap().iter().map(|day| &day["value"]).collect();
    assert_eq!((status, users), (200, vec![&json!(2), &json!(1), &json!(0), &json!(1)]));

    // From rollups only: what they say without the events.
    let before = ask("&metrics=events,active_users,ctr").await.1;
    service.sql("TRUNCATE TABLE events").await;
    service.store(vec![click("touch", day(4).0 + 7)]).await;
    let after = ask("&metrics=events,active_users,ctr").await.1;
    assert_eq!(series(&after, "events").0, &json!(9), "stored events outdate the answer: {before}");
    assert_eq!(series(&after, "active_users").0, &json!(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_were_brought_are_there_at_once() {
    let service = TestService::new().await;
    let (first, second, third) = (day(3).1, day(2).1, day(1).1);
    let put = async |metrics: Value| service.post("/api/v1/metrics", &json!({ "metrics": metrics })).await;
    let revenue = async || {
        let path = format!("/api/v1/metrics/summary?start_date={first}&end_date={third}&metrics=revenue");
        let (status, summary) = service.get(&path).await;
        (status, summary)
    };
    let (status, unknown) = revenue().await;
    assert_eq!((status, &unknown["error"]["details"][0]["field"]), (422, &json!("metrics")), "{unknown}");
    for n in 1..=5 {
        let answer = put(json!([
            {"date": first, "name": "revenue", "value": n},
            {"date": second, "name": "revenue", "value": 100},
            {"date": second, "name": "revenue", "value": -0.5},
        ]))
        .await;
        assert_eq!(answer, (200, json!({ "stored": 3 })));
        let (status, summary) = revenue().await;
        assert_eq!(status, 200, "{summary}");
        let (total, daily) = series(&summary, "revenue");
        assert_eq!(total.as_f64(), Some(f64::from(n) - 0.5));
        assert_eq!(
            daily.iter().map(|value| value.as_f64()).collect::<Vec<_>>(),
            [Some(f64::from(n)), Some(-0.5), Some(0.0)]
        );
    }
    // Known, though not in this range.
    let path = format!("/api/v1/metrics/summary?start_date={third}&end_date={third}&metrics=revenue");
    assert_eq!(service.get(&path).await.0, 200);

    let value = |date: Value, name: Value, value: Value| json!([{ "date": date, "name": name, "value": value }]);
    for (metrics, field) in [
        (json!([]), "metrics"),
        (json!(vec![json!({"date": first, "name": "x", "value": 1}); 1_001]), "metrics"),
        (json!({}), "metrics"),
        (json!([1]), "metrics[0]"),
        (value(json!("today"), json!("x"), json!(1)), "metrics[0].date"),
        (value(json!("2106-01-01"), json!("x"), json!(1)), "metrics[0].date"),
        (value(json!(first), json!("ctr"), json!(1)), "metrics[0].name"),
        (value(json!(first), json!("events:x"), json!(1)), "metrics[0].name"),
        (value(json!(first), json!("x".repeat(65)), json!(1)), "metrics[0].name"),
        (value(json!(first), json!("x"), json!("1")), "metrics[0].value"),
        (value(json!(first), json!("x"), Value::Null), "metrics[0].value"),
        (
            serde_json::from_str(&format!("[{{\"date\":\"{first}\",\"name\":\"x\",\"value\":1e400}}]")).unwrap(),
            "metrics[0].value",
        ),
    ] {
        let (status, answer) = put(metrics).await;
        assert_eq!((status, &answer["error"]["details"][0]["field"]), (422, &json!(field)), "{answer}");
    }
    assert_eq!(service.sql("SELECT count() FROM custom_metrics WHERE name != 'revenue'").await, "0", "all or none");

    for (query, field) in [
        ("start_date=2026-01-01", "end_date"),
        ("start_date=2010-01-01&end_date=2026-01-01", "end_date"),
        ("start_date=2026-01-02&end_date=2026-01-01", "start_date"),
        ("start_date=2026-01-01&end_date=2026-01-01&metrics=a%20b", "metrics"),
    ] {
        let (status, answer) = service.get(&format!("/api/v1/metrics/summary?{query}")).await;
        assert_eq!((status, &answer["error"]["details"][0]["field"]), (422, &json!(field)), "{query}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_no_event_can_lie_in_is_empty() {
    let service = TestService::new().await;
    service.store(vec![click("e", now_millis())]).await;
    for years in [("0001", "0002"), ("1900", "1901"), ("1969", "1970"), ("2200", "2201"), ("9990", "9991")] {
        let dates = format!("start_date={}-01-01&end_date={}-01-01", years.0, years.1);
        let moments = format!("from={}-01-01T00:00:00Z&to={}-01-01T00:00:00Z", years.0, years.1);
        for (path, list) in [
            (format!("/api/v1/metrics/summary?{dates}&metrics=events"), "metrics"),
            (format!("/api/v1/metrics/dau?{dates}"), "daily"),
            (format!("/api/v1/events?{dates}"), "events"),
            (format!("/api/v1/users/top?{moments}"), "users"),
            (format!("/api/v1/campaigns/top?{moments}"), "campaigns"),
            (format!("/stats?campaign_id=camp_1&granularity=day&{moments}"), "series"),
        ] {
            let (status, answer) = service.get(&path).await;
            assert_eq!(status, 200, "{path}: {answer}");
            match list {
                "metrics" => assert_eq!(answer["metrics"][0]["total"], 0, "{path}"),
                "daily" => assert!(answer[list].as_array().unwrap().iter().all(|day| day["value"] == 0), "{path}"),
                _ => assert_eq!(answer[list], json!([]), "{path}"),
            }
        }
    }
}
