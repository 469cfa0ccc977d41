//! Converts between the protocol's types of deliveries and those of the application.

use tallyhouse_delivery::domain::{
    DeadLetter, Event, EventFilter, EventState, EventStatus, FinalOutcome, OldestEvent, Order, UserStatus,
};
use tallyhouse_delivery::handler::PulledDelivery;

use crate::deliveries::subscriptions::{HandlerSpec, Start, Subscription, SubscriptionDraft, SubscriptionReport};
use crate::domain::{Error, Timestamp};
use crate::transport::grpc::convert;
use crate::transport::proto;
use crate::transport::proto::subscription_handler::Handler;
use crate::transport::proto::subscription_start::Start as ProtoStart;

/// Where a subscription begins.
///
/// # Errors
/// When its time is none.
pub(super) fn start(start: Option<proto::SubscriptionStart>) -> Result<Start, Error> {
    match start.and_then(|start| start.start) {
        None | Some(ProtoStart::Earliest(false)) => Ok(Start::Now),
        Some(ProtoStart::Earliest(true)) => Ok(Start::Earliest),
        Some(ProtoStart::Time(time)) => {
            let mut faults = Vec::new();
            let time = convert::optional_time("start.time", Some(&time), &mut faults);
            time.map(|time| Start::Time(time.millis())).ok_or_else(|| Error::invalid(faults))
        }
    }
}

/// What a subscription is to be.
///
/// # Errors
/// When an enum has a value that this version does not know.
pub(super) fn draft(
    handler: Option<proto::SubscriptionHandler>,
    settings: Option<proto::SubscriptionSettings>,
) -> Result<SubscriptionDraft, Error> {
    let settings = settings.unwrap_or_default();
    let order = match proto::DeliveryOrder::try_from(settings.order) {
        Ok(proto::DeliveryOrder::Unspecified) => None,
        Ok(proto::DeliveryOrder::PerUser) => Some(Order::PerUser),
        Ok(proto::DeliveryOrder::Arrival) => Some(Order::Arrival),
        Err(_) => return Err(convert::unknown("order")),
    };
    Ok(SubscriptionDraft {
        handler: handler.and_then(|handler| handler.handler).map(|handler| match handler {
            Handler::Pull(proto::PullHandler {}) => HandlerSpec::Pull,
            Handler::Trial(proto::TrialHandler {}) => HandlerSpec::Trial,
            Handler::Webhook(proto::WebhookHandler { url, secrets }) => HandlerSpec::Webhook { url, secrets },
        }),
        filter: settings.filter.map(|proto::DeliveryFilter { types, campaign_ids, sources }| EventFilter {
            types,
            campaign_ids,
            sources,
        }),
        order,
        attempts_max: settings.attempts_max,
        backoff_ms_min: settings.backoff_ms_min,
        backoff_ms_max: settings.backoff_ms_max,
        timeout_ms: settings.timeout_ms,
        skip_gaps_after_ms: settings.skip_gaps_after_ms,
        concurrency: settings.concurrency,
        is_paused: None,
    })
}

/// A subscription, without its secrets.
pub(super) fn subscription(subscription: Subscription) -> proto::Subscription {
    let skip_gaps_after_ms = subscription.skip_gaps_after_ms();
    let Subscription { name, start, handler, settings, created_at } = subscription;
    let EventFilter { types, campaign_ids, sources } = settings.filter;
    let handler = match handler {
        HandlerSpec::Pull => Handler::Pull(proto::PullHandler {}),
        HandlerSpec::Trial => Handler::Trial(proto::TrialHandler {}),
        HandlerSpec::Webhook { url, .. } => Handler::Webhook(proto::WebhookHandler { url, secrets: Vec::new() }),
    };
    let start = match start {
        Start::Now => None,
        Start::Earliest => Some(ProtoStart::Earliest(true)),
        Start::Time(millis) => Some(ProtoStart::Time(convert::time(Timestamp::from_millis(millis)))),
    };
    proto::Subscription {
        name,
        filter: Some(proto::DeliveryFilter { types, campaign_ids, sources }),
        start: start.map(|start| proto::SubscriptionStart { start: Some(start) }),
        handler: Some(proto::SubscriptionHandler { handler: Some(handler) }),
        order: match settings.order {
            Order::PerUser => proto::DeliveryOrder::PerUser,
            Order::Arrival => proto::DeliveryOrder::Arrival,
        }
        .into(),
        attempts_max: settings.attempts_max,
        backoff_ms_min: settings.backoff.ms_min,
        backoff_ms_max: settings.backoff.ms_max,
        timeout_ms: settings.timeout_ms,
        skip_gaps_after_ms,
        concurrency: u32::try_from(settings.concurrency).unwrap_or(u32::MAX),
        is_paused: settings.is_paused,
        created_at: Some(convert::time(created_at)),
    }
}

