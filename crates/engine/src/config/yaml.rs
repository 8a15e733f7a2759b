//! Text to trees: YAML 1.2 with its core schema, so that `no` is a text and `false` is not. JSON is YAML, nearly; see
//! [`as_yaml`].
//!
//! **Hostile texts.** A text above [`MAX_BYTES`] is refused unread, nesting ends at [`MAX_DEPTH`], and what aliases multiply
//! is counted before it is copied: the trees of a text take at most [`BUDGET`] bytes of memory.

use deltaforge_core::config::{Finding, FindingClass, Key, Node, Raw, Span};
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span as YamlSpan, StrInput, Tag};
use std::borrow::Cow;
use std::collections::HashMap;

/// The largest text that is read.
pub const MAX_BYTES: usize = 4 << 20;

/// Maps and lists inside each other.
const MAX_DEPTH: usize = 64;

/// Bytes of memory that all values of a text may take together, an alias counting as what it stands for.
const BUDGET: usize = 32 << 20;

/// Reads all documents of a text; empty ones are skipped. After a syntax error the rest of the text is not read.
pub(super) fn parse(text: &str) -> (Vec<Node>, Vec<Finding>) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > MAX_BYTES {
        let message = format!("expected at most 4 MiB, found {} bytes", text.len());
        return (Vec::new(), vec![form(String::new(), Span::default(), message, None)]);
    }
    let text = as_yaml(text);
    let mut builder = Builder { budget: BUDGET, ..Builder::default() };
    let mut parser: Parser<'_, StrInput<'_>> = Parser::new_from_str(&text);
    while let Some(event) = parser.next_event() {
        let outcome = match event {
            Ok((event, span)) => builder.take(event, span),
            Err(error) => Err(syntax(&error)),
        };
        if let Err(finding) = outcome {
            builder.findings.push(finding);
            break;
        }
    }
    (builder.documents, builder.findings)
}

/// JSON that YAML reads otherwise, made to mean the same: characters beyond U+FFFF are two escapes in JSON and one in YAML, and
/// YAML may not indent by tabs. Raw tabs cannot stand inside a text of JSON.
fn as_yaml(text: &str) -> Cow<'_, str> {
    let is_object = text.trim_start().starts_with('{');
    let differs = text.contains('\t') || text.contains("\\ud") || text.contains("\\uD");
    if !is_object || !differs || serde_json::from_str::<&serde_json::value::RawValue>(text).is_err() {
        return Cow::Borrowed(text);
    }
    let mut yaml = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['\\', '\t']) {
        yaml.push_str(&rest[..at]);
        let escape = &rest[at..];
        if let Some(after) = escape.strip_prefix('\t') {
            yaml.push(' ');
            rest = after;
            continue;
        }
        let unit = |from: usize| {
            let digits = escape.get(from..from + 6)?.strip_prefix("\\u")?;
            u32::from_str_radix(digits, 16).ok()
        };
        match (unit(0), unit(6)) {
            (Some(high @ 0xd800..=0xdbff), Some(low @ 0xdc00..=0xdfff)) => {
                let point = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                yaml.push_str(&format!("\\U{point:08x}"));
                rest = &escape[12..];
            }
            _ => {
                // An escape and what it escapes, so that `\\u` is not taken for one.
                let end = 1 + escape[1..].chars().next().map_or(0, char::len_utf8);
                yaml.push_str(&escape[..end]);
                rest = &escape[end..];
            }
        }
    }
    yaml.push_str(rest);
    Cow::Owned(yaml)
}

fn form(path: String, span: Span, message: String, hint: Option<String>) -> Finding {
    Finding { path, span, class: FindingClass::Form, message, hint }
}

fn syntax(error: &ScanError) -> Finding {
    let at = error.marker();
    let hint = match error.info() {
        info if info.contains("tab") => Some("indent with spaces".to_string()),
        info if info.contains("mapping values are not allowed") => {
            Some("put a text with `: ` in it in quotes".to_string())
        }
        _ => None,
    };
    form(String::new(), place(at.line(), at.col()), format!("not YAML: {}", error.info()), hint)
}

