//! Reads ClickHouse's `Native` format, for columns of numbers.
//!
//! An answer is a sequence of blocks. A block has its number of columns and its number of rows (both
//! LEB128), then for each column its name, its type (texts with a length prefix), and its values,
//! little-endian. (ClickHouse's documentation, "Native format".) It costs ClickHouse half of what
//! `RowBinary` costs, which writes each value separately.

use super::error::QueryError;

/// More rows are not believed; ClickHouse's own bound is 65,409.
const ROWS_MAX: u64 = 1 << 20;
/// Longer names are not believed.
const NAME_BYTES_MAX: u64 = 1 << 10;

/// A type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    UInt64,
    Int32,
}

impl Number {
    const fn name(self) -> &'static str {
        match self {
            Self::UInt64 => "UInt64",
            Self::Int32 => "Int32",
        }
    }

    const fn width(self) -> usize {
        match self {
            Self::UInt64 => 8,
            Self::Int32 => 4,
        }
    }
}

/// A block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block<'a, const N: usize> {
    /// The values of each column.
    pub(super) columns: [&'a [u8]; N],
    /// How many bytes it took.
    pub(super) bytes: usize,
}

/// The block at the start of the bytes; none if it is incomplete.
///
/// # Errors
/// `Failed` if it is not a block of such columns.
pub(super) fn block<'a, const N: usize>(
    bytes: &'a [u8],
    types: &[Number; N],
) -> Result<Option<Block<'a, N>>, QueryError> {
    let mut rest = Rest(bytes);
    let read = |rest: &mut Rest<'a>| -> Result<[&'a [u8]; N], Stop> {
        let (columns, rows) = (rest.number(N as u64)?, rest.number(ROWS_MAX)?);
        if columns != N as u64 {
            return Err(Stop::Malformed);
        }
        let mut values = [&[][..]; N];
        for (values, of_type) in values.iter_mut().zip(types) {
            rest.text()?;
            if rest.text()? != of_type.name().as_bytes() {
                return Err(Stop::Malformed);
            }
            // At most eight times a million.
            *values = rest.take(usize::try_from(rows).unwrap_or(usize::MAX).saturating_mul(of_type.width()))?;
        }
        Ok(values)
    };
    match read(&mut rest) {
        Ok(columns) => Ok(Some(Block { columns, bytes: bytes.len() - rest.0.len() })),
        Err(Stop::Ended) => Ok(None),
        Err(Stop::Malformed) => Err(QueryError::Failed("not a block of the columns that were asked for".to_owned())),
    }
}

/// Why a block cannot be read.
enum Stop {
    /// The block is incomplete.
    Ended,
    /// It is not a block.
    Malformed,
}

/// What has not been read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Stop> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(Stop::Ended)?;
        self.0 = rest;
        Ok(taken)
    }

    /// A LEB128 number.
    fn number(&mut self, max: u64) -> Result<u64, Stop> {
        let mut number = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return if number <= max { Ok(number) } else { Err(Stop::Malformed) };
            }
        }
        Err(Stop::Malformed)
    }

    fn text(&mut self) -> Result<&'a [u8], Stop> {
        let bytes = self.number(NAME_BYTES_MAX)?;
        self.take(usize::try_from(bytes).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYPES: [Number; 2] = [Number::UInt64, Number::Int32];

    /// As ClickHouse 26.7 answers `SELECT number AS n, toInt32(-number) AS m
    /// FROM numbers(2) FORMAT Native`.
    const ANSWER: &[u8] =
        b"\x02\x02\x01n\x06UInt64\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01m\x05Int32\0\0\0\0\xff\xff\xff\xff";

    #[test]
    fn a_block_is_read_as_clickhouse_writes_it() {
        let found = block(ANSWER, &TYPES).unwrap().unwrap();
        assert_eq!(found.bytes, ANSWER.len());
        assert_eq!(found.columns[0], [[0; 8], 1_u64.to_le_bytes()].concat());
        assert_eq!(found.columns[1], [[0; 4], (-1_i32).to_le_bytes()].concat());
        for cut in 0..ANSWER.len() {
            assert_eq!(block(&ANSWER[..cut], &TYPES).unwrap(), None, "{cut} bytes");
        }
        assert!(block(ANSWER, &[Number::UInt64; 2]).is_err());
        assert!(block(ANSWER, &[Number::UInt64; 1]).is_err());
        assert!(block(b"Code: 241. DB::Exception: Memory limit", &TYPES).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn bytes_of_a_stranger_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0..60_usize) {
            let mut near = ANSWER[..cut.min(ANSWER.len())].to_vec();
            near.extend_from_slice(&bytes);
            let _ = (block(&bytes, &TYPES), block(&near, &TYPES));
        }
    }
}
