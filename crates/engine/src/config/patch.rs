//! Changing a document as written: RFC 7396, with `***` standing for what was masked.

use super::redact;
use deltaforge_core::config::{Finding, FindingClass, Key, Node, Raw, Span};

/// Merges a patch into a document as written: maps merge, null removes a key, anything else, lists included, replaces. A `***` in
/// the patch means the secret that the stored document has there; sinks of a list are found by their id.
///
/// # Errors
/// A `***` for which nothing is stored.
pub fn patched(written: &Node, patch: &Node) -> Result<Node, Vec<Finding>> {
    let mut errors = Vec::new();
    let merged = merge(Some(written), patch, &mut Place { path: String::new(), secret: false }, &mut errors);
    if errors.is_empty() { Ok(merged) } else { Err(errors) }
}

/// Where the merge is.
struct Place {
    path: String,
    /// Below a key whose value is secret by its name.
    secret: bool,
}

impl Place {
    fn below(&self, name: &str) -> Place {
        let path = if self.path.is_empty() { name.into() } else { format!("{}.{name}", self.path) };
        Place { path, secret: self.secret || redact::hides(&self.path, name) }
    }
}

fn merge(stored: Option<&Node>, patch: &Node, place: &mut Place, errors: &mut Vec<Finding>) -> Node {
    let value = match &patch.value {
        Raw::Map(changes) => {
            // What was no map is replaced by one, as the RFC has it.
            let mut entries = match stored.map(|node| &node.value) {
                Some(Raw::Map(entries)) => entries.clone(),
                _ => Vec::new(),
            };
            for (key, change) in changes {
                let at = entries.iter().position(|(known, _)| known.name == key.name);
                match (at, change.is_null()) {
                    (Some(at), true) => drop(entries.remove(at)),
                    (None, true) => {}
                    (Some(at), false) => {
                        let merged = merge(Some(&entries[at].1), change, &mut place.below(&key.name), errors);
                        entries[at].1 = merged;
                    }
                    (None, false) => {
                        let new = merge(None, change, &mut place.below(&key.name), errors);
                        let key = Key { name: key.name.clone(), span: Span::default() };
                        entries.push((key, new));
                    }
                }
            }
            Raw::Map(entries)
        }
        Raw::List(items) => Raw::List(list(stored, items, place, errors)),
        Raw::Text(text) => {
            let restored = redact::restore(stored, text, place.secret);
            restored.unwrap_or_else(|message| {
                errors.push(Finding {
                    path: place.path.clone(),
                    span: patch.span,
                    class: FindingClass::Form,
                    message,
                    hint: Some("send the secret itself, or leave the field out".into()),
                });
                patch.value.clone()
            })
        }
        other => other.clone(),
    };
    Node { value, span: Span::default(), secret: false }
}

/// A list replaces the stored one; its items only borrow their secrets from the stored item that they are a version of.
fn list(stored: Option<&Node>, items: &[Node], place: &Place, errors: &mut Vec<Finding>) -> Vec<Node> {
    let old: &[Node] = match stored.map(|node| &node.value) {
        Some(Raw::List(old)) => old,
        _ => &[],
    };
    let item = |(index, item): (usize, &Node)| {
        let path = format!("{}[{index}]", place.path);
        let place = Place { path, secret: place.secret };
        replace(counterpart(old, index, item), item, &place, errors)
    };
    items.iter().enumerate().map(item).collect()
}

/// The stored item that an item is a version of: the one of the same id, else the one at the same place if it is of the same
/// type.
fn counterpart<'a>(old: &'a [Node], index: usize, item: &Node) -> Option<&'a Node> {
    let text = |node: &Node, key: &str| node.get(key).and_then(Node::as_text).map(str::to_string);
    let id = |node: &Node| node.get("config").and_then(|config| text(config, "id"));
    let same_id = |node: &&Node| id(node).is_some() && id(node) == id(item);
    if let Some(found) = old.iter().find(same_id) {
        return Some(found);
    }
    // An item with an id that is not stored may still be the one at this place, whose id was a default.
    let same_place = old.get(index)?;
    let renamed = id(same_place).is_some() && id(item) != id(same_place);
    (!renamed && text(same_place, "type") == text(item, "type")).then_some(same_place)
}

/// Takes `new` as it is, but for its masks. Null is a value here: only a merge removes.
fn replace(stored: Option<&Node>, new: &Node, place: &Place, errors: &mut Vec<Finding>) -> Node {
    let value = match &new.value {
        Raw::Map(entries) => {
            let below = |(key, node): &(Key, Node), errors: &mut Vec<Finding>| {
                let stored = stored.and_then(|stored| stored.get(&key.name));
                let key = Key { name: key.name.clone(), span: Span::default() };
                let place = place.below(&key.name);
                (key, replace(stored, node, &place, errors))
            };
            Raw::Map(entries.iter().map(|entry| below(entry, errors)).collect())
        }
        Raw::List(items) => Raw::List(list(stored, items, place, errors)),
        _ => {
            let mut place = Place { path: place.path.clone(), secret: place.secret };
            return merge(stored, new, &mut place, errors);
        }
    };
    Node { value, span: Span::default(), secret: false }
}
