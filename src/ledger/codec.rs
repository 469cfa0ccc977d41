//! Encodes and decodes little-endian numbers.

/// Appends numbers to bytes.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// With a CRC-32C of all before at the end.
    pub(crate) fn into_checked(mut self) -> Vec<u8> {
        self.u32(crc32c::crc32c(&self.0));
        self.0
    }
}

/// Takes numbers from the front of bytes; none when they are used up.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Of bytes that [`Writer::into_checked`] made; none when they have changed.
    pub(crate) fn checked(bytes: &'a [u8]) -> Option<Self> {
        let (content, checksum) = bytes.split_last_chunk()?;
        (crc32c::crc32c(content) == u32::from_le_bytes(*checksum)).then_some(Self(content))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(*self.chunk()?))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(*self.chunk()?))
    }

    pub(crate) fn chunk<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(chunk)
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A number of things of at least so many bytes each that can still follow.
    pub(crate) fn count(&mut self, bytes_each_min: usize) -> Option<usize> {
        let count = usize::try_from(self.u64()?).ok()?;
        (count.checked_mul(bytes_each_min)? <= self.0.len()).then_some(count)
    }
}
