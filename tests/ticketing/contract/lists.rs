//! Lists: filters and pages, compared with what an oracle says.
//!
//! A service under test may hold other events. Each test has years of its own,
//! and asks for these only.

use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::service::shared;

/// A year that nobody else has events in, very likely also of those who use the
/// service otherwise.
fn own_year() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = 2_200 + u32::try_from(uuid::Uuid::new_v4().as_u128() % 70).unwrap() * 100;
    first + NEXT.fetch_add(1, Ordering::Relaxed) % 100
}

fn encoded(params: &[(&str, String)]) -> String {
    let mut url = reqwest::Url::parse("http://a/").unwrap();
    url.query_pairs_mut().extend_pairs(params);
    url.query().unwrap_or_default().to_owned()
}

/// What full case folding makes of the letters that these tests use. (By hand:
/// an oracle must not have the same mistakes.)
fn folded(text: &str) -> String {
    let letters = text.chars().map(|char| match char {
        'A'..='Z' | 'É' | 'Ö' | 'Σ' | 'Ж' => char.to_lowercase().to_string(),
        'ß' | 'ẞ' => "ss".to_owned(),
        'ς' => "σ".to_owned(),
        'ﬁ' => "fi".to_owned(),
        'ſ' => "s".to_owned(),
        'İ' => "i\u{307}".to_owned(),
        '\u{212a}' => "k".to_owned(),
        other => other.to_string(),
    });
    letters.collect()
}

#[derive(Clone, Debug)]
struct Given {
    start_hour: u32,
    hours: u32,
    location: String,
    status: &'static str,
}

fn given() -> impl Strategy<Value = Given> {
    let location = "[aAsSßẞéÉöÖςσΣЖжİıiIſ\u{212a}k%_\\\\]{2,6}|Hauptstraße|HAUPTSTRASSE|ﬁrst";
    let status = prop::sample::select(vec!["DRAFT", "PUBLISHED", "CANCELLED"]);
    (0_u32..240, 1_u32..60, location, status).prop_map(|(start_hour, hours, location, status)| Given {
        start_hour,
        hours,
        location,
        status,
    })
}

#[derive(Clone, Debug)]
struct Asked {
    /// Days of January, both included.
    from: u32,
    to: u32,
    locations: Vec<String>,
    statuses: Vec<&'static str>,
    page: usize,
    limit: usize,
}

fn asked() -> impl Strategy<Value = Asked> {
    let part = "[aAsSßẞéÉöÖςσΣЖжİıſ\u{212a}k%_\\\\]{1,2}|STRASSE|straße|FI|ss";
    let statuses = prop::sample::subsequence(vec!["DRAFT", "PUBLISHED", "CANCELLED"], 0..=3);
    (1_u32..16, 0_u32..16, prop::collection::vec(part, 0..3), statuses, 1_usize..5, 1_usize..30).prop_map(
        |(from, days, locations, statuses, page, limit)| Asked {
            from,
            to: (from + days).min(31),
            locations,
            statuses,
            page,
            limit,
        },
    )
}

fn hour(year: u32, hour: u32) -> String {
    format!("{year}-01-{:02}T{:02}:00:00.000Z", hour / 24 + 1, hour % 24)
}

/// Whether an event is on the list, on whatever page.
fn is_listed(given: &Given, asked: &Asked, is_public: bool) -> bool {
    let (first, after_last) = ((asked.from - 1) * 24, asked.to * 24);
    let location = folded(&given.location);
    let is_status = if is_public {
        given.status != "DRAFT"
    } else {
        asked.statuses.is_empty() || asked.statuses.contains(&given.status)
    };
    let is_found = asked.locations.is_empty() || asked.locations.iter().any(|part| location.contains(&folded(part)));
    is_status && is_found && given.start_hour < after_last && given.start_hour + given.hours > first
}

