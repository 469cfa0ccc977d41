//! Generates summaries from sentence templates: the same fields always give the same text. Dates are in
//! English and in UTC.

use futures_util::stream::{self, BoxStream, StreamExt as _};
use time::OffsetDateTime;

use super::{Summarizer, SummaryError, SummarySubject, is_space};

/// Most words of a title and of a location; the rest becomes an ellipsis.
const TITLE_WORDS_MAX: usize = 22;
const LOCATION_WORDS_MAX: usize = 14;

/// Generates a summary from templates, without a model or network. The same fields always give the
/// same text.
#[derive(Clone, Copy, Debug, Default)]
pub struct TemplateSummarizer;

impl Summarizer for TemplateSummarizer {
    fn name(&self) -> &'static str {
        "template-1"
    }

    fn summarize(&self, subject: &SummarySubject) -> BoxStream<'static, Result<String, SummaryError>> {
        stream::iter([Ok(text(subject))]).boxed()
    }
}

fn text(subject: &SummarySubject) -> String {
    let title = shortened(&subject.title, TITLE_WORDS_MAX);
    let location = shortened(&subject.location, LOCATION_WORDS_MAX);
    let (start, end) = (subject.start_at.utc(), subject.end_at.utc());
    let (day, iso, from) = (day(start), start.date(), time_of_day(start));
    let until = if start.date() == end.date() {
        time_of_day(end)
    } else {
        format!("{} on {}", time_of_day(end), self::day(end))
    };
    if subject.is_cancelled {
        return format!(
            "{title} has been cancelled. It was announced for {day} ({iso}) at {location}, from {from} to {until} \
             UTC, and it will not take place. Nothing else replaces it at that place and time. This notice remains \
             here so that everybody who had planned to come knows about the cancellation."
        );
    }
    format!(
        "{title} takes place on {day} ({iso}) at {location}. It begins at {from} and ends at {until} UTC. It is a \
         chance to see something special together with friends and with people who love the same things. Places are \
         limited and good ones go early, so do not wait too long. Book your tickets now!"
    )
}

/// A text with single spaces and at most so many words.
fn shortened(text: &str, words_max: usize) -> String {
    let words: Vec<&str> = text.split(is_space).filter(|word| !word.is_empty()).collect();
    let short = words.get(..words_max).map(|words| format!("{}…", words.join(" ")));
    short.filter(|_| words.len() > words_max).unwrap_or_else(|| words.join(" "))
}

/// Such as `Friday, 17 May 2030`.
fn day(time: OffsetDateTime) -> String {
    format!("{}, {} {} {}", time.weekday(), time.day(), time.month(), time.year())
}

fn time_of_day(time: OffsetDateTime) -> String {
    format!("{:02}:{:02}", time.hour(), time.minute())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{TOKENS_MAX, TOKENS_MIN};
    use super::*;
    use crate::domain::Timestamp;

    fn subject(title: &str, location: &str, start: &str, end: &str, is_cancelled: bool) -> SummarySubject {
        let at = |text: &str| Timestamp::parse(text).unwrap();
        let (title, location) = (title.to_owned(), location.to_owned());
        SummarySubject { title, start_at: at(start), end_at: at(end), location, is_cancelled }
    }

    #[test]
    fn a_summary_names_what_where_and_when_and_calls_to_action() {
        let text = text(&subject("Hamlet", "Globe", "2030-05-17T19:30:00Z", "2030-05-17T22:00:00Z", false));
        assert!(
            text.starts_with("Hamlet takes place on Friday, 17 May 2030 (2030-05-17) at Globe. It begins at 19:30")
        );
        assert!(text.contains(" and ends at 22:00 UTC."), "{text}");
        assert!(text.ends_with("Book your tickets now!"), "{text}");
    }

    #[test]
    fn a_cancelled_show_calls_to_nothing() {
        let text = text(&subject("Hamlet", "Globe", "2030-12-31T23:30:00Z", "2031-01-01T01:00:00Z", true));
        assert!(
            text.starts_with("Hamlet has been cancelled. It was announced for Tuesday, 31 December 2030"),
            "{text}"
        );
        assert!(text.contains("from 23:30 to 01:00 on Wednesday, 1 January 2031 UTC"), "{text}");
        let lower = text.to_lowercase();
        for call in ["book", "ticket", "buy", "join", "now!", "don't miss", "do not miss", "reserve", "hurry", "!"] {
            assert!(!lower.contains(call), "{call}: {text}");
        }
    }

    #[test]
    fn long_titles_and_places_are_shortened() {
        let title = vec!["w"; 100].join(" ");
        let text = text(&subject(&title, &title, "2030-05-17T19:30:00Z", "2031-05-17T22:00:00Z", false));
        assert!(text.starts_with(&format!("{}w… takes place", "w ".repeat(21))), "{text}");
        assert!(text.contains(&format!("at {}w…. It", "w ".repeat(13))), "{text}");
    }

    proptest! {
        #[test]
        fn every_summary_has_50_to_100_words(
            title in "\\PC{1,200}", location in "[a \\u{1c}\\u{feff}\\n]{1,200}|\\PC{1,3}",
            start in 0_i64..250_000_000_000_000, length in 1_i64..1_000_000_000_000, is_cancelled: bool,
        ) {
            let (start_at, end_at) = (Timestamp::from_millis(start), Timestamp::from_millis(start + length));
            let text = text(&SummarySubject { title, start_at, end_at, location, is_cancelled });
            let words = text.split(is_space).filter(|word| !word.is_empty()).count();
            prop_assert!((TOKENS_MIN..=TOKENS_MAX).contains(&words), "{} words: {}", words, text);
            prop_assert_eq!(text.split_whitespace().count(), words);
        }
    }
}
