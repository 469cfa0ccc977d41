//! Checks of what some parts of the service need besides ClickHouse: the Redis of the event pipeline, and the PostgreSQL of
//! the ticketing catalogue. They are asked only where these parts are on.

use tallyhouse_catalogue::store::PostgresStore;
use tallyhouse_delivery::redis::RedisConnection;

use super::Finding;
use crate::config::Config;

/// Both of them.
pub(super) async fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    if config.has_pipeline() {
        findings.push(redis(config.redis_url()).await);
    }
    let database = config.ticketing_database_url.expose();
    if config.has_ticketing() && !database.is_empty() {
        findings.push(postgres(database).await);
    }
    findings
}

/// The URL may hold a password, and is not repeated.
async fn redis(url: &str) -> Finding {
    const CHECK: &str = "redis";
    let connection = match RedisConnection::new(url, Vec::new()) {
        Ok(connection) => connection,
        Err(error) => return Finding::error(CHECK, format!("redis_url {error}"), "correct redis_url"),
    };
    match connection.is_durable().await {
        Ok(true) => Finding::ok(CHECK, "it answers, and writes what it is told to its disk"),
        Ok(false) => Finding::warning(
            CHECK,
            "it answers, and loses what it was told when it stops: appendonly is off",
            "set `appendonly yes`; what was lost is written again by `tallyhouse deliveries rebuild`",
        ),
        Err(error) => Finding::error(
            CHECK,
            error.to_string(),
            "check that it runs, redis_url, and that this machine may connect to it; events of the pipeline wait until then",
        ),
    }
}

async fn postgres(url: &str) -> Finding {
    const CHECK: &str = "ticketing database";
    match PostgresStore::version(url).await {
        Ok(version) => Finding::ok(CHECK, format!("PostgreSQL {version} answers")),
        Err(error) => Finding::error(
            CHECK,
            error.to_string(),
            "check ticketing_database_url, that the server runs, and that this machine may connect to it",
        ),
    }
}
