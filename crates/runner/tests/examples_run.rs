//! The examples of `examples/`, the README and the book that a user can run as they are, run: a real PostgreSQL, a real Redis,
//! and a change that arrives in every sink. (`examples.rs` checks that all of them validate.)
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "in a test, a panic with a clear message is how a failure is reported"
)]

mod support;

use deltaforge_testkit::servers::{PgOptions, PgVersion, Postgres, Redis, RedisOptions};
use deltaforge_testkit::wait_for;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use support::{Home, PATIENCE, deltaforge};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn files(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

/// Whole documents, each with where it stands.
fn documents() -> Vec<(String, String)> {
    let mut found = Vec::new();
    files(&root().join("examples"), "yaml", &mut found);
    let mut documents: Vec<(String, String)> =
        found.iter().map(|path| (path.display().to_string(), fs::read_to_string(path).unwrap())).collect();
    let mut pages = vec![root().join("README.md")];
    files(&root().join("docs"), "md", &mut pages);
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        // Every second piece between the fences is inside of one.
        for (i, block) in text.split("```").enumerate().skip(1).step_by(2) {
            let yaml = block.strip_prefix("yaml\n");
            if let Some(yaml) = yaml.filter(|yaml| yaml.lines().any(|line| line == "spec:")) {
                documents.push((format!("{}, block {}", page.display(), i / 2 + 1), yaml.to_owned()));
            }
        }
    }
    documents
}

/// Whether the two variables that [`run`] sets lead all its parts to servers that exist here.
fn is_runnable(document: &str) -> bool {
    let types =
        document.split("type: ").skip(1).map(|rest| rest.split([',', ' ', '}', '\n']).next().unwrap_or(""));
    let known = ["postgres", "redis", "file", "stdout", "native", "debezium", "cloudevents", "json"];
    types.clone().all(|word| known.contains(&word))
        && document.contains("${PG_DSN")
        && types.filter(|word| *word == "redis").count() == document.matches("${REDIS_URI").count()
}

#[test]
fn the_binary_validates_every_document() {
    let scratch = tempfile::tempdir().unwrap();
    for (place, text) in documents() {
        let file = scratch.path().join("document.yaml");
        fs::write(&file, text).unwrap();
        let done = deltaforge().args(["validate", "--allow-unset"]).arg(&file).output().unwrap();
        let said =
            String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{place}:\n{said}");
        assert!(said.contains("valid: "), "{place}:\n{said}");
    }
}

#[test]
fn runnable_documents_run() {
    let redis = Redis::start(&RedisOptions::default()).unwrap();
    let servers =
        [PgVersion::V15, PgVersion::V18].map(|v| Postgres::start(v, &PgOptions::default()).unwrap());
    let runnable: Vec<(String, String)> =
        documents().into_iter().filter(|(_, text)| is_runnable(text)).collect();
    assert!(runnable.len() >= 3, "of the documents only {} can be run", runnable.len());
    for (place, document) in &runnable {
        for postgres in &servers {
            println!("{place} on {:?}", postgres.version());
            run(document, postgres, &redis);
        }
    }
}

fn run(document: &str, postgres: &Postgres, redis: &Redis) {
    let shop = fs::read_to_string(root().join("examples/shop.sql")).unwrap();
    let db = postgres.fresh_db("example");
    postgres.psql(&db, &shop);
    redis.cli(&["FLUSHALL"]);
    let home = Home::new(&[("example.yaml", document)]);
    let mut command = deltaforge();
    command.env("PG_DSN", postgres.dsn(&db)).env("REDIS_URI", redis.uri());
    let mut engine = home.spawn_by(command, &[]);
    engine.wait_api();
    engine.wait_ready();
    // As often as somebody likes: the example's own script is the change.
    postgres.psql(&db, "delete from orders; delete from customers;");
    postgres.psql(&db, &shop);

    let pipelines: Value = serde_json::from_str(&engine.get("/pipelines").1).unwrap();
    for sink in pipelines[0]["spec"]["spec"]["sinks"].as_array().unwrap() {
        let kind = sink["type"].as_str().unwrap();
        wait_for(&format!("an order in the sink {kind}"), PATIENCE, || match kind {
            "redis" => redis
                .cli(&["KEYS", "*"])
                .lines()
                .any(|key| redis.cli(&["XRANGE", key, "-", "+"]).contains("12.50")),
            "file" => {
                let mut written = Vec::new();
                files(home.path("").as_path(), "jsonl", &mut written);
                written.iter().any(|file| fs::read_to_string(file).unwrap_or_default().contains("12.50"))
            }
            _ => fs::read_to_string(home.path("stdout")).unwrap_or_default().contains("12.50"),
        });
    }
    engine.stop();
    postgres.psql(&db, "select pg_drop_replication_slot(slot_name) from pg_replication_slots");
}
