//! Settings as they were written, and the tools that connectors parse theirs with.
//!
//! A document becomes a tree of [`Node`]s with places; each component walks its part with [`Fields`], which collects every
//! finding instead of stopping at the first. Parsing does no I/O.

mod fields;
mod mask;
mod shapes;
mod tables;

pub use fields::{Fields, Findings};
pub use mask::{MASK, is_secret_name, mask, secret_ranges};
pub use shapes::{Check, Report, RetryPolicy, Secret, Severity, Tls, TlsMode, parse_size, size_text};
pub use tables::{TableFilter, TablePattern};

use std::fmt;

/// A place in a text: line and column, from 1; 0 when there is no text (a document made by a program).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// A node of a document: the value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Raw,
    /// Where it begins.
    pub span: Span,
    /// True when it was read from a file by `${file:…}`: never shown to anybody.
    pub secret: bool,
}

/// A value of a document.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// Null or nothing.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// Another number.
    Float(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map in the order written; names are unique.
    Map(Vec<(Key, Node)>),
}

/// A name in a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The name.
    pub name: String,
    /// Where it stands.
    pub span: Span,
}

impl Node {
    /// A node without a place.
    pub fn new(value: Raw) -> Node {
        Node { value, span: Span::default(), secret: false }
    }

    /// A member of a map.
    pub fn get(&self, name: &str) -> Option<&Node> {
        match &self.value {
            Raw::Map(entries) => entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The text of a text node.
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Raw::Text(text) => Some(text),
            _ => None,
        }
    }

    /// True for null.
    pub fn is_null(&self) -> bool {
        self.value == Raw::Null
    }

    /// What it is, for messages: `the number 3`, `a list`. Texts are shown only when `show` is set.
    pub fn describe(&self, show: bool) -> String {
        match &self.value {
            Raw::Null => "nothing".into(),
            Raw::Bool(b) => format!("`{b}`"),
            Raw::Int(n) if show => format!("the number {n}"),
            Raw::Float(n) if show => format!("the number {n}"),
            Raw::Int(_) | Raw::Float(_) => "a number".into(),
            Raw::Text(text) if text.is_empty() => "an empty text".into(),
            Raw::Text(text) if show && !self.secret => format!("the text `{}`", shorten(text)),
            Raw::Text(_) => "a text".into(),
            Raw::List(_) => "a list".into(),
            Raw::Map(_) => "a map".into(),
        }
    }

    /// The document as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Raw::Null => serde_json::Value::Null,
            Raw::Bool(b) => (*b).into(),
            Raw::Int(n) => (*n).into(),
            Raw::Float(n) => (*n).into(),
            Raw::Text(text) => text.as_str().into(),
            Raw::List(nodes) => nodes.iter().map(Node::to_json).collect(),
            Raw::Map(entries) => {
                entries.iter().map(|(key, node)| (key.name.clone(), node.to_json())).collect()
            }
        }
    }

    /// A document from JSON, without places.
    pub fn from_json(json: &serde_json::Value) -> Node {
        Node::new(match json {
            serde_json::Value::Null => Raw::Null,
            serde_json::Value::Bool(b) => Raw::Bool(*b),
            serde_json::Value::Number(n) => match n.as_i64() {
                Some(n) => Raw::Int(n),
                None => Raw::Float(n.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => Raw::Text(text.clone()),
            serde_json::Value::Array(items) => Raw::List(items.iter().map(Node::from_json).collect()),
            serde_json::Value::Object(members) => Raw::Map(
                members
                    .iter()
                    .map(|(name, value)| {
                        (Key { name: name.clone(), span: Span::default() }, Node::from_json(value))
                    })
                    .collect(),
            ),
        })
    }
}

/// For messages: masked first, so that a cut cannot hide where a password ends.
fn shorten(text: &str) -> String {
    let text = &*mask(text);
    if text.chars().count() <= 40 { text.into() } else { text.chars().take(39).chain(['…']).collect() }
}

/// Class of a finding, part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingClass {
    /// A key that no table lists.
    Unknown,
    /// A required key absent or null.
    Missing,
    /// A value of another type.
    Type,
    /// A number or length outside its limits.
    Range,
    /// Unparsable.
    Form,
    /// A word outside the list.
    Choice,
    /// Two settings that contradict each other.
    Conflict,
    /// A variable or file that cannot be expanded.
    Expand,
}

impl FindingClass {
    /// The word used in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            FindingClass::Unknown => "unknown",
            FindingClass::Missing => "missing",
            FindingClass::Type => "type",
            FindingClass::Range => "range",
            FindingClass::Form => "form",
            FindingClass::Choice => "choice",
            FindingClass::Conflict => "conflict",
            FindingClass::Expand => "expand",
        }
    }
}

/// One error in a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Dotted path of the field: `spec.sinks[0].config.uri`.
    pub path: String,
    /// Where it stands.
    pub span: Span,
    /// What kind of error.
    pub class: FindingClass,
    /// What was expected and what was found.
    pub message: String,
    /// How to mend it.
    pub hint: Option<String>,
}

impl fmt::Display for Finding {
    /// `14:9: path: message`, the hint on a line of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.span.line > 0 {
            write!(f, "{}:{}: ", self.span.line, self.span.column)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// The nearest of some words, when one is near: a few letters apart, or one the beginning of the other.
pub fn nearest<'a>(word: &str, words: impl IntoIterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let word = word.to_lowercase();
    let near = words
        .clone()
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(&word, &known.to_lowercase()), known))
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
        .min_by_key(|(distance, _)| *distance);
    let begins = |known: &&str| {
        let known = known.to_lowercase();
        word.len().min(known.len()) >= 4 && (word.starts_with(&known) || known.starts_with(&word))
    };
    near.map(|(_, known)| known).or_else(|| words.into_iter().find(begins))
}

/// A hint that names the words there are.
pub fn all_words(words: &[&str]) -> String {
    match words {
        [only] => format!("write `{only}`"),
        _ => format!("one of {}", words.join(", ")),
    }
}

/// A hint that names the word that was probably meant, and all there are.
pub fn did_you_mean(found: &str, words: &[&str]) -> String {
    match nearest(found, words.iter().copied()) {
        Some(near) if words.len() > 1 => format!("did you mean `{near}`? {}", all_words(words)),
        _ => all_words(words),
    }
}

/// Whether a text may be an id or a pipeline name: 1–128 of letters, digits, `.`, `_`, `-`, the first a letter or digit.
pub fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=128).contains(&text.len())
        && text.chars().all(allowed)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}
