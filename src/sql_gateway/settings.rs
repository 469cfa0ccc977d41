//! Request parameters that are ClickHouse settings: which are passed on, within which limits, and which are
//! for this port only.

use super::error::GatewayError;
use crate::clickhouse::analysts::SETTINGS;
use crate::config::Config;

/// Parameters that clients send about the connection, which this port manages
/// itself. They are taken, and have no effect.
const WITHOUT_EFFECT: [&str; 30] = [
    "add_http_cors_header",
    "buffer_size",
    "cancel_http_readonly_queries_on_client_close",
    "client_name",
    "connect_timeout",
    "http_connection_timeout",
    "http_headers_progress_interval_ms",
    "http_max_field_value_size",
    "http_receive_timeout",
    "http_response_buffer_size",
    "http_send_timeout",
    "http_write_exception_in_output_format",
    "http_zlib_compression_level",
    "log_comment",
    "log_queries",
    "max_query_size",
    "network_compression_method",
    "quota_key",
    "readonly",
    "receive_timeout",
    "role",
    "send_progress_in_http_headers",
    "send_timeout",
    "session_check",
    "session_id",
    "session_timeout",
    "stacktrace",
    "use_query_cache",
    "wait_end_of_query",
    "workload",
];

/// The bounds of the service.
#[derive(Debug)]
pub(super) struct SettingLimits {
    bounds: Vec<(&'static str, Option<u64>)>,
}

impl SettingLimits {
    pub(super) fn new(config: &Config) -> Self {
        Self { bounds: SETTINGS.iter().map(|setting| (setting.name, setting.bound.max(config))).collect() }
    }

    /// What ClickHouse is given for a setting; nothing where it has no effect.
    ///
    /// # Errors
    /// When analysts cannot choose it.
    pub(super) fn passed_on(&self, name: &str, value: &str) -> Result<Option<(&'static str, String)>, GatewayError> {
        if WITHOUT_EFFECT.contains(&name) {
            return Ok(None);
        }
        let found = self.bounds.binary_search_by_key(&name, |(name, _)| name).ok().map(|place| self.bounds[place]);
        let (name, max) = found.ok_or_else(|| {
            let known = SETTINGS.map(|setting| setting.name).join(", ");
            GatewayError::setting(format!(
                "Cannot modify '{name}' setting in readonly mode; analysts can choose {known}"
            ))
        })?;
        let Some(max) = max else { return Ok(Some((name, value.to_owned()))) };
        // Clients write whole seconds as 60.0, too.
        let wanted = value.trim().parse::<f64>().ok().filter(|wanted| *wanted >= 0.0);
        if wanted.is_none() {
            return Err(GatewayError::setting(format!(
                "the setting {name} is a number from 1 to {max}; it is {value:?}"
            )));
        }
        let wanted = value.trim().split('.').next().and_then(|whole| whole.parse::<u64>().ok());
        let bounded = wanted.filter(|wanted| (1..=max).contains(wanted)).unwrap_or(max);
        Ok(Some((name, bounded.to_string())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_passed_on_within_bounds_or_refused() {
        assert!(WITHOUT_EFFECT.is_sorted());
        let bounds = SettingLimits::new(&Config::default());
        let check = |name: &str, value: &str, expected: Option<Option<&str>>| {
            let passed = bounds.passed_on(name, value).ok();
            let passed = passed.map(|passed| passed.map(|(_, value)| value));
            assert_eq!(passed, expected.map(|value| value.map(str::to_owned)), "{name}={value}");
        };
        check("join_use_nulls", "1", Some(Some("1")));
        check("max_execution_time", "10", Some(Some("10")));
        for beyond in ["0", "61", "3600", "60.0", "18446744073709551616"] {
            check("max_execution_time", beyond, Some(Some("60")));
        }
        check("max_execution_time", "-1", None);
        check("max_execution_time", "nan", None);
        check("max_threads", "64", Some(Some("1")));
        check("session_id", "a", Some(None));
        for refused in ["max_rows_to_read", "additional_table_filters", "allow_ddl", "query_plan_filter_push_down", ""]
        {
            check(refused, "1", None);
        }
    }
}
