//! The open segment of a lane, as its writer has it.

use std::io;
use std::sync::Arc;

use tallyhouse_disk::DiskFile;
use uuid::Uuid;

use super::segment::Ordinal;

/// The segment that is written to.
pub(super) struct OpenSegment {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) id: Uuid,
    pub(super) ordinal: Ordinal,
    pub(super) header: Vec<u8>,
    pub(super) rows: u64,
    /// Bytes that are known to be on disk. The file may be longer after a
    /// failed write.
    pub(super) durable_bytes: u64,
}

impl OpenSegment {
    /// Makes a group of frames durable, and the header with the first.
    pub(super) fn append(&mut self, group: &[u8], rows: u64) -> io::Result<()> {
        let header = if self.durable_bytes == 0 { self.header.as_slice() } else { &[] };
        if !header.is_empty() {
            self.file.write_all_at(header, 0)?;
        }
        self.file.write_all_at(group, self.durable_bytes + header.len() as u64)?;
        self.file.sync()?;
        self.rows += rows;
        self.durable_bytes += (header.len() + group.len()) as u64;
        Ok(())
    }

    /// Cuts off what a failed write may have left behind.
    pub(super) fn cut(&self) -> io::Result<()> {
        self.file.set_len(self.durable_bytes)?;
        self.file.sync_all()
    }
}
