//! How soon an event counts, from its acknowledgement to the first answer that includes it.

use std::time::{Duration, Instant, SystemTime};

use tonic::transport::Channel;

use crate::events::Generator;
use crate::service::BenchService;
use tallyhouse::transport::proto::ingest_service_client::IngestServiceClient;
use tallyhouse::transport::proto::query_service_client::QueryServiceClient;
use tallyhouse::transport::proto::{GetCampaignStatsRequest, Granularity, IngestBatchRequest, Window};

const MINUTE_SECONDS: i64 = 60;
const HOUR_SECONDS: i64 = 60 * MINUTE_SECONDS;
/// Pause between two looks whether an event counts.
const LOOK_PAUSE: Duration = Duration::from_millis(5);
/// Longest wait for an event to count.
const LOOK_MAX: Duration = Duration::from_secs(120);

/// Sends single events, each of a campaign of its own, and asks until they are counted.
pub(crate) struct FreshnessProbe {
    ingest: IngestServiceClient<Channel>,
    query: QueryServiceClient<Channel>,
    events: Generator,
    campaigns: String,
    sent: u64,
}

impl FreshnessProbe {
    /// With campaigns whose names begin like this.
    pub(crate) async fn new(service: &BenchService, campaigns: &str) -> anyhow::Result<Self> {
        Ok(Self {
            ingest: IngestServiceClient::new(service.channel().await?),
            query: QueryServiceClient::new(service.channel().await?),
            events: Generator::new(u64::MAX),
            campaigns: campaigns.to_owned(),
            sent: 0,
        })
    }

    /// Sends one event, and returns how long it takes until it counts.
    ///
    /// # Errors
    /// When it does not count within two minutes.
    pub(crate) async fn time(&mut self) -> anyhow::Result<Duration> {
        let mut event = self.events.event(SystemTime::now(), Duration::ZERO);
        "impression".clone_into(&mut event.r#type);
        event.campaign_id = format!("{}_{}", self.campaigns, self.sent);
        self.sent += 1;
        let end = minute_end();
        let request = GetCampaignStatsRequest {
            campaign_id: event.campaign_id.clone(),
            window: proto_window((end - HOUR_SECONDS, end)),
            granularity: Granularity::Hour.into(),
        };
        self.ingest
            .ingest_batch(IngestBatchRequest { events: vec![event], durability: 0, ..Default::default() })
            .await?;
        let acknowledged = Instant::now();
        while self.query.get_campaign_stats(request.clone()).await?.into_inner().series.is_empty() {
            anyhow::ensure!(acknowledged.elapsed() < LOOK_MAX, "an acknowledged event does not count");
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        Ok(acknowledged.elapsed())
    }
}

/// The end of this minute, in seconds since 1970.
pub(crate) fn minute_end() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    (i64::try_from(now).unwrap_or_default() / MINUTE_SECONDS + 1) * MINUTE_SECONDS
}

/// A window of these seconds since 1970, as the protocol has it.
pub(crate) const fn proto_window((from, to): (i64, i64)) -> Option<Window> {
    Some(Window {
        from: Some(prost_types::Timestamp { seconds: from, nanos: 0 }),
        to: Some(prost_types::Timestamp { seconds: to, nanos: 0 }),
    })
}
