//! Two organizations with the same event ids: each has its own.

use std::process::Command;

use sha2::{Digest as _, Sha256};
use tallyhouse::transport::proto::audit_service_client::AuditServiceClient;
use tallyhouse::transport::proto::ingest_service_client::IngestServiceClient;
use tallyhouse::transport::proto::outcome_service_client::OutcomeServiceClient;
use tallyhouse::transport::proto::query_service_client::QueryServiceClient;
use tallyhouse::transport::proto::watch_response::Report;
use tallyhouse::transport::proto::{self, audit_response::Step};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::events::{clicks, now_millis, window};
use crate::service::{TABLES, TestService};
use crate::tokens::{SECRET, Signer, channel};

async fn service() -> TestService {
    TestService::with(&[("TALLYHOUSE_AUTH_HS256_SECRET", SECRET)]).await
}

fn token(org_id: &str) -> String {
    Signer::secret(SECRET).token(org_id, "ingest read admin")
}

/// Sends so many clicks and waits until they are in ClickHouse.
async fn store(service: &TestService, org_id: &str, count: usize, millis: i64) -> proto::VerdictCounts {
    let mut ingest = IngestServiceClient::new(channel(service, &token(org_id)).await);
    let events = clicks("same", count, millis);
    let request =
        proto::IngestBatchRequest { events, durability: proto::Durability::Stored.into(), ..Default::default() };
    ingest.ingest_batch(request).await.unwrap().into_inner().counts.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn organizations_with_the_same_ids_count_their_own() {
    let service = service().await;
    let hour = now_millis().div_euclid(3_600_000) * 3_600_000 - 3 * 3_600_000;
    let mut tail = OutcomeServiceClient::new(channel(&service, &token("beta")).await);
    let mut outcomes = tail.watch(proto::WatchRequest::default()).await.unwrap().into_inner();

    assert_eq!(store(&service, "acme", 10, hour + 60_000).await.accepted, 10);
    let beta = store(&service, "beta", 4, hour + 60_000).await;
    assert_eq!((beta.accepted, beta.duplicate, beta.conflict), (4, 0, 0));
    assert_eq!(store(&service, "acme", 10, hour + 60_000).await.duplicate, 10);
    for n in 0..4 {
        let Some(Report::Outcome(outcome)) = outcomes.message().await.unwrap().unwrap().report else {
            panic!("missed")
        };
        assert_eq!(outcome.event_id, format!("same-{n}"), "only what the own organization sent");
    }

    for (org_id, count) in [("acme", 10_u64), ("beta", 4), ("empty", 0)] {
        let mut query = QueryServiceClient::new(channel(&service, &token(org_id)).await);
        // Twice: the second answer comes from memory.
        for _ in 0..2 {
            let request = proto::GetCampaignStatsRequest {
                campaign_id: "camp_1".to_owned(),
                window: window(hour, hour + 3_600_000),
                granularity: 0,
            };
            let stats = query.get_campaign_stats(request).await.unwrap().into_inner();
            let clicks: u64 = stats.series.iter().map(|bucket| bucket.clicks).sum();
            assert_eq!(clicks, (0..count).filter(|n| n % 7 == 1).count() as u64, "{org_id}");
            let users = query.get_top_users(proto::GetTopUsersRequest { window: None, limit: 100 }).await.unwrap();
            assert_eq!(users.into_inner().users.len() as u64, count, "{org_id}");
            let campaigns = query.get_top_campaigns(proto::GetTopCampaignsRequest { window: None, limit: 100 }).await;
            let campaigns = campaigns.unwrap().into_inner().campaigns;
            assert_eq!(campaigns.iter().map(|campaign| campaign.events).sum::<u64>(), count, "{org_id}");
            let days = proto::GetDailyActiveUsersRequest { window: window(hour, hour + 1) };
            let days = query.get_daily_active_users(days).await.unwrap().into_inner().days;
            assert_eq!(days[0].users, count, "{org_id}");
        }
        let page = query.list_events(proto::ListEventsRequest::default()).await.unwrap().into_inner();
        assert_eq!(page.events.len() as u64, count, "{org_id}");
        let other = query.get_event(proto::GetEventRequest { event_id: "same-9".to_owned() }).await;
        assert_eq!(other.err().map(|status| status.code()), (count < 10).then_some(Code::NotFound), "{org_id}");

        let mut audit = AuditServiceClient::new(channel(&service, &token(org_id)).await);
        let request =
            proto::AuditRequest { window: window(hour, hour + 3_600_000), repair: false, unproven_removals_max: 0 };
        let mut steps = audit.audit(request).await.unwrap().into_inner();
        let Some(Step::Hour(audited)) = steps.message().await.unwrap().unwrap().step else { panic!("no hour") };
        assert_eq!(audited.ids, count, "{org_id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_is_of_no_use_to_another_organization() {
    let service = service().await;
    for org_id in ["acme", "beta"] {
        store(&service, org_id, 3, now_millis()).await;
    }
    let mut acme = QueryServiceClient::new(channel(&service, &token("acme")).await);
    let first = proto::ListEventsRequest { page_size: 1, ..Default::default() };
    let page_token = acme.list_events(first.clone()).await.unwrap().into_inner().next_page_token;
    let next = proto::ListEventsRequest { page_token: page_token.clone(), ..first };
    assert_eq!(acme.list_events(next.clone()).await.unwrap().into_inner().events.len(), 1);
    let mut beta = QueryServiceClient::new(channel(&service, &token("beta")).await);
    let refused = beta.list_events(next).await.unwrap_err();
    let field = refused.get_details_bad_request().unwrap().field_violations[0].field.clone();
    assert_eq!((refused.code(), &*field), (Code::InvalidArgument, "page_token"));

    for (org_id, expected) in [("acme", 200), ("beta", 422)] {
        let request = service.http.get(format!("{}/events?limit=1&cursor={page_token}", service.url));
        let answer = request.bearer_auth(token(org_id)).send().await.unwrap();
        assert_eq!(answer.status(), expected, "{org_id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_forgets_its_filter_reads_nothing_of_others() {
    let service = service().await;
    store(&service, "acme", 5, now_millis()).await;
    store(&service, "beta", 3, now_millis()).await;
    let password = std::fs::read_to_string(service.data_dir().join("clickhouse/password")).unwrap();
    let digest = Sha256::digest(format!("tallyhouse_reader:{}", password.trim()));
    let password: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let ask = async |org_id: &str, statement: &str| {
        let request =
            service.http.post(&service.clickhouse_url).query(&[("log_comment", org_id), ("database", "tallyhouse")]);
        let request = request.header("X-ClickHouse-User", "tallyhouse_reader").header("X-ClickHouse-Key", &password);
        let answer = request.body(statement.to_owned()).send().await.unwrap();
        let is_ok = answer.status().is_success();
        let text = answer.text().await.unwrap().trim().to_owned();
        if is_ok { Ok(text) } else { Err(text) }
    };
    for org_id in ["acme", "beta"] {
        for (table, columns) in [
            ("organizations", "(org_id, name)"),
            ("users", "(org_id, user_id)"),
            ("memberships", "(org_id, user_id)"),
            ("custom_metrics", "(org_id, name)"),
        ] {
            service.sql(&format!("INSERT INTO {table} {columns} VALUES ('{org_id}', 'x')")).await;
        }
    }
    let of_others = ["organizations", "users", "memberships", "custom_metrics"];
    for table in TABLES.into_iter().chain(of_others) {
        let orgs = format!("SELECT arrayStringConcat(arraySort(groupUniqArray(toString(org_id))), ',') FROM {table}");
        assert_eq!(ask("acme", &orgs).await.unwrap(), "acme", "{table}");
        assert_eq!(ask("beta", &orgs).await.unwrap(), "beta", "{table}");
        assert_eq!(ask("", &orgs).await.unwrap(), "", "{table}");
        let named = format!("SELECT count() FROM {table} WHERE org_id = 'beta'");
        assert_eq!(ask("acme", &named).await.unwrap(), "0", "{table}");
        assert_eq!(service.sql(&format!("SELECT uniqExact(org_id) FROM {table}")).await, "2", "the service sees both");
    }
    for forbidden in ["SELECT count() FROM audit_repairs", "TRUNCATE TABLE events", "SELECT * FROM system.query_log"] {
        assert!(ask("acme", forbidden).await.is_err(), "{forbidden}");
    }
    // The filter is part of what the primary key is read by.
    let plan = ask("acme", "EXPLAIN indexes = 1 SELECT count() FROM campaign_minutes WHERE events > 0").await.unwrap();
    assert!(plan.replace('\\', "").contains("Condition: (org_id in ['acme', 'acme'])"), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_show_the_token_they_are_given() {
    let service = service().await;
    store(&service, "acme", 5, now_millis()).await;
    let run = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tallyhouse"));
        command.args(arguments).env("TALLYHOUSE_ADDRESS", &service.url).env_remove("TALLYHOUSE_TOKEN");
        let output = command.envs(environment.iter().copied()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    tokio::task::block_in_place(|| {
        let make = ["token", "--org", "acme", "--scope", "read", "--for", "10m"];
        let (code, made, said) = run(&make, &[("TALLYHOUSE_AUTH_HS256_SECRET", SECRET)]);
        assert_eq!((code, &*said), (Some(0), ""));
        let (code, listed, said) = run(&["events", "--json"], &[("TALLYHOUSE_TOKEN", &made)]);
        assert_eq!((code, listed.lines().count()), (Some(0), 5), "{said}");
        let (code, _, said) = run(&["segments", "--token", &made], &[]);
        assert_eq!(code, Some(2));
        assert!(said.contains("does not have the scope 'admin'"), "{said}");
        let (code, _, said) = run(&["events"], &[]);
        assert_eq!(code, Some(2));
        assert!(said.contains("TALLYHOUSE_TOKEN"), "{said}");
    });
}
