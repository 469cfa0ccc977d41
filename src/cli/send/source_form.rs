//! Detects input that is not NDJSON by its first bytes, and suggests how to convert it.

/// Explains why a source with this beginning contains no events, and what to do; none if it may
/// contain some.
pub(super) fn hint(start: &[u8]) -> Option<&'static str> {
    let packed: [(&[u8], &str); 6] = [
        (&[0x1f, 0x8b], "this is a gzip file: unpack it, as in `gunzip -c FILE | tallyhouse send -`"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "this is a zstd file: unpack it, as in `zstd -dc FILE | tallyhouse send -`"),
        (b"PK\x03\x04", "this is a zip file: unpack it, as in `unzip -p FILE | tallyhouse send -`"),
        (b"PAR1", "this is a Parquet file: convert it to NDJSON, with one JSON object per line"),
        (
            &[0xff, 0xfe],
            "this text is UTF-16: write it as UTF-8, as in `iconv -f UTF-16 -t UTF-8 FILE | tallyhouse send -`",
        ),
        (
            &[0xfe, 0xff],
            "this text is UTF-16: write it as UTF-8, as in `iconv -f UTF-16 -t UTF-8 FILE | tallyhouse send -`",
        ),
    ];
    if let Some((_, hint)) = packed.into_iter().find(|(magic, _)| start.starts_with(magic)) {
        return Some(hint);
    }
    let text = start.strip_prefix("\u{feff}".as_bytes()).unwrap_or(start).trim_ascii_start();
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii_end();
    match text.first() {
        Some(b'[') => {
            Some("this is a JSON array: one JSON object a line is read, as in `jq -c '.[]' FILE | tallyhouse send -`")
        }
        Some(b'{') if line == b"{" => Some(
            "this is JSON over several lines: one JSON object a line is read, as in `jq -c . FILE | tallyhouse send -`",
        ),
        Some(b'{') | None => None,
        Some(_) if is_header(line) => Some("this is CSV; convert it to NDJSON, with one JSON object per line"),
        Some(_) => None,
    }
}

/// Whether a line is the header of a table with events.
fn is_header(line: &[u8]) -> bool {
    let mut columns = line.split(|byte| matches!(byte, b',' | b';' | b'\t')).map(|name| name.trim_ascii());
    let is_column = |name: &[u8]| {
        let name = name.strip_prefix(b"\"").and_then(|name| name.strip_suffix(b"\"")).unwrap_or(name);
        [&b"event_id"[..], b"type", b"event_type", b"timestamp", b"occurred_at"].contains(&name)
    };
    line.iter().any(|byte| matches!(byte, b',' | b';' | b'\t')) && columns.any(is_column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ndjson_is_named() {
        let check = |start: &[u8], expected: Option<&str>| {
            let found = hint(start);
            assert_eq!(found.is_some(), expected.is_some(), "{start:?}: {found:?}");
            assert!(found.zip(expected).is_none_or(|(found, expected)| found.contains(expected)), "{found:?}");
        };
        check(&[0x1f, 0x8b, 8, 0], Some("gunzip"));
        check(b"\n [\n {\"event_id\":\"a\"}", Some("jq -c '.[]'"));
        check("\u{feff}[]".as_bytes(), Some("array"));
        check(b"{\n  \"event_id\": \"a\"\n}", Some("several lines"));
        check(b"event_id,type,user_id\na,click,u\n", Some("CSV"));
        check(b"\"event_id\";\"type\"\r\n", Some("CSV"));
        check(b"\xff\xfe{\0", Some("UTF-16"));
        check(b"{\"event_id\":\"a\"}\n", None);
        check(b"nonsense, such as this", None);
        check(b"", None);
    }
}
