//! Verifies that a caller is an administrator.

use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::failure::Failure;
use super::{MountedApi, body};

/// Why a caller is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// There is no token.
    Missing,
    /// The token is not an administrator's.
    Wrong,
    /// The token cannot be verified at the moment.
    Unavailable,
}

/// Verifies other tokens of administrators than those of the catalogue.
#[async_trait]
pub trait AdminVerifier: Send + Sync + 'static {
    /// Judges the token in the headers of a request.
    async fn verify(&self, headers: &HeaderMap) -> Result<(), Denial>;
}

/// Admin tokens. Only their hashes are kept, so that comparisons take constant time.
#[derive(Clone, Debug, Default)]
pub struct AdminTokens(Vec<[u8; 32]>);

impl AdminTokens {
    /// These tokens.
    pub fn new<'t>(tokens: impl IntoIterator<Item = &'t str>) -> Self {
        Self(tokens.into_iter().map(hash).collect())
    }

    /// Whether a token is one of them. All are compared, whichever it is.
    #[must_use]
    pub fn include(&self, token: &str) -> bool {
        let given = hash(token);
        self.0.iter().fold(Choice::from(0), |found, known| found | known.ct_eq(&given)).into()
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Admits administrators.
pub(super) async fn admit(State(mounted): State<MountedApi>, request: Request, next: Next) -> Response {
    match check(&mounted, request.headers()).await {
        Ok(()) => next.run(request).await,
        Err(denial) => {
            body::drain(request).await;
            Failure::from(denial).into_response()
        }
    }
}

async fn check(mounted: &MountedApi, headers: &HeaderMap) -> Result<(), Denial> {
    let token = bearer_token(headers)?;
    if mounted.api.tokens.include(token) {
        return Ok(());
    }
    let verifier: &Arc<dyn AdminVerifier> = mounted.api.verifier.as_ref().ok_or(Denial::Wrong)?;
    verifier.verify(headers).await
}

/// The token of `Authorization: Bearer …` (RFC 6750, 2.1).
fn bearer_token(headers: &HeaderMap) -> Result<&str, Denial> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Denial::Missing)?;
    if values.next().is_some() {
        return Err(Denial::Wrong);
    }
    let value = value.to_str().map_err(|_| Denial::Wrong)?;
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(Denial::Missing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_counts_whole() {
        let tokens = AdminTokens::new(["first", "second"]);
        for (token, expected) in [("first", true), ("second", true), ("", false), ("firs", false), ("firsts", false)] {
            assert_eq!(tokens.include(token), expected, "{token}");
        }
        assert!(!AdminTokens::default().include(""));
        assert!(!format!("{tokens:?}").contains("first"));
    }
}
