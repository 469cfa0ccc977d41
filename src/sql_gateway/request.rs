//! Parses requests of ClickHouse's HTTP interface: parameters and statement.

use std::io::Read as _;

use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use axum::http::request::Parts;
use bytes::Bytes;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http_body::Body;
use http_body_util::{BodyExt as _, Limited};

use super::error::GatewayError;
use super::settings::SettingLimits;
use super::statement::CheckedStatement;
use super::{BODY_WAIT_MAX, STATEMENT_BYTES_MAX};

/// Formats of answers. Left out are those that tell how many rows were read, that
/// need files of the server, and the protocols of other databases.
const FORMATS: [&str; 52] = [
    "Arrow",
    "ArrowStream",
    "Avro",
    "BSONEachRow",
    "CSV",
    "CSVWithNames",
    "CSVWithNamesAndTypes",
    "JSON",
    "JSONColumns",
    "JSONColumnsWithMetadata",
    "JSONCompact",
    "JSONCompactColumns",
    "JSONCompactEachRow",
    "JSONCompactEachRowWithNames",
    "JSONCompactEachRowWithNamesAndTypes",
    "JSONCompactStrings",
    "JSONCompactStringsEachRow",
    "JSONCompactStringsEachRowWithNames",
    "JSONCompactStringsEachRowWithNamesAndTypes",
    "JSONEachRow",
    "JSONLines",
    "JSONObjectEachRow",
    "JSONStrings",
    "JSONStringsEachRow",
    "LineAsString",
    "Markdown",
    "MsgPack",
    "NDJSON",
    "Native",
    "Null",
    "ORC",
    "Parquet",
    "Pretty",
    "PrettyCompact",
    "PrettyCompactMonoBlock",
    "PrettyJSONEachRow",
    "PrettyNoEscapes",
    "PrettySpace",
    "RawBLOB",
    "RowBinary",
    "RowBinaryWithNames",
    "RowBinaryWithNamesAndTypes",
    "TSKV",
    "TSV",
    "TSVRaw",
    "TSVWithNames",
    "TSVWithNamesAndTypes",
    "TabSeparated",
    "TabSeparatedRaw",
    "TabSeparatedWithNames",
    "TabSeparatedWithNamesAndTypes",
    "Vertical",
];
/// What is answered in when nobody says.
const FORMAT_DEFAULT: &str = "TabSeparated";
/// Longest value of a parameter of a statement, in bytes.
const PARAMETER_BYTES_MAX: usize = 64 << 10;

/// The parameters of an address.
pub(super) fn params(query: Option<&str>) -> Vec<(String, String)> {
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

/// The statement: what stands in the address, then what stands in the body.
///
/// # Errors
/// When the body is too large, too slow, or written in a way that is not read.
pub(super) async fn statement<B>(parts: &Parts, params: &[(String, String)], body: B) -> Result<String, GatewayError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let too_large = || GatewayError::request(format!("a statement has at most {STATEMENT_BYTES_MAX} bytes"));
    let body = tokio::time::timeout(BODY_WAIT_MAX, Limited::new(body, STATEMENT_BYTES_MAX).collect()).await;
    let body = body.map_err(|_| GatewayError::request("the body did not arrive in time"))?.map_err(|_| too_large())?;
    let body = plain(&parts.headers, &body.to_bytes())?;
    let is_form = parts.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"multipart/"));
    if is_form {
        return Err(GatewayError::request(
            "forms are not read: put the statement into the body, and param_… into the address",
        ));
    }
    if is_on(params, "decompress") {
        return Err(GatewayError::request("decompress=1 is not read: send the statement as it is, or with gzip"));
    }
    let body = String::from_utf8(body).map_err(|_| GatewayError::request("the statement is not UTF-8"))?;
    let in_address = params.iter().find(|(name, _)| name == "query").map_or("", |(_, query)| query.as_str());
    let statement = if body.trim().is_empty() { in_address.to_owned() } else { format!("{in_address}\n{body}") };
    if statement.len() > STATEMENT_BYTES_MAX {
        return Err(too_large());
    }
    Ok(statement)
}

