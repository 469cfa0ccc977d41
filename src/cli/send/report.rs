//! Reports the verdicts: as text, as JSON, and as files of rejected and conflicting lines.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::ndjson::Unreadable;
use super::unknown_fields::{FieldOccurrences, UnknownFields, meant};
use crate::cli::sparkline::grouped;
use crate::cli::style::{Style, printable};
use crate::cli::time_args::readable_duration;
use crate::transport::proto;

/// How many rejected lines are shown and kept in memory.
pub const SHOWN_MAX: usize = 20;

/// A rejected line, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RejectedLine {
    /// The line's number, from 1.
    pub line: u64,
    /// The event's id; empty when it has none.
    pub event_id: String,
    /// `NOT_JSON` and `TOO_LONG` come from this command, `INVALID` from it or from the service,
    /// others from the service.
    pub code: String,
    /// Every invalid field.
    pub errors: Vec<LineError>,
    /// The line itself, if it was kept.
    pub text: String,
}

/// An invalid field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LineError {
    /// The field; `line` for the line as a whole.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl RejectedLine {
    /// A line that could not be read.
    pub fn unreadable(line: u64, unreadable: Unreadable, text: String) -> Self {
        let errors = unreadable.errors.into_iter();
        let errors = errors.map(|error| LineError { field: error.field, message: error.message }).collect();
        Self { line, event_id: unreadable.event_id, code: unreadable.code.to_owned(), errors, text }
    }

    /// A line that the service rejected.
    pub fn by_service(line: u64, result: proto::EventResult, text: String) -> Self {
        let code = code_name(result.code());
        let errors = result.errors.into_iter();
        let mut errors: Vec<LineError> =
            errors.map(|error| LineError { field: error.field, message: error.message }).collect();
        if errors.is_empty() {
            let message = "is rejected; the answer had no room for the reasons: send it again in a smaller batch";
            errors.push(LineError { field: "line".to_owned(), message: message.to_owned() });
        }
        Self { line, event_id: result.event_id, code: code.to_owned(), errors, text }
    }

    /// The reasons in one line of text.
    pub fn reasons(&self) -> String {
        let reasons: Vec<String> =
            self.errors.iter().map(|fault| format!("{} {}", fault.field, fault.message)).collect();
        printable(&reasons.join("; ")).into_owned()
    }
}

/// A line whose id is stored with another payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConflictingLine {
    /// The line's number, from 1.
    pub line: u64,
    /// The event's id.
    pub event_id: String,
}

/// Files for rejected and conflicting lines.
#[derive(Clone, Copy, Debug, Default)]
pub struct Files<'a> {
    /// Every rejected line.
    pub rejected: Option<&'a Path>,
    /// Every conflicting line.
    pub conflicts: Option<&'a Path>,
}

/// The name of a code in JSON.
pub fn code_name(code: proto::RejectionCode) -> &'static str {
    match code {
        proto::RejectionCode::Unspecified => "",
        proto::RejectionCode::Invalid => "INVALID",
        proto::RejectionCode::TooOld => "TOO_OLD",
        proto::RejectionCode::InFuture => "IN_FUTURE",
        proto::RejectionCode::Schema => "SCHEMA",
        proto::RejectionCode::UnknownType => "UNKNOWN_TYPE",
    }
}

/// The numbers of verdicts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// New and counted.
    pub accepted: u64,
    /// Already stored with the same payload.
    pub duplicate: u64,
    /// Already stored with another payload.
    pub conflict: u64,
    /// Invalid.
    pub rejected: u64,
    /// Undecided by the service every time they were sent.
    pub undecided: u64,
    /// Perhaps sent, but not answered.
    pub unanswered: u64,
}

impl Counts {
    /// Lines with a verdict.
    pub const fn decided(&self) -> u64 {
        self.accepted + self.duplicate + self.conflict + self.rejected
    }
}

/// The result of sending.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// The verdicts.
    pub counts: Counts,
    /// How often the connection was re-established.
    pub reconnects: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// The first rejected lines.
    pub first_rejected: Vec<RejectedLine>,
    /// The first conflicting lines.
    pub first_conflicts: Vec<ConflictingLine>,
    /// Unknown fields.
    pub unknown_fields: UnknownFields,
}

impl Summary {
    /// Lines answered per second.
    pub fn events_per_second(&self) -> f64 {
        self.counts.decided() as f64 / self.elapsed.as_secs_f64().max(0.001)
    }

