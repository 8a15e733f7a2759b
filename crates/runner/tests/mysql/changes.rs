//! What statements become.

use super::*;
use serde_json::json;

#[test]
fn rows_become_events_with_their_place_and_transaction() {
    for flavour in Flavour::available() {
        let server = server(flavour);
        let db = server.fresh_db("rows");
        server.sql(&db, "create table t (id int primary key, name varchar(20), n bigint unsigned)");
        let home = home(server, &db, "");
        let engine = home.start();
        let mut session = server.session(&db);
        session.sql("begin; insert into t values (1, 'a', 18446744073709551615), (2, null, 0); insert into t values (3, 'ü', 7); commit");
        session.sql("update t set name = 'b' where id = 2");
        session.sql("delete from t where id = 1");
        session.sql("truncate t");
        let events = home.wait_events(6);
        let row = |id: u64, name: Value, n: u64| json!({"id": id, "name": name, "n": n});
        assert_eq!(
            rows(&events[..5]),
            [
                ("c".into(), row(1, json!("a"), u64::MAX)),
                ("c".into(), row(2, Value::Null, 0)),
                ("c".into(), row(3, json!("ü"), 7)),
                ("u".into(), row(2, json!("b"), 0)),
                ("d".into(), row(1, json!("a"), u64::MAX)),
            ],
            "{}",
            flavour.name()
        );
        assert_eq!(events[3]["before"], row(2, Value::Null, 0));
        let orders: Vec<_> = events[..3]
            .iter()
            .map(|e| {
                (e["transaction"]["total_order"].as_u64().unwrap(), e["source"]["row"].as_u64().unwrap())
            })
            .collect();
        assert_eq!(orders, [(1, 0), (2, 1), (3, 0)]);
        let source = &events[0]["source"];
        assert_eq!(source["connector"], flavour.name());
        assert_eq!(source["db"], json!(db));
        assert_eq!(source["table"], "t");
        assert_eq!(source["server_id"].as_u64().unwrap(), u64::from(server.port()));
        assert_eq!(source["gtid"], events[0]["transaction"]["id"]);
        assert!(source["file"].as_str().unwrap().starts_with("bin."), "{source}");
        assert!(source["pos"].as_u64().unwrap() > 4);
        assert_eq!(source["ts_us"].is_u64(), flavour == Flavour::MySql, "MariaDB logs whole seconds");
        let truncate = &events[5];
        assert_eq!(
            (&truncate["op"], &truncate["before"], &truncate["after"]),
            (&json!("t"), &Value::Null, &Value::Null)
        );
        assert_eq!(truncate["ddl"]["kind"], "truncate");
        assert_eq!(truncate["ddl"]["tables"], json!([format!("{db}.t")]));
        let ids: std::collections::HashSet<_> = events.iter().map(|e| e["event_id"].to_string()).collect();
        assert_eq!(ids.len(), 6);
        engine.stop();
    }
}

#[test]
fn statements_of_every_kind_give_their_rows() {
    for flavour in Flavour::available() {
        let server = server(flavour);
        let db = server.fresh_db("kinds");
        server.sql(
            &db,
            "create table a (id int primary key, x int); create table b (id int primary key, x int); \
             create table MixedCase (Id int primary key)",
        );
        let home = home(server, &db, "");
        let engine = home.start();
        let mut session = server.session(&db);
        session.sql("insert into a values (1, 1), (2, 2); insert into b values (1, 5)");
        session.sql("update a, b set a.x = 9, b.x = 9 where a.id = b.id");
        session.sql("begin; insert into a values (3, 3); savepoint s; insert into a values (4, 4); rollback to s; insert into a values (5, 5); commit");
        session.sql("begin; insert into a values (6, 6); rollback");
        session.sql("replace into a values (5, 50)");
        session.sql("insert into a values (5, 0) on duplicate key update x = 51");
        session.sql("create table made as select id, x from a where id <= 2");
        session.sql("insert into MixedCase values (1)");
        support::wait_for_event(&home, |e| e["source"]["table"] == "MixedCase");
        let events = home.events();
        let short: Vec<String> = events
            .iter()
            .map(|e| {
                let image = if e["op"] == "d" { &e["before"] } else { &e["after"] };
                let id = if image["id"].is_null() { &image["Id"] } else { &image["id"] };
                format!("{}{}{}", e["op"].as_str().unwrap(), e["source"]["table"].as_str().unwrap(), id)
            })
            .collect();
        // In which order an UPDATE of two tables changes them is the server's business, and so is how it replaces a row.
        let of =
            |table: &str| short.iter().filter(|s| s[1..].starts_with(table)).cloned().collect::<Vec<_>>();
        assert_eq!(of("b"), ["cb1", "ub1"], "{}", flavour.name());
        let of_a = of("a");
        assert_eq!(of_a[..5], ["ca1", "ca2", "ua1", "ca3", "ca5"], "{}", flavour.name());
        assert!(matches!(&of_a[5..], [a, .., b] if a.ends_with("a5") && b == "ua5"), "{of_a:?}");
        assert_eq!(of("made"), ["cmade1", "cmade2"]);
        assert_eq!(of("MixedCase"), ["cMixedCase1"]);
        engine.stop();
    }
}

