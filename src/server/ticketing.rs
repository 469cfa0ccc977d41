//! Constructs and starts the ticketing catalogue, with what it needs of the service.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tallyhouse_catalogue::domain::{ShowId, Timestamp};
use tallyhouse_catalogue::http::{AdminTokens, AdminVerifier, Api, ApiSettings, ReadCounter};
use tallyhouse_catalogue::notify::{
    AttemptCounts, Backoff, Dispatcher, DispatcherSettings, LogNotifier, Notifier, Outbox, WebhookNotifier,
    WebhookSettings,
};
use tallyhouse_catalogue::store::{CatalogueStore, OutboxTotals, PostgresStore, SqliteStore};
use tallyhouse_catalogue::summary::{Summaries, SummariesSettings, TemplateSummarizer};
use tallyhouse_catalogue::{Catalogue, Clock};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::ServerError;
use crate::backup::CATALOGUE_FILE;
use crate::clock::ArrivalClock;
use crate::config::Config;
use crate::domain::{Error, EventDraft, OrgId};
use crate::event_intake::{EventBatch, EventIntake};
use crate::health::{Health, Reason, ReasonCode};
use crate::ingest::pipeline::Durability;
use crate::telemetry::{Metrics, NotificationTotals};
use crate::transport::{AdminScopeVerifier, Callers};

/// What a read of the public is counted as, and where it is said to come from.
const READ_TYPE: &str = "impression";
const READ_SOURCE: &str = "ticketing";

/// Without tokens there would be no administrators.
///
/// # Errors
/// Says what to change.
pub fn check_has_administrators(config: &Config) -> Result<(), ServerError> {
    if !config.has_ticketing() || config.has_authentication() || !config.ticketing_admin_tokens().is_empty() {
        return Ok(());
    }
    let message = "the ticketing catalogue has no administrators: set ticketing_admin_tokens, or authentication";
    Err(ServerError::Refused(message.to_owned()))
}

/// Holds the catalogue's store, notifier and clock, and starts its router and background tasks.
/// Created once at start if `ticketing` is on.
pub(super) struct Ticketing {
    store: Arc<dyn CatalogueStore>,
    notifier: Arc<dyn Notifier>,
    clock: Clock,
    changed: Arc<Notify>,
    outbox: Arc<Outbox>,
}

impl Ticketing {
    /// Opens the catalogue's database, if the catalogue is on.
    ///
    /// # Errors
    /// When the database cannot be had, or webhooks not be sent as configured.
    pub(super) async fn open(config: &Config, clock: &Arc<ArrivalClock>) -> Result<Option<Self>, ServerError> {
        if !config.has_ticketing() {
            return Ok(None);
        }
        check_has_administrators(config)?;
        let clock = trusted_clock(clock);
        let (notifier, store) = (notifier(config, clock.clone())?, store(config).await?);
        Ok(Some(Self { store, notifier, clock, changed: Arc::default(), outbox: Arc::default() }))
    }

    /// Sends notifications until `stop`, and observes those that wait.
    pub(super) fn start(&self, config: &Config, tasks: &TaskTracker, stop: &CancellationToken) {
        let millis = Duration::from_millis;
        let settings = DispatcherSettings {
            backoff: Backoff {
                min: millis(config.ticketing_notify_backoff_ms_min),
                max: millis(config.ticketing_notify_backoff_ms_max),
            },
            attempts_max: config.ticketing_notify_attempts_max,
            attempt_wait_max: millis(config.ticketing_notify_wait_ms_max),
            poll_pause: millis(config.ticketing_notify_poll_ms),
        };
        let (store, notifier) = (Arc::clone(&self.store), Arc::clone(&self.notifier));
        let (changed, outbox) = (Arc::clone(&self.changed), Arc::clone(&self.outbox));
        let dispatcher = Arc::new(Dispatcher::new(store, notifier, self.clock.clone(), settings, changed, outbox));
        tasks.spawn(dispatcher.run(stop.clone()));
        tasks.spawn(Arc::clone(&self.outbox).keep_observed(Arc::clone(&self.store), stop.clone()));
    }

    /// Registers the metrics and the health checks of its notifications.
    pub(super) fn observe(&self, config: &Config, metrics: &Metrics, health: &Health) {
        let (outbox, clock) = (Arc::clone(&self.outbox), self.clock.clone());
        metrics.observe_notifications(move || {
            let (totals, attempts) = (outbox.totals(), outbox.attempts());
            let AttemptCounts { delivered, failed, given_up } = attempts;
            NotificationTotals {
                pending: totals.pending,
                given_up: totals.given_up,
                lag: lag(totals, &clock),
                attempts_delivered: delivered,
                attempts_failed: failed,
                attempts_given_up: given_up,
            }
        });
        let late_after = Duration::from_secs(config.ticketing_notify_late_seconds);
        register_checks(&self.outbox, &self.clock, late_after, health);
    }

