//! From events of the log to events of the pipeline: which transaction is open, which table rows belong to, where it all is.
//!
//! ```text
//!  GTID            a transaction begins; its identifier counts as read only when its end was
//!  QUERY           statements.rs: BEGIN, COMMIT, XA …, or a statement that changes tables
//!  TABLE_MAP       schemas.rs: what its columns are
//!  rows            rows.rs: cell by cell into the builder
//!  PAYLOAD         the same events again, compressed
//!  XID, COMMIT     the transaction ends: a position
//! ```
//!
//! Every event of the log is one of a closed list; one that is not, and that may hold rows, stops the pipeline.

use super::binlog::{self, Event, EventType, Format, Inflater, Unpacker, header};
use super::config::Settings;
use super::error;
use super::gtid::{Executed, Gtid, GtidSet, MariaGtid, MySqlGtid, MySqlSet, Tag};
use super::place::LogPlace;
use super::position;
use super::rows::{RowCursor, Statement as RowStatement};
use super::schema::{Statement, TableRef};
use super::schemas::{LookedUp, Resolved, Schemas};
use super::xa::{Prepared, Spool};
use deltaforge_core::Fault;
use deltaforge_core::batch::{BatchBuilder, EventId, TransactionHead};
use deltaforge_core::source::SourceStats;
use deltaforge_core::value::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What became of an event.
#[derive(Debug)]
pub(super) enum Step {
    Done,
    /// The builder is full: give the event again once there is room.
    Full,
    /// The server must be asked for this table; then give the event again.
    LookUp(TableRef),
}

/// A transaction whose end was not read yet.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub(super) gtid: Option<Gtid>,
    /// The GTID, or where the transaction begins.
    pub(super) name: String,
    pub(super) server_id: u32,
    pub(super) ts_us: i64,
    pub(super) ts_exact: bool,
    pub(super) thread: Option<u32>,
    /// Where in its file it begins.
    pub(super) start: u64,
    /// The builder knows of it.
    pub(super) begun: bool,
    /// Rows are kept until it is decided.
    pub(super) xa: bool,
    /// Rows came, captured or not.
    pub(super) has_rows: bool,
    /// A BEGIN came: it ends with a statement or event of its own.
    pub(super) has_begin: bool,
    /// MariaDB: ends with its only statement.
    pub(super) standalone: bool,
    /// MariaDB: its statement only begins to alter a table; the same statement comes again once that is done.
    pub(super) only_begins: bool,
}

/// Where the source begins.
pub(super) struct Start {
    pub(super) place: LogPlace,
    /// What was read; `None` for a server without GTIDs.
    pub(super) executed: Option<GtidSet>,
    /// `,"server":{…}}` of every position.
    pub(super) server_tail: Vec<u8>,
    /// Part of the first file is passed over.
    pub(super) seek: Option<Seek>,
}

/// Transactions before a place of a file only count as read: what was executed before it is said at the file's head.
pub(super) struct Seek {
    /// Offset of the place.
    pub(super) pos: u64,
    /// What the server has, but never had in its log: it was set up from a copy of another.
    pub(super) never_logged: MySqlSet,
}

pub(super) struct Decoder {
    pub(super) settings: Arc<Settings>,
    pub(super) stats: Arc<SourceStats>,
    pub(super) place: LogPlace,
    pub(super) schemas: Schemas,
    pub(super) format: Format,
    executed: Option<Executed>,
    /// The set is made of this and of what the next file's head says.
    unfinished_set: Option<MySqlSet>,
    server_tail: Vec<u8>,
    seek: Option<u64>,
    /// The event that comes next was given before.
    again: bool,
    pub(super) transaction: Option<Transaction>,
    /// The last transaction's name, for its memory.
    spare_name: String,
    pub(super) statement: RowStatement,
    /// Where in an event with many rows the builder was full.
    pub(super) cursor: Option<RowCursor>,
    pub(super) unpacker: Option<Box<Unpacker>>,
    /// Inside of a compressed transaction: an event of it waits to be read.
    pub(super) unpacking: Option<bool>,
    /// Rows that the compressed transaction had before: they all stand in one event of the log.
    pub(super) first_row: u64,
    pub(super) inflater: Inflater,
    pub(super) prepared: HashMap<super::schema::Xid, Prepared>,
    pub(super) spool: Option<Spool>,
    /// An XA transaction is being given.
    pub(super) replaying: Option<(Prepared, bool)>,
    pub(super) is_replaying: bool,
    /// The position before the XA transaction whose rows are being kept.
    pub(super) spool_before: Vec<u8>,
    /// XA transactions that were prepared.
    pub(super) preparations: u64,
    /// Tables of a statement that were dealt with before the server had to be asked.
    pub(super) handled: usize,
    /// What event ids are made of.
    pub(super) identity: Vec<u8>,
    pub(super) identity_prefix: usize,
    counters: Vec<(u64, u64)>,
    serial: u64,
    /// Grows with everything that the builder was given.
    pub(super) progress: u64,
}

