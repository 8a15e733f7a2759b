//! Delivery to one server.
//!
//! **A batch is one transaction, and its `EXEC` waits for the acknowledgement of the batch before it.**
//!
//! ```text
//! we      MULTI XADD… EXEC₁  MULTI XADD XADD XADD …      EXEC₂  MULTI XADD …
//! Redis                    └ executes 1, queues 2 …  ids₁ ┘   └ executes 2 …
//! ```
//!
//! So encoding, sending and queueing of a batch overlap with the work on the one before it, and yet nothing of it can take
//! effect while the fate of the one before is open: a connection that ends before `EXEC` leaves nothing behind. After any fault
//! the stream therefore ends with a whole number of batches, in order, and delivering again from the first one without a receipt
//! repeats at most one of them, whole. (Sending `EXEC₂` at once would let batch 2 stand in the stream before batch 1 when
//! batch 1 was refused for want of memory that is there a moment later.)
//!
//! With `exactly_once` the transaction also writes the position, and may span several batches: [`exact`](super::exact).
//!
//! Two parties: `deliver` writes; a task reads replies, watches the time and resolves receipts. The task is the only one that
//! decides that something failed; it publishes the fault in `outcome`, and everybody who waits looks there.

use super::connection::{Connection, Connector};
use super::entry::{Entries, Written, too_large};
use super::error::{broken, malformed, reply_fault_of, timed_out};
use super::exact::{Exact, fenced, partly, position_gone};
use super::replies::{Progress, Replies, Shape};
use super::resp::{self, Malformed, Value};
use async_trait::async_trait;
use deltaforge_core::sink::{Delivered, Delivery, Held, Receipt, Sink};
use deltaforge_core::task::{Task, spawn};
use deltaforge_core::{Batch, Event, EventId, Fault, Position};
use deltaforge_net::address::Address;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// How much is encoded before it is written: large enough that calls do not count, small enough that a huge batch takes
/// no memory of its own and Redis begins early.
const CHUNK_BYTES: usize = 64 * 1024;
/// Streams whose kind was looked at are remembered, up to this many.
const KNOWN_STREAMS: usize = 10_000;
/// Times that a position key is taken over before that fails.
const CLAIMS: usize = 20;
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";

/// An open sink on one connection.
pub(super) struct RedisSink {
    address: Address,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    longest_bulk: usize,
    entries: Entries,
    out: Vec<u8>,
    known_streams: HashSet<Vec<u8>>,
    /// How the connection will be called at the server; `None` once it is.
    unnamed: Option<String>,
    /// Transactions, and parts of one, begun.
    begun: u64,
    /// Only with `exactly_once`.
    exact: Option<Exact>,
    recovered: Option<Held>,
    connector: Arc<Connector>,
    /// Set while a delivery is under way: still set at the next one, the delivery was cancelled halfway.
    midway: bool,
    questions: mpsc::Sender<Question>,
    outcome: watch::Receiver<Outcome>,
    written: Arc<AtomicU64>,
    reader: Task<()>,
}

/// What the reader has seen so far.
#[derive(Debug, Default)]
struct Outcome {
    /// Transactions, and parts of one, acknowledged.
    acknowledged: u64,
    /// Looks at the position key that found it as we left it.
    looks: u64,
    fault: Option<Fault>,
}

/// Something that replies are to come for, in the order in which it was written.
enum Question {
    Transaction {
        shape: Shape,
        done: oneshot::Sender<Result<Delivered, Fault>>,
        sent: Arc<Sent>,
    },
    /// `WATCH` and `GET` of the position key, which is to hold this.
    Look {
        expected: Vec<u8>,
    },
    /// Single commands.
    Calls {
        count: usize,
        answers: oneshot::Sender<Vec<Value>>,
    },
}

/// What is known of a transaction once it is written.
#[derive(Default)]
struct Sent {
    payload_bytes: AtomicU64,
    largest: std::sync::Mutex<(usize, EventId)>,
}

/// How long the reader waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the next sign of life.
    pub(super) send: Duration,
    /// For a whole batch.
    pub(super) batch: Duration,
}

