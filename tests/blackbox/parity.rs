//! The same questions over REST and gRPC have the same answers.

use reqwest::Method;
use serde_json::{Value, json};
use tallyhouse::transport::proto;
use tonic::Code;

use crate::analytics::rfc3339;
use crate::daily_metrics::{day, store_days};
use crate::directory::call;
use crate::events::{now_millis, timestamp, window};
use crate::service::TestService;

fn millis(time: Option<&prost_types::Timestamp>) -> i64 {
    let time = time.expect("a time");
    time.seconds * 1_000 + i64::from(time.nanos) / 1_000_000
}

/// What REST says of an event that gRPC shows.
fn as_json(stored: &proto::StoredEvent) -> Value {
    let event = stored.event.as_ref().expect("an event");
    let given = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
    let properties = if event.properties.is_empty() { "{}" } else { &event.properties };
    json!({
        "event_id": event.event_id, "event_type": event.r#type, "user_id": given(&event.user_id),
        "source": given(&event.source), "campaign_id": given(&event.campaign_id),
        "creative_id": given(&event.creative_id), "seq": event.seq,
        "properties": serde_json::from_str::<Value>(properties).unwrap(),
        "timestamp": short(millis(event.occurred_at.as_ref())), "schema_version": stored.schema_version,
    })
}

fn short(millis: i64) -> String {
    rfc3339(millis).replace(".000Z", "Z")
}

