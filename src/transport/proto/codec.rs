//! Encodes and decodes messages.
//!
//! The size of a message does not limit its cost: an empty event takes two bytes of a message and two
//! hundred of memory, so that 4 MiB become 400 and, as drafts, 800. Batches are therefore counted before
//! they are decoded.

use std::any::TypeId;
use std::marker::PhantomData;

use bytes::Buf;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstEncoder};

use super::{IngestBatchRequest, IngestRequest, PutMetricsRequest};
use crate::config::BATCH_EVENTS_BOUND;
use crate::domain::Error;
use crate::transport::error::status;

/// tonic's codec for prost, with a look at each message before it is decoded.
pub(in crate::transport) struct CountingCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for CountingCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for CountingCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = CountingDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        CountingDecoder(PhantomData)
    }
}

/// See [`CountingCodec`].
pub(in crate::transport) struct CountingDecoder<U>(PhantomData<U>);

impl<U: Message + Default + 'static> Decoder for CountingDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // A message lies in one piece.
        if bytes.chunk().len() == bytes.remaining() {
            check_count::<U>(bytes.chunk())?;
        }
        decode(bytes).map(Some)
    }
}

/// Reads a message as the services do.
#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::transport) fn read<U: Message + Default + 'static>(bytes: &[u8]) -> Result<U, Status> {
    check_count::<U>(bytes)?;
    decode(bytes)
}

fn decode<U: Message + Default>(bytes: impl Buf) -> Result<U, Status> {
    U::decode(bytes).map_err(|error| Status::internal(error.to_string()))
}

/// Refuses a batch of more events than any configuration allows.
fn check_count<U: 'static>(bytes: &[u8]) -> Result<(), Status> {
    let batches =
        [TypeId::of::<IngestRequest>(), TypeId::of::<IngestBatchRequest>(), TypeId::of::<PutMetricsRequest>()];
    let count = if batches.contains(&TypeId::of::<U>()) {
        parts(bytes)
    } else if TypeId::of::<U>() == TypeId::of::<ExportLogsServiceRequest>() {
        log_records(bytes)
    } else {
        return Ok(());
    };
    if count <= BATCH_EVENTS_BOUND {
        return Ok(());
    }
    let message = format!("a batch may hold at most {BATCH_EVENTS_BOUND} events or values, whatever is configured");
    Err(status::of(Error::too_large(message)))
}

/// How many messages the message has in it, up to where it can be read.
fn parts(bytes: &[u8]) -> usize {
    Fields(bytes).count()
}

/// How many records, scopes and resources a request to export logs has in it, up to where it can be read.
pub(in crate::transport) fn log_records(bytes: &[u8]) -> usize {
    /// Where `ScopeLogs` are in `ResourceLogs`, and `LogRecord` in `ScopeLogs`.
    const TAG: u32 = 2;
    let scopes = |resource| Fields(resource).filter(|(tag, _)| *tag == TAG).map(|(_, scope)| scope);
    let of_resource = |resource| -> usize { scopes(resource).map(|scope| 1 + parts(scope)).sum() };
    Fields(bytes).map(|(_, resource)| 1 + of_resource(resource)).sum()
}

/// The fields of a message that have a length, with their tags, up to where it can be read.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<(u32, &'a [u8])> {
        loop {
            let (tag, wire_type) = decode_key(&mut self.0).ok()?;
            if wire_type == WireType::LengthDelimited {
                let length = usize::try_from(decode_varint(&mut self.0).ok()?).ok()?;
                let (field, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                return Some((tag, field));
            }
            skip_field(wire_type, tag, &mut self.0, DecodeContext::default()).ok()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};

    use super::*;
    use crate::transport::proto::Event;

    #[test]
    fn a_batch_of_countless_events_is_refused_before_it_is_decoded() {
        let check = |events: usize, is_read: bool| {
            let request =
                IngestBatchRequest { events: vec![Event::default(); events], durability: 0, ..Default::default() };
            let read = read::<IngestBatchRequest>(&request.encode_to_vec());
            assert_eq!(read.as_ref().ok(), is_read.then_some(&request), "{events}");
            if let Err(error) = read {
                assert_eq!(error.code(), tonic::Code::InvalidArgument);
            }
            let events = request.events;
            let request = IngestRequest { sequence: 1, events, durability: 0 };
            assert_eq!(super::read::<IngestRequest>(&request.encode_to_vec()).is_ok(), is_read);
        };
        check(0, true);
        let records = |count: usize| {
            let scope_logs = vec![ScopeLogs { log_records: vec![LogRecord::default(); count], ..Default::default() }];
            let resource_logs = vec![ResourceLogs { scope_logs, ..Default::default() }];
            read::<ExportLogsServiceRequest>(&ExportLogsServiceRequest { resource_logs }.encode_to_vec()).is_ok()
        };
        assert!(records(BATCH_EVENTS_BOUND - 2) && !records(BATCH_EVENTS_BOUND - 1));
        check(BATCH_EVENTS_BOUND, true);
        check(BATCH_EVENTS_BOUND + 1, false);
    }
}