    /// What requests need.
    pub(super) fn api(
        self,
        config: &Config,
        callers: &Callers,
        intake: &Arc<EventIntake>,
        clock: &Arc<ArrivalClock>,
    ) -> Arc<Api> {
        let summaries = SummariesSettings {
            cache_bytes_max: config.ticketing_summary_cache_bytes_max,
            in_flight_max: config.ticketing_summaries_in_flight_max,
            wait_max: Duration::from_millis(config.ticketing_summary_wait_ms_max),
        };
        let verifier = AdminScopeVerifier::new(callers, config.operator());
        let org_id = OrgId::parse(&config.ticketing_org_id).filter(|_| config.ticketing_count_reads);
        let reads = org_id.map(|org_id| {
            let (intake, clock) = (Arc::clone(intake), Arc::clone(clock));
            Arc::new(ReadsAsImpressions { intake, clock, org_id }) as Arc<dyn ReadCounter>
        });
        Arc::new(Api {
            catalogue: Catalogue::new(self.store, self.clock, self.changed),
            summaries: Summaries::new(Arc::new(TemplateSummarizer), summaries),
            tokens: AdminTokens::new(config.ticketing_admin_tokens()),
            verifier: verifier.map(|verifier| Arc::new(verifier) as Arc<dyn AdminVerifier>),
            reads,
            settings: ApiSettings {
                body_bytes_max: config.body_bytes_max,
                body_wait_max: Duration::from_millis(config.body_wait_ms_max),
                summary_chunk_pause: Duration::from_millis(config.ticketing_summary_chunk_ms),
            },
        })
    }
}

/// How long the oldest pending notification has been waiting.
fn lag(totals: OutboxTotals, clock: &Clock) -> Duration {
    let waiting = totals.oldest_pending_at.map(|at| clock.now().millis() - at.millis());
    Duration::from_millis(waiting.and_then(|millis| u64::try_from(millis).ok()).unwrap_or_default())
}

/// Adds the checks of the database and of what waits in it.
fn register_checks(outbox: &Arc<Outbox>, clock: &Clock, late_after: Duration, health: &Health) {
    let checked = Arc::clone(outbox);
    health.register(move || {
        let message = "the database of the ticketing catalogue does not answer; the log has the cause";
        checked.is_unreachable().then(|| Reason::new(ReasonCode::TicketingUnavailable, message))
    });
    let (checked, clock) = (Arc::clone(outbox), clock.clone());
    health.register(move || {
        let totals = checked.totals();
        let (waiting, late_after) = (lag(totals, &clock).as_secs(), late_after.as_secs());
        (waiting > late_after).then(|| {
            let message = format!(
                "{} notifications wait for their delivery, the oldest for {waiting} seconds (ticketing_notify_late_seconds: \
                 {late_after})",
                totals.pending
            );
            Reason::new(ReasonCode::NotificationsLate, message)
        })
    });
    let checked = Arc::clone(outbox);
    health.register(move || {
        let given_up = checked.totals().given_up;
        (given_up > 0).then(|| {
            let message = format!("{given_up} notifications are no longer sent; see `tallyhouse shows notifications`");
            Reason::new(ReasonCode::NotificationsGivenUp, message)
        })
    });
}

/// The time as far as it is trusted: a clock that jumps ends no key's 24 hours.
fn trusted_clock(clock: &Arc<ArrivalClock>) -> Clock {
    let clock = Arc::clone(clock);
    Clock::from_fn(move || Timestamp::from_millis(clock.now().millis()))
}

fn notifier(config: &Config, clock: Clock) -> Result<Arc<dyn Notifier>, ServerError> {
    let url = config.ticketing_webhook_url.expose();
    if url.is_empty() {
        return Ok(Arc::new(LogNotifier));
    }
    let settings = WebhookSettings {
        url: url.to_owned(),
        secret: config.ticketing_webhook_secret.expose().to_owned(),
        wait_max: Duration::from_millis(config.ticketing_notify_wait_ms_max),
    };
    let notifier = WebhookNotifier::new(&settings, clock);
    let refused = |error| ServerError::Refused(format!("ticketing_webhook_url, ticketing_webhook_secret: {error}"));
    Ok(Arc::new(notifier.map_err(refused)?))
}

async fn store(config: &Config) -> Result<Arc<dyn CatalogueStore>, ServerError> {
    let url = config.ticketing_database_url.expose();
    if !url.is_empty() {
        let store = PostgresStore::connect(url).await;
        let failed = |error| ServerError::Part(format!("ticketing_database_url: the database cannot be had: {error}"));
        return Ok(Arc::new(store.map_err(failed)?));
    }
    let path: &Path = &config.data_dir.join(CATALOGUE_FILE);
    let store = SqliteStore::open(path).await;
    let failed = |error| ServerError::Part(format!("cannot open {}: {error}", path.display()));
    Ok(Arc::new(store.map_err(failed)?))
}

/// Counts reads as impressions, each as an event of its own.
struct ReadsAsImpressions {
    intake: Arc<EventIntake>,
    clock: Arc<ArrivalClock>,
    org_id: OrgId,
}

#[async_trait]
impl ReadCounter for ReadsAsImpressions {
    async fn count_read(&self, id: ShowId) {
        // Whoever reads is answered either way.
        if let Err(error) = self.try_count(id).await {
            tracing::warn!(%id, code = ?error.code, error = error.message, "a read of the catalogue was not counted");
        }
    }
}

impl ReadsAsImpressions {
    async fn try_count(&self, id: ShowId) -> Result<(), Error> {
        let (event_id, campaign_id) = (Uuid::now_v7().to_string(), format!("show:{id}"));
        let draft = EventDraft {
            event_id: &event_id,
            event_type: READ_TYPE,
            campaign_id: &campaign_id,
            source: READ_SOURCE,
            occurred_at: Some(self.clock.now()),
            ..EventDraft::default()
        };
        let bytes = event_id.len() + campaign_id.len() + READ_TYPE.len() + READ_SOURCE.len();
        let batch = EventBatch {
            org_id: &self.org_id,
            drafts: [draft],
            bytes,
            idempotency: None,
            durability: Durability::Logged,
        };
        let results = self.intake.submit(batch).await?.results().await?;
        if results.counts.accepted != 1 {
            tracing::warn!(%id, verdicts = ?results.verdicts, "a read of the catalogue was not counted");
        }
        Ok(())
    }
}