#[test]
fn an_xa_transaction_is_given_at_its_commit_also_after_a_crash() {
    for flavour in Flavour::available() {
        let server = server(flavour);
        let db = server.fresh_db("xa");
        server.sql(&db, "create table t (id int primary key, x varchar(10))");
        let home = home(server, &db, "");
        let engine = home.start();
        let mut session = server.session(&db);
        session.sql("xa start 'one'; insert into t values (1, 'xa'); insert into t values (2, 'xa'); xa end 'one'; xa prepare 'one'");
        drop(session);
        server.sql(&db, "xa start 'gone'; insert into t values (7, 'no'); xa end 'gone'; xa prepare 'gone'");
        server.sql(&db, "insert into t values (3, 'plain')");
        home.wait_events(1);
        engine.kill();
        let engine = home.start();
        server.sql(&db, "xa commit 'one'");
        server.sql(&db, "xa rollback 'gone'");
        server.sql(&db, "insert into t values (4, 'after')");
        support::wait_for_event(&home, |e| e["after"]["id"] == 4);
        let events = without_repeats(&home.events());
        let ids: Vec<_> = events.iter().map(|e| e["after"]["id"].as_u64().unwrap()).collect();
        assert_eq!(ids, [3, 1, 2, 4], "{}", flavour.name());
        assert_eq!(events[1]["transaction"]["id"], events[2]["transaction"]["id"]);
        engine.stop();
    }
}

#[test]
fn compressed_transactions_and_partial_json_are_decoded() {
    if !Flavour::MySql.is_available() {
        return;
    }
    let server = server(Flavour::MySql);
    let db = server.fresh_db("packed");
    server.sql(&db, "create table t (id int primary key, d json, pad text)");
    let home = home(server, &db, "");
    let engine = home.start();
    let mut session = server.session(&db);
    session.sql("set session binlog_transaction_compression = on; set session binlog_row_value_options = partial_json");
    session.sql("begin; insert into t values (1, '{\"a\": [1, 2, 3], \"b\": \"x\"}', repeat('p', 1000)), (2, '[]', ''); insert into t values (3, null, ''); commit");
    session.sql("update t set d = json_set(d, '$.a[1]', 20), pad = 'q' where id = 1");
    session.sql("update t set d = json_remove(json_replace(d, '$.b', 'y'), '$.a[0]') where id = 1");
    let events = home.wait_events(5);
    assert_eq!(events[3]["after"]["d"], json!({"a": [1, 20, 3], "b": "x"}));
    assert_eq!(events[4]["after"]["d"], json!({"a": [20, 3], "b": "y"}));
    assert_eq!(events[4]["before"]["d"], json!({"a": [1, 20, 3], "b": "x"}));
    let places: Vec<_> =
        events[..3].iter().map(|e| (e["source"]["pos"].clone(), e["source"]["row"].clone())).collect();
    assert_eq!(places[0].0, places[2].0, "one event of the log holds the transaction");
    assert_eq!(places.iter().map(|p| p.1.as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
    engine.stop();
}

#[test]
fn columns_that_are_not_logged_are_absent() {
    for flavour in Flavour::available() {
        let server = server(flavour);
        let db = server.fresh_db("minimal");
        server.sql(&db, "create table t (id int primary key, a int default 5, b text)");
        let home = home(server, &db, "");
        let engine = home.start();
        server.sql(&db, "set session binlog_row_image = minimal; insert into t (id, b) values (1, 'x'); update t set b = 'y'; delete from t");
        let events = home.wait_events(3);
        assert_eq!(events[0]["after"]["b"], "x", "{}", flavour.name());
        assert_eq!(events[1]["before"], json!({"id": 1}));
        assert_eq!(
            events[1]["after"],
            json!({"id": {"_unchanged": true}, "a": {"_unchanged": true}, "b": "y"})
        );
        assert_eq!(events[2]["before"], json!({"id": 1}));
        engine.stop();
    }
}

#[test]
fn changes_that_a_foreign_key_makes() {
    for flavour in Flavour::available() {
        let server = server(flavour);
        let db = server.fresh_db("cascade");
        server.sql(
            &db,
            "create table parent (id int primary key); \
             create table child (id int primary key, p int, foreign key (p) references parent (id) on delete cascade)",
        );
        let home = home(server, &db, "");
        let engine = home.start();
        server.sql(
            &db,
            "insert into parent values (1), (2); insert into child values (10, 1), (11, 1), (12, 2)",
        );
        server.sql(&db, "delete from parent where id = 1; insert into parent values (3)");
        support::wait_for_event(&home, |e| e["after"]["id"] == 3);
        let events = home.events();
        let mut deleted: Vec<u64> =
            events.iter().filter(|e| e["op"] == "d").map(|e| e["before"]["id"].as_u64().unwrap()).collect();
        deleted.sort_unstable();
        match flavour {
            // From 9.6 on these are in the log.
            Flavour::MySql => assert_eq!(deleted, [1, 10, 11]),
            Flavour::MariaDb => {
                assert_eq!(deleted, [1]);
                let log = engine.log();
                assert!(log.contains("changes that these foreign keys make are not in the log"), "{log}");
            }
        }
        engine.stop();
    }
}

#[test]
fn rows_that_are_loaded_from_a_file() {
    for flavour in Flavour::available() {
        let server = own_server(flavour, &["--secure-file-priv="]);
        let db = server.fresh_db("load");
        server.sql(&db, "create table t (id int primary key, x varchar(20) character set utf8mb4)");
        let home = home(&server, &db, "");
        let engine = home.start();
        // Relative to the database's folder, which the server may write to.
        server.sql(&db, "select 1, 'ünï' union all select 2, null union all select 3, '' into outfile 'rows.txt' character set utf8mb4");
        server.sql(&db, "load data infile 'rows.txt' into table t character set utf8mb4");
        let events = home.wait_events(3);
        assert_eq!(
            rows(&events),
            [
                ("c".into(), json!({"id": 1, "x": "ünï"})),
                ("c".into(), json!({"id": 2, "x": null})),
                ("c".into(), json!({"id": 3, "x": ""})),
            ],
            "{}",
            flavour.name()
        );
        engine.stop();
    }
}
