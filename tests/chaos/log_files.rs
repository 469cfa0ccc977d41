//! Harm done to the log's files while the service is down.
//!
//! The format is read here anew, from its description, not with the service's
//! own code.

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::fault::Tear;

/// The segments in this state, oldest first. (An empty file was made ahead,
/// and is no segment yet.)
pub(crate) fn segments(dir: &Path, state: &str) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == state) && entry.metadata()?.len() > 0 {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Where the frames of a segment are.
fn frames(bytes: &[u8]) -> Vec<Range<usize>> {
    let length = |at: usize| {
        let bytes = bytes.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
    };
    let mut frames = Vec::new();
    let Some(mut at) = length(8).map(|header| 16 + header) else { return frames };
    while let Some(end) = length(at).map(|length| at + 8 + length).filter(|end| *end <= bytes.len()) {
        frames.push(at..end);
        at = end;
    }
    frames
}

/// Leaves behind the last good frame what a crash may leave. Returns the file,
/// or none when there is no log to harm.
pub(crate) fn tear(dir: &Path, how: Tear, random: &mut StdRng) -> Result<Option<PathBuf>> {
    if matches!(how, Tear::HalfHeader) {
        let path = dir.join(format!("{}.open", uuid::Uuid::now_v7()));
        let header = b"TALLYSG2\x80\0\0\0\x12\x34\x56\x78 and some of its body";
        std::fs::write(&path, &header[..random.random_range(0..header.len())])?;
        return Ok(Some(path));
    }
    let path = match segments(dir, "open")?.pop() {
        Some(open) => open,
        // A name is not synced: after a power failure it may be the old one.
        None => {
            let Some(sealed) = segments(dir, "sealed")?.pop() else { return Ok(None) };
            let open = sealed.with_extension("open");
            std::fs::rename(sealed, &open)?;
            open
        }
    };
    let mut bytes = std::fs::read(&path)?;
    let last = frames(&bytes).pop().map(|last| bytes[last].to_vec());
    match (how, last) {
        (Tear::Zeros, _) => bytes.resize(bytes.len() + random.random_range(1..5_000), 0),
        (Tear::HalfFrame, Some(frame)) => bytes.extend_from_slice(&frame[..random.random_range(1..frame.len())]),
        (Tear::FlippedFrame, Some(mut frame)) => {
            flip_bit(&mut frame[4..], random);
            bytes.extend_from_slice(&frame);
        }
        _ => bytes.extend((0..random.random_range(1..100)).map(|_| random.random::<u8>())),
    }
    std::fs::write(&path, bytes)?;
    Ok(Some(path))
}

fn flip_bit(bytes: &mut [u8], random: &mut StdRng) {
    let at = random.random_range(0..bytes.len());
    bytes[at] ^= 1 << random.random_range(0..8);
}

/// A segment of which a bit has flipped.
pub(crate) struct Flipped {
    pub(crate) path: PathBuf,
    /// The ids of the events of that frame.
    pub(crate) lost: HashSet<String>,
}

/// Flips a bit of an acknowledged frame of a segment in this state; none when
/// there is no such frame.
pub(crate) fn flip(dir: &Path, state: &str, random: &mut StdRng) -> Result<Option<Flipped>> {
    for path in segments(dir, state)?.into_iter().rev() {
        let mut bytes = std::fs::read(&path)?;
        let frames = frames(&bytes);
        if frames.is_empty() {
            continue;
        }
        let frame = frames[random.random_range(0..frames.len())].clone();
        let lost = ids(bytes.get(frame.start + 12..frame.end).context("rows")?).context("rows")?;
        flip_bit(bytes.get_mut(frame).context("a frame")?, random);
        std::fs::write(&path, bytes)?;
        return Ok(Some(Flipped { path, lost }));
    }
    Ok(None)
}

/// The event ids of rows in RowBinary: organization and id, five texts, time and seq, properties, version of
/// the type and of the row.
fn ids(mut rows: &[u8]) -> Option<HashSet<String>> {
    let mut ids = HashSet::new();
    while !rows.is_empty() {
        text(&mut rows)?;
        ids.insert(String::from_utf8(text(&mut rows)?.to_vec()).ok()?);
        for _ in 0..5 {
            text(&mut rows)?;
        }
        rows = rows.get(16..)?;
        text(&mut rows)?;
        rows = rows.get(12..)?;
    }
    Some(ids)
}

/// A text behind its length.
fn text<'a>(rows: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        let (byte, rest) = rows.split_first()?;
        *rows = rest;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
    }
    let (text, rest) = rows.split_at_checked(length)?;
    *rows = rest;
    Some(text)
}
