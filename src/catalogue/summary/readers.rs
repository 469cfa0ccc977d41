//! Shares each summary among its readers and caches it. A separate task generates it, so a reader that
//! disconnects does not stop it for the others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::{Summarizer, SummaryError, SummaryKey, SummarySubject, TOKENS_MAX, is_space};

/// Bytes that a kept word takes besides its letters.
const WORD_OVERHEAD_BYTES: usize = 24;

/// The bounds of summaries.
#[derive(Clone, Copy, Debug)]
pub struct SummariesSettings {
    /// Memory for finished summaries, in bytes.
    pub cache_bytes_max: u64,
    /// Summaries that are generated at a time; further ones wait.
    pub in_flight_max: usize,
    /// Longest time to generate a summary, including waiting.
    pub wait_max: Duration,
}

/// How far a summary has come.
#[derive(Debug, Default)]
struct Progress {
    tokens: Vec<String>,
    end: Option<Result<(), SummaryError>>,
}

/// Summaries that are being made, each with its readers' end.
type InFlight = Arc<Mutex<HashMap<SummaryKey, watch::Receiver<Progress>>>>;

/// Caches summaries and shares those that are being generated among their readers. Bounded by
/// memory for finished summaries, by the number generated at a time, and by time.
pub struct Summaries {
    summarizer: Arc<dyn Summarizer>,
    finished: Cache<SummaryKey, Arc<[String]>>,
    in_flight: InFlight,
    places: Arc<Semaphore>,
    wait_max: Duration,
}

/// Reads one summary, finished or not.
pub struct SummaryReader {
    key: SummaryKey,
    source: Source,
}

enum Source {
    Finished(Arc<[String]>),
    InFlight(watch::Receiver<Progress>),
}

/// The part of a summary that a reader has not read.
pub struct Unread {
    /// Its tokens so far.
    pub tokens: Vec<String>,
    /// Whether no others follow.
    pub is_end: bool,
}

impl Summaries {
    /// Summaries by this summarizer.
    pub fn new(summarizer: Arc<dyn Summarizer>, settings: SummariesSettings) -> Self {
        let weight = |_: &SummaryKey, tokens: &Arc<[String]>| {
            let bytes: usize = tokens.iter().map(|token| token.len() + WORD_OVERHEAD_BYTES).sum();
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        Self {
            summarizer,
            finished: Cache::builder().max_capacity(settings.cache_bytes_max).weigher(weight).build(),
            in_flight: InFlight::default(),
            places: Arc::new(Semaphore::new(settings.in_flight_max)),
            wait_max: settings.wait_max,
        }
    }

    /// The key of a subject's summary.
    #[must_use]
    pub fn key(&self, subject: &SummarySubject) -> SummaryKey {
        SummaryKey::of(subject, self.summarizer.name())
    }

    /// Whether a summary is finished and cached.
    #[must_use]
    pub fn is_finished(&self, key: SummaryKey) -> bool {
        self.finished.contains_key(&key)
    }

    /// Reads a summary, which is generated if necessary.
    #[must_use]
    pub fn read(&self, subject: &SummarySubject) -> SummaryReader {
        let key = self.key(subject);
        // What is not finished while this is locked is in flight until it is unlocked.
        let mut in_flight = self.in_flight.lock();
        if let Some(tokens) = self.finished.get(&key) {
            return SummaryReader { key, source: Source::Finished(tokens) };
        }
        let receiver = in_flight.entry(key).or_insert_with(|| {
            let (progress, receiver) = watch::channel(Progress::default());
            tokio::spawn(self.make(key, subject.clone(), progress));
            receiver
        });
        SummaryReader { key, source: Source::InFlight(receiver.clone()) }
    }

    fn make(
        &self,
        key: SummaryKey,
        subject: SummarySubject,
        progress: watch::Sender<Progress>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (summarizer, places, wait_max) = (Arc::clone(&self.summarizer), Arc::clone(&self.places), self.wait_max);
        let finished = self.finished.clone();
        let place = InFlightPlace { key, in_flight: Arc::clone(&self.in_flight) };
        async move {
            let made = async {
                let _place = places.acquire().await;
                write_down(&*summarizer, &subject, &progress).await
            };
            let made = tokio::time::timeout(wait_max, made).await;
            let made = made.unwrap_or_else(|_| Err(SummaryError("the summarizer did not answer in time".to_owned())));
            match &made {
                Ok(()) => finished.insert(key, progress.borrow().tokens.as_slice().into()),
                Err(error) => tracing::warn!(%error, "could not generate a summary"),
            }
            drop(place);
            progress.send_modify(|progress| progress.end = Some(made));
        }
    }
}

/// A summary's place among those in flight. It is left also when the summarizer
/// panics.
struct InFlightPlace {
    key: SummaryKey,
    in_flight: InFlight,
}

impl Drop for InFlightPlace {
    fn drop(&mut self) {
        self.in_flight.lock().remove(&self.key);
    }
}

/// Cuts the summarizer's pieces into words, as they come.
async fn write_down(
    summarizer: &dyn Summarizer,
    subject: &SummarySubject,
    progress: &watch::Sender<Progress>,
) -> Result<(), SummaryError> {
    let mut pieces = summarizer.summarize(subject);
    let mut unfinished = String::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        let mut words = piece.split(is_space);
        unfinished.push_str(words.next().unwrap_or_default());
        let mut tokens = Vec::new();
        for word in words {
            tokens.push(std::mem::replace(&mut unfinished, word.to_owned()));
        }
        if push(progress, tokens) {
            return Ok(());
        }
    }
    push(progress, vec![unfinished]);
    if progress.borrow().tokens.is_empty() { Err(SummaryError("the summary is empty".to_owned())) } else { Ok(()) }
}

