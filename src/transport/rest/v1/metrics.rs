//! Routes of daily metrics: counted ones, and those that an organization stores.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::domain::{
    CustomValue, DayCount, Error, FieldError, MILLIS_PER_DAY, Measurement, MetricSeries, SummaryQuery, Timestamp,
    Window, check_days, nothing_wrong,
};
use crate::transport::auth::Caller;
use crate::transport::context::TransportContext;
use crate::transport::error::failure::{AnyFailure, BodyFailure, Failure};
use crate::transport::rest::answer::answer;
use crate::transport::rest::auth_layer::PathOrganization;
use crate::transport::rest::body;
use crate::transport::rest::fields::{self, FieldErrors, FirstItems, Text};
use crate::transport::rest::params::Params;
use crate::transport::rfc3339;

/// Metrics of every day of a range.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct Summary {
    /// The organization.
    #[schema(example = "acme")]
    org_id: String,
    /// The first day.
    #[schema(format = Date, example = "2026-02-10")]
    start_date: String,
    /// The last day.
    #[schema(format = Date, example = "2026-02-16")]
    end_date: String,
    /// In the order of the question.
    metrics: Vec<SummaryMetric>,
}

/// One metric.
#[derive(Serialize, ToSchema)]
struct SummaryMetric {
    /// Its name.
    #[schema(example = "events")]
    name: String,
    /// Of the whole range. Users are those who differ over the whole range; a ratio is that of the totals, and 0 without
    /// impressions; values of your own are added up.
    #[schema(value_type = f64, example = 1234)]
    total: JsonMeasurement,
    /// Every day of the range, in order.
    daily: Vec<DailyFigure>,
}

/// One day.
#[derive(Serialize, ToSchema)]
struct DailyFigure {
    /// The day, in UTC.
    #[schema(format = Date, example = "2026-02-10")]
    date: String,
    /// 0 when nothing was counted or sent.
    #[schema(value_type = f64, example = 170)]
    value: JsonMeasurement,
}

/// A count is written without a point.
#[derive(Serialize)]
#[serde(untagged)]
enum JsonMeasurement {
    Count(u64),
    Number(f64),
}

impl From<Measurement> for JsonMeasurement {
    fn from(figure: Measurement) -> Self {
        match figure {
            Measurement::Count(count) => Self::Count(count),
            Measurement::Number(number) => Self::Number(number),
        }
    }
}

fn daily_figure(day: Timestamp, figure: Measurement) -> DailyFigure {
    DailyFigure { date: rfc3339::write_date(day), value: figure.into() }
}

impl From<MetricSeries> for SummaryMetric {
    fn from(series: MetricSeries) -> Self {
        let daily = series.daily.into_iter().map(|(day, figure)| daily_figure(day, figure)).collect();
        Self { name: series.name, total: series.total.into(), daily }
    }
}

/// The first and the last day of a window of whole days.
fn ends(window: Window) -> (String, String) {
    (rfc3339::write_date(window.from()), rfc3339::write_date(window.to().plus_millis(-1)))
}

