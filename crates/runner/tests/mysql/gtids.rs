//! Identifiers that come with gaps, out of order, from several domains, or not at all.

use super::*;
use std::sync::atomic::{AtomicBool, Ordering};

/// Ids of the rows inserted, in the order of the events; each once.
fn inserted(home: &Home) -> Vec<u64> {
    without_repeats(&home.events()).iter().map(|e| e["after"]["id"].as_u64().unwrap()).collect()
}

#[test]
fn gaps_and_numbers_out_of_order() {
    for flavour in Flavour::available() {
        let server = own_server(flavour, &[]);
        let db = server.fresh_db("gaps");
        server.sql(&db, "create table t (id int primary key)");
        let number: Box<dyn Fn(u32) -> String> = match flavour {
            Flavour::MySql => {
                let uuid = server.value("select @@server_uuid");
                Box::new(move |n| format!("set gtid_next = '{uuid}:{n}'"))
            }
            // A domain has one order only; two have none between them.
            Flavour::MariaDb => {
                Box::new(|n| format!("set gtid_domain_id = {}, gtid_seq_no = {n}", 20 - n / 100))
            }
        };
        let home = home(&server, &db, "");
        let engine = home.start();
        server.sql(&db, &format!("{}; insert into t values (1)", number(1000)));
        server.sql(&db, &format!("{}; insert into t values (2)", number(900)));
        home.wait_events(2);
        engine.stop();
        server.sql(&db, &format!("{}; insert into t values (3)", number(950)));
        server.sql(&db, &format!("{}; insert into t values (4)", number(2000)));
        let engine = home.start();
        server.sql(&db, "insert into t values (5)");
        home.wait_events(5);
        engine.kill();
        server.sql(&db, &format!("{}; insert into t values (6)", number(1500)));
        let engine = home.start();
        server.sql(&db, "insert into t values (7)");
        support::wait_for_event(&home, |e| e["after"]["id"] == 7);
        engine.stop();
        assert_eq!(inserted(&home), [1, 2, 3, 4, 5, 6, 7], "{}", flavour.name());
    }
}

#[test]
fn tagged_identifiers() {
    if !Flavour::MySql.is_available() {
        return;
    }
    let server = own_server(Flavour::MySql, &[]);
    let db = server.fresh_db("tags");
    server.sql(&db, "create table t (id int primary key)");
    let home = home(&server, &db, "");
    let engine = home.start();
    for (id, tag) in [(1, "blue"), (2, "green"), (3, "blue")] {
        server.sql(&db, &format!("set gtid_next = 'AUTOMATIC:{tag}'; insert into t values ({id})"));
    }
    let events = home.wait_events(3);
    assert!(events[0]["source"]["gtid"].as_str().unwrap().ends_with(":blue:1"), "{}", events[0]);
    engine.stop();
    server.sql(&db, "set gtid_next = 'AUTOMATIC:blue'; insert into t values (4)");
    server.sql(&db, "insert into t values (5)");
    let engine = home.start();
    home.wait_events(5);
    engine.stop();
    assert_eq!(inserted(&home), [1, 2, 3, 4, 5]);
}

#[test]
fn a_server_without_identifiers_is_resumed_by_place() {
    if !Flavour::MySql.is_available() {
        return;
    }
    let server = own_server(Flavour::MySql, &["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]);
    let db = server.fresh_db("places");
    server.sql(&db, "create table t (id int primary key)");
    let home = home(&server, &db, "");
    let engine = home.start();
    server.sql(&db, "insert into t values (1)");
    home.wait_events(1);
    engine.stop();
    server.sql(&db, "insert into t values (2); flush binary logs; insert into t values (3)");
    let engine = home.start();
    home.wait_events(3);
    engine.kill();
    server.sql(&db, "flush binary logs; insert into t values (4)");
    let engine = home.start();
    support::wait_for_event(&home, |e| e["after"]["id"] == 4);
    engine.stop();
    assert_eq!(inserted(&home), [1, 2, 3, 4]);
}

#[test]
fn a_server_made_from_a_copy_has_transactions_that_its_log_never_had() {
    if !Flavour::MySql.is_available() {
        return;
    }
    let server = own_server(Flavour::MySql, &[]);
    server.sql("", "set global gtid_purged = '+3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5'");
    let db = server.fresh_db("copied");
    server.sql(&db, "create table t (id int primary key); insert into t values (1)");
    let (file, pos) = server.binlog_end();
    server.sql(&db, "insert into t values (2)");
    let place = format!(", start_position: {{ file: {file}, pos: {pos} }}");
    for (from, first, last) in [(", start_position: earliest", 1, 3), (place.as_str(), 2, 4)] {
        let home = home(&server, &db, from);
        let engine = home.start();
        support::wait_for_event(&home, |e| e["after"]["id"] == 2);
        // Before anything else is read and saved, too.
        engine.kill();
        home.start().stop();
        let engine = home.start();
        server.sql(&db, &format!("insert into t values ({last})"));
        support::wait_for_event(&home, |e| e["after"]["id"] == last);
        engine.stop();
        let expected: Vec<u64> = (first..=last).collect();
        assert_eq!(inserted(&home), expected, "{from}");
    }
}

/// The place to begin at and the transactions before it must be of one moment, while commits go on.
#[test]
fn a_start_amid_commits_leaves_no_hole() {
    const ROWS: u64 = 4;
    for flavour in Flavour::available() {
        let server = server(flavour);
        let db = server.fresh_db("amid");
        server.sql(
            &db,
            "create table t (id int primary key, v int); insert into t values (1, 0), (2, 0), (3, 0), (4, 0)",
        );
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _ends_writers = OnDrop(&stop);
            for id in 1..=ROWS {
                let (stop, db) = (&stop, &db);
                scope.spawn(move || {
                    let mut session = server.session(db);
                    while !stop.load(Ordering::Relaxed) {
                        session.sql(&format!("update t set v = v + 1 where id = {id}"));
                    }
                });
            }
            for _ in 0..5 {
                let home = home(server, &db, "");
                for _ in 0..2 {
                    let engine = home.start();
                    let before = home.lines("events.jsonl").len();
                    home.wait_lines("events.jsonl", before + 40);
                    engine.kill();
                }
                let mut last = [None; 1 + ROWS as usize];
                for event in without_repeats(&home.events()) {
                    let last = &mut last[event["after"]["id"].as_u64().unwrap() as usize];
                    let (from, to) = (event["before"]["v"].as_u64(), event["after"]["v"].as_u64());
                    assert!(last.is_none() || *last == from, "{}: {from:?} after {last:?}", flavour.name());
                    *last = to;
                }
            }
        });
    }
}

/// Says so also when a check fails.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
