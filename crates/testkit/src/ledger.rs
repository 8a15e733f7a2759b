//! What a consumer makes of a stream, and whether that is right.
//!
//! A [`Ledger`] reads the events of one stream (native JSON) in the order of the stream and keeps the tables that they
//! add up to. It tells:
//!
//! - **order**: events that come for the first time follow the source's order, without a hole inside a transaction;
//! - **replays**: after an event that came before, the same events follow as followed then, up to the head. So a version
//!   goes back only as part of a contiguous stretch, and never to stay;
//! - **identity**: a repeated event carries the same `event_id` and the same content;
//! - **state**: the rows that the stream adds up to are the rows of the table ([`Ledger::check_table`]);
//! - **history**: every change that the source made is there, also one that a later change undid
//!   ([`Ledger::check_history`], against what another decoder of the same log saw: [`witnessed`]).
//!
//! **Why it is enough to fold first occurrences.** Each replay runs from where it begins to the head without leaving
//! anything out, so the last event of every key in the stream is the last event of that key in the source's order.
//! A consumer that applies repetitions too ends up with the same rows. [`Ledger::finish`] refuses a stream that ends
//! in the middle of a replay, the one case in which that would not hold.
//!
//! Two members may differ between repetitions, and only these: `ts_ms`, the time of reading, and the first half of
//! `source.sequence`, the commit before, which a reader that begins here does not know.

mod witness;

pub use witness::{Witness, witnessed};

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Faults that are kept; a broken stream has one per event.
const FAULTS_KEPT: usize = 20;

/// One change as the history tells it: table, operation (`c`, `u`, `d`, `t`), key values of the new row (of the old one
/// for a delete, none for a truncate) joined by `,`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `schema.table`.
    pub table: String,
    /// The letter in `op`.
    pub op: char,
    /// Key values.
    pub key: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.op, self.table, self.key)
    }
}

/// What a stream came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Entries read, repetitions included.
    pub entries: usize,
    /// Different events.
    pub events: usize,
    /// Transactions.
    pub transactions: usize,
    /// How often the stream went back.
    pub replays: usize,
    /// Events of the longest replay.
    pub longest_replay: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { entries, events, transactions, replays, longest_replay } = self;
        write!(
            f,
            "{entries} entries, {events} events of {transactions} transactions, {replays} replays, the longest of \
             {longest_replay} events"
        )
    }
}

/// An event, as far as the ledger looks at it. Rows stay text until they are folded.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    before: Option<&'a RawValue>,
    #[serde(borrow)]
    after: Option<&'a RawValue>,
    source: Map<String, Value>,
    op: &'a str,
    transaction: Option<Transaction>,
    event_id: String,
    tenant_id: Option<&'a str>,
    schema_version: Option<&'a str>,
    schema_sequence: Option<u64>,
    #[serde(borrow)]
    ddl: Option<&'a RawValue>,
}

#[derive(Deserialize, Hash)]
struct Transaction {
    id: String,
    total_order: u64,
    data_collection_order: u64,
}

/// Where an event stands in the source's order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    previous_commit: u64,
    total_order: u64,
    transaction: String,
}

/// An event that came.
struct Seen {
    index: usize,
    content: u64,
}

/// The columns of a row in order, or what is wrong with it.
type Row = Map<String, Value>;

/// Folds one stream.
pub struct Ledger {
    /// Key columns by table; tables not named here are a fault.
    keys: HashMap<String, Vec<String>>,
    tables: HashMap<String, BTreeMap<String, Row>>,
    seen: HashMap<String, Seen>,
    /// First occurrences, in order.
    history: Vec<Change>,
    head: Option<Place>,
    /// Index of the event before this one.
    cursor: Option<usize>,
    replay: usize,
    summary: Summary,
    faults: Vec<String>,
    more_faults: usize,
}

impl Ledger {
    /// An empty ledger of these tables: full name and key columns of each.
    pub fn new(tables: &[(&str, &[&str])]) -> Ledger {
        let keys = tables.iter().map(|(table, key)| {
            ((*table).to_owned(), key.iter().map(|column| (*column).to_owned()).collect())
        });
        Ledger {
            keys: keys.collect(),
            tables: HashMap::new(),
            seen: HashMap::new(),
            history: Vec::new(),
            head: None,
            cursor: None,
            replay: 0,
            summary: Summary::default(),
            faults: Vec::new(),
            more_faults: 0,
        }
    }

    /// Takes the next event of the stream.
    pub fn take(&mut self, payload: &str) {
        self.summary.entries += 1;
        if let Err(fault) = self.try_take(payload) {
            let at = self.summary.entries;
            let shown: String = payload.chars().take(400).collect();
            self.fault(format!("entry {at}: {fault}\n    {shown}"));
        }
    }

    /// Takes an entry of a Redis stream: what stands beside the payload must agree with it.
    pub fn take_entry(&mut self, event_id: &str, key: Option<&str>, payload: &str) {
        self.take(payload);
        let needle = format!("\"event_id\":\"{event_id}\"");
        if !payload.contains(&needle) {
            self.fault(format!(
                "entry {}: the field event_id is {event_id}, the payload has another",
                self.summary.entries
            ));
        }
        if key.is_some_and(|key| serde_json::from_str::<&RawValue>(key).is_err()) {
            self.fault(format!("entry {}: df-key is not JSON: {key:?}", self.summary.entries));
        }
    }

