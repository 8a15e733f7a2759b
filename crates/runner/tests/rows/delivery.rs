//! What is around the rows: transactions, positions, identities, envelopes.

use crate::support::{Home, file_sink, pipeline, source};
use crate::{Case, assert_rows, on_both_versions};
use deltaforge_testkit::wait_for;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fs;

on_both_versions!(
    transactions_are_told_apart_and_numbered,
    messages_move_the_position_and_give_no_event,
    an_event_keeps_its_id_when_it_is_delivered_again,
    every_envelope,
    a_role_with_few_rights_is_enough,
);

fn transactions_are_told_apart_and_numbered(version: u32) {
    let case = Case::new(
        version,
        "create table a (id int primary key); create table b (id int primary key);",
        "['public.%']",
    );
    let engine = case.home.start();
    let xid = case.psql(
        "begin; insert into a values (1); insert into b values (1), (2); savepoint s; insert into a values (9);
         rollback to s; insert into a values (2); select pg_current_xact_id(); commit;
         begin; insert into a values (99); rollback;
         insert into a select generate_series(3, 5);",
    );
    let events = case.changes();
    let found: Vec<Value> = events
        .iter()
        .map(|e| {
            let t = &e["transaction"];
            json!([e["source"]["table"], e["after"]["id"], t["total_order"], t["data_collection_order"]])
        })
        .collect();
    let expected = [
        json!(["a", 1, 1, 1]),
        json!(["b", 1, 2, 1]),
        json!(["b", 2, 3, 2]),
        json!(["a", 2, 4, 2]),
        json!(["a", 3, 1, 1]),
        json!(["a", 4, 2, 2]),
        json!(["a", 5, 3, 3]),
    ];
    assert_rows(&found, &expected);
    let first: Vec<&Value> = events.iter().take(4).map(|e| &e["transaction"]["id"]).collect();
    assert_eq!(first, [&json!(xid); 4]);
    assert_eq!(events[0]["source"]["txId"].to_string(), xid);
    assert_ne!(events[4]["transaction"]["id"], json!(xid));

    // `sequence` and `total_order` give the source's order by numbers alone.
    let order = |e: &Value| {
        let pair: Vec<String> = serde_json::from_str(e["source"]["sequence"].as_str().unwrap()).unwrap();
        let pair: Vec<u64> = pair.iter().map(|n| n.parse().unwrap()).collect();
        (pair[0], pair[1], e["transaction"]["total_order"].as_u64().unwrap())
    };
    assert!(events.is_sorted_by(|x, y| order(x) < order(y)), "{events:#?}");
    // The commit time is the server's, in both units.
    for event in &events {
        let (ms, us) =
            (event["source"]["ts_ms"].as_i64().unwrap(), event["source"]["ts_us"].as_i64().unwrap());
        assert_eq!(ms, us / 1000);
        assert!(event["ts_ms"].as_i64().unwrap() + 1000 > ms);
    }
    engine.stop();
}

/// A database that writes nothing else can be kept moving with them.
fn messages_move_the_position_and_give_no_event(version: u32) {
    let case = Case::new(version, "create table t (id int primary key);", "['public.%']");
    let engine = case.home.start();
    for transactional in [true, false] {
        let written = case.psql(&format!("select pg_logical_emit_message({transactional}, 'app', 'body')"));
        let behind = || {
            let stored = engine.checkpoint("p")["position"]["lsn"].as_str().unwrap_or("0/0").to_owned();
            case.psql(&format!("select '{stored}'::pg_lsn < '{written}'::pg_lsn")) == "t"
        };
        wait_for("the checkpoint to pass the message", crate::PATIENCE, || !behind());
    }
    case.psql("begin; select pg_logical_emit_message(true, 'app', 'x'); insert into t values (1); commit;");
    assert_rows(&case.rows(), &[json!(["t", "c", null, {"id": 1}])]);
    engine.stop();
}

