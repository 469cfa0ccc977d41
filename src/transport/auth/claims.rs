//! Claims of a token, after its signature has been verified.
//!
//! The service parses claims itself and not with `jsonwebtoken`, which cannot read times while serde_json
//! keeps numbers as text (`arbitrary_precision`), and would treat such a token as one without them.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::Caller;
use super::refusal::Refusal;
use super::scope::Scopes;
use crate::domain::OrgId;
use crate::json;
use crate::transport::concurrency::OrgUses;

/// The claims of a token.
pub(super) struct Claims(Value);

/// What is asked of claims.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// Empty: any.
    pub(super) issuer: String,
    /// Empty: any.
    pub(super) audience: String,
    /// How far clocks may differ.
    pub(super) leeway: Duration,
    /// What organizations' calls hold.
    pub(super) org_uses: Arc<OrgUses>,
    /// The claim that names the organization.
    pub(super) org_claim: ClaimName,
    /// The claims that name scopes. The first one that a token has counts.
    pub(super) scope_claims: Vec<ClaimName>,
}

/// Where a claim is: its name; or, with a slash in front, a JSON pointer
/// (RFC 6901), as `/realm_access/roles`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClaimName(pub(super) &'static str);

impl ClaimName {
    /// As a setting names it. The name stays in memory: settings are read once.
    pub(super) fn configured(name: &str) -> Self {
        Self(Box::leak(name.to_owned().into_boxed_str()))
    }

    /// The claim; none when it is not there or null.
    fn of<'a>(&self, claims: &'a Value) -> Option<&'a Value> {
        let found = if self.0.starts_with('/') { claims.pointer(self.0) } else { claims.get(self.0) };
        found.filter(|claim| !claim.is_null())
    }
}

impl Claims {
    /// Reads the payload of a token.
    ///
    /// # Errors
    /// What is wrong with it, for the log.
    pub(super) fn read(payload: &[u8]) -> Result<Self, String> {
        let text = str::from_utf8(payload).map_err(|error| error.to_string())?;
        match json::parse(text) {
            Ok(claims @ Value::Object(_)) => Ok(Self(claims)),
            Ok(_) => Err("its claims are no object".to_owned()),
            Err(error) => Err(format!("its claims: {error}")),
        }
    }

    /// The bearer.
    pub(super) fn caller(&self, rules: &Rules, now: SystemTime) -> Result<Caller, Refusal> {
        let expires_at = self.moment("exp")?.ok_or(Refusal::Claim("exp"))?;
        let expires_at = expires_at.checked_add(rules.leeway).ok_or(Refusal::Claim("exp"))?;
        if now >= expires_at {
            return Err(Refusal::Expired);
        }
        for begins_at in [self.moment("nbf")?, self.moment("iat")?] {
            if begins_at.is_some_and(|begins_at| begins_at > now + rules.leeway) {
                return Err(Refusal::NotYet);
            }
        }
        if !rules.issuer.is_empty() && self.0["iss"] != *rules.issuer {
            return Err(Refusal::Claim("iss"));
        }
        if !rules.audience.is_empty() && !self.is_for(&rules.audience) {
            return Err(Refusal::Claim("aud"));
        }
        let org_id = rules.org_claim.of(&self.0).and_then(Value::as_str).and_then(OrgId::parse);
        let org_id = org_id.ok_or(Refusal::Claim(rules.org_claim.0))?;
        let (scopes, org_use) = (self.scopes(rules)?, rules.org_uses.of(&org_id));
        let expires_at = Some(expires_at);
        Ok(Caller { org_id, scopes, is_authenticated: true, expires_at, clock: None, write_key: None, org_use })
    }

    /// One audience or several (RFC 7519, 4.1.3).
    fn is_for(&self, audience: &str) -> bool {
        match &self.0["aud"] {
            Value::String(one) => one == audience,
            Value::Array(several) => several.iter().any(|one| one == audience),
            _ => false,
        }
    }

    /// What the token allows: by one claim only, so that no other makes it more.
    fn scopes(&self, rules: &Rules) -> Result<Scopes, Refusal> {
        let given = rules.scope_claims.iter().find_map(|name| name.of(&self.0).map(|claim| (name, claim)));
        let Some((name, claim)) = given else { return Ok(Scopes::NONE) };
        let names: Option<Vec<&str>> = match claim {
            Value::String(names) => Some(names.split(' ').collect()),
            Value::Array(names) => names.iter().map(Value::as_str).collect(),
            _ => None,
        };
        names.map(Scopes::parse).ok_or(Refusal::Claim(name.0))
    }

