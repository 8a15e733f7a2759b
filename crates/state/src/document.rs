//! How a key is written down: one JSON object that a person can read, and edit while nothing runs.
//!
//! ```json
//! {"lsn": "0/16B6C50", "tx_id": 755,
//!  "checkpoint": {"format": 1, "pipeline": "orders", "version": 57, "epoch": 3, "saved_at": "2026-01-15T10:30:00.000Z",
//!    "sinks": {"orders-redis": {"position": {"lsn": "0/16B6C50", "tx_id": 755}, "delivered_at": "2026-01-15T10:30:00.000Z"}}}}
//! ```
//!
//! The position's own members stand at the top, as they always have, `events_done` beside them when it is not 0; ours
//! are in `checkpoint`. Without `version` nothing has been saved yet: the key is only owned, or, without a `pipeline`,
//! removed, and its epoch is kept so that an owner from before stays fenced. Without `checkpoint` the object is a bare
//! position, written by hand or by something older; whoever asks first owns it.

use crate::faults::bad_position;
use deltaforge_core::checkpoint::{Checkpoint, SinkProgress};
use deltaforge_core::clock::rfc3339_millis;
use deltaforge_core::value::Date;
use deltaforge_core::{Fault, Position};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The format this release writes, and the newest it reads.
pub(crate) const FORMAT: u64 = 1;

/// One key of a store.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Key {
    /// Whose it is; empty: nobody's.
    pub(crate) pipeline: String,
    /// Number of the last owner.
    pub(crate) epoch: u64,
    /// The last save.
    pub(crate) saved: Option<Checkpoint>,
}

/// Why an object is not a key.
#[derive(Debug, PartialEq)]
pub(crate) enum Unreadable {
    /// It says something else.
    Wrong(String),
    /// A newer release wrote it, in this format.
    Newer(u64),
}

