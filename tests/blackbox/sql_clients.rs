//! What ClickHouse's unmodified clients and BI tools send to the port for SQL:
//! their requests, with their headers and parameters, are made here as they are.

use serde_json::Value;

use crate::events::{clicks, now_millis};
use crate::service::TestService;

async fn service() -> TestService {
    let service = TestService::new().await;
    service.store(clicks("event", 10, now_millis())).await;
    service
}

/// Asks with a statement, parameters in the address and headers.
async fn ask(
    service: &TestService,
    statement: &str,
    params: &[(&str, &str)],
    headers: &[(&str, &str)],
) -> (u16, Vec<u8>) {
    let request = service.http.post(&service.sql_url).query(params).body(statement.to_owned());
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.bytes().await.unwrap().to_vec())
}

async fn text(service: &TestService, statement: &str, params: &[(&str, &str)]) -> String {
    let params: Vec<_> = params.iter().copied().chain([("user", "analyst")]).collect();
    let (status, body) = ask(service, statement, &params, &[]).await;
    let body = String::from_utf8_lossy(&body).trim_end().to_owned();
    assert_eq!(status, 200, "{statement}: {body}");
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn clickhouse_connect_reads_native_blocks() {
    let service = service().await;
    // At first it asks these, with the credentials in a Basic header.
    let headers = [
        ("Authorization", "Basic YW5hbHlzdDo="),
        ("User-Agent", "clickhouse-connect/0.8.18 (lv:py/3.11.7; mode:sync; os:linux)"),
        ("Accept-Encoding", "gzip"),
    ];
    let session = ("session_id", "5a1e0f9c-0f0c-4b1c-9d35-5a4d2b7d8d10");
    let (status, body) = ask(&service, "SELECT version(), timezone()", &[session], &headers[..2]).await;
    let body = String::from_utf8(body).unwrap();
    assert!(status == 200 && body.contains("UTC") && body.starts_with('2'), "{body}");
    let settings = "SELECT name, value, readonly as readonly FROM system.settings LIMIT 10000\n FORMAT Native";
    let (status, body) = ask(&service, settings, &[session, ("client_protocol_version", "54405")], &headers[..2]).await;
    assert_eq!(status, 200);
    assert!(String::from_utf8_lossy(&body).contains("max_execution_time"));
    // Then statements, with settings of its own and of its user.
    let params = [
        session,
        ("database", "tallyhouse_analytics"),
        ("query_id", "0f8fad5b-d9cb-469f-a165-70867728950e"),
        ("cancel_http_readonly_queries_on_client_close", "1"),
        ("send_progress_in_http_headers", "1"),
        ("http_headers_progress_interval_ms", "120000"),
        ("wait_end_of_query", "1"),
        ("date_time_input_format", "best_effort"),
        ("enable_http_compression", "1"),
        ("client_protocol_version", "54405"),
        ("max_execution_time", "300"),
        ("max_threads", "8"),
        ("join_use_nulls", "1"),
        ("param_type", "click"),
    ];
    let statement = "SELECT count() AS events FROM events WHERE type = {type:String}\n FORMAT Native";
    let (status, body) = ask(&service, statement, &params, &headers).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(body.as_slice()), &mut plain).unwrap();
    assert!(String::from_utf8_lossy(&plain).contains("events"), "a block with the column's name");
}

