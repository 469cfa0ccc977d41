//! `tallyhouse erase`: deletes one user's data.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use super::operator::Database;
use super::service::ServiceArgs;
use super::sparkline::grouped;
use super::{EXIT_NEGATIVE, print};
use crate::backup::{deliveries, unstored_segments};
use crate::clickhouse::erasure::{erase_user, find_user};
use crate::config::Config;
use crate::domain::OrgId;

/// Longest it is waited for the log to reach ClickHouse.
const LOG_WAIT_MAX: Duration = Duration::from_secs(60);
/// Pause between two looks at the log.
const LOG_PAUSE: Duration = Duration::from_millis(100);

/// Whose data.
#[derive(clap::Args)]
pub struct EraseArgs {
    /// The user's organization.
    #[arg(long, value_name = "ID")]
    org: String,
    /// The user, as its events name it.
    #[arg(value_name = "USER")]
    user_id: String,
    /// Delete it. Without, it is only shown what there is.
    #[arg(long)]
    confirm: bool,
    #[command(flatten)]
    service: ServiceArgs,
}

impl EraseArgs {
    /// Shows what there is, or deletes it.
    ///
    /// # Errors
    /// When ClickHouse does not answer, or has not taken what the log may hold of the user.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let org_id = OrgId::parse(&self.org).with_context(|| OrgId::EXPECTED)?;
        ensure!(!self.user_id.is_empty(), "name a user: events without one are nobody's");
        let config = self.service.config()?;
        let database = Database::open(&config).await?;
        if self.confirm {
            wait_for_log(&config).await?;
        }
        let found = find_user(&database.endpoint, &org_id, &self.user_id).await?;
        if !self.confirm {
            database.close().await;
            print(&format!(
                "{} events would lose their user and properties, and {} rows of counts by user, of the directory and of \
                 repairs would be deleted, and the user's events that wait in subscriptions or are dead letters. Nothing \
                 was changed: add --confirm.\n",
                grouped(found.events),
                grouped(found.rows)
            ))?;
            return Ok(ExitCode::SUCCESS);
        }
        let undelivered = deliveries::erase_user(&config.data_dir, &org_id, &self.user_id).await;
        let undelivered = undelivered.context("cannot delete the user's events from deliveries")?;
        erase_user(&database.endpoint, &org_id, &self.user_id).await?;
        let left = find_user(&database.endpoint, &org_id, &self.user_id).await?;
        database.close().await;
        if !left.is_empty() {
            print("The user has new events: stop whoever sends them, and run this again.\n")?;
            return Ok(ExitCode::from(EXIT_NEGATIVE));
        }
        print(&format!(
            "{} events have no user and no properties any more; {} rows were deleted, and {} events that waited in \
             subscriptions or were dead letters. Cached answers follow within cache_closed_ms_max. Backups from before still \
             hold the data.\n",
            grouped(found.events),
            grouped(found.rows),
            grouped(undelivered)
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Waits until ClickHouse has every segment that the log holds now.
async fn wait_for_log(config: &Config) -> anyhow::Result<()> {
    let first = unstored_segments(&config.data_dir).context("cannot read the log")?;
    ensure!(
        first.parked.is_empty(),
        "ClickHouse has refused segments, which may hold events of the user: mend that first (`tallyhouse segments`)"
    );
    let deadline = tokio::time::Instant::now() + LOG_WAIT_MAX;
    loop {
        let now = unstored_segments(&config.data_dir).context("cannot read the log")?;
        if first.waiting.is_disjoint(&now.waiting) && first.waiting.is_disjoint(&now.parked) {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            bail!("the log has not reached ClickHouse within {LOG_WAIT_MAX:?}: see /readyz, and run this again");
        }
        tokio::time::sleep(LOG_PAUSE).await;
    }
}