/// Metrics of every day of a range, and of the whole of it
///
/// Days are of UTC. Built in are `events`, `active_users`, `impressions`, `clicks`, `ctr` (clicks per impression), and
/// `events:TYPE` for the events of one type. All others are those that you send values for.
#[utoipa::path(
    get, path = "/api/v1/metrics/summary", operation_id = "getMetricsSummary", tag = "Analytics",
    security(("token" = ["read"])),
    params(
        ("org_id" = Option<String>, Query, description = "The organization; must be that of the token."),
        ("start_date" = String, Query, example = "2026-02-10", description = "The first day, or any RFC 3339 time of it."),
        ("end_date" = String, Query, example = "2026-02-16", description = "The last day, or the RFC 3339 time after the last. At most 3,660 days."),
        ("metrics" = Option<Vec<String>>, Query, style = Form, explode, description = "Up to 20 names; repeatable, also as `metrics[]`, and with commas. By default the five that are built in."),
    ),
    responses(
        (status = 200, description = "The metrics.", body = Summary, headers(
            ("X-Cache" = String, description = "`HIT` if the whole answer came from the cache, otherwise `MISS`."),
            ("X-Watermark" = String, description = "Everything acknowledged at or before this time is counted. RFC 3339."),
        )),
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn summary(
    State(context): State<Arc<TransportContext>>,
    PathOrganization(org_id): PathOrganization,
    params: Params,
) -> Result<Response, Failure> {
    let question = question(params)?;
    let found = context.app.queries.summary(&org_id, &question).await?;
    let (start_date, end_date) = ends(question.window);
    let metrics = found.value.into_iter().map(SummaryMetric::from).collect();
    let summary = Summary { org_id: org_id.as_str().to_owned(), start_date, end_date, metrics };
    Ok(answer(summary, found.watermark, found.cached))
}

pub(in crate::transport::rest) fn question(mut params: Params) -> Result<SummaryQuery, Error> {
    let window = params.dates();
    let names = params.list("metrics");
    let question = window.and_then(|window| params.keep(SummaryQuery::new("end_date", window, &names)));
    params.done(question)
}

/// Daily active users.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct DailyActiveUsers {
    /// The organization.
    #[schema(example = "acme")]
    org_id: String,
    /// The first day.
    #[schema(format = Date, example = "2026-02-10")]
    start_date: String,
    /// The last day.
    #[schema(format = Date, example = "2026-02-16")]
    end_date: String,
    /// The number of distinct users with events on each day; every day of the range, in order.
    daily: Vec<DailyFigure>,
}

/// The number of distinct users with events on each day
///
/// Exact. Days are in UTC.
#[utoipa::path(
    get, path = "/api/v1/metrics/dau", operation_id = "getDailyActiveUsers", tag = "Analytics",
    security(("token" = ["read"])),
    params(
        ("org_id" = Option<String>, Query, description = "The organization; must be that of the token."),
        ("start_date" = String, Query, example = "2026-02-10", description = "The first day, or any RFC 3339 time of it."),
        ("end_date" = String, Query, example = "2026-02-16", description = "The last day, or the RFC 3339 time after the last. At most 3,660 days."),
    ),
    responses(
        (status = 200, description = "The users of each day.", body = DailyActiveUsers, headers(
            ("X-Cache" = String, description = "`HIT` if the answer came from the cache, otherwise `MISS`."),
            ("X-Watermark" = String, description = "Everything acknowledged at or before this time is counted. RFC 3339."),
        )),
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn daily_active_users(
    State(context): State<Arc<TransportContext>>,
    PathOrganization(org_id): PathOrganization,
    params: Params,
) -> Result<Response, Failure> {
    let window = days(params)?;
    let found = context.app.queries.daily_active_users(&org_id, window).await?;
    let (start_date, end_date) = ends(window);
    let daily =
        found.value.iter().map(|DayCount { day, users }| daily_figure(*day, Measurement::Count(*users))).collect();
    let users = DailyActiveUsers { org_id: org_id.as_str().to_owned(), start_date, end_date, daily };
    Ok(answer(users, found.watermark, found.cached))
}

/// Whole days.
pub(in crate::transport::rest) fn days(mut params: Params) -> Result<Window, Error> {
    let window = params.dates();
    let window = window.and_then(|window| {
        let checked = check_days("end_date", window).map_err(|error| Error::invalid(vec![error]));
        params.keep(checked.map(|()| window.outwards_to(MILLIS_PER_DAY)))
    });
    params.done(window)
}

/// A value of your own metric.
#[derive(Deserialize, ToSchema)]
pub(in crate::transport::rest) struct MetricValue<'a> {
    /// The day, from 1970-01-01 to 2105-12-31.
    #[serde(borrow, default)]
    #[schema(value_type = String, required, format = Date, example = "2026-02-10")]
    date: Text<'a>,
    /// The metric: 1 to 64 letters, digits, `_`, `-` or `.`. Names of counted metrics are not
    /// allowed.
    #[serde(borrow, default)]
    #[schema(value_type = String, required, min_length = 1, max_length = 64, example = "revenue")]
    name: Text<'a>,
    /// The value: a number from -1e300 to 1e300.
    #[serde(borrow, default)]
    #[schema(value_type = f64, required, example = 1234.5)]
    value: Option<&'a RawValue>,
    /// The organization. Optional; must be that of the token.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "acme")]
    org_id: Text<'a>,
}

