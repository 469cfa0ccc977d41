//! Deliveries: the store of their states, their engines, and what they need of the rest of the service.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tallyhouse_delivery::domain::{Backoff, EventFilter, Position, SubscriptionId, SubscriptionSettings};
use tallyhouse_delivery::engine::{Clock, Engine, EngineBounds, EngineParts};
use tallyhouse_delivery::handler::{AddressPolicy, RedisHandler, TrialProcessor, redis_handler_scripts};
use tallyhouse_delivery::rate_limit::{RateLimitSettings, UserRateLimit, rate_limit_script};
use tallyhouse_delivery::redis::RedisConnection;
use tallyhouse_delivery::store::{DeliveryStore, StoreError, SubscriptionRecord};
use tallyhouse_disk::{RealDisk, create_in_one_step};
use uuid::Uuid;

use super::ServerError;
use crate::clock::ArrivalClock;
use crate::config::Config;
use crate::deliveries::event_pipeline::{EventPipeline, PIPELINE_SOURCE, PipelineParts};
use crate::deliveries::log_source::LogSource;
use crate::deliveries::operator::{OperatorSocket, STORE_FILE};
use crate::deliveries::past_source::is_stored;
use crate::deliveries::subscriptions::{FIRST_SUBSCRIPTION, SubscriptionBounds, SubscriptionSources, Subscriptions};
use crate::deliveries::traced_handler::TracedHandler;
use crate::domain::OrgId;
use crate::ingest::pipeline::Pipeline;
use crate::log::{EventLog, LogReader};
use crate::private_files;
use crate::trace::SpanKind;

/// The number of the pipeline's subscription.
const PIPELINE_SUBSCRIPTION: SubscriptionId = 1;
/// Its name.
const PIPELINE_NAME: &str = "pipeline";
/// The window of the pipeline's rate limit.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// The store of all subscriptions, and what is kept there of them.
pub(super) struct Deliveries {
    store: Arc<DeliveryStore>,
    records: Vec<SubscriptionRecord>,
    pipeline: Option<PipelineDelivery>,
}

/// What the event pipeline needs, if it is on.
struct PipelineDelivery {
    subscription: SubscriptionRecord,
    redis: Arc<RedisConnection>,
    org_id: OrgId,
    bounds: EngineBounds,
}

/// Readers of the log, from where each subscription stopped.
pub(super) struct HeldLog {
    pipeline: Option<Arc<dyn LogReader>>,
    subscriptions: Vec<(SubscriptionRecord, Arc<dyn LogReader>)>,
}

/// What was started.
pub(super) struct StartedDeliveries {
    /// The subscriptions of organizations.
    pub(super) subscriptions: Arc<Subscriptions>,
    /// The event pipeline and its engine.
    pub(super) pipeline: Option<(Arc<EventPipeline>, Engine)>,
    /// The store of both.
    pub(super) store: Arc<DeliveryStore>,
}

impl StartedDeliveries {
    /// What answers the operator's commands.
    pub(super) fn operator_socket(&self, config: &Config, log: &Arc<dyn EventLog>) -> OperatorSocket {
        let pipeline = self.pipeline.as_ref().map(|(pipeline, engine)| (pipeline.org_id().clone(), engine.clone()));
        OperatorSocket {
            data_dir: config.data_dir.clone(),
            store: Arc::clone(&self.store),
            subscriptions: Arc::clone(&self.subscriptions),
            pipeline,
            log: Arc::clone(log),
        }
    }
}

impl Deliveries {
    /// Opens the store.
    ///
    /// # Errors
    /// When the store cannot be opened, or a setting will not do.
    pub(super) async fn open(config: &Config) -> Result<Self, ServerError> {
        private_files::create_dir(&config.data_dir).map_err(|error| ServerError::Part(error.to_string()))?;
        let path = config.data_dir.join(STORE_FILE);
        let opened = tokio::task::spawn_blocking(move || open_store(&path)).await;
        let store = Arc::new(opened.map_err(|error| ServerError::Part(error.to_string()))??);
        let pipeline = match config.has_pipeline() {
            true => Some(PipelineDelivery::open(config, &store).await?),
            false => None,
        };
        let records = store.subscriptions().map_err(store_failed)?;
        let records = records.into_iter().filter(|record| record.id >= FIRST_SUBSCRIPTION).collect();
        Ok(Self { store, records, pipeline })
    }

