//! What is refused, and what is said of it.

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{send, with, without};
use crate::service::shared;

#[tokio::test]
async fn every_field_at_fault_is_named() {
    let client = shared();
    let check = async |body: Value, expected: &[&str]| {
        let answer = client.post(&body).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "VALIDATION_ERROR"), "{body}: {answer:?}");
        assert_eq!(answer.fields(), expected, "{body}");
    };
    check(json!({}), &["endAt", "location", "startAt", "title"]).await;
    for field in ["title", "startAt", "endAt", "location"] {
        check(without(field), &[field]).await;
        for wrong in [json!(null), json!(""), json!("  "), json!(1), json!(true), json!([]), json!({"a": 1})] {
            check(with(&json!({field: wrong})), &[field]).await;
        }
    }
    for field in ["title", "location"] {
        check(with(&json!({field: "x".repeat(201)})), &[field]).await;
        check(with(&json!({field: "🎭".repeat(201)})), &[field]).await;
    }
    for wrong in [json!("draft"), json!("OTHER"), json!(""), json!(null), json!(1)] {
        check(with(&json!({"status": wrong})), &["status"]).await;
    }
    check(with(&json!({"internalNotes": "x".repeat(10_001)})), &["internalNotes"]).await;
    check(with(&json!({"internalNotes": 1, "createdBy": []})), &["createdBy", "internalNotes"]).await;
    check(with(&json!({"createdBy": "x".repeat(321)})), &["createdBy"]).await;
    for field in ["id", "updatedAt", "isUpcoming", "Title", "start_at", "", "__proto__", "é"] {
        check(with(&json!({field: "x"})), &[field]).await;
    }
    let all =
        json!({"title": 1, "startAt": "x", "endAt": null, "status": "x", "createdBy": 1, "internalNotes": 1, "a": 1});
    check(all, &["a", "createdBy", "endAt", "internalNotes", "location", "startAt", "status", "title"]).await;
}

#[tokio::test]
async fn what_is_just_within_its_bounds_is_taken() {
    let client = shared();
    for fields in [
        json!({"title": "x", "location": "y"}),
        json!({"title": format!(" {} ", "é".repeat(200)), "location": "🎭".repeat(200)}),
        json!({"internalNotes": "ü".repeat(10_000), "createdBy": "語".repeat(320)}),
        json!({"internalNotes": "", "createdBy": null}),
        json!({"internalNotes": null}),
        json!({"title": "\"<script>alert(1)</script>'; DROP TABLE events; --\\ %_"}),
    ] {
        let event = client.create(&fields).await;
        let read = client.admin_get(&format!("/events/{}", event["id"].as_str().unwrap())).await.json();
        assert_eq!(read, event);
        for (field, value) in fields.as_object().unwrap() {
            let trims = ["title", "location"].contains(&field.as_str());
            let value = value.as_str().map_or(Value::Null, |text| json!(if trims { text.trim() } else { text }));
            assert_eq!(read[field], value);
        }
    }
}

#[tokio::test]
async fn times_are_judged_to_the_millisecond() {
    let client = shared();
    let check = async |start: &str, end: &str, expected: Result<(&str, &str), &[&str]>| {
        let answer = client.post(&with(&json!({"startAt": start, "endAt": end}))).await;
        match expected {
            Ok((start, end)) => {
                assert_eq!(answer.status, 201, "{answer:?}");
                assert_eq!((&answer.json()["startAt"], &answer.json()["endAt"]), (&json!(start), &json!(end)));
            }
            Err(fields) => assert_eq!(
                (answer.status, answer.fields()),
                (400, fields.iter().map(|field| (*field).to_owned()).collect()),
                "{start} {end}"
            ),
        }
    };
    let midnight = "2100-01-01T00:00:00.000Z";
    check("2100-01-01T00:00:00Z", "2100-01-01T00:00:00.001Z", Ok((midnight, "2100-01-01T00:00:00.001Z"))).await;
    check("2100-01-01T00:00:00Z", "2100-01-01T00:00:00Z", Err(&["endAt"])).await;
    check("2100-01-01T00:00:00.0001Z", "2100-01-01T00:00:00.0009Z", Err(&["endAt"])).await;
    check("2100-01-01T01:00:00Z", "2100-01-01T01:30:00+01:00", Err(&["endAt"])).await;
    check("2099-12-31T23:30:00-00:30", "2100-01-01T05:30:00.0019+05:30", Ok((midnight, "2100-01-01T00:00:00.001Z")))
        .await;
    check(
        "2096-02-29T00:00:00z",
        "2096-02-29t23:59:59.999999Z",
        Ok(("2096-02-29T00:00:00.000Z", "2096-02-29T23:59:59.999Z")),
    )
    .await;
    // The hour that Berlin has twice when its clocks go back, once by each offset.
    check(
        "2099-10-25T02:30:00+02:00",
        "2099-10-25T02:30:00+01:00",
        Ok(("2099-10-25T00:30:00.000Z", "2099-10-25T01:30:00.000Z")),
    )
    .await;
    check("2099-10-25T02:30:00+01:00", "2099-10-25T02:30:00+02:00", Err(&["endAt"])).await;
    check("2000-01-01T00:00:00Z", "2100-01-01T00:00:00Z", Err(&["startAt"])).await;
    check("2100-02-29T00:00:00Z", "2100-03-32T00:00:00Z", Err(&["endAt", "startAt"])).await;
    for wrong in [
        "2100-01-01",
        "2100-01-01T00:00:00",
        "2100-01-01 00:00:00Z",
        "4102444800",
        "now",
        "2100-01-01T25:00:00Z",
        "9999-12-31T23:59:59-00:01",
    ] {
        check(wrong, "9999-12-31T00:00:00Z", Err(&["startAt"])).await;
    }
}

