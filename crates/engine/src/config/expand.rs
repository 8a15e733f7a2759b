//! References to variables: `${VAR}`, `${VAR:-text}`, `${VAR:?message}`, `${file:PATH}`, and `$${` for a plain `${`.
//!
//! The document is parsed before, so a value can never change its structure; keys and scripts are not expanded, and results
//! are not expanded again. A dotted name (`${source.table}`) belongs to routing templates: in their fields it is left alone,
//! elsewhere it is an error.
//!
//! **Why no value leaks.** The server's variables are nobody's business who may only send a document. So a finding at a
//! field that holds a reference is shown with the reference in place of the value ([`Expanded::conceal`]).

use deltaforge_core::config::{Finding, FindingClass, MASK, Node, Raw, Span, mask, secret_ranges};
use std::collections::BTreeMap;

/// Variables and files, read for this crate by the runner.
pub trait Environment: Send + Sync {
    /// A variable's value; `None` when it is not set.
    fn var(&self, name: &str) -> Option<String>;

    /// A file's content.
    ///
    /// # Errors
    /// Why it cannot be read, without its name.
    fn file(&self, path: &str) -> Result<String, String>;
}

/// The largest file that `${file:…}` takes in.
const MAX_FILE: usize = 1 << 20;

/// What is allowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    /// `${file:…}`.
    pub(super) files: bool,
    /// Variables and files that are not there.
    pub(super) allow_unset: bool,
}

/// A step of a path below the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// The place of a node in a document.
pub(super) type Path<'a> = [Step<'a>];

/// The path as errors show it.
pub(super) fn path_text(path: &Path<'_>) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(name) if text.is_empty() => text.push_str(name),
            Step::Key(name) => {
                text.push('.');
                text.push_str(name);
            }
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// A piece of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// As it is.
    Literal(&'a str),
    /// `$${`.
    Escape,
    /// What stands between `${` and `}`.
    Reference(&'a str),
    /// A `${` without `}`, and all after it.
    Unclosed(&'a str),
}

/// The pieces of a text; written one after the other they are the text again.
pub(super) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let escaped = rest[..at].ends_with('$');
        let literal = &rest[..at - usize::from(escaped)];
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        let inside = &rest[at + 2..];
        if escaped {
            pieces.push(Piece::Escape);
            rest = inside;
        } else if let Some(end) = inside.find('}') {
            pieces.push(Piece::Reference(&inside[..end]));
            rest = &inside[end + 1..];
        } else {
            pieces.push(Piece::Unclosed(&rest[at..]));
            return pieces;
        }
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest));
    }
    pieces
}

/// A document with values in place of references.
pub(super) struct Expanded {
    pub(super) tree: Node,
    /// Fields that held references or secrets, by path.
    fields: BTreeMap<String, Field>,
}

struct Field {
    /// What is shown in place of a value, the reference or a mask, and the value.
    values: Vec<(String, String)>,
    unset: bool,
}

impl Expanded {
    /// Whether a variable or file was missing and allowed to be.
    pub(super) fn has_unset(&self) -> bool {
        self.fields.values().any(|field| field.unset)
    }

    /// Whether a finding speaks about a value that is not known, or about the list that holds it.
    fn is_about_unset(&self, finding: &Finding) -> bool {
        let unset = |(path, field): (&String, &Field)| {
            let rest = path.strip_prefix(finding.path.as_str());
            let is_item = |rest: &str| rest.starts_with('[') && rest.find(']') == Some(rest.len() - 1);
            field.unset && rest.is_some_and(|rest| rest.is_empty() || is_item(rest))
        };
        self.fields.iter().any(unset)
    }

    /// Shows references for values and masks for secrets, and drops findings about values that are not known.
    pub(super) fn conceal(&self, findings: &mut Vec<Finding>) {
        let unknown = |finding: &&Finding| finding.class == FindingClass::Unknown;
        let unknown: Vec<_> = findings.iter().filter(unknown).map(|finding| finding.path.clone()).collect();
        findings.retain(|finding| match finding.class {
            FindingClass::Unknown | FindingClass::Missing => true,
            // What stands under a key that is not known is not looked at further.
            FindingClass::Expand => !unknown.iter().any(|path| is_within(&finding.path, path)),
            _ => !self.is_about_unset(finding),
        });
        for finding in findings {
            for (path, field) in &self.fields {
                let related =
                    path.starts_with(finding.path.as_str()) || finding.path.starts_with(path.as_str());
                // A short value is likely a word of any message; elsewhere it is only a secret when it is long.
                for (reference, value) in field.values.iter().filter(|(_, value)| related || value.len() >= 8)
                {
                    finding.message = conceal_in(&finding.message, value, reference);
                    finding.hint = finding.hint.take().map(|hint| conceal_in(&hint, value, reference));
                    // What a message was made of the value by other means than quoting it is not worth a leak.
                    if is_derived(&finding.message, value) {
                        finding.message = format!("the value of `{reference}` is not possible here");
                    }
                    finding.hint = finding.hint.take().filter(|hint| !is_derived(hint, value));
                }
            }
            finding.message = mask(&finding.message).into_owned();
        }
    }
}

