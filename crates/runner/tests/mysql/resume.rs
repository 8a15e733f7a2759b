//! Going on after a stop, a crash, a purge.

use super::*;
use std::collections::BTreeMap;

#[test]
fn nothing_is_lost_over_kills_under_load() {
    for flavour in Flavour::available() {
        let server = server(flavour);
        let db = server.fresh_db("kills");
        server.sql(&db, "create table t (id int primary key auto_increment, v int, pad varchar(100))");
        let home = home(server, &db, "");
        home.start().stop();
        let mut random = support::random::Random::new(support::random::Random::seed());
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut session = server.session(&db);
                let mut n = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    n += 1;
                    session.sql(&format!(
                        "begin; insert into t (v, pad) values ({n}, repeat('x', 50)), ({n}, 'y'); \
                         update t set v = v + 1 where id % 7 = {}; delete from t where id % 11 = {}; commit",
                        n % 7,
                        n % 11
                    ));
                    if n % 5 == 0 {
                        session.sql("begin; insert into t (v) values (-1); savepoint s; delete from t; rollback to s; rollback");
                    }
                    if n % 40 == 0 {
                        session.sql("flush binary logs");
                    }
                }
            });
            for _ in 0..12 {
                let engine = home.start();
                let before = home.events().len();
                let more = 1 + random.below(400);
                home.wait_lines("events.jsonl", before + more as usize);
                engine.kill();
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            writer.join().unwrap();
        });
        server.sql(&db, "insert into t values (100000000, 0, 'last')");
        let engine = home.start();
        support::wait_for_event(&home, |e| e["after"]["id"] == 100_000_000);
        engine.stop();
        let events = without_repeats(&home.events());
        let mut folded: BTreeMap<u64, Value> = BTreeMap::new();
        for event in &events {
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
        let table = server.sql(&db, "select id, v, pad from t order by id");
        assert_eq!(folded.len(), table.len(), "{}", flavour.name());
        for ((id, row), expected) in folded.iter().zip(table) {
            assert_eq!(Some(id.to_string()), expected[0]);
            assert_eq!(row["v"].as_i64().map(|v| v.to_string()), expected[1]);
            assert_eq!(row["pad"].as_str().map(Into::into), expected[2]);
        }
    }
}

#[test]
fn a_purged_log_is_named_and_nothing_is_given() {
    for flavour in Flavour::available() {
        let server = own_server(flavour, &[]);
        let db = server.fresh_db("purged");
        server.sql(&db, "create table t (id int primary key)");
        let home = home(&server, &db, "");
        let engine = home.start();
        server.sql(&db, "insert into t values (1)");
        home.wait_events(1);
        engine.stop();
        server.sql(
            &db,
            "insert into t values (2); flush binary logs; insert into t values (3); flush binary logs",
        );
        let (last, _) = server.binlog_end();
        // A file that a reader is in stays, and MariaDB notices late that ours has gone.
        deltaforge_testkit::wait_for("the purge", support::PATIENCE, || {
            server.sql("", &format!("purge binary logs to '{last}'"));
            server.sql("", "show binary logs").len() == 1
        });
        let engine = home.launch(&[]);
        let status = engine.wait_status("p", "failed", |s| s["status"] == "failed");
        assert_eq!(status["error"]["code"], "mysql.binlog_purged", "{}: {status}", flavour.name());
        assert_eq!(home.events().len(), 1);
        engine.stop();
    }
}

#[test]
fn two_readers_of_one_id_take_turns() {
    for flavour in Flavour::available() {
        let server = server(flavour);
        let db = server.fresh_db("turns");
        server.sql(&db, "create table t (id int primary key)");
        let (first, second) = (home(server, &db, ""), home(server, &db, ""));
        let running = first.start();
        let waiting = second.launch(&[]);
        let busy = |s: &Value| s["error"]["code"] == "mysql.server_id_busy";
        waiting.wait_status("p", "retrying", busy);
        server.sql(&db, "insert into t values (1)");
        first.wait_events(1);
        running.kill();
        waiting.wait_ready();
        server.sql(&db, "insert into t values (2)");
        support::wait_for_event(&second, |e| e["after"]["id"] == 2);
        waiting.stop();
    }
}