impl RedisSink {
    /// `exact`, with what the position key was seen to hold, makes it an exactly-once sink. `name` is how the connection that events come by is called at the server, the same in every process that runs this sink.
    pub(super) fn new(
        connector: Arc<Connector>,
        connection: Connection,
        entries: Entries,
        name: String,
        exact: Option<(Exact, Option<Held>)>,
    ) -> RedisSink {
        let (exact, recovered) = exact.unzip();
        let settings = &connector.settings;
        let patience = Patience { send: settings.send_timeout, batch: settings.batch_timeout };
        let in_cluster = settings.is_cluster();
        let Connection { address, replies, writer, longest_bulk, .. } = connection;
        let (questions, asked) = mpsc::channel(4);
        let (publish, outcome) = watch::channel(Outcome::default());
        let written = Arc::new(AtomicU64::new(0));
        let reader = Reader {
            address: address.clone(),
            position_key: exact.as_ref().map(|e| e.key.clone()),
            in_cluster,
            replies,
            patience,
            written: written.clone(),
        };
        let reader = spawn("redis reader", reader.run(asked, publish));
        RedisSink {
            address,
            writer,
            longest_bulk,
            entries,
            out: Vec::with_capacity(2 * CHUNK_BYTES),
            known_streams: HashSet::new(),
            unnamed: Some(name),
            begun: 0,
            exact,
            recovered: recovered.flatten(),
            connector,
            midway: false,
            questions,
            outcome,
            written,
            reader,
        }
    }

    /// The fault that ended the reader; waits for it.
    async fn failed(outcome: &mut watch::Receiver<Outcome>, address: &Address) -> Fault {
        match outcome.wait_for(|outcome| outcome.fault.is_some()).await.map(|outcome| outcome.fault.clone()) {
            Ok(Some(fault)) => fault,
            _ => Fault::bug("redis.reader_ended", format!("the reader of {address} ended without a fault")),
        }
    }

    /// Waits until everything written before is acknowledged, and the position key was found as we left it.
    async fn settled(&mut self, transactions: u64) -> Result<(), Fault> {
        let looks = self.exact.as_ref().map_or(0, |exact| exact.looks);
        let settled = |o: &Outcome| o.fault.is_some() || (o.acknowledged >= transactions && o.looks >= looks);
        let fault = match self.outcome.wait_for(settled).await {
            Ok(outcome) => outcome.fault.clone(),
            Err(_) => Some(Fault::bug("redis.reader_ended", "the reader ended without a fault")),
        };
        fault.map_or(Ok(()), Err)
    }

    /// Writes what is in `out`, unless the reader finds that the connection is dead.
    async fn flush(&mut self) -> Result<(), Fault> {
        let RedisSink { address, writer, out, outcome, written, .. } = self;
        let write = async {
            let mut rest = out.as_slice();
            while !rest.is_empty() {
                let count = writer.write(rest).await?;
                if count == 0 {
                    return Err(std::io::ErrorKind::WriteZero.into());
                }
                written.fetch_add(count as u64, Relaxed);
                rest = &rest[count..];
            }
            writer.flush().await
        };
        let result = tokio::select! {
            biased;
            result = write => result,
            fault = Self::failed(outcome, address) => return Err(fault),
        };
        out.clear();
        // One huge event must not keep its room for ever.
        out.shrink_to(16 * CHUNK_BYTES);
        match result {
            Ok(()) => Ok(()),
            // Redis says why it closes a connection before it does, and the reader may be about to read it.
            Err(e) => Err(tokio::time::timeout(Duration::from_secs(1), Self::failed(outcome, address))
                .await
                .unwrap_or_else(|_| broken(address, &e))),
        }
    }

    async fn ask(&mut self, question: Question) -> Result<(), Fault> {
        let RedisSink { address, questions, outcome, .. } = self;
        // The channel is closed only after the fault was published.
        match questions.send(question).await {
            Ok(()) => Ok(()),
            Err(_) => Err(Self::failed(outcome, address).await),
        }
    }

