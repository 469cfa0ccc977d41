//! Summaries of shows: each text is generated once for all readers.
//!
//! [`Summarizer`] is the port. [`TemplateSummarizer`] fills in sentences; a language model would be
//! another implementation. [`Summaries`] generates each text once, caches it, and streams it to readers
//! while it is generated; [`chunks`] splits it.

pub mod chunks;
mod readers;
mod subject;
mod template;

use futures_util::stream::BoxStream;

pub use readers::{Summaries, SummariesSettings, SummaryReader};
pub use subject::{SummaryKey, SummarySubject};
pub use template::TemplateSummarizer;

/// Fewest and most tokens (words between white space) of a summary.
pub const TOKENS_MIN: usize = 50;
/// See [`TOKENS_MIN`]. Further tokens are cut off.
pub const TOKENS_MAX: usize = 100;

/// Why there is no summary.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SummaryError(pub String);

/// Generates summaries.
pub trait Summarizer: Send + Sync + 'static {
    /// Its name and version. Another name makes other summaries of the same
    /// shows.
    fn name(&self) -> &'static str;

    /// Makes the summary of a show, piece by piece: pieces of text with the white
    /// space that is between their words. It must be [`TOKENS_MIN`] to
    /// [`TOKENS_MAX`] words.
    fn summarize(&self, subject: &SummarySubject) -> BoxStream<'static, Result<String, SummaryError>>;
}

/// Whether a character is between words, for whoever reads: JavaScript and
/// Python know others than Unicode does.
fn is_space(character: char) -> bool {
    character.is_whitespace() || character.is_control() || character == '\u{feff}'
}
