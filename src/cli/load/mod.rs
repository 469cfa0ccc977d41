//! `tallyhouse load`: loads a directory of files into a running service.

mod files;

use std::io::Cursor;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio_util::sync::CancellationToken;

use super::connection::{Address, Connection, explain};
use super::send::ndjson::parse_time;
use super::send::report::Counts;
use super::send::{self, Files, Progress, SendOptions};
use super::service::ServiceArgs;
use super::token::development_token;
use crate::config::Config;
use crate::transport::proto::metrics_service_client::MetricsServiceClient;
use crate::transport::proto::organization_service_client::OrganizationServiceClient;
use crate::transport::proto::{
    Member, MetricValue, Organization, PutMemberRequest, PutMetricsRequest, PutOrganizationRequest, PutUserRequest,
    User,
};
use files::OrgFiles;

/// Lines in a batch of events, batches in flight, and longest wait for an unreachable service.
const BATCH_LINES: u16 = 1_000;
const BATCHES_IN_FLIGHT: u16 = 4;
const RETRY_FOR: Duration = Duration::from_secs(60);
/// Metrics in a request.
const METRICS_MAX: usize = 1_000;

/// The directory to load.
#[derive(clap::Args)]
pub struct LoadArgs {
    /// The directory.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Load only this organization, with the given token. Without it, all organizations are loaded,
    /// each with a token that is created for it, which requires the service's secret
    /// (auth_hs256_secret).
    #[arg(long, value_name = "ID")]
    org: Option<String>,
    #[command(flatten)]
    address: Address,
    #[command(flatten)]
    service: ServiceArgs,
}

/// The loaded numbers.
#[derive(Default)]
struct LoadCounts {
    organizations: usize,
    users: usize,
    members: usize,
    metrics: usize,
    events: Counts,
}

impl LoadArgs {
    /// Loads everything, and prints the numbers.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let config = self.service.config()?;
        let mut orgs = files::read(&self.dir)?;
        let mut loaded = LoadCounts::default();
        if let Some(org) = &self.org {
            let files = orgs.remove(org).with_context(|| format!("the files say nothing of {org}"))?;
            loaded.load(&self.address, files).await?;
        } else {
            for (org, files) in orgs {
                let address = self.address.with_token(token(&config, &org)?);
                loaded.load(&address, files).await.with_context(|| format!("organization {org}"))?;
            }
        }
        super::print(&loaded.render())?;
        let rejected = loaded.events.rejected > 0;
        Ok(if rejected { ExitCode::from(super::EXIT_NEGATIVE) } else { ExitCode::SUCCESS })
    }
}

fn token(config: &Config, org: &str) -> anyhow::Result<String> {
    if config.auth_hs256_secret.expose().is_empty() {
        bail!(
            "several organizations take several tokens: start the service with TALLYHOUSE_AUTH_HS256_SECRET, and set \
             it here as well; or load one with --org"
        );
    }
    development_token(config, org, "ingest read admin")
}

impl LoadCounts {
    /// Loads one organization.
    async fn load(&mut self, address: &Address, files: OrgFiles) -> anyhow::Result<()> {
        let channel = address.connect().await?;
        self.directory(OrganizationServiceClient::new(channel.clone()), &files).await?;
        self.metrics(MetricsServiceClient::new(channel), &files).await?;
        self.events(address, files.events).await
    }

    async fn directory(
        &mut self,
        mut client: OrganizationServiceClient<Connection>,
        files: &OrgFiles,
    ) -> anyhow::Result<()> {
        if let Some(row) = &files.organization {
            let organization = Organization {
                name: row.name.clone(),
                plan: row.plan.clone(),
                created_at: time(&row.created_at)?,
                ..Organization::default()
            };
            let request = PutOrganizationRequest { organization: Some(organization) };
            client.put_organization(request).await.map_err(|status| explain(&status))?;
            self.organizations += 1;
        }
        for row in &files.users {
            let user = User {
                user_id: row.user_id.clone(),
                email: row.email.clone(),
                name: row.name.clone(),
                role: row.role.clone(),
                created_at: time(&row.created_at)?,
                updated_at: time(&row.updated_at)?,
            };
            client.put_user(PutUserRequest { user: Some(user) }).await.map_err(|status| explain(&status))?;
            self.users += 1;
        }
        for row in &files.members {
            let joined_at = time(&row.joined_at)?;
            let member = Member { user_id: row.user_id.clone(), role: row.role.clone(), joined_at };
            let request = PutMemberRequest { org_id: String::new(), member: Some(member) };
            client.put_member(request).await.map_err(|status| explain(&status))?;
            self.members += 1;
        }
        Ok(())
    }

    async fn metrics(&mut self, mut client: MetricsServiceClient<Connection>, files: &OrgFiles) -> anyhow::Result<()> {
        for rows in files.metrics.chunks(METRICS_MAX) {
            let value = |row: &files::MetricRow| MetricValue {
                date: row.date.clone(),
                name: row.metric_name.clone(),
                value: row.value,
            };
            let request = PutMetricsRequest { metrics: rows.iter().map(value).collect() };
            client.put_metrics(request).await.map_err(|status| explain(&status))?;
            self.metrics += rows.len();
        }
        Ok(())
    }

    async fn events(&mut self, address: &Address, lines: Vec<u8>) -> anyhow::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let options = SendOptions::new(BATCH_LINES, BATCHES_IN_FLIGHT, true, RETRY_FOR);
        let (source, progress) = (Box::pin(Cursor::new(lines)), Progress::new(None, true));
        let (summary, sent) =
            send::send(address, source, &options, Files::default(), &progress, CancellationToken::new()).await?;
        let Counts { accepted, duplicate, conflict, rejected, undecided, unanswered } = summary.counts;
        let all = &mut self.events;
        all.accepted += accepted;
        all.duplicate += duplicate;
        all.conflict += conflict;
        all.rejected += rejected;
        all.undecided += undecided;
        all.unanswered += unanswered;
        for line in summary.first_rejected {
            eprintln!("event {:?}: {}", line.event_id, line.reasons());
        }
        sent
    }

    fn render(&self) -> String {
        let Self { organizations, users, members, metrics, events } = self;
        let Counts { accepted, duplicate, conflict, rejected, .. } = events;
        format!(
            "{organizations} organizations, {users} users, {members} members, {metrics} metric values\n\
             {} events: {accepted} accepted, {duplicate} duplicate, {conflict} conflict, {rejected} rejected\n",
            events.decided()
        )
    }
}

fn time(text: &str) -> anyhow::Result<Option<prost_types::Timestamp>> {
    parse_time(text).map(Some).with_context(|| format!("{text:?} is not an RFC 3339 time"))
}
