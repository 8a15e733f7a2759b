//! Every route over real HTTP: status codes, shapes, errors, access.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod http;
#[path = "../../engine/tests/support/mod.rs"]
mod support;

use deltaforge_core::Epoch;
use deltaforge_core::config::{Node, Secret};
use deltaforge_core::dead_letter::{NewDeadLetter, Room};
use deltaforge_core::metrics::{BuildInfo, Metrics};
use deltaforge_engine::config::{Document, Loader};
use deltaforge_engine::supervisor::{Origin, Supervisor, Timing};
use http::{Reply, Server};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use support::{Event, Script, Scripted, TestStore};

/// A served control plane, and what stands behind it.
struct World {
    server: Server,
    store: TestStore,
    launcher: Scripted,
    supervisor: Supervisor,
    loader: Loader,
}

impl World {
    async fn new() -> World {
        World::with(None, false).await
    }

    async fn with(token: Option<&str>, remote: bool) -> World {
        let (store, launcher) = (TestStore::default(), Scripted::default());
        let loader = support::loader(&support::Variables::default());
        let metrics = Metrics::new(BuildInfo { version: "1", commit: "c", target: "t" }).unwrap();
        let metrics = Arc::new(metrics);
        let timing = Timing {
            drain: Duration::from_millis(200),
            probe: Duration::from_secs(5),
            settle: Duration::from_secs(5),
        };
        let supervisor = Supervisor::new(
            store.shared(),
            Arc::new(launcher.clone()),
            loader.clone(),
            metrics.clone(),
            timing,
        );
        let api = deltaforge_control::Api {
            supervisor: supervisor.clone(),
            metrics,
            token: token.map(Secret::new),
            before_scrape: Arc::new(|| {}),
        };
        let server = Server::start(api, remote).await;
        World { server, store, launcher, supervisor, loader }
    }

    async fn get(&self, path: &str) -> Reply {
        self.server.send("GET", path, &[], "").await
    }

    async fn post(&self, path: &str, body: &Value) -> Reply {
        self.server.send("POST", path, &[("content-type", "application/json")], &body.to_string()).await
    }

    async fn patch(&self, path: &str, body: &Value) -> Reply {
        self.server.send("PATCH", path, &[("content-type", "application/json")], &body.to_string()).await
    }

    async fn delete(&self, path: &str) -> Reply {
        self.server.send("DELETE", path, &[], "").await
    }

    /// Makes the pipeline `name`.
    async fn create(&self, name: &str) -> Reply {
        let reply = self.post("/pipelines", &document(name)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        self.until(name, "streaming").await;
        reply
    }

    /// Waits until a pipeline shows a phase; gives it.
    async fn until(&self, name: &str, phase: &str) -> Value {
        loop {
            let pipe = self.get(&format!("/pipelines/{name}")).await.json();
            if pipe["phase"] == phase {
                return pipe;
            }
            tokio::task::yield_now().await;
        }
    }
}

fn document(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "tenant": "acme", "labels": {"team": "shop"}},
        "spec": {
            "source": {"type": "fake", "config": {"dsn": "fake://u:geheim@h/d", "password": "geheim"}},
            "sinks": [{"type": "null", "config": {"uri": "null://h"}}],
        },
    })
}

fn assert_problem(reply: &Reply, status: u16, code: &str) {
    let body = reply.json();
    assert_eq!((reply.status, body["code"].as_str()), (status, Some(code)), "{reply:?}");
    assert!(body["error"].is_string() && body.get("hint").is_some(), "{reply:?}");
    assert_eq!(body.get("errors").is_some(), code == "INVALID_SPEC", "{reply:?}");
    assert!(reply.header("x-request-id").is_some(), "{reply:?}");
}

#[tokio::test]
async fn health() {
    let world = World::new().await;
    let reply = world.get("/healthz").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "ok"));
    let reply = world.get("/readyz").await;
    assert_eq!((reply.status, reply.json()), (200, json!({"status": "ready", "pipelines": []})));
}

