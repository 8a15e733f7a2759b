//! Delivery to a cluster.
//!
//! A stream is one key and lies in one slot; a transaction cannot cross slots. So a batch is one `MULTI`/`EXEC` per slot it
//! touches, and usually that is one. Batches go one after the other: the next is encoded meanwhile, but sent only when every
//! part of this one is acknowledged, so no stream ever sees a later batch before an earlier one.
//!
//! **Redirections keep the order**, because a part is all or nothing and is sent again as a whole: a node that does not serve the
//! slot refuses each command when it is queued, and `EXEC` then refuses the transaction; one that hands the slot over between the
//! two refuses `EXEC` itself. `ASKING` before `MULTI` holds up to `EXEC`.

use super::connection::{Connection, Connector};
use super::deliver::{Patience, not_a_stream};
use super::entry::{Entries, too_large};
use super::error::{broken, malformed, reply_fault, timed_out};
use super::replies::{Progress, Shape};
use super::resp::command;
use super::topology::{SlotMap, no_node, redirection, slot, slots};
use crate::shared::relay::Relay;
use async_trait::async_trait;
use deltaforge_core::sink::{Delivered, Delivery, Receipt, Sink};
use deltaforge_core::{Batch, EventId, Fault};
use deltaforge_net::address::Address;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

/// Times that a part is redirected or put off before the batch fails and everything is looked at anew.
const REDIRECTIONS: usize = 16;
/// Pause before a part is tried again that a reshard put off.
const RESHARD_PAUSE: Duration = Duration::from_millis(100);
/// Streams whose kind was looked at are remembered, up to this many.
const KNOWN_STREAMS: usize = 10_000;

/// An open sink on a cluster.
pub(super) struct ClusterSink {
    entries: Entries,
    /// The one slot of a constant stream, and the stream.
    constant: Option<(usize, Vec<u8>)>,
    known_streams: HashSet<Vec<u8>>,
    relay: Relay<Nodes>,
}

/// The transactions of a batch that go to one slot.
struct Part {
    slot: usize,
    /// `MULTI` up to the last entry.
    commands: Vec<u8>,
    entries: usize,
    longest: (usize, EventId),
    /// Streams not seen before.
    streams: Vec<Vec<u8>>,
    /// Where to, once only.
    asking: Option<Address>,
}

/// Connections, and who serves what.
struct Nodes {
    connector: Arc<Connector>,
    map: SlotMap,
    connections: HashMap<Address, Connection>,
    patience: Patience,
}

/// Asks the seeds who serves what.
pub(super) async fn open(
    connector: Arc<Connector>,
    seeds: &[Address],
    entries: Entries,
    patience: Patience,
) -> Result<ClusterSink, Fault> {
    let map = slots(&connector, seeds).await?;
    let constant =
        connector.settings.stream.is_constant().map(|name| (slot(name.as_bytes()), name.as_bytes().to_vec()));
    let mut nodes = Nodes { connector, map, connections: HashMap::new(), patience };
    if let Some((slot, name)) = &constant {
        nodes.look_at_streams(*slot, std::slice::from_ref(name)).await?;
    }
    Ok(ClusterSink {
        entries,
        constant,
        known_streams: HashSet::new(),
        relay: Relay::new("redis cluster sink", nodes),
    })
}

