//! Tables that change while nobody reads.

use super::*;
use serde_json::json;

fn servers() -> Vec<Mysqld> {
    let minimal = |flavour| own_server(flavour, &["--binlog-row-metadata=MINIMAL"]);
    let full = |flavour| own_server(flavour, &[]);
    Flavour::available().into_iter().flat_map(|flavour| [minimal(flavour), full(flavour)]).collect()
}

#[test]
fn rows_are_read_with_the_columns_of_their_time() {
    for server in servers() {
        let db = server.fresh_db("ddl");
        server.sql(&db, "create table t (id int primary key, a int, b varchar(10), c int)");
        let home = home(&server, &db, "");
        let engine = home.start();
        server.sql(&db, "insert into t values (1, 10, 'x', 100)");
        home.wait_events(1);
        engine.stop();
        let mut session = server.session(&db);
        session.sql("insert into t values (2, 20, 'x', 200)");
        session.sql("alter table t add column z int first");
        session.sql("insert into t values (0, 3, 30, 'x', 300)");
        session.sql("alter table t change a tmp int, change c a int; alter table t change tmp c int");
        session.sql("insert into t (id, a, b, c) values (4, 40, 'x', 400)");
        session.sql("alter table t drop column b, modify z bigint unsigned");
        session.sql("insert into t (id, a, c, z) values (5, 50, 500, 18446744073709551615)");
        session.sql("rename table t to u; create table t (id int primary key, e enum('x', 'y')); insert into t values (6, 'y')");
        session.sql("insert into u (id, a) values (7, 70)");
        let engine = home.start();
        let events = home.wait_events(7);
        let after: Vec<_> = events[1..].iter().map(|e| e["after"].clone()).collect();
        let minimal = server.value("select @@global.binlog_row_metadata");
        assert_eq!(
            after,
            [
                json!({"id": 2, "a": 20, "b": "x", "c": 200}),
                json!({"z": 0, "id": 3, "a": 30, "b": "x", "c": 300}),
                json!({"z": null, "id": 4, "c": 400, "b": "x", "a": 40}),
                json!({"z": u64::MAX, "id": 5, "c": 500, "a": 50}),
                json!({"id": 6, "e": "y"}),
                json!({"z": null, "id": 7, "c": null, "a": 70}),
            ],
            "{} {minimal}",
            server.flavour().name()
        );
        engine.stop();
    }
}

#[test]
fn a_change_that_was_not_logged_stops_the_table_and_no_other() {
    for flavour in Flavour::available() {
        let server = own_server(flavour, &["--binlog-row-metadata=MINIMAL"]);
        let db = server.fresh_db("unlogged");
        server
            .sql(&db, "create table t (id int primary key, a int); create table other (id int primary key)");
        let home = home(&server, &db, "");
        let engine = home.start();
        server.sql(&db, "insert into t values (1, 1)");
        home.wait_events(1);
        server.sql(&db, "set sql_log_bin = 0; alter table t add column b int; set sql_log_bin = 1; insert into t values (2, 2, 2); insert into other values (1)");
        let events = home.wait_events(2);
        assert_eq!(events[1]["source"]["table"], "other", "{}", flavour.name());
        let status =
            engine.wait_status("p", "with a stopped table", |s| s["error"]["code"] == "source.table_stopped");
        let message = status["error"]["message"].as_str().unwrap();
        assert!(message.contains(&format!("{db}.t")) && message.contains("2 columns expected"), "{message}");
        engine.stop();
        let engine = home.launch(&[]);
        server.sql(&db, "insert into t values (3, 3, 3); insert into other values (2)");
        home.wait_events(3);
        assert_eq!(home.events()[2]["source"]["table"], "other", "it stays stopped");
        engine.wait_status("p", "with a stopped table", |s| s["error"]["code"] == "source.table_stopped");
        engine.stop();
    }
}

#[test]
fn a_change_logged_as_a_statement_stops_the_table() {
    for flavour in Flavour::available() {
        let server = server(flavour);
        let db = server.fresh_db("statement");
        server.sql(&db, "create table t (id int primary key, a int)");
        let home = home(server, &db, "");
        let engine = home.start();
        server.sql(&db, "insert into t values (1, 1); set session binlog_format = 'STATEMENT'; update t set a = 2; set session binlog_format = 'ROW'; insert into t values (2, 2)");
        let status =
            engine.wait_status("p", "with a stopped table", |s| s["error"]["code"] == "source.table_stopped");
        assert!(status["error"]["message"].as_str().unwrap().contains("UPDATE"), "{status}");
        assert_eq!(home.wait_events(1).len(), 1, "{}", flavour.name());
        engine.stop();
    }
}

#[test]
fn an_online_schema_change_swaps_the_table() {
    for server in servers() {
        let db = server.fresh_db("swap");
        server.sql(&db, "create table t (id int primary key, a int); insert into t values (1, 1)");
        let home = home(&server, &db, "");
        let engine = home.start();
        engine.stop();
        server.sql(
            &db,
            "create table _t_gho like t; alter table _t_gho add column b varchar(5) after id; \
             insert into _t_gho (id, a) select id, a from t; rename table t to _t_del, _t_gho to t; \
             insert into t values (2, 'x', 2); alter table t drop column a; insert into t values (3, 'y'); drop table _t_del",
        );
        let engine = home.start();
        support::wait_for_event(&home, |e| e["after"]["id"] == 3);
        let of_t: Vec<_> = home
            .events()
            .iter()
            .filter(|e| e["source"]["table"] == "t")
            .map(|e| e["after"].clone())
            .collect();
        assert_eq!(
            of_t,
            [json!({"id": 2, "b": "x", "a": 2}), json!({"id": 3, "b": "y"})],
            "{}",
            server.flavour().name()
        );
        engine.stop();
    }
}

#[test]
fn columns_that_were_assumed_and_turn_out_otherwise_stop_the_table() {
    for flavour in Flavour::available() {
        let server = own_server(flavour, &["--binlog-row-metadata=MINIMAL"]);
        let db = server.fresh_db("assumed");
        server.sql(
            &db,
            "create table t (id int primary key, a int, b int); create table u (id int primary key, a int)",
        );
        let (file, pos) = server.binlog_end();
        server.sql(&db, "insert into t values (1, 10, 20); insert into u values (1, 2)");
        // The types stay as they are: nothing in a row tells the columns' order.
        server.sql(&db, "alter table t modify b int after id; alter table u add index (a), comment 'x'");
        server.sql(&db, "insert into t (id, a, b) values (2, 11, 21); insert into u values (2, 3)");
        let home = home(&server, &db, &format!(", start_position: {{ file: {file}, pos: {pos} }}"));
        let engine = home.launch(&[]);
        support::wait_for_event(&home, |e| e["source"]["table"] == "u" && e["after"]["id"] == 2);
        let status =
            engine.wait_status("p", "with a stopped table", |s| s["error"]["code"] == "source.table_stopped");
        let message = status["error"]["message"].as_str().unwrap();
        assert!(message.contains(&format!("{db}.t")) && message.contains("binlog_row_metadata"), "{message}");
        assert!(!message.contains("more tables"), "{message}");
        assert!(!home.events().iter().any(|e| e["source"]["table"] == "t" && e["after"]["id"] == 2));
        engine.stop();
    }
}
