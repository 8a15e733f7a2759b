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
    /// Some event of the file told where it stands. Before that, the place is only where the last stream ended.
    anchored: bool,
}

impl LogPlace {
    pub(super) fn new(file: &str, pos: u64, term: u32) -> LogPlace {
        let number = numbered(file).map_or(0, |(_, number)| number);
        LogPlace { file: file.into(), number, start: pos, end: pos, term, anchored: true }
    }

    /// The place of a stream that is asked for by GTIDs: the server chooses where in which file it begins. `file` and `pos` are
    /// where the last stream of this server ended, and empty and [`FIRST_OFFSET`] on another server.
    pub(super) fn unanchored(file: &str, pos: u64, term: u32) -> LogPlace {
        LogPlace { anchored: false, ..LogPlace::new(file, pos, term) }
    }

    /// The log goes on in another file, or, at the start of a stream, in this one.
    pub(super) fn rotate(&mut self, file: &str, pos: u64) {
        if self.file != file {
            self.file.clear();
            self.file.push_str(file);
            self.number = numbered(file).map_or(0, |(_, number)| number);
        }
        (self.start, self.end, self.anchored) = (pos, pos, true);
    }

    /// An event of the file is about to be read.
    #[inline]
    pub(super) fn enter(&mut self, header: &Header) {
        self.start = self.end;
        // A heartbeat says where the server is, which may be before or behind what was sent.
        if header.end_pos == 0 || header.is_artificial() || is_heartbeat(header.kind) {
            return;
        }
        let end = self.beyond(header.end_pos.into());
        if is_head(header.kind) && (!self.anchored || u64::from(header.end_pos) < self.end) {
            return; // What stands at a file's start is sent again at the start of a stream.
        }
        self.end = if self.anchored { end } else { self.nearest(header.end_pos.into()) };
        self.anchored = true;
        self.start = self.end.saturating_sub(header.size.into()).max(FIRST_OFFSET);
    }

    /// The next offset at or behind the place that is this one modulo 2^32.
    pub(super) fn beyond(&self, offset: u64) -> u64 {
        let end = self.end & !0xffff_ffff | offset & 0xffff_ffff;
        if end < self.end { end + FOUR_GIB } else { end }
    }

    /// The offset closest to the place that is this one modulo 2^32.
    fn nearest(&self, offset: u64) -> u64 {
        let after = self.beyond(offset);
        match after.checked_sub(FOUR_GIB) {
            Some(before) if self.end - before < after - self.end => before,
            _ => after,
        }
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

const FOUR_GIB: u64 = 1 << 32;

fn is_heartbeat(kind: EventType) -> bool {
    matches!(kind, EventType::Heartbeat | EventType::HeartbeatV2)
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
        // As both servers send it: nothing marks it as made up.
        place.enter(&header(EventType::Heartbeat, 40, 9000));
        place.enter(&header(EventType::Heartbeat, 40, 800));
        assert_eq!((place.start, place.end), (5000, 5000));
        assert_eq!((place.beyond(9000), place.beyond(800)), (9000, 800 + FOUR_GIB));
    }

    #[test]
    fn a_stream_by_gtids_begins_where_the_server_wants() {
        let first = |pos, end_pos| {
            let mut place = LogPlace::unanchored("bin.000001", pos, 2);
            place.enter(&header(EventType::FormatDescription, 122, 126));
            assert_eq!(place.end, pos);
            place.enter(&header(EventType::MariaGtid, 38, end_pos));
            (place.start, place.end)
        };
        assert_eq!(first(5000, 9000), (8962, 9000));
        // Before the last place: an XA transaction that was prepared is sent again.
        assert_eq!(first(5000, 800), (762, 800));
        assert_eq!(first(3 * FOUR_GIB + 5000, 800), (3 * FOUR_GIB + 762, 3 * FOUR_GIB + 800));
        assert_eq!(first(3 * FOUR_GIB - 10, 50), (3 * FOUR_GIB + 12, 3 * FOUR_GIB + 50));
        // From then on as ever.
        let mut place = LogPlace::unanchored("bin.000001", 5000, 2);
        place.enter(&header(EventType::Xid, 31, 800));
        place.enter(&header(EventType::Xid, 31, 700));
        assert_eq!(place.end, 700 + FOUR_GIB);
    }
}
