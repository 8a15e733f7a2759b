//! `kill -9` while saving: what was acknowledged is there, and whole.
//!
//! The test starts itself again as a child that saves in a loop and says, after each save, which version it was told; then
//! it kills the child at some moment and opens the store. (A kill proves the order of writes and renames. That they are
//! synced too can only be seen in a power cut, or by reading the code.)
#![allow(clippy::unwrap_used, reason = "a test, its helper functions included, fails by panicking")]

mod common;

use common::{Store, checkpoint, letter, position, record};
use deltaforge_core::dead_letter::{Appended, DeadLetterQuery, Room};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

const URL: &str = "DELTAFORGE_TEST_SAVE_TO";
const ROUNDS: u64 = 40;
const ROOM: Room = Room { max_entries: 1_000_000, drop_oldest: false };

/// Not a test by itself: does nothing unless a test below starts it.
#[tokio::test]
async fn child() {
    let Ok(url) = std::env::var(URL) else { return };
    let store = deltaforge_state::open(&url).unwrap();
    let lease = store.acquire("s", "p").await.unwrap();
    let mut schemas = store.schemas("s").await.unwrap().len() as u64;
    let mut n = lease.checkpoint.map_or(0, |c| c.version);
    loop {
        n += 1;
        schemas += 1;
        store.append_schemas("s", &[record(schemas, "t", n.into())], lease.epoch).await.unwrap();
        assert_eq!(store.save(&checkpoint("s", n), lease.epoch).await.unwrap(), n);
        let stored = store.append_dead_letter("s", letter(n), ROOM, lease.epoch).await.unwrap();
        assert!(matches!(stored, Appended::Stored { dropped: 0, .. }), "{stored:?}");
        // Not `println!`, which the harness may hold back.
        writeln!(std::io::stdout(), "saved {n} {schemas}").unwrap();
    }
}

async fn survives_kills(scheme: &str) {
    let mut store = Store::new(scheme);
    let mut epoch = 0;
    for round in 0..ROUNDS {
        store.close();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(URL, store.url())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Wait for the first save, then for a moment that differs from round to round by fractions of a save.
        let mut acknowledged = lines.by_ref().map_while(Result::ok).find_map(|line| parse(&line)).unwrap();
        std::thread::sleep(Duration::from_micros(round * 1371 % 20_000));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            acknowledged = parse(&line).unwrap_or(acknowledged);
        }
        store.try_open().unwrap();
        let found = store.load("s").await.unwrap().unwrap();
        let schemas = store.schemas("s").await.unwrap().len() as u64;
        // The one that was under way may have landed.
        assert!((acknowledged.0..=acknowledged.0 + 1).contains(&found.version), "{acknowledged:?} {found:?}");
        assert!((acknowledged.1..=acknowledged.1 + 1).contains(&schemas), "{acknowledged:?} {schemas}");
        assert_eq!(found.position, position(found.version), "the parts of a checkpoint belong together");
        let query = DeadLetterQuery { limit: usize::MAX, ..DeadLetterQuery::default() };
        let letters = store.dead_letters("s", &query).await.unwrap().entries;
        for (number, found) in (1..).zip(&letters) {
            assert_eq!(found.entry, letter(number), "none is missing, none is torn");
        }
        let count = letters.len() as u64;
        assert!((acknowledged.0..=acknowledged.0 + 1).contains(&count), "{acknowledged:?} {count}");
        // The one that was not stored before the kill comes next, as after a replay.
        if count < found.version {
            let epoch = store.acquire("s", "p").await.unwrap().epoch;
            store.append_dead_letter("s", letter(count + 1), ROOM, epoch).await.unwrap();
        }
        let lease = store.acquire("s", "p").await.unwrap();
        assert!(lease.epoch.0 >= epoch + 2, "both owners of a round counted");
        epoch = lease.epoch.0;
    }
}

/// The numbers of an acknowledgement; the harness writes other lines, and the last one may be cut.
fn parse(line: &str) -> Option<(u64, u64)> {
    let (version, schemas) = line.split_once("saved ")?.1.split_once(' ')?;
    Some((version.parse().ok()?, schemas.parse().ok()?))
}

#[tokio::test]
async fn the_file_store_survives_kills() {
    survives_kills("file").await;
}

#[tokio::test]
async fn the_sqlite_store_survives_kills() {
    survives_kills("sqlite").await;
}
