//! The thread that owns the replication connection.
//!
//! It reads whole frames into buffers and passes these on; it never decodes a row and never waits for the pipeline. With
//! the channel full it stops reading and goes on sending status, so neither side's time-outs strike while a sink is away:
//! a status at a sixth of `wal_sender_timeout` needs nothing but this thread.
//!
//! **Gulps.** A server that is ahead sends each message by itself, and each send wakes a reader that waits on the socket;
//! the two then spend more on waking than on data. So while there is more to read than a trickle, the thread sleeps about
//! a millisecond *without* waiting on the socket, and then reads a buffer full. Best is a socket that is never quite
//! empty: the kernel then joins the server's small sends, and they cost it a third. Caught up, it waits on the socket and
//! reads at once.

use super::error;
use super::position::{Lsn, PgPosition};
use super::transport::{Transport, is_timeout};
use bytes::BytesMut;
use deltaforge_core::{Fault, Released, clock};
use postgres_protocol::message::frontend;
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};

/// Size of a read buffer, bytes; a longer frame gets a buffer of its own. Even a server that pays for each of its sends fills it
/// within the longest pause.
const BUFFER_BYTES: usize = 256 << 10;
/// Buffers between the thread and the pipeline.
const CHANNEL_BUFFERS: usize = 2;
/// A read of at least so many bytes means that the server is ahead; two in a row below it, that it no longer is. One alone
/// says nothing: a server that found the socket full takes a moment to go on.
const GULP_BYTES: usize = 4 << 10;
/// How long the socket is left to fill while the server is ahead: at first, at least, at most. In between it adapts so that nearly
/// every read fills the buffer and leaves something behind: a little shorter after each that does, much longer after one that
/// emptied the socket, since the server has to get ahead again before its sends are cheap.
const GULP_PAUSE: Duration = Duration::from_micros(4000);
const GULP_PAUSE_MIN: Duration = Duration::from_micros(300);
const GULP_PAUSE_MAX: Duration = Duration::from_micros(8000);
/// Longest frame: PostgreSQL's own limit of a message, 1 GiB, and a header.
const FRAME_LIMIT: usize = (1 << 30) + 64;
/// How long the server may take to accept a status.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Whole frames, as read.
#[derive(Debug)]
pub(super) struct Chunk {
    bytes: Vec<u8>,
    filled: usize,
    /// When they were read, Unix milliseconds.
    pub(super) read_ms: i64,
}

