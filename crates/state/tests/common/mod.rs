//! What the tests of stores share.
#![allow(dead_code, unused_macros, reason = "each test binary uses its part")]

use deltaforge_core::checkpoint::{Checkpoint, StateStore};
use deltaforge_core::dead_letter::NewDeadLetter;
use deltaforge_core::schema::SchemaRecord;
use deltaforge_core::{Class, Fault, Position};
use std::fmt::Debug;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// A store that can be closed and opened again.
pub(crate) struct Store {
    url: String,
    open: Option<Arc<dyn StateStore>>,
    dir: TempDir,
}

impl Store {
    /// `scheme` is `memory`, `file` or `sqlite`.
    pub(crate) fn new(scheme: &str) -> Store {
        let dir = tempfile::tempdir().unwrap();
        let place = match scheme {
            "memory" => String::new(),
            "file" => dir.path().join("new/data").display().to_string(),
            _ => dir.path().join("new/df.db").display().to_string(),
        };
        let url = format!("{scheme}:{place}");
        let open = Some(deltaforge_state::open(&url).unwrap());
        Store { url, open, dir }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The directory (`file`) or the database (`sqlite`).
    pub(crate) fn path(&self) -> &Path {
        Path::new(self.url.split_once(':').unwrap().1)
    }

    pub(crate) fn shared(&self) -> Arc<dyn StateStore> {
        Arc::clone(self.open.as_ref().unwrap())
    }

    pub(crate) fn close(&mut self) {
        self.open = None;
    }

    pub(crate) fn try_open(&mut self) -> Result<(), Fault> {
        self.open = Some(deltaforge_state::open(&self.url)?);
        Ok(())
    }

    /// As a restart of the process; memory lives on, so that one suite fits all.
    pub(crate) fn reopen(&mut self) {
        if !self.url.starts_with("memory") {
            self.close();
            self.try_open().unwrap();
        }
    }
}

impl Deref for Store {
    type Target = dyn StateStore;

    fn deref(&self) -> &Self::Target {
        self.open.as_deref().unwrap()
    }
}

/// Runs each function on each store.
macro_rules! store_tests {
    ($($name:ident),+ $(,)?) => {
        mod memory { $( #[tokio::test] async fn $name() { super::$name(super::Store::new("memory")).await } )+ }
        mod file { $( #[tokio::test] async fn $name() { super::$name(super::Store::new("file")).await } )+ }
        mod sqlite { $( #[tokio::test] async fn $name() { super::$name(super::Store::new("sqlite")).await } )+ }
    };
}
#[allow(unused_imports, reason = "each test binary uses its part")]
pub(crate) use store_tests;

pub(crate) fn position(n: u64) -> Position {
    Position::from_json(&format!(r#"{{"lsn":"0/{n:X}","tx_id":{n}}}"#))
}

/// The checkpoint that names its own number, so that a mix of two saves shows.
pub(crate) fn checkpoint(source_id: &str, n: u64) -> Checkpoint {
    Checkpoint {
        source_id: source_id.into(),
        pipeline: "p".into(),
        position: position(n),
        events_done: 0,
        version: 0,
        saved_ms: 1_700_000_000_000 + i64::try_from(n).unwrap(),
        sinks: Vec::new(),
    }
}

pub(crate) fn record(sequence: u64, table: &str, at: u128) -> SchemaRecord {
    SchemaRecord {
        sequence,
        table: table.into(),
        fingerprint: format!("sha256:{at:064x}"),
        at,
        shape: r#"{"columns":[{"name":"id","type":"integer","nullable":null}],"primary_key":[0]}"#.into(),
        detail: None,
        registered_ms: 1_700_000_000_000,
    }
}

/// The fault of a result that must be one.
#[track_caller]
pub(crate) fn fails<T: Debug>(result: Result<T, Fault>, class: Class, code: &str) -> Fault {
    let fault = result.unwrap_err();
    assert_eq!((fault.class(), fault.code()), (class, code), "{fault}");
    fault
}

pub(crate) fn letter(n: u64) -> NewDeadLetter {
    NewDeadLetter {
        sink: if n.is_multiple_of(2) { "even" } else { "odd" }.into(),
        kind: if n.is_multiple_of(3) { "route" } else { "too_large" }.into(),
        message: format!("number {n} \"ü\""),
        event_id: format!("event-{n}"),
        position: format!(r#"{{"lsn":"0/{n:X}"}}"#),
        stored_ms: 1_700_000_000_000 + i64::try_from(n).unwrap(),
        event: format!(r#"{{"n": {n}, "text":"ü\u0041"}}"#),
        frozen: vec![0, 255, u8::try_from(n % 256).unwrap()],
        truncated: n.is_multiple_of(5),
    }
}
