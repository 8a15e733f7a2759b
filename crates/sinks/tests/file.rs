//! The file sink: rotation, crashes, full disks, special files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::*;
use deltaforge_core::fault::Kind;
use deltaforge_core::sink::SinkPlan;
use deltaforge_core::{Class, Fault, Op};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn at(path: &Path, more: Value) -> Arc<dyn SinkPlan> {
    let mut config = file_config(path);
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    plan("file", config)
}

fn read(path: &Path) -> Vec<i64> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is whole");
    ids(&events_of_lines(&text))
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

async fn refused(plan: &Arc<dyn SinkPlan>) -> Fault {
    plan.open(&context()).await.err().expect("a fault")
}

#[tokio::test]
async fn lines_are_the_envelope_and_the_file_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/deep/events.jsonl");
    let mut sink = open(&at(&path, json!({ "envelope": { "type": "cloudevents" } }))).await;
    deliver(sink.as_mut(), batch(0..2, 5)).await.unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[1]["specversion"], "1.0");
    assert_eq!(events[1]["data"]["after"]["id"], 1);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn rotation_by_size_is_between_events() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("e");
    let plan = at(&path, json!({ "rotate": { "max_bytes": 10_000 } }));
    let mut sink = open(&plan).await;
    // Batches larger than a file, smaller ones, and an event larger than a file.
    deliver(sink.as_mut(), batch(0..100, 100)).await.unwrap();
    for n in 0..10 {
        deliver(sink.as_mut(), batch(100 + n * 5..105 + n * 5, 100)).await.unwrap();
    }
    deliver(sink.as_mut(), batch(150..151, 20_000)).await.unwrap();
    deliver(sink.as_mut(), batch(151..160, 100)).await.unwrap();
    sink.close().await;
    let mut rotated: Vec<(String, u32, PathBuf)> = names(dir.path())
        .iter()
        .filter(|name| *name != "e")
        .map(|name| {
            let (stamp, n) = name.strip_prefix("e.").unwrap().rsplit_once('-').unwrap();
            assert!(stamp.len() == "20260115T103000Z".len() && stamp.ends_with('Z'), "{name}");
            (stamp.into(), n.parse().unwrap(), dir.path().join(name))
        })
        .collect();
    rotated.sort();
    let mut all = Vec::new();
    for file in rotated.iter().map(|(_, _, file)| file).chain([&path]) {
        let ids = read(file);
        let len = fs::metadata(file).unwrap().len();
        assert!(len <= 10_000 || ids == [150], "{len} bytes in {}", file.display());
        all.extend(ids);
    }
    assert_eq!(all, (0..160).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_torn_last_line_is_cut_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("e");
    deliver(open(&at(&path, json!({}))).await.as_mut(), batch(0..10, 100)).await.unwrap();
    let whole = fs::read_to_string(&path).unwrap();
    let torn = "{\"before\":null,\"after\":{\"id\":10,\"pad\":\"".to_owned();
    let long = format!("{torn}{}", "y".repeat(300_000));
    for (tail, kept) in
        [(torn.as_str(), true), (&long, true), ("\0\0\0\0", true), ("", true), ("notes", false)]
    {
        fs::write(&path, format!("{whole}{tail}")).unwrap();
        let plan = at(&path, json!({}));
        if kept {
            let mut sink = open(&plan).await;
            deliver(sink.as_mut(), batch(10..20, 100)).await.unwrap();
            assert_eq!(read(&path), (0..20).collect::<Vec<_>>());
        } else {
            let fault = refused(&plan).await;
            assert_eq!((fault.class(), fault.code()), (Class::Config, "file.not_ours"), "{fault}");
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{whole}{tail}"), "nothing was cut");
        }
    }
    // The very first line may be torn, too.
    fs::write(&path, torn).unwrap();
    deliver(open(&at(&path, json!({}))).await.as_mut(), batch(0..10, 1)).await.unwrap();
    assert_eq!(read(&path), (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_file_that_somebody_moved_or_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("e");
    let mut sink = open(&at(&path, json!({}))).await;
    deliver(sink.as_mut(), batch(0..10, 1)).await.unwrap();
    fs::rename(&path, dir.path().join("e.1")).unwrap();
    deliver(sink.as_mut(), batch(10..20, 1)).await.unwrap();
    assert_eq!(read(&dir.path().join("e.1")), (0..10).collect::<Vec<_>>());
    assert_eq!(read(&path), (10..20).collect::<Vec<_>>());
    fs::remove_file(&path).unwrap();
    deliver(sink.as_mut(), batch(20..30, 1)).await.unwrap();
    assert_eq!(read(&path), (20..30).collect::<Vec<_>>());
}

#[tokio::test]
async fn two_writers_of_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("e");
    let first = open(&at(&path, json!({}))).await;
    let second = at(&path, json!({}));
    let fault = refused(&second).await;
    assert_eq!((fault.class(), fault.code()), (Class::Retry, "file.in_use"), "{fault}");
    first.close().await;
    open(&second).await;
}

#[tokio::test]
async fn paths_named_by_the_events() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("${source.table}/${after.pad}.jsonl");
    let row = |id, table, pad| Row { table, op: Op::Create, id, old_id: None, pad };
    let rows = [row(1, "a", "x"), row(2, "b", "../../y"), row(3, "a", "x"), row(4, "a", "")];
    let plan = at(&path, json!({}));
    let mut sink = open(&plan).await;
    deliver(sink.as_mut(), batch_of(&rows)).await.unwrap();
    assert_eq!(read(&dir.path().join("a/x.jsonl")), [1, 3]);
    assert_eq!(read(&dir.path().join("b/.._.._y.jsonl")), [2], "separators become `_`");
    assert_eq!(read(&dir.path().join("a/.jsonl")), [4]);

    let evil = at(&dir.path().join("${after.pad}/f"), json!({}));
    for pad in ["..", &"x".repeat(300)] {
        let mut sink = open(&evil).await;
        let fault =
            deliver(sink.as_mut(), batch_of(&[row(7, "a", "ok"), row(8, "a", pad)])).await.unwrap_err();
        assert_eq!((fault.class(), fault.kind_of()), (Class::Data, Kind::Route), "{fault}");
        assert_eq!(fault.event_id(), Some(event_id(8).to_string().as_str()));
        sink.close().await;
    }
    let fault =
        deliver(open(&at(&dir.path().join("${after.none}"), json!({}))).await.as_mut(), batch(0..1, 1)).await;
    assert_eq!(fault.unwrap_err().class(), Class::Data);
    assert_eq!(names(dir.path()), ["a", "b"]);
}

