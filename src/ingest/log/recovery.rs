//! What a former run left in the log.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Instant;

use uuid::Uuid;

use super::frame::{FrameError, SegmentReader};
use super::segment::{Ordinal, Segment, SegmentState, segment_path};
use super::writer::sync_dir;
use crate::ingest::terms::TokenTerms;
use crate::trace::Calls;

const READ_BUFFER_BYTES: usize = 256 << 10;

/// Reads the directory. What was still open is cut after its last good frame
/// and sealed; it is never written to again. What was frozen and is damaged is
/// parked: it holds acknowledged events, so a person must look.
pub(super) fn recover(dir: &Path) -> io::Result<Vec<Segment>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        files.extend(SegmentFile::parse(entry?.path()));
    }
    // Ids are UUIDv7, so this is the order in which the segments were opened.
    files.sort_by_key(|file| file.id);
    let mut segments = Vec::new();
    for file in files {
        segments.extend(file.recover(dir, segments.len() as Ordinal)?);
    }
    sync_dir(dir)?;
    Ok(segments)
}

struct SegmentFile {
    id: Uuid,
    state: SegmentState,
    path: PathBuf,
}

impl SegmentFile {
    fn parse(path: PathBuf) -> Option<Self> {
        let id = Uuid::parse_str(path.file_stem()?.to_str()?).ok()?;
        let extension = path.extension()?;
        let state = [SegmentState::Open, SegmentState::Sealed, SegmentState::Parked]
            .into_iter()
            .find(|state| extension == state.extension())?;
        Some(Self { id, state, path })
    }

    fn recover(self, dir: &Path, ordinal: Ordinal) -> io::Result<Option<Segment>> {
        let content = Content::read(&self.path)?;
        let mut last_error = None;
        let is_renamed = content.id.is_some_and(|id| id != self.id);
        let state = match (self.state, content.damage) {
            _ if is_renamed => {
                tracing::error!(segment = %self.id, "a segment's file has another's name; it is parked");
                last_error = Some("the file is not named after the segment in it: it may be a copy".to_owned());
                SegmentState::Parked
            }
            (SegmentState::Open, damage) => {
                if damage.is_some() {
                    self.cut(dir, content.good_bytes)?;
                }
                SegmentState::Sealed
            }
            (state, None) => state,
            (_, Some(damage)) => {
                tracing::error!(segment = %self.id, %damage, "a sealed segment is damaged; it is parked");
                last_error = Some(damage.to_string());
                SegmentState::Parked
            }
        };
        if content.rows == 0 && last_error.is_none() {
            std::fs::remove_file(&self.path)?;
            return Ok(None);
        }
        let path = segment_path(dir, self.id, state);
        if path != self.path {
            std::fs::rename(&self.path, &path)?;
        }
        Ok(Some(Segment {
            id: self.id,
            ordinal,
            state,
            rows: content.rows,
            bytes: content.good_bytes,
            opened_at_micros: content.opened_at_micros,
            opened: Instant::now(),
            terms: content.terms,
            last_error,
            calls: Calls::default(),
            path,
        }))
    }

    /// Cuts the file after its last good frame. What is cut was never
    /// acknowledged, unless the disk itself is at fault: it is kept beside.
    fn cut(&self, dir: &Path, good_bytes: u64) -> io::Result<()> {
        let mut file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        if file.seek(SeekFrom::End(0))? == good_bytes {
            return Ok(()); // It was made ahead, and nobody has written to it.
        }
        file.seek(SeekFrom::Start(good_bytes))?;
        let kept = dir.join(format!("{}.cut", self.id));
        let cut_bytes = io::copy(&mut file, &mut File::create(&kept)?)?;
        file.set_len(good_bytes)?;
        file.sync_all()?;
        tracing::warn!(segment = %self.id, cut_bytes, kept = %kept.display(), "a torn end of the log was cut off");
        Ok(())
    }
}

/// What a segment file holds.
struct Content {
    /// As the file says; none when it cannot be read so far.
    id: Option<Uuid>,
    rows: u64,
    good_bytes: u64,
    opened_at_micros: u64,
    terms: TokenTerms,
    damage: Option<FrameError>,
}

impl Content {
    fn read(path: &Path) -> io::Result<Self> {
        let mut content =
            Self { id: None, rows: 0, good_bytes: 0, opened_at_micros: 0, terms: TokenTerms::default(), damage: None };
        let mut reader = match open_segment(path) {
            Ok(reader) => reader,
            Err(FrameError::Io(error)) => return Err(error),
            Err(damage) => return Ok(Self { damage: Some(damage), ..content }),
        };
        content.id = Some(reader.header().id);
        content.opened_at_micros = reader.header().opened_at_micros;
        content.terms = reader.header().terms;
        let mut rows = Vec::new();
        loop {
            rows.clear();
            match reader.next_frame(&mut rows) {
                Ok(Some(count)) => content.rows += u64::from(count),
                Ok(None) => break,
                Err(FrameError::Io(error)) => return Err(error),
                Err(damage) => {
                    content.damage = Some(damage);
                    break;
                }
            }
        }
        content.good_bytes = reader.good_bytes();
        Ok(content)
    }
}

/// Opens a segment's file for reading.
pub fn open_segment(path: &Path) -> Result<SegmentReader<impl Read + use<>>, FrameError> {
    let file = File::open(path)?;
    SegmentReader::new(BufReader::with_capacity(READ_BUFFER_BYTES, file))
}
