//! The files of a directory to load, by organization.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::json;

/// The contents of the files for one organization.
#[derive(Debug, Default)]
pub(super) struct OrgFiles {
    /// The organization itself; none if only other files mention it.
    pub(super) organization: Option<OrganizationRow>,
    /// Its users: those who are members.
    pub(super) users: Vec<UserRow>,
    /// Its members.
    pub(super) members: Vec<MemberRow>,
    /// Its daily metrics.
    pub(super) metrics: Vec<MetricRow>,
    /// Its events, as NDJSON.
    pub(super) events: Vec<u8>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct OrganizationRow {
    org_id: String,
    pub(super) name: String,
    pub(super) plan: String,
    pub(super) created_at: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct UserRow {
    pub(super) user_id: String,
    pub(super) email: String,
    pub(super) name: String,
    pub(super) role: String,
    pub(super) created_at: String,
    pub(super) updated_at: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct MemberRow {
    pub(super) user_id: String,
    org_id: String,
    pub(super) role: String,
    pub(super) joined_at: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct MetricRow {
    org_id: String,
    pub(super) date: String,
    pub(super) metric_name: String,
    pub(super) value: f64,
}

/// The field of an event's line that names its organization.
#[derive(Deserialize)]
struct EventOrg {
    org_id: String,
}

/// Reads the files of a directory. A missing file counts as empty.
pub(super) fn read(dir: &Path) -> anyhow::Result<BTreeMap<String, OrgFiles>> {
    anyhow::ensure!(dir.is_dir(), "{} is not a directory", dir.display());
    let mut orgs: BTreeMap<String, OrgFiles> = BTreeMap::new();
    for row in rows::<OrganizationRow>(&dir.join("organizations.csv"))? {
        let org = orgs.entry(row.org_id.clone()).or_default();
        org.organization = Some(row);
    }
    let users = rows::<UserRow>(&dir.join("users.csv"))?;
    let users: BTreeMap<&str, &UserRow> = users.iter().map(|user| (user.user_id.as_str(), user)).collect();
    for row in rows::<MemberRow>(&dir.join("user_orgs.csv"))? {
        let org = orgs.entry(row.org_id.clone()).or_default();
        org.users.extend(users.get(row.user_id.as_str()).map(|user| (*user).clone()));
        org.members.push(row);
    }
    for row in rows::<MetricRow>(&dir.join("metrics.csv"))? {
        let org = orgs.entry(row.org_id.clone()).or_default();
        org.metrics.push(row);
    }
    for (number, line) in text(&dir.join("events.ndjson"))?.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let place = || format!("events.ndjson, line {}: no org_id can be read", number + 1);
        let EventOrg { org_id } = serde_json::from_str(json::without_bom(line)).with_context(place)?;
        let events = &mut orgs.entry(org_id).or_default().events;
        events.extend_from_slice(line.as_bytes());
        events.push(b'\n');
    }
    Ok(orgs)
}

fn rows<T: DeserializeOwned>(file: &Path) -> anyhow::Result<Vec<T>> {
    let text = text(file)?;
    let rows: Result<Vec<T>, csv::Error> = csv::Reader::from_reader(text.as_bytes()).deserialize().collect();
    rows.with_context(|| format!("cannot read {}", file.display()))
}

/// A file's text without a byte-order mark; empty if the file is missing.
fn text(file: &Path) -> anyhow::Result<String> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(json::without_bom(&text).to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_are_read_by_organization() {
        let orgs = read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/samples"))).unwrap();
        assert_eq!(orgs.len(), 20);
        let acme = &orgs["acme"];
        assert_eq!(acme.organization.as_ref().map(|organization| &*organization.plan), Some("enterprise"));
        assert_eq!(acme.users.len(), acme.members.len());
        assert_eq!(acme.events.split(|byte| *byte == b'\n').count(), 34 + 1);
        let members: usize = orgs.values().map(|org| org.members.len()).sum();
        let metrics: usize = orgs.values().map(|org| org.metrics.len()).sum();
        assert_eq!((members, metrics), (53, 60));
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), format!("\u{feff}{text}")).unwrap();
        write("organizations.csv", "org_id,name,plan,created_at\na,A,pro,2026-01-01T00:00:00Z\n");
        write("events.ndjson", "{\"org_id\":\"a\",\"event_id\":\"e\"}\n\u{feff}{\"org_id\":\"a\"}\n");
        let orgs = read(dir.path()).unwrap();
        assert_eq!(orgs["a"].organization.as_ref().unwrap().name, "A");
        assert!(orgs["a"].events.starts_with(b"{\"org_id\":\"a\",\"event_id\":\"e\"}\n"));
    }

    #[test]
    fn what_is_not_there_is_empty_and_what_is_wrong_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap().is_empty());
        std::fs::write(dir.path().join("metrics.csv"), "org_id,date,metric_name,value\na,2026-01-01,m,many\n").unwrap();
        let error = format!("{:#}", read(dir.path()).unwrap_err());
        assert!(error.contains("metrics.csv") && error.contains("line: 2"), "{error}");
        assert!(read(&dir.path().join("nowhere")).is_err());
    }
}
