//! What the operator's commands (`backup`, `restore`, `erase`, `doctor`) share:
//! the ClickHouse of a configuration, without a service in between.

use anyhow::Context as _;

use crate::clickhouse::client::Endpoint;
use crate::clickhouse::engine::{Engine, last_endpoint};
use crate::clickhouse::ping::Pinger;
use crate::config::Config;
use crate::data_dir::DataDir;

/// A ClickHouse that can be asked: a server, the embedded one of a running service, or an embedded one that was started
/// for this command.
pub(super) struct Database {
    pub(super) endpoint: Endpoint,
    started: Option<(Engine, DataDir)>,
}

impl Database {
    /// The one that the configuration names.
    pub(super) async fn open(config: &Config) -> anyhow::Result<Self> {
        if !config.clickhouse_url.is_empty() {
            return Ok(Self { endpoint: Endpoint::configured(config), started: None });
        }
        if let Some(endpoint) = running(config).await? {
            return Ok(Self { endpoint, started: None });
        }
        let claimed = DataDir::claim(&config.data_dir)?;
        Self::start(config, claimed).await
    }

    /// Starts the embedded one in a directory that is claimed.
    pub(super) async fn start(config: &Config, claimed: DataDir) -> anyhow::Result<Self> {
        let engine = Engine::start(config).await?;
        let endpoint = Endpoint::of_engine(engine.endpoint(), config);
        Ok(Self { endpoint, started: Some((engine, claimed)) })
    }

    /// Whether it is the embedded one.
    pub(super) const fn is_embedded(config: &Config) -> bool {
        config.clickhouse_url.is_empty()
    }

    /// Ends it if it was started here.
    pub(super) async fn close(self) {
        if let Some((engine, _claimed)) = self.started {
            engine.stop().await;
        }
    }
}

/// The embedded ClickHouse of a service that runs with this data directory.
pub(super) async fn running(config: &Config) -> anyhow::Result<Option<Endpoint>> {
    let last = last_endpoint(&config.data_dir)
        .with_context(|| format!("cannot read the embedded ClickHouse's files in {}", config.data_dir.display()))?;
    let Some(engine) = last else { return Ok(None) };
    let answers = Pinger::new(&engine.url)?.answers().await;
    Ok(answers.then(|| Endpoint::of_engine(&engine, config)))
}
