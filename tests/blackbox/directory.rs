//! Organizations, users, memberships.

use reqwest::Method;
use serde_json::{Value, json};
use tallyhouse::transport::proto;

use crate::daily_metrics::day;
use crate::events::{clicks, now_millis};
use crate::service::TestService;
use crate::tokens::{SECRET, Signer, channel};

/// Calls as an organization: status and body.
pub(crate) async fn call(
    service: &TestService,
    method: Method,
    path: &str,
    token: &str,
    body: Option<&Value>,
) -> (u16, Value) {
    let request = service.http.request(method, format!("{}{path}", service.url)).bearer_auth(token);
    let request = if let Some(body) = body { request.json(body) } else { request };
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

fn token(org_id: &str) -> String {
    Signer::secret(SECRET).token(org_id, "ingest read admin")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_can_be_read_at_once_and_keeps_its_beginning() {
    let service = TestService::with(&[("TALLYHOUSE_AUTH_HS256_SECRET", SECRET)]).await;
    let acme = token("acme");
    let put = async |path: &str, body: Value| call(&service, Method::PUT, path, &acme, Some(&body)).await;
    let get = async |path: &str| call(&service, Method::GET, path, &acme, None).await;

    let path = "/api/v1/organizations/acme";
    assert_eq!(get(path).await.0, 404);
    let first = put(path, json!({"name": "Acme", "plan": "pro", "unknown_event_types": "reject"})).await;
    assert_eq!(first.0, 200, "{}", first.1);
    assert_eq!(get(path).await, first);
    for n in 0..5 {
        let (status, stored) = put(path, json!({"name": format!("Acme {n}"), "plan": null})).await;
        assert_eq!((status, &stored["plan"], &stored["unknown_event_types"]), (200, &json!(""), &json!("reject")));
        assert_eq!((&stored["name"], &stored["created_at"]), (&json!(format!("Acme {n}")), &first.1["created_at"]));
        assert_eq!(get(path).await, (200, stored));
    }

    let path = "/api/v1/users/u%2F1%20%C3%A9";
    let user = json!({
        "email": "ada@acme.example", "name": "Ada", "role": "editor",
        "created_at": "2020-01-02T03:04:05+01:00", "updated_at": "2021-01-02T03:04:05.678Z",
    });
    assert_eq!(get(path).await.0, 404);
    let stored = put(path, user).await;
    let expected = json!({
        "user_id": "u/1 é", "email": "ada@acme.example", "name": "Ada", "role": "editor",
        "created_at": "2020-01-02T02:04:05Z", "updated_at": "2021-01-02T03:04:05.678Z",
    });
    assert_eq!(stored, (200, expected));
    assert_eq!(get(path).await, stored);
    let (_, replaced) = put(path, json!({"name": "Ada L."})).await;
    assert_eq!((&replaced["created_at"], &replaced["email"]), (&stored.1["created_at"], &json!("")));
    assert_ne!(replaced["updated_at"], stored.1["updated_at"]);

    for n in 0..5 {
        let path = format!("/api/v1/organizations/acme/members/u_{n}");
        let (status, stored) = put(&path, json!({"role": "owner", "joined_at": "2020-01-01T00:00:00Z"})).await;
        let expected = json!({"org_id": "acme", "user_id": format!("u_{n}"), "role": "owner", "joined_at": "2020-01-01T00:00:00Z"});
        assert_eq!((status, stored), (200, expected));
    }
    let (_, changed) = put("/api/v1/organizations/acme/members/u_3", json!({"role": "guest"})).await;
    assert_eq!(changed["joined_at"], "2020-01-01T00:00:00Z");
    let (mut members, mut cursor) = (Vec::new(), String::new());
    loop {
        let (status, page) = get(&format!("/api/v1/organizations/acme/members?limit=2&cursor={cursor}")).await;
        assert_eq!(status, 200, "{page}");
        let listed = page["members"].as_array().unwrap().iter();
        members.extend(listed.map(|member| format!("{} {}", member["user_id"], member["role"]).replace('"', "")));
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(members, ["u_0 owner", "u_1 owner", "u_2 owner", "u_3 guest", "u_4 owner"]);

    // Another organization has none of it.
    let beta = token("beta");
    for path in ["/api/v1/organizations/beta", "/api/v1/users/u%2F1%20%C3%A9"] {
        assert_eq!(call(&service, Method::GET, path, &beta, None).await.0, 404, "{path}");
    }
    let listed = call(&service, Method::GET, "/api/v1/organizations/beta/members", &beta, None).await;
    assert_eq!(listed, (200, json!({"members": [], "next_cursor": null})));

    let long = "x".repeat(400);
    for (path, body, fields) in [
        ("/api/v1/organizations/acme", json!({}), vec!["name"]),
        (
            "/api/v1/organizations/acme",
            json!({"name": 1, "plan": [], "unknown_event_types": "maybe", "created_at": "now"}),
            vec!["unknown_event_types", "name", "plan", "created_at"],
        ),
        ("/api/v1/users/u", json!({"email": long, "role": "a\nb"}), vec!["email", "role"]),
        ("/api/v1/users/u", json!({"created_at": "1800-01-01T00:00:00Z"}), vec!["created_at"]),
        // An empty text is not left out where it means nothing.
        (
            "/api/v1/organizations/acme",
            json!({"name": "A", "unknown_event_types": "", "created_at": ""}),
            vec!["unknown_event_types", "created_at"],
        ),
        ("/api/v1/users/u", json!({"created_at": "", "updated_at": ""}), vec!["created_at", "updated_at"]),
        ("/api/v1/organizations/acme/members/u", json!({"joined_at": ""}), vec!["joined_at"]),
        ("/api/v1/organizations/acme", json!({"name": " \u{a0}"}), vec!["name"]),
        ("/api/v1/users/%20", json!({"name": " "}), vec!["user_id", "name"]),
        ("/api/v1/users/a%00", json!({}), vec!["user_id"]),
        ("/api/v1/organizations/acme/members/u", json!({"joined_at": 5}), vec!["joined_at"]),
        ("/api/v1/users/u", json!([]), vec!["body"]),
        ("/api/v1/users/%FF", json!({}), vec!["path"]),
    ] {
        let (status, answer) = put(path, body).await;
        let details = answer["error"]["details"].as_array().unwrap();
        let named: Vec<&str> = details.iter().map(|detail| detail["field"].as_str().unwrap()).collect();
        assert_eq!((status, named), (422, fields), "{path}: {answer}");
    }
    let request = service.http.put(format!("{}/api/v1/users/u", service.url)).bearer_auth(&acme);
    let answer = request.header("content-type", "application/json").body("{").send().await.unwrap();
    assert_eq!(answer.status(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_top_organizations_are_those_of_the_last_days() {
    let settings = [("TALLYHOUSE_AUTH_HS256_SECRET", SECRET), ("TALLYHOUSE_OPERATOR_ORG_ID", "acme")];
    let mut service = TestService::with(&settings).await;
    let store = async |org_id: &str, count: usize, millis: i64| {
        let channel = channel(&service, &token(org_id)).await;
        let mut ingest = proto::ingest_service_client::IngestServiceClient::new(channel);
        let events = clicks(&format!("{millis}"), count, millis);
        let request =
            proto::IngestBatchRequest { events, durability: proto::Durability::Stored.into(), ..Default::default() };
        ingest.ingest_batch(request).await.unwrap();
    };
    store("acme", 5, now_millis()).await;
    store("beta", 7, now_millis()).await;
    store("ceta", 5, now_millis()).await;
    // The last moment of a day that is out, and the first of one that is in.
    store("acme", 1, day(2).0).await;
    store("acme", 100, day(2).0 - 1).await;
    let beta = json!({"name": "Beta", "plan": "free"});
    let put = call(&service, Method::PUT, "/api/v1/organizations/beta", &token("beta"), Some(&beta)).await;
    assert_eq!(put.0, 200, "{}", put.1);
    let top = async |service: &TestService, org_id: &str, query: &str| {
        call(service, Method::GET, &format!("/api/v1/organizations/top?{query}"), &token(org_id), None).await
    };
    let entry = |org_id: &str, name: &str, plan: &str, events: u64| json!({"org_id": org_id, "name": name, "plan": plan, "events": events});
    let expected = json!([entry("beta", "Beta", "free", 7), entry("acme", "", "", 6), entry("ceta", "", "", 5)]);
    let (status, answer) = top(&service, "acme", "days=3").await;
    assert_eq!((status, &answer["organizations"]), (200, &expected), "{answer}");
    assert_eq!((&answer["start_date"], &answer["end_date"]), (&json!(day(2).1), &json!(day(0).1)));
    assert_eq!(top(&service, "acme", "days=4&limit=1").await.1["organizations"], json!([entry("acme", "", "", 106)]));
    let tied = json!([entry("beta", "Beta", "free", 7), entry("acme", "", "", 5), entry("ceta", "", "", 5)]);
    assert_eq!(top(&service, "acme", "days=1").await.1["organizations"], tied, "ties by id");
    assert_eq!(top(&service, "acme", "").await.0, 200);
    for query in ["days=0", "days=3661", "days=x", "limit=0", "limit=1001"] {
        assert_eq!(top(&service, "acme", query).await.0, 422, "{query}");
    }

    // Nobody else may ask, and nobody at all where no operator is named.
    let (status, refused) = top(&service, "beta", "").await;
    assert_eq!((status, &refused["error"]["code"]), (403, &json!("PERMISSION_DENIED")));
    service.stop();
    service.set("TALLYHOUSE_OPERATOR_ORG_ID", "");
    service.start().await;
    assert_eq!(top(&service, "acme", "").await.0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_clickhouse_a_write_is_answered_503() {
    let service = TestService::with(&[("TALLYHOUSE_QUERY_WAIT_MS_MAX", "300")]).await;
    crate::service::signal(service.engine_pid(), "STOP");
    for (method, path, body) in [
        (Method::PUT, "/api/v1/organizations/default", json!({"name": "x"})),
        (Method::PUT, "/api/v1/users/u", json!({})),
        (Method::POST, "/api/v1/metrics", json!({"metrics": [{"date": "2026-01-01", "name": "x", "value": 1}]})),
    ] {
        let request = service.http.request(method, format!("{}{path}", service.url)).json(&body);
        let answer = request.send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers().contains_key("retry-after")), (503, true), "{path}");
    }
    crate::service::signal(service.engine_pid(), "CONT");
}
