//! Redis streams and the server's view of a slot.

use super::session::Session;
use super::{Engine, Home};
use deltaforge_testkit::ledger::Ledger;
use deltaforge_testkit::servers::{Postgres, Redis};
use deltaforge_testkit::wait_for;
use serde_json::Value;
use std::time::Duration;

/// Entries per question.
const PAGE: &str = "5000";

/// A Redis sink, id `r`, tried again soon.
pub fn redis_sink(uri: &str, stream: &str) -> String {
    format!(
        "{{ type: redis, config: {{ id: r, uri: '{uri}', stream: {stream}, send_timeout_secs: 1, connect_timeout_secs: 1, \
         retry: {{ initial_ms: 50, max_ms: 500 }} }} }}"
    )
}

/// The same, exactly once.
pub fn exact_redis_sink(uri: &str, stream: &str) -> String {
    redis_sink(uri, stream).replace("id: r,", "id: r, exactly_once: true,")
}

/// Gives a ledger all entries of a stream.
pub fn feed_stream(ledger: &mut Ledger, redis: &Redis, stream: &str) {
    let mut from = "-".to_owned();
    loop {
        // Raw: the id, then names and values in turn, a line each. JSON never holds a line end.
        let page = redis.cli(&["XRANGE", stream, &from, "+", "COUNT", PAGE]);
        let mut lines = page.lines().filter(|line| !line.is_empty()).peekable();
        if lines.peek().is_none() {
            return;
        }
        while let Some(id) = lines.next() {
            let (mut event_id, mut event, mut key) = (None, None, None);
            while let Some(name) = lines.next_if(|line| !is_entry_id(line)) {
                let value = lines.next();
                match name {
                    "event_id" => event_id = value,
                    "df-event" => event = value,
                    "df-key" => key = value,
                    _ => {}
                }
            }
            ledger.take_entry(event_id.unwrap_or(""), key, event.unwrap_or(""));
            from = format!("({id}");
        }
    }
}

fn is_entry_id(line: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    line.split_once('-').is_some_and(|(ms, number)| digits(ms) && digits(number))
}

/// Gives a ledger all lines of a file.
pub fn feed_lines(ledger: &mut Ledger, home: &Home, file: &str) {
    home.lines(file).iter().for_each(|line| ledger.take(line));
}

/// `16/B374D848` as a number.
pub fn lsn(text: &str) -> Option<u64> {
    let (high, low) = text.trim().split_once('/')?;
    Some(u64::from_str_radix(high, 16).ok()? << 32 | u64::from_str_radix(low, 16).ok()?)
}

/// The position that lies in the state folder for a source, if one was saved: read from the file, as a crash leaves it.
pub fn stored_lsn(home: &Home, source_id: &str) -> Option<u64> {
    let text = std::fs::read_to_string(home.path("state/df_checkpoints.json")).ok()?;
    let file: Value = serde_json::from_str(&text).unwrap();
    lsn(file[source_id]["lsn"].as_str()?)
}

/// How far the slot `df` was acknowledged.
pub fn confirmed_lsn(session: &mut Session) -> Option<u64> {
    lsn(&session.ask("select confirmed_flush_lsn from pg_replication_slots where slot_name = 'df'"))
}

/// The end of the server's log.
pub fn head_lsn(postgres: &Postgres) -> u64 {
    lsn(&postgres.psql("postgres", "select pg_current_wal_flush_lsn()")).unwrap()
}

/// Waits until everything that the server has logged so far is delivered and saved; gives the place.
#[track_caller]
pub fn wait_drained(
    engine: &Engine,
    home: &Home,
    source_id: &str,
    postgres: &Postgres,
    patience: Duration,
) -> u64 {
    let target = head_lsn(postgres);
    wait_for("everything to be delivered and saved", patience, || {
        engine.assert_runs();
        stored_lsn(home, source_id).is_some_and(|stored| stored >= target)
    });
    target
}

/// A metric of the process, all its series added up; nothing when there is none.
pub fn metric(engine: &Engine, name: &str) -> Option<f64> {
    let (_, text) = engine.get("/metrics");
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let value = if rest.starts_with('{') { rest.rsplit_once(' ')?.1 } else { rest.strip_prefix(' ')? };
        value.parse::<f64>().ok()
    };
    let values: Vec<f64> = text.lines().filter_map(value).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

/// The server processes that stream from the slot `df`.
pub fn walsenders(postgres: &Postgres) -> String {
    postgres.psql("postgres", "select active_pid from pg_replication_slots where slot_name = 'df' and active")
}
