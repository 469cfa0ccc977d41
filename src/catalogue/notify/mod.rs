//! Notifications about shows. A notification is committed with the change that it
//! is about; the [`Dispatcher`] sends it afterwards, and retries until it is
//! delivered or given up.
//!
//! [`Notifier`] is the port. [`LogNotifier`] writes log lines; [`WebhookNotifier`]
//! sends Standard Webhooks. A mail service would be another one.

mod backoff;
mod dispatcher;
mod log;
mod outbox;
mod webhook;

use std::time::Duration;

use async_trait::async_trait;

pub use backoff::Backoff;
pub use dispatcher::{Dispatcher, DispatcherSettings};
pub use log::LogNotifier;
pub use outbox::{AttemptCounts, Outbox};
pub use webhook::{WebhookNotifier, WebhookSettings, WebhookSettingsError};

use crate::domain::Notification;

/// Why an attempt to send a notification failed. The receiver may have got it
/// nevertheless, such as when its answer was lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SendError {
    /// The error.
    pub message: String,
    /// The `Retry-After` of the receiver.
    pub retry_after: Option<Duration>,
}

/// Sends notifications to their receiver.
#[async_trait]
pub trait Notifier: Send + Sync + 'static {
    /// Sends one. It may have been sent before: its id is the same then.
    async fn send(&self, notification: &Notification) -> Result<(), SendError>;
}
