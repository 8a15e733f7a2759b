//! Documents: from a text that somebody wrote to a [`PipelineSpec`].
//!
//! ```text
//!  text ──yaml──► tree as written ──expand──► tree with values ──document──► PipelineSpec, defaults, warnings
//!                      │    ▲ patch (RFC 7396)      ▲
//!                      │    └── a client's change   └ Environment: variables and files, read by the runner
//!                      └──redact──► what the API shows: secrets masked, defaults filled in
//! ```
//!
//! What is stored and patched is always the tree as written, with its `${…}`. Every step collects findings instead of
//! stopping at the first, and each finding has its place. A variable's value never appears in a finding: findings at a field
//! with a reference in it show the reference.

mod document;
mod expand;
mod patch;
mod redact;
mod yaml;

#[cfg(test)]
mod tests;

pub use document::Registry;
pub use expand::Environment;
pub use patch::patched;
pub use redact::shown;
pub use yaml::MAX_BYTES;

use crate::spec::PipelineSpec;
use deltaforge_core::config::{Finding, FindingClass, Findings, Node, Span};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A text that holds documents.
#[derive(Clone, Debug)]
pub struct ConfigText {
    /// The name of its file, as errors show it.
    pub file: Arc<str>,
    /// The content.
    pub text: String,
}

/// A document that validates.
#[derive(Clone)]
pub struct Document {
    /// As written, `${…}` included: what is stored and patched.
    pub written: Node,
    /// What runs.
    pub spec: PipelineSpec,
    /// As the API shows it: defaults filled in, `${…}` as written, secrets masked.
    pub shown: serde_json::Value,
    /// What is allowed and probably not meant.
    pub warnings: Vec<Finding>,
}

/// A finding and the file it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file; `None` for a document without one.
    pub file: Option<Arc<str>>,
    /// What was found.
    pub finding: Finding,
}

impl Problem {
    /// The form of `--json`: `{"path","line","column","class","message","hint"}`, and the file.
    pub fn to_json(&self) -> serde_json::Value {
        let Finding { path, span, class, message, hint } = &self.finding;
        serde_json::json!({
            "file": self.file.as_deref(),
            "path": path,
            "line": span.line,
            "column": span.column,
            "class": class.as_str(),
            "message": message,
            "hint": hint,
        })
    }
}

impl fmt::Display for Problem {
    /// `pipeline.yaml:14:9: spec.sinks[0].config.brokerz: unknown key`, the hint on a line of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:{}", if self.finding.span.line > 0 { "" } else { " " })?;
        }
        self.finding.fmt(f)
    }
}

/// What came of some texts.
#[derive(Default)]
pub struct Loaded {
    /// The documents that validate, with their files. Empty lists of errors mean: all there are.
    pub documents: Vec<(Arc<str>, Document)>,
    /// Names of all pipelines met, in order; also of those that have no document because variables are not set.
    pub names: Vec<String>,
    /// Everything wrong, by place.
    pub errors: Vec<Problem>,
    /// Everything doubtful, by place.
    pub warnings: Vec<Problem>,
}

/// Turns documents into specifications.
#[derive(Clone)]
pub struct Loader {
    registry: Arc<Registry>,
    environment: Arc<dyn Environment>,
    memory_limit: u64,
    allow_unset: bool,
}

impl Loader {
    /// A loader of documents. `memory_limit` is the process ceiling on buffered event data, in bytes: a document's own ceiling
    /// when it names none.
    pub fn new(registry: Arc<Registry>, environment: Arc<dyn Environment>, memory_limit: u64) -> Loader {
        Loader { registry, environment, memory_limit, allow_unset: false }
    }

    /// Accepts variables and files that are not there: what depends on them is not checked. Such documents are named and not
    /// loaded.
    pub fn allow_unset(mut self) -> Loader {
        self.allow_unset = true;
        self
    }

    /// The sources, sinks and planned words it knows.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Reads all documents of all texts and compares them with each other.
    pub fn texts(&self, texts: &[ConfigText]) -> Loaded {
        let mut loaded = Loaded::default();
        let mut set = Set::default();
        for text in texts {
            let file = Some(text.file.clone());
            let (trees, findings) = yaml::parse(&text.text);
            let mut findings = Findings { errors: findings, ..Findings::default() };
            for tree in trees {
                let read = self.read(&tree, true, &mut findings);
                set.compare(&read, &text.file, &mut findings.errors);
                loaded.names.extend(read.name);
                if let Some(document) = read.document {
                    loaded.documents.push((text.file.clone(), document));
                }
            }
            let located = |finding| Problem { file: file.clone(), finding };
            loaded.errors.extend(sorted(findings.errors).into_iter().map(located));
            loaded.warnings.extend(sorted(findings.warnings).into_iter().map(located));
        }
        loaded
    }

