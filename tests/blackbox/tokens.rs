//! Keys and tokens for tests. Keys are made anew each time.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::service::TestService;

/// A secret as the settings have it.
pub(crate) const SECRET: &str = "thirty-two bytes or more of secret";

/// Signs tokens.
pub(crate) struct Signer {
    algorithm: Algorithm,
    kid: Option<String>,
    pub(crate) key: EncodingKey,
    /// The private key; empty for a secret.
    pub(crate) pem: String,
}

impl Signer {
    pub(crate) fn secret(secret: &str) -> Self {
        let key = EncodingKey::from_secret(secret.as_bytes());
        Self { algorithm: Algorithm::HS256, kid: None, key, pem: String::new() }
    }

    pub(crate) fn rsa(kid: &str) -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let pem = pem(der.as_ref());
        let key = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
        Self { algorithm: Algorithm::RS256, kid: Some(kid.to_owned()), key, pem }
    }

    pub(crate) fn ec(kid: &str) -> Self {
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        let pem = pem(der.as_ref());
        let key = EncodingKey::from_ec_pem(pem.as_bytes()).unwrap();
        Self { algorithm: Algorithm::ES256, kid: Some(kid.to_owned()), key, pem }
    }

    pub(crate) fn ec_384(kid: &str) -> Self {
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        let pem = pem(der.as_ref());
        let key = EncodingKey::from_ec_pem(pem.as_bytes()).unwrap();
        Self { algorithm: Algorithm::ES384, kid: Some(kid.to_owned()), key, pem }
    }

    pub(crate) fn ed(kid: &str) -> Self {
        let der = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).unwrap();
        let pem = pem(der.as_ref());
        let key = EncodingKey::from_ed_pem(pem.as_bytes()).unwrap();
        Self { algorithm: Algorithm::EdDSA, kid: Some(kid.to_owned()), key, pem }
    }

    /// Another key that says it is this one.
    pub(crate) fn named(self, kid: &str) -> Self {
        Self { kid: Some(kid.to_owned()), ..self }
    }

    /// The same key, by another algorithm.
    pub(crate) fn by(&self, algorithm: Algorithm) -> Self {
        Self { algorithm, kid: self.kid.clone(), key: self.key.clone(), pem: String::new() }
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: self.kid.clone(), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }

    /// The same key, which its tokens do not name.
    pub(crate) fn unnamed(&self) -> Self {
        Self { kid: None, ..self.by(self.algorithm) }
    }

    /// A token whose header has these fields besides, or instead.
    pub(crate) fn sign_with_header(&self, more: &Value, claims: &Value) -> String {
        let mut header = serde_json::to_value(Header { kid: self.kid.clone(), ..Header::new(self.algorithm) }).unwrap();
        header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{signed}.{signature}")
    }

    /// A good token.
    pub(crate) fn token(&self, org_id: &str, scope: &str) -> String {
        self.sign(&claims(org_id, scope))
    }

    /// The public key, for a set.
    pub(crate) fn jwk(&self) -> Value {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&self.key, self.algorithm).unwrap()).unwrap();
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk
    }
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der))
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The claims of a good token.
pub(crate) fn claims(org_id: &str, scope: &str) -> Value {
    json!({ "sub": "test", "org_id": org_id, "scope": scope, "iat": now(), "exp": now() + 600 })
}

/// The same without one, or with another.
pub(crate) fn changed(mut claims: Value, claim: &str, value: Option<Value>) -> Value {
    match value {
        Some(value) => claims[claim] = value,
        None => _ = claims.as_object_mut().unwrap().remove(claim),
    }
    claims
}

/// A token that nobody has signed.
pub(crate) fn unsigned(claims: &Value, kid: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(&json!({ "alg": "none", "typ": "JWT", "kid": kid })), part(claims))
}

/// A set of public keys.
pub(crate) fn key_set(signers: &[&Signer]) -> String {
    json!({ "keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>() }).to_string()
}

/// Shows a token.
#[derive(Clone)]
pub(crate) struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A gRPC connection that shows a token.
pub(crate) async fn channel(service: &TestService, token: &str) -> InterceptedService<Channel, Bearer> {
    InterceptedService::new(service.channel().await, Bearer(format!("Bearer {token}").parse().unwrap()))
}
