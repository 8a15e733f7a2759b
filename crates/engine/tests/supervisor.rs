//! The supervisor with scripted pipelines: what survives a restart, what a broken change leaves, what an end looks like.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use deltaforge_core::config::Node;
use deltaforge_core::metrics::{BuildInfo, Metrics};
use deltaforge_engine::config::Loader;
use deltaforge_engine::status::{Phase, State, Status};
use deltaforge_engine::supervisor::{Delete, Filter, Origin, Refusal, Supervisor, Timing};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use support::{Event, Script, Scripted, TestStore, Variables};
use tokio::time::Instant;

struct World {
    supervisor: Supervisor,
    store: TestStore,
    launcher: Scripted,
    variables: Variables,
    loader: Loader,
    metrics: Arc<Metrics>,
}

impl World {
    fn new() -> World {
        World::on(TestStore::default(), Variables::default())
    }

    /// Another process on the same store.
    fn on(store: TestStore, variables: Variables) -> World {
        let launcher = Scripted::default();
        let loader = support::loader(&variables);
        let metrics = Arc::new(Metrics::new(BuildInfo { version: "1", commit: "c", target: "t" }).unwrap());
        let supervisor = Supervisor::new(
            store.shared(),
            Arc::new(launcher.clone()),
            loader.clone(),
            metrics.clone(),
            Timing::default(),
        );
        World { supervisor, store, launcher, variables, loader, metrics }
    }

    async fn create(&self, name: &str) {
        self.supervisor.create(document(name)).await.unwrap();
        self.until(name, |status| status.phase == Phase::Streaming).await;
    }

    /// Waits until a pipeline's condition is as wanted; gives it.
    async fn until(&self, name: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        loop {
            let status = self.status(name);
            if wanted(&status) {
                return status;
            }
            tokio::task::yield_now().await;
        }
    }

    fn status(&self, name: &str) -> Status {
        self.supervisor.get(name).unwrap().status
    }

    fn names(&self) -> Vec<String> {
        self.supervisor.list(&Filter::default()).into_iter().map(|info| info.name).collect()
    }

    async fn patch(&self, name: &str, patch: Value) -> Result<Value, Refusal> {
        self.supervisor.patch(name, Node::from_json(&patch)).await.map(|info| info.document)
    }

    async fn load(&self, files: &[Value]) {
        let read = |json: &Value| (self.loader.document(&Node::from_json(json), true).unwrap(), Origin::File);
        self.supervisor.load(files.iter().map(read).collect()).await.unwrap();
    }
}

fn json_of(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "source": {"type": "fake", "config": {"dsn": "fake://h/d"}},
            "sinks": [{"type": "null", "config": {"uri": "null://h"}}],
        },
    })
}

fn document(name: &str) -> Node {
    Node::from_json(&json_of(name))
}

fn max_events(n: usize) -> Value {
    json!({"spec": {"batch": {"max_events": n}}})
}

#[tokio::test]
async fn what_the_api_made_is_back_after_a_restart_unexpanded() {
    let world = World::new();
    world.variables.set("DSN", "fake://u:geheim@h/d");
    let mut json = json_of("a");
    json["spec"]["source"]["config"]["dsn"] = json!("${DSN}");
    world.supervisor.create(Node::from_json(&json)).await.unwrap();
    world.patch("a", max_events(7)).await.unwrap();
    let stored = world.store.document("a").unwrap();
    assert!(stored.contains("${DSN}") && !stored.contains("geheim"), "{stored}");
    assert!(world.supervisor.shutdown(Duration::from_secs(1)).await);

    let later = World::on(world.store.clone(), world.variables.clone());
    later.load(&[]).await;
    let info = later.supervisor.get("a").unwrap();
    assert_eq!((info.origin, info.persisted), (Origin::Api, true));
    assert_eq!(info.document["spec"]["source"]["config"]["dsn"], "${DSN}");
    assert_eq!(later.launcher.launched(), [("a".to_string(), 7)]);
}

#[tokio::test]
async fn a_stored_document_that_no_longer_validates_is_shown_and_can_be_mended() {
    let world = World::new();
    world.variables.set("DSN", "x");
    let mut json = json_of("broken");
    json["spec"]["source"]["config"]["dsn"] = json!("${DSN}");
    world.supervisor.create(Node::from_json(&json)).await.unwrap();
    world.create("whole").await;

    let later = World::on(world.store.clone(), Variables::default());
    later.load(&[]).await;
    assert_eq!(later.names(), ["broken", "whole"]);
    let status = later.status("broken");
    assert_eq!((status.state, status.is_ready()), (State::Failed, false));
    assert!(status.trouble.unwrap().message.contains("DSN"));
    assert!(later.metrics.render().contains("deltaforge_pipeline_status{pipeline=\"broken\"} -1"));
    assert!(matches!(later.supervisor.resume("broken").await, Err(Refusal::InvalidSpec(_))));
    later.variables.set("DSN", "x");
    later.supervisor.resume("broken").await.unwrap();
    later.until("broken", |status| status.phase == Phase::Streaming).await;
    // It can be deleted as well.
    let last = World::on(world.store.clone(), Variables::default());
    last.load(&[]).await;
    last.supervisor.delete("broken", Delete::default()).await.unwrap();
    assert_eq!(world.store.document("broken"), None);
}

