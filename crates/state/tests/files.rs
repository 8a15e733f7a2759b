//! What stands on disk: shape, mode, damage, newer formats, other owners, refusing disks.
#![allow(clippy::unwrap_used, reason = "a test, its helper functions included, fails by panicking")]

mod common;

use common::{Store, checkpoint, fails, letter, record};
use deltaforge_core::Class;
use deltaforge_core::checkpoint::{Checkpoint, SinkProgress};
use deltaforge_core::dead_letter::Room;
use deltaforge_core::schema::SchemaRecord;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

fn checkpoints(store: &Store) -> PathBuf {
    store.path().join("df_checkpoints.json")
}

fn parsed(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// One of everything, then closed.
async fn filled(scheme: &str) -> Store {
    let mut store = Store::new(scheme);
    let epoch = store.acquire("s", "p").await.unwrap().epoch;
    store.append_schemas("s", &[record(1, "t", 5)], epoch).await.unwrap();
    store.put_document("p", "{}").await.unwrap();
    let delivered =
        SinkProgress { sink: "out".into(), position: common::position(1), delivered_ms: 1_700_000_000_500 };
    let saved = Checkpoint { events_done: 3, sinks: vec![delivered], ..checkpoint("s", 1) };
    store.save(&saved, epoch).await.unwrap();
    store.close();
    store
}

#[tokio::test]
async fn a_person_can_read_the_checkpoint_file() {
    let store = filled("file").await;
    let text = fs::read_to_string(checkpoints(&store)).unwrap();
    let expected = r#"{
  "s": {
    "lsn": "0/1",
    "tx_id": 1,
    "events_done": 3,
    "checkpoint": {
      "format": 1,
      "pipeline": "p",
      "version": 1,
      "epoch": 1,
      "saved_at": "2023-11-14T22:13:20.001Z",
      "sinks": {
        "out": {
          "position": {
            "lsn": "0/1",
            "tx_id": 1
          },
          "delivered_at": "2023-11-14T22:13:20.500Z"
        }
      }
    }
  }
}
"#;
    assert_eq!(text, expected);
    assert_eq!(parsed(&store.path().join("df_schemas.json"))["sources"]["s"][0]["at"], "5");
    assert_eq!(parsed(&store.path().join("df_pipelines.json")), json!({"format": 1, "pipelines": {"p": {}}}));
    let previous = parsed(&store.path().join("df_checkpoints.json.bak"));
    assert_eq!(previous["s"], json!({"checkpoint": {"format": 1, "pipeline": "p", "epoch": 1}}));
}

