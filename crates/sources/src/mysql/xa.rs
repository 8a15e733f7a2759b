//! XA transactions: prepared in one place of the log, decided in another.
//!
//! Their rows are events only once they are committed, with the identity of the commit. Until then what the log holds of them
//! is kept here as it came: in memory up to a limit, then in a file without a name. After a restart it is read again, because
//! a position never passes what is prepared and not decided.

use super::binlog::{self, Checksum, header};
use super::decoder::{Decoder, Step};
use super::schema::Xid;
use deltaforge_core::Fault;
use deltaforge_core::batch::BatchBuilder;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};

/// Bytes that one transaction keeps in memory.
const IN_MEMORY: usize = 1 << 20;
/// Of each event: where it stands, and its length.
const RECORD_HEADER: usize = 8 + 4;

/// Events of a transaction that is not decided.
#[derive(Debug, Default)]
pub(super) struct Spool {
    memory: Vec<u8>,
    file: Option<BufWriter<File>>,
    /// Where the event that is being read stands.
    pub(super) at: u64,
}

impl Spool {
    /// Keeps an event, header and body.
    pub(super) fn keep(&mut self, head: &binlog::Header, body: &[u8]) -> Result<(), Fault> {
        let length = (header::HEADER_BYTES + body.len()) as u32;
        self.memory.extend_from_slice(&self.at.to_le_bytes());
        self.memory.extend_from_slice(&length.to_le_bytes());
        self.memory.extend_from_slice(&head.timestamp.to_le_bytes());
        self.memory.push(head.kind.byte());
        self.memory.extend_from_slice(&head.server_id.to_le_bytes());
        self.memory.extend_from_slice(&length.to_le_bytes());
        self.memory.extend_from_slice(&head.end_pos.to_le_bytes());
        self.memory.extend_from_slice(&head.flags.to_le_bytes());
        self.memory.extend_from_slice(body);
        if self.memory.len() >= IN_MEMORY {
            self.spill().map_err(|e| full(&e))?;
        }
        Ok(())
    }

    fn spill(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(BufWriter::new(tempfile::tempfile()?));
        }
        if let Some(file) = &mut self.file {
            file.write_all(&self.memory)?;
        }
        self.memory.clear();
        Ok(())
    }

    fn rewind(mut self) -> io::Result<Replay> {
        let Some(_) = &self.file else {
            return Ok(Replay::new(Source::Memory(io::Cursor::new(self.memory))));
        };
        self.spill()?;
        let mut file = match self.file {
            Some(file) => file.into_inner().map_err(io::IntoInnerError::into_error)?,
            None => return Err(io::ErrorKind::Other.into()),
        };
        file.rewind()?;
        Ok(Replay::new(Source::File(BufReader::new(file))))
    }
}

fn full(e: &io::Error) -> Fault {
    Fault::retry("mysql.spool", format!("a prepared XA transaction cannot be kept in a temporary file: {e}"))
        .hint("make room in the folder for temporary files (TMPDIR)")
}

#[derive(Debug)]
enum Source {
    Memory(io::Cursor<Vec<u8>>),
    File(BufReader<File>),
}

/// A decided transaction's events, one after the other.
#[derive(Debug)]
pub(super) struct Replay {
    source: Source,
    event: Vec<u8>,
    at: u64,
    /// The event in `event` was given and not taken.
    waits: bool,
}

impl Replay {
    fn new(source: Source) -> Replay {
        Replay { source, event: Vec::new(), at: 0, waits: false }
    }

    /// Reads the next event; false after the last.
    fn advance(&mut self) -> io::Result<bool> {
        let source: &mut dyn Read = match &mut self.source {
            Source::Memory(memory) => memory,
            Source::File(file) => file,
        };
        let mut head = [0; RECORD_HEADER];
        match source.read_exact(&mut head) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(e) => return Err(e),
        }
        let [a, b, c, d, e, f, g, h, l @ ..] = head;
        self.at = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        self.event.resize(u32::from_le_bytes(l) as usize, 0);
        source.read_exact(&mut self.event)?;
        Ok(true)
    }
}

/// A transaction that is prepared and not decided.
#[derive(Debug)]
pub(super) struct Prepared {
    /// When it was prepared, counted, and the position before it.
    pub(super) before: (u64, Vec<u8>),
    /// The identifier under which it was prepared.
    pub(super) gtid: Option<super::gtid::Gtid>,
    file: String,
    spool: Option<Spool>,
    replay: Option<Replay>,
}