impl Decoder {
    pub(super) fn new(
        settings: &Arc<Settings>,
        stats: &Arc<SourceStats>,
        start: Start,
        schemas: Schemas,
    ) -> Decoder {
        let mut identity = settings.id.clone().into_bytes();
        identity.push(0);
        let number = position::number(start.place.number, start.place.end);
        stats.received.store(number, Ordering::Relaxed);
        let (seek, unfinished_set) = start.seek.map(|seek| (seek.pos, seek.never_logged)).unzip();
        Decoder {
            settings: settings.clone(),
            stats: stats.clone(),
            place: start.place,
            schemas,
            format: Format { checksum: binlog::Checksum::Unknown, mariadb: false },
            unfinished_set,
            executed: start.executed.map(Executed::new),
            server_tail: start.server_tail,
            seek,
            again: false,
            transaction: None,
            spare_name: String::new(),
            statement: RowStatement::default(),
            cursor: None,
            unpacker: None,
            unpacking: None,
            first_row: 0,
            inflater: Inflater::default(),
            prepared: HashMap::new(),
            spool: None,
            replaying: None,
            is_replaying: false,
            spool_before: Vec::new(),
            preparations: 0,
            handled: 0,
            identity_prefix: identity.len(),
            identity,
            counters: Vec::new(),
            serial: 0,
            progress: 0,
        }
    }

    /// The position before the event that comes next.
    pub(super) fn write_position(&self, out: &mut Vec<u8>) {
        if !self.leaves_out_prepared()
            && let Some(oldest) = self.prepared.values().map(|p| &p.before).min_by_key(|before| before.0)
        {
            // What was prepared must be read again after a restart, so nothing after it counts as read.
            out.extend_from_slice(&oldest.1);
            return;
        }
        let pos = self.seek.map_or(self.place.end, |seek| seek.max(self.place.end));
        self.write_position_at(&self.place.file, pos, out);
    }

    pub(super) fn write_position_at(&self, file: &str, pos: u64, out: &mut Vec<u8>) {
        let executed = self.executed.as_ref().map(Executed::text);
        position::write_position(out, file, pos, executed, &self.server_tail);
    }

    /// MySQL with GTIDs sends a transaction that is not in the set again, whatever came after it.
    pub(super) fn leaves_out_prepared(&self) -> bool {
        !self.format.mariadb && self.executed.is_some()
    }

    pub(super) fn looked_up(&mut self, looked_up: LookedUp) {
        self.schemas.looked_up(looked_up);
    }

    /// Takes one event as it came, without the status byte. Given again after [`Step::Full`] or [`Step::LookUp`], it goes on
    /// where it was.
    pub(super) fn event(&mut self, bytes: &[u8], out: &mut BatchBuilder) -> Result<Step, Fault> {
        let again = std::mem::take(&mut self.again);
        let parts = match again {
            false => header::split(bytes, self.format.checksum),
            true => header::split_again(bytes, self.format.checksum),
        };
        let (head, body) = parts.map_err(|e| self.undecodable(e))?;
        if !again {
            self.place.enter(&head);
        }
        if let Some(seek) = self.seek
            && self.seek_on(seek, &head)?
        {
            return self.skip(&head, body, out);
        }
        let step = self.decoded(&head, body, out)?;
        self.again = !matches!(step, Step::Done);
        Ok(step)
    }

