//! The keys that tokens are verified with, and the tokens that they have
//! verified.
//!
//! A key goes with one algorithm, and is used for tokens of that algorithm
//! only: a public key can never be taken for a secret. What was verified is
//! remembered with the keys, and forgotten with them.

use std::collections::HashMap;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use parking_lot::RwLock;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Caller;
use super::claims::{Claims, Rules};
use super::refusal::Refusal;
use crate::config::Secret;

/// Longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 4 << 10;
/// Most keys of a set; further ones are not used.
const KEYS_MAX: usize = 256;
/// Most verified tokens that are remembered; when there are more, all are
/// forgotten, which costs a verification each and nothing else.
const VERIFIED_MAX: usize = 4_096;

/// See the module.
pub(super) struct KeySet {
    keys: Vec<Key>,
    verified: RwLock<HashMap<Box<str>, Caller>>,
}

struct Key {
    name: KeyName,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// The `kid` of a key.
enum KeyName {
    /// The only key there is goes by any name.
    Any,
    /// It has none.
    None,
    /// As the set names it.
    Named(String),
}

/// Why a token has no bearer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum VerifyError {
    /// No key of this algorithm and name is known.
    UnknownKey,
    /// It is refused; with the detail for the log.
    Refused(Refusal, String),
}

/// The text is no set of keys.
#[derive(Debug, thiserror::Error)]
#[error("it is not a JSON Web Key Set: {0}")]
pub(super) struct KeySetError(serde_json::Error);

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// What must be understood to verify the token (RFC 7515, 4.1.11). Nothing
    /// is.
    crit: Option<IgnoredAny>,
}

impl KeySet {
    fn new(keys: Vec<Key>) -> Self {
        Self { keys, verified: RwLock::default() }
    }

    /// A secret, for HS256.
    pub(super) fn of_secret(secret: &Secret) -> Self {
        let key = DecodingKey::from_secret(secret.expose().as_bytes());
        Self::new(vec![Key { name: KeyName::Any, algorithm: Algorithm::HS256, key }])
    }

    /// The public keys of a JSON Web Key Set (RFC 7517). Keys of other kinds and
    /// for other uses are left out.
    pub(super) fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        let Set { keys: entries } = serde_json::from_slice(text).map_err(KeySetError)?;
        let mut keys = Vec::new();
        for (place, entry) in entries.into_iter().take(KEYS_MAX).enumerate() {
            match Key::parse(entry) {
                Ok(key) => keys.push(key),
                Err(reason) => tracing::warn!(place, reason, "a key of the set is not used"),
            }
        }
        Ok(Self::new(keys))
    }

    /// How many keys there are.
    pub(super) const fn len(&self) -> usize {
        self.keys.len()
    }

    /// The key for a token. A token that names none is taken to mean the only
    /// one of its algorithm.
    fn find(&self, algorithm: Algorithm, kid: Option<&str>) -> Option<&Key> {
        let mut of_algorithm = self.keys.iter().filter(|key| key.algorithm == algorithm);
        if kid.is_none() {
            return of_algorithm.next().filter(|_| of_algorithm.next().is_none());
        }
        of_algorithm.find(|key| match &key.name {
            KeyName::Any => true,
            KeyName::None => false,
            KeyName::Named(name) => kid == Some(name),
        })
    }

    /// A token's bearer.
    pub(super) fn verify(&self, token: &str, rules: &Rules, now: SystemTime) -> Result<Caller, VerifyError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(VerifyError::Refused(Refusal::Malformed, format!("it has {} bytes", token.len())));
        }
        if let Some(caller) = self.verified.read().get(token).cloned() {
            return match caller.is_expired(now) {
                false => Ok(caller),
                true => Err(VerifyError::Refused(Refusal::Expired, String::new())),
            };
        }
        let caller = self.verify_anew(token, rules, now)?;
        let mut verified = self.verified.write();
        if verified.len() >= VERIFIED_MAX {
            verified.clear();
        }
        verified.insert(token.into(), caller.clone());
        Ok(caller)
    }

    fn verify_anew(&self, token: &str, rules: &Rules, now: SystemTime) -> Result<Caller, VerifyError> {
        let header = header(token).map_err(|detail| VerifyError::Refused(Refusal::Malformed, detail))?;
        if header.crit.is_some() {
            return Err(VerifyError::Refused(Refusal::Untrusted, "it has 'crit'".to_owned()));
        }
        let algorithm = match &*header.alg {
            "HS256" => Algorithm::HS256,
            "RS256" => Algorithm::RS256,
            "ES256" => Algorithm::ES256,
            "EdDSA" => Algorithm::EdDSA,
            _ => return Err(VerifyError::Refused(Refusal::Untrusted, format!("its algorithm is {:?}", header.alg))),
        };
        if self.is_secret() != (algorithm == Algorithm::HS256) {
            return Err(VerifyError::Refused(Refusal::Untrusted, format!("its algorithm is {algorithm:?}")));
        }
        let key = self.find(algorithm, header.kid.as_deref()).ok_or(VerifyError::UnknownKey)?;
        // Only the signature: the claims are checked by `Claims`.
        let mut validation = Validation::new(key.algorithm);
        validation.required_spec_claims.clear();
        (validation.validate_exp, validation.validate_aud) = (false, false);
        let decoded = jsonwebtoken::decode::<Claims>(token, &key.key, &validation);
        let claims = decoded.map_err(|error| refused(&error))?.claims;
        claims.caller(rules, now).map_err(|refusal| VerifyError::Refused(refusal, String::new()))
    }

    /// Whether the keys are a secret, and not public keys.
    fn is_secret(&self) -> bool {
        self.keys.iter().any(|key| matches!(key.name, KeyName::Any))
    }
}

fn header(token: &str) -> Result<Header, String> {
    let first = token.split('.').next().unwrap_or_default();
    let bytes = URL_SAFE_NO_PAD.decode(first).map_err(|error| format!("its header: {error}"))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("its header: {error}"))
}

/// What an error of the library's means.
fn refused(error: &jsonwebtoken::errors::Error) -> VerifyError {
    use jsonwebtoken::errors::ErrorKind;
    let refusal = match error.kind() {
        ErrorKind::InvalidToken | ErrorKind::Base64(_) | ErrorKind::Json(_) | ErrorKind::Utf8(_) => Refusal::Malformed,
        _ => Refusal::Untrusted,
    };
    VerifyError::Refused(refusal, error.to_string())
}

impl Key {
    /// A key of a set, if it can verify tokens by one of our algorithms.
    fn parse(entry: serde_json::Value) -> Result<Self, String> {
        let jwk: Jwk = serde_json::from_value(entry).map_err(|error| error.to_string())?;
        let common = &jwk.common;
        if common.public_key_use.as_ref().is_some_and(|it_is_for| *it_is_for != PublicKeyUse::Signature) {
            return Err("its use is not 'sig'".to_owned());
        }
        if common.key_operations.as_ref().is_some_and(|operations| !operations.contains(&KeyOperations::Verify)) {
            return Err("its operations do not include 'verify'".to_owned());
        }
        let (algorithm, named) = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                (Algorithm::ES256, KeyAlgorithm::ES256)
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
            }
            _ => return Err("it is neither RSA nor P-256 nor Ed25519".to_owned()),
        };
        if common.key_algorithm.is_some_and(|name| name != named) {
            return Err(format!("its algorithm is not {algorithm:?}"));
        }
        let key = DecodingKey::from_jwk(&jwk).map_err(|error| error.to_string())?;
        let name = common.key_id.clone().map_or(KeyName::None, KeyName::Named);
        Ok(Self { name, algorithm, key })
    }
}
