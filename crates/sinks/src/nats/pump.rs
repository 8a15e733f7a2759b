//! The road of events: one task that writes messages, reads acknowledgements and watches the time.
//!
//! # The chain
//!
//! A stream takes messages one by one, so several are under way at once: a window. Were the one that fails published again
//! behind those that did not, it would stand behind them for good. So **each message demands that the one before it is the last in the
//! stream** (`Nats-Expected-Last-Msg-Id`): once one is lost or refused, all that follow it are refused, too, whoever loses it
//! (a server, a leader that dies, a full disk).
//!
//! ```text
//! sent        1 ── 2 ── 3 ── 4 ── 5      each demands the one before it
//! stored      1 ── 2 ── ✗                3 was refused (or somebody else wrote behind 2)
//!                       ✗    ✗    ✗      wrong last message: nothing behind the gap is stored
//! again                 3 ── 4 ── 5      once every answer is there; 3 now demands nothing
//! ```
//!
//! The first message of a connection, and of the window after a refusal, demands nothing. That is safe, as everything before it
//! is acknowledged and everything behind it is known to be refused: so others may write to the stream as well. They break the
//! chain between two of our messages now and then, which costs one round trip; the window shrinks where it happens often.
//!
//! **Ghosts.** What an earlier connection has sent may be stored after we have begun anew. It is the same events in the same order,
//! under the same ids: whichever copy comes second is a duplicate and vanishes, inside the stream's deduplication window, and counts
//! as delivered. A server looks for duplicates before it looks at what a message demands, so a replay passes. Outside the window a
//! ghost's demand fails, as something newer is last. Either way each event's first copy stands in order.
//!
//! # Exactly once
//!
//! The stream is this sink's alone, and each message also demands the stream's last sequence (`Nats-Expected-Last-Sequence`), counted on
//! from what `take_over` read. A sequence alone would not do: a foreign message in the place of a lost one of ours would
//! satisfy the next one's demand. A wrong last message ends the connection, and the message that stands there says why.
//!
//! In atomic batches only the sequence may be demanded, of the first message. A batch is committed once everything before it
//! is acknowledged, so that argument is not needed: it is staged meanwhile, and the demand holds when it is committed.
//!
//! # Core NATS
//!
//! There are no acknowledgements. The messages of a batch are followed by a `PING`: its `PONG` says that the server has routed them.
//! Each names a place for a reply, to which the server says at once, before the `PONG`, when nobody is subscribed.
//!
//! The client is our own for this: one connection, never made again behind our back, whose loss ends everything that was under way.

use super::answer::{Acknowledgements, Group, api_error};
use super::connection::{Connection, Socket, max_payload};
use super::error::{broken, malformed, no_listeners, no_responders, spoken_alive, timed_out};
use super::exactly::Writer;
use super::message::{Prepared, line};
use super::protocol::{self, Op};
use deltaforge_core::sink::Delivered;
use deltaforge_core::{EventId, Fault};
use deltaforge_net::address::Address;
use memchr::memmem;
use std::collections::VecDeque;
use std::io;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// Messages under way: at 100,000 a second, those of 40 ms.
const WINDOW: usize = 4096;
/// Bytes under way.
const WINDOW_BYTES: usize = 16 * 1024 * 1024;
/// How much is written before the socket is asked to take it.
const CHUNK_BYTES: usize = 128 * 1024;
/// Batches waiting or under way: the one that is sent, and the next.
const BATCHES: usize = 2;
/// How messages are published.
#[derive(Clone, Debug)]
pub(super) enum Style {
    /// Without a stream.
    Core,
    /// To a stream, chained by ids.
    Chained { acknowledgements: Acknowledgements },
    /// To a stream of our own, chained by sequences and ids.
    Exactly { acknowledgements: Acknowledgements, writer: Writer, atomic: bool },
}

/// How long an answer may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the next sign of life.
    pub(super) send: Duration,
    /// For a whole batch.
    pub(super) batch: Duration,
}

/// What the pump is asked to do, in order.
pub(super) enum Job {
    /// A question and its answer; `None`: nobody answers it.
    Request { subject: String, payload: Vec<u8>, answer: oneshot::Sender<Option<Vec<u8>>> },
    /// The stream's last sequence, from which messages are counted on.
    Follow { last: u64 },
    /// Messages, at least one.
    Batch { prepared: Prepared, done: oneshot::Sender<Delivered> },
}

/// What the pump has seen so far.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Batches acknowledged.
    pub(super) acknowledged: u64,
    pub(super) fault: Option<Fault>,
}