impl Chunk {
    pub(super) fn frames(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

/// The pipeline's end of the stream.
#[derive(Debug)]
pub(super) struct Stream {
    chunks: mpsc::Receiver<Result<Chunk, Fault>>,
    spare: std::sync::mpsc::Sender<Vec<u8>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// Signalled when the channel has room again, and to stop.
    wake: OwnedFd,
    /// The thread waits for room.
    full: AtomicBool,
    stop: AtomicBool,
    /// Why the thread ended, for whoever does not read up to the fault in the channel.
    fault: Mutex<Option<Fault>>,
    broken: Notify,
}

impl Shared {
    fn signal(&self) {
        let _full_counter = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl Stream {
    /// Takes over a connection that has begun to stream; `received` was read already.
    pub(super) fn start(
        transport: Transport,
        received: &BytesMut,
        released: Released,
        status_interval: Duration,
    ) -> Result<Stream, Fault> {
        let setup = |e| error::lost_connection("starting the stream", &e);
        transport.never_block().map_err(setup)?;
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).map_err(|e| setup(e.into()))?;
        let shared = Arc::new(Shared {
            wake,
            full: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            fault: Mutex::new(None),
            broken: Notify::new(),
        });
        // Not the place where the stream starts: after a break that is the place read up to, of which the sinks may hold
        // nothing yet. 0/0 claims nothing.
        let flushed = released.get().and_then(|p| PgPosition::parse(&p).ok()).map_or(Lsn(0), |p| p.lsn);
        let (sender, chunks) = mpsc::channel(CHANNEL_BUFFERS);
        let (spare, spares) = std::sync::mpsc::channel();
        let mut bytes = vec![0; BUFFER_BYTES.max(received.len())];
        bytes[..received.len()].copy_from_slice(received);
        let worker = Worker {
            transport,
            buffer: bytes,
            filled: received.len(),
            scanned: 0,
            pending: None,
            sender,
            spares,
            shared: shared.clone(),
            released,
            flushed,
            status_interval,
            status_due: Instant::now(),
            gulp: None,
        };
        let thread = std::thread::Builder::new()
            .name("postgres stream".into())
            .stack_size(256 << 10)
            .spawn(move || worker.run())
            .map_err(setup)?;
        Ok(Stream { chunks, spare, shared, thread: Some(thread) })
    }

    /// The next frames, if they are there.
    pub(super) fn try_next(&mut self) -> Option<Result<Chunk, Fault>> {
        let next = match self.chunks.try_recv() {
            Ok(next) => next,
            Err(mpsc::error::TryRecvError::Empty) => return None,
            Err(mpsc::error::TryRecvError::Disconnected) => Err(error::closed("streaming")),
        };
        self.made_room();
        Some(next)
    }

    /// Waits for the next frames. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Chunk, Fault> {
        let next = self.chunks.recv().await.unwrap_or_else(|| Err(error::closed("streaming")));
        self.made_room();
        next
    }

    /// Waits until the connection is lost, also while frames lie unread. Cancel-safe.
    pub(super) async fn broken(&self) -> Fault {
        loop {
            let fault = self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match fault {
                Some(fault) => return fault,
                None => self.shared.broken.notified().await,
            }
        }
    }

    fn made_room(&self) {
        if self.shared.full.swap(false, Ordering::AcqRel) {
            self.shared.signal();
        }
    }

    /// Gives a buffer back.
    pub(super) fn recycle(&self, chunk: Chunk) {
        if chunk.bytes.len() == BUFFER_BYTES {
            let _ended = self.spare.send(chunk.bytes);
        }
    }

    /// Tells the server what was released, and ends.
    pub(super) async fn close(mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.signal();
        if let Some(thread) = self.thread.take() {
            let _joined = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.signal();
    }
}

/// How to read a server that is ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gulp {
    pause: Duration,
    /// The last read was a trickle.
    trickle: bool,
}

impl Gulp {
    /// What a read of `bytes` teaches.
    fn after(before: Option<Gulp>, bytes: usize, full: bool) -> Option<Gulp> {
        let trickle = bytes < GULP_BYTES;
        let Some(Gulp { pause, trickle: was_trickle }) = before else {
            return (!trickle).then_some(Gulp { pause: GULP_PAUSE, trickle });
        };
        let pause = match (full, trickle) {
            (true, _) => (pause - pause / 32).max(GULP_PAUSE_MIN),
            (false, false) => (pause * 2).min(GULP_PAUSE_MAX),
            (false, true) if was_trickle => return None,
            (false, true) => pause,
        };
        Some(Gulp { pause, trickle })
    }
}

struct Worker {
    transport: Transport,
    buffer: Vec<u8>,
    filled: usize,
    /// Whole frames at the buffer's front, bytes.
    scanned: usize,
    /// Frames that found the channel full.
    pending: Option<Chunk>,
    sender: mpsc::Sender<Result<Chunk, Fault>>,
    spares: std::sync::mpsc::Receiver<Vec<u8>>,
    shared: Arc<Shared>,
    released: Released,
    flushed: Lsn,
    status_interval: Duration,
    status_due: Instant,
    /// While the server is ahead.
    gulp: Option<Gulp>,
}

impl Worker {
    fn run(mut self) {
        if let Err(fault) = self.stream() {
            *self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault.clone());
            self.shared.broken.notify_one();
            // The channel may be full; what it holds is decoded first. The receiver being gone is no error.
            let _gone = self.sender.blocking_send(Err(fault));
        }
    }

    fn stream(&mut self) -> Result<(), Fault> {
        loop {
            if self.shared.stop.load(Ordering::Acquire) {
                return self.finish();
            }
            self.report()?;
            if !self.pass_on() {
                return Ok(());
            }
            let until_status = self.status_due.saturating_duration_since(Instant::now());
            if self.pending.is_some() {
                self.wait(false, until_status)?;
                continue;
            }
            match &self.gulp {
                Some(gulp) => std::thread::sleep(gulp.pause),
                None => self.wait(true, until_status)?,
            }
            self.read()?;
            self.scan()?;
        }
    }

    fn wait(&mut self, read: bool, timeout: Duration) -> Result<(), Fault> {
        let waited = self.transport.wait_readable(&self.shared.wake, read, timeout);
        waited.map_err(|e| error::lost_connection("streaming", &e))?;
        let _nothing = rustix::io::read(&self.shared.wake, &mut [0; 8]);
        Ok(())
    }

    /// Sends a status when one is due: at its interval, asked for, or because more was saved.
    fn report(&mut self) -> Result<(), Fault> {
        let moved = self.released.take_moved().and_then(|p| PgPosition::parse(&p).ok()).map(|p| p.lsn);
        if let Some(lsn) = moved.filter(|lsn| *lsn > self.flushed) {
            self.flushed = lsn;
        } else if Instant::now() < self.status_due {
            return Ok(());
        }
        self.send_status()
    }

    fn send_status(&mut self) -> Result<(), Fault> {
        let now_us = clock::unix_micros() - 946_684_800_000_000;
        let lsn = self.flushed.0.to_be_bytes();
        let mut status = Vec::with_capacity(34);
        status.push(b'r');
        // Written, flushed, applied: one claim, what the state store holds.
        (0..3).for_each(|_| status.extend_from_slice(&lsn));
        status.extend_from_slice(&now_us.to_be_bytes());
        status.push(0);
        let mut out = BytesMut::with_capacity(64);
        frontend::CopyData::new(status.as_slice())
            .map_err(|e| error::malformed("status", &e))?
            .write(&mut out);
        self.status_due = Instant::now() + self.status_interval;
        self.transport
            .write_all(&out, SEND_TIMEOUT)
            .map_err(|e| error::lost_connection("reporting to the server", &e))
    }

    fn finish(&mut self) -> Result<(), Fault> {
        if let Some(position) = self.released.take_moved().and_then(|p| PgPosition::parse(&p).ok()) {
            self.flushed = self.flushed.max(position.lsn);
        }
        self.send_status()?;
        let mut out = BytesMut::new();
        frontend::copy_done(&mut out);
        frontend::terminate(&mut out);
        let _gone = self.transport.write_all(&out, Duration::from_secs(1));
        Ok(())
    }

    /// Hands whole frames to the pipeline; false when nobody is there any more.
    fn pass_on(&mut self) -> bool {
        if self.pending.is_none() && self.scanned > 0 {
            self.pending = Some(self.take_frames());
        }
        let Some(chunk) = self.pending.take() else { return true };
        match self.sender.try_send(Ok(chunk)) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(chunk)) => {
                self.pending = chunk.ok();
                // Announced first and tried once more, so that room made in between is not missed.
                self.shared.full.store(true, Ordering::Release);
                match self.pending.take().map(|chunk| self.sender.try_send(Ok(chunk))) {
                    Some(Err(mpsc::error::TrySendError::Full(chunk))) => {
                        self.pending = chunk.ok();
                        true
                    }
                    Some(Err(mpsc::error::TrySendError::Closed(_))) => false,
                    _ => true,
                }
            }
        }
    }

    /// Splits the whole frames off the buffer; what is left of the last one moves to a new buffer.
    fn take_frames(&mut self) -> Chunk {
        let rest = self.scanned..self.filled;
        let mut next = match self.spares.try_recv() {
            Ok(spare) if spare.len() > rest.len() => spare,
            _ => vec![0; BUFFER_BYTES.max(rest.len() + 1)],
        };
        next[..rest.len()].copy_from_slice(&self.buffer[rest.clone()]);
        let bytes = std::mem::replace(&mut self.buffer, next);
        let filled = std::mem::take(&mut self.scanned);
        self.filled = rest.len();
        Chunk { bytes, filled, read_ms: clock::unix_millis() }
    }

    fn read(&mut self) -> Result<(), Fault> {
        let before = self.filled;
        while self.filled < self.buffer.len() {
            match self.transport.read(&mut self.buffer[self.filled..]) {
                Ok(0) => return Err(error::closed("streaming")),
                Ok(n) => {
                    self.filled += n;
                    // Decrypted bytes in memory do not wake the socket: an encrypted stream is read until nothing is left.
                    if !self.transport.is_encrypted() {
                        break;
                    }
                }
                Err(e) if is_timeout(&e) => break,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(error::lost_connection("streaming", &e)),
            }
        }
        let full = self.filled == self.buffer.len();
        self.gulp = Gulp::after(self.gulp.take(), self.filled - before, full);
        Ok(())
    }

    /// Counts the whole frames, answers a keepalive that asks, and makes room for a frame longer than the buffer.
    fn scan(&mut self) -> Result<(), Fault> {
        while let Some(header) = self.buffer[self.scanned..self.filled].first_chunk::<5>() {
            let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize + 1;
            if !(5..=FRAME_LIMIT).contains(&length) {
                return Err(error::protocol("a frame longer than the protocol allows"));
            }
            if self.filled - self.scanned < length {
                // Grown as the data arrives, never by what a header merely announces.
                if self.scanned == 0 && self.filled == self.buffer.len() {
                    self.buffer.resize(length.min(2 * self.buffer.len()), 0);
                }
                return Ok(());
            }
            let frame = &self.buffer[self.scanned..self.scanned + length];
            if frame[0] == b'd' && frame.get(5) == Some(&b'k') && frame.last() == Some(&1) {
                self.status_due = Instant::now();
            }
            self.scanned += length;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gulps_begin_with_a_flood_and_end_with_two_trickles() {
        let at = |pause, trickle| Some(Gulp { pause, trickle });
        assert_eq!(Gulp::after(None, GULP_BYTES - 1, false), None, "caught up: the socket is waited on");
        let begun = Gulp::after(None, GULP_BYTES, false);
        assert_eq!(begun, at(GULP_PAUSE, false));
        let once = Gulp::after(begun, 10, false);
        assert_eq!(once, at(GULP_PAUSE, true));
        assert_eq!(Gulp::after(once, 10, false), None);
        assert_eq!(
            Gulp::after(once, BUFFER_BYTES, false).map(|g| g.trickle),
            Some(false),
            "one trickle alone says nothing"
        );
        let mut gulp = begun;
        (0..99).for_each(|_| gulp = Gulp::after(gulp, GULP_BYTES, false));
        assert_eq!(gulp.map(|g| g.pause), Some(GULP_PAUSE_MAX));
        (0..200).for_each(|_| gulp = Gulp::after(gulp, BUFFER_BYTES, true));
        assert_eq!(gulp.map(|g| g.pause), Some(GULP_PAUSE_MIN));
    }
}
