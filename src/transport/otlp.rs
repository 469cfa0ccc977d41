//! Log records of OpenTelemetry as events, for both transports of OTLP.
//!
//! Source: "OpenTelemetry Protocol Specification 1.7" and its data model for logs. A record's event name (or its
//! attribute `event.name`) becomes the type, its time the time, its attributes the properties. The id is the
//! attribute that [`crate::config::Config::otlp_id_attribute`] names, else a digest of the whole record with its
//! resource: what an exporter sends again is the same event.

use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message as _;
use serde_json::{Map, Number, Value};

use super::foreign_event::{ForeignEvent, id_of, made_id};
use crate::domain::{FieldError, Timestamp, Verdict};

/// Deepest nesting of values that is read.
const DEPTH_MAX: usize = 32;
/// Most bytes of the reasons in an answer.
const REASONS_BYTES_MAX: usize = 1_000;

/// The events that a request's records are, in order.
pub(super) fn events(request: &ExportLogsServiceRequest, id_attribute: &str, now: Timestamp) -> Vec<ForeignEvent> {
    let of_scope = |resource: &ResourceLogs, scope: &ScopeLogs| -> Vec<ForeignEvent> {
        let records = scope.log_records.iter();
        records.map(|record| event(resource, scope, record, id_attribute, now)).collect()
    };
    let resources = request.resource_logs.iter();
    resources.flat_map(|resource| resource.scope_logs.iter().flat_map(move |scope| of_scope(resource, scope))).collect()
}

/// What an exporter is told: how many records were rejected, and why. They must not be sent again.
pub(super) fn answer(verdicts: &[Verdict]) -> ExportLogsServiceResponse {
    let rejected = verdicts.iter().enumerate().filter_map(|(index, verdict)| match verdict {
        Verdict::Rejected(rejection) => Some((index, rejection)),
        _ => None,
    });
    let (mut count, mut reasons) = (0, String::new());
    for (index, rejection) in rejected {
        count += 1;
        if let Some(FieldError { field, message }) = rejection.errors.first()
            && reasons.len() < REASONS_BYTES_MAX
        {
            reasons.push_str(&format!("record {index}: {field} {message}; "));
        }
    }
    let partial_success =
        ExportLogsPartialSuccess { rejected_log_records: count, error_message: reasons.trim_end_matches("; ").into() };
    ExportLogsServiceResponse { partial_success: (count > 0).then_some(partial_success) }
}

fn event(
    resource: &ResourceLogs,
    scope: &ScopeLogs,
    record: &LogRecord,
    id_attribute: &str,
    now: Timestamp,
) -> ForeignEvent {
    let mut event = ForeignEvent::default();
    let mut attributes = object(&record.attributes);
    let mut take = |name: &str| match attributes.remove(name) {
        Some(Value::String(text)) => text,
        Some(Value::Number(number)) => number.to_string(),
        Some(other) => {
            attributes.insert(name.to_owned(), other);
            String::new()
        }
        None => String::new(),
    };
    let (event_id, named) = (take(id_attribute), take("event.name"));
    let [user_id, end_user] = ["user.id", "enduser.id"].map(&mut take);
    [event.campaign_id, event.creative_id] = ["campaign.id", "creative.id"].map(&mut take);
    event.user_id = if user_id.is_empty() { end_user } else { user_id };
    event.source = service_name(resource);
    let name = if record.event_name.is_empty() { named } else { record.event_name.clone() };
    if name.is_empty() {
        event.faults.push(FieldError::new("event_name", "is required, here or as the attribute event.name"));
    }
    if let Some(body) = record.body.as_ref().and_then(|body| value(body, 0)).filter(|body| !body.is_null()) {
        attributes.entry("body").or_insert(body);
    }
    let nanos = if record.time_unix_nano == 0 { record.observed_time_unix_nano } else { record.time_unix_nano };
    event.occurred_at = Some(if nanos == 0 { now } else { millis(nanos) });
    event.event_id = if event_id.is_empty() { record_id(resource, scope, record, nanos != 0) } else { event_id };
    event.set_name(&name, &mut attributes);
    event.set_properties(attributes);
    event
}

fn millis(nanos: u64) -> Timestamp {
    Timestamp::from_millis(i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX))
}

/// The same for the same record of the same resource.
fn record_id(resource: &ResourceLogs, scope: &ScopeLogs, record: &LogRecord, has_time: bool) -> String {
    if !has_time {
        return made_id(&Value::Null, false);
    }
    // When it was observed may change on its way, when it happened may not.
    let observed = if record.time_unix_nano == 0 { record.observed_time_unix_nano } else { 0 };
    let record = LogRecord { observed_time_unix_nano: observed, ..record.clone() };
    let mut bytes = resource.resource.as_ref().map(|resource| sorted(&resource.attributes)).unwrap_or_default();
    bytes.extend(scope.scope.as_ref().map(|scope| scope.name.clone().into_bytes()).unwrap_or_default());
    bytes.push(0);
    bytes.extend(sorted(&record.attributes));
    bytes.extend(LogRecord { attributes: Vec::new(), ..record }.encode_to_vec());
    id_of(&bytes)
}

