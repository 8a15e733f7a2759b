//! The tables that are known of at the place of the log that has been read, and what statements make of them.
//!
//! Tables that are not captured are followed too once a statement in the log names them: an online schema change builds its
//! table under another name, with statements of its own, and swaps it in by a rename.

use super::ddl::{self, Applied, Defaults};
use super::reader::TableRef;
use super::shape::Shape;
use super::statement::{ChangeKind, Context, DatabaseChange, DatabaseKind, Statement, TableChange};
use std::collections::{BTreeMap, HashMap};

/// What is known of a table that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    Shape(Shape),
    /// It was changed in a way that its text does not tell for certain.
    Unknown,
}

/// Tables by name.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    tables: BTreeMap<TableRef, Held>,
    /// Character sets of databases.
    charsets: HashMap<String, String>,
}

impl Tables {
    /// Without tables; with the character sets of databases as they are now, for tables that will name none.
    pub(crate) fn new(charsets: HashMap<String, String>) -> Tables {
        Tables { tables: BTreeMap::new(), charsets }
    }

    /// What is known under a name; `None` for nothing.
    pub(crate) fn get(&self, table: &TableRef) -> Option<&Held> {
        self.tables.get(table)
    }

    /// Names of the tables that are there.
    pub(crate) fn names(&self) -> impl Iterator<Item = &TableRef> {
        self.tables.keys()
    }

    /// Sets what is known under a name.
    pub(crate) fn set(&mut self, table: TableRef, held: Held) {
        self.tables.insert(table, held);
    }

    /// Takes a statement in; gives the tables of which something else is known now, or nothing any more.
    pub(crate) fn apply(
        &mut self,
        statement: &Statement,
        sql: &[u8],
        context: &Context<'_>,
        defaults: &Defaults,
    ) -> Vec<TableRef> {
        let mut touched = Vec::new();
        match statement {
            Statement::Tables(changes) => {
                for change in changes {
                    self.change(change, sql, context, defaults, &mut touched);
                }
            }
            Statement::Database(change) => self.change_database(change, &mut touched),
            Statement::Unknown => {
                let of_database = self.tables.iter_mut().filter(|(table, _)| table.db == context.database);
                for (table, held) in of_database {
                    *held = Held::Unknown;
                    touched.push(table.clone());
                }
            }
            _ => {}
        }
        touched
    }

    fn change(
        &mut self,
        change: &TableChange,
        sql: &[u8],
        context: &Context<'_>,
        defaults: &Defaults,
        touched: &mut Vec<TableRef>,
    ) {
        let table = &change.table;
        let charset = self.charsets.get(&table.db).map(String::as_str);
        let held = |applied| match applied {
            Applied::Known(shape) => Held::Shape(shape),
            Applied::Unknown => Held::Unknown,
        };
        let now = match &change.kind {
            ChangeKind::Create { keeps: true } | ChangeKind::CreateLike { keeps: true, .. }
                if self.tables.contains_key(table) =>
            {
                return;
            }
            // Logged also when the table was there before, with other columns perhaps.
            ChangeKind::Create { keeps: true } | ChangeKind::CreateLike { keeps: true, .. } => {
                Some(Held::Unknown)
            }
            ChangeKind::Create { .. } => Some(held(ddl::create(sql, context, defaults, charset))),
            ChangeKind::CreateLike { from, .. } => {
                Some(self.tables.get(from).cloned().unwrap_or(Held::Unknown))
            }
            ChangeKind::Alter { .. } => match self.tables.get(table) {
                Some(Held::Shape(shape)) => Some(held(ddl::alter(shape, sql, context, defaults, charset))),
                // It is looked up when its rows come; what was registered of it before no longer holds.
                Some(Held::Unknown) | None => {
                    touched.push(table.clone());
                    return;
                }
            },
            ChangeKind::Rename { to } => {
                let moved = self.tables.remove(table).unwrap_or(Held::Unknown);
                touched.push(table.clone());
                self.tables.insert(to.clone(), moved);
                touched.push(to.clone());
                return;
            }
            ChangeKind::Truncate => return,
            ChangeKind::CreateSequence | ChangeKind::Drop => None,
        };
        let before = match now {
            Some(now) if self.tables.get(table) == Some(&now) => return,
            Some(now) => self.tables.insert(table.clone(), now).or(Some(Held::Unknown)),
            None => self.tables.remove(table),
        };
        if before.is_some() {
            touched.push(table.clone());
        }
    }

