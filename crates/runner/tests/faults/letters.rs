//! Events that a sink can never take: without a queue they stop their pipeline, with one they are kept, and everything else
//! goes on.

use crate::support::streams::{metric, redis_sink};
use crate::support::{Engine, Home, deltaforge, pipeline, source};
use deltaforge_testkit::servers::{PgOptions, PgVersion, Postgres, Redis, RedisOptions};
use deltaforge_testkit::wait_for;
use serde_json::{Value, json};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
/// The smallest that Redis takes as `proto-max-bulk-len`.
const LIMIT: usize = 1 << 20;

struct Poisoned {
    postgres: Postgres,
    database: String,
    redis: Redis,
    home: Home,
}

impl Poisoned {
    fn new(dlq: Option<&str>) -> Poisoned {
        let postgres = Postgres::start(PgVersion::V15, &PgOptions::default()).unwrap();
        let redis = Redis::start(&RedisOptions::default()).unwrap();
        redis.cli(&["CONFIG", "SET", "proto-max-bulk-len", &LIMIT.to_string()]);
        let database = postgres.fresh_db("poisoned");
        postgres.psql(&database, "create table t (id int primary key, note text)");
        let test = Poisoned { postgres, database, redis, home: Home::new(&[]) };
        test.configure(dlq);
        test
    }

    fn configure(&self, dlq: Option<&str>) {
        let from = source(&self.postgres.dsn(&self.database), "['public.%']");
        let mut text = pipeline("p", &from, &[&redis_sink(&self.redis.uri(), "changes")]);
        if let Some(dlq) = dlq {
            text += &format!("  dlq: {dlq}\n");
        }
        self.home.write("pipeline.yaml", &text);
    }

    fn psql(&self, sql: &str) -> String {
        self.postgres.psql(&self.database, sql)
    }

    /// Inserts rows; those above `LIMIT` are poison.
    fn insert(&self, id: i64, bytes: usize) {
        self.psql(&format!("insert into t values ({id}, repeat('x', {bytes}))"));
    }

    /// The ids of the rows in the stream, in order.
    fn delivered(&self) -> Vec<i64> {
        let answer = self.redis.cli(&["XRANGE", "changes", "-", "+"]);
        let lines: Vec<_> = answer.lines().collect();
        let payloads = lines.iter().zip(lines.iter().skip(1)).filter(|(name, _)| **name == "df-event");
        payloads
            .map(|(_, event)| serde_json::from_str::<Value>(event).unwrap()["after"]["id"].as_i64().unwrap())
            .collect()
    }

    #[track_caller]
    fn wait_delivered(&self, ids: &[i64]) {
        wait_for("the rows to arrive", PATIENCE, || self.delivered().len() >= ids.len());
        assert_eq!(self.delivered(), ids);
    }
}

