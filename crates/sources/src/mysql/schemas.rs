//! The tables that rows belong to: what the log calls them, what is known of them, and how their cells are read.
//!
//! A TABLE_MAP stands before the rows of each statement, so the same few come again and again: one whose bytes are those of the
//! last time, with nothing learnt since, costs a comparison.

use super::binlog::{Column, ColumnType, Metadata, TableMap};
use super::charset::{Charset, Collations};
use super::config::Settings;
use super::flavour::Version;
use super::position;
use super::schema::{
    ChangeKind, Context, Declared, Defaults, Held, Known, Listed, Shape, Statement, Stopped, TableChange,
    TableRef, Tables, agree, from_metadata, leaves_columns,
};
use super::values::{Codec, Facts};
use deltaforge_core::Fault;
use deltaforge_core::batch::{BatchBuilder, TableIx};
use deltaforge_core::schema::{SchemaRegistry, registered};
use deltaforge_core::source::SourceStats;
use std::collections::HashMap;
use std::sync::Arc;

/// Table ids that are remembered; a server gives a table a new one each time it opens it.
const REMEMBERED: usize = 4096;

/// A captured table, ready for its rows.
#[derive(Debug)]
pub(super) struct Captured {
    pub(super) table: TableRef,
    /// `db.table`.
    pub(super) full: String,
    pub(super) index: TableIx,
    pub(super) columns: Vec<CapturedColumn>,
    /// Columns that are part of events; the hidden ones come after them.
    pub(super) visible: usize,
    /// Columns of type JSON, which partial updates count.
    pub(super) json: usize,
    /// Which counter counts its rows within a transaction.
    pub(super) counter: usize,
}

/// One column of it.
#[derive(Debug)]
pub(super) struct CapturedColumn {
    pub(super) codec: Codec,
    pub(super) ty: ColumnType,
    pub(super) name: Box<str>,
}

/// What rows of a table id are.
#[derive(Clone, Debug)]
pub(super) enum Mapped {
    /// Not captured.
    Skipped,
    /// Captured, and stopped.
    Stopped,
    Captured(Arc<Captured>),
}

struct Entry {
    definition: Vec<u8>,
    generation: u64,
    mapped: Mapped,
}

/// What becomes of a TABLE_MAP.
pub(super) enum Resolved {
    Done,
    /// The server must be asked for this table's present shape, and the event given again.
    LookUp(TableRef),
}

/// What the server said of a table.
pub(super) struct LookedUp {
    pub(super) table: TableRef,
    pub(super) listed: Option<Listed>,
    /// Where the log ended then: file number and offset.
    pub(super) log_end: (u32, u64),
}

/// Facts of the server that do not change while it is read.
pub(super) struct ServerFacts {
    pub(super) version: Version,
    pub(super) collations: Collations,
    pub(super) defaults: Defaults,
    /// Character sets of databases.
    pub(super) databases: HashMap<String, String>,
    /// `lower_case_table_names` is not 0.
    pub(super) fold_names: bool,
}

pub(super) struct Schemas {
    settings: Arc<Settings>,
    pub(super) server: ServerFacts,
    registry: Arc<dyn SchemaRegistry>,
    stats: Arc<SourceStats>,
    tables: Tables,
    stopped: HashMap<TableRef, Stopped>,
    mapped: HashMap<u64, Entry>,
    /// Grows with everything learnt, which what was mapped before may not know.
    generation: u64,
    looked_up: Option<LookedUp>,
    /// Tables that were taken to look, at an earlier place of the log, as they looked at this one.
    assumed: HashMap<TableRef, u128>,
    counters: HashMap<String, usize>,
}

impl Schemas {
    /// Begins with what the registry holds for `place`, and registers what was read there.
    pub(super) fn new(
        settings: Arc<Settings>,
        mut server: ServerFacts,
        registry: Arc<dyn SchemaRegistry>,
        stats: Arc<SourceStats>,
        place: u128,
        seeds: Vec<(TableRef, Shape)>,
    ) -> Result<Schemas, Fault> {
        let tables = Tables::new(std::mem::take(&mut server.databases));
        let mut schemas = Schemas {
            settings,
            server,
            registry,
            stats,
            tables,
            stopped: HashMap::new(),
            mapped: HashMap::new(),
            generation: 0,
            looked_up: None,
            assumed: HashMap::new(),
            counters: HashMap::new(),
        };
        for (table, shape) in seeds {
            schemas.register(&table, &Known::Shape(shape), place);
        }
        for record in schemas.registry.tables(place) {
            let Some((db, name)) = split_full(&record.table) else { continue };
            let table = TableRef { db: db.into(), table: name.into() };
            match Known::from_record(&record)? {
                Known::Shape(shape) => schemas.tables.set(table, Held::Shape(shape)),
                Known::Stopped(_) if !schemas.settings.captures(db, name) => {
                    schemas.register(&table, &Known::Gone, place);
                }
                Known::Stopped(stopped) => {
                    schemas
                        .stats
                        .table_stopped(&record.table, &format!("{}: {}", stopped.at, stopped.reason));
                    schemas.stopped.insert(table, stopped);
                }
                Known::Gone => {}
            }
        }
        Ok(schemas)
    }

