//! Subscriptions are started with the service, created, changed, deleted, and stopped with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tallyhouse_delivery::domain::{Position, SubscriptionId, SubscriptionSettings};
use tallyhouse_delivery::engine::{Clock, Engine, EngineParts};
use tallyhouse_delivery::handler::{Handler, PullHandler, TrialHandler, WebhookError, WebhookHandler, WebhookSettings};
use tallyhouse_delivery::source::EventSource;
use tallyhouse_delivery::store::{DeliveryStore, StoreError, SubscriptionRecord};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::spec::{StoredSpec, check_name};
use super::{
    Entry, FIRST_SUBSCRIPTION, HandlerSpec, Key, Running, Start, Subscription, SubscriptionBounds, SubscriptionDraft,
    SubscriptionSources, Subscriptions, failed, store_failed,
};
use crate::deliveries::log_source::LogSource;
use crate::deliveries::past_source::{PastParts, PastSource, position_of};
use crate::deliveries::traced_handler::TracedHandler;
use crate::domain::{Error, FieldError, OrgId, Timestamp};
use crate::log::{LogPosition, LogReader};

/// The handler of a subscription; the second is the same where consumers connect to it.
type Handlers = (Arc<dyn Handler>, Option<Arc<PullHandler>>);

impl Subscriptions {
    /// With none running yet, see [`Subscriptions::resume`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn new(
        store: Arc<DeliveryStore>,
        sources: SubscriptionSources,
        clock: Clock,
        bounds: SubscriptionBounds,
    ) -> Result<Self, StoreError> {
        let last = store.subscriptions()?.last().map_or(0, |record| record.id);
        Ok(Self {
            store,
            sources,
            clock,
            bounds,
            entries: parking_lot::RwLock::default(),
            creating: tokio::sync::Mutex::default(),
            next_id: AtomicU64::new(FIRST_SUBSCRIPTION.max(last + 1)),
            observed: parking_lot::Mutex::default(),
        })
    }

    /// Starts a subscription that is kept, with the reader that was added for it. One that cannot be started is logged,
    /// and what it has not read stays in the log within the bounds.
    pub async fn resume(&self, record: SubscriptionRecord, reader: Arc<dyn LogReader>) {
        let key = (record.org_id.clone(), record.name.clone());
        match self.run(record, reader).await {
            Ok(running) => self.insert(key, running),
            Err(error) => {
                let (org_id, subscription) = key;
                tracing::error!(org_id, subscription, error = error.message, "a subscription cannot be started");
            }
        }
    }

    /// Sums up the states of all subscriptions now and then, for metrics and health, until `stop`.
    pub fn observe(self: &Arc<Self>, tasks: &TaskTracker, stop: &CancellationToken) {
        let (subscriptions, stop) = (Arc::clone(self), stop.clone());
        tasks.spawn(async move { stop.run_until_cancelled(subscriptions.keep_observed()).await });
    }

    /// Stops all engines, all at once.
    pub async fn stop(&self) {
        let entries: Vec<Arc<Entry>> = self.entries.read().values().cloned().collect();
        let engines = entries.iter().map(|entry| entry.engine());
        futures_util::future::join_all(engines.map(|engine| async move { engine.stop().await })).await;
    }

    fn insert(&self, key: Key, running: Running) {
        let entry = Entry { running: parking_lot::Mutex::new(running), is_there: tokio::sync::Mutex::new(true) };
        self.entries.write().insert(key, Arc::new(entry));
    }

    /// Starts the engine of a subscription where it stopped.
    async fn run(&self, record: SubscriptionRecord, reader: Arc<dyn LogReader>) -> Result<Running, Error> {
        let org_id = OrgId::parse(&record.org_id).ok_or_else(Error::internal)?;
        let StoredSpec { handler: spec, start } = StoredSpec::read(&record)?;
        let (handler, pull) = self.handlers(&spec, &record.settings)?;
        let parts = EngineParts {
            subscription: record.clone(),
            bounds: self.bounds.engine,
            source: self.source(record.id, start, org_id, &reader)?,
            handler: Arc::new(TracedHandler::new(
                handler,
                spec.span_kind(),
                record.org_id.clone(),
                record.name.clone(),
            )),
            store: Arc::clone(&self.store),
            clock: self.clock.clone(),
        };
        // It reads the store.
        let started = tokio::task::spawn_blocking(move || Engine::start(parts)).await;
        let engine = started.map_err(|_| Error::internal())?.map_err(failed)?;
        Ok(Running { record, handler: spec, engine, reader, pull })
    }

    /// Where a subscription's events come from.
    fn source(
        &self,
        subscription: SubscriptionId,
        start: Start,
        org_id: OrgId,
        reader: &Arc<dyn LogReader>,
    ) -> Result<Arc<dyn EventSource>, Error> {
        let (reader, arrived_from) = (Arc::clone(reader), start.arrived_from());
        if start == Start::Now {
            return Ok(Arc::new(LogSource::new(reader, org_id, arrived_from)));
        }
        let border = self.store.cut_over(subscription).map_err(store_failed)?;
        let (store, SubscriptionSources { log, events, arrivals }) = (Arc::clone(&self.store), self.sources.clone());
        let parts = PastParts { subscription, org_id, arrived_from, store, events, clock: arrivals, log, reader };
        Ok(Arc::new(PastSource::new(parts, border)))
    }

    fn handlers(&self, spec: &HandlerSpec, settings: &SubscriptionSettings) -> Result<Handlers, Error> {
        let (timeout, clock) = (Duration::from_millis(settings.timeout_ms), self.clock.clone());
        Ok(match spec {
            HandlerSpec::Trial => (Arc::new(TrialHandler::new(clock, Duration::ZERO)) as Arc<dyn Handler>, None),
            HandlerSpec::Pull => {
                let pull = Arc::new(PullHandler::new(clock, timeout));
                (Arc::clone(&pull) as Arc<dyn Handler>, Some(pull))
            }
            HandlerSpec::Webhook { url, secrets } => {
                let addresses = self.bounds.addresses;
                let webhook = WebhookSettings { url: url.clone(), secrets: secrets.clone(), timeout, addresses };
                let handler = WebhookHandler::new(&webhook, clock).map_err(|error| wrong_webhook(&error))?;
                (Arc::new(handler) as Arc<dyn Handler>, None)
            }
        })
    }

    /// Creates a subscription. Returns it and, if one was made, the secret of its webhooks.
    ///
    /// # Errors
    /// `Invalid` with every field that is wrong; `Conflict` when the organization has one of this name, or as many as
    /// it may have; `Exhausted` when there are as many as there may be in all; `Unavailable` when it cannot be recorded.
    pub async fn create(
        self: &Arc<Self>,
        org_id: &OrgId,
        name: &str,
        start: Start,
        draft: SubscriptionDraft,
    ) -> Result<(Subscription, Option<String>), Error> {
        let (subscriptions, org_id, name) = (Arc::clone(self), org_id.clone(), name.to_owned());
        to_its_end(async move { subscriptions.create_whole(&org_id, &name, start, draft).await }).await
    }

    async fn create_whole(
        &self,
        org_id: &OrgId,
        name: &str,
        start: Start,
        draft: SubscriptionDraft,
    ) -> Result<(Subscription, Option<String>), Error> {
        let mut faults = Vec::new();
        check_name(name, &mut faults);
        let settings = draft.settings(SubscriptionSettings::default(), &mut faults);
        let made = draft.handler.map(|handler| handler.with_secrets(None));
        let (handler, secret) = made.map_or((None, None), |(handler, secret)| (Some(handler), secret));
        match &handler {
            None => faults.push(FieldError::new("handler", "is required")),
            Some(handler) => faults.extend(self.handler_faults(handler)),
        }
        let Some(handler) = handler.filter(|_| faults.is_empty()) else { return Err(Error::invalid(faults)) };
        let _creating = self.creating.lock().await;
        let key = (org_id.as_str().to_owned(), name.to_owned());
        self.check_room(&key)?;
        let (reader, position) = self.reader_from(start).await;
        let record = SubscriptionRecord {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            org_id: key.0.clone(),
            name: key.1.clone(),
            settings: settings.clone(),
            handler: StoredSpec { handler, start }.write()?,
            start: position,
            created_at_ms: self.clock.now_ms(),
        };
        let id = record.id;
        let running = match self.record_and_run(record, &reader).await {
            Ok(running) => running,
            Err(error) => {
                reader.give_up();
                if let Err(error) = self.store.delete_subscription(id).await {
                    tracing::error!(%error, "a subscription that could not be started stays recorded");
                }
                return Err(error);
            }
        };
        let subscription = running.subscription(settings)?;
        tracing::info!(
            org_id = key.0,
            subscription = key.1,
            handler = running.handler.kind(),
            "a subscription was created"
        );
        self.insert(key, running);
        Ok((subscription, secret))
    }

    async fn record_and_run(&self, record: SubscriptionRecord, reader: &Arc<dyn LogReader>) -> Result<Running, Error> {
        self.store.put_subscription(record.clone()).await.map_err(store_failed)?;
        self.run(record, Arc::clone(reader)).await
    }

    /// Whether there may be one more.
    fn check_room(&self, key: &Key) -> Result<(), Error> {
        let entries = self.entries.read();
        if entries.contains_key(key) {
            return Err(Error::conflict(format!("there is a subscription with the name '{}' already", key.1)));
        }
        let own = entries.keys().filter(|(org, _)| *org == key.0).count();
        let max = self.bounds.per_organization_max;
        if own >= max {
            return Err(Error::conflict(format!("an organization may have {max} subscriptions; delete one first")));
        }
        if entries.len() >= self.bounds.subscriptions_max {
            let message = "this service has as many subscriptions as it may have (subscriptions_max)";
            return Err(Error::exhausted(message, super::RETRY_AFTER));
        }
        Ok(())
    }

    /// A reader for a new subscription, and where it begins.
    async fn reader_from(&self, start: Start) -> (Arc<dyn LogReader>, Position) {
        // It holds everything before the end is looked up, so that nothing goes meanwhile.
        let reader = self.sources.log.add_bounded_reader(0);
        if start != Start::Now {
            return (reader, position_of(start.arrived_from()));
        }
        let LogPosition { segment, row } = self.sources.log.end().await;
        reader.release(segment);
        (reader, Position { segment, row })
    }

    fn handler_faults(&self, handler: &HandlerSpec) -> Vec<FieldError> {
        self.handlers(handler, &SubscriptionSettings::default()).err().map(|error| error.fields).unwrap_or_default()
    }

    /// Changes a subscription. A new handler gets the events that the old one has not handled.
    ///
    /// # Errors
    /// `Invalid` with every field that is wrong, `NotFound`, `Unavailable` when it cannot be recorded.
    pub async fn change(
        self: &Arc<Self>,
        org_id: &OrgId,
        name: &str,
        draft: SubscriptionDraft,
    ) -> Result<Subscription, Error> {
        let (subscriptions, org_id, name) = (Arc::clone(self), org_id.clone(), name.to_owned());
        to_its_end(async move { subscriptions.change_whole(&org_id, &name, draft).await }).await
    }

    async fn change_whole(&self, org_id: &OrgId, name: &str, draft: SubscriptionDraft) -> Result<Subscription, Error> {
        let entry = self.entry(org_id, name)?;
        let is_there = entry.is_there.lock().await;
        if !*is_there {
            return Err(Error::not_found("there is no subscription with this name"));
        }
        let engine = entry.engine();
        let old = engine.settings().await.map_err(failed)?;
        let mut faults = Vec::new();
        let settings = draft.settings(old.clone(), &mut faults);
        let former = entry.running.lock().handler.clone();
        let handler = draft.handler.map_or(former.clone(), |handler| handler.with_secrets(Some(&former)).0);
        faults.extend(self.handler_faults(&handler));
        if !faults.is_empty() {
            return Err(Error::invalid(faults));
        }
        let is_pull = handler == HandlerSpec::Pull && former == HandlerSpec::Pull;
        let needs_new = handler != former || (settings.timeout_ms != old.timeout_ms && !is_pull);
        if needs_new {
            if settings.filter != old.filter {
                // What was read already is delivered whatever the new filter says, so it is recorded before.
                engine.update(SubscriptionSettings { filter: settings.filter.clone(), ..old }).await.map_err(failed)?;
            }
            self.replace(&entry, handler, settings.clone()).await?;
        } else {
            engine.update(settings.clone()).await.map_err(failed)?;
            if let Some(pull) = &entry.running.lock().pull {
                pull.set_timeout(Duration::from_millis(settings.timeout_ms));
            }
        }
        let changed = entry.running.lock().subscription(settings);
        drop(is_there);
        changed
    }

    /// Stops an engine, and starts it with another handler.
    async fn replace(&self, entry: &Entry, handler: HandlerSpec, settings: SubscriptionSettings) -> Result<(), Error> {
        let (engine, reader, pull, record) = {
            let running = entry.running.lock();
            let Running { engine, reader, pull, record, .. } = &*running;
            (engine.clone(), Arc::clone(reader), pull.clone(), record.clone())
        };
        let start = StoredSpec::read(&record)?.start;
        let handler = StoredSpec { handler, start }.write()?;
        let changed = SubscriptionRecord { settings, handler, ..record.clone() };
        if let Some(pull) = pull {
            pull.close();
        }
        engine.stop().await;
        let (running, error) = match self.record_and_run(changed, &reader).await {
            Ok(running) => (running, None),
            Err(error) => (self.run(record, reader).await?, Some(error)),
        };
        *entry.running.lock() = running;
        error.map_or(Ok(()), Err)
    }

    /// Pauses a subscription, or lets it go on.
    ///
    /// # Errors
    /// As [`Subscriptions::change`].
    pub async fn set_paused(
        self: &Arc<Self>,
        org_id: &OrgId,
        name: &str,
        is_paused: bool,
    ) -> Result<Subscription, Error> {
        let draft = SubscriptionDraft { is_paused: Some(is_paused), ..SubscriptionDraft::default() };
        self.change(org_id, name, draft).await
    }

    /// Deletes a subscription with everything of it.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable` when that cannot be recorded.
    pub async fn delete(self: &Arc<Self>, org_id: &OrgId, name: &str) -> Result<(), Error> {
        let (subscriptions, org_id, name) = (Arc::clone(self), org_id.clone(), name.to_owned());
        to_its_end(async move { subscriptions.delete_whole(&org_id, &name).await }).await
    }

    async fn delete_whole(&self, org_id: &OrgId, name: &str) -> Result<(), Error> {
        let entry = self.entry(org_id, name)?;
        let mut is_there = entry.is_there.lock().await;
        if !*is_there {
            return Err(Error::not_found("there is no subscription with this name"));
        }
        let (engine, reader, pull, id) = {
            let running = entry.running.lock();
            (running.engine.clone(), Arc::clone(&running.reader), running.pull.clone(), running.record.id)
        };
        if let Some(pull) = pull {
            pull.close();
        }
        engine.stop().await;
        self.store.delete_subscription(id).await.map_err(store_failed)?;
        *is_there = false;
        reader.give_up();
        self.entries.write().remove(&(org_id.as_str().to_owned(), name.to_owned()));
        tracing::info!(org_id = org_id.as_str(), subscription = name, "a subscription was deleted");
        Ok(())
    }
}

/// Takes a step to its end, also when whoever asked for it has gone: no engine stays stopped half-way.
async fn to_its_end<T: Send + 'static>(
    step: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    tokio::spawn(step).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a subscription could not be changed");
        Err(Error::internal())
    })
}

impl Running {
    /// As its organization sees it.
    pub(super) fn subscription(&self, settings: SubscriptionSettings) -> Result<Subscription, Error> {
        let StoredSpec { handler, start } = StoredSpec::read(&self.record)?;
        let created_at = Timestamp::from_millis(i64::try_from(self.record.created_at_ms).unwrap_or(i64::MAX));
        Ok(Subscription { name: self.record.name.clone(), start, handler, settings, created_at })
    }
}

fn wrong_webhook(error: &WebhookError) -> Error {
    match error {
        WebhookError::Url | WebhookError::Address => Error::invalid_field("handler.url", error.to_string()),
        WebhookError::Secret => Error::invalid_field("handler.secrets", error.to_string()),
        WebhookError::Client(cause) => {
            tracing::error!(%cause, "no client for webhooks can be made");
            Error::internal()
        }
    }
}