/// The body without its compression.
fn plain(headers: &HeaderMap, body: &Bytes) -> Result<Vec<u8>, GatewayError> {
    let encoding = headers.get(CONTENT_ENCODING).map(|encoding| encoding.as_bytes());
    let limit = STATEMENT_BYTES_MAX as u64 + 1;
    let mut decoded = Vec::new();
    let read = match encoding {
        None | Some(b"" | b"identity") => return Ok(body.to_vec()),
        Some(b"gzip" | b"x-gzip") => MultiGzDecoder::new(body.as_ref()).take(limit).read_to_end(&mut decoded),
        Some(b"deflate") => ZlibDecoder::new(body.as_ref()).take(limit).read_to_end(&mut decoded),
        Some(_) => return Err(GatewayError::request("of compressions, a body may have gzip and deflate")),
    };
    read.map_err(|_| GatewayError::request("the body's compression is damaged"))?;
    if decoded.len() > STATEMENT_BYTES_MAX {
        return Err(GatewayError::request(format!("a statement has at most {STATEMENT_BYTES_MAX} bytes")));
    }
    Ok(decoded)
}

fn is_on(params: &[(String, String)], name: &str) -> bool {
    params.iter().any(|(other, value)| other == name && !matches!(&**value, "" | "0" | "false"))
}

/// What ClickHouse is sent with a statement.
///
/// # Errors
/// When a setting or the format is not available.
pub(super) fn passed_on(
    headers: &HeaderMap,
    params: &[(String, String)],
    checked: &CheckedStatement,
    bounds: &SettingLimits,
) -> Result<Vec<(String, String)>, GatewayError> {
    let mut passed: Vec<(String, String)> = Vec::new();
    let mut format = None;
    for (name, value) in params {
        match &**name {
            "query" | "user" | "password" | "database" | "query_id" | "decompress" => {}
            "default_format" => format = Some(value.clone()),
            "compress" | "enable_http_compression" => {
                passed.push((name.clone(), u8::from(is_on(params, name)).to_string()))
            }
            "client_protocol_version" if value.len() < 10 && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                passed.push((name.clone(), value.clone()));
            }
            _ if name.starts_with("param_") => {
                if value.len() > PARAMETER_BYTES_MAX {
                    let message = format!("{name} has more than {PARAMETER_BYTES_MAX} bytes");
                    return Err(GatewayError::request(message));
                }
                passed.push((name.clone(), value.clone()));
            }
            _ => passed.extend(bounds.passed_on(name, value)?.map(|(name, value)| (name.to_owned(), value))),
        }
    }
    for (name, value) in &checked.settings {
        // The statement's own win over the address's.
        passed.retain(|(other, _)| other != name);
        passed.extend(bounds.passed_on(name, value)?.map(|(name, value)| (name.to_owned(), value)));
    }
    let in_header = headers.get("x-clickhouse-format").and_then(|format| format.to_str().ok());
    let format = checked.format.as_deref().or(in_header).or(format.as_deref()).filter(|format| !format.is_empty());
    let format = format.unwrap_or(FORMAT_DEFAULT);
    let format = FORMATS.iter().find(|known| known.eq_ignore_ascii_case(format)).ok_or_else(|| {
        let message = format!("the format {format} is not available to analysts; {} are", FORMATS.join(", "));
        GatewayError::new(axum::http::StatusCode::BAD_REQUEST, 73, "UNKNOWN_FORMAT", message)
    })?;
    passed.push(("default_format".to_owned(), (*format).to_owned()));
    Ok(passed)
}

/// The database that a request names.
pub(super) fn database<'a>(headers: &'a HeaderMap, params: &'a [(String, String)]) -> Option<&'a str> {
    let in_header = headers.get("x-clickhouse-database").and_then(|database| database.to_str().ok());
    let in_address = params.iter().find(|(name, _)| name == "database").map(|(_, database)| database.as_str());
    in_header.or(in_address).filter(|database| !database.is_empty())
}