/// Why the pump stops.
enum Ended {
    Fault(Fault),
    /// What is last in the stream is not what we wrote last.
    NotLast,
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Ended {
        Ended::Fault(fault)
    }
}

struct InFlight {
    prepared: Prepared,
    /// The number of its first message.
    first: u64,
    began: Instant,
    done: oneshot::Sender<Delivered>,
}

impl InFlight {
    fn end(&self) -> u64 {
        self.first + self.prepared.len() as u64
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Done,
    /// Refused because the one before it is not the last in the stream.
    Refused,
}

/// The task's state. Messages are numbered from 0; `acked <= sent <= total`.
pub(super) struct Pump {
    address: Address,
    reader: ReadHalf<Box<dyn Socket>>,
    writer: WriteHalf<Box<dyn Socket>>,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    unflushed: bool,
    inbox: String,
    style: Style,
    patience: Patience,
    batches: VecDeque<InFlight>,
    requests: VecDeque<(u64, oneshot::Sender<Option<Vec<u8>>>)>,
    asked: u64,
    acked: u64,
    sent: u64,
    total: u64,
    /// Of the messages from `acked` to `sent`: state and size.
    states: VecDeque<(State, usize)>,
    waiting: usize,
    bytes: usize,
    window: usize,
    credit: usize,
    /// The event sent last, unless the next message is to demand nothing.
    previous: Option<EventId>,
    refused: bool,
    /// For exactly-once: the sequence of message 0, were there one. A message's sequence is this plus its number.
    base: Option<u64>,
    /// For core NATS: up to which message each awaited `PONG` tells.
    pongs: VecDeque<u64>,
    life: Instant,
    /// As the server has told last.
    max_payload: Arc<AtomicUsize>,
    front: Vec<u8>,
    reply: String,
}

impl Pump {
    pub(super) fn new(connection: Connection, inbox: String, style: Style, patience: Patience) -> Pump {
        let Connection { address, info, socket, input } = connection;
        let (reader, writer) = tokio::io::split(socket);
        let window = if matches!(style, Style::Core) { usize::MAX } else { WINDOW };
        let mut output = Vec::with_capacity(2 * CHUNK_BYTES);
        output.extend_from_slice(format!("SUB {inbox}.* 1\r\n").as_bytes());
        Pump {
            address,
            reader,
            writer,
            input,
            output,
            written: 0,
            unflushed: false,
            inbox,
            style,
            patience,
            batches: VecDeque::new(),
            requests: VecDeque::new(),
            asked: 0,
            acked: 0,
            sent: 0,
            total: 0,
            states: VecDeque::new(),
            waiting: 0,
            bytes: 0,
            window,
            credit: 0,
            previous: None,
            refused: false,
            base: None,
            pongs: VecDeque::new(),
            life: Instant::now(),
            max_payload: Arc::new(info.max_payload.into()),
            front: Vec::new(),
            reply: String::new(),
        }
    }

    /// The server's `max_payload`, which a reload of its configuration changes.
    pub(super) fn max_payload(&self) -> Arc<AtomicUsize> {
        self.max_payload.clone()
    }

    /// Runs until the sink is dropped, which ends the connection at once, or something fails.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>, publish: watch::Sender<Outcome>) {
        let fault = match self.pump(&mut jobs, &publish).await {
            Ok(()) => return,
            Err(Ended::Fault(fault)) => fault,
            Err(Ended::NotLast) => self.judge().await,
        };
        // Published before `jobs` closes, so that whoever finds it closed finds the fault.
        publish.send_modify(|outcome| outcome.fault = Some(fault));
    }

