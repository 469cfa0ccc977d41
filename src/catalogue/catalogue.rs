//! The application service of the catalogue: all operations on shows. All transports call it.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::domain::{
    FieldFault, Fields, Fingerprint, IdempotencyKey, ListQuery, Listing, NewShow, Notification, Page, Refusal, Show,
    ShowChange, ShowId, Timestamp, Version,
};
use crate::store::{
    CatalogueStore, ChangeOutcome, InsertOutcome, KeptAnswer, KeyUse, NotificationRecord, NotificationState, StoreError,
};

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// Fields are invalid.
    #[error("validation failed")]
    Invalid(Vec<FieldFault>),
    /// The show does not exist, or the caller must not see it.
    #[error("there is no such event")]
    NotFound,
    /// The change was refused.
    #[error("the change is refused: {0:?}")]
    Refused(Refusal),
    /// The key was used for another body.
    #[error("the idempotency key was used with another body")]
    KeyReused,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The result of creating a show.
#[derive(Debug)]
pub struct Created {
    /// The created show.
    pub show: Show,
    /// Whether an earlier call with the same key created it.
    pub is_replayed: bool,
}

/// The operations on shows: create, change, read, list, and notifications. All transports use it.
pub struct Catalogue {
    store: Arc<dyn CatalogueStore>,
    clock: Clock,
    changed: Arc<Notify>,
}

impl Catalogue {
    /// Creates it for this store. Notifies `changed` when there are notifications to send.
    pub fn new(store: Arc<dyn CatalogueStore>, clock: Clock, changed: Arc<Notify>) -> Self {
        Self { store, clock, changed }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Creates a show, once for each key.
    ///
    /// # Errors
    /// `Invalid`, `KeyReused`, `Store`.
    pub async fn create(&self, fields: Fields, key: Option<IdempotencyKey>) -> Result<Created, CatalogueError> {
        let now = self.clock.now();
        let key = key.map(|key| KeyUse { key, fingerprint: Fingerprint::of(&fields) });
        // Before the fields are judged: a repeated call is answered as it was, though its show may have begun.
        if let Some(key) = &key
            && let Some(kept) = self.store.kept_answer(key, now).await?
        {
            return replayed(kept);
        }
        let new = NewShow::parse(fields, now).map_err(CatalogueError::Invalid)?;
        let kinds = new.notifications();
        let show = new.into_show(ShowId::random(), now);
        let notifications: Vec<_> = kinds.into_iter().map(|kind| Notification::about(&show, kind, now)).collect();
        match self.store.insert(&show, &notifications, key.as_ref()).await? {
            InsertOutcome::New => {
                self.changed.notify_one();
                Ok(Created { show, is_replayed: false })
            }
            InsertOutcome::Kept(kept) => replayed(kept),
        }
    }

    /// Changes a show that is in one of the `expected` versions (none: in any).
    ///
    /// # Errors
    /// `Invalid`, `NotFound`, `Refused`, `Store`.
    pub async fn change(
        &self,
        id: ShowId,
        fields: Fields,
        expected: Option<Vec<Version>>,
    ) -> Result<Show, CatalogueError> {
        let change = ShowChange::parse(fields).map_err(CatalogueError::Invalid)?;
        let now = self.clock.now();
        let decide = |show: &Show| change.decide(show, expected.as_deref(), now);
        match self.store.change(id, &decide).await? {
            ChangeOutcome::Missing => Err(CatalogueError::NotFound),
            ChangeOutcome::Refused(refusal) => Err(CatalogueError::Refused(refusal)),
            ChangeOutcome::Kept(show) => Ok(*show),
            ChangeOutcome::Replaced(show) => {
                self.changed.notify_one();
                Ok(*show)
            }
        }
    }

    /// A show, for administrators.
    ///
    /// # Errors
    /// `NotFound`, `Store`.
    pub async fn show(&self, id: ShowId) -> Result<Show, CatalogueError> {
        self.store.show(id).await?.ok_or(CatalogueError::NotFound)
    }

    /// A show for the public.
    ///
    /// # Errors
    /// `NotFound`, also for drafts; `Store`.
    pub async fn public_show(&self, id: ShowId) -> Result<Show, CatalogueError> {
        self.show(id)
            .await
            .and_then(|show| if show.status.is_public() { Ok(show) } else { Err(CatalogueError::NotFound) })
    }

    /// One page of shows.
    ///
    /// # Errors
    /// `Store`.
    pub async fn list(&self, query: &ListQuery) -> Result<Listing, CatalogueError> {
        Ok(self.store.list(query).await?)
    }

    /// One page of notifications.
    ///
    /// # Errors
    /// `Store`.
    pub async fn notifications(
        &self,
        states: &[NotificationState],
        page: Page,
    ) -> Result<(Vec<NotificationRecord>, u64), CatalogueError> {
        Ok(self.store.notifications(states, page).await?)
    }

    /// Retries a notification that was given up.
    ///
    /// # Errors
    /// `NotFound` when there is no such notification, or it was not given up;
    /// `Store`.
    pub async fn retry_notification(&self, id: &str) -> Result<(), CatalogueError> {
        if !self.store.retry_given_up(id, self.clock.now()).await? {
            return Err(CatalogueError::NotFound);
        }
        self.changed.notify_one();
        Ok(())
    }
}

fn replayed(kept: KeptAnswer) -> Result<Created, CatalogueError> {
    match kept {
        KeptAnswer::Same(show) => Ok(Created { show: *show, is_replayed: true }),
        KeptAnswer::OtherBody => Err(CatalogueError::KeyReused),
    }
}