    /// Looks at what the streams of a batch are, those not seen before: a wrong type would be found only inside `EXEC`, after
    /// the other entries took effect.
    async fn look_at_streams(&mut self, batch: &Batch) -> Result<(), Fault> {
        let mut new: Vec<Vec<u8>> = Vec::new();
        for event in batch.events() {
            let Some(name) = self.entries.stream_of(&event)? else { return Ok(()) };
            if !self.known_streams.contains(name) && !new.iter().any(|n| n == name) {
                new.push(name.to_vec());
            }
        }
        for names in new.chunks(100) {
            let commands: Vec<Vec<&[u8]>> = names.iter().map(|name| vec![b"TYPE".as_slice(), name]).collect();
            let answers = if self.exact.as_ref().is_some_and(|exact| exact.is_open) {
                // On this connection the commands would be queued.
                let commands: Vec<&[&[u8]]> = commands.iter().map(Vec::as_slice).collect();
                self.connector.connect(&self.address).await?.call_all(&commands).await?
            } else {
                self.calls(&commands).await?
            };
            for (name, answer) in names.iter().zip(answers) {
                not_a_stream(name, &answer)?;
            }
        }
        if self.known_streams.len() + new.len() > KNOWN_STREAMS {
            self.known_streams.clear();
        }
        self.known_streams.extend(new);
        Ok(())
    }

    /// Single commands and their replies, which may be error replies.
    async fn calls(&mut self, commands: &[Vec<&[u8]>]) -> Result<Vec<Value>, Fault> {
        commands.iter().for_each(|command| resp::command(&mut self.out, command));
        let (answers, answered) = oneshot::channel();
        self.ask(Question::Calls { count: commands.len(), answers }).await?;
        self.flush().await?;
        match answered.await {
            Ok(answers) => Ok(answers),
            Err(_) => Err(Self::failed(&mut self.outcome, &self.address).await),
        }
    }

    /// Before the first events: what a process that was killed has sent may still lie unread at the server, and executed later
    /// it would put old entries behind new ones. Its connection bears this sink's name, and is killed. Not at open, since a
    /// process that stands by opens its sinks, too, and must not disturb the one that delivers. A server that does not
    /// allow it (`NOPERM`) is taken as it is.
    async fn put_namesakes_to_rest(&mut self) -> Result<(), Fault> {
        let Some(name) = self.unnamed.take() else { return Ok(()) };
        let answers = self.calls(&[vec![b"CLIENT", b"ID"], vec![b"CLIENT", b"LIST"]]).await?;
        let own = match answers.first() {
            Some(Value::Int(own)) => own.to_string(),
            _ => String::new(),
        };
        let others = namesakes(answers.get(1).and_then(Value::text).unwrap_or_default(), &name, &own);
        let mut commands: Vec<Vec<&[u8]>> =
            others.iter().map(|id| vec![b"CLIENT".as_slice(), b"KILL", b"ID", id.as_bytes()]).collect();
        commands.push(vec![b"CLIENT", b"SETNAME", name.as_bytes()]);
        self.calls(&commands).await.map(drop)
    }

