//! What an exactly-once sink stores at its target: how far it came, as one JSON object.
//!
//! `{"pipeline":"orders","sink":"orders-kafka","position":{…},"event_id":"…"}`

use deltaforge_core::EventId;
use deltaforge_core::position::Position;
use deltaforge_core::sink::Held;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;

#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    pipeline: Cow<'a, str>,
    #[serde(borrow)]
    sink: Cow<'a, str>,
    /// As written: positions are compared by their connector, and to others they are text.
    #[serde(borrow)]
    position: &'a RawValue,
    #[serde(borrow)]
    event_id: Cow<'a, str>,
}

/// The JSON text of what a target holds; `None` when `position` is not JSON, which no connector makes.
pub(crate) fn encode(pipeline: &str, sink: &str, position: &Position, event: EventId) -> Option<String> {
    let position = serde_json::from_str(position.as_json()).ok()?;
    let event_id = event.to_string().into();
    serde_json::to_string(&Stored { pipeline: pipeline.into(), sink: sink.into(), position, event_id }).ok()
}

/// Reads what [`encode`] wrote for this pipeline and sink; `None` when it is something else.
pub(crate) fn decode(text: &[u8], pipeline: &str, sink: &str) -> Option<Held> {
    let stored: Stored<'_> = serde_json::from_slice(text).ok()?;
    if stored.pipeline != pipeline || stored.sink != sink {
        return None;
    }
    let position = stored.position.get();
    let event = event_id(&stored.event_id)?;
    position.starts_with('{').then(|| Held { position: Position::from_json(position), event, inside: false })
}

/// An event id from its text, 36 characters.
fn event_id(text: &str) -> Option<EventId> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    let mut id = [0; 16];
    if text.len() != 36 || digits.len() != 32 {
        return None;
    }
    for (byte, pair) in id.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(EventId(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_comes_back() {
        let position =
            Position::from_json(r#"{"lsn":"0/16B6C50","tx_id":755,"big":12345678901234567890123}"#);
        let event = EventId::derive(b"x");
        let text = encode("a\"b", "s", &position, event).unwrap();
        let held = decode(text.as_bytes(), "a\"b", "s").unwrap();
        assert_eq!((held.position, held.event, held.inside), (position, event, false));
        assert!(decode(text.as_bytes(), "other", "s").is_none());
        assert!(decode(text.as_bytes(), "a\"b", "other").is_none());
        for wrong in [&b""[..], b"{}", b"null", br#"{"pipeline":"p","sink":"s","position":1,"event_id":"x"}"#]
        {
            assert!(decode(wrong, "p", "s").is_none());
        }
    }
}