/// Whether a path is `outer` or below it.
fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Whether a message still holds a value, in another case or with other punctuation.
fn is_derived(message: &str, value: &str) -> bool {
    let letters = |text: &str| {
        text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>()
    };
    let value = letters(value);
    value.len() >= 6 && letters(message).contains(&value)
}

/// Replaces a value in a message where it stands as a word, also in the shortened form that messages use.
fn conceal_in(message: &str, value: &str, reference: &str) -> String {
    let short = |text: &str| match text.chars().count() {
        0..=40 => text.to_string(),
        _ => text.chars().take(39).chain(['…']).collect(),
    };
    let masked = mask(value);
    let mut shown = message.to_string();
    for form in [value, &short(value), &masked, &short(&masked), value.trim()] {
        shown = replace_words(&shown, form, reference);
    }
    shown
}

fn replace_words(text: &str, word: &str, with: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    let is_part = |c: char| c.is_alphanumeric();
    while let Some(at) = if word.is_empty() { None } else { rest.find(word) } {
        let end = at + word.len();
        // A short value is replaced only as a word of its own, a long one wherever it stands.
        let before = rest[..at].chars().next_back().or_else(|| shown.chars().next_back());
        let alone = !before.is_some_and(is_part) && !rest[end..].chars().next().is_some_and(is_part);
        shown.push_str(&rest[..at]);
        shown.push_str(if alone || word.len() >= 8 { with } else { word });
        rest = &rest[end..];
    }
    shown + rest
}

/// Expands a document. `is_template` tells fields in which dotted names are left alone.
pub(super) fn expand(
    written: &Node,
    environment: &dyn Environment,
    options: Options,
    is_template: &dyn Fn(&Path<'_>) -> bool,
    errors: &mut Vec<Finding>,
) -> Expanded {
    let mut expander = Expander { environment, options, is_template, errors, fields: BTreeMap::new() };
    let tree = expander.node(written, &mut Vec::new());
    Expanded { tree, fields: expander.fields }
}

struct Expander<'a> {
    environment: &'a dyn Environment,
    options: Options,
    is_template: &'a dyn Fn(&Path<'_>) -> bool,
    errors: &'a mut Vec<Finding>,
    fields: BTreeMap<String, Field>,
}

