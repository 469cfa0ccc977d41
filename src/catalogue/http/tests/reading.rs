//! Reading, depending on the time, the caller and earlier requests.

use super::*;

#[tokio::test]
async fn an_event_is_upcoming_until_it_begins_and_its_tag_says_when_that_is_over() {
    let test = TestCatalogue::new().await;
    let id = test.create(json!({"status": "PUBLISHED"})).await;
    let path = format!("/public/events/{id}");
    let (before, list) = (test.get(&path).await, test.get("/public/events").await);
    assert_eq!((&before.json()["isUpcoming"], &list.json()["events"][0]["isUpcoming"]), (&json!(true), &json!(true)));
    test.set_now("2030-05-17T19:29:59.999Z");
    assert_eq!(test.get(&path).await.text, before.text);
    test.set_now("2030-05-17T19:30:00Z");
    let after = test.get(&path).await;
    assert_eq!(after.json()["isUpcoming"], false);
    assert_eq!(test.get("/public/events").await.json()["events"][0]["isUpcoming"], false);
    assert_ne!(after.headers["etag"], before.headers["etag"]);
    let known = Request::get(&path).header("if-none-match", after.headers["etag"].clone());
    let known = test.send(known.body(Body::empty()).unwrap()).await;
    assert_eq!((known.status.as_u16(), known.text.as_str()), (304, ""));
}

