//! Settings of every statement that exactness depends on. All are sent explicitly, including defaults: a
//! user's profile may have other values, and defaults have changed between versions of ClickHouse.

use clickhouse::Client;

/// What makes a reading whole. With a mode other than `throw`, or with a limit,
/// ClickHouse answers with a part of the rows as if it were all of them.
///
/// - No filter and no limit of a profile's applies, nothing is left out that
///   cannot be reached, and no cached answer is given.
/// - `select_sequential_consistency`: a replica that lacks an acknowledged
///   insert does not answer. (Tables of one server know no such thing.)
/// - A time limit of its own, which comes with a query's ticket, takes the place of `max_execution_time`.
pub(crate) const READ_SETTINGS: [(&str, &str); 40] = [
    ("max_rows_to_read", "0"),
    ("max_bytes_to_read", "0"),
    ("max_rows_to_read_leaf", "0"),
    ("max_bytes_to_read_leaf", "0"),
    ("max_result_rows", "0"),
    ("max_result_bytes", "0"),
    ("max_rows_in_set", "0"),
    ("max_bytes_in_set", "0"),
    ("max_rows_to_group_by", "0"),
    ("max_rows_to_sort", "0"),
    ("max_bytes_to_sort", "0"),
    ("max_rows_in_distinct", "0"),
    ("max_bytes_in_distinct", "0"),
    ("max_rows_to_transfer", "0"),
    ("max_bytes_to_transfer", "0"),
    ("max_rows_in_join", "0"),
    ("max_bytes_in_join", "0"),
    ("max_execution_time", "0"),
    ("max_execution_time_leaf", "0"),
    ("read_overflow_mode", "throw"),
    ("read_overflow_mode_leaf", "throw"),
    ("result_overflow_mode", "throw"),
    ("set_overflow_mode", "throw"),
    ("group_by_overflow_mode", "throw"),
    ("sort_overflow_mode", "throw"),
    ("distinct_overflow_mode", "throw"),
    ("timeout_overflow_mode", "throw"),
    ("timeout_overflow_mode_leaf", "throw"),
    ("join_overflow_mode", "throw"),
    ("transfer_overflow_mode", "throw"),
    ("limit", "0"),
    ("offset", "0"),
    ("additional_table_filters", "{}"),
    ("additional_result_filter", ""),
    ("final", "0"),
    ("use_query_cache", "0"),
    ("skip_unavailable_shards", "0"),
    ("enable_parallel_replicas", "0"),
    ("session_timezone", "UTC"),
    ("select_sequential_consistency", "1"),
];

/// What makes an insert that has no token of its own be made when it is
/// answered, and made each time it is sent: without these, ClickHouse may put it
/// off, or take it for a repetition of one with the same rows.
pub(crate) const WRITE_SETTINGS: [(&str, &str); 4] =
    [("async_insert", "0"), ("insert_deduplicate", "0"), ("deduplicate_insert", "disable"), ("wait_end_of_query", "1")];

/// A client whose statements carry all of these.
pub(super) fn pinned(client: Client) -> Client {
    READ_SETTINGS.iter().chain(&WRITE_SETTINGS).fold(client, |client, (name, value)| client.with_setting(*name, *value))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use crate::clickhouse::cancel::QueryCanceller;
    use crate::clickhouse::client::Endpoint;
    use crate::clickhouse::query_limiter::{QueryLimiter, QueryLimiterSettings};
    use crate::clickhouse::store::ClickHouseStore;
    use crate::config::Config;
    use crate::domain::{OrgId, Timestamp};
    use crate::event_store::{EventKey, EventStore as _, MinuteSet};

    use super::*;

    /// Stands for a ClickHouse that answers each request so; the settings that
    /// each request had.
    async fn answering(
        answer: &'static str,
    ) -> (Endpoint, tokio::sync::mpsc::UnboundedReceiver<BTreeMap<String, String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (seen, requests) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (mut request, mut buffer) = (Vec::new(), [0; 16 << 10]);
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    let read = stream.read(&mut buffer).await.unwrap();
                    request.extend_from_slice(&buffer[..read]);
                }
                let line = String::from_utf8_lossy(&request).lines().next().unwrap().to_owned();
                let query = line.split_whitespace().nth(1).unwrap().split_once('?').unwrap().1.to_owned();
                let settings = query.split('&').filter_map(|pair| pair.split_once('='));
                let _ = seen.send(settings.map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        (Endpoint { url, ..Endpoint::configured(&Config::default()) }, requests)
    }

    fn store(endpoint: &Endpoint) -> ClickHouseStore {
        let settings =
            QueryLimiterSettings { in_flight_max: 4, share_percent: 100, wait_max: std::time::Duration::from_secs(60) };
        ClickHouseStore::new(endpoint, Arc::new(QueryLimiter::new(settings, QueryCanceller::new(endpoint))))
    }

    const EMPTY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    /// A row's beginning, and the end before the length that was told.
    const CUT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\n\x07default";

    #[tokio::test]
    async fn what_decides_about_ids_is_read_whole_or_not_at_all() {
        let (endpoint, mut requests) = answering(EMPTY).await;
        let store = store(&endpoint);
        let these = MinuteSet::These(vec![Timestamp::from_millis(60_000)]);
        let keys = [EventKey { event_id: "a", occurred_at_millis: 1 }];
        assert!(store.look_up(&OrgId::default_org(), &keys).await.unwrap().is_empty());
        assert!(store.read(&these).await.unwrap().recv().await.is_none());
        for _ in 0..2 {
            let settings = requests.recv().await.unwrap();
            // The time limit is the ticket's. It ends in an error, not in a part of the rows.
            let limit: f64 = settings["max_execution_time"].parse().unwrap();
            assert!(limit > 0.0 && settings["timeout_overflow_mode"] == "throw");
            let pinned = READ_SETTINGS.iter().chain(&WRITE_SETTINGS).filter(|(name, _)| *name != "max_execution_time");
            for (name, value) in pinned {
                let sent = settings.get(*name).map(|value| value.replace("%7B%7D", "{}"));
                assert_eq!(sent.as_deref(), Some(*value), "{name}: {settings:?}");
            }
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_cut_is_an_error() {
        let (endpoint, _requests) = answering(CUT).await;
        let store = store(&endpoint);
        let keys = [EventKey { event_id: "a", occurred_at_millis: 1 }];
        assert!(store.look_up(&OrgId::default_org(), &keys).await.is_err());
        let mut pieces = store.read(&MinuteSet::These(vec![Timestamp::from_millis(60_000)])).await.unwrap();
        let mut is_error = false;
        while let Some(piece) = pieces.recv().await {
            is_error = piece.is_err();
        }
        assert!(is_error, "the last piece says that it is not the end");
    }
}
