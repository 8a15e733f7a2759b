//! What a statement in the log does to tables: enough of its text is read to tell that, and no more.
//!
//! A server logs data definitions as they were sent, so everything that its grammar allows comes here: comments, odd quoting,
//! new verbs. Two mistakes would lose data: to miss a change of shape, and to take a statement that changes rows for one that
//! does not. Hence a closed list of statements that do neither; anything else is [`Statement::Unknown`], after which shapes
//! are looked at again.
//!
//! Source: MySQL Reference Manual, "SQL Statements"; MariaDB documentation, "SQL Statements".

mod objects;
mod rows;
#[cfg(test)]
mod tests;
mod xa;

use super::lexer::{Dialect, Token};
use super::reader::{Reader, TableRef};
use crate::mysql::binlog::{self, Settings};
use crate::mysql::flavour::Flavour;

/// `sql_mode` of MariaDB: types and statements of another product.
const ORACLE: u64 = 1 << 9;

/// What a QUERY event says beside its text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) flavour: Flavour,
    /// The default database; empty for none.
    pub(crate) database: &'a str,
    /// 0 where the event has none.
    pub(crate) sql_mode: u64,
    /// `lower_case_table_names` is not 0: TABLE_MAP has names in lower case, whatever the statement says.
    pub(crate) fold_names: bool,
}

impl Context<'_> {
    pub(super) fn dialect(&self) -> Dialect {
        Dialect {
            mariadb: self.flavour == Flavour::MariaDb,
            ansi_quotes: self.sql_mode & Settings::ANSI_QUOTES != 0,
            no_backslash_escapes: self.sql_mode & Settings::NO_BACKSLASH_ESCAPES != 0,
        }
    }

    /// The text is in a grammar that is not read.
    pub(super) fn is_foreign(&self) -> bool {
        self.flavour == Flavour::MariaDb && self.sql_mode & ORACLE != 0
    }

    fn named(&self, (db, table): (Option<String>, String)) -> TableRef {
        let fold = |name: String| if self.fold_names { name.to_lowercase() } else { name };
        TableRef { db: fold(db.unwrap_or_else(|| self.database.to_owned())), table: fold(table) }
    }
}

/// What a statement does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    /// `BEGIN`, `START TRANSACTION`.
    Begin,
    /// `COMMIT`.
    Commit,
    /// `ROLLBACK` of the whole transaction.
    Rollback,
    /// A savepoint is set.
    Savepoint(String),
    /// What the transaction logged since this savepoint is undone, transactional tables' rows at least.
    RollbackTo(String),
    /// A savepoint is forgotten.
    ReleaseSavepoint(String),
    /// `XA START`, first in the log of an XA transaction.
    XaStart(Xid),
    /// `XA END`.
    XaEnd(Xid),
    /// `XA PREPARE`, where it is logged as text.
    XaPrepare(Xid),
    /// `XA COMMIT`; true for `ONE PHASE`.
    XaCommit(Xid, bool),
    /// `XA ROLLBACK`.
    XaRollback(Xid),
    /// Changes of tables, in this order.
    Tables(Vec<TableChange>),
    /// A change of a whole database.
    Database(DatabaseChange),
    /// Rows changed by a statement instead of row events. Without tables: any table.
    Rows {
        /// First word, upper case.
        verb: String,
        /// What it may change; may hold aliases and tables that are only read.
        tables: Vec<TableRef>,
    },
    /// Changes neither shapes nor rows.
    Other,
    /// May change anything.
    Unknown,
}

/// Identifier of an XA transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Xid {
    pub(crate) format: u32,
    pub(crate) gtrid: Vec<u8>,
    pub(crate) bqual: Vec<u8>,
}

impl From<binlog::Xid<'_>> for Xid {
    fn from(xid: binlog::Xid<'_>) -> Xid {
        Xid { format: xid.format, gtrid: xid.gtrid.to_vec(), bqual: xid.bqual.to_vec() }
    }
}

/// One change of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableChange {
    pub(crate) kind: ChangeKind,
    pub(crate) table: TableRef,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    /// Made with columns of its own. `keeps`: not if there is one already (`IF NOT EXISTS`).
    Create { keeps: bool },
    /// Made like another one.
    CreateLike { from: TableRef, keeps: bool },
    /// A sequence of MariaDB, whose rows are not a user's data.
    CreateSequence,
    /// Anything about it may be new. `rows`: rows went or came without row events (partitions dropped, emptied, exchanged;
    /// tablespaces imported).
    Alter { rows: bool },
    /// Under a new name from here on.
    Rename { to: TableRef },
    /// Emptied.
    Truncate,
    /// Gone.
    Drop,
}

/// A change of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DatabaseChange {
    pub(crate) kind: DatabaseKind,
    pub(crate) db: String,
    /// Character set that tables made from here on have, if it is said, as it is said (`utf8`).
    pub(crate) charset: Option<String>,
    /// One that is there stays as it is (`IF NOT EXISTS`).
    pub(crate) keeps: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DatabaseKind {
    Create,
    Alter,
    Drop,
}

