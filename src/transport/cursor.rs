//! Cursors: a position in a list, as an opaque text that cannot be changed or used for another list.
//!
//! URL-safe base64 of a version, the position, and an HMAC-SHA256 of both together with the list: its
//! kind, its organization and its filters. The key is [`crate::config::Config::cursor_secret`].

use std::io;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::config::Config;
use crate::domain::{Error, EventFilter, OrgId, PageKey, Timestamp};
use crate::private_files;
use crate::secret::read_or_make_secret;

const VERSION: u8 = 3;
/// Bytes of an HMAC-SHA256.
const TAG_BYTES: usize = 32;
/// Longest cursor that is looked at, in bytes. Event ids have at most 1 KiB.
const CURSOR_BYTES_MAX: usize = 2 << 10;
/// The file in the data directory that keeps the key, where none is configured.
const KEY_FILE: &str = "cursor-key";

/// Creates and parses cursors.
pub struct Cursors {
    keyed: Hmac<Sha256>,
}

impl Cursors {
    /// With the configured key, or else the one in the data directory, which is
    /// made when there is none yet.
    ///
    /// # Errors
    /// When the file can be neither read nor made.
    pub fn open(config: &Config) -> io::Result<Self> {
        if !config.cursor_secret.expose().is_empty() {
            return Self::new(config.cursor_secret.expose().as_bytes());
        }
        private_files::create_dir(&config.data_dir)?;
        Self::new(read_or_make_secret(&config.data_dir.join(KEY_FILE))?.expose().as_bytes())
    }

    /// With this key.
    ///
    /// # Errors
    /// When the key is empty: then anybody could sign.
    pub(super) fn new(key: &[u8]) -> io::Result<Self> {
        let keyed = Hmac::new_from_slice(key).ok().filter(|_| !key.is_empty());
        keyed.map(|keyed| Self { keyed }).ok_or_else(|| io::Error::other("the key of cursors is empty"))
    }

    /// The cursor that goes on after an event.
    pub(super) fn after_event(&self, org_id: &OrgId, filter: &EventFilter, key: &PageKey) -> String {
        let millis = key.occurred_at.millis().to_be_bytes();
        self.write(&events(org_id, filter), &[&millis[..], key.event_id.as_bytes()].concat())
    }

    /// Where a list of events goes on; none when the cursor is empty.
    ///
    /// # Errors
    /// `Invalid`, naming `field`.
    pub(super) fn event(
        &self,
        field: &str,
        text: &str,
        org_id: &OrgId,
        filter: &EventFilter,
    ) -> Result<Option<PageKey>, Error> {
        let Some(position) = self.read(field, text, &events(org_id, filter))? else { return Ok(None) };
        let key = position.split_first_chunk().and_then(|(millis, event_id)| {
            let occurred_at = Timestamp::from_millis(i64::from_be_bytes(*millis));
            Some(PageKey { occurred_at, event_id: String::from_utf8(event_id.to_vec()).ok()? })
        });
        key.map(Some).ok_or_else(|| not_of_this_list(field))
    }

    /// The cursor that goes on after a member.
    pub(super) fn after_member(&self, org_id: &OrgId, user_id: &str) -> String {
        self.write(&members(org_id), user_id.as_bytes())
    }

    /// Where a list of members goes on; none when the cursor is empty.
    ///
    /// # Errors
    /// `Invalid`, naming `field`.
    pub(super) fn member(&self, field: &str, text: &str, org_id: &OrgId) -> Result<Option<String>, Error> {
        let position = self.read(field, text, &members(org_id))?;
        position.map(|user_id| String::from_utf8(user_id).map_err(|_| not_of_this_list(field))).transpose()
    }

    fn write(&self, list: &[u8], position: &[u8]) -> String {
        let mut bytes = Vec::with_capacity(1 + position.len() + TAG_BYTES);
        bytes.push(VERSION);
        bytes.extend_from_slice(position);
        let tag = self.signing(list, &bytes).finalize().into_bytes();
        bytes.extend_from_slice(&tag);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn read(&self, field: &str, text: &str, list: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        if text.is_empty() {
            return Ok(None);
        }
        self.position(text, list).map(Some).ok_or_else(|| not_of_this_list(field))
    }

    fn position(&self, text: &str, list: &[u8]) -> Option<Vec<u8>> {
        if text.len() > CURSOR_BYTES_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (signed, tag) = bytes.split_last_chunk::<TAG_BYTES>()?;
        // In constant time.
        self.signing(list, signed).verify_slice(tag).ok()?;
        let (version, position) = signed.split_first()?;
        (*version == VERSION && !position.is_empty()).then(|| position.to_vec())
    }

    fn signing(&self, list: &[u8], signed: &[u8]) -> Hmac<Sha256> {
        let mut signing = self.keyed.clone();
        // With its length, so that nothing of one can pass for the other.
        signing.update(&(list.len() as u64).to_be_bytes());
        signing.update(list);
        signing.update(signed);
        signing
    }
}

fn not_of_this_list(field: &str) -> Error {
    let message = "is not a cursor of this list: send it unchanged and with the filters that it came with, or leave it \
                   out for the first page";
    Error::invalid_field(field, message)
}

/// A list of events, the same for filters that let the same events through.
fn events(org_id: &OrgId, filter: &EventFilter) -> Vec<u8> {
    let mut list = List::of("events", org_id);
    list.put(filter.campaign_id.as_bytes());
    list.put(filter.user_id.as_bytes());
    match filter.window {
        None => list.put(&[]),
        Some(window) => {
            list.put(&window.from().millis().to_be_bytes());
            list.put(&window.to().millis().to_be_bytes());
        }
    }
    let mut types: Vec<&str> = filter.types.iter().map(String::as_str).collect();
    types.sort_unstable();
    types.dedup();
    types.iter().for_each(|event_type| list.put(event_type.as_bytes()));
    list.0
}

fn members(org_id: &OrgId) -> Vec<u8> {
    List::of("members", org_id).0
}

/// What a list is of. Every part goes in with its length, so that no two lists
/// have the same bytes.
struct List(Vec<u8>);

impl List {
    fn of(kind: &str, org_id: &OrgId) -> Self {
        let mut list = Self(Vec::new());
        list.put(kind.as_bytes());
        list.put(org_id.as_str().as_bytes());
        list
    }

