//! The slot is not what the checkpoint needs. Each case has its own code, says where both stand, and delivers nothing.

use crate::support::streams::{lsn, walsenders};
use crate::support::{file_sink, pipeline, source};
use crate::{Plain, fails_with, to_file};
use deltaforge_testkit::servers::{PgOptions, PgVersion, Postgres};
use deltaforge_testkit::wait_for;
use serde_json::Value;
use std::process::{Child, Stdio};
use std::time::Duration;

fn plain() -> Plain {
    Plain::new(&PgOptions::default())
}

fn text(error: &Value, member: &str) -> String {
    error[member].as_str().unwrap_or_default().to_owned()
}

/// Nothing was delivered beyond the two rows of [`Plain::run_once`].
#[track_caller]
fn nothing_more(plain: &Plain) {
    assert_eq!(plain.home.events().len(), 2, "events were delivered across a gap");
}

#[test]
fn a_slot_dropped_while_stopped_is_missing() {
    let plain = plain();
    plain.run_once();
    plain.psql("select pg_drop_replication_slot('df')");
    plain.psql("insert into t values (3, 'c')");
    let error = fails_with(&plain.home, "postgres.slot_missing");
    assert!(text(&error, "hint").contains("DELETE /checkpoints"), "{error}");
    nothing_more(&plain);
    assert_eq!(plain.psql("select count(*) from pg_replication_slots"), "0", "a slot was made anew");
}

#[test]
fn a_slot_made_anew_is_ahead_of_the_checkpoint() {
    let plain = plain();
    plain.run_once();
    plain.psql("select pg_drop_replication_slot('df')");
    plain.psql("insert into t values (3, 'c')");
    plain.psql("select pg_create_logical_replication_slot('df', 'pgoutput')");
    fails_with(&plain.home, "postgres.position_behind_slot");
    nothing_more(&plain);
}

#[test]
fn an_advanced_slot_is_ahead_of_the_checkpoint() {
    let plain = plain();
    plain.run_once();
    let stored = crate::support::streams::stored_lsn(&plain.home, crate::SOURCE).unwrap();
    plain.psql("insert into t values (3, 'c')");
    plain.psql("select pg_replication_slot_advance('df', pg_current_wal_lsn())");
    let confirmed = plain.psql("select confirmed_flush_lsn from pg_replication_slots where slot_name = 'df'");
    let error = fails_with(&plain.home, "postgres.position_behind_slot");
    let message = text(&error, "message");
    let names: Vec<u64> = message.split([' ', ',', ':']).filter_map(lsn).collect();
    assert!(
        names.contains(&stored) && names.contains(&lsn(&confirmed).unwrap()),
        "both places in: {message}"
    );
    nothing_more(&plain);
}

#[test]
fn a_checkpoint_of_another_server() {
    let plain = plain();
    plain.run_once();
    // Another version, so another initdb: another system identifier.
    let other = Postgres::start(PgVersion::V18, &PgOptions::default()).unwrap();
    let database = other.fresh_db("other");
    other.psql(&database, "create table t (id int primary key, note text); insert into t values (9, 'z')");
    plain.home.write("pipeline.yaml", &to_file(&other.dsn(&database)));
    let error = fails_with(&plain.home, "postgres.other_server");
    let id = other.psql(&database, "select system_identifier from pg_control_system()");
    assert!(text(&error, "message").contains(&id), "{error}");
    nothing_more(&plain);
    assert_eq!(
        other.psql(&database, "select count(*) from pg_replication_slots"),
        "0",
        "the wrong server was written to"
    );
}

#[test]
fn a_checkpoint_ahead_of_the_server() {
    let plain = plain();
    plain.psql("create table filler (x text)");
    plain.run_once();
    // A copy of the same cluster that knows nothing of what happened since: a backup, restored.
    let restored = Postgres::start(PgVersion::V15, &PgOptions::default()).unwrap();
    restored.psql("postgres", &format!("create database \"{}\" template template0", plain.database));
    let psql = |sql: &str| restored.psql(&plain.database, sql);
    psql("create table t (id int primary key, note text)");
    psql("select pg_create_logical_replication_slot('df', 'pgoutput')");
    let stored = crate::support::streams::stored_lsn(&plain.home, crate::SOURCE).unwrap();
    assert!(
        lsn(&psql("select pg_current_wal_lsn()")).unwrap() < stored,
        "the copy has come further than the original"
    );
    plain.home.write("pipeline.yaml", &to_file(&restored.dsn(&plain.database)));
    fails_with(&plain.home, "postgres.source_behind");
    nothing_more(&plain);
}

/// `pg_recvlogical`, streaming from the slot; killed when dropped.
struct Holder(Child);

