use super::*;
use crate::config::Config;
use crate::domain::OrgId;

fn scope() -> Scope {
    Scope::new(&Config::default(), Some(&OrgId::parse("acme").unwrap()))
}

fn written(sql: &str) -> String {
    check(sql, &scope()).unwrap_or_else(|refusal| panic!("{sql}: {refusal}")).sql
}

fn refused(sql: &str) -> String {
    match check(sql, &scope()) {
        Ok(checked) => panic!("{sql} was taken as {}", checked.sql),
        Err(refusal) => refusal.to_string(),
    }
}

#[test]
fn what_is_run_is_written_from_the_tree() {
    for (sql, expected) in [
        ("select 1 -- a\n", "SELECT 1"),
        ("SELECT count(*) FROM events", "SELECT `count`(*) FROM `tallyhouse_org_acme`.`events`"),
        ("SELECT e.type t FROM tallyhouse_org.events AS e FINAL WHERE e.seq+1*2 > 3", ""),
        ("SELECT 'a\\'b''c'", "SELECT 'a\\'b''c'"),
        ("SELECT {a:DateTime('UTC')}", "SELECT {a:DateTime('UTC')}"),
        ("SELECT a.1, b[2] FROM (SELECT tuple(1) AS a, [1, 2] AS b)", ""),
        ("SELECT x::UInt8, CAST(x AS Nullable(String)) FROM (SELECT 1 AS x)", ""),
        ("SELECT arrayMap((x, y) -> x + y, [1], [2]), arrayMap(x -> -x, [1])", ""),
        ("WITH a AS (SELECT 1 AS x) SELECT x FROM a UNION ALL SELECT 2", ""),
        ("SELECT x, y FROM users ARRAY JOIN [1, 2] AS x, array(3) AS y WHERE x = 1", ""),
        ("SELECT now() - INTERVAL 1 DAY", "SELECT (`now`() - toIntervalDay(1))"),
        ("SELECT quantileIf(0.5)(seq, seq > 1) FROM events", ""),
        (
            "SELECT row_number() OVER (PARTITION BY type ORDER BY seq DESC ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM events",
            "",
        ),
        (
            "SELECT * EXCEPT (org_id) FROM users ORDER BY name LIMIT 2 BY user_id",
            "SELECT * EXCEPT (`org_id`) FROM `tallyhouse_org_acme`.`users` ORDER BY `name` LIMIT 2 BY `user_id`",
        ),
        ("SELECT 1 UNION ALL SELECT 2 EXCEPT SELECT 3", "(SELECT 1 UNION ALL SELECT 2) EXCEPT SELECT 3"),
        ("SELECT count() FROM users WHERE (user_id, name) IN (SELECT user_id, name FROM users)", ""),
        (
            "SELECT count() c FROM users GROUP BY role WITH TOTALS HAVING c > 1 ORDER BY c DESC NULLS LAST LIMIT 1 OFFSET 2",
            "",
        ),
        (
            "SELECT hostName(), currentUser(), currentDatabase()",
            "SELECT 'tallyhouse', 'analyst_acme', 'tallyhouse_org'",
        ),
        ("SELECT CASE WHEN 1 = 1 THEN 'a' ELSE 'b' END, if(1, 2, 3), trim(' a ')", ""),
        ("SELECT number FROM numbers(3) AS n", "SELECT `number` FROM numbers(3) AS `n`"),
        ("SELECT type FROM events FINAL WHERE 1", "SELECT `type` FROM `tallyhouse_org_acme`.`events` WHERE 1"),
        ("DESCRIBE TABLE users", "DESCRIBE TABLE (SELECT * FROM `tallyhouse_org_acme`.`users`)"),
        ("SELECT 1 BETWEEN 0 AND 2 AND 3", "SELECT ((1 BETWEEN 0 AND 2) AND 3)"),
        ("EXISTS TABLE tallyhouse_org.users", "SELECT toUInt8(1) AS result"),
        ("EXISTS tallyhouse.users", "SELECT toUInt8(0) AS result"),
    ] {
        let sql_written = written(sql);
        if expected.is_empty() {
            println!("{sql}\n  {sql_written}");
        } else {
            assert_eq!(sql_written, expected, "{sql}");
        }
    }
}