#[tokio::test]
async fn a_repeated_call_is_answered_as_it_was_also_when_the_event_has_begun() {
    let test = TestCatalogue::new().await;
    let body = json!({
        "title": "Hamlet", "startAt": "2030-01-01T00:00:00Z", "endAt": "2030-01-01T22:00:00Z", "location": "Globe",
    });
    let call = |key: &str, body: &Value| {
        let request = Request::post("/events").header("authorization", format!("Bearer {TOKEN}"));
        let request = request.header("content-type", "application/json").header("idempotency-key", key);
        test.send(request.body(Body::from(body.to_string())).unwrap())
    };
    let first = call("a", &body).await;
    assert_eq!(first.status, 201);
    assert!(!first.headers.contains_key("idempotency-replayed"));
    test.set_now("2030-01-01T23:59:59.999Z");
    let id = first.json()["id"].as_str().unwrap().to_owned();
    test.admin("PATCH", &format!("/events/{id}"), &json!({"status": "PUBLISHED", "internalNotes": "x"})).await;
    let second = call("a", &body).await;
    assert_eq!((second.status, &second.text), (first.status, &first.text));
    assert_eq!(second.headers["idempotency-replayed"], "true");
    for header in ["location", "etag", "content-type"] {
        assert_eq!(second.headers[header], first.headers[header]);
    }
    assert_eq!(call("a", &json!({})).await.code(), "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(call("", &body).await.json()["error"]["details"][0]["field"], "Idempotency-Key");
    // Refusals are not kept, and after a day nothing is.
    assert_eq!(call("b", &body).await.json()["error"]["details"][0]["field"], "startAt");
    test.set_now("2030-01-02T00:00:00Z");
    assert_eq!(call("a", &body).await.json()["error"]["details"][0]["field"], "startAt");
    assert_eq!(test.admin("GET", "/events", &json!({})).await.json()["pagination"]["total"], 1);
}

#[tokio::test]
async fn administrators_are_told_by_either_kind_of_token() {
    let test = TestCatalogue::new().await;
    let id = test.create(json!({})).await;
    let routes = [
        ("GET", "/events".to_owned()),
        ("POST", "/events".to_owned()),
        ("GET", format!("/events/{id}")),
        ("PATCH", format!("/events/{id}")),
        ("GET", "/events/none".to_owned()),
        ("GET", "/notifications".to_owned()),
        ("POST", "/notifications/msg_1/retry".to_owned()),
    ];
    for (method, path) in &routes {
        let call = async |values: &[&str]| {
            let mut request = Request::builder().method(*method).uri(path);
            for value in values {
                request = request.header("authorization", *value);
            }
            test.send(request.body(Body::from("not JSON")).unwrap()).await
        };
        let good = format!("Bearer {TOKEN}");
        for values in [
            &[][..],
            &["Bearer"],
            &["Bearer "],
            &["Bearer wrong"],
            &["Basic dGhlIGFkbWluaXN0cmF0b3IncyB0b2tlbg=="],
            &[TOKEN],
            &["Bearer the administrator's token2"],
            &[&good, &good],
        ] {
            let answer = call(values).await;
            assert_eq!(
                (answer.status.as_u16(), answer.code().as_str()),
                (401, "UNAUTHORIZED"),
                "{method} {path} {values:?}"
            );
            assert!(answer.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer "));
        }
        assert_eq!(call(&["Bearer x.y.z"]).await.status, 503);
        for values in [&[&*good][..], &["bearer   the administrator's token "], &["Bearer a.b.c"]] {
            let status = call(values).await.status.as_u16();
            assert!(![401, 403, 500, 503].contains(&status), "{method} {path} {values:?}: {status}");
        }
    }
}

#[tokio::test]
async fn each_read_of_one_event_is_counted() {
    let test = TestCatalogue::new().await;
    let (public, draft) = (test.create(json!({"status": "PUBLISHED"})).await, test.create(json!({})).await);
    for path in [format!("/public/events/{public}"), format!("/public/events/{draft}"), "/public/events".to_owned()] {
        test.get(&path).await;
        test.send(Request::head(&path).body(Body::empty()).unwrap()).await;
    }
    test.get(&format!("/public/events/{public}/summary")).await;
    test.admin("GET", &format!("/events/{public}"), &json!({})).await;
    assert_eq!(*test.reads.0.lock(), HashMap::from([(ShowId::parse(&public).unwrap(), 1)]));
}

#[tokio::test]
async fn a_body_is_bounded_and_must_be_json() {
    let test = TestCatalogue::new().await;
    let id = test.create(json!({})).await;
    for (method, path) in [("POST", "/events".to_owned()), ("PATCH", format!("/events/{id}"))] {
        let call = async |content_type: &str, body: Vec<u8>| {
            let request =
                Request::builder().method(method).uri(&path).header("authorization", format!("Bearer {TOKEN}"));
            let answer = test.send(request.header("content-type", content_type).body(Body::from(body)).unwrap()).await;
            (answer.status.as_u16(), answer.code())
        };
        let expect = |status: u16, code: &str| (status, code.to_owned());
        assert_eq!(call("text/plain", b"{}".to_vec()).await, expect(415, "UNSUPPORTED_MEDIA_TYPE"));
        assert_eq!(call("application/json", vec![b' '; (256 << 10) + 1]).await, expect(413, "TOO_LARGE"));
        assert_eq!(call("application/json", vec![b' '; 256 << 10]).await, expect(400, "INVALID_JSON"));
        assert_eq!(call("application/json", b"[]".to_vec()).await, expect(400, "VALIDATION_ERROR"));
    }
}

#[tokio::test]
async fn what_is_not_there_is_said_in_the_one_body() {
    let test = TestCatalogue::new().await;
    let check = async |method: &str, path: &str, status: u16, code: &str| {
        let answer = test.admin(method, path, &json!({})).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{method} {path}");
        assert!(answer.json()["error"]["details"].is_array());
        answer
    };
    for path in
        ["/", "/event", "/events/", "/public", "/docs/none.js", "/public/events/a/b", "/events/%ff", "/events/a%2fb"]
    {
        check("GET", path, 404, "NOT_FOUND").await;
    }
    for path in ["/public/events", "/events", "/openapi.json"] {
        let answer = check("DELETE", path, 405, "METHOD_NOT_ALLOWED").await;
        assert!(answer.headers["allow"].to_str().unwrap().contains("GET"));
    }
    assert_eq!(test.get("/docs").await.headers["location"], "/docs/");
    assert!(test.get("/docs/").await.text.contains("swagger"));
    assert_eq!(test.get("/openapi.json").await.json()["servers"][0]["url"], "/");
}

#[tokio::test]
async fn a_summary_says_whether_it_was_there() {
    let test = TestCatalogue::new().await;
    let id = test.create(json!({"status": "PUBLISHED"})).await;
    let path = format!("/public/events/{id}/summary");
    let head = test.send(Request::head(&path).body(Body::empty()).unwrap()).await;
    assert_eq!((head.status.as_u16(), &head.headers["x-summary-cache"]), (200, &"MISS".parse().unwrap()));
    let (first, second) = (test.get(&path).await, test.get(&path).await);
    assert_eq!(
        (&first.headers["x-summary-cache"], &second.headers["x-summary-cache"]),
        (&"MISS".parse().unwrap(), &"HIT".parse().unwrap())
    );
    assert_eq!(first.text, second.text);
    assert_eq!(first.headers["content-type"], "text/event-stream");
    assert!(first.text.ends_with("event: done\ndata: {}\n\n"), "{}", first.text);
    let known = Request::get(&path).header("if-none-match", first.headers["etag"].clone());
    assert_eq!(test.send(known.body(Body::empty()).unwrap()).await.status, 304);
    // Another event with the same public fields has the same summary; a cancelled one another.
    let twin = test.create(json!({"status": "PUBLISHED", "internalNotes": "x"})).await;
    let twin = test.get(&format!("/public/events/{twin}/summary")).await;
    assert_eq!((&twin.headers["x-summary-cache"], &twin.text), (&"HIT".parse().unwrap(), &first.text));
    test.admin("PATCH", &format!("/events/{id}"), &json!({"status": "CANCELLED"})).await;
    let cancelled = test.get(&path).await;
    assert_eq!(cancelled.headers["x-summary-cache"], "MISS");
    assert_ne!(cancelled.headers["etag"], first.headers["etag"]);
    assert!(cancelled.text.contains("cancelled"));
}

#[tokio::test]
async fn a_change_can_be_bound_to_a_version() {
    let test = TestCatalogue::new().await;
    let id = test.create(json!({})).await;
    let path = format!("/events/{id}");
    let change = async |tag: &str, body: Value| {
        let request = Request::patch(&path).header("authorization", format!("Bearer {TOKEN}"));
        let request = request.header("content-type", "application/json").header("if-match", tag);
        test.send(request.body(Body::from(body.to_string())).unwrap()).await
    };
    let first = test.admin("GET", &path, &json!({})).await.headers["etag"].to_str().unwrap().to_owned();
    let changed = change(&first, json!({"internalNotes": "a"})).await;
    assert_eq!(changed.status, 200);
    let second = changed.headers["etag"].to_str().unwrap().to_owned();
    assert_ne!(second, first);
    for (tag, body) in
        [(&first, json!({"internalNotes": "b"})), (&first, json!({})), (&first, json!({"status": "DRAFT"}))]
    {
        let refused = change(tag, body).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (412, "PRECONDITION_FAILED"));
    }
    assert_eq!(change(&format!("W/{second}"), json!({})).await.status, 412);
    let kept = change(&second, json!({"internalNotes": "a"})).await;
    assert_eq!((kept.status.as_u16(), &kept.headers["etag"]), (200, &second.parse().unwrap()));
    assert_eq!(change("*", json!({"status": "CANCELLED"})).await.status, 200);
    let refused = test.admin("PATCH", &path, &json!({"status": "PUBLISHED"})).await;
    assert_eq!(refused.code(), "INVALID_STATUS_TRANSITION");
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("CANCELLED") && message.contains("PUBLISHED"), "{message}");
}
