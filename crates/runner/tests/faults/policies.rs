//! Several sinks, one of them away: what the commit policy waits for stands still, and nothing else does.

use crate::support::streams::{feed_stream, lsn, metric, redis_sink, wait_drained};
use crate::support::{Engine, Home, PATIENCE, pipeline, source};
use crate::{DRAIN, SOURCE};
use deltaforge_testkit::ledger::Ledger;
use deltaforge_testkit::servers::{PgOptions, PgVersion, Postgres, Redis, RedisOptions};
use deltaforge_testkit::wait_for;
use serde_json::Value;

/// Rows of a test, in transactions of ten.
const ROWS: usize = 2_000;

fn server(slots: usize) -> (Postgres, String) {
    let settings = ["max_replication_slots", "max_wal_senders", "max_connections"];
    let settings = settings.map(|name| (name.to_owned(), (20 + 3 * slots).to_string())).into();
    let postgres = Postgres::start(PgVersion::V15, &PgOptions { settings, ..PgOptions::default() }).unwrap();
    let database = postgres.fresh_db("policies");
    postgres.psql(&database, "create table t (id int primary key, note text)");
    (postgres, database)
}

/// Rows from one number to another.
fn insert(postgres: &Postgres, database: &str, from: usize, to: usize) {
    let transactions = (from..to).step_by(10).map(|first| {
        let last = (first + 9).min(to - 1);
        format!("insert into t select g, 'note' from generate_series({first}, {last}) g;\n")
    });
    postgres.psql(database, &transactions.collect::<String>());
}

fn file(name: &str, more: &str) -> String {
    format!("{{ type: file, config: {{ id: f, path: '$HOME/{name}'{more} }} }}")
}

fn delivery(batch: &str, policy: &str) -> String {
    format!("  batch: {{ {batch} }}\n  commit_policy: {{ {policy} }}\n")
}

/// The sink's part of a status.
fn sink<'a>(status: &'a Value, id: &str) -> &'a Value {
    let sinks = status["sinks"].as_array().unwrap();
    sinks.iter().find(|sink| sink["id"] == id).unwrap()
}

fn ids(lines: &[String]) -> Vec<usize> {
    let id = |line: &String| serde_json::from_str::<Value>(line).unwrap()["after"]["id"].as_u64().unwrap();
    lines.iter().map(|line| id(line) as usize).collect()
}

#[test]
fn a_required_sink_that_is_away_holds_up_the_checkpoint_and_nothing_else() {
    let (postgres, database) = server(1);
    let redis = Redis::start(&RedisOptions::default()).unwrap();
    let from = source(&postgres.dsn(&database), "['public.%']");
    let document = pipeline("p", &from, &[&redis_sink(&redis.uri(), "changes"), &file("events.jsonl", "")])
        + &delivery("max_events: 50", "mode: required");
    let home = Home::new(&[("pipeline.yaml", &document)]);
    let engine = home.start();
    insert(&postgres, &database, 0, 100);
    let saved = wait_drained(&engine, &home, SOURCE, &postgres, DRAIN);

    redis.stop();
    insert(&postgres, &database, 100, ROWS);
    assert_eq!(ids(&home.wait_lines("events.jsonl", ROWS)), (0..ROWS).collect::<Vec<_>>());
    let status = engine.wait_status("p", "the status to name the sink", |status| {
        status["error"]["component"] == "r" && sink(status, "f")["lag"]["events"] == 0
    });
    assert_eq!((&status["status"], &status["phase"]), (&"running".into(), &"retrying".into()), "{status}");
    assert_eq!(engine.get("/readyz").0, 503);
    let (away, other) = (sink(&status, "r"), sink(&status, "f"));
    assert_eq!((&away["state"], &other["state"]), (&"retrying".into(), &"delivering".into()), "{status}");
    assert!(away["error"]["code"].as_str().unwrap().starts_with("redis."), "{status}");
    assert_eq!(away["lag"]["events"], ROWS - 100, "{status}");
    assert!(position(other) > position(away), "{status}");
    wait_for("the metric to say so, too", PATIENCE, || {
        metric(&engine, "deltaforge_sink_lag_events") == Some((ROWS - 100) as f64)
    });
    let stored = position(&engine.checkpoint("p"));
    assert!(stored <= saved, "the checkpoint passed what a required sink lacks: {stored:X}, {saved:X}");

    redis.restart();
    engine.wait_ready();
    wait_drained(&engine, &home, SOURCE, &postgres, DRAIN);
    engine.wait_status("p", "both sinks to be where the log ends", |status| {
        position(sink(status, "r")) == position(sink(status, "f"))
    });
    engine.stop();
    let mut ledger = Ledger::new(&[("public.t", &["id"])]);
    feed_stream(&mut ledger, &redis, "changes");
    let summary = ledger.finish().unwrap();
    assert_eq!(summary.events, ROWS, "{summary}");
}

fn position(of: &Value) -> u64 {
    lsn(of["position"]["lsn"].as_str().unwrap_or_else(|| panic!("no position in {of}"))).unwrap()
}