impl From<String> for Unreadable {
    fn from(why: String) -> Unreadable {
        Unreadable::Wrong(why)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ours {
    format: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pipeline: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    epoch: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    saved_at: Option<Time>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    sinks: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OursOfSink {
    position: Map<String, Value>,
    delivered_at: Time,
}

/// Unix milliseconds, written as RFC 3339.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Time(pub(crate) i64);

impl From<Time> for String {
    fn from(time: Time) -> String {
        rfc3339_millis(time.0)
    }
}

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(text: String) -> Result<Time, String> {
        parse_time(&text)
            .map(Time)
            .ok_or_else(|| format!("`{text}` is not a time like 2026-01-15T10:30:00.000Z"))
    }
}

/// A checkpoint whose positions are as a store gives them back: JSON objects without white space.
///
/// # Errors
/// `Bug` when a position is anything else, or uses our names.
pub(crate) fn normal(mut checkpoint: Checkpoint) -> Result<Checkpoint, Fault> {
    let position = members(&checkpoint.position)?;
    if let Some(name) = ["checkpoint", "events_done"].into_iter().find(|name| position.contains_key(*name)) {
        return Err(bad_position(&format!("its member `{name}` is the store's own")));
    }
    checkpoint.position = to_position(position);
    for sink in &mut checkpoint.sinks {
        sink.position = to_position(members(&sink.position)?);
    }
    Ok(checkpoint)
}

/// The object to store.
///
/// # Errors
/// `Bug` for positions that [`normal`] has not seen.
pub(crate) fn encode(key: &Key) -> Result<Map<String, Value>, Fault> {
    let mut ours = Ours {
        format: FORMAT,
        pipeline: key.pipeline.clone(),
        version: None,
        epoch: key.epoch,
        saved_at: None,
        sinks: Map::new(),
    };
    let mut object = Map::new();
    if let Some(saved) = &key.saved {
        object = members(&saved.position)?;
        if saved.events_done != 0 {
            object.insert("events_done".into(), saved.events_done.into());
        }
        ours.version = Some(saved.version);
        ours.saved_at = Some(Time(saved.saved_ms));
        for sink in &saved.sinks {
            let of_sink =
                OursOfSink { position: members(&sink.position)?, delivered_at: Time(sink.delivered_ms) };
            ours.sinks.insert(sink.sink.clone(), to_value(&of_sink)?);
        }
    }
    object.insert("checkpoint".into(), to_value(&ours)?);
    Ok(object)
}

/// Reads what [`encode`] wrote, or a bare position.
pub(crate) fn decode(source_id: &str, mut object: Map<String, Value>) -> Result<Key, Unreadable> {
    let ours = object.shift_remove("checkpoint");
    let events_done = match object.shift_remove("events_done") {
        None => 0,
        Some(number) => {
            number.as_u64().ok_or_else(|| format!("`events_done` is {number}, not a number of events"))?
        }
    };
    let ours = match ours {
        Some(ours) => read_ours(ours)?,
        None if object.is_empty() => return Err("it is empty".to_owned().into()),
        None => Ours {
            format: FORMAT,
            pipeline: String::new(),
            version: Some(1),
            epoch: 0,
            saved_at: None,
            sinks: Map::new(),
        },
    };
    let mut key = Key { pipeline: ours.pipeline, epoch: ours.epoch, saved: None };
    let Some(version) = ours.version else {
        return if object.is_empty() {
            Ok(key)
        } else {
            Err("it has a position but no `checkpoint.version`".to_owned().into())
        };
    };
    if object.is_empty() {
        return Err("it has a `checkpoint.version` but no position".to_owned().into());
    }
    let sinks = ours.sinks.into_iter().map(|(sink, value)| {
        let of_sink: OursOfSink =
            serde_json::from_value(value).map_err(|e| format!("`checkpoint.sinks.{sink}`: {e}"))?;
        Ok(SinkProgress {
            sink,
            position: to_position(of_sink.position),
            delivered_ms: of_sink.delivered_at.0,
        })
    });
    key.saved = Some(Checkpoint {
        source_id: source_id.to_owned(),
        pipeline: key.pipeline.clone(),
        position: to_position(object),
        events_done,
        version,
        saved_ms: ours.saved_at.map_or(0, |time| time.0),
        sinks: sinks.collect::<Result<_, String>>()?,
    });
    Ok(key)
}

/// The format first: a newer one may look like anything.
fn read_ours(value: Value) -> Result<Ours, Unreadable> {
    match value.get("format").and_then(Value::as_u64) {
        Some(format) if format > FORMAT => Err(Unreadable::Newer(format)),
        _ => serde_json::from_value(value).map_err(|e| Unreadable::Wrong(format!("`checkpoint`: {e}"))),
    }
}

fn members(position: &Position) -> Result<Map<String, Value>, Fault> {
    match serde_json::from_str(position.as_json()) {
        Ok(Value::Object(members)) if !members.is_empty() => Ok(members),
        Ok(_) => Err(bad_position("it is not a JSON object with members")),
        Err(e) => Err(bad_position(&e.to_string())),
    }
}

fn to_position(members: Map<String, Value>) -> Position {
    Position::from_json(&Value::Object(members).to_string())
}

fn to_value(ours: &impl Serialize) -> Result<Value, Fault> {
    serde_json::to_value(ours).map_err(|e| Fault::bug("state.encode", e.to_string()))
}

/// `2026-01-15T10:30:00Z`, with or without a fraction, of which milliseconds are read.
fn parse_time(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z')?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let plain = fraction.bytes().all(|b| b.is_ascii_digit())
        && (1..=9).contains(&fraction.len())
        && whole.len() == 19;
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if !plain || marks.iter().any(|&(at, mark)| whole.as_bytes()[at] != mark) {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = whole.get(from..to)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let (month, day) = (u8::try_from(number(5, 7)?).ok()?, u8::try_from(number(8, 10)?).ok()?);
    let days = Date::from_ymd(i32::try_from(number(0, 4)?).ok()?, month, day)?.days;
    let (hours, minutes, seconds) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    Some(((i64::from(days) * 24 + hours) * 60 + minutes) * 60_000 + seconds * 1000 + millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(json: Value) -> Result<Key, Unreadable> {
        let Value::Object(object) = json else { panic!("an object") };
        decode("s", object)
    }

    #[test]
    fn times_both_ways() {
        for ms in [0, 1_736_951_521_847, -1, 951_782_400_000, 253_402_300_799_999] {
            assert_eq!(parse_time(&rfc3339_millis(ms)), Some(ms));
        }
        assert_eq!(parse_time("2025-01-15T14:32:01Z"), Some(1_736_951_521_000));
        assert_eq!(parse_time("2025-01-15T14:32:01.84Z"), Some(1_736_951_521_840));
        for wrong in [
            "",
            "Z",
            "2025-01-15",
            "2025-01-15T14:32:01",
            "2025-01-15 14:32:01Z",
            "2025-02-29T14:32:01Z",
            "2025-01-15T24:32:01Z",
            "2025-01-15T14:32:01.Z",
            "2025-01-15T14:32:01.5+01:00Z",
            "+025-01-15T14:32:01Z",
            "é25-01-15T14:32:01Z",
        ] {
            assert_eq!(parse_time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_a_person_may_write_and_what_not() {
        let bare = read(json!({"file": "binlog.000042", "pos": 4, "gtid_set": null})).unwrap();
        assert_eq!(
            bare.saved.unwrap().position.as_json(),
            r#"{"file":"binlog.000042","pos":4,"gtid_set":null}"#
        );
        assert_eq!(read(json!({"checkpoint": {"format": 2, "who": "knows"}})), Err(Unreadable::Newer(2)));
        for (wrong, part) in [
            (json!({}), "it is empty"),
            (json!({"lsn": "0/1", "events_done": -1}), "events_done"),
            (json!({"lsn": "0/1", "checkpoint": 7}), "checkpoint"),
            (json!({"lsn": "0/1", "checkpoint": {"format": 1}}), "epoch"),
            (json!({"lsn": "0/1", "checkpoint": {"format": 1, "epoch": 1}}), "no `checkpoint.version`"),
            (json!({"checkpoint": {"format": 1, "epoch": 1, "version": 3}}), "no position"),
            (
                json!({"lsn": "0/1", "checkpoint": {"format": 1, "epoch": 1, "version": 3, "svaed_at": ""}}),
                "svaed_at",
            ),
            (
                json!({"lsn": "0/1", "checkpoint": {"format": 1, "epoch": 1, "version": 3, "saved_at": "x"}}),
                "`x` is not a time",
            ),
            (
                json!({"lsn": "0/1", "checkpoint": {"format": 1, "epoch": 1, "version": 3, "sinks": {"a": {}}}}),
                "sinks.a",
            ),
        ] {
            let Err(Unreadable::Wrong(why)) = read(wrong.clone()) else { panic!("{wrong} was read") };
            assert!(why.contains(part), "{wrong}: {why}");
        }
    }
}
