//! Registers a version of an event type.

use std::sync::Arc;

use tokio::time::Instant;

use super::check::CompiledSchema;
use super::compiled::VersionKey;
use super::latest::LatestVersion;
use super::schema::Schema;
use super::{EventTypeSettings, EventTypes, compatibility, cost, failed};
use crate::domain::{Error, FieldError, OrgId, StoredVersion};

/// Most bytes of the latest schemas of an organization together: their texts
/// are in memory.
const ORG_SCHEMAS_BYTES_MAX: u64 = 4 << 20;

/// A version to register.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registration {
    /// The version's number; none: the next one, or the last one if it is the same.
    pub version: Option<u32>,
    /// The text of the schema; empty: all properties are accepted.
    pub schema: String,
    /// Registers the version even if it may refuse what the last one accepts.
    pub force: bool,
}

/// The result of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The version.
    pub version: StoredVersion,
    /// Whether it is new. If not, the same version was registered before.
    pub is_new: bool,
}

/// A parsed and compiled schema.
struct Compiled {
    schema: Option<Schema>,
    check: Option<CompiledSchema>,
}

impl Compiled {
    fn read(text: &str, properties_bytes_max: usize) -> Result<Self, Vec<FieldError>> {
        if text.is_empty() {
            return Ok(Self { schema: None, check: None });
        }
        let schema = Schema::parse(text)?;
        cost::check(schema.expanded(), properties_bytes_max)?;
        let check = CompiledSchema::compile(&schema)?;
        Ok(Self { schema: Some(schema), check: Some(check) })
    }

    fn text(&self) -> &str {
        self.schema.as_ref().map_or("", Schema::text)
    }

    /// The paths at which it may refuse what an earlier schema accepts.
    fn faults(&self, former: &str, deadline: Instant) -> Vec<FieldError> {
        let Some(schema) = &self.schema else { return Vec::new() };
        let anything = serde_json::Value::Bool(true);
        if former.is_empty() {
            return compatibility::faults(&anything, schema.expanded(), deadline);
        }
        match Schema::parse(former) {
            Ok(former) => compatibility::faults(former.expanded(), schema.expanded(), deadline),
            Err(_) => vec![FieldError::new("schema", "cannot be compared with the last version, which is no schema")],
        }
    }
}

/// The exclusive right to register a type.
struct RegistrationGuard {
    types: Arc<EventTypes>,
    key: (OrgId, String),
}

impl RegistrationGuard {
    fn take(types: &Arc<EventTypes>, org_id: &OrgId, event_type: &str) -> Result<Self, Error> {
        let key = (org_id.clone(), event_type.to_owned());
        if !types.under_way.lock().insert(key.clone()) {
            return Err(Error::conflict("this event type is being registered by somebody else"));
        }
        Ok(Self { types: Arc::clone(types), key })
    }
}

impl Drop for RegistrationGuard {
    fn drop(&mut self) {
        self.types.under_way.lock().remove(&self.key);
    }
}

