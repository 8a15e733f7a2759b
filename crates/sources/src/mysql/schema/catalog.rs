//! Shapes as the server has them now.
//!
//! Everything comes from `information_schema`. What MariaDB keeps in a table beside the user's columns is in the log though not
//! there, and is put together here: the two columns of a system-versioned table that names none, and a hash for each unique
//! index over values too long for one.
//!
//! Source: MySQL Reference Manual, "INFORMATION_SCHEMA Tables"; MariaDB documentation, "Information Schema Tables",
//! "System-Versioned Tables".

use super::charset_of_collation;
use super::ddl::Defaults;
use super::lexer::Dialect;
use super::reader::{Reader, TableRef};
use super::shape::{Shape, ShapeColumn};
use crate::mysql::charset::Collations;
use crate::mysql::connection::{Connection, Row};
use crate::mysql::error;
use crate::mysql::flavour::Flavour;
use crate::mysql::quote::{identifier, literal};
use deltaforge_core::Fault;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What stands under a table's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    Table(Shape),
    /// Something whose rows are not captured, as the server calls it: `VIEW`, `SEQUENCE`.
    Other(String),
}

/// Shapes of the tables that `wanted` (by database and name) takes.
///
/// # Errors
/// Those of the connection.
pub(crate) fn read_shapes(
    connection: &mut Connection,
    wanted: &dyn Fn(&str, &str) -> bool,
) -> Result<Vec<(TableRef, Shape)>, Fault> {
    let listed = read(connection, NOT_SYSTEM)?;
    let table = |(table, listed)| match listed {
        Listed::Table(shape) => Some((table, shape)),
        Listed::Other(_) => None,
    };
    let is_wanted = |(table, _): &(TableRef, Listed)| wanted(&table.db, &table.table);
    Ok(listed.into_iter().filter(is_wanted).filter_map(table).collect())
}

/// What stands under these names; `None` for nothing.
///
/// # Errors
/// Those of the connection.
pub(crate) fn read_tables(
    connection: &mut Connection,
    tables: &[TableRef],
) -> Result<Vec<(TableRef, Option<Listed>)>, Fault> {
    let mut found = Vec::with_capacity(tables.len());
    // One by one: MariaDB opens the files of every table unless both names are told as they are.
    for table in tables {
        let (db, name) = (literal(&table.db), literal(&table.table));
        let condition = format!("$SCHEMA = {db} AND TABLE_NAME = {name}");
        let listed = read(connection, &condition)?.into_iter().find(|(read, _)| read == table);
        found.push((table.clone(), listed.map(|(_, listed)| listed)));
    }
    Ok(found)
}

/// How often the list of tables may change while they are being locked.
const ATTEMPTS: u32 = 5;

/// Tables locked by one statement.
const GROUP: usize = 40;

/// Shapes that stay as they are while `at` runs, so that they are those of the place in the log that it finds. Rows may change
/// meanwhile; a statement that would change a shape waits, so `at` should be quick.
///
/// A table that is made while the others are being locked is left out, if it happens again and again; the log tells of it.
///
/// # Errors
/// Those of the connection, among them `mysql.lock_timeout` when a table is being altered for long; those of `at`.
pub(crate) fn lock_shapes<T>(
    connection: &mut Connection,
    wanted: &dyn Fn(&str, &str) -> bool,
    at: &mut dyn FnMut(&mut Connection) -> Result<T, Fault>,
) -> Result<(T, Vec<(TableRef, Shape)>), Fault> {
    let mut attempt = 1;
    loop {
        let locked = lock(connection, wanted, attempt == ATTEMPTS, at);
        // The locks end with the transaction. Where the connection is lost they have ended.
        let ended = connection.query("ROLLBACK", "letting tables go");
        if let Some(shapes) = locked? {
            ended?;
            return Ok(shapes);
        }
        attempt += 1;
    }
}

type Located<T> = (T, Vec<(TableRef, Shape)>);

