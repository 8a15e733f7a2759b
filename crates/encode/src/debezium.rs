//! The Debezium wrapper: the native event where consumers of Debezium's JSON converter look for the payload.

/// Before the native event.
pub(crate) const OPEN: &[u8] = br#"{"schema":null,"payload":"#;

/// After it.
pub(crate) const CLOSE: &[u8] = b"}";
