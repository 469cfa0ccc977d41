//! Reads lines and gathers them into batches.
//!
//! Memory is bounded: a line, a batch and the number of waiting batches all have limits.

use std::pin::Pin;
use std::time::Duration;

use prost::Message as _;
use tokio::io::{self, AsyncBufRead, AsyncBufReadExt as _};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ndjson::{self, Unreadable};
use super::report::RejectedLine;
use super::source_form;
use super::unknown_fields::{self, UnknownFields};
use crate::domain::FieldError;
use crate::transport::proto;

/// Longest accepted line, in bytes. It only bounds memory; the service's limits are lower.
pub(super) const LINE_BYTES_MAX: usize = 1 << 20;
/// Largest batch, in bytes as the protocol counts: the service takes messages
/// of 4 MiB by default.
const BATCH_BYTES_MAX: usize = 2 << 20;
/// How long a batch waits to be filled.
const LINGER: Duration = Duration::from_millis(200);

/// A source of lines.
pub type Source = Pin<Box<dyn AsyncBufRead + Send>>;

/// Options of gathering lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchOptions {
    /// Most lines in one batch.
    pub(super) lines_max: usize,
    /// Whether to keep the text of lines, to write it if they are rejected.
    pub(super) keep_text: bool,
    /// Whether a line with an unknown field is rejected.
    pub(super) is_strict: bool,
}

/// Consecutive lines: their events, and invalid lines.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The events, in order.
    pub(super) events: Vec<proto::Event>,
    /// The origin of each event.
    pub(super) origins: Vec<Origin>,
    /// The lines that could not be read as events.
    pub(super) unreadable: Vec<RejectedLine>,
    /// Unknown fields of these lines.
    pub(super) unknown_fields: UnknownFields,
    /// How many bytes of the source had been read when this batch was full.
    pub(super) source_bytes: u64,
    bytes: usize,
}

/// The origin of an event.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin {
    /// The line's number, from 1.
    pub(super) line: u64,
    /// Its text, if it is kept.
    pub(super) text: String,
}

impl Batch {
    /// How many lines it stands for.
    pub(super) fn lines(&self) -> usize {
        self.events.len() + self.unreadable.len()
    }

    /// The events of this batch that are to be sent again.
    #[must_use]
    pub(super) fn only(mut self, indices: &[usize]) -> Self {
        let take = |index: &usize| {
            Some((std::mem::take(self.events.get_mut(*index)?), std::mem::take(self.origins.get_mut(*index)?)))
        };
        let (events, origins) = indices.iter().filter_map(take).unzip();
        Self { events, origins, unreadable: Vec::new(), ..self }
    }

    /// Parses a line, and records its unknown fields.
    fn parse(&mut self, number: u64, text: &[u8], is_strict: bool) -> Result<proto::Event, Unreadable> {
        let event = ndjson::parse(text)?;
        let unknown_names = unknown_fields::of(text);
        if unknown_names.is_empty() {
            return Ok(event);
        }
        self.unknown_fields.note(number, &unknown_names);
        if is_strict { Err(unknown(event.event_id, unknown_names)) } else { Ok(event) }
    }

    fn take_line(&mut self, number: u64, text: Result<&[u8], Unreadable>, gathering: BatchOptions) {
        let kept = match text {
            Ok(text) if gathering.keep_text => String::from_utf8_lossy(text).into_owned(),
            _ => String::new(),
        };
        match text.and_then(|text| self.parse(number, text, gathering.is_strict)) {
            Ok(event) => {
                self.bytes += event.encoded_len();
                self.events.push(event);
                self.origins.push(Origin { line: number, text: kept });
            }
            Err(unreadable) => {
                self.bytes += kept.len();
                self.unreadable.push(RejectedLine::unreadable(number, unreadable, kept));
            }
        }
    }
}

