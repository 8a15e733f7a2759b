//! MariaDB's compression of single events (`log_bin_compress`): statements and rows.
//!
//! Format: `binlog_buf_compress` in MariaDB's `sql/log_event.cc`: a byte with the algorithm and the number of length bytes, the
//! uncompressed length in big-endian order, a zlib stream.

use super::header::MAX_EVENT_BYTES;
use super::reader::Bytes;
use super::{Malformed, Result};
use flate2::{Decompress, FlushDecompress, Status};
use std::fmt;

/// Grows of the buffer, bytes.
const STEP_BYTES: usize = 64 << 10;
/// A buffer larger than this is given back after use, bytes.
const KEPT_BYTES: usize = 4 << 20;

/// Inflates the compressed part of one event after another. Keeps its buffers in between.
pub struct Inflater {
    zlib: Decompress,
    out: Vec<u8>,
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").finish_non_exhaustive()
    }
}

impl Default for Inflater {
    fn default() -> Inflater {
        Inflater { zlib: Decompress::new(true), out: Vec::new() }
    }
}

impl Inflater {
    /// The bytes behind `compressed`: a [`Rows`](super::Rows)' images, or the text of a statement. The memory taken grows with what
    /// is inflated, which is at most a thousandfold of `compressed`.
    ///
    /// # Errors
    /// When it is of an unknown algorithm, damaged, or not of the length it says.
    pub fn inflate(&mut self, compressed: &[u8]) -> Result<&[u8]> {
        const HEAD: &str = "a compressed event: head";
        let mut r = Bytes::new(compressed);
        let head = r.u8(HEAD)?;
        const ZLIB: u8 = 0x80;
        if head & !0x07 != ZLIB {
            return Err(Malformed("a compressed event: an unknown algorithm"));
        }
        let length_bytes = usize::from(head & 0x07);
        if !(1..=4).contains(&length_bytes) {
            return Err(Malformed(HEAD));
        }
        let length = r.uint_be(length_bytes, HEAD)?;
        if length > u64::from(MAX_EVENT_BYTES) {
            return Err(Malformed("a compressed event: larger than any event"));
        }
        let length = length as usize;
        self.zlib.reset(true);
        self.out.clear();
        self.out.shrink_to(KEPT_BYTES);
        let mut input = r.rest();
        loop {
            let step = (length - self.out.len()).min(STEP_BYTES);
            // One byte more than said, so that a longer stream is noticed.
            self.out.reserve(step + 1);
            let (before_in, before_out) = (self.zlib.total_in(), self.out.len());
            let status = self.zlib.decompress_vec(input, &mut self.out, FlushDecompress::None);
            let status = status.map_err(|_| Malformed("a compressed event: data that is not zlib's"))?;
            let read = (self.zlib.total_in() - before_in) as usize;
            input = &input[read..];
            if self.out.len() > length {
                return Err(Malformed("a compressed event: longer than said"));
            }
            match status {
                Status::StreamEnd if input.is_empty() && self.out.len() == length => return Ok(&self.out),
                Status::StreamEnd => return Err(Malformed("a compressed event: another length than said")),
                _ if read == 0 && self.out.len() == before_out => {
                    return Err(Malformed("a compressed event: cut off"));
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "in a test, a panic with a clear message is how a failure is reported"
    )]

    use super::super::{Event, tests};
    use super::*;
    use flate2::{Compression, write::ZlibEncoder};
    use std::io::Write;

    fn zlib(plain: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    /// As MariaDB writes it, with a length of four bytes.
    fn compressed(plain: &[u8]) -> Vec<u8> {
        [&[0x84][..], &(plain.len() as u32).to_be_bytes(), &zlib(plain)].concat()
    }

    #[test]
    fn events_of_mariadb_inflate() {
        let mut inflater = Inflater::default();
        let mut lengths = Vec::new();
        for (_, event) in tests::log(tests::MARIADB) {
            match event {
                Event::QueryCompressed(query) => {
                    let text = inflater.inflate(query.sql).unwrap();
                    assert!(text.starts_with(b"create table cq (a int comment 'compressed"));
                }
                Event::Rows(rows) if rows.compressed => {
                    assert!(rows.images(0).is_err(), "compressed images are no images");
                    lengths.push(inflater.inflate(rows.data).unwrap().len());
                }
                _ => {}
            }
        }
        assert_eq!(lengths, [614, 1228, 614]);
    }

    #[test]
    fn data_of_all_lengths_inflates_and_large_buffers_are_given_back() {
        let mut inflater = Inflater::default();
        for length in [0, 1, STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, 2 * KEPT_BYTES, 10] {
            let plain: Vec<u8> = (0..length).map(|i| (i * i / 3) as u8).collect();
            assert_eq!(inflater.inflate(&compressed(&plain)), Ok(&plain[..]), "{length}");
        }
        assert!(inflater.out.capacity() <= KEPT_BYTES);
        assert_eq!(inflater.inflate(&[&[0x81, 3][..], &zlib(b"abc")].concat()), Ok(&b"abc"[..]));
    }

    #[test]
    fn damaged_data_is_refused() {
        let mut inflater = Inflater::default();
        let whole = compressed(b"some text that is long enough, some text that is long enough");
        for length in 0..whole.len() {
            assert!(inflater.inflate(&whole[..length]).is_err(), "{length}");
        }
        let changed = |at: usize, byte: u8| {
            let mut changed = whole.clone();
            changed[at] = byte;
            changed
        };
        assert!(inflater.inflate(&changed(0, 0x94)).is_err(), "another algorithm");
        assert!(inflater.inflate(&changed(0, 0x04)).is_err());
        assert!(inflater.inflate(&changed(0, 0x80)).is_err(), "no length");
        assert!(inflater.inflate(&changed(4, 59)).is_err(), "longer than said");
        assert!(inflater.inflate(&changed(4, 61)).is_err(), "shorter than said");
        assert!(inflater.inflate(&changed(1, 0x3f)).is_err(), "a length that lies");
        assert!(inflater.inflate(&changed(1, 0x7f)).is_err(), "a length beyond any event");
        assert!(inflater.out.capacity() < 2 * STEP_BYTES, "a length that lies takes no memory");
        assert!(inflater.inflate(&[&whole[..], &[0]].concat()).is_err(), "a byte behind");
        assert!(inflater.inflate(&changed(12, whole[12] ^ 1)).is_err(), "a flipped bit");
    }
}