#[test]
fn an_optional_sink_that_is_away_slows_nobody_and_its_gap_is_shown() {
    let (postgres, database) = server(1);
    let redis = Redis::start(&RedisOptions::default()).unwrap();
    let optional = redis_sink(&redis.uri(), "changes")
        .replace("id: r,", "id: r, required: false,")
        .replace("max_ms: 500", "max_ms: 100, max_attempts: 2");
    let from = source(&postgres.dsn(&database), "['public.%']");
    let document = pipeline("p", &from, &[&optional, &file("events.jsonl", "")])
        + &delivery("max_events: 50", "mode: required");
    let home = Home::new(&[("pipeline.yaml", &document)]);
    let engine = home.start();
    insert(&postgres, &database, 0, 100);
    wait_drained(&engine, &home, SOURCE, &postgres, DRAIN);
    wait_for("the optional sink to have it, too", PATIENCE, || redis.cli(&["XLEN", "changes"]) == "100");

    redis.stop();
    insert(&postgres, &database, 100, ROWS);
    wait_drained(&engine, &home, SOURCE, &postgres, DRAIN);
    assert_eq!(ids(&home.wait_lines("events.jsonl", ROWS)), (0..ROWS).collect::<Vec<_>>());
    let lost = (ROWS - 100) as u64;
    let status = engine.wait_status("p", "everything to be given up for it", |status| {
        sink(status, "r")["given_up_events"] == lost
    });
    assert_eq!(
        (&status["phase"], &status["error"]["component"]),
        (&"streaming".into(), &"r".into()),
        "{status}"
    );
    assert_eq!(
        engine.get("/readyz").0,
        200,
        "a sink that nothing waits for does not make a pipeline unready"
    );
    let gap = &sink(&status, "r")["gap"];
    assert_eq!(gap["events"], lost, "{status}");
    let place = |place: &str| lsn(gap[place]["lsn"].as_str().unwrap()).unwrap();
    assert!(place("after") < place("until") && place("until") <= position(sink(&status, "f")), "{status}");
    wait_for("the metric to say so, too", PATIENCE, || {
        metric(&engine, "deltaforge_dropped_events_total") == Some(lost as f64)
    });

    redis.restart();
    insert(&postgres, &database, ROWS, ROWS + 10);
    wait_for("the optional sink to go on", PATIENCE, || redis.cli(&["XLEN", "changes"]) == "110");
    let status = engine.wait_status("p", "the sink to be well", |s| sink(s, "r")["state"] == "delivering");
    assert_eq!(sink(&status, "r")["gap"]["events"], lost, "the gap is not forgotten: {status}");
    engine.stop();
}

/// One way to set a pipeline with two sinks up, of which the first is away.
struct Case {
    name: String,
    document: String,
    /// Whether the checkpoint waits for the one that is away.
    waits: bool,
    /// The file of the other sink.
    lines: String,
}

/// Every policy with every mix of flags.
fn cases(dsn: &str, redis: &Redis) -> Vec<Case> {
    let policies = ["mode: all", "mode: required", "mode: quorum, quorum: 1", "mode: quorum, quorum: 2"];
    let mut cases = Vec::new();
    for (p, policy) in policies.into_iter().enumerate() {
        for flags in 0..4 {
            let [away, other] = [flags & 1 == 0, flags & 2 == 0];
            let name = format!("p{p}f{flags}");
            let waits = match p {
                0 | 3 => true,
                1 => away,
                _ => false,
            };
            // Where nothing waits for it, its attempts end by default.
            let sink = redis_sink(&redis.uri(), &name)
                .replace("id: r,", &format!("id: r, required: {away},"))
                .replace("max_ms: 500", "max_ms: 100");
            let lines = format!("{name}.jsonl");
            let file = file(&lines, &format!(", required: {other}"));
            let from = source(dsn, "['public.%']")
                .replace("slot: df, publication: df", &format!("slot: {name}, publication: {name}"));
            let document = pipeline(&name, &from, &[&sink, &file]) + &delivery("max_events: 50", policy);
            cases.push(Case { name, document, waits, lines });
        }
    }
    cases
}

#[test]
fn every_policy_with_every_mix_of_flags() {
    let (postgres, database) = server(16);
    let redis = Redis::start(&RedisOptions::default()).unwrap();
    redis.stop();
    let cases = cases(&postgres.dsn(&database), &redis);
    assert_eq!(cases.len(), 16);
    let files: Vec<_> = cases.iter().map(|c| (format!("{}.yaml", c.name), c.document.as_str())).collect();
    let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), *text)).collect();
    let home = Home::new(&files);
    let engine = home.launch(&[]);
    let slots = "select count(*) from pg_replication_slots where active";
    wait_for("all slots to be read", PATIENCE, || postgres.psql("postgres", slots) == "16");
    insert(&postgres, &database, 0, 500);
    let head = lsn(&postgres.psql("postgres", "select pg_current_wal_flush_lsn()")).unwrap();
    for case in &cases {
        assert_eq!(ids(&home.wait_lines(&case.lines, 500)), (0..500).collect::<Vec<_>>(), "{}", case.name);
    }
    for case in cases.iter().filter(|case| !case.waits) {
        wait_for(&format!("{} to be saved", case.name), DRAIN, || stored(&engine, case) >= Some(head));
    }
    // By now those that wait have had the time to be wrong.
    for case in cases.iter().filter(|case| case.waits) {
        assert!(stored(&engine, case) < Some(head), "{} did not wait", case.name);
        let status = engine.wait_status(&case.name, "the status to say so", |s| s["phase"] == "retrying");
        assert_eq!(status["error"]["component"], "r", "{}: {status}", case.name);
    }
    redis.restart();
    for case in cases.iter().filter(|case| case.waits) {
        wait_for(&format!("{} to be saved", case.name), DRAIN, || stored(&engine, case) >= Some(head));
        assert_eq!(redis.cli(&["XLEN", &case.name]), "500", "{}", case.name);
    }
    engine.stop();
}

fn stored(engine: &Engine, case: &Case) -> Option<u64> {
    lsn(engine.checkpoint(&case.name)["position"]["lsn"].as_str()?)
}
