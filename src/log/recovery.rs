//! What a former run left in the log.

use std::fs::OpenOptions;
use std::io::{self, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use super::frame::FrameError;
use super::frames::open_whole;
use super::holders::Holders;
use super::kept::KeptFiles;
use super::salvage::Salvage;
use super::segment::{Ordinal, Segment, SegmentState, segment_path};
use super::tokenless;
use super::writer::sync_dir;
use crate::log::dedup_window::DedupWindow;
use crate::private_files;
use crate::trace::Calls;

/// Reads the directory. What was still open is cut after its last good frame
/// and sealed; it is never written to again. Of what is damaged, the good frames are stored without the
/// segment's token; where there are none, the file is kept beside.
pub(super) fn recover(dir: &Path, kept: &KeptFiles) -> io::Result<Vec<Segment>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        files.extend(SegmentFile::parse(entry?.path()));
    }
    // Ids are UUIDv7, so this is the order in which the segments were opened.
    files.sort_by_key(|file| file.id);
    let mut segments = Vec::new();
    for file in files {
        segments.extend(file.recover(dir, kept, segments.len() as Ordinal)?);
    }
    tokenless::forget_others(dir, |id| segments.iter().any(|segment: &Segment| segment.id == id))?;
    sync_dir(dir)?;
    Ok(segments)
}

/// Notes, for every segment of a log that is not open, that its token must not be relied on: the tables are others
/// than those that it was opened beside, as after a backup was restored. Returns how many segments there are.
///
/// # Errors
/// The disk's.
pub fn distrust_tokens(dir: &Path) -> io::Result<usize> {
    let mut segments = 0;
    for entry in std::fs::read_dir(dir)? {
        if let Some(file) = SegmentFile::parse(entry?.path()) {
            tokenless::note(dir, file.id)?;
            segments += 1;
        }
    }
    Ok(segments)
}

