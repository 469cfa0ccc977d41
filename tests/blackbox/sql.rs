//! The queries of `clickhouse/queries`, asked about the files in `samples`,
//! which one command loads; and what the analysts of one organization see.
//!
//! The answers were worked out from the files without SQL.

use std::process::Command;

use crate::service::{TestService, eventually};

const SECRET: &str = "a secret for tests that is long enough";
const DIR: &str = env!("CARGO_MANIFEST_DIR");

/// A service with the samples in it.
async fn house_with_samples() -> TestService {
    let settings = [("TALLYHOUSE_AUTH_HS256_SECRET", SECRET), ("TALLYHOUSE_ANALYST_ORGS", "acme,globex")];
    let service = TestService::with(&settings).await;
    let loaded = load(&service);
    assert!(loaded.contains("100 events: 100 accepted"), "{loaded}");
    service
}

/// Loads the samples as a person would; what was printed.
fn load(service: &TestService) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallyhouse"));
    command.args(["load", &format!("{DIR}/samples"), "--address", &service.url]);
    let output = command.env("TALLYHOUSE_AUTH_HS256_SECRET", SECRET).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// An analyst: of an organization, or of all.
struct Analyst<'a> {
    service: &'a TestService,
    user: String,
    password: String,
    database: String,
}

impl<'a> Analyst<'a> {
    /// As `tallyhouse analyst` says.
    fn new(service: &'a TestService, org: Option<&str>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tallyhouse"));
        command.arg("analyst").args(org).arg("--data-dir").arg(service.data_dir());
        command.env("TALLYHOUSE_AUTH_HS256_SECRET", SECRET).env("TALLYHOUSE_ANALYST_ORGS", "acme,globex");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        Self { service, user: value("user"), password: value("password"), database: value("database") }
    }

    /// Asks; the text of the answer, or of the error.
    async fn ask(&self, statement: &str, params: &[(&str, &str)]) -> Result<String, String> {
        let params: Vec<(String, &str)> =
            params.iter().map(|(name, value)| (format!("param_{name}"), *value)).collect();
        let request = self.service.http.post(&self.service.sql_url).query(&[("database", &self.database)]);
        let request = request.query(&params).header("X-ClickHouse-User", &self.user);
        let request = request.header("X-ClickHouse-Key", &self.password).body(statement.to_owned());
        let answer = request.send().await.unwrap();
        let is_ok = answer.status().is_success();
        let text = answer.text().await.unwrap().trim_end().to_owned();
        if is_ok { Ok(text) } else { Err(text) }
    }

