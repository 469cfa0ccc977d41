//! Shows the progress of sending on a terminal.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::report::Counts;
use crate::cli::sparkline::grouped;

/// The interval of a spinner.
const TICK: Duration = Duration::from_millis(120);

/// A progress bar on standard error, or nothing.
pub struct Progress {
    bar: ProgressBar,
    started: Instant,
    /// Whether messages are written to standard error if there is no bar.
    speaks: bool,
}

impl Progress {
    /// A bar for a source of `bytes` (or of unknown length), on terminals
    /// only.
    pub fn new(bytes: Option<u64>, is_quiet: bool) -> Self {
        let started = Instant::now();
        if is_quiet || !std::io::stderr().is_terminal() {
            return Self { bar: ProgressBar::hidden(), started, speaks: !is_quiet };
        }
        let (bar, template) = match bytes {
            Some(bytes) => (ProgressBar::new(bytes), "{bar:32.cyan/dim} {bytes}/{total_bytes}  {msg}  {eta} left"),
            None => (ProgressBar::new_spinner(), "{spinner} {bytes}  {msg}"),
        };
        // The templates are right, or else the default ones do.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        }
        bar.enable_steady_tick(TICK);
        Self { bar, started, speaks: true }
    }

    /// Shows nothing.
    pub fn silent() -> Self {
        Self::new(None, true)
    }

    /// Updates the progress.
    pub fn advance(&self, source_bytes: u64, counts: &Counts) {
        if self.bar.is_hidden() {
            return;
        }
        let rate = counts.decided() as f64 / self.started.elapsed().as_secs_f64().max(0.001);
        self.bar.set_position(source_bytes);
        self.bar.set_message(format!("{} events  {rate:.0}/s", grouped(counts.decided())));
    }

    /// Shows a message.
    pub fn tell(&self, text: &str) {
        if !self.bar.is_hidden() {
            self.bar.println(text);
        } else if self.speaks {
            eprintln!("{text}");
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
