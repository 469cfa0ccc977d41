//! Checks that a request names one of this port's hosts and does not come from a page of another site.
//!
//! A web page can make its own name resolve to 127.0.0.1 (DNS rebinding), but its browser then sends that
//! name as the host.

use std::net::IpAddr;

use axum::http::header::{HOST, HeaderMap, ORIGIN};

use super::error::GatewayError;
use crate::config::Hosts;

/// The names that the port answers to.
#[derive(Debug)]
pub(super) struct OwnHosts {
    configured: Vec<String>,
}

impl OwnHosts {
    pub(super) fn new(configured: [&Hosts; 2]) -> Self {
        Self { configured: configured.into_iter().flat_map(|hosts| hosts.0.clone()).collect() }
    }

    /// # Errors
    /// When the request names another host, or comes from another site's page.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), GatewayError> {
        let mut hosts = headers.get_all(HOST).iter();
        let (host, other) = (hosts.next().and_then(|host| host.to_str().ok()), hosts.next());
        let Some(host) = host.filter(|host| other.is_none() && self.is_own(name_of(host))) else {
            return Err(GatewayError::foreign_host());
        };
        check_page(headers, host)
    }

    fn is_own(&self, name: &str) -> bool {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        is_address || name == "localhost" || self.configured.contains(&name)
    }
}

/// # Errors
/// When a request comes from the page of another site than this host's.
pub(super) fn check_page(headers: &HeaderMap, host: &str) -> Result<(), GatewayError> {
    let origin = headers.get(ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
    let is_own_page = origin
        .is_none_or(|origin| origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) == Some(host));
    let site = headers.get("sec-fetch-site").map(|site| site.to_str().unwrap_or_default());
    let is_own_site = site.is_none_or(|site| matches!(site, "same-origin" | "none"));
    if is_own_page && is_own_site { Ok(()) } else { Err(GatewayError::foreign_page()) }
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&'static str, &str)]) -> bool {
        let map =
            headers.iter().map(|(name, value)| (axum::http::HeaderName::from_static(name), value.parse().unwrap()));
        let hosts = ["sql.example", "other.example, sql"].map(|hosts| hosts.parse().unwrap());
        OwnHosts::new(hosts.each_ref()).check(&map.collect()).is_ok()
    }

    #[test]
    fn only_names_of_its_own_are_answered_to() {
        for host in
            ["localhost:8123", "LOCALHOST", "127.0.0.1:8123", "[::1]:8123", "192.0.2.1", "sql.example:80", "sql"]
        {
            assert!(check(&[("host", host)]), "{host}");
        }
        for host in ["evil.example:8123", "localhost.evil.example", "127.0.0.1.evil.example", "", "sql.example.evil"] {
            assert!(!check(&[("host", host)]), "{host}");
        }
        assert!(!check(&[]));
    }

    #[test]
    fn pages_of_other_sites_are_not_answered() {
        let host = ("host", "localhost:8123");
        assert!(check(&[host, ("origin", "http://localhost:8123"), ("sec-fetch-site", "same-origin")]));
        assert!(check(&[host, ("sec-fetch-site", "none")]));
        for foreign in [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("origin", "http://localhost:8080"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert!(!check(&[host, foreign]), "{foreign:?}");
        }
    }
}
