//! What an exactly-once sink leaves in its stream, and how it is found again.
//!
//! ```text
//! df-sink      shop/orders                which sink wrote this message
//! df-writer    0197…                      which open sink of which process
//! df-position  {"lsn":"0/15"}             up to here everything is in the stream: the end of the batch before
//! df-inside    3                          of the events behind it so many are there, with this one
//! df-end       {"lsn":"0/18"}             only on the last message of a batch: with it, up to here
//! df-last      4be0…                      only on an event that comes beside the stream (a dead letter): the stream's last event
//! Nats-Msg-Id  9f2c…                      the event
//! ```
//!
//! The last message so tells the whole truth: with `df-end` the stream ends with a whole batch; without, it holds what follows
//! `df-position` up to this event, a prefix of one batch, as each message demands the one before it. A message states
//! facts about the source, not about who delivered it, so it does not matter which process wrote it.
//!
//! A message of somebody else behind ours is refused: it may have taken the place of one of ours. When it comes, our next message is
//! refused ([`Writer::judge`]).

use super::protocol::header;
use super::stream::{self, Ask};
use deltaforge_core::fault::{Class, Fault, Kind};
use deltaforge_core::sink::Held;
use deltaforge_core::{EventId, Position};
use deltaforge_net::address::Address;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// How many messages are read backwards to find one of ours.
const FURTHEST: u64 = 256;
/// How often a sink that has not yet written takes the stream over from one that still writes: what a process that was killed has
/// sent may arrive late, once; who comes again lives.
const LATE_WRITERS: u32 = 3;

/// What a plan remembers from one open sink to the next.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Since the last `take_over`.
    wrote: AtomicBool,
    late: AtomicU32,
    no_atomic: AtomicBool,
    /// The stream was there once: then its absence passes.
    seen: AtomicBool,
}

impl Memory {
    pub(super) fn wrote(&self) {
        if !self.wrote.load(Relaxed) {
            self.late.store(0, Relaxed);
            self.wrote.store(true, Relaxed);
        }
    }

    pub(super) fn forgo_atomic_batches(&self) {
        self.no_atomic.store(true, Relaxed);
    }

    pub(super) fn may_use_atomic_batches(&self) -> bool {
        !self.no_atomic.load(Relaxed)
    }

    pub(super) fn saw_stream(&self) {
        self.seen.store(true, Relaxed);
    }

    pub(super) fn has_seen_stream(&self) -> bool {
        self.seen.load(Relaxed)
    }

    fn takes_over(&self) {
        self.wrote.store(false, Relaxed);
    }
}

/// Who writes.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    pub(super) stream: String,
    /// `<pipeline>/<sink>`.
    pub(super) sink: String,
    /// This open sink.
    pub(super) writer: String,
    pub(super) memory: Arc<Memory>,
}

/// What a stream ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Last {
    /// Nothing of ours.
    Nothing,
    /// A message of ours, by the writer.
    Ours { held: Held, writer: String },
    /// A message of ours, behind which somebody else's stands.
    Buried { held: Held },
}

impl Writer {
    /// Header lines that every message has.
    pub(super) fn lines(&self) -> Vec<u8> {
        format!("df-sink: {}\r\ndf-writer: {}\r\n", self.sink, self.writer).into_bytes()
    }

    /// Reads what is last, and the last sequence.
    pub(super) async fn read<A: Ask + ?Sized>(&self, ask: &mut A) -> Result<(Last, u64), Fault> {
        let Some(facts) = stream::info(ask, &self.stream).await? else {
            return Err(stream_gone(ask.address(), &self.stream));
        };
        let mut foreign = false;
        if facts.messages == 0 {
            return Ok((Last::Nothing, facts.last_seq));
        }
        for (read, seq) in (facts.first_seq.max(1)..=facts.last_seq).rev().enumerate() {
            if read as u64 == FURTHEST {
                let message = format!(
                    "the last {FURTHEST} messages of the stream `{}` are not of this sink, so it is not known what it holds",
                    self.stream
                );
                return Err(Fault::config("nats.stream_not_owned", message)
                    .kind(Kind::Rejected)
                    .hint(NOT_OWNED));
            }
            let Some(head) = stream::stored(ask, &self.stream, seq).await? else { continue };
            let Some((held, writer)) = self.ours(&head) else {
                foreign = true;
                continue;
            };
            let last = if foreign { Last::Buried { held } } else { Last::Ours { held, writer } };
            return Ok((last, facts.last_seq));
        }
        Ok((Last::Nothing, facts.last_seq))
    }

