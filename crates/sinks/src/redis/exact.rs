//! Exactly once: the position lies in a key beside the streams and is written in the batch's own transaction.
//!
//! ```text
//!  we      EXEC₁   WATCH key  GET key   MULTI XADD XADD …        SET key P₂  EXEC₂
//!  Redis         └ P₁ is set          └ P₁, as we wrote it: go on           └ null if anybody wrote the key since WATCH
//! ```
//!
//! **Why nothing is doubled.** The streams hold the batch if, and only if, the key holds its end: `EXEC` runs both or nothing.
//! A connection whose end leaves that open is asked by reading the key, after everything that may still be unread at the
//! server was dropped with its connection.
//!
//! **Why there is one writer.** The key's text names the connection that wrote it. Before each transaction it is watched and
//! compared with what we wrote last, so a second process that has taken the key over is seen before the next `EXEC`, and one
//! that takes it over in between makes that `EXEC` do nothing. The older one stops as fenced.
//!
//! A source transaction above the limits is one Redis transaction: its parts are queued at the server, which holds them in
//! memory until `EXEC`.
//!
//! **In a cluster** a transaction has one slot, so all streams must share one with the key: a constant stream does by giving
//! its name as the key's hash tag, a template by having a constant tag of its own.

use crate::shared::held::Identity;
use deltaforge_core::sink::Held;
use deltaforge_core::{EventId, Fault, Position};
use deltaforge_encode::template::Template;
use deltaforge_net::address::Address;

/// What a sink needs to know of its position key.
pub(super) struct Exact {
    pub(super) key: Vec<u8>,
    identity: Identity,
    owner: String,
    /// What the key holds when nobody else has written it.
    pub(super) expected: Vec<u8>,
    last_event: Option<EventId>,
    /// Commands queued in the transaction that is open.
    pub(super) queued: usize,
    pub(super) is_open: bool,
    /// Looks at the key that were asked for.
    pub(super) looks: u64,
}

impl Exact {
    pub(super) fn new(pipeline: &str, sink: &str, stream: &Template) -> Exact {
        let mut key = format!("deltaforge:position:{pipeline}/{sink}");
        if let Some(tag) = hash_tag(stream) {
            key.push_str(&format!(":{{{tag}}}"));
        }
        Exact {
            key: key.into_bytes(),
            identity: Identity { pipeline: pipeline.into(), sink: sink.into() },
            owner: uuid::Uuid::new_v4().simple().to_string(),
            expected: Vec::new(),
            last_event: None,
            queued: 0,
            is_open: false,
            looks: 0,
        }
    }

    /// What the key's text says.
    ///
    /// # Errors
    /// `Config` when the text is not one of this sink.
    pub(super) fn read(&self, text: Option<&[u8]>, address: &Address) -> Result<Option<Held>, Fault> {
        let Some(text) = text else { return Ok(None) };
        self.identity.read(text).map_err(|why| {
            let key = String::from_utf8_lossy(&self.key);
            Fault::config("redis.position_unreadable", format!("the position in the key `{key}` of {address} {why}"))
                .hint("give the sink another id; or DEL the key, and the pipeline goes on from the state store's checkpoint")
        })
    }

    /// The text by which this connection takes the key over; what is held stays.
    pub(super) fn claim(&mut self, held: Option<&Held>) -> Vec<u8> {
        self.last_event = held.map(|held| held.event);
        self.expected = self.identity.write(Some(&self.owner), held.map(|held| (&held.position, held.event)));
        self.expected.clone()
    }

    /// The text that a batch's transaction writes.
    pub(super) fn advance(&mut self, end: &Position, last_event: Option<EventId>) -> &[u8] {
        self.last_event = last_event.or(self.last_event);
        // Without any event ever, whatever id stands there is the last of none.
        let event = self.last_event.unwrap_or_default();
        self.expected = self.identity.write(Some(&self.owner), Some((end, event)));
        &self.expected
    }
}

/// What decides a key's slot in every name that the template makes; `None` when that differs from event to event.
pub(super) fn hash_tag(stream: &Template) -> Option<&str> {
    if let Some(name) = stream.is_constant() {
        let tag = tag_in(name).unwrap_or(name);
        // Braces that are no tag would be one inside ours.
        return (!tag.contains(['{', '}'])).then_some(tag);
    }
    // A `}` behind the first `{`, both before anything that an event fills in.
    tag_in(stream.constant_prefix()?)
}

/// The part of a name that is hashed, if it is not the whole (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags>).
fn tag_in(name: &str) -> Option<&str> {
    let (_, rest) = name.split_once('{')?;
    let (tag, _) = rest.split_once('}')?;
    (!tag.is_empty()).then_some(tag)
}

/// Another process took the key over.
pub(super) fn fenced(address: &Address, key: &[u8]) -> Fault {
    let key = String::from_utf8_lossy(key);
    let message = format!(
        "another process delivers as this sink, or removed its position: `{key}` of {address} is not as it was left"
    );
    Fault::new(deltaforge_core::Class::Fenced, "redis.fenced", message)
        .hint("run one process per pipeline; two pipelines of one name need sinks with different ids")
}

/// The key is gone.
pub(super) fn position_gone(address: &Address, key: &[u8]) -> Fault {
    let key = String::from_utf8_lossy(key);
    Fault::retry(
        "redis.position_gone",
        format!("the key `{key}` of {address}, which holds the position, is gone"),
    )
    .hint("was the database flushed, or does maxmemory-policy evict keys without an expiry?")
}

/// A part of a transaction was executed and a part refused.
pub(super) fn partly(address: &Address, why: &Fault) -> Fault {
    let message = format!("{address} executed a transaction and refused commands in it: {}", why.message());
    Fault::lost("redis.partly_executed", message).hint(
        "a stream's key was replaced while it was written; put a stream there, then resume: the refused entries are missing in it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags() {
        let tag = |text: &str| hash_tag(&Template::parse(text).unwrap()).map(str::to_owned);
        assert_eq!(tag("orders").as_deref(), Some("orders"));
        assert_eq!(tag("a{orders}b").as_deref(), Some("orders"));
        assert_eq!(tag("a{}b"), None);
        assert_eq!(tag("{shop}:${source.table}").as_deref(), Some("shop"));
        assert_eq!(tag("shop:${source.table}"), None);
        assert_eq!(tag("shop:{${source.table}}"), None);
    }
}
