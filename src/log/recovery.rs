//! What a former run left in the log.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tallyhouse_disk::{Disk, RealDisk, read_file};
use uuid::Uuid;

use super::frame::FrameError;
use super::frames::open_whole;
use super::holders::Holders;
use super::kept::KeptFiles;
use super::lanes::Lane;
use super::salvage::Salvage;
use super::segment::{Ordinal, Segment, SegmentState};
use super::segment_file::{SegmentFile, segment_path};
use super::tokenless;
use crate::log::dedup_window::DedupWindow;
use crate::trace::Calls;

/// Reads the directory. What was still open is cut after its last good frame
/// and sealed; it is never written to again. Of what is damaged, the good frames are stored without the
/// segment's token; where there are none, the file is kept beside.
pub(super) fn recover(disk: &Arc<dyn Disk>, dir: &Path, kept: &KeptFiles) -> io::Result<Vec<Segment>> {
    let mut files = FoundFile::all(&**disk, dir)?;
    // Ids are UUIDv7, so this is the order in which the segments were opened. Of one segment, the name that it got
    // last comes first.
    files.sort_by_key(|file| (file.id, std::cmp::Reverse(file.progress())));
    let mut segments = Vec::new();
    for file in FoundFile::keep_one_name(disk, kept, files)? {
        let recovery = Recovery { disk, dir, kept, file, ordinal: segments.len() as Ordinal };
        segments.extend(recovery.run()?);
    }
    tokenless::forget_others(&**disk, dir, |id| segments.iter().any(|segment: &Segment| segment.id == id))?;
    disk.sync_dir(dir)?;
    Ok(segments)
}

/// Notes, for every segment of a log that is not open, that its token must not be relied on: the tables are others
/// than those that it was opened beside, as after a backup was restored. Returns how many segments there are.
///
/// # Errors
/// The disk's.
pub fn distrust_tokens(dir: &Path) -> io::Result<usize> {
    let files = FoundFile::all(&RealDisk, dir)?;
    files.iter().try_for_each(|file| tokenless::note(&RealDisk, dir, file.id))?;
    Ok(files.len())
}

/// The files of a log that is not open which hold segments.
pub(super) fn segment_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(FoundFile::all(&RealDisk, dir)?.into_iter().map(|file| file.path).collect())
}

/// Writes to the log what is good of a damaged segment, and returns it in words.
pub(super) fn tell_salvage(segment: Uuid, salvage: &Salvage) -> String {
    let Salvage { rows, lost_bytes, .. } = salvage;
    tracing::error!(%segment, rows, lost_bytes, "a sealed segment is damaged; its good frames are stored");
    format!("the file is damaged: {rows} events are good and are stored, {lost_bytes} bytes are lost")
}

/// A file of the log's directory that is named after a segment.
struct FoundFile {
    id: Uuid,
    state: SegmentState,
    path: PathBuf,
}

impl FoundFile {
    fn all(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<Self>> {
        let files = disk.list(dir)?;
        Ok(files.into_iter().filter_map(|file| Self::parse(dir.join(file.name))).collect())
    }

    fn parse(path: PathBuf) -> Option<Self> {
        let id = Uuid::parse_str(path.file_stem()?.to_str()?).ok()?;
        let extension = path.extension()?;
        let state = [SegmentState::Open, SegmentState::Sealed, SegmentState::Parked, SegmentState::Stored]
            .into_iter()
            .find(|state| extension == state.extension())?;
        Some(Self { id, state, path })
    }

    /// How far the segment is, by this name.
    const fn progress(&self) -> u8 {
        match self.state {
            SegmentState::Open => 0,
            SegmentState::Sealed | SegmentState::Inserting => 1,
            SegmentState::Parked => 2,
            SegmentState::Stored => 3,
        }
    }

    /// Of files with the same id, keeps the first. A power failure may leave a file that was renamed twice with its
    /// first and its last name; others than those may be a copy, and are kept for a person to look at.
    fn keep_one_name(disk: &Arc<dyn Disk>, kept: &KeptFiles, files: Vec<Self>) -> io::Result<Vec<Self>> {
        let mut named: Vec<Self> = Vec::with_capacity(files.len());
        for file in files {
            match named.last().filter(|last| last.id == file.id) {
                None => named.push(file),
                Some(last) if read_file(&**disk, &last.path)? == read_file(&**disk, &file.path)? => {
                    disk.remove(&file.path)?;
                }
                Some(last) => {
                    let (kept_name, other) = (last.path.display(), file.path.display());
                    tracing::error!(segment = %file.id, %kept_name, %other, "two files of one segment differ");
                    kept.keep_damaged(file.id, &file.path)?;
                }
            }
        }
        Ok(named)
    }
}

/// The recovery of one segment.
struct Recovery<'a> {
    disk: &'a Arc<dyn Disk>,
    dir: &'a Path,
    kept: &'a KeptFiles,
    file: FoundFile,
    ordinal: Ordinal,
}

