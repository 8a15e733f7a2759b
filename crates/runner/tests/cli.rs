//! The real binary: usage, exit codes, ports, signals, the lock on the state.

mod program;

use program::{Program, Running, http, scratch};
use serde_json::Value;
use std::net::TcpListener;

/// A pipeline whose database does not exist: it shows as retrying, and nothing is needed to run it.
const DOCUMENT: &str = r#"
metadata: { name: orders }
spec:
  source:
    type: postgres
    config:
      dsn: "${PG_DSN:-postgres://u:geheim@127.0.0.1:1/d}"
      slot: s
      publication: p
      tables: [public.orders]
  sinks:
    - { type: stdout, config: {} }
"#;

#[test]
fn version() {
    let done = Program::new(&["version"]).run();
    assert_eq!(done.code, 0);
    for part in [
        "deltaforge 1.0.0",
        "commit: ",
        "target: ",
        "sources: mysql, mariadb, postgres",
        "sinks: redis, kafka, nats, http, file, stdout",
    ] {
        assert!(done.stdout.contains(part), "{part}: {done:?}");
    }
    let json: Value = serde_json::from_str(&Program::new(&["version", "--json"]).run().stdout).unwrap();
    assert_eq!(json["version"], "1.0.0");
    assert_eq!(json["sources"], serde_json::json!(["mysql", "mariadb", "postgres"]));
    let done = Program::new(&["--version"]).run();
    assert_eq!((done.code, done.stdout.trim()), (0, "deltaforge 1.0.0"));
    assert_eq!(Program::new(&["--help"]).run().code, 0);
}

#[test]
fn bad_usage_exits_2() {
    let dir = scratch();
    for (args, part) in [
        (vec!["--nonsense"], "--nonsense"),
        (vec!["--api-addr", "8080"], "HOST:PORT"),
        (vec!["--log-level", "deltaforge=lots"], "--log-level"),
        (vec!["--memory-limit", "1MiB"], "16MiB"),
        (vec!["--shutdown-timeout-secs", "0"], "1..=3600"),
        (vec!["--api-token", ""], "empty token"),
        (vec!["--state", "tape:x"], "unknown scheme"),
        (vec!["--state", "s3://b/p"], "planned, not in this release"),
        (vec!["dlq", "list"], "--pipeline NAME"),
        (vec!["dlq", "purge", "--pipeline", "p"], "--ids"),
        (vec!["dlq", "retry", "--pipeline", "p", "--all", "--ids", "1"], "--all"),
        (vec!["dlq", "list", "--pipeline", "p", "--api", "ftp://h"], "is not the address of an API"),
        (vec!["--grpc-addr"], "planned, not in this release"),
        (vec!["--grpc-addr", "127.0.0.1:0"], "planned, not in this release"),
        (
            vec!["doctor", "--config", "x", "--json"],
            "the subcommand `doctor` is planned, not in this release",
        ),
        (vec!["demo"], "`demo` is planned"),
        (vec!["tail"], "`tail` is planned"),
        (vec!["checkpoints", "list"], "`checkpoints` is planned"),
        (vec!["schemas"], "`schemas` is planned"),
        (vec!["verify"], "`verify` is planned"),
        (vec!["validate"], "nothing to validate"),
        (vec!["--config", "/none/such.yaml"], "/none/such.yaml"),
        // Nothing is named and nothing is stored.
        (vec![], "nothing to run"),
        (vec!["run"], "nothing to run"),
    ] {
        let done = Program::new(&args).dir(dir.path()).run();
        assert_eq!(done.code, 2, "{args:?}: {done:?}");
        assert!(done.stderr.contains(part), "{args:?}: {done:?}");
    }
}

#[test]
fn variables_stand_for_flags_and_the_flag_wins() {
    let dir = scratch();
    let done = Program::new(&[]).dir(dir.path()).env("DELTAFORGE_STATE", "tape:x").run();
    assert_eq!((done.code, done.stderr.contains("tape")), (2, true), "{done:?}");
    let done = Program::new(&["--state", "memory:"]).dir(dir.path()).env("DELTAFORGE_STATE", "tape:x").run();
    assert!(done.stderr.contains("nothing to run"), "{done:?}");
    std::fs::write(dir.path().join("p.yaml"), DOCUMENT).unwrap();
    // A variable of `run` does not get in the way of another subcommand.
    let done = Program::new(&["validate"])
        .dir(dir.path())
        .env("DELTAFORGE_CONFIG", "p.yaml")
        .env("DELTAFORGE_STATE", "memory:")
        .run();
    assert_eq!(done.code, 0, "{done:?}");
}

