//! A file as a stream.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use super::DiskFile;

/// Reads a file from a place that moves on.
pub struct DiskReader {
    file: Arc<dyn DiskFile>,
    offset: u64,
}

impl DiskReader {
    /// From the beginning.
    pub const fn new(file: Arc<dyn DiskFile>) -> Self {
        Self { file, offset: 0 }
    }
}

impl Read for DiskReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

impl Seek for DiskReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(by) => self.offset.checked_add_signed(by),
            SeekFrom::End(by) => self.file.bytes()?.checked_add_signed(by),
        };
        self.offset = place.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.offset)
    }
}
