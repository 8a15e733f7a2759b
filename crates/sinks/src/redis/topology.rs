//! Finding the server to write to: what sentinels and clusters say.

use super::config::Settings;
use super::connection::{Connection, Connector};
use super::error::{malformed, reply_fault};
use super::resp::{Malformed, Value};
use deltaforge_core::Fault;
use deltaforge_core::fault::Kind;
use deltaforge_net::address::Address;

/// Slots of a cluster.
pub(super) const SLOTS: usize = 16_384;

/// The master's address, from the first sentinel that knows it.
///
/// # Errors
/// `Retry` when none answers or none knows it: a failover may be under way, a sentinel may have just started.
pub(super) async fn master(
    connector: &Connector,
    sentinels: &[Address],
    name: &str,
) -> Result<Address, Fault> {
    let mut why = Vec::new();
    for sentinel in sentinels {
        match ask_sentinel(connector, sentinel, name).await {
            Ok(Some(address)) => return Ok(address),
            Ok(None) => why.push(format!("{sentinel} does not know it")),
            Err(fault) => why.push(fault.message().to_owned()),
        }
    }
    let message = format!("no sentinel names the master `{name}`: {}", why.join("; "));
    Err(Fault::retry("redis.no_master", message)
        .kind(Kind::Connect)
        .hint(format!("ask one yourself: redis-cli -p 26379 SENTINEL GET-MASTER-ADDR-BY-NAME {name}")))
}

async fn ask_sentinel(
    connector: &Connector,
    sentinel: &Address,
    name: &str,
) -> Result<Option<Address>, Fault> {
    let mut connection = connector.connect_sentinel(sentinel).await?;
    match connection.call(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name.as_bytes()]).await? {
        Value::Error(error) => Err(reply_fault(sentinel, &error)),
        answer => Ok(match answer.items() {
            [host, port] => host
                .text()
                .zip(port.text().and_then(|p| p.parse().ok()))
                .map(|(host, port)| Address { host: host.into(), port }),
            _ => None,
        }),
    }
}

/// Refuses a server that is no master (any more): for a moment after a failover a sentinel may still name the old one.
pub(super) async fn require_master(connection: &mut Connection, name: &str) -> Result<(), Fault> {
    let role = connection.call(&[b"ROLE"]).await?;
    match role.items().first().and_then(Value::text) {
        Some("master") | None => Ok(()),
        Some(role) => {
            let message = format!(
                "{} is named as master of `{name}`, but says that it is a {role}",
                connection.address
            );
            Err(Fault::retry("redis.not_master", message).kind(Kind::Target))
        }
    }
}

/// Which server serves which slot.
pub(super) struct SlotMap {
    nodes: Vec<Address>,
    /// Index into `nodes` plus one; 0: nobody.
    slots: Vec<u16>,
}

impl SlotMap {
    /// Asks one node.
    pub(super) async fn ask(connection: &mut Connection) -> Result<SlotMap, Fault> {
        match connection.call(&[b"CLUSTER", b"SLOTS"]).await? {
            Value::Error(error) => Err(reply_fault(&connection.address, &error)),
            answer => SlotMap::read(&answer, &connection.address).ok_or_else(|| {
                malformed(&connection.address, Malformed("an answer to CLUSTER SLOTS of another form"))
            }),
        }
    }

    /// Reads `[[first, last, [host, port, …], …], …]`. A host that is empty or null is the one that was asked.
    fn read(answer: &Value, asked: &Address) -> Option<SlotMap> {
        let Value::Array(ranges) = answer else { return None };
        let mut map = SlotMap { nodes: Vec::new(), slots: vec![0; SLOTS] };
        for range in ranges {
            let [Value::Int(first), Value::Int(last), node, ..] = range.items() else { return None };
            let [host, Value::Int(port), ..] = node.items() else { return None };
            let host = host.text().filter(|host| !host.is_empty() && *host != "?").unwrap_or(&asked.host);
            let address = Address { host: host.into(), port: u16::try_from(*port).ok()? };
            let slots = map.slots.get(usize::try_from(*first).ok()?..=usize::try_from(*last).ok()?)?.len();
            let first = usize::try_from(*first).ok()?;
            (first..first + slots).for_each(|slot| map.assign(slot, &address));
        }
        Some(map)
    }

    /// The server of a slot.
    pub(super) fn node(&self, slot: usize) -> Option<&Address> {
        let index = usize::from(*self.slots.get(slot)?);
        self.nodes.get(index.checked_sub(1)?)
    }

    /// Notes that a slot has moved.
    pub(super) fn assign(&mut self, slot: usize, address: &Address) {
        let index = self.nodes.iter().position(|node| node == address).unwrap_or_else(|| {
            self.nodes.push(address.clone());
            self.nodes.len() - 1
        });
        if let Some(entry) = self.slots.get_mut(slot) {
            *entry = (index + 1) as u16;
        }
    }

    /// Servers that serve slots.
    pub(super) fn nodes(&self) -> &[Address] {
        &self.nodes
    }
}

