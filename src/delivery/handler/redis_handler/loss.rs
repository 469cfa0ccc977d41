//! Detects that Redis has lost data: Redis counts the records that it was given, and the store knows how many there were.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::keys;
use crate::redis::{RedisConnection, RedisError};

/// Detects that Redis has lost data of this subscription, by the number of its records.
#[derive(Clone)]
pub struct RedisLoss {
    connection: Arc<RedisConnection>,
    counts_field: String,
    is_lost: Arc<AtomicBool>,
}

impl RedisLoss {
    pub(super) fn new(connection: Arc<RedisConnection>, counts_field: String) -> Self {
        Self { connection, counts_field, is_lost: Arc::default() }
    }

    /// Whether data was missing when that was last looked at.
    pub fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }

    /// Looks whether Redis has as many records as the store knows of.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn check(&self, recorded: u64) -> Result<bool, RedisError> {
        let mut pipeline = ::redis::pipe();
        pipeline.cmd("HGET").arg(keys::COUNTS).arg(&self.counts_field);
        let counts: Vec<Option<u64>> = self.connection.send(pipeline).await?;
        let count = counts.into_iter().next().flatten().unwrap_or_default();
        let is_lost = count < recorded;
        if self.is_lost.swap(is_lost, Ordering::Relaxed) != is_lost {
            if is_lost {
                tracing::error!(
                    records = count,
                    recorded,
                    "Redis has lost records of processed events; rebuild them: `tallyhouse deliveries rebuild`"
                );
            } else {
                tracing::info!(records = count, "Redis has all records of processed events");
            }
        }
        Ok(is_lost)
    }

    pub(super) async fn set(&self, recorded: u64) -> Result<(), RedisError> {
        let mut pipeline = ::redis::pipe();
        pipeline.cmd("HSET").arg(keys::COUNTS).arg(&self.counts_field).arg(recorded);
        let _: Vec<i64> = self.connection.send(pipeline).await?;
        self.check(recorded).await.map(drop)
    }
}