#[tokio::test]
async fn a_file_wins_over_a_stored_document() {
    let world = World::new();
    world.create("a").await;
    let later = World::on(world.store.clone(), Variables::default());
    let mut file = json_of("a");
    file["spec"]["batch"] = json!({"max_events": 99});
    later.load(&[file]).await;
    assert_eq!(later.launcher.launched(), [("a".to_string(), 99)]);
    assert_eq!(later.supervisor.get("a").unwrap().origin, Origin::File);
    // A stored pipeline whose source id a file has taken is shown, and does not run.
    let later = World::on(world.store.clone(), Variables::default());
    let mut file = json_of("b");
    file["spec"]["source"]["config"]["id"] = json!("a-fake");
    later.load(&[file]).await;
    assert_eq!(later.launcher.launched().len(), 1);
    assert!(later.status("a").trouble.unwrap().message.contains("`b`"));
}

#[tokio::test]
async fn a_change_that_does_not_start_leaves_the_old_pipeline_running() {
    let world = World::new();
    world.create("a").await;
    world.patch("a", max_events(10)).await.unwrap();
    let stored = world.store.document("a");
    world.launcher.script_once("a", Script::Fails);
    let refusal = world.patch("a", max_events(20)).await.unwrap_err();
    assert!(
        matches!(&refusal, Refusal::StartFailed(trouble) if trouble.code == "fake.refused"),
        "{refusal:?}"
    );
    let status = world.until("a", |status| status.phase == Phase::Streaming).await;
    assert_eq!((status.state, status.trouble), (State::Running, None));
    assert_eq!(world.supervisor.get("a").unwrap().document["spec"]["batch"]["max_events"], 10);
    let starts: Vec<usize> = world.launcher.launched().into_iter().map(|(_, n)| n).collect();
    assert_eq!(starts, [500, 10, 20, 10]);
    assert_eq!(world.store.document("a"), stored);

    // A change that cannot be stored is none.
    world.store.fail_writes(true);
    assert!(matches!(world.patch("a", max_events(30)).await, Err(Refusal::Store(_))));
    world.until("a", |status| status.phase == Phase::Streaming).await;
    assert_eq!(world.launcher.launched().last().unwrap().1, 10);
    assert_eq!(world.store.document("a"), stored);
}

#[tokio::test]
async fn a_refused_document_does_not_touch_the_old_pipeline() {
    let world = World::new();
    world.create("a").await;
    assert!(matches!(world.patch("a", max_events(0)).await, Err(Refusal::InvalidSpec(_))));
    let patch = json!({"spec": {"sinks": [{"type": "null", "config": {"uri": "null://refused"}}]}});
    assert!(matches!(world.patch("a", patch).await, Err(Refusal::StartFailed(_))));
    assert_eq!(world.launcher.launched().len(), 1);
}

#[tokio::test]
async fn a_known_server_that_is_away_does_not_stop_a_change() {
    let world = World::new();
    let mut json = json_of("a");
    json["spec"]["sinks"][0]["config"]["uri"] = json!("null://refused");
    world.launcher.script("a", Script::Retries);
    world.supervisor.create(Node::from_json(&json)).await.unwrap();
    world.patch("a", max_events(5)).await.unwrap();
    assert_eq!(world.launcher.launched().last().unwrap().1, 5);
    assert_eq!(world.status("a").phase, Phase::Retrying);
}

#[tokio::test]
async fn a_change_keeps_paused_and_stopped() {
    let world = World::new();
    world.create("a").await;
    world.supervisor.pause("a").await.unwrap();
    world.patch("a", max_events(5)).await.unwrap();
    world.until("a", |status| status.state == State::Paused).await;
    assert_eq!(world.launcher.launched().len(), 2);
    world.supervisor.stop("a").await.unwrap();
    world.patch("a", max_events(6)).await.unwrap();
    assert_eq!((world.status("a").state, world.launcher.launched().len()), (State::Stopped, 2));
    world.supervisor.resume("a").await.unwrap();
    assert_eq!(world.launcher.launched().last().unwrap().1, 6);
    // And it starts one that had failed.
    world.until("a", |status| status.phase == Phase::Streaming).await;
    world.launcher.happen("a", Event::Fail);
    world.until("a", |status| status.state == State::Failed).await;
    world.patch("a", max_events(7)).await.unwrap();
    assert_eq!(world.until("a", |status| status.phase == Phase::Streaming).await.state, State::Running);
}

