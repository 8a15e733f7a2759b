//! The thread that owns a connection on which a server streams its log.
//!
//! It reads whole frames into buffers and passes these on; it never decodes a row and never waits for the pipeline. With
//! the channel full it fills its buffer, and with that full it stops reading and goes on reporting, so neither side's time-outs
//! strike while a sink is away. So the slower the pipeline is, the more it gets at once.
//! What a frame is and what the server is told, the protocol says: [`Wire`].
//!
//! **Gulps.** Some servers ([`Wire::SENDS_SINGLY`]) that are ahead send each message by itself, and each send wakes a reader that
//! waits on the socket; the two then spend more on waking than on data. So while data comes faster than a server that has caught up could make it,
//! the thread sleeps some milliseconds *without* waiting on the socket, and then reads a buffer full. Best is a socket that is
//! never quite empty: the kernel then joins the server's small sends, and they cost it a third. Caught up, it waits on the
//! socket and reads at once.

use super::transport::{Transport, is_timeout};
use deltaforge_core::{Fault, clock};
use rustix::event::{EventfdFlags, eventfd};
use std::io;
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
/// So many bytes within this time mean that the server is ahead: 16 MB/s, and for long enough that no burst of commits is taken
/// for it, since a pause in which nothing more comes is a delay for nothing.
const FLOOD_BYTES: usize = 256 << 10;
const FLOOD_TIME: Duration = Duration::from_millis(16);
/// A gulp that brought less than so many bytes for each microsecond of its pause may mean that the server is no longer ahead; two in
/// a row do. One alone says nothing: a server that found the socket full takes a moment to go on.
const TRICKLE_RATE: usize = 4;
/// How long the socket is left to fill while the server is ahead: at first, at least, at most. In between it adapts so that nearly
/// every read fills the buffer and leaves something behind: a little shorter after each that does, much longer after one that
/// emptied the socket, since the server has to get ahead again before its sends are cheap.
const GULP_PAUSE: Duration = Duration::from_micros(4000);
const GULP_PAUSE_MIN: Duration = Duration::from_micros(300);
const GULP_PAUSE_MAX: Duration = Duration::from_micros(8000);
/// Frames that nobody waits for are held back, up to so many bytes and so long: a transaction that arrives in pieces then wakes
/// the pipeline once, when it is whole.
const HOLD_BYTES: usize = 64 << 10;
const HOLD_TIME: Duration = Duration::from_millis(50);
/// How long the server may take to accept a report.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// A protocol in which a server streams its log.
pub(crate) trait Wire: Send + 'static {
    /// The thread's name.
    const THREAD: &'static str;
    /// The server sends each message by itself, instead of filling a buffer first.
    const SENDS_SINGLY: bool;

    /// Length in bytes of the frame that begins here, header included; `None` while that cannot be told.
    ///
    /// # Errors
    /// When no frame may begin like this.
    fn frame_length(&self, bytes: &[u8]) -> Result<Option<usize>, Fault>;

    /// Bytes arrived.
    fn received(&mut self) {}

    /// A whole frame arrived. True when the pipeline can do something with what has come up to here, so that it is worth waking:
    /// a transaction has ended. Frames inside one may wait for its end, and so may heartbeats for a while.
    fn arrived(&mut self, frame: &[u8]) -> bool;

    /// Writes what the server is to be told now, if anything. Called between reads, and when [`until_report`](Self::until_report)
    /// is over.
    ///
    /// # Errors
    /// When the silence of the server has lasted too long.
    fn report(&mut self, out: &mut Vec<u8>) -> Result<(), Fault>;

    /// How long there is nothing to report.
    fn until_report(&self) -> Duration;

    /// Reading stands still because the pipeline takes nothing: silence is no fault of the server.
    fn not_reading(&mut self) {}

    /// Writes the last words.
    fn farewell(&mut self, out: &mut Vec<u8>);

    /// The connection broke.
    fn lost(&self, e: &io::Error) -> Fault;

    /// The server closed the connection.
    fn closed(&self) -> Fault;
}

