//! TRANSACTION_PAYLOAD: a transaction whose events the server wrote as one, usually compressed.
//!
//! The events inside are read one after the other, so the memory taken is that of the largest of them, whatever the size of the
//! transaction; and a buffer grows with what is really there, not with what a header says will come. The decompressor itself
//! takes a window of what the frame asks for, at most 128 MiB (zstd's limit for decoders), of which the system provides only
//! what is written to. A frame may hold some ten thousand times its own size: an event inside is still at most 1 GiB.

use super::header::{HEADER_BYTES, Header};
use super::reader::Bytes;
use super::{Malformed, Result};
use std::fmt;
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

/// Grows of a buffer for an event inside, bytes.
const STEP_BYTES: usize = 64 << 10;
/// A buffer larger than this is given back after use, bytes.
const KEPT_BYTES: usize = 4 << 20;

/// How the events are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    Zstd,
    None,
}

/// A transaction in one event. The events inside have no checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload<'a> {
    compression: Compression,
    /// Bytes of the events inside together, when the server says it.
    pub uncompressed: Option<u64>,
    /// The events as packed.
    pub data: &'a [u8],
}

impl<'a> Payload<'a> {
    /// Reads the numbered fields before the data, each of which has its length.
    pub(super) fn parse(body: &'a [u8]) -> Result<Payload<'a>> {
        const FIELD: &str = "TRANSACTION_PAYLOAD: field";
        const SIZE: &str = "TRANSACTION_PAYLOAD: size";
        let mut r = Bytes::new(body);
        let (mut size, mut compression, mut uncompressed) = (None, None, None);
        loop {
            let field = r.lenenc(FIELD)?;
            if field == 0 {
                break;
            }
            let mut value = Bytes::new(r.lenenc_bytes(FIELD)?);
            match field {
                1 => size = Some(value.lenenc(SIZE)?),
                2 => compression = Some(value.lenenc(FIELD)?),
                3 => uncompressed = Some(value.lenenc(FIELD)?),
                _ => value = Bytes::new(&[]),
            }
            value.end(FIELD)?;
        }
        let compression = match compression {
            Some(0) => Compression::Zstd,
            Some(255) => Compression::None,
            _ => return Err(Malformed("TRANSACTION_PAYLOAD: an unknown compression")),
        };
        if size != Some(r.len() as u64) {
            return Err(Malformed(SIZE));
        }
        Ok(Payload { compression, uncompressed, data: r.rest() })
    }
}

/// Unpacks the events of one [`Payload`] after another. Keeps its buffers in between.
pub struct Unpacker {
    zstd: Decoder<'static>,
    /// In the midst of a frame.
    in_frame: bool,
    /// How much of the payload was read.
    read: usize,
    /// How many bytes its events had so far.
    unpacked: u64,
    /// The event unpacked last, or a part of one.
    event: Vec<u8>,
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpacker")
            .field("read", &self.read)
            .field("unpacked", &self.unpacked)
            .finish_non_exhaustive()
    }
}

impl Unpacker {
    /// # Errors
    /// When there is no memory for the decompressor.
    pub fn new() -> Result<Unpacker> {
        let zstd = Decoder::new().map_err(|_| Malformed("no memory for decompression"))?;
        Ok(Unpacker { zstd, in_frame: false, read: 0, unpacked: 0, event: Vec::new() })
    }

    /// Begins another payload, wherever the last one was left.
    ///
    /// # Errors
    /// When the decompressor cannot be reset.
    pub fn begin(&mut self) -> Result<()> {
        self.zstd.reinit().map_err(|_| Malformed("decompression cannot begin"))?;
        (self.in_frame, self.read, self.unpacked) = (false, 0, 0);
        self.event.clear();
        self.event.shrink_to(KEPT_BYTES);
        Ok(())
    }

    /// The event that [`next`](Unpacker::next) gave last.
    pub fn current(&self) -> &[u8] {
        &self.event
    }

    /// The next event inside, header and body; `None` after the last one. Each call must be given the payload that began, so the
    /// caller may keep its bytes wherever it likes in between.
    ///
    /// # Errors
    /// When the data is not what the server packs: damaged, cut off, with something behind it, or of another size than said.
    pub fn next<'s>(&'s mut self, payload: &Payload<'_>) -> Result<Option<&'s [u8]>> {
        self.event.clear();
        self.event.shrink_to(KEPT_BYTES);
        self.fill(payload, HEADER_BYTES)?;
        if self.event.is_empty() {
            return match payload.uncompressed {
                Some(size) if size != self.unpacked => {
                    Err(Malformed("TRANSACTION_PAYLOAD: uncompressed size"))
                }
                _ => Ok(None),
            };
        }
        let header = Header::parse(self.event.first_chunk().ok_or(CUT_OFF)?)?;
        self.fill(payload, header.size as usize)?;
        if self.event.len() < header.size as usize {
            return Err(CUT_OFF);
        }
        self.unpacked += self.event.len() as u64;
        Ok(Some(&self.event))
    }