#[tokio::test(flavor = "multi_thread")]
async fn drivers_for_java_and_go_connect_and_list_tables_and_columns() {
    let service = service().await;
    // The client of clickhouse-java, and its JDBC driver.
    let java = [
        ("X-ClickHouse-User", "analyst"),
        ("X-ClickHouse-Key", ""),
        ("X-ClickHouse-Database", "default"),
        ("X-ClickHouse-Format", "RowBinaryWithNamesAndTypes"),
        ("User-Agent", "jdbc-v2/0.9.2 clickhouse-java-v2/0.9.2 (Linux; jvm:21.0.2) Apache-HttpClient/5.4.4"),
    ];
    let connected = "SELECT currentUser() AS user, timezone() AS timezone, version() AS version LIMIT 1";
    let (status, body) = ask(&service, connected, &[("wait_end_of_query", "0"), ("role", "")], &java).await;
    let body = String::from_utf8_lossy(&body).into_owned();
    assert!(status == 200 && body.contains("analyst"), "{body}");
    let tables = "SELECT '' AS TABLE_CAT, t.database AS TABLE_SCHEM, t.name AS TABLE_NAME, \
                  CASE WHEN t.engine LIKE '%Log' THEN 'LOG TABLE' WHEN t.engine = 'View' THEN 'VIEW' ELSE 'TABLE' END \
                  AS TABLE_TYPE, t.comment AS REMARKS, null AS TYPE_CAT, d.engine AS TYPE_NAME \
                  FROM system.tables t JOIN system.databases d ON t.database = d.name \
                  WHERE t.database LIKE '%' AND t.name LIKE '%' ORDER BY TABLE_SCHEM, TABLE_NAME";
    let listed = text(&service, tables, &[]).await;
    assert!(listed.contains("tallyhouse_analytics\tevents\tVIEW"), "{listed}");
    assert!(!listed.contains("schema_migrations"), "{listed}");
    let columns = "SELECT database, table, name, type, position, default_expression, comment, is_in_primary_key \
                   FROM system.columns WHERE database = 'tallyhouse_analytics' AND table = 'users' ORDER BY position";
    assert!(text(&service, columns, &[]).await.contains("tallyhouse_analytics\tusers\tuser_id\tString\t2"));
    // clickhouse-go over HTTP, which Grafana's plugin uses.
    let go = "SELECT displayName(), version(), revision(), timezone()";
    let params = [
        ("default_format", "Native"),
        ("database", "default"),
        ("client_protocol_version", "54468"),
        ("compress", "0"),
    ];
    let agent = "clickhouse-go/2.40.1 grafana/11.2.0 (lv:go/1.24.2; os:linux)";
    let (status, body) = ask(&service, go, &params, &[("X-ClickHouse-User", "analyst"), ("User-Agent", agent)]).await;
    let body = String::from_utf8_lossy(&body).into_owned();
    assert!(status == 200 && body.contains("tallyhouse"), "{body}");
    for statement in ["SELECT name FROM system.databases", "SHOW DATABASES"] {
        assert_eq!(text(&service, statement, &[]).await, "tallyhouse_analytics");
    }
    for statement in [
        "SELECT name FROM system.tables WHERE database = 'tallyhouse_analytics'",
        "SHOW TABLES FROM tallyhouse_analytics",
    ] {
        assert!(text(&service, statement, &[]).await.lines().any(|name| name == "events"));
    }
    let described = text(&service, "DESC TABLE \"tallyhouse_analytics\".\"events\"", &[]).await;
    assert!(described.contains("event_id\tString"), "{described}");
    let graph = "SELECT toStartOfInterval(toDateTime(occurred_at), INTERVAL 3600 second) as time, count() AS events \
                 FROM \"tallyhouse_analytics\".\"events\" \
                 WHERE ( time >= toDateTime(1700000000) AND time <= toDateTime(4000000000) ) \
                 GROUP BY time ORDER BY time ASC LIMIT 1000";
    assert!(!text(&service, graph, &[]).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_that_read_the_information_schema_see_the_views() {
    let service = service().await;
    for schema in ["information_schema", "INFORMATION_SCHEMA"] {
        let tables = format!(
            "SELECT table_name FROM {schema}.tables WHERE table_schema = 'tallyhouse_analytics' ORDER BY table_name"
        );
        assert!(text(&service, &tables, &[]).await.contains("type_hours"), "{schema}");
    }
    let columns = "SELECT column_name, data_type, is_nullable FROM information_schema.columns \
                   WHERE table_name = 'type_hours' ORDER BY ordinal_position FORMAT JSONCompact";
    let answer: Value = serde_json::from_str(&text(&service, columns, &[]).await).unwrap();
    let names: Vec<&str> = answer["data"].as_array().unwrap().iter().map(|row| row[0].as_str().unwrap()).collect();
    assert_eq!(names, ["org_id", "hour", "type", "events"]);
    assert!(answer.get("statistics").is_none(), "{answer}");
    assert_eq!(
        text(&service, "SELECT schema_name FROM information_schema.schemata", &[]).await,
        "tallyhouse_analytics"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_come_by_get_and_post_with_parameters() {
    let service = service().await;
    let get = service.http.get(&service.sql_url).query(&[("user", "analyst"), ("query", "SELECT 1 + 1")]);
    assert_eq!(get.send().await.unwrap().text().await.unwrap(), "2\n");
    assert_eq!(text(&service, "", &[("query", "SELECT 3")]).await, "3");
    assert_eq!(text(&service, "{n:UInt8} + 1", &[("query", "SELECT"), ("param_n", "4")]).await, "5");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gzip, b"SELECT 6").unwrap();
    let request = service.http.post(&service.sql_url).query(&[("user", "analyst")]).header("Content-Encoding", "gzip");
    assert_eq!(request.body(gzip.finish().unwrap()).send().await.unwrap().text().await.unwrap(), "6\n");
    for path in ["/ping", "/"] {
        let answer = service.http.get(format!("{}{path}", service.sql_url)).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "Ok.\n");
    }
    // What cannot be read is refused in words, with ClickHouse's number.
    for (statement, code, words) in [
        ("SELECT", "62", "cannot be read"),
        ("INSERT INTO events VALUES (1)", "497", "analysts can only read"),
        ("SELECT * FROM nothing", "60", "SHOW TABLES"),
        ("SELECT nothing FROM events", "47", "nothing"),
        ("SELECT nosuch(1)", "46", "nosuch"),
        ("SELECT toUInt8('x')", "6", "CANNOT_PARSE_TEXT"),
        ("SELECT 1 FORMAT Template", "73", "Template"),
        ("SET max_threads = 1", "497", "SETTINGS"),
    ] {
        let request = service.http.post(&service.sql_url).query(&[("user", "analyst")]).body(statement);
        let answer = request.send().await.unwrap();
        let answered = answer.headers().get("x-clickhouse-exception-code").cloned();
        let answered = answered.map(|code| code.to_str().unwrap().to_owned());
        let text = answer.text().await.unwrap();
        assert!(text.starts_with(&format!("Code: {code}. DB::Exception: ")), "{statement}: {text}");
        assert!(answered.as_deref() == Some(code) && text.contains(words), "{statement}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn analysts_statements_mean_what_clickhouse_means() {
    let service = service().await;
    for (statement, expected) in [
        ("SELECT 1 + 2 * 3, 7 % 4, intDiv(7, 2), -2, NOT 1, 1 = 1 AND 2 = 3 OR 1", "7\t3\t3\t-2\t0\t1"),
        ("SELECT 'it''s', 'a\\'b', 'tab\\t', 'x' || 'y'", "it\\'s\ta\\'b\ttab\\t\txy"),
        ("SELECT 1 IN (1, 2), 3 NOT IN (1, 2), (1, 'a') IN ((1, 'a'))", "1\t1\t1"),
        ("SELECT 5 BETWEEN 1 AND 9, 'abc' LIKE 'a%', 'ABC' ILIKE 'a%', NULL IS NULL", "1\t1\t1\t1"),
        ("SELECT CAST('7' AS UInt8) + '8'::UInt8, toTypeName(CAST('x' AS Nullable(String)))", "15\tNullable(String)"),
        ("SELECT toDate('2026-01-31') + INTERVAL 1 MONTH, DATE '2026-01-01'", "2026-02-28\t2026-01-01"),
        ("SELECT EXTRACT(YEAR FROM toDate('2026-05-01'))", "2026"),
        ("SELECT arrayMap((x, y) -> x * y, [1, 2], [3, 4]), [5, 6][2], tuple(7, 8).2", "[3,8]\t6\t8"),
        ("SELECT CASE 2 WHEN 1 THEN 'a' WHEN 2 THEN 'b' ELSE 'c' END, if(0, 1, 2), multiIf(0, 1, 1, 2, 3)", "b\t2\t2"),
        ("SELECT sum(number), quantile(0.5)(number), countIf(number > 5) FROM numbers(10)", "45\t4.5\t4"),
        ("SELECT count(DISTINCT number % 3), groupArray(2)(number) FROM numbers(10)", "3\t[0,1]"),
        (
            "SELECT number, row_number() OVER (ORDER BY number DESC) AS place FROM numbers(2) ORDER BY place",
            "1\t1\n0\t2",
        ),
        (
            "WITH a AS (SELECT number AS n FROM numbers(4)) SELECT sum(n) FROM a WHERE n IN (SELECT n FROM a WHERE n > 1)",
            "5",
        ),
        ("WITH a AS (SELECT 1 AS n) SELECT n FROM a UNION ALL SELECT n FROM a", "1\n1"),
        ("SELECT x, y FROM (SELECT 1 AS x) ARRAY JOIN [10, 20] AS y ORDER BY y", "1\t10\n1\t20"),
        ("SELECT a.n, b.n FROM (SELECT 1 AS n) AS a LEFT JOIN (SELECT 2 AS n) AS b ON a.n = b.n", "1\t0"),
        (
            "SELECT number % 2 AS odd, count() FROM numbers(5) GROUP BY odd WITH TOTALS HAVING odd = 0 ORDER BY odd",
            "0\t3\n\n0\t3",
        ),
        ("SELECT number FROM numbers(3) ORDER BY number LIMIT 1, 1", "1"),
        ("SELECT number FROM numbers(3) ORDER BY number DESC LIMIT 1 OFFSET 1", "1"),
        ("SELECT number % 2 AS n FROM numbers(4) ORDER BY n LIMIT 1 BY n", "0\n1"),
        ("SELECT trim('  a '), trim(BOTH 'x' FROM 'xax'), substring('hello' FROM 2 FOR 3)", "a\ta\tell"),
        ("SELECT position('abc', 'b'), floor(1.7), ceil(1.25, 1)", "2\t1\t1.3"),
        ("SELECT number FROM numbers(2) ORDER BY number WITH FILL FROM 0 TO 4 STEP 1", "0\n1\n2\n3"),
        ("SELECT map('a', 1)['a']", "1"),
        ("SELECT event_id LIKE 'event-%' FROM events FINAL LIMIT 1", "1"),
        ("SELECT e.type, count() FROM tallyhouse_analytics.events AS e FINAL GROUP BY ALL", "click\t10"),
        ("SELECT tallyhouse_analytics.events.type FROM tallyhouse_analytics.events LIMIT 1", "click"),
        ("SELECT * EXCEPT (plan) FROM organizations WHERE 0", ""),
    ] {
        assert_eq!(text(&service, statement, &[("database", "tallyhouse_analytics")]).await, expected, "{statement}");
    }
}
