//! Backups hold what subscriptions have not delivered yet, and an erased user is in no subscription.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;

use super::receiver::Receiver;
use super::{create, create_webhook, event, failing, send, service, status};
use crate::service::TestService;

fn tallyhouse(args: &[&str], data_dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallyhouse"));
    command.args(args).arg("--data-dir").arg(data_dir);
    tokio::task::block_in_place(|| command.output().unwrap())
}

fn assert_good(output: &Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

/// A subscription with an event that was delivered, a dead letter, an early event, and one of a paused user.
async fn subscription_with_all(service: &TestService, receiver: &Receiver) {
    create_webhook(service, "orders", receiver).await;
    send(service, &[event("ann", 1), failing("ann", 2), event("ann", 4), event("bob", 1)]).await;
    status(service, "orders", |status| status["processed"] == 2 && status["dead_letters"] == 1).await;
    let pause = "/api/v1/subscriptions/orders/users/cid/pause";
    assert_eq!(service.post(pause, &json!({})).await.0, 200);
    send(service, &[event("cid", 1)]).await;
    status(service, "orders", |status| status["buffered"] == 1 && status["waiting"] == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_delivers_what_was_not_delivered_and_nothing_else() {
    let (mut service, receiver) = (service().await, Receiver::start().await);
    subscription_with_all(&service, &receiver).await;
    // One that has not read what is in ClickHouse alone: the log holds it.
    create(&service, &json!({ "name": "late", "handler": { "type": "pull" } })).await;
    send(&service, &[event("dan", 1)]).await;
    service.assert_stored(6).await;
    status(&service, "orders", |status| status["processed"] == 3 && status["waiting"] == 2).await;
    let parent = tempfile::tempdir().unwrap();
    for is_running in [true, false] {
        if !is_running {
            assert_eq!(service.stop(), Some(0));
        }
        let backup = parent.path().join(format!("running-{is_running}"));
        assert_good(&tallyhouse(&["backup", backup.to_str().unwrap()], service.data_dir()));
        let left: Vec<_> = std::fs::read_dir(service.data_dir())
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("delivery-copy-"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        let before = receiver.received().len();
        let mut restored = TestService::unstarted_dev(&[("TALLYHOUSE_SUBSCRIPTION_PRIVATE_ADDRESSES", "true")]);
        assert_good(&tallyhouse(&["restore", backup.to_str().unwrap()], restored.data_dir()));
        restored.start().await;
        let there = status(&restored, "orders", |status| status["waiting"] == 2).await;
        assert_eq!((&there["dead_letters"], &there["buffered"]), (&json!(1), &json!(1)), "{there}");
        status(&restored, "late", |status| status["waiting"] == 1).await;
        assert_eq!(restored.get("/api/v1/subscriptions/orders/users/ann").await.1["gaps"], json!([2]));
        send(&restored, &[event("ann", 3)]).await;
        let resume = "/api/v1/subscriptions/orders/users/cid/resume";
        assert_eq!(restored.post(resume, &json!({})).await.0, 200);
        status(&restored, "orders", |status| status["waiting"] == 0).await;
        let mut came: Vec<String> = receiver.received().split_off(before).into_iter().map(|one| one.id).collect();
        came.sort_unstable();
        assert_eq!(came, ["ann-3", "ann-4", "cid-1"], "running: {is_running}");
    }
}

fn erase(service: &TestService, user: &str) -> Output {
    tallyhouse(&["erase", "--org", "default", user, "--confirm"], service.data_dir())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_user_is_in_no_subscription() {
    let (mut service, receiver) = (service().await, Receiver::start().await);
    subscription_with_all(&service, &receiver).await;
    create(&service, &json!({ "name": "jobs", "handler": { "type": "pull" } })).await;
    send(&service, &[event("ann", 5), failing("dan", 1), event("dan", 3)]).await;
    status(&service, "orders", |status| status["dead_letters"] == 2 && status["buffered"] == 3).await;
    let output = erase(&service, "ann");
    assert_good(&output);
    // Early events 4 and 5 and the dead letter of one subscription, and event 5 of the other.
    assert!(String::from_utf8_lossy(&output.stdout).contains("4 events that waited"), "{output:?}");
    let check = async |service: &TestService| {
        let there = status(service, "orders", |status| status["waiting"] == 2).await;
        assert_eq!((&there["dead_letters"], &there["buffered"]), (&json!(1), &json!(1)), "{there}");
        let letters = service.get("/api/v1/subscriptions/orders/dead-letters").await.1;
        assert_eq!(letters["dead_letters"][0]["event"]["user_id"], "dan");
        assert!(!letters.to_string().contains("ann"), "{letters}");
        let jobs = status(service, "jobs", |status| status["waiting"] == 2).await;
        assert_eq!(jobs["oldest"]["user_id"], "dan");
        let user = service.get("/api/v1/subscriptions/orders/users/ann").await.1;
        assert_eq!((&user["next_seq"], &user["gaps"], &user["waiting"]), (&json!(1), &json!([]), &json!(0)));
        assert_eq!(service.get("/api/v1/subscriptions/orders/events/ann-4").await.0, 404);
    };
    check(&service).await;
    service.kill();
    service.start().await;
    check(&service).await;
    // An event of the user that has not ended would be read again from the log.
    assert_eq!(service.stop(), Some(0));
    let refused = erase(&service, "dan");
    assert!(!refused.status.success(), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("start the service"), "{refused:?}");
    service.start().await;
    status(&service, "jobs", |status| status["in_flight"] == 1 && status["waiting"] == 2).await;
    assert_good(&erase(&service, "dan"));
    let there = status(&service, "orders", |status| status["waiting"] == 1).await;
    assert_eq!((&there["dead_letters"], &there["buffered"]), (&json!(0), &json!(0)), "{there}");
    status(&service, "jobs", |status| status["waiting"] == 0).await;
}