/// The error of a line with unknown fields in strict mode.
fn unknown(event_id: String, names: Vec<String>) -> Unreadable {
    let message = |name: &str| match unknown_fields::meant(name) {
        Some(field) => format!("is not a field of an event; did you mean {field}?"),
        None => "is not a field of an event".to_owned(),
    };
    let errors = names.into_iter().map(|name| FieldError::new(name.clone(), message(&name))).collect();
    Unreadable { code: ndjson::INVALID, event_id, errors }
}

/// Reads `source` to its end, or until `stop`, and passes on batches: full ones, and incomplete
/// ones after 200 ms. A source that is not NDJSON is an error that names its format.
pub(super) async fn read(
    source: Source,
    gathering: BatchOptions,
    batches: mpsc::Sender<Batch>,
    stop: CancellationToken,
) -> io::Result<()> {
    let mut source = source;
    let start = tokio::select! {
        start = source.fill_buf() => start?,
        () = stop.cancelled() => &[],
    };
    if let Some(hint) = source_form::hint(start) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, hint));
    }
    let mut lines = LineReader { source, text: Vec::new(), is_too_long: false, number: 0, bytes_read: 0 };
    let mut batch = Batch::default();
    let mut due = Instant::now();
    loop {
        // A line; or none any more; or nothing for now.
        let has_line = tokio::select! {
            biased;
            has_line = lines.advance() => Some(has_line),
            () = stop.cancelled() => Some(Ok(false)),
            () = tokio::time::sleep_until(due), if batch.lines() > 0 => None,
        };
        if matches!(has_line, Some(Ok(true))) {
            if batch.lines() == 0 {
                due = Instant::now() + LINGER;
            }
            batch.take_line(lines.number, lines.take(), gathering);
            batch.source_bytes = lines.bytes_read;
            lines.clear();
        }
        let is_full = batch.lines() >= gathering.lines_max || batch.bytes >= BATCH_BYTES_MAX;
        let is_last = !matches!(has_line, None | Some(Ok(true))) || stop.is_cancelled();
        if (is_full || is_last || has_line.is_none()) && batch.lines() > 0 {
            // Nobody listens any more: the sender has said why.
            if batches.send(std::mem::take(&mut batch)).await.is_err() {
                return Ok(());
            }
        }
        if is_last {
            return has_line.transpose().map(|_| ());
        }
    }
}

/// Reads lines of bounded length. Keeps an incomplete line when reading is interrupted.
struct LineReader {
    source: Source,
    text: Vec<u8>,
    is_too_long: bool,
    number: u64,
    bytes_read: u64,
}

impl LineReader {
    /// Reads the next line that is not blank. Returns false at the end of the source. Cancel safe.
    async fn advance(&mut self) -> io::Result<bool> {
        loop {
            let chunk = self.source.fill_buf().await?;
            let (used, is_end) = match chunk.iter().position(|byte| *byte == b'\n') {
                Some(at) => (at + 1, true),
                None => (chunk.len(), chunk.is_empty()),
            };
            let at_end_of_source = chunk.is_empty();
            if self.text.len() + used <= LINE_BYTES_MAX {
                self.text.extend_from_slice(&chunk[..used]);
            } else {
                self.is_too_long = true;
                self.text.clear();
            }
            self.source.as_mut().consume(used);
            self.bytes_read += used as u64;
            if !is_end {
                continue;
            }
            if self.is_too_long || !self.text.trim_ascii().is_empty() {
                self.number += 1;
                return Ok(true);
            }
            if at_end_of_source {
                return Ok(false);
            }
            // A blank line is no event, but it is a line.
            self.number += 1;
            self.clear();
        }
    }

    fn take(&self) -> Result<&[u8], Unreadable> {
        if self.is_too_long {
            let message = format!("is longer than {LINE_BYTES_MAX} bytes");
            let errors = vec![FieldError::new("line", message)];
            return Err(Unreadable { code: ndjson::TOO_LONG, event_id: String::new(), errors });
        }
        Ok(self.text.trim_ascii())
    }

    fn clear(&mut self) {
        self.text.clear();
        self.is_too_long = false;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, BufReader};

    use super::*;