    fn fault(&mut self, fault: String) {
        if self.faults.len() < FAULTS_KEPT {
            self.faults.push(fault);
        } else {
            self.more_faults += 1;
        }
    }

    fn try_take(&mut self, payload: &str) -> Result<(), String> {
        let event: Event<'_> =
            serde_json::from_str(payload).map_err(|e| format!("not a native event: {e}"))?;
        let content = content(&event);
        match self.seen.get(&event.event_id) {
            Some(seen) => {
                let (index, same) = (seen.index, seen.content == content);
                self.repeated(index)?;
                if same {
                    Ok(())
                } else {
                    Err(format!("event {} came with other content before", event.event_id))
                }
            }
            None => {
                let index = self.seen.len();
                self.seen.insert(event.event_id.clone(), Seen { index, content });
                let followed = self.followed(index);
                let ordered = self.in_order(&event);
                let folded = self.fold(&event);
                followed.and(ordered).and(folded)
            }
        }
    }

    /// An event that came before: the next one of a replay, or the first of a new one.
    fn repeated(&mut self, index: usize) -> Result<(), String> {
        let cursor = self.cursor.replace(index);
        match cursor {
            Some(cursor) if index == cursor + 1 => self.replay += 1,
            Some(cursor) if index <= cursor => {
                self.replay = 1;
                self.summary.replays += 1;
            }
            _ => {
                self.replay += 1;
                return Err(format!(
                    "a replay leaves something out: after event {cursor:?} comes event {index} of those that came before"
                ));
            }
        }
        self.summary.longest_replay = self.summary.longest_replay.max(self.replay);
        Ok(())
    }

    /// An event that never came before follows the newest one.
    fn followed(&mut self, index: usize) -> Result<(), String> {
        self.replay = 0;
        match self.cursor.replace(index) {
            Some(cursor) if cursor + 1 != index => Err(format!(
                "a replay ends at event {cursor}, before it reached the head, event {}",
                index - 1
            )),
            _ => Ok(()),
        }
    }

    fn in_order(&mut self, event: &Event<'_>) -> Result<(), String> {
        let transaction = event.transaction.as_ref().ok_or("no transaction")?;
        let sequence = event.source.get("sequence").and_then(Value::as_str).ok_or("no source.sequence")?;
        let pair: Vec<String> =
            serde_json::from_str(sequence).map_err(|e| format!("source.sequence: {e}"))?;
        let previous_commit = pair.first().and_then(|text| text.parse().ok()).ok_or("source.sequence")?;
        let place = Place {
            previous_commit,
            total_order: transaction.total_order,
            transaction: transaction.id.clone(),
        };
        let before = self.head.replace(place.clone());
        let goes_on = before.as_ref().is_some_and(|b| b.transaction == place.transaction);
        if !goes_on {
            self.summary.transactions += 1;
        }
        let follows = match &before {
            None => place.total_order == 1,
            Some(before) if goes_on => {
                place.total_order == before.total_order + 1 && place.previous_commit >= before.previous_commit
            }
            Some(before) => place.total_order == 1 && place.previous_commit > before.previous_commit,
        };
        if follows { Ok(()) } else { Err(format!("{place:?} does not follow {before:?}")) }
    }

    fn fold(&mut self, event: &Event<'_>) -> Result<(), String> {
        let table = full_name(&event.source)?;
        let columns = self
            .keys
            .get(&table)
            .ok_or_else(|| format!("a change of {table}, which is not captured"))?
            .clone();
        let (before, after) = (row(event.before)?, row(event.after)?);
        let key_of = |row: Option<&Row>| row.ok_or("no row").and_then(|row| key(row, &columns));
        let rows = self.tables.entry(table.clone()).or_default();
        let (op, key) = match event.op {
            "c" | "r" => {
                let key = key_of(after.as_ref())?;
                let there = rows.insert(key.clone(), after.unwrap_or_default()).is_some();
                self.history.push(Change { table, op: 'c', key });
                return if there { Err("an insert of a key that is there".into()) } else { Ok(()) };
            }
            "u" => {
                let (old, key) = (key_of(before.as_ref())?, key_of(after.as_ref())?);
                let replaced = rows.remove(&old);
                let known = replaced.is_some();
                let merged = merged(after.unwrap_or_default(), &replaced.unwrap_or_default());
                let taken = rows.insert(key.clone(), merged?).is_some();
                if !known {
                    return Err("an update of a key that is not there".into());
                }
                if taken {
                    return Err("an update to a key that is there".into());
                }
                ('u', key)
            }
            "d" => {
                let key = key_of(before.as_ref())?;
                if rows.remove(&key).is_none() {
                    return Err("a delete of a key that is not there".into());
                }
                ('d', key)
            }
            "t" => {
                rows.clear();
                ('t', String::new())
            }
            other => return Err(format!("op `{other}`")),
        };
        self.history.push(Change { table, op, key });
        Ok(())
    }

