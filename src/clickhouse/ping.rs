//! Checks whether a ClickHouse answers: the embedded one, or a server at a URL.
//!
//! It requests `/ping`, which requires no user and causes no work. It does not show whether queries
//! succeed.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// How often a watched ClickHouse is asked.
const PING_EVERY: Duration = Duration::from_secs(1);
/// Longest a ClickHouse may take to answer before it counts as down.
const PING_WAIT_MAX: Duration = Duration::from_secs(2);

/// Checks one ClickHouse.
#[derive(Clone, Debug)]
pub struct Pinger {
    client: reqwest::Client,
    url: String,
}

impl Pinger {
    /// Creates a pinger for the ClickHouse with this base URL, as in `http://127.0.0.1:8123`. It is
    /// connected to directly, whatever proxy the environment names, as the queries are; each time
    /// anew, as ClickHouse would wait at its end for a connection kept open.
    pub fn new(url: &str) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder().no_proxy();
        // Without TLS no certificates need be there.
        let client = if url.starts_with("https://") { client } else { client.tls_certs_only([]) };
        let client = client.pool_max_idle_per_host(0).timeout(PING_WAIT_MAX).build()?;
        Ok(Self { client, url: format!("{}/ping", url.trim_end_matches('/')) })
    }

    /// Whether it answers.
    pub async fn answers(&self) -> bool {
        let Ok(response) = self.client.get(&self.url).send().await else { return false };
        let is_answer = response.status().is_success();
        // To the end: ClickHouse makes an error of an answer cut short.
        is_answer && response.bytes().await.is_ok()
    }

    /// Checks every second while the receiver exists. The value is `false` until the first answer.
    pub fn watch(self) -> watch::Receiver<bool> {
        let (up, watched) = watch::channel(false);
        tokio::spawn(self.keep_asking(up));
        watched
    }

    async fn keep_asking(self, up: watch::Sender<bool>) {
        let mut ticks = tokio::time::interval(PING_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = up.closed() => return,
            }
            let answers = self.answers().await;
            up.send_if_modified(|up| std::mem::replace(up, answers) != answers);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn answer_one(listener: &TcpListener, status: &str) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1_024];
        let read = stream.read(&mut request).await.unwrap();
        assert!(request[..read].starts_with(b"GET /ping HTTP/1.1\r\n"));
        let response = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 4\r\n\r\nOk.\n");
        stream.write_all(response.as_bytes()).await.unwrap();
    }

    #[tokio::test]
    async fn up_follows_the_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let mut up = Pinger::new(&url).unwrap().watch();
        assert!(!*up.borrow());
        answer_one(&listener, "200 OK").await;
        up.wait_for(|up| *up).await.unwrap();
        answer_one(&listener, "503 Service Unavailable").await;
        up.wait_for(|up| !*up).await.unwrap();
        answer_one(&listener, "200 OK").await;
        up.wait_for(|up| *up).await.unwrap();
        drop(listener);
        up.wait_for(|up| !*up).await.unwrap();
    }
}
