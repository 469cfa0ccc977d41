//! `MetricsService`: daily metrics.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert;
use crate::domain::{CustomValue, Error, FieldError, Measurement, MetricSeries, SummaryQuery, nothing_wrong};
use crate::transport::context::TransportContext;
use crate::transport::error::status;
use crate::transport::proto::metrics_service_server::MetricsService;
use crate::transport::proto::{self, GetSummaryRequest, GetSummaryResponse, PutMetricsRequest, PutMetricsResponse};
use crate::transport::rfc3339;

/// Implements `MetricsService`: stores custom daily metrics (scope `ingest`) and summarizes metrics
/// by day (scope `read`).
pub(super) struct Metrics {
    context: Arc<TransportContext>,
}

impl Metrics {
    pub(super) const fn new(context: Arc<TransportContext>) -> Self {
        Self { context }
    }
}

#[tonic::async_trait]
impl MetricsService for Metrics {
    async fn get_summary(&self, request: Request<GetSummaryRequest>) -> Result<Response<GetSummaryResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let question = question(&request.into_inner()).map_err(status::of)?;
        let answer = self.context.app.queries.summary(&org_id, &question).await.map_err(status::of)?;
        Ok(Response::new(GetSummaryResponse {
            metrics: answer.value.into_iter().map(series).collect(),
            window: convert::window_answered(question.window),
            freshness: convert::freshness(answer.watermark, answer.cached),
        }))
    }

    async fn put_metrics(&self, request: Request<PutMetricsRequest>) -> Result<Response<PutMetricsResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let values = values(&request.into_inner()).map_err(status::of)?;
        self.context.app.queries.put_metrics(&org_id, &values).await.map_err(status::of)?;
        Ok(Response::new(PutMetricsResponse { stored: u32::try_from(values.len()).unwrap_or(u32::MAX) }))
    }
}

pub(super) fn question(request: &GetSummaryRequest) -> Result<SummaryQuery, Error> {
    let mut errors = Vec::new();
    let Some(window) = convert::window(request.window.as_ref(), &mut errors) else {
        return Err(Error::invalid(errors));
    };
    SummaryQuery::new("window", window, &request.metrics)
}

pub(super) fn values(request: &PutMetricsRequest) -> Result<Vec<CustomValue>, Error> {
    let (count, max) = (request.metrics.len(), CustomValue::COUNT_MAX);
    if !(1..=max).contains(&count) {
        return Err(Error::invalid_field("metrics", format!("must be 1 to {max} values; there are {count}")));
    }
    let mut errors = Vec::new();
    let read = |(index, value): (usize, &proto::MetricValue)| {
        let at = |field: &str| format!("metrics[{index}].{field}");
        let day = rfc3339::parse_date(&value.date);
        if day.is_none() {
            errors.push(FieldError::new(at("date"), "must be a date, as in 2026-02-10"));
        }
        CustomValue::check(day, &value.name, Some(value.value), at, &mut errors)
    };
    let values = request.metrics.iter().enumerate().filter_map(read).collect();
    nothing_wrong(errors)?;
    Ok(values)
}

fn series(series: MetricSeries) -> proto::MetricSeries {
    let daily = series.daily.into_iter();
    let daily = daily.map(|(day, value)| proto::MetricDay { date: rfc3339::write_date(day), value: double(value) });
    proto::MetricSeries { name: series.name, total: double(series.total), daily: daily.collect() }
}

#[allow(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
const fn double(figure: Measurement) -> f64 {
    match figure {
        Measurement::Count(count) => count as f64,
        Measurement::Number(number) => number,
    }
}
