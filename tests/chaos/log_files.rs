//! Harm done to the log's files while the service is down.
//!
//! The format is read here anew, from its description, not with the service's
//! own code.

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

/// A file, before it was harmed.
pub(crate) struct Original {
    pub(crate) path: PathBuf,
    bytes: Vec<u8>,
}

impl Original {
    /// Puts it back, under this state.
    pub(crate) fn restore(&self, state: &str) -> Result<()> {
        Ok(std::fs::write(self.path.with_extension(state), &self.bytes)?)
    }

    pub(crate) fn in_state(&self, state: &str) -> PathBuf {
        self.path.with_extension(state)
    }
}

/// Flips a bit of an acknowledged frame of a segment in this state; none when
/// there is no such frame.
pub(crate) fn flip(dir: &Path, state: &str, random: &mut StdRng) -> Result<Option<Original>> {
    for path in segments(dir, state)?.into_iter().rev() {
        let bytes = std::fs::read(&path)?;
        let frames = frames(&bytes);
        if frames.is_empty() {
            continue;
        }
        let frame = frames[random.random_range(0..frames.len())].clone();
        let mut harmed = bytes.clone();
        flip_bit(harmed.get_mut(frame).context("a frame")?, random);
        std::fs::write(&path, harmed)?;
        return Ok(Some(Original { path, bytes }));
    }
    Ok(None)
}