/// Attributes in an order of their own: no order is promised.
fn sorted(attributes: &[KeyValue]) -> Vec<u8> {
    let mut encoded: Vec<Vec<u8>> =
        attributes.iter().map(|attribute| attribute.encode_length_delimited_to_vec()).collect();
    encoded.sort();
    encoded.concat()
}

fn service_name(resource: &ResourceLogs) -> String {
    let attributes = resource.resource.iter().flat_map(|resource| &resource.attributes);
    let mut names = attributes.filter(|attribute| attribute.key == "service.name");
    match names.next().and_then(|attribute| attribute.value.as_ref()).and_then(|value| value.value.as_ref()) {
        Some(Any::StringValue(name)) => name.clone(),
        _ => String::new(),
    }
}

fn object(attributes: &[KeyValue]) -> Map<String, Value> {
    let read = |attribute: &KeyValue| Some((attribute.key.clone(), value(attribute.value.as_ref()?, 0)?));
    attributes.iter().filter_map(read).collect()
}

/// A value as JSON; none for what JSON cannot say, or is nested too deep.
fn value(any: &AnyValue, depth: usize) -> Option<Value> {
    if depth > DEPTH_MAX {
        return None;
    }
    Some(match any.value.as_ref()? {
        Any::StringValue(text) => Value::from(text.clone()),
        Any::BoolValue(truth) => Value::from(*truth),
        Any::IntValue(number) => Value::from(*number),
        Any::DoubleValue(number) => Value::Number(Number::from_f64(*number)?),
        Any::BytesValue(bytes) => Value::from(base64::Engine::encode(&base64::prelude::BASE64_STANDARD, bytes)),
        Any::ArrayValue(list) => list.values.iter().filter_map(|item| value(item, depth + 1)).collect(),
        Any::KvlistValue(list) => {
            let read = |pair: &KeyValue| Some((pair.key.clone(), value(pair.value.as_ref()?, depth + 1)?));
            Value::Object(list.values.iter().filter_map(read).collect())
        }
        #[allow(unreachable_patterns, reason = "later versions of the protocol have more")]
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::resource::v1::Resource;

    use super::*;
    use crate::domain::{Rejection, RejectionCode};

    const NOW: Timestamp = Timestamp::from_millis(1_770_757_800_000);

    fn attribute(key: &str, text: &str) -> KeyValue {
        let value = AnyValue { value: Some(Any::StringValue(text.to_owned())) };
        KeyValue { key: key.to_owned(), value: Some(value), ..Default::default() }
    }

    fn request(record: LogRecord) -> ExportLogsServiceRequest {
        let scope = ScopeLogs { log_records: vec![record], ..Default::default() };
        let resource = Resource { attributes: vec![attribute("service.name", "shop")], ..Default::default() };
        let resource = ResourceLogs { resource: Some(resource), scope_logs: vec![scope], ..Default::default() };
        ExportLogsServiceRequest { resource_logs: vec![resource] }
    }

    fn record(attributes: Vec<KeyValue>) -> LogRecord {
        let nanos = 1_770_757_800_000_000_000;
        LogRecord { event_name: "sold".to_owned(), time_unix_nano: nanos, attributes, ..Default::default() }
    }

    #[test]
    fn a_record_is_an_event() {
        let attributes = vec![attribute("event.id", "e1"), attribute("user.id", "ann"), attribute("colour", "red")];
        let events = events(&request(record(attributes)), "event.id", Timestamp::from_millis(0));
        let event = &events[0];
        assert!(event.faults.is_empty(), "{:?}", event.faults);
        let found = (&*event.event_id, &*event.event_type, &*event.user_id, &*event.source, event.occurred_at);
        assert_eq!(found, ("e1", "sold", "ann", "shop", Some(NOW)));
        assert!(format!("{:?}", event.properties).contains(r#"{\"colour\":\"red\"}"#));
    }

    #[test]
    fn a_record_that_is_sent_again_has_the_same_id_whatever_the_order_of_its_attributes() {
        let id = |attributes: Vec<KeyValue>, observed: u64| {
            let record = LogRecord { observed_time_unix_nano: observed, ..record(attributes) };
            events(&request(record), "event.id", NOW)[0].event_id.clone()
        };
        let (a, b) = (attribute("a", "1"), attribute("b", "2"));
        assert_eq!(id(vec![a.clone(), b.clone()], 1), id(vec![b.clone(), a.clone()], 2));
        assert_ne!(id(vec![a], 1), id(vec![b], 1));
    }

    #[test]
    fn an_exporter_is_told_how_many_were_rejected_and_why() {
        assert_eq!(answer(&[Verdict::Accepted, Verdict::Duplicate]), ExportLogsServiceResponse::default());
        let errors = vec![FieldError::new("type", "is required")];
        let wrong = Verdict::Rejected(Rejection { code: RejectionCode::Invalid, errors });
        let partial = answer(&[Verdict::Accepted, wrong]).partial_success.expect("a partial success");
        assert_eq!((partial.rejected_log_records, &*partial.error_message), (1, "record 1: type is required"));
    }
}
