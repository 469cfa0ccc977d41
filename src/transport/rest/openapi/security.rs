//! Required scopes of operations.

use serde_json::{Value, json};

use crate::config::Config;

/// Adds the required scope to every operation. Open operations get an empty list, since a missing
/// one would be undefined.
pub(super) fn complete(document: &mut Value, config: &Config) {
    for (path, _, operation) in super::operations(document) {
        if path == "/metrics" && config.metrics_open {
            operation["security"] = json!([]);
        } else if path == "/metrics" {
            let refused = |description: &str| {
                let schema = json!({ "$ref": "#/components/schemas/ErrorBody" });
                json!({ "description": description, "content": { "application/json": { "schema": schema } } })
            };
            operation["responses"]["401"] = refused("There is no good token: `UNAUTHENTICATED`.");
            operation["responses"]["403"] = refused("The token does not allow this: `PERMISSION_DENIED`.");
        } else if operation.get("security").is_none() {
            operation["security"] = json!([]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_routes_say_that_they_are_open() {
        let security = |config: &Config, path: &str| {
            let document = super::super::document(config).expect("JSON");
            document["paths"][path]["get"]["security"].clone()
        };
        let closed = Config { metrics_open: false, ..Config::default() };
        let open = Config { metrics_open: true, ..Config::default() };
        for path in ["/healthz", "/readyz", "/openapi.json"] {
            assert_eq!(security(&closed, path), json!([]), "{path}");
        }
        assert_eq!(security(&open, "/metrics"), json!([]));
        assert_eq!(security(&closed, "/metrics"), json!([{ "token": ["admin"] }]));
        assert_eq!(security(&closed, "/events"), json!([{ "token": ["read"] }]));
    }
}