#[test]
fn validate() {
    let dir = scratch();
    let file = dir.path().join("pipeline.yaml");
    std::fs::write(&file, DOCUMENT).unwrap();
    let done = Program::new(&["validate", "--config", "pipeline.yaml"]).dir(dir.path()).run();
    assert_eq!((done.code, done.stdout.trim()), (0, "valid: orders"), "{done:?}");
    let done = Program::new(&["validate", "--json", "pipeline.yaml"]).dir(dir.path()).run();
    let json: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&json["valid"], &json["pipelines"][0]), (&Value::Bool(true), &Value::from("orders")));

    let wrong = DOCUMENT.replace("slot:", "slott:").replace("type: stdout", "type: stdoot");
    std::fs::write(&file, &wrong).unwrap();
    for command in [vec!["validate", "--config", "pipeline.yaml"], vec!["--config", "pipeline.yaml"]] {
        let done = Program::new(&command).dir(dir.path()).run();
        assert_eq!(done.code, 2, "{done:?}");
        for part in ["pipeline.yaml:8:", "did you mean `slot`?", "did you mean `stdout`?"] {
            assert!(done.stderr.contains(part), "{part}: {done:?}");
        }
    }
    let done = Program::new(&["validate", "--config", "pipeline.yaml", "--json"]).dir(dir.path()).run();
    let json: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((done.code, &json["valid"]), (2, &Value::Bool(false)));
    assert!(
        json["errors"].as_array().unwrap().iter().any(|e| e["class"] == "unknown" && e["line"] == 8),
        "{json}"
    );
    assert!(!done.stdout.contains("geheim"), "{done:?}");

    std::fs::write(&file, DOCUMENT.replace("${PG_DSN:-", "${PG_DSN_UNSET}${X:-")).unwrap();
    let done = Program::new(&["validate", "--config", "pipeline.yaml"]).dir(dir.path()).run();
    assert_eq!((done.code, done.stderr.contains("PG_DSN_UNSET")), (2, true), "{done:?}");
    let done =
        Program::new(&["validate", "--allow-unset", "--config", "pipeline.yaml"]).dir(dir.path()).run();
    assert_eq!(done.code, 0, "{done:?}");
}

#[test]
fn runs_serves_and_drains_on_sigterm() {
    let dir = scratch();
    std::fs::write(dir.path().join("p.yaml"), DOCUMENT).unwrap();
    let running = Running::start(dir.path(), &["--config", "p.yaml"]);
    let (status, body) = http(&running.api, "GET", "/healthz", "");
    assert_eq!((status, body.as_str()), (200, "ok"));
    let pipe = running.until("/pipelines/orders", |pipe| pipe["phase"] == "retrying");
    assert_eq!((&pipe["status"], &pipe["origin"]), (&Value::from("running"), &Value::from("file")));
    assert!(pipe["error"]["code"].is_string(), "{pipe}");
    let (status, ready) = http(&running.api, "GET", "/readyz", "");
    assert_eq!((status, ready.contains("unready")), (503, true), "{ready}");
    for address in [&running.api, &running.metrics] {
        let (status, text) = http(address, "GET", "/metrics", "");
        assert_eq!(status, 200);
        assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
        assert!(text.contains("deltaforge_pipeline_status{pipeline=\"orders\"} 1"), "{text}");
    }
    assert_eq!(http(&running.metrics, "GET", "/pipelines", "").0, 404);
    let done = running.end(rustix::process::Signal::TERM);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(!done.stderr.contains("geheim"), "{done:?}");
    for line in done.stderr.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        for member in ["ts", "level", "target", "msg"] {
            assert!(line[member].is_string(), "{member}: {line}");
        }
    }
}

#[test]
fn sigint_drains_too_and_logs_may_be_text() {
    let dir = scratch();
    std::fs::write(dir.path().join("p.yaml"), DOCUMENT).unwrap();
    let running =
        Running::start(dir.path(), &["--config", "p.yaml", "--log-format", "text", "--log-level", "debug"]);
    http(&running.api, "GET", "/healthz", "");
    let done = running.end(rustix::process::Signal::INT);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stderr.contains("drained") && !done.stderr.starts_with('{'), "{done:?}");
}

