//! Sources of keys and their refresh: a file is checked every second, a URL is fetched periodically and
//! when a token names an unknown key.
//!
//! Keys that are removed from the set are no longer used. If a set cannot be read, the previous keys stay
//! in use.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::time::{Instant, sleep};

use super::keys::KeySet;
use crate::config::Config;
use crate::regular_file;

/// Interval of checks of a file.
const FILE_PAUSE: Duration = Duration::from_secs(1);
/// Longest time of a fetch.
const FETCH_WAIT_MAX: Duration = Duration::from_secs(5);
/// Largest set, in bytes.
const SET_BYTES_MAX: usize = 1 << 20;
/// Shortest time between two fetches because of unknown keys.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(5);
/// Requests that may wait for such a fetch.
const WAITING_MAX: usize = 64;

/// Why no keys can be loaded at start. Names the setting.
#[derive(Debug, thiserror::Error)]
#[error("the setting {setting}: {message}")]
pub struct AuthError {
    setting: &'static str,
    message: String,
}

/// The current keys and their source.
pub(super) struct Source {
    origin: Origin,
    keys: RwLock<Option<Arc<KeySet>>>,
    /// The text of the keys of now.
    text: Mutex<Vec<u8>>,
    /// What was last said of a set that cannot be read, so as to say it once.
    complaint: Mutex<String>,
}

enum Origin {
    /// They never change.
    Settings,
    File(PathBuf),
    Url(Remote),
}

struct Remote {
    url: String,
    client: reqwest::Client,
    refresh_pause: Duration,
    /// When a fetch because of an unknown key last began. Held while it runs.
    asked_at: AsyncMutex<Option<Instant>>,
    waiting: Semaphore,
}

impl Source {
    /// The keys that the configuration names, which is one place at the most;
    /// none when it names no place.
    ///
    /// # Errors
    /// When a file has no keys. (A URL may have some later.)
    pub(super) async fn open(config: &Config) -> Result<Option<Self>, AuthError> {
        if !config.auth_hs256_secret.expose().is_empty() {
            let source = Self::new(Origin::Settings);
            *source.keys.write() = Some(Arc::new(KeySet::of_secret(&config.auth_hs256_secret)));
            return Ok(Some(source));
        }
        if !config.auth_jwks_file.is_empty() {
            let source = Self::new(Origin::File(PathBuf::from(&config.auth_jwks_file)));
            let failed = |message| AuthError { setting: "auth_jwks_file", message };
            source.load().await.map_err(failed)?;
            if source.keys().is_none_or(|keys| keys.len() == 0) {
                return Err(failed("it has no public key (RSA, P-256, P-384 or Ed25519)".to_owned()));
            }
            return Ok(Some(source));
        }
        if !config.auth_jwks_url.is_empty() {
            let remote = Remote::new(config)
                .map_err(|error| AuthError { setting: "auth_jwks_url", message: error.to_string() })?;
            let source = Self::new(Origin::Url(remote));
            source.refresh().await;
            return Ok(Some(source));
        }
        Ok(None)
    }

    fn new(origin: Origin) -> Self {
        Self { origin, keys: RwLock::default(), text: Mutex::default(), complaint: Mutex::default() }
    }

    /// The keys of now; none when there have never been any.
    pub(super) fn keys(&self) -> Option<Arc<KeySet>> {
        self.keys.read().clone()
    }

    /// Refreshes the keys. Never returns.
    pub(super) async fn keep_fresh(&self) {
        let pause = match &self.origin {
            Origin::Settings => return,
            Origin::File(_) => FILE_PAUSE,
            Origin::Url(remote) => remote.refresh_pause,
        };
        loop {
            // A URL that has not answered yet is asked more often.
            sleep(if self.keys().is_some() { pause } else { pause.min(UNKNOWN_KEY_PAUSE) }).await;
            self.refresh().await;
        }
    }

    /// Returns when the keys may include one that was unknown, or need not be
    /// looked at again. Only requests with unknown keys come here, and what
    /// they can cause is bounded.
    pub(super) async fn unknown_key(&self) {
        let Origin::Url(remote) = &self.origin else { return };
        let Ok(_place) = remote.waiting.try_acquire() else { return };
        let mut asked_at = remote.asked_at.lock().await;
        if asked_at.is_some_and(|at| at.elapsed() < UNKNOWN_KEY_PAUSE) {
            return;
        }
        *asked_at = Some(Instant::now());
        self.refresh().await;
    }

    async fn refresh(&self) {
        let complaint = self.load().await.err().unwrap_or_default();
        let mut last = self.complaint.lock();
        if !complaint.is_empty() && *last != complaint {
            tracing::warn!(error = complaint, "could not read the keys for tokens; the previous keys stay in use");
        }
        *last = complaint;
    }

    /// Reads the set, and takes it over if it has changed.
    async fn load(&self) -> Result<(), String> {
        let text = match &self.origin {
            Origin::Settings => return Ok(()),
            Origin::File(path) => regular_file::read(path, SET_BYTES_MAX).await?,
            Origin::Url(remote) => remote.fetch().await?,
        };
        if text.len() > SET_BYTES_MAX {
            return Err(format!("the set has more than {SET_BYTES_MAX} bytes"));
        }
        if *self.text.lock() == text && self.keys().is_some() {
            return Ok(());
        }
        let keys = KeySet::parse(&text).map_err(|error| error.to_string())?;
        tracing::info!(keys = keys.len(), "loaded the keys for tokens");
        *self.text.lock() = text;
        *self.keys.write() = Some(Arc::new(keys));
        Ok(())
    }
}

impl Remote {
    fn new(config: &Config) -> Result<Self, reqwest::Error> {
        let url = config.auth_jwks_url.clone();
        // A redirection could lead to where the way is not private.
        let client = reqwest::Client::builder().timeout(FETCH_WAIT_MAX).redirect(reqwest::redirect::Policy::none());
        let is_here = url.starts_with("http://");
        let client = if is_here { client.no_proxy() } else { client }.build()?;
        Ok(Self {
            url,
            client,
            refresh_pause: Duration::from_secs(config.auth_jwks_refresh_seconds.into()),
            asked_at: AsyncMutex::default(),
            waiting: Semaphore::new(WAITING_MAX),
        })
    }

    async fn fetch(&self) -> Result<Vec<u8>, String> {
        let failed = |error: reqwest::Error| format!("{error:?}");
        let mut answer = self.client.get(&self.url).send().await.map_err(failed)?;
        if answer.status() != reqwest::StatusCode::OK {
            return Err(format!("{} answers {}", self.url, answer.status()));
        }
        let mut text = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(failed)? {
            text.extend_from_slice(&piece);
            if text.len() > SET_BYTES_MAX {
                break;
            }
        }
        Ok(text)
    }
}
