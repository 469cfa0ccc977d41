//! Who calls. The one place where a request gets its organisation, for every
//! transport.
//!
//! This version runs without authentication: every caller belongs to the
//! organisation `default`. Tokens will be verified here.

use axum::http::HeaderMap;

use crate::domain::{Error, OrgId};

/// Tells callers by their headers.
pub(super) struct Callers {
    default_org: OrgId,
}

impl Callers {
    /// Takes every caller for the organisation `default`.
    pub(super) fn unauthenticated() -> Self {
        Self { default_org: OrgId::default_org() }
    }

    /// The organisation a request belongs to.
    pub(super) fn organisation(&self, _headers: &HeaderMap) -> Result<OrgId, Error> {
        Ok(self.default_org.clone())
    }
}