#[test]
fn a_port_in_use_exits_1() {
    let dir = scratch();
    std::fs::write(dir.path().join("p.yaml"), DOCUMENT).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--api-addr", "--metrics-addr"] {
        let args = match flag {
            "--api-addr" => ["--config", "p.yaml", "--api-addr", &address, "--metrics-addr", "off"],
            _ => ["--config", "p.yaml", "--api-addr", "off", "--metrics-addr", &address],
        };
        let done = Program::new(&args).dir(dir.path()).run();
        assert_eq!(done.code, 1, "{done:?}");
        assert!(done.stderr.contains(&address) && done.stderr.contains(flag), "{done:?}");
    }
}

#[test]
fn a_second_process_on_the_same_state_exits_1_and_the_first_runs_on() {
    let dir = scratch();
    std::fs::write(dir.path().join("p.yaml"), DOCUMENT).unwrap();
    let first = Running::start(dir.path(), &["--config", "p.yaml"]);
    let args = ["--config", "p.yaml", "--api-addr", "off", "--metrics-addr", "off"];
    let second = Program::new(&args).dir(dir.path()).run();
    assert_eq!(second.code, 1, "{second:?}");
    assert!(second.stderr.contains("state.locked"), "{second:?}");
    assert_eq!(http(&first.api, "GET", "/healthz", "").0, 200);
    assert_eq!(first.end(rustix::process::Signal::TERM).code, 0);
}