    /// Unpacks until the event has `size` bytes, or everything is unpacked.
    fn fill(&mut self, payload: &Payload<'_>, size: usize) -> Result<()> {
        while self.event.len() < size {
            let left = payload.data.get(self.read..).unwrap_or_default();
            let step = (size - self.event.len()).min(STEP_BYTES);
            let before = (self.event.len(), left.len());
            match payload.compression {
                Compression::None => {
                    let taken = &left[..step.min(left.len())];
                    self.event.extend_from_slice(taken);
                    self.read += taken.len();
                }
                Compression::Zstd => self.unzstd(left, step)?,
            }
            let left = payload.data.len() - self.read;
            if before == (self.event.len(), left) {
                // Neither bytes in nor bytes out: it has ended, perhaps too early.
                return if left > 0 || self.in_frame { Err(CUT_OFF) } else { Ok(()) };
            }
        }
        Ok(())
    }

    /// Unpacks at most `step` bytes from the front of `data`.
    fn unzstd(&mut self, data: &[u8], step: usize) -> Result<()> {
        if data.is_empty() && !self.in_frame {
            return Ok(());
        }
        let from = self.event.len();
        self.event.resize(from + step, 0);
        let mut input = InBuffer::around(data);
        let mut output = OutBuffer::around(&mut self.event[from..]);
        let hint = self
            .zstd
            .run(&mut input, &mut output)
            .map_err(|_| Malformed("TRANSACTION_PAYLOAD: data that is not zstd's"));
        let written = output.pos();
        let read = input.pos;
        self.event.truncate(from + written);
        self.read += read;
        self.in_frame = hint? != 0;
        Ok(())
    }
}