    async fn write_batch(&mut self, batch: &Batch) -> Result<Receipt, Fault> {
        self.entries.prepare(batch);
        self.put_namesakes_to_rest().await?;
        self.look_at_streams(batch).await?;
        let (done, receipt) = oneshot::channel();
        let sent = Arc::new(Sent::default());
        let before = self.begun;
        let end = batch.end().map(|end| &end.position);
        let shape = self.begin(batch.len(), end.is_some()).await?;
        self.begun += 1;
        self.ask(Question::Transaction { shape, done, sent: sent.clone() }).await?;
        if shape.opens {
            resp::command(&mut self.out, &[b"MULTI"]);
        }
        let (mut payload, mut largest) = (0, (0, EventId::default()));
        // Before the bytes go out: the server may answer before the rest is written.
        let note = |largest| {
            *sent.largest.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = largest;
        };
        for event in batch.events() {
            let written = self.entry(&event)?;
            payload += written.payload as u64;
            if written.longest > largest.0 {
                largest = (written.longest, event.id());
            }
            if self.out.len() >= CHUNK_BYTES {
                note(largest);
                self.flush().await?;
            }
        }
        sent.payload_bytes.store(payload, Relaxed);
        note(largest);
        if shape.executes.is_some() {
            let looks = self.exact.as_ref().map_or(0, |exact| exact.looks);
            let is_settled = {
                let outcome = self.outcome.borrow();
                outcome.acknowledged >= before && outcome.looks >= looks
            };
            if !is_settled {
                self.flush().await?;
                self.settled(before).await?;
            }
            self.write_position(end, batch.last_id());
            self.out.extend_from_slice(EXEC);
        }
        self.flush().await?;
        let (mut outcome, address) = (self.outcome.clone(), self.address.clone());
        Ok(Box::pin(async move {
            match receipt.await {
                Ok(result) => result,
                // The reader ended: with its fault, or because the sink was dropped.
                Err(_) => Err(match outcome.wait_for(|o| o.fault.is_some()).await.map(|o| o.fault.clone()) {
                    Ok(Some(fault)) => fault,
                    _ => Fault::retry(
                        "redis.connection_lost",
                        format!("the connection to {address} was given up"),
                    ),
                }),
            }
        }))
    }

    /// What the replies to a batch of so many entries will be. At least once every batch is a transaction of its own. Exactly
    /// once one begins with a look at the position key, and ends with the source's.
    async fn begin(&mut self, entries: usize, ends: bool) -> Result<Shape, Fault> {
        let Some(exact) = &mut self.exact else {
            return Ok(Shape { opens: true, queued: entries, executes: Some(entries) });
        };
        let opens = !std::mem::replace(&mut exact.is_open, !ends);
        let queued = entries + usize::from(ends);
        let total = std::mem::take(&mut exact.queued) + queued;
        if !ends {
            exact.queued = total;
        }
        if opens {
            exact.looks += 1;
            let (expected, key) = (exact.expected.clone(), exact.key.clone());
            resp::command(&mut self.out, &[b"WATCH", &key]);
            resp::command(&mut self.out, &[b"GET", &key]);
            self.ask(Question::Look { expected }).await?;
        }
        Ok(Shape { opens, queued, executes: ends.then_some(total) })
    }

    fn write_position(&mut self, end: Option<&Position>, last_event: Option<EventId>) {
        let RedisSink { exact: Some(exact), out, .. } = self else { return };
        let Some(end) = end else { return };
        let key = exact.key.clone();
        resp::command(out, &[b"SET", &key, exact.advance(end, last_event)]);
    }

    /// Takes the position key over: from then on the process that wrote it before finds another text there.
    async fn claim(&mut self) -> Result<Option<Held>, Fault> {
        for _ in 0..CLAIMS {
            let Some(exact) = &mut self.exact else { break };
            let key = exact.key.clone();
            let answers = self.calls(&[vec![b"WATCH", &key], vec![b"GET", &key]]).await?;
            let found = answers.get(1);
            if let Some(Value::Error(error)) = answers.iter().find(|a| matches!(a, Value::Error(_))) {
                return Err(reply_fault_of(self.connector.settings.is_cluster(), &self.address, error));
            }
            let Some(exact) = &mut self.exact else { break };
            let held = exact.read(found.and_then(Value::text).map(str::as_bytes), &self.address)?;
            let text = exact.claim(held.as_ref());
            let answers = self.calls(&[vec![b"MULTI"], vec![b"SET", &key, &text], vec![b"EXEC"]]).await?;
            if let Some(Value::Error(error)) = answers.iter().find(|a| matches!(a, Value::Error(_))) {
                return Err(reply_fault_of(self.connector.settings.is_cluster(), &self.address, error));
            }
            if answers.last() != Some(&Value::Null) {
                return Ok(held);
            }
            // Somebody wrote the key just then: their last word, or not.
        }
        Err(Fault::retry(
            "redis.position_busy",
            format!("the position key at {} is written by another process all the time", self.address),
        ))
    }

