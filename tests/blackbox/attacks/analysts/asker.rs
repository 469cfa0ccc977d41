//! Who asks, and where.

use std::process::Command;

use tallyhouse::clickhouse::analysts::{self, AnalystKey};
use tallyhouse::config::Config;
use tallyhouse::domain::OrgId;

use crate::service::TestService;
use crate::tokens::SECRET;

/// The organizations that have analysts. One has a dot in its id.
pub(super) const ORGS: &str = "acme,beta,a.b";

/// A service with authentication, and analysts.
pub(super) async fn service(more: &[(&str, &str)]) -> TestService {
    let settings = [("TALLYHOUSE_AUTH_HS256_SECRET", SECRET), ("TALLYHOUSE_ANALYST_ORGS", ORGS)];
    TestService::with(&[&settings, more].concat()).await
}

/// An answer: whether it went well, its text, and what its headers tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) is_ok: bool,
    pub(super) text: String,
    pub(super) headers: Vec<(String, String)>,
}

/// An analyst at one of the two barriers.
#[derive(Clone)]
pub(super) struct Asker {
    http: reqwest::Client,
    pub(super) url: String,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) database: String,
}

impl Asker {
    /// As `tallyhouse analyst` says.
    pub(super) fn at_the_gateway(service: &TestService, org: Option<&str>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tallyhouse"));
        command.arg("analyst").args(org).arg("--data-dir").arg(service.data_dir());
        command.env("TALLYHOUSE_AUTH_HS256_SECRET", SECRET).env("TALLYHOUSE_ANALYST_ORGS", ORGS);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        Self {
            http: service.http.clone(),
            url: service.sql_url.clone(),
            user: value("user"),
            password: value("password"),
            database: value("database"),
        }
    }

    /// As the gateway asks the engine.
    pub(super) fn at_the_engine(service: &TestService, org: Option<&str>) -> Self {
        let key = AnalystKey::open(&Config { data_dir: service.data_dir().to_owned(), ..Config::default() }).unwrap();
        let org_id = org.map(|org| OrgId::parse(org).unwrap());
        let user = analysts::user(org_id.as_ref());
        Self {
            http: service.http.clone(),
            url: service.clickhouse_url.clone(),
            password: key.engine_password(&user).expose().to_owned(),
            user,
            database: org_id
                .map_or_else(|| "tallyhouse_analytics".to_owned(), |org_id| analysts::database("tallyhouse", &org_id)),
        }
    }

    pub(super) fn request(&self, statement: &str) -> reqwest::RequestBuilder {
        self.http
            .post(&self.url)
            .query(&[("database", &self.database)])
            .header("X-ClickHouse-User", &self.user)
            .header("X-ClickHouse-Key", &self.password)
            .body(statement.to_owned())
    }

    pub(super) async fn ask(&self, statement: &str) -> Answer {
        let answer = self.request(statement).send().await.unwrap();
        let is_ok = answer.status().is_success();
        let told = answer.headers().iter().filter(|(name, _)| {
            // These differ from answer to answer, and tell nothing of rows.
            !["date", "x-clickhouse-query-id", "x-clickhouse-exception-tag"].contains(&name.as_str())
        });
        let headers =
            told.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
        Answer { is_ok, headers: headers.collect(), text: answer.text().await.unwrap().trim_end().to_owned() }
    }

    /// The text of an answer, or of the error.
    pub(super) async fn text(&self, statement: &str) -> Result<String, String> {
        let Answer { is_ok, text, .. } = self.ask(statement).await;
        if is_ok { Ok(text) } else { Err(text) }
    }
}

/// Writes rows of an organization into every table. Each text of theirs has the
/// organization's name in it.
pub(super) async fn fill(service: &TestService, org: &str, rows: u32) {
    let text = |prefix: &str| format!("'{prefix}-of-{org}-' || toString(number)");
    let statements = [
        format!(
            "INSERT INTO events (org_id, event_id, type, campaign_id, creative_id, source, user_id, occurred_at, seq, \
             properties, schema_version, version) SELECT '{org}', {}, 'type-of-{org}', 'campaign-of-{org}', \
             'creative-of-{org}', 'source-of-{org}', {}, toDateTime('2026-11-20 10:00:00', 'UTC') + number, number, \
             '{{\"note\":\"of-{org}\"}}', 0, 1000 FROM numbers({rows})",
            text("event"),
            text("user")
        ),
        format!(
            "INSERT INTO users SELECT '{org}', {}, {}, {}, 'role-of-{org}', toDateTime(0), toDateTime(0), 1 \
             FROM numbers({rows})",
            text("user"),
            text("mail"),
            text("name")
        ),
        format!(
            "INSERT INTO memberships SELECT '{org}', {}, 'role-of-{org}', toDateTime(0), 1 FROM numbers({rows})",
            text("user")
        ),
        format!(
            "INSERT INTO organizations (org_id, name, plan, created_at, updated_at, version) \
             SELECT '{org}', 'name-of-{org}', 'plan-of-{org}', toDateTime(0), toDateTime(0), 1"
        ),
        format!(
            "INSERT INTO custom_metrics SELECT '{org}', {}, toDate('2026-11-20'), number, 1 FROM numbers({rows})",
            text("metric")
        ),
        format!(
            "INSERT INTO event_types SELECT '{org}', {}, 1, '{{\"title\":\"of-{org}\"}}', toDateTime(0) FROM numbers({rows})",
            text("type")
        ),
    ];
    for statement in statements {
        service.sql(&statement).await;
    }
}
