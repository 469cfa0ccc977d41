//! Webhooks: failures, dead letters, replays, receivers that want no more, and addresses that may not be called.

use serde_json::{Value, json};

use super::receiver::Receiver;
use super::{create, create_webhook, event, failing, poll, send, service, service_with, status, webhook};
use crate::service::TestService;

/// The dead letters, once there are so many.
async fn letters(service: &TestService, name: &str, count: usize) -> Vec<Value> {
    let path = format!("/api/v1/subscriptions/{name}/dead-letters");
    let body = poll(service, &path, |body| body["dead_letters"].as_array().unwrap().len() == count).await;
    body["dead_letters"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_event_is_a_dead_letter_and_a_gap_until_it_is_replayed() {
    let (service, receiver) = (service().await, Receiver::start().await);
    create_webhook(&service, "orders", &receiver).await;
    send(&service, &[event("ann", 1), failing("ann", 2), failing("ann", 3), event("ann", 4), event("bob", 1)]).await;
    let ended = status(&service, "orders", |status| status["waiting"] == 0 && status["processed"] == 3).await;
    assert_eq!((&ended["failed"], &ended["dead_letters"], &ended["retries"]), (&json!(2), &json!(2), &json!(4)));
    let of_ann: Vec<(u64, u64, Vec<u64>)> = receiver
        .received()
        .into_iter()
        .filter(|received| received.user == "ann")
        .map(|received| (received.seq, received.attempt, received.gaps))
        .collect();
    let none = Vec::new;
    let expected = [
        (1, 1, none()),
        (2, 1, none()),
        (2, 2, none()),
        (2, 3, none()),
        (3, 1, vec![2]),
        (3, 2, vec![2]),
        (3, 3, vec![2]),
        (4, 1, vec![2, 3]),
    ];
    assert_eq!(of_ann, expected);

    let all = letters(&service, "orders", 2).await;
    let first = &all[0];
    assert_eq!((&first["reason"], &first["attempts"]), (&json!("handler_failed"), &json!(3)));
    assert_eq!(
        (&first["event"]["event_id"], &first["event"]["properties"]),
        (&json!("ann-2"), &json!({ "fail": true }))
    );
    assert!(first["error"].as_str().unwrap().contains("500"));
    let (_, shown) = service.get(&format!("/api/v1/subscriptions/orders/dead-letters/{}", first["number"])).await;
    assert_eq!(shown, *first);
    let (_, event_status) = service.get("/api/v1/subscriptions/orders/events/ann-2").await;
    assert_eq!((&event_status["status"], &event_status["attempts"]), (&json!("failed"), &json!(3)));
    let (_, user) = service.get("/api/v1/subscriptions/orders/users/ann").await;
    assert_eq!((&user["next_seq"], &user["gaps"], &user["gaps_total"]), (&json!(5), &json!([2, 3]), &json!(2)));

    // One by its number, the rest all at once. Replays succeed.
    let replay = "/api/v1/subscriptions/orders/dead-letters/replay";
    let one = json!({ "numbers": [all[1]["number"], 999] });
    assert_eq!(service.post(replay, &one).await, (200, json!({ "replayed": 1 })));
    status(&service, "orders", |status| status["processed"] == 4).await;
    assert_eq!(service.post(replay, &json!({ "all": true })).await, (200, json!({ "replayed": 1 })));
    status(&service, "orders", |status| status["processed"] == 5 && status["dead_letters"] == 0).await;
    let replayed: Vec<(u64, bool, u64)> = receiver
        .received()
        .into_iter()
        .filter(|received| received.is_replay)
        .map(|received| (received.seq, received.is_replay, received.attempt))
        .collect();
    assert_eq!(replayed, [(3, true, 1), (2, true, 1)]);
    let (_, user) = service.get("/api/v1/subscriptions/orders/users/ann").await;
    assert_eq!((&user["gaps"], &user["gaps_total"]), (&json!([]), &json!(0)));
    let of_event = "/api/v1/subscriptions/orders/events/ann-2";
    let replayed = poll(&service, of_event, |event| event["status"] == "processed").await;
    assert_eq!((&replayed["error"], &replayed["attempts"]), (&Value::Null, &json!(1)));

    send(&service, &[failing("cid", 1), failing("cid", 2)]).await;
    status(&service, "orders", |status| status["dead_letters"] == 2).await;
    let discard = "/api/v1/subscriptions/orders/dead-letters/discard";
    assert_eq!(service.post(discard, &json!({ "all": true })).await, (200, json!({ "discarded": 2 })));
    letters(&service, "orders", 0).await;
    for wrong in
        [json!({}), json!({ "numbers": [] }), json!({ "numbers": [1], "all": true }), json!({ "numbers": "1" })]
    {
        assert_eq!(service.post(discard, &wrong).await.0, 422, "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_answers_410_gets_no_more_until_it_is_resumed() {
    let (mut service, receiver) = (service().await, Receiver::start().await);
    create_webhook(&service, "orders", &receiver).await;
    receiver.answer(Some(410));
    send(&service, &[event("ann", 1), event("ann", 2)]).await;
    let paused = status(&service, "orders", |status| status["is_paused"] == true).await;
    assert!(paused["handler_error"].as_str().unwrap().contains("410"), "{paused}");
    assert_eq!((&paused["failed"], receiver.received().len()), (&json!(0), 1), "that is no attempt");
    assert_eq!(service.get("/api/v1/subscriptions/orders").await.1["is_paused"], true);
    service.kill();
    service.start().await;
    status(&service, "orders", |status| status["is_paused"] == true).await;
    receiver.answer(None);
    let (code, resumed) = service.post("/api/v1/subscriptions/orders/resume", &json!({})).await;
    assert_eq!((code, &resumed["is_paused"]), (200, &json!(false)));
    status(&service, "orders", |status| status["processed"] == 2).await;
    assert_eq!(receiver.handled(), ["ann-1", "ann-2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_subscription_and_a_paused_user_wait() {
    let (mut service, receiver) = (service().await, Receiver::start().await);
    create_webhook(&service, "orders", &receiver).await;
    let post = async |service: &TestService, path: &str| {
        let (code, body) = service.post(&format!("/api/v1/subscriptions/orders/{path}"), &json!({})).await;
        assert_eq!(code, 200, "{body}");
        body
    };
    assert_eq!(post(&service, "users/ann/pause").await["is_paused"], true);
    send(&service, &[event("ann", 1), event("bob", 1)]).await;
    status(&service, "orders", |status| status["processed"] == 1).await;
    assert_eq!(post(&service, "pause").await["is_paused"], true);
    send(&service, &[event("bob", 2)]).await;
    status(&service, "orders", |status| status["waiting"] == 2).await;
    service.kill();
    service.start().await;
    let waiting = status(&service, "orders", |status| status["waiting"] == 2).await;
    assert_eq!((&waiting["is_paused"], &waiting["in_flight"]), (&json!(true), &json!(0)));
    assert!(waiting["lag_ms"].as_u64().unwrap() > 0, "its age is known after a restart: {waiting}");
    post(&service, "resume").await;
    status(&service, "orders", |status| status["waiting"] == 1 && status["processed"] == 1).await;
    assert_eq!(receiver.handled(), ["bob-1", "bob-2"]);
    assert_eq!(post(&service, "users/ann/resume").await["is_paused"], false);
    status(&service, "orders", |status| status["waiting"] == 0).await;
    assert_eq!(receiver.handled(), ["bob-1", "bob-2", "ann-1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_receiver_and_a_new_secret_get_what_was_not_handled() {
    let (service, old, new) = (service().await, Receiver::start().await, Receiver::start().await);
    create_webhook(&service, "orders", &old).await;
    old.answer(Some(500));
    let change = json!({ "attempts_max": 100, "filter": { "types": ["purchase"] } });
    let patch = async |body: &Value| {
        let request = service.http.patch(format!("{}/api/v1/subscriptions/orders", service.url)).json(body);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let (code, changed) = patch(&change).await;
    assert_eq!((code, &changed["attempts_max"], &changed["backoff_ms_min"]), (200, &json!(100), &json!(5)));
    let mut other = event("ann", 2);
    other["event_type"] = json!("other");
    other["event_id"] = json!("other");
    send(&service, &[event("ann", 1), other, event("ann", 2)]).await;
    status(&service, "orders", |status| status["retries"].as_u64() > Some(2)).await;
    let secrets = ["whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"];
    new.expect_secret(secrets[1]);
    let handler = json!({ "handler": { "type": "webhook", "url": new.url, "secrets": secrets } });
    let (code, changed) = patch(&handler).await;
    assert_eq!((code, &changed["handler"]["secrets"]), (200, &json!(2)), "{changed}");
    assert!(!changed.to_string().contains("whsec_"), "secrets are not shown");
    status(&service, "orders", |status| status["waiting"] == 0).await;
    assert_eq!(new.handled(), ["ann-1", "ann-2"]);
    assert_eq!(old.handled(), Vec::<String>::new());
    for (body, field) in [
        (json!({ "name": "other" }), "name"),
        (json!({ "handler": { "type": "webhook", "url": "ftp://a.example" } }), "handler.url"),
        (json!({ "attempts_max": 0 }), "attempts_max"),
    ] {
        let (code, answer) = patch(&body).await;
        assert_eq!((code, &answer["error"]["details"][0]["field"]), (422, &json!(field)), "{answer}");
    }
    let deleted = service.http.delete(format!("{}/api/v1/subscriptions/orders", service.url)).send().await.unwrap();
    assert_eq!(deleted.status(), 204);
    assert_eq!(service.get("/api/v1/subscriptions/orders").await.0, 404);
    assert_eq!(service.get("/api/v1/subscriptions").await.1, json!({ "subscriptions": [] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_go_to_public_addresses_only_unless_others_are_allowed() {
    let service = TestService::new().await;
    for url in ["http://127.0.0.1:1/", "http://[::1]/", "http://169.254.169.254/latest/", "http://10.0.0.1/"] {
        let body = json!({ "name": "inside", "handler": { "type": "webhook", "url": url } });
        let (code, answer) = service.post("/api/v1/subscriptions", &body).await;
        assert_eq!((code, &answer["error"]["details"][0]["field"]), (422, &json!("handler.url")), "{url}: {answer}");
    }
    // A name that leads there is not called.
    let body = json!({
        "name": "by-name", "handler": { "type": "webhook", "url": "http://localhost:1/" }, "attempts_max": 1,
    });
    create(&service, &body).await;
    send(&service, &[event("ann", 1)]).await;
    status(&service, "by-name", |status| status["dead_letters"] == 1).await;
    let error = letters(&service, "by-name", 1).await[0]["error"].as_str().unwrap().to_owned();
    assert!(error.contains("no address that may be called"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_wrongly_is_named_and_bounds_are_kept() {
    let bounds =
        [("TALLYHOUSE_SUBSCRIPTIONS_PER_ORGANIZATION_MAX", "2"), ("TALLYHOUSE_SUBSCRIPTION_DEAD_LETTERS_MAX", "3")];
    let (service, receiver) = (service_with(&bounds).await, Receiver::start().await);
    let wrong = json!({
        "name": "a b", "start": "yesterday", "handler": { "type": "carrier pigeon" }, "order": "random",
        "concurrency": "many", "filter": { "types": [7] },
    });
    let (code, answer) = service.post("/api/v1/subscriptions", &wrong).await;
    let details = answer["error"]["details"].as_array().unwrap();
    let mut fields: Vec<&str> = details.iter().map(|detail| detail["field"].as_str().unwrap()).collect();
    fields.sort_unstable();
    assert_eq!(
        (code, fields),
        (422, vec!["concurrency", "filter.types", "handler.type", "order", "start"]),
        "{answer}"
    );
    let nameless = json!({ "name": "a b", "attempts_max": 101 });
    let (_, answer) = service.post("/api/v1/subscriptions", &nameless).await;
    assert_eq!(answer["error"]["details"].as_array().unwrap().len(), 3, "name, attempts_max, handler: {answer}");

    create_webhook(&service, "one", &receiver).await;
    assert_eq!(service.post("/api/v1/subscriptions", &webhook("one", &receiver)).await.0, 409, "the name is taken");
    let mut trial = json!({ "name": "two", "handler": { "type": "trial" }, "attempts_max": 1 });
    create(&service, &trial).await;
    trial["name"] = json!("three");
    assert_eq!(service.post("/api/v1/subscriptions", &trial).await.0, 409, "there are as many as there may be");

    let events: Vec<Value> = (1..=9).map(|n| failing(&format!("user{n}"), 1)).collect();
    send(&service, &events).await;
    let full = status(&service, "two", |status| status["is_paused"] == true).await;
    assert!(full["handler_error"].as_str().unwrap().contains("dead letters"), "{full}");
    let all = |status: &Value| status["dead_letters"].as_u64().unwrap() + status["waiting"].as_u64().unwrap();
    status(&service, "two", |status| all(status) == 9).await;
}
