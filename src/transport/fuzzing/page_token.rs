//! Page tokens from callers.

use crate::domain::{EventFilter, OrgId, PageKey, Timestamp};

fn filter() -> EventFilter {
    EventFilter { campaign_id: "camp_1".to_owned(), types: vec!["click".to_owned()], ..EventFilter::default() }
}

/// A token is refused, or was written here; and one that was written here is
/// refused as soon as a byte of it is another.
pub(crate) fn run(bytes: &[u8]) {
    let (cursors, org, filter) = (super::cursors(), OrgId::default_org(), filter());
    if let Ok(text) = str::from_utf8(bytes)
        && let Ok(Some(key)) = cursors.event("cursor", text, &org, &filter)
    {
        assert_eq!(cursors.after_event(&org, &filter, &key), text);
    }
    let Some((head, event_id)) = bytes.split_first_chunk::<10>() else { return };
    let [at, by, millis @ ..] = head;
    let event_id = String::from_utf8_lossy(event_id).chars().take(300).collect::<String>();
    if event_id.is_empty() {
        return;
    }
    let key = PageKey { occurred_at: Timestamp::from_millis(i64::from_be_bytes(*millis)), event_id };
    let token = cursors.after_event(&org, &filter, &key);
    assert_eq!(cursors.event("cursor", &token, &org, &filter), Ok(Some(key)));
    let mut altered = token.clone().into_bytes();
    let at = usize::from(*at) * 7 % altered.len();
    altered[at] = *by;
    if let Ok(altered) = String::from_utf8(altered)
        && altered != token
    {
        assert!(cursors.event("cursor", &altered, &org, &filter).is_err(), "{altered} for {token}");
    }
}

/// Tokens.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let key = |event_id: &str| PageKey { occurred_at: super::NOW, event_id: event_id.to_owned() };
    let token =
        |event_id: &str| super::cursors().after_event(&OrgId::default_org(), &filter(), &key(event_id)).into_bytes();
    vec![token("e"), token("0199c2f0-7d6c-7a51-9d2b-6a4f3c1e8b77"), token("\u{e9}/\u{1f600}"), vec![b'A'; 40]]
}