    fn ours(&self, head: &[u8]) -> Option<(Held, String)> {
        if header(head, "df-sink") != Some(self.sink.as_str()) {
            return None;
        }
        // The stream would never meet an event again that came beside it.
        let event = parse_id(header(head, "df-last").or(header(head, "Nats-Msg-Id"))?)?;
        let end = header(head, "df-end");
        let position = end.or(header(head, "df-position")).filter(|position| position.starts_with('{'))?;
        let inside = if end.is_some() { 0 } else { header(head, "df-inside")?.parse().ok()? };
        let held = Held { position: Position::from_json(position), event, inside };
        Some((held, header(head, "df-writer").unwrap_or_default().to_owned()))
    }

    /// Before the first delivery: what is last, for certain, as our first message will demand it.
    pub(super) async fn take_over<A: Ask + ?Sized>(&self, ask: &mut A) -> Result<(Last, u64), Fault> {
        let (last, seq) = self.read(ask).await?;
        if let Last::Buried { .. } = last {
            return Err(self.not_owned());
        }
        self.memory.takes_over();
        Ok((last, seq))
    }

    fn not_owned(&self) -> Fault {
        let message =
            format!("somebody else has written to the stream `{}` behind this sink's messages", self.stream);
        Fault::config("nats.stream_not_owned", message).kind(Kind::Rejected).hint(NOT_OWNED)
    }

    /// A message of ours was refused because something else is last. Says what to do about it.
    pub(super) async fn judge<A: Ask + ?Sized>(&self, ask: &mut A) -> Result<Fault, Fault> {
        let (last, _) = self.read(ask).await?;
        let unclear = || {
            let message = format!("the stream `{}` does not end with what was sent last", self.stream);
            Fault::retry("nats.sequence", message).kind(Kind::Target)
        };
        Ok(match last {
            Last::Buried { .. } => self.not_owned(),
            Last::Ours { writer, .. } if writer != self.writer => {
                let late = self.memory.late.fetch_add(1, Relaxed) + 1;
                if !self.memory.wrote.load(Relaxed) && late < LATE_WRITERS {
                    return Ok(unclear());
                }
                let message =
                    format!("another process writes to the stream `{}` as sink `{}`", self.stream, self.sink);
                Fault::new(Class::Fenced, "nats.fenced", message)
                    .kind(Kind::Rejected)
                    .hint("stop one of the two, or give one of them another stream")
            }
            Last::Ours { .. } => unclear(),
            // A stream that ends without anything of ours: somebody wrote before our first message.
            Last::Nothing => unclear(),
        })
    }
}

const NOT_OWNED: &str = "an exactly-once stream belongs to one sink: give it a stream of its own, or delete the other's messages (nats stream rmm)";

/// The stream is not there any more.
pub(super) fn stream_gone(address: &Address, stream: &str) -> Fault {
    Fault::retry("nats.no_stream", format!("the stream `{stream}` is gone from {address}"))
        .kind(Kind::Target)
        .hint("it was deleted: make it again (nats stream add); what it held is not sent again")
}

fn parse_id(text: &str) -> Option<EventId> {
    uuid::Uuid::parse_str(text).ok().map(|id| EventId(*id.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_message_tells_what_is_held() {
        let writer =
            Writer { stream: "S".into(), sink: "p/s".into(), writer: "w".into(), memory: Arc::default() };
        let id = EventId::derive(b"1");
        let message = |lines: &str| format!("NATS/1.0\r\nNats-Msg-Id: {id}\r\n{lines}\r\n").into_bytes();
        let held = |position: &str, inside| {
            Some(Held { position: Position::from_json(position), event: id, inside })
        };
        let ours = |lines: &str| writer.ours(&message(lines)).map(|(held, _)| held);
        assert_eq!(ours("df-sink: p/s\r\ndf-position: {\"a\":1}\r\ndf-inside: 3\r\n"), held("{\"a\":1}", 3));
        assert_eq!(
            ours("df-sink: p/s\r\ndf-position: {\"a\":1}\r\ndf-end: {\"a\":2}\r\n"),
            held("{\"a\":2}", 0)
        );
        let last = EventId::derive(b"0");
        let beside = ours(&format!(
            "df-sink: p/s\r\ndf-position: {{\"a\":1}}\r\ndf-last: {last}\r\ndf-end: {{\"a\":1}}\r\n"
        ));
        assert_eq!(beside, Some(Held { event: last, ..held("{\"a\":1}", 0).unwrap() }));
        assert_eq!(ours("df-sink: p/s\r\ndf-position: {\"a\":1}\r\n"), None);
        assert_eq!(ours("df-sink: p/other\r\n"), None);
        assert_eq!(ours(""), None);
    }
}
