//! Attacks from web pages and by requests that are not meant for this port.

use crate::service::TestService;

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_reaches_no_analyst_who_needs_no_password() {
    let service = TestService::new().await;
    let ask = async |headers: &[(&str, &str)]| {
        let request = service.http.post(&service.sql_url).query(&[("user", "analyst")]).body("SELECT 1");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let answer = request.send().await.unwrap();
        let cors = answer.headers().keys().filter(|name| name.as_str().starts_with("access-control")).count();
        assert_eq!(cors, 0, "no page of another site may read an answer");
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(ask(&[]).await, (200, "1\n".to_owned()));
    let port = service.sql_url.rsplit_once(':').unwrap().1;
    assert_eq!(ask(&[("host", &format!("localhost:{port}"))]).await.0, 200);
    for attack in [
        vec![("host", "rebound.evil.example")],
        vec![("host", "127.0.0.1.evil.example:8123")],
        vec![("host", "evil.localhost")],
        vec![("origin", "http://evil.example")],
        vec![("origin", "null")],
        vec![("origin", &*service.url)],
        vec![("sec-fetch-site", "cross-site")],
        vec![("x-forwarded-for", "192.0.2.1")],
        vec![("forwarded", "for=192.0.2.1")],
    ] {
        let (status, text) = ask(&attack).await;
        assert_eq!(status, 403, "{attack:?}: {text}");
    }
    let preflight = service.http.request(reqwest::Method::OPTIONS, &service.sql_url).send().await.unwrap();
    assert_eq!(preflight.status(), 405);
    // The engine's own port knows nobody without a password.
    for user in ["analyst", "default", "tallyhouse", "tallyhouse_reader"] {
        let request = service.http.post(&service.clickhouse_url).query(&[("user", user)]).body("SELECT 1");
        let answer = request.send().await.unwrap();
        assert!(!answer.status().is_success(), "{user}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_that_the_banner_names_runs_a_statement() {
    let service = TestService::new().await;
    let page = service.http.get(format!("{}/play?user=analyst", service.sql_url)).send().await.unwrap();
    assert_eq!(page.status(), 200);
    assert!(page.headers()["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
    let page = page.text().await.unwrap();
    assert!(page.contains("/play.js"), "{page}");
    let script = service.http.get(format!("{}/play.js", service.sql_url)).send().await.unwrap();
    assert_eq!(script.headers()["content-type"], "text/javascript; charset=utf-8");
    // What the script sends.
    let request = service.http.post(format!("{}/?default_format=JSONCompact", service.sql_url));
    let request = request.header("X-ClickHouse-User", "analyst").header("X-ClickHouse-Key", "");
    let request = request.header("Origin", &service.sql_url).header("Sec-Fetch-Site", "same-origin");
    let answer: serde_json::Value = request.body("SHOW TABLES").send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["meta"][0]["name"], "name");
    assert!(answer["data"].as_array().unwrap().contains(&serde_json::json!(["events"])), "{answer}");
}