/// Without what gRPC shows to other digits.
fn comparable(event: &Value) -> Value {
    let mut event = event.clone();
    event.as_object_mut().unwrap().remove("received_at").expect("it is there");
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_the_same_both_ways() {
    let service = TestService::new().await;
    store_days(&service).await;
    let mut query = service.query().await;
    let (mut by_rest, mut by_grpc): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    let (from, to) = (day(4), day(1));
    let mut token = String::new();
    loop {
        let range = format!("start_date={}&end_date={}", from.1, to.1);
        let (status, page) = service
            .get(&format!("/api/v1/events?{range}&event_type=impression&event_type=click&limit=2&cursor={token}"))
            .await;
        assert_eq!(status, 200, "{page}");
        by_rest.extend(page["events"].as_array().unwrap().iter().map(comparable));
        let request = proto::ListEventsRequest {
            window: window(from.0, day(0).0),
            types: vec!["impression".to_owned(), "click".to_owned()],
            page_size: 2,
            page_token: token,
            ..Default::default()
        };
        let same = query.list_events(request).await.unwrap().into_inner();
        by_grpc.extend(same.events.iter().map(as_json));
        // A cursor of one is good for the other, too.
        assert_eq!(page["next_cursor"].as_str().unwrap_or_default(), same.next_page_token);
        token = same.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!((by_rest.len(), &by_rest), (6, &by_grpc));
    let one = query.get_event(proto::GetEventRequest { event_id: "3".to_owned() }).await.unwrap().into_inner();
    assert_eq!(comparable(&service.get("/api/v1/events/3").await.1), as_json(&one.event.unwrap()));
    let none = query.get_event(proto::GetEventRequest { event_id: "none".to_owned() }).await.unwrap_err();
    assert_eq!((none.code(), service.get("/api/v1/events/none").await.0), (Code::NotFound, 404));
    let altered = proto::ListEventsRequest { page_token: "AAAA".to_owned(), ..Default::default() };
    assert_eq!(query.list_events(altered).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_are_the_same_both_ways() {
    let service = TestService::new().await;
    store_days(&service).await;
    let (mut query, channel) = (service.query().await, service.channel().await);
    let mut metrics = proto::metrics_service_client::MetricsServiceClient::new(channel);
    let (from, to) = (day(4), day(1));
    let whole = window(from.0, day(0).0);

    // Each brings values that both show.
    let brought = json!({"metrics": [{"date": from.1, "name": "by_rest", "value": 1.25}]});
    assert_eq!(service.post("/api/v1/metrics", &brought).await, (200, json!({"stored": 1})));
    let value = proto::MetricValue { date: to.1.clone(), name: "by_grpc".to_owned(), value: -2.5 };
    let stored = metrics.put_metrics(proto::PutMetricsRequest { metrics: vec![value.clone()] }).await.unwrap();
    assert_eq!(stored.into_inner().stored, 1);
    let wrong = proto::MetricValue { value: f64::NAN, ..value };
    let refused = metrics.put_metrics(proto::PutMetricsRequest { metrics: vec![wrong] }).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(
        metrics.put_metrics(proto::PutMetricsRequest::default()).await.unwrap_err().code(),
        Code::InvalidArgument
    );

    let names = ["events", "active_users", "impressions", "clicks", "ctr", "events:page_view", "by_rest", "by_grpc"];
    let range = format!("start_date={}&end_date={}", from.1, to.1);
    let (status, summary) = service.get(&format!("/api/v1/metrics/summary?{range}&metrics={}", names.join(","))).await;
    assert_eq!(status, 200, "{summary}");
    let request = proto::GetSummaryRequest { window: whole, metrics: names.map(str::to_owned).to_vec() };
    let same = metrics.get_summary(request).await.unwrap().into_inner();
    let shown = summary["metrics"].as_array().unwrap();
    assert_eq!((shown.len(), same.metrics.len()), (names.len(), names.len()));
    for (metric, series) in shown.iter().zip(&same.metrics) {
        assert_eq!((&metric["name"], metric["total"].as_f64()), (&json!(series.name), Some(series.total)), "{metric}");
        let daily: Vec<(&str, Option<f64>)> = metric["daily"]
            .as_array()
            .unwrap()
            .iter()
            .map(|day| (day["date"].as_str().unwrap(), day["value"].as_f64()))
            .collect();
        let expected: Vec<_> = series.daily.iter().map(|day| (day.date.as_str(), Some(day.value))).collect();
        assert_eq!((daily.len(), daily), (4, expected), "{metric}");
    }
    let unknown = proto::GetSummaryRequest { window: whole, metrics: vec!["nothing".to_owned()] };
    assert_eq!(metrics.get_summary(unknown).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(service.get(&format!("/api/v1/metrics/summary?{range}&metrics=nothing")).await.0, 422);

    let (_, dau) = service.get(&format!("/api/v1/metrics/dau?{range}")).await;
    let same = query.get_daily_active_users(proto::GetDailyActiveUsersRequest { window: whole }).await.unwrap();
    let same: Vec<Value> =
        same.into_inner().days.iter().map(|day| json!({"date": day.date, "value": day.users})).collect();
    assert_eq!(dau["daily"], json!(same));

    let moments = format!("from={}&to={}", rfc3339(from.0), rfc3339(day(0).0));
    let (_, users) = service.get(&format!("/api/v1/users/top?{moments}&limit=2")).await;
    let same = query.get_top_users(proto::GetTopUsersRequest { window: whole, limit: 2 }).await.unwrap().into_inner();
    let same: Vec<Value> =
        same.users.iter().map(|user| json!({"user_id": user.user_id, "events": user.events})).collect();
    assert_eq!((same.len(), &users["users"]), (2, &json!(same)));
    let (_, campaigns) = service.get(&format!("/api/v1/campaigns/top?{moments}")).await;
    let same = query.get_top_campaigns(proto::GetTopCampaignsRequest { window: whole, limit: 0 }).await.unwrap();
    let count = |top: &proto::CampaignCount| {
        json!({
            "campaign_id": top.campaign_id, "events": top.events, "impressions": top.impressions, "clicks": top.clicks,
        })
    };
    let same: Vec<Value> = same.into_inner().campaigns.iter().map(count).collect();
    assert_eq!((same.len(), &campaigns["campaigns"]), (1, &json!(same)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_is_the_same_both_ways() {
    let service = TestService::new().await;
    store_days(&service).await;
    let mut client = proto::organization_service_client::OrganizationServiceClient::new(service.channel().await);
    let time = |text: &Value| {
        let format = &time::format_description::well_known::Rfc3339;
        let at = time::OffsetDateTime::parse(text.as_str().unwrap(), format).unwrap();
        Some(timestamp(i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap()))
    };
    let put = async |path: &str, body: Value| {
        let (status, stored) = call(&service, Method::PUT, path, "", Some(&body)).await;
        assert_eq!(status, 200, "{path}: {stored}");
        stored
    };

    let stored = put("/api/v1/organizations/default", json!({"name": "One", "plan": "pro"})).await;
    let got = client.get_organization(proto::GetOrganizationRequest::default()).await.unwrap().into_inner();
    let got = got.organization.unwrap();
    let expected = proto::Organization {
        org_id: "default".to_owned(),
        name: "One".to_owned(),
        plan: "pro".to_owned(),
        unknown_event_types: proto::UnknownEventTypes::Accept.into(),
        created_at: time(&stored["created_at"]),
        updated_at: time(&stored["updated_at"]),
    };
    assert_eq!(got, expected);
    let sent = proto::Organization {
        name: "Two".to_owned(),
        unknown_event_types: proto::UnknownEventTypes::Reject.into(),
        created_at: None,
        ..expected.clone()
    };
    let request = proto::PutOrganizationRequest { organization: Some(sent) };
    let replaced = client.put_organization(request).await.unwrap().into_inner().organization.unwrap();
    assert_eq!((replaced.created_at, replaced.plan.as_str()), (expected.created_at, "pro"));
    let (_, shown) = service.get("/api/v1/organizations/default").await;
    assert_eq!((&shown["name"], &shown["unknown_event_types"]), (&json!("Two"), &json!("reject")));
    assert_eq!((time(&shown["created_at"]), time(&shown["updated_at"])), (replaced.created_at, replaced.updated_at));

    let user = json!({"email": "a@b.example", "name": "Ada", "role": "x", "created_at": "2020-01-01T00:00:00Z"});
    let stored = put("/api/v1/users/u_1", user).await;
    let got = client.get_user(proto::GetUserRequest { user_id: "u_1".to_owned() }).await.unwrap().into_inner();
    let got = got.user.unwrap();
    let shown = json!({"user_id": got.user_id, "email": got.email, "name": got.name, "role": got.role,
        "created_at": stored["created_at"], "updated_at": stored["updated_at"]});
    assert_eq!(shown, stored);
    assert_eq!((got.created_at, got.updated_at), (time(&stored["created_at"]), time(&stored["updated_at"])));
    let sent = proto::User { user_id: "u_2".to_owned(), name: "Bea".to_owned(), ..got };
    client.put_user(proto::PutUserRequest { user: Some(sent) }).await.unwrap();
    assert_eq!(service.get("/api/v1/users/u_2").await.1["name"], "Bea");

    put("/api/v1/organizations/default/members/u_1", json!({"role": "owner"})).await;
    let joined_at = Some(timestamp(now_millis()));
    let member = proto::Member { user_id: "u_2".to_owned(), role: "guest".to_owned(), joined_at };
    client.put_member(proto::PutMemberRequest { org_id: String::new(), member: Some(member) }).await.unwrap();
    let mut token = String::new();
    for is_last in [false, true] {
        let path = format!("/api/v1/organizations/default/members?limit=1&cursor={token}");
        let (_, page) = service.get(&path).await;
        let request = proto::ListMembersRequest { org_id: String::new(), page_size: 1, page_token: token };
        let same = client.list_members(request).await.unwrap().into_inner();
        let (shown, member) = (&page["members"][0], &same.members[0]);
        assert_eq!((&shown["user_id"], &shown["role"]), (&json!(member.user_id), &json!(member.role)));
        assert_eq!(time(&shown["joined_at"]), member.joined_at);
        assert_eq!(page["next_cursor"].as_str().unwrap_or_default(), same.next_page_token);
        token = same.next_page_token;
        assert_eq!(token.is_empty(), is_last);
    }

    let (_, top) = service.get("/api/v1/organizations/top?days=10").await;
    let request = proto::GetTopOrganizationsRequest { days: 10, limit: 0 };
    let same = client.get_top_organizations(request).await.unwrap().into_inner();
    let count = |top: &proto::OrganizationCount| json!({"org_id": top.org_id, "name": top.name, "plan": top.plan, "events": top.events});
    let same: Vec<Value> = same.organizations.iter().map(count).collect();
    assert_eq!((&top["organizations"], same.len()), (&json!(same), 1));
    assert_eq!(same[0], json!({"org_id": "default", "name": "Two", "plan": "pro", "events": 10}));

    let none = client.get_user(proto::GetUserRequest { user_id: "none".to_owned() }).await.unwrap_err();
    assert_eq!((none.code(), service.get("/api/v1/users/none").await.0), (Code::NotFound, 404));
    let unnamed = proto::PutUserRequest { user: Some(proto::User::default()) };
    assert_eq!(client.put_user(unnamed).await.unwrap_err().code(), Code::InvalidArgument);
    let nothing = proto::PutOrganizationRequest::default();
    assert_eq!(client.put_organization(nothing).await.unwrap_err().code(), Code::InvalidArgument);
}
