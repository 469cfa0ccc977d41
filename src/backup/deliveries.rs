//! The store of deliveries: its copy, and the deletion of a user, with or without a service that has it open.

use std::io;
use std::path::Path;

use tallyhouse_delivery::store::{DeliveryStore, StoreError};

use super::{DELIVERIES_FILE, has_held_segments, log_files};
use crate::deliveries::operator::{OperatorRequest, OperatorResponse, ask, copy_store};
use crate::domain::OrgId;

/// The store could not be copied or changed.
#[derive(Debug, thiserror::Error)]
pub enum DeliveriesError {
    /// A file, or the service's socket.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the service says.
    #[error("{0}")]
    Refused(String),
    /// Events of the user may be among those.
    #[error("subscriptions have not read all of the log: start the service, and run this again")]
    Unread,
}

/// Copies the store of a data directory into a backup. Says whether there is one. To be called after the log was copied.
///
/// # Errors
/// When that is not possible.
pub async fn copy(data_dir: &Path, backup: &Path) -> Result<bool, DeliveriesError> {
    let (file, copy) = (data_dir.join(DELIVERIES_FILE), backup.join(DELIVERIES_FILE));
    if !file.try_exists()? {
        return Ok(false);
    }
    match ask(data_dir, &OperatorRequest::CopyStore).await? {
        None => {
            let copied = tokio::task::spawn_blocking(move || copy_store(&DeliveryStore::open(&file)?, &copy));
            copied.await.map_err(io::Error::other)??;
        }
        Some(OperatorResponse::Copied { file }) => {
            let made = data_dir.join(file);
            let copied = log_files::copy_file(&made, &copy);
            std::fs::remove_file(&made)?;
            copied?;
        }
        Some(other) => return Err(refused(other)),
    }
    Ok(true)
}

/// Deletes what subscriptions hold of a user: events that wait, and dead letters. Returns how many.
///
/// # Errors
/// When that is not possible.
pub async fn erase_user(data_dir: &Path, org_id: &OrgId, user_id: &str) -> Result<u64, DeliveriesError> {
    let (org_id, user_id) = (org_id.as_str().to_owned(), user_id.to_owned());
    let request = OperatorRequest::EraseUser { org_id: org_id.clone(), user_id: user_id.clone() };
    match ask(data_dir, &request).await? {
        Some(OperatorResponse::Erased { events }) => return Ok(events),
        Some(other) => return Err(refused(other)),
        None => {}
    }
    let file = data_dir.join(DELIVERIES_FILE);
    if !file.try_exists()? {
        return Ok(0);
    }
    if has_held_segments(data_dir)? {
        return Err(DeliveriesError::Unread);
    }
    let erase = move || {
        let store = DeliveryStore::open(&file)?;
        let own = store.subscriptions()?.into_iter().filter(|record| record.org_id == org_id);
        own.map(|record| store.erase_user(record.id, &user_id)).sum::<Result<u64, StoreError>>()
    };
    Ok(tokio::task::spawn_blocking(erase).await.map_err(io::Error::other)??)
}

fn refused(response: OperatorResponse) -> DeliveriesError {
    DeliveriesError::Refused(match response {
        OperatorResponse::Failed { error } => error,
        other => format!("the service gave another answer: {other:?}"),
    })
}
