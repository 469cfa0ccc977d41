//! Write keys of organizations: created, listed, revoked, and looked up for every call that sends one.
//!
//! A write key goes where a token cannot: into a page's source, or into the configuration of somebody else's
//! library. It allows one thing, to send events of its organization. Its text is shown once, when it is created;
//! kept is its SHA-256. (The text has 192 random bits, so a digest without salt gives nothing away.)
//!
//! All keys that may be used are in memory, so that events go on being taken while ClickHouse is away. They are read
//! when the service starts, every [`REFRESH_PAUSE`], and when a key comes that is not known. A key that was revoked
//! through another instance is therefore refused here within [`REFRESH_PAUSE`]; one revoked here, at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use parking_lot::RwLock;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use uuid::Uuid;

use crate::clickhouse::error::QueryError;
use crate::clickhouse::query_limiter::QueryLimiter;
use crate::clickhouse::write_keys::WriteKeyStore;
use crate::clock::ArrivalClock;
use crate::domain::{Error, OrgId, WriteKey};
use crate::fairness::Tenant;

/// Most keys of an organization that have not been revoked.
pub const KEYS_MAX: usize = 100;
/// Time between two readings of all keys.
pub const REFRESH_PAUSE: Duration = Duration::from_secs(10);
/// Least time between two readings because of keys that are not known.
const UNKNOWN_PAUSE: Duration = Duration::from_secs(1);
/// How long a caller is told to wait while keys have not been read.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Random bytes of a key.
const RANDOM_BYTES: usize = 24;
/// Characters of a key's text that are kept to tell it from others, [`WriteKey::TEXT_PREFIX`] included.
const PREFIX_CHARS: usize = 10;

/// The SHA-256 of a key's text, in hexadecimal.
type KeyDigest = String;

/// Keeps and looks up write keys.
pub struct WriteKeys {
    store: WriteKeyStore,
    limiter: Arc<QueryLimiter>,
    clock: Arc<ArrivalClock>,
    /// Whose events each usable key may send; none before they have been read for the first time.
    usable: RwLock<Option<HashMap<KeyDigest, OrgId>>>,
    /// When they were read last. Held while they are read.
    last_read: tokio::sync::Mutex<Option<Instant>>,
}

impl WriteKeys {
    /// With no key read yet: see [`WriteKeys::refresh`].
    pub fn new(store: WriteKeyStore, limiter: Arc<QueryLimiter>, clock: Arc<ArrivalClock>) -> Self {
        Self { store, limiter, clock, usable: RwLock::default(), last_read: tokio::sync::Mutex::default() }
    }