    fn register(&self, table: &TableRef, known: &Known, place: u128) {
        self.registry.register(&known.to_table_schema(&table.db, &table.table), place);
    }

    /// What rows of this id are; `None` when no TABLE_MAP said.
    #[inline]
    pub(super) fn of_id(&self, table_id: u64) -> Option<&Mapped> {
        self.mapped.get(&table_id).map(|entry| &entry.mapped)
    }

    /// A new file: what ids mean is said again.
    pub(super) fn forget_ids(&mut self) {
        self.mapped.clear();
    }

    /// Between two transactions: each statement says anew what its ids mean.
    #[inline]
    pub(super) fn forget_many_ids(&mut self) {
        if self.mapped.len() >= REMEMBERED {
            self.mapped.clear();
        }
    }

    /// Whether the body of a TABLE_MAP says what the last one of the same id said, with nothing learnt since.
    #[inline]
    pub(super) fn is_mapped(&self, body: &[u8]) -> bool {
        let Some((head, definition)) = body.split_first_chunk::<{ TableMap::HEAD_BYTES }>() else {
            return false;
        };
        let [a, b, c, d, e, f, ..] = *head;
        let entry = self.mapped.get(&u64::from_le_bytes([a, b, c, d, e, f, 0, 0]));
        entry.is_some_and(|entry| entry.generation == self.generation && entry.definition == definition)
    }

    /// Takes a TABLE_MAP in that is [not mapped](Schemas::is_mapped).
    pub(super) fn map(
        &mut self,
        map: &TableMap<'_>,
        place: u128,
        here: &dyn Fn() -> String,
        out: &mut BatchBuilder,
    ) -> Resolved {
        let mapped = if self.settings.captures(map.database, map.table) {
            let table = TableRef { db: map.database.into(), table: map.table.into() };
            match self.resolve(&table, map, place) {
                Ok(_) if self.stopped.contains_key(&table) => Mapped::Stopped,
                Ok(Some(shape)) => self.captured(table, map, shape, place, here, out),
                Ok(None) => Mapped::Skipped,
                Err(Unresolved::LookUp) => return Resolved::LookUp(table),
                Err(Unresolved::Stop(why)) => {
                    self.stop(&table, why, place, here());
                    Mapped::Stopped
                }
            }
        } else {
            Mapped::Skipped
        };
        let entry = Entry { definition: map.definition.to_vec(), generation: self.generation, mapped };
        self.mapped.insert(map.table_id, entry);
        Resolved::Done
    }

    /// The shape that the rows behind this TABLE_MAP have; `None` when they are no user's data.
    fn resolve(
        &mut self,
        table: &TableRef,
        map: &TableMap<'_>,
        place: u128,
    ) -> Result<Option<Shape>, Unresolved> {
        if self.stopped.contains_key(table) {
            return Ok(None);
        }
        let refused = |e: super::binlog::Malformed| Unresolved::Stop(e.to_string());
        let columns = map.columns().map_err(refused)?;
        let metadata = map.metadata(&columns).map_err(refused)?;
        let known = match self.tables.get(table) {
            Some(Held::Shape(shape)) => Some(shape.clone()),
            // What was looked up the last time that this place was read.
            _ => match self.registered(table, place) {
                Some(Known::Stopped(stopped)) => {
                    self.stopped.insert(table.clone(), stopped);
                    return Ok(None);
                }
                Some(Known::Shape(shape)) => Some(shape),
                _ => None,
            },
        };
        let shape = match known {
            Some(shape) => self.checked(&shape, &columns, &metadata)?,
            None => match self.looked_up.take_if(|looked_up| looked_up.table == *table) {
                None => return Err(Unresolved::LookUp),
                Some(LookedUp { listed: Some(Listed::Other(_)), .. }) => return Ok(None),
                Some(LookedUp { listed: Some(Listed::Table(shape)), log_end, .. }) => {
                    let until = position::place(position::term(place), log_end.0, log_end.1);
                    if !metadata.is_full() && until > place {
                        // Types agree or not; names and order nobody tells.
                        self.assumed.insert(table.clone(), until);
                    }
                    self.checked(&shape, &columns, &metadata)?
                }
                Some(LookedUp { listed: None, .. }) => self.told_by_log(&columns, &metadata, &[]).map_err(|why| {
                    Unresolved::Stop(format!(
                        "its columns are not known: it is not on the server any more, no record tells them, and {why}"
                    ))
                })?,
            },
        };
        Ok((!shape.is_sequence()).then_some(shape))
    }