#[tokio::test]
async fn a_panic_shows_as_failed_at_once_and_resume_starts_again() {
    let world = World::new();
    world.create("a").await;
    let began = std::time::Instant::now();
    world.launcher.happen("a", Event::Panic);
    let status = world.until("a", |status| status.state == State::Failed).await;
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!((status.phase, status.trouble.unwrap().code.as_str()), (Phase::Idle, "engine.task_ended"));
    while !world.metrics.render().contains("deltaforge_panics_total 1") {
        tokio::task::yield_now().await;
    }
    assert!(world.metrics.render().contains("deltaforge_pipeline_status{pipeline=\"a\"} -1"));
    assert!(matches!(world.supervisor.pause("a").await, Err(Refusal::Conflict { .. })));
    world.supervisor.resume("a").await.unwrap();
    world.until("a", |status| status.phase == Phase::Streaming).await;
    // An operator's stop ends the alarm.
    world.launcher.happen("a", Event::Fail);
    world.until("a", |status| status.state == State::Failed).await;
    let stopped = world.supervisor.stop("a").await.unwrap().status;
    assert_eq!((stopped.state, stopped.trouble), (State::Stopped, None));
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_at_its_deadline_and_says_so() {
    let world = World::new();
    world.launcher.script("a", Script::NeverDrains);
    world.create("a").await;
    let began = Instant::now();
    let stopped = world.supervisor.stop("a").await.unwrap().status;
    assert_eq!(began.elapsed().as_secs(), Timing::default().drain.as_secs());
    assert_eq!((stopped.state, stopped.phase), (State::Stopped, Phase::Idle));
    assert_eq!(stopped.trouble.unwrap().code, "engine.drain_deadline");
    assert!(world.metrics.render().contains("deltaforge_panics_total 0"));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_drains_all_at_the_same_time() {
    let world = World::new();
    for name in ["a", "b", "c"] {
        world.create(name).await;
    }
    assert!(world.supervisor.shutdown(Duration::from_secs(5)).await);
    assert!(world.names().iter().all(|name| world.status(name).state == State::Stopped));

    let world = World::new();
    for name in ["a", "b", "c"] {
        world.launcher.script(name, Script::NeverDrains);
        world.create(name).await;
    }
    world.create("d").await;
    let began = Instant::now();
    assert!(!world.supervisor.shutdown(Duration::from_secs(5)).await);
    assert_eq!(began.elapsed().as_secs(), 5);
    assert!(matches!(world.supervisor.create(document("e")).await, Err(Refusal::Conflict { .. })));
    assert_eq!(world.status("d").trouble, None);
}

#[tokio::test]
async fn two_pipelines_never_share_a_source_id() {
    let world = World::new();
    world.create("a").await;
    world.create("b").await;
    let id = |id: &str| json!({"spec": {"source": {"config": {"id": id}}}});
    let refusal = world.patch("b", id("a-fake")).await.unwrap_err();
    assert!(
        matches!(&refusal, Refusal::InvalidSpec(found) if found[0].message.contains("`a`")),
        "{refusal:?}"
    );
    assert_eq!(world.launcher.launched().len(), 2);
    // An id that is given up is free again, also after a change that was refused.
    world.patch("a", id("other")).await.unwrap();
    world.launcher.script_once("b", Script::Fails);
    world.patch("b", id("a-fake")).await.unwrap_err();
    world.patch("a", id("a-fake")).await.unwrap();
    world.supervisor.delete("a", Delete::default()).await.unwrap();
    world.patch("b", id("a-fake")).await.unwrap();
}

#[tokio::test]
async fn of_requests_at_the_same_time_each_sees_a_whole_pipeline() {
    let world = World::new();
    let all = futures_util::future::join_all((0..8).map(|_| world.supervisor.create(document("a")))).await;
    assert_eq!(all.iter().filter(|made| made.is_ok()).count(), 1);
    assert_eq!(world.launcher.launched().len(), 1);
    world.until("a", |status| status.phase == Phase::Streaming).await;
    let (deleted, patched, stopped) = tokio::join!(
        world.supervisor.delete("a", Delete::default()),
        world.patch("a", max_events(3)),
        world.supervisor.stop("a"),
    );
    deleted.unwrap();
    for refused in [patched.map(drop), stopped.map(drop)] {
        assert!(matches!(refused, Err(Refusal::PipelineNotFound(_))), "{refused:?}");
    }
    assert_eq!((world.names().len(), world.store.document("a")), (0, None));
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_only_its_waiting() {
    let world = World::new();
    // Polled once, then dropped.
    tokio::select! {
        biased;
        _ = world.supervisor.create(document("a")) => panic!("it has to wait for its task"),
        () = std::future::ready(()) => {}
    }
    while !world.names().contains(&"a".to_string()) {
        tokio::task::yield_now().await;
    }
    world.until("a", |status| status.phase == Phase::Streaming).await;
    assert!(world.store.document("a").is_some());
}

#[tokio::test]
async fn a_patch_gets_at_no_files() {
    let world = World::new();
    world.load(&[json_of("a")]).await;
    let patch = json!({"spec": {"sinks": [{"type": "null", "config": {"uri": "x${file:/etc/passwd}"}}]}});
    let refusal = world.patch("a", patch).await.unwrap_err();
    assert!(
        matches!(&refusal, Refusal::InvalidSpec(f) if f[0].path == "spec.sinks[0].config.uri"),
        "{refusal:?}"
    );
}