    /// Creates a key: what is listed of it, and its text, which is not kept.
    ///
    /// # Errors
    /// `Invalid` for a name that is none, `Conflict` when the organization has [`KEYS_MAX`] keys, those of
    /// ClickHouse.
    pub async fn create(&self, org_id: &OrgId, name: &str) -> Result<(WriteKey, String), Error> {
        WriteKey::check_name(name)?;
        let keys = self.list(org_id).await?;
        if keys.iter().filter(|key| key.revoked_at.is_none()).count() >= KEYS_MAX {
            return Err(Error::conflict(format!("an organization may have {KEYS_MAX} write keys; revoke one first")));
        }
        let random = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; RANDOM_BYTES]>());
        let text = format!("{}{random}", WriteKey::TEXT_PREFIX);
        let key = WriteKey {
            org_id: org_id.clone(),
            key_id: Uuid::now_v7().to_string(),
            name: name.to_owned(),
            prefix: text.chars().take(PREFIX_CHARS).collect(),
            created_at: self.clock.now(),
            revoked_at: None,
        };
        let digest = digest(&text);
        // A reading that began before would not have it.
        let _no_reading = self.last_read.lock().await;
        self.limiter.run(org_id, |_| self.store.put(&key, &digest, self.clock.arrivals(1))).await?;
        if let Some(usable) = &mut *self.usable.write() {
            usable.insert(digest, org_id.clone());
        }
        Ok((key, text))
    }

    /// Every key of an organization, the oldest first; those that were revoked too.
    ///
    /// # Errors
    /// Those of ClickHouse.
    pub async fn list(&self, org_id: &OrgId) -> Result<Vec<WriteKey>, Error> {
        let keys = self.limiter.run(org_id, |ticket| self.store.list(ticket, org_id)).await?;
        Ok(keys.into_iter().map(|(key, _)| key).collect())
    }

    /// Revokes a key for good. One that was revoked before stays as it is.
    ///
    /// # Errors
    /// `NotFound` when the organization has no such key, those of ClickHouse.
    pub async fn revoke(&self, org_id: &OrgId, key_id: &str) -> Result<WriteKey, Error> {
        let keys = self.limiter.run(org_id, |ticket| self.store.list(ticket, org_id)).await?;
        let found = keys.into_iter().find(|(key, _)| key.key_id == key_id);
        let (key, digest) = found.ok_or_else(|| Error::not_found("there is no write key with this id"))?;
        if key.revoked_at.is_some() {
            return Ok(key);
        }
        let key = WriteKey { revoked_at: Some(self.clock.now()), ..key };
        // A reading that began before would still have it.
        let _no_reading = self.last_read.lock().await;
        self.limiter.run(org_id, |_| self.store.put(&key, &digest, self.clock.arrivals(1))).await?;
        if let Some(usable) = &mut *self.usable.write() {
            usable.remove(&digest);
        }
        Ok(key)
    }

    /// Whether a text may be a write key, by how it begins.
    pub fn is_key(text: &str) -> bool {
        text.starts_with(WriteKey::TEXT_PREFIX)
    }

    /// Whose events a key may send; none when there is no such key, or it was revoked.
    ///
    /// # Errors
    /// `Unavailable` as long as keys could not be read even once.
    pub async fn organization(&self, text: &str) -> Result<Option<OrgId>, Error> {
        let digest = digest(text);
        if let Some(org_id) = self.known(&digest) {
            return Ok(Some(org_id));
        }
        if let Err(error) = self.refresh_for_unknown().await {
            tracing::warn!(%error, "write keys cannot be read");
        }
        match &*self.usable.read() {
            Some(usable) => Ok(usable.get(&digest).cloned()),
            None => Err(Error::unavailable("write keys have not been read yet", RETRY_AFTER)),
        }
    }

    /// Returns once a key can no longer be used.
    pub async fn revoked(&self, text: &str) {
        let digest = digest(text);
        while self.known(&digest).is_some() {
            tokio::time::sleep(REFRESH_PAUSE).await;
        }
    }

    fn known(&self, digest: &str) -> Option<OrgId> {
        self.usable.read().as_ref().and_then(|usable| usable.get(digest).cloned())
    }

    /// Reads all keys, unless that was done a moment ago.
    async fn refresh_for_unknown(&self) -> Result<(), QueryError> {
        let mut last_read = self.last_read.lock().await;
        if last_read.is_some_and(|read| read.elapsed() < UNKNOWN_PAUSE) {
            return Ok(());
        }
        self.read(&mut last_read).await
    }

    /// Reads all keys.
    ///
    /// # Errors
    /// When ClickHouse does not answer. The keys that were read before stay in use.
    pub async fn refresh(&self) -> Result<(), QueryError> {
        let mut last_read = self.last_read.lock().await;
        self.read(&mut last_read).await
    }

    /// The pause to the next reading begins when this one ends, even when it failed: callers that waited for a
    /// ClickHouse that does not answer must not wait for it one after the other.
    async fn read(&self, last_read: &mut Option<Instant>) -> Result<(), QueryError> {
        let keys = self.limiter.try_run(Tenant::Service, |ticket| self.store.usable(ticket)).await;
        *last_read = Some(Instant::now());
        let keys = keys?;
        let read = keys.into_iter().filter_map(|key| OrgId::parse(&key.org_id).map(|org_id| (key.digest, org_id)));
        *self.usable.write() = Some(read.collect());
        Ok(())
    }

    /// Reads all keys again and again, for ever.
    pub async fn keep_fresh(&self) {
        let mut fails = false;
        loop {
            let refreshed = self.refresh().await;
            if let Err(error) = &refreshed
                && !fails
            {
                tracing::warn!(%error, "write keys cannot be read; those that are known stay in use");
            }
            fails = refreshed.is_err();
            tokio::time::sleep(REFRESH_PAUSE).await;
        }
    }
}

fn digest(text: &str) -> KeyDigest {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