    fn entry(&mut self, event: &Event<'_>) -> Result<Written, Fault> {
        self.entries.stream_of(event)?;
        let written = self.entries.write(event, &mut self.out);
        if written.longest > self.longest_bulk {
            return Err(too_large(written.longest, self.longest_bulk, event.id()));
        }
        Ok(written)
    }
}

/// Refuses a key that holds something else. A server that does not let us ask is believed.
pub(super) fn not_a_stream(name: &[u8], answer: &Value) -> Result<(), Fault> {
    match answer.text() {
        Some("none" | "stream") | None => Ok(()),
        Some(kind) => {
            let name = String::from_utf8_lossy(name);
            let message = format!("the key `{name}` holds a {kind}, not a stream");
            Err(Fault::config("redis.wrong_type", message)
                .kind(deltaforge_core::fault::Kind::Rejected)
                .hint(format!("choose another stream, or remove the key: DEL {name}")))
        }
    }
}

#[async_trait]
impl Sink for RedisSink {
    async fn deliver(&mut self, batch: Arc<Batch>, _: Delivery) -> Result<Receipt, Fault> {
        if std::mem::replace(&mut self.midway, true) {
            let message = format!("a delivery to {} was given up halfway", self.address);
            return Err(Fault::retry("redis.connection_lost", message));
        }
        if batch.is_empty() && (self.exact.is_none() || batch.end().is_none()) {
            self.settled(self.begun).await?;
            self.midway = false;
            return Ok(Box::pin(std::future::ready(Ok(Delivered::default()))));
        }
        let before = self.begun;
        match self.write_batch(&batch).await {
            Ok(receipt) => {
                self.midway = false;
                Ok(receipt)
            }
            Err(fault) => {
                // An event that cannot be delivered is not the fault of the batches before it: their receipts come first.
                if fault.event_id().is_some() {
                    let _ = self.settled(before).await;
                }
                Err(fault)
            }
        }
    }

    fn recovered(&self) -> Option<&Held> {
        self.recovered.as_ref()
    }

    async fn take_over(&mut self, _: &Position) -> Result<Option<Held>, Fault> {
        self.midway = true;
        // Nothing of an earlier process can take effect behind the claim: its `EXEC` was sent behind the answer to its `WATCH`.
        // So it is left to find that out, and to say so.
        self.unnamed = None;
        let held = self.claim().await?;
        self.midway = false;
        Ok(held)
    }

    async fn close(mut self: Box<Self>) {
        if !self.midway {
            let _ = self.settled(self.begun).await;
        }
        self.reader.abort();
        let _ = self.writer.shutdown().await;
    }
}

/// Reads what comes back.
struct Reader {
    address: Address,
    /// Only with `exactly_once`.
    position_key: Option<Vec<u8>>,
    /// Redirections are no mistake of the settings: the slot has moved.
    in_cluster: bool,
    replies: Replies,
    patience: Patience,
    written: Arc<AtomicU64>,
}

impl Reader {
    async fn run(mut self, mut asked: mpsc::Receiver<Question>, publish: watch::Sender<Outcome>) {
        let fault = loop {
            let Some(question) = asked.recv().await else { return };
            let deadline = Instant::now() + self.patience.batch;
            match question {
                Question::Calls { count, answers } => match self.calls(count, deadline).await {
                    Ok(values) => {
                        let _ = answers.send(values);
                    }
                    Err(fault) => break fault,
                },
                Question::Look { expected } => match self.look(&expected, deadline).await {
                    Ok(()) => publish.send_modify(|outcome| outcome.looks += 1),
                    Err(fault) => break fault,
                },
                Question::Transaction { shape, done, sent } => {
                    let result = self.transaction(shape, &sent, deadline).await;
                    let ended = result.as_ref().err().cloned();
                    publish.send_modify(|outcome| outcome.acknowledged += u64::from(ended.is_none()));
                    let _ = done.send(result);
                    if let Some(fault) = ended {
                        break fault;
                    }
                }
            }
        };
        // Published before `asked` closes, so that whoever finds it closed finds the fault.
        publish.send_modify(|outcome| outcome.fault = Some(fault));
    }

