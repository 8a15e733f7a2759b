//! Reading a map of settings field by field, collecting every finding.

use super::{
    Finding, FindingClass, Key, Node, Raw, Secret, Span, all_words, did_you_mean, nearest, parse_size,
    size_text,
};
use std::ops::RangeInclusive;

/// Findings of a document so far, and warnings, which do not refuse it.
#[derive(Debug, Default)]
pub struct Findings {
    /// Errors, in the order found.
    pub errors: Vec<Finding>,
    /// Warnings.
    pub warnings: Vec<Finding>,
    /// Values that stand for keys which are not written: path and value. Answers show the document filled with them.
    pub defaults: Vec<(String, serde_json::Value)>,
}

/// A map of settings being read.
///
/// Each accessor marks its key as known, reports what is wrong with the value and then gives the default, so that parsing goes
/// on and every error is found in one run. [`finish`](Self::finish) reports the keys that nobody asked for.
pub struct Fields<'a> {
    path: String,
    node: &'a Node,
    entries: &'a [(Key, Node)],
    known: Vec<&'static str>,
    planned: Vec<&'static str>,
    findings: &'a mut Findings,
}

impl<'a> Fields<'a> {
    /// Starts reading `node`, which stands at `path`. Anything but a map is a finding; null is an empty map.
    pub fn new(node: &'a Node, path: &str, findings: &'a mut Findings) -> Fields<'a> {
        let entries = match &node.value {
            Raw::Map(entries) => entries.as_slice(),
            Raw::Null => &[],
            _ => {
                findings.errors.push(Finding {
                    path: path.into(),
                    span: node.span,
                    class: FindingClass::Type,
                    message: format!("expected a map, found {}", node.describe(true)),
                    hint: None,
                });
                &[]
            }
        };
        Fields { path: path.into(), node, entries, known: Vec::new(), planned: Vec::new(), findings }
    }

    /// The path of a key below this map.
    pub fn path_of(&self, key: &str) -> String {
        match (self.path.is_empty(), key.is_empty()) {
            (true, _) => key.into(),
            (_, true) => self.path.clone(),
            _ => format!("{}.{key}", self.path),
        }
    }

    /// Whether a key is written and not null.
    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(k, node)| k.name == key && !node.is_null())
    }

    /// Number of errors so far, in the whole document.
    pub fn error_count(&self) -> usize {
        self.findings.errors.len()
    }

    /// The raw node of a key; null counts as not written.
    pub fn node(&mut self, key: &'static str) -> Option<&'a Node> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.entries.iter().find(|(k, _)| k.name == key).map(|(_, node)| node).filter(|node| !node.is_null())
    }

    /// The raw node of a key, also when it is null.
    pub fn node_or_null(&mut self, key: &'static str) -> Option<&'a Node> {
        self.node(key);
        self.entries.iter().find(|(k, _)| k.name == key).map(|(_, node)| node)
    }

    /// Notes what stands for a key that is not written, so that answers can show it. The accessors that take a default do it
    /// themselves.
    pub fn default(&mut self, key: &str, value: impl Into<serde_json::Value>) {
        let path = self.path_of(key);
        self.findings.defaults.push((path, value.into()));
    }

    /// Where a key's value stands, or for `key[2]` that item of it; the map for a key that is not written.
    fn span_of(&self, key: &str) -> Span {
        let (name, index) = match key.split_once('[') {
            Some((name, index)) => (name, index.strip_suffix(']').and_then(|index| index.parse().ok())),
            None => (key, None),
        };
        let Some((name, node)) = self.entries.iter().find(|(k, _)| k.name == name) else {
            return self.node.span;
        };
        let node = match (&node.value, index) {
            (Raw::List(items), Some(index)) => items.get::<usize>(index).unwrap_or(node),
            _ => node,
        };
        if node.span.line > 0 { node.span } else { name.span }
    }

    /// Reports an error at a key of this map, at an item of its list (`tables[2]`), or at the map itself for an empty key.
    pub fn error(
        &mut self,
        key: &str,
        class: FindingClass,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        let span = self.span_of(key);
        let path = self.path_of(key);
        self.findings.errors.push(Finding { path, span, class, message: message.into(), hint });
    }

    /// Reports a warning at a key of this map.
    pub fn warn(&mut self, key: &str, message: impl Into<String>, hint: Option<String>) {
        let span = self.entries.iter().find(|(k, _)| k.name == key).map_or(self.node.span, |(_, n)| n.span);
        let path = self.path_of(key);
        let class = FindingClass::Form;
        self.findings.warnings.push(Finding { path, span, class, message: message.into(), hint });
    }

    /// Reports a value that does not parse. `what` never holds a secret.
    pub fn form(&mut self, key: &str, what: impl Into<String>, hint: Option<String>) {
        self.error(key, FindingClass::Form, what, hint);
    }

    fn wrong_type(&mut self, key: &str, expected: &str, node: &Node) {
        let hint = match node.value {
            Raw::Int(_) | Raw::Float(_) | Raw::Bool(_) if expected.starts_with("text") => {
                Some("put it in quotes".to_string())
            }
            _ => None,
        };
        self.error(
            key,
            FindingClass::Type,
            format!("expected {expected}, found {}", node.describe(true)),
            hint,
        );
    }

    fn missing(&mut self, key: &str, what: &str) {
        self.error(key, FindingClass::Missing, format!("{what} is required"), None);
    }

    /// A text.
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        let node = self.node(key)?;
        match &node.value {
            Raw::Text(text) => Some(text.clone()),
            _ => {
                self.wrong_type(key, "text", node);
                None
            }
        }
    }

    /// A text that must be there and not blank.
    pub fn required_text(&mut self, key: &'static str) -> Option<String> {
        if !self.has(key) {
            self.node(key);
            self.missing(key, "a text");
            return None;
        }
        let text = self.text(key)?;
        if text.trim().is_empty() {
            self.form(key, "expected a text, found an empty one", None);
            return None;
        }
        Some(text)
    }

    /// A secret text.
    pub fn secret(&mut self, key: &'static str) -> Option<Secret> {
        let node = self.node(key)?;
        match &node.value {
            Raw::Text(text) => Some(Secret::new(text.clone())),
            _ => {
                let found = node.describe(false);
                self.error(
                    key,
                    FindingClass::Type,
                    format!("expected text, found {found}"),
                    Some("put it in quotes".into()),
                );
                None
            }
        }
    }

    /// An integer within a range.
    pub fn int(&mut self, key: &'static str, default: i64, range: RangeInclusive<i64>) -> i64 {
        let Some(node) = self.node(key) else {
            self.default(key, default);
            return default;
        };
        let value = match &node.value {
            Raw::Int(n) => Some(*n),
            Raw::Text(text) => text.trim().parse().ok(),
            _ => None,
        };
        match value {
            Some(n) if range.contains(&n) => n,
            Some(n) => {
                let message = match (range.start(), range.end()) {
                    (least, &i64::MAX) => format!("expected at least {least}, found {n}"),
                    (least, most) => format!("expected {least} to {most}, found {n}"),
                };
                self.error(key, FindingClass::Range, message, None);
                default
            }
            None => {
                self.wrong_type(key, "an integer", node);
                default
            }
        }
    }

    /// A number within a range.
    pub fn number(&mut self, key: &'static str, default: f64, range: RangeInclusive<f64>) -> f64 {
        let Some(node) = self.node(key) else {
            self.default(key, default);
            return default;
        };
        let value = match &node.value {
            Raw::Int(n) => Some(*n as f64),
            Raw::Float(n) => Some(*n),
            Raw::Text(text) => text.trim().parse().ok(),
            _ => None,
        };
        match value {
            Some(n) if range.contains(&n) => n,
            Some(n) => {
                let message = format!("expected {} to {}, found {n}", range.start(), range.end());
                self.error(key, FindingClass::Range, message, None);
                default
            }
            None => {
                self.wrong_type(key, "a number", node);
                default
            }
        }
    }

    /// A boolean, if written.
    pub fn bool_if_set(&mut self, key: &'static str) -> Option<bool> {
        let node = self.node(key)?;
        match &node.value {
            Raw::Bool(b) => return Some(*b),
            Raw::Text(text) if text == "true" => return Some(true),
            Raw::Text(text) if text == "false" => return Some(false),
            _ => {}
        }
        self.wrong_type(key, "`true` or `false`", node);
        None
    }

    /// A boolean.
    pub fn bool(&mut self, key: &'static str, default: bool) -> bool {
        if !self.has(key) {
            self.default(key, default);
        }
        self.bool_if_set(key).unwrap_or(default)
    }

    /// A size in bytes: an integer, or a text with a unit.
    pub fn size(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let Some(node) = self.node(key) else {
            self.default(key, default);
            return default;
        };
        let value = match &node.value {
            Raw::Int(n) => u64::try_from(*n).ok(),
            Raw::Text(text) => parse_size(text),
            _ => None,
        };
        match value {
            Some(n) if range.contains(&n) => n,
            Some(n) => {
                let (least, found) = (size_text(*range.start()), size_text(n));
                let message = match *range.end() {
                    u64::MAX => format!("expected at least {least}, found {found}"),
                    most => format!("expected {least} to {}, found {found}", size_text(most)),
                };
                self.error(key, FindingClass::Range, message, None);
                default
            }
            None => {
                let hint = Some("write bytes, or a number with KiB, MiB, GiB, KB, MB or GB".into());
                let class = if node.as_text().is_some() { FindingClass::Form } else { FindingClass::Type };
                self.error(key, class, format!("expected a size, found {}", node.describe(true)), hint);
                default
            }
        }
    }

    /// One of some words, if written. `planned` ones are refused as such.
    pub fn choice_if_set(
        &mut self,
        key: &'static str,
        words: &[&'static str],
        planned: &[&'static str],
    ) -> Option<&'static str> {
        let node = self.node(key)?;
        let Raw::Text(text) = &node.value else {
            self.wrong_type(key, "text", node);
            return None;
        };
        let found = words.iter().find(|word| *word == text).copied();
        if found.is_none() {
            self.not_a_choice(key, text, words, planned);
        }
        found
    }

    /// One of some words.
    pub fn choice(
        &mut self,
        key: &'static str,
        words: &[&'static str],
        planned: &[&'static str],
        default: &'static str,
    ) -> &'static str {
        if !self.has(key) && !default.is_empty() {
            self.default(key, default);
        }
        self.choice_if_set(key, words, planned).unwrap_or(default)
    }

    /// Reports a word that is none of `words`.
    pub fn not_a_choice(&mut self, key: &str, found: &str, words: &[&str], planned: &[&str]) {
        let name = if key.is_empty() {
            self.path.rsplit('.').next().unwrap_or("value").to_string()
        } else {
            key.into()
        };
        let found_short = super::shorten(found);
        if planned.contains(&found) {
            let message = format!("{name} `{found_short}` is planned, not in this release");
            self.error(key, FindingClass::Choice, message, Some(all_words(words)));
            return;
        }
        let hint = did_you_mean(found, words);
        self.error(key, FindingClass::Choice, format!("`{found_short}` is not a known {name}"), Some(hint));
    }

    /// A list of texts with their places in the list; one bare text counts as a list of one.
    pub fn texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        let node = self.node(key)?;
        match &node.value {
            Raw::Text(text) => Some(vec![text.clone()]),
            Raw::List(items) => {
                let mut texts = Vec::with_capacity(items.len());
                for (i, item) in items.iter().enumerate() {
                    match &item.value {
                        Raw::Text(text) => texts.push(text.clone()),
                        _ => {
                            let path = format!("{}[{i}]", self.path_of(key));
                            let message = format!("expected text, found {}", item.describe(true));
                            let hint = Some("put it in quotes".into());
                            let class = FindingClass::Type;
                            self.findings.errors.push(Finding {
                                path,
                                span: item.span,
                                class,
                                message,
                                hint,
                            });
                        }
                    }
                }
                Some(texts)
            }
            _ => {
                self.wrong_type(key, "a list of texts", node);
                None
            }
        }
    }

    /// A map of texts.
    pub fn text_map(&mut self, key: &'static str) -> Vec<(String, String)> {
        let Some(node) = self.node(key) else { return Vec::new() };
        let Raw::Map(entries) = &node.value else {
            self.wrong_type(key, "a map of texts", node);
            return Vec::new();
        };
        let mut texts = Vec::new();
        for (name, value) in entries {
            match &value.value {
                Raw::Text(text) => texts.push((name.name.clone(), text.clone())),
                _ => {
                    let path = format!("{}.{}", self.path_of(key), name.name);
                    let message = format!("expected text, found {}", value.describe(true));
                    let hint = Some("put it in quotes".into());
                    let class = FindingClass::Type;
                    self.findings.errors.push(Finding { path, span: value.span, class, message, hint });
                }
            }
        }
        texts
    }

    /// Reads a nested map, if written; its unknown keys are reported when `read` returns.
    pub fn map<R>(&mut self, key: &'static str, read: impl FnOnce(&mut Fields<'_>) -> R) -> Option<R> {
        let node = self.node(key)?;
        let path = self.path_of(key);
        let mut fields = Fields::new(node, &path, self.findings);
        let result = read(&mut fields);
        fields.finish();
        Some(result)
    }

    /// Names keys of the specification that a later release builds: written, they are refused as planned.
    pub fn planned(&mut self, keys: &[&'static str]) {
        self.planned.extend_from_slice(keys);
    }

    /// Reports the keys that no accessor asked for.
    pub fn finish(self) {
        let Fields { path, entries, known, planned, findings, .. } = self;
        for (key, _) in entries {
            let name = key.name.as_str();
            if known.contains(&name) {
                continue;
            }
            let full = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
            let (message, hint) = if planned.contains(&name) {
                (format!("`{name}` is planned, not in this release"), Some("remove the key".to_string()))
            } else {
                let hint = match nearest(name, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known keys: {}", known.join(", ")),
                };
                ("unknown key".to_string(), Some(hint))
            };
            findings.errors.push(Finding {
                path: full,
                span: key.span,
                class: FindingClass::Unknown,
                message,
                hint,
            });
        }
    }
}
