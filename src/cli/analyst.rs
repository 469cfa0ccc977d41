//! `tallyhouse analyst`: prints SQL credentials.

use std::process::ExitCode;

use anyhow::{Context as _, ensure};

use super::service::ServiceArgs;
use crate::clickhouse::analysts::{AnalystKey, statements};
use crate::config::{Config, Secret};
use crate::domain::OrgId;
use crate::sql_gateway::{Login, login};

/// Prints SQL credentials.
#[derive(clap::Args)]
pub struct AnalystArgs {
    /// The organization. Default: all organizations.
    #[arg(value_name = "ORG")]
    org: Option<String>,
    /// Print the statements that create the analyst on a ClickHouse server.
    #[arg(long, requires = "org")]
    sql: bool,
    #[command(flatten)]
    service: ServiceArgs,
}

impl AnalystArgs {
    /// Prints the credentials, or the statements.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let org_id = self.org.as_deref().map(|org| OrgId::parse(org).with_context(|| OrgId::EXPECTED));
        let org_id = org_id.transpose()?;
        let config = self.service.config()?;
        match org_id.as_ref().filter(|_| self.sql) {
            Some(org_id) => super::print(&statements(&config, org_id, &AnalystKey::open(&config)?))?,
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
            "{org} has no analyst: add it to analyst_orgs and restart the service"
        );
    }
    let Login { user, password, database } = login(config, &AnalystKey::open(config)?, org_id);
    let password = password.as_ref().map_or("(none)", Secret::expose);
    Ok(format!("user      {user}\npassword  {password}\ndatabase  {database}\n"))
}
