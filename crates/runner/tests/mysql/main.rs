//! MySQL and MariaDB end to end: real servers, the real binary, a file of events.
//!
//! One server of each flavour for the binary, one database and one source id per test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "in a test, a panic with a clear message is how a failure is reported"
)]

#[path = "../support/mod.rs"]
mod support;

mod changes;
mod failover;
mod gtids;
mod memory;
mod resume;
mod schemas;
mod values;

use deltaforge_testkit::servers::{Flavour, Mysqld, MysqldOptions};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use support::{Home, file_sink, pipeline};

/// The server that tests share which do nothing to it.
fn server(flavour: Flavour) -> &'static Mysqld {
    static SERVERS: [OnceLock<Mysqld>; 2] = [OnceLock::new(), OnceLock::new()];
    let slot = match flavour {
        Flavour::MySql => &SERVERS[0],
        Flavour::MariaDb => &SERVERS[1],
    };
    slot.get_or_init(|| own_server(flavour, &[]))
}

/// A server of the test's own.
fn own_server(flavour: Flavour, args: &[&str]) -> Mysqld {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    Mysqld::start(flavour, &MysqldOptions { args, ..MysqldOptions::default() }).unwrap()
}

/// A pipeline from a database's tables to `events.jsonl`. `more` are further settings, each with a comma before it.
fn home(server: &Mysqld, db: &str, more: &str) -> Home {
    home_at(server.flavour(), &server.dsn(db), db, more)
}

/// [`home`] for another way to the server.
fn home_at(flavour: Flavour, dsn: &str, db: &str, more: &str) -> Home {
    let kind = flavour.name();
    let settings = format!(
        "id: {db}, dsn: '{dsn}', tables: ['{db}.%'], retry: {{ initial_ms: 100, max_ms: 500 }}{more}"
    );
    let source = format!("{{ type: {kind}, config: {{ {settings} }} }}");
    Home::new(&[("pipeline.yaml", &pipeline("p", &source, &[&file_sink()]))])
}

/// `op` and the row of each event, the row before for deletes.
fn rows(events: &[Value]) -> Vec<(String, Value)> {
    let row = |event: &Value| {
        let op = event["op"].as_str().unwrap().to_owned();
        let image = if op == "d" { "before" } else { "after" };
        (op, event[image].clone())
    };
    events.iter().map(row).collect()
}

/// Equal texts of the same event are one; what comes twice must be equal.
fn without_repeats(events: &[Value]) -> Vec<Value> {
    let mut seen = std::collections::HashMap::new();
    let mut unique = Vec::new();
    for event in events {
        let id = event["event_id"].as_str().unwrap().to_owned();
        let mut same = event.clone();
        // When it was read may differ.
        same.as_object_mut().unwrap().remove("ts_ms");
        match seen.get(&id) {
            None => {
                seen.insert(id, same);
                unique.push(event.clone());
            }
            Some(first) => assert_eq!(*first, same, "a repeated event differs"),
        }
    }
    unique
}

/// The table that [`assert_folds_to_table`] knows.
const TABLE: &str = "create table t (id int primary key auto_increment, v int, pad varchar(100))";

/// Applies the events one after the other, each to the row that it says it found, and compares the outcome with the table.
#[track_caller]
fn assert_folds_to_table(home: &Home, server: &Mysqld, db: &str) {
    let mut folded: BTreeMap<u64, Value> = BTreeMap::new();
    for event in &without_repeats(&home.events()) {
        match event["op"].as_str().unwrap() {
            "d" => {
                let gone = folded.remove(&event["before"]["id"].as_u64().unwrap());
                assert_eq!(gone.as_ref(), Some(&event["before"]), "a delete of another row");
            }
            op => {
                let old = folded.insert(event["after"]["id"].as_u64().unwrap(), event["after"].clone());
                assert_eq!(old.unwrap_or(Value::Null), event["before"], "{op} of another row");
            }
        }
    }
    let table = server.sql(db, "select id, v, pad from t order by id");
    assert_eq!(folded.len(), table.len(), "{}", server.flavour().name());
    for ((id, row), expected) in folded.iter().zip(table) {
        assert_eq!(Some(id.to_string()), expected[0]);
        assert_eq!(row["v"].as_i64().map(|v| v.to_string()), expected[1]);
        assert_eq!(row["pad"].as_str().map(Into::into), expected[2]);
    }
}