const CUT_OFF: Malformed = Malformed("TRANSACTION_PAYLOAD: data that is cut off");

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "in a test, a panic with a clear message is how a failure is reported"
    )]

    use super::super::header::{self, Checksum};
    use super::super::{Event, EventType, tests};
    use super::*;

    /// A payload's body.
    fn body(compression: u8, uncompressed: Option<u64>, data: &[u8]) -> Vec<u8> {
        let number = |number: u64| [&[254][..], &number.to_le_bytes()].concat();
        let mut out = match compression {
            255 => vec![2, 9, 254, 255, 0, 0, 0, 0, 0, 0, 0],
            small => vec![2, 1, small],
        };
        if let Some(size) = uncompressed {
            out.extend([3, 9]);
            out.extend(number(size));
        }
        out.extend([1, 9]);
        out.extend(number(data.len() as u64));
        out.push(0);
        out.extend(data);
        out
    }

    /// Events of these sizes, whose bodies count up.
    fn events(sizes: &[usize]) -> Vec<Vec<u8>> {
        let event = |size: &usize| {
            let mut event: Vec<u8> = (0..*size).map(|i| (i / 7) as u8).collect();
            event[9..13].copy_from_slice(&(*size as u32).to_le_bytes());
            event
        };
        sizes.iter().map(event).collect()
    }

    fn unpacked(unpacker: &mut Unpacker, body: &[u8]) -> Result<Vec<Vec<u8>>> {
        let payload = Payload::parse(body)?;
        unpacker.begin()?;
        let mut events = Vec::new();
        while let Some(event) = unpacker.next(&payload)? {
            events.push(event.to_vec());
        }
        assert!(unpacker.next(&payload)?.is_none(), "it stays at its end");
        Ok(events)
    }

    #[test]
    fn a_transaction_of_mysql_unpacks_into_its_events() {
        let payload = tests::log(tests::MYSQL).into_iter().find_map(|(_, event)| match event {
            Event::Payload(payload) => Some(payload),
            _ => None,
        });
        let payload = payload.unwrap();
        let mut unpacker = Unpacker::new().unwrap();
        unpacker.begin().unwrap();
        let (mut kinds, mut size) = (Vec::new(), 0);
        while let Some(event) = unpacker.next(&payload).unwrap() {
            size += event.len() as u64;
            kinds.push(header::split(event, Checksum::None).unwrap().0.kind);
        }
        use EventType::{Query, TableMap, UpdateRows, WriteRows, Xid};
        assert_eq!(kinds, [Query, TableMap, WriteRows, TableMap, WriteRows, TableMap, UpdateRows, Xid]);
        assert_eq!(payload.uncompressed, Some(size));
    }

    #[test]
    fn events_of_all_sizes_unpack_and_large_buffers_are_given_back() {
        let expected =
            events(&[19, 20, STEP_BYTES - 1, STEP_BYTES, 3 * STEP_BYTES + 1, 19, 2 * KEPT_BYTES, 21]);
        let plain = expected.concat();
        let size = Some(plain.len() as u64);
        let zstd = zstd::encode_all(&plain[..], 3).unwrap();
        let (first, second) = plain.split_at(100_000);
        let frames = [zstd::encode_all(first, 1).unwrap(), zstd::encode_all(second, 19).unwrap()].concat();
        let mut unpacker = Unpacker::new().unwrap();
        for body in
            [body(0, size, &zstd), body(0, None, &zstd), body(0, size, &frames), body(255, size, &plain)]
        {
            assert_eq!(unpacked(&mut unpacker, &body), Ok(expected.clone()));
            assert!(unpacker.event.capacity() <= KEPT_BYTES);
        }
        assert_eq!(
            unpacked(&mut unpacker, &body(0, Some(0), &zstd::encode_all(&[][..], 3).unwrap())),
            Ok(vec![])
        );
        assert_eq!(unpacked(&mut unpacker, &body(255, None, &[])), Ok(vec![]));
    }

    #[test]
    fn a_payload_left_in_its_midst_does_not_spoil_the_next() {
        let expected = events(&[30, 40, 50]);
        let zstd = zstd::encode_all(&expected.concat()[..], 3).unwrap();
        let body = body(0, None, &zstd);
        let payload = Payload::parse(&body).unwrap();
        let mut unpacker = Unpacker::new().unwrap();
        assert_eq!(unpacker.next(&payload), Ok(Some(&expected[0][..])));
        assert_eq!(unpacked(&mut unpacker, &body), Ok(expected));
    }

    #[test]
    fn damaged_data_is_never_taken_for_the_end() {
        let plain = events(&[30, 400, 50]).concat();
        let size = Some(plain.len() as u64);
        let zstd = zstd::encode_all(&plain[..], 3).unwrap();
        let mut unpacker = Unpacker::new().unwrap();
        for length in 1..zstd.len() {
            assert!(
                unpacked(&mut unpacker, &body(0, None, &zstd[..length])).is_err(),
                "zstd cut off at {length}"
            );
        }
        for length in (1..plain.len()).filter(|length| ![30, 430].contains(length)) {
            assert!(
                unpacked(&mut unpacker, &body(255, None, &plain[..length])).is_err(),
                "cut off at {length}"
            );
            let zstd = zstd::encode_all(&plain[..length], 3).unwrap();
            assert!(
                unpacked(&mut unpacker, &body(0, None, &zstd)).is_err(),
                "cut off at {length}, then packed"
            );
        }
        assert!(unpacked(&mut unpacker, &body(0, size, &[])).is_err(), "nothing at all");
        assert!(
            unpacked(&mut unpacker, &body(0, None, &[&zstd[..], &[0]].concat())).is_err(),
            "a byte behind"
        );
        assert!(unpacked(&mut unpacker, &body(0, None, b"no frame of zstd's")).is_err());
        assert!(
            unpacked(&mut unpacker, &body(0, size.map(|n| n + 1), &zstd)).is_err(),
            "another size than said"
        );
        let mut tiny = plain.clone();
        tiny[9] = 18;
        assert!(
            unpacked(&mut unpacker, &body(255, None, &tiny)).is_err(),
            "an event shorter than its header"
        );
        let mut huge = plain;
        huge[12] = 0x40;
        assert!(unpacked(&mut unpacker, &body(255, None, &huge)).is_err());
        assert!(unpacker.event.capacity() <= KEPT_BYTES, "a size that lies takes no memory");
    }

    #[test]
    fn fields_are_read_in_any_order_and_unknown_ones_skipped() {
        let payload = Payload::parse(&[9, 2, 7, 7, 1, 1, 3, 2, 1, 0, 0, 1, 2, 3]).unwrap();
        assert_eq!((payload.data, payload.uncompressed), (&[1, 2, 3][..], None));
        for (bytes, why) in [
            (&[2, 1, 0, 1, 1, 3, 0, 1, 2][..], "shorter than said"),
            (&[2, 1, 0, 1, 1, 1, 0, 1, 2], "longer than said"),
            (&[2, 1, 0, 0, 1], "no size"),
            (&[1, 1, 1, 0, 1], "no compression"),
            (&[2, 1, 1, 1, 1, 1, 0, 1], "an unknown compression"),
            (&[2, 2, 0, 0, 1, 1, 1, 0, 1], "a field longer than its value"),
            (&[2, 1, 0, 1, 1, 1], "no end"),
        ] {
            assert!(Payload::parse(bytes).is_err(), "{why}");
        }
    }
}
