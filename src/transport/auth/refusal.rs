//! Why a request is refused, as far as its caller is told. The details are in the log.

use std::time::Duration;

use super::scope::Scope;
use crate::domain::Error;

/// The `retry_after` while there are no keys.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Why a token is refused. Callers are told the kind only; the log has the details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) enum Refusal {
    /// The token is missing.
    Missing,
    /// The token is malformed.
    Malformed,
    /// No known key has signed it.
    Untrusted,
    /// It has expired.
    Expired,
    /// It is not valid yet.
    NotYet,
    /// A claim is missing or not accepted.
    Claim(&'static str),
    /// It does not include a scope.
    Scope(Scope),
    /// The request names another organization than the token.
    OtherOrganization,
    /// No keys have been loaded yet.
    NoKeys,
    /// There is no such write key, or it was revoked.
    UnknownWriteKey,
    /// Write keys could not be read so far.
    NoWriteKeys,
}

impl Refusal {
    /// The error for the caller.
    pub(in crate::transport) fn error(self) -> Error {
        match self {
            Self::Missing => Error::unauthenticated("a bearer token is required"),
            Self::Malformed => Error::unauthenticated("the token is malformed"),
            Self::Untrusted => Error::unauthenticated("the token's signature cannot be verified"),
            Self::Expired => Error::unauthenticated("the token has expired"),
            Self::NotYet => Error::unauthenticated("the token is not valid yet"),
            Self::Claim(claim) => Error::unauthenticated(format!("the token's claim '{claim}' is not accepted")),
            Self::Scope(scope) => Error::forbidden(format!("the token does not have the scope '{}'", scope.as_str())),
            Self::OtherOrganization => Error::forbidden("the request names another organization than the token"),
            Self::NoKeys => Error::unavailable("the keys that tokens are verified with cannot be had", RETRY_AFTER),
            Self::UnknownWriteKey => Error::unauthenticated("the write key is unknown or has been revoked"),
            Self::NoWriteKeys => Error::unavailable("write keys have not been read yet", RETRY_AFTER),
        }
    }

    /// What REST says in `WWW-Authenticate` (RFC 6750, 3). Who sent no token is
    /// told no error.
    pub(in crate::transport) fn challenge(self) -> Option<String> {
        const REALM: &str = "Bearer realm=\"tallyhouse\"";
        match self {
            Self::NoKeys | Self::NoWriteKeys | Self::OtherOrganization => None,
            Self::Missing => Some(REALM.to_owned()),
            Self::Scope(scope) => Some(format!("{REALM}, error=\"insufficient_scope\", scope=\"{}\"", scope.as_str())),
            Self::Malformed
            | Self::Untrusted
            | Self::Expired
            | Self::NotYet
            | Self::Claim(_)
            | Self::UnknownWriteKey => {
                let description = self.error().message;
                Some(format!("{REALM}, error=\"invalid_token\", error_description=\"{description}\""))
            }
        }
    }
}
