//! Returns ClickHouse's answer without further information: rows read, the server's name, and in errors
//! the names of internal users and databases and values of rows.

use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName};
use axum::http::{HeaderValue, StatusCode};

use super::error::GatewayError;
use super::scope::Scope;

/// Headers that are passed on.
const PASSED_ON: [HeaderName; 4] = [
    CONTENT_TYPE,
    CONTENT_ENCODING,
    HeaderName::from_static("x-clickhouse-format"),
    HeaderName::from_static("x-clickhouse-timezone"),
];
/// What clients look for, with nothing in it.
const SUMMARY: &str = "{\"read_rows\":\"0\",\"read_bytes\":\"0\",\"written_rows\":\"0\",\"written_bytes\":\"0\",\
                       \"total_rows_to_read\":\"0\",\"result_rows\":\"0\",\"result_bytes\":\"0\",\"elapsed_ns\":\"0\"}";

/// Errors about the statement itself, found before any row is read: their text
/// is about names and types.
const ABOUT_THE_STATEMENT: [u32; 22] =
    [20, 34, 35, 42, 43, 46, 47, 50, 53, 62, 63, 70, 179, 184, 207, 215, 352, 386, 403, 456, 457, 636];

/// The headers of an answer.
pub(super) fn headers(answered: &HeaderMap, query_id: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in PASSED_ON {
        if let Some(value) = answered.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    add_common(&mut headers, query_id);
    headers
}

/// What every answer has.
pub(super) fn add_common(headers: &mut HeaderMap, query_id: &str) {
    headers.insert("x-clickhouse-server-display-name", HeaderValue::from_static("tallyhouse"));
    headers.insert("x-clickhouse-summary", HeaderValue::from_static(SUMMARY));
    headers.insert("cache-control", HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    if let Ok(value) = HeaderValue::from_str(query_id) {
        headers.insert("x-clickhouse-query-id", value);
    }
}

/// An error of ClickHouse's, for the analyst.
pub(super) fn error(status: StatusCode, headers: &HeaderMap, body: &[u8], scope: &Scope) -> GatewayError {
    let code = headers.get("x-clickhouse-exception-code").and_then(|code| code.to_str().ok()?.parse().ok());
    let text = String::from_utf8_lossy(body);
    let text = text.lines().next().unwrap_or_default();
    tracing::debug!(user = scope.user, ?code, text, "ClickHouse refused a statement of an analyst");
    let code = code.unwrap_or(0);
    let name = name(text);
    let message = match code {
        158 | 307 | 396 => "the statement's result is larger than it may be".to_owned(),
        159 => "the statement took longer than it may".to_owned(),
        241 => "the statement needs more memory than it may use".to_owned(),
        516 | 192 | 193 | 194 => {
            tracing::error!(
                user = scope.user,
                text,
                "ClickHouse does not know the user that analysts' statements run as"
            );
            "ClickHouse does not know this analyst: see the service's log".to_owned()
        }
        _ if ABOUT_THE_STATEMENT.contains(&code) => about_the_statement(text, scope),
        _ => "the statement failed while it ran; values are left out of messages, and functions such as \
              toUInt64OrNull take any"
            .to_owned(),
    };
    let status = if status.is_success() { StatusCode::INTERNAL_SERVER_ERROR } else { status };
    GatewayError { status, code, name, message }
}

/// The error's name, which stands in parentheses at its end.
fn name(text: &str) -> String {
    let mut names = text.split(['(', ')']).filter(|part| {
        part.len() > 3 && part.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    });
    names.next_back().unwrap_or("UNKNOWN_EXCEPTION").to_owned()
}

fn about_the_statement(text: &str, scope: &Scope) -> String {
    let text = text.split_once("DB::Exception: ").map_or(text, |(_, text)| text);
    let text = text.rsplit_once(" (version ").map_or(text, |(text, _)| text);
    let text = text.split(" Maybe you meant").next().unwrap_or_default();
    let text = text.rsplit_once(" (").map_or(text, |(text, name)| if name.ends_with(')') { text } else { name });
    text.trim_end_matches('.').replace(&scope.database, &scope.shown_database)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::domain::OrgId;

    fn shown(code: &'static str, text: &str) -> String {
        let scope = Scope::new(&Config::default(), Some(&OrgId::parse("acme").unwrap()));
        let mut headers = HeaderMap::new();
        headers.insert("x-clickhouse-exception-code", HeaderValue::from_static(code));
        error(StatusCode::BAD_REQUEST, &headers, text.as_bytes(), &scope).to_string()
    }

    #[test]
    fn an_error_about_the_statement_is_passed_on_in_the_analysts_words() {
        let text = "Code: 47. DB::Exception: Unknown expression identifier `x` in scope SELECT x FROM \
                    tallyhouse_org_acme.users. Maybe you meant: ['y']. (UNKNOWN_IDENTIFIER) (version 26.7.2.1)\n";
        let expected = "Code: 47. DB::Exception: Unknown expression identifier `x` in scope SELECT x FROM \
                        tallyhouse_org.users. (UNKNOWN_IDENTIFIER)\n";
        assert_eq!(shown("47", text), expected);
    }

    #[test]
    fn an_error_about_a_row_names_no_value() {
        let text = "Code: 6. DB::Exception: Cannot parse string 'u-globex-1' as UInt64: syntax error at begin of string. \
                    (CANNOT_PARSE_TEXT) (version 26.7.2.1)\n";
        let shown = shown("6", text);
        assert!(!shown.contains("globex") && shown.contains("CANNOT_PARSE_TEXT"), "{shown}");
    }

    #[test]
    fn rows_read_are_not_told() {
        let mut answered = HeaderMap::new();
        answered.insert("x-clickhouse-summary", HeaderValue::from_static("{\"read_rows\":\"150\"}"));
        answered.insert("x-clickhouse-server-display-name", HeaderValue::from_static("machine"));
        answered.insert("x-clickhouse-progress", HeaderValue::from_static("{\"read_rows\":\"150\"}"));
        let headers = headers(&answered, "id");
        assert!(headers.values().all(|value| !value.to_str().unwrap().contains("150")), "{headers:?}");
        assert_eq!(headers["x-clickhouse-server-display-name"], "tallyhouse");
    }
}
