//! A load of all kinds of changes, and what must have become of it.
//!
//! Several writers work on the same few thousand keys, so that the history of a key spans transactions of all of them.
//! A statement that fails (a key that is taken, a deadlock) fails its transaction: what counts is what was committed,
//! and that is read from the server afterwards, its rows and, by a second slot, its changes.

use super::random::Random;
use super::session::Session;
use deltaforge_testkit::ledger::{Change, Ledger, Summary, Witness};
use deltaforge_testkit::servers::{PgOptions, PgVersion, Postgres};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;

/// The tables of the load and their keys.
pub const TABLES: &[(&str, &[&str])] = &[
    ("public.accounts", &["id"]),
    ("public.items", &["account", "pos"]),
    ("public.docs", &["id"]),
    ("public.bulk", &["id"]),
    ("public.scratch", &["id"]),
];

const SCHEMA: &str = "
    create table accounts (id int primary key, owner text not null, balance bigint not null, rev bigint not null);
    create table items (account int, pos int, label text, rev bigint, primary key (account, pos));
    alter table items replica identity full;
    create table docs (id int primary key, body text not null, rev bigint not null);
    alter table docs alter column body set storage external;
    create table bulk (id int primary key, filler text, rev int);
    create table scratch (id int primary key, note text);
    create table ignored (id bigserial primary key, note text);
    insert into accounts select g, 'first ' || g, g, 0 from generate_series(1, 1000) g;
    insert into docs select g, repeat(chr(65 + g % 26), 3000), 0 from generate_series(1, 20) g;
";

/// Keys of `accounts`.
const KEYS: u64 = 2000;
/// Pause between a writer's transactions, seconds: a steady load, not the most that the server can take.
const PAUSE: &str = "0.012";

/// A database with the tables, a witness of all that follows, and writers.
pub struct Load {
    pub database: String,
    witness: Witness,
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<u64>>,
}

impl Load {
    /// A server for loads: deadlocks among the writers end soon.
    pub fn server(version: PgVersion, settings: &[(&str, &str)]) -> Postgres {
        let mut all =
            vec![("deadlock_timeout".to_owned(), "100ms".to_owned()), ("max_wal_size".into(), "4GB".into())];
        all.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Postgres::start(version, &PgOptions { settings: all, ..PgOptions::default() }).unwrap()
    }

    /// Makes the database. The witness sees everything from here on, the first rows included.
    pub fn prepare(postgres: &Postgres) -> Load {
        let database = postgres.fresh_db("load");
        let witness = Witness::start(postgres, &database);
        Load { database, witness, stop: Arc::default(), writers: Vec::new() }
    }

    /// Makes the tables and their first rows: before the engine's first start, whose slot begins then.
    pub fn create_tables(&self, postgres: &Postgres) {
        let (tables, rows) = SCHEMA.split_once("    insert into accounts").unwrap();
        postgres.psql(&self.database, tables);
        self.create_slot(postgres);
        postgres.psql(&self.database, &format!("insert into accounts{rows}"));
    }

    /// The engine's slot, made by hand, so that the witness and the engine see the same from the first row on.
    fn create_slot(&self, postgres: &Postgres) {
        postgres.psql(&self.database, "create publication df for table accounts, items, docs, bulk, scratch");
        postgres.psql(&self.database, "select pg_create_logical_replication_slot('df', 'pgoutput')");
    }

    /// Starts to write.
    pub fn start(&mut self, postgres: &Postgres, seed: u64, writers: u64) {
        self.stop.store(false, Relaxed);
        for writer in 0..writers {
            let mut session = Session::open(postgres, &self.database);
            let mut random = Random::new(seed.wrapping_add(1000 * (writer + 1)));
            let stop = self.stop.clone();
            self.writers.push(std::thread::spawn(move || {
                let mut transactions = 0;
                while !stop.load(Relaxed) {
                    session.ask(&format!("{};\nselect pg_sleep({PAUSE})", transaction(&mut random)));
                    transactions += 1;
                }
                transactions
            }));
        }
    }

    /// Ends the writers; gives the number of transactions that they tried.
    pub fn stop(&mut self) -> u64 {
        self.stop.store(true, Relaxed);
        self.writers.drain(..).map(|writer| writer.join().unwrap()).sum()
    }

