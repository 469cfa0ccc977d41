//! Webhooks by Standard Webhooks 1.0
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).
//!
//! A POST of `{"type", "timestamp", "data"}` with the headers `webhook-id` (the event's id, the same at every attempt, so
//! that a receiver can tell repetitions), `webhook-timestamp` and `webhook-signature`. Only 2xx is success. 410 pauses the
//! subscription. Redirects are not followed. `Retry-After` in seconds is respected with 429 and 503.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url};
use serde::Serialize;
use serde_json::value::RawValue;
use standardwebhooks::{HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook};

use super::address::{AddressPolicy, CheckedResolver};
use super::{Delivery, Handler, Outcome};
use crate::engine::Clock;

/// Most secrets at a time: the new one, and former ones that receivers may still have.
pub const WEBHOOK_SECRETS_MAX: usize = 5;

/// Carries the trace on (<https://www.w3.org/TR/trace-context/#traceparent-header>).
const HEADER_TRACEPARENT: &str = "traceparent";
/// Most bytes of an answer that are read, so that its connection can be used again.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Where webhooks go.
#[derive(Clone)]
pub struct WebhookSettings {
    /// The receiver.
    pub url: String,
    /// The secrets it may have, each `whsec_` and base64. Every request is signed by all, so that one can be replaced
    /// while the receiver still has another.
    pub secrets: Vec<String>,
    /// Longest a receiver may take to answer.
    pub timeout: Duration,
    /// Where requests may go.
    pub addresses: AddressPolicy,
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The URL is none.
    #[error("url must be http:// or https://, without a user or password")]
    Url,
    /// The URL names an address that may not be called.
    #[error("url must not name an address that can only be reached from inside")]
    Address,
    /// A secret is none.
    #[error("secrets must be 1 to {WEBHOOK_SECRETS_MAX} texts of 'whsec_' and the base64 of 24 to 64 bytes")]
    Secret,
    /// No client can be made.
    #[error("no webhooks can be sent: {0}")]
    Client(#[from] reqwest::Error),
}

/// Delivers events as signed POST requests to one URL.
pub struct WebhookHandler {
    client: Client,
    url: Url,
    signers: Vec<Webhook>,
    clock: Clock,
}

impl WebhookHandler {
    /// Checks the settings.
    ///
    /// # Errors
    /// Says which is wrong.
    pub fn new(settings: &WebhookSettings, clock: Clock) -> Result<Self, WebhookError> {
        let url = Url::parse(&settings.url).map_err(|_| WebhookError::Url)?;
        let has_user = !url.username().is_empty() || url.password().is_some();
        let Some(host) = url.host_str().filter(|_| matches!(url.scheme(), "http" | "https") && !has_user) else {
            return Err(WebhookError::Url);
        };
        let literal: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        if literal.is_some_and(|address| !settings.addresses.allows(address)) {
            return Err(WebhookError::Address);
        }
        let count = settings.secrets.len();
        let signers: Option<Vec<Webhook>> = settings.secrets.iter().map(|secret| signer(secret)).collect();
        let signers = signers.filter(|_| (1..=WEBHOOK_SECRETS_MAX).contains(&count)).ok_or(WebhookError::Secret)?;
        let client = Client::builder()
            .timeout(settings.timeout)
            .redirect(reqwest::redirect::Policy::none())
            // A proxy would resolve names itself.
            .no_proxy()
            .dns_resolver(Arc::new(CheckedResolver(settings.addresses)))
            .user_agent("tallyhouse")
            .build()?;
        Ok(Self { client, url, signers, clock })
    }