    /// Reads one document. `files` says whether it may use `${file:…}`: one sent over the API may not.
    ///
    /// # Errors
    /// Everything wrong with it, by place.
    pub fn document(&self, written: &Node, files: bool) -> Result<Document, Vec<Finding>> {
        let mut findings = Findings::default();
        let read = self.read(written, files, &mut findings);
        match read.document {
            Some(document) if findings.errors.is_empty() => Ok(document),
            _ => Err(sorted(findings.errors)),
        }
    }

    /// Reads a document whose findings are added to `findings`.
    fn read(&self, written: &Node, files: bool, findings: &mut Findings) -> Read {
        let mut own = Findings::default();
        let options = expand::Options { files, allow_unset: self.allow_unset };
        let templates = |path: &expand::Path<'_>| document::is_template(&self.registry, written, path);
        let expanded = expand::expand(written, &*self.environment, options, &templates, &mut own.errors);
        let parsed = document::parse(&expanded.tree, &self.registry, self.memory_limit, &mut own);
        expanded.conceal(&mut own.errors);
        expanded.conceal(&mut own.warnings);
        let complete = own.errors.is_empty() && !expanded.has_unset();
        let shown = complete.then(|| redact::shown(written, &own.defaults));
        let document = match (parsed.spec, shown) {
            (Some(spec), Some(shown)) => {
                let warnings = sorted(own.warnings.clone());
                Some(Document { written: written.clone(), spec, shown, warnings })
            }
            _ => None,
        };
        findings.errors.append(&mut own.errors);
        findings.warnings.append(&mut own.warnings);
        Read { name: parsed.name, name_at: parsed.name_at, source: parsed.source, document }
    }
}

/// What one document came to.
struct Read {
    name: Option<String>,
    name_at: Span,
    /// The source's id, and path and place of where it is said.
    source: Option<(String, String, Span)>,
    document: Option<Document>,
}

/// Names and source ids of the documents so far, with their places.
#[derive(Default)]
struct Set {
    names: BTreeMap<String, String>,
    sources: BTreeMap<String, String>,
}

impl Set {
    fn compare(&mut self, read: &Read, file: &Arc<str>, errors: &mut Vec<Finding>) {
        let Some(name) = &read.name else { return };
        let place = format!("{file}:{}:{}", read.name_at.line, read.name_at.column);
        if let Some(first) = self.names.get(name) {
            errors.push(Finding {
                path: "metadata.name".into(),
                span: read.name_at,
                class: FindingClass::Conflict,
                message: format!("`{name}` is already the name of the pipeline at {first}"),
                hint: Some("give each pipeline a name of its own".into()),
            });
            // Its source id follows from the name; a second finding would say nothing new.
            return;
        }
        self.names.insert(name.clone(), place);
        let Some((id, path, span)) = &read.source else { return };
        if let Some(first) = self.sources.get(id) {
            errors.push(Finding {
                path: path.clone(),
                span: *span,
                class: FindingClass::Conflict,
                message: format!("`{id}` is already the source id of the pipeline `{first}`"),
                hint: Some("a source id is the checkpoint's key: give each source an `id` of its own".into()),
            });
        } else {
            self.sources.insert(id.clone(), name.clone());
        }
    }
}

/// Reads the one document of a request's body, YAML or JSON.
///
/// # Errors
/// It does not parse, or holds none or several documents.
pub fn one_tree(text: &str) -> Result<Node, Vec<Finding>> {
    let (mut trees, mut errors) = yaml::parse(text);
    let form = |message: &str, span| Finding {
        path: String::new(),
        span,
        class: FindingClass::Form,
        message: message.into(),
        hint: Some("send one document".into()),
    };
    match (trees.len(), errors.is_empty()) {
        (1, true) => return Ok(trees.remove(0)),
        (0, true) => errors.push(form("expected a document, found nothing", Span::default())),
        (_, true) => errors.push(form("expected one document, found several", trees[1].span)),
        _ => {}
    }
    Err(sorted(errors))
}

/// Whether a text holds a document, or something that should be one: not only comments and nothing.
pub fn holds_document(text: &str) -> bool {
    let (trees, errors) = yaml::parse(text);
    !trees.is_empty() || !errors.is_empty()
}

/// By place; findings without one keep their order.
fn sorted(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(|finding| (finding.span.line, finding.span.column));
    findings
}
