//! Authentication: the one place where a request gets its organization, for every transport, from its
//! bearer token, or from the write key in its place.
//!
//! Without configured keys there is no authentication: every caller is the organization `default` and may
//! do everything. The service then listens on this machine only (see [`crate::server`]).

mod claims;
mod keys;
mod refusal;
mod scope;
mod source;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use source::AuthError;

pub(super) use refusal::Refusal;
pub(super) use scope::{RequiredAccess, Scope};

use super::concurrency::OrgUse;
use crate::clock::ArrivalClock;
use crate::config::Config;
use crate::domain::{Error, OrgId};
use crate::write_keys::WriteKeys;
use claims::{ClaimName, Rules};
use keys::VerifyError;
use scope::Scopes;
use source::Source;

/// How often a stream looks at the clock to see whether its token has expired.
/// (A timer alone would not notice a clock that was put forward.)
const EXPIRY_LOOK: Duration = Duration::from_secs(10);

/// Authenticates callers by their tokens.
#[derive(Clone)]
pub struct Callers {
    /// None without authentication.
    verifier: Option<Arc<Verifier>>,
    /// What everybody holds where there is no authentication.
    everybody: Arc<OrgUse>,
    /// The write keys that are accepted in place of tokens; none before [`Callers::accepting`].
    write_keys: Option<Arc<WriteKeys>>,
}

struct Verifier {
    source: Source,
    rules: Rules,
    /// Terms of tokens are judged by the time before a jump while the clock is in doubt.
    clock: Arc<ArrivalClock>,
    last_line_second: AtomicU64,
}

/// An authenticated caller.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// Its organization.
    pub(super) org_id: OrgId,
    scopes: Scopes,
    /// Whether a token or a write key says which organization it is.
    is_authenticated: bool,
    /// When its token expires, leeway included; none without a token.
    expires_at: Option<SystemTime>,
    /// By which that is judged; none without a token.
    clock: Option<Arc<ArrivalClock>>,
    /// The write key that it sent in place of a token.
    write_key: Option<SentKey>,
    /// What all calls of its organization hold at a time.
    pub(super) org_use: Arc<OrgUse>,
}

impl Callers {
    /// Opens the configured keys.
    ///
    /// # Errors
    /// Names the setting whose keys cannot be loaded.
    pub async fn open(config: &Config, clock: &Arc<ArrivalClock>) -> Result<Self, AuthError> {
        let rules = Rules {
            issuer: config.auth_issuer.clone(),
            audience: config.auth_audience.clone(),
            leeway: Duration::from_secs(config.auth_leeway_seconds.into()),
            org_uses: Arc::default(),
            org_claim: ClaimName::configured(&config.auth_org_claim),
            scope_claims: config.scope_claims().into_iter().map(ClaimName::configured).collect(),
        };
        let source = Source::open(config).await?;
        Ok(Self {
            verifier: source.map(|source| {
                let clock = Arc::clone(clock);
                Arc::new(Verifier { source, rules, clock, last_line_second: AtomicU64::new(0) })
            }),
            everybody: Arc::default(),
            write_keys: None,
        })
    }

    /// Accepts write keys in place of tokens, where a call only sends events.
    #[must_use]
    pub fn accepting(self, write_keys: Arc<WriteKeys>) -> Self {
        Self { write_keys: Some(write_keys), ..self }
    }

    /// Keeps the keys fresh until `stop`.
    pub fn keep_keys_fresh(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        let Some(verifier) = self.verifier.clone() else { return };
        let stop = stop.clone();
        tasks.spawn(async move { stop.run_until_cancelled(verifier.source.keep_fresh()).await });
    }

    /// Whether callers must show a token.
    pub(super) const fn are_authenticated(&self) -> bool {
        self.verifier.is_some()
    }

    /// Whether there is authentication and no set of keys has been read yet: every token is refused.
    pub(crate) fn lack_keys(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let verifier = self.verifier.clone();
        move || verifier.as_ref().is_some_and(|verifier| verifier.source.keys().is_none())
    }

    /// Authenticates a request by its bearer token, or by the write key in its place. The call requires this scope.
    pub(super) async fn caller(&self, headers: &HeaderMap, scope: Scope) -> Result<Caller, Refusal> {
        let caller = match &self.verifier {
            None => self.anybody(),
            Some(verifier) => match bearer_token(headers)? {
                key if WriteKeys::is_key(key) => self.keyed(verifier, key).await?,
                token => verifier.verify(token).await?,
            },
        };
        if caller.scopes.include(scope) { Ok(caller) } else { Err(Refusal::Scope(scope)) }
    }

    /// Who sent a request, by a write key from wherever its protocol has it.
    pub(super) async fn caller_by_key(&self, key: &str) -> Result<Caller, Refusal> {
        match &self.verifier {
            None => Ok(self.anybody()),
            Some(verifier) => self.keyed(verifier, key).await,
        }
    }

    /// Everybody, where there is no authentication.
    fn anybody(&self) -> Caller {
        Caller {
            org_id: OrgId::default_org(),
            scopes: Scopes::ALL,
            is_authenticated: false,
            expires_at: None,
            clock: None,
            write_key: None,
            org_use: Arc::clone(&self.everybody),
        }
    }

    async fn keyed(&self, verifier: &Verifier, key: &str) -> Result<Caller, Refusal> {
        let Some(keys) = &self.write_keys else { return Err(Refusal::UnknownWriteKey) };
        let org_id = keys.organization(key).await.map_err(|_| Refusal::NoWriteKeys)?;
        let org_id = org_id.ok_or(Refusal::UnknownWriteKey)?;
        Ok(Caller {
            org_use: verifier.rules.org_uses.of(&org_id),
            org_id,
            scopes: Scopes::parse([Scope::Ingest.as_str()]),
            is_authenticated: true,
            expires_at: None,
            clock: None,
            write_key: Some(SentKey { keys: Arc::clone(keys), text: Arc::from(key) }),
        })
    }
}