fn an_event_keeps_its_id_when_it_is_delivered_again(version: u32) {
    let case = Case::new(version, "create table t (id int primary key, x text);", "['public.%']");
    // Holds all that follows, so that it can be read a second time.
    case.psql("select pg_create_logical_replication_slot('keep_' || current_database(), 'pgoutput')");
    let engine = case.home.start();
    case.psql(
        "insert into t select n, 'x' from generate_series(1, 100) n;
         begin; update t set x = 'y' where id <= 10; delete from t where id > 90; update t set id = 1000 where id = 1; commit;
         alter table t add column z int; insert into t values (500, 'z', 1); truncate t;
         copy t (id) from stdin;\n1\n2\n3\n\\.\n",
    );
    let first = case.changes();
    engine.stop();

    fs::remove_dir_all(case.home.path("state")).unwrap();
    fs::rename(case.home.path("events.jsonl"), case.home.path("first.jsonl")).unwrap();
    case.seen.set(0);
    case.psql(
        "select pg_drop_replication_slot(current_database());
         select pg_copy_logical_replication_slot('keep_' || current_database(), current_database());
         select pg_drop_replication_slot('keep_' || current_database());",
    );
    let engine = case.home.start();
    let second = case.changes();
    assert_eq!(first.len(), 100 + 10 + 10 + 1 + 1 + 1 + 3);
    let ids: HashSet<String> = first.iter().map(|e| e["event_id"].to_string()).collect();
    assert_eq!(ids.len(), first.len(), "an id is of one event");
    let stable = |event: &Value| {
        let mut event = event.clone();
        // When it was read is another matter.
        event["ts_ms"].take();
        // The first transaction after a start does not know the one before it.
        event["source"]["sequence"].take();
        event
    };
    let (first, second): (Vec<_>, Vec<_>) =
        (first.iter().map(stable).collect(), second.iter().map(stable).collect());
    assert_rows(&second, &first);
    engine.stop();
}

fn every_envelope(version: u32) {
    let sink = |id: &str, envelope: &str| {
        format!(
            "{{ type: file, config: {{ id: {id}, path: '$HOME/{id}.jsonl', envelope: {{ {envelope} }} }} }}"
        )
    };
    let sinks = [
        sink("events", "type: native"),
        sink("debezium", "type: debezium"),
        sink("cloud", "type: cloudevents, type_prefix: shop"),
    ];
    let sinks: Vec<&str> = sinks.iter().map(String::as_str).collect();
    let case = Case::with_sinks(
        version,
        "create table \"t t\" (id int primary key, x text);",
        "['public.%']",
        &sinks,
    );
    let engine = case.home.start();
    case.psql("insert into \"t t\" values (1, 'a\"'); update \"t t\" set x = null; delete from \"t t\"; truncate \"t t\";");
    let native = case.changes();
    let parse = |name: &str| -> Vec<Value> {
        let lines = case.home.wait_lines(name, 4);
        lines.iter().take(4).map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (debezium, cloud) = (parse("debezium.jsonl"), parse("cloud.jsonl"));
    let types = ["shop.created", "shop.updated", "shop.deleted", "shop.truncated"];
    for (i, event) in native.iter().enumerate() {
        assert_eq!(debezium[i], json!({"schema": null, "payload": event}));
        let mut data = json!({"before": event["before"], "after": event["after"], "op": event["op"]});
        if event["op"] == "t" {
            data["ddl"] = event["ddl"].clone();
        }
        let time = cloud[i]["time"].as_str().unwrap();
        assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
        let expected = json!({
            "specversion": "1.0", "id": event["event_id"], "source": "deltaforge/p/public.t%20t", "type": types[i],
            "time": time, "datacontenttype": "application/json", "subject": "public.t t", "data": data,
        });
        assert_eq!(cloud[i], expected);
    }
    engine.stop();
}

/// What an operator has prepared needs no rights to prepare it.
fn a_role_with_few_rights_is_enough(version: u32) {
    let mut case = Case::new(
        version,
        "create table t (id int primary key); create publication df for all tables;",
        "[]",
    );
    let (db, role) = (&case.db, format!("few_{}", case.db));
    case.psql(&format!("create role {role} login replication; revoke all on schema public from public;"));
    case.psql("select pg_create_logical_replication_slot(current_database(), 'pgoutput')");
    let dsn = case.postgres.dsn(db).replace("postgres@", &format!("{role}@"));
    let source = source(&dsn, "['public.%'], create_slot: false, create_publication: false");
    let document = pipeline("p", &source.replace("slot: df,", &format!("slot: {db},")), &[&file_sink()]);
    case.home = Home::new(&[("pipeline.yaml", &document)]);
    let engine = case.home.start();
    case.psql("insert into t values (1)");
    assert_rows(&case.rows(), &[json!(["t", "c", null, {"id": 1}])]);
    engine.stop();
}
