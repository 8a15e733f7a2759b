//! Where in the log the reader is.
//!
//! Events say where they end, modulo 2^32, and files grow beyond that: a large transaction is never split over files. So the
//! offset is counted on from event to event, and what an event says only corrects it: with GTIDs a server leaves events out.

use super::binlog::{EventType, Header};
use super::position::{FIRST_OFFSET, numbered, place};

/// The reader's place: between two events of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogPlace {
    /// The file's name.
    pub(super) file: String,
    /// Its number.
    pub(super) number: u32,
    /// Where the event that is being read begins.
    pub(super) start: u64,
    /// Where the next one will.
    pub(super) end: u64,
    /// How often the source had moved to another server.
    pub(super) term: u32,
}

impl LogPlace {
    pub(super) fn new(file: &str, pos: u64, term: u32) -> LogPlace {
        let number = numbered(file).map_or(0, |(_, number)| number);
        LogPlace { file: file.into(), number, start: pos, end: pos, term }
    }

    /// The log goes on in another file, or, at the start of a stream, in this one.
    pub(super) fn rotate(&mut self, file: &str, pos: u64) {
        if self.file != file {
            self.file.clear();
            self.file.push_str(file);
            self.number = numbered(file).map_or(0, |(_, number)| number);
        }
        (self.start, self.end) = (pos, pos);
    }

    /// An event of the file is about to be read.
    #[inline]
    pub(super) fn enter(&mut self, header: &Header) {
        self.start = self.end;
        if header.end_pos == 0 || header.is_artificial() {
            return;
        }
        let high = self.end & !0xffff_ffff;
        let mut end = high | u64::from(header.end_pos);
        if end < self.end {
            // What stands at a file's start is sent again at the start of a stream.
            if is_head(header.kind) {
                return;
            }
            end += 1 << 32;
        }
        self.end = end;
        self.start = end.saturating_sub(header.size.into()).max(FIRST_OFFSET);
    }

    /// The place before the event that is being read, as the schema registry sorts it.
    pub(super) fn sortable(&self) -> u128 {
        place(self.term, self.number, self.start)
    }

    /// The event that is being read, as messages name it.
    pub(super) fn here(&self) -> String {
        format!("{}:{}", self.file, self.start)
    }
}

fn is_head(kind: EventType) -> bool {
    use EventType as T;
    matches!(
        kind,
        T::FormatDescription | T::PreviousGtids | T::GtidList | T::StartEncryption | T::BinlogCheckpoint
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: EventType, size: u32, end_pos: u32) -> Header {
        Header { timestamp: 0, kind, server_id: 1, size, end_pos, flags: 0 }
    }

    #[test]
    fn offsets_are_counted_beyond_four_gibibytes() {
        let mut place = LogPlace::new("binlog.000042", FIRST_OFFSET, 1);
        place.enter(&header(EventType::FormatDescription, 122, 126));
        assert_eq!((place.start, place.end), (4, 126));
        place.enter(&header(EventType::Xid, 31, u32::MAX - 5));
        assert_eq!(
            (place.start, place.end),
            (0xffff_fffa - 31, 0xffff_fffa),
            "events before it were left out"
        );
        place.enter(&header(EventType::Xid, 31, 25));
        assert_eq!((place.start, place.end), (0xffff_fffa, 0x1_0000_0019));
        assert_eq!(place.here(), "binlog.000042:4294967290");
        place.rotate("binlog.1000000", 4);
        assert_eq!((place.number, place.start, place.end), (1_000_000, 4, 4));
    }

    #[test]
    fn what_the_server_makes_up_moves_nothing() {
        let mut place = LogPlace::new("binlog.000042", 5000, 1);
        place.enter(&header(EventType::FormatDescription, 122, 126));
        place.enter(&header(EventType::Rotate, 40, 0));
        place.enter(&Header { flags: 0x20, ..header(EventType::Heartbeat, 40, 9000) });
        assert_eq!((place.start, place.end), (5000, 5000));
    }
}