    pub(super) fn decoded(
        &mut self,
        head: &binlog::Header,
        body: &[u8],
        out: &mut BatchBuilder,
    ) -> Result<Step, Fault> {
        if head.kind == EventType::TableMap && self.spool.is_none() && self.schemas.is_mapped(body) {
            return Ok(Step::Done);
        }
        let event = binlog::decode(head, body, self.format).map_err(|e| self.undecodable(e))?;
        match event {
            Event::Rows(rows) => {
                if let Some(spool) = self.spooling() {
                    return spool.keep(head, body).map(|()| Step::Done);
                }
                self.rows(head, &rows, out)
            }
            Event::TableMap(map) => {
                if let Some(spool) = self.spooling() {
                    return spool.keep(head, body).map(|()| Step::Done);
                }
                let (place, at) = (self.place.sortable(), &self.place);
                match self.schemas.map(&map, place, &|| at.here(), out) {
                    Resolved::Done => Ok(Step::Done),
                    Resolved::LookUp(table) => Ok(Step::LookUp(table)),
                }
            }
            Event::RowsQuery(text) => {
                if let Some(spool) = self.spooling() {
                    return spool.keep(head, body).map(|()| Step::Done);
                }
                self.statement.set_query(self.settings.include_query.then_some(text));
                Ok(Step::Done)
            }
            Event::Gtid(gtid) => self.gtid(head, &gtid),
            Event::MariaGtid(gtid) => self.maria_gtid(head, &gtid),
            Event::Query(query) => self.query(&query, out),
            Event::QueryCompressed(query) => self.compressed_query(&query, out),
            Event::Xid(_) => self.end(out).map(|()| Step::Done),
            Event::XaPrepare(prepare) => self.xa_prepared(prepare.one_phase, prepare.xid.into(), out),
            Event::Payload(payload) => self.unpack(&payload, out),
            Event::FormatDescription(description) => {
                self.format = description.format;
                if head.end_pos != 0 {
                    self.cut_off(out);
                }
                Ok(Step::Done)
            }
            Event::Rotate(rotate) => self.rotate(rotate.file, rotate.position, head, out),
            Event::Heartbeat(heartbeat) => self.heartbeat(head, heartbeat.file, heartbeat.position, out),
            Event::PreviousGtids(set) => self.previous_gtids(set),
            Event::GtidList(_) | Event::Stop | Event::RowFree(_) => Ok(Step::Done),
            Event::Ignored(kind) => {
                tracing::debug!(
                    source_id = self.settings.id,
                    kind = kind.name(),
                    "an event of an unknown type may be ignored"
                );
                Ok(Step::Done)
            }
            Event::StatementPart(_) => Ok(Step::Done),
            Event::LoadData(query) => self.query(&query, out),
            Event::Incident(incident) => {
                let said = String::from_utf8_lossy(incident.message).into_owned();
                let message = format!(
                    "the server says at {} that changes may be missing from its log: {said}",
                    self.place.here()
                );
                Err(Fault::lost("mysql.incident", message).hint(
                    "the log has a gap here: remove the checkpoint and start at `latest` once the tables were copied anew",
                ))
            }
            Event::Undecodable(kind) => {
                Err(self.undecodable(format!("an event of type {} ({})", kind.name(), kind.byte())))
            }
        }
    }

    pub(super) fn undecodable(&self, what: impl std::fmt::Display) -> Fault {
        error::undecodable(what, &self.place.file, self.place.start)
    }

    // --- where the log is -------------------------------------------------------------------------------------------

    fn rotate(
        &mut self,
        file: &str,
        pos: u64,
        head: &binlog::Header,
        out: &mut BatchBuilder,
    ) -> Result<Step, Fault> {
        // One that the server makes up stands before what follows it: at the start of a stream the file that it begins with.
        self.schemas.forget_ids();
        if head.end_pos != 0 && !head.is_artificial() {
            self.seek = None;
            self.place.rotate(file, pos);
            self.advance(out);
        } else if file != self.place.file {
            // By GTIDs a server may begin with an earlier file, of which it leaves out what was read: that is no place to go
            // back to.
            self.place.rotate(file, pos);
        }
        Ok(Step::Done)
    }

