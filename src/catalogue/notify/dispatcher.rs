//! Sends pending notifications in the background. Their states are in the database, so none is lost when
//! the process ends. If several services use one database, each sends the notifications that it has
//! claimed.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Backoff, Notifier, Outbox};
use crate::clock::Clock;
use crate::domain::Timestamp;
use crate::store::{AttemptOutcome, CatalogueStore, Claim, StoreError};

/// Notifications that are claimed at a time, and sent at a time.
const CLAIMS_MAX: u32 = 16;
/// How much longer than an attempt may take a claim lasts. If the service dies
/// in between, another one sends the notification after that.
const CLAIM_MARGIN: Duration = Duration::from_secs(5);
/// Time between two sweeps of what need not be kept any more.
const SWEEP_PAUSE: Duration = Duration::from_secs(600);
/// How long delivered notifications are kept, for those who look for them.
const DELIVERED_KEPT: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Most characters of an error that are kept.
const ERROR_CHARS_MAX: usize = 500;

/// The dispatcher's limits.
#[derive(Clone, Copy, Debug)]
pub struct DispatcherSettings {
    /// Waits between the attempts to send a notification.
    pub backoff: Backoff,
    /// Attempts before it is given up.
    pub attempts_max: u32,
    /// Longest time of an attempt.
    pub attempt_wait_max: Duration,
    /// Interval of checks for due notifications, in addition to those after each change.
    pub poll_pause: Duration,
}

/// Sends pending notifications until they are delivered or given up. Runs as one background task
/// per service.
pub struct Dispatcher {
    store: Arc<dyn CatalogueStore>,
    notifier: Arc<dyn Notifier>,
    clock: Clock,
    settings: DispatcherSettings,
    changed: Arc<Notify>,
    outbox: Arc<Outbox>,
}

impl Dispatcher {
    /// Sends what is in this store by this notifier, at once when `changed` says
    /// so. Counts attempts in `outbox`.
    pub fn new(
        store: Arc<dyn CatalogueStore>,
        notifier: Arc<dyn Notifier>,
        clock: Clock,
        settings: DispatcherSettings,
        changed: Arc<Notify>,
        outbox: Arc<Outbox>,
    ) -> Self {
        Self { store, notifier, clock, settings, changed, outbox }
    }