#[tokio::test]
async fn a_pipeline_that_does_not_move_makes_it_unready_with_the_reason() {
    let world = World::new().await;
    world.create("a").await;
    world.create("b").await;
    assert_eq!(world.get("/readyz").await.status, 200);
    world.launcher.happen("a", Event::Retry);
    world.until("a", "retrying").await;
    let reply = world.get("/readyz").await;
    let body = reply.json();
    assert_eq!((reply.status, &body["status"]), (503, &json!("unready")));
    assert_eq!(body["pipelines"][0]["error"]["code"], "fake.away");
    assert_eq!(body["pipelines"][1]["error"], Value::Null);
    // Who is not to run does not count.
    world.post("/pipelines/a/stop", &Value::Null).await;
    assert_eq!(world.get("/readyz").await.status, 200);
    world.launcher.happen("b", Event::Panic);
    let failed = world.until("b", "idle").await;
    assert_eq!(
        (&failed["status"], &failed["error"]["code"]),
        (&json!("failed"), &json!("engine.task_ended"))
    );
    assert_eq!(world.get("/readyz").await.status, 503);
}

#[tokio::test]
async fn create_read_list() {
    let world = World::new().await;
    let made = world.create("orders").await.json();
    assert_eq!((&made["name"], &made["status"]), (&json!("orders"), &json!("running")));
    let pipe = world.get("/pipelines/orders").await.json();
    for member in ["name", "status", "spec", "phase", "error", "started_at", "origin", "persisted", "lag"] {
        assert!(pipe.get(member).is_some(), "{member}: {pipe}");
    }
    assert_eq!(
        (&pipe["phase"], &pipe["origin"], &pipe["persisted"]),
        (&json!("streaming"), &json!("api"), &json!(true))
    );
    assert_eq!(pipe["spec"]["metadata"]["tenant"], "acme");
    assert!(pipe["started_at"].as_str().unwrap().ends_with('Z'), "{pipe}");
    // What was answered is stored, with its secrets, for the next start.
    assert!(world.store.document("orders").unwrap().contains("geheim"));

    world.create("b").await;
    world.post("/pipelines/b/pause", &Value::Null).await;
    let names = |reply: Reply| {
        let pipes = reply.json();
        pipes.as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(world.get("/pipelines").await), ["b", "orders"]);
    assert_eq!(names(world.get("/pipelines?status=paused").await), ["b"]);
    assert_eq!(names(world.get("/pipelines?label=team=shop&status=running").await), ["orders"]);
    assert_eq!(names(world.get("/pipelines?label=team%3Dother").await), Vec::<String>::new());
    assert_problem(&world.get("/pipelines?label=team").await, 400, "INVALID_REQUEST");
    let reply = world.get("/pipelines?status=runing").await;
    assert_problem(&reply, 400, "INVALID_REQUEST");
    assert_eq!(reply.json()["hint"], "did you mean `running`?");
    assert_problem(&world.get("/pipelines/none").await, 404, "PIPELINE_NOT_FOUND");
}

#[tokio::test]
async fn secrets_never_show() {
    let world = World::new().await;
    let mut replies =
        vec![world.create("a").await, world.get("/pipelines").await, world.get("/readyz").await];
    replies.push(world.patch("/pipelines/a", &json!({"spec": {"batch": {"max_events": 7}}})).await);
    replies.push(world.post("/pipelines", &document("a")).await);
    let mut broken = document("b");
    broken["spec"]["source"]["config"]["password"] = json!(["geheim"]);
    replies.push(world.post("/pipelines", &broken).await);
    replies.push(world.post("/validate", &broken).await);
    for reply in replies {
        assert!(!reply.body.contains("geheim"), "{reply:?}");
    }
    // A masked secret that is sent back means the stored one.
    let mut shown = world.get("/pipelines/a").await.json()["spec"].clone();
    shown["spec"]["batch"] = json!({"max_events": 8});
    let reply = world.patch("/pipelines/a", &shown).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let stored = world.store.document("a").unwrap();
    assert!(stored.contains("geheim") && !stored.contains("***"), "{stored}");
}

#[tokio::test]
async fn create_refusals() {
    let world = World::new().await;
    world.create("a").await;
    assert_problem(&world.post("/pipelines", &document("a")).await, 409, "PIPELINE_ALREADY_EXISTS");
    let mut wrong = document("b");
    wrong["spec"]["batch"] = json!({"max_evnts": 1, "max_events": "many"});
    let reply = world.post("/pipelines", &wrong).await;
    assert_problem(&reply, 400, "INVALID_SPEC");
    let body = reply.json();
    assert_eq!(body["errors"].as_array().unwrap().len(), 2, "{body}");
    let unknown = body["errors"].as_array().unwrap().iter().find(|e| e["class"] == "unknown").unwrap();
    assert_eq!(unknown["path"], "spec.batch.max_evnts");
    assert_eq!(unknown["hint"], "did you mean `max_events`?");

    let mut same_source = document("b");
    same_source["spec"]["source"]["config"]["id"] = json!("a-fake");
    let reply = world.post("/pipelines", &same_source).await;
    assert_problem(&reply, 400, "INVALID_SPEC");
    assert_eq!(reply.json()["errors"][0]["class"], "conflict");
    assert_problem(&world.get("/pipelines/b").await, 404, "PIPELINE_NOT_FOUND");

    world.store.fail(true);
    assert_problem(&world.post("/pipelines", &document("c")).await, 503, "STORE_UNAVAILABLE");
    world.store.fail(false);
    assert_problem(&world.get("/pipelines/c").await, 404, "PIPELINE_NOT_FOUND");
    assert_eq!(world.launcher.launched().len(), 1);
    world.create("c").await;
}

