//! Which servers a changed document newly names: those are probed before the old pipeline is ended for it. Others are not,
//! so that a setting can be changed while a known server is away.

use deltaforge_core::config::{Node, Raw};

/// Keys under which components name their servers. Two documents are compared as written: the same `${VAR}` is the same server.
const ADDRESSES: [&str; 5] = ["dsn", "uri", "url", "brokers", "connection"];

/// Which components to probe.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Servers {
    pub(super) source: bool,
    /// By place in the document.
    pub(super) sinks: Vec<bool>,
}

/// Compares the new document with the old one.
pub(super) fn newly_named(old: &Node, new: &Node) -> Servers {
    let known: Vec<_> = source(old).into_iter().chain(sinks(old)).map(server).collect();
    let is_new = |component: &Node| !known.contains(&server(component));
    Servers { source: source(new).is_some_and(is_new), sinks: sinks(new).map(is_new).collect() }
}

fn source(document: &Node) -> Option<&Node> {
    document.get("spec")?.get("source")
}

fn sinks(document: &Node) -> impl Iterator<Item = &Node> {
    let list = match document.get("spec").and_then(|spec| spec.get("sinks")).map(|sinks| &sinks.value) {
        Some(Raw::List(list)) => list.as_slice(),
        _ => &[],
    };
    list.iter()
}

/// A component's type and addresses.
fn server(component: &Node) -> Vec<Option<&str>> {
    let config = component.get("config");
    let address = |key: &&str| config.and_then(|config| config.get(key)).and_then(Node::as_text);
    std::iter::once(component.get("type").and_then(Node::as_text))
        .chain(ADDRESSES.iter().map(address))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Servers, newly_named};
    use deltaforge_core::config::Node;
    use serde_json::{Value, json};

    fn document(dsn: &str, sinks: Value) -> Node {
        Node::from_json(
            &json!({"spec": {"source": {"type": "pg", "config": {"dsn": dsn, "slot": "s"}}, "sinks": sinks}}),
        )
    }

    #[test]
    fn only_new_addresses_are_probed() {
        let redis =
            |uri: &str, stream: &str| json!({"type": "redis", "config": {"uri": uri, "stream": stream}});
        let old = document("${DSN}", json!([redis("a", "x")]));
        let new = document("${DSN}", json!([redis("a", "y"), redis("b", "x")]));
        assert_eq!(newly_named(&old, &new), Servers { source: false, sinks: vec![false, true] });
        let new = document("${OTHER}", json!([]));
        assert_eq!(newly_named(&old, &new), Servers { source: true, sinks: vec![] });
    }
}
