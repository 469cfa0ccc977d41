//! Checks of ClickHouse: whether it answers, its version and settings, tables, the reading user, and its clock.

use std::time::{SystemTime, UNIX_EPOCH};

use super::super::operator::running;
use super::Finding;
use crate::clickhouse::backup::has_events;
use crate::clickhouse::client::Endpoint;
use crate::clickhouse::migrations::pending;
use crate::clickhouse::ping::Pinger;
use crate::clickhouse::server_check::{check_server, check_tables};
use crate::config::Config;

const CHECK: &str = "clickhouse";

/// All of them, until one fails that the others need.
pub(super) async fn examine(config: &Config) -> Vec<Finding> {
    if config.clickhouse_url.is_empty() {
        return match running(config).await {
            Ok(Some(endpoint)) => examine_server(config, &endpoint, None).await,
            Ok(None) => vec![Finding::ok(CHECK, "`tallyhouse dev` starts an embedded one; it does not run now")],
            Err(error) => vec![Finding::error(CHECK, format!("{error:#}"), "run this as the service's user")],
        };
    }
    let endpoint = Endpoint::configured(config);
    let is_up = match Pinger::new(&endpoint.url) {
        Ok(pinger) => pinger.answers().await,
        Err(error) => return vec![Finding::error(CHECK, error.to_string(), "correct clickhouse_url")],
    };
    if !is_up {
        let advice = "check that it runs, the URL (clickhouse_url), and that this machine may connect to it";
        return vec![Finding::error(CHECK, format!("{} does not answer", endpoint.url), advice)];
    }
    let reader = Endpoint::configured_reader(config);
    let mut findings = examine_server(config, &endpoint, reader.as_ref()).await;
    if reader.is_none() {
        findings.push(Finding::warning(
            "clickhouse reader",
            "clickhouse_reader_user is not set: answers are read as the service's own user, without row policies",
            "create the user of docs/security.md, \"Organizations in ClickHouse\"",
        ));
    }
    findings
}

async fn examine_server(config: &Config, endpoint: &Endpoint, reader: Option<&Endpoint>) -> Vec<Finding> {
    let mut findings = Vec::new();
    match check_server(endpoint).await {
        Ok(()) => {
            findings.push(Finding::ok(CHECK, format!("{} answers, with a version and settings that fit", endpoint.url)))
        }
        Err(error) => {
            let advice = "check clickhouse_user and clickhouse_password, then what the message names";
            findings.push(Finding::error(CHECK, error.to_string(), advice));
            return findings;
        }
    }
    findings.push(clock(config, endpoint).await);
    match has_events(endpoint).await {
        Ok(true) => {}
        Ok(false) => {
            findings.push(Finding::ok("clickhouse tables", "there are none yet: a start creates them"));
            return findings;
        }
        Err(error) => {
            findings.push(Finding::error("clickhouse tables", error.to_string(), "check the grants of the user"));
            return findings;
        }
    }
    findings.push(schema(endpoint).await);
    if let Some(reader) = reader {
        findings.push(reading_user(reader).await);
    }
    findings
}

async fn schema(endpoint: &Endpoint) -> Finding {
    const CHECK: &str = "clickhouse tables";
    match pending(endpoint).await {
        Ok(names) if names.is_empty() => {}
        Ok(names) => return Finding::ok(CHECK, format!("a start applies {}", names.join(", "))),
        Err(error) => return Finding::error(CHECK, error.to_string(), "check the grants of the user"),
    }
    match check_tables(endpoint).await {
        Ok(()) => Finding::ok(CHECK, "complete, and made as exactness requires"),
        Err(error) => Finding::error(CHECK, error.to_string(), "the service does not start until this is changed"),
    }
}

/// The reading user must see nothing without an organization.
async fn reading_user(reader: &Endpoint) -> Finding {
    const CHECK: &str = "clickhouse reader";
    let seen: Result<u64, _> = reader.client().query_raw("SELECT count() FROM events").fetch_one().await;
    match seen {
        Ok(0) => Finding::ok(CHECK, format!("{} reads, and sees no row without an organization", reader.user)),
        Ok(rows) => Finding::error(
            CHECK,
            format!("{} sees {rows} events without an organization: its row policy is missing", reader.user),
            "create the row policy of docs/security.md, \"Organizations in ClickHouse\"",
        ),
        Err(error) => {
            Finding::error(CHECK, error.to_string(), "check clickhouse_reader_user, its password and its grants")
        }
    }
}

/// ClickHouse deletes and dates by its own clock.
async fn clock(config: &Config, endpoint: &Endpoint) -> Finding {
    const CHECK: &str = "clickhouse clock";
    let theirs: Result<i64, _> =
        endpoint.server_client().query_raw("SELECT toUnixTimestamp64Milli(now64(3))").fetch_one().await;
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    match theirs {
        Ok(theirs) => {
            let apart = ours.abs_diff(u128::from(theirs.unsigned_abs())) / 1_000;
            if apart > u128::from(config.clock_step_seconds_max) {
                let found = format!("it is {apart} seconds apart from this machine's");
                return Finding::error(
                    CHECK,
                    found,
                    "put both right (NTP): events are dated by one and deleted by the other",
                );
            }
            Finding::ok(CHECK, format!("within {} seconds of this machine's", apart + 1))
        }
        Err(error) => Finding::warning(CHECK, error.to_string(), "look at the error"),
    }
}
