//! What an exactly-once sink stores beside its events: where they end, and which was the last.
//!
//! ```json
//! {"pipeline":"orders","sink":"orders-redis","owner":"5f0c…","position":{"lsn":"0/16B6C50","tx_id":755},"event_id":"5c0f4e0e-…"}
//! ```
//!
//! The position is kept as the text that its connector wrote, since positions are compared by it. `owner` is there where the
//! target has no fencing of its own: a number made anew by each connection that delivers.

use deltaforge_core::sink::Held;
use deltaforge_core::{EventId, Position};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;

#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    pipeline: Cow<'a, str>,
    #[serde(borrow)]
    sink: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    owner: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    position: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
}

/// Whose it is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) pipeline: String,
    pub(crate) sink: String,
}

impl Identity {
    /// The stored text; without a position it only says who owns the place.
    pub(crate) fn write(&self, owner: Option<&str>, held: Option<(&Position, EventId)>) -> Vec<u8> {
        // A position is the JSON text of an object, by its own contract.
        let position = held.and_then(|(position, _)| serde_json::from_str(position.as_json()).ok());
        let stored = Stored {
            pipeline: self.pipeline.as_str().into(),
            sink: self.sink.as_str().into(),
            owner: owner.map(Cow::from),
            position,
            event_id: held.map(|(_, event)| event.to_string()),
        };
        serde_json::to_vec(&stored).unwrap_or_default()
    }

    /// Reads what was stored; `None` when it is there without a position.
    ///
    /// # Errors
    /// What is wrong with it, in words that follow "the stored position".
    pub(crate) fn read(&self, text: &[u8]) -> Result<Option<Held>, String> {
        let stored: Stored<'_> =
            serde_json::from_slice(text).map_err(|e| format!("is not what a sink writes: {e}"))?;
        if (stored.pipeline.as_ref(), stored.sink.as_ref()) != (self.pipeline.as_str(), self.sink.as_str()) {
            return Err(format!("is that of the sink `{}` of `{}`", stored.sink, stored.pipeline));
        }
        let Some(position) = stored.position else { return Ok(None) };
        if !position.get().starts_with('{') {
            return Err("is no JSON object".into());
        }
        let event = stored.event_id.and_then(|text| text.parse().ok());
        let event = event.ok_or("names no event")?;
        Ok(Some(Held { position: Position::from_json(position.get()), event, inside: 0 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let us = Identity { pipeline: "orders".into(), sink: "orders-\"x\"".into() };
        let position = Position::from_json("{\"lsn\":\"0/16B6C50\",\"tx_id\":755}");
        let event = EventId::derive(b"1");
        let text = us.write(Some("me"), Some((&position, event)));
        let held = Held { position, event, inside: 0 };
        assert_eq!(us.read(&text), Ok(Some(held)));
        assert_eq!(us.read(&us.write(Some("me"), None)), Ok(None));
        let other = Identity { sink: "other".into(), ..us.clone() };
        assert!(other.read(&text).unwrap_err().contains("of `orders`"));
        for wrong in [
            &b"x"[..],
            b"{}",
            br#"{"pipeline":"orders","sink":"orders-\"x\"","position":7,"event_id":"5c0f4e0e-6f43-8a51-9d0a-3f6f0e2b7c19"}"#,
            br#"{"pipeline":"orders","sink":"orders-\"x\"","position":{}}"#,
        ] {
            assert!(us.read(wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }
}
