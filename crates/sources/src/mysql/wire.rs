//! The stream of the log as the stream's thread sees it: packets, silence, and nothing to report.
//!
//! A MySQL server is told nothing while it sends its log. It notices a reader that is gone, and it gives a reader that does not
//! read for long up; that time is raised before the stream begins.

use super::binlog::EventType;
use super::error;
use crate::shared::stream::Wire;
use deltaforge_core::Fault;
use std::io;
use std::time::{Duration, Instant};

/// Bytes before a packet's payload: its length and a running number.
pub(super) const PACKET_HEADER: usize = 4;
/// A payload of so many bytes goes on in the next packet.
pub(super) const FULL_PACKET: usize = 0xff_ffff;
/// Longest event of either server (its `max_allowed_packet`), with headers.
const FRAME_LIMIT: usize = (1 << 30) + (1 << 20);
/// Where an event's type stands in its first packet: after the header, a status byte and a time.
const TYPE_AT: usize = PACKET_HEADER + 1 + 4;

/// How long the server may be silent.
pub(super) struct MySqlWire {
    /// Longest wait for a whole event; the server's heartbeats are events.
    pub(super) read_timeout: Duration,
    /// Longest wait for anything.
    pub(super) inactivity_timeout: Duration,
    heard: Instant,
    whole: Instant,
}

impl MySqlWire {
    pub(super) fn new(read_timeout: Duration, inactivity_timeout: Duration) -> MySqlWire {
        let now = Instant::now();
        MySqlWire { read_timeout, inactivity_timeout, heard: now, whole: now }
    }
}

impl Wire for MySqlWire {
    const THREAD: &'static str = "mysql stream";
    const SENDS_SINGLY: bool = false;

    /// All packets of one event.
    fn frame_length(&self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        let mut at = 0;
        loop {
            let Some(header) = bytes.get(at..).and_then(|rest| rest.first_chunk::<PACKET_HEADER>()) else {
                return Ok(None);
            };
            let length = u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize;
            at += PACKET_HEADER + length;
            if at > FRAME_LIMIT {
                return Err(error::protocol("an event longer than the protocol allows"));
            }
            if length < FULL_PACKET {
                return Ok(Some(at));
            }
        }
    }

    fn received(&mut self) {
        self.heard = Instant::now();
    }

    /// A transaction ends with one of a few types, and a server that has nothing to send says so with another.
    fn arrived(&mut self, frame: &[u8]) -> bool {
        self.whole = self.heard;
        use EventType as T;
        let (Some(0), Some(kind)) = (frame.get(PACKET_HEADER), frame.get(TYPE_AT)) else {
            return true; // The server's reason to end the stream.
        };
        !matches!(
            EventType::from_byte(*kind),
            T::Gtid
                | T::AnonymousGtid
                | T::GtidTagged
                | T::MariaGtid
                | T::TableMap
                | T::RowsQuery
                | T::AnnotateRows
                | T::WriteRows
                | T::UpdateRows
                | T::DeleteRows
                | T::WriteRowsV1
                | T::UpdateRowsV1
                | T::DeleteRowsV1
                | T::Heartbeat
                | T::HeartbeatV2
        )
    }

    fn report(&mut self, _out: &mut Vec<u8>) -> Result<(), Fault> {
        let (silent, waited) = (self.heard.elapsed(), self.whole.elapsed());
        if silent > self.inactivity_timeout {
            return Err(error::timeout("streaming: nothing at all came, not even a heartbeat", silent));
        }
        if waited > self.read_timeout {
            return Err(error::timeout("streaming: no whole event came", waited));
        }
        Ok(())
    }

    fn until_report(&self) -> Duration {
        let silence = self.inactivity_timeout.saturating_sub(self.heard.elapsed());
        let wait = self.read_timeout.saturating_sub(self.whole.elapsed());
        silence.min(wait) + Duration::from_millis(1)
    }

    fn not_reading(&mut self) {
        (self.heard, self.whole) = (Instant::now(), Instant::now());
    }

    /// The server knows no last words in this state; it sees the connection close.
    fn farewell(&mut self, _out: &mut Vec<u8>) {}

    fn lost(&self, e: &io::Error) -> Fault {
        error::lost_connection("streaming", e)
    }

    fn closed(&self) -> Fault {
        error::closed("streaming")
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "in a test, a panic with a clear message is how a failure is reported"
    )]
    use super::*;

    #[test]
    fn an_event_is_all_of_its_packets() {
        let wire = MySqlWire::new(Duration::from_secs(90), Duration::from_secs(60));
        let length = |bytes: &[u8]| wire.frame_length(bytes).unwrap();
        assert_eq!(length(&[3, 0, 0]), None);
        assert_eq!(length(&[3, 0, 0, 1]), Some(7));
        let mut long = vec![0xff, 0xff, 0xff, 1];
        long.resize(PACKET_HEADER + FULL_PACKET, 0);
        assert_eq!(length(&long), None, "the next packet's length is not known yet");
        long.extend([2, 0, 0, 2]);
        assert_eq!(length(&long), Some(long.len() + 2));
    }

    #[test]
    fn silence_is_a_fault_unless_nobody_listens() {
        let mut wire = MySqlWire::new(Duration::from_secs(90), Duration::ZERO);
        std::thread::yield_now();
        while wire.heard.elapsed().is_zero() {}
        assert_eq!(wire.report(&mut Vec::new()).unwrap_err().code(), "mysql.timeout");
        // As the thread does it while the pipeline takes nothing: it waits as long as there is nothing to report, says so, reports.
        wire.inactivity_timeout = Duration::from_millis(1);
        for _ in 0..3 {
            let until = Instant::now() + wire.until_report();
            while Instant::now() < until {
                std::thread::yield_now();
            }
            wire.not_reading();
            assert!(wire.report(&mut Vec::new()).is_ok());
        }
    }
}