#[test]
fn a_checkpoint_file_that_does_not_parse_exits_1_and_stays() {
    let dir = scratch();
    std::fs::write(dir.path().join("p.yaml"), DOCUMENT).unwrap();
    let file = dir.path().join("data/df_checkpoints.json");
    std::fs::create_dir(dir.path().join("data")).unwrap();
    std::fs::write(&file, "{ torn").unwrap();
    let args = ["--config", "p.yaml", "--api-addr", "off", "--metrics-addr", "off"];
    let done = Program::new(&args).dir(dir.path()).run();
    assert_eq!((done.code, done.stderr.contains("df_checkpoints.json")), (1, true), "{done:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "{ torn");
}

#[test]
fn a_pipeline_made_over_the_api_is_back_without_config() {
    let dir = scratch();
    std::fs::write(dir.path().join("p.yaml"), DOCUMENT).unwrap();
    let running = Running::start(dir.path(), &["--config", "p.yaml"]);
    let made = DOCUMENT.replace("name: orders", "name: made").replace("slot: s", "slot: s2");
    let (status, body) = http(&running.api, "POST", "/pipelines", &made);
    assert_eq!(status, 200, "{body}");
    assert_eq!(running.end(rustix::process::Signal::TERM).code, 0);
    let running = Running::start(dir.path(), &[]);
    let made = running.until("/pipelines/made", |pipe| pipe["phase"] == "retrying");
    assert_eq!(made["origin"], "api");
    assert_eq!(made["spec"]["spec"]["source"]["config"]["dsn"], "${PG_DSN:-postgres://u:***@127.0.0.1:1/d}");
    assert_eq!(http(&running.api, "GET", "/pipelines/orders", "").0, 404);
    running.end(rustix::process::Signal::TERM);
}

#[test]
fn variables_alone_describe_a_pipeline() {
    let dir = scratch();
    let env =
        [("SOURCE_URL", "postgres://u:geheim@127.0.0.1:1/d"), ("TABLES", "public.orders, public.items")];
    let with = |more: &[(&'static str, &'static str)]| env.iter().chain(more).copied().collect::<Vec<_>>();
    let done = Program::new(&[]).dir(dir.path()).envs(&env).run();
    assert_eq!(done.code, 2, "{done:?}");
    assert!(
        done.stderr.contains("SINK_TYPE=starrocks, the default, is planned, not in this release"),
        "{done:?}"
    );
    let done =
        Program::new(&[]).dir(dir.path()).envs(&with(&[("SINK_TYPE", "redis"), ("FLUSH_SIZE", "x")])).run();
    assert!(done.stderr.contains("SINK_URL is required") && done.stderr.contains("FLUSH_SIZE"), "{done:?}");
    let redis = with(&[("SINK_TYPE", "redis"), ("SINK_URL", "redis://:geheim@127.0.0.1:1")]);
    let stdout = with(&[("SINK_TYPE", "stdout")]);
    let file = with(&[("SINK_TYPE", "file"), ("SINK_TARGET", "out.jsonl")]);
    for env in [redis, stdout, file] {
        let running = Running::start_with(dir.path(), &[], &env);
        let pipe = running.until("/pipelines/default", |pipe| pipe["phase"] == "retrying");
        assert_eq!((&pipe["origin"], &pipe["persisted"]), (&Value::from("env"), &Value::Bool(true)));
        assert_eq!(pipe["spec"]["spec"]["source"]["config"]["dsn"], "${SOURCE_URL}");
        let done = running.end(rustix::process::Signal::KILL);
        assert!(!done.stderr.contains("geheim"), "{done:?}");
    }
    // The same from a `.env` file.
    let text = "SOURCE_URL=postgres://u@127.0.0.1:1/d\nTABLES=public.a\nSINK_TYPE=stdout\n";
    std::fs::write(dir.path().join(".env"), text).unwrap();
    let running = Running::start(dir.path(), &[]);
    running.until("/pipelines/default", |pipe| pipe["phase"] == "retrying");
    assert_eq!(running.end(rustix::process::Signal::TERM).code, 0);
}

#[test]
fn idle_it_is_small() {
    let dir = scratch();
    std::fs::write(dir.path().join("p.yaml"), DOCUMENT).unwrap();
    let running = Running::start(dir.path(), &["--config", "p.yaml"]);
    running.until("/pipelines/orders", |pipe| pipe["phase"] == "retrying");
    let (_, text) = http(&running.metrics, "GET", "/metrics", "");
    let line = text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes ")).unwrap();
    let resident: u64 = line.parse().unwrap();
    // The released binary stays below 20 MiB; this one carries code that is not optimized.
    let limit = if cfg!(debug_assertions) { 30 << 20 } else { 20 << 20 };
    assert!(resident < limit, "{resident}");
    assert_eq!(running.end(rustix::process::Signal::TERM).code, 0);
}

#[test]
fn dead_letters_are_asked_for_over_the_api() {
    let dir = scratch();
    std::fs::write(dir.path().join("p.yaml"), DOCUMENT).unwrap();
    let running =
        Running::start_with(dir.path(), &["--config", "p.yaml"], &[("DELTAFORGE_API_TOKEN", "t0ken")]);
    let api = format!("http://{}", running.api);
    let dlq = |args: &[&str], token: &'static str| {
        let args: Vec<_> = ["dlq"].iter().chain(args).copied().chain(["--api", &api]).collect();
        Program::new(&args).env("DELTAFORGE_API_TOKEN", token).run()
    };
    let done = dlq(&["list", "--pipeline", "orders"], "t0ken");
    assert_eq!((done.code, done.stdout.trim()), (0, "0 dead letters"), "{done:?}");
    let done = dlq(&["--pipeline", "orders", "list", "--json", "--limit", "3", "--kind", "route"], "t0ken");
    let list: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(list, serde_json::json!({"entries": [], "next": null, "total": 0}));
    let done = dlq(&["purge", "--pipeline", "orders", "--ids", "1,2"], "t0ken");
    assert_eq!((done.code, done.stdout.trim()), (0, "0 purged"), "{done:?}");
    let done = dlq(&["retry", "--pipeline", "orders", "--all"], "t0ken");
    assert_eq!((done.code, done.stdout.trim()), (0, "0 tried again, 0 delivered, 0 failed"), "{done:?}");
    let done = dlq(&["list", "--pipeline", "nobody"], "t0ken");
    assert!(done.code == 1 && done.stderr.contains("no pipeline `nobody`"), "{done:?}");
    let done = dlq(&["list", "--pipeline", "orders"], "wr0ng");
    assert!(done.code == 1 && done.stderr.contains("token") && !done.stderr.contains("wr0ng"), "{done:?}");
    running.end(rustix::process::Signal::TERM);
    let done = dlq(&["list", "--pipeline", "orders", "--json"], "t0ken");
    let error: Value = serde_json::from_str(&done.stdout).unwrap();
    assert!(done.code == 1 && error["error"].as_str().unwrap().contains("does not answer"), "{done:?}");
}