/// Writes to the log what is good of a damaged segment, and returns it in words.
pub(super) fn tell_salvage(segment: Uuid, salvage: &Salvage) -> String {
    let Salvage { rows, lost_bytes, .. } = salvage;
    tracing::error!(%segment, rows, lost_bytes, "a sealed segment is damaged; its good frames are stored");
    format!("the file is damaged: {rows} events are good and are stored, {lost_bytes} bytes are lost")
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
        let state = [SegmentState::Open, SegmentState::Sealed, SegmentState::Parked, SegmentState::Stored]
            .into_iter()
            .find(|state| extension == state.extension())?;
        Some(Self { id, state, path })
    }

    fn recover(self, dir: &Path, kept: &KeptFiles, ordinal: Ordinal) -> io::Result<Option<Segment>> {
        // A former release has made it readable for others.
        private_files::close_to_others(&self.path)?;
        let content = Content::read(&self.path)?;
        if content.id.is_some_and(|id| id != self.id) {
            tracing::error!(segment = %self.id, "a segment's file has another's name; it is parked");
            let error = "the file is not named after the segment in it: it may be a copy".to_owned();
            let segment = self.segment(dir, ordinal, content, SegmentState::Parked)?;
            return Ok(Some(Segment { last_error: Some(error), ..segment }));
        }
        if let Some(damage) = &content.damage
            && self.is_torn_end(&content)?
        {
            tracing::debug!(segment = %self.id, %damage, "the end of the log is torn");
            self.cut(kept, content.good_bytes)?;
        } else if let Some(damage) = &content.damage {
            return self.salvage(dir, kept, ordinal, content.dedup_window, damage);
        }
        if content.rows == 0 {
            std::fs::remove_file(&self.path)?;
            return Ok(None);
        }
        let state = if self.state == SegmentState::Open { SegmentState::Sealed } else { self.state };
        let mut segment = self.segment(dir, ordinal, content, state)?;
        if kept.has_damaged(self.id) {
            tracing::warn!(segment = %self.id, "a segment that was damaged is whole again; what is missing is stored");
            segment.dedup_window = DedupWindow::default();
        }
        Ok(Some(segment))
    }

    /// Whether what lies behind the good frames is what a crash leaves. Where whole frames follow, the disk is at
    /// fault, or events behind the damage were not acknowledged: they may be stored all the same.
    fn is_torn_end(&self, content: &Content) -> io::Result<bool> {
        if self.state != SegmentState::Open {
            return Ok(false);
        }
        let good = Salvage::of_file(&self.path, self.id)?.map_or(0, |salvage| salvage.rows);
        Ok(good <= content.rows)
    }

    /// What is good of a damaged file is to be stored.
    fn salvage(
        self,
        dir: &Path,
        kept: &KeptFiles,
        ordinal: Ordinal,
        dedup_window: DedupWindow,
        damage: &FrameError,
    ) -> io::Result<Option<Segment>> {
        let content_bytes = self.path.metadata()?.len();
        let found = Salvage::of_file(&self.path, self.id)?;
        // Who still needs a stored one must see the damage, also where nothing is good.
        let nothing_good = || (self.state == SegmentState::Stored).then(|| Salvage::nothing(content_bytes));
        let Some(salvage) = found.or_else(nothing_good) else {
            tracing::error!(segment = %self.id, %damage, "a segment is damaged, and nothing in it can be stored");
            kept.keep_damaged(self.id, &self.path)?;
            return Ok(None);
        };
        let error = tell_salvage(self.id, &salvage);
        // ClickHouse has a stored one. Who still needs it sees the damage.
        let state = if self.state == SegmentState::Stored { self.state } else { SegmentState::Sealed };
        let content = Content {
            id: Some(self.id),
            rows: salvage.rows,
            good_bytes: content_bytes,
            opened_at_micros: salvage.opened_at_micros,
            dedup_window,
            damage: None,
        };
        let segment = self.segment(dir, ordinal, content, state)?;
        Ok(Some(Segment { salvage: Some(Arc::new(salvage)), last_error: Some(error), ..segment }))
    }

    /// The segment in this state, under its name.
    fn segment(&self, dir: &Path, ordinal: Ordinal, content: Content, state: SegmentState) -> io::Result<Segment> {
        let path = segment_path(dir, self.id, state);
        if path != self.path {
            std::fs::rename(&self.path, &path)?;
        }
        Ok(Segment {
            id: self.id,
            ordinal,
            state,
            rows: content.rows,
            rows_written: content.rows,
            bytes: content.good_bytes,
            opened_at_micros: content.opened_at_micros,
            opened: Instant::now(),
            dedup_window: content.dedup_window,
            salvage: None,
            held_by: Holders::NONE,
            last_error: None,
            calls: Calls::default(),
            path,
        })
    }

    /// Cuts the file after its last good frame. What is cut was never
    /// acknowledged, unless the disk itself is at fault: it is kept beside, if there is room.
    fn cut(&self, kept: &KeptFiles, good_bytes: u64) -> io::Result<()> {
        let mut file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        let cut_bytes = file.seek(SeekFrom::End(0))?.saturating_sub(good_bytes);
        if cut_bytes == 0 {
            return Ok(()); // It was made ahead, and nobody has written to it.
        }
        file.seek(SeekFrom::Start(good_bytes))?;
        kept.keep_cut(self.id, cut_bytes, &mut file);
        file.set_len(good_bytes)?;
        file.sync_all()?;
        tracing::warn!(segment = %self.id, cut_bytes, "a torn end of the log was cut off");
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
    dedup_window: DedupWindow,
    damage: Option<FrameError>,
}

impl Content {
    fn read(path: &Path) -> io::Result<Self> {
        let mut content = Self {
            id: None,
            rows: 0,
            good_bytes: 0,
            opened_at_micros: 0,
            dedup_window: DedupWindow::default(),
            damage: None,
        };
        let mut reader = match open_whole(path) {
            Ok(reader) => reader,
            Err(FrameError::Io(error)) => return Err(error),
            Err(damage) => return Ok(Self { damage: Some(damage), ..content }),
        };
        content.id = Some(reader.header().id);
        content.opened_at_micros = reader.header().opened_at_micros;
        content.dedup_window = reader.header().dedup_window;
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
