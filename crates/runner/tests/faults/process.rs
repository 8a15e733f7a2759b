//! Processes and documents: two on one state, a pipeline made over the API, a change that does not work.

use crate::Plain;
use crate::support::{file_sink, http, source};
use deltaforge_testkit::servers::PgOptions;
use serde_json::{Value, json};

fn plain() -> Plain {
    Plain::new(&PgOptions::default())
}

#[test]
fn a_second_process_on_one_state_store_is_refused() {
    let plain = plain();
    let first = plain.home.start();
    let second = plain.home.spawn(&[]);
    let status = second.wait_exit();
    assert_eq!(status.code(), Some(1), "{status}");
    let log = second.log();
    assert!(log.contains("locked") && log.contains("--state"), "{log}");
    println!("second process: {}", log.lines().last().unwrap_or_default());
    plain.psql("insert into t values (1, 'a')");
    plain.home.wait_events(1);
    assert_eq!(first.status("p")["phase"], "streaming");
    first.stop();
}

#[test]
fn a_pipeline_made_over_the_api_survives_a_restart() {
    let plain = plain();
    // A process without any document: the state store will hold one.
    let elsewhere = plain.postgres.fresh_db("elsewhere");
    plain.postgres.psql(&elsewhere, "create table u (id int primary key)");
    let engine = plain.home.start();
    let document = json!({
        "metadata": {"name": "made"},
        "spec": {
            "source": {"type": "postgres", "config": {"dsn": plain.postgres.dsn(&elsewhere), "slot": "made", "publication": "made",
                "tables": ["public.u"]}},
            "sinks": [{"type": "file", "config": {"path": plain.home.path("made.jsonl")}}],
        }
    });
    let (code, body) = engine.post("/pipelines", &document.to_string());
    assert_eq!(code, 200, "{body}");
    engine.wait_status("made", "the new pipeline to stream", |s| s["phase"] == "streaming");
    plain.postgres.psql(&elsewhere, "insert into u values (1)");
    plain.home.wait_lines("made.jsonl", 1);
    // Killed, not asked: what was answered must be stored.
    engine.kill();
    plain.postgres.psql(&elsewhere, "insert into u values (2)");
    let engine = plain.home.start();
    let status = engine.status("made");
    assert_eq!(
        (&status["origin"], &status["persisted"]),
        (&Value::from("api"), &Value::from(true)),
        "{status}"
    );
    let ids: Vec<i64> = plain.home.wait_lines("made.jsonl", 2).iter().map(|line| id(line)).collect();
    assert_eq!(ids.last(), Some(&2), "{ids:?}");
    println!("made over the API: back after kill -9, {} lines for 2 rows", ids.len());
    engine.stop();
}

fn id(line: &str) -> i64 {
    serde_json::from_str::<Value>(line).unwrap()["after"]["id"].as_i64().unwrap()
}

#[test]
fn a_change_that_does_not_work_leaves_the_old_pipeline_flowing() {
    let plain = plain();
    let engine = plain.home.start();
    plain.psql("insert into t values (1, 'a')");
    plain.home.wait_events(1);
    let patch = |body: Value| http(engine.api(), "PATCH", "/pipelines/p", &body.to_string()).unwrap();
    let before = engine.status("p")["spec"].clone();
    let broken = [
        ("does not validate", json!({"spec": {"batch": {"max_events": "many"}}})),
        ("a key nobody knows", json!({"spec": {"bach": {}}})),
        (
            "a server nobody answers at",
            json!({"spec": {"source": {"config": {"dsn": "postgres://postgres@127.0.0.1:1/x"}}}}),
        ),
        (
            "a database that is not there",
            json!({"spec": {"source": {"config": {"dsn": plain.postgres.dsn("nowhere")}}}}),
        ),
        (
            "a slot of another database",
            json!({"spec": {"source": {"config": {"dsn": plain.postgres.dsn("postgres")}}}}),
        ),
    ];
    for (number, (what, body)) in broken.into_iter().enumerate() {
        let (code, answer) = patch(body);
        assert_eq!(code, 400, "{what}: {answer}");
        println!("{what}: {}", answer.chars().take(200).collect::<String>());
        let number = number + 2;
        plain.psql(&format!("insert into t values ({number}, 'x')"));
        assert_eq!(plain.home.wait_events(number).len(), number, "{what}");
        engine.wait_ready();
        assert_eq!(engine.status("p")["spec"], before, "{what}");
    }
    let (code, answer) = patch(json!({"spec": {"batch": {"max_events": 7}}}));
    assert_eq!(code, 200, "{answer}");
    let rows = plain.home.events().len() + 1;
    plain.psql("insert into t values (100, 'after')");
    assert_eq!(plain.home.wait_events(rows).last().unwrap()["after"]["id"], 100);
    engine.stop();
}

#[test]
fn pipelines_do_not_share_a_source_id() {
    let plain = plain();
    let dsn = plain.postgres.dsn(&plain.database);
    let other = source(&dsn, "['public.%']").replace("config: {", "config: { id: p-postgres,");
    plain.home.write("other.yaml", &crate::support::pipeline("other", &other, &[&file_sink()]));
    let engine = plain.home.spawn(&[]);
    assert_eq!(engine.wait_exit().code(), Some(2));
    assert!(engine.log().contains("p-postgres"), "{}", engine.log());
}