/// Whole frames, as read.
#[derive(Debug)]
pub(crate) struct Chunk {
    bytes: Vec<u8>,
    filled: usize,
    /// When they were read, Unix milliseconds.
    pub(crate) read_ms: i64,
}

impl Chunk {
    pub(crate) fn frames(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

/// The pipeline's end of the stream.
#[derive(Debug)]
pub(crate) struct Stream {
    chunks: mpsc::Receiver<Result<Chunk, Fault>>,
    spare: std::sync::mpsc::Sender<Vec<u8>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// What to say when the thread is gone and has said nothing.
    closed: Fault,
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
    pub(crate) fn start<W: Wire>(transport: Transport, received: &[u8], wire: W) -> Result<Stream, Fault> {
        transport.never_block().map_err(|e| wire.lost(&e))?;
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
        let shared = Arc::new(Shared {
            wake: wake.map_err(|e| wire.lost(&e.into()))?,
            full: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            fault: Mutex::new(None),
            broken: Notify::new(),
        });
        let (sender, chunks) = mpsc::channel(CHANNEL_BUFFERS);
        let (spare, spares) = std::sync::mpsc::channel();
        let mut buffer = vec![0; BUFFER_BYTES.max(received.len())];
        buffer[..received.len()].copy_from_slice(received);
        let closed = wire.closed();
        let mut worker = Worker {
            transport,
            buffer,
            filled: received.len(),
            scanned: 0,
            held: None,
            blocked: false,
            left_inside: false,
            sender,
            spares,
            shared: shared.clone(),
            wire,
            out: Vec::new(),
            flood: Flood { since: Instant::now(), bytes: 0 },
            gulp: None,
        };
        worker.scan()?;
        let thread = std::thread::Builder::new()
            .name(W::THREAD.into())
            .stack_size(256 << 10)
            .spawn(move || worker.run())
            .map_err(|e| Fault::retry("source.no_thread", format!("no thread for the stream: {e}")))?;
        Ok(Stream { chunks, spare, shared, thread: Some(thread), closed })
    }

    /// The next frames, if they are there.
    pub(crate) fn try_next(&mut self) -> Option<Result<Chunk, Fault>> {
        let next = match self.chunks.try_recv() {
            Ok(next) => next,
            Err(mpsc::error::TryRecvError::Empty) => return None,
            Err(mpsc::error::TryRecvError::Disconnected) => Err(self.closed.clone()),
        };
        self.made_room();
        Some(next)
    }

    /// Waits for the next frames. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Chunk, Fault> {
        let next = self.chunks.recv().await.unwrap_or_else(|| Err(self.closed.clone()));
        self.made_room();
        next
    }

    /// Waits until the connection is lost, also while frames lie unread. Cancel-safe.
    pub(crate) async fn broken(&self) -> Fault {
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
    pub(crate) fn recycle(&self, chunk: Chunk) {
        if chunk.bytes.len() == BUFFER_BYTES {
            let _ended = self.spare.send(chunk.bytes);
        }
    }

    /// Tells the server what was released, and ends.
    pub(crate) async fn close(mut self) {
        // A thread that waits for room would wait for ever.
        self.chunks.close();
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

/// How much came lately, read at once.
#[derive(Clone, Copy, Debug)]
struct Flood {
    since: Instant,
    bytes: usize,
}

impl Flood {
    /// Counts a read; true when the server is ahead.
    fn rises(&mut self, bytes: usize, now: Instant) -> bool {
        if now.duration_since(self.since) > FLOOD_TIME {
            *self = Flood { since: now, bytes: 0 };
        }
        self.bytes += bytes;
        self.bytes >= FLOOD_BYTES
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
    const FIRST: Gulp = Gulp { pause: GULP_PAUSE, trickle: false };

    /// What a read of `bytes` teaches; `None` when the server is no longer ahead.
    fn after(self, bytes: usize, full: bool) -> Option<Gulp> {
        let pause = self.pause;
        let trickle = bytes < TRICKLE_RATE * pause.as_micros() as usize;
        let pause = match (full, trickle) {
            (true, _) => (pause - pause / 32).max(GULP_PAUSE_MIN),
            (false, false) => (pause * 2).min(GULP_PAUSE_MAX),
            (false, true) if self.trickle => return None,
            (false, true) => pause,
        };
        Some(Gulp { pause, trickle })
    }
}

struct Worker<W> {
    transport: Transport,
    buffer: Vec<u8>,
    filled: usize,
    /// Whole frames at the buffer's front, bytes.
    scanned: usize,
    /// Since when whole frames are held back; `None` when the next are to be passed on at once.
    held: Option<Instant>,
    /// The channel was full when the frames were to be passed on.
    blocked: bool,
    /// Decrypted bytes may lie in memory, of which the socket says nothing.
    left_inside: bool,
    sender: mpsc::Sender<Result<Chunk, Fault>>,
    spares: std::sync::mpsc::Receiver<Vec<u8>>,
    shared: Arc<Shared>,
    wire: W,
    out: Vec<u8>,
    flood: Flood,
    /// While the server is ahead.
    gulp: Option<Gulp>,
}

impl<W: Wire> Worker<W> {
    fn run(mut self) {
        if let Err(fault) = self.stream() {
            *self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault.clone());
            self.shared.broken.notify_one();
            // What came before is decoded first: it may hold the server's reason. The receiver being gone is no error.
            let rest = (self.scanned > 0).then(|| Ok(self.take_frames()));
            let _gone =
                rest.into_iter().chain([Err(fault)]).try_for_each(|sent| self.sender.blocking_send(sent));
        }
    }

    fn stream(&mut self) -> Result<(), Fault> {
        loop {
            if self.shared.stop.load(Ordering::Acquire) {
                self.out.clear();
                self.wire.farewell(&mut self.out);
                let _gone = self.transport.write_all(&self.out, Duration::from_secs(1));
                return Ok(());
            }
            self.report()?;
            if !self.pass_on() {
                return Ok(());
            }
            if self.blocked && self.filled == self.buffer.len() {
                self.wait(false)?;
                self.wire.not_reading();
                continue;
            }
            match &self.gulp {
                Some(gulp) => std::thread::sleep(gulp.pause),
                None if self.left_inside => {}
                None => self.wait(true)?,
            }
            // What came before the end may hold the server's reason for it.
            let read = self.read();
            self.scan()?;
            read?;
        }
    }

    fn wait(&mut self, read: bool) -> Result<(), Fault> {
        let mut timeout = self.wire.until_report();
        if let Some(since) = self.held.filter(|_| !self.blocked) {
            timeout = timeout.min(HOLD_TIME.saturating_sub(since.elapsed()));
        }
        let waited = self.transport.wait_readable(&self.shared.wake, read, timeout);
        waited.map_err(|e| self.wire.lost(&e))?;
        let _nothing = rustix::io::read(&self.shared.wake, &mut [0; 8]);
        Ok(())
    }

    fn report(&mut self) -> Result<(), Fault> {
        self.out.clear();
        self.wire.report(&mut self.out)?;
        if self.out.is_empty() {
            return Ok(());
        }
        self.transport.write_all(&self.out, SEND_TIMEOUT).map_err(|e| self.wire.lost(&e))
    }

    fn holds_back(&self) -> bool {
        self.gulp.is_none()
            && self.scanned < HOLD_BYTES
            && self.filled < self.buffer.len()
            && self.held.is_some_and(|since| since.elapsed() < HOLD_TIME)
    }

    /// Hands whole frames to the pipeline, if it has room; false when nobody is there any more.
    fn pass_on(&mut self) -> bool {
        self.blocked = false;
        if self.scanned == 0 || self.holds_back() {
            return !self.sender.is_closed();
        }
        let permit = match self.room() {
            None => {
                // Announced first and tried once more, so that room made in between is not missed.
                self.shared.full.swap(true, Ordering::SeqCst);
                self.room()
            }
            room => room,
        };
        self.blocked = permit.is_none();
        if let Some(permit) = permit {
            self.held = None;
            permit.send(Ok(self.take_frames()));
        }
        !self.sender.is_closed()
    }

    /// A place in the channel. A buffer that was made for a longer frame goes alone, so that few of them are in memory at once.
    fn room(&self) -> Option<mpsc::OwnedPermit<Result<Chunk, Fault>>> {
        let long = self.buffer.len() > BUFFER_BYTES;
        if long && self.sender.capacity() < self.sender.max_capacity() {
            return None;
        }
        self.sender.clone().try_reserve_owned().ok()
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
        self.left_inside = false;
        let ended = loop {
            if self.filled == self.buffer.len() {
                self.left_inside = self.transport.is_encrypted();
                break Ok(());
            }
            match self.transport.read(&mut self.buffer[self.filled..]) {
                Ok(0) => break Err(self.wire.closed()),
                Ok(n) => {
                    self.filled += n;
                    self.wire.received();
                    // An encrypted stream is read until nothing is left.
                    if !self.transport.is_encrypted() {
                        break Ok(());
                    }
                }
                Err(e) if is_timeout(&e) => break Ok(()),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => break Err(self.wire.lost(&e)),
            }
        };
        let (bytes, full) = (self.filled - before, self.filled == self.buffer.len());
        self.gulp = match self.gulp {
            Some(gulp) => gulp.after(bytes, full),
            None if !W::SENDS_SINGLY => None,
            None => self.flood.rises(bytes, Instant::now()).then_some(Gulp::FIRST),
        };
        ended
    }

    /// Counts the whole frames, and makes room for a frame longer than the buffer.
    fn scan(&mut self) -> Result<(), Fault> {
        let mut held = self.held.or((self.scanned == 0).then(Instant::now));
        loop {
            let rest = &self.buffer[self.scanned..self.filled];
            let announced = self.wire.frame_length(rest)?;
            match announced.filter(|length| *length <= rest.len()) {
                Some(length) => {
                    if self.wire.arrived(&rest[..length]) {
                        held = None;
                    }
                    self.scanned += length;
                }
                None => {
                    // Grown as the data arrives, never by what a header merely announces.
                    if self.scanned == 0 && self.filled == self.buffer.len() {
                        let doubled = 2 * self.buffer.len();
                        self.buffer.resize(announced.map_or(doubled, |length| length.min(doubled)), 0);
                    }
                    self.held = held.filter(|_| self.scanned > 0);
                    return Ok(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_much_within_a_short_time() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut flood = Flood { since: begun, bytes: 0 };
        assert!(!flood.rises(FLOOD_BYTES - 1, at(1)));
        assert!(flood.rises(1, at(2)));
        let mut flood = Flood { since: begun, bytes: 0 };
        let steady = (0..1000).any(|ms| flood.rises(2 << 10, at(ms)));
        assert!(!steady, "2 MB/s is a busy server that has caught up");
        assert!((1000..1100).any(|ms| flood.rises(32 << 10, at(ms))), "32 MB/s is none");
    }

    #[test]
    fn gulps_end_with_two_trickles() {
        let at = |pause, trickle| Some(Gulp { pause, trickle });
        let once = Gulp::FIRST.after(10, false);
        assert_eq!(once, at(GULP_PAUSE, true));
        assert_eq!(once.and_then(|g| g.after(10, false)), None);
        let more = once.and_then(|g| g.after(BUFFER_BYTES, false));
        assert_eq!(more.map(|g| g.trickle), Some(false), "one trickle alone says nothing");
        let mut gulp = Gulp::FIRST;
        (0..99).for_each(|_| gulp = gulp.after(64 << 10, false).unwrap_or(gulp));
        assert_eq!(gulp.pause, GULP_PAUSE_MAX);
        // 3 MB/s: a busy server that has caught up.
        let slow = gulp.after(24 << 10, false);
        assert_eq!(slow.and_then(|g| g.after(24 << 10, false)), None);
        (0..200).for_each(|_| gulp = gulp.after(BUFFER_BYTES, true).unwrap_or(gulp));
        assert_eq!(gulp.pause, GULP_PAUSE_MIN);
    }
}