/// One attempt; `None` when tables came or went, unless it is the last.
fn lock<T>(
    connection: &mut Connection,
    wanted: &dyn Fn(&str, &str) -> bool,
    last: bool,
    at: &mut dyn FnMut(&mut Connection) -> Result<T, Fault>,
) -> Result<Option<Located<T>>, Fault> {
    let names = names(connection, wanted)?;
    // With the catalog as it is at each statement, not as it was at the first.
    connection.query("SET TRANSACTION ISOLATION LEVEL READ COMMITTED", "locking tables")?;
    connection.query("START TRANSACTION READ ONLY", "locking tables")?;
    let mut locked = BTreeSet::new();
    for group in names.chunks(GROUP) {
        // No row is read. What counts is the metadata lock that lasts as long as the transaction.
        let select = |table: &TableRef| {
            format!("(SELECT 1 FROM {}.{} LIMIT 0)", identifier(&table.db), identifier(&table.table))
        };
        let together = group.iter().map(select).collect::<Vec<_>>().join(" UNION ALL ");
        match connection.query(&together, "locking tables") {
            Ok(_) => locked.extend(group.iter().cloned()),
            // One has gone since the list was read.
            Err(fault) if is_unknown_table(&fault) && !last => return Ok(None),
            Err(fault) if is_unknown_table(&fault) => {
                for table in group {
                    match connection.query(&select(table), "locking a table") {
                        Ok(_) => drop(locked.insert(table.clone())),
                        Err(fault) if is_unknown_table(&fault) => {}
                        Err(fault) => return Err(fault),
                    }
                }
            }
            Err(fault) => return Err(fault),
        }
    }
    let found = at(connection)?;
    let mut shapes = read_shapes(connection, wanted)?;
    if !last && shapes.iter().any(|(table, _)| !locked.contains(table)) {
        return Ok(None);
    }
    shapes.retain(|(table, _)| locked.contains(table));
    Ok(Some((found, shapes)))
}

/// Errors 1146 (no such table), 1049 (no such database) and 1356 (a view over what is gone).
fn is_unknown_table(fault: &Fault) -> bool {
    ["(error 1146,", "(error 1049,", "(error 1356,"].iter().any(|number| fault.message().contains(number))
}

fn names(connection: &mut Connection, wanted: &dyn Fn(&str, &str) -> bool) -> Result<Vec<TableRef>, Fault> {
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES \
         WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND {} ORDER BY TABLE_SCHEMA, TABLE_NAME",
        NOT_SYSTEM.replace("$SCHEMA", "TABLE_SCHEMA")
    );
    let rows = connection.query(&sql, "listing tables")?;
    let tables = rows.iter().map(|row| TableRef { db: row.text(0), table: row.text(1) });
    Ok(tables.filter(|table| wanted(&table.db, &table.table)).collect())
}

/// The character sets that the log's numbers of collations stand for.
///
/// # Errors
/// Those of the connection.
pub(crate) fn collations(connection: &mut Connection) -> Result<Collations, Fault> {
    // MariaDB has collations that go with several character sets, and numbers them for each in this table.
    let sql = match connection.flavour() {
        Flavour::MySql => "SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATIONS",
        Flavour::MariaDb if connection.version().is_at_least(10, 10, 0) => {
            "SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY"
        }
        Flavour::MariaDb => "SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATIONS",
    };
    let rows = connection.query(sql, "reading collations")?;
    let pairs: Vec<(u16, String)> =
        rows.iter().filter_map(|row| Some((u16::try_from(row.number(0)?).ok()?, row.maybe(1)?))).collect();
    Ok(Collations::new(pairs.iter().map(|(id, charset)| (*id, charset.as_str()))))
}

/// What statements leave to the server.
///
/// # Errors
/// Those of the connection.
pub(crate) fn defaults(connection: &mut Connection) -> Result<Defaults, Fault> {
    let version = connection.version();
    // MySQL has no such choice.
    let old_mode =
        if version.flavour == Flavour::MariaDb { "@@global.old_mode" } else { "'UTF8_IS_UTF8MB3'" };
    let sql = format!("SELECT @@global.explicit_defaults_for_timestamp, {old_mode}");
    let rows = connection.query(&sql, "reading the server's settings")?;
    let row = rows.first().ok_or_else(|| error::protocol("no settings"))?;
    let utf8mb3 = row.text(1).contains("UTF8_IS_UTF8MB3") || !version.is_at_least(10, 6, 0);
    Ok(Defaults {
        version,
        utf8: if utf8mb3 { "utf8mb3" } else { "utf8mb4" },
        explicit_timestamps: row.number(0) == Some(1),
    })
}

