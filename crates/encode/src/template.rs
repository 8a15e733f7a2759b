//! Routing templates: text with `${source.table}`, `${after.region}`, `${event.op}`, `${after.region:-none}` in it, filled
//! from each event.
//!
//! A reference is a path of two to four names that begins at `before`, `after`, `source` or `event`; further names reach
//! into JSON columns and composites. After `:-` stands a text for when the event has nothing there, or an empty text. `$${` is a
//! plain `${`.
//!
//! Templates are filled in one of two ways. For a route (topic, stream, subject, table, path, URL) a part that is missing,
//! null or an object cannot be filled: [`RouteError`]. For keys and headers objects are compact JSON
//! ([`render_json`](Template::render_json)), and what an error leads to is the sink's affair: its default key, no header.

mod parse;
mod resolve;

use deltaforge_core::fault::Kind;
use deltaforge_core::sink::SinkContext;
use deltaforge_core::source::SourceInfo;
use deltaforge_core::{Class, Event, EventId, Fault};
use std::fmt;
use std::sync::Arc;

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Never two literals in a row; one empty literal for the empty text.
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Reference(Reference),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Reference {
    /// The path as written, `after.region`.
    name: Arc<str>,
    path: Path,
    fallback: Option<String>,
}

/// Where a reference points.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Path {
    /// A row: the whole of it without a column.
    Row { image: Image, column: Option<String>, inside: Vec<String> },
    /// A member of `source`.
    Source(String),
    /// A top-level field, or a member of `transaction`.
    Field(Field),
    /// The `ddl` object, or something inside it.
    Ddl(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Image {
    Before,
    After,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Op,
    ReadMs,
    EventId,
    TenantId,
    SchemaVersion,
    SchemaSequence,
    TransactionId,
    TotalOrder,
    DataCollectionOrder,
}

/// A part of a template that an event does not fill. Names the part, never the row's values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteError {
    name: Arc<str>,
    reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Missing,
    Null,
    Object,
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self.reason {
            Reason::Missing => "is not in the event",
            Reason::Null => "is null in the event",
            Reason::Object => "is an object or list, which names no target",
        };
        write!(f, "`${{{}}}` {reason}", self.name)
    }
}

impl std::error::Error for RouteError {}

impl RouteError {
    /// The fault of an event that cannot be routed.
    pub fn fault(&self, event: EventId) -> Fault {
        let hint = format!("give it a fallback: `${{{}:-text}}`", self.name);
        Fault::new(Class::Data, "sink.not_routable", format!("the event cannot be routed: {self}"))
            .kind(Kind::Route)
            .hint(hint)
            .event(event)
    }
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// What is wrong and at which character.
    pub fn parse(text: &str) -> Result<Template, String> {
        parse::template(text)
    }

    /// The text in front of the first reference, if the template begins with one.
    pub fn constant_prefix(&self) -> Option<&str> {
        match self.parts.first() {
            Some(Part::Literal(text)) => Some(text),
            _ => None,
        }
    }

    /// The text, when it is the same for every event.
    pub fn is_constant(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Checks the names under `source.` against the members that the pipeline's source writes.
    ///
    /// # Errors
    /// A name that no event of this source will ever have, with the nearest that it has.
    pub fn check(&self, source: &SourceInfo) -> Result<(), String> {
        self.references().try_for_each(|reference| parse::check_source_name(reference, source))
    }

    /// Appends the template filled for a route: texts as they are, numbers and booleans as JSON. On an error nothing is appended.
    ///
    /// # Errors
    /// A part that the event lacks, or that is null or an object there.
    pub fn render(
        &self,
        event: &Event<'_>,
        context: &SinkContext,
        out: &mut Vec<u8>,
    ) -> Result<(), RouteError> {
        self.fill(event, context, false, &mut |_, _| {}, out)
    }

    /// As [`render`](Self::render); `clean` then gets the buffer and where in it a filled-in part begins, and may change what
    /// stands from there: [`replace`] what the target forbids, or [`percent_encode`] for a URL.
    ///
    /// # Errors
    /// As for `render`.
    pub fn render_clean(
        &self,
        event: &Event<'_>,
        context: &SinkContext,
        mut clean: impl FnMut(&mut Vec<u8>, usize),
        out: &mut Vec<u8>,
    ) -> Result<(), RouteError> {
        self.fill(event, context, false, &mut clean, out)
    }

    /// Appends the template filled for a key or a header: objects and lists as compact JSON. On an error nothing is appended.
    ///
    /// # Errors
    /// A part that the event lacks or that is null there.
    pub fn render_json(
        &self,
        event: &Event<'_>,
        context: &SinkContext,
        out: &mut Vec<u8>,
    ) -> Result<(), RouteError> {
        self.fill(event, context, true, &mut |_, _| {}, out)
    }

    fn references(&self) -> impl Iterator<Item = &Reference> {
        self.parts.iter().filter_map(|part| match part {
            Part::Reference(reference) => Some(reference),
            Part::Literal(_) => None,
        })
    }

    fn fill(
        &self,
        event: &Event<'_>,
        context: &SinkContext,
        objects: bool,
        clean: &mut dyn FnMut(&mut Vec<u8>, usize),
        out: &mut Vec<u8>,
    ) -> Result<(), RouteError> {
        let begin = out.len();
        for part in &self.parts {
            let reference = match part {
                Part::Literal(text) => {
                    out.extend_from_slice(text.as_bytes());
                    continue;
                }
                Part::Reference(reference) => reference,
            };
            let start = out.len();
            let found = resolve::append(&reference.path, event, context, objects, out);
            match (&reference.fallback, found) {
                (Some(text), found) if found.is_err() || out.len() == start => {
                    out.truncate(start);
                    out.extend_from_slice(text.as_bytes());
                }
                (_, Ok(())) => clean(out, start),
                (_, Err(reason)) => {
                    out.truncate(begin);
                    return Err(RouteError { name: reference.name.clone(), reason });
                }
            }
        }
        Ok(())
    }
}

/// Replaces the characters from `from` on that a target forbids by `_`. Only ASCII characters may be forbidden.
pub fn replace(out: &mut [u8], from: usize, forbidden: impl Fn(u8) -> bool) {
    for byte in out.iter_mut().skip(from) {
        if byte.is_ascii() && forbidden(*byte) {
            *byte = b'_';
        }
    }
}

/// Percent-encodes everything from `from` on but letters, digits, `-`, `.`, `_`, `~`, so that it stays one part of a URL.
pub fn percent_encode(out: &mut Vec<u8>, from: usize) {
    let text = out.split_off(from);
    percent_encoded(&text, b"-._~", out);
}

/// Appends bytes, percent-encoding all but letters, digits and those in `keep`.
pub(crate) fn percent_encoded(text: &[u8], keep: &[u8], out: &mut Vec<u8>) {
    const UPPER: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text {
        if byte.is_ascii_alphanumeric() || keep.contains(byte) {
            out.push(*byte);
        } else {
            out.extend_from_slice(&[b'%', UPPER[usize::from(byte >> 4)], UPPER[usize::from(byte & 15)]]);
        }
    }
}
