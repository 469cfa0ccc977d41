//! Tables with aligned columns.

use super::style::{Style, printable};

/// How a column is set.
#[derive(Clone, Copy)]
enum Set {
    Text,
    Number,
    Bar,
}

/// A table. Widths are counted in characters, which is what terminals show
/// for nearly every script.
pub struct Table {
    columns: Vec<(&'static str, Set)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without columns.
    pub const fn new() -> Self {
        Self { columns: Vec::new(), rows: Vec::new() }
    }

    /// Adds a column of text, set from the left.
    #[must_use]
    pub fn text(mut self, name: &'static str) -> Self {
        self.columns.push((name, Set::Text));
        self
    }

    /// Adds a column of numbers, set from the right.
    #[must_use]
    pub fn number(mut self, name: &'static str) -> Self {
        self.columns.push((name, Set::Number));
        self
    }

    /// Adds a column of bars, set from the left and coloured.
    #[must_use]
    pub fn bar(mut self) -> Self {
        self.columns.push(("", Set::Bar));
        self
    }

    /// Adds a row: one cell for each column.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.columns.len(), "one cell for each column");
        self.rows.push(cells.iter().map(|cell| printable(cell).into_owned()).collect());
    }

    /// Whether there are no rows.
    pub const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as lines of text, headings first.
    pub fn render(&self, paint: Style) -> String {
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|i| {
                let cells = self.rows.iter().filter_map(|row| row.get(i));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(self.columns[i].0.chars().count())
            })
            .collect();
        let headings: Vec<String> = self.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut text = paint.dim(self.line(&headings, &widths, Style::plain()).trim_end());
        text.push('\n');
        for row in &self.rows {
            text.push_str(self.line(row, &widths, paint).trim_end());
            text.push('\n');
        }
        text
    }

    fn line(&self, cells: &[String], widths: &[usize], paint: Style) -> String {
        let mut line = String::new();
        for ((cell, width), (_, set)) in cells.iter().zip(widths).zip(&self.columns) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            let space = " ".repeat(width.saturating_sub(cell.chars().count()));
            match set {
                Set::Text => line.extend([cell.as_str(), &space]),
                Set::Number => line.extend([space.as_str(), cell]),
                Set::Bar => line.extend([paint.cyan(cell).as_str(), &space]),
            }
        }
        line
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new().text("user").number("events").bar();
        table.row(["anna".to_owned(), "1,204".to_owned(), "███▌".to_owned()]);
        table.row(["b".to_owned(), "7".to_owned(), "▏".to_owned()]);
        assert_eq!(table.render(Style::plain()), "user  events\nanna   1,204  ███▌\nb          7  ▏\n");
    }
}
