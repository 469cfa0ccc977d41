//! Notifications as log lines.

use async_trait::async_trait;

use super::{Notifier, SendError};
use crate::domain::Notification;

/// Writes each notification as a log line at level INFO. It never fails. The default if no webhook
/// URL is set.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogNotifier;

#[async_trait]
impl Notifier for LogNotifier {
    async fn send(&self, notification: &Notification) -> Result<(), SendError> {
        let Notification { id, show_id, kind, message, .. } = notification;
        tracing::info!(id, %show_id, kind = kind.as_str(), "{message}");
        Ok(())
    }
}