    /// The batches of a source: event ids, and the numbers of unreadable
    /// lines.
    async fn gather(source: &[u8], lines_max: usize) -> Vec<(Vec<String>, Vec<u64>)> {
        let (to, mut from) = mpsc::channel(1_000);
        let source = Box::pin(BufReader::with_capacity(7, std::io::Cursor::new(source.to_vec())));
        let gathering = BatchOptions { lines_max, keep_text: false, is_strict: false };
        read(source, gathering, to, CancellationToken::new()).await.unwrap();
        let mut batches = Vec::new();
        while let Some(batch) = from.recv().await {
            let ids = batch.events.into_iter().map(|event| event.event_id).collect();
            batches.push((ids, batch.unreadable.iter().map(|line| line.line).collect()));
        }
        batches
    }

    #[tokio::test]
    async fn lines_are_gathered_in_order_and_bad_ones_keep_their_number() {
        let source = b"\xef\xbb\xbf{\"event_id\":\"a\"}\r\n\n  \nnonsense\n{\"event_id\":\"b\"}\n{\"event_id\":\"c\"}";
        let batches = gather(source, 2).await;
        let strings = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        assert_eq!(batches, [(strings(&["a"]), vec![4]), (strings(&["b", "c"]), vec![])]);
    }

    #[tokio::test]
    async fn a_strict_reader_refuses_lines_with_unknown_fields() {
        let (to, mut from) = mpsc::channel(10);
        let source = b"{\"event_id\":\"a\",\"campaing_id\":\"c\"}\n{\"event_id\":\"b\"}\n";
        let source = Box::pin(BufReader::new(std::io::Cursor::new(source.to_vec())));
        let gathering = BatchOptions { lines_max: 10, keep_text: false, is_strict: true };
        read(source, gathering, to, CancellationToken::new()).await.unwrap();
        let batch = from.recv().await.unwrap();
        assert_eq!((batch.events.len(), batch.unreadable.len()), (1, 1));
        let reasons = batch.unreadable[0].reasons();
        assert!(reasons.contains("campaing_id") && reasons.contains("did you mean campaign_id?"), "{reasons}");
    }

    #[tokio::test]
    async fn a_line_without_end_does_not_fill_the_memory() {
        let mut source = vec![b'x'; LINE_BYTES_MAX + 5];
        source.extend_from_slice(b"\n{\"event_id\":\"b\"}\n");
        assert_eq!(gather(&source, 10).await, [(vec!["b".to_owned()], vec![1])]);
    }

    #[tokio::test]
    async fn a_batch_is_bounded_in_bytes_too() {
        let line = format!("{{\"event_id\":\"{}\"}}\n", "x".repeat(900_000));
        let batches = gather(line.repeat(5).as_bytes(), 10_000).await;
        assert_eq!(batches.iter().map(|(ids, _)| ids.len()).collect::<Vec<_>>(), [3, 2]);
    }

    #[tokio::test]
    async fn a_slow_source_is_not_held_up() {
        let (mut writer, reader) = io::duplex(1_000);
        let (to, mut from) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let gathering = BatchOptions { lines_max: 100, keep_text: true, is_strict: false };
        let reading = tokio::spawn(read(Box::pin(BufReader::new(reader)), gathering, to, stop.clone()));
        let started = Instant::now();
        writer.write_all(b"{\"event_id\":\"a\"}\n{\"event").await.unwrap();
        let first = from.recv().await.unwrap();
        assert_eq!((first.events.len(), first.source_bytes), (1, 17));
        assert!((LINGER..20 * LINGER).contains(&started.elapsed()), "{:?}", started.elapsed());
        writer.write_all(b"_id\":\"b\"}\n").await.unwrap();
        let second = from.recv().await.unwrap();
        assert_eq!(second.origins[0].text, "{\"event_id\":\"b\"}", "what came before the pause is not lost");
        stop.cancel();
        assert!(from.recv().await.is_none());
        reading.await.unwrap().unwrap();
    }
}