impl Holder {
    fn start(plain: &Plain) -> Holder {
        let mut command = plain.postgres.bin("pg_recvlogical");
        command.args(["-d", &plain.database, "--slot", "df", "--start", "-f", "/dev/null"]);
        command.args(["-o", "proto_version=1", "-o", "publication_names=df"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let holder = Holder(command.spawn().unwrap());
        wait_for("pg_recvlogical to stream", Duration::from_secs(30), || {
            !walsenders(&plain.postgres).is_empty()
        });
        holder
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[test]
fn a_busy_slot_is_waited_for_and_taken_over() {
    let plain = plain();
    plain.psql("create publication df for table t");
    plain.psql("select pg_create_logical_replication_slot('df', 'pgoutput')");
    let holder = Holder::start(&plain);
    let holding = walsenders(&plain.postgres);
    let engine = plain.home.launch(&[]);
    let busy =
        |status: &Value| status["phase"] == "retrying" && status["error"]["code"] == "postgres.slot_busy";
    let status = engine.wait_status("p", "the slot to be busy", busy);
    assert_eq!(status["status"], "running", "{status}");
    assert!(text(&status["error"], "message").contains(&holding), "the holder {holding} in {status}");
    assert_eq!(engine.get("/readyz").0, 503);
    // The holder is left alone.
    assert_eq!(walsenders(&plain.postgres), holding);
    println!("slot_busy: {}", status["error"]["message"]);
    drop(holder);
    engine.wait_ready();
    plain.psql("insert into t values (1, 'a')");
    plain.home.wait_events(1);
    engine.stop();
}

#[test]
fn two_pipelines_on_one_slot() {
    let plain = plain();
    let dsn = plain.postgres.dsn(&plain.database);
    for name in ["one", "two"] {
        let sink = file_sink().replace("events", name);
        plain.home.write(&format!("{name}.yaml"), &pipeline(name, &source(&dsn, "['public.%']"), &[&sink]));
    }
    std::fs::remove_file(plain.home.path("config/pipeline.yaml")).unwrap();
    let engine = plain.home.launch(&[]);
    let mut streaming = Vec::new();
    wait_for("one to stream and the other to wait", Duration::from_secs(30), || {
        let phases = ["one", "two"].map(|name| engine.status(name));
        streaming = phases.iter().filter(|s| s["phase"] == "streaming").map(|s| text(s, "name")).collect();
        streaming.len() == 1 && phases.iter().any(|s| s["error"]["code"] == "postgres.slot_busy")
    });
    let (first, second) = if streaming[0] == "one" { ("one", "two") } else { ("two", "one") };
    plain.psql("insert into t values (1, 'a'), (2, 'b')");
    assert_eq!(plain.home.wait_lines(&format!("{first}.jsonl"), 2).len(), 2);
    assert_eq!(plain.home.lines(&format!("{second}.jsonl")).len(), 0);
    assert_eq!(engine.status(second)["error"]["code"], "postgres.slot_busy");
    assert_eq!(engine.status(first)["phase"], "streaming");
    println!("two pipelines on one slot: `{first}` streams, `{second}` waits");
    engine.stop();
}

/// Small segments, and at most one of them kept for a slot.
fn forgetful() -> PgOptions {
    let settings = [("max_slot_wal_keep_size", "1MB"), ("min_wal_size", "32MB"), ("max_wal_size", "32MB")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    PgOptions { settings: settings.into(), ..PgOptions::default() }
}

/// Writes log beyond what the server keeps, until it has given the slot up.
fn overflow(plain: &Plain) {
    wait_for("the server to give the slot up", Duration::from_secs(60), || {
        plain.psql("insert into t select g, repeat('x', 1000) from generate_series(10000, 14000) g");
        plain.psql("delete from t where id >= 10000; select pg_switch_wal(); checkpoint");
        plain.psql("select wal_status from pg_replication_slots where slot_name = 'df'") == "lost"
    });
}

#[test]
fn a_slot_given_up_by_the_server_while_stopped() {
    let plain = Plain::new(&forgetful());
    plain.run_once();
    overflow(&plain);
    let error = fails_with(&plain.home, "postgres.slot_lost");
    assert!(text(&error, "hint").contains("pg_drop_replication_slot"), "{error}");
    nothing_more(&plain);
}

#[test]
fn a_slot_given_up_by_the_server_while_streaming() {
    let plain = Plain::new(&forgetful());
    // Nobody reads the pipe, so the sink hangs and the slot stays where it is.
    let pipe = plain.home.path("events.jsonl");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let engine = plain.home.launch(&[]);
    wait_for("the engine to stream", Duration::from_secs(30), || !walsenders(&plain.postgres).is_empty());
    plain.psql("insert into t values (1, 'a')");
    overflow(&plain);
    let status = engine.wait_status("p", "the pipeline to fail", |status| status["status"] == "failed");
    assert_eq!(status["error"]["code"], "postgres.slot_lost", "{status}");
    assert!(text(&status["error"], "hint").contains("pg_drop_replication_slot"), "{status}");
    println!("while streaming: {}; hint: {}", status["error"]["message"], status["error"]["hint"]);
}

#[test]
fn an_open_transaction_delays_the_slot_and_is_named() {
    let plain = plain();
    let mut open = crate::support::session::Session::open(&plain.postgres, &plain.database);
    let pid = open.backend_pid();
    open.ask("begin; insert into t values (7, 'open')");
    let engine = plain.home.launch(&[]);
    let names = |status: &Value| status["note"].as_str().is_some_and(|note| note.contains(&pid));
    let status = engine.wait_status("p", "the note to name the open transaction", names);
    println!("open transaction: {}", status["note"]);
    assert_eq!(status["phase"], "starting", "{status}");
    assert_eq!(engine.get("/readyz").0, 503);
    open.ask("commit");
    engine.wait_ready();
    plain.psql("insert into t values (8, 'after')");
    let events = plain.home.wait_events(1);
    assert_eq!(events.last().unwrap()["after"]["id"], 8);
    assert_eq!(engine.status("p")["note"], Value::Null);
    engine.stop();
}

#[test]
fn a_slot_of_another_plugin_or_database_is_refused() {
    let plain = plain();
    plain.psql("select pg_create_logical_replication_slot('df', 'test_decoding')");
    fails_with(&plain.home, "postgres.slot_plugin");
    plain.psql("select pg_drop_replication_slot('df')");
    plain.postgres.psql("postgres", "select pg_create_logical_replication_slot('df', 'pgoutput')");
    fails_with(&plain.home, "postgres.slot_database");
    assert!(plain.home.events().is_empty());
}
