//! Decides whether a request may come from a web page.
//!
//! Without authentication, a page of any site that is open in a browser on this machine could call the
//! service. CORS hides answers from pages of other origins, but a browser also sends some requests whose
//! answers the page cannot read, and by DNS rebinding a page can make its own host name resolve to this
//! machine. Therefore:
//!
//! - The request's host must be this machine's loopback name or address, or one of
//!   [`Config::allowed_hosts`].
//! - A request with a foreign `Origin` is refused. So is one without an `Origin` that `Sec-Fetch-Site`
//!   calls foreign, unless it opens a page.
//!
//! With authentication a page can do no more than its token allows, and only [`Config::allowed_hosts`] is
//! checked, if it is set.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, Request, header};

use crate::config::{Config, Hosts, Origins};
use crate::domain::Error;

/// Headers by which browsers say where a request comes from (W3C Fetch
/// Metadata).
const SEC_FETCH_SITE: &str = "sec-fetch-site";
const SEC_FETCH_MODE: &str = "sec-fetch-mode";

/// Decides by `Host`, `Origin` and `Sec-Fetch-Site` whether a request is allowed. A refused request
/// is answered with 403.
pub(super) struct BrowserRules {
    hosts: Hosts,
    origins: Origins,
    has_authentication: bool,
}

impl BrowserRules {
    pub(super) fn new(config: &Config, has_authentication: bool) -> Self {
        Self { hosts: config.allowed_hosts.clone(), origins: config.cors_origins.clone(), has_authentication }
    }

    /// Refuses a request that a web page must not make.
    ///
    /// # Errors
    /// `Forbidden`, naming the setting.
    pub(super) fn check<T>(&self, request: &Request<T>) -> Result<(), Error> {
        if self.has_authentication && self.hosts.0.is_empty() {
            return Ok(());
        }
        let headers = request.headers();
        let from_uri = request.uri().authority().map(Authority::as_str);
        let from_header = headers.get(header::HOST).map(|host| host.to_str().unwrap_or_default());
        if ![from_uri, from_header].into_iter().flatten().all(|host| self.allows_host(host)) {
            return Err(Error::forbidden("requests for this host are refused; see the setting allowed_hosts"));
        }
        if self.has_authentication || request.method() == Method::OPTIONS {
            return Ok(()); // A preflight is answered by CORS.
        }
        let is_foreign = match headers.get(header::ORIGIN) {
            Some(origin) => !self.allows_origin(origin, from_header.or(from_uri)),
            None => is_called_foreign(headers) && !opens_a_page(request.method(), headers),
        };
        if is_foreign {
            let message = "pages of other origins may not call this service; see the setting cors_origins";
            return Err(Error::forbidden(message));
        }
        Ok(())
    }

    /// Whether a request may name this host, with or without a port.
    fn allows_host(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
        self.hosts.0.contains(&name) || (!self.has_authentication && is_loopback(&name))
    }

    /// Whether pages of an origin may call the service at this host.
    fn allows_origin(&self, origin: &HeaderValue, host: Option<&str>) -> bool {
        let is_configured = match &self.origins {
            Origins::Any => true,
            Origins::These(origins) => origins.contains(origin),
        };
        // The service's own pages. Whether a proxy ends TLS is not seen here.
        let own = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
        is_configured || own.is_some_and(|own| host.is_some_and(|host| own.eq_ignore_ascii_case(host)))
    }
}

/// Names that browsers resolve to this machine without asking anybody
/// (RFC 6761, 6.3), and its addresses.
fn is_loopback(name: &str) -> bool {
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost"
        || name.ends_with(".localhost")
        || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn is_called_foreign(headers: &HeaderMap) -> bool {
    let site = headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes);
    matches!(site, Some(b"cross-site" | b"same-site"))
}

/// Whether a person opens a link.
fn opens_a_page(method: &Method, headers: &HeaderMap) -> bool {
    let mode = headers.get(SEC_FETCH_MODE).map(HeaderValue::as_bytes);
    matches!(*method, Method::GET | Method::HEAD) && mode == Some(b"navigate")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(hosts: &str, origins: &str, has_authentication: bool) -> BrowserRules {
        let config = Config {
            allowed_hosts: hosts.parse().unwrap(),
            cors_origins: origins.parse().unwrap(),
            ..Config::default()
        };
        BrowserRules::new(&config, has_authentication)
    }

    fn is_allowed(rules: &BrowserRules, method: Method, uri: &str, headers: &[(&str, &str)]) -> bool {
        let request = headers
            .iter()
            .fold(Request::builder().method(method).uri(uri), |request, (name, value)| request.header(*name, *value));
        rules.check(&request.body(()).unwrap()).is_ok()
    }

    #[test]
    fn without_authentication_the_host_is_this_machine_or_configured() {
        let open = rules("tally.example", "", false);
        let check = |host: &str, expected: bool| {
            assert_eq!(is_allowed(&open, Method::GET, "/", &[("host", host)]), expected, "{host}");
            assert_eq!(is_allowed(&open, Method::GET, &format!("http://{host}/"), &[]), expected, "{host}");
        };
        for host in ["localhost", "LOCALHOST:8080", "a.localhost", "127.0.0.1:1", "127.9.9.9", "[::1]:8080"] {
            check(host, true);
        }
        check("tally.example", true);
        check("tally.example.:443", true);
        for host in ["attacker.example", "0.0.0.0:8080", "192.0.2.1", "localhost.attacker.example", "127.0.0.1.nip.io"]
        {
            check(host, false);
        }
        assert!(is_allowed(&open, Method::GET, "/", &[]), "no browser leaves it out");
        assert!(!is_allowed(&open, Method::GET, "http://localhost/", &[("host", "attacker.example")]));
    }

    #[test]
    fn without_authentication_pages_of_other_origins_are_refused() {
        let open = rules("", "https://app.example", false);
        let check = |method: &Method, headers: &[(&str, &str)], expected: bool| {
            let all: Vec<_> = headers.iter().copied().chain([("host", "localhost:8080")]).collect();
            assert_eq!(is_allowed(&open, method.clone(), "/events", &all), expected, "{method} {headers:?}");
        };
        let (get, post) = (Method::GET, Method::POST);
        check(&post, &[], true);
        check(&post, &[("origin", "http://localhost:8080"), ("sec-fetch-site", "same-origin")], true);
        check(&post, &[("origin", "https://app.example"), ("sec-fetch-site", "cross-site")], true);
        check(&post, &[("origin", "https://attacker.example")], false);
        check(&post, &[("origin", "http://localhost:3000"), ("sec-fetch-site", "same-site")], false);
        check(&post, &[("origin", "null")], false);
        check(&get, &[("origin", "https://attacker.example")], false);
        check(&post, &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")], false);
        check(&get, &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")], false);
        check(&get, &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")], true);
        check(&get, &[("sec-fetch-site", "none")], true);
        check(&Method::OPTIONS, &[("origin", "https://attacker.example")], true);
    }

    #[test]
    fn with_authentication_hosts_are_checked_where_they_are_configured() {
        let closed = rules("", "", true);
        assert!(is_allowed(&closed, Method::POST, "/", &[("host", "any.example"), ("origin", "https://a.example")]));
        let closed = rules("tally.example", "", true);
        assert!(is_allowed(&closed, Method::GET, "/", &[("host", "tally.example:8080")]));
        assert!(!is_allowed(&closed, Method::GET, "/", &[("host", "localhost")]));
    }
}
