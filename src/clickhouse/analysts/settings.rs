//! The ClickHouse settings that an analyst can choose: they affect how values are parsed and written, and
//! not which rows are read or counted.

use crate::config::Config;

/// Most rows of an answer.
const RESULT_ROWS_MAX: u64 = 1_000_000;
/// Most bytes of an answer.
const RESULT_BYTES_MAX: u64 = 256 << 20;
/// Most rows of a block, which is ClickHouse's default.
const BLOCK_ROWS_MAX: u64 = 65_409;

/// One setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name in ClickHouse.
    pub name: &'static str,
    /// Its allowed values.
    pub bound: Bound,
}

/// The allowed values of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Any value that ClickHouse accepts.
    Free,
    /// A number from 1 to the service's limit. Larger values, and 0 (unlimited in ClickHouse), are
    /// replaced by the limit.
    Seconds,
    /// The same, for threads.
    Threads,
    /// The same, for memory.
    MemoryBytes,
    /// The same, for rows of the answer.
    ResultRows,
    /// The same, for bytes of the answer.
    ResultBytes,
    /// The same, for rows of a block.
    BlockRows,
}

impl Bound {
    /// The largest allowed value; none if any value is allowed.
    pub fn max(self, config: &Config) -> Option<u64> {
        Some(match self {
            Self::Free => return None,
            Self::Seconds => config.analyst_seconds_max,
            Self::Threads => config.analyst_threads_max,
            Self::MemoryBytes => config.analyst_memory_bytes_max,
            Self::ResultRows => RESULT_ROWS_MAX,
            Self::ResultBytes => RESULT_BYTES_MAX,
            Self::BlockRows => BLOCK_ROWS_MAX,
        })
    }
}

const fn free(name: &'static str) -> Setting {
    Setting { name, bound: Bound::Free }
}

const fn bounded(name: &'static str, bound: Bound) -> Setting {
    Setting { name, bound }
}

/// All of them, by name. Each is older than the oldest ClickHouse that is
/// supported.
pub const SETTINGS: [Setting; 43] = [
    free("aggregate_functions_null_for_empty"),
    free("cast_keep_nullable"),
    free("date_time_input_format"),
    free("date_time_output_format"),
    free("enable_positional_arguments"),
    free("extremes"),
    free("format_csv_delimiter"),
    free("group_by_use_nulls"),
    free("join_use_nulls"),
    free("limit"),
    free("low_cardinality_allow_in_native_format"),
    bounded("max_block_size", Bound::BlockRows),
    bounded("max_execution_time", Bound::Seconds),
    bounded("max_memory_usage", Bound::MemoryBytes),
    bounded("max_result_bytes", Bound::ResultBytes),
    bounded("max_result_rows", Bound::ResultRows),
    bounded("max_threads", Bound::Threads),
    free("offset"),
    free("output_format_arrow_compression_method"),
    free("output_format_arrow_fixed_string_as_fixed_byte_array"),
    free("output_format_arrow_low_cardinality_as_dictionary"),
    free("output_format_arrow_string_as_string"),
    free("output_format_csv_crlf_end_of_line"),
    free("output_format_decimal_trailing_zeros"),
    free("output_format_json_array_of_rows"),
    free("output_format_json_escape_forward_slashes"),
    free("output_format_json_named_tuples_as_objects"),
    free("output_format_json_quote_64bit_floats"),
    free("output_format_json_quote_64bit_integers"),
    free("output_format_json_quote_decimals"),
    free("output_format_json_quote_denormals"),
    free("output_format_json_validate_utf8"),
    free("output_format_parquet_compression_method"),
    free("output_format_parquet_string_as_string"),
    free("output_format_pretty_color"),
    free("output_format_pretty_max_rows"),
    free("output_format_pretty_row_numbers"),
    free("output_format_tsv_crlf_end_of_line"),
    free("prefer_column_name_to_alias"),
    free("result_overflow_mode"),
    free("session_timezone"),
    free("transform_null_in"),
    free("union_default_mode"),
];

/// The fixed settings of every query of an analyst.
pub(crate) fn fixed(config: &Config) -> Vec<(&'static str, String)> {
    let bounded = SETTINGS.iter().filter_map(|setting| Some((setting.name, setting.bound.max(config)?.to_string())));
    let constant = [
        ("readonly", "1"),
        ("cancel_http_readonly_queries_on_client_close", "1"),
        // These would tell how many rows were read.
        ("output_format_write_statistics", "0"),
        ("log_queries", "0"),
        ("use_query_cache", "0"),
    ];
    bounded.chain(constant.map(|(name, value)| (name, value.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_on_the_list_decides_what_is_read_or_tells_how_much() {
        assert!(SETTINGS.is_sorted_by_key(|setting| setting.name));
        for setting in SETTINGS {
            for word in
                ["log_comment", "readonly", "to_read", "filter", "path", "allow_", "policy", "statistics", "cache"]
            {
                assert!(
                    !setting.name.contains(word) || setting.name.starts_with("low_cardinality"),
                    "{}",
                    setting.name
                );
            }
        }
    }
}
