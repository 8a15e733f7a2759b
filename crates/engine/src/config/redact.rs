//! Documents as they may be shown, and secrets put back where `***` stands for them.
//!
//! A text is cut into pieces that may be shown and pieces that are hidden. Showing it writes `***` for each hidden piece; a
//! text that comes back has as many `***`, and each takes the hidden piece of the same number. References to variables
//! stay as written, as their names are no secret; a reference to a file, and a secret written as a reference's default, are
//! hidden.

use super::expand::{Piece, pieces};
use deltaforge_core::config::{MASK, Node, Raw, is_secret_name, secret_ranges};
use std::ops::Range;

/// The document as the API shows it: as written, with `defaults` where nothing is written, without its secrets.
pub fn shown(written: &Node, defaults: &[(String, serde_json::Value)]) -> serde_json::Value {
    let mut document = show(written, "", false);
    for (path, value) in defaults {
        fill(&mut document, path, value);
    }
    document
}

/// Whether the value of `name` below `path` is hidden because of its name. The document's own names are no secrets, whatever
/// they are called.
pub(super) fn hides(path: &str, name: &str) -> bool {
    let has_names_of_users =
        path.contains("config") || path.starts_with("metadata.") || path.contains("processors");
    has_names_of_users && is_secret_name(name)
}

fn show(node: &Node, path: &str, secret: bool) -> serde_json::Value {
    match &node.value {
        Raw::Text(text) => masked(text, secret || node.secret).into(),
        Raw::Int(_) | Raw::Float(_) | Raw::Bool(_) if secret => MASK.into(),
        Raw::List(items) => {
            let item = |(i, item): (usize, &Node)| show(item, &format!("{path}[{i}]"), secret);
            items.iter().enumerate().map(item).collect()
        }
        Raw::Map(entries) => {
            let member = |(key, node): &(deltaforge_core::config::Key, Node)| {
                let below = if path.is_empty() { key.name.clone() } else { format!("{path}.{}", key.name) };
                (key.name.clone(), show(node, &below, secret || hides(path, &key.name)))
            };
            entries.iter().map(member).collect()
        }
        _ => node.to_json(),
    }
}

/// Puts a default at a path whose last names are not written. Paths are made of names and `[0]`; lists are never extended.
fn fill(document: &mut serde_json::Value, path: &str, default: &serde_json::Value) {
    let mut at = document;
    for name in path.split('.') {
        let (name, index) = match name.split_once('[') {
            Some((name, index)) => {
                (name, index.strip_suffix(']').and_then(|index| index.parse::<usize>().ok()))
            }
            None => (name, None),
        };
        if at.is_null() {
            *at = serde_json::Value::Object(serde_json::Map::new());
        }
        let Some(members) = at.as_object_mut() else { return };
        at = members.entry(name).or_insert(serde_json::Value::Null);
        if let Some(index) = index {
            let Some(item) = at.get_mut(index) else { return };
            at = item;
        }
    }
    if at.is_null() {
        *at = default.clone();
    }
}

/// Part of a text.
#[derive(Debug, PartialEq, Eq)]
enum Part<'a> {
    Shown(&'a str),
    Hidden(&'a str),
}

fn masked(text: &str, secret: bool) -> String {
    parts(text, secret).iter().map(|part| if let Part::Shown(text) = part { text } else { MASK }).collect()
}

/// Cuts a text; written one after the other, the parts are the text again.
fn parts(text: &str, secret: bool) -> Vec<Part<'_>> {
    // References are made opaque for the search, at their length, so that nothing in them ends a URL.
    let mut opaque = String::with_capacity(text.len());
    let mut references = Vec::new();
    for piece in pieces(text) {
        match piece {
            Piece::Literal(literal) => opaque.push_str(literal),
            Piece::Escape => opaque.push_str("xxx"),
            Piece::Unclosed(rest) => opaque.push_str(rest),
            Piece::Reference(inside) => {
                references.push((opaque.len(), inside));
                opaque.extend(std::iter::repeat_n('x', inside.len() + 3));
            }
        }
    }
    let secrets = if secret { std::iter::once(0..text.len()).collect() } else { secret_ranges(&opaque) };
    let mut parts = Vec::new();
    let mut from = 0;
    for (at, inside) in references {
        literal(text, from..at, &secrets, &mut parts);
        let hidden = secrets.iter().any(|range| range.contains(&at));
        reference(&text[at..at + inside.len() + 3], inside, hidden, &mut parts);
        from = at + inside.len() + 3;
    }
    literal(text, from..text.len(), &secrets, &mut parts);
    parts
}

/// A stretch without references.
fn literal<'a>(text: &'a str, stretch: Range<usize>, secrets: &[Range<usize>], parts: &mut Vec<Part<'a>>) {
    let mut from = stretch.start;
    for secret in secrets {
        let (start, end) = (secret.start.max(from), secret.end.min(stretch.end));
        if start < end {
            parts.push(Part::Shown(&text[from..start]));
            parts.push(Part::Hidden(&text[start..end]));
            from = end;
        }
    }
    parts.push(Part::Shown(&text[from..stretch.end]));
}

/// A reference: shown, but for a file's name and for secrets in a default.
fn reference<'a>(whole: &'a str, inside: &'a str, hidden: bool, parts: &mut Vec<Part<'a>>) {
    if inside.starts_with("file:") {
        parts.push(Part::Hidden(whole));
        return;
    }
    let Some(default) = inside.find(":-").map(|at| &inside[at + 2..]).filter(|default| !default.is_empty())
    else {
        parts.push(Part::Shown(whole));
        return;
    };
    let start = whole.len() - 1 - default.len();
    parts.push(Part::Shown(&whole[..start]));
    match hidden {
        true => parts.push(Part::Hidden(default)),
        false => literal(default, 0..default.len(), &secret_ranges(default), parts),
    }
    parts.push(Part::Shown(&whole[whole.len() - 1..]));
}

/// A text of a patch with the stored secrets in place of `***`.
///
/// # Errors
/// A sentence: there is no stored secret for a `***`.
pub(super) fn restore(stored: Option<&Node>, text: &str, secret: bool) -> Result<Raw, String> {
    if !text.contains(MASK) {
        return Ok(Raw::Text(text.into()));
    }
    let nothing = || "`***` stands for a stored secret, and none is stored here".to_string();
    let stored = match stored.map(|node| &node.value) {
        Some(Raw::Text(stored)) => stored.as_str(),
        Some(other @ (Raw::Int(_) | Raw::Float(_) | Raw::Bool(_))) if secret && text == MASK => {
            return Ok(other.clone());
        }
        _ => "",
    };
    let stored_parts = parts(stored, secret);
    let hidden: Vec<&str> =
        stored_parts.iter().filter_map(|p| if let Part::Hidden(h) = p { Some(*h) } else { None }).collect();
    if hidden.is_empty() {
        // Three stars that nobody would mask are just a text.
        let means_secret = parts(text, secret)
            .iter()
            .any(|part| matches!(part, Part::Hidden(hidden) if hidden.contains(MASK)));
        return if means_secret { Err(nothing()) } else { Ok(Raw::Text(text.into())) };
    }
    if text.matches(MASK).count() != hidden.len() {
        return Err(nothing());
    }
    let mut restored = String::new();
    for (i, shown) in text.split(MASK).enumerate() {
        if i > 0 {
            restored.push_str(hidden[i - 1]);
        }
        restored.push_str(shown);
    }
    Ok(Raw::Text(restored))
}
