//! Clients and addresses of ClickHouse.

use clickhouse::Client;
use clickhouse::query::Query;

use super::engine;
use crate::config::{Config, Secret};

/// The address of ClickHouse, and the user.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its HTTP address.
    pub url: String,
    /// The user the service works as.
    pub user: String,
    /// That user's password.
    pub password: Secret,
    /// The database that holds the tables.
    pub database: String,
}

impl Endpoint {
    /// The configured endpoint.
    pub fn configured(config: &Config) -> Self {
        Self {
            url: config.clickhouse_url.clone(),
            user: config.clickhouse_user.clone(),
            password: config.clickhouse_password.clone(),
            database: config.clickhouse_database.clone(),
        }
    }

    /// The endpoint with the configured reader; none if no reader is configured.
    pub fn configured_reader(config: &Config) -> Option<Self> {
        (!config.clickhouse_reader_user.is_empty()).then(|| Self {
            user: config.clickhouse_reader_user.clone(),
            password: config.clickhouse_reader_password.clone(),
            ..Self::configured(config)
        })
    }

    /// The embedded ClickHouse, with the reader.
    pub fn reader_of_engine(engine: &engine::Endpoint, config: &Config) -> Self {
        Self {
            user: engine.reader_user.clone(),
            password: engine.reader_password.clone(),
            ..Self::of_engine(engine, config)
        }
    }

    /// The embedded ClickHouse, with the service's user.
    pub fn of_engine(engine: &engine::Endpoint, config: &Config) -> Self {
        Self {
            url: engine.url.clone(),
            user: engine.user.clone(),
            password: engine.password.clone(),
            database: config.clickhouse_database.clone(),
        }
    }

    /// A client for the service's own database.
    pub fn client(&self) -> Client {
        self.server_client().with_database(&self.database)
    }

    /// A client for the server, without a database.
    pub fn server_client(&self) -> Client {
        Client::default()
            .with_url(&self.url)
            .with_user(&self.user)
            .with_password(self.password.expose())
            .with_product_info("tallyhouse", env!("CARGO_PKG_VERSION"))
    }
}

/// Room left above a statement's own size: the crate appends the format.
const STATEMENT_SPARE_BYTES: usize = 1 << 10;

/// A statement that may hold thousands of constants. It must have no
/// parameters: with them it would travel as a field of a form, of which
/// ClickHouse takes 128 KiB only (`http_max_field_value_size`).
pub(super) fn long_query(client: &Client, statement: &str) -> Query {
    let bytes_max = statement.len() + STATEMENT_SPARE_BYTES;
    client.query_raw(statement).with_setting("max_query_size", bytes_max.to_string())
}

/// A text as a constant of ClickHouse's.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