    /// Asks one of the queries.
    async fn run(&self, name: &str, params: &[(&str, &str)]) -> String {
        let statement = std::fs::read_to_string(format!("{DIR}/clickhouse/queries/{name}.sql")).unwrap();
        self.ask(&statement, params).await.unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

/// A query with its parameters and its answer.
type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str);

const WHOLE: [(&str, &str); 3] = [("org", "acme"), ("from", "2026-10-20 00:00:00"), ("to", "2026-11-19 00:00:00")];

const CASES: [Case; 7] = [
    (
        "top_organizations",
        &[("to", "2026-11-19 00:00:00")],
        "acme\tAcme Corporation\tenterprise\t34\nglobex\tGlobex\tpro\t22\ninitech\tInitech\tpro\t15\n\
         umbrella\tUmbrella Retail\tenterprise\t11\nhooli\tHooli\tenterprise\t9",
    ),
    (
        "daily_active_users",
        &[("from", "2026-10-20"), ("to", "2026-10-23")],
        "acme\t2026-10-20\t1\nacme\t2026-10-23\t2\nglobex\t2026-10-22\t1\nglobex\t2026-10-23\t1\n\
         initech\t2026-10-21\t1\ninitech\t2026-10-23\t1\numbrella\t2026-10-20\t1\numbrella\t2026-10-21\t1",
    ),
    (
        "top_users",
        &[WHOLE[0], WHOLE[1], WHOLE[2], ("limit", "3")],
        "user_29\tCora Quist\t10\nuser_15\tOlga Silva\t8\nuser_01\tAda Abel\t6",
    ),
    (
        "event_types_by_day",
        &[("org", "globex"), ("from", "2026-11-01 00:00:00"), ("to", "2026-11-08 00:00:00")],
        "2026-11-01\tadd_to_cart\t1",
    ),
    (
        "funnel",
        &[WHOLE[0], WHOLE[1], WHOLE[2], ("seconds", "1209600")],
        "1\tsignup\t6\n2\tadd_to_cart\t3\n3\tpurchase\t3",
    ),
    ("retention", &[WHOLE[0], ("from", "2026-10-20"), ("weeks", "4")], "0\t0\t5\n0\t1\t3\n0\t2\t2\n0\t3\t1\n1\t0\t1"),
    (
        "revenue_per_active_user",
        &[WHOLE[0], ("from", "2026-11-01"), ("to", "2026-11-03"), ("name", "revenue")],
        "2026-11-01\t206.15\t2\t103.08\n2026-11-02\t229.97\t1\t229.97\n2026-11-03\t117.12\t0\t\\N",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_query_has_its_known_answer() {
    let service = house_with_samples().await;
    let all = Analyst::new(&service, None);
    eventually("every event is stored", || async {
        all.ask("SELECT count() FROM events", &[]).await.is_ok_and(|count| count == "100")
    })
    .await;
    let files = std::fs::read_dir(format!("{DIR}/clickhouse/queries")).unwrap();
    let queries = files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|end| end == "sql"));
    assert_eq!(queries.count(), CASES.len(), "each query has a case");
    for (name, params, expected) in CASES {
        assert_eq!(all.run(name, params).await, expected, "{name}");
    }
    // A query for all runs for one as well.
    let acme = Analyst::new(&service, Some("acme"));
    for (name, params, expected) in CASES.into_iter().filter(|(_, params, _)| params.contains(&WHOLE[0])) {
        assert_eq!(acme.run(name, params).await, expected, "{name}");
    }
    let first = CASES[0].2.lines().next().unwrap();
    assert_eq!(acme.run(CASES[0].0, CASES[0].1).await, first, "of its own organization only");

    // Loading again counts nothing twice.
    assert!(load(&service).contains("100 events: 0 accepted, 100 duplicate"));
    assert_eq!(all.run(CASES[0].0, CASES[0].1).await, CASES[0].2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organizations_analyst_sees_no_other() {
    let service = house_with_samples().await;
    let acme = Analyst::new(&service, Some("acme"));
    eventually("every event is stored", || async {
        acme.ask("SELECT count() FROM events", &[]).await.is_ok_and(|count| count == "34")
    })
    .await;
    let views = [
        "events",
        "organizations",
        "users",
        "memberships",
        "custom_metrics",
        "type_hours",
        "user_days",
        "user_minutes",
    ];
    for view in views {
        let orgs = acme.ask(&format!("SELECT DISTINCT org_id FROM {view}"), &[]).await;
        assert_eq!(orgs.as_deref(), Ok("acme"), "{view}");
        let others = acme.ask(&format!("SELECT count() FROM {view} WHERE org_id = 'globex'"), &[]).await;
        assert_eq!(others.as_deref(), Ok("0"), "{view}");
    }
    for forbidden in [
        "SELECT count() FROM tallyhouse.events",
        "SELECT count() FROM tallyhouse_analytics.events",
        "SELECT * FROM (SELECT count() FROM events SETTINGS log_comment = 'globex')",
        "SET log_comment = 'globex'",
        "INSERT INTO tallyhouse.events (org_id, event_id) VALUES ('globex', 'x')",
        "CREATE VIEW tallyhouse_org.mine AS SELECT 1",
        "SELECT * FROM system.query_log",
    ] {
        assert!(acme.ask(forbidden, &[]).await.is_err(), "{forbidden}");
    }
    // A label that clients send is taken, and has no part in what is read.
    let labelled = acme.ask("SELECT count() FROM events SETTINGS log_comment = 'globex'", &[]).await;
    assert_eq!(labelled.as_deref(), Ok("34"));
    let address = format!("{}?database=tallyhouse_org&log_comment=globex", service.sql_url);
    let request = service.http.post(address).header("X-ClickHouse-User", &acme.user);
    let answer = request.header("X-ClickHouse-Key", &acme.password).body("SELECT count() FROM events").send().await;
    assert_eq!(answer.unwrap().text().await.unwrap(), "34\n");
    // And where there is authentication, nobody is an analyst without a password.
    let nobody = Analyst { user: "analyst".to_owned(), password: String::new(), ..Analyst::new(&service, None) };
    assert!(nobody.ask("SELECT 1", &[]).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_on_its_own_server_serves_analysts() {
    const ANALYST_SECRET: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
    let settings = [
        ("TALLYHOUSE_AUTH_HS256_SECRET", SECRET),
        ("TALLYHOUSE_ANALYST_ORGS", "acme"),
        ("TALLYHOUSE_ANALYST_SECRET", ANALYST_SECRET),
    ];
    let service = TestService::with(&settings).await;
    service.sql("INSERT INTO users SELECT arrayJoin(['acme', 'globex']), 'u', '', '', '', now(), now(), 1").await;
    let listen = [("TALLYHOUSE_SQL_LISTEN", "127.0.0.1:0")];
    let second = service.second(&[&settings[..], &listen].concat()).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallyhouse"));
    command.args(["analyst", "acme", "--data-dir"]).arg(service.data_dir()).envs(settings);
    let login = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let words: Vec<&str> = login.split_whitespace().collect();
    let request = service.http.post(&second.sql_url).basic_auth(words[1], Some(words[3]));
    let answer = request.body("SELECT org_id FROM users").send().await.unwrap().text().await.unwrap();
    assert_eq!(answer, "acme\n");
    // Others can reach it only with authentication.
    let mut open = Command::new(env!("CARGO_BIN_EXE_tallyhouse"));
    open.args(["serve", "--clickhouse-url", "http://127.0.0.1:1", "--sql-listen", "0.0.0.0:0"]);
    let output = open.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("sql_listen"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clickhouse_understands_the_statements_for_a_server() {
    let service = TestService::with(&[("TALLYHOUSE_ANALYST_ORGS", "a.b")]).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallyhouse"));
    command.args(["analyst", "a.b", "--sql", "--data-dir"]).arg(service.data_dir());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let text: String = text.lines().filter(|line| !line.starts_with("--")).map(|line| format!("{line}\n")).collect();
    let statements: Vec<&str> = text.split(";\n").map(str::trim).filter(|statement| !statement.is_empty()).collect();
    assert!(statements.len() > 40, "{text}");
    for statement in statements {
        service.sql(&format!("EXPLAIN AST {statement}")).await;
    }
}
