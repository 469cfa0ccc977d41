//! Queries, and every other request that is not a batch of events.

use prost::Message;

use crate::config::Config;
use crate::domain::{Error, OrgId};
use crate::transport::error::status;
use crate::transport::fuzzing::{NOW, cursors};
use crate::transport::grpc::outcome::Wanted;
use crate::transport::grpc::{convert, metrics, query};
use crate::transport::proto::codec;
use crate::transport::proto::{
    GetCampaignStatsRequest, GetDailyActiveUsersRequest, GetEventRequest, GetSummaryRequest, GetTopCampaignsRequest,
    GetTopUsersRequest, ListEventsRequest, MetricValue, PutMetricsRequest, WatchRequest, Window,
};

/// A request is read as a question within its bounds, or refused by field. The
/// first byte says which request the rest is.
pub(crate) fn run(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let org = OrgId::default_org();
    match kind % 9 {
        0 => with(bytes, |request: GetCampaignStatsRequest| {
            let question = check(query::stats_question(request, Config::default().buckets_max));
            let buckets = question.map(|question| question.window.buckets(question.granularity.millis()));
            assert!(
                buckets.is_none_or(|buckets| (1..=i64::from(Config::default().buckets_max) + 1).contains(&buckets))
            );
        }),
        1 => with(bytes, |request: GetTopUsersRequest| ranking(request.window.as_ref(), request.limit)),
        2 => with(bytes, |request: GetTopCampaignsRequest| ranking(request.window.as_ref(), request.limit)),
        3 => with(bytes, |request: GetDailyActiveUsersRequest| {
            check(query::days(request.window.as_ref()));
        }),
        4 => with(bytes, |request: ListEventsRequest| {
            check(query::events_question(&cursors(), &org, request));
        }),
        5 => with(bytes, |_: GetEventRequest| {}),
        6 => with(bytes, |request: GetSummaryRequest| {
            if let Some(question) = check(metrics::question(&request)) {
                assert!((1..=20).contains(&question.metrics.len()));
            }
        }),
        7 => with(bytes, |request: PutMetricsRequest| {
            if let Some(values) = check(metrics::values(&request)) {
                assert!(values.len() == request.metrics.len() && values.iter().all(|value| value.value.is_finite()));
            }
        }),
        _ => with(bytes, |request: WatchRequest| {
            check(Wanted::new(org, request));
        }),
    }
}

fn with<M: Message + Default + 'static>(bytes: &[u8], read: impl FnOnce(M)) {
    let Ok(message) = codec::read::<M>(bytes) else { return };
    // As bytes: a value that is no number does not equal itself.
    let written = message.encode_to_vec();
    assert_eq!(codec::read::<M>(&written).ok().map(|again| again.encode_to_vec()), Some(written));
    read(message);
}

fn ranking(window: Option<&Window>, limit: u32) {
    if let Some((window, limit)) = check(query::ranking(NOW, window, limit)) {
        assert!(window.from() < window.to() && (1..=1_000).contains(&limit.get()));
    }
}

/// A refusal names the fields at fault, and is the caller's fault.
fn check<T>(question: Result<T, Error>) -> Option<T> {
    question
        .map_err(|error| {
            assert!(!error.fields.is_empty(), "{error:?}");
            assert_eq!(status::of(error).code(), tonic::Code::InvalidArgument);
        })
        .ok()
}

/// One of each.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let window = Some(Window { from: Some(convert::time(NOW.plus_millis(-3_600_000))), to: Some(convert::time(NOW)) });
    let far = prost_types::Timestamp { seconds: 253_402_300_799, nanos: 999_999_999 };
    let long =
        Some(Window { from: Some(prost_types::Timestamp { seconds: -62_167_219_200, nanos: 0 }), to: Some(far) });
    let campaign_id = "camp_1".to_owned();
    let stats = GetCampaignStatsRequest { campaign_id: campaign_id.clone(), window, granularity: 2 };
    let value = MetricValue { date: "2026-02-10".to_owned(), name: "revenue".to_owned(), value: -1.5 };
    let no_number = MetricValue { value: f64::NAN, ..value.clone() };
    let list = ListEventsRequest {
        window,
        campaign_id,
        user_id: "u".to_owned(),
        types: vec!["click".to_owned(); 21],
        page_size: 501,
        page_token: "AgAA".to_owned(),
    };
    let requests = [
        stats.encode_to_vec(),
        GetTopUsersRequest { window, limit: 10 }.encode_to_vec(),
        GetTopCampaignsRequest { window: long, limit: 0 }.encode_to_vec(),
        GetDailyActiveUsersRequest { window: long }.encode_to_vec(),
        list.encode_to_vec(),
        GetEventRequest { event_id: "e".to_owned() }.encode_to_vec(),
        GetSummaryRequest { window, metrics: vec!["ctr".to_owned(), "events:x".to_owned()] }.encode_to_vec(),
        PutMetricsRequest { metrics: vec![value.clone(), value, no_number] }.encode_to_vec(),
        WatchRequest::default().encode_to_vec(),
    ];
    (0_u8..).zip(requests).map(|(kind, request)| [vec![kind], request].concat()).collect()
}