#[tokio::test]
async fn bodies() {
    let world = World::new().await;
    let yaml = "metadata: {name: y}\nspec:\n  source: {type: fake, config: {dsn: d}}\n  sinks: [{type: \"null\", config: {uri: u}}]\n";
    let send = async |kind: &'static str, body: &'static str| {
        world.server.send("POST", "/pipelines", &[("content-type", kind)], body).await
    };
    assert_eq!(send("application/yaml; charset=utf-8", yaml).await.status, 200);
    let reply = send("application/json", "metadata: {name: y}").await;
    assert_problem(&reply, 400, "INVALID_REQUEST");
    assert!(reply.json()["hint"].as_str().unwrap().contains("application/yaml"), "{reply:?}");
    for (kind, body) in [
        ("application/json", "{"),
        ("application/json", ""),
        ("application/yaml", "a: [1"),
        ("application/yaml", "a: 1\n---\nb: 2\n"),
        ("text/html", "{}"),
    ] {
        assert_problem(&send(kind, body).await, 400, "INVALID_REQUEST");
    }
    let twice = send("application/json", r#"{"metadata":{"name":"a","name":"b"}}"#).await;
    assert_eq!(twice.status, 400, "{twice:?}");

    let large = format!("\"{}\"", "x".repeat(4 << 20));
    let reply =
        world.server.send("POST", "/pipelines", &[("content-type", "application/json")], &large).await;
    assert_problem(&reply, 413, "INVALID_REQUEST");
}

#[tokio::test]
async fn patching() {
    let world = World::new().await;
    world.create("a").await;
    let reply = world.patch("/pipelines/a", &json!({"spec": {"batch": {"max_events": 1000}}})).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.json()["spec"]["spec"]["batch"]["max_events"], 1000);
    assert_eq!(world.launcher.launched().last().unwrap().1, 1000);
    assert!(world.store.document("a").unwrap().contains("1000"));
    // null removes; lists replace.
    let reply = world.patch("/pipelines/a", &json!({"spec": {"batch": null}})).await;
    assert_eq!(reply.json()["spec"]["spec"]["batch"]["max_events"], 500, "{reply:?}");
    let kind = [("content-type", "application/merge-patch+json")];
    assert_eq!(world.server.send("PATCH", "/pipelines/a", &kind, "{}").await.status, 200);

    let launches = world.launcher.launched().len();
    assert_problem(&world.patch("/pipelines/none", &json!({})).await, 404, "PIPELINE_NOT_FOUND");
    let renamed = json!({"metadata": {"name": "b"}});
    assert_problem(&world.patch("/pipelines/a", &renamed).await, 400, "PIPELINE_NAME_MISMATCH");
    assert_problem(&world.patch("/pipelines/a", &json!({"spec": {"sinks": []}})).await, 400, "INVALID_SPEC");
    assert_problem(&world.patch("/pipelines/a", &json!([])).await, 400, "INVALID_REQUEST");
    let refused = json!({"spec": {"source": {"config": {"dsn": "fake://refused"}}}});
    let reply = world.patch("/pipelines/a", &refused).await;
    assert_problem(&reply, 400, "START_FAILED");
    assert_eq!(reply.json()["hint"], "GRANT");
    // None of them touched the running pipeline.
    assert_eq!(world.launcher.launched().len(), launches);

    world.launcher.script("a", Script::Fails);
    let reply = world.patch("/pipelines/a", &json!({"spec": {"batch": {"max_events": 3}}})).await;
    assert_problem(&reply, 400, "START_FAILED");
    assert!(!world.store.document("a").unwrap().contains("\"max_events\":3"));
}

