//! Progress of a long step: a bar on a terminal, otherwise log lines.

use std::io::{IsTerminal as _, Read, stderr};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

/// A step that is under way.
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn new(step: &'static str, bytes: u64) -> Self {
        if !stderr().is_terminal() {
            tracing::info!(size = %HumanBytes(bytes), "{step}");
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new(bytes).with_message(step);
        let template = "{msg} {wide_bar} {bytes}/{total_bytes} {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style); // Else it looks as it does by default.
        }
        Self(bar)
    }

    /// So many bytes are done, but no more than all.
    pub(super) fn set(&self, bytes: u64) {
        self.0.set_position(bytes.min(self.0.length().unwrap_or(bytes)));
    }

    /// Counts what is read.
    pub(super) fn wrap<R: Read>(&self, reader: R) -> impl Read {
        self.0.wrap_read(reader)
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}