impl Recovery<'_> {
    fn run(&self) -> io::Result<Option<Segment>> {
        let FoundFile { id, state, path } = &self.file;
        if *state == SegmentState::Open {
            // A process that was killed may have left frames that are not synced. What is found counts as known from
            // now on, so it has to survive a power failure.
            self.disk.open(path)?.sync_all()?;
        }
        let content = Content::read(self.disk, path)?;
        if content.id.is_some_and(|found| found != *id) {
            tracing::error!(segment = %id, "a segment's file has another's name; it is parked");
            let error = "the file is not named after the segment in it: it may be a copy".to_owned();
            let segment = self.segment(content, SegmentState::Parked)?;
            return Ok(Some(Segment { last_error: Some(error), ..segment }));
        }
        if let Some(damage) = &content.damage
            && self.is_torn_end(&content)?
        {
            tracing::debug!(segment = %id, %damage, "the end of the log is torn");
            self.cut(content.good_bytes)?;
        } else if let Some(damage) = &content.damage {
            return self.salvage(content.dedup_window, damage);
        }
        if content.rows == 0 {
            self.disk.remove(path)?;
            return Ok(None);
        }
        let state = if *state == SegmentState::Open { SegmentState::Sealed } else { *state };
        let mut segment = self.segment(content, state)?;
        if self.kept.has_damaged(*id) {
            tracing::warn!(segment = %id, "a segment that was damaged is whole again; what is missing is stored");
            segment.dedup_window = DedupWindow::default();
        }
        Ok(Some(segment))
    }

    fn find_good(&self) -> io::Result<Option<Salvage>> {
        Salvage::of(&*SegmentFile::new(self.disk, self.file.path.clone()), self.file.id)
    }

    /// Whether what lies behind the good frames is what a crash leaves. Where whole frames follow, the disk is at
    /// fault, or events behind the damage were not acknowledged: they may be stored all the same.
    fn is_torn_end(&self, content: &Content) -> io::Result<bool> {
        if self.file.state != SegmentState::Open {
            return Ok(false);
        }
        let good = self.find_good()?.map_or(0, |salvage| salvage.rows);
        Ok(good <= content.rows)
    }

    /// What is good of a damaged file is to be stored.
    fn salvage(&self, dedup_window: DedupWindow, damage: &FrameError) -> io::Result<Option<Segment>> {
        let FoundFile { id, state, path } = &self.file;
        let content_bytes = self.disk.open(path)?.bytes()?;
        // Who still needs a stored one must see the damage, also where nothing is good.
        let nothing_good = || (*state == SegmentState::Stored).then(|| Salvage::nothing(content_bytes));
        let Some(salvage) = self.find_good()?.or_else(nothing_good) else {
            tracing::error!(segment = %id, %damage, "a segment is damaged, and nothing in it can be stored");
            self.kept.keep_damaged(*id, path)?;
            return Ok(None);
        };
        let error = tell_salvage(*id, &salvage);
        // ClickHouse has a stored one. Who still needs it sees the damage.
        let state = if *state == SegmentState::Stored { *state } else { SegmentState::Sealed };
        let content = Content {
            id: Some(*id),
            rows: salvage.rows,
            good_bytes: content_bytes,
            opened_at_micros: salvage.opened_at_micros,
            dedup_window,
            damage: None,
        };
        let segment = self.segment(content, state)?;
        Ok(Some(Segment { salvage: Some(Arc::new(salvage)), last_error: Some(error), ..segment }))
    }

    /// The segment in this state, under its name.
    fn segment(&self, content: Content, state: SegmentState) -> io::Result<Segment> {
        let path = segment_path(self.dir, self.file.id, state);
        if path != self.file.path {
            self.disk.rename(&self.file.path, &path)?;
        }
        Ok(Segment {
            id: self.file.id,
            ordinal: self.ordinal,
            state,
            lane: Lane::Unknown,
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
            source: SegmentFile::new(self.disk, path),
        })
    }

    /// Cuts the file after its last good frame. What is cut was never
    /// acknowledged, unless the disk itself is at fault: it is kept beside, if there is room.
    fn cut(&self, good_bytes: u64) -> io::Result<()> {
        let file = self.disk.open(&self.file.path)?;
        let cut_bytes = file.bytes()?.saturating_sub(good_bytes);
        if cut_bytes == 0 {
            return Ok(()); // It was made ahead, and nobody has written to it.
        }
        self.kept.keep_cut(self.file.id, &*file, good_bytes, cut_bytes);
        file.set_len(good_bytes)?;
        file.sync_all()?;
        tracing::warn!(segment = %self.file.id, cut_bytes, "a torn end of the log was cut off");
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
    fn read(disk: &Arc<dyn Disk>, path: &Path) -> io::Result<Self> {
        let mut content = Self {
            id: None,
            rows: 0,
            good_bytes: 0,
            opened_at_micros: 0,
            dedup_window: DedupWindow::default(),
            damage: None,
        };
        let mut reader = match open_whole(&*SegmentFile::new(disk, path.to_owned())) {
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
