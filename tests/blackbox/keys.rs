//! Keys are replaced without a restart.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::service::{TestService, eventually};
use crate::tokens::{Signer, key_set};

async fn status(service: &TestService, token: &str) -> u16 {
    let request = service.http.get(format!("{}/users/top", service.url)).bearer_auth(token);
    request.send().await.unwrap().status().as_u16()
}

fn replace(path: &Path, text: &str) {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, text).unwrap();
    std::fs::rename(partial, path).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_of_keys_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.json");
    let (old, new) = (Signer::ed("old"), Signer::rsa("new"));
    replace(&path, &key_set(&[&old]));
    let service = TestService::with(&[("TALLYHOUSE_AUTH_JWKS_FILE", path.to_str().unwrap())]).await;
    let (by_old, by_new) = (old.token("acme", "read"), new.token("acme", "read"));
    assert_eq!((status(&service, &by_old).await, status(&service, &by_new).await), (200, 401));
    replace(&path, &key_set(&[&old, &new]));
    eventually("the new key", || async { status(&service, &by_new).await == 200 }).await;
    assert_eq!(status(&service, &by_old).await, 200);
    // What cannot be read changes nothing.
    replace(&path, "{\"keys\":");
    eventually("a complaint", || async { service.stderr().contains("could not read the keys") }).await;
    assert_eq!((status(&service, &by_old).await, status(&service, &by_new).await), (200, 200));
    replace(&path, &key_set(&[&new]));
    eventually("no old key", || async { status(&service, &by_old).await == 401 }).await;
    assert_eq!(status(&service, &by_new).await, 200);

    // A token of the command line, by a private key.
    let pem = dir.path().join("key.pem");
    std::fs::write(&pem, &new.pem).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallyhouse"));
    command.args(["token", "--org", "acme", "--scope", "read", "--alg", "RS256", "--kid", "new", "--key"]).arg(&pem);
    let made = tokio::task::block_in_place(|| command.output()).unwrap();
    assert_eq!(status(&service, String::from_utf8(made.stdout).unwrap().trim()).await, 200);
}

/// Serves a set of keys on this machine, and counts how often.
struct KeyServer {
    url: String,
    set: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
}

impl KeyServer {
    async fn start(set: String) -> (Self, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            url: format!("http://{}/keys", listener.local_addr().unwrap()),
            set: Arc::new(Mutex::new(set)),
            asked: Arc::default(),
        };
        let (set, asked) = (Arc::clone(&server.set), Arc::clone(&server.asked));
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                asked.fetch_add(1, Ordering::SeqCst);
                let mut request = [0; 4_096];
                let _ = stream.read(&mut request).await;
                let body = set.lock().clone();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
            }
        });
        (server, serving)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_is_fetched_but_not_for_every_request() {
    let (old, new) = (Signer::ec("old"), Signer::ed("new"));
    let (server, serving) = KeyServer::start(key_set(&[&old])).await;
    let service = TestService::with(&[
        ("TALLYHOUSE_AUTH_JWKS_URL", &server.url),
        ("TALLYHOUSE_AUTH_JWKS_REFRESH_SECONDS", "3600"),
    ])
    .await;
    let (by_old, by_new) = (old.token("acme", "read"), new.token("acme", "read"));
    assert_eq!(status(&service, &by_old).await, 200);
    assert_eq!(server.asked.load(Ordering::SeqCst), 1, "once, at the start");
    *server.set.lock() = key_set(&[&old, &new]);
    assert_eq!(status(&service, &by_new).await, 200, "fetched for this request");
    assert_eq!(status(&service, &by_old).await, 200);
    // An unknown key again and again is no way to make the service ask.
    let unknown = Signer::ed("unknown").token("acme", "read");
    for _ in 0..50 {
        assert_eq!(status(&service, &unknown).await, 401);
    }
    assert!(server.asked.load(Ordering::SeqCst) <= 4, "{}", server.asked.load(Ordering::SeqCst));
    // A key that left the set is no longer good.
    *server.set.lock() = key_set(&[&new]);
    eventually("no old key", || async {
        status(&service, &unknown).await == 401 && status(&service, &by_old).await == 401
    })
    .await;
    // Good keys do not depend on the server.
    serving.abort();
    assert_eq!(status(&service, &by_new).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_fetched_every_so_often() {
    let (old, new) = (Signer::ec("old"), Signer::ec("new"));
    let (server, _serving) = KeyServer::start(key_set(&[&old])).await;
    let service =
        TestService::with(&[("TALLYHOUSE_AUTH_JWKS_URL", &server.url), ("TALLYHOUSE_AUTH_JWKS_REFRESH_SECONDS", "1")])
            .await;
    let by_old = old.token("acme", "read");
    assert_eq!(status(&service, &by_old).await, 200);
    *server.set.lock() = key_set(&[&new]);
    eventually("no old key", || async { status(&service, &by_old).await == 401 }).await;
    assert_eq!(status(&service, &new.token("acme", "read")).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn until_keys_are_fetched_events_are_refused_and_the_reason_is_told() {
    let signer = Signer::ed("key");
    let (server, _serving) = KeyServer::start("maintenance".to_owned()).await;
    let mut service = TestService::unstarted_dev(&[("TALLYHOUSE_AUTH_JWKS_URL", &server.url)]);
    service.start_unready();
    let (code, body) = service.get("/readyz").await;
    assert_eq!((code, &body["reasons"][0]["code"]), (503, &"AUTH_KEYS_MISSING".into()), "{body}");
    assert_eq!(service.get("/healthz").await.0, 200);
    let token = signer.token("acme", "read");
    assert_eq!(status(&service, &token).await, 503);
    *server.set.lock() = key_set(&[&signer]);
    eventually("ready", || async { service.get("/readyz").await.0 == 200 }).await;
    assert_eq!(status(&service, &token).await, 200);
}
