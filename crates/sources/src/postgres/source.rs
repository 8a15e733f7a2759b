//! The running stream: chunks of frames in, filled batches out.

use super::catalog::{Catalog, Described};
use super::config::{Settings, blocking};
use super::decoder::{Decoder, Found};
use super::error;
use super::position::write_position;
use super::setup::{self, CancelOnDrop};
use super::wire::PgWire;
use crate::shared::stream::{Chunk, Stream};
use async_trait::async_trait;
use deltaforge_core::batch::BatchBuilder;
use deltaforge_core::source::{Fill, Format, Opened, Scope, Source, SourceContext, SourceField, SourceStats};
use deltaforge_core::task::{Task, spawn};
use deltaforge_core::{Fault, Position};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;

/// The source's own members of `source`.
pub(super) const FIELDS: &[SourceField] = &[
    SourceField { name: "sequence", scope: Scope::Event(0), format: Format::DecimalPair },
    SourceField { name: "lsn", scope: Scope::Event(1), format: Format::Lsn },
    SourceField { name: "txId", scope: Scope::Transaction(0), format: Format::Plain },
    SourceField { name: "origin", scope: Scope::Transaction(1), format: Format::Plain },
];

/// How often the server is asked how far it is, and new tables are looked for.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(5);

/// A running stream.
pub(super) struct PostgresSource {
    settings: Arc<Settings>,
    stream: Stream,
    chunk: Option<Chunk>,
    /// Bytes of the chunk that are decoded.
    at: usize,
    decoder: Decoder,
    catalog: Arc<Mutex<Catalog>>,
    waiting: Option<JoinHandle<Result<(Found, Described), Fault>>>,
    stats: Arc<SourceStats>,
    _observer: Task<()>,
}

impl PostgresSource {
    pub(super) async fn open(settings: Arc<Settings>, context: SourceContext) -> Result<Opened, Fault> {
        let SourceContext { resume, released, schemas, stats, .. } = context;
        let cancelled = Arc::new(AtomicBool::new(false));
        let _cancel = CancelOnDrop(cancelled.clone());
        let resume = resume.map(|checkpoint| checkpoint.position);
        let (for_setup, for_notes) = (settings.clone(), stats.clone());
        let prepared =
            blocking(move || setup::prepare(&for_setup, resume.as_ref(), &for_notes, &cancelled)).await?;
        let command = start_command(&settings, &prepared);
        let (start, interval) = (prepared.start, prepared.status_interval);
        let replication = prepared.replication;
        let stream = blocking(move || {
            let (transport, received) = replication.start_copy(&command, "starting the stream")?;
            Stream::start(transport, &received, PgWire::new(released, interval))
        })
        .await?;
        tracing::info!(source_id = settings.id, slot = settings.slot, lsn = %start, "streaming");
        let server_tail = prepared.server.json_tail();
        let mut position = Vec::new();
        write_position(&mut position, start, None, &server_tail);
        let catalog = Arc::new(Mutex::new(prepared.catalog));
        let observer = spawn(
            "postgres observer",
            observe(
                settings.clone(),
                catalog.clone(),
                stats.clone(),
                prepared.version,
                prepared.publications,
            ),
        );
        let decoder = Decoder::new(&settings, start, server_tail, schemas, stats.clone());
        let source = PostgresSource {
            settings,
            stream,
            chunk: None,
            at: 0,
            decoder,
            catalog,
            waiting: None,
            stats,
            _observer: observer,
        };
        let start = Position::from_json(&String::from_utf8_lossy(&position));
        Ok(Opened { source: Box::new(source), start, same_log: true })
    }

    /// Looks a table up on a thread of its own; `fill` waits for it before it decodes further.
    fn look_up(&mut self, found: Found) {
        let (catalog, database) = (self.catalog.clone(), self.settings.target.dsn.database.clone());
        self.waiting = Some(tokio::task::spawn_blocking(move || {
            let described =
                catalog.lock().unwrap_or_else(PoisonError::into_inner).describe(&database, &found.shape)?;
            Ok((found, described))
        }));
    }

    async fn finish_look_up(&mut self, out: &mut BatchBuilder) -> Result<(), Fault> {
        let Some(waiting) = &mut self.waiting else { return Ok(()) };
        let answer = waiting.await;
        self.waiting = None;
        let (found, described) =
            answer.map_err(|_| Fault::bug("postgres.task_ended", "the catalog look-up panicked"))??;
        self.decoder.add_relation(found, described, out);
        Ok(())
    }

