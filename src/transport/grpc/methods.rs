//! Interned names of gRPC methods: `package.Service/Method`.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::transport::call::Call;

/// The methods of others' services that are served here. (Any name after theirs
/// is let through to them, which must not become a label.)
const OTHERS: [&str; 6] = [
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/List",
    "grpc.health.v1.Health/Watch",
    "opentelemetry.proto.collector.logs.v1.LogsService/Export",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Interns the names of gRPC methods, so that calls refer to them without copies. Only names of
/// served methods are added, so the set is bounded.
#[derive(Default)]
pub(super) struct Methods(RwLock<HashMap<String, Arc<str>>>);

impl Methods {
    /// Notes which method a call to a path is of, if [`super::access`] lists it.
    pub(super) fn note(&self, call: &Call, path: &str) {
        let name = path.strip_prefix('/').unwrap_or(path);
        if let Some(known) = self.0.read().get(name) {
            call.note_route(known);
            return;
        }
        if name.starts_with("tallyhouse.") || OTHERS.contains(&name) {
            call.note_route(self.0.write().entry(name.to_owned()).or_insert_with(|| Arc::from(name)));
        }
    }
}