impl ClusterSink {
    /// Encodes a batch, part by part in the order in which the slots appear.
    fn parts(&mut self, batch: &Batch) -> Result<(Vec<Part>, u64), Fault> {
        let mut parts: Vec<Part> = Vec::new();
        let mut by_slot: HashMap<usize, usize> = HashMap::new();
        let mut payload = 0;
        self.entries.prepare(batch);
        for event in batch.events() {
            let (slot, new) = match (&self.constant, self.entries.stream_of(&event)?) {
                (Some((slot, _)), _) => (*slot, None),
                (None, name) => {
                    let name = name.unwrap_or_default();
                    let new = (!self.known_streams.contains(name)).then(|| name.to_vec());
                    (slot(name), new)
                }
            };
            let index = *by_slot.entry(slot).or_insert_with(|| {
                let mut commands = Vec::new();
                command(&mut commands, &[b"MULTI"]);
                let longest = (0, EventId::default());
                parts.push(Part { slot, commands, entries: 0, longest, streams: Vec::new(), asking: None });
                parts.len() - 1
            });
            let part = &mut parts[index];
            let written = self.entries.write(&event, &mut part.commands);
            part.entries += 1;
            payload += written.payload as u64;
            if written.longest > part.longest.0 {
                part.longest = (written.longest, event.id());
            }
            if let Some(new) = new.filter(|new| !part.streams.contains(new)) {
                part.streams.push(new);
            }
        }
        for part in &mut parts {
            command(&mut part.commands, &[b"EXEC"]);
        }
        Ok((parts, payload))
    }
}

#[async_trait]
impl Sink for ClusterSink {
    async fn deliver(&mut self, batch: Arc<Batch>, _: Delivery) -> Result<Receipt, Fault> {
        let encoded = self.parts(&batch);
        // Also when this batch cannot be encoded: the receipts of those before it come first.
        let nodes = self.relay.settled().await?;
        let (parts, bytes) = encoded?;
        for part in parts.iter().filter(|part| !part.streams.is_empty()) {
            nodes.look_at_streams(part.slot, &part.streams).await?;
        }
        let new: Vec<&Vec<u8>> = parts.iter().flat_map(|part| &part.streams).collect();
        if self.known_streams.len() + new.len() > KNOWN_STREAMS {
            self.known_streams.clear();
        }
        self.known_streams.extend(new.into_iter().cloned());
        self.relay
            .hand_over(move |mut nodes| async move {
                nodes.write(parts).await?;
                Ok((nodes, Delivered { bytes }))
            })
            .await
    }

    async fn close(mut self: Box<Self>) {
        let _ = self.relay.settled().await;
    }
}

/// What became of a part.
enum Outcome {
    Done,
    /// To be sent again: moved, asked elsewhere, or put off.
    Again,
}

impl Nodes {
    async fn connection(&mut self, address: &Address) -> Result<&mut Connection, Fault> {
        if !self.connections.contains_key(address) {
            let connection = self.connector.connect_for_events(address).await?;
            self.connections.insert(address.clone(), connection);
        }
        self.connections
            .get_mut(address)
            .ok_or_else(|| Fault::bug("redis.cluster", "a connection just made is not there"))
    }

    fn node(&self, slot: usize) -> Result<Address, Fault> {
        self.map.node(slot).cloned().ok_or_else(|| no_node(slot))
    }

    /// Looks at what the keys of streams hold. What a node that does not serve them says is of no use, and is not asked for
    /// again: the transaction will be redirected, and a wrong type shows inside it.
    async fn look_at_streams(&mut self, slot: usize, streams: &[Vec<u8>]) -> Result<(), Fault> {
        let address = self.node(slot)?;
        let connection = self.connection(&address).await?;
        let commands: Vec<[&[u8]; 2]> = streams.iter().map(|name| [b"TYPE".as_slice(), name]).collect();
        let commands: Vec<&[&[u8]]> = commands.iter().map(|command| command.as_slice()).collect();
        let answers = connection.call_all(&commands).await?;
        streams.iter().zip(&answers).try_for_each(|(name, answer)| not_a_stream(name, answer))
    }

    /// Writes a batch: all parts at once, then again those that were redirected, until none is left.
    async fn write(&mut self, mut parts: Vec<Part>) -> Result<(), Fault> {
        let deadline = Instant::now() + self.patience.batch;
        for round in 0..REDIRECTIONS {
            if parts.is_empty() {
                return Ok(());
            }
            if round > 1 {
                tokio::time::sleep(RESHARD_PAUSE).await;
            }
            parts = self.round(parts, deadline).await?;
        }
        if parts.is_empty() {
            return Ok(());
        }
        Err(Fault::retry("redis.resharding", "slots kept moving while a batch was written")
            .hint("redis-cli CLUSTER NODES"))
    }

