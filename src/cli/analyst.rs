//! `tallyhouse analyst`: as whom an analyst reads by SQL.

use std::process::ExitCode;

use anyhow::{Context as _, ensure};

use super::service::ServiceArgs;
use crate::clickhouse::engine;
use crate::config::Config;
use crate::domain::OrgId;

/// Whose analyst.
#[derive(clap::Args)]
pub struct AnalystArgs {
    /// The organisation. Without: all of them.
    #[arg(value_name = "ORG")]
    org: Option<String>,
    /// Print the statements that make the analyst on a server.
    #[arg(long, requires = "org")]
    sql: bool,
    #[command(flatten)]
    service: ServiceArgs,
}

impl AnalystArgs {
    /// Prints it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let org_id = self.org.as_deref().map(|org| OrgId::parse(org).with_context(|| OrgId::EXPECTED));
        let org_id = org_id.transpose()?;
        let config = self.service.config()?;
        match org_id.as_ref().filter(|_| self.sql) {
            Some(org_id) => super::print(&statements(&config, org_id)?)?,
            None => super::print(&user(&config, org_id.as_ref())?)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn user(config: &Config, org_id: Option<&OrgId>) -> anyhow::Result<String> {
    if let Some(org_id) = org_id {
        let org = org_id.as_str();
        ensure!(
            config.analyst_orgs.0.contains(org_id),
            "{org} has no analyst: name it in analyst_orgs, and start anew"
        );
    }
    let (user, password) =
        engine::analyst(config, org_id).context("there is no embedded ClickHouse in data_dir yet")?;
    let database = format!("{}_{}", config.clickhouse_database, if org_id.is_some() { "org" } else { "analytics" });
    let password = if org_id.is_none() && !config.has_authentication() { "(none)" } else { password.expose() };
    Ok(format!("user      {user}\npassword  {password}\ndatabase  {database}\n"))
}

/// For a server of one's own.
fn statements(config: &Config, org_id: &OrgId) -> anyhow::Result<String> {
    let (org, database) = (org_id.as_str(), &config.clickhouse_database);
    Ok(format!(
        "CREATE ROLE IF NOT EXISTS `analyst_{org}` SETTINGS log_comment = '{org}' CONST, readonly = 1 CONST;\n\
         GRANT SELECT ON {database}_org.* TO `analyst_{org}`;\n\
         -- CREATE USER … IDENTIFIED BY '…' DEFAULT ROLE `analyst_{org}`; and grant it nothing else.\n"
    ))
}