#[tokio::test]
async fn pause_resume_stop() {
    let world = World::new().await;
    world.create("a").await;
    let act = async |verb: &str| world.post(&format!("/pipelines/a/{verb}"), &Value::Null).await;
    for (verb, status) in [
        ("resume", "running"),
        ("pause", "paused"),
        ("pause", "paused"),
        ("resume", "running"),
        ("stop", "stopped"),
        ("stop", "stopped"),
        ("resume", "running"),
    ] {
        let reply = act(verb).await;
        assert_eq!((reply.status, &reply.json()["status"]), (200, &json!(status)), "{verb}");
    }
    act("stop").await;
    let reply = act("pause").await;
    assert_problem(&reply, 409, "STATE_CONFLICT");
    assert!(reply.json()["hint"].as_str().unwrap().contains("resume"), "{reply:?}");
    let stopped = world.get("/pipelines/a").await.json();
    assert_eq!((&stopped["phase"], &stopped["lag"]), (&json!("idle"), &Value::Null));
    for verb in ["pause", "resume", "stop"] {
        let reply = world.post(&format!("/pipelines/none/{verb}"), &Value::Null).await;
        assert_problem(&reply, 404, "PIPELINE_NOT_FOUND");
    }
}

#[tokio::test]
async fn deleting() {
    let world = World::new().await;
    for name in ["a", "b", "c"] {
        world.create(name).await;
        world.store.checkpoint(name, &format!("{name}-fake"), r#"{"lsn":"0/1"}"#);
    }
    let reply = world.delete("/pipelines/a").await;
    assert_eq!((reply.status, reply.body.as_str()), (204, ""));
    assert_problem(&world.get("/pipelines/a").await, 404, "PIPELINE_NOT_FOUND");
    assert_problem(&world.get("/checkpoints/a").await, 404, "PIPELINE_NOT_FOUND");
    assert_eq!(world.store.document("a"), None);
    assert_problem(&world.delete("/pipelines/a").await, 404, "PIPELINE_NOT_FOUND");
    let reply = world.delete("/pipelines/b?keep_stat=true").await;
    assert_problem(&reply, 400, "INVALID_REQUEST");
    assert_eq!(reply.json()["hint"], "did you mean `keep_state`?");
    assert_problem(&world.delete("/pipelines/b?keep_state=perhaps").await, 400, "INVALID_REQUEST");
    assert_eq!(world.delete("/pipelines/b?keep_state=true&drop_slot=true").await.status, 204);
    assert!(support::REMOVED.lock().unwrap().contains(&"b-fake".to_string()));
    assert_eq!(world.get("/checkpoints/b").await.status, 200);
    // What is in the way is said, and the pipeline is there to try again.
    let busy = json!({"spec": {"source": {"config": {"dsn": "fake://busy"}}}});
    assert_eq!(world.patch("/pipelines/c", &busy).await.status, 200);
    assert_problem(&world.delete("/pipelines/c?drop_slot=true").await, 409, "STATE_CONFLICT");
    assert_eq!(world.get("/pipelines/c").await.json()["status"], "stopped");
    world.store.fail(true);
    assert_problem(&world.delete("/pipelines/c").await, 503, "STORE_UNAVAILABLE");
}

#[tokio::test]
async fn checkpoints() {
    let world = World::new().await;
    world.create("a").await;
    assert_eq!(world.get("/checkpoints").await.json(), json!([]));
    assert_problem(&world.get("/checkpoints/a").await, 404, "CHECKPOINT_NOT_FOUND");
    assert_problem(&world.get("/checkpoints/none").await, 404, "PIPELINE_NOT_FOUND");
    world.store.checkpoint("a", "a-fake", r#"{"lsn":"0/1"}"#);
    world.store.checkpoint("a", "a-fake", r#"{"lsn":"0/2"}"#);
    let one = world.get("/checkpoints/a").await.json();
    assert_eq!(
        (&one["pipeline"], &one["source_id"], &one["version"]),
        (&json!("a"), &json!("a-fake"), &json!(2))
    );
    assert_eq!((&one["position"], &one["size_bytes"]), (&json!({"lsn": "0/2"}), &json!(64)));
    assert_eq!(one["sinks"]["a-null"]["position"], json!({"lsn": "0/2"}));
    assert!(one["saved_at"].is_string() && one["age_seconds"].is_number(), "{one}");
    assert_eq!(world.get("/checkpoints").await.json().as_array().unwrap().len(), 1);
    let versions = world.get("/checkpoints/a/versions").await.json();
    assert_eq!((&versions[0]["version"], &versions[1]["position"]), (&json!(2), &json!({"lsn": "0/1"})));

    let back = async |body: Value| world.post("/checkpoints/a/rollback", &body).await;
    assert_problem(&back(json!({"version": 1})).await, 409, "STATE_CONFLICT");
    world.post("/pipelines/a/pause", &Value::Null).await;
    assert_problem(&back(json!({"version": 9})).await, 404, "CHECKPOINT_NOT_FOUND");
    for body in [json!({}), json!({"version": "1"}), json!({"versoin": 1}), Value::Null] {
        assert_problem(&back(body).await, 400, "INVALID_REQUEST");
    }
    let launches = world.launcher.launched().len();
    let reply = back(json!({"version": 1})).await;
    assert_eq!((reply.status, &reply.json()["version"]), (200, &json!(3)), "{reply:?}");
    assert_eq!(reply.json()["position"], json!({"lsn": "0/1"}));
    // The paused loop was replaced by one that starts from there.
    assert_eq!(world.launcher.launched().len(), launches + 1);

    assert_problem(&world.delete("/checkpoints/a").await, 409, "STATE_CONFLICT");
    world.post("/pipelines/a/stop", &Value::Null).await;
    assert_eq!(back(json!({"version": 2})).await.status, 200);
    assert_eq!(world.delete("/checkpoints/a").await.status, 204);
    assert_problem(&world.get("/checkpoints/a").await, 404, "CHECKPOINT_NOT_FOUND");
    world.store.checkpoint("a", "a-fake", "{}");
    world.store.without_versions();
    assert_problem(&world.get("/checkpoints/a/versions").await, 409, "NOT_SUPPORTED");
    assert_problem(&back(json!({"version": 1})).await, 409, "NOT_SUPPORTED");
    assert_eq!(world.get("/checkpoints/a").await.json()["version"], Value::Null);
    world.store.fail(true);
    assert_problem(&world.get("/checkpoints").await, 503, "STORE_UNAVAILABLE");
}

#[tokio::test]
async fn validating() {
    let world = World::new().await;
    let reply = world.post("/validate", &document("v")).await;
    let expected =
        json!({"valid": true, "pipeline": "v", "source_type": "fake", "sink_count": 1, "warnings": []});
    assert_eq!((reply.status, reply.json()), (200, expected));
    let mut wrong = document("v");
    wrong["spec"]["sinks"] = json!([]);
    let reply = world.post("/validate", &wrong).await;
    assert_problem(&reply, 400, "INVALID_SPEC");
    assert_eq!(reply.json()["valid"], json!(false));
    assert!(world.launcher.launched().is_empty());
    assert_eq!(world.get("/pipelines").await.json(), json!([]));
}

#[tokio::test]
async fn routes_and_methods() {
    let world = World::new().await;
    let reply = world.get("/nowhere?x=1").await;
    assert_problem(&reply, 404, "ROUTE_NOT_FOUND");
    for path in [
        "/",
        "/openapi.json",
        "/pipelines/a/schemas",
        "/pipelines/a/schemas/d/t",
        "/pipelines/a/sensing/stats",
        "/pipelines/a/sensing/schemas/t/json-schema",
        "/pipelines/a/drift/t",
        "/pipelines/a/tail?tables=x",
        "/pipelines/a/snapshots/s-1",
    ] {
        let reply = world.get(path).await;
        assert_problem(&reply, 404, "ROUTE_NOT_FOUND");
        assert_eq!(reply.json()["hint"], "planned, not in this release", "{path}");
    }
    for path in ["/pipelines/a/events", "/pipelines/a/schemas/reload", "/pipelines/a/snapshots"] {
        assert_problem(&world.post(path, &json!({})).await, 404, "ROUTE_NOT_FOUND");
    }
    let reply = world.server.send("PUT", "/pipelines/a", &[], "").await;
    assert_problem(&reply, 405, "INVALID_REQUEST");
    let allowed = reply.header("allow").unwrap();
    for method in ["GET", "HEAD", "PATCH", "DELETE"] {
        assert!(allowed.contains(method), "{allowed}");
    }
    let reply = world.get("/pipelines/a/pause").await;
    assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")));
    let reply = world.server.send("HEAD", "/pipelines", &[], "").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
    let reply = world.get("/healthz?verbose=1").await;
    assert_problem(&reply, 400, "INVALID_REQUEST");
}

#[tokio::test]
async fn request_ids() {
    let world = World::new().await;
    let own = world.server.send("GET", "/healthz", &[("x-request-id", "abc-1")], "").await;
    assert_eq!(own.header("x-request-id"), Some("abc-1"));
    let strange = world.server.send("GET", "/healthz", &[("x-request-id", "a b")], "").await;
    assert_eq!(strange.header("x-request-id").unwrap().len(), 36);
}

#[tokio::test]
async fn metrics() {
    let world = World::new().await;
    world.create("a").await;
    world.get("/nowhere").await;
    let reply = world.get("/metrics").await;
    assert_eq!(reply.status, 200);
    assert!(reply.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    for line in [
        r#"deltaforge_api_requests_total{method="POST",route="/pipelines",status="200"} 1"#,
        r#"deltaforge_api_requests_total{method="GET",route="_none",status="404"} 1"#,
        r#"deltaforge_pipeline_actions_total{action="create",outcome="ok",pipeline="a"} 1"#,
        r#"deltaforge_pipeline_status{pipeline="a"} 1"#,
        r#"deltaforge_pipeline_phase{phase="streaming",pipeline="a"} 1"#,
        "deltaforge_running_pipelines 1",
        "deltaforge_pipelines_total 1",
    ] {
        assert!(reply.body.contains(line), "{line}\n{}", reply.body);
    }
    let only = Server::start_metrics(world.server.api.clone()).await;
    assert_eq!(only.send("GET", "/metrics", &[], "").await.status, 200);
    assert_problem(&only.send("GET", "/pipelines", &[], "").await, 404, "ROUTE_NOT_FOUND");
    world.delete("/pipelines/a").await;
    assert!(!world.get("/metrics").await.body.contains(r#"pipeline="a""#));
}

/// The table of access: with and without token, from this machine and from elsewhere.
#[tokio::test]
async fn access() {
    const GOOD: (&str, &str) = ("authorization", "Bearer s3cret");
    const BAD: (&str, &str) = ("authorization", "Bearer s3cre");
    for (token, remote, sent, reading, changing) in [
        (None, false, None, 200, 404),
        (None, true, None, 200, 403),
        (None, true, Some(GOOD), 200, 403),
        (Some("s3cret"), false, None, 401, 401),
        (Some("s3cret"), false, Some(BAD), 401, 401),
        (Some("s3cret"), false, Some(("authorization", "s3cret")), 401, 401),
        (Some("s3cret"), false, Some(GOOD), 200, 404),
        (Some("s3cret"), true, Some(("authorization", "bearer s3cret")), 200, 404),
    ] {
        let world = World::with(token, remote).await;
        let headers: Vec<_> = sent.into_iter().collect();
        let case = format!("token {token:?}, remote {remote}, sent {sent:?}");
        for path in ["/pipelines", "/checkpoints"] {
            assert_eq!(world.server.send("GET", path, &headers, "").await.status, reading, "{case}: {path}");
        }
        for (method, path) in [
            ("DELETE", "/pipelines/x"),
            ("POST", "/pipelines/x/stop"),
            ("DELETE", "/checkpoints/x"),
            ("PATCH", "/pipelines/x"),
        ] {
            let reply = world.server.send(method, path, &headers, "{}").await;
            assert_eq!(reply.status, changing, "{case}: {method} {path}");
            match changing {
                401 => assert_problem(&reply, 401, "UNAUTHORIZED"),
                403 => assert_problem(&reply, 403, "FORBIDDEN"),
                _ => {}
            }
        }
        for path in ["/healthz", "/readyz", "/metrics"] {
            assert_eq!(world.server.send("GET", path, &[], "").await.status, 200, "{case}: {path}");
        }
    }
}

#[tokio::test]
async fn ready_without_the_token_tells_little() {
    let world = World::with(Some("s3cret"), false).await;
    let authorized = [("authorization", "Bearer s3cret"), ("content-type", "application/json")];
    let made = world.server.send("POST", "/pipelines", &authorized, &document("a").to_string()).await;
    assert_eq!(made.status, 200, "{made:?}");
    let outline = world.get("/readyz").await.json()["pipelines"][0].clone();
    let members: Vec<_> = outline.as_object().unwrap().keys().cloned().collect();
    assert_eq!(members, ["name", "status", "phase"]);
    let full = world.server.send("GET", "/readyz", &authorized, "").await.json();
    assert!(full["pipelines"][0]["spec"].is_object(), "{full}");
}

#[tokio::test]
async fn pages_of_other_sites_change_nothing() {
    let world = World::new().await;
    let host = format!("localhost:{}", world.server.address.port());
    let origin = format!("http://{host}");
    let evil = format!("evil.example:{}", world.server.address.port());
    for (host, origin, status) in [
        (host.as_str(), Some(origin.as_str()), 404),
        (host.as_str(), Some("http://evil.example"), 403),
        (host.as_str(), Some("null"), 403),
        (evil.as_str(), None, 403),
        (host.as_str(), None, 404),
    ] {
        let mut headers = vec![("host", host)];
        headers.extend(origin.map(|origin| ("origin", origin)));
        let reply = world.server.send("POST", "/pipelines/x/stop", &headers, "").await;
        assert_eq!(reply.status, status, "{host} {origin:?}");
        assert_eq!(world.server.send("GET", "/pipelines", &headers, "").await.status, 200);
    }
    let world = World::with(Some("t"), true).await;
    let headers = [("host", "forge.example"), ("authorization", "Bearer t")];
    assert_eq!(world.server.send("POST", "/pipelines/x/stop", &headers, "").await.status, 404);
    let headers =
        [("host", "forge.example"), ("authorization", "Bearer t"), ("origin", "https://evil.example")];
    assert_eq!(world.server.send("POST", "/pipelines/x/stop", &headers, "").await.status, 403);
}

#[tokio::test]
async fn a_client_that_goes_away_ends_nothing_half_way() {
    let world = World::new().await;
    world.create("a").await;
    let body = json!({"spec": {"batch": {"max_events": 42}}}).to_string();
    world
        .server
        .send_and_leave("PATCH", "/pipelines/a", &[("content-type", "application/json")], &body)
        .await;
    loop {
        let pipe = world.get("/pipelines/a").await.json();
        if pipe["spec"]["spec"]["batch"]["max_events"] == 42 {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(world.store.document("a").unwrap().contains("42"));
}

#[tokio::test]
async fn a_pipeline_of_a_file_is_changed_until_the_restart() {
    let world = World::new().await;
    let document: Document = world.loader.document(&Node::from_json(&document("f")), true).unwrap();
    world.supervisor.load(vec![(document, Origin::File)]).await.unwrap();
    let pipe = world.until("f", "streaming").await;
    assert_eq!((&pipe["origin"], &pipe["persisted"]), (&json!("file"), &json!(true)));
    let reply = world.patch("/pipelines/f", &json!({"spec": {"batch": {"max_events": 9}}})).await;
    assert_eq!((&reply.json()["persisted"], world.store.document("f")), (&json!(false), None));
}

fn letter(n: u64) -> NewDeadLetter {
    NewDeadLetter {
        sink: if n.is_multiple_of(2) { "a" } else { "b" }.into(),
        kind: "too_large".into(),
        message: "redis.event_too_large: too large".into(),
        event_id: format!("event-{n}"),
        position: format!(r#"{{"lsn":"0/{n:X}"}}"#),
        stored_ms: 1_700_000_000_000,
        event: format!(r#"{{"after":{{"id":{n}}}}}"#),
        frozen: frozen(),
        truncated: n == 5,
    }
}

/// Any event: what is in it does not matter here.
fn frozen() -> Vec<u8> {
    use deltaforge_core::batch::{BatchBuilder, Limits, freeze};
    use deltaforge_core::{EventId, Op, TableName, TableSchema};
    let limits = Limits { max_events: 9, max_bytes: 9999, respect_source_tx: true };
    let mut builder = BatchBuilder::new(limits, None, 0);
    let name = TableName::bare("d", "t");
    let table = builder.schema(Arc::new(TableSchema::new(name, Vec::new(), Vec::new(), Vec::new())));
    builder.event(Op::Create, table).finish(EventId([7; 16]));
    builder.advance(|json| json.extend_from_slice(b"{}"));
    freeze(&builder.cut().unwrap(), EventId([7; 16])).unwrap()
}

async fn world_with_letters() -> World {
    let world = World::new().await;
    world.create("orders").await;
    let source_id = "orders-fake";
    let room = Room { max_entries: 99, drop_oldest: false };
    for n in 1..=5 {
        let stored = world.store.shared().append_dead_letter(source_id, letter(n), room, Epoch(1)).await;
        stored.unwrap();
    }
    world
}

#[tokio::test]
async fn dead_letters_are_listed_and_purged() {
    let world = world_with_letters().await;
    let page = world.get("/pipelines/orders/dlq?limit=2").await.json();
    assert_eq!((&page["total"], &page["next"]), (&json!(5), &json!(2)));
    assert_eq!(
        page["entries"][0],
        json!({
            "id": 1, "stored_at": "2023-11-14T22:13:20.000Z", "sink": "b", "kind": "too_large",
            "message": "redis.event_too_large: too large", "attempts": 1, "event_id": "event-1",
            "position": {"lsn": "0/1"}, "event": {"after": {"id": 1}}, "truncated": false,
        })
    );
    let page = world.get("/pipelines/orders/dlq?sink=b&after=1").await.json();
    let ids: Vec<_> = page["entries"].as_array().unwrap().iter().map(|e| e["id"].clone()).collect();
    assert_eq!((ids, &page["next"], &page["total"]), (vec![json!(3), json!(5)], &Value::Null, &json!(3)));
    for bad in ["limit=0", "limit=1001", "after=x", "kinds=x"] {
        let reply = world.get(&format!("/pipelines/orders/dlq?{bad}")).await;
        assert_problem(&reply, 400, "INVALID_REQUEST");
    }
    assert_problem(&world.get("/pipelines/none/dlq").await, 404, "PIPELINE_NOT_FOUND");
    for bad in ["", "?all=false", "?ids=", "?ids=1,x", "?ids=1&all=true"] {
        let reply = world.delete(&format!("/pipelines/orders/dlq{bad}")).await;
        assert_problem(&reply, 400, "INVALID_REQUEST");
    }
    assert_eq!(world.delete("/pipelines/orders/dlq?ids=1,3,77").await.json(), json!({"purged": 2}));
    assert_eq!(world.delete("/pipelines/orders/dlq?all=true").await.json(), json!({"purged": 3}));
    assert_eq!(world.get("/pipelines/orders/dlq").await.json()["total"], 0);
    world.store.fail(true);
    assert_problem(&world.get("/pipelines/orders/dlq").await, 503, "STORE_UNAVAILABLE");
}

#[tokio::test]
async fn dead_letters_are_tried_again_while_the_pipeline_runs() {
    let world = world_with_letters().await;
    for bad in
        [json!({}), json!({"ids": []}), json!({"ids": ["1"]}), json!({"all": true, "ids": [1]}), json!([1])]
    {
        let reply = world.post("/pipelines/orders/dlq/retry", &bad).await;
        assert_problem(&reply, 400, "INVALID_REQUEST");
    }
    // The scripted sinks take what has an even number.
    let reply = world.post("/pipelines/orders/dlq/retry", &json!({"ids": [3, 2, 2]})).await;
    assert_eq!(reply.json(), json!({"retried": 2, "delivered": 1, "failed": 1}));
    let page = world.get("/pipelines/orders/dlq").await.json();
    let left: Vec<_> =
        page["entries"].as_array().unwrap().iter().map(|e| (&e["id"], &e["attempts"])).collect();
    let expected = [(1, 1), (3, 2), (4, 1), (5, 1)].map(|(id, attempts)| (json!(id), json!(attempts)));
    assert_eq!(left, expected.iter().map(|(id, attempts)| (id, attempts)).collect::<Vec<_>>());
    let reply = world.post("/pipelines/orders/dlq/retry", &json!({"all": true})).await;
    assert_eq!(reply.json(), json!({"retried": 4, "delivered": 1, "failed": 3}));
    let page = world.get("/pipelines/orders/dlq").await.json();
    assert_eq!(page["entries"][2]["attempts"], 1, "what is cut is not tried");
    world.post("/pipelines/orders/stop", &json!({})).await;
    let reply = world.post("/pipelines/orders/dlq/retry", &json!({"all": true})).await;
    assert_problem(&reply, 409, "STATE_CONFLICT");
    assert_eq!(world.get("/pipelines/orders/dlq").await.json()["total"], 3);
}

#[tokio::test]
async fn rows_are_not_for_everybody() {
    let remote = World::with(None, true).await;
    assert_problem(&remote.get("/pipelines/orders/dlq").await, 403, "FORBIDDEN");
    assert_eq!(remote.get("/pipelines").await.status, 200);
    let world = World::new().await;
    let from_page = [("origin", "http://evil.example")];
    let reply = world.server.send("GET", "/pipelines/orders/dlq", &from_page, "").await;
    assert_problem(&reply, 403, "FORBIDDEN");
    let world = World::with(Some("t0ken"), true).await;
    assert_problem(&world.get("/pipelines/orders/dlq").await, 401, "UNAUTHORIZED");
    let reply =
        world.server.send("GET", "/pipelines/orders/dlq", &[("authorization", "Bearer t0ken")], "").await;
    assert_problem(&reply, 404, "PIPELINE_NOT_FOUND");
}
