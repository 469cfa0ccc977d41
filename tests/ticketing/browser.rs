//! The summary read by a browser's own EventSource.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Html;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{Sender, channel};

use crate::service::{PATIENCE, Service};

/// Reads a summary in a page of another origin: whole, left early, by two at
/// once, and by fetch for its headers. Sends what it saw to where it came from.
const PAGE: &str = include_str!("browser.html");

struct Browser {
    child: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// None where there is no Chromium, which is said; in continuous integration,
    /// that is a failure.
    fn open(url: &str) -> Option<Self> {
        let profile = tempfile::tempdir().unwrap();
        let spawned = Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match spawned {
            Ok(child) => Some(Self { child, _profile: profile }),
            Err(error) => {
                assert!(std::env::var("CI").as_deref() != Ok("true"), "Chromium cannot be started: {error}");
                // Past the harness, which keeps what tests print to itself.
                let _ = writeln!(
                    std::io::stderr(),
                    "left out: the test in a browser, for want of Chromium (Debian: apt-get install chromium)"
                );
                None
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Shared = (Arc<String>, Sender<Value>);

async fn page(State((page, _)): State<Shared>) -> Html<String> {
    Html(page.to_string())
}

async fn result(State((_, results)): State<Shared>, body: String) {
    let _ = results.send(serde_json::from_str(&body).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_reads_summaries_as_they_come() {
    let service = Service::start(&[("TALLYHOUSE_CORS_ORIGINS", "*"), ("TALLYHOUSE_TICKETING_SUMMARY_CHUNK_MS", "40")]);
    let client = service.client();
    let event = client.create(&json!({"title": "Größenwahn – a play", "status": "PUBLISHED"})).await;
    let other = client.create(&json!({"title": "Another", "status": "PUBLISHED"})).await;
    let draft = client.create(&json!({})).await;
    let summary = |event: &Value| client.url(&format!("/public/events/{}/summary", event["id"].as_str().unwrap()));
    let urls = json!({"first": summary(&event), "other": summary(&other), "draft": summary(&draft)});
    let (results, mut got) = channel(1);
    let html = Arc::new(PAGE.replace("URLS", &urls.to_string()));
    let router = Router::new().route("/", get(page)).route("/result", post(result)).with_state((html, results));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let Some(_browser) = Browser::open(&url) else { return };
    let seen = tokio::time::timeout(PATIENCE, got.recv()).await.expect("the browser says something").unwrap();
    serving.abort();

    assert_eq!(seen["error"], Value::Null, "{seen}");
    let texts = |name: &str| -> Vec<String> {
        seen[name].as_array().unwrap().iter().map(|chunk| chunk.as_str().unwrap().to_owned()).collect()
    };
    let chunks = texts("chunks");
    assert!(chunks.iter().all(|chunk| (2..=5).contains(&chunk.split_whitespace().count())), "{chunks:?}");
    let text = chunks.concat();
    assert!((50..=100).contains(&text.split_whitespace().count()), "{text}");
    assert!(text.contains("Größenwahn – a play") && text.contains("17 May 2100"), "{text}");
    assert_eq!(seen["done"], "{}");
    // They came one by one, and not all at the end.
    assert!(seen["spread_ms"].as_f64().unwrap() >= 40.0 * (chunks.len() - 1) as f64 * 0.5, "{seen}");
    assert_eq!(texts("again"), chunks);
    // One of two left after its first chunk.
    assert!(texts("beside").concat().contains("Another"));
    assert_eq!(seen["left_after"], 1);
    assert_eq!((&seen["cache"], &seen["known_status"]), (&json!("HIT"), &json!(304)));
    assert_eq!(seen["draft_failed"], true);
}