/// A write key that a caller sent.
#[derive(Clone)]
struct SentKey {
    keys: Arc<WriteKeys>,
    text: Arc<str>,
}

impl fmt::Debug for SentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SentKey(…)")
    }
}

impl Verifier {
    async fn verify(&self, token: &str) -> Result<Caller, Refusal> {
        match self.verify_now(token) {
            Err(VerifyError::UnknownKey) => {
                self.source.unknown_key().await;
                self.verify_now(token).map_err(|error| self.logged(error))
            }
            verified => verified.map_err(|error| self.logged(error)),
        }
    }

    fn verify_now(&self, token: &str) -> Result<Caller, VerifyError> {
        let no_keys = || VerifyError::Refused(Refusal::NoKeys, String::new());
        let caller = self.source.keys().ok_or_else(no_keys)?.verify(token, &self.rules, self.clock.system_time())?;
        Ok(Caller { clock: Some(Arc::clone(&self.clock)), ..caller })
    }

    /// The detail goes to the log, the rest to the caller. At most one line a second, so that
    /// invalid tokens cannot flood the log.
    fn logged(&self, error: VerifyError) -> Refusal {
        let (refusal, detail) = match error {
            VerifyError::UnknownKey => (Refusal::Untrusted, "its key is not known".to_owned()),
            VerifyError::Refused(refusal, detail) => (refusal, detail),
        };
        let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if self.last_line_second.swap(second, Ordering::Relaxed) != second {
            tracing::info!(?refusal, detail, "a token was refused");
        }
        refusal
    }
}

/// The token of `Authorization: Bearer …` (RFC 6750, 2.1).
fn bearer_token(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Refusal::Missing)?;
    if values.next().is_some() {
        return Err(Refusal::Malformed);
    }
    let value = value.to_str().map_err(|_| Refusal::Malformed)?;
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(Refusal::Missing),
    }
}

impl Caller {
    fn is_expired(&self, now: SystemTime) -> bool {
        self.expires_at.is_some_and(|expires_at| now >= expires_at)
    }

    /// Refuses another organization than the caller's. (Without authentication, any name is
    /// accepted.)
    pub(super) fn must_be(&self, org_id: &str) -> Result<(), Refusal> {
        let is_so = !self.is_authenticated || self.org_id.as_str() == org_id;
        if is_so { Ok(()) } else { Err(Refusal::OtherOrganization) }
    }

    /// The organization that a request is about by name: the caller's own. (Any,
    /// without authentication.)
    ///
    /// # Errors
    /// `Forbidden` for another one, `Invalid` for what is none.
    pub(super) fn organization(&self, org_id: &str) -> Result<OrgId, Error> {
        self.must_be(org_id).map_err(Refusal::error)?;
        OrgId::parse(org_id).ok_or_else(|| Error::invalid_field("org_id", OrgId::EXPECTED))
    }

    /// Returns when the token has expired or the write key has been revoked, with what a stream then ends with.
    pub(super) fn expired(&self) -> impl Future<Output = Error> + Send + 'static {
        let judged_by = self.expires_at.zip(self.clock.clone());
        let write_key = self.write_key.clone();
        async move {
            if let Some(SentKey { keys, text }) = write_key {
                keys.revoked(&text).await;
                return Refusal::UnknownWriteKey.error();
            }
            let Some((expires_at, clock)) = judged_by else { return std::future::pending().await };
            while let Ok(left) = expires_at.duration_since(clock.system_time()) {
                // At least a millisecond: timers are no finer.
                tokio::time::sleep(left.clamp(Duration::from_millis(1), EXPIRY_LOOK)).await;
            }
            Refusal::Expired.error()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::clock::tests::SetClock;

    #[test]
    fn a_bearer_token_is_found_in_its_header_only() {
        let check = |values: &[&'static str], expected: Result<&str, Refusal>| {
            let pairs = values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_static(value)));
            assert_eq!(bearer_token(&HeaderMap::from_iter(pairs)), expected, "{values:?}");
        };
        check(&[], Err(Refusal::Missing));
        check(&["Basic YTpi"], Err(Refusal::Missing));
        check(&["Bearer"], Err(Refusal::Missing));
        check(&["Bearer a.b.c"], Ok("a.b.c"));
        check(&["bearer  a.b.c "], Ok("a.b.c"));
    }

    fn caller(expires_at: Option<SystemTime>, clock: ArrivalClock) -> Caller {
        Caller {
            org_id: OrgId::default_org(),
            scopes: Scopes::ALL,
            is_authenticated: true,
            expires_at,
            clock: Some(Arc::new(clock)),
            write_key: None,
            org_use: Arc::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_is_told_when_its_token_has_expired() {
        let over = caller(Some(SystemTime::now()), ArrivalClock::default()).expired().await;
        assert_eq!(over, Refusal::Expired.error());
        let hour = Duration::from_secs(3_600);
        let never = tokio::time::timeout(hour, caller(None, ArrivalClock::default()).expired()).await;
        assert!(never.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_jumps_expires_no_token() {
        let source = SetClock::new();
        let clock = source.clock();
        let in_an_hour = clock.system_time() + Duration::from_secs(3_600);
        let caller = caller(Some(in_an_hour), clock);
        source.set(800 * 86_400_000_000);
        let early = tokio::time::timeout(Duration::from_secs(60), caller.expired()).await;
        assert!(early.is_err(), "the jump is not believed");
        source.set(-800 * 86_400_000_000);
        source.pass(3_601_000_000);
        assert_eq!(caller.expired().await, Refusal::Expired.error());
    }
}