#[tokio::test]
async fn only_status_and_notes_can_be_changed() {
    let client = shared();
    let event = client.create(&json!({})).await;
    let id = event["id"].as_str().unwrap();
    let check = async |body: Value, expected: &[&str]| {
        let answer = client.patch(id, &body).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "VALIDATION_ERROR"), "{body}");
        assert_eq!(answer.fields(), expected, "{body}");
    };
    for field in ["id", "title", "startAt", "endAt", "location", "createdBy", "updatedAt", "other"] {
        check(json!({field: event[field], "internalNotes": "changed"}), &[field]).await;
    }
    for wrong in [json!(null), json!("published"), json!(1), json!([])] {
        check(json!({"status": wrong}), &["status"]).await;
    }
    check(
        json!({"status": 1, "internalNotes": "x".repeat(10_001), "a": 1, "b": 2}),
        &["a", "b", "internalNotes", "status"],
    )
    .await;
    check(json!({"internalNotes": {}}), &["internalNotes"]).await;
    assert_eq!(client.admin_get(&format!("/events/{id}")).await.json(), event);
}

#[tokio::test]
async fn a_body_is_json_or_is_refused() {
    let client = shared();
    let event = client.create(&json!({})).await;
    let path = format!("/events/{}", event["id"].as_str().unwrap());
    for (method, path) in [(Method::POST, "/events"), (Method::PATCH, path.as_str())] {
        let call = async |content_type: Option<&str>, body: Vec<u8>| {
            let mut request = client.admin_request(method.clone(), path).body(body);
            if let Some(content_type) = content_type {
                request = request.header("content-type", content_type);
            }
            let answer = send(request).await;
            (answer.status, answer.code())
        };
        let json = Some("application/json");
        for body in ["", "{", "{]", "not JSON", "{\"title\":}", "{'title':'a'}", "{} {}", "{\"a\":1,}"] {
            assert_eq!(call(json, body.into()).await, (400, "INVALID_JSON".to_owned()), "{body}");
        }
        assert_eq!(call(json, b"{\"title\":\"\xff\"}".to_vec()).await, (400, "INVALID_JSON".to_owned()));
        for body in ["[]", "null", "1", "\"{}\"", "[{}]"] {
            assert_eq!(call(json, body.into()).await, (400, "VALIDATION_ERROR".to_owned()), "{body}");
        }
        let twice = r#"{"title":"a","title":"b","status":"DRAFT","status":"DRAFT"}"#;
        assert_eq!(call(json, twice.into()).await, (400, "VALIDATION_ERROR".to_owned()));
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(50_000), "]".repeat(50_000));
        let (status, _) = call(json, deep.into()).await;
        assert_eq!(status, 400);
        for content_type in
            [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("multipart/form-data")]
        {
            let (status, _) = call(content_type, b"{}".to_vec()).await;
            assert_eq!(status, 415, "{content_type:?}");
        }
        let (status, _) = call(json, vec![b' '; 20 << 20]).await;
        assert_eq!(status, 413);
    }
    let charset = client.admin_request(Method::PATCH, &path).header("content-type", "application/json; charset=utf-8");
    assert_eq!(send(charset.body("{}")).await.status, 200);
}
