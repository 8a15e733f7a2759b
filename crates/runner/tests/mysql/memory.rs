//! A transaction larger than any buffer, in bounded memory.

use super::*;

/// What the process may have held at most, resident.
const CEILING_KB: u64 = 96 << 10;
const ROWS: u64 = 500_000;

#[test]
fn half_a_million_rows_in_one_transaction() {
    for flavour in Flavour::available() {
        passes(flavour, &[], "plain");
        match flavour {
            // Compressed as a whole, and row event by row event.
            Flavour::MySql => passes(flavour, &["--binlog-transaction-compression=ON"], "compressed"),
            Flavour::MariaDb => passes(flavour, &["--log-bin-compress=ON"], "compressed"),
        }
    }
}

fn passes(flavour: Flavour, args: &[&str], title: &str) {
    let server = own_server(flavour, args);
    let db = server.fresh_db("big");
    server.sql(&db, "create table t (id int primary key, filler varchar(80), rev int)");
    let home = home(&server, &db, "");
    let engine = home.start();
    server.sql(&db, "insert into t values (0, 'first', 0)");
    home.wait_lines("events.jsonl", 1);
    let position = |engine: &support::Engine| engine.checkpoint("p")["position"].clone();
    let (_, end) = server.binlog_end();
    deltaforge_testkit::wait_for("the first row's place to be saved", support::PATIENCE, || {
        position(&engine)["pos"] == end
    });
    let limit = match flavour {
        Flavour::MySql => "cte_max_recursion_depth",
        Flavour::MariaDb => "max_recursive_iterations",
    };
    let (inserts, updates) = (ROWS / 2, ROWS - ROWS / 2);
    server.sql(
        &db,
        &format!(
            "set session {limit} = {ROWS}; begin; \
             insert into t with recursive g as (select 1 as n union all select n + 1 from g where n < {inserts}) \
             select n, concat('filler of a row that is neither long nor short ', n), 0 from g; \
             update t set rev = rev + 1 where id between 1 and {updates}; commit"
        ),
    );
    let (before, mut parts, mut moved) = (position(&engine), 0, false);
    let written = || std::fs::metadata(home.path("events.jsonl")).unwrap().len();
    let (mut size, mut settled) = (0, std::time::Instant::now());
    // The end is seen when the checkpoint has moved; until then the file grows.
    deltaforge_testkit::wait_for("the transaction to pass", 4 * support::PATIENCE, || {
        engine.assert_runs();
        let now = written();
        if now != size {
            (size, settled) = (now, std::time::Instant::now());
        }
        let now = position(&engine);
        moved = now != before;
        parts += u32::from(size > 10 << 20 && !moved);
        moved && settled.elapsed() > std::time::Duration::from_millis(200)
    });
    let peak = engine.peak_kb();
    println!("{} {title}: peak RSS {} MiB, seen {parts} times half way", flavour.name(), peak >> 10);
    engine.stop();
    assert!(parts > 0, "never seen half way");
    assert_eq!(home.lines("events.jsonl").len() as u64, 1 + ROWS);
    assert!(peak <= CEILING_KB, "{} {title}: peak RSS {peak} KiB", flavour.name());
    let events = home.lines("events.jsonl");
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!((&last["op"], &last["transaction"]["total_order"]), (&"u".into(), &ROWS.into()));
}
