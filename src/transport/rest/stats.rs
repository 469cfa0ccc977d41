//! Route: impressions and clicks of one campaign over time.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::answer;
use super::auth_layer::PathOrganization;
use super::params::Params;
use crate::domain::{CampaignBucket, Error, Granularity, StatsQuery};
use crate::transport::context::TransportContext;
use crate::transport::error::failure::{AnyFailure, Failure};
use crate::transport::rfc3339;

/// One campaign's counts.
#[derive(Serialize, ToSchema)]
pub(super) struct Stats {
    /// The requested campaign.
    #[schema(example = "camp_123")]
    campaign_id: String,
    /// The start of the window: `from`, rounded down to whole minutes.
    #[schema(format = DateTime, example = "2026-02-10T21:10:00Z")]
    from: String,
    /// The end of the window (exclusive): `to`, rounded up to whole minutes.
    #[schema(format = DateTime, example = "2026-02-10T21:20:00Z")]
    to: String,
    /// The length of a bucket: `minute`, `hour` or `day`.
    #[schema(example = "minute")]
    granularity: &'static str,
    /// Buckets with events, in order of time. The first and the last count only events within the
    /// window.
    series: Vec<Bucket>,
}

/// One bucket.
#[derive(Serialize, ToSchema)]
struct Bucket {
    /// The start.
    #[schema(format = DateTime, example = "2026-02-10T21:10:00Z")]
    ts: String,
    /// Events of type `impression`.
    #[schema(example = 1200)]
    impressions: u64,
    /// Events of type `click`.
    #[schema(example = 32)]
    clicks: u64,
}

impl From<&CampaignBucket> for Bucket {
    fn from(bucket: &CampaignBucket) -> Self {
        let CampaignBucket { start, impressions, clicks } = *bucket;
        Self { ts: rfc3339::write(start), impressions, clicks }
    }
}

/// Impressions and clicks of one campaign
///
/// Counted exactly. An unknown campaign has an empty series.
#[utoipa::path(
    get, path = "/stats", operation_id = "getStats", tag = "Counts", security(("token" = ["read"])),
    params(
        ("campaign_id" = String, Query, description = "The campaign."),
        ("from" = String, Query, format = DateTime, description = "The start of the window. RFC 3339, any offset."),
        ("to" = String, Query, format = DateTime, description = "The end of the window (exclusive); after `from`."),
        ("granularity" = Option<String>, Query, description = "The length of a bucket: `minute` (default), `hour` or `day`. At most 50,000 buckets."),
    ),
    responses(
        (status = 200, description = "The counts.", body = Stats, headers(
            ("X-Cache" = String, description = "`HIT` if the answer came from the cache, otherwise `MISS`."),
            ("X-Watermark" = String, description = "Everything acknowledged at or before this time is counted. RFC 3339."),
        )),
        AnyFailure,
    ),
)]
pub(super) async fn show(
    State(context): State<Arc<TransportContext>>,
    PathOrganization(org_id): PathOrganization,
    params: Params,
) -> Result<Response, Failure> {
    let question = question(params, context.app.config.buckets_max)?;
    let StatsQuery { campaign_id, window, granularity } = question.clone();
    let found = context.app.queries.campaign_stats(&org_id, question).await?;
    let stats = Stats {
        campaign_id,
        from: rfc3339::write(window.from()),
        to: rfc3339::write(window.to()),
        granularity: granularity.as_str(),
        series: found.value.iter().map(Bucket::from).collect(),
    };
    Ok(answer(stats, found.watermark, found.cached))
}

pub(super) fn question(mut params: Params, buckets_max: u32) -> Result<StatsQuery, Error> {
    let campaign_id = params.filter("campaign_id");
    let window = params.window();
    let granularity = match params.text("granularity") {
        None => Some(Granularity::Minute),
        Some(text) => Granularity::parse(&text),
    };
    if granularity.is_none() {
        params.fault("granularity", "must be 'minute', 'hour' or 'day'");
    }
    let question = match window.zip(granularity) {
        Some((window, granularity)) => params.keep(StatsQuery::new(campaign_id, window, granularity, buckets_max)),
        None => {
            if campaign_id.is_empty() {
                params.fault("campaign_id", "is required");
            }
            None
        }
    };
    params.done(question)
}