    fn heartbeat(
        &mut self,
        head: &binlog::Header,
        file: &str,
        pos: u64,
        out: &mut BatchBuilder,
    ) -> Result<Step, Fault> {
        // The old kind of heartbeat tells the offset modulo 2^32.
        let pos = if head.kind == EventType::Heartbeat { self.place.beyond(pos) } else { pos };
        // A jump of gigabytes is one back.
        let ahead = self.place.end < pos && pos - self.place.end < 1 << 31;
        if self.transaction.is_none() && file == self.place.file && ahead && self.seek.is_none() {
            (self.place.start, self.place.end) = (pos, pos);
            self.advance(out);
        }
        Ok(Step::Done)
    }

    /// Between two transactions.
    pub(super) fn advance(&mut self, out: &mut BatchBuilder) {
        if self.transaction.is_some() {
            return;
        }
        self.stats.received.store(position::number(self.place.number, self.place.end), Ordering::Relaxed);
        out.advance(|json| self.write_position(json));
        self.progress += 1;
    }

    fn previous_gtids(&mut self, bytes: &[u8]) -> Result<Step, Fault> {
        if let Some(never_logged) = self.unfinished_set.take() {
            let logged = MySqlSet::decode(bytes).map_err(|e| self.undecodable(e))?;
            self.executed = Some(Executed::new(GtidSet::MySql(logged.union(&never_logged))));
        }
        Ok(Step::Done)
    }

    /// True while what is before the place to begin at is passed over.
    fn seek_on(&mut self, seek: u64, head: &binlog::Header) -> Result<bool, Fault> {
        if self.place.start < seek || head.end_pos == 0 {
            return Ok(true);
        }
        self.seek = None;
        match &self.transaction {
            None => Ok(false),
            Some(transaction) => {
                let (file, start) = (&self.place.file, transaction.start);
                let message = format!("{file}:{seek} is inside a transaction, which begins at {start}");
                let hint = format!("set `start_position` to {{file: {file}, pos: {start}}}");
                Err(Fault::config("mysql.start_position", message).hint(hint))
            }
        }
    }

    /// Only what tells which transactions were read.
    fn skip(&mut self, head: &binlog::Header, body: &[u8], out: &mut BatchBuilder) -> Result<Step, Fault> {
        use EventType as T;
        match head.kind {
            T::FormatDescription
            | T::Rotate
            | T::PreviousGtids
            | T::Gtid
            | T::GtidTagged
            | T::AnonymousGtid => {
                return self.decoded(head, body, out);
            }
            // What is inside ends a transaction, and does not matter otherwise.
            T::Xid | T::TransactionPayload | T::XaPrepare => {}
            T::Query => {
                let event = binlog::decode(head, body, self.format).map_err(|e| self.undecodable(e))?;
                let Event::Query(query) = event else { return Ok(Step::Done) };
                if matches!(
                    self.classify(&query, query.sql),
                    Statement::Begin | Statement::XaStart(_) | Statement::XaEnd(_)
                ) {
                    return Ok(Step::Done);
                }
            }
            _ => return Ok(Step::Done),
        }
        if let Some(gtid) = self.transaction.take().and_then(|transaction| transaction.gtid) {
            self.add_executed(&gtid)?;
        }
        Ok(Step::Done)
    }

    // --- transactions -----------------------------------------------------------------------------------------------

    fn gtid(&mut self, head: &binlog::Header, event: &binlog::GtidEvent<'_>) -> Result<Step, Fault> {
        let gtid = match &event.id {
            None => None,
            Some(id) => {
                let tag = if id.tag.is_empty() { None } else { Tag::new(id.tag) };
                if tag.is_none() && !id.tag.is_empty() {
                    return Err(self.undecodable("a GTID with an impossible tag"));
                }
                Some(Gtid::MySql(MySqlGtid { uuid: id.uuid, tag, n: id.number }))
            }
        };
        let committed = event.original_committed_us.or(event.committed_us).filter(|us| *us > 0);
        let (ts_us, ts_exact) = match committed.and_then(|us| i64::try_from(us).ok()) {
            Some(us) => (us, true),
            None => (i64::from(head.timestamp) * 1_000_000, false),
        };
        self.begin(Transaction {
            gtid,
            server_id: head.server_id,
            ts_us,
            ts_exact,
            start: self.place.start,
            ..Transaction::default()
        })
    }