/// Tells what a QUERY event's text does. The text is UTF-8, or what its session's character set has in common with it;
/// text in character sets whose characters may hold ASCII bytes (gbk, sjis, big5) must have been converted.
pub(crate) fn classify(sql: &[u8], context: &Context<'_>) -> Statement {
    match sql {
        b"BEGIN" => return Statement::Begin,
        b"COMMIT" => return Statement::Commit,
        _ => {}
    }
    let mut parser = Parser { context, reader: Reader::new(sql, context.dialect()) };
    let statement = parser.statement().unwrap_or(Statement::Unknown);
    // A literal that is never closed is no statement that a server ran: it was read wrongly.
    if parser.reader.is_broken() { Statement::Unknown } else { statement }
}

struct Parser<'a> {
    context: &'a Context<'a>,
    reader: Reader<'a>,
}

/// Statements that change neither shapes nor rows of tables.
const HARMLESS: &[&str] = &[
    "ANALYZE",
    "BACKUP",
    "BINLOG",
    "CACHE",
    "CHANGE",
    "CHECK",
    "CHECKSUM",
    "CLONE",
    "DEALLOCATE",
    "DESC",
    "DESCRIBE",
    "EXPLAIN",
    "FLUSH",
    "GET",
    "GRANT",
    "HANDLER",
    "HELP",
    "INSTALL",
    "KILL",
    "LOCK",
    "OPTIMIZE",
    "PREPARE",
    "PURGE",
    "REPAIR",
    "RESET",
    "RESIGNAL",
    "RESTART",
    "REVOKE",
    "SHOW",
    "SHUTDOWN",
    "SIGNAL",
    "STOP",
    "UNINSTALL",
    "UNLOCK",
    "USE",
];

impl Parser<'_> {
    fn statement(&mut self) -> Option<Statement> {
        let verb = match self.reader.peek()? {
            // A query in brackets: it may call a function that changes rows.
            Token::Sign(b'(') => "SELECT".to_owned(),
            _ => self.reader.keyword()?,
        };
        let statement = match verb.as_str() {
            "BEGIN" => {
                self.reader.accept("WORK");
                return self.reader.at_end().then_some(Statement::Begin);
            }
            "START" if self.reader.accept("TRANSACTION") => Statement::Begin,
            "START" => Statement::Other,
            "COMMIT" => Statement::Commit,
            "ROLLBACK" => self.rollback()?,
            "SAVEPOINT" => Statement::Savepoint(self.reader.name()?),
            "RELEASE" => {
                self.reader.expect("SAVEPOINT")?;
                Statement::ReleaseSavepoint(self.reader.name()?)
            }
            "XA" => self.xa()?,
            "CREATE" => self.create()?,
            "ALTER" => self.alter()?,
            "DROP" => self.drop()?,
            "RENAME" => self.rename()?,
            "TRUNCATE" => {
                self.reader.accept("TABLE");
                Statement::Tables(vec![self.change(ChangeKind::Truncate)?])
            }
            "SET" => self.set()?,
            // `ANALYZE UPDATE …` of MariaDB runs the statement.
            "ANALYZE" if !self.reader.is_one_of(&["TABLE", "TABLES", "LOCAL", "NO_WRITE_TO_BINLOG"]) => {
                Statement::Rows { verb, tables: Vec::new() }
            }
            "LOAD" if self.reader.accept("INDEX") => Statement::Other,
            "INSERT" | "REPLACE" | "UPDATE" | "DELETE" | "LOAD" | "WITH" => self.rows(verb)?,
            "CALL" | "DO" | "SELECT" | "TABLE" | "VALUES" => Statement::Rows { verb, tables: Vec::new() },
            harmless if HARMLESS.contains(&harmless) => Statement::Other,
            _ => Statement::Unknown,
        };
        Some(statement)
    }

    fn named(&mut self) -> Option<TableRef> {
        let qualified = self.reader.qualified()?;
        Some(self.context.named(qualified))
    }

    fn change(&mut self, kind: ChangeKind) -> Option<TableChange> {
        Some(TableChange { kind, table: self.named()? })
    }

    fn rollback(&mut self) -> Option<Statement> {
        self.reader.accept("WORK");
        if !self.reader.accept("TO") {
            return Some(Statement::Rollback);
        }
        self.reader.accept("SAVEPOINT");
        Some(Statement::RollbackTo(self.reader.name()?))
    }

    fn set(&mut self) -> Option<Statement> {
        if !self.reader.accept("STATEMENT") || self.reader.is_sign(b'=') {
            return Some(Statement::Other);
        }
        self.reader.skip_to_for()?;
        // Not twice: the grammar does not nest them.
        if self.reader.is_word("SET") { None } else { self.statement() }
    }
}