impl Decoder {
    pub(super) fn begin_spool(&mut self) {
        let mut before = Vec::new();
        if let Some(transaction) = &self.transaction {
            self.write_position_at(&self.place.file, transaction.start, &mut before);
        }
        self.spool_before = before;
        self.spool = Some(Spool::default());
    }

    /// Where rows go while the transaction may still be rolled back.
    pub(super) fn spooling(&mut self) -> Option<&mut Spool> {
        if self.is_replaying {
            return None;
        }
        let at = self.place.start;
        let spool = self.spool.as_mut()?;
        spool.at = at;
        Some(spool)
    }

    /// The transaction is prepared; in one phase, it is committed with that.
    pub(super) fn xa_prepared(
        &mut self,
        one_phase: bool,
        xid: Xid,
        out: &mut BatchBuilder,
    ) -> Result<Step, Fault> {
        if let Some((prepared, rows)) = self.replaying.take() {
            return self.replay(prepared, rows, out);
        }
        let spool = self.spool.take().unwrap_or_default();
        let before = std::mem::take(&mut self.spool_before);
        let Some(mut transaction) = self.transaction.take() else {
            return Err(self.undecodable("a prepared XA transaction that did not begin"));
        };
        self.preparations += 1;
        let mut prepared = Prepared {
            before: (self.preparations, before),
            gtid: None,
            file: self.place.file.clone(),
            spool: Some(spool),
            replay: None,
        };
        if one_phase {
            transaction.xa = false;
            self.transaction = Some(transaction);
            return self.replay(prepared, true, out);
        }
        prepared.gtid = transaction.gtid.take();
        if !self.leaves_out_prepared()
            && let Some(gtid) = &prepared.gtid
        {
            // The position that is written stands before it anyhow.
            self.add_executed(gtid)?;
        }
        self.prepared.insert(xid, prepared);
        self.advance(out);
        Ok(Step::Done)
    }

    /// The transaction is committed, or rolled back.
    pub(super) fn xa_decided(
        &mut self,
        xid: &Xid,
        commit: bool,
        thread: u32,
        out: &mut BatchBuilder,
    ) -> Result<Step, Fault> {
        if let Some((prepared, rows)) = self.replaying.take() {
            return self.replay(prepared, rows, out);
        }
        let Some(transaction) = &mut self.transaction else {
            return Err(self.undecodable("an XA decision without an event that names its transaction"));
        };
        transaction.thread = transaction.thread.or(Some(thread));
        let Some(prepared) = self.prepared.remove(xid) else {
            if commit {
                tracing::warn!(
                    source_id = self.settings.id,
                    at = self.place.here(),
                    "an XA transaction was committed that had been prepared before the place where this source began: its rows are not captured"
                );
            }
            self.end(out)?;
            return Ok(Step::Done);
        };
        self.replay(prepared, commit, out)
    }

    /// Gives the rows that were kept, and ends the transaction.
    fn replay(&mut self, mut prepared: Prepared, rows: bool, out: &mut BatchBuilder) -> Result<Step, Fault> {
        if rows {
            let mut replay = match (prepared.replay.take(), prepared.spool.take()) {
                (Some(replay), _) => replay,
                (None, spool) => spool.unwrap_or_default().rewind().map_err(|e| full(&e))?,
            };
            let place = self.place.clone();
            self.place.rotate(&prepared.file, replay.at);
            self.is_replaying = true;
            let step = self.replay_rows(&mut replay, out);
            self.is_replaying = false;
            self.place = place;
            match step? {
                Step::Done => {}
                step => {
                    prepared.replay = Some(replay);
                    self.replaying = Some((prepared, rows));
                    return Ok(step);
                }
            }
        }
        if self.leaves_out_prepared()
            && let Some(gtid) = &prepared.gtid
        {
            self.add_executed(gtid)?;
        }
        self.end(out)?;
        Ok(Step::Done)
    }

    fn replay_rows(&mut self, replay: &mut Replay, out: &mut BatchBuilder) -> Result<Step, Fault> {
        loop {
            if out.is_full() {
                return Ok(Step::Full);
            }
            if !std::mem::take(&mut replay.waits) && !replay.advance().map_err(|e| full(&e))? {
                self.first_row = 0;
                return Ok(Step::Done);
            }
            // Events that were compressed together stand in one place, and their rows are counted on.
            if std::mem::replace(&mut self.place.start, replay.at) != replay.at {
                self.first_row = 0;
            }
            let split = header::split(&replay.event, Checksum::None);
            let (head, body) = split.map_err(|e| self.undecodable(e))?;
            match self.decoded(&head, body, out)? {
                Step::Done => {}
                step => {
                    replay.waits = true;
                    return Ok(step);
                }
            }
        }
    }
}