impl Expander<'_> {
    fn node<'n>(&mut self, node: &'n Node, path: &mut Vec<Step<'n>>) -> Node {
        let mut below = |step, child, this: &mut Self| {
            path.push(step);
            let child = this.node(child, path);
            path.pop();
            child
        };
        let value = match &node.value {
            Raw::List(items) => {
                let items = items.iter().enumerate();
                Raw::List(items.map(|(i, item)| below(Step::Index(i), item, self)).collect())
            }
            Raw::Map(entries) => {
                let entries = entries.iter();
                Raw::Map(
                    entries
                        .map(|(key, child)| (key.clone(), below(Step::Key(&key.name), child, self)))
                        .collect(),
                )
            }
            Raw::Text(text) if text.contains("${") && !is_script(path) => return self.text(text, node, path),
            Raw::Text(text) => {
                let values: Vec<_> =
                    secret_ranges(text).into_iter().map(|at| (MASK.into(), text[at].into())).collect();
                if !values.is_empty() {
                    self.fields.insert(path_text(path), Field { values, unset: false });
                }
                node.value.clone()
            }
            other => other.clone(),
        };
        Node { value, span: node.span, secret: node.secret }
    }

    fn text(&mut self, text: &str, node: &Node, path: &Path<'_>) -> Node {
        let template = (self.is_template)(path);
        let path = path_text(path);
        let mut field = Field { values: Vec::new(), unset: false };
        let mut secret = node.secret;
        let mut result = String::with_capacity(text.len());
        for piece in pieces(text) {
            match piece {
                Piece::Literal(literal) => result.push_str(literal),
                Piece::Escape => result.push_str(if template { "$${" } else { "${" }),
                Piece::Unclosed(rest) => {
                    let hint = "close it with `}`, or write `$${` for a plain `${`";
                    self.error(&path, node.span, "`${` without a closing `}`".into(), Some(hint.into()));
                    result.push_str(rest);
                }
                Piece::Reference(inside) => {
                    let written = format!("${{{inside}}}");
                    match self.value(inside, template) {
                        Ok(Value::Known(value)) => {
                            // A value's own `${` is text: in a template it must stay so.
                            result.push_str(&if template {
                                value.replace("${", "$${")
                            } else {
                                value.clone()
                            });
                            field.values.push((written, value));
                        }
                        Ok(Value::Secret(value)) => {
                            secret = true;
                            result.push_str(&value);
                            field.values.push((MASK.into(), value));
                        }
                        Ok(Value::Unset(placeholder)) => {
                            field.unset = true;
                            result.push_str(&placeholder);
                        }
                        Ok(Value::Template) => result.push_str(&written),
                        Err((message, hint)) => {
                            self.error(&path, node.span, message, hint);
                            // The field is reported once; what follows from its value is not.
                            field.unset = true;
                        }
                    }
                }
            }
        }
        if !field.values.is_empty() {
            // First the whole, so that what a message quotes of it is found whatever else is in it.
            field.values.insert(0, (mask(text).into_owned(), result.clone()));
        }
        field
            .values
            .extend(secret_ranges(&result).into_iter().map(|at| (MASK.into(), result[at].to_string())));
        if !field.values.is_empty() || field.unset {
            self.fields.insert(path, field);
        }
        Node { value: Raw::Text(result), span: node.span, secret }
    }

    /// The value of a reference, or what is wrong with it and a hint.
    fn value(&self, inside: &str, template: bool) -> Result<Value, (String, Option<String>)> {
        if let Some(path) = inside.strip_prefix("file:") {
            return self.file(path);
        }
        let (name, rest) = inside.split_at(inside.find(':').unwrap_or(inside.len()));
        if name.contains('.') {
            let hint = "names with a dot are filled from events, in topic, stream, subject, key, url, headers, table and path";
            let error = || (format!("`${{{inside}}}` is not possible in this field"), Some(hint.into()));
            return if template { Ok(Value::Template) } else { Err(error()) };
        }
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_name {
            let hint = "a name has letters, digits and `_`; write `$${` for a plain `${`";
            return Err((format!("`${{{inside}}}` does not name a variable"), Some(hint.into())));
        }
        let value = self.environment.var(name);
        let set = value.clone().filter(|value| !value.is_empty());
        if rest.is_empty() {
            let hint = format!("set it, or write `${{{name}:-text}}`");
            return match value {
                Some(value) => Ok(Value::Known(value)),
                None if self.options.allow_unset => Ok(Value::Unset(name.into())),
                None => Err((format!("the variable `{name}` is not set"), Some(hint))),
            };
        }
        if let Some(default) = rest.strip_prefix(":-") {
            return Ok(Value::Known(set.unwrap_or_else(|| default.into())));
        }
        if let Some(message) = rest.strip_prefix(":?") {
            return match set {
                Some(value) => Ok(Value::Known(value)),
                None if self.options.allow_unset => Ok(Value::Unset(name.into())),
                None => Err((format!("the variable `{name}` is not set or empty: {message}"), None)),
            };
        }
        let hint = format!("write `${{{name}}}`, `${{{name}:-text}}` or `${{{name}:?message}}`");
        Err((format!("`${{{inside}}}` has an unknown form"), Some(hint)))
    }

    fn file(&self, path: &str) -> Result<Value, (String, Option<String>)> {
        if !self.options.files {
            let hint = "use a variable; files are for documents given by `--config`";
            return Err(("a document sent over the API may not use `${file:…}`".into(), Some(hint.into())));
        }
        match self.environment.file(path) {
            Ok(content) if content.len() > MAX_FILE => {
                Err((format!("the file `{path}` is larger than 1 MiB"), None))
            }
            Ok(content) => {
                let line = content.strip_suffix('\n').unwrap_or(&content);
                Ok(Value::Secret(line.strip_suffix('\r').unwrap_or(line).into()))
            }
            Err(_) if self.options.allow_unset => Ok(Value::Unset("file".into())),
            Err(reason) => Err((format!("the file `{path}` cannot be read: {reason}"), None)),
        }
    }

    fn error(&mut self, path: &str, span: Span, message: String, hint: Option<String>) {
        self.errors.push(Finding { path: path.into(), span, class: FindingClass::Expand, message, hint });
    }
}

enum Value {
    /// Of a variable.
    Known(String),
    /// Of a file.
    Secret(String),
    /// Not there, which is allowed: what stands for it.
    Unset(String),
    /// Filled from events.
    Template,
}

/// `spec.processors[*].inline`: a program, in which `${x}` is its own.
fn is_script(path: &Path<'_>) -> bool {
    matches!(path, [Step::Key("spec"), Step::Key("processors"), Step::Index(_), Step::Key("inline")])
}