/// Appends words, up to the most that there may be. Whether these are there.
fn push(progress: &watch::Sender<Progress>, tokens: Vec<String>) -> bool {
    let tokens: Vec<String> = tokens.into_iter().filter(|token| !token.is_empty()).collect();
    if !tokens.is_empty() {
        progress.send_modify(|progress| {
            progress.tokens.extend(tokens);
            progress.tokens.truncate(TOKENS_MAX);
        });
    }
    progress.borrow().tokens.len() >= TOKENS_MAX
}

impl SummaryReader {
    /// The summary's key.
    #[must_use]
    pub const fn key(&self) -> SummaryKey {
        self.key
    }

    /// Whether the whole text was kept when the reader came.
    #[must_use]
    pub const fn is_hit(&self) -> bool {
        matches!(self.source, Source::Finished(_))
    }

    /// Waits for the first word.
    ///
    /// # Errors
    /// When there is none.
    pub async fn begin(&mut self) -> Result<(), SummaryError> {
        self.unread(0, 1).await.map(drop)
    }

    /// Waits until there are so many tokens from a position on, or all.
    ///
    /// # Errors
    /// If the summary cannot be generated.
    pub async fn unread(&mut self, from: usize, count_min: usize) -> Result<Unread, SummaryError> {
        match &mut self.source {
            Source::Finished(tokens) => {
                Ok(Unread { tokens: tokens.get(from..).unwrap_or_default().to_vec(), is_end: true })
            }
            Source::InFlight(receiver) => {
                let is_there =
                    |progress: &Progress| progress.end.is_some() || progress.tokens.len() >= from + count_min;
                let progress = receiver.wait_for(is_there).await;
                let progress = progress.map_err(|_| SummaryError("the summarizer failed".to_owned()))?;
                if let Some(Err(error)) = &progress.end {
                    return Err(error.clone());
                }
                let tokens = progress.tokens.get(from..).unwrap_or_default().to_vec();
                Ok(Unread { tokens, is_end: progress.end.is_some() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use futures_util::stream::{self, BoxStream};
    use tokio::sync::Notify;

    use super::*;
    use crate::domain::Timestamp;
    use crate::summary::chunks::chunks;

    /// Says words one by one, as somebody lets it.
    #[derive(Default)]
    struct Dictated {
        made: AtomicUsize,
        go_on: Arc<Notify>,
        fails: bool,
    }

    impl Summarizer for Dictated {
        fn name(&self) -> &'static str {
            "dictated"
        }

        fn summarize(&self, _: &SummarySubject) -> BoxStream<'static, Result<String, SummaryError>> {
            self.made.fetch_add(1, Ordering::Relaxed);
            let (go_on, fails) = (Arc::clone(&self.go_on), self.fails);
            stream::unfold(0, move |count| {
                let go_on = Arc::clone(&go_on);
                async move {
                    if count == 0 {
                        go_on.notified().await;
                    }
                    if fails && count == 6 {
                        return Some((Err(SummaryError("no more".to_owned())), count));
                    }
                    (count < 60).then(|| (Ok(format!("wo\trd{count} ")), count + 1))
                }
            })
            .boxed()
        }
    }

    fn subject(title: &str) -> SummarySubject {
        let at = Timestamp::from_millis(0);
        SummarySubject {
            title: title.to_owned(),
            start_at: at,
            end_at: at,
            location: String::new(),
            is_cancelled: false,
        }
    }

    fn summaries(summarizer: &Arc<Dictated>) -> Summaries {
        let settings =
            SummariesSettings { cache_bytes_max: 1 << 20, in_flight_max: 1, wait_max: Duration::from_secs(60) };
        Summaries::new(Arc::clone(summarizer) as Arc<_>, settings)
    }

    async fn text(reader: SummaryReader) -> Result<String, SummaryError> {
        let chunks: Vec<_> = chunks(reader, Duration::ZERO).collect().await;
        chunks.into_iter().collect::<Result<Vec<String>, _>>().map(|chunks| chunks.concat())
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_first_readers_make_a_summary_once_and_who_leaves_stops_nothing() {
        let summarizer = Arc::new(Dictated::default());
        let summaries = summaries(&summarizer);
        let mut readers: Vec<SummaryReader> = (0..100).map(|_| summaries.read(&subject("a"))).collect();
        assert!(readers.iter().all(|reader| !reader.is_hit()));
        drop(readers.remove(0));
        summarizer.go_on.notify_one();
        let texts = join_all(readers.into_iter().map(text)).await;
        let first = texts[0].clone().unwrap();
        assert!(first.starts_with("wo rd0 wo rd1 "), "{first}");
        assert_eq!(first.split_whitespace().count(), TOKENS_MAX, "what is too long is cut off");
        assert!(texts.into_iter().all(|text| text.unwrap() == first));
        let again = summaries.read(&subject("a"));
        assert!(again.is_hit());
        assert_eq!(text(again).await.unwrap(), first);
        assert_eq!(summarizer.made.load(Ordering::Relaxed), 1);
        assert!(!summaries.read(&subject("b")).is_hit());
    }

    #[tokio::test(start_paused = true)]
    async fn a_summary_without_readers_is_finished_all_the_same() {
        let summarizer = Arc::new(Dictated::default());
        let summaries = summaries(&summarizer);
        drop(summaries.read(&subject("a")));
        let mut second = summaries.read(&subject("a"));
        drop(second.begin());
        summarizer.go_on.notify_one();
        assert!(text(second).await.is_ok());
        assert!(summaries.is_finished(summaries.key(&subject("a"))));
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_not_kept_and_is_made_again() {
        let summarizer = Arc::new(Dictated { fails: true, ..Dictated::default() });
        let summaries = summaries(&summarizer);
        for made in 1..=2 {
            let reader = summaries.read(&subject("a"));
            summarizer.go_on.notify_one();
            assert_eq!(text(reader).await, Err(SummaryError("no more".to_owned())));
            assert_eq!(summarizer.made.load(Ordering::Relaxed), made);
        }
        // Nobody lets it go on.
        let waiting = text(summaries.read(&subject("a"))).await;
        assert_eq!(waiting, Err(SummaryError("the summarizer did not answer in time".to_owned())));
    }
}
