//! Attacks on other organizations' rows: their values, whether they exist, how
//! many there are.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::asker::{Answer, Asker, fill, service};

/// The views of an organization's analysts, with their columns.
const VIEWS: [(&str, &[&str]); 10] = [
    ("campaign_minutes", &["org_id", "campaign_id", "minute", "type", "events"]),
    ("custom_metrics", &["org_id", "name", "date", "value"]),
    ("event_types", &["org_id", "type", "version", "schema", "created_at"]),
    (
        "events",
        &[
            "org_id",
            "event_id",
            "type",
            "campaign_id",
            "creative_id",
            "source",
            "user_id",
            "occurred_at",
            "received_at",
            "seq",
            "properties",
            "schema_version",
        ],
    ),
    ("memberships", &["org_id", "user_id", "role", "joined_at"]),
    ("organizations", &["org_id", "name", "plan", "unknown_event_types", "created_at", "updated_at"]),
    ("type_hours", &["org_id", "hour", "type", "events"]),
    ("user_days", &["org_id", "day", "user_id", "events"]),
    ("user_minutes", &["org_id", "minute", "user_id", "events"]),
    ("users", &["org_id", "user_id", "email", "name", "role", "created_at", "updated_at"]),
];

/// The attacks that were made on a former version.
const KNOWN: [&str; 16] = [
    "SELECT * FROM (SELECT * FROM users SETTINGS log_comment = 'globex')",
    "SELECT count() FROM users WHERE user_id LIKE '%globex%' AND toUInt64(user_id) = 1",
    "SELECT count() FROM users WHERE throwIf(user_id LIKE '%globex%')",
    "SELECT count() FROM events WHERE throwIf(org_id = 'globex')",
    "SELECT * FROM (SELECT count() FROM events WHERE throwIf(user_id LIKE '%globex%') \
     SETTINGS apply_row_policy_after_final = 1, apply_prewhere_after_final = 0)",
    "SELECT * FROM (SELECT count() FROM users SETTINGS \
     additional_table_filters = {'tallyhouse.users': 'throwIf(email LIKE \\'%globex%\\') = 0'})",
    "SELECT * FROM mergeTreeIndex('tallyhouse', 'users')",
    "SELECT * FROM merge('tallyhouse', 'users')",
    "SELECT * FROM tallyhouse.users",
    "SELECT _part_offset, _part FROM tallyhouse.users",
    "SELECT * FROM tallyhouse_org_beta.users",
    "SELECT * FROM tallyhouse_analytics.users",
    "SELECT total_rows FROM system.tables WHERE database = 'tallyhouse'",
    "SELECT * FROM system.parts",
    "SELECT * FROM system.query_log",
    "SELECT query FROM system.processes",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_known_attack_reads_another_organizations_rows() {
    let service = service(&[]).await;
    for org in ["acme", "globex", "beta"] {
        fill(&service, org, 50).await;
    }
    for asker in [Asker::at_the_gateway(&service, Some("acme")), Asker::at_the_engine(&service, Some("acme"))] {
        assert_eq!(asker.text("SELECT DISTINCT org_id FROM users").await.as_deref(), Ok("acme"));
        for attack in KNOWN {
            let answer = asker.ask(attack).await;
            // The attack's own text may come back with the error.
            let told = answer.text.replace(attack, "").replace("'%globex%'", "").replace("'globex'", "");
            let of_others = ["globex", "of-beta", "beta\t"].iter().any(|other| told.contains(other));
            assert!(!of_others, "{attack}: {}", answer.text);
            assert!(!answer.text.contains("FUNCTION_THROW_IF"), "{attack}: {}", answer.text);
            assert!(!answer.is_ok || !answer.text.contains("150"), "{attack}: {}", answer.text);
        }
    }
}

/// The gateway alone: what an analyst is told does not depend on other
/// organizations' rows, not even how long an error is.
#[tokio::test(flavor = "multi_thread")]
async fn other_organizations_rows_change_no_answer() {
    let seed = std::env::var("ATTACK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
    println!("ATTACK_SEED={seed}");
    let service = service(&[]).await;
    fill(&service, "acme", 60).await;
    let mut random = StdRng::seed_from_u64(seed);
    let statements: Vec<String> = statements(&mut random);
    let askers = [Asker::at_the_gateway(&service, Some("acme")), Asker::at_the_engine(&service, Some("acme"))];
    let mut before = Vec::new();
    for (place, asker) in askers.iter().enumerate() {
        for statement in &statements {
            before.push((place, statement, asker.ask(statement).await));
        }
    }
    let went_well = before.iter().filter(|(_, _, answer)| answer.is_ok).count();
    assert!(went_well > statements.len() / 2, "only {went_well} of twice {} went well", statements.len());

    for org in ["globex", "beta", "aaa", "a.b"] {
        fill(&service, org, 300).await;
    }
    for (place, statement, first) in before {
        let (first, again) =
            (without_figures_of_memory(first), without_figures_of_memory(askers[place].ask(statement).await));
        assert_eq!((again.is_ok, &again.text), (first.is_ok, &first.text), "ATTACK_SEED={seed} {place}: {statement}");
        if place == 0 {
            assert_eq!(again.headers, first.headers, "ATTACK_SEED={seed}: {statement}");
        }
    }
}

/// The engine's own words about memory, and its numbers of steps (`: 3`) and the value of `now()` (`_CAST(1795788479_DateTime,`)
/// in what it was executing, differ from one time to the next.
fn without_figures_of_memory(mut answer: Answer) -> Answer {
    if answer.text.contains("MEMORY_LIMIT_EXCEEDED") {
        answer.text = "MEMORY_LIMIT_EXCEEDED".to_owned();
    }
    if !answer.is_ok && answer.text.contains("while executing") {
        let is_step = |word: &str| word.trim_end_matches([')', '\'', '.']).parse::<u32>().is_ok();
        let words = answer.text.split(' ').filter(|word| !is_step(word) && !word.contains("_DateTime,"));
        answer.text = words.collect::<Vec<_>>().join(" ");
    }
    answer
}

/// Statements over every view and column, with functions that throw on, count or
/// collect what they meet.
fn statements(random: &mut StdRng) -> Vec<String> {
    let mut statements = Vec::new();
    for (view, columns) in VIEWS {
        for column in columns {
            for _ in 0..4 {
                statements.push(statement(random, view, column));
            }
        }
    }
    statements
}

fn statement(random: &mut StdRng, view: &str, column: &str) -> String {
    let other = ["globex", "beta", "aaa", "a.b", "of-", "user"].choose(random).unwrap();
    let is_foreign = [
        format!("toString({column}) LIKE '%{other}%'"),
        format!("position(toString({column}), '{other}') > 0"),
        "org_id != 'acme'".to_owned(),
        format!("match(toString({column}), '{other}')"),
    ];
    let is_foreign = is_foreign.choose(random).unwrap();
    let bursts = [
        format!("toUInt64(toString({column})) = 1"),
        format!("intDiv(1, if({is_foreign}, 0, 1)) = 1"),
        format!("throwIf({is_foreign}) = 0"),
        format!("toDateTime(toString({column})) > now()"),
        format!("arrayElement([1], if({is_foreign}, 1, 2)) = 1"),
        format!("length(repeat('x', if({is_foreign}, 1000000000, 1))) = 1"),
        format!("sleepEachRow(if({is_foreign}, 0.01, 0)) = 0"),
        format!("toFixedString(toString({column}), 3) = 'abc'"),
        format!("JSONExtractString(toString({column}), 'note') != ''"),
        format!("accurateCast(length(toString({column})), 'UInt8') > 0"),
    ];
    let burst = bursts.choose(random).unwrap();
    let also = if random.random_bool(0.5) { format!(" AND {is_foreign}") } else { String::new() };
    let lists = [
        "count()".to_owned(),
        format!("uniqExact({column})"),
        format!("arraySort(groupUniqArray(toString({column})))"),
        format!("min(toString({column})), max(toString({column}))"),
        format!("countIf({burst})"),
        format!("sum(cityHash64(toString({column})))"),
        format!("topK(3)(org_id), any(org_id), {column} IN (SELECT {column} FROM {view}) AS known"),
    ];
    let list = lists.choose(random).unwrap();
    let shapes = [
        format!("SELECT {list} FROM {view} WHERE {burst}{also}"),
        format!("SELECT {list} FROM {view} PREWHERE {burst}{also}"),
        format!("SELECT {list} FROM (SELECT * FROM {view} WHERE {burst}{also})"),
        format!("SELECT {list} FROM {view} WHERE ({burst}{also}) OR 1 = 1"),
        format!("SELECT {list} FROM {view} HAVING count() > 0 AND 1 = 1 SETTINGS max_threads = 8"),
        format!("WITH found AS (SELECT * FROM {view} WHERE {is_foreign}) SELECT {list} FROM found"),
        format!(
            "SELECT {list} FROM {view} AS a INNER JOIN (SELECT {column} FROM {view} WHERE {is_foreign}) AS b ON a.{column} = b.{column}"
        ),
        format!("SELECT {list} FROM {view} WHERE {column} IN (SELECT {column} FROM {view} WHERE {burst})"),
    ];
    // Without a condition that may never hold, and with one.
    if random.random_bool(0.4) { format!("SELECT {list} FROM {view}") } else { shapes.choose(random).unwrap().clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organization_with_a_dot_in_its_id_has_its_analyst() {
    let service = service(&[]).await;
    for org in ["a.b", "acme"] {
        fill(&service, org, 10).await;
    }
    let asker = Asker::at_the_gateway(&service, Some("a.b"));
    assert_eq!(asker.user, "analyst_a.b");
    for (view, _) in VIEWS {
        assert_eq!(asker.text(&format!("SELECT DISTINCT org_id FROM {view}")).await.as_deref(), Ok("a.b"), "{view}");
        let named = format!("SELECT count() > 0 FROM tallyhouse_org.{view}");
        assert_eq!(asker.text(&named).await.as_deref(), Ok("1"), "{view}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_the_gateway_tell_nothing_of_rows_read() {
    let service = service(&[]).await;
    for org in ["acme", "globex"] {
        fill(&service, org, 77).await;
    }
    let asker = Asker::at_the_gateway(&service, Some("acme"));
    for statement in ["SELECT count() FROM users FORMAT JSON", "SELECT user_id FROM users WHERE toUInt64(user_id) = 1"]
    {
        let answer = asker.ask(statement).await;
        let all = format!("{answer:?}");
        for told in ["154", "rows_read", "bytes_read", "definer_", "tallyhouse_org_acme", "user-of-"] {
            assert!(!all.contains(told), "{statement}: {told}: {all}");
        }
    }
    for statement in [
        "EXPLAIN ESTIMATE SELECT count() FROM users",
        "SELECT 1 FORMAT JSONEachRowWithProgress",
        "SELECT count() FROM users SETTINGS max_rows_to_read = 1",
        "SELECT count() FROM users SETTINGS send_logs_level = 'trace'",
    ] {
        let refused = asker.text(statement).await.unwrap_err();
        assert!(refused.contains("not available") || refused.contains("readonly"), "{statement}: {refused}");
    }
}
