//! Tables and their columns, as they are at one place of the log.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A table's full name as the server gives it, case kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// Database; for SQLite the file's stem.
    pub db: String,
    /// Schema, for databases that have them inside a database (PostgreSQL).
    pub schema: Option<String>,
    /// The table itself.
    pub table: String,
    full: String,
}

impl TableName {
    /// PostgreSQL: the full name is `schema.table`.
    pub fn in_schema(db: &str, schema: &str, table: &str) -> TableName {
        let full = format!("{schema}.{table}");
        TableName { db: db.into(), schema: Some(schema.into()), table: table.into(), full }
    }

    /// MySQL: the full name is `db.table`.
    pub fn in_db(db: &str, table: &str) -> TableName {
        TableName { db: db.into(), schema: None, table: table.into(), full: format!("{db}.{table}") }
    }

    /// SQLite: the full name is the table's.
    pub fn bare(db: &str, table: &str) -> TableName {
        TableName { db: db.into(), schema: None, table: table.into(), full: table.into() }
    }

    /// `schema.table`, `db.table` or `table`.
    pub fn full(&self) -> &str {
        &self.full
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full)
    }
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Name, case kept.
    pub name: String,
    /// The type as the source's server writes it, `numeric(10,2)`.
    pub type_name: String,
    /// Whether NULL is allowed; `None` when the log and the catalog do not say.
    pub nullable: Option<bool>,
}

/// The shape of a table at one place of the log. Immutable; a change makes a new one.
#[derive(Debug, PartialEq, Eq)]
pub struct TableSchema {
    /// Which table.
    pub name: TableName,
    /// Columns in table order.
    pub columns: Vec<Column>,
    /// Columns of the primary key, in key order, as indexes into `columns`.
    pub primary_key: Vec<u16>,
    /// Columns that make the message key: the primary key, else the replica identity or a unique index; may be empty.
    pub key: Vec<u16>,
    /// SHA-256 of columns and primary key.
    pub fingerprint: Fingerprint,
    /// What the connector needs beside that to read the table's rows again, as JSON of its own; outside the fingerprint.
    pub detail: Option<String>,
    /// The registry's number of this schema, from 1; 0 before it is registered.
    pub sequence: u64,
    /// JSON bytes that an event of this table costs beside its values: an upper bound for one row image.
    pub image_overhead: u32,
}

/// SHA-256 over a schema's columns and primary key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TableSchema {
    /// A schema not yet registered. `key` empty means: the primary key.
    pub fn new(name: TableName, columns: Vec<Column>, primary_key: Vec<u16>, key: Vec<u16>) -> TableSchema {
        let fingerprint = fingerprint(&columns, &primary_key);
        let key = if key.is_empty() { primary_key.clone() } else { key };
        // `"name":` and a comma; 24 covers the longest marker, `{"_unchanged":true}`.
        let image_overhead = columns.iter().map(|c| c.name.len() as u32 + 4).sum::<u32>() + 24;
        TableSchema {
            name,
            columns,
            primary_key,
            key,
            fingerprint,
            detail: None,
            sequence: 0,
            image_overhead,
        }
    }

    /// With the connector's own JSON.
    pub fn with_detail(mut self, detail: String) -> TableSchema {
        self.detail = Some(detail);
        self
    }

    /// Columns and primary key as the JSON that the fingerprint is taken of.
    pub fn canonical_json(&self) -> String {
        canonical_json(&self.columns, &self.primary_key)
    }
}

fn canonical_json(columns: &[Column], primary_key: &[u16]) -> String {
    let columns: Vec<_> = columns
        .iter()
        .map(|c| serde_json::json!({"name": c.name, "type": c.type_name, "nullable": c.nullable}))
        .collect();
    serde_json::json!({"columns": columns, "primary_key": primary_key}).to_string()
}

fn fingerprint(columns: &[Column], primary_key: &[u16]) -> Fingerprint {
    Fingerprint(Sha256::digest(canonical_json(columns, primary_key)).into())
}