/// More files than are kept open.
#[tokio::test]
async fn many_files() {
    let dir = tempfile::tempdir().unwrap();
    let plan =
        at(&dir.path().join("${after.id}"), json!({ "sync": "none", "rotate": { "max_bytes": "1 MiB" } }));
    let mut sink = open(&plan).await;
    for n in 0..6 {
        deliver(sink.as_mut(), batch(n * 50..n * 50 + 100, 1)).await.unwrap();
    }
    assert_eq!(names(dir.path()).len(), 350);
    assert_eq!((read(&dir.path().join("49")).len(), read(&dir.path().join("50")).len()), (1, 2));
}

#[tokio::test]
async fn special_files() {
    // Cannot be synced and never fill up: the benchmark's target.
    let mut null = open(&at(Path::new("/dev/null"), json!({ "rotate": { "max_bytes": 10 } }))).await;
    assert!(deliver(null.as_mut(), batch(0..100, 100)).await.unwrap().bytes > 10_000);
    null.close().await;
    let mut full = open(&at(Path::new("/dev/full"), json!({}))).await;
    let fault = deliver(full.as_mut(), batch(0..1, 1)).await.unwrap_err();
    assert_eq!((fault.class(), fault.code()), (Class::Retry, "file.disk_full"), "{fault}");
    let dir = tempfile::tempdir().unwrap();
    let fault = refused(&at(dir.path(), json!({}))).await;
    assert_eq!((fault.class(), fault.code()), (Class::Config, "file.not_a_file"), "{fault}");
    fs::write(dir.path().join("f"), "").unwrap();
    let fault = refused(&at(&dir.path().join("f/below"), json!({}))).await;
    assert_eq!((fault.class(), fault.code()), (Class::Config, "file.not_a_file"), "{fault}");
    let report = at(dir.path(), json!({ "sync": "none" })).check().await;
    assert_eq!(report.problems().count(), 2, "{report:?}");
}

const CHILD_DIR: &str = "DELTAFORGE_TEST_FILE_DIR";

/// Runs an ignored test of this binary in a process of its own, as the limit and the user hold for a whole process.
fn child(name: &str, dir: &Path, before: &str) {
    let exe = std::env::current_exe().unwrap();
    let script = format!("{before} exec \"$0\" --exact {name} --ignored --nocapture");
    let output =
        std::process::Command::new("sh").arg("-c").arg(script).arg(exe).env(CHILD_DIR, dir).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A full disk, played by the limit on a file's size: a write that crosses it is cut short, as on a disk.
#[test]
fn disk_full() {
    let dir = tempfile::tempdir().unwrap();
    // Without this the limit's signal would end the process.
    child("disk_full_child", dir.path(), "trap '' XFSZ;");
    assert_eq!(read(&dir.path().join("e")), (0..100).collect::<Vec<_>>());
}

#[tokio::test]
#[ignore = "run by the test `disk_full`"]
async fn disk_full_child() {
    let path = PathBuf::from(std::env::var(CHILD_DIR).unwrap()).join("e");
    let plan = at(&path, json!({}));
    let mut sink = open(&plan).await;
    deliver(sink.as_mut(), batch(0..10, 100)).await.unwrap();
    let before = fs::metadata(&path).unwrap().len();
    let unlimited = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: Some(before + 1000), ..unlimited }).unwrap();
    for _ in 0..3 {
        let fault = deliver(sink.as_mut(), batch(10..100, 100)).await.unwrap_err();
        assert_eq!((fault.class(), fault.code()), (Class::Retry, "file.disk_full"), "{fault}");
        assert_eq!(fs::metadata(&path).unwrap().len(), before, "no part of the batch stays behind");
        drop(sink);
        sink = open(&plan).await;
    }
    setrlimit(Resource::Fsize, unlimited).unwrap();
    deliver(sink.as_mut(), batch(10..100, 100)).await.unwrap();
}

/// A file that not even root may write to, and one in a directory that takes no files.
#[tokio::test]
async fn permission_denied() {
    for path in ["/sys/kernel/uevent_seqnum", "/sys/kernel/new"] {
        let fault = refused(&at(Path::new(path), json!({}))).await;
        assert_eq!((fault.class(), fault.code()), (Class::Config, "file.permission_denied"), "{fault}");
    }
}
