//! Going on after a stop, a crash, a purge.

use super::*;
use deltaforge_testkit::servers::{Proxy, Session};
use deltaforge_testkit::wait_for;

/// One transaction, and now and then one that is undone, or a new file of the log.
fn write_round(session: &mut Session, n: u64) {
    let (update, delete) = (n % 7, n % 11);
    session.sql(&format!(
        "begin; insert into t (v, pad) values ({n}, repeat('x', 50)), ({n}, 'y'); \
         update t set v = v + 1 where id % 7 = {update} order by id desc limit 5; \
         delete from t where id % 11 = {delete} order by id limit 3; commit"
    ));
    if n.is_multiple_of(5) {
        session.sql("begin; insert into t (v) values (-1); savepoint s; delete from t where id % 2; rollback to s; rollback");
    }
    if n.is_multiple_of(40) {
        session.sql("flush binary logs");
    }
}

/// For each of the servers.
const KILLS: usize = 50;

#[test]
fn nothing_is_lost_over_kills_under_load() {
    for flavour in Flavour::available() {
        let server = server(flavour);
        let db = server.fresh_db("kills");
        server.sql(&db, TABLE);
        let home = home(server, &db, "");
        home.start().stop();
        let mut random = support::random::Random::new(support::random::Random::seed());
        let size = || std::fs::metadata(home.path("events.jsonl")).map_or(0, |meta| meta.len());
        std::thread::scope(|scope| {
            // Some transactions for each life, so that there is always work and never a mountain of it.
            let (give, orders) = std::sync::mpsc::channel::<u64>();
            scope.spawn(|| {
                let mut session = server.session(&db);
                let mut n = 0;
                for transactions in orders {
                    for _ in 0..transactions {
                        n += 1;
                        write_round(&mut session, n);
                    }
                }
            });
            for _ in 0..KILLS {
                let before = size();
                give.send(20 + random.below(40)).unwrap();
                let engine = home.launch(&[]);
                let more = random.below(8000);
                wait_for("some bytes more", support::PATIENCE, || size() > before + more);
                engine.kill();
            }
        });
        server.sql(&db, "insert into t values (100000000, 0, 'last')");
        let engine = home.start();
        support::wait_for_event(&home, |e| e["after"]["id"] == 100_000_000);
        engine.stop();
        assert_folds_to_table(&home, server, &db);
    }
}

#[test]
fn a_connection_that_breaks_inside_a_transaction_loses_nothing() {
    for flavour in Flavour::available() {
        let server = server(flavour);
        let db = server.fresh_db("cut");
        server.sql(&db, TABLE);
        let proxy = Proxy::start(server.port());
        let dsn = format!("{}://root@127.0.0.1:{}/{db}?ssl-mode=disabled", flavour.name(), proxy.port());
        let home = home_at(flavour, &dsn, &db, "");
        let engine = home.start();
        let values: Vec<String> = (0..20_000).map(|n| format!("(null, {n}, repeat('z', 90))")).collect();
        let transaction = format!(
            "begin; insert into t values {}; update t set v = v + 1 where id % 2; commit",
            values.join(",")
        );
        for round in 0..3 {
            proxy.cut_after_bytes(400_000 + 700_000 * round);
            let before = proxy.accepted();
            server.sql(&db, &transaction);
            wait_for("the cut and a new connection", support::PATIENCE, || proxy.accepted() > before);
        }
        server.sql(&db, "insert into t values (100000000, 0, 'last')");
        home.wait_lines("events.jsonl", 3 * 20_000 + 10_000 + 20_000 + 30_000 + 1);
        support::wait_for_event(&home, |e| e["after"]["id"] == 100_000_000);
        engine.stop();
        assert_folds_to_table(&home, server, &db);
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
        wait_for("the purge", support::PATIENCE, || {
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