    /// Decodes frames of the present chunk until it or the builder is at its end, or a table must be looked up.
    fn decode_chunk(&mut self, out: &mut BatchBuilder) -> Result<bool, Fault> {
        let Some(chunk) = &self.chunk else { return Ok(true) };
        let frames = chunk.frames();
        while let Some(header) = frames[self.at..].first_chunk::<5>() {
            if out.is_full() {
                return Ok(false);
            }
            let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize + 1;
            let body = &frames[self.at + 5..self.at + length];
            self.at += length;
            match header[0] {
                b'd' => {
                    if let Some(found) = self.decoder.frame(body, out)? {
                        if found.again {
                            self.at -= length;
                        }
                        self.look_up(found);
                        return Ok(false);
                    }
                }
                b'E' => return Err(error::from_stream(body)),
                b'c' | b'C' | b'Z' => return Err(error::closed("streaming: the server ended the stream")),
                // Notices and changed settings.
                _ => {}
            }
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

#[async_trait]
impl Source for PostgresSource {
    async fn fill(&mut self, out: &mut BatchBuilder) -> Result<Fill, Fault> {
        let before = self.decoder.progress;
        loop {
            self.finish_look_up(out).await?;
            if !self.decode_chunk(out)? {
                if self.waiting.is_some() {
                    continue;
                }
                return Ok(Fill::More);
            }
            if let Some(done) = self.chunk.take() {
                self.stream.recycle(done);
            }
            if let Some(chunk) = self.stream.try_next() {
                self.take_chunk(chunk?, out);
                if self.decoder.progress != before {
                    return Ok(Fill::More);
                }
            } else if self.decoder.progress != before {
                return Ok(Fill::Idle);
            } else {
                let chunk = self.stream.next().await?;
                self.take_chunk(chunk, out);
            }
        }
    }

    async fn broken(&mut self) -> Fault {
        self.stream.broken().await
    }

    async fn close(self: Box<Self>) {
        self.stream.close().await;
    }
}

fn start_command(settings: &Settings, prepared: &setup::Prepared) -> String {
    let names = prepared.publications.iter().map(|p| escape_identifier(p)).collect::<Vec<_>>().join(",");
    // Logical messages are asked for although they are no rows: they move the position of a database that writes nothing else.
    let messages = if prepared.version >= 140_000 { ", messages 'true'" } else { "" };
    format!(
        "START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names {}{messages})",
        escape_identifier(&settings.slot),
        prepared.start,
        escape_literal(&names)
    )
}

/// Asks the server how far it is, and adds tables that have appeared to the publication. Failures here are no reason to stop
/// reading: they are logged once, and the stream itself shows what is wrong.
async fn observe(
    settings: Arc<Settings>,
    catalog: Arc<Mutex<Catalog>>,
    stats: Arc<SourceStats>,
    version: u32,
    publications: Vec<String>,
) {
    let mut troubled = false;
    loop {
        let (for_query, catalog, publications) = (settings.clone(), catalog.clone(), publications.clone());
        let observed = blocking(move || {
            let mut catalog = catalog.lock().unwrap_or_else(PoisonError::into_inner);
            let observation = catalog.observe(&for_query.slot)?;
            // A table that cannot be published says nothing of how far the server is.
            let now = setup::publish(&for_query, &mut catalog, version, false);
            Ok((observation, now.is_ok_and(|now| now != publications)))
        })
        .await;
        match observed {
            Ok((observation, more_publications)) => {
                troubled = false;
                stats.head.store(observation.head.0, Ordering::Relaxed);
                stats.retained_bytes.store(observation.retained_bytes.unwrap_or(-1), Ordering::Relaxed);
                let note = match observation.wal_status.as_deref() {
                    Some("unreserved") => Some("the server is about to remove log that the slot still needs"),
                    Some("lost") => Some("the server has removed log that the slot still needs"),
                    _ if more_publications => {
                        Some("a table without replica identity appeared; it is captured after a restart")
                    }
                    _ => None,
                };
                stats.note(note.map(Into::into));
            }
            Err(fault) if !troubled => {
                troubled = true;
                stats.head.store(0, Ordering::Relaxed);
                tracing::warn!(
                    source_id = settings.id,
                    code = fault.code(),
                    "cannot ask the server how far it is: {fault}"
                );
            }
            Err(_) => {}
        }
        tokio::time::sleep(OBSERVE_INTERVAL).await;
    }
}