    /// The highest segment that anything has been read from.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn last_segment(&self) -> Result<u128, ServerError> {
        let pipeline = self.pipeline.iter().map(|pipeline| &pipeline.subscription);
        let mut last = 0;
        for record in pipeline.chain(&self.records) {
            last = last.max(self.position(record)?.segment).max(self.cut_over(record)?.segment);
        }
        Ok(last)
    }

    /// From where a subscription that began in the past reads the log; the log's beginning while that is not decided.
    fn cut_over(&self, record: &SubscriptionRecord) -> Result<Position, ServerError> {
        let cut = self.store.cut_over(record.id).map_err(store_failed)?;
        Ok(cut.map_or(Position::START, |cut| cut.position))
    }

    /// The first segment that a subscription needs.
    fn needed_from(&self, record: &SubscriptionRecord) -> Result<u128, ServerError> {
        let position = self.position(record)?;
        let needed = if is_stored(position) { self.cut_over(record)? } else { position };
        Ok(needed.segment)
    }

    /// Where a subscription reads on.
    fn position(&self, record: &SubscriptionRecord) -> Result<Position, ServerError> {
        let cursor = self.store.cursor(record.id).map_err(store_failed)?;
        Ok(cursor.map_or(record.start, |cursor| cursor.resume))
    }

    /// Has the log keep what is not delivered yet. To be called before anything of the log is stored.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn hold(&self, log: &dyn EventLog) -> Result<HeldLog, ServerError> {
        let pipeline = match &self.pipeline {
            Some(pipeline) => Some(log.add_reader(self.position(&pipeline.subscription)?.segment)),
            None => None,
        };
        let mut subscriptions = Vec::with_capacity(self.records.len());
        for record in &self.records {
            subscriptions.push((record.clone(), log.add_bounded_reader(self.needed_from(record)?)));
        }
        Ok(HeldLog { pipeline, subscriptions })
    }

    /// Begins to deliver.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) async fn start(
        self,
        config: &Config,
        sources: SubscriptionSources,
        held: HeldLog,
        ingest: &Arc<Pipeline>,
        clock: &Arc<ArrivalClock>,
    ) -> Result<StartedDeliveries, ServerError> {
        let trusted = Arc::clone(clock);
        let delivery_clock = Clock::from_fn(move || u64::try_from(trusted.now().millis()).unwrap_or_default());
        let bounds = subscription_bounds(config);
        let subscriptions = Subscriptions::new(Arc::clone(&self.store), sources, delivery_clock.clone(), bounds);
        let subscriptions = Arc::new(subscriptions.map_err(store_failed)?);
        for (record, reader) in held.subscriptions {
            subscriptions.resume(record, reader).await;
        }
        let pipeline = self.pipeline.zip(held.pipeline).map(|(pipeline, reader)| {
            let store = Arc::clone(&self.store);
            pipeline.start(config, reader, store, delivery_clock, Arc::clone(ingest), Arc::clone(clock))
        });
        Ok(StartedDeliveries { subscriptions, pipeline: pipeline.transpose()?, store: self.store })
    }
}

fn subscription_bounds(config: &Config) -> SubscriptionBounds {
    SubscriptionBounds {
        per_organization_max: config.subscriptions_per_organization_max,
        subscriptions_max: config.subscriptions_max,
        engine: EngineBounds {
            user_buffered_max: config.subscription_user_buffered_max,
            waiting_max: config.subscription_waiting_max,
            settlements_max: config.subscription_records_max,
            letters_max: config.subscription_dead_letters_max,
            stop_wait: config.shutdown_wait(),
            ..EngineBounds::default()
        },
        addresses: match config.subscription_private_addresses {
            true => AddressPolicy::Any,
            false => AddressPolicy::PublicOnly,
        },
    }
}

impl PipelineDelivery {
    async fn open(config: &Config, store: &DeliveryStore) -> Result<Self, ServerError> {
        let scripts = redis_handler_scripts().into_iter().chain([rate_limit_script()]).collect();
        let redis = RedisConnection::new(config.redis_url(), scripts);
        let redis = redis.map_err(|error| ServerError::Refused(format!("redis_url {error}")))?;
        let org_id = OrgId::parse(&config.pipeline_org_id)
            .ok_or_else(|| ServerError::Refused(format!("pipeline_org_id {}", OrgId::EXPECTED)))?;
        let subscription = pipeline_subscription(store, config).await?;
        let bounds = EngineBounds {
            user_buffered_max: config.delivery_user_buffered_max,
            waiting_max: config.delivery_waiting_max,
            settlements_max: config.pipeline_records_max,
            stop_wait: config.shutdown_wait(),
            ..EngineBounds::default()
        };
        Ok(Self { subscription, redis, org_id, bounds })
    }