/// Values of your own metrics.
#[derive(Deserialize, ToSchema)]
pub(in crate::transport::rest) struct MetricValues<'a> {
    /// All of them are stored, or none.
    #[serde(borrow, default)]
    #[schema(value_type = Vec<MetricValue>, required, min_items = 1, max_items = 1000)]
    metrics: Option<&'a RawValue>,
    /// The organization. Optional; must be that of the token.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "acme")]
    org_id: Text<'a>,
}

/// The result of storing values.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct StoredValues {
    /// The number of stored values.
    #[schema(example = 1)]
    stored: usize,
}

/// Store values of your own metrics, by day
///
/// A later value for the same day and name replaces the earlier one. After the answer, every
/// summary includes the values.
#[utoipa::path(
    post, path = "/api/v1/metrics", operation_id = "postMetrics", tag = "Analytics", security(("token" = ["ingest"])),
    request_body(content = MetricValues, description = "The values. Unknown fields are ignored."),
    responses(
        (status = 200, description = "All were stored.", body = StoredValues),
        BodyFailure,
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn put(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
    request: Request,
) -> Result<Json<StoredValues>, Failure> {
    let bytes = body::read(request, &context.app.config).await?;
    let body: MetricValues<'_> = super::read(&bytes)?;
    super::check_org_id(&caller, &body.org_id)?;
    let items = items(&body)?;
    for item in items.iter().flatten() {
        super::check_org_id(&caller, &item.org_id)?;
    }
    let values = values(items)?;
    context.app.queries.put_metrics(&caller.org_id, &values).await?;
    Ok(Json(StoredValues { stored: values.len() }))
}

/// A parsed value, or its errors.
type Item<'a> = Result<MetricValue<'a>, String>;

/// Parses each value by itself, without validation.
fn items<'a>(body: &MetricValues<'a>) -> Result<Vec<Item<'a>>, Error> {
    let items = FirstItems::<{ CustomValue::COUNT_MAX }>::read("metrics", body.metrics)?;
    let read = |item: &&'a RawValue| fields::read_object(item.get().as_bytes()).map_err(|error| error.message);
    Ok(items.iter().map(read).collect())
}

fn values(items: Vec<Item<'_>>) -> Result<Vec<CustomValue>, Error> {
    let mut errors = Vec::new();
    let read = |(index, item): (usize, Item<'_>)| value(index, item, &mut errors);
    let values: Vec<CustomValue> = items.into_iter().enumerate().filter_map(read).collect();
    nothing_wrong(errors)?;
    Ok(values)
}

fn value(index: usize, item: Item<'_>, errors: &mut Vec<FieldError>) -> Option<CustomValue> {
    let at = |field: &str| format!("metrics[{index}].{field}");
    let item = match item {
        Ok(item) => item,
        Err(message) => {
            errors.push(FieldError::new(format!("metrics[{index}]"), message));
            return None;
        }
    };
    let mut faults = FieldErrors::default();
    let date = faults.optional(&at("date"), &item.date);
    let day = rfc3339::parse_date(date);
    if day.is_none() && item.date != Text::Wrong {
        faults.add(&at("date"), "must be a date, as in 2026-02-10");
    }
    let name = faults.optional(&at("name"), &item.name);
    let number = item.value.and_then(|value| value.get().parse().ok());
    if number.is_none() {
        faults.add(&at("value"), "must be a number from -1e300 to 1e300");
    }
    errors.append(&mut faults.0);
    CustomValue::check(day, name, number, at, errors)
}