/// Numbers schemas: the engine hands an implementation to the source, which asks at each schema it meets in the log.
///
/// Numbering is as of a place in the log, so a replay gives each row the number it had the first time: `at` is the
/// place in a form that sorts (PostgreSQL: the LSN).
pub trait SchemaRegistry: Send + Sync {
    /// The number of this schema at this place. Immediate; it becomes durable before the checkpoint that covers it.
    fn register(&self, schema: &TableSchema, at: u128) -> u64;

    /// What was registered for this table, by its full name, for this place.
    fn in_force(&self, table: &str, at: u128) -> Option<SchemaRecord>;

    /// The same for every table that was registered for this place or an earlier one, by name.
    fn tables(&self, at: u128) -> Vec<SchemaRecord>;
}

/// One registered schema, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaRecord {
    /// Number within the source, from 1, growing by one.
    pub sequence: u64,
    /// Full table name.
    pub table: String,
    /// `sha256:…`
    pub fingerprint: String,
    /// First place where it was in force, sortable.
    pub at: u128,
    /// [`TableSchema::canonical_json`].
    pub shape: String,
    /// [`TableSchema::detail`].
    pub detail: Option<String>,
    /// When it was registered, Unix milliseconds.
    pub registered_ms: i64,
}

/// A registry in memory: the engine loads it from the store's records and saves what is new.
#[derive(Debug, Default)]
pub struct SchemaLog {
    inner: std::sync::Mutex<SchemaLogInner>,
}

#[derive(Debug, Default)]
struct SchemaLogInner {
    records: Vec<SchemaRecord>,
    saved: usize,
}

impl SchemaLog {
    /// Starts from what the store holds.
    pub fn new(records: Vec<SchemaRecord>) -> SchemaLog {
        let saved = records.len();
        SchemaLog { inner: std::sync::Mutex::new(SchemaLogInner { records, saved }) }
    }

    /// Records that the store does not hold yet.
    pub fn unsaved(&self) -> Vec<SchemaRecord> {
        let inner = self.lock();
        inner.records[inner.saved..].to_vec()
    }

    /// Whether there are records that the store does not hold yet.
    pub fn has_unsaved(&self) -> bool {
        let inner = self.lock();
        inner.saved < inner.records.len()
    }

    /// The store now holds the first `count` more records.
    pub fn mark_saved(&self, count: usize) {
        let mut inner = self.lock();
        inner.saved = (inner.saved + count).min(inner.records.len());
    }