    fn put(&mut self, part: &[u8]) {
        self.0.extend_from_slice(&(part.len() as u64).to_be_bytes());
        self.0.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::Window;

    fn cursors() -> Cursors {
        Cursors::new(b"a key").unwrap()
    }

    fn filter(campaign_id: &str, user_id: &str, types: &[&str]) -> EventFilter {
        EventFilter {
            window: None,
            campaign_id: campaign_id.to_owned(),
            user_id: user_id.to_owned(),
            types: types.iter().map(|&t| t.to_owned()).collect(),
        }
    }

    #[test]
    fn a_cursor_works_with_its_own_list_and_key_only() {
        let org = OrgId::default_org();
        let key = PageKey { occurred_at: Timestamp::from_millis(-5), event_id: "e/é".to_owned() };
        let made_for = filter("c", "u", &["click", "impression"]);
        let token = cursors().after_event(&org, &made_for, &key);
        let check = |org: &OrgId, filter: &EventFilter, works: bool| {
            let read = cursors().event("cursor", &token, org, filter);
            assert_eq!(read.ok(), works.then(|| Some(key.clone())), "{filter:?}");
        };
        check(&org, &made_for, true);
        check(&org, &filter("c", "u", &["impression", "click", "click"]), true);
        check(&OrgId::parse("other").unwrap(), &made_for, false);
        check(&org, &filter("cu", "", &["click", "impression"]), false);
        check(&org, &filter("c", "u", &["click"]), false);
        check(&org, &filter("c", "u", &[]), false);
        let window = Window::new(Timestamp::from_millis(0), Timestamp::from_millis(1)).ok();
        check(&org, &EventFilter { window, ..made_for.clone() }, false);
        assert!(cursors().member("cursor", &token, &org).is_err());
        assert!(Cursors::new(b"another").unwrap().event("cursor", &token, &org, &made_for).is_err());
        assert!(Cursors::new(b"").is_err());

        let token = cursors().after_member(&org, "u_1");
        assert_eq!(cursors().member("cursor", &token, &org), Ok(Some("u_1".to_owned())));
        assert!(cursors().event("cursor", &token, &org, &EventFilter::default()).is_err());
    }

    #[test]
    fn an_empty_cursor_is_the_first_page() {
        assert_eq!(cursors().event("cursor", "", &OrgId::default_org(), &EventFilter::default()), Ok(None));
        assert_eq!(cursors().member("cursor", "", &OrgId::default_org()), Ok(None));
    }

    #[test]
    fn garbage_is_refused_by_name() {
        let org = OrgId::default_org();
        let filter = EventFilter::default();
        let key = PageKey { occurred_at: Timestamp::from_millis(1), event_id: "e".to_owned() };
        let good = cursors().after_event(&org, &filter, &key);
        let long = "A".repeat(100_000);
        for text in ["A", "====", "not base64!", "AQ", &good[1..], &good[..good.len() - 2], &long, "é"] {
            let error = cursors().event("page_token", text, &org, &filter).expect_err(text);
            assert_eq!(error.fields[0].field, "page_token", "{text}");
        }
    }

    #[test]
    fn the_key_is_kept_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { data_dir: dir.path().join("data"), ..Config::default() };
        let org = OrgId::default_org();
        let token = Cursors::open(&config).unwrap().after_member(&org, "u");
        let mode = std::fs::metadata(config.data_dir.join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(Cursors::open(&config).unwrap().member("cursor", &token, &org).is_ok(), "after a restart");
        std::fs::remove_file(config.data_dir.join(KEY_FILE)).unwrap();
        assert!(Cursors::open(&config).unwrap().member("cursor", &token, &org).is_err());
    }

    proptest! {
        #[test]
        fn every_position_comes_back(millis in any::<i64>(), event_id in "\\PC{0,40}", campaign in "\\PC{0,10}") {
            let (org, filter) = (OrgId::default_org(), filter(&campaign, "", &[]));
            let key = PageKey { occurred_at: Timestamp::from_millis(millis), event_id };
            let token = cursors().after_event(&org, &filter, &key);
            prop_assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            prop_assert_eq!(cursors().event("cursor", &token, &org, &filter), Ok(Some(key)));
        }

        #[test]
        fn no_cursor_panics(text in "\\PC*", near in "[A-Za-z0-9_-]{0,60}") {
            let (org, filter) = (OrgId::default_org(), EventFilter::default());
            let read = |text: &str| cursors().event("cursor", text, &org, &filter);
            let _ = (read(&text), read(&near));
        }
    }
}
