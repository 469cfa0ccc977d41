//! Envelopes: how messages follow each other in a stream. Five bytes in front of each: flags and the length. gRPC
//! has the same, with other flags.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tonic::Status;

/// Bytes in front of a message.
const HEAD_BYTES: usize = 5;
/// The message is compressed.
const COMPRESSED: u8 = 1;
/// The last envelope of an answer: how the stream ended.
const END: u8 = 2;

/// A message in its envelope.
pub(super) fn wrap(message: &[u8]) -> Bytes {
    envelope(0, message)
}

/// The last envelope of an answer.
pub(super) fn wrap_end(message: &[u8]) -> Bytes {
    envelope(END, message)
}

fn envelope(flags: u8, message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEAD_BYTES + message.len());
    bytes.put_u8(flags);
    // No message of ours is near 4 GiB.
    bytes.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    bytes.put_slice(message);
    bytes.freeze()
}

/// Takes bytes as they come, and gives back whole messages.
pub(super) struct Unwrapper {
    bytes: BytesMut,
    message_bytes_max: usize,
}

impl Unwrapper {
    /// Messages may have so many bytes.
    pub(super) fn new(message_bytes_max: usize) -> Self {
        Self { bytes: BytesMut::new(), message_bytes_max }
    }

    /// Takes further bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether bytes are left that are no whole message.
    pub(super) fn is_torn(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// The next whole message, if it is there.
    ///
    /// # Errors
    /// For a message that is compressed, or has too many bytes.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(head) = self.bytes.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let [flags, length @ ..] = *head;
        if flags & COMPRESSED != 0 {
            return Err(Status::unimplemented("compressed messages are not accepted in a stream"));
        }
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > self.message_bytes_max {
            let message = format!("a message may have at most {} bytes; it has {length}", self.message_bytes_max);
            return Err(Status::invalid_argument(message));
        }
        if self.bytes.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        self.bytes.advance(HEAD_BYTES);
        Ok(Some(self.bytes.split_to(length).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_compressed_or_too_long_is_refused() {
        let code = |bytes: &[u8]| {
            let mut unwrapper = Unwrapper::new(3);
            unwrapper.push(bytes);
            unwrapper.next().err().map(|status| status.code())
        };
        assert_eq!(code(&[0, 0, 0, 0, 3, 1, 2, 3]), None);
        assert_eq!(code(&[0, 0, 0, 0, 4]), Some(tonic::Code::InvalidArgument));
        assert_eq!(code(&[0, 255, 255, 255, 255]), Some(tonic::Code::InvalidArgument));
        assert_eq!(code(&[1, 0, 0, 0, 1]), Some(tonic::Code::Unimplemented));
    }

    proptest! {
        #[test]
        fn messages_come_out_whole_however_their_bytes_come(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..5), piece in 1_usize..9
        ) {
            let all: Vec<u8> = messages.iter().flat_map(|message| wrap(message).to_vec()).collect();
            let mut unwrapper = Unwrapper::new(20);
            let mut found = Vec::new();
            for bytes in all.chunks(piece) {
                unwrapper.push(bytes);
                while let Some(message) = unwrapper.next().expect("short messages") {
                    found.push(message.to_vec());
                }
            }
            prop_assert_eq!(found, messages);
            prop_assert!(!unwrapper.is_torn());
        }
    }
}