    async fn pump(
        &mut self,
        jobs: &mut mpsc::Receiver<Job>,
        publish: &watch::Sender<Outcome>,
    ) -> Result<(), Ended> {
        loop {
            // Staged messages have no answers of their own: room in the window is not always made by reading.
            self.settle(publish);
            self.fill();
            let unwritten = self.written < self.output.len();
            let deadline = self.deadline();
            let accept = self.batches.len() < BATCHES;
            self.input.reserve(16 * 1024);
            tokio::select! {
                biased;
                read = self.reader.read_buf(&mut self.input) => {
                    match read.map_err(|e| broken(&self.address, &e))? {
                        0 => return Err(broken(&self.address, &io::ErrorKind::UnexpectedEof.into()).into()),
                        _ => self.life = Instant::now(),
                    }
                    self.understand()?;
                }
                count = write_or_flush(&mut self.writer, &self.output[self.written..]), if unwritten || self.unflushed => {
                    match count.map_err(|e| broken(&self.address, &e))? {
                        Some(0) => return Err(broken(&self.address, &io::ErrorKind::WriteZero.into()).into()),
                        Some(count) => self.written += count,
                        None => {}
                    }
                    (self.life, self.unflushed) = (Instant::now(), unwritten);
                }
                job = jobs.recv(), if accept => match job {
                    None => return Ok(()),
                    Some(job) => self.take(job),
                },
                () = tokio::time::sleep_until(deadline.unwrap_or(self.life)), if deadline.is_some() => {
                    return Err(self.late().into());
                }
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.batches.is_empty() && self.requests.is_empty() && self.written == self.output.len()
    }

    fn deadline(&self) -> Option<Instant> {
        if self.is_idle() {
            return None;
        }
        let silence = self.life + self.patience.send;
        Some(self.batches.front().map_or(silence, |batch| silence.min(batch.began + self.patience.batch)))
    }

    fn late(&self) -> Fault {
        let batch = self.patience.batch;
        if self.batches.front().is_some_and(|front| Instant::now() >= front.began + batch) {
            return timed_out(&self.address, "batch_timeout_secs", batch);
        }
        timed_out(&self.address, "send_timeout_secs", self.patience.send)
    }

    fn take(&mut self, job: Job) {
        if self.is_idle() {
            self.life = Instant::now();
        }
        match job {
            Job::Request { subject, payload, answer } => {
                self.asked += 1;
                let (inbox, number, length) = (&self.inbox, self.asked, payload.len());
                self.output
                    .extend_from_slice(format!("PUB {subject} {inbox}.r{number} {length}\r\n").as_bytes());
                self.output.extend_from_slice(&payload);
                self.output.extend_from_slice(b"\r\n");
                self.requests.push_back((number, answer));
            }
            Job::Follow { last } => self.base = Some((last + 1).wrapping_sub(self.total)),
            Job::Batch { prepared, done } => {
                let first = self.total;
                self.total += prepared.len() as u64;
                self.batches.push_back(InFlight { prepared, first, began: Instant::now(), done });
            }
        }
    }

    // --- Writing ------------------------------------------------------------------------------------------------------------

    /// Writes messages into `output` as far as the window and the socket allow.
    fn fill(&mut self) {
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
            // One huge event must not keep its room for ever.
            self.output.shrink_to(16 * CHUNK_BYTES);
        } else if self.written > 8 * CHUNK_BYTES {
            self.output.drain(..self.written);
            self.written = 0;
        }
        while self.output.len() - self.written < CHUNK_BYTES && self.send_next() {}
    }

    /// Writes the next message; false when it must wait.
    fn send_next(&mut self) -> bool {
        let open = self.states.len() < self.window && (self.bytes < WINDOW_BYTES || self.states.is_empty());
        let core = matches!(self.style, Style::Core);
        if self.refused || self.sent == self.total || !(open || core) {
            return false;
        }
        let number = self.sent;
        let Some(at) = self.batches.iter().position(|batch| number < batch.end()) else { return false };
        let index = (number - self.batches[at].first) as usize;
        self.front.clear();
        let mut state = State::Waiting;
        let mut answered = true;
        match &self.style {
            Style::Core => {}
            Style::Chained { .. } => self.demand_previous(),
            Style::Exactly { writer, atomic, .. } => {
                let Some(base) = self.base else { return false };
                let last = base.wrapping_add(number).wrapping_sub(1);
                let inside = self.batches[at].prepared.inside(index);
                line(&mut self.front, b"df-inside", itoa::Buffer::new().format(inside).as_bytes());
                let group = Group::of(index as u64, self.batches[at].prepared.len() as u64);
                if !*atomic || group.len == 1 {
                    line(
                        &mut self.front,
                        b"Nats-Expected-Last-Sequence",
                        itoa::Buffer::new().format(last).as_bytes(),
                    );
                    self.demand_previous();
                } else {
                    let first = number - group.at;
                    if group.is_last() && self.acked < first {
                        return false;
                    }
                    let _ = write!(
                        self.front,
                        "Nats-Batch-Id: {}-{first}\r\nNats-Batch-Sequence: {}\r\n",
                        writer.writer,
                        group.at + 1
                    );
                    if group.at == 0 {
                        line(
                            &mut self.front,
                            b"Nats-Expected-Last-Sequence",
                            itoa::Buffer::new().format(last).as_bytes(),
                        );
                    }
                    if group.is_last() {
                        self.front.extend_from_slice(b"Nats-Batch-Commit: 1\r\n");
                    } else if group.at > 0 {
                        // What is staged is answered by the commit.
                        (state, answered) = (State::Done, false);
                    }
                }
            }
        }
        self.reply.clear();
        self.reply.push_str(&self.inbox);
        self.reply.push('.');
        self.reply.push_str(itoa::Buffer::new().format(number));
        let reply = if answered { self.reply.as_str() } else { "" };
        let batch = &self.batches[at];
        batch.prepared.write(index, reply, &self.front, &mut self.output);
        let (size, id, ends) =
            (batch.prepared.size(index), batch.prepared.id(index), number + 1 == batch.end());
        self.states.push_back((state, size));
        self.waiting += usize::from(state == State::Waiting);
        self.bytes += size;
        self.previous = Some(id);
        self.sent += 1;
        if core && ends {
            self.output.extend_from_slice(b"PING\r\n");
            self.pongs.push_back(self.sent);
        }
        true
    }

    fn demand_previous(&mut self) {
        if let Some(previous) = self.previous {
            self.front.extend_from_slice(b"Nats-Expected-Last-Msg-Id: ");
            deltaforge_encode::Encoder::event_id(previous, &mut self.front);
            self.front.extend_from_slice(b"\r\n");
        }
    }

    // --- Reading ------------------------------------------------------------------------------------------------------------

    /// Takes the operations that are whole out of `input`.
    fn understand(&mut self) -> Result<(), Ended> {
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        let result = loop {
            match protocol::parse(&input[at..]) {
                Ok(None) => break Ok(()),
                Err(what) => break Err(malformed(&self.address, &what).into()),
                Ok(Some((op, used))) => {
                    if let Err(ended) = self.operation(&op, &input[at..at + used]) {
                        break Err(ended);
                    }
                    at += used;
                }
            }
        };
        self.input = input;
        self.input.drain(..at);
        result
    }

    fn operation(&mut self, op: &Op, bytes: &[u8]) -> Result<(), Ended> {
        match op {
            Op::Ping => self.output.extend_from_slice(b"PONG\r\n"),
            Op::Pong => {
                let upto = self.pongs.pop_front().unwrap_or(0);
                (self.acked..upto).for_each(|number| self.answered(number, State::Done));
            }
            Op::Err(text) => return Err(spoken_alive(&self.address, &bytes[text.clone()]).into()),
            Op::Info(text) => {
                if let Some(most) = max_payload(&bytes[text.clone()]) {
                    self.max_payload.store(most, Relaxed);
                }
            }
            Op::Ok => {}
            Op::Message { subject, head, payload } => {
                let token = bytes[subject.clone()].strip_prefix(self.inbox.as_bytes());
                let token = token.and_then(|token| std::str::from_utf8(token.strip_prefix(b".")?).ok());
                let (head, payload) = (&bytes[head.clone()], &bytes[payload.clone()]);
                let nobody = protocol::status(head) == Some(503);
                match token {
                    Some(token) if token.starts_with('r') => {
                        let number = token[1..].parse().unwrap_or(0);
                        if let Some(at) = self.requests.iter().position(|(n, _)| *n == number)
                            && let Some((_, answer)) = self.requests.remove(at)
                        {
                            let _ = answer.send((!nobody).then(|| payload.to_vec()));
                        }
                    }
                    Some(token) => {
                        let number = token.parse().unwrap_or(u64::MAX);
                        if (self.acked..self.sent).contains(&number) {
                            return self.acknowledgement(number, nobody, payload);
                        }
                    }
                    None => {}
                }
            }
        }
        Ok(())
    }

    fn acknowledgement(&mut self, number: u64, nobody: bool, payload: &[u8]) -> Result<(), Ended> {
        match (&self.style, nobody) {
            (Style::Core, true) => return Err(no_listeners(&self.address).into()),
            // Whoever is subscribed may reply; it tells nothing.
            (Style::Core, false) => return Ok(()),
            (_, true) => return Err(no_responders(&self.address).into()),
            _ => {}
        }
        let exactly = matches!(self.style, Style::Exactly { .. });
        if let Some(error) = api_error(payload) {
            if exactly && (error.is_wrong_last() || error.is_duplicate()) {
                return Err(Ended::NotLast);
            }
            if error.is_wrong_last() {
                self.refused = true;
                self.answered(number, State::Refused);
                return Ok(());
            }
            if let Style::Exactly { writer, atomic: true, .. } = &self.style
                && error.is_no_atomic_batches()
            {
                writer.memory.forgo_atomic_batches();
                let message = format!("{} takes no atomic batches as this sink writes them", self.address);
                return Err(Fault::retry("nats.no_atomic_batches", message).into());
            }
            // What is wrong with an atomic batch is not always its last event.
            let event = if self.group(number).is_some() { None } else { self.event(number) };
            return Err(error.fault(&self.address, event).into());
        }
        let (Style::Chained { acknowledgements } | Style::Exactly { acknowledgements, .. }) = &self.style
        else {
            return Ok(());
        };
        match acknowledgements.sequence(payload) {
            Some(sequence) => {
                if let Style::Exactly { writer, .. } = &self.style {
                    let expected = self.base.map(|base| base.wrapping_add(number));
                    // A duplicate of what we were told is missing: somebody else has just written it.
                    if Some(sequence) != expected || memmem::find(payload, b"\"duplicate\"").is_some() {
                        return Err(Ended::NotLast);
                    }
                    writer.memory.wrote();
                }
            }
            // What is staged is answered with nothing; only the commit stores it.
            None if payload.is_empty() && self.group(number).is_some_and(|group| !group.is_last()) => {}
            // Of somebody who is subscribed to the subject as well. The stream's answer comes, or the time runs out.
            None => return Ok(()),
        }
        self.answered(number, State::Done);
        Ok(())
    }

    /// The place of a message in its atomic batch; `None`: it is not of one.
    fn group(&self, number: u64) -> Option<Group> {
        let Style::Exactly { atomic: true, .. } = &self.style else { return None };
        let batch = self.batches.iter().find(|batch| number < batch.end())?;
        let group = Group::of(number.checked_sub(batch.first)?, batch.prepared.len() as u64);
        (group.len > 1).then_some(group)
    }

    fn event(&self, number: u64) -> Option<EventId> {
        let batch = self.batches.iter().find(|batch| number < batch.end())?;
        Some(batch.prepared.id(number.checked_sub(batch.first)? as usize))
    }

    fn answered(&mut self, number: u64, state: State) {
        let Some(slot) = self.states.get_mut((number - self.acked) as usize) else { return };
        if slot.0 == State::Waiting {
            self.waiting -= 1;
        }
        slot.0 = state;
        if self.window < WINDOW && state == State::Done {
            self.credit += 1;
            if self.credit >= self.window {
                self.window = (2 * self.window).min(WINDOW);
                self.credit = 0;
            }
        }
    }

    /// Resolves what is acknowledged, and begins anew behind a refusal once every answer is there.
    fn settle(&mut self, publish: &watch::Sender<Outcome>) {
        while let Some((State::Done, size)) = self.states.front() {
            self.bytes -= size;
            self.states.pop_front();
            self.acked += 1;
        }
        while self.batches.front().is_some_and(|batch| batch.end() <= self.acked) {
            let Some(batch) = self.batches.pop_front() else { break };
            // Whoever waits for the number finds the receipt resolved.
            let _ = batch.done.send(Delivered { bytes: batch.prepared.payload_bytes });
            publish.send_modify(|outcome| outcome.acknowledged += 1);
            if let Some(next) = self.batches.front_mut() {
                next.began = Instant::now();
            }
        }
        if self.refused && self.waiting == 0 {
            // What came behind the gap and is there is a duplicate; it will be one again.
            self.states.clear();
            (self.bytes, self.sent, self.previous, self.refused) = (0, self.acked, None, false);
            (self.window, self.credit) = ((self.window / 4).max(1), 0);
        }
    }

    /// What it means that something else is last in the stream than what we wrote.
    async fn judge(self) -> Fault {
        let Style::Exactly { writer, .. } = &self.style else {
            return Fault::bug("nats.judge", "a sink without exactly_once counts sequences");
        };
        let writer = writer.clone();
        let socket = self.reader.unsplit(self.writer);
        let mut connection =
            Connection { address: self.address, info: Default::default(), socket, input: self.input };
        let judged = async {
            connection.send(&self.output[self.written..]).await?;
            writer.judge(&mut connection).await
        };
        match tokio::time::timeout(self.patience.send, judged).await {
            Ok(Ok(fault) | Err(fault)) => fault,
            Err(_) => timed_out(&connection.address, "send_timeout_secs", self.patience.send),
        }
    }
}

/// One write of some of the bytes; once there are none, a flush. Nothing is lost when it is dropped unfinished.
async fn write_or_flush(writer: &mut WriteHalf<Box<dyn Socket>>, bytes: &[u8]) -> io::Result<Option<usize>> {
    if bytes.is_empty() {
        return writer.flush().await.map(|()| None);
    }
    writer.write(bytes).await.map(Some)
}
