//! The running stream: events of the log in, filled batches out.

use super::config::{Settings, blocking};
use super::connection::Connection;
use super::decoder::{Decoder, Step};
use super::error;
use super::schema::{TableRef, read_tables};
use super::schemas::{LookedUp, Schemas};
use super::setup::{self, Owner};
use super::wire::{FULL_PACKET, MySqlWire, PACKET_HEADER};
use crate::shared::stream::{Chunk, Stream};
use async_trait::async_trait;
use deltaforge_core::batch::BatchBuilder;
use deltaforge_core::source::{Fill, Format, Opened, Scope, Source, SourceContext, SourceField, SourceStats};
use deltaforge_core::{Fault, Position};
use std::sync::Arc;
use tokio::task::JoinHandle;

/// The source's own members of `source`.
pub(super) const FIELDS: &[SourceField] = &[
    SourceField { name: "server_id", scope: Scope::Transaction(0), format: Format::Plain },
    SourceField { name: "gtid", scope: Scope::Transaction(1), format: Format::Plain },
    SourceField { name: "file", scope: Scope::Transaction(2), format: Format::Plain },
    SourceField { name: "pos", scope: Scope::Event(0), format: Format::Plain },
    SourceField { name: "row", scope: Scope::Event(1), format: Format::Plain },
    SourceField { name: "thread", scope: Scope::Transaction(3), format: Format::Plain },
    SourceField { name: "query", scope: Scope::Event(2), format: Format::Plain },
];

/// A running stream.
pub(super) struct MySqlSource {
    settings: Arc<Settings>,
    stream: Stream,
    chunk: Option<Chunk>,
    /// Bytes of the chunk that are decoded.
    at: usize,
    /// An event of several packets, put together.
    joined: Vec<u8>,
    /// Where in the chunk the event ends that is in `joined` and is not done.
    joined_to: Option<usize>,
    decoder: Decoder,
    waiting: Option<JoinHandle<Result<LookedUp, Fault>>>,
    stats: Arc<SourceStats>,
    owner: Owner,
}

impl MySqlSource {
    pub(super) async fn open(settings: Arc<Settings>, context: SourceContext) -> Result<Opened, Fault> {
        let SourceContext { resume, schemas, stats, .. } = context;
        let resume = resume.map(|checkpoint| checkpoint.position);
        let for_setup = settings.clone();
        let prepared = blocking(move || setup::prepare(&for_setup, resume.as_ref())).await?;
        let (place, same_log) = (prepared.start.place.sortable(), prepared.same_log);
        let schemas =
            Schemas::new(settings.clone(), prepared.server, schemas, stats.clone(), place, prepared.seeds)?;
        let request = prepared.request;
        let (connection, for_wire) = (prepared.stream, settings.clone());
        let stream = blocking(move || {
            let (transport, received) = connection.start_dump(&request)?;
            let wire = MySqlWire::new(for_wire.read_timeout, for_wire.inactivity_timeout);
            Stream::start(transport, &received, wire)
        })
        .await?;
        tracing::info!(
            source_id = settings.id,
            server = prepared.version,
            server_id = settings.server_id,
            from = prepared.from,
            "streaming"
        );
        let decoder = Decoder::new(&settings, &stats, prepared.start, schemas);
        let mut position = Vec::new();
        decoder.write_position(&mut position);
        let owner = Owner::watch(settings.clone(), prepared.control, stats.clone());
        let source = MySqlSource {
            settings,
            stream,
            chunk: None,
            at: 0,
            joined: Vec::new(),
            joined_to: None,
            decoder,
            waiting: None,
            stats,
            owner,
        };
        let start = Position::from_json(&String::from_utf8_lossy(&position));
        Ok(Opened { source: Box::new(source), start, same_log })
    }

    /// Asks for a table on a thread of its own; `fill` waits for the answer before it decodes further.
    fn look_up(&mut self, table: TableRef) {
        let settings = self.settings.clone();
        self.waiting = Some(tokio::task::spawn_blocking(move || {
            let mut connection = Connection::open(&settings.target)?;
            let found = read_tables(&mut connection, std::slice::from_ref(&table))?;
            let listed = found.into_iter().next().and_then(|(_, listed)| listed);
            // Afterwards, so that every change before the answer is before it.
            let log_end = setup::log_place(&mut connection)?;
            Ok(LookedUp { table, listed, log_end })
        }));
    }