/// The character set of each database, for tables that name none.
///
/// # Errors
/// Those of the connection.
pub(crate) fn database_charsets(connection: &mut Connection) -> Result<HashMap<String, String>, Fault> {
    let sql = "SELECT SCHEMA_NAME, DEFAULT_CHARACTER_SET_NAME FROM information_schema.SCHEMATA";
    let rows = connection.query(sql, "reading databases")?;
    Ok(rows.iter().map(|row| (row.text(0), charset_of_collation(&row.text(1)).to_owned())).collect())
}

const NOT_SYSTEM: &str = "$SCHEMA NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys')";

/// Reads what a condition takes; `$SCHEMA` stands for the column with the database's name.
fn read(connection: &mut Connection, condition: &str) -> Result<Vec<(TableRef, Listed)>, Fault> {
    let version = connection.version();
    let mariadb = version.flavour == Flavour::MariaDb;
    if !mariadb && version.is_at_least(8, 0, 30) {
        // A server may be set to keep the primary keys that it makes by itself to itself; the log has them.
        connection
            .query("SET SESSION show_gipk_in_create_table_and_information_schema = ON", "reading tables")?;
    }
    let condition_on = |column: &str| condition.replace("$SCHEMA", column);
    let by_schema = condition_on("TABLE_SCHEMA");
    let mut tables: BTreeMap<TableRef, Draft> = BTreeMap::new();
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, TABLE_COLLATION, ENGINE FROM information_schema.TABLES WHERE {by_schema}"
    );
    for row in connection.query(&sql, "reading tables")? {
        let draft = Draft {
            kind: row.text(2),
            collation: row.maybe(3),
            memory: row.text(4).eq_ignore_ascii_case("MEMORY"),
            ..Draft::default()
        };
        tables.insert(table_of(&row), draft);
    }
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, CHARACTER_SET_NAME, IS_NULLABLE, COLUMN_KEY, GENERATION_EXPRESSION \
         FROM information_schema.COLUMNS WHERE {by_schema} ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION"
    );
    for row in connection.query(&sql, "reading columns")? {
        if let Some(draft) = tables.get_mut(&table_of(&row)) {
            draft.add_column(&row);
        }
    }
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, COLUMN_NAME, SUB_PART, INDEX_TYPE FROM information_schema.STATISTICS \
         WHERE NON_UNIQUE = 0 AND {by_schema} ORDER BY TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX"
    );
    for row in connection.query(&sql, "reading keys")? {
        if let Some(draft) = tables.get_mut(&table_of(&row)) {
            draft.add_key_part(&row, mariadb);
        }
    }
    if mariadb {
        let sql = format!(
            "SELECT CONSTRAINT_SCHEMA, TABLE_NAME, CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS WHERE {}",
            condition_on("CONSTRAINT_SCHEMA")
        );
        for row in connection.query(&sql, "reading checks")? {
            if let Some(draft) = tables.get_mut(&table_of(&row)) {
                draft.add_check(&row.text(2));
            }
        }
    }
    Ok(tables.into_iter().map(|(table, draft)| (table, draft.finish())).collect())
}

fn table_of(row: &Row) -> TableRef {
    TableRef { db: row.text(0), table: row.text(1) }
}

/// A table while its parts are being read.
#[derive(Debug, Default)]
struct Draft {
    /// `BASE TABLE`, `VIEW`, …
    kind: String,
    collation: Option<String>,
    /// Its engine has true hash indexes.
    memory: bool,
    columns: Vec<ShapeColumn>,
    /// It names the columns of its versions itself.
    names_versions: bool,
    /// Columns that the server takes for the primary key.
    key_columns: BTreeSet<u16>,
    primary: Vec<u16>,
    /// Unique indexes by name: columns, and whether all of them are whole.
    uniques: BTreeMap<String, (Vec<u16>, bool)>,
    /// Unique indexes with a hidden column, by name: the columns.
    hashes: BTreeMap<String, Vec<u16>>,
}