    /// As JSON.
    pub fn to_json(&self) -> serde_json::Value {
        let mut value = json!(self.counts);
        value["reconnects"] = self.reconnects.into();
        value["seconds"] = json!(self.elapsed.as_secs_f64());
        value["events_per_second"] = json!(self.events_per_second().round());
        let mut lines = json!(self.first_rejected);
        for line in lines.as_array_mut().into_iter().flatten().filter_map(|line| line.as_object_mut()) {
            // It is only kept for the file of rejects.
            line.remove("text");
        }
        value["first_rejected"] = lines;
        value["first_conflicts"] = json!(self.first_conflicts);
        let unknown = self.unknown_fields.iter();
        value["unknown_fields"] = unknown
            .map(|(field, FieldOccurrences { lines, first })| json!({ "field": field, "lines": lines, "first_line": first }))
            .collect();
        value
    }

    /// As text, with at most this many rejected lines.
    pub fn render(&self, shown_max: usize, paint: Style) -> String {
        type Colour = fn(Style, &str) -> String;
        let counts = &self.counts;
        let always: [(&str, u64, Colour, &str); 4] = [
            ("accepted", counts.accepted, Style::green, "new and counted"),
            ("duplicate", counts.duplicate, Style::dim, "already stored, not counted again"),
            ("conflict", counts.conflict, Style::yellow, "already stored with another payload; the first stays"),
            ("rejected", counts.rejected, Style::red, "invalid, not stored"),
        ];
        let sometimes: [(&str, u64, Colour, &str); 2] = [
            ("undecided", counts.undecided, Style::red, "could not be decided; send them again later"),
            ("unanswered", counts.unanswered, Style::red, "not answered; send them again"),
        ];
        let sometimes = sometimes.into_iter().filter(|(_, count, ..)| *count > 0);
        let mut text = String::new();
        for (name, count, colour, meaning) in always.into_iter().chain(sometimes) {
            let line = format!("{name:<10} {:>13}", grouped(count));
            let line = if count == 0 { paint.dim(&line) } else { colour(paint, &line) };
            text.push_str(&format!("{line}  {}\n", paint.dim(meaning)));
        }
        let reconnects =
            if self.reconnects > 0 { format!(", {} reconnects", grouped(self.reconnects)) } else { String::new() };
        text.push_str(&format!(
            "{}, {:.0} events/s{reconnects}\n",
            readable_duration(self.elapsed),
            self.events_per_second()
        ));
        text + &self.render_rejected(shown_max, paint)
            + &self.render_conflicts(shown_max, paint)
            + &self.render_unknown_fields(paint)
    }

    fn render_conflicts(&self, shown_max: usize, paint: Style) -> String {
        let shown = &self.first_conflicts[..shown_max.min(self.first_conflicts.len())];
        let mut text = String::new();
        if !shown.is_empty() {
            text.push_str("conflicts (the first event stays):\n");
        }
        for line in shown {
            text.push_str(&format!("  line {:<9} {}\n", line.line, printable(&line.event_id)));
        }
        let more = self.counts.conflict.saturating_sub(shown.len() as u64);
        if more > 0 && !shown.is_empty() {
            text.push_str(&paint.dim(&format!("  … and {} more (--conflicts FILE writes all)\n", grouped(more))));
        }
        text
    }

    fn render_unknown_fields(&self, paint: Style) -> String {
        let mut text = String::new();
        for (field, FieldOccurrences { lines, first }) in self.unknown_fields.iter() {
            if text.is_empty() {
                text.push_str("unknown fields, which are not stored (--strict rejects their lines):\n");
            }
            let noun = if lines == 1 { "line" } else { "lines" };
            let meant = meant(field).map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
            let line = format!("  {} in {} {noun}, first in line {first}{meant}\n", printable(field), grouped(lines));
            text.push_str(&paint.yellow(&line));
        }
        text
    }

    fn render_rejected(&self, shown_max: usize, paint: Style) -> String {
        let shown = &self.first_rejected[..shown_max.min(self.first_rejected.len())];
        let mut text = String::new();
        if !shown.is_empty() {
            text.push_str("rejected:\n");
        }
        for line in shown {
            let id = if line.event_id.is_empty() { "(no id)".into() } else { printable(&line.event_id) };
            text.push_str(&format!("  line {:<9} {id}  {} {}\n", line.line, paint.red(&line.code), line.reasons()));
        }
        let more = self.counts.rejected.saturating_sub(shown.len() as u64);
        if more > 0 {
            text.push_str(&paint.dim(&format!("  … and {} more (--rejected FILE writes all)\n", grouped(more))));
        }
        text
    }
}