    /// Different events so far.
    pub fn events(&self) -> usize {
        self.seen.len()
    }

    /// The changes in the source's order, each once.
    pub fn history(&self) -> &[Change] {
        &self.history
    }

    /// Compares a table with its rows as the server tells them: one JSON object per line, as `row_to_json` prints them.
    pub fn check_table(&mut self, table: &str, rows: &str) {
        let Some(columns) = self.keys.get(table).cloned() else {
            self.fault(format!("{table} is not a table of this ledger"));
            return;
        };
        let mut have = self.tables.remove(table).unwrap_or_default();
        for line in rows.lines().filter(|line| !line.is_empty()) {
            let expected: Row = match serde_json::from_str(line) {
                Ok(row) => row,
                Err(e) => {
                    self.fault(format!("{table}: not a row: {e}: {line}"));
                    continue;
                }
            };
            let key = match key(&expected, &columns) {
                Ok(key) => key,
                Err(why) => {
                    self.fault(format!("{table}: {why}: {line}"));
                    continue;
                }
            };
            match have.remove(&key) {
                None => self.fault(format!("{table}: the row {key} is missing from the stream")),
                Some(row) if row == expected => {}
                Some(row) => self.fault(format!(
                    "{table}: the row {key} is {} in the stream, {line} in the table",
                    text(&row)
                )),
            }
        }
        for (key, row) in have {
            self.fault(format!("{table}: the stream has a row {key} that the table has not: {}", text(&row)));
        }
    }

    /// Compares the changes with those that another reader of the log saw, in the same order.
    pub fn check_history(&mut self, expected: &[Change]) {
        let wrong = expected.iter().zip(&self.history).position(|(expected, have)| expected != have);
        let (wanted, have) = (expected.len(), self.history.len());
        match wrong {
            Some(at) => {
                self.fault(format!("change {at} is {}, and should be {}", self.history[at], expected[at]));
            }
            None if wanted != have => self.fault(format!("{have} changes, and should be {wanted}")),
            None => {}
        }
    }

    /// Ends the stream and says what it came to.
    ///
    /// # Errors
    /// Everything that was wrong, one line each.
    pub fn finish(mut self) -> Result<Summary, String> {
        let head = self.seen.len().checked_sub(1);
        if self.cursor != head {
            self.fault(format!("the stream ends inside a replay, at event {:?} of {head:?}", self.cursor));
        }
        self.summary.events = self.seen.len();
        if self.faults.is_empty() {
            return Ok(self.summary);
        }
        if self.more_faults > 0 {
            self.faults.push(format!("… and {} more", self.more_faults));
        }
        Err(format!("{}\n{}", self.summary, self.faults.join("\n")))
    }
}

/// A hash of all that must be the same when the event comes again.
fn content(event: &Event<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    event.before.map(RawValue::get).hash(&mut hasher);
    event.after.map(RawValue::get).hash(&mut hasher);
    event.ddl.map(RawValue::get).hash(&mut hasher);
    for (name, value) in &event.source {
        name.hash(&mut hasher);
        match (name.as_str(), value) {
            ("sequence", Value::String(pair)) => pair.split_once(',').map(|(_, own)| own).hash(&mut hasher),
            (_, Value::String(text)) => text.hash(&mut hasher),
            (_, value) => value.to_string().hash(&mut hasher),
        }
    }
    (event.op, &event.transaction, event.tenant_id, event.schema_version, event.schema_sequence)
        .hash(&mut hasher);
    hasher.finish()
}

fn full_name(source: &Map<String, Value>) -> Result<String, String> {
    let part = |name: &str| source.get(name).and_then(Value::as_str);
    let table = part("table").ok_or("no source.table")?;
    let space = part("schema").or_else(|| part("db")).ok_or("neither source.schema nor source.db")?;
    Ok(format!("{space}.{table}"))
}

fn row(raw: Option<&RawValue>) -> Result<Option<Row>, String> {
    raw.map(|raw| serde_json::from_str(raw.get()).map_err(|e| format!("a row: {e}"))).transpose()
}

fn key(row: &Row, columns: &[String]) -> Result<String, &'static str> {
    let mut key = String::new();
    for column in columns {
        if !key.is_empty() {
            key.push(',');
        }
        match row.get(column).ok_or("a row without its key")? {
            Value::String(text) => key.push_str(text),
            value => key.push_str(&value.to_string()),
        }
    }
    Ok(key)
}

/// The new row; a value that the log does not carry is that of the old row.
fn merged(mut after: Row, old: &Row) -> Result<Row, String> {
    for (column, value) in &mut after {
        if value.get("_unchanged") == Some(&Value::Bool(true)) {
            *value = old
                .get(column)
                .ok_or_else(|| format!("`{column}` is unchanged, and was never given"))?
                .clone();
        }
    }
    Ok(after)
}

/// A row for a message: large values are cut.
fn text(row: &Row) -> String {
    Value::Object(row.clone()).to_string().chars().take(300).collect()
}