    fn registered(&self, table: &TableRef, place: u128) -> Option<Known> {
        let record = self.registry.in_force(&format!("{}.{}", table.db, table.table), place)?;
        Known::from_record(&record).ok()
    }

    /// The shape if the log agrees; else what the log itself tells, if it tells all.
    fn checked(&self, shape: &Shape, columns: &[Column], metadata: &Metadata) -> Result<Shape, Unresolved> {
        let Err(difference) = agree(shape, columns, metadata, &self.server.collations) else {
            return Ok(shape.clone());
        };
        if !metadata.is_full() {
            return Err(Unresolved::Stop(format!(
                "what is known of it is not what the log has: {difference}"
            )));
        }
        self.told_by_log(columns, metadata, &[shape]).map_err(Unresolved::Stop)
    }

    fn told_by_log(
        &self,
        columns: &[Column],
        metadata: &Metadata,
        hints: &[&Shape],
    ) -> Result<Shape, String> {
        if !metadata.is_full() {
            return Err("the log does not name them (binlog_row_metadata is not FULL)".into());
        }
        from_metadata(columns, metadata, &self.server.collations, &self.server.version, hints)
    }

    fn captured(
        &mut self,
        table: TableRef,
        map: &TableMap<'_>,
        shape: Shape,
        place: u128,
        here: &dyn Fn() -> String,
        out: &mut BatchBuilder,
    ) -> Mapped {
        let columns = match self.columns(map, &shape) {
            Ok(columns) => columns,
            Err(why) => {
                self.stop(&table, why, place, here());
                return Mapped::Stopped;
            }
        };
        let visible = shape.columns.iter().filter(|column| !column.hidden).count();
        let known = Known::Shape(shape);
        let schema =
            registered(known.to_table_schema(&table.db, &table.table), self.registry.as_ref(), place);
        if let Known::Shape(shape) = known {
            self.tables.set(table.clone(), Held::Shape(shape));
        }
        let full = schema.name.full().to_owned();
        let counters = self.counters.len();
        let counter = *self.counters.entry(full.clone()).or_insert(counters);
        let json = columns.iter().filter(|column| column.ty == ColumnType::Json).count();
        let index = out.schema(schema);
        Mapped::Captured(Arc::new(Captured { table, full, index, columns, visible, json, counter }))
    }

    fn columns(&self, map: &TableMap<'_>, shape: &Shape) -> Result<Vec<CapturedColumn>, String> {
        let logged = map.columns().map_err(|e| e.to_string())?;
        let mut columns = Vec::with_capacity(logged.len());
        for (column, logged) in shape.columns.iter().zip(&logged) {
            let unreadable =
                |why: &str| format!("column {} of type {}: {why}", column.name, column.column_type);
            let declared = Declared::parse(&column.column_type);
            let charset = match &column.charset {
                Some(name) => Charset::by_name(name)
                    .ok_or_else(|| unreadable(&format!("the character set {name} is not known")))?,
                None => Charset::BINARY,
            };
            let facts = Facts {
                declared: &column.column_type,
                unsigned: declared.as_ref().is_some_and(|declared| declared.unsigned),
                charset,
                labels: declared.as_ref().map_or(&[], |declared| declared.labels()),
                json: column.json,
                nullable: column.nullable,
                zero_date: self.settings.zero_date,
            };
            let codec = Codec::new(logged, &facts).map_err(unreadable)?;
            columns.push(CapturedColumn { codec, ty: logged.ty, name: column.name.as_str().into() });
        }
        Ok(columns)
    }

    /// The table's rows are not given from here on, also after a restart.
    pub(super) fn stop(&mut self, table: &TableRef, reason: String, place: u128, at: String) {
        if self.stopped.contains_key(table) {
            return;
        }
        let full = format!("{}.{}", table.db, table.table);
        tracing::error!(
            source_id = self.settings.id,
            table = full,
            at,
            reason,
            "the table is stopped: none of its rows is delivered from here on"
        );
        self.stats.table_stopped(&full, &format!("{at}: {reason}"));
        let stopped = Stopped { reason, at };
        self.register(table, &Known::Stopped(stopped.clone()), place);
        self.stopped.insert(table.clone(), stopped);
        self.generation += 1;
        // More rows of the same statement may follow without another TABLE_MAP.
        for entry in self.mapped.values_mut() {
            if matches!(&entry.mapped, Mapped::Captured(captured) if captured.table == *table) {
                entry.mapped = Mapped::Stopped;
            }
        }
    }