    /// A time: seconds since 1970, perhaps with a fraction.
    fn moment(&self, claim: &'static str) -> Result<Option<SystemTime>, Refusal> {
        let wrong = Refusal::Claim(claim);
        let Some(seconds) = self.0.get(claim).filter(|seconds| !seconds.is_null()) else { return Ok(None) };
        let since = Duration::try_from_secs_f64(seconds.as_f64().ok_or(wrong)?).map_err(|_| wrong)?;
        UNIX_EPOCH.checked_add(since).map(Some).ok_or(wrong)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    impl Default for Rules {
        fn default() -> Self {
            let scope_claims = ["scope", "scp", "permissions"].map(ClaimName).to_vec();
            let org_claim = ClaimName("org_id");
            let (issuer, audience, org_uses) = (String::new(), String::new(), Arc::default());
            Self { issuer, audience, leeway: Duration::ZERO, org_uses, org_claim, scope_claims }
        }
    }

    const NOW: u64 = 1_800_000_000;

    fn judged(claims: &Value, rules: &Rules) -> Result<Caller, Refusal> {
        let claims = Claims::read(claims.to_string().as_bytes()).expect("claims");
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
        check("exp", json!("1800000060"), Some(Refusal::Claim("exp")));
        check("exp", json!({ "$serde_json::private::Number": "1800000060" }), Some(Refusal::Claim("exp")));
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
    fn scopes_are_a_text_or_a_list_of_the_first_claim_that_is_there() {
        let rules = Rules::default();
        let check = |more: Value, expected: Result<&[&str], Refusal>| {
            let mut claims = json!({ "org_id": "acme", "exp": NOW + 60 });
            for (name, value) in more.as_object().expect("an object") {
                claims[name] = value.clone();
            }
            let scopes = judged(&claims, &rules).map(|caller| caller.scopes);
            assert_eq!(scopes, expected.map(|names| Scopes::parse(names.iter().copied())), "{more}");
        };
        check(json!({}), Ok(&[]));
        check(json!({ "scope": "read ingest" }), Ok(&["read", "ingest"]));
        check(json!({ "scope": ["read", "openid"] }), Ok(&["read"]));
        check(json!({ "scp": ["admin"] }), Ok(&["admin"]));
        check(json!({ "scp": "admin read", "scope": null }), Ok(&["admin", "read"]));
        check(json!({ "permissions": ["ingest"] }), Ok(&["ingest"]));
        // No other claim makes it more.
        check(json!({ "scope": "read", "scp": ["admin"], "permissions": ["ingest"] }), Ok(&["read"]));
        check(json!({ "scope": "", "permissions": ["admin"] }), Ok(&[]));
        check(json!({ "scope": "read\u{a0}admin" }), Ok(&[]));
        for wrong in [json!(7), json!({ "read": true }), json!(["read", 7])] {
            check(json!({ "scope": wrong }), Err(Refusal::Claim("scope")));
        }
    }

    #[test]
    fn claims_are_found_by_the_names_that_are_configured() {
        let scope_claims = ["/realm_access/roles", "https://issuer.example/scope"].map(ClaimName).to_vec();
        let rules = Rules { org_claim: ClaimName("https://issuer.example/org"), scope_claims, ..Rules::default() };
        let claims = |more: Value| {
            let mut claims = json!({ "exp": NOW + 60, "scope": "admin", "org_id": "other" });
            for (name, value) in more.as_object().expect("an object") {
                claims[name] = value.clone();
            }
            judged(&claims, &rules).map(|caller| (caller.org_id.as_str().to_owned(), caller.scopes))
        };
        let acme = json!({ "https://issuer.example/org": "acme", "realm_access": { "roles": ["read", "other"] } });
        assert_eq!(claims(acme), Ok(("acme".to_owned(), Scopes::parse(["read"]))));
        let beta = json!({ "https://issuer.example/org": "beta", "https://issuer.example/scope": "ingest" });
        assert_eq!(claims(beta), Ok(("beta".to_owned(), Scopes::parse(["ingest"]))));
        assert_eq!(claims(json!({})), Err(Refusal::Claim("https://issuer.example/org")));
    }

    #[test]
    fn without_a_good_organization_there_is_no_caller() {
        for org_id in [json!(""), json!("a b"), Value::Null] {
            let claims = json!({ "org_id": org_id, "exp": NOW + 60 });
            assert_eq!(judged(&claims, &Rules::default()).err(), Some(Refusal::Claim("org_id")), "{org_id}");
        }
    }
}
