//! Colours on a terminal, and none elsewhere.

use std::borrow::Cow;

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use clap::builder::styling::{AnsiColor, Style as AnsiStyle};

/// Paints text, or leaves it as it is.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    on: bool,
}

impl Style {
    /// Colours when `stream` is a terminal that can show them and nobody asked
    /// for none: `NO_COLOR` (<https://no-color.org>), `CLICOLOR=0` and
    /// `TERM=dumb` turn them off, `CLICOLOR_FORCE` turns them on for any stream.
    pub fn for_stream(stream: &impl RawStream) -> Self {
        Self { on: AutoStream::choice(stream) != ColorChoice::Never }
    }

    /// Colours for standard output.
    pub fn stdout() -> Self {
        Self::for_stream(&std::io::stdout())
    }

    /// No colours.
    pub const fn plain() -> Self {
        Self { on: false }
    }

    /// Colours, whatever the terminal.
    #[cfg(test)]
    pub(super) const fn colours() -> Self {
        Self { on: true }
    }

    /// For what matters most.
    pub fn bold(self, text: &str) -> String {
        self.paint(AnsiStyle::new().bold(), text)
    }

    /// For what matters least.
    pub fn dim(self, text: &str) -> String {
        self.paint(AnsiStyle::new().dimmed(), text)
    }

    /// For bars.
    pub fn cyan(self, text: &str) -> String {
        self.paint(AnsiColor::Cyan.on_default(), text)
    }

    /// For what went well.
    pub fn green(self, text: &str) -> String {
        self.paint(AnsiColor::Green.on_default(), text)
    }

    /// For what should be looked at.
    pub fn yellow(self, text: &str) -> String {
        self.paint(AnsiColor::Yellow.on_default(), text)
    }

    /// For what went wrong.
    pub fn red(self, text: &str) -> String {
        self.paint(AnsiColor::Red.on_default(), text)
    }

    fn paint(self, style: AnsiStyle, text: &str) -> String {
        if self.on { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

/// Text from elsewhere made safe for a terminal: control characters could
/// move its cursor or change its title.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        Cow::Owned(text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paint_leaves_text_alone() {
        assert_eq!(Style::plain().red("no"), "no");
        assert_eq!(Style::colours().red("no"), "\u{1b}[31mno\u{1b}[0m");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb"), "a\u{fffd}[2Jb");
        assert_eq!(printable("año"), "año");
    }
}
