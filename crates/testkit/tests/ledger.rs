//! A ledger is worth what it finds: a sound stream passes, and each way of tampering with it is seen.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "in a test, a panic with a clear message is how a failure is reported, and what was measured is printed"
)]

use deltaforge_testkit::ledger::{Change, Ledger, Summary, witnessed};

const TABLES: &[(&str, &[&str])] = &[("public.a", &["id"]), ("public.b", &["x", "y"])];

/// One event. `xid` is also the commit: transaction 7 commits at 70 and follows transaction 6.
struct Event {
    xid: u64,
    order: u64,
    table: &'static str,
    op: &'static str,
    before: &'static str,
    after: &'static str,
}

impl Event {
    /// As read at some time by a reader that knows, or does not know, the commit before.
    fn json(&self, read_ms: u64, previous_commit: u64) -> String {
        let Event { xid, order, table, op, before, after } = self;
        let lsn = xid * 10 + order;
        format!(
            r#"{{"before":{before},"after":{after},"source":{{"version":"deltaforge-1","connector":"postgresql","name":"p","ts_ms":1,"db":"d","schema":"public","table":"{table}","sequence":"[\"{previous_commit}\",\"{lsn}\"]","lsn":"0/{lsn}","txId":{xid}}},"op":"{op}","ts_ms":{read_ms},"transaction":{{"id":"{xid}","total_order":{order},"data_collection_order":{order}}},"event_id":"e-{xid}-{order}","tenant_id":"default","schema_version":"sha256:0","schema_sequence":1}}"#
        )
    }
}

const fn event(
    (xid, order): (u64, u64),
    table: &'static str,
    op: &'static str,
    before: &'static str,
    after: &'static str,
) -> Event {
    Event { xid, order, table, op, before, after }
}

