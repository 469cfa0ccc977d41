//! Messages of the protocol as JSON, and back ("ProtoJSON").
//!
//! The text is read by [`crate::json`], as every JSON of callers is: `serde_json`'s own reading gives numbers as maps
//! to readers that take anything, which is what this one does.

use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde::de::value::{Error as ValueError, MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::Value;
use tonic::Status;

use crate::json;

/// Reads a message. Fields that are not known are ignored. Empty text is an empty message.
///
/// # Errors
/// `InvalidArgument`, with what is wrong.
pub(super) fn read(descriptor: MessageDescriptor, text: &[u8]) -> Result<DynamicMessage, Status> {
    let wrong = |error: String| Status::invalid_argument(format!("the message is not its JSON: {error}"));
    if text.is_empty() {
        return Ok(DynamicMessage::new(descriptor));
    }
    let text = str::from_utf8(text).map_err(|_| wrong("must be UTF-8".to_owned()))?;
    let value = json::parse(text).map_err(|error| wrong(error.to_string()))?;
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    DynamicMessage::deserialize_with_options(descriptor, Plain(&value), &options)
        .map_err(|error| wrong(error.to_string()))
}

/// Writes a message. Fields with default values are left out.
///
/// # Errors
/// `Internal`, when it cannot be written.
pub(super) fn write(descriptor: MessageDescriptor, message: &[u8]) -> Result<Vec<u8>, Status> {
    let internal = |error: String| {
        tracing::error!(error, "an answer cannot be written as JSON");
        Status::internal("internal error")
    };
    let message = DynamicMessage::decode(descriptor, message).map_err(|error| internal(error.to_string()))?;
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut text);
    message
        .serialize_with_options(&mut serializer, &SerializeOptions::new())
        .map_err(|error| internal(error.to_string()))?;
    Ok(text)
}

/// A value, read as what it is.
#[derive(Clone, Copy)]
struct Plain<'a>(&'a Value);

impl<'de> Deserializer<'de> for Plain<'de> {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(truth) => visitor.visit_bool(*truth),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.iter().map(Plain))),
            Value::Object(members) => {
                let members = members.iter().map(|(name, value)| (Name(name), Plain(value)));
                visitor.visit_map(MapDeserializer::new(members))
            }
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(number), ..) => visitor.visit_u64(number),
                (_, Some(number), _) => visitor.visit_i64(number),
                (.., number) => visitor.visit_f64(number.unwrap_or(f64::NAN)),
            },
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, ValueError> for Plain<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// A member's name.
struct Name<'a>(&'a str);

impl<'de> IntoDeserializer<'de, ValueError> for Name<'de> {
    type Deserializer = StrDeserializer<'de, ValueError>;

    fn into_deserializer(self) -> Self::Deserializer {
        self.0.into_deserializer()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_reflect::DescriptorPool;
    use serde_json::json;

    use super::*;
    use crate::transport::proto::{self, IngestBatchRequest};

    fn descriptor(name: &str) -> MessageDescriptor {
        let pool = DescriptorPool::decode(proto::DESCRIPTORS).expect("descriptors");
        pool.get_message_by_name(&format!("tallyhouse.v1.{name}")).expect("a message")
    }

    #[test]
    fn json_becomes_the_message_that_it_means() {
        let text = json!({
            "events": [{ "eventId": "a", "type": "click", "occurredAt": "2026-02-10T21:10:00.5Z", "seq": "7" }],
            "durability": "DURABILITY_STORED", "no_such_field": [1.5],
        });
        let read = read(descriptor("IngestBatchRequest"), text.to_string().as_bytes()).expect("a message");
        let request = IngestBatchRequest::decode(read.encode_to_vec().as_slice()).expect("the message");
        let event = &request.events[0];
        assert_eq!((&*event.event_id, &*event.r#type, event.seq), ("a", "click", 7));
        assert_eq!(event.occurred_at.map(|time| time.nanos), Some(500_000_000));
        assert_eq!(request.durability(), proto::Durability::Stored);
    }

    #[test]
    fn numbers_may_be_numbers_or_texts() {
        let seq = |seq: Value| {
            let text = json!({ "events": [{ "seq": seq }] }).to_string();
            let read = read(descriptor("IngestBatchRequest"), text.as_bytes()).ok()?;
            Some(IngestBatchRequest::decode(read.encode_to_vec().as_slice()).ok()?.events[0].seq)
        };
        assert_eq!(seq(json!(7)), Some(7));
        assert_eq!(seq(json!("7")), Some(7));
        assert_eq!(seq(json!(u64::MAX)), Some(u64::MAX));
        assert_eq!(seq(json!(-1)), None);
        assert_eq!(seq(json!(1.5)), None);
        assert_eq!(seq(json!([])), None);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let event = proto::Event { event_id: "a".to_owned(), seq: 7, ..Default::default() };
        let request = IngestBatchRequest { events: vec![event], ..Default::default() }.encode_to_vec();
        let text = write(descriptor("IngestBatchRequest"), &request).expect("JSON");
        let read = read(descriptor("IngestBatchRequest"), &text).expect("a message");
        assert_eq!(read.encode_to_vec(), request);
    }

    #[test]
    fn texts_that_are_no_message_are_refused() {
        for text in ["[]", "1", "{", "\"a\"", "{\"events\":5}", "{\"events\":[null,1]}", "\u{1}"] {
            let refused = read(descriptor("IngestBatchRequest"), text.as_bytes()).err().map(|status| status.code());
            assert_eq!(refused, Some(tonic::Code::InvalidArgument), "{text}");
        }
    }
}