    /// All records, oldest first.
    pub fn records(&self) -> Vec<SchemaRecord> {
        self.lock().records.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, SchemaLogInner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl SchemaRegistry for SchemaLog {
    fn register(&self, schema: &TableSchema, at: u128) -> u64 {
        let mut inner = self.lock();
        let fingerprint = schema.fingerprint.to_string();
        let table = schema.name.full();
        // As of `at`, not the latest: a replay from before an A-B-A change meets A, B, A again.
        let same = |r: &&SchemaRecord| r.fingerprint == fingerprint && r.detail == schema.detail;
        if let Some(record) = inner.in_force(table, at).filter(same) {
            return record.sequence;
        }
        let sequence = inner.records.last().map_or(1, |r| r.sequence + 1);
        inner.records.push(SchemaRecord {
            sequence,
            table: table.into(),
            fingerprint,
            at,
            shape: schema.canonical_json(),
            detail: schema.detail.clone(),
            registered_ms: crate::clock::unix_millis(),
        });
        sequence
    }

    fn in_force(&self, table: &str, at: u128) -> Option<SchemaRecord> {
        self.lock().in_force(table, at).cloned()
    }

    fn tables(&self, at: u128) -> Vec<SchemaRecord> {
        let inner = self.lock();
        let mut tables: BTreeMap<&str, &SchemaRecord> = BTreeMap::new();
        for record in inner.records.iter().filter(|r| r.at <= at) {
            let known = tables.entry(&record.table).or_insert(record);
            if (known.at, known.sequence) < (record.at, record.sequence) {
                *known = record;
            }
        }
        tables.into_values().cloned().collect()
    }
}

impl SchemaLogInner {
    fn in_force(&self, table: &str, at: u128) -> Option<&SchemaRecord> {
        self.records.iter().filter(|r| r.table == table && r.at <= at).max_by_key(|r| (r.at, r.sequence))
    }
}

/// A schema with its registry number, ready to be shared by the rows it describes.
pub fn registered(mut schema: TableSchema, registry: &dyn SchemaRegistry, at: u128) -> Arc<TableSchema> {
    schema.sequence = registry.register(&schema, at);
    Arc::new(schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: &[&str]) -> TableSchema {
        let column = |n: &&str| Column { name: (*n).into(), type_name: "integer".into(), nullable: None };
        TableSchema::new(
            TableName::in_schema("shop", "public", "t"),
            columns.iter().map(column).collect(),
            vec![0],
            vec![],
        )
    }

    #[test]
    fn numbers_are_as_of_a_place() {
        let log = SchemaLog::default();
        let (a, b) = (table(&["id"]), table(&["id", "x"]));
        assert_eq!(log.register(&a, 10), 1);
        assert_eq!(log.register(&a, 15), 1, "the schema in force is not registered again");
        assert_eq!(log.register(&b, 20), 2);
        assert_eq!(log.register(&a, 30), 3, "A after B is a new entry");
        let unsaved = log.unsaved();
        assert_eq!(unsaved.len(), 3);
        log.mark_saved(3);
        let replay = SchemaLog::new(log.records());
        assert_eq!([replay.register(&a, 10), replay.register(&b, 20), replay.register(&a, 30)], [1, 2, 3]);
        assert!(replay.unsaved().is_empty(), "a replay registers nothing");
    }

    #[test]
    fn a_change_of_detail_alone_is_a_new_entry() {
        let log = SchemaLog::default();
        let with = |detail: &str| table(&["id"]).with_detail(detail.into());
        assert_eq!(log.register(&with("{}"), 10), 1);
        assert_eq!(log.register(&with("{}"), 12), 1);
        assert_eq!(log.register(&with("[]"), 20), 2);
        assert_eq!(log.register(&table(&["id"]), 30), 3);
        assert_eq!(log.register(&with("{}"), 15), 1, "as of its place");
        let details: Vec<_> = log.records().into_iter().map(|r| r.detail).collect();
        assert_eq!(details, [Some("{}".into()), Some("[]".into()), None]);
        assert_eq!(with("{}").fingerprint, table(&["id"]).fingerprint);
    }

    #[test]
    fn what_was_registered_is_found_as_of_a_place() {
        let log = SchemaLog::default();
        let other = || {
            let name = TableName::in_schema("shop", "public", "other");
            TableSchema::new(name, table(&["id"]).columns, vec![], vec![])
        };
        log.register(&table(&["id"]), 10);
        log.register(&other(), 20);
        log.register(&table(&["id", "x"]), 30);
        // Met late, for an early place.
        log.register(&table(&["id", "y"]), 15);
        let number = |at| log.in_force("public.t", at).map(|r| r.sequence);
        assert_eq!(
            [9, 10, 14, 15, 29, 30, u128::MAX].map(number),
            [None, Some(1), Some(1), Some(4), Some(4), Some(3), Some(3)]
        );
        assert_eq!(log.in_force("t", 30), None);
        let all = |at| log.tables(at).into_iter().map(|r| (r.table, r.sequence)).collect::<Vec<_>>();
        let named = |t: u64, o: u64| vec![("public.other".to_owned(), o), ("public.t".to_owned(), t)];
        assert_eq!(all(9), []);
        assert_eq!(all(10), [("public.t".to_owned(), 1)]);
        assert_eq!(all(25), named(4, 2));
        assert_eq!(all(30), named(3, 2));
    }

    #[test]
    fn the_fingerprint_covers_names_types_and_key() {
        let base = table(&["id", "x"]);
        assert_eq!(base.fingerprint, table(&["id", "x"]).fingerprint);
        assert_ne!(base.fingerprint, table(&["id", "y"]).fingerprint);
        assert!(base.fingerprint.to_string().starts_with("sha256:"));
        assert_eq!(base.fingerprint.to_string().len(), 7 + 64);
    }
}
