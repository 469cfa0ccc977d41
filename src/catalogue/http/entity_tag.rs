//! Entity tags and conditional requests (RFC 9110, 8.8.3 and 13.1).

use axum::http::HeaderMap;
use axum::http::header::{HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use sha2::{Digest as _, Sha256};

use crate::domain::{Show, Version};

/// Bytes of a hash that are in a tag.
const HASH_BYTES: usize = 16;

/// The tag of a show as administrators see it.
pub(super) fn of_show(show: &Show) -> HeaderValue {
    tag(&format!("v{}", show.version.number()))
}

/// The tag of something by its bytes. It says nothing else of it.
pub(super) fn of_bytes(bytes: &[u8]) -> HeaderValue {
    let hash = Sha256::digest(bytes);
    let digits: Vec<String> = hash.iter().take(HASH_BYTES).map(|byte| format!("{byte:02x}")).collect();
    tag(&digits.concat())
}

/// A tag of letters and digits.
pub(super) fn tag(opaque: &str) -> HeaderValue {
    HeaderValue::try_from(format!("\"{opaque}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// The versions of a show that `If-Match` names; none: any will do. Weak tags
/// and those of others name none.
pub(super) fn expected_versions(headers: &HeaderMap) -> Option<Vec<Version>> {
    let tags = tags(headers, &IF_MATCH)?;
    if tags.contains(&"*") {
        return None;
    }
    let number = |tag: &str| tag.strip_prefix("\"v")?.strip_suffix('"')?.parse().ok();
    Some(tags.into_iter().filter_map(number).map(Version::from_number).collect())
}

/// Whether the caller has what it asks for: `If-None-Match` names its tag.
pub(super) fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let is_it = |known: &str| known == "*" || known.strip_prefix("W/").unwrap_or(known).as_bytes() == tag.as_bytes();
    tags(headers, &IF_NONE_MATCH).is_some_and(|tags| tags.into_iter().any(is_it))
}

/// None when there is no such header. (Commas are in no tag of ours.)
fn tags<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<Vec<&'h str>> {
    let values = headers.get_all(name).iter();
    headers.contains_key(name).then(|| {
        values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_names_versions() {
        let check = |values: &[&'static str], expected: Option<&[i64]>| {
            let pairs = values.iter().map(|value| (IF_MATCH, HeaderValue::from_static(value)));
            let versions = expected_versions(&pairs.collect());
            let numbers = versions.map(|versions| versions.into_iter().map(Version::number).collect::<Vec<_>>());
            assert_eq!(numbers.as_deref(), expected, "{values:?}");
        };
        check(&[], None);
        check(&["*"], None);
        check(&["\"v3\""], Some(&[3]));
        check(&["\"v3\", \"v4\"", "\"v5\""], Some(&[3, 4, 5]));
        for value in ["", "v3", "W/\"v3\"", "\"3\"", "\"other\"", "\"v99999999999999999999\"", "\"v3"] {
            check(&[value], Some(&[]));
        }
    }

    #[test]
    fn if_none_match_compares_weakly() {
        let check = |value: &'static str, expected: bool| {
            let headers = HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static(value))]);
            assert_eq!(is_known(&headers, &tag("a")), expected, "{value}");
        };
        check("\"a\"", true);
        check("\"b\", W/\"a\"", true);
        check("*", true);
        check("\"b\"", false);
        check("a", false);
        check("", false);
        assert!(!is_known(&HeaderMap::new(), &tag("a")));
    }
}