impl EventTypes {
    /// Adds a version to a type. When this returns, the version is durable and events are checked
    /// against it.
    ///
    /// # Errors
    /// `Invalid` for an invalid name, schema or number; `Conflict` if another caller is registering
    /// the type or has registered the version; `Incompatible` if it may refuse what the last one
    /// accepts.
    pub async fn register(
        self: &Arc<Self>,
        org_id: &OrgId,
        event_type: &str,
        registration: Registration,
    ) -> Result<Registered, Error> {
        self.check_type(event_type)?;
        let (types, org_id, event_type) = (Arc::clone(self), org_id.clone(), event_type.to_owned());
        // It goes on when the caller goes: who comes next finds it done.
        let registered = tokio::spawn(async move {
            let place = RegistrationGuard::take(&types, &org_id, &event_type)?;
            let registered = types.register_alone(&org_id, &event_type, registration).await;
            drop(place);
            registered
        });
        registered.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a registration failed");
            Err(Error::internal())
        })
    }

    fn check_type(&self, event_type: &str) -> Result<(), Error> {
        let max = self.settings.type_bytes_max;
        let is_token = event_type.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':'));
        if is_token && (1..=max).contains(&event_type.len()) {
            return Ok(());
        }
        Err(Error::invalid_field("type", format!("must be 1 to {max} letters, digits, '_', '-', '.' or ':'")))
    }

    async fn register_alone(
        &self,
        org_id: &OrgId,
        event_type: &str,
        registration: Registration,
    ) -> Result<Registered, Error> {
        let Registration { version, schema, force } = registration;
        let EventTypeSettings { wait_max, properties_bytes_max, .. } = self.settings;
        let read = move || Compiled::read(&schema, properties_bytes_max);
        let compiled = self.workers.run(Instant::now() + wait_max, org_id, read).await?.map_err(Error::invalid)?;
        let versions = self.versions(org_id, event_type).await?;
        let last = versions.first();
        let number = match number(version, compiled.text(), last)? {
            VersionNumber::Last(last) => return Ok(Registered { version: last.clone(), is_new: false }),
            VersionNumber::Next(number) => number,
        };
        self.check_room(org_id, versions.len(), compiled.text().len()).await?;
        let former = last.filter(|_| !force).map(|last| last.schema.clone());
        let compare = move || {
            let deadline = Instant::now() + wait_max;
            let faults = former.map(|former| compiled.faults(&former, deadline)).unwrap_or_default();
            if faults.is_empty() { Ok(compiled) } else { Err(Error::incompatible(faults)) }
        };
        let compiled = self.workers.run(Instant::now() + wait_max, org_id, compare).await??;
        let version = StoredVersion {
            event_type: event_type.to_owned(),
            version: number,
            schema: compiled.text().to_owned(),
            created_at: self.clock.now(),
        };
        self.store.insert(org_id, &version).await.map_err(failed)?;
        let schema = (!version.schema.is_empty()).then(|| Arc::from(&*version.schema));
        if let Some(check) = compiled.check {
            let key = VersionKey { org_id: org_id.clone(), event_type: event_type.to_owned(), version: number };
            self.compiled.put(key, Some(Arc::new(check)));
        }
        self.latest.registered(org_id, event_type, LatestVersion { version: number, schema });
        tracing::info!(
            org_id = org_id.as_str(),
            event_type,
            version = number,
            force,
            "registered a version of an event type"
        );
        Ok(Registered { version, is_new: true })
    }

    /// Checks the limits on types, versions and bytes.
    async fn check_room(&self, org_id: &OrgId, versions: usize, schema_bytes: usize) -> Result<(), Error> {
        let (types_max, versions_max) = (self.settings.types_max, self.settings.versions_max);
        if versions >= versions_max {
            return Err(Error::invalid_field("version", format!("is one too many: a type has at most {versions_max}")));
        }
        let (types, bytes) = self.limiter.run(org_id, |ticket| self.store.count(ticket, org_id)).await?;
        if versions == 0 && types >= types_max {
            let message = format!("is one too many: an organization has at most {types_max}");
            return Err(Error::invalid_field("type", message));
        }
        if bytes.saturating_add(schema_bytes as u64) > ORG_SCHEMAS_BYTES_MAX {
            let message = format!(
                "is too large beside the others: the latest versions of an organization's types have at most \
                 {ORG_SCHEMAS_BYTES_MAX} bytes together, and have {bytes}"
            );
            return Err(Error::invalid_field("schema", message));
        }
        Ok(())
    }
}

/// The version that a registration refers to.
#[derive(Debug, PartialEq, Eq)]
enum VersionNumber<'a> {
    /// The last one, which is identical.
    Last(&'a StoredVersion),
    Next(u32),
}

fn number<'a>(given: Option<u32>, schema: &str, last: Option<&'a StoredVersion>) -> Result<VersionNumber<'a>, Error> {
    let next = last.map_or(1, |last| last.version.saturating_add(1));
    let same = last.filter(|last| last.schema == schema);
    match (given, same) {
        (None, Some(same)) => Ok(VersionNumber::Last(same)),
        (None, None) => Ok(VersionNumber::Next(next)),
        (Some(given), _) if given == next => Ok(VersionNumber::Next(next)),
        (Some(given), Some(same)) if given == same.version => Ok(VersionNumber::Last(same)),
        (Some(given), _) if last.is_some_and(|last| given == last.version) => {
            Err(Error::conflict(format!("version {given} is registered with another schema; the next is {next}")))
        }
        (Some(_), _) => Err(Error::invalid_field("version", format!("must be {next}, which is the next"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;

    #[test]
    fn versions_follow_each_other() {
        let last = StoredVersion {
            event_type: "a".to_owned(),
            version: 2,
            schema: "{}".to_owned(),
            created_at: Timestamp::from_millis(0),
        };
        let check =
            |given: Option<u32>, schema: &str, last: Option<&StoredVersion>, expected: Result<Option<u32>, &str>| {
                let got = number(given, schema, last).map(|number| match number {
                    VersionNumber::Last(_) => None,
                    VersionNumber::Next(number) => Some(number),
                });
                let got = got.map_err(|error| if error.fields.is_empty() { "conflict" } else { "invalid" });
                assert_eq!(got, expected, "{given:?} {schema}");
            };
        check(None, "", None, Ok(Some(1)));
        check(Some(1), "", None, Ok(Some(1)));
        check(Some(2), "", None, Err("invalid"));
        check(None, "{\"type\":\"object\"}", Some(&last), Ok(Some(3)));
        check(None, "{}", Some(&last), Ok(None));
        check(Some(2), "{}", Some(&last), Ok(None));
        check(Some(3), "{}", Some(&last), Ok(Some(3)));
        check(Some(2), "", Some(&last), Err("conflict"));
        check(Some(1), "{}", Some(&last), Err("invalid"));
        check(Some(4), "", Some(&last), Err("invalid"));
        check(Some(0), "", Some(&last), Err("invalid"));
    }
}
