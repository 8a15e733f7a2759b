//! PostgreSQL's streaming protocol as the stream's thread sees it: frames, keepalives that ask, status reports.
//!
//! A status at a sixth of `wal_sender_timeout` needs nothing but that thread, so a stalled sink does not cost the connection.

use super::error;
use super::position::{Lsn, PgPosition};
use crate::shared::stream::Wire;
use bytes::BytesMut;
use deltaforge_core::{Fault, Position, Released, clock};
use postgres_protocol::message::frontend;
use std::io;
use std::time::{Duration, Instant};

/// Longest frame: PostgreSQL's own limit of a message, 1 GiB, and a header.
const FRAME_LIMIT: usize = (1 << 30) + 64;

/// Where a message of pgoutput begins in its frame: behind two headers, one with two LSNs and a time.
const MESSAGE_AT: usize = 5 + 1 + 24;

/// The protocol's state on one connection.
pub(super) struct PgWire {
    released: Released,
    flushed: Lsn,
    interval: Duration,
    due: Instant,
}

impl PgWire {
    /// Reports at least once per `interval`.
    pub(super) fn new(released: Released, interval: Duration) -> PgWire {
        // Not the place where the stream starts: after a break that is the place read up to, of which the sinks may hold
        // nothing yet. 0/0 claims nothing.
        let flushed = released.get().and_then(|p| lsn(&p)).unwrap_or(Lsn(0));
        PgWire { released, flushed, interval, due: Instant::now() }
    }

    fn status(&mut self, out: &mut Vec<u8>) {
        let now_us = clock::unix_micros() - 946_684_800_000_000;
        let lsn = self.flushed.0.to_be_bytes();
        out.push(b'd');
        out.extend_from_slice(&38_u32.to_be_bytes());
        out.push(b'r');
        // Written, flushed, applied: one claim, what the state store holds.
        (0..3).for_each(|_| out.extend_from_slice(&lsn));
        out.extend_from_slice(&now_us.to_be_bytes());
        out.push(0);
        self.due = Instant::now() + self.interval;
    }
}

fn lsn(position: &Position) -> Option<Lsn> {
    PgPosition::parse(position).ok().map(|p| p.lsn)
}

impl Wire for PgWire {
    const THREAD: &'static str = "postgres stream";
    const SENDS_SINGLY: bool = true;

    fn frame_length(&self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        let Some(header) = bytes.first_chunk::<5>() else { return Ok(None) };
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize + 1;
        if (5..=FRAME_LIMIT).contains(&length) {
            Ok(Some(length))
        } else {
            Err(error::protocol("a frame longer than the protocol allows"))
        }
    }

    /// A keepalive may ask for an answer. The server sends one before each transaction, and a transaction in one piece per message.
    fn arrived(&mut self, frame: &[u8]) -> bool {
        match (frame[0], frame.get(5), frame.get(MESSAGE_AT)) {
            (b'd', Some(b'k'), _) => {
                if frame.last() == Some(&1) {
                    self.due = Instant::now();
                }
                false
            }
            (b'd', Some(b'w'), Some(kind)) => *kind == b'C',
            _ => true,
        }
    }

    /// A status when one is due: at its interval, asked for, or because more was saved.
    fn report(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        let moved = self.released.take_moved().and_then(|p| lsn(&p));
        if let Some(lsn) = moved.filter(|lsn| *lsn > self.flushed) {
            self.flushed = lsn;
        } else if Instant::now() < self.due {
            return Ok(());
        }
        self.status(out);
        Ok(())
    }

    fn until_report(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }

    fn farewell(&mut self, out: &mut Vec<u8>) {
        if let Some(lsn) = self.released.take_moved().and_then(|p| lsn(&p)) {
            self.flushed = self.flushed.max(lsn);
        }
        self.status(out);
        let mut end = BytesMut::new();
        frontend::copy_done(&mut end);
        frontend::terminate(&mut end);
        out.extend_from_slice(&end);
    }

    fn lost(&self, e: &io::Error) -> Fault {
        error::lost_connection("streaming", e)
    }

    fn closed(&self) -> Fault {
        error::closed("streaming")
    }
}
