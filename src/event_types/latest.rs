//! The latest version of every type, compiled, in memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use serde_json::Value;

use super::check::Check;
use super::schema::Schema;
use crate::clickhouse::event_types::LatestRow;
use crate::domain::{Event, FieldError, OrgId, Rejection, RejectionCode, UnknownTypes};
use crate::json;

/// What one organisation's events are checked against.
#[derive(Clone, Debug, Default)]
pub struct OrgTypes {
    unknown: UnknownTypes,
    types: HashMap<String, LatestVersion>,
}

#[derive(Clone, Debug)]
pub(super) struct LatestVersion {
    pub(super) version: u32,
    /// None: anything will do.
    pub(super) check: Option<Arc<Check>>,
}

impl OrgTypes {
    /// Checks an event, and returns the version of its type; 0 when it is not
    /// registered.
    ///
    /// # Errors
    /// What is wrong with its properties, or that its type is unknown.
    pub fn check(&self, event: &Event<'_>) -> Result<u32, Rejection> {
        let Some(latest) = self.types.get(event.event_type()) else {
            return match self.unknown {
                UnknownTypes::Accept => Ok(0),
                UnknownTypes::Reject => Err(Rejection {
                    code: RejectionCode::UnknownType,
                    errors: vec![FieldError::new("type", "must be a type that the organisation has registered")],
                }),
            };
        };
        let Some(check) = &latest.check else { return Ok(latest.version) };
        let errors = match event.properties() {
            "" => check.faults(&Value::Object(serde_json::Map::new())),
            text => match json::parse(text) {
                Ok(properties) => check.faults(&properties),
                // The transport has written this text itself.
                Err(error) => vec![FieldError::new("properties", format!("must be a JSON object: {error}"))],
            },
        };
        if errors.is_empty() { Ok(latest.version) } else { Err(Rejection { code: RejectionCode::Schema, errors }) }
    }

    /// Nothing is asked of anything.
    fn is_default(&self) -> bool {
        self.unknown == UnknownTypes::Accept && self.types.is_empty()
    }
}

type Organisations = HashMap<OrgId, Arc<OrgTypes>>;

/// See the module.
#[derive(Default)]
pub(super) struct Latest {
    organisations: RwLock<Organisations>,
    /// How often something was changed here.
    changes: AtomicU64,
}

impl Latest {
    pub(super) fn of(&self, org_id: &OrgId) -> Option<Arc<OrgTypes>> {
        self.organisations.read().get(org_id).map(Arc::clone)
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    fn change(&self, org_id: &OrgId, change: impl FnOnce(&mut OrgTypes)) {
        let mut organisations = self.organisations.write();
        change(Arc::make_mut(organisations.entry(org_id.clone()).or_default()));
        if organisations.get(org_id).is_some_and(|types| types.is_default()) {
            organisations.remove(org_id);
        }
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn set_unknown_types(&self, org_id: &OrgId, policy: UnknownTypes) {
        self.change(org_id, |types| types.unknown = policy);
    }

    /// A version was registered here.
    pub(super) fn registered(&self, org_id: &OrgId, event_type: &str, latest: LatestVersion) {
        self.change(org_id, |types| _ = types.types.insert(event_type.to_owned(), latest));
    }

    /// Takes in what the tables say, unless something has been changed here
    /// since. Returns whether it has taken it in.
    pub(super) async fn replace(
        &self,
        versions: Vec<LatestRow>,
        policies: Vec<(String, UnknownTypes)>,
        changes: u64,
    ) -> bool {
        let before = self.organisations.read().clone();
        // Compiling takes its time.
        let made = tokio::task::spawn_blocking(move || organisations(versions, policies, &before)).await;
        let Ok(made) = made else {
            tracing::error!("reading event types failed");
            return false;
        };
        let mut organisations = self.organisations.write();
        let is_current = self.changes() == changes;
        if is_current {
            *organisations = made;
        }
        is_current
    }
}

fn organisations(
    versions: Vec<LatestRow>,
    policies: Vec<(String, UnknownTypes)>,
    before: &Organisations,
) -> Organisations {
    let mut made: HashMap<OrgId, OrgTypes> = HashMap::new();
    for row in versions {
        let Some(org_id) = OrgId::parse(&row.org_id) else { continue };
        let known = before.get(&org_id).and_then(|types| types.types.get(&row.r#type));
        let latest = match known {
            Some(known) if known.version == row.latest => known.clone(),
            _ => compile(&row),
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

fn compile(row: &LatestRow) -> LatestVersion {
    if row.latest_schema.is_empty() {
        return LatestVersion { version: row.latest, check: None };
    }
    match Schema::parse(&row.latest_schema).and_then(|schema| Check::compile(&schema)) {
        Ok(check) => LatestVersion { version: row.latest, check: Some(Arc::new(check)) },
        Err(faults) => {
            // Written by hand, or by a service with other bounds. Events are
            // worth more than a schema that nobody can read.
            let (org_id, event_type, version) = (&row.org_id, &row.r#type, row.latest);
            tracing::error!(
                org_id,
                event_type,
                version,
                ?faults,
                "a stored schema is none: its events are not checked"
            );
            LatestVersion { version: 0, check: None }
        }
    }
}