/// The slots as the first seed that answers sees them.
///
/// # Errors
/// Of the last seed, when none answers.
pub(super) async fn slots(connector: &Connector, seeds: &[Address]) -> Result<SlotMap, Fault> {
    let mut last = Fault::bug("redis.no_seeds", "a cluster without addresses");
    for seed in seeds {
        let asked = async { SlotMap::ask(&mut connector.connect(seed).await?).await };
        match asked.await {
            Ok(map) => return Ok(map),
            Err(fault) => last = fault,
        }
    }
    Err(last)
}

/// The slot of a key: CRC-16/XMODEM of the key, or of what stands in its first `{…}` when that is not empty
/// (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>).
pub(super) fn slot(key: &[u8]) -> usize {
    let tagged = key.iter().position(|b| *b == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter().position(|b| *b == b'}').filter(|len| *len > 0).map(|len| &rest[..len])
    });
    let mut crc = 0u16;
    for byte in tagged.unwrap_or(key) {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        }
    }
    usize::from(crc) % SLOTS
}

/// The target of `MOVED 3999 host:port` and `ASK 3999 host:port`; an empty host is the one that answered.
pub(super) fn redirection(reply: &[u8], from: &Address) -> Option<Redirection> {
    let text = std::str::from_utf8(reply).ok()?;
    let mut words = text.split(' ');
    let asking = match words.next()? {
        "MOVED" => false,
        "ASK" => true,
        _ => return None,
    };
    let slot = words.next()?.parse().ok()?;
    let (host, port) = words.next()?.rsplit_once(':')?;
    let host = if host.is_empty() || host == "?" { from.host.clone() } else { host.into() };
    Some(Redirection { asking, slot, address: Address { host, port: port.parse().ok()? } })
}

/// Where a node sends us.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Redirection {
    /// For this one time only: the slot is being moved.
    pub(super) asking: bool,
    pub(super) slot: usize,
    pub(super) address: Address,
}

/// The addresses that a sink would write to now, for the check.
pub(super) async fn targets(connector: &Connector, settings: &Settings) -> Result<Vec<Address>, Fault> {
    use super::config::Topology;
    match &settings.topology {
        Topology::Single(address) => Ok(vec![address.clone()]),
        Topology::Sentinel { sentinels, master: name } => Ok(vec![master(connector, sentinels, name).await?]),
        Topology::Cluster(seeds) => Ok(slots(connector, seeds).await?.nodes().to_vec()),
    }
}

/// A connection for events to the server of a key's slot.
pub(super) async fn connect_to_slot(
    connector: &Connector,
    seeds: &[Address],
    key: &[u8],
) -> Result<Connection, Fault> {
    let slot = slot(key);
    let map = slots(connector, seeds).await?;
    let node = map.node(slot).ok_or_else(|| no_node(slot))?;
    connector.connect_for_events(node).await
}

/// A slot that nobody serves, for now.
pub(super) fn no_node(slot: usize) -> Fault {
    Fault::retry("redis.cluster_down", format!("no node serves slot {slot}")).hint("redis-cli CLUSTER INFO")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of `CLUSTER KEYSLOT`.
    #[test]
    fn slots_of_keys() {
        let cases = [
            ("foo", 12182),
            ("bar", 5061),
            ("", 0),
            ("{foo}.x", 12182),
            ("a{foo}b{bar}", 12182),
            ("123456789", 12739),
        ];
        for (key, expected) in cases {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
        assert_ne!(slot(b"{}foo"), slot(b""), "an empty tag is none");
    }

    #[test]
    fn redirections() {
        let from = Address { host: "here".into(), port: 1 };
        let to = |host: &str| Address { host: host.into(), port: 6381 };
        let cases = [
            ("MOVED 3999 10.0.0.1:6381", Some((false, 3999, to("10.0.0.1")))),
            ("ASK 1 ::1:6381", Some((true, 1, to("::1")))),
            ("MOVED 7 :6381", Some((false, 7, to("here")))),
            ("MOVED 7", None),
            ("TRYAGAIN Multiple keys", None),
        ];
        for (reply, expected) in cases {
            let expected = expected.map(|(asking, slot, address)| Redirection { asking, slot, address });
            assert_eq!(redirection(reply.as_bytes(), &from), expected, "{reply}");
        }
    }

    #[test]
    fn slot_maps() {
        let text = |t: &str| Value::Text(t.as_bytes().to_vec());
        let node = |host: &str, port| Value::Array(vec![text(host), Value::Int(port), text("id")]);
        let range = |first, last, node| Value::Array(vec![Value::Int(first), Value::Int(last), node]);
        let asked = Address { host: "asked".into(), port: 1 };
        let answer = Value::Array(vec![range(0, 99, node("a", 1)), range(100, 16383, node("", 2))]);
        let mut map = SlotMap::read(&answer, &asked).unwrap();
        assert_eq!(map.node(99).unwrap().to_string(), "a:1");
        assert_eq!(map.node(100).unwrap().to_string(), "asked:2");
        map.assign(100, &Address { host: "b".into(), port: 3 });
        assert_eq!(map.node(100).unwrap().to_string(), "b:3");
        assert_eq!(map.nodes().len(), 3);
        for bad in [
            range(0, 16384, node("a", 1)),
            range(-1, 5, node("a", 1)),
            range(9, 5, node("a", 1)),
            range(0, 1, node("a", 70000)),
        ] {
            assert!(SlotMap::read(&Value::Array(vec![bad]), &asked).is_none());
        }
    }
}