    /// Sends each part once and gives back those to be sent again.
    async fn round(&mut self, parts: Vec<Part>, deadline: Instant) -> Result<Vec<Part>, Fault> {
        // Everything that may be refused is looked at before the first byte of the round is sent.
        let mut targets = Vec::with_capacity(parts.len());
        for part in &parts {
            let address = part.asking.clone().map_or_else(|| self.node(part.slot), Ok)?;
            let limit = self.connection(&address).await?.longest_bulk;
            if part.longest.0 > limit {
                return Err(too_large(part.longest.0, limit, part.longest.1));
            }
            targets.push(address);
        }
        let mut by_node: BTreeMap<Address, Vec<Part>> = BTreeMap::new();
        for (address, part) in targets.into_iter().zip(parts) {
            if part.asking.is_some() {
                let mut commands = Vec::new();
                command(&mut commands, &[b"ASKING"]);
                self.send(&address, &commands, deadline).await?;
            }
            self.send(&address, &part.commands, deadline).await?;
            by_node.entry(address).or_default().push(part);
        }
        let mut again = Vec::new();
        for (address, parts) in by_node {
            for mut part in parts {
                if let Outcome::Again = self.receive(&address, &mut part, deadline).await? {
                    again.push(part);
                }
            }
        }
        Ok(again)
    }

    async fn send(&mut self, address: &Address, bytes: &[u8], deadline: Instant) -> Result<(), Fault> {
        let patience = self.patience;
        let connection = self.connection(address).await?;
        for chunk in bytes.chunks(64 * 1024) {
            let write = connection.writer.write_all(chunk);
            limited(address, patience, deadline, write).await?;
        }
        limited(address, patience, deadline, connection.writer.flush()).await
    }

    async fn receive(
        &mut self,
        address: &Address,
        part: &mut Part,
        deadline: Instant,
    ) -> Result<Outcome, Fault> {
        let patience = self.patience;
        let connection = self.connection(address).await?;
        // The reply to ASKING stands before those of the transaction.
        if part.asking.take().is_some() {
            while connection.replies.value().map_err(|what| malformed(address, what))?.is_none() {
                limited(address, patience, deadline, connection.replies.more()).await?;
            }
        }
        let shape = Shape { opens: true, queued: part.entries, executes: Some(part.entries) };
        let mut progress = Progress::new(shape);
        loop {
            connection.replies.advance(&mut progress).map_err(|what| malformed(address, what))?;
            if progress.is_done() {
                break;
            }
            limited(address, patience, deadline, connection.replies.more()).await?;
        }
        let Some(error) = progress.error else { return Ok(Outcome::Done) };
        if let Some(to) = redirection(&error, address) {
            if to.asking {
                part.asking = Some(to.address);
            } else {
                self.map.assign(to.slot, &to.address);
            }
            return Ok(Outcome::Again);
        }
        if error.starts_with(b"TRYAGAIN") {
            return Ok(Outcome::Again);
        }
        Err(reply_fault(address, &error))
    }
}

/// Waits for the socket within both limits.
async fn limited(
    address: &Address,
    patience: Patience,
    deadline: Instant,
    io: impl Future<Output = std::io::Result<()>>,
) -> Result<(), Fault> {
    let silence = Instant::now() + patience.send;
    match tokio::time::timeout_at(silence.min(deadline), io).await {
        Ok(result) => result.map_err(|e| broken(address, &e)),
        Err(_) if deadline <= silence => Err(timed_out(address, "batch_timeout_secs", patience.batch)),
        Err(_) => Err(timed_out(address, "send_timeout_secs", patience.send)),
    }
}