fn list(engine: &Engine) -> Value {
    let (status, body) = engine.get("/pipelines/p/dlq");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// What `deltaforge dlq … --json` prints.
fn cli(engine: &Engine, args: &[&str]) -> Value {
    let api = format!("http://{}", engine.api());
    let mut command = deltaforge();
    command.arg("dlq").args(args).args(["--pipeline", "p", "--json", "--api", &api]);
    let done = command.output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success(), "{text} {}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn without_a_queue_the_pipeline_stops_in_front_of_the_event() {
    let test = Poisoned::new(None);
    let engine = test.home.start();
    test.insert(1, 10);
    test.wait_delivered(&[1]);
    wait_for("the checkpoint", PATIENCE, || engine.checkpoint("p")["position"].is_object());
    test.insert(2, LIMIT + 1);
    test.insert(3, 10);
    let status = engine.wait_status("p", "the pipeline to fail", |s| s["status"] == "failed");
    assert_eq!(status["error"]["code"], "redis.event_too_large", "{status}");
    let named = status["error"]["event_id"].as_str().unwrap().to_owned();
    assert_eq!(test.delivered(), [1], "nothing behind the event is delivered");
    let stopped_at = engine.checkpoint("p")["position"].clone();
    engine.stop();
    // The same event again after a restart: the position lies in front of it.
    let engine = test.home.launch(&[]);
    engine.wait_status("p", "the pipeline to fail again", |s| s["status"] == "failed");
    assert_eq!(engine.checkpoint("p")["position"], stopped_at);
    engine.stop();
    // With the queue on it goes on by itself.
    test.configure(Some("{ enabled: true }"));
    let engine = test.home.start();
    test.wait_delivered(&[1, 3]);
    let found = list(&engine);
    assert_eq!((&found["total"], &found["entries"][0]["event_id"]), (&json!(1), &json!(named)));
    assert_eq!(found["entries"][0]["position"], stopped_at, "the place in front of it");
    engine.stop();
}

#[test]
fn with_a_queue_everything_else_goes_on_and_the_event_is_kept() {
    let test = Poisoned::new(Some("{ enabled: true, max_event_bytes: 8 MiB }"));
    let engine = test.home.start();
    for id in 1..=9 {
        test.insert(id, if id % 3 == 0 { LIMIT + 1 } else { 10 });
    }
    // Also in the middle of a transaction.
    test.psql(&format!(
        "insert into t select n, repeat('y', case when n = 11 then {} else 5 end) from generate_series(10, 12) n",
        LIMIT + 1
    ));
    test.wait_delivered(&[1, 2, 4, 5, 7, 8, 10, 12]);
    let found = list(&engine);
    assert_eq!(found["total"], 4, "{}", found["entries"].as_array().unwrap().len());
    for (entry, id) in found["entries"].as_array().unwrap().iter().zip([3, 6, 9, 11]) {
        assert_eq!(entry["event"]["after"]["id"], id);
        assert_eq!(entry["event"]["after"]["note"].as_str().unwrap().len(), LIMIT + 1, "with all its bytes");
        assert_eq!(entry["event"]["event_id"], entry["event_id"]);
        let facts = (&entry["sink"], &entry["kind"], &entry["attempts"], &entry["truncated"]);
        assert_eq!(facts, (&json!("r"), &json!("too_large"), &json!(1), &json!(false)));
        assert!(
            entry["message"].as_str().unwrap().starts_with("redis.event_too_large"),
            "{}",
            entry["message"]
        );
        assert!(entry["position"]["lsn"].is_string(), "{}", entry["position"]);
    }
    assert_eq!(metric(&engine, "deltaforge_dlq_entries"), Some(4.0));
    assert_eq!(metric(&engine, "deltaforge_dlq_events_total"), Some(4.0));

    // While the limit stands they cannot be delivered.
    assert_eq!(cli(&engine, &["retry", "--all"]), json!({"retried": 4, "delivered": 0, "failed": 4}));
    assert_eq!(list(&engine)["entries"][0]["attempts"], 2);
    engine.stop();

    // They survive a restart, and go once the limit is raised.
    let engine = test.home.start();
    assert_eq!(cli(&engine, &["list"])["total"], 4);
    let first = list(&engine)["entries"][0]["id"].to_string();
    test.redis.cli(&["CONFIG", "SET", "proto-max-bulk-len", "512mb"]);
    engine.wait_ready();
    // The sink has asked for the limit when it connected.
    let mut answer = Value::Null;
    wait_for("the event to be delivered", PATIENCE, || {
        answer = cli(&engine, &["retry", "--ids", &first]);
        answer["delivered"] == 1
    });
    assert_eq!(answer, json!({"retried": 1, "delivered": 1, "failed": 0}));
    assert_eq!(cli(&engine, &["retry", "--all"]), json!({"retried": 3, "delivered": 3, "failed": 0}));
    assert_eq!(list(&engine)["total"], 0);
    test.wait_delivered(&[1, 2, 4, 5, 7, 8, 10, 12, 3, 6, 9, 11]);
    // The stream goes on from where it was.
    test.insert(13, 10);
    wait_for("the next row", PATIENCE, || test.delivered().last() == Some(&13));
    assert_eq!(metric(&engine, "deltaforge_dlq_entries"), Some(0.0));
    engine.stop();
}

#[test]
fn a_full_queue_blocks_or_drops_the_oldest() {
    let test = Poisoned::new(Some("{ enabled: true, max_entries: 2 }"));
    let engine = test.home.start();
    for id in 1..=3 {
        test.insert(id, LIMIT + 1);
    }
    test.insert(4, 1);
    let status = engine.wait_status("p", "the pipeline to fail", |s| s["status"] == "failed");
    assert_eq!(status["error"]["code"], "dlq.full", "{status}");
    assert_eq!(list(&engine)["total"], 2);
    // A pipeline that does not run delivers nothing.
    let (code, body) = engine.post("/pipelines/p/dlq/retry", r#"{"all":true}"#);
    assert!(code == 409 && body.contains("STATE_CONFLICT"), "{code} {body}");
    let entry = &list(&engine)["entries"][0];
    assert_eq!((&entry["truncated"], entry["event"].as_str().unwrap().len()), (&json!(true), 256 << 10));
    assert_eq!(cli(&engine, &["purge", "--all"]), json!({"purged": 2}));
    assert_eq!(engine.post("/pipelines/p/resume", "").0, 200);
    test.wait_delivered(&[4]);
    let found = list(&engine);
    assert_eq!(found["total"], 1);
    // What was cut cannot be delivered, whatever the limit.
    test.redis.cli(&["CONFIG", "SET", "proto-max-bulk-len", "512mb"]);
    assert_eq!(cli(&engine, &["retry", "--all"]), json!({"retried": 1, "delivered": 0, "failed": 1}));
    test.redis.cli(&["CONFIG", "SET", "proto-max-bulk-len", &LIMIT.to_string()]);
    engine.stop();

    test.configure(Some("{ enabled: true, max_entries: 2, overflow: drop_oldest }"));
    let engine = test.home.start();
    for id in 5..=7 {
        test.insert(id, LIMIT + 1);
    }
    test.insert(8, 1);
    test.wait_delivered(&[4, 8]);
    let found = list(&engine);
    assert_eq!(found["total"], 2);
    let beginning = found["entries"][0]["event"].as_str().unwrap();
    assert!(beginning.contains(r#""id":6"#), "{}", &beginning[..300]);
    let (_, metrics) = engine.get("/metrics");
    let dropped = metrics.lines().find(|line| line.contains("reason=\"dlq_overflow\"")).unwrap();
    assert!(dropped.ends_with(" 2"), "{dropped}");
    engine.stop();
}

#[test]
fn two_thousand_events_and_one_purge() {
    let test = Poisoned::new(None);
    // A stream that only some rows can name: cheap poison.
    let from = source(&test.postgres.dsn(&test.database), "['public.%']");
    let sink = redis_sink(&test.redis.uri(), "'${after.note}'");
    let text = pipeline("p", &from, &[&sink]) + "  dlq: { enabled: true }\n";
    test.home.write("pipeline.yaml", &text);
    let engine = test.home.start();
    test.psql(
        "insert into t select n, case when n % 2 = 0 then 'changes' end from generate_series(1, 4000) n",
    );
    wait_for("the good half", PATIENCE * 3, || test.redis.cli(&["XLEN", "changes"]) == "2000");
    assert_eq!(test.delivered(), (1..=2000).map(|n| n * 2).collect::<Vec<_>>());
    let (code, body) = engine.get("/pipelines/p/dlq?limit=1000&kind=route");
    let found: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, &found["total"]), (200, &json!(2000)));
    assert_eq!(found["entries"][999]["event"]["after"]["id"], 1999);
    assert_eq!(cli(&engine, &["purge", "--all"]), json!({"purged": 2000}));
    assert_eq!(list(&engine)["total"], 0);
    test.psql("insert into t values (4001, 'changes')");
    wait_for("the flow", PATIENCE, || test.delivered().last() == Some(&4001));
    engine.stop();
}

/// With positions stored beside the events: neither the event left out nor the one given again disturbs them.
#[test]
fn exactly_once_with_dead_letters() {
    let test = Poisoned::new(None);
    let from = source(&test.postgres.dsn(&test.database), "['public.%']");
    let sink = redis_sink(&test.redis.uri(), "changes").replace("id: r,", "id: r, exactly_once: true,");
    let text = pipeline("p", &from, &[&sink]) + "  dlq: { enabled: true, max_event_bytes: 8 MiB }\n";
    test.home.write("pipeline.yaml", &text);
    let engine = test.home.start();
    test.insert(1, 10);
    test.insert(2, LIMIT + 1);
    test.insert(3, 10);
    test.wait_delivered(&[1, 3]);
    engine.kill();
    let engine = test.home.start();
    test.insert(4, 10);
    test.wait_delivered(&[1, 3, 4]);
    assert_eq!(list(&engine)["total"], 1, "met again after the kill, it is the same letter");
    test.redis.cli(&["CONFIG", "SET", "proto-max-bulk-len", "512mb"]);
    let held = || -> Value {
        serde_json::from_str(&test.redis.cli(&["GET", "deltaforge:position:p/r:{changes}"])).unwrap()
    };
    let before = held();
    wait_for("the event to be delivered", PATIENCE, || cli(&engine, &["retry", "--all"])["delivered"] == 1);
    test.wait_delivered(&[1, 3, 4, 2]);
    assert!(before["event_id"].is_string() && before["position"].is_object(), "{before}");
    let place = |held: &Value| [held["position"].clone(), held["event_id"].clone()];
    assert_eq!(place(&held()), place(&before), "the stream's place and last event stay what they were");
    engine.kill();
    // Also without what was saved here: the position is the target's own.
    std::fs::remove_dir_all(test.home.path("state")).unwrap();
    let engine = test.home.start();
    test.insert(5, 10);
    test.wait_delivered(&[1, 3, 4, 2, 5]);
    engine.stop();
}

/// In a transaction above the batch limits: what was staged of it is lost with the refusal, it is read again and meets the event
/// again.
#[test]
fn exactly_once_with_dead_letters_inside_a_large_transaction() {
    let test = Poisoned::new(None);
    let from = source(&test.postgres.dsn(&test.database), "['public.%']");
    let sink = redis_sink(&test.redis.uri(), "changes").replace("id: r,", "id: r, exactly_once: true,");
    let text = pipeline("p", &from, &[&sink]) + "  dlq: { enabled: true }\n  batch: { max_events: 20 }\n";
    test.home.write("pipeline.yaml", &text);
    let engine = test.home.start();
    test.insert(1000, 10);
    test.wait_delivered(&[1000]);
    let size = format!("case when g in (50, 75) then {} else 10 end", LIMIT + 1);
    test.psql(&format!("insert into t select g, repeat('x', {size}) from generate_series(1, 100) g"));
    test.insert(1001, 10);
    let good = (1..=100).filter(|id| ![50, 75].contains(id));
    test.wait_delivered(&[1000].into_iter().chain(good).chain([1001]).collect::<Vec<_>>());
    assert_eq!(list(&engine)["total"], 2);
    engine.stop();
}

/// A sink that the checkpoint does not wait for loses nothing either; the others never notice.
#[test]
fn letters_of_an_optional_sink() {
    let test = Poisoned::new(None);
    let from = source(&test.postgres.dsn(&test.database), "['public.%']");
    let optional = redis_sink(&test.redis.uri(), "changes").replace("id: r,", "id: r, required: false,");
    let text = pipeline("p", &from, &[&crate::file_sink(), &optional]) + "  dlq: { enabled: true }\n";
    test.home.write("pipeline.yaml", &text);
    let engine = test.home.start();
    test.insert(1, 10);
    test.insert(2, LIMIT + 1);
    test.insert(3, 10);
    test.wait_delivered(&[1, 3]);
    assert_eq!(test.home.wait_events(3).len(), 3);
    let found = list(&engine);
    assert_eq!((&found["total"], &found["entries"][0]["sink"]), (&json!(1), &json!("r")));
    let dropped = engine.get("/metrics").1.lines().any(|line| {
        line.starts_with("deltaforge_dropped_events_total")
            && line.contains("sink=\"r\"")
            && !line.ends_with(" 0")
    });
    assert!(!dropped, "it is not given up");
    engine.stop();
}

/// A store that cannot be written blocks the pipeline in front of the event.
#[test]
fn a_store_that_refuses_blocks() {
    let test = Poisoned::new(Some("{ enabled: true }"));
    // A file in the place of the folder: also root cannot write below it.
    let letters = test.home.path("state").join("df_dead_letters");
    std::fs::create_dir_all(test.home.path("state")).unwrap();
    let engine = test.home.start();
    test.insert(1, 10);
    test.wait_delivered(&[1]);
    std::fs::write(&letters, "in the way").unwrap();
    test.insert(2, LIMIT + 1);
    test.insert(3, 10);
    let status = engine.wait_status("p", "the store to be the trouble", |s| {
        s["error"]["code"] == "state.unreadable" || s["error"]["code"] == "state.unwritable"
    });
    assert_eq!((&status["status"], &status["phase"]), (&json!("running"), &json!("retrying")), "{status}");
    assert_eq!(test.delivered(), [1], "nothing passes the event");
    std::fs::remove_file(&letters).unwrap();
    test.wait_delivered(&[1, 3]);
    assert_eq!(list(&engine)["total"], 1);
    engine.wait_ready();
    engine.stop();
}