/// The state of a subscription.
pub(super) fn report(report: SubscriptionReport) -> proto::GetSubscriptionStatusResponse {
    let SubscriptionReport { engine, consumers } = report;
    proto::GetSubscriptionStatusResponse {
        is_paused: engine.is_paused,
        handler_error: engine.handler_error,
        waiting: engine.waiting,
        buffered: engine.buffered,
        in_flight: engine.in_flight,
        retrying: engine.retrying,
        users: engine.users,
        lag: Some(prost_types::Duration {
            seconds: i64::try_from(engine.oldest_ms / 1_000).unwrap_or(i64::MAX),
            nanos: i32::try_from(engine.oldest_ms % 1_000 * 1_000_000).unwrap_or_default(),
        }),
        oldest: engine.oldest.map(|OldestEvent { event_id, user_id, seq }| proto::WaitingEvent {
            event_id,
            user_id,
            seq,
        }),
        processed: engine.processed,
        failed: engine.failed,
        retries: engine.retries,
        skipped: engine.skipped,
        dead_letters: engine.dead_letters,
        is_full: engine.is_full,
        missed_segments: engine.missed,
        catching_up_to: engine.catching_up_ms.map(time),
        consumers: u32::try_from(consumers).unwrap_or(u32::MAX),
    }
}

/// Where an event is.
pub(super) fn event_status(status: EventStatus) -> proto::GetDeliveryStatusResponse {
    use proto::DeliveryState;
    let (state, waiting_for_seq, ended) = match &status.state {
        EventState::Pending => (DeliveryState::Pending, 0, None),
        EventState::Buffered { waiting_for_seq } => (DeliveryState::Buffered, *waiting_for_seq, None),
        EventState::InFlight => (DeliveryState::InFlight, 0, None),
        EventState::Settled(settlement) => match settlement.outcome {
            FinalOutcome::Processed => (DeliveryState::Processed, 0, Some(settlement.processed_at_ms)),
            FinalOutcome::Failed => (DeliveryState::Failed, 0, Some(settlement.processed_at_ms)),
        },
    };
    proto::GetDeliveryStatusResponse {
        event_id: status.event_id,
        user_id: status.user_id,
        r#type: status.event_type,
        seq: status.seq,
        state: state.into(),
        waiting_for_seq,
        attempts: status.attempts,
        error: if state == DeliveryState::Processed { String::new() } else { status.error },
        processed_at: ended.map(time),
    }
}

/// The state of a user's events.
pub(super) fn user_status(status: &UserStatus) -> proto::GetUserStatusResponse {
    proto::GetUserStatusResponse {
        next_seq: status.next_seq,
        waiting: status.waiting,
        lowest_buffered_seq: status.lowest_buffered_seq,
        gaps: status.gaps.named(),
        gaps_total: status.gaps.total(),
        is_paused: status.is_paused,
    }
}

/// A dead letter.
pub(super) fn dead_letter(letter: &DeadLetter) -> proto::DeadLetter {
    proto::DeadLetter {
        number: letter.number,
        event: Some(event(&letter.event)),
        reason: letter.reason.as_str().to_owned(),
        error: letter.error.clone(),
        attempts: letter.attempts,
        failed_at: Some(time(letter.failed_at_ms)),
        is_replay: letter.is_replay,
    }
}

/// An event that is handed to a consumer.
pub(super) fn delivery(pulled: &PulledDelivery) -> proto::Delivery {
    let delivery = &pulled.delivery;
    proto::Delivery {
        number: pulled.lease.number,
        event: Some(event(&delivery.event)),
        attempt: delivery.attempt,
        is_replay: delivery.is_replay,
        gaps: delivery.gaps.named(),
        gaps_total: delivery.gaps.total(),
        traceparent: delivery.traceparent.clone(),
    }
}

fn event(event: &Event) -> proto::Event {
    proto::Event {
        event_id: event.id.clone(),
        r#type: event.event_type.clone(),
        campaign_id: event.campaign_id.clone(),
        creative_id: event.creative_id.clone(),
        source: event.source.clone(),
        user_id: event.user_id.clone(),
        occurred_at: Some(convert::time(Timestamp::from_millis(event.occurred_at_ms))),
        seq: event.seq,
        properties: event.properties.clone(),
    }
}

fn time(millis: u64) -> prost_types::Timestamp {
    convert::time(Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX)))
}
