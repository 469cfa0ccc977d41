//! What each setting may be.

use super::{BATCH_EVENTS_BOUND, Config, ConfigError};

impl Config {
    /// Checks every setting by itself, and those that depend on each other.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let bounds: &[(&'static str, u64, u64, u64)] = &[
            ("analyst_seconds_max", self.analyst_seconds_max, 1, 3_600),
            ("analyst_threads_max", self.analyst_threads_max, 1, 256),
            ("analyst_memory_bytes_max", self.analyst_memory_bytes_max, 1 << 20, 1 << 40),
            ("analyst_queries_in_flight_max", self.analyst_queries_in_flight_max as u64, 1, 1 << 10),
            ("analyst_queries_waiting_max", self.analyst_queries_waiting_max as u64, 0, 1 << 10),
            ("analyst_wait_ms_max", self.analyst_wait_ms_max, 0, 600_000),
            ("auth_jwks_refresh_seconds", self.auth_jwks_refresh_seconds.into(), 1, 86_400),
            ("engine_nice", self.engine_nice.into(), 0, 19),
            ("auth_leeway_seconds", self.auth_leeway_seconds.into(), 0, 300),
            ("event_id_bytes_max", self.event_id_bytes_max as u64, 1, 1 << 10),
            ("type_bytes_max", self.type_bytes_max as u64, 1, 1 << 10),
            ("text_bytes_max", self.text_bytes_max as u64, 1, 4 << 10),
            ("properties_bytes_max", self.properties_bytes_max as u64, 2, 1 << 20),
            ("retention_days", self.retention_days.into(), 1, 36_500),
            ("retention_check_seconds", self.retention_check_seconds.into(), 1, 86_400),
            ("future_minutes_max", self.future_minutes_max.into(), 0, 1_440),
            ("clock_step_seconds_max", self.clock_step_seconds_max.into(), 1, 3_600),
            ("clock_confirm_seconds", self.clock_confirm_seconds.into(), 1, 86_400),
            ("event_types_max", self.event_types_max, 1, 100_000),
            ("event_type_versions_max", self.event_type_versions_max as u64, 1, 10_000),
            ("schema_threads_max", self.schema_threads_max as u64, 0, 256),
            ("schema_bytes_max", self.schema_bytes_max, 1 << 20, 1 << 36),
            ("schema_wait_ms_max", self.schema_wait_ms_max, 100, 60_000),
            ("event_types_refresh_seconds", self.event_types_refresh_seconds, 1, 3_600),
            ("batch_events_max", self.batch_events_max as u64, 1, BATCH_EVENTS_BOUND as u64),
            ("message_bytes_max", self.message_bytes_max as u64, 1 << 10, 64 << 20),
            ("body_bytes_max", self.body_bytes_max as u64, 1 << 10, 64 << 20),
            ("stream_batches_in_flight_max", self.stream_batches_in_flight_max as u64, 1, 1 << 10),
            ("ingest_bytes_in_flight_max", self.ingest_bytes_in_flight_max.into(), 1 << 20, 1 << 30),
            ("request_bytes_in_flight_max", self.request_bytes_in_flight_max.into(), 1 << 20, 1 << 31),
            ("response_bytes_in_flight_max", self.response_bytes_in_flight_max, 1 << 20, 1 << 40),
            ("write_wait_ms_max", self.write_wait_ms_max, 2_000, 60_000),
            ("streams_max", self.streams_max as u64, 1, 1 << 20),
            ("streams_per_connection_max", self.streams_per_connection_max as u64, 1, 1 << 20),
            ("connections_max", self.connections_max as u64, 1, 1 << 20),
            ("idempotency_keys_max", self.idempotency_keys_max, 1, 1 << 32),
            ("idempotency_bytes_max", self.idempotency_bytes_max, 1 << 10, 1 << 40),
            ("rate_limit_org_events_per_second", self.rate_limit_org_events_per_second.into(), 0, 10_000_000),
            ("rate_limit_user_events_per_second", self.rate_limit_user_events_per_second.into(), 0, 10_000_000),
            ("rate_limit_org_queries_per_second", self.rate_limit_org_queries_per_second.into(), 0, 10_000_000),
            ("rate_limit_window_seconds", self.rate_limit_window_seconds.into(), 1, 300),
            ("rate_limit_users_max", self.rate_limit_users_max as u64, 1_000, 100_000_000),
            ("index_ids_max", self.index_ids_max as u64, 1_000, 1 << 32),
            ("ledger_ids_max", self.ledger_ids_max, 1_000, 1 << 40),
            ("ledger_write_ms_max", self.ledger_write_ms_max, 10, 3_600_000),
            ("ledger_retained_bytes_max", self.ledger_retained_bytes_max, 0, 1 << 40),
            ("segment_rows_max", self.segment_rows_max.into(), 1, 1_000_000),
            ("segment_bytes_max", self.segment_bytes_max, 1 << 10, 1 << 30),
            ("inserts_in_flight_max", self.inserts_in_flight_max as u64, 1, 64),
            ("queries_in_flight_max", self.queries_in_flight_max as u64, 1, 1 << 10),
            ("look_ups_in_flight_max", self.look_ups_in_flight_max as u64, 1, 1 << 10),
            ("organization_share_percent", self.organization_share_percent.into(), 1, 100),
            ("buckets_max", self.buckets_max.into(), 1, 100_000),
            ("audit_after_minutes", self.audit_after_minutes.into(), 0, 10_080),
            ("audit_pause_ms", self.audit_pause_ms, 1, 86_400_000),
            ("audit_hours", self.audit_hours.into(), 0, 8_784),
            ("audit_wait_ms_max", self.audit_wait_ms_max, 1_000, 3_600_000),
            ("audit_hold_ms_max", self.audit_hold_ms_max, 100, 600_000),
            ("ticketing_notify_attempts_max", self.ticketing_notify_attempts_max.into(), 1, 1_000),
            ("ticketing_notify_backoff_ms_min", self.ticketing_notify_backoff_ms_min, 1, 86_400_000),
            ("ticketing_notify_backoff_ms_max", self.ticketing_notify_backoff_ms_max, 1, 86_400_000),
            ("ticketing_notify_wait_ms_max", self.ticketing_notify_wait_ms_max, 100, 60_000),
            ("ticketing_notify_poll_ms", self.ticketing_notify_poll_ms, 10, 60_000),
            ("ticketing_notify_late_seconds", self.ticketing_notify_late_seconds, 1, 604_800),
            ("ticketing_summary_chunk_ms", self.ticketing_summary_chunk_ms, 0, 10_000),
            ("ticketing_summaries_in_flight_max", self.ticketing_summaries_in_flight_max as u64, 1, 1 << 10),
            ("ticketing_summary_wait_ms_max", self.ticketing_summary_wait_ms_max, 100, 600_000),
            ("pipeline_user_events_per_second", self.pipeline_user_events_per_second.into(), 0, 1_000_000),
            ("pipeline_attempts_max", self.pipeline_attempts_max.into(), 1, 100),
            ("pipeline_backoff_ms_min", self.pipeline_backoff_ms_min, 1, 86_400_000),
            ("pipeline_backoff_ms_max", self.pipeline_backoff_ms_max, 1, 86_400_000),
            ("pipeline_records_max", self.pipeline_records_max, 1_000, 1 << 40),
            ("delivery_user_buffered_max", self.delivery_user_buffered_max as u64, 1, 1_000_000),
            ("delivery_waiting_max", self.delivery_waiting_max as u64, 1_000, 10_000_000),
            ("subscriptions_per_organization_max", self.subscriptions_per_organization_max as u64, 0, 1_000),
            ("subscriptions_max", self.subscriptions_max as u64, 0, 1_000),
            ("subscription_waiting_max", self.subscription_waiting_max as u64, 100, 10_000_000),
            ("subscription_user_buffered_max", self.subscription_user_buffered_max as u64, 1, 1_000_000),
            ("subscription_dead_letters_max", self.subscription_dead_letters_max, 1, 10_000_000),
            ("subscription_records_max", self.subscription_records_max, 0, 1 << 40),
            ("subscription_held_bytes_max", self.subscription_held_bytes_max, 0, 1 << 40),
            ("watcher_outcomes_max", self.watcher_outcomes_max as u64, 1, 1 << 20),
        ];
        for &(setting, value, min, max) in bounds {
            if !(min..=max).contains(&value) {
                let message = format!("must be from {min} to {max}; it is {value}");
                return Err(ConfigError::OutOfBounds { setting, message });
            }
        }
        if !(0.0..=1.0).contains(&self.trace_ratio) {
            let message = format!("must be from 0 to 1; it is {}", self.trace_ratio);
            return Err(ConfigError::OutOfBounds { setting: "trace_ratio", message });
        }
        if self.index_ids_max / 4 < self.batch_events_max {
            let message = format!("must be at least four times batch_events_max, which is {}", self.batch_events_max);
            return Err(ConfigError::OutOfBounds { setting: "index_ids_max", message });
        }
        let database = &self.clickhouse_database;
        if database.is_empty() || !database.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            let message = "must be letters, digits and '_'".to_owned();
            return Err(ConfigError::OutOfBounds { setting: "clickhouse_database", message });
        }
        self.check_tls()?;
        self.check_tenancy()?;
        self.check_ticketing()?;
        self.check_pipeline()?;
        self.check_authentication()
    }

    fn check_tls(&self) -> Result<(), ConfigError> {
        let (certificate, key) = (&self.tls_certificate_file, &self.tls_key_file);
        let setting = match (certificate.is_empty(), key.is_empty()) {
            (true, false) => "tls_certificate_file",
            (false, true) => "tls_key_file",
            (true, true) | (false, false) => return Ok(()),
        };
        let message = "must be set too: TLS needs both tls_certificate_file and tls_key_file".to_owned();
        Err(ConfigError::OutOfBounds { setting, message })
    }
}
