//! Subscriptions of organizations: created over REST, gRPC and the command line, delivered by webhooks and streams.

mod copies;
mod crashes;
mod isolation;
mod past;
mod receiver;
mod streams;
mod traces;
mod webhooks;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::service::{PATIENCE, TestService};
use receiver::Receiver;

async fn service() -> TestService {
    service_with(&[]).await
}

async fn service_with(settings: &[(&str, &str)]) -> TestService {
    let local = [("TALLYHOUSE_SUBSCRIPTION_PRIVATE_ADDRESSES", "true")];
    TestService::with(&[&local, settings].concat()).await
}

/// An event of a user, for `/api/v1/events`.
fn event(user: &str, seq: u64) -> Value {
    let now = time::OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339).unwrap();
    json!({ "event_id": format!("{user}-{seq}"), "event_type": "purchase", "user_id": user, "seq": seq, "timestamp": now })
}

fn failing(user: &str, seq: u64) -> Value {
    let mut event = event(user, seq);
    event["properties"] = json!({ "fail": true });
    event
}

async fn send(service: &TestService, events: &[Value]) {
    let since = Instant::now();
    loop {
        let (status, body) = service.post("/api/v1/events", &json!({ "events": events })).await;
        // A busy machine may look up too slowly whether they are new: they are sent again, as every client does.
        if status != 503 || since.elapsed() >= PATIENCE {
            assert_eq!((status, &body["accepted"]), (202, &json!(events.len())), "{body}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A webhook to a receiver, with short waits.
fn webhook(name: &str, receiver: &Receiver) -> Value {
    json!({
        "name": name, "handler": { "type": "webhook", "url": receiver.url }, "backoff_ms_min": 5, "backoff_ms_max": 20,
    })
}

async fn create(service: &TestService, subscription: &Value) -> Value {
    let (status, created) = service.post("/api/v1/subscriptions", subscription).await;
    assert_eq!(status, 201, "{created}");
    created
}

async fn create_webhook(service: &TestService, name: &str, receiver: &Receiver) {
    let created = create(service, &webhook(name, receiver)).await;
    receiver.expect_secret(created["secret"].as_str().unwrap());
}

/// What a path answers once it is as wanted. (An event that was not read yet is not found.)
async fn poll(service: &TestService, path: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
    let since = Instant::now();
    loop {
        let (code, answer) = service.get(path).await;
        if code == 200 && is_wanted(&answer) {
            return answer;
        }
        assert!(code == 200 || code == 404, "{path}: {answer}");
        assert!(since.elapsed() < PATIENCE, "{path}: {answer}\n{}", service.stderr());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The status of a subscription once it is as wanted.
async fn status(service: &TestService, name: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
    poll(service, &format!("/api/v1/subscriptions/{name}/status"), is_wanted).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_gets_each_event_once_and_in_order_across_restarts() {
    let (mut service, receiver) = (service().await, Receiver::start().await);
    send(&service, &[event("before", 1)]).await;
    create_webhook(&service, "orders", &receiver).await;
    let shuffled = [event("ann", 2), event("bob", 1), event("ann", 1), event("ann", 4)];
    send(&service, &shuffled).await;
    let waiting = status(&service, "orders", |status| status["processed"] == 3 && status["buffered"] == 1).await;
    assert_eq!(waiting["oldest"], json!({ "event_id": "ann-4", "user_id": "ann", "seq": 4 }));
    for id in ["ann-2", "bob-1"] {
        // What is not recorded yet may come again.
        poll(&service, &format!("/api/v1/subscriptions/orders/events/{id}"), |event| event["status"] == "processed")
            .await;
    }
    for how in ["kill", "stop"] {
        if how == "kill" {
            service.kill();
        } else {
            assert_eq!(service.stop(), Some(0));
        }
        service.start().await;
        status(&service, "orders", |status| status["buffered"] == 1).await;
    }
    send(&service, &[event("ann", 3)]).await;
    status(&service, "orders", |status| status["waiting"] == 0).await;
    let mut handled = receiver.handled();
    handled.retain(|id| id.starts_with("ann"));
    assert_eq!(handled, ["ann-1", "ann-2", "ann-3", "ann-4"]);
    assert_eq!(receiver.received().len(), 5, "nothing was repeated, and nothing came from before");
    service.assert_stored(6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_and_rest_show_the_same_and_metrics_sum_up() {
    use tallyhouse::transport::proto;
    use tallyhouse::transport::proto::subscription_handler::Handler;

    let service = service().await;
    let mut client = proto::delivery_service_client::DeliveryServiceClient::new(service.channel().await);
    let handler = proto::SubscriptionHandler { handler: Some(Handler::Trial(proto::TrialHandler {})) };
    let settings = proto::SubscriptionSettings {
        filter: Some(proto::DeliveryFilter { types: vec!["purchase".to_owned()], ..Default::default() }),
        attempts_max: Some(1),
        skip_gaps_after_ms: Some(60_000),
        ..Default::default()
    };
    let request = proto::CreateSubscriptionRequest {
        name: "trial".to_owned(),
        handler: Some(handler),
        settings: Some(settings),
        ..Default::default()
    };
    let created = client.create_subscription(request).await.unwrap().into_inner().subscription.unwrap();
    let (_, shown) = service.get("/api/v1/subscriptions/trial").await;
    assert_eq!((shown["attempts_max"].as_u64(), created.attempts_max), (Some(1), 1));
    assert_eq!((shown["skip_gaps_after_ms"].as_u64(), created.skip_gaps_after_ms), (Some(60_000), 60_000));
    assert_eq!((&shown["order"], created.order()), (&json!("per_user"), proto::DeliveryOrder::PerUser));
    assert_eq!(
        (&shown["filter"]["types"], &*created.filter.unwrap().types),
        (&json!(["purchase"]), &["purchase".to_owned()][..])
    );

    send(&service, &[event("ann", 1), failing("ann", 2), event("ann", 4)]).await;
    let rest = status(&service, "trial", |status| status["dead_letters"] == 1 && status["buffered"] == 1).await;
    let request = proto::GetSubscriptionStatusRequest { name: "trial".to_owned() };
    let grpc = client.get_subscription_status(request).await.unwrap().into_inner();
    assert_eq!((grpc.processed, grpc.failed, grpc.buffered), (1, 1, 1));
    assert_eq!(rest["oldest"]["event_id"], grpc.oldest.unwrap().event_id);
    for (id, state, name) in [
        ("ann-1", proto::DeliveryState::Processed, "processed"),
        ("ann-2", proto::DeliveryState::Failed, "failed"),
        ("ann-4", proto::DeliveryState::Buffered, "buffered"),
    ] {
        let path = format!("/api/v1/subscriptions/trial/events/{id}");
        let rest = poll(&service, &path, |event| event["status"] == name).await;
        let request = proto::GetDeliveryStatusRequest { name: "trial".to_owned(), event_id: id.to_owned() };
        let grpc = client.get_delivery_status(request).await.unwrap().into_inner();
        assert_eq!(grpc.state(), state);
        assert_eq!(
            (grpc.waiting_for_seq, rest["waiting_for_seq"].as_u64()),
            if id == "ann-4" { (3, Some(3)) } else { (0, None) }
        );
        assert_eq!((grpc.attempts, grpc.error.is_empty()), (u32::from(id != "ann-4"), rest["error"].is_null()));
    }
    let request = proto::GetUserStatusRequest { name: "trial".to_owned(), user_id: "ann".to_owned() };
    let grpc = client.get_user_status(request).await.unwrap().into_inner();
    assert_eq!((grpc.next_seq, grpc.gaps, grpc.lowest_buffered_seq), (3, vec![2], 4));
    let request = proto::ListDeadLettersRequest { name: "trial".to_owned(), ..Default::default() };
    let letters = client.list_dead_letters(request).await.unwrap().into_inner();
    assert_eq!((letters.dead_letters[0].number, letters.dead_letters[0].reason.as_str()), (1, "handler_failed"));
    let request = proto::GetDeadLetterRequest { name: "trial".to_owned(), number: 1 };
    assert_eq!(
        client.get_dead_letter(request).await.unwrap().into_inner().dead_letter,
        letters.dead_letters.first().cloned()
    );

    crate::service::eventually("metrics", || async {
        let text = service.http.get(format!("{}/metrics", service.url)).send().await.unwrap().text().await.unwrap();
        [
            "tallyhouse_deliveries_events_total{result=\"processed\"",
            "tallyhouse_deliveries_events_total{result=\"failed\"",
            "tallyhouse_deliveries_dead_letters ",
            "tallyhouse_deliveries_waiting{state=\"buffered\"",
            "tallyhouse_deliveries_subscriptions{handler=\"trial\"",
        ]
        .iter()
        .all(|series| text.lines().any(|line| line.starts_with(series) && line.ends_with(" 1")))
    })
    .await;
    let request = proto::DeleteSubscriptionRequest { name: "trial".to_owned() };
    client.delete_subscription(request).await.unwrap();
    assert_eq!(service.get("/api/v1/subscriptions/trial/status").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_does_what_the_interfaces_do() {
    let service = service().await;
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tallyhouse"));
        command
            .arg("deliveries")
            .args(arguments)
            .env("TALLYHOUSE_ADDRESS", &service.url)
            .env_remove("TALLYHOUSE_TOKEN");
        let output = tokio::task::block_in_place(|| command.output().unwrap());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let good = |arguments: &[&str], expected: &str| {
        let (code, said, errors) = run(arguments);
        assert!(code == Some(0) && said.contains(expected), "{arguments:?}: {said}{errors}");
        said
    };
    good(&["list"], "deliveries create");
    good(&["create", "trial", "--trial", "--type", "purchase", "--attempts-max", "1"], "trial");
    good(&["change", "trial", "--concurrency", "3"], "concurrency");
    good(&["list"], "purchase");
    assert_eq!(service.get("/api/v1/subscriptions/trial").await.1["concurrency"], 3);
    send(&service, &[failing("ann", 1), event("ann", 2)]).await;
    status(&service, "trial", |status| status["processed"] == 1 && status["dead_letters"] == 1).await;
    good(&["status", "trial"], "dead_letters");
    good(&["event", "ann-1", "--subscription", "trial"], "failed");
    good(&["user", "trial", "ann"], "next_seq");
    good(&["dead-letters", "trial"], "ann-1");
    good(&["dead-letter", "trial", "1"], "handler_failed");
    good(&["pause", "trial", "--user", "ann"], "is_paused");
    good(&["replay", "trial", "1"], "replayed");
    assert_eq!(service.get("/api/v1/subscriptions/trial/status").await.1["waiting"], 1);
    good(&["resume", "trial", "--user", "ann"], "is_paused");
    status(&service, "trial", |status| status["dead_letters"] == 1 && status["waiting"] == 0).await;
    let said = good(&["discard", "trial", "--all", "--json"], "discarded");
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap(), json!({ "discarded": 1 }));
    good(&["pause", "trial"], "is_paused");
    let said = good(&["watch", "--limit", "2", "--every", "50ms"], "trial waiting=0 lag=- events/s=0.0 retries=0");
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(said.lines().all(|line| line.ends_with("oldest=\"-\" state=\"paused\"")), "{said}");
    let said = good(&["watch", "trial", "--limit", "1", "--json"], "dead_letters");
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["state"], "paused");
    good(&["resume", "trial"], "is_paused");
    good(&["delete", "trial"], "deleted: trial");
    let (code, _, errors) = run(&["show", "trial"]);
    assert_eq!(code, Some(2));
    assert!(errors.contains("no subscription"), "{errors}");
    let (_, _, errors) = run(&["create", "hook", "--webhook", "nonsense"]);
    assert!(errors.contains("handler.url"), "{errors}");
}

/// `script` gives the command a terminal.
#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_shows_the_states_of_all_subscriptions_as_a_table_that_is_drawn_again() {
    let service = service().await;
    for name in ["jobs", "trial"] {
        let handler = if name == "jobs" { "pull" } else { "trial" };
        create(&service, &json!({ "name": name, "handler": { "type": handler } })).await;
    }
    send(&service, &[event("ann", 1), event("ann", 3)]).await;
    status(&service, "trial", |status| status["processed"] == 1 && status["buffered"] == 1).await;
    status(&service, "jobs", |status| status["waiting"] == 2).await;
    let line = format!("{} deliveries watch --limit 2 --every 50ms", env!("CARGO_BIN_EXE_tallyhouse"));
    let mut command = std::process::Command::new("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    command.env("TALLYHOUSE_ADDRESS", &service.url).env("NO_COLOR", "1").env_remove("TALLYHOUSE_TOKEN");
    let output = tokio::task::block_in_place(|| command.output().expect("script (bsdutils)"));
    let said = String::from_utf8(output.stdout).unwrap();
    let screens: Vec<&str> = said.split("\u{1b}[H\u{1b}[2J").filter(|screen| !screen.is_empty()).collect();
    assert_eq!(screens.len(), 2, "{said:?}");
    let row = |name: &str| screens[1].lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{said}"));
    assert!(screens[1].contains("dead letters") && !screens[1].contains("pipeline"), "{said}");
    let cells: Vec<&str> = row("jobs").split_whitespace().collect();
    assert_eq!((cells[1], &cells[cells.len() - 3..]), ("2", &["ann", "#1", "active"][..]), "{said}");
    assert!(row("trial").contains("ann #3"), "{said}");
}
