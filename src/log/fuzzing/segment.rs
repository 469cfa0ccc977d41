//! A segment's bytes.

use uuid::Uuid;

use super::written;
use crate::log::frame::SegmentReader;

/// The frames up to where no more can be read, where that is, and whether it
/// is the end.
fn read(bytes: &[u8]) -> (Vec<Vec<u8>>, usize, bool) {
    let Ok(mut reader) = SegmentReader::new(bytes) else { return (Vec::new(), 0, false) };
    let mut frames = Vec::new();
    loop {
        let mut frame = b"before".to_vec();
        let more = reader.next_frame(&mut frame);
        assert!(frame.starts_with(b"before"), "what is in the buffer stays");
        let good_bytes = usize::try_from(reader.good_bytes()).expect("in memory");
        match more {
            Ok(Some(_)) => frames.push(frame.split_off(6)),
            end => {
                assert_eq!(frame.len(), 6, "nothing of a bad frame is kept");
                return (frames, good_bytes, matches!(end, Ok(None)));
            }
        }
    }
}

/// Any bytes: the good part is a whole segment of the same frames. And a
/// segment made of the input, then cut or altered: a prefix of its frames.
pub(crate) fn run(bytes: &[u8]) {
    let (frames, good_bytes, is_end) = read(bytes);
    assert!(good_bytes <= bytes.len());
    if good_bytes > 0 {
        assert_eq!(read(&bytes[..good_bytes]), (frames, good_bytes, true));
        assert_eq!(is_end, good_bytes == bytes.len());
    }
    let Some((place, rest)) = bytes.split_first_chunk::<4>() else { return };
    let [high, low, by, kind] = *place;
    let frames: Vec<&[u8]> = rest.chunks(1 + usize::from(kind)).collect();
    let mut altered = written(Uuid::from_u128(7), &frames);
    assert_eq!(read(&altered).0, frames);
    let at = usize::from(u16::from_be_bytes([high, low])) % altered.len();
    match kind % 3 {
        0 => altered.truncate(at),
        1 => altered[at] ^= by.max(1),
        _ => altered.insert(at, by),
    }
    let (got, good_bytes, _) = read(&altered);
    assert!(good_bytes <= altered.len());
    assert!(got.len() <= frames.len() && got.iter().zip(&frames).all(|(got, frame)| got == frame));
}

/// Segments, whole and torn.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let id = Uuid::from_u128(0x0199_c2f0_7d6c_7a51_9d2b_6a4f_3c1e_8b77);
    let whole = written(id, &[b"one", b"", b"three"]);
    let torn = whole[..whole.len() - 3].to_vec();
    vec![whole, torn, written(id, &[]), written(id, &[&[7; 300]]), vec![0, 90, 1, 1, 9, 9, 9]]
}
