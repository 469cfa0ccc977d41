//! Tables with aligned columns.

use comfy_table::{Cell, CellAlignment, Column, presets};

use super::style::{Style, printable};

/// Spaces between two columns.
const GAP: u16 = 2;

/// How a column is set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Set {
    Text,
    Number,
    Bar,
}

/// A table. Columns line up as a terminal shows them, where the characters of
/// some scripts are two columns wide and others none.
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

    /// Adds a column of bars, set from the left and coloured. Columns of text
    /// stand to its left.
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
        let table = self.layout();
        let mut lines = table.lines();
        let mut text = paint.dim(lines.next().unwrap_or_default().trim_end());
        text.push('\n');
        for (line, cells) in lines.zip(&self.rows) {
            text.push_str(&self.with_colours(line.trim_end(), cells, paint));
            text.push('\n');
        }
        text
    }

    fn layout(&self) -> comfy_table::Table {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(self.columns.iter().map(|(name, _)| Cell::new(name)));
        table.add_rows(self.rows.iter().map(|row| row.iter().map(Cell::new)));
        for (column, (_, set)) in table.column_iter_mut().zip(&self.columns) {
            set_column(column, *set);
        }
        table
    }

    /// The line of a row with its bars coloured. They are looked for from the
    /// end of the line, where no text can look like one.
    fn with_colours(&self, line: &str, cells: &[String], paint: Style) -> String {
        let mut line = line.to_owned();
        let mut end = line.len();
        for (cell, (_, set)) in cells.iter().zip(&self.columns).rev() {
            if *set != Set::Bar || cell.is_empty() {
                continue;
            }
            let Some(start) = line[..end].rfind(cell.as_str()) else { continue };
            line.replace_range(start..start + cell.len(), &paint.cyan(cell));
            end = start;
        }
        line
    }
}

fn set_column(column: &mut Column, set: Set) {
    column.set_padding((0, GAP));
    column.set_cell_alignment(if set == Set::Number { CellAlignment::Right } else { CellAlignment::Left });
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

    /// 花子 takes four columns of a terminal, the flag two, and the accent none.
    #[test]
    fn wide_scripts_line_up() {
        let mut table = Table::new().text("user").number("events");
        for (user, events) in [("花子", "7"), ("ñandu\u{301}", "12"), ("김민준 씨", "345"), ("🇨🇱", "6")] {
            table.row([user.to_owned(), events.to_owned()]);
        }
        let lines = [
            "user       events",
            "花子            7",
            "ñandu\u{301}          12",
            "김민준 씨     345",
            "🇨🇱              6",
        ];
        assert_eq!(table.render(Style::plain()).lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn bars_are_coloured_and_take_no_more_room() {
        let mut table = Table::new().text("user").bar().number("clicks").bar();
        table.row(["█".to_owned(), "██".to_owned(), "1".to_owned(), "█".to_owned()]);
        table.row(["b".to_owned(), String::new(), "20".to_owned(), String::new()]);
        let (on, off) = ("\u{1b}[36m", "\u{1b}[0m");
        let row = format!("█     {on}██{off}       1  {on}█{off}");
        let heading = "\u{1b}[2muser      clicks\u{1b}[0m";
        assert_eq!(table.render(Style::colours()).lines().collect::<Vec<_>>(), [heading, &row, "b             20"]);
    }
}
