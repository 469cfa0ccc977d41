//! Versions of event types, as they are stored.

use super::Timestamp;

/// One version of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredVersion {
    /// The type.
    pub event_type: String,
    /// The version's number, from 1.
    pub version: u32,
    /// The text of its schema, with keys sorted; empty: all properties are accepted.
    pub schema: String,
    /// When it was registered.
    pub created_at: Timestamp,
}

/// A type with its latest version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionSummary {
    /// The type.
    pub event_type: String,
    /// The latest version's number, from 1.
    pub version: u32,
    /// Whether it has a schema; if not, all properties are accepted.
    pub has_schema: bool,
    /// When it was registered.
    pub created_at: Timestamp,
}
