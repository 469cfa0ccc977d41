//! Page tokens: where a list goes on, as an opaque text.
//!
//! URL-safe base64 of a version, a hash of the organisation and the filters,
//! the last event's time and id, and a checksum of all that. The hash makes
//! sure that a token is used with the filters it was made for, the checksum
//! that a token which was altered on its way is refused. Neither is a
//! signature: a forged token shows nothing that its caller could not have
//! asked for.

use std::hash::Hasher;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use siphasher::sip::SipHasher13;

use crate::domain::{Error, EventFilter, OrgId, PageKey, Timestamp};

const VERSION: u8 = 2;
/// Version, hash, time.
const HEAD_BYTES: usize = 1 + 8 + 8;
const CHECKSUM_BYTES: usize = 4;
/// Longest token that is looked at, in bytes. Event ids have at most 1 KiB.
const TOKEN_BYTES_MAX: usize = 2 << 10;

/// The token that goes on after `key`.
pub(super) fn write(org_id: &OrgId, filter: &EventFilter, key: &PageKey) -> String {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + key.event_id.len() + CHECKSUM_BYTES);
    bytes.push(VERSION);
    bytes.extend_from_slice(&hash(org_id, filter).to_be_bytes());
    bytes.extend_from_slice(&key.occurred_at.millis().to_be_bytes());
    bytes.extend_from_slice(key.event_id.as_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads a token; none when it is empty. The error names `field`.
pub(super) fn read(field: &str, text: &str, org_id: &OrgId, filter: &EventFilter) -> Result<Option<PageKey>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let Some((hashed, key)) = decode(text) else {
        return Err(Error::invalid_field(field, "is not a token of this service; leave it out for the first page"));
    };
    if hashed != hash(org_id, filter) {
        return Err(Error::invalid_field(field, "belongs to a list with other filters"));
    }
    Ok(Some(key))
}

fn decode(text: &str) -> Option<(u64, PageKey)> {
    if text.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (bytes, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
    let (version, rest) = bytes.split_first()?;
    let (hashed, rest) = rest.split_first_chunk::<8>()?;
    let (millis, event_id) = rest.split_first_chunk::<8>()?;
    if *version != VERSION || event_id.is_empty() || crc32c::crc32c(bytes).to_be_bytes() != *checksum {
        return None;
    }
    let event_id = str::from_utf8(event_id).ok()?.to_owned();
    let occurred_at = Timestamp::from_millis(i64::from_be_bytes(*millis));
    Some((u64::from_be_bytes(*hashed), PageKey { occurred_at, event_id }))
}

/// The same for filters that let the same events through. Every part goes in
/// with its length, so that no two filters have the same bytes.
fn hash(org_id: &OrgId, filter: &EventFilter) -> u64 {
    let mut hasher = SipHasher13::new();
    let mut put = |part: &[u8]| {
        hasher.write(&(part.len() as u64).to_be_bytes());
        hasher.write(part);
    };
    put(org_id.as_str().as_bytes());
    put(filter.campaign_id.as_bytes());
    put(filter.user_id.as_bytes());
    match filter.window {
        None => put(&[]),
        Some(window) => {
            put(&window.from().millis().to_be_bytes());
            put(&window.to().millis().to_be_bytes());
        }
    }
    let mut types: Vec<&str> = filter.types.iter().map(String::as_str).collect();
    types.sort_unstable();
    types.dedup();
    types.iter().for_each(|event_type| put(event_type.as_bytes()));
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::Window;

    fn filter(campaign_id: &str, user_id: &str, types: &[&str]) -> EventFilter {
        EventFilter {
            window: None,
            campaign_id: campaign_id.to_owned(),
            user_id: user_id.to_owned(),
            types: types.iter().map(|&t| t.to_owned()).collect(),
        }
    }

    #[test]
    fn a_token_works_with_its_own_filters_only() {
        let org = OrgId::default_org();
        let key = PageKey { occurred_at: Timestamp::from_millis(-5), event_id: "e/é".to_owned() };
        let made_for = filter("c", "u", &["click", "impression"]);
        let token = write(&org, &made_for, &key);
        let check = |filter: &EventFilter, works: bool| {
            let read = read("cursor", &token, &org, filter);
            assert_eq!(read.ok(), works.then(|| Some(key.clone())), "{filter:?}");
        };
        check(&made_for, true);
        check(&filter("c", "u", &["impression", "click", "click"]), true);
        check(&filter("cu", "", &["click", "impression"]), false);
        check(&filter("c", "u", &["click"]), false);
        check(&filter("c", "u", &[]), false);
        let window = Window::new(Timestamp::from_millis(0), Timestamp::from_millis(1)).ok();
        check(&EventFilter { window, ..made_for.clone() }, false);
    }

    #[test]
    fn an_empty_token_is_the_first_page() {
        assert_eq!(read("cursor", "", &OrgId::default_org(), &EventFilter::default()), Ok(None));
    }

    #[test]
    fn garbage_is_refused_by_name() {
        let org = OrgId::default_org();
        let filter = EventFilter::default();
        let key = PageKey { occurred_at: Timestamp::from_millis(1), event_id: "e".to_owned() };
        let good = write(&org, &filter, &key);
        let long = "A".repeat(100_000);
        for text in ["A", "====", "not base64!", "AQ", &good[1..], &good[..good.len() - 2], &long, "é"] {
            let error = read("page_token", text, &org, &filter).expect_err(text);
            assert_eq!(error.fields[0].field, "page_token", "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_key_comes_back(millis in any::<i64>(), event_id in "\\PC{1,40}", campaign in "\\PC{0,10}") {
            let (org, filter) = (OrgId::default_org(), filter(&campaign, "", &[]));
            let key = PageKey { occurred_at: Timestamp::from_millis(millis), event_id };
            let token = write(&org, &filter, &key);
            prop_assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            prop_assert_eq!(read("cursor", &token, &org, &filter), Ok(Some(key)));
        }

        #[test]
        fn no_token_panics(text in "\\PC*", near in "[A-Za-z0-9_-]{0,60}") {
            let (org, filter) = (OrgId::default_org(), EventFilter::default());
            let _ = (read("cursor", &text, &org, &filter), read("cursor", &near, &org, &filter));
        }
    }
}