/// Collects the verdicts of lines.
#[derive(Default)]
pub struct Report {
    /// The verdicts so far.
    pub counts: Counts,
    /// The first rejected lines.
    pub first_rejected: Vec<RejectedLine>,
    /// The first conflicting lines.
    pub first_conflicts: Vec<ConflictingLine>,
    /// Unknown fields.
    pub unknown_fields: UnknownFields,
    rejected: Option<BufWriter<File>>,
    conflicts: Option<BufWriter<File>>,
}

impl Report {
    /// A report that also writes lines to these files.
    pub fn new(files: Files<'_>) -> io::Result<Self> {
        let create = |path: Option<&Path>| path.map(File::create).transpose().map(|file| file.map(BufWriter::new));
        let (rejected, conflicts) = (create(files.rejected)?, create(files.conflicts)?);
        Ok(Self { rejected, conflicts, ..Self::default() })
    }

    /// Whether the texts of rejected lines are required.
    pub const fn wants_text(&self) -> bool {
        self.rejected.is_some()
    }

    /// Records a rejected line.
    pub fn reject(&mut self, line: RejectedLine) -> io::Result<()> {
        self.counts.rejected += 1;
        write_line(self.rejected.as_mut(), &line)?;
        if self.first_rejected.len() < SHOWN_MAX {
            self.first_rejected.push(RejectedLine { text: String::new(), ..line });
        }
        Ok(())
    }

    /// Records a conflicting line. (Its verdict has been counted.)
    pub fn conflict(&mut self, line: ConflictingLine) -> io::Result<()> {
        write_line(self.conflicts.as_mut(), &line)?;
        if self.first_conflicts.len() < SHOWN_MAX {
            self.first_conflicts.push(line);
        }
        Ok(())
    }

    /// Flushes the files.
    pub fn flush(&mut self) -> io::Result<()> {
        [&mut self.rejected, &mut self.conflicts].into_iter().flatten().try_for_each(io::Write::flush)
    }
}

fn write_line(file: Option<&mut BufWriter<File>>, line: &impl Serialize) -> io::Result<()> {
    let Some(file) = file else { return Ok(()) };
    serde_json::to_writer(&mut *file, line)?;
    file.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(line: u64) -> RejectedLine {
        let errors = vec![LineError { field: "type".to_owned(), message: "is required".to_owned() }];
        RejectedLine { line, event_id: "e\n1".to_owned(), code: "INVALID".to_owned(), errors, text: "{}".to_owned() }
    }

    #[test]
    fn every_rejected_line_is_written_and_the_first_are_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut report = Report::new(Files { rejected: Some(file.path()), conflicts: None }).unwrap();
        (1..=25).for_each(|line| report.reject(rejected(line)).unwrap());
        report.flush().unwrap();
        let written = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(written.lines().count(), 25);
        assert_eq!(
            written.lines().next().unwrap(),
            r#"{"line":1,"event_id":"e\n1","code":"INVALID","errors":[{"field":"type","message":"is required"}],"text":"{}"}"#
        );
        let summary = Summary { counts: report.counts, first_rejected: report.first_rejected, ..Summary::default() };
        let shown = summary.render(SHOWN_MAX, Style::plain());
        assert!(shown.contains("  line 20        e\u{fffd}1  INVALID type is required\n"), "{shown}");
        assert!(shown.contains("… and 5 more"), "{shown}");
        assert_eq!(summary.to_json()["rejected"], 25);
        assert_eq!(summary.to_json()["first_rejected"][0]["line"], 1);
    }

    #[test]
    fn the_summary_speaks_of_trouble_only_when_there_is_some() {
        let counts = Counts { accepted: 1_234, ..Counts::default() };
        let mut summary = Summary { counts, elapsed: Duration::from_secs(2), ..Summary::default() };
        assert!(summary.render(SHOWN_MAX, Style::plain()).starts_with("accepted           1,234  new and counted\n"));
        assert!(!summary.render(SHOWN_MAX, Style::plain()).contains("undecided"));
        summary.counts.undecided = 1;
        assert!(summary.render(SHOWN_MAX, Style::plain()).contains("undecided"));
        assert!((summary.events_per_second() - 617.0).abs() < 0.1);
    }
}
