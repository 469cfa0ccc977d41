//! What attackers send with: HTTP/2 whose frames and windows they control.

use std::time::{Duration, Instant};

use axum::http::{Method, Request};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::service::{PATIENCE, TestService};

/// An HTTP/2 connection of an attacker.
pub(crate) struct Attacker {
    sender: SendRequest<Bytes>,
    /// Ends when the connection does.
    pub(crate) connection: JoinHandle<()>,
    url: String,
}

impl Attacker {
    /// Connects, and allows so many bytes of each answer to be sent.
    pub(crate) async fn connect(service: &TestService, window_bytes: u32) -> Self {
        let address = service.url.strip_prefix("http://").unwrap();
        let socket = TcpStream::connect(address).await.unwrap();
        let (sender, connection) =
            h2::client::Builder::new().initial_window_size(window_bytes).handshake::<_, Bytes>(socket).await.unwrap();
        let connection = tokio::spawn(async move { drop(connection.await) });
        Self { sender, connection, url: service.url.clone() }
    }

    /// Begins a request whose body is to come, if the connection still takes
    /// one.
    pub(crate) async fn begin(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Option<(ResponseFuture, SendStream<Bytes>)> {
        self.request(method, path, headers, false).await
    }

    /// Sends a request without a body, if the connection still takes one.
    pub(crate) async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Option<ResponseFuture> {
        Some(self.request(Method::GET, path, headers, true).await?.0)
    }

    /// Begins a gRPC call whose message is to come.
    pub(crate) async fn begin_call(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Option<(ResponseFuture, SendStream<Bytes>)> {
        let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
        let headers: Vec<_> = grpc.into_iter().chain(headers.iter().copied()).collect();
        self.begin(Method::POST, path, &headers).await
    }

    async fn request(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        is_whole: bool,
    ) -> Option<(ResponseFuture, SendStream<Bytes>)> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let ready = tokio::time::timeout(PATIENCE, self.sender.clone().ready()).await.ok()?;
        ready.ok()?.send_request(request.body(()).unwrap(), is_whole).ok()
    }
}

/// Sends a part of a body, if the call still takes it: one that is refused may have ended before.
pub(crate) fn send(body: &mut SendStream<Bytes>, part: &[u8], is_last: bool) {
    let _ = body.send_data(Bytes::copy_from_slice(part), is_last);
}

/// The gRPC status that an answer ends with.
pub(crate) async fn grpc_status(answer: ResponseFuture) -> Option<i32> {
    let answer = tokio::time::timeout(PATIENCE, answer).await.expect("an answer").ok()?;
    let status = |headers: &axum::http::HeaderMap| headers.get("grpc-status")?.to_str().ok()?.parse().ok();
    if let Some(status) = status(answer.headers()) {
        return Some(status);
    }
    let mut body: RecvStream = answer.into_body();
    while let Some(data) = body.data().await {
        let data = data.ok()?;
        body.flow_control().release_capacity(data.len()).ok()?;
    }
    status(&body.trailers().await.ok()??)
}

/// The memory of a process that is in use, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    status_bytes(pid, "VmRSS:")
}

/// Starts anew to look for the most memory that a process uses at a time.
pub(crate) fn reset_peak(pid: u32) {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
}

/// The most memory that a process has used since [`reset_peak`], in bytes.
pub(crate) fn peak_bytes(pid: u32) -> u64 {
    status_bytes(pid, "VmHWM:")
}

fn status_bytes(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1_024
}

/// Asserts that probes are answered, and quickly; so is an ordinary call, to a caller who comes again when it
/// is told to.
pub(crate) async fn assert_serves(service: &TestService, token: Option<&str>) {
    let http = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
    for (path, expected) in [("/healthz", 200), ("/readyz", 200), ("/users/top", 200)] {
        let begun = Instant::now();
        let is_probe = path != "/users/top";
        loop {
            let request = http.get(format!("{}{path}", service.url)).timeout(Duration::from_secs(20));
            let request = if let Some(token) = token { request.bearer_auth(token) } else { request };
            let answer = request.send().await.unwrap();
            let is_late = is_probe || begun.elapsed() > Duration::from_secs(10);
            if answer.status() == 503 && answer.headers().contains_key("retry-after") && !is_late {
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
            assert_eq!(answer.status(), expected, "{path}");
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{path} took {:?}", begun.elapsed());
    }
    let mut health = tonic_health::pb::health_client::HealthClient::new(service.channel().await);
    let answer = health.check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap();
    assert_eq!(answer.into_inner().status, 1);
}
