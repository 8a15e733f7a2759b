//! Reading a template's text.

use super::{Field, Image, Part, Path, Reference, Template};
use deltaforge_core::config::nearest;
use deltaforge_core::source::SourceInfo;

/// Names in a reference, at most.
const MAX_NAMES: usize = 4;
const ROOTS: [&str; 4] = ["before", "after", "source", "event"];
const FIELDS: [(&str, Field); 6] = [
    ("op", Field::Op),
    ("ts_ms", Field::ReadMs),
    ("event_id", Field::EventId),
    ("tenant_id", Field::TenantId),
    ("schema_version", Field::SchemaVersion),
    ("schema_sequence", Field::SchemaSequence),
];
const TRANSACTION_FIELDS: [(&str, Field); 3] = [
    ("id", Field::TransactionId),
    ("total_order", Field::TotalOrder),
    ("data_collection_order", Field::DataCollectionOrder),
];
/// Fields that only processors set.
const PLANNED_FIELDS: [&str; 3] = ["trace_id", "tags", "synthetic"];
/// Members of `source` that every source writes, in their order.
const SOURCE_NAMES: [&str; 9] =
    ["version", "connector", "name", "ts_ms", "ts_us", "db", "schema", "table", "snapshot"];

pub(super) fn template(text: &str) -> Result<Template, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let place = text[..text.len() - rest.len() + at].chars().count() + 1;
        let after = &rest[at + 2..];
        if let Some(before) = rest[..at].strip_suffix('$') {
            literal(&mut parts, before);
            literal(&mut parts, "${");
            rest = after;
            continue;
        }
        let Some(end) = after.find('}') else {
            return Err(format!("`${{` at character {place} has no closing `}}`"));
        };
        literal(&mut parts, &rest[..at]);
        let written = &after[..end];
        let reference =
            reference(written).map_err(|what| format!("`${{{written}}}` at character {place}: {what}"))?;
        parts.push(Part::Reference(reference));
        rest = &after[end + 1..];
    }
    literal(&mut parts, rest);
    if parts.is_empty() {
        parts.push(Part::Literal(String::new()));
    }
    Ok(Template { parts })
}

/// Adds text to the literal before it, if there is one.
fn literal(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        Some(Part::Literal(before)) => before.push_str(text),
        _ if text.is_empty() => {}
        _ => parts.push(Part::Literal(text.into())),
    }
}

fn reference(written: &str) -> Result<Reference, String> {
    let (name, fallback) = match written.split_once(":-") {
        Some((name, fallback)) => (name, Some(fallback.to_string())),
        None => (written, None),
    };
    if name.contains(':') {
        return Err("after the name stands `:-` and a fallback, or nothing".into());
    }
    let names: Vec<&str> = name.split('.').collect();
    if names.iter().any(|name| name.trim().is_empty()) {
        return Err("a name between dots is empty".into());
    }
    let path = match names.as_slice() {
        [] | [_] => return Err("expected a name with a dot, such as `source.table` or `after.id`".into()),
        names if names.len() > MAX_NAMES => {
            return Err(format!("at most {MAX_NAMES} names, found {}", names.len()));
        }
        ["event", rest @ ..] => event_path(rest)?,
        ["source", rest @ ..] => source_path(rest)?,
        ["before", rest @ ..] => row_path(Image::Before, rest),
        ["after", rest @ ..] => row_path(Image::After, rest),
        [root, ..] => return Err(unknown("root", root, ROOTS)),
    };
    Ok(Reference { name: name.into(), path, fallback })
}

fn row_path(image: Image, rest: &[&str]) -> Path {
    match rest {
        [] => Path::Row { image, column: None, inside: Vec::new() },
        [column, inside @ ..] => Path::Row { image, column: Some((*column).into()), inside: owned(inside) },
    }
}

fn source_path(rest: &[&str]) -> Result<Path, String> {
    match rest {
        [] => Err("`source` is an object: name a member of it".into()),
        [name] => Ok(Path::Source((*name).into())),
        [name, ..] => Err(format!("`source.{name}` has no members")),
    }
}

fn event_path(rest: &[&str]) -> Result<Path, String> {
    let known =
        |fields: &[(&str, Field)], name: &str| fields.iter().find(|(n, _)| *n == name).map(|(_, f)| *f);
    match rest {
        ["before", rest @ ..] => Ok(row_path(Image::Before, rest)),
        ["after", rest @ ..] => Ok(row_path(Image::After, rest)),
        ["source", rest @ ..] => source_path(rest),
        ["ddl", rest @ ..] => Ok(Path::Ddl(owned(rest))),
        ["transaction"] => Err("`event.transaction` is an object: name a member of it".into()),
        ["transaction", name] => match known(&TRANSACTION_FIELDS, name) {
            Some(field) => Ok(Path::Field(field)),
            None => Err(unknown("member of `transaction`", name, TRANSACTION_FIELDS.map(|(n, _)| n))),
        },
        [name] if PLANNED_FIELDS.contains(name) => {
            Err(format!("`event.{name}` is planned, not in this release"))
        }
        [name] => match known(&FIELDS, name) {
            Some(field) => Ok(Path::Field(field)),
            None => {
                let objects = ["before", "after", "source", "transaction", "ddl"];
                Err(unknown("field of the event", name, FIELDS.iter().map(|(n, _)| *n).chain(objects)))
            }
        },
        [name, ..] => Err(format!("`event.{name}` has no members")),
        [] => Err("`event` is an object: name a field of it".into()),
    }
}

/// Whether the source ever writes the member of `source` that a reference names.
pub(super) fn check_source_name(reference: &Reference, source: &SourceInfo) -> Result<(), String> {
    let Path::Source(name) = &reference.path else { return Ok(()) };
    let names = || SOURCE_NAMES.into_iter().chain(source.fields.iter().map(|field| field.name));
    if names().any(|known| known == name) {
        return Ok(());
    }
    let what = format!("member of `source` with connector `{}`", source.connector);
    Err(format!("`${{{}}}`: {}", reference.name, unknown(&what, name, names())))
}

fn unknown<'a>(what: &str, found: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let near = match nearest(found, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? "),
        None => String::new(),
    };
    format!("`{found}` is not a known {what}; {near}one of {}", known.join(", "))
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).into()).collect()
}