    fn maria_gtid(
        &mut self,
        head: &binlog::Header,
        event: &binlog::MariaGtidEvent<'_>,
    ) -> Result<Step, Fault> {
        use binlog::MariaGtidEvent as Flags;
        let gtid = MariaGtid { domain: event.domain, server: head.server_id, n: event.sequence };
        let xa = event.is(Flags::PREPARED_XA);
        self.begin(Transaction {
            gtid: Some(Gtid::Maria(gtid)),
            server_id: head.server_id,
            ts_us: i64::from(head.timestamp) * 1_000_000,
            thread: event.thread_id,
            start: self.place.start,
            xa,
            standalone: event.is(Flags::STANDALONE),
            only_begins: event.alter.is_some_and(|phase| !matches!(phase, binlog::AlterPhase::Commit(_))),
            ..Transaction::default()
        })?;
        if xa {
            self.begin_spool();
        }
        Ok(Step::Done)
    }

    /// A file of the log begins. A transaction that is open was being written when the server went down: it was rolled back then.
    fn cut_off(&mut self, out: &mut BatchBuilder) {
        let Some(transaction) = self.transaction.take() else { return };
        tracing::warn!(
            source_id = self.settings.id,
            transaction = transaction.name,
            delivered_in_part = transaction.begun,
            "the log ends inside a transaction: the server went down while it wrote it, and rolled it back"
        );
        (self.spool, self.cursor, self.unpacking, self.first_row) = (None, None, None, 0);
        self.statement.set_query(None);
        out.rollback();
        out.forget_delivered();
        self.progress += 1;
    }

    fn begin(&mut self, mut transaction: Transaction) -> Result<Step, Fault> {
        if self.transaction.as_ref().is_some_and(|open| open.begun || open.has_rows) {
            return Err(self.undecodable("a transaction that begins inside another"));
        }
        transaction.name = match &transaction.gtid {
            Some(gtid) => {
                let mut text = std::mem::take(&mut self.spare_name).into_bytes();
                text.clear();
                gtid.write(&mut text);
                String::from_utf8(text).unwrap_or_default()
            }
            None => format!("{}:{}", self.place.file, transaction.start),
        };
        self.transaction = Some(transaction);
        self.spool = None;
        self.schemas.forget_many_ids();
        self.serial += 1;
        Ok(Step::Done)
    }