    /// The key must be as this connection left it.
    async fn look(&mut self, expected: &[u8], deadline: Instant) -> Result<(), Fault> {
        let key = self.position_key.clone().unwrap_or_default();
        match self.calls(2, deadline).await?.as_slice() {
            [_, Value::Text(text)] if text == expected => Ok(()),
            [_, Value::Text(_)] => Err(fenced(&self.address, &key)),
            [_, Value::Null] => Err(position_gone(&self.address, &key)),
            [Value::Error(error), _] | [_, Value::Error(error)] => Err(self.refused(error, None)),
            _ => Err(malformed(&self.address, Malformed("no text in answer to GET"))),
        }
    }

    async fn transaction(
        &mut self,
        shape: Shape,
        sent: &Sent,
        deadline: Instant,
    ) -> Result<Delivered, Fault> {
        let mut progress = Progress::new(shape);
        loop {
            self.replies.advance(&mut progress).map_err(|what| malformed(&self.address, what))?;
            // The first error decides: nothing of the transaction takes effect, or the part that does will be repeated.
            if let Some(error) = &progress.error {
                let fault = self.refused(error, Some(sent));
                // The position stands where it should, so nobody would deliver the refused entries again.
                let is_final = progress.is_partly && self.position_key.is_some();
                return Err(if is_final { partly(&self.address, &fault) } else { fault });
            }
            if progress.is_fenced {
                return Err(fenced(&self.address, self.position_key.as_deref().unwrap_or_default()));
            }
            if progress.is_done() {
                return Ok(Delivered { bytes: sent.payload_bytes.load(Relaxed) });
            }
            self.more(deadline).await?;
        }
    }

    fn refused(&self, error: &[u8], sent: Option<&Sent>) -> Fault {
        // A server that does not tell its limit closes the connection with this.
        if let Some(sent) = sent.filter(|_| error.starts_with(b"ERR Protocol error: invalid bulk length")) {
            let (bytes, event) = *sent.largest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if bytes > 0 {
                return too_large(bytes, bytes - 1, event);
            }
        }
        reply_fault_of(self.in_cluster, &self.address, error)
    }

    async fn calls(&mut self, count: usize, deadline: Instant) -> Result<Vec<Value>, Fault> {
        let mut values = Vec::with_capacity(count);
        while values.len() < count {
            match self.replies.value().map_err(|what| malformed(&self.address, what))? {
                Some(value) => values.push(value),
                None => self.more(deadline).await?,
            }
        }
        Ok(values)
    }

    /// Waits for more bytes. Bytes that we could write are a sign of life, too: Redis reads while it answers nothing.
    async fn more(&mut self, deadline: Instant) -> Result<(), Fault> {
        loop {
            let written = self.written.load(Relaxed);
            let silence = Instant::now() + self.patience.send;
            match tokio::time::timeout_at(silence.min(deadline), self.replies.more()).await {
                Ok(result) => return result.map_err(|e| broken(&self.address, &e)),
                Err(_) if Instant::now() >= deadline => {
                    return Err(timed_out(&self.address, "batch_timeout_secs", self.patience.batch));
                }
                Err(_) if self.written.load(Relaxed) != written => {}
                Err(_) => return Err(timed_out(&self.address, "send_timeout_secs", self.patience.send)),
            }
        }
    }
}

/// The numbers of other connections of a name in an answer to `CLIENT LIST`: lines of `id=7 … name=x …`.
pub(super) fn namesakes(list: &str, name: &str, own: &str) -> Vec<String> {
    let field = |line: &str, key: &str| {
        line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned)
    };
    (list.lines().filter(|line| field(line, "name").as_deref() == Some(name)))
        .filter_map(|line| field(line, "id"))
        .filter(|id| id != own)
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn namesakes_are_other_connections_of_the_same_name() {
        let list = "id=3 addr=1:2 name=deltaforge:a/r db=0\nid=4 addr=1:3 name= db=0\nid=5 addr=1:4 name=deltaforge:a/r db=0\n\
                    id=6 addr=1:5 name=deltaforge:a/r2 db=0\n";
        assert_eq!(super::namesakes(list, "deltaforge:a/r", "5"), ["3"]);
    }
}