#[tokio::test]
async fn a_bare_position_is_a_checkpoint_that_the_first_pipeline_owns() {
    let mut store = Store::new("file");
    store.close();
    fs::write(
        checkpoints(&store),
        r#"{"orders-mysql": {"file": "binlog.000042", "pos": 12345, "gtid_set": null}}"#,
    )
    .unwrap();
    store.try_open().unwrap();
    assert_eq!(store.list().await.unwrap().len(), 1);
    let lease = store.acquire("orders-mysql", "orders").await.unwrap();
    let found = lease.checkpoint.unwrap();
    assert_eq!(found.position.as_json(), r#"{"file":"binlog.000042","pos":12345,"gtid_set":null}"#);
    assert_eq!(found.pipeline, "orders");
    fails(store.acquire("orders-mysql", "other").await, Class::Config, "state.key_conflict");
}

#[tokio::test]
async fn a_damaged_file_stops_the_store_and_stays_as_it_is() {
    for name in ["df_checkpoints.json", "df_schemas.json", "df_pipelines.json"] {
        let mut store = filled("file").await;
        let path = store.path().join(name);
        let whole = fs::read(&path).unwrap();
        let torn = (0..whole.len() - 1).step_by(7).map(|n| whole[..n].to_vec());
        let others = [b"\xff\xfe".to_vec(), b"[]".to_vec(), b"{\"s\": 5}".to_vec(), vec![0; 64]];
        for damaged in torn.chain(others) {
            fs::write(&path, &damaged).unwrap();
            let fault = fails(store.try_open(), Class::Config, "state.corrupt");
            assert!(fault.message().contains(path.to_str().unwrap()), "{fault}");
            assert_eq!(fs::read(&path).unwrap(), damaged);
        }
        // The hint's command helps.
        let fault = store.try_open().unwrap_err();
        let command = fault.hint_text().unwrap().rsplit_once(": ").unwrap().1;
        assert!(
            std::process::Command::new("sh").args(["-c", command]).status().unwrap().success(),
            "{command}"
        );
        store.try_open().unwrap();
    }
}

#[tokio::test]
async fn the_reason_names_the_place() {
    let mut store = filled("file").await;
    for (text, part) in [
        (r#"{"s": {"lsn": "0/1"}, "s": {"lsn": "0/2"}}"#, "`s` stands there twice"),
        (r#"{"s": {"lsn": "0/1", "checkpoint": {"format": 1, "epoch": "x"}}}"#, "under `s`"),
        ("{\"s\":\n{\"lsn\":,}}", "line 2"),
    ] {
        fs::write(checkpoints(&store), text).unwrap();
        let fault = fails(store.try_open(), Class::Config, "state.corrupt");
        assert!(fault.message().contains(part), "{fault}");
    }
}

#[tokio::test]
async fn a_newer_format_is_refused_not_read_as_empty() {
    for (name, text) in [
        ("df_checkpoints.json", r#"{"s": {"lsn": "0/1", "checkpoint": {"format": 2, "new": []}}}"#),
        ("df_schemas.json", r#"{"format": 3, "tables": {}}"#),
        ("df_pipelines.json", r#"{"format": 2}"#),
    ] {
        let mut store = filled("file").await;
        fs::write(store.path().join(name), text).unwrap();
        let fault = fails(store.try_open(), Class::Config, "state.newer_format");
        assert!(fault.message().contains(name), "{fault}");
        assert_eq!(fs::read_to_string(store.path().join(name)).unwrap(), text);
    }
    let mut store = filled("sqlite").await;
    rusqlite::Connection::open(store.path()).unwrap().execute_batch("PRAGMA user_version = 4").unwrap();
    let fault = fails(store.try_open(), Class::Config, "state.newer_format");
    assert!(fault.message().contains("df.db"), "{fault}");
}

/// What the release before wrote, whose schema records had no `detail`.
#[tokio::test]
async fn an_older_format_is_read_and_its_last_state_kept() {
    let mut store = Store::new("file");
    store.close();
    let path = store.path().join("df_schemas.json");
    let old = r#"{"format": 1, "sources": {"s": [{"sequence": 1, "table": "t", "fingerprint": "f", "at": "5",
        "registered_at": "2023-11-14T22:13:20.000Z", "shape": {}}]}}"#;
    fs::write(&path, old).unwrap();
    fs::write(checkpoints(&store), r#"{"s": {"lsn": "0/1"}}"#).unwrap();
    let kept = store.path().join("df_schemas.json.format1");
    migrates(&mut store, |store| {
        // What an older release can read stays readable for it.
        assert_eq!((parsed(&path)["format"].as_u64(), kept.exists()), (Some(1), false), "{store}");
    })
    .await;
    assert_eq!(parsed(&path)["format"], 2);
    assert_eq!(parsed(&kept)["sources"]["s"].as_array().unwrap().len(), 2);

    let mut store = Store::new("sqlite");
    store.close();
    fs::remove_file(store.path()).unwrap();
    let shell = rusqlite::Connection::open(store.path()).unwrap();
    let tables = "CREATE TABLE keys (source_id TEXT PRIMARY KEY, pipeline TEXT NOT NULL, epoch INTEGER NOT NULL) STRICT;
        CREATE TABLE checkpoints (source_id TEXT NOT NULL, version INTEGER NOT NULL, schema_sequence INTEGER NOT NULL,
            document TEXT NOT NULL, PRIMARY KEY (source_id, version)) STRICT, WITHOUT ROWID;
        CREATE TABLE schemas (source_id TEXT NOT NULL, sequence INTEGER NOT NULL, table_name TEXT NOT NULL,
            fingerprint TEXT NOT NULL, at TEXT NOT NULL, shape TEXT NOT NULL, registered_ms INTEGER NOT NULL,
            PRIMARY KEY (source_id, sequence)) STRICT, WITHOUT ROWID;
        CREATE TABLE pipelines (name TEXT PRIMARY KEY, document TEXT NOT NULL) STRICT;
        INSERT INTO schemas VALUES ('s', 1, 't', 'f', '5', '{}', 1700000000000);
        PRAGMA user_version = 1; PRAGMA application_id = 1145467764";
    shell.execute_batch(tables).unwrap();
    drop(shell);
    let kept = store.path().with_file_name("df.db.format1");
    // Left over from an attempt that was cut short.
    fs::write(&kept, "half").unwrap();
    migrates(&mut store, |_| ()).await;
    let shell = rusqlite::Connection::open(&kept).unwrap();
    let number = |sql| shell.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!((number("PRAGMA user_version"), number("SELECT count(*) FROM schemas")), (1, 1));
}

async fn migrates(store: &mut Store, before_anything_new: impl FnOnce(&str)) {
    let first = SchemaRecord { fingerprint: "f".into(), shape: "{}".into(), ..record(1, "t", 5) };
    store.try_open().unwrap();
    assert_eq!(store.schemas("s").await.unwrap(), std::slice::from_ref(&first));
    let epoch = store.acquire("s", "p").await.unwrap().epoch;
    assert_eq!(
        store.schemas("s").await.unwrap(),
        std::slice::from_ref(&first),
        "the key is swept, not its schemas"
    );
    store.append_schemas("s", &[record(2, "t", 6)], epoch).await.unwrap();
    before_anything_new(store.url());
    let room = Room { max_entries: 9, drop_oldest: false };
    store.append_dead_letter("s", letter(1), room, epoch).await.unwrap();
    assert_eq!(store.count_dead_letters("s").await.unwrap(), 1);
    let new = SchemaRecord { detail: Some("{}".into()), ..record(3, "t", 7) };
    store.append_schemas("s", std::slice::from_ref(&new), epoch).await.unwrap();
    store.reopen();
    assert_eq!(store.schemas("s").await.unwrap(), [first, record(2, "t", 6), new]);
}

#[tokio::test]
async fn a_crash_before_the_rename_leaves_the_old_generation() {
    let mut store = filled("file").await;
    let before = fs::read(checkpoints(&store)).unwrap();
    fs::write(store.path().join("df_checkpoints.json.tmp"), &before[..before.len() / 2]).unwrap();
    fs::write(store.path().join("df_checkpoints.json.bak.tmp"), "x").unwrap();
    store.try_open().unwrap();
    let lease = store.acquire("s", "p").await.unwrap();
    assert_eq!(lease.checkpoint.unwrap().version, 1);
    assert_eq!(store.save(&checkpoint("s", 2), lease.epoch).await.unwrap(), 2);
    assert_eq!(parsed(&checkpoints(&store))["s"]["tx_id"], 2);
    assert!(!store.path().join("df_checkpoints.json.tmp").exists());
}

#[tokio::test]
async fn a_removal_cut_between_its_two_files_is_finished_by_the_next_owner() {
    let mut store = filled("file").await;
    let schemas = fs::read(store.path().join("df_schemas.json")).unwrap();
    store.try_open().unwrap();
    store.remove("s").await.unwrap();
    store.close();
    fs::write(store.path().join("df_schemas.json"), schemas).unwrap();
    store.try_open().unwrap();
    store.acquire("s", "p").await.unwrap();
    store.reopen();
    assert_eq!(store.schemas("s").await.unwrap(), []);
}

#[tokio::test]
async fn one_process_has_the_store() {
    for scheme in ["file", "sqlite"] {
        let mut store = filled(scheme).await;
        store.try_open().unwrap();
        let fault = fails(deltaforge_state::open(store.url()).map(|_| ()), Class::Retry, "state.locked");
        assert!(fault.message().contains(store.path().to_str().unwrap()), "{fault}");
        store.reopen();
    }
}

#[tokio::test]
async fn files_are_their_owners_alone() {
    for scheme in ["file", "sqlite"] {
        let mut store = filled(scheme).await;
        store.try_open().unwrap();
        // While it is open: SQLite has its log beside it then.
        let epoch = store.acquire("s", "p").await.unwrap().epoch;
        store.save(&checkpoint("s", 2), epoch).await.unwrap();
        let dir = if scheme == "file" { store.path() } else { store.path().parent().unwrap() };
        let mut seen = 0;
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{:?} is {mode:o}", entry.path());
            seen += 1;
        }
        assert!(seen >= 4, "{seen} files");
    }
}

#[tokio::test]
async fn a_disk_that_refuses_is_waited_for() {
    let mut store = filled("file").await;
    store.try_open().unwrap();
    let epoch = store.acquire("s", "p").await.unwrap().epoch;
    let before = fs::read(checkpoints(&store)).unwrap();
    // Works for root too, whom no mode stops.
    let obstacle = store.path().join("df_checkpoints.json.tmp");
    fs::create_dir(&obstacle).unwrap();
    let fault = fails(store.save(&checkpoint("s", 2), epoch).await, Class::Retry, "state.unwritable");
    assert!(fault.message().contains("df_checkpoints.json"), "{fault}");
    assert_eq!(fs::read(checkpoints(&store)).unwrap(), before);
    assert_eq!(store.load("s").await.unwrap().unwrap().version, 1, "what failed is not told as saved");
    fs::remove_dir(&obstacle).unwrap();
    assert_eq!(store.save(&checkpoint("s", 2), epoch).await.unwrap(), 2);
}

#[tokio::test]
async fn a_database_that_is_busy_is_waited_for() {
    let mut store = filled("sqlite").await;
    store.try_open().unwrap();
    let epoch = store.acquire("s", "p").await.unwrap().epoch;
    let shell = rusqlite::Connection::open(store.path()).unwrap();
    shell.execute_batch("BEGIN IMMEDIATE").unwrap();
    let asked = Instant::now();
    fails(store.save(&checkpoint("s", 2), epoch).await, Class::Retry, "state.unwritable");
    assert!(asked.elapsed().as_secs() < 10);
    assert_eq!(store.load("s").await.unwrap().unwrap().version, 1);
    shell.execute_batch("ROLLBACK").unwrap();
    assert_eq!(store.save(&checkpoint("s", 2), epoch).await.unwrap(), 2);
}

#[tokio::test]
async fn a_job_that_fails_half_way_is_undone_alone() {
    let mut store = filled("sqlite").await;
    store.try_open().unwrap();
    let epoch = store.acquire("s", "p").await.unwrap().epoch;
    let shell = rusqlite::Connection::open(store.path()).unwrap();
    shell
        .execute_batch("CREATE TRIGGER t BEFORE INSERT ON checkpoints BEGIN SELECT raise(ABORT, 'no'); END")
        .unwrap();
    // Counts the epoch up before it fails.
    let (rolled_back, other) = tokio::join!(store.rollback("s", 1), store.put_document("q", "{}"));
    fails(rolled_back, Class::Retry, "state.unwritable");
    other.unwrap();
    assert_eq!(store.documents().await.unwrap().len(), 2);
    shell.execute_batch("DROP TRIGGER t").unwrap();
    assert_eq!(store.save(&checkpoint("s", 2), epoch).await.unwrap(), 2, "nobody was fenced");
}

#[tokio::test]
async fn a_damaged_database_stops_the_store_and_stays_as_it_is() {
    let mut store = filled("sqlite").await;
    let whole = fs::read(store.path()).unwrap();
    let mut scribbled = whole.clone();
    for page in scribbled.chunks_mut(4096).skip(1) {
        page[..100].fill(0xa5);
    }
    for damaged in [whole[..whole.len() / 2].to_vec(), b"not a database at all".repeat(100), scribbled] {
        fs::write(store.path(), &damaged).unwrap();
        let fault = fails(store.try_open(), Class::Config, "state.corrupt");
        assert!(fault.message().contains(store.path().to_str().unwrap()), "{fault}");
        assert_eq!(fs::read(store.path()).unwrap(), damaged);
    }
}

#[tokio::test]
async fn somebody_elses_database_is_not_touched() {
    let mut store = Store::new("sqlite");
    store.close();
    fs::remove_file(store.path()).unwrap();
    rusqlite::Connection::open(store.path()).unwrap().execute_batch("CREATE TABLE users (id)").unwrap();
    let before = fs::read(store.path()).unwrap();
    fails(store.try_open(), Class::Config, "state.foreign");
    assert_eq!(fs::read(store.path()).unwrap(), before);
}

#[tokio::test]
async fn sqlites_hint_for_a_renamed_pipeline_works() {
    let mut store = filled("sqlite").await;
    store.try_open().unwrap();
    let fault = fails(store.acquire("s", "it's").await, Class::Config, "state.key_conflict");
    let command = fault.hint_text().unwrap().split_once("sqlite3 ").unwrap().1;
    let sql = command.split_once('"').unwrap().1.trim_end_matches('"');
    store.close();
    rusqlite::Connection::open(store.path()).unwrap().execute_batch(sql).unwrap();
    store.try_open().unwrap();
    let kept = store.acquire("s", "it's").await.unwrap().checkpoint.unwrap();
    assert_eq!((kept.pipeline.as_str(), kept.version), ("it's", 1));
}