fn place(line: usize, column: usize) -> Span {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Span { line: number(line.max(1)), column: number(column + 1) }
}

/// A map or list that is not closed yet.
struct Open {
    node: Node,
    anchor: usize,
    /// In a map: the key that waits for its value; `None` inside when the key is one to skip.
    key: Option<Option<Key>>,
    /// Path of the map or list.
    path: String,
}

#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    findings: Vec<Finding>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    budget: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: YamlSpan) -> Result<(), Finding> {
        let at = place(span.start.line(), span.start.col());
        match event {
            Event::DocumentStart(_) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, tag) => {
                let path = self.path();
                let value =
                    scalar(&text, style, tag.as_deref()).map_err(|message| form(path, at, message, None))?;
                // A key is taken as written, whatever it looks like: `1:` and `no:` are names.
                let value = if self.waits_for_key() { Raw::Text(text.into_owned()) } else { value };
                let node = Node { value, span: at, secret: false };
                self.pay(weight(&node), at)?;
                self.put(node, anchor)?;
            }
            Event::SequenceStart(anchor, tag) => {
                self.begin(Raw::List(Vec::new()), at, anchor, tag.as_deref())?
            }
            Event::MappingStart(anchor, tag) => {
                self.begin(Raw::Map(Vec::new()), at, anchor, tag.as_deref())?
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Open { node, anchor, .. }) = self.open.pop() {
                    self.put(node, anchor)?;
                }
            }
            Event::Alias(anchor) => {
                let node = self.alias(anchor, at)?;
                self.put(node, 0)?;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn begin(&mut self, value: Raw, at: Span, anchor: usize, tag: Option<&Tag>) -> Result<(), Finding> {
        let path = self.path();
        if let Some(tag) =
            tag.filter(|tag| !(tag.is_yaml_core_schema() && matches!(tag.suffix.as_str(), "map" | "seq")))
        {
            return Err(form(
                path,
                at,
                format!("the tag `{tag}` is not known"),
                Some("remove the tag".into()),
            ));
        }
        if self.waits_for_key() {
            return Err(form(path, at, "expected a name, found a map or list as key".into(), None));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(form(path, at, format!("more than {MAX_DEPTH} levels inside each other"), None));
        }
        self.pay(size_of::<Node>(), at)?;
        self.open.push(Open { node: Node { value, span: at, secret: false }, anchor, key: None, path });
        Ok(())
    }

    fn waits_for_key(&self) -> bool {
        self.open.last().is_some_and(|open| open.key.is_none() && matches!(open.node.value, Raw::Map(_)))
    }

    /// Path of the node that comes next.
    fn path(&self) -> String {
        let Some(open) = self.open.last() else { return String::new() };
        match (&open.node.value, &open.key) {
            (Raw::List(items), _) => format!("{}[{}]", open.path, items.len()),
            (_, Some(Some(key))) => joined(&open.path, &key.name),
            _ => open.path.clone(),
        }
    }

    /// Takes memory off the budget.
    fn pay(&mut self, weight: usize, at: Span) -> Result<(), Finding> {
        let Some(left) = self.budget.checked_sub(weight) else {
            let message = format!(
                "too many values; with what aliases stand for, they take more than {} MiB",
                BUDGET >> 20
            );
            return Err(form(self.path(), at, message, Some("write less, or use fewer aliases".into())));
        };
        self.budget = left;
        Ok(())
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), Finding> {
        if anchor > 0 {
            self.pay(weight(&node), node.span)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            if !node.is_null() {
                self.documents.push(node);
            }
            return Ok(());
        };
        match &mut open.node.value {
            Raw::List(items) => items.push(node),
            Raw::Map(entries) => match open.key.take() {
                Some(Some(key)) => entries.push((key, node)),
                Some(None) => {}
                None => {
                    let Raw::Text(name) = node.value else {
                        return Err(form(
                            open.path.clone(),
                            node.span,
                            "expected a name as key".into(),
                            None,
                        ));
                    };
                    let first = entries.iter().find(|(key, _)| key.name == name).map(|(key, _)| key.span);
                    if let Some(first) = first {
                        let message = format!("the key is there already, at {}:{}", first.line, first.column);
                        let hint = Some("remove one of the two".into());
                        self.findings.push(form(joined(&open.path, &name), node.span, message, hint));
                    }
                    open.key = Some(first.is_none().then_some(Key { name, span: node.span }));
                }
            },
            _ => {}
        }
        Ok(())
    }

    /// What an alias stands for, as seen from where the alias is.
    fn alias(&mut self, anchor: usize, at: Span) -> Result<Node, Finding> {
        let Some(weight) = self.anchors.get(&anchor).map(weight) else {
            return Err(form(
                self.path(),
                at,
                "an alias of something that is not complete here".into(),
                None,
            ));
        };
        self.pay(weight, at)?;
        let original = self.anchors.get(&anchor).cloned().unwrap_or_else(|| Node::new(Raw::Null));
        let node = Node { span: at, ..original };
        // A path from the root down counts aliased levels too.
        if self.open.len() + depth(&node) > MAX_DEPTH {
            return Err(form(
                self.path(),
                at,
                format!("more than {MAX_DEPTH} levels inside each other"),
                None,
            ));
        }
        Ok(node)
    }
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.into() } else { format!("{path}.{name}") }
}