fn ids(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    body["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

async fn check(client: &Client, year: u32, all: &[(String, Given)], asked: &Asked, is_public: bool) -> usize {
    let mut params = vec![
        ("dateFrom", format!("{year}-01-{:02}", asked.from)),
        ("dateTo", format!("{year}-01-{:02}", asked.to)),
        ("page", asked.page.to_string()),
        ("limit", asked.limit.to_string()),
    ];
    if !asked.locations.is_empty() {
        params.push(("locations", asked.locations.join(",")));
    }
    if !is_public && !asked.statuses.is_empty() {
        params.push(("status", asked.statuses.join(",")));
    }
    let query = encoded(&params);
    let answer = if is_public {
        client.get(&format!("/public/events?{query}")).await
    } else {
        client.admin_get(&format!("/events?{query}")).await
    };
    let listed: Vec<&String> =
        all.iter().filter(|(_, given)| is_listed(given, asked, is_public)).map(|(id, _)| id).collect();
    let expected: Vec<String> =
        listed.iter().skip((asked.page - 1) * asked.limit).take(asked.limit).map(|id| (*id).clone()).collect();
    assert_eq!(ids(&answer), expected, "{asked:?} {query}");
    let pagination = json!({
        "page": asked.page, "limit": asked.limit, "total": listed.len(),
        "totalPages": listed.len().div_ceil(asked.limit),
    });
    assert_eq!(answer.json()["pagination"], pagination, "{asked:?}");
    expected.len()
}

#[tokio::test]
async fn lists_are_what_an_oracle_says() {
    let (client, year, mut runner) = (shared(), own_year(), TestRunner::deterministic());
    let mut all = Vec::new();
    for given in prop::collection::vec(given(), 60).new_tree(&mut runner).unwrap().current() {
        let event = client
            .create(&json!({
                "startAt": hour(year, given.start_hour), "endAt": hour(year, given.start_hour + given.hours),
                "location": given.location, "status": given.status,
            }))
            .await;
        all.push((event["id"].as_str().unwrap().to_owned(), given));
    }
    all.sort_by_key(|(id, given)| (given.start_hour, id.clone()));
    let mut found = 0;
    for _ in 0..250 {
        let asked = asked().new_tree(&mut runner).unwrap().current();
        found += check(&client, year, &all, &asked, false).await;
        found += check(&client, year, &all, &asked, true).await;
    }
    assert!(found > 500, "most find something: {found}");
}

#[tokio::test]
async fn pages_show_each_event_once() {
    let (client, year) = (shared(), own_year());
    for number in 0..23 {
        // Several begin at the same time.
        let start = hour(year, number / 4);
        client.create(&json!({"startAt": start, "endAt": hour(year, 48), "status": "PUBLISHED"})).await;
    }
    let range = format!("dateFrom={year}-01-01&dateTo={year}-01-02");
    let mut listed = Vec::new();
    for page in 1..=6 {
        let answer = client.get(&format!("/public/events?{range}&limit=5&page={page}")).await;
        assert_eq!(answer.json()["pagination"], json!({"page": page, "limit": 5, "total": 23, "totalPages": 5}));
        listed.extend(ids(&answer));
    }
    let whole = client.get(&format!("/public/events?{range}&limit=100")).await;
    assert_eq!(listed, ids(&whole));
    let body = whole.json();
    let order: Vec<(&str, &str)> = body["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| (event["startAt"].as_str().unwrap(), event["id"].as_str().unwrap()))
        .collect();
    assert!(order.is_sorted() && order.len() == 23, "{order:?}");
    for page in ["7", "1000000", "9007199254740991"] {
        let beyond = client.get(&format!("/public/events?{range}&page={page}")).await;
        assert_eq!((beyond.status, &beyond.json()["events"]), (200, &json!([])), "{page}");
        assert_eq!(beyond.json()["pagination"]["total"], 23);
    }
    let default = client.get(&format!("/public/events?{range}")).await.json();
    assert_eq!(default["pagination"], json!({"page": 1, "limit": 20, "total": 23, "totalPages": 2}));
    assert_eq!(
        client.admin_get(&format!("/events?dateFrom={year}-02-01&dateTo={year}-02-01")).await.json(),
        json!({"events": [], "pagination": {"page": 1, "limit": 20, "total": 0, "totalPages": 0}})
    );
}

#[tokio::test]
async fn a_day_ends_at_midnight_of_utc() {
    let (client, year) = (shared(), own_year());
    // 00:30 to 01:00 in Berlin on the first of April, which is March in UTC.
    let event = client
        .create(&json!({
            "startAt": format!("{year}-04-01T00:30:00+02:00"), "endAt": format!("{year}-04-01T02:00:00+02:00"),
        }))
        .await;
    let check = async |from: &str, to: &str, expected: bool| {
        let answer = client.admin_get(&format!("/events?dateFrom={year}-{from}&dateTo={year}-{to}")).await;
        assert_eq!(ids(&answer).contains(&event["id"].as_str().unwrap().to_owned()), expected, "{from} {to}");
    };
    check("03-31", "03-31", true).await;
    check("03-01", "04-30", true).await;
    check("03-30", "03-30", false).await;
    check("04-01", "04-01", false).await;
}

#[tokio::test]
async fn full_case_folding_finds_and_wildcards_do_not() {
    let (client, year) = (shared(), own_year());
    let mut events = Vec::new();
    for location in ["Große Straße 5", "100% live_club", "Café Cafe\u{301}", "ΜΟΥΣΙΚΗΣ", "İstanbul", "back\\slash"]
    {
        let day = format!("{year}-06-01T10:00:00Z");
        let fields = json!({"startAt": day, "endAt": format!("{year}-06-01T11:00:00Z"), "location": location, "status": "PUBLISHED"});
        events.push((client.create(&fields).await["id"].as_str().unwrap().to_owned(), location));
    }
    let check = async |locations: &str, expected: &[&str]| {
        let params = [
            ("dateFrom", format!("{year}-06-01")),
            ("dateTo", format!("{year}-06-01")),
            ("locations", locations.to_owned()),
        ];
        let query = encoded(&params);
        for answer in
            [client.get(&format!("/public/events?{query}")).await, client.admin_get(&format!("/events?{query}")).await]
        {
            let found = ids(&answer);
            let mut found: Vec<&str> =
                events.iter().filter(|(id, _)| found.contains(id)).map(|(_, location)| *location).collect();
            let mut expected = expected.to_vec();
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "{locations}");
        }
    };
    check("STRASSE", &["Große Straße 5"]).await;
    check("GROSSE STRAẞE", &["Große Straße 5"]).await;
    check("%", &["100% live_club"]).await;
    check("_", &["100% live_club"]).await;
    check("0% L", &["100% live_club"]).await;
    check("1%b", &[]).await;
    check("\\", &["back\\slash"]).await;
    check("CAFÉ", &["Café Cafe\u{301}"]).await;
    check("μουσικησ", &["ΜΟΥΣΙΚΗΣ"]).await;
    check("Μουσικης", &["ΜΟΥΣΙΚΗΣ"]).await;
    check("İSTANBUL", &["İstanbul"]).await;
    check("nothing, STANBUL ,straße", &["İstanbul", "Große Straße 5"]).await;
    check("'; DROP TABLE events; --", &[]).await;
}

#[tokio::test]
async fn every_parameter_at_fault_is_named() {
    let client = shared();
    let check = async |query: &str, expected: &[&str]| {
        let mut answers = vec![client.admin_get(&format!("/events?{query}")).await];
        if !query.contains("status") {
            answers.push(client.get(&format!("/public/events?{query}")).await);
        }
        for answer in answers {
            assert_eq!((answer.status, answer.code().as_str()), (400, "VALIDATION_ERROR"), "{query}");
            assert_eq!(answer.fields(), expected, "{query}");
        }
    };
    for day in ["", "2030-02-29", "2030-1-1", "20300101", "2030-01-01T00:00:00Z", "tomorrow", "2030-13-01"] {
        check(&format!("dateFrom={day}"), &["dateFrom"]).await;
        check(&format!("dateTo={day}&limit=0"), &["dateTo", "limit"]).await;
    }
    check("dateFrom=2030-01-02&dateTo=2030-01-01", &["dateFrom"]).await;
    for number in ["", "0", "-1", "1.5", "x", "%2B1", "1e3", "99999999999999999999999"] {
        check(&format!("page={number}"), &["page"]).await;
        check(&format!("limit={number}"), &["limit"]).await;
    }
    check("limit=101", &["limit"]).await;
    for status in ["", "draft", "DRAFT,OTHER", "OTHER", "DRAFT;PUBLISHED"] {
        check(&format!("status={status}"), &["status"]).await;
    }
    let chosen = client.get("/public/events?status=PUBLISHED").await;
    assert_eq!((chosen.status, chosen.fields()), (400, vec!["status".to_owned()]));
    for query in ["limit=1&status=DRAFT%2CPUBLISHED", "limit=1&status=CANCELLED,DRAFT"] {
        assert_eq!(client.admin_get(&format!("/events?{query}")).await.status, 200);
    }
}

#[tokio::test]
async fn the_public_sees_no_drafts_and_nothing_private() {
    let (client, year) = (shared(), own_year());
    for status in ["DRAFT", "PUBLISHED", "CANCELLED"] {
        let fields = json!({
            "startAt": format!("{year}-06-01T10:00:00Z"), "endAt": format!("{year}-06-01T11:00:00Z"),
            "status": status, "internalNotes": "s3cr3t", "createdBy": "s3cr3t", "title": format!("{status} show"),
        });
        client.create(&fields).await;
    }
    let answer = client.get(&format!("/public/events?dateFrom={year}-06-01&dateTo={year}-06-01")).await;
    assert!(!answer.text.contains("s3cr3t") && !answer.text.contains("DRAFT"), "{answer:?}");
    let body = answer.json();
    let events = body["events"].as_array().unwrap();
    assert_eq!((events.len(), &body["pagination"]["total"]), (2, &json!(2)));
    for event in events {
        let mut names: Vec<&String> = event.as_object().unwrap().keys().collect();
        names.sort();
        assert_eq!(names, ["endAt", "id", "isUpcoming", "location", "startAt", "status", "title"]);
        let Value::Bool(true) = event["isUpcoming"] else { panic!("{event}") };
    }
}