    /// A transaction of so many rows, half of them inserts, half of them updates.
    pub fn big_transaction(rows: u64, first_key: u64) -> String {
        let (half, end) = (rows / 2, first_key + rows / 2 - 1);
        format!(
            "begin; insert into bulk select g, 'filler of a row that is neither long nor short ' || g, 0 \
             from generate_series({first_key}, {end}) g; \
             update bulk set rev = rev + 1 where id between {first_key} and {}; commit",
            first_key + half - 1
        )
    }

    /// The changes that the server's own decoder saw.
    pub fn expected(&self, postgres: &Postgres) -> Vec<Change> {
        self.witness.changes(postgres, TABLES)
    }

    /// Folds a stream, given by `feed`, and compares it with the tables and the witness.
    #[track_caller]
    pub fn check(&self, postgres: &Postgres, stream: &str, feed: impl FnOnce(&mut Ledger)) -> Summary {
        let mut ledger = Ledger::new(TABLES);
        feed(&mut ledger);
        for (table, _) in TABLES {
            let rows = postgres.psql(&self.database, &format!("select row_to_json(t) from {table} t"));
            ledger.check_table(table, &rows);
        }
        ledger.check_history(&self.expected(postgres));
        match ledger.finish() {
            Ok(summary) => {
                println!("{stream}: clean: {summary}");
                summary
            }
            Err(why) => panic!("{stream}: {why}"),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

/// One transaction of the mix.
fn transaction(random: &mut Random) -> String {
    let id = 1 + random.below(KEYS);
    let other = 1 + random.below(KEYS);
    let rev = random.below(1_000_000);
    match random.below(14) {
        0..=2 => insert_account(id, rev),
        3..=4 => format!(
            "update accounts set balance = balance + 1, rev = {rev} where id between {id} and {}",
            id + 4
        ),
        5 => format!("update accounts set id = {other}, rev = {rev} where id = {id}"),
        6 => format!("delete from accounts where id between {id} and {}", id + 2),
        7 => document(random, rev),
        8..=9 => {
            // Several tables, one of them not captured.
            let items: String = (0..=random.below(6)).map(|pos| item(id, pos, rev)).collect();
            format!(
                "begin; {}; {items} insert into ignored (note) values ('{rev}'); \
                 update docs set rev = {rev} where id = {}; commit",
                insert_account(id, rev),
                1 + other % 20
            )
        }
        10 => format!(
            "begin; update accounts set rev = {rev} where id = {id}; savepoint a; {}; \
             delete from accounts where id between {other} and {}; rollback to a; {} savepoint b; \
             update items set label = 'kept' where account = {id}; release b; savepoint c; \
             update docs set body = 'never' where id < 5; rollback to c; commit",
            insert_account(other, rev),
            other + 5,
            item(id, 9, rev)
        ),
        11 => format!("begin; {}; delete from accounts where id < 100; rollback", insert_account(id, rev)),
        12 => format!(
            "begin; update items set pos = pos + 10, rev = {rev} where account = {id}; \
             delete from items where account = {other}; insert into scratch values ({id}, 'π \"{rev}\" \\') \
             on conflict (id) do update set note = excluded.note; commit"
        ),
        _ if random.one_in(20) => "truncate scratch".into(),
        _ => format!("insert into ignored (note) values ('{rev}')"),
    }
}

fn insert_account(id: u64, rev: u64) -> String {
    format!("insert into accounts values ({id}, 'owner \"{rev}\" é', {rev}, {rev}) on conflict do nothing")
}

fn item(account: u64, pos: u64, rev: u64) -> String {
    format!(
        "insert into items values ({account}, {pos}, 'label {rev}', {rev}) \
         on conflict (account, pos) do update set rev = {rev};"
    )
}

/// A large value that stays as it is, moves with its key, changes, goes.
fn document(random: &mut Random, rev: u64) -> String {
    let (id, other) = (1 + random.below(20), 21 + random.below(20));
    match random.below(6) {
        0..=2 => format!("update docs set rev = {rev} where id = {id}"),
        3 => format!("update docs set body = repeat('{}', 3000), rev = {rev} where id = {id}", rev % 10),
        4 => format!(
            "begin; update docs set id = {other} where id = {id}; update docs set id = {id} where id = {other}; commit"
        ),
        _ => format!(
            "begin; delete from docs where id = {id}; insert into docs values ({id}, repeat('{}', 3000), {rev}); commit",
            rev % 7
        ),
    }
}