#[test]
fn what_is_not_known_is_refused() {
    for sql in [
        "",
        "INSERT INTO events VALUES (1)",
        "DROP TABLE users",
        "SYSTEM SHUTDOWN",
        "SELECT 1; SELECT 2",
        "SELECT * FROM tallyhouse.events",
        "SELECT * FROM tallyhouse_analytics.events",
        "SELECT * FROM tallyhouse_org_beta.events",
        "SELECT * FROM system.parts",
        "SELECT * FROM system.query_log",
        "SELECT * FROM file('/etc/passwd')",
        "SELECT * FROM url('http://127.0.0.1/')",
        "SELECT * FROM remote('127.0.0.1', tallyhouse.events)",
        "SELECT * FROM merge('tallyhouse', 'users')",
        "SELECT * FROM view(SELECT 1)",
        "SELECT file('/proc/self/environ')",
        "SELECT `file`('/proc/self/environ')",
        "SELECT FiLe('/proc/self/environ')",
        "SELECT sleep(3)",
        "SELECT throwIf(1)",
        "SELECT dictGet('a', 'b', 1)",
        "SELECT getSetting('log_comment')",
        "SELECT * FROM (SELECT * FROM users SETTINGS log_comment = 'acme')",
        "SELECT 1 INTO OUTFILE 'a'",
        "SELECT * FROM users SAMPLE 0.1",
        "EXPLAIN ESTIMATE SELECT 1 FROM users",
        "SELECT {t:Identifier} FROM users",
        "SELECT * FROM {t:Identifier}",
        "SELECT 1 FROM users FORMAT TSV SETTINGS x = 1; DROP TABLE users",
        "SELECT `a\\`` FROM users",
        "SELECT count() FROM users WHERE user_id LIKE 'a' ESCAPE '!'",
        "SET x = 1",
        "USE tallyhouse",
        "SHOW CREATE TABLE users",
        "SHOW GRANTS",
        "KILL QUERY WHERE 1",
        "SELECT * APPLY(file) FROM users",
        "WITH RECURSIVE a AS (SELECT 1 UNION ALL SELECT 1) SELECT * FROM a",
        "SELECT ?",
        "SELECT $1",
        "SELECT @a",
        "VALUES (1)",
        "TABLE users",
        "SELECT b'1'",
        "SELECT e'\\n'",
        "SELECT CAST(1 AS Object('json'))",
    ] {
        refused(sql);
    }
}

#[test]
fn settings_and_format_of_the_whole_statement_are_taken_out() {
    let checked = check("SELECT 1 SETTINGS max_threads = 4, a = 'b' FORMAT JSON", &scope()).unwrap();
    assert_eq!(checked.sql, "SELECT 1");
    assert_eq!(checked.settings, [("max_threads".into(), "4".into()), ("a".into(), "b".into())]);
    assert_eq!(checked.format.as_deref(), Some("JSON"));
    let checked = check("SELECT count() FROM users FORMAT TSV SETTINGS a = 1", &scope()).unwrap();
    assert_eq!((checked.settings.len(), checked.format.as_deref()), (1, Some("TSV")));
    let checked = check("SHOW TABLES FORMAT JSON", &scope()).unwrap();
    assert_eq!(checked.format.as_deref(), Some("JSON"));
    for wrong in ["SELECT 1 SETTINGS a = (SELECT 1)", "SELECT 1 SETTINGS a = {'x': 'y'}", "SELECT 1 SETTINGS a = 'x\\'"]
    {
        refused(wrong);
    }
}

#[test]
fn a_long_or_deep_statement_is_read_or_refused_and_never_ends_the_process() {
    written(&format!("SELECT {}1", "1 = 1 AND ".repeat(3_000)));
    written(&format!("SELECT 1 IN ({}1)", "1, ".repeat(9_000)));
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("-", ""),
        ("NOT ", ""),
        ("1 + ", ""),
        ("(SELECT ", ")"),
        ("lower(", ")"),
        ("CASE WHEN ", ""),
        ("x -> ", ""),
        ("1 IN (", ")"),
    ] {
        for times in [600, 9_000, 50_000] {
            refused(&format!("SELECT {}1{}", open.repeat(times), close.repeat(times)));
        }
    }
    refused(&format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(4_000)));
}

#[test]
fn every_ready_made_query_is_understood() {
    let all = Scope::new(&Config::default(), None);
    let dir = format!("{}/clickhouse/queries", env!("CARGO_MANIFEST_DIR"));
    for file in
        std::fs::read_dir(dir).unwrap().flatten().filter(|file| file.path().extension().is_some_and(|end| end == "sql"))
    {
        let sql = std::fs::read_to_string(file.path()).unwrap();
        check(&sql, &all).unwrap_or_else(|refusal| panic!("{}: {refusal}", file.path().display()));
        written(&sql);
    }
}

#[test]
fn views_with_arguments_take_them_by_name() {
    let all = Scope::new(&Config::default(), None);
    let sql = "SELECT * FROM tallyhouse_analytics.top_users(org = 'default', from = now() - INTERVAL 1 DAY, to = now()) LIMIT 5";
    let checked = check(sql, &all).unwrap();
    assert_eq!(
        checked.sql,
        "SELECT * FROM `tallyhouse_analytics`.`top_users`(org = 'default', from = (`now`() - toIntervalDay(1)), \
         to = `now`()) LIMIT 5"
    );
    for wrong in ["SELECT * FROM top_users", "SELECT * FROM top_users(who = 1)", "SELECT * FROM top_users(1)"] {
        check(wrong, &all).unwrap_err();
    }
    refused("SELECT * FROM top_users(org = 'acme', from = 1, to = 2)");
}

proptest::proptest! {
    /// Whatever is written is written the same when it is read again: there is
    /// one way to read it.
    #[test]
    fn texts_of_any_characters_stay_within_their_quotes(text in "[\\x01-\\x7f]{0,12}") {
        if let Ok(checked) = check(&format!("SELECT '{text}' AS a"), &scope()) {
            let again = check(&checked.sql, &scope()).unwrap();
            proptest::prop_assert_eq!(again.sql, checked.sql);
        }
    }
}
