//! A connection to Redis that reconnects by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, FromRedisValue, InfoDict, Pipeline, Script};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Longest that making a connection takes.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(1);
/// Longest that Redis may take to answer.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);
/// Shortest time between two attempts to connect.
const CONNECT_PAUSE: Duration = Duration::from_millis(200);
/// Commands that are sent at a time.
const COMMANDS_MAX: usize = 1_000;

/// Redis did not answer, or not as it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Redis is not available: {0}")]
pub struct RedisError(pub String);

impl From<::redis::RedisError> for RedisError {
    fn from(error: ::redis::RedisError) -> Self {
        Self(error.to_string())
    }
}

/// Why a URL is not that of a Redis.
#[derive(Debug, thiserror::Error)]
#[error("must be a URL such as redis://127.0.0.1:6379/0: {0}")]
pub struct RedisUrlError(String);

#[derive(Default)]
struct Link {
    connection: Option<MultiplexedConnection>,
    failed: Option<(Instant, RedisError)>,
}

/// A connection to Redis with registered scripts. Connects when it is first used, and reconnects
/// after a failure.
pub struct RedisConnection {
    client: Client,
    scripts: Vec<Script>,
    link: Mutex<Link>,
    is_away: AtomicBool,
}

impl RedisConnection {
    /// To this Redis, which is to know these scripts. Does not connect yet.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn new(url: &str, scripts: Vec<Script>) -> Result<Arc<Self>, RedisUrlError> {
        let client = Client::open(url).map_err(|error| RedisUrlError(error.to_string()))?;
        Ok(Arc::new(Self { client, scripts, link: Mutex::default(), is_away: AtomicBool::new(false) }))
    }

    /// Whether Redis did not answer when it was last asked something.
    pub fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Relaxed)
    }

    /// Sends commands and returns what each is answered. Whether they were done is not known after an error: they must
    /// be harmless when they are repeated.
    ///
    /// # Errors
    /// When Redis does not answer, or answers any of them with an error.
    pub async fn send<T: FromRedisValue>(&self, commands: Pipeline) -> Result<Vec<T>, RedisError> {
        let sent = self.try_send(&commands).await;
        match (&sent, self.is_away.swap(sent.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => tracing::error!(%error, "Redis is away"),
            (Ok(_), true) => tracing::info!("Redis is back"),
            _ => {}
        }
        sent
    }

    /// Whether Redis appends what it is told to a file (`appendonly`). Without that, a restart of it loses data.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn is_durable(&self) -> Result<bool, RedisError> {
        let mut asked = ::redis::pipe();
        asked.cmd("INFO").arg("persistence");
        let answers: Vec<InfoDict> = self.send(asked).await?;
        Ok(answers.iter().any(|info| info.get::<u8>("aof_enabled") == Some(1)))
    }

    async fn try_send<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<Vec<T>, RedisError> {
        let mut connection = self.connection().await?;
        let mut answers = Vec::with_capacity(commands.len());
        let all: Vec<_> = commands.cmd_iter().collect();
        for some in all.chunks(COMMANDS_MAX) {
            let mut pipeline = ::redis::pipe();
            for command in some {
                pipeline.add_command((*command).clone());
            }
            match pipeline.query_async::<Vec<T>>(&mut connection).await {
                Ok(some) => answers.extend(some),
                Err(error) => {
                    // Also when it has forgotten the scripts: they are loaded with the next connection.
                    self.link.lock().await.connection = None;
                    return Err(error.into());
                }
            }
        }
        Ok(answers)
    }

    async fn connection(&self) -> Result<MultiplexedConnection, RedisError> {
        let mut link = self.link.lock().await;
        if let Some(connection) = &link.connection {
            return Ok(connection.clone());
        }
        if let Some((at, error)) = &link.failed
            && at.elapsed() < CONNECT_PAUSE
        {
            return Err(error.clone());
        }
        match self.connect().await {
            Ok(connection) => {
                *link = Link { connection: Some(connection.clone()), failed: None };
                Ok(connection)
            }
            Err(error) => {
                link.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_WAIT_MAX))
            .set_response_timeout(Some(ANSWER_WAIT_MAX));
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        for script in &self.scripts {
            script.load_async(&mut connection).await?;
        }
        Ok(connection)
    }
}
