//! Verification keys, and the tokens that they have verified.
//!
//! A key is used with the algorithms of its type, or with the one that its set names, and with no other: a
//! public key can never be used as a secret. Verified tokens are cached with the keys, and dropped with
//! them.

use std::collections::HashMap;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::RwLock;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

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

/// An immutable set of verification keys with a cache of verified tokens. Replaced as a whole when
/// the keys change, so the cache never outlives its keys.
pub(super) struct KeySet {
    keys: Vec<Key>,
    verified: RwLock<HashMap<Box<str>, Caller>>,
}

struct Key {
    name: KeyName,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// Every algorithm, as headers and sets name it (RFC 7518, RFC 8037; Ed25519:
/// RFC 9864).
const ALGORITHMS: [(&str, Algorithm); 11] = [
    ("HS256", Algorithm::HS256),
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
    ("Ed25519", Algorithm::EdDSA),
];

/// What an RSA key is used for when its set does not say.
const OF_RSA: [Algorithm; 6] =
    [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

/// Most keys that are tried for one token: those of a rotation, for a token that
/// names none.
const TRIED_MAX: usize = 4;

fn algorithm(name: &str) -> Option<Algorithm> {
    ALGORITHMS.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
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
        Self::new(vec![Key { name: KeyName::Any, algorithms: vec![Algorithm::HS256], key }])
    }

    /// The public keys of a JSON Web Key Set (RFC 7517). Keys of other kinds and
    /// for other uses are left out.
    pub(super) fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Box<RawValue>>,
        }
        let Set { keys: entries } = serde_json::from_slice(text).map_err(KeySetError)?;
        let mut keys = Vec::new();
        for (place, entry) in entries.into_iter().take(KEYS_MAX).enumerate() {
            match Key::parse(entry.get()) {
                Ok(key) => keys.push(key),
                Err(reason) => tracing::warn!(place, reason, "a key of the set is ignored"),
            }
        }
        Ok(Self::new(keys))
    }

    /// How many keys there are.
    pub(super) const fn len(&self) -> usize {
        self.keys.len()
    }

    /// The keys that may have signed a token, by its algorithm and the key that
    /// it names. A token that names none, as while keys are replaced, may be of
    /// any key of its algorithm.
    fn candidates(&self, algorithm: Algorithm, kid: Option<&str>) -> impl Iterator<Item = &Key> {
        let fits = move |key: &&Key| {
            let is_named = match (&key.name, kid) {
                (KeyName::Any, _) | (_, None) => true,
                (KeyName::None, Some(_)) => false,
                (KeyName::Named(name), Some(kid)) => name == kid,
            };
            is_named && key.algorithms.contains(&algorithm)
        };
        self.keys.iter().filter(fits).take(TRIED_MAX)
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
        let malformed = |detail: String| VerifyError::Refused(Refusal::Malformed, detail);
        let header = header(token).map_err(malformed)?;
        if header.crit.is_some() {
            return Err(VerifyError::Refused(Refusal::Untrusted, "it has 'crit'".to_owned()));
        }
        let untrusted = |detail: String| VerifyError::Refused(Refusal::Untrusted, detail);
        let algorithm = algorithm(&header.alg).filter(|algorithm| self.is_secret() == (*algorithm == Algorithm::HS256));
        let algorithm = algorithm.ok_or_else(|| untrusted(format!("its algorithm is {:?}", header.alg)))?;
        let parts = Parts::of(token).ok_or_else(|| malformed("it does not have three parts".to_owned()))?;
        let mut candidates = self.candidates(algorithm, header.kid.as_deref()).peekable();
        if candidates.peek().is_none() {
            return Err(VerifyError::UnknownKey);
        }
        let mut is_good = false;
        for key in candidates {
            let verified = jsonwebtoken::crypto::verify(parts.signature, parts.signed.as_bytes(), &key.key, algorithm);
            is_good = verified.map_err(|error| refused(&error))?;
            if is_good {
                break;
            }
        }
        if !is_good {
            // A key that it does not name may be one that is not known yet.
            let is_unnamed = header.kid.is_none() && !self.is_secret();
            return Err(if is_unnamed { VerifyError::UnknownKey } else { untrusted("its signature".to_owned()) });
        }
        let payload = URL_SAFE_NO_PAD.decode(parts.payload).map_err(|error| malformed(error.to_string()))?;
        let claims = Claims::read(&payload).map_err(malformed)?;
        claims.caller(rules, now).map_err(|refusal| VerifyError::Refused(refusal, String::new()))
    }

    /// Whether the keys are a secret, and not public keys.
    fn is_secret(&self) -> bool {
        self.keys.iter().any(|key| matches!(key.name, KeyName::Any))
    }
}

/// The parts of a token (RFC 7515, 7.1).
struct Parts<'a> {
    /// Header and payload, as they were signed.
    signed: &'a str,
    payload: &'a str,
    signature: &'a str,
}

impl<'a> Parts<'a> {
    /// None when there are not three.
    fn of(token: &'a str) -> Option<Self> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (_, payload) = signed.split_once('.')?;
        (!payload.contains('.')).then_some(Self { signed, payload, signature })
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
    fn parse(entry: &str) -> Result<Self, String> {
        /// `jsonwebtoken` does not know every name of an algorithm.
        #[derive(Deserialize)]
        struct Named {
            alg: Option<String>,
        }
        let Named { alg } = serde_json::from_str(entry).map_err(|error| error.to_string())?;
        let jwk: Jwk = serde_json::from_str(entry).map_err(|error| error.to_string())?;
        let common = &jwk.common;
        if common.public_key_use.as_ref().is_some_and(|it_is_for| *it_is_for != PublicKeyUse::Signature) {
            return Err("its use is not 'sig'".to_owned());
        }
        if common.key_operations.as_ref().is_some_and(|operations| !operations.contains(&KeyOperations::Verify)) {
            return Err("its operations do not include 'verify'".to_owned());
        }
        let of_kind = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => &OF_RSA[..],
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => &[Algorithm::ES256],
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => &[Algorithm::ES384],
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
            _ => return Err("it is neither RSA nor P-256 nor P-384 nor Ed25519".to_owned()),
        };
        let algorithms = match alg {
            None => of_kind.to_vec(),
            Some(name) => {
                let named = algorithm(&name).filter(|algorithm| of_kind.contains(algorithm));
                vec![named.ok_or_else(|| format!("its algorithm {name:?} is none for such a key"))?]
            }
        };
        let key = DecodingKey::from_jwk(&jwk).map_err(|error| error.to_string())?;
        let name = common.key_id.clone().map_or(KeyName::None, KeyName::Named);
        Ok(Self { name, algorithms, key })
    }
}