    pub(super) fn is_stopped(&self, table: &TableRef) -> bool {
        self.stopped.contains_key(table)
    }

    /// All captured tables that something is known of.
    pub(super) fn captured_tables(&self) -> Vec<TableRef> {
        let captured = |table: &&TableRef| self.settings.captures(&table.db, &table.table);
        self.tables.names().filter(captured).cloned().collect()
    }

    /// Takes a statement in that may change tables; what it changes is in force from `place` on.
    pub(super) fn apply(
        &mut self,
        statement: &Statement,
        sql: &[u8],
        context: &Context<'_>,
        place: u128,
        here: &dyn Fn() -> String,
    ) {
        if let (Statement::Tables(changes), false) = (statement, self.assumed.is_empty()) {
            self.refute(changes, sql, context, place, here);
        }
        let touched = self.tables.apply(statement, sql, context, &self.server.defaults);
        if touched.is_empty() {
            return;
        }
        self.generation += 1;
        for table in touched {
            if !self.settings.captures(&table.db, &table.table) || self.is_stopped(&table) {
                continue;
            }
            let known = match self.tables.get(&table) {
                Some(Held::Shape(shape)) => Known::Shape(shape.clone()),
                // Looked up when its rows come, also after a restart.
                Some(Held::Unknown) | None => Known::Gone,
            };
            self.register(&table, &known, place);
        }
    }

    /// Stops tables whose rows were read as they look now, when it turns out that they looked otherwise.
    fn refute(
        &mut self,
        changes: &[TableChange],
        sql: &[u8],
        context: &Context<'_>,
        place: u128,
        here: &dyn Fn() -> String,
    ) {
        self.assumed.retain(|_, until| *until > place);
        for change in changes {
            let harmless = match (&change.kind, self.tables.get(&change.table)) {
                (ChangeKind::Truncate, _) => true,
                (ChangeKind::Create { keeps } | ChangeKind::CreateLike { keeps, .. }, _) => *keeps,
                (ChangeKind::Alter { .. }, Some(Held::Shape(shape))) => {
                    leaves_columns(shape, sql, context, &self.server.defaults)
                }
                _ => false,
            };
            if !harmless && self.assumed.remove(&change.table).is_some() {
                let reason = "its columns were not known and were taken as they are now, but here the log changes them: rows \
                              before may have been given under wrong names. SET GLOBAL binlog_row_metadata = 'FULL' makes the log tell them";
                self.stop(&change.table, reason.into(), place, here());
            }
        }
    }

    /// The server's answer to [`Resolved::LookUp`].
    pub(super) fn looked_up(&mut self, looked_up: LookedUp) {
        self.looked_up = Some(looked_up);
    }

    /// The schema of a table that an event without a row concerns, and which counter counts it.
    pub(super) fn of_table(
        &mut self,
        table: &TableRef,
        place: u128,
        out: &mut BatchBuilder,
    ) -> Option<(TableIx, String, usize)> {
        let shape = match self.tables.get(table) {
            Some(Held::Shape(shape)) => shape.clone(),
            _ => match self.registered(table, place) {
                Some(Known::Shape(shape)) => shape,
                _ => match self.looked_up.take_if(|looked_up| looked_up.table == *table)?.listed {
                    Some(Listed::Table(shape)) => {
                        // What comes next may alter it.
                        self.tables.set(table.clone(), Held::Shape(shape.clone()));
                        shape
                    }
                    // Gone since: an event without rows can do without columns.
                    _ => Shape::default(),
                },
            },
        };
        let known = Known::Shape(shape).to_table_schema(&table.db, &table.table);
        let schema = registered(known, self.registry.as_ref(), place);
        let full = schema.name.full().to_owned();
        let counters = self.counters.len();
        let counter = *self.counters.entry(full.clone()).or_insert(counters);
        Some((out.schema(schema), full, counter))
    }

    pub(super) fn captures(&self, table: &TableRef) -> bool {
        self.settings.captures(&table.db, &table.table)
    }
}

enum Unresolved {
    LookUp,
    Stop(String),
}

/// `db` and `table` of a full name. A database's name may hold a dot; a record of such a table is looked up again.
fn split_full(full: &str) -> Option<(&str, &str)> {
    full.split_once('.').filter(|(_, table)| !table.contains('.'))
}
