//! Splits a summary into the chunks that readers receive.

use std::time::Duration;

use futures_util::stream::{Stream, unfold};

use super::{SummaryError, SummaryReader};

/// Fewest and most tokens of a chunk.
pub const CHUNK_TOKENS_MIN: usize = 2;
/// See [`CHUNK_TOKENS_MIN`].
pub const CHUNK_TOKENS_MAX: usize = 5;

/// Tokens of the chunks, in turn. The last takes what is left.
const SIZES: [usize; 5] = [3, 4, 2, 4, 3];

struct Position {
    reader: SummaryReader,
    /// Tokens and chunks so far.
    tokens: usize,
    chunks: usize,
    is_over: bool,
}

/// The chunks of a summary with a pause between them. Put together as they are,
/// they are the text: each but the last ends in the space before the next.
pub fn chunks(reader: SummaryReader, pause: Duration) -> impl Stream<Item = Result<String, SummaryError>> + Send {
    let beginning = Position { reader, tokens: 0, chunks: 0, is_over: false };
    unfold(beginning, move |mut position| async move {
        if position.is_over {
            return None;
        }
        if position.chunks > 0 {
            tokio::time::sleep(pause).await;
        }
        let size = SIZES[position.chunks % SIZES.len()];
        // As many more as the chunk after this one needs.
        let unread = match position.reader.unread(position.tokens, size + CHUNK_TOKENS_MIN).await {
            Ok(unread) => unread,
            Err(error) => {
                position.is_over = true;
                return Some((Err(error), position));
            }
        };
        let is_last = unread.is_end && unread.tokens.len() <= CHUNK_TOKENS_MAX;
        let size = if is_last { unread.tokens.len() } else { size };
        let mut chunk = unread.tokens[..size].join(" ");
        if !is_last {
            chunk.push(' ');
        }
        position.tokens += size;
        position.chunks += 1;
        position.is_over = is_last;
        Some((Ok(chunk), position))
    })
}