/// Two inserts, an update of the key that leaves a large value alone, a composite key, a delete, an insert again.
const EVENTS: [Event; 7] = [
    event((1, 1), "a", "c", "null", r#"{"id":1,"big":"X","n":1}"#),
    event((1, 2), "a", "c", "null", r#"{"id":2,"big":"Y","n":1}"#),
    event((2, 1), "a", "u", r#"{"id":1}"#, r#"{"id":3,"big":{"_unchanged":true},"n":2}"#),
    event((2, 2), "b", "c", "null", r#"{"x":1,"y":2}"#),
    event((2, 3), "b", "c", "null", r#"{"x":1,"y":3}"#),
    event((3, 1), "a", "d", r#"{"id":2}"#, "null"),
    event((4, 1), "a", "c", "null", r#"{"id":2,"big":"Z","n":5}"#),
];
const ROWS_A: &str = "{\"id\":2,\"big\":\"Z\",\"n\":5}\n{\"id\":3,\"big\":\"X\",\"n\":2}";
const ROWS_B: &str = "{\"x\":1,\"y\":2}\n{\"x\":1,\"y\":3}";
const DECODED: &str = "BEGIN\n\
    table public.a: INSERT: id[integer]:1 big[text]:'X' n[integer]:1\n\
    table public.a: INSERT: id[integer]:2 big[text]:'Y' n[integer]:1\n\
    COMMIT\nBEGIN\n\
    table public.a: UPDATE: old-key: id[integer]:1 new-tuple: id[integer]:3 big[text]:unchanged-toast-datum n[integer]:2\n\
    table public.other: INSERT: id[integer]:1\n\
    table public.b: INSERT: x[integer]:1 y[integer]:2\n\
    table public.b: INSERT: x[integer]:1 y[integer]:3\n\
    COMMIT\nBEGIN\n\
    table public.a: DELETE: id[integer]:2\n\
    COMMIT\nBEGIN\n\
    table public.a: INSERT: id[integer]:2 big[text]:'Z' n[integer]:5\n\
    COMMIT";

/// The payloads of these events in this order, read one after the other.
fn stream(indexes: &[usize]) -> Vec<String> {
    let read = |(at, index): (usize, &usize)| {
        let event = &EVENTS[*index];
        event.json(1000 + at as u64, (event.xid - 1) * 10)
    };
    indexes.iter().enumerate().map(read).collect()
}

const ALL: &[usize] = &[0, 1, 2, 3, 4, 5, 6];

fn check(payloads: &[String]) -> Result<Summary, String> {
    check_against(payloads, ROWS_A, ROWS_B)
}

fn check_against(payloads: &[String], a: &str, b: &str) -> Result<Summary, String> {
    let mut ledger = Ledger::new(TABLES);
    payloads.iter().for_each(|payload| ledger.take(payload));
    ledger.check_table("public.a", a);
    ledger.check_table("public.b", b);
    ledger.check_history(&witnessed(DECODED, TABLES));
    ledger.finish()
}

#[track_caller]
fn refuses(payloads: &[String], because: &str) {
    let why = check(payloads).expect_err("a tampered stream passed");
    assert!(why.contains(because), "expected {because:?} in:\n{why}");
}

#[test]
fn a_sound_stream_passes() {
    let summary = check(&stream(ALL)).unwrap();
    let expected = Summary { entries: 7, events: 7, transactions: 4, replays: 0, longest_replay: 0 };
    assert_eq!(summary, expected);
}

#[test]
fn contiguous_replays_pass() {
    let summary = check(&stream(&[0, 1, 2, 3, 2, 3, 2, 3, 4, 5, 6, 5, 6])).unwrap();
    assert_eq!((summary.entries, summary.events, summary.replays, summary.longest_replay), (13, 7, 3, 2));
    // A reader that begins at transaction 2 knows another commit before it.
    let mut payloads = stream(&[0, 1, 2, 2, 3, 4, 5, 6]);
    payloads[3] = EVENTS[2].json(9, 14);
    check(&payloads).unwrap();
}

#[test]
fn loss_is_seen() {
    refuses(&stream(&[0, 1, 3, 4, 5, 6]), "does not follow");
    refuses(&stream(&[0, 1, 2, 3, 5, 6]), "is missing from the stream");
    refuses(&stream(&[0, 1, 2, 3, 4, 5]), "is missing from the stream");
    // A delete and the insert that undoes it: the rows alone would not tell.
    let without = stream(&[0, 1, 2, 3, 4]);
    let rows = ROWS_A.replace("\"Z\",\"n\":5", "\"Y\",\"n\":1");
    let why = check_against(&without, &rows, ROWS_B).unwrap_err();
    assert!(why.contains("5 changes, and should be 7"), "{why}");
}

#[test]
fn disorder_is_seen() {
    refuses(&stream(&[0, 1, 2, 3, 4, 6, 5]), "does not follow");
    refuses(&stream(&[0, 2, 1, 3, 4, 5, 6]), "does not follow");
    // Back to transaction 2, then on with something else than followed it.
    refuses(&stream(&[0, 1, 2, 3, 4, 5, 2, 3, 5, 6]), "leaves something out");
    refuses(
        &stream(&[0, 1, 2, 3, 4, 2, 3, 5, 6]),
        "a replay ends at event 3, before it reached the head, event 4",
    );
    // A straggler of an earlier connection: an old event as the last one of its key.
    refuses(&stream(&[0, 1, 2, 3, 4, 5, 6, 2]), "ends inside a replay");
}

#[test]
fn changed_content_is_seen() {
    let mut payloads = stream(&[0, 1, 2, 3, 4, 5, 6, 6]);
    payloads[7] = payloads[7].replace("\"Z\"", "\"W\"");
    refuses(&payloads, "came with other content before");
    let mut payloads = stream(ALL);
    payloads[6] = payloads[6].replace("\"Z\"", "\"W\"");
    refuses(&payloads, "the row 2 is");
    let mut payloads = stream(&[0, 1, 2, 3, 4, 5, 6, 6]);
    payloads[7] = payloads[7].replace("\"op\":\"c\"", "\"op\":\"u\"");
    refuses(&payloads, "came with other content before");
}

#[test]
fn a_second_identity_is_seen() {
    let mut payloads = stream(&[0, 1, 2, 3, 4, 5, 6, 6]);
    payloads[7] = payloads[7].replace("e-4-1", "e-4-9");
    refuses(&payloads, "does not follow");
}

#[test]
fn extra_rows_and_changes_are_seen() {
    let why = check_against(&stream(ALL), "{\"id\":3,\"big\":\"X\",\"n\":2}", ROWS_B).unwrap_err();
    assert!(why.contains("a row 2 that the table has not"), "{why}");
    let mut extra = stream(ALL);
    extra.push(event((5, 1), "a", "d", r#"{"id":77}"#, "null").json(1, 40));
    refuses(&extra, "a delete of a key that is not there");
    let mut foreign = stream(ALL);
    foreign.push(event((5, 1), "c", "c", "null", r#"{"id":77}"#).json(1, 40));
    refuses(&foreign, "which is not captured");
    let mut broken = stream(ALL);
    broken[3].truncate(100);
    refuses(&broken, "not a native event");
}

#[test]
fn the_entry_agrees_with_its_payload() {
    let payload = EVENTS[0].json(1, 0);
    let mut ledger = Ledger::new(TABLES);
    ledger.take_entry("e-1-1", Some(r#"{"id":1}"#), &payload);
    assert!(ledger.finish().is_ok());
    let mut ledger = Ledger::new(TABLES);
    ledger.take_entry("e-1-2", Some("{"), &payload);
    let why = ledger.finish().unwrap_err();
    assert!(why.contains("the payload has another") && why.contains("df-key"), "{why}");
}

#[test]
fn the_witness_is_read() {
    let changes = witnessed(DECODED, TABLES);
    let shown: Vec<String> = changes.iter().map(Change::to_string).collect();
    let expected = [
        "c public.a 1",
        "c public.a 2",
        "u public.a 3",
        "c public.b 1,2",
        "c public.b 1,3",
        "d public.a 2",
        "c public.a 2",
    ];
    assert_eq!(shown, expected);
    let truncated = witnessed("table public.a, public.b: TRUNCATE: (no-flags)", TABLES);
    assert_eq!(truncated.len(), 2);
}
