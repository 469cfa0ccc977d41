//! Notifications as webhooks: Standard Webhooks 1.0
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).
//!
//! A POST of `{"type", "timestamp", "data"}` with the headers `webhook-id`, `webhook-timestamp` and
//! `webhook-signature`: HMAC-SHA256 of id, time of the attempt and body. Any 2xx answer confirms the
//! delivery. Redirects are not followed.

use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url};
use serde::Serialize;
use sha2::Sha256;

use super::{Notifier, SendError};
use crate::clock::Clock;
use crate::domain::Notification;

/// What secrets usually begin with.
const SECRET_PREFIX: &str = "whsec_";
/// Longest `Retry-After` that is respected.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3_600);

/// The settings of webhooks.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    /// The receiver.
    pub url: String,
    /// The shared secret: `whsec_` and base64.
    pub secret: String,
    /// Longest a receiver may take to answer.
    pub wait_max: Duration,
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum WebhookSettingsError {
    /// The URL is invalid.
    #[error("the URL of webhooks must be http:// or https://")]
    Url,
    /// The secret is invalid.
    #[error("the secret of webhooks must be 'whsec_' and the base64 of at least one byte")]
    Secret,
    /// The client cannot be created.
    #[error("no webhooks can be sent: {0}")]
    Client(#[from] reqwest::Error),
}

/// Sends each notification as a signed POST request to one URL. Every answer but 2xx is an error
/// that the dispatcher retries.
pub struct WebhookNotifier {
    client: Client,
    url: Url,
    key: Vec<u8>,
    clock: Clock,
}

impl WebhookNotifier {
    /// Checks the settings.
    ///
    /// # Errors
    /// Names the invalid setting.
    pub fn new(settings: &WebhookSettings, clock: Clock) -> Result<Self, WebhookSettingsError> {
        let url = Url::parse(&settings.url).map_err(|_| WebhookSettingsError::Url)?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(WebhookSettingsError::Url);
        }
        let secret = settings.secret.strip_prefix(SECRET_PREFIX).unwrap_or(&settings.secret);
        let key = STANDARD.decode(secret).map_err(|_| WebhookSettingsError::Secret)?;
        if key.is_empty() {
            return Err(WebhookSettingsError::Secret);
        }
        let client = Client::builder()
            .timeout(settings.wait_max)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent("tallyhouse")
            .build()?;
        Ok(Self { client, url, key, clock })
    }

    fn signature(&self, id: &str, timestamp: i64, body: &str) -> String {
        // Any length will do for a key.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else { return String::new() };
        mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

#[async_trait]
impl Notifier for WebhookNotifier {
    async fn send(&self, notification: &Notification) -> Result<(), SendError> {
        let failed = |message: String| SendError { message, retry_after: None };
        let body = serde_json::to_string(&Body::of(notification)).map_err(|error| failed(error.to_string()))?;
        let timestamp = self.clock.now().millis().div_euclid(1_000);
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &notification.id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", self.signature(&notification.id, timestamp, &body))
            .body(body);
        // The URL may hold a secret of its own.
        let response = request.send().await.map_err(|error| failed(root_cause(&error.without_url())))?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let asks_for_rest = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let header = response.headers().get(RETRY_AFTER).filter(|_| asks_for_rest);
        let seconds = header.and_then(|value| value.to_str().ok()).and_then(|seconds| seconds.trim().parse().ok());
        let retry_after = seconds.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
        Err(SendError { message: format!("the receiver answered {}", status.as_u16()), retry_after })
    }
}

/// What is at the bottom of an error.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// The body of a webhook.
#[derive(Serialize)]
struct Body<'n> {
    r#type: &'static str,
    timestamp: String,
    data: Data<'n>,
}

#[derive(Serialize)]
struct Data<'n> {
    message: &'n str,
    event: Event<'n>,
}

/// The show, without its private fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'n> {
    id: String,
    title: &'n str,
    start_at: String,
    end_at: String,
    location: &'n str,
    status: &'static str,
}

impl<'n> Body<'n> {
    fn of(notification: &'n Notification) -> Self {
        let Notification { show_id, kind, message, occurred_at, subject, .. } = notification;
        Self {
            r#type: kind.as_str(),
            timestamp: occurred_at.to_string(),
            data: Data {
                message,
                event: Event {
                    id: show_id.to_string(),
                    title: &subject.title,
                    start_at: subject.start_at.to_string(),
                    end_at: subject.end_at.to_string(),
                    location: &subject.location,
                    status: subject.status.as_str(),
                },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str, secret: &str) -> WebhookSettings {
        WebhookSettings { url: url.to_owned(), secret: secret.to_owned(), wait_max: Duration::from_secs(1) }
    }

    #[test]
    fn wrong_settings_are_refused() {
        let check = |url: &str, secret: &str, is_good: bool| {
            let made = WebhookNotifier::new(&settings(url, secret), Clock::system());
            assert_eq!(made.is_ok(), is_good, "{url} {secret}");
        };
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        check("https://a.example/hook?token=1", secret, true);
        check("http://127.0.0.1:1/", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", true);
        check("ftp://a.example/", secret, false);
        check("a.example", secret, false);
        check("", secret, false);
        check("https://a.example/", "", false);
        check("https://a.example/", "whsec_", false);
        check("https://a.example/", "not base64!", false);
    }

    #[test]
    fn signatures_are_those_of_the_standard() {
        // The example of the specification's reference libraries.
        let notifier = WebhookNotifier::new(
            &settings("https://a.example/", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            Clock::system(),
        );
        let signature =
            notifier.unwrap().signature("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
