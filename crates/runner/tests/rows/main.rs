//! What happens to rows and tables, and the events that come of it: done with `psql`, read from a file sink.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in a test, a panic with a clear message is how a failure is reported"
)]

#[path = "../support/mod.rs"]
mod support;

mod changes;
mod delivery;
mod identities;
mod images;
mod names;
mod partitions;

use deltaforge_testkit::servers::{PgOptions, PgVersion, Postgres};
use deltaforge_testkit::wait_for;
use serde_json::{Value, json};
use std::cell::Cell;
use std::sync::LazyLock;
use support::{Home, PATIENCE, file_sink, pipeline, source};

static POSTGRES_15: LazyLock<Postgres> = LazyLock::new(|| start(PgVersion::V15));
static POSTGRES_18: LazyLock<Postgres> = LazyLock::new(|| start(PgVersion::V18));

fn start(version: PgVersion) -> Postgres {
    // Each case leaves its slot behind.
    let settings = vec![("max_replication_slots".into(), "100".into())];
    Postgres::start(version, &PgOptions { settings, ..PgOptions::default() }).unwrap()
}

/// A database of its own on a shared server, and a folder with a pipeline `p` for it.
struct Case {
    postgres: &'static Postgres,
    db: String,
    home: Home,
    /// How many lines of the output [`Case::changes`] has given.
    seen: Cell<usize>,
}

impl Case {
    /// Makes the database with `sql`; `tables` is as in [`source`], and has to match `public.fence` too.
    fn new(version: u32, sql: &str, tables: &str) -> Case {
        Case::with_sinks(version, sql, tables, &[&file_sink()])
    }

    fn with_sinks(version: u32, sql: &str, tables: &str, sinks: &[&str]) -> Case {
        let postgres = if version == 15 { &*POSTGRES_15 } else { &*POSTGRES_18 };
        let db = postgres.fresh_db("rows");
        postgres.psql(&db, &format!("create table fence (n serial primary key); {sql}"));
        // Slots are of the whole server.
        let source = source(&postgres.dsn(&db), tables).replace("slot: df,", &format!("slot: {db},"));
        let home = Home::new(&[("pipeline.yaml", &pipeline("p", &source, sinks))]);
        Case { postgres, db, home, seen: Cell::new(0) }
    }

    #[track_caller]
    fn psql(&self, sql: &str) -> String {
        self.postgres.psql(&self.db, sql)
    }

    /// The events since the last call. One more row is written and waited for, so that what is missing is missing.
    #[track_caller]
    fn changes(&self) -> Vec<Value> {
        let fence: i64 = self.psql("insert into fence default values returning n").parse().unwrap();
        let mut events = Vec::new();
        wait_for("the fence to arrive", PATIENCE, || {
            events = self.home.events();
            events.iter().any(|e| is_fence(e) && e["after"]["n"] == fence)
        });
        let new = events.split_off(self.seen.replace(events.len()));
        new.into_iter().filter(|e| !is_fence(e)).collect()
    }

    /// [`Case::changes`], each as `[table, op, before, after]`.
    #[track_caller]
    fn rows(&self) -> Vec<Value> {
        self.changes()
            .iter()
            .map(|e| json!([e["source"]["table"], e["op"], e["before"], e["after"]]))
            .collect()
    }

    /// Waits until a table is published, as happens some time after it was created.
    fn wait_published(&self, table: &str) {
        let sql = format!("select count(*) from pg_publication_tables where tablename = '{table}'");
        wait_for("the new table to be published", PATIENCE, || self.psql(&sql) != "0");
    }
}

fn is_fence(event: &Value) -> bool {
    event["source"]["table"] == "fence"
}

/// Compares lists of rows and shows the first that differs.
#[track_caller]
fn assert_rows(found: &[Value], expected: &[Value]) {
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.to_string(), expected.to_string(), "row {i}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

/// Makes tests of functions that take the PostgreSQL version.
macro_rules! on_both_versions {
    ($($name:ident),* $(,)?) => {
        mod on_postgresql_15 {
            $(#[test] fn $name() { super::$name(15); })*
        }
        mod on_postgresql_18 {
            $(#[test] fn $name() { super::$name(18); })*
        }
    };
}
use on_both_versions;