    async fn finish_look_up(&mut self) -> Result<(), Fault> {
        let Some(waiting) = &mut self.waiting else { return Ok(()) };
        let answer = waiting.await;
        self.waiting = None;
        let looked_up =
            answer.map_err(|_| Fault::bug("mysql.task_ended", "the catalog look-up panicked"))??;
        self.decoder.looked_up(looked_up);
        Ok(())
    }

    /// Decodes events of the present chunk until it or the builder is at its end, or a table must be looked up.
    fn decode_chunk(&mut self, out: &mut BatchBuilder) -> Result<bool, Fault> {
        let Some(chunk) = &self.chunk else { return Ok(true) };
        let frames = chunk.frames();
        while let Some(header) = frames[self.at..].first_chunk::<PACKET_HEADER>() {
            if out.is_full() {
                return Ok(false);
            }
            let length = u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize;
            let body = self.at + PACKET_HEADER..self.at + PACKET_HEADER + length;
            let (payload, end) = if length < FULL_PACKET {
                (&frames[body.clone()], body.end)
            } else {
                let end = match self.joined_to {
                    Some(end) => end,
                    None => self.at + join(&frames[self.at..], &mut self.joined),
                };
                self.joined_to = Some(end);
                (self.joined.as_slice(), end)
            };
            match payload.split_first() {
                Some((0, event)) => match self.decoder.event(event, out)? {
                    Step::Done => {}
                    Step::Full => return Ok(false),
                    Step::LookUp(table) => {
                        self.look_up(table);
                        return Ok(false);
                    }
                },
                Some((0xff, _)) => return Err(error::from_packet(payload, "streaming")),
                Some((0xfe, rest)) if rest.len() < 8 => {
                    return Err(error::closed("streaming: the server ended the stream"));
                }
                _ => return Err(error::protocol("a packet of the stream that is no event")),
            }
            self.at = end;
            self.joined_to = None;
        }
        Ok(true)
    }

    fn take_chunk(&mut self, chunk: Chunk, out: &mut BatchBuilder) {
        out.read_at(chunk.read_ms);
        self.stats.data_arrived(chunk.frames().len() as u64, chunk.read_ms);
        self.at = 0;
        self.chunk = Some(chunk);
    }
}

/// Puts the payloads of an event's packets together; gives where the last one ends.
fn join(frames: &[u8], joined: &mut Vec<u8>) -> usize {
    joined.clear();
    let mut at = 0;
    while let Some(header) = frames.get(at..).and_then(|rest| rest.first_chunk::<PACKET_HEADER>()) {
        let length = u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize;
        at += PACKET_HEADER;
        joined.extend_from_slice(frames.get(at..at + length).unwrap_or_default());
        at += length;
        if length < FULL_PACKET {
            break;
        }
    }
    at
}

#[async_trait]
impl Source for MySqlSource {
    async fn fill(&mut self, out: &mut BatchBuilder) -> Result<Fill, Fault> {
        let before = self.decoder.progress;
        loop {
            self.owner.check()?;
            self.finish_look_up().await?;
            if !self.decode_chunk(out)? {
                if self.waiting.is_some() {
                    continue;
                }
                return Ok(Fill::More);
            }
            if let Some(done) = self.chunk.take() {
                self.stream.recycle(done);
                // One long event is no reason to keep its size for ever.
                self.joined.shrink_to(1 << 20);
            }
            if let Some(chunk) = self.stream.try_next() {
                self.take_chunk(chunk?, out);
                if self.decoder.progress != before {
                    return Ok(Fill::More);
                }
            } else if self.decoder.progress != before {
                return Ok(Fill::Idle);
            } else {
                let chunk = tokio::select! {
                    biased;
                    fault = self.owner.lost() => return Err(fault),
                    chunk = self.stream.next() => chunk?,
                };
                self.take_chunk(chunk, out);
            }
        }
    }

    async fn broken(&mut self) -> Fault {
        tokio::select! {
            fault = self.owner.lost() => fault,
            fault = self.stream.broken() => fault,
        }
    }

    async fn close(self: Box<Self>) {
        self.stream.close().await;
    }
}