    /// Sends until `stop`. What is being sent then is finished first, which takes
    /// as long as an attempt may.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut swept_at: Option<Timestamp> = None;
        while !stop.is_cancelled() {
            let has_more = self.send_due().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "could not read notifications");
                false
            });
            let now = self.clock.now();
            if swept_at.is_none_or(|at| now.millis() - at.millis() >= millis(SWEEP_PAUSE)) {
                swept_at = Some(now);
                if let Err(error) = self.store.sweep(now, now.plus_millis(-millis(DELIVERED_KEPT))).await {
                    tracing::warn!(%error, "could not sweep the catalogue");
                }
            }
            if !has_more {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = self.changed.notified() => {}
                    () = tokio::time::sleep(self.settings.poll_pause) => {}
                }
            }
        }
    }

    /// Sends what is due, once each. Whether there was anything.
    async fn send_due(&self) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let until = now.plus_millis(millis(self.settings.attempt_wait_max + CLAIM_MARGIN));
        let claims = self.store.claim(now, until, CLAIMS_MAX).await?;
        let has_more = !claims.is_empty();
        let sent = stream::iter(claims).for_each_concurrent(None, |claim| async move {
            let attempted = self.attempt(&claim).await;
            self.outbox.count(&attempted);
            if let Err(error) = self.store.settle(&claim, &attempted, self.clock.now()).await {
                let id = &claim.notification.id;
                tracing::warn!(%error, id, "could not record the result of a notification; it may be sent again");
            }
        });
        sent.await;
        Ok(has_more)
    }

    async fn attempt(&self, claim: &Claim) -> AttemptOutcome {
        let sent = tokio::time::timeout(self.settings.attempt_wait_max, self.notifier.send(&claim.notification)).await;
        let (error, retry_after) = match sent {
            Ok(Ok(())) => return AttemptOutcome::Delivered,
            Ok(Err(error)) => (error.message, error.retry_after),
            Err(_) => ("the receiver did not answer in time".to_owned(), None),
        };
        let error: String = error.chars().filter(|char| *char != '\0').take(ERROR_CHARS_MAX).collect();
        let (id, attempt) = (&claim.notification.id, claim.attempt);
        if attempt >= self.settings.attempts_max {
            tracing::error!(id, attempt, error, "gave up on a notification");
            return AttemptOutcome::GivenUp { error };
        }
        let wait = self.settings.backoff.wait(attempt);
        let wait = retry_after.map_or(wait, |asked| wait.max(asked));
        tracing::warn!(id, attempt, error, wait_ms = millis(wait), "a notification failed and will be retried");
        AttemptOutcome::RetryAt { at: self.clock.now().plus_millis(millis(wait)), error }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicI64, Ordering};

    use axum::Router;
    use axum::body::Bytes;
    use axum::extract::State;
    use axum::http::{HeaderMap, StatusCode};
    use axum::response::{IntoResponse as _, Response};
    use axum::routing::post;
    use parking_lot::Mutex;
    use serde_json::Value;

    use super::*;
    use crate::catalogue::Catalogue;
    use crate::domain::{Fields, GivenValue, Page};
    use crate::notify::{WebhookNotifier, WebhookSettings};
    use crate::store::{NotificationState, SqliteStore};

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    /// Answers with the given responses and then with 204. Keeps the attempts
    /// whose signatures are valid.
    #[derive(Default)]
    struct Receiver {
        answers: Mutex<VecDeque<Response>>,
        got: Mutex<Vec<(String, Value)>>,
    }

    async fn receive(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Bytes) -> Response {
        standardwebhooks::Webhook::new(SECRET).unwrap().verify(&body, &headers).unwrap();
        let id = headers["webhook-id"].to_str().unwrap().to_owned();
        receiver.got.lock().push((id, serde_json::from_slice(&body).unwrap()));
        receiver.answers.lock().pop_front().unwrap_or_else(|| StatusCode::NO_CONTENT.into_response())
    }

    struct TestCatalogue {
        catalogue: Catalogue,
        receiver: Arc<Receiver>,
        store: Arc<dyn CatalogueStore>,
        dispatcher: Arc<Dispatcher>,
        skew: Arc<AtomicI64>,
        _dir: tempfile::TempDir,
    }

    impl TestCatalogue {
        async fn new(answers: Vec<Response>) -> Self {
            let receiver = Arc::new(Receiver { answers: Mutex::new(answers.into()), ..Receiver::default() });
            let router = Router::new().route("/hook", post(receive)).with_state(Arc::clone(&receiver));
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/hook", listener.local_addr().unwrap());
            tokio::spawn(async move { axum::serve(listener, router).await });
            let dir = tempfile::tempdir().unwrap();
            let store: Arc<dyn CatalogueStore> =
                Arc::new(SqliteStore::open(&dir.path().join("catalogue.sqlite")).await.unwrap());
            let skew = Arc::new(AtomicI64::new(0));
            let clock = Clock::from_fn({
                let skew = Arc::clone(&skew);
                move || Clock::system().now().plus_millis(skew.load(Ordering::Relaxed))
            });
            let wait_max = Duration::from_secs(10);
            // Signatures bear the true time, which the receiver checks.
            let settings = WebhookSettings { url, secret: SECRET.to_owned(), wait_max };
            let notifier = Arc::new(WebhookNotifier::new(&settings, Clock::system()).unwrap());
            let changed = Arc::new(Notify::new());
            let minute = Duration::from_secs(60);
            let settings = DispatcherSettings {
                backoff: Backoff { min: minute, max: 10 * minute },
                attempts_max: 3,
                attempt_wait_max: wait_max,
                poll_pause: Duration::from_secs(3_600),
            };
            let dispatcher = Dispatcher::new(
                Arc::clone(&store),
                notifier,
                clock.clone(),
                settings,
                Arc::clone(&changed),
                Arc::default(),
            );
            let catalogue = Catalogue::new(Arc::clone(&store), clock, changed);
            Self { catalogue, receiver, store, dispatcher: Arc::new(dispatcher), skew, _dir: dir }
        }

        async fn create(&self, title: &str, status: &str) {
            let mut fields = Fields::default();
            for (name, value) in [
                ("title", title),
                ("location", "Globe"),
                ("startAt", "9000-01-01T00:00:00Z"),
                ("endAt", "9000-01-02T00:00:00Z"),
                ("status", status),
                ("internalNotes", "private"),
            ] {
                fields.add(name, GivenValue::Text(value.to_owned()));
            }
            self.catalogue.create(fields, None).await.unwrap();
        }

        /// Sends all that is due now.
        async fn send_all(&self) {
            while self.dispatcher.send_due().await.unwrap() {}
        }

        fn ids(&self) -> Vec<String> {
            self.receiver.got.lock().iter().map(|(id, _)| id.clone()).collect()
        }
    }

    #[tokio::test]
    async fn webhooks_are_signed_in_order_and_without_private_fields() {
        let test = TestCatalogue::new(Vec::new()).await;
        test.create("Hamlet: \"1\"", "CANCELLED").await;
        test.send_all().await;
        let got = test.receiver.got.lock().clone();
        let sent: Vec<(&str, &str)> = got
            .iter()
            .map(|(_, body)| (body["type"].as_str().unwrap(), body["data"]["message"].as_str().unwrap()))
            .collect();
        let created = ("event.created", "New event created: Hamlet: \"1\"");
        assert_eq!(sent, [created, ("event.cancelled", "Event cancelled: Hamlet: \"1\"")]);
        assert_eq!(got[0].1["data"]["event"]["startAt"], "9000-01-01T00:00:00.000Z");
        assert!(!format!("{got:?}").contains("private"));
        test.send_all().await;
        assert_eq!(test.ids().len(), 2, "once each");
    }

    #[tokio::test]
    async fn it_is_sent_again_under_the_same_id_until_it_is_given_up() {
        let moved = ([("location", "http://127.0.0.1:1/")], StatusCode::TEMPORARY_REDIRECT).into_response();
        let answers = [StatusCode::INTERNAL_SERVER_ERROR.into_response(), moved, StatusCode::GONE.into_response()];
        let test = TestCatalogue::new(answers.into()).await;
        test.create("Hamlet", "DRAFT").await;
        for attempts in 1..=3 {
            test.send_all().await;
            assert_eq!(test.ids().len(), attempts, "it waits in between");
            test.skew.fetch_add(200_000, Ordering::Relaxed);
        }
        test.send_all().await;
        let ids = test.ids();
        assert_eq!(ids, vec![ids[0].clone(); 3]);
        let page = Page { number: 1, limit: 10 };
        let (given_up, _) = test.store.notifications(&[NotificationState::GivenUp], page).await.unwrap();
        assert_eq!(given_up[0].last_error.as_deref(), Some("the receiver answered 410"));
        test.catalogue.retry_notification(&ids[0]).await.unwrap();
        test.send_all().await;
        assert_eq!(test.ids(), vec![ids[0].clone(); 4]);
        assert_eq!(test.store.notifications(&[NotificationState::Delivered], page).await.unwrap().1, 1);
    }

    #[tokio::test]
    async fn a_receiver_that_asks_for_rest_gets_it() {
        let busy = ([("retry-after", "1000")], StatusCode::TOO_MANY_REQUESTS).into_response();
        let test = TestCatalogue::new(vec![busy]).await;
        test.create("Hamlet", "DRAFT").await;
        for (skew, sent) in [(0, 1), (990_000, 1), (20_000, 2)] {
            test.skew.fetch_add(skew, Ordering::Relaxed);
            test.send_all().await;
            assert_eq!(test.ids().len(), sent);
        }
    }

    #[tokio::test]
    async fn a_change_is_sent_at_once() {
        let test = TestCatalogue::new(Vec::new()).await;
        let stop = CancellationToken::new();
        test.create("before it runs", "DRAFT").await;
        let running = tokio::spawn(Arc::clone(&test.dispatcher).run(stop.clone()));
        test.create("while it runs", "DRAFT").await;
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while test.ids().len() < 2 {
            assert!(std::time::Instant::now() < deadline, "in vain");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.cancel();
        running.await.unwrap();
    }
}
