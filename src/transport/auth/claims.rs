//! What a token says of its bearer, once its signature is known to be good.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use super::Caller;
use super::refusal::Refusal;
use super::scope::Scopes;
use crate::domain::OrgId;
use crate::transport::concurrency::OrgUses;

/// The claims that are looked at. They are checked here and not by
/// `jsonwebtoken`, which cannot read times when serde_json keeps numbers as
/// text (`arbitrary_precision`), and would take such a token for one without.
#[derive(Deserialize)]
pub(super) struct Claims {
    org_id: Option<String>,
    scope: Option<String>,
    exp: Option<f64>,
    nbf: Option<f64>,
    iat: Option<f64>,
    iss: Option<String>,
    aud: Option<Audience>,
}

/// One audience or several (RFC 7519, 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn includes(&self, wanted: &str) -> bool {
        match self {
            Self::One(audience) => audience == wanted,
            Self::Several(audiences) => audiences.iter().any(|audience| audience == wanted),
        }
    }
}

/// What is asked of claims.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    /// Empty: any.
    pub(super) issuer: String,
    /// Empty: any.
    pub(super) audience: String,
    /// How far clocks may differ.
    pub(super) leeway: Duration,
    /// What organizations' calls hold.
    pub(super) org_uses: Arc<OrgUses>,
}

impl Claims {
    /// The bearer.
    pub(super) fn caller(self, rules: &Rules, now: SystemTime) -> Result<Caller, Refusal> {
        let expires_at = moment(self.exp, "exp")?.ok_or(Refusal::Claim("exp"))?;
        let expires_at = expires_at.checked_add(rules.leeway).ok_or(Refusal::Claim("exp"))?;
        if now >= expires_at {
            return Err(Refusal::Expired);
        }
        for begins_at in [moment(self.nbf, "nbf")?, moment(self.iat, "iat")?] {
            if begins_at.is_some_and(|begins_at| begins_at > now + rules.leeway) {
                return Err(Refusal::NotYet);
            }
        }
        if !rules.issuer.is_empty() && self.iss.as_ref() != Some(&rules.issuer) {
            return Err(Refusal::Claim("iss"));
        }
        if !rules.audience.is_empty() && !self.aud.is_some_and(|audience| audience.includes(&rules.audience)) {
            return Err(Refusal::Claim("aud"));
        }
        let org_id = self.org_id.and_then(|org_id| OrgId::parse(&org_id)).ok_or(Refusal::Claim("org_id"))?;
        let scopes = Scopes::parse(self.scope.as_deref().unwrap_or_default());
        let org_use = rules.org_uses.of(&org_id);
        Ok(Caller { org_id, scopes, expires_at: Some(expires_at), clock: None, org_use })
    }
}

/// A time in a token: seconds since 1970, perhaps with a fraction.
fn moment(seconds: Option<f64>, claim: &'static str) -> Result<Option<SystemTime>, Refusal> {
    let Some(seconds) = seconds else { return Ok(None) };
    let since = Duration::try_from_secs_f64(seconds).map_err(|_| Refusal::Claim(claim))?;
    UNIX_EPOCH.checked_add(since).map(Some).ok_or(Refusal::Claim(claim))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn judged(claims: &Value, rules: &Rules) -> Result<Caller, Refusal> {
        // As text, as tokens are: numbers of a value are read differently.
        let claims: Claims = serde_json::from_str(&claims.to_string()).expect("claims");
        claims.caller(rules, UNIX_EPOCH + Duration::from_secs(NOW))
    }

    #[test]
    fn times_are_kept_to_within_the_leeway() {
        let rules = Rules { leeway: Duration::from_secs(30), ..Rules::default() };
        let check = |claim: &str, seconds: Value, expected: Option<Refusal>| {
            let mut claims = json!({ "org_id": "acme", "exp": NOW + 60 });
            claims[claim] = seconds.clone();
            assert_eq!(judged(&claims, &rules).err(), expected, "{claim} {seconds}");
        };
        check("exp", json!(NOW - 29), None);
        check("exp", json!(NOW as f64 - 29.5), None);
        check("exp", json!(NOW - 30), Some(Refusal::Expired));
        check("exp", json!(0), Some(Refusal::Expired));
        check("exp", json!(-1), Some(Refusal::Claim("exp")));
        check("exp", json!(1e300), Some(Refusal::Claim("exp")));
        check("exp", Value::Null, Some(Refusal::Claim("exp")));
        check("nbf", json!(NOW + 30), None);
        check("nbf", json!(NOW + 31), Some(Refusal::NotYet));
        check("iat", json!(NOW + 30), None);
        check("iat", json!(NOW + 31), Some(Refusal::NotYet));
    }

    #[test]
    fn issuer_and_audience_are_asked_for_when_configured() {
        let rules = Rules { issuer: "me".to_owned(), audience: "here".to_owned(), ..Rules::default() };
        let check = |more: Value, expected: Option<&'static str>| {
            let mut claims = json!({ "org_id": "acme", "exp": NOW + 60 });
            for (name, value) in more.as_object().expect("an object") {
                claims[name] = value.clone();
            }
            assert_eq!(judged(&claims, &rules).err(), expected.map(Refusal::Claim), "{more}");
        };
        check(json!({ "iss": "me", "aud": "here" }), None);
        check(json!({ "iss": "me", "aud": ["there", "here"] }), None);
        check(json!({ "iss": "you", "aud": "here" }), Some("iss"));
        check(json!({ "aud": "here" }), Some("iss"));
        check(json!({ "iss": "me", "aud": ["there"] }), Some("aud"));
        check(json!({ "iss": "me" }), Some("aud"));
        assert!(judged(&json!({ "org_id": "acme", "exp": NOW + 60, "aud": "x" }), &Rules::default()).is_ok());
    }

    #[test]
    fn without_a_good_organisation_there_is_no_caller() {
        for org_id in [json!(""), json!("a b"), Value::Null] {
            let claims = json!({ "org_id": org_id, "exp": NOW + 60 });
            assert_eq!(judged(&claims, &Rules::default()).err(), Some(Refusal::Claim("org_id")), "{org_id}");
        }
    }
}