/// Bytes of memory, about.
fn weight(node: &Node) -> usize {
    let inside = match &node.value {
        Raw::Text(text) => text.len(),
        Raw::List(items) => items.iter().map(weight).sum(),
        Raw::Map(entries) => {
            entries.iter().map(|(key, node)| size_of::<Key>() + key.name.len() + weight(node)).sum()
        }
        _ => 0,
    };
    size_of::<Node>() + inside
}

fn depth(node: &Node) -> usize {
    match &node.value {
        Raw::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Raw::Map(entries) => 1 + entries.iter().map(|(_, node)| depth(node)).max().unwrap_or(0),
        _ => 0,
    }
}

/// The value of a scalar by the core schema (YAML 1.2.2, section 10.3.2).
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Raw, String> {
    let suffix = match tag {
        Some(tag) if tag.is_yaml_core_schema() => tag.suffix.as_str(),
        Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => "str",
        Some(tag) => return Err(format!("the tag `{tag}` is not known")),
        None if style == ScalarStyle::Plain => return Ok(resolve(text)),
        None => "str",
    };
    let resolved = resolve(text);
    match (suffix, resolved) {
        ("str", _) => Ok(Raw::Text(text.into())),
        ("int", value @ Raw::Int(_)) | ("float", value @ Raw::Float(_)) => Ok(value),
        ("float", Raw::Int(n)) => Ok(Raw::Float(n as f64)),
        ("bool", value @ Raw::Bool(_)) | ("null", value @ Raw::Null) => Ok(value),
        ("int" | "float" | "bool" | "null", _) => Err(format!("the value is not of its tag, `!!{suffix}`")),
        _ => Err(format!("the tag `!!{suffix}` is not known")),
    }
}

fn resolve(text: &str) -> Raw {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Raw::Null,
        "true" | "True" | "TRUE" => return Raw::Bool(true),
        "false" | "False" | "FALSE" => return Raw::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Raw::Float(f64::NAN),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return Raw::Float(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY });
    }
    let radix = |digits: Option<&str>, radix| digits.and_then(|digits| unsigned_number(digits, radix));
    if let Some(n) = radix(text.strip_prefix("0o"), 8).or_else(|| radix(text.strip_prefix("0x"), 16)) {
        return Raw::Int(n);
    }
    let looks_like_number = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned.contains(|c: char| c.is_ascii_digit())
        && unsigned.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
    if !looks_like_number {
        return Raw::Text(text.into());
    }
    if unsigned.bytes().all(|b| b.is_ascii_digit())
        && let Ok(n) = text.parse()
    {
        return Raw::Int(n);
    }
    // Rust reads exactly what the schema calls a float once the first character is known.
    text.parse().map_or_else(|_| Raw::Text(text.into()), Raw::Float)
}

fn unsigned_number(digits: &str, radix: u32) -> Option<i64> {
    let plain = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    if plain { i64::from_str_radix(digits, radix).ok() } else { None }
}
