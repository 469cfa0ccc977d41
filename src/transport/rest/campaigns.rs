//! Route: the most active campaigns.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::answer;
use super::auth_layer::PathOrganization;
use super::params::Params;
use crate::domain::CampaignCount;
use crate::transport::context::TransportContext;
use crate::transport::error::failure::{AnyFailure, Failure};
use crate::transport::rfc3339;

/// The most active campaigns.
#[derive(Serialize, ToSchema)]
pub(super) struct TopCampaigns {
    /// The start of the window, in whole minutes.
    #[schema(format = DateTime, example = "2026-02-09T21:11:00Z")]
    from: String,
    /// The end of the window (exclusive), in whole minutes.
    #[schema(format = DateTime, example = "2026-02-10T21:11:00Z")]
    to: String,
    /// Most events first; equal counts by `campaign_id`.
    campaigns: Vec<TopCampaign>,
}

/// One campaign's count.
#[derive(Serialize, ToSchema)]
struct TopCampaign {
    /// The campaign.
    #[schema(example = "camp_123")]
    campaign_id: String,
    /// Events of every type.
    #[schema(example = 1234)]
    events: u64,
    /// Events of type `impression`.
    #[schema(example = 1200)]
    impressions: u64,
    /// Events of type `click`.
    #[schema(example = 34)]
    clicks: u64,
}

impl From<&CampaignCount> for TopCampaign {
    fn from(count: &CampaignCount) -> Self {
        let CampaignCount { campaign_id, events, impressions, clicks } = count.clone();
        Self { campaign_id, events, impressions, clicks }
    }
}

/// The campaigns with the most events
#[utoipa::path(
    get, path = "/campaigns/top", operation_id = "getTopCampaigns", tag = "Counts", security(("token" = ["read"])),
    params(
        ("from" = Option<String>, Query, format = DateTime, description = "The start of the window. RFC 3339, any offset. Together with `to`."),
        ("to" = Option<String>, Query, format = DateTime, description = "The end of the window (exclusive); after `from`."),
        ("window" = Option<String>, Query, description = "Alternatively, a duration up to now, such as `90m`, `24h` (default) or `7d`."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Largest number of entries; default 10."),
    ),
    responses(
        (status = 200, description = "The campaigns.", body = TopCampaigns, headers(
            ("X-Cache" = String, description = "`HIT` if the answer came from the cache, otherwise `MISS`."),
            ("X-Watermark" = String, description = "Everything acknowledged at or before this time is counted. RFC 3339."),
        )),
        AnyFailure,
    ),
)]
pub(super) async fn top(
    State(context): State<Arc<TransportContext>>,
    PathOrganization(org_id): PathOrganization,
    params: Params,
) -> Result<Response, Failure> {
    let (window, limit) = params.ranking(context.app.clock.now())?;
    let found = context.app.queries.top_campaigns(&org_id, window, limit).await?;
    let campaigns = found.value.iter().map(TopCampaign::from).collect();
    let top = TopCampaigns { from: rfc3339::write(window.from()), to: rfc3339::write(window.to()), campaigns };
    Ok(answer(top, found.watermark, found.cached))
}
