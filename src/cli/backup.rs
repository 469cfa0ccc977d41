//! `tallyhouse backup` and `tallyhouse restore`.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use tallyhouse_catalogue::store::SqliteStore;
use uuid::Uuid;

use super::operator::Database;
use super::service::ServiceArgs;
use super::sparkline::grouped;
use crate::backup::{self, CATALOGUE_FILE, Manifest};
use crate::clickhouse::backup as tables;
use crate::clickhouse::backup::BackupDestination;
use crate::clickhouse::engine::backups_dir;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::private_files;

/// The directory of ClickHouse's files in a backup, where the embedded one made them.
const CLICKHOUSE_DIR: &str = "clickhouse";

/// Where to write.
#[derive(clap::Args)]
pub struct BackupArgs {
    /// A directory for the backup, which must not exist yet.
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
    /// Where a ClickHouse server writes its part: what follows TO in BACKUP, with {part} for the names of two parts, such
    /// as "Disk('backups', '2026-11-27/{part}')". Required with clickhouse_url.
    #[arg(long, value_name = "EXPRESSION")]
    clickhouse_to: Option<String>,
    #[command(flatten)]
    service: ServiceArgs,
}

/// What to read.
#[derive(clap::Args)]
pub struct RestoreArgs {
    /// The directory of the backup.
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
    /// Where a ClickHouse server finds its part, if not where it wrote it.
    #[arg(long, value_name = "EXPRESSION")]
    clickhouse_from: Option<String>,
    #[command(flatten)]
    service: ServiceArgs,
}

impl BackupArgs {
    /// Writes it.
    ///
    /// # Errors
    /// When something cannot be copied; the directory then has no `backup.json`, and can be deleted.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let config = self.service.config()?;
        let directory = &self.directory;
        ensure!(!directory.exists(), "{} exists: name a new directory", directory.display());
        let destination = self.clickhouse_to.as_deref().map(BackupDestination::parse).transpose()?;
        let is_embedded = Database::is_embedded(&config);
        ensure!(
            is_embedded || destination.is_some(),
            "say where the ClickHouse server writes its part: --clickhouse-to"
        );
        ensure!(
            !is_embedded || destination.is_none(),
            "the embedded ClickHouse writes into the directory: omit --clickhouse-to"
        );
        private_files::create_dir(directory).with_context(|| format!("cannot create {}", directory.display()))?;

        let database = Database::open(&config).await?;
        let began_at_micros = now_micros();
        // Before the tables: what leaves the log from now on is in them.
        backup::copy_data_dir(&config.data_dir, directory).context("cannot copy the log")?;
        backup::deliveries::copy(&config.data_dir, directory).await.context("cannot copy the store of deliveries")?;
        copy_catalogue(&config, directory).await?;
        match &destination {
            Some(destination) => tables::back_up(&database.endpoint, destination).await?,
            None => back_up_embedded(&config, &database, directory).await?,
        }
        let events = tables::count_events(&database.endpoint).await?;
        database.close().await;

        let clickhouse = destination.map(|destination| destination.to_string());
        let manifest = Manifest::of(directory, began_at_micros, &config.clickhouse_database, clickhouse, events)?;
        manifest.write(directory)?;
        super::print(&format!(
            "backed up {} events in ClickHouse, and the log, to {} ({} bytes here)\n",
            grouped(events),
            directory.display(),
            grouped(manifest.bytes())
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl RestoreArgs {
    /// Restores it.
    ///
    /// # Errors
    /// When the backup is not whole, or there is something already where it would go.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let config = self.service.config()?;
        let manifest = Manifest::read_checked(&self.directory)?;
        ensure!(
            manifest.database == config.clickhouse_database,
            "the backup is of the database {}: set clickhouse_database to it",
            manifest.database
        );
        ensure!(
            backup::is_unused(&config.data_dir)?,
            "the data directory {} (data_dir) is in use: a backup is restored into a new one",
            config.data_dir.display()
        );
        let claimed = DataDir::claim(&config.data_dir)?;
        let destination = source(self.clickhouse_from.as_deref(), &manifest)?;
        ensure!(
            Database::is_embedded(&config) == destination.is_none(),
            "the backup was made with {}: restore it with the same",
            if destination.is_some() { "a ClickHouse server (clickhouse_url)" } else { "the embedded ClickHouse" }
        );
        let segments = backup::restore_data_dir(&self.directory, &config.data_dir).context("cannot restore the log")?;
        let database = match &destination {
            Some(_) => Database::open(&config).await?,
            None => Database::start(&config, claimed).await?,
        };
        if tables::has_events(&database.endpoint).await? {
            database.close().await;
            bail!("the database {} of ClickHouse has tables already: restore into another server", manifest.database);
        }
        match &destination {
            Some(destination) => tables::restore(&database.endpoint, destination).await?,
            None => restore_embedded(&config, &database, &self.directory).await?,
        }
        tables::note_uncertain_hours(&database.endpoint, manifest.began_at_micros).await?;
        let events = tables::count_events(&database.endpoint).await?;
        database.close().await;
        super::print(&format!(
            "restored {} events in ClickHouse and {segments} segments of the log into {}\n\
             Start the service. It inserts what the segments have and ClickHouse lacks, and audits the last hours of the \
             backup; `tallyhouse audit` shows the result.\n",
            grouped(events),
            config.data_dir.display()
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Where a server finds its part; none where it is among the files.
fn source(named: Option<&str>, manifest: &Manifest) -> anyhow::Result<Option<BackupDestination>> {
    let text = named.or(manifest.clickhouse.as_deref());
    Ok(text.map(BackupDestination::parse).transpose()?)
}

/// Copies the catalogue's SQLite file, if the service has one.
async fn copy_catalogue(config: &Config, directory: &Path) -> anyhow::Result<()> {
    let file = config.data_dir.join(CATALOGUE_FILE);
    if file.try_exists()? {
        let copied = SqliteStore::copy_file(&file, &directory.join(CATALOGUE_FILE)).await;
        copied.context("cannot copy the ticketing catalogue")?;
    }
    Ok(())
}

async fn back_up_embedded(config: &Config, database: &Database, directory: &Path) -> anyhow::Result<()> {
    let name = Uuid::now_v7().to_string();
    let made = backups_dir(&config.data_dir).join(&name);
    tables::back_up(&database.endpoint, &BackupDestination::files(&name)).await?;
    let moved = copy_tree(&made, &directory.join(CLICKHOUSE_DIR));
    std::fs::remove_dir_all(&made).context("cannot delete ClickHouse's files of the backup")?;
    moved.context("cannot copy ClickHouse's files of the backup")
}

async fn restore_embedded(config: &Config, database: &Database, directory: &Path) -> anyhow::Result<()> {
    let name = Uuid::now_v7().to_string();
    let there = backups_dir(&config.data_dir).join(&name);
    copy_tree(&directory.join(CLICKHOUSE_DIR), &there).context("cannot copy ClickHouse's files of the backup")?;
    let restored = tables::restore(&database.endpoint, &BackupDestination::files(&name)).await;
    std::fs::remove_dir_all(&there).context("cannot delete ClickHouse's files of the backup")?;
    Ok(restored?)
}

/// Copies a directory, for the service's user only.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    private_files::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
            std::fs::set_permissions(&target, Permissions::from_mode(0o600))?;
        }
    }
    Ok(())
}

fn now_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
