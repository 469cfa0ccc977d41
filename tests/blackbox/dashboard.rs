//! What people see in a browser: the dashboard's files or the front page, and
//! analysts' SQL for the dashboard.

use std::path::Path;

use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

use crate::events::{clicks, now_millis};
use crate::service::TestService;

const SECRET: &str = "a secret for tests that has 32 bytes";

/// A directory as `next build` exports it, with a file beside it.
fn website() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let files = [
        ("out/index.html", "<script>self.first = 1</script><p>first</p>"),
        ("out/index.txt", "first"),
        ("out/dashboard/index.html", "<p>dashboard</p>"),
        ("out/_next/static/chunks/a.js", "let a = 1;"),
        ("out/_next/static/chunks/a.js.gz", "compressed"),
        ("secret.html", "secret"),
    ];
    for (path, content) in files {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    dir
}

fn out(dir: &tempfile::TempDir) -> String {
    dir.path().join("out").to_str().unwrap().to_owned()
}

/// A client that follows nothing and decompresses nothing.
fn client() -> reqwest::Client {
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_has_a_content_policy_and_caching() {
    let dir = website();
    let service = TestService::with(&[("TALLYHOUSE_DASHBOARD_DIR", &out(&dir))]).await;
    let get = async |path: &str| client().get(format!("{}{path}", service.url)).send().await.unwrap();

    let page = get("/").await;
    assert_eq!((page.status().as_u16(), header(&page, "content-type")), (200, "text/html; charset=utf-8"));
    let policy = header(&page, "content-security-policy").to_owned();
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self' 'sha256-"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!((header(&page, "cache-control"), header(&page, "x-content-type-options")), ("no-cache", "nosniff"));
    let etag = header(&page, "etag").to_owned();
    assert!(page.text().await.unwrap().contains("first"));
    let unchanged = client().get(&service.url).header("if-none-match", &etag).send().await.unwrap();
    assert_eq!((unchanged.status().as_u16(), header(&unchanged, "etag")), (304, &*etag));

    let moved = get("/dashboard").await;
    assert_eq!((moved.status().as_u16(), header(&moved, "location")), (308, "/dashboard/"));
    assert_eq!(get("/dashboard/").await.text().await.unwrap(), "<p>dashboard</p>");

    let script = get("/_next/static/chunks/a.js").await;
    assert_eq!(header(&script, "cache-control"), "public, max-age=31536000, immutable");
    assert_eq!(header(&script, "content-encoding"), "");
    assert_eq!(script.text().await.unwrap(), "let a = 1;");
    let url = format!("{}/_next/static/chunks/a.js", service.url);
    let zipped = client().get(&url).header("accept-encoding", "br, gzip").send().await.unwrap();
    assert_eq!((header(&zipped, "content-encoding"), header(&zipped, "vary")), ("gzip", "accept-encoding"));
    assert_eq!(zipped.text().await.unwrap(), "compressed");
    let head = client().head(&url).send().await.unwrap();
    assert_eq!((head.status().as_u16(), header(&head, "content-length")), (200, "10"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_leads_out_of_the_dashboards_directory() {
    let dir = website();
    std::os::unix::fs::symlink(dir.path().join("secret.html"), dir.path().join("out/_next/link.html")).unwrap();
    let service = TestService::with(&[("TALLYHOUSE_DASHBOARD_DIR", &out(&dir))]).await;
    for path in [
        "/_next/../../secret.html",
        "/_next/..%2f..%2fsecret.html",
        "/_next/%2e%2e/%2e%2e/secret.html",
        "/dashboard/..\\..\\secret.html",
        "/_next//etc/passwd",
        "/_next/static/chunks/a.js.gz",
        "/_next/static",
        "/_next/link.html",
        "/sql/",
        "/secret.html",
    ] {
        let answer = raw_get(&service.url, path).await;
        assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("NOT_FOUND"), "{path}: {answer}");
        assert!(!answer.contains("secret\r\n") && !answer.ends_with("secret"), "{path}: {answer}");
    }
    // The other routes are as they were.
    assert_eq!(service.get("/events/unknown").await.0, 404);
    let posted = client().post(format!("{}/dashboard/", service.url)).send().await.unwrap();
    assert_eq!((posted.status().as_u16(), header(&posted, "allow")), (405, "GET,HEAD"));
}

/// An answer to a path that no client would send as it is.
async fn raw_get(url: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let address = url.trim_start_matches("http://");
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_dashboard_a_page_says_what_this_is() {
    let service = TestService::with(&[("TALLYHOUSE_DASHBOARD_DIR", "none")]).await;
    let page = client().get(&service.url).send().await.unwrap();
    assert_eq!((page.status().as_u16(), header(&page, "content-type")), (200, "text/html; charset=utf-8"));
    assert!(header(&page, "content-security-policy").contains("script-src 'self'; style-src 'self' 'sha256-"));
    let text = page.text().await.unwrap();
    let address = service.url.trim_start_matches("http://");
    for part in ["href=\"/docs/\"", "href=\"/readyz\"", "README.md", address] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // A host that is no address is not shown.
    let port = address.rsplit(':').next().unwrap();
    let answer = client().get(&service.url).header("host", format!("localhost:{port}")).send().await.unwrap();
    assert!(answer.text().await.unwrap().contains(&format!("localhost:{port}/api/v1/events")));
    assert_eq!(client().get(format!("{}/dashboard/", service.url)).send().await.unwrap().status(), 404);
}

#[test]
fn a_directory_without_a_dashboard_is_refused_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let started = std::process::Command::new(env!("CARGO_BIN_EXE_tallyhouse"))
        .args(["dev", "--listen", "127.0.0.1:0", "--clickhouse-http-port", "0", "--data-dir"])
        .arg(dir.path().join("data"))
        .env("TALLYHOUSE_DASHBOARD_DIR", Path::new("/nowhere"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&started.stderr);
    assert!(!started.status.success() && text.contains("dashboard_dir"), "{text}");
}

/// A statement to the main port, as the dashboard sends it.
fn statement(service: &TestService, user: &str, password: &str, text: &str) -> RequestBuilder {
    let request = client().post(format!("{}/api/v1/sql?default_format=JSONCompact&param_n=2", service.url));
    request.header("x-clickhouse-user", user).header("x-clickhouse-key", password).body(text.to_owned())
}

async fn code(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap();
    (status, body["error"]["code"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_services_own_pages_run_statements() {
    let service = TestService::with(&[("TALLYHOUSE_CORS_ORIGINS", "https://app.example")]).await;
    service.store(clicks("event", 30, now_millis())).await;
    let counts = "SELECT count() AS events, {n:UInt8} AS n FROM events";
    let own = statement(&service, "analyst", "", counts).header("origin", &service.url);
    let answer = own.header("sec-fetch-site", "same-origin").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), header(&answer, "cache-control")), (200, "no-store"));
    assert_eq!(answer.json::<Value>().await.unwrap()["data"], json!([[30, 2]]));

    let foreign = json!("PERMISSION_DENIED");
    for (origin, site) in [
        ("https://attacker.example", "cross-site"),
        ("http://localhost:3000", "same-site"),
        ("null", "cross-site"),
        // It may call the rest of the service.
        ("https://app.example", "cross-site"),
    ] {
        let request =
            statement(&service, "analyst", "", counts).header("origin", origin).header("sec-fetch-site", site);
        assert_eq!(code(request).await, (403, foreign.clone()), "{origin}");
    }
    let rebound = statement(&service, "analyst", "", counts).header("host", "attacker.example");
    assert_eq!(code(rebound).await, (403, foreign));
    let through_a_proxy = statement(&service, "analyst", "", counts).header("x-forwarded-for", "192.0.2.1");
    assert_eq!(code(through_a_proxy).await, (401, json!("UNAUTHENTICATED")));
    for wrong in ["SELECT * FROM nowhere", "DROP TABLE events", "SELECT 1 SETTINGS max_rows_to_read = 1", ""] {
        let (status, code) = code(statement(&service, "analyst", "", wrong)).await;
        assert_eq!((status, code), (422, json!("VALIDATION_ERROR")), "{wrong}");
    }
    let large = " ".repeat(300 << 10);
    assert_eq!(code(statement(&service, "analyst", "", &large)).await.0, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_need_the_analysts_password() {
    let service = TestService::with(&[
        ("TALLYHOUSE_AUTH_HS256_SECRET", SECRET),
        ("TALLYHOUSE_ANALYST_ORGS", "acme"),
        ("TALLYHOUSE_ANALYST_SECRET", "another secret that has 32 bytes or more"),
    ])
    .await;
    let password = |org: &[&str]| {
        let printed = std::process::Command::new(env!("CARGO_BIN_EXE_tallyhouse"))
            .arg("analyst")
            .args(org)
            .env("TALLYHOUSE_AUTH_HS256_SECRET", SECRET)
            .env("TALLYHOUSE_ANALYST_ORGS", "acme")
            .env("TALLYHOUSE_ANALYST_SECRET", "another secret that has 32 bytes or more")
            .output()
            .unwrap();
        let text = String::from_utf8(printed.stdout).unwrap();
        text.lines().find_map(|line| line.strip_prefix("password  ")).unwrap().to_owned()
    };
    let (of_all, of_acme) = (password(&[]), password(&["acme"]));
    let refused = (401, json!("UNAUTHENTICATED"));
    for (user, password) in
        [("analyst", ""), ("analyst", "wrong"), ("analyst", &*of_acme), ("analyst_acme", &*of_all), ("nobody", "x")]
    {
        assert_eq!(code(statement(&service, user, password, "SELECT 1")).await, refused, "{user}");
    }
    // No token is good for it.
    let with_token = client().post(format!("{}/api/v1/sql", service.url)).bearer_auth("a.b.c").body("SELECT 1");
    assert_eq!(code(with_token).await, refused);
    for (user, password) in [("analyst", of_all), ("analyst_acme", of_acme)] {
        let answer = statement(&service, user, &password, "SELECT count() FROM events").send().await.unwrap();
        assert_eq!(answer.json::<Value>().await.unwrap()["data"], json!([[0]]), "{user}");
    }
}
