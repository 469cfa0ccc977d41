//! The latest version of every event type, in memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::clickhouse::event_types::LatestRow;
use crate::domain::{OrgId, UnknownTypes};

/// The event types of one organization.
#[derive(Clone, Debug, Default)]
pub struct OrgTypes {
    unknown: UnknownTypes,
    types: HashMap<String, LatestVersion>,
}

/// The latest version of a type. It is compiled when an event needs it.
#[derive(Clone, Debug)]
pub(super) struct LatestVersion {
    pub(super) version: u32,
    /// The text of its schema. None: all properties are accepted.
    pub(super) schema: Option<Arc<str>>,
}

impl OrgTypes {
    /// The latest version of a type, if it is registered.
    pub(super) fn latest(&self, event_type: &str) -> Option<&LatestVersion> {
        self.types.get(event_type)
    }

    /// The handling of events of unregistered types.
    pub(super) const fn unknown(&self) -> UnknownTypes {
        self.unknown
    }

    /// Whether all events are accepted without a check.
    fn is_default(&self) -> bool {
        self.unknown == UnknownTypes::Accept && self.types.is_empty()
    }
}

type Organizations = HashMap<OrgId, Arc<OrgTypes>>;

/// The latest version of every event type of every organization, in memory. Refreshed from
/// ClickHouse every `event_types_refresh_seconds`.
#[derive(Default)]
pub(super) struct Latest {
    organizations: RwLock<Organizations>,
    /// The number of changes by this instance.
    changes: AtomicU64,
}

impl Latest {
    pub(super) fn of(&self, org_id: &OrgId) -> Option<Arc<OrgTypes>> {
        self.organizations.read().get(org_id).map(Arc::clone)
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    fn change(&self, org_id: &OrgId, change: impl FnOnce(&mut OrgTypes)) {
        let mut organizations = self.organizations.write();
        change(Arc::make_mut(organizations.entry(org_id.clone()).or_default()));
        if organizations.get(org_id).is_some_and(|types| types.is_default()) {
            organizations.remove(org_id);
        }
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn set_unknown_types(&self, org_id: &OrgId, policy: UnknownTypes) {
        self.change(org_id, |types| types.unknown = policy);
    }

    /// Adds a version that this instance registered.
    pub(super) fn registered(&self, org_id: &OrgId, event_type: &str, latest: LatestVersion) {
        self.change(org_id, |types| _ = types.types.insert(event_type.to_owned(), latest));
    }

    /// Replaces the contents by those of the tables, unless this instance has changed something
    /// since. Returns whether it did.
    pub(super) fn replace(
        &self,
        versions: Vec<LatestRow>,
        policies: Vec<(String, UnknownTypes)>,
        changes: u64,
    ) -> bool {
        let before = self.organizations.read().clone();
        let made = organizations(versions, policies, &before);
        let mut organizations = self.organizations.write();
        let is_current = self.changes() == changes;
        if is_current {
            *organizations = made;
        }
        is_current
    }
}

fn organizations(
    versions: Vec<LatestRow>,
    policies: Vec<(String, UnknownTypes)>,
    before: &Organizations,
) -> Organizations {
    let mut made: HashMap<OrgId, OrgTypes> = HashMap::new();
    for row in versions {
        let Some(org_id) = OrgId::parse(&row.org_id) else { continue };
        let known = before.get(&org_id).and_then(|types| types.types.get(&row.r#type));
        let latest = match known {
            Some(known) if known.version == row.latest => known.clone(),
            _ => latest(&row),
        };
        made.entry(org_id).or_default().types.insert(row.r#type, latest);
    }
    for (org_id, policy) in policies {
        if let Some(org_id) = OrgId::parse(&org_id)
            && policy != UnknownTypes::Accept
        {
            made.entry(org_id).or_default().unknown = policy;
        }
    }
    made.into_iter().map(|(org_id, types)| (org_id, Arc::new(types))).collect()
}

fn latest(row: &LatestRow) -> LatestVersion {
    let schema = (!row.latest_schema.is_empty()).then(|| Arc::from(&*row.latest_schema));
    LatestVersion { version: row.latest, schema }
}