    fn start(
        self,
        config: &Config,
        reader: Arc<dyn LogReader>,
        store: Arc<DeliveryStore>,
        delivery_clock: Clock,
        ingest: Arc<Pipeline>,
        clock: Arc<ArrivalClock>,
    ) -> Result<(Arc<EventPipeline>, Engine), ServerError> {
        let Self { subscription, redis, org_id, bounds } = self;
        let id = subscription.id;
        let handler =
            RedisHandler::new(TrialProcessor, Arc::clone(&redis), delivery_clock.clone(), subscription.handler.clone());
        let handler = Arc::new(handler);
        let traced = TracedHandler::new(
            Arc::clone(&handler) as Arc<_>,
            SpanKind::Internal,
            org_id.as_str().to_owned(),
            PIPELINE_NAME.to_owned(),
        );
        let engine = Engine::start(EngineParts {
            subscription,
            bounds,
            source: Arc::new(LogSource::new(reader, org_id.clone(), 0)),
            handler: Arc::new(traced),
            store: Arc::clone(&store),
            clock: delivery_clock,
        });
        let engine = engine.map_err(|error| ServerError::Part(error.to_string()))?;
        let limits = RateLimitSettings {
            events_max: config.pipeline_user_events_per_second,
            window: RATE_WINDOW,
            users_max: config.rate_limit_users_max,
        };
        let limit = UserRateLimit::new(limits, Some(Arc::clone(&redis)));
        let parts = PipelineParts {
            org_id,
            ingest,
            clock,
            limit,
            engine: engine.clone(),
            handler,
            redis,
            store,
            subscription: id,
        };
        Ok((Arc::new(EventPipeline::new(parts)), engine))
    }
}

fn store_failed(error: StoreError) -> ServerError {
    ServerError::Part(format!("the store of deliveries cannot be read or written: {error}"))
}

fn open_store(path: &Path) -> Result<DeliveryStore, ServerError> {
    let failed = |error: String| ServerError::Part(format!("cannot open {}: {error}", path.display()));
    create_store(path).map_err(|error| failed(error.to_string()))?;
    DeliveryStore::open(path).map_err(|error| failed(error.to_string()))
}

/// Creates the store where there is none, in one durable step: after a power failure there is a whole file or none.
fn create_store(path: &Path) -> Result<(), StoreError> {
    private_files::close_to_others(path)?;
    create_in_one_step(&RealDisk, path, |beside| {
        // The store would make it readable for others.
        private_files::create(beside)?;
        drop(DeliveryStore::open(beside)?); // Its file is synced and closed.
        Ok::<_, StoreError>(())
    })
}

/// The pipeline's subscription: made at the first start, with the settings of now at every one.
async fn pipeline_subscription(store: &DeliveryStore, config: &Config) -> Result<SubscriptionRecord, ServerError> {
    let settings = SubscriptionSettings {
        filter: EventFilter { sources: vec![PIPELINE_SOURCE.to_owned()], ..EventFilter::default() },
        attempts_max: config.pipeline_attempts_max,
        backoff: Backoff { ms_min: config.pipeline_backoff_ms_min, ms_max: config.pipeline_backoff_ms_max },
        ..SubscriptionSettings::default()
    };
    let found =
        store.subscriptions().map_err(store_failed)?.into_iter().find(|found| found.id == PIPELINE_SUBSCRIPTION);
    let id = Uuid::now_v7();
    let subscription = match found {
        Some(found) => SubscriptionRecord { settings, ..found },
        None => SubscriptionRecord {
            id: PIPELINE_SUBSCRIPTION,
            org_id: config.pipeline_org_id.clone(),
            name: PIPELINE_NAME.to_owned(),
            settings,
            // By it, the store's records are told from those of others in the same Redis.
            handler: id.to_string(),
            start: Position::START,
            created_at_ms: id.get_timestamp().map_or(0, |time| time.to_unix().0 * 1_000),
        },
    };
    store.put_subscription(subscription.clone()).await.map_err(store_failed)?;
    Ok(subscription)
}