    fn change_database(&mut self, change: &DatabaseChange, touched: &mut Vec<TableRef>) {
        if change.keeps && self.charsets.contains_key(&change.db) {
            return; // Logged also when the database was there before.
        }
        if let (Some(charset), DatabaseKind::Create | DatabaseKind::Alter) = (&change.charset, change.kind) {
            self.charsets.insert(change.db.clone(), charset.clone());
            return;
        }
        match change.kind {
            // The server's setting at that time.
            DatabaseKind::Create => drop(self.charsets.remove(&change.db)),
            DatabaseKind::Alter => {}
            DatabaseKind::Drop => {
                self.charsets.remove(&change.db);
                let gone = self.tables.keys().filter(|table| table.db == change.db);
                touched.extend(gone.cloned());
                self.tables.retain(|table, _| table.db != change.db);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "in a test, a panic with a clear message is how a failure is reported"
    )]
    use super::super::statement::classify;
    use super::*;
    use crate::mysql::flavour::{Flavour, Version};

    struct Log(Tables);

    impl Log {
        fn new() -> Log {
            Log(Tables::new(HashMap::from([("d".into(), "latin1".into())])))
        }

        /// The names that a statement touches.
        fn run(&mut self, sql: &str) -> Vec<String> {
            let context = Context { flavour: Flavour::MySql, database: "d", sql_mode: 0, fold_names: false };
            let version = Version::parse("9.7.0", "");
            let defaults = Defaults { version, utf8: "utf8mb3", explicit_timestamps: true };
            let statement = classify(sql.as_bytes(), &context);
            let touched = self.0.apply(&statement, sql.as_bytes(), &context, &defaults);
            touched.into_iter().map(|table| format!("{}.{}", table.db, table.table)).collect()
        }

        /// Names and types of columns; `?` for what is not known, nothing for what is not there.
        fn shape(&self, name: &str) -> String {
            let (db, table) = name.split_once('.').unwrap();
            match self.0.get(&TableRef { db: db.into(), table: table.into() }) {
                None => String::new(),
                Some(Held::Unknown) => "?".into(),
                Some(Held::Shape(shape)) => {
                    let columns = shape.columns.iter().map(|c| format!("{} {}", c.name, c.column_type));
                    columns.collect::<Vec<_>>().join(", ")
                }
            }
        }
    }

    #[test]
    fn an_online_change_swaps_tables() {
        let mut log = Log::new();
        log.run("CREATE TABLE t (id INT PRIMARY KEY, a INT)");
        assert_eq!(log.run("CREATE TABLE _t_gho LIKE t"), ["d._t_gho"]);
        assert_eq!(log.run("ALTER TABLE _t_gho ADD COLUMN b VARCHAR(5) AFTER id"), ["d._t_gho"]);
        assert_eq!(log.shape("d.t"), "id int, a int");
        let swapped = log.run("RENAME TABLE t TO _t_del, _t_gho TO t");
        assert_eq!(swapped, ["d.t", "d._t_del", "d._t_gho", "d.t"]);
        assert_eq!(log.shape("d.t"), "id int, b varchar(5), a int");
        assert_eq!(log.shape("d._t_del"), "id int, a int");
        assert_eq!(log.run("DROP TABLE IF EXISTS _t_del"), ["d._t_del"]);
        assert_eq!((log.shape("d._t_del"), log.shape("d._t_gho")), (String::new(), String::new()));
    }

    #[test]
    fn what_is_not_told_is_not_known() {
        let mut log = Log::new();
        assert_eq!(log.run("CREATE TABLE t SELECT 1 AS a"), ["d.t"]);
        assert_eq!(log.shape("d.t"), "?");
        assert_eq!(log.run("ALTER TABLE t ADD b INT"), ["d.t"]);
        assert_eq!(log.run("ALTER TABLE never_seen ADD b INT"), ["d.never_seen"]);
        log.run("CREATE TABLE IF NOT EXISTS older (a INT)");
        assert_eq!(log.shape("d.older"), "?");
        log.run("DROP TABLE older");
        log.run("RENAME TABLE elsewhere TO u");
        assert_eq!((log.shape("d.elsewhere"), log.shape("d.u")), (String::new(), "?".into()));
        log.run("CREATE TABLE v (a INT)");
        assert!(log.run("CREATE TABLE IF NOT EXISTS v (b INT)").is_empty());
        assert!(log.run("TRUNCATE v").is_empty() && log.run("ALTER TABLE v COMMENT 'x'").is_empty());
        assert_eq!(log.shape("d.v"), "a int");
        assert_eq!(log.run("FROBNICATE ALL TABLES"), ["d.t", "d.u", "d.v"]);
        assert_eq!(log.shape("d.v"), "?");
    }

    #[test]
    fn databases_come_and_go() {
        let mut log = Log::new();
        log.run("CREATE TABLE a (x VARCHAR(5))");
        log.run("CREATE DATABASE IF NOT EXISTS d CHARACTER SET utf16");
        log.run("ALTER DATABASE d CHARACTER SET utf8mb4");
        log.run("CREATE TABLE b (x VARCHAR(5))");
        log.run("CREATE TABLE other.c (x VARCHAR(5), y INT)");
        let charset =
            |log: &Log, table: &str| match log.0.get(&TableRef { db: "d".into(), table: table.into() }) {
                Some(Held::Shape(shape)) => shape.columns[0].charset.clone().unwrap(),
                other => panic!("{other:?}"),
            };
        assert_eq!((charset(&log, "a").as_str(), charset(&log, "b").as_str()), ("latin1", "utf8mb4"));
        assert_eq!(log.shape("other.c"), "?", "nothing is known of that database");
        assert_eq!(log.run("DROP DATABASE d"), ["d.a", "d.b"]);
        assert_eq!((log.shape("d.a"), log.shape("other.c")), (String::new(), "?".into()));
    }
}
