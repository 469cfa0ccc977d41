//! A bounded cache of compiled schemas: the least recently used ones are dropped.
//!
//! A schema is compiled when an event first requires it, also after a restart. If the schemas of an
//! organization exceed its share, its own schemas are dropped.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::check::CompiledSchema;
use crate::domain::OrgId;
use crate::fairness::Shares;

/// The overhead of an entry, in bytes.
const ENTRY_BYTES: usize = 256;

/// Names a version of an organization's type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct VersionKey {
    pub(super) org_id: OrgId,
    pub(super) event_type: String,
    pub(super) version: u32,
}

/// A cache of compiled schemas, within `schema_bytes_max` bytes. The least recently used ones are
/// dropped and compiled again when needed.
pub(super) struct CompiledSchemas {
    shares: Shares,
    state: Mutex<CacheState>,
}

#[derive(Default)]
struct CacheState {
    schemas: HashMap<VersionKey, Entry>,
    bytes: u64,
    bytes_by_org: HashMap<OrgId, u64>,
    uses: u64,
}

/// The compiled schema of a version; none if it cannot be compiled.
pub(super) type Compiled = Option<Arc<CompiledSchema>>;

struct Entry {
    check: Compiled,
    bytes: u64,
    used_at: u64,
}

impl CompiledSchemas {
    /// Creates a cache with these shares, in bytes.
    pub(super) fn new(shares: Shares) -> Self {
        Self { shares, state: Mutex::default() }
    }

    /// A compiled schema, if it is cached.
    pub(super) fn get(&self, key: &VersionKey) -> Option<Compiled> {
        let mut state = self.state.lock();
        state.uses += 1;
        let uses = state.uses;
        let entry = state.schemas.get_mut(key)?;
        entry.used_at = uses;
        Some(entry.check.clone())
    }

    /// Caches a compiled schema, and evicts others if necessary. A schema larger than an
    /// organization's share is not cached.
    pub(super) fn put(&self, key: VersionKey, check: Compiled) {
        let bytes = check.as_ref().map_or(0, |check| check.bytes()).saturating_add(ENTRY_BYTES) as u64;
        if bytes > self.shares.tenant_max() {
            return;
        }
        let mut state = self.state.lock();
        state.remove(&key);
        while state.bytes_of(&key.org_id) + bytes > self.shares.tenant_max() && state.evict_one(Some(&key.org_id)) {}
        while state.bytes + bytes > self.shares.total() && state.evict_one(None) {}
        state.uses += 1;
        let used_at = state.uses;
        state.bytes += bytes;
        *state.bytes_by_org.entry(key.org_id.clone()).or_default() += bytes;
        state.schemas.insert(key, Entry { check, bytes, used_at });
    }
}

impl CacheState {
    fn bytes_of(&self, org_id: &OrgId) -> u64 {
        self.bytes_by_org.get(org_id).copied().unwrap_or_default()
    }

    fn remove(&mut self, key: &VersionKey) {
        let Some(entry) = self.schemas.remove(key) else { return };
        self.bytes -= entry.bytes;
        if let Some(bytes) = self.bytes_by_org.get_mut(&key.org_id) {
            *bytes -= entry.bytes;
            if *bytes == 0 {
                self.bytes_by_org.remove(&key.org_id);
            }
        }
    }

    /// Evicts the least recently used schema of an organization, by default of the one with the
    /// most bytes. Returns false if there is none.
    fn evict_one(&mut self, of: Option<&OrgId>) -> bool {
        let largest = || self.bytes_by_org.iter().max_by_key(|(_, bytes)| **bytes).map(|(org_id, _)| org_id);
        let Some(org_id) = of.or_else(largest) else { return false };
        let of_org = self.schemas.iter().filter(|(key, _)| key.org_id == *org_id);
        let oldest = of_org.min_by_key(|(_, entry)| entry.used_at).map(|(key, _)| key.clone());
        oldest.is_some_and(|key| {
            self.remove(&key);
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_types::schema::Schema;

    fn key(org: &str, version: u32) -> VersionKey {
        VersionKey { org_id: OrgId::parse(org).unwrap(), event_type: "a".to_owned(), version }
    }

    fn check() -> Compiled {
        Some(Arc::new(CompiledSchema::compile(&Schema::parse("{\"type\":\"object\"}").unwrap()).unwrap()))
    }

    fn one() -> u64 {
        check().map_or(0, |check| check.bytes() + ENTRY_BYTES) as u64
    }

    #[test]
    fn an_organization_lets_go_of_its_own_first() {
        let one = one();
        let schemas = CompiledSchemas::new(Shares::new(8 * one, 50));
        schemas.put(key("beta", 1), check());
        for version in 1..=100 {
            schemas.put(key("acme", version), check());
            assert!(schemas.get(&key("acme", 1)).is_some(), "it is used");
        }
        let state = schemas.state.lock();
        assert_eq!((state.bytes, state.bytes_of(&key("acme", 1).org_id)), (5 * one, 4 * one));
        assert!(state.schemas.contains_key(&key("beta", 1)) && state.schemas.contains_key(&key("acme", 100)));
        assert!(!state.schemas.contains_key(&key("acme", 2)));
    }

    #[test]
    fn all_together_are_bounded() {
        let one = one();
        let schemas = CompiledSchemas::new(Shares::new(4 * one, 50));
        for n in 0..50 {
            schemas.put(key(&format!("org{n}"), 1), check());
            assert!(schemas.state.lock().bytes <= 4 * one);
        }
        schemas.put(key("org49", 1), check());
        assert_eq!(schemas.state.lock().bytes, 4 * one);
        let tiny = CompiledSchemas::new(Shares::new(10, 50));
        tiny.put(key("acme", 1), check());
        assert!(tiny.get(&key("acme", 1)).is_none());
    }
}
