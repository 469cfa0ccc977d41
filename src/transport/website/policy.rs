//! The content security policy of a page: its own files, the scripts and styles
//! that are written into it, and nothing from elsewhere.

use axum::http::HeaderValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

/// What holds for every page. Scripts and styles are added.
const BASE: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                    connect-src 'self'; font-src 'self'; img-src 'self' data:; manifest-src 'self'";

/// The policy of a page. Scripts and styles that are written into it are named
/// by their hashes: others, such as those that an attacker puts into the page
/// later, are not run.
///
/// None when the page has so many that the header cannot be written.
pub(in crate::transport) fn of_page(html: &str) -> Option<HeaderValue> {
    let (scripts, styles) = (hashes(html, "script"), hashes(html, "style"));
    HeaderValue::try_from(format!("{BASE}; script-src 'self'{scripts}; style-src 'self'{styles}")).ok()
}

/// The hashes of the elements of this name that have content of their own
/// (CSP Level 3, section 2.3.1), each behind a space.
fn hashes(html: &str, element: &str) -> String {
    let (begin, end) = (format!("<{element}"), format!("</{element}>"));
    let mut sources: Vec<String> = html
        .split(&begin)
        .skip(1)
        .filter_map(|rest| {
            let (attributes, rest) = rest.split_once('>')?;
            let is_element = attributes.is_empty() || attributes.starts_with(char::is_whitespace);
            let (content, _) = rest.split_once(&end)?;
            (is_element && !content.is_empty())
                .then(|| format!(" 'sha256-{}'", STANDARD.encode(Sha256::digest(content))))
        })
        .collect();
    sources.sort();
    sources.dedup();
    sources.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_into_a_page_is_named_by_its_hash() {
        // The example of CSP Level 3, section 8.3.
        let html = "<head><script src=\"/a.js\" async=\"\"></script><style>p{}</style></head>\
                    <script>alert('Hello, world.');</script><scripted>no</scripted><script>x</script><script>x</script>";
        let policy = of_page(html).unwrap();
        let policy = policy.to_str().unwrap();
        assert!(policy.contains("'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='"), "{policy}");
        let (scripts, styles) = policy.split_once("; style-src 'self'").unwrap();
        assert_eq!(scripts.matches("sha256").count(), 2, "{policy}");
        assert_eq!(styles.matches("sha256").count(), 1, "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }

    #[test]
    fn a_page_without_scripts_of_its_own_names_no_hash() {
        let policy = of_page("<p>nothing</p><script src=\"/a.js\"></script>").unwrap();
        assert!(policy.to_str().unwrap().ends_with("script-src 'self'; style-src 'self'"), "{policy:?}");
    }
}