    /// The open transaction, which is made known to the builder. `file` is where its rows stand.
    pub(super) fn entered<'t>(
        transaction: &'t mut Transaction,
        file: &str,
        out: &mut BatchBuilder,
    ) -> &'t mut Transaction {
        if !transaction.begun {
            transaction.begun = true;
            let head = TransactionHead {
                id: &transaction.name,
                ts_us: transaction.ts_us,
                ts_exact: transaction.ts_exact,
            };
            let gtid = transaction.gtid.is_some().then_some(transaction.name.as_str());
            let (server_id, thread) = (transaction.server_id, transaction.thread);
            out.begin(head, 4, |row| {
                row.put(Value::Uint(server_id.into()));
                row.put(gtid.map_or(Value::Absent, Value::Text));
                row.put(Value::Text(file));
                row.put(thread.map_or(Value::Absent, |thread| Value::Uint(thread.into())));
            });
        }
        transaction
    }

    /// The transaction has ended at the end of this event.
    pub(super) fn end(&mut self, out: &mut BatchBuilder) -> Result<(), Fault> {
        self.statement.set_query(None);
        let Some(transaction) = self.transaction.take() else { return Ok(()) };
        if transaction.xa {
            return Err(self.undecodable("an XA transaction that ends without being prepared"));
        }
        if let Some(gtid) = &transaction.gtid {
            self.add_executed(gtid)?;
        }
        self.stats.received.store(position::number(self.place.number, self.place.end), Ordering::Relaxed);
        self.stats.received_ts_us.store(transaction.ts_us, Ordering::Relaxed);
        if transaction.begun {
            self.stats.transactions.fetch_add(1, Ordering::Relaxed);
            out.commit(|json| self.write_position(json));
        } else {
            out.advance(|json| self.write_position(json));
        }
        self.spare_name = transaction.name;
        self.progress += 1;
        Ok(())
    }

    pub(super) fn add_executed(&mut self, gtid: &Gtid) -> Result<(), Fault> {
        match &mut self.executed {
            None => Ok(()),
            Some(executed) => executed.add(gtid).map_err(|e| self.undecodable(e)),
        }
    }

    /// The events inside of a compressed transaction, one after the other.
    fn unpack(&mut self, payload: &binlog::Payload<'_>, out: &mut BatchBuilder) -> Result<Step, Fault> {
        let mut unpacker = match self.unpacker.take() {
            Some(unpacker) => unpacker,
            None => Box::new(Unpacker::new().map_err(|e| self.undecodable(e))?),
        };
        let step = self.unpack_with(&mut unpacker, payload, out);
        self.unpacker = Some(unpacker);
        step
    }

    fn unpack_with(
        &mut self,
        unpacker: &mut Unpacker,
        payload: &binlog::Payload<'_>,
        out: &mut BatchBuilder,
    ) -> Result<Step, Fault> {
        let mut waits = match self.unpacking {
            Some(waits) => waits,
            None => {
                unpacker.begin().map_err(|e| self.undecodable(e))?;
                false
            }
        };
        loop {
            self.unpacking = Some(waits);
            if out.is_full() {
                return Ok(Step::Full);
            }
            if !waits && unpacker.next(payload).map_err(|e| self.undecodable(e))?.is_none() {
                self.unpacking = None;
                self.first_row = 0;
                return Ok(Step::Done);
            }
            let inner = header::split(unpacker.current(), binlog::Checksum::None);
            let (head, body) = inner.map_err(|e| self.undecodable(e))?;
            match self.decoded(&head, body, out)? {
                Step::Done => waits = false,
                step => {
                    self.unpacking = Some(true);
                    return Ok(step);
                }
            }
        }
    }

    /// Identity of an event: the same in every replay, and with GTIDs on every server.
    #[inline]
    pub(super) fn event_id(
        &mut self,
        transaction: &Transaction,
        full: &str,
        counter: usize,
        row: u64,
    ) -> EventId {
        self.identity.truncate(self.identity_prefix);
        match &transaction.gtid {
            Some(gtid) => {
                match gtid {
                    Gtid::MySql(gtid) => {
                        self.identity.extend_from_slice(&gtid.uuid);
                        if let Some(tag) = &gtid.tag {
                            self.identity.extend_from_slice(tag.as_bytes());
                        }
                        self.identity.push(0);
                        self.identity.extend_from_slice(&gtid.n.to_be_bytes());
                    }
                    Gtid::Maria(gtid) => {
                        self.identity.extend_from_slice(&gtid.domain.to_be_bytes());
                        self.identity.extend_from_slice(&gtid.server.to_be_bytes());
                        self.identity.extend_from_slice(&gtid.n.to_be_bytes());
                    }
                }
                self.identity.extend_from_slice(full.as_bytes());
                self.identity.push(0);
                let ordinal = self.next_ordinal(counter);
                self.identity.extend_from_slice(&ordinal.to_be_bytes());
            }
            None => {
                self.identity.extend_from_slice(&transaction.server_id.to_be_bytes());
                self.identity.extend_from_slice(self.place.file.as_bytes());
                self.identity.push(0);
                self.identity.extend_from_slice(&self.place.start.to_be_bytes());
                self.identity.extend_from_slice(&row.to_be_bytes());
                self.identity.extend_from_slice(full.as_bytes());
            }
        }
        EventId::derive(&self.identity)
    }

    /// How many changes of a table the transaction had before.
    fn next_ordinal(&mut self, counter: usize) -> u64 {
        if self.counters.len() <= counter {
            self.counters.resize(counter + 1, (0, 0));
        }
        let (serial, count) = &mut self.counters[counter];
        if *serial != self.serial {
            (*serial, *count) = (self.serial, 0);
        }
        *count += 1;
        *count - 1
    }
}