impl Draft {
    fn add_column(&mut self, row: &Row) {
        let column_type = row.text(3);
        // MySQL leaves it out for labels that are bytes.
        let is_labelled = column_type.starts_with("enum(") || column_type.starts_with("set(");
        let charset = row.maybe(4).or_else(|| is_labelled.then(|| "binary".to_owned()));
        let charset = charset.map(|charset| charset_of_collation(&charset).to_owned());
        if row.text(6) == "PRI" {
            self.key_columns.insert(self.columns.len() as u16);
        }
        self.names_versions |= row.text(7).eq_ignore_ascii_case("ROW START");
        let nullable = row.text(5) == "YES";
        self.columns.push(ShapeColumn {
            name: row.text(2),
            column_type,
            charset,
            nullable,
            ..ShapeColumn::default()
        });
    }

    fn add_key_part(&mut self, row: &Row, mariadb: bool) {
        let name = row.text(2);
        let column = row.maybe(3);
        let at = column.and_then(|column| self.columns.iter().position(|c| c.name == column));
        let at = at.map(|at| at as u16);
        if name == "PRIMARY" {
            self.primary.extend(at);
            return;
        }
        if mariadb && !self.memory && row.text(5) == "HASH" {
            self.hashes.entry(name).or_default().extend(at);
            return;
        }
        let (columns, whole) = self.uniques.entry(name).or_insert_with(|| (Vec::new(), true));
        columns.extend(at);
        // Expressions have no column.
        *whole &= at.is_some() && row.bytes(4).is_none();
    }

    /// A check that a column holds JSON and nothing else.
    fn add_check(&mut self, clause: &str) {
        let mut reader = Reader::new(clause.as_bytes(), Dialect { mariadb: true, ..Dialect::default() });
        let mut column = || {
            reader.expect("JSON_VALID")?;
            reader.expect_sign(b'(')?;
            let name = reader.name()?;
            reader.expect_sign(b')')?;
            reader.at_end().then_some(name)
        };
        if let Some(name) = column()
            && let Some(column) = self.columns.iter_mut().find(|column| column.name == name)
        {
            column.json = true;
        }
    }

    fn finish(self) -> Listed {
        if self.kind != "BASE TABLE" && self.kind != "SYSTEM VERSIONED" {
            return Listed::Other(self.kind);
        }
        let versioned = self.kind == "SYSTEM VERSIONED";
        let mut shape = Shape {
            columns: self.columns,
            primary_key: self.primary,
            charset: self.collation.map(|collation| charset_of_collation(&collation).to_owned()),
            versioned,
            ..Shape::default()
        };
        if shape.primary_key.is_empty() {
            let stands_for_it = |(columns, whole): &&(Vec<u16>, bool)| {
                *whole && columns.iter().copied().collect::<BTreeSet<_>>() == self.key_columns
            };
            let key = self.uniques.values().filter(|(columns, _)| !columns.is_empty()).find(stands_for_it);
            shape.unique_key = key.map(|(columns, _)| columns.clone()).unwrap_or_default();
        }
        if versioned && !self.names_versions {
            let end = shape.columns.len() as u16 + 1;
            shape.columns.extend(["row_start", "row_end"].map(|name| ShapeColumn {
                name: name.into(),
                column_type: "timestamp(6)".into(),
                ..ShapeColumn::default()
            }));
            // It is part of every unique index.
            for key in [&mut shape.primary_key, &mut shape.unique_key] {
                if !key.is_empty() {
                    key.push(end);
                }
            }
        }
        let nullable = |columns: &Vec<u16>| columns.iter().any(|at| shape.columns[usize::from(*at)].nullable);
        let hidden = self.hashes.values().enumerate().map(|(n, columns)| ShapeColumn {
            name: format!("DB_ROW_HASH_{}", n + 1),
            column_type: "bigint(20) unsigned".into(),
            nullable: nullable(columns),
            hidden: true,
            ..ShapeColumn::default()
        });
        let hidden: Vec<ShapeColumn> = hidden.collect();
        shape.columns.extend(hidden);
        Listed::Table(shape)
    }
}
