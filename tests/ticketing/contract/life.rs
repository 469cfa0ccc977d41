//! From draft to public and cancelled.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Answer, send};
use crate::service::shared;

const WHOLE: [&str; 9] =
    ["createdBy", "endAt", "id", "internalNotes", "location", "startAt", "status", "title", "updatedAt"];
const PUBLIC: [&str; 7] = ["endAt", "id", "isUpcoming", "location", "startAt", "status", "title"];

fn names(value: &Value) -> Vec<String> {
    let mut names: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
    names.sort();
    names
}

fn id_of(event: &Value) -> String {
    event["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_show_goes_from_draft_to_public_and_cancelled() {
    let client = shared();
    let body = json!({
        "title": "  Hamlet  ", "startAt": "2100-05-17T21:30:00.1239+02:00", "endAt": "2100-05-17T22:00:00Z",
        "location": " Globe ", "internalNotes": " secret ", "createdBy": "ophelia@example.org",
    });
    let made = client.post(&body).await;
    assert_eq!(made.status, 201, "{made:?}");
    let event = made.json();
    let id = id_of(&event);
    assert_eq!(names(&event), WHOLE);
    assert!(made.header("location").ends_with(&format!("/events/{id}")));
    assert_eq!((&event["title"], &event["location"]), (&json!("Hamlet"), &json!("Globe")));
    assert_eq!((&event["status"], &event["internalNotes"]), (&json!("DRAFT"), &json!(" secret ")));
    assert_eq!(event["startAt"], "2100-05-17T19:30:00.123Z");
    assert!(event["updatedAt"].as_str().unwrap().ends_with('Z'));
    let path = format!("/events/{id}");
    assert_eq!(client.admin_get(&path).await.json(), event);
    assert_eq!(client.admin_get(&format!("/events/{}", id.to_uppercase())).await.json(), event);
    for path in [format!("/public/events/{id}"), format!("/public/events/{id}/summary")] {
        assert_eq!(client.get(&path).await.code(), "NOT_FOUND", "a draft is nobody's business");
    }

    let published = client.patch(&id, &json!({"status": "PUBLISHED"})).await;
    assert_eq!((published.status, &published.json()["status"]), (200, &json!("PUBLISHED")));
    let public = client.get(&format!("/public/events/{id}")).await;
    assert_eq!(
        (public.status, names(&public.json()).iter().map(String::as_str).collect::<Vec<_>>()),
        (200, PUBLIC.to_vec())
    );
    assert_eq!((&public.json()["isUpcoming"], &public.json()["startAt"]), (&json!(true), &event["startAt"]));

    let cancelled = client.patch(&id, &json!({"status": "CANCELLED", "internalNotes": null})).await.json();
    assert_eq!((&cancelled["status"], &cancelled["internalNotes"]), (&json!("CANCELLED"), &Value::Null));
    assert_eq!(cancelled["createdBy"], "ophelia@example.org");
    assert_eq!(client.get(&format!("/public/events/{id}")).await.json()["status"], "CANCELLED");
}

#[tokio::test]
async fn exactly_the_transitions_of_the_contract_are_made() {
    let client = shared();
    let allowed = [("DRAFT", "PUBLISHED"), ("DRAFT", "CANCELLED"), ("PUBLISHED", "CANCELLED")];
    for from in ["DRAFT", "PUBLISHED", "CANCELLED"] {
        for to in ["DRAFT", "PUBLISHED", "CANCELLED"] {
            let before = client.create(&json!({"status": from, "internalNotes": "a"})).await;
            let answer = client.patch(&id_of(&before), &json!({"status": to, "internalNotes": "b"})).await;
            let after = client.admin_get(&format!("/events/{}", id_of(&before))).await.json();
            if from == to || allowed.contains(&(from, to)) {
                assert_eq!((answer.status, &answer.json()), (200, &after), "{from} {to}");
                assert_eq!((&after["status"], &after["internalNotes"]), (&json!(to), &json!("b")));
            } else {
                assert_eq!((answer.status, answer.code().as_str()), (400, "INVALID_STATUS_TRANSITION"), "{from} {to}");
                let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
                assert!(message.contains(from) && message.contains(to), "{message}");
                assert_eq!(after, before, "nothing of a refused change is made");
            }
        }
    }
}

#[tokio::test]
async fn what_is_so_already_stays_as_it_is() {
    let client = shared();
    let event = client.create(&json!({"status": "PUBLISHED", "internalNotes": "a"})).await;
    let id = id_of(&event);
    let tag = client.admin_get(&format!("/events/{id}")).await.header("etag").to_owned();
    for body in [json!({}), json!({"status": "PUBLISHED"}), json!({"internalNotes": "a"})] {
        let answer = client.patch(&id, &body).await;
        assert_eq!((answer.status, answer.json(), answer.header("etag")), (200, event.clone(), tag.as_str()), "{body}");
    }
}

#[tokio::test]
async fn of_two_changes_at_once_one_wins() {
    let client = shared();
    for _ in 0..5 {
        let event = client.create(&json!({})).await;
        let (id, path) = (id_of(&event), format!("/events/{}", id_of(&event)));
        let tag = client.admin_get(&path).await.header("etag").to_owned();
        let changes = (0..10).map(|change| {
            let request = client.admin_request(Method::PATCH, &path).header("if-match", &tag);
            send(request.json(&json!({"internalNotes": change.to_string()})))
        });
        let answers: Vec<Answer> = join_all(changes).await;
        let won: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 200).collect();
        assert_eq!(won.len(), 1);
        assert!(answers.iter().all(|answer| answer.status == 200 || answer.status == 412));
        assert_eq!(client.admin_get(&path).await.json(), won[0].json());
        // Only one of these is a transition; the others find it made, or cannot make theirs.
        let both = ["PUBLISHED", "CANCELLED", "DRAFT"].map(|status| {
            let (client, id) = (&client, &id);
            async move { client.patch(id, &json!({ "status": status })).await }
        });
        for answer in join_all(both).await {
            assert!([200, 400].contains(&answer.status), "{answer:?}");
        }
        assert_eq!(client.admin_get(&path).await.json()["status"], "CANCELLED");
    }
}

#[tokio::test]
async fn what_is_no_event_is_not_found() {
    let client = shared();
    let event = client.create(&json!({})).await;
    let id = id_of(&event);
    let last = if id.ends_with('0') { "1" } else { "0" };
    let other = format!("{}{last}", &id[..35]);
    for id in [other.as_str(), "1", "none", "%00", "00000000-0000-0000-0000-000000000000", "a%2Fb", &id[..35]] {
        for answer in [
            client.admin_get(&format!("/events/{id}")).await,
            client.patch(id, &json!({"status": "PUBLISHED"})).await,
            client.get(&format!("/public/events/{id}")).await,
            client.get(&format!("/public/events/{id}/summary")).await,
        ] {
            assert_eq!((answer.status, answer.code().as_str()), (404, "NOT_FOUND"), "{id}");
        }
    }
    assert_eq!(client.get("/nothing").await.code(), "NOT_FOUND");
    let answer = send(client.request(Method::DELETE, "/public/events")).await;
    assert_eq!((answer.status, answer.code().as_str()), (405, "METHOD_NOT_ALLOWED"));
    assert!(answer.header("allow").contains("GET"));
}
