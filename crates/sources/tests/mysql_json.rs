//! JSON columns of a real MySQL: what its binlog holds, printed by us, is what it prints itself.
//!
//! Always the same documents; `SEED=n` gives others.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test, a panic with a clear message is how a failure is reported"
)]

#[path = "mysql_json/binlog.rs"]
mod binlog;
#[path = "mysql_json/documents.rs"]
mod documents;

use binlog::Row;
use deltaforge_sources::mysql::json::{Applied, apply_diffs, write_text};
use deltaforge_testkit::servers::{Flavour, Mysqld, MysqldOptions, Session};
use documents::Random;
use std::fs;

fn seed() -> u64 {
    std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

/// A server with a table `t (id, j)` in a database, or nothing where this machine has no MySQL.
fn start() -> Option<(Mysqld, Session)> {
    if !Flavour::MySql.is_available() {
        return None;
    }
    let server =
        Mysqld::start(Flavour::MySql, &MysqldOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let database = server.fresh_db("json");
    let mut session = server.session(&database);
    session.sql("CREATE TABLE t (id INT UNSIGNED NOT NULL PRIMARY KEY, j JSON)");
    Some((server, session))
}

/// The rows of `t` that are in the current binlog file.
fn logged(server: &Mysqld) -> Vec<Row> {
    let (file, end) = server.binlog_end();
    let bytes = fs::read(server.data_dir().join(file)).unwrap();
    binlog::rows(&bytes[..end as usize], "t")
}

/// What the server prints, by id.
fn printed(session: &mut Session) -> Vec<(u32, Option<Vec<u8>>)> {
    let rows = session.bytes(b"SELECT id, CAST(j AS CHAR CHARACTER SET utf8mb4) FROM t ORDER BY id").unwrap();
    let id = |cell: &Option<Vec<u8>>| String::from_utf8_lossy(cell.as_ref().unwrap()).parse().unwrap();
    rows.iter().map(|row| (id(&row[0]), row[1].as_deref().map(compact))).collect()
}

/// A JSON text without the space that the server puts after commas and colons.
fn compact(text: &[u8]) -> Vec<u8> {
    let (mut out, mut quoted, mut escaped) = (Vec::new(), false, false);
    for byte in text {
        if quoted || *byte != b' ' {
            out.push(*byte);
        }
        if escaped {
            escaped = false;
        } else if quoted && *byte == b'\\' {
            escaped = true;
        } else if *byte == b'"' {
            quoted = !quoted;
        }
    }
    out
}

fn ours(document: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_text(document, &mut out).unwrap_or_else(|error| panic!("{error:?} in {document:02x?}"));
    assert!(out.len() <= 6 * document.len() + 4);
    assert!(std::str::from_utf8(&out).is_ok());
    out
}

#[track_caller]
fn assert_same(ours: &[u8], server: &[u8], what: &str) {
    if ours != server {
        let at = ours.iter().zip(server).take_while(|(a, b)| a == b).count();
        let near = |text: &[u8]| {
            String::from_utf8_lossy(&text[at.saturating_sub(60)..(at + 60).min(text.len())]).into_owned()
        };
        panic!("{what}, byte {at}:\n  ours   {}\n  server {}", near(ours), near(server));
    }
}

/// Inserts each value; those that the server refuses are counted.
fn insert(session: &mut Session, values: &[String]) -> usize {
    let mut refused = 0;
    for (id, value) in values.iter().enumerate() {
        refused += usize::from(session.try_sql(&format!("INSERT INTO t VALUES ({id}, {value})")).is_err());
    }
    refused
}

#[test]
fn documents_print_as_the_server_prints_them() {
    let Some((server, mut session)) = start() else { return };
    let mut random = Random::new(seed());
    let mut values = documents::special();
    values.extend((0..3000).map(|_| documents::column_value(&mut random)));
    // A number beyond a double, and unpaired surrogates.
    assert_eq!(insert(&mut session, &values), 3, "refused by the server");
    let (rows, expected) = (logged(&server), printed(&mut session));
    assert_eq!(rows.len(), expected.len());
    let mut bytes = 0;
    for (row, (id, expected)) in rows.iter().zip(expected) {
        assert_eq!(row.id, id);
        let (Some(document), Some(expected)) = (&row.after, expected) else { continue };
        bytes += expected.len();
        assert_same(&ours(document), &expected, &values[id as usize]);
    }
    assert!(bytes > 5_000_000, "only {bytes} bytes compared");
}

#[test]
fn doubles_print_as_the_server_prints_them() {
    let Some((server, mut session)) = start() else { return };
    let mut random = Random::new(seed());
    let doubles: Vec<String> = (0..20_000).map(|_| format!("{:e}", documents::double(&mut random))).collect();
    // As literals of SQL they are read exactly.
    let values: Vec<String> =
        doubles.chunks(500).map(|chunk| format!("JSON_ARRAY({})", chunk.join(","))).collect();
    assert_eq!(insert(&mut session, &values), 0);
    let mut compared = 0;
    for (row, (_, expected)) in logged(&server).iter().zip(printed(&mut session)) {
        let (ours, expected) = (ours(row.after.as_ref().unwrap()), expected.unwrap());
        for (ours, expected) in ours.split(|b| *b == b',').zip(expected.split(|b| *b == b',')) {
            assert_same(ours, expected, "a double");
            compared += 1;
        }
        assert_eq!(ours, expected);
    }
    assert_eq!(compared, doubles.len());
}

#[test]
fn partial_updates_lead_to_the_document_that_the_server_has() {
    let Some((server, mut session)) = start() else { return };
    let mut random = Random::new(seed());
    let values: Vec<String> = (0..400).map(|_| documents::large_document(&mut random)).collect();
    assert_eq!(insert(&mut session, &values), 0);
    let (ids, mut folded): (Vec<_>, Vec<_>) = printed(&mut session).into_iter().unzip();
    let (mut partial, mut whole) = (0, 0);
    session.sql("SET binlog_row_value_options = 'PARTIAL_JSON'");
    for round in 0..15 {
        // Each round has a log file of its own.
        session.sql("FLUSH BINARY LOGS");
        for id in &ids {
            let change = documents::change(&mut random);
            session.sql(&format!("UPDATE t SET j = {change} WHERE id = {id}"));
        }
        for row in logged(&server) {
            let at = ids.binary_search(&row.id).unwrap();
            let before = row.before.as_deref();
            assert_eq!(before.map(ours), folded[at], "the old document of {} in round {round}", row.id);
            if row.partial {
                partial += 1;
                let mut out = Vec::new();
                let diffs = row.after.as_ref().unwrap();
                let applied = apply_diffs(before, diffs, &mut out);
                assert_eq!(applied, Ok(Applied::Written), "{before:02x?} {diffs:02x?}");
                folded[at] = Some(out);
            } else {
                whole += 1;
                folded[at] = row.after.as_deref().map(ours);
            }
        }
        for ((id, expected), folded) in printed(&mut session).iter().zip(&folded) {
            let (ours, expected) = (folded.as_ref().unwrap(), expected.as_ref().unwrap());
            assert_same(ours, expected, &format!("document {id} after round {round}"));
        }
    }
    assert!(partial > 2500, "{partial} were partial, {whole} were not");
}

/// What the other settings of a server make of a partial update, which the source relies on.
#[test]
fn without_the_old_document_a_partial_update_is_not_known() {
    let Some((server, mut session)) = start() else { return };
    session.sql("INSERT INTO t VALUES (1, JSON_OBJECT('a', REPEAT('x', 100), 'b', 1)), (2, NULL)");
    session.sql("SET binlog_row_value_options = 'PARTIAL_JSON'; FLUSH BINARY LOGS");
    session.sql("SET binlog_row_image = 'MINIMAL'; UPDATE t SET j = JSON_SET(j, '$.b', 2) WHERE id = 1");
    session.sql("SET binlog_row_image = 'NOBLOB'; UPDATE t SET j = JSON_SET(j, '$.b', 3) WHERE id = 1");
    // Nothing to do for the JSON column: it has not changed.
    session.sql(
        "SET binlog_row_image = 'FULL'; UPDATE t SET id = 3 WHERE id = 1; UPDATE t SET id = 4 WHERE id = 2",
    );
    let rows = logged(&server);
    let seen: Vec<_> =
        rows.iter().map(|r| (r.id, r.before_has_column, r.partial, r.after.is_some())).collect();
    assert_eq!(
        seen,
        [(1, false, true, true), (1, true, true, true), (3, true, true, true), (4, true, false, false)]
    );
    let mut out = Vec::new();
    let applied = apply_diffs(None, rows[0].after.as_ref().unwrap(), &mut out);
    assert_eq!((applied, out.is_empty()), (Ok(Applied::NoBefore), true));
    assert_eq!(rows[2].after.as_deref(), Some(&b""[..]), "an unchanged document is an empty list of diffs");
    assert_eq!(apply_diffs(rows[2].before.as_deref(), b"", &mut out), Ok(Applied::Written));
    assert_eq!(compact(&out), out);
    assert!(out.starts_with(br#"{"a":"xxx"#) && out.ends_with(br#"x","b":3}"#));
}