    async fn send(&self, delivery: &Delivery) -> Result<Response, String> {
        let event = &delivery.event;
        let body = serde_json::to_string(&Body::of(delivery)).map_err(|error| error.to_string())?;
        let timestamp = i64::try_from(self.clock.now_ms() / 1_000).unwrap_or(i64::MAX);
        let sign = |signer: &Webhook| signer.sign(&event.id, timestamp, body.as_bytes());
        let signatures: Result<Vec<String>, _> = self.signers.iter().map(sign).collect();
        let signatures = signatures.map_err(|error| error.to_string())?.join(" ");
        let id = HeaderValue::from_bytes(event.id.as_bytes()).map_err(|error| error.to_string())?;
        let mut request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(HEADER_WEBHOOK_ID, id)
            .header(HEADER_WEBHOOK_TIMESTAMP, timestamp)
            .header(HEADER_WEBHOOK_SIGNATURE, signatures)
            .body(body);
        if !delivery.traceparent.is_empty() {
            request = request.header(HEADER_TRACEPARENT, &delivery.traceparent);
        }
        // The URL may hold a secret of its own.
        request.send().await.map_err(|error| root_cause(&error.without_url()))
    }
}

/// A secret of the standard: 24 to 64 bytes. (The signer takes any base64.)
fn signer(secret: &str) -> Option<Webhook> {
    const SECRET_CHARS: std::ops::RangeInclusive<usize> = 32..=88;
    let encoded = secret.strip_prefix("whsec_")?;
    Webhook::new(secret).ok().filter(|_| SECRET_CHARS.contains(&encoded.len()))
}

/// What is at the bottom of an error.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// Reads the rest of an answer, which says nothing, as far as it is small. Errors are of no interest: the status was 2xx.
async fn discard_body(mut response: Response) {
    let mut bytes = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes += chunk.len();
        if bytes > ANSWER_BYTES_MAX {
            return;
        }
    }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let asks = matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let value = response.headers().get(RETRY_AFTER).filter(|_| asks)?;
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

#[async_trait]
impl Handler for WebhookHandler {
    async fn deliver(&self, users: Vec<Vec<Delivery>>) -> Vec<Vec<Outcome>> {
        let mut answers = Vec::with_capacity(users.len());
        for user in users {
            let mut outcomes = Vec::with_capacity(user.len());
            for delivery in &user {
                let outcome = self.attempt(delivery).await;
                let is_done = matches!(outcome, Outcome::Done { .. });
                outcomes.push(outcome);
                if !is_done {
                    break;
                }
            }
            outcomes.resize(user.len(), Outcome::NotAttempted);
            answers.push(outcomes);
        }
        answers
    }
}

impl WebhookHandler {
    async fn attempt(&self, delivery: &Delivery) -> Outcome {
        let sent = self.send(delivery).await;
        let now = self.clock.now_ms();
        match sent {
            Ok(response) if response.status().is_success() => {
                discard_body(response).await;
                Outcome::Done { processed_at_ms: now }
            }
            Ok(response) if response.status() == StatusCode::GONE => {
                Outcome::Disabled { error: "the receiver answered 410: it wants no more webhooks".to_owned() }
            }
            Ok(response) => Outcome::Failed {
                error: format!("the receiver answered {}", response.status().as_u16()),
                retry_after: retry_after(&response),
                failed_at_ms: now,
            },
            Err(error) => Outcome::Failed { error, retry_after: None, failed_at_ms: now },
        }
    }
}

/// The body of a webhook.
#[derive(Serialize)]
struct Body<'a> {
    r#type: &'a str,
    timestamp: String,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    event_id: &'a str,
    user_id: &'a str,
    campaign_id: &'a str,
    creative_id: &'a str,
    source: &'a str,
    occurred_at_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    properties: Option<&'a RawValue>,
    attempt: u32,
    replay: bool,
    gaps: Vec<u64>,
    gaps_total: u64,
}

impl<'a> Body<'a> {
    fn of(delivery: &'a Delivery) -> Self {
        let event = &*delivery.event;
        let at = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(event.occurred_at_ms) * 1_000_000);
        let timestamp = at.ok().and_then(|at| at.format(&time::format_description::well_known::Rfc3339).ok());
        Self {
            r#type: &event.event_type,
            timestamp: timestamp.unwrap_or_default(),
            data: Data {
                event_id: &event.id,
                user_id: &event.user_id,
                campaign_id: &event.campaign_id,
                creative_id: &event.creative_id,
                source: &event.source,
                occurred_at_ms: event.occurred_at_ms,
                seq: (event.seq > 0).then_some(event.seq),
                properties: serde_json::from_str(event.properties_json()).ok(),
                attempt: delivery.attempt,
                replay: delivery.is_replay,
                gaps: delivery.gaps.named(),
                gaps_total: delivery.gaps.total(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn made(url: &str, secrets: &[&str], addresses: AddressPolicy) -> Result<WebhookHandler, WebhookError> {
        let secrets = secrets.iter().map(|secret| (*secret).to_owned()).collect();
        let timeout = Duration::from_secs(1);
        WebhookHandler::new(&WebhookSettings { url: url.to_owned(), secrets, timeout, addresses }, Clock::system())
    }

    #[test]
    fn wrong_settings_are_refused() {
        let check = |url: &str, secrets: &[&str], is_good: bool| {
            let made = made(url, secrets, AddressPolicy::PublicOnly);
            assert_eq!(made.is_ok(), is_good, "{url} {secrets:?}");
        };
        check("https://a.example/hook?token=1", &[SECRET, SECRET], true);
        check("https://a.example/hook", &[], false);
        check("https://a.example/hook", &[SECRET; 6], false);
        check("https://a.example/hook", &["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], false);
        check("https://a.example/hook", &["whsec_YQ=="], false);
        check("https://a.example/hook", &["whsec_not base64 not base64 not base64"], false);
        check("https://u:p@a.example/hook", &[SECRET], false);
        check("ftp://a.example/", &[SECRET], false);
        check("a.example", &[SECRET], false);
        for inside in ["http://127.0.0.1/", "http://[::1]:80/", "http://169.254.169.254/", "http://2130706433/"] {
            check(inside, &[SECRET], false);
            assert!(made(inside, &[SECRET], AddressPolicy::Any).is_ok(), "{inside}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_not_called() {
        let handler = made("http://localhost:9/", &[SECRET], AddressPolicy::PublicOnly).unwrap();
        let error = handler.client.get(handler.url.clone()).send().await.expect_err("refused");
        assert!(root_cause(&error).contains("no address that may be called"), "{error:?}");
    }
}
