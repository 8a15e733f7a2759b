//! An expanded document to a [`PipelineSpec`].
//!
//! The part that belongs to a connector is parsed by its kind. Keys that the specification knows and this release does not
//! build are refused as planned, unless they are written with the value that means "off": nothing that parses is ignored.

use super::expand::{Path, Step};
use crate::dead_letters::RenderEvent;
use crate::spec::{BatchSettings, CommitPolicy, DlqSettings, PipelineSpec};
use deltaforge_core::config::{
    Fields, Finding, FindingClass, Findings, Node, Raw, Span, all_words, did_you_mean, is_name, size_text,
};
use deltaforge_core::sink::{SinkKind, SinkPlan};
use deltaforge_core::source::{Names, SourceKind, SourcePlan};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The components that a document may name.
#[derive(Clone, Default)]
pub struct Registry {
    /// Sources.
    pub sources: Vec<&'static dyn SourceKind>,
    /// Sinks.
    pub sinks: Vec<&'static dyn SinkKind>,
    /// Words for sources of later releases.
    pub planned_sources: &'static [&'static str],
    /// Words for sinks of later releases.
    pub planned_sinks: &'static [&'static str],
    /// Writes an event for people to look at.
    pub render_event: Option<RenderEvent>,
    /// Words for processors of later releases.
    pub planned_processors: &'static [&'static str],
}

impl Registry {
    fn source(&self, word: &str) -> Option<&'static dyn SourceKind> {
        self.sources.iter().find(|kind| kind.name() == word).copied()
    }

    fn sink(&self, word: &str) -> Option<&'static dyn SinkKind> {
        self.sinks.iter().find(|kind| kind.name() == word).copied()
    }
}

/// What a document says; `spec` only when nothing is wrong with the parts it is made of.
#[derive(Default)]
pub(super) struct Parsed {
    pub(super) spec: Option<PipelineSpec>,
    pub(super) name: Option<String>,
    pub(super) name_at: Span,
    /// The source's id, and path and place of where it is said.
    pub(super) source: Option<(String, String, Span)>,
}

/// Whether the field at `path` holds a routing template, of the sink that the document names there.
pub(super) fn is_template(registry: &Registry, document: &Node, path: &Path<'_>) -> bool {
    let [Step::Key("spec"), Step::Key("sinks"), Step::Index(index), Step::Key("config"), Step::Key(key), ..] =
        path
    else {
        return false;
    };
    let sinks = document.get("spec").and_then(|spec| spec.get("sinks"));
    let Some(Raw::List(sinks)) = sinks.map(|sinks| &sinks.value) else { return false };
    let word = sinks.get(*index).and_then(|sink| sink.get("type")).and_then(Node::as_text);
    // A sink that is not known has one error already.
    word.and_then(|word| registry.sink(word)).is_none_or(|kind| kind.templates().contains(key))
}

/// Parses an expanded document.
pub(super) fn parse(
    root: &Node,
    registry: &Registry,
    memory_ceiling: u64,
    findings: &mut Findings,
) -> Parsed {
    let mut top = Fields::new(root, "", findings);
    top.choice("apiVersion", &["deltaforge/v1"], &[], "deltaforge/v1");
    top.choice("kind", &["Pipeline"], &[], "Pipeline");
    top.node("metadata");
    top.node("spec");
    let (metadata, spec) = (member(root, "metadata"), member(root, "spec"));
    if spec.is_none() && matches!(root.value, Raw::Map(_)) {
        top.error("spec", FindingClass::Missing, "a map with `source` and `sinks` is required", None);
    }
    top.finish();
    let Raw::Map(_) = root.value else { return Parsed::default() };

    let nothing = Node { value: Raw::Null, span: root.span, secret: false };
    let about = parse_metadata(metadata.unwrap_or(&nothing), findings);
    let mut parsed = Parsed { name: about.name.clone(), name_at: about.name_at, ..Parsed::default() };
    let Some(spec) = spec else { return parsed };
    let parts = parse_keys(spec, registry, findings);
    let name = about.name.as_deref().unwrap_or("pipeline");
    let source = parts.source.and_then(|node| parse_source(node, name, registry, findings));
    let sinks = parts.sinks.map(|node| parse_sinks(node, name, registry, findings)).unwrap_or_default();
    let batch_node = parts.batch.unwrap_or(&nothing);
    let (batch, older) = parse_batch(batch_node, findings);
    let policy_node = parts.commit_policy.unwrap_or(&nothing);
    let commit_policy = parse_policy(policy_node, older, &sinks, findings);
    promise_exactly_once(&sinks, &batch, commit_policy, findings);
    let memory_limit = parse_limits(parts.limits.unwrap_or(&nothing), memory_ceiling, findings);
    let dlq = parse_dlq(parts.dlq.unwrap_or(&nothing), registry.render_event, findings);
    if let (Some(node), Some((plan, _))) = (parts.source, &source) {
        parsed.source = Some(source_place(node, plan.id()));
    }
    let (Some(name), Some((source, source_type))) = (about.name, source) else { return parsed };
    parsed.spec = Some(PipelineSpec {
        name,
        tenant: about.tenant,
        labels: about.labels,
        source_type,
        source,
        sinks: sinks.plans,
        batch,
        commit_policy,
        memory_limit,
        dlq,
    });
    parsed
}

/// A member that is written; the fields of a map lend nodes only while they report.
fn member<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    node.get(key).filter(|node| !node.is_null())
}

struct About {
    name: Option<String>,
    name_at: Span,
    tenant: String,
    labels: Vec<(String, String)>,
}

fn parse_metadata(node: &Node, findings: &mut Findings) -> About {
    let mut f = Fields::new(node, "metadata", findings);
    let name = f.required_text("name").filter(|name| {
        let fits = is_name(name);
        if !fits {
            let message = "expected 1 to 128 letters, digits, `.`, `_` or `-`, the first a letter or digit";
            f.form("name", message, None);
        }
        fits
    });
    let name_at = f.node("name").map_or(node.span, |node| node.span);
    if !f.has("tenant") {
        f.default("tenant", "default");
    }
    let tenant = f.text("tenant").unwrap_or_else(|| "default".into());
    if !(1..=128).contains(&tenant.chars().count()) || tenant.chars().any(char::is_control) {
        f.form("tenant", "expected 1 to 128 printable characters", None);
    }
    for key in ["labels", "annotations"] {
        if !f.has(key) {
            f.default(key, serde_json::Map::new());
        }
    }
    let labels = f.text_map("labels");
    f.text_map("annotations");
    f.finish();
    About { name, name_at, tenant, labels }
}

/// The parts of `spec`.
struct Parts<'a> {
    source: Option<&'a Node>,
    sinks: Option<&'a Node>,
    batch: Option<&'a Node>,
    commit_policy: Option<&'a Node>,
    limits: Option<&'a Node>,
    dlq: Option<&'a Node>,
}

fn parse_keys<'a>(spec: &'a Node, registry: &Registry, findings: &mut Findings) -> Parts<'a> {
    let mut f = Fields::new(spec, "spec", findings);
    let is_map = matches!(spec.value, Raw::Map(_));
    let mut known = |key| {
        f.node(key);
        member(spec, key)
    };
    let parts = Parts {
        source: known("source"),
        sinks: known("sinks"),
        batch: known("batch"),
        commit_policy: known("commit_policy"),
        limits: known("limits"),
        dlq: known("dlq"),
    };
    let processors = known("processors");
    if is_map && parts.source.is_none() {
        f.error("source", FindingClass::Missing, "a source is required", None);
    }
    if is_map && parts.sinks.is_none() {
        f.error("sinks", FindingClass::Missing, "at least one sink is required", None);
    }
    refuse_planned(&mut f);
    if processors.is_none() {
        f.default("processors", Vec::<serde_json::Value>::new());
    }
    f.finish();
    if let Some(node) = processors {
        refuse_processors(node, registry.planned_processors, findings);
    }
    parts
}

/// `spec.dlq`; `None` when it is off.
fn parse_dlq(node: &Node, render: Option<RenderEvent>, findings: &mut Findings) -> Option<DlqSettings> {
    let mut f = Fields::new(node, "spec.dlq", findings);
    let enabled = f.bool("enabled", false);
    let settings = DlqSettings {
        max_entries: f.int("max_entries", 10_000, 1..=10_000_000).unsigned_abs(),
        max_age_secs: f.int("max_age_secs", 604_800, 60..=315_360_000).unsigned_abs(),
        max_event_bytes: f.size("max_event_bytes", 256 << 10, 1 << 10..=64 << 20),
        drop_oldest: f.choice("overflow", &["block", "drop_oldest"], &[], "block") == "drop_oldest",
        render,
    };
    f.finish();
    enabled.then_some(settings)
}

fn refuse_planned(f: &mut Fields<'_>) {
    if f.bool("emit_schema_changes", false) {
        planned(f, "emit_schema_changes", "remove the key, or write `false`");
    }
    let all_off = |node: &Node, key: &str, off: &Raw| match &node.value {
        Raw::Map(entries) => entries.iter().all(|(name, node)| name.name == key && node.value == *off),
        _ => false,
    };
    if f.node("schema_sensing").is_some_and(|node| !all_off(node, "enabled", &Raw::Bool(false))) {
        planned(f, "schema_sensing", "remove the key, or write `enabled: false` and nothing else");
    }
    let dedicated = Raw::Text("dedicated".into());
    if f.node("connection_policy").is_some_and(|node| !all_off(node, "default_mode", &dedicated)) {
        planned(
            f,
            "connection_policy",
            "remove the key, or write `default_mode: dedicated` and nothing else",
        );
    }
    if f.node("sharding").is_some() {
        planned(f, "sharding", "remove the key");
    }
}

fn planned(f: &mut Fields<'_>, key: &str, hint: &str) {
    f.error(
        key,
        FindingClass::Unknown,
        format!("`{key}` is planned, not in this release"),
        Some(hint.into()),
    );
}

/// No processor is built yet: an empty list is all that can be written.
fn refuse_processors(node: &Node, planned: &[&'static str], findings: &mut Findings) {
    let mut add = |path: String, span, class, message: String, hint: Option<String>| {
        findings.errors.push(Finding { path, span, class, message, hint });
    };
    let Raw::List(items) = &node.value else {
        let message = format!("expected a list, found {}", node.describe(true));
        return add("spec.processors".into(), node.span, FindingClass::Type, message, None);
    };
    for (i, item) in items.iter().enumerate() {
        let path = format!("spec.processors[{i}]");
        let Some((word, span)) = item.get("type").and_then(|node| Some((node.as_text()?, node.span))) else {
            let message = "processors are planned, not in this release".into();
            add(path, item.span, FindingClass::Choice, message, Some("remove the processor".into()));
            continue;
        };
        let shown = short(word);
        let (message, hint) = match planned.contains(&word) {
            true => (
                format!("processor type `{shown}` is planned, not in this release"),
                "remove the processor".into(),
            ),
            false => (format!("`{shown}` is not a known processor type"), did_you_mean(word, planned)),
        };
        add(format!("{path}.type"), span, FindingClass::Choice, message, Some(hint));
    }
}

/// A word cut for a message.
fn short(word: &str) -> String {
    word.chars().take(40).collect()
}

/// `{type, config}` of a source or sink.
struct Component<'a> {
    word: String,
    config: &'a Node,
    required: Option<bool>,
}

/// Reads `{type, config}`; `what` is `source` or `sink`.
fn component<'a>(
    node: &'a Node,
    path: &str,
    what: &str,
    words: &[&'static str],
    planned: &[&'static str],
    findings: &mut Findings,
) -> Option<Component<'a>> {
    let mut f = Fields::new(node, path, findings);
    // A component without settings is one with an empty map of them; the connector says what is missing.
    f.node("config");
    let config = node.get("config").unwrap_or(node);
    let required = if what == "sink" { f.bool_if_set("required") } else { None };
    if !f.has("type") {
        f.node("type");
        if matches!(node.value, Raw::Map(_) | Raw::Null) {
            f.error(
                "type",
                FindingClass::Missing,
                format!("the type of {what} is required"),
                Some(all_words(words)),
            );
        }
        f.finish();
        return None;
    }
    let word = f.text("type");
    let known = word.as_deref().is_some_and(|word| words.contains(&word));
    if let Some(word) = word.as_deref().filter(|_| !known) {
        let shown = short(word);
        let (message, hint) = match planned.contains(&word) {
            true => (format!("{what} type `{shown}` is planned, not in this release"), all_words(words)),
            false => (format!("`{shown}` is not a known {what} type"), did_you_mean(word, words)),
        };
        f.error("type", FindingClass::Choice, message, Some(hint));
    }
    f.finish();
    word.filter(|_| known).map(|word| Component { word, config, required })
}

/// The settings as a map; those of a component without any are empty. `None` when they are something else, which is reported.
fn settings(component: &Component<'_>, node: &Node, path: &str, findings: &mut Findings) -> Option<Node> {
    let config = component.config;
    if std::ptr::eq(config, node) || config.is_null() {
        return Some(Node { value: Raw::Map(Vec::new()), span: config.span, secret: false });
    }
    if !matches!(config.value, Raw::Map(_)) {
        Fields::new(config, path, findings).finish();
        return None;
    }
    Some(config.clone())
}

fn parse_source(
    node: &Node,
    pipeline: &str,
    registry: &Registry,
    findings: &mut Findings,
) -> Option<(Arc<dyn SourcePlan>, String)> {
    let words: Vec<_> = registry.sources.iter().map(|kind| kind.name()).collect();
    let component = component(node, "spec.source", "source", &words, registry.planned_sources, findings)?;
    let kind = registry.source(&component.word)?;
    let default_id = format!("{pipeline}-{}", component.word);
    let config = settings(&component, node, "spec.source.config", findings)?;
    let mut f = Fields::new(&config, "spec.source.config", findings);
    if !f.has("id") {
        f.default("id", default_id.as_str());
    }
    let plan = kind.parse(&mut f, &Names { pipeline, default_id: &default_id });
    f.finish();
    Some((plan?, component.word))
}

/// Where a source's id is said, or the source itself when it is the default one.
fn source_place(node: &Node, id: &str) -> (String, String, Span) {
    match node.get("config").and_then(|config| config.get("id")).filter(|node| !node.is_null()) {
        Some(written) => (id.into(), "spec.source.config.id".into(), written.span),
        None => (id.into(), "spec.source".into(), node.span),
    }
}

#[derive(Default)]
struct Sinks {
    plans: Vec<Arc<dyn SinkPlan>>,
    /// Of exactly-once sinks: path and place of the setting, and whether the sink is required.
    exactly_once: Vec<(String, Span, bool)>,
    /// How many the document names, valid or not.
    written: usize,
}

fn parse_sinks(node: &Node, pipeline: &str, registry: &Registry, findings: &mut Findings) -> Sinks {
    let finding = |class, message: String| Finding {
        path: "spec.sinks".into(),
        span: node.span,
        class,
        message,
        hint: None,
    };
    let items = match &node.value {
        Raw::List(items) if !items.is_empty() => items,
        Raw::List(_) => {
            findings.errors.push(finding(FindingClass::Missing, "at least one sink is required".into()));
            return Sinks::default();
        }
        _ => {
            let message = format!("expected a list, found {}", node.describe(true));
            findings.errors.push(finding(FindingClass::Type, message));
            return Sinks::default();
        }
    };
    let words: Vec<_> = registry.sinks.iter().map(|kind| kind.name()).collect();
    let mut sinks = Sinks { written: items.len(), ..Sinks::default() };
    let mut of_type: BTreeMap<String, usize> = BTreeMap::new();
    let mut ids: BTreeMap<String, String> = BTreeMap::new();
    for (i, item) in items.iter().enumerate() {
        let path = format!("spec.sinks[{i}]");
        let Some(component) = component(item, &path, "sink", &words, registry.planned_sinks, findings) else {
            continue;
        };
        let Some(kind) = registry.sink(&component.word) else { continue };
        let count = of_type.entry(component.word.clone()).or_default();
        *count += 1;
        let default_id = match *count {
            1 => format!("{pipeline}-{}", component.word),
            n => format!("{pipeline}-{}-{n}", component.word),
        };
        let config_path = format!("{path}.config");
        let Some(config) = settings(&component, item, &config_path, findings) else { continue };
        let mut f = Fields::new(&config, &config_path, findings);
        let id_is_written = f.has("id");
        if !id_is_written {
            f.default("id", default_id.as_str());
        }
        let plan = kind.parse(&mut f, &Names { pipeline, default_id: &default_id }, component.required);
        f.finish();
        let Some(plan) = plan else { continue };
        if component.required.is_none() && config.get("required").is_none_or(Node::is_null) {
            let in_config = format!("{config_path}.required");
            findings.defaults.retain(|(path, _)| *path != in_config);
            findings.defaults.push((format!("{path}.required"), plan.required().into()));
        }
        let place = if id_is_written { format!("{config_path}.id") } else { path };
        if let Some(first) = ids.get(plan.id()) {
            let span = config.get("id").filter(|_| id_is_written).map_or(item.span, |node| node.span);
            let message = format!("the id `{}` is that of `{first}` too", plan.id());
            let hint = Some("give each sink an `id` of its own".into());
            findings.errors.push(Finding { path: place, span, class: FindingClass::Conflict, message, hint });
        } else {
            ids.insert(plan.id().into(), place);
        }
        if plan.exactly_once() {
            let span = config.get("exactly_once").map_or(item.span, |node| node.span);
            sinks.exactly_once.push((format!("{config_path}.exactly_once"), span, plan.required()));
        }
        sinks.plans.push(plan);
    }
    sinks
}

/// A sink that may be given up, or whose transactions are cut anywhere, delivers nothing exactly once.
fn promise_exactly_once(sinks: &Sinks, batch: &BatchSettings, policy: CommitPolicy, findings: &mut Findings) {
    for (path, span, required) in &sinks.exactly_once {
        let mut conflict = |message: &str, hint: &str| {
            let (message, hint) = (message.into(), Some(hint.into()));
            let class = FindingClass::Conflict;
            findings.errors.push(Finding { path: path.clone(), span: *span, class, message, hint });
        };
        if !batch.respect_source_tx {
            conflict(
                "`exactly_once` commits whole transactions, `batch.respect_source_tx: false` cuts them anywhere",
                "write `respect_source_tx: true`",
            );
        }
        match policy {
            CommitPolicy::Quorum(_) => conflict(
                "under `commit_policy.mode: quorum` the checkpoint may go on without this sink",
                "use the mode `all` or `required`",
            ),
            CommitPolicy::Required if !required => {
                conflict(
                    "the checkpoint does not wait for this sink",
                    "write `required: true`, or use the mode `all`",
                );
            }
            CommitPolicy::All | CommitPolicy::Required => {}
        }
    }
}

/// A setting and where it is written.
#[derive(Clone, Copy)]
struct Written<T> {
    value: T,
    span: Span,
}

/// The older spelling of the commit policy, inside `batch`.
#[derive(Default)]
struct Older {
    mode: Option<Written<&'static str>>,
    quorum: Option<Written<i64>>,
}

const MODES: &[&str] = &["all", "required", "quorum"];

fn parse_batch(node: &Node, findings: &mut Findings) -> (BatchSettings, Older) {
    let mut f = Fields::new(node, "spec.batch", findings);
    let settings = BatchSettings {
        max_events: f.int("max_events", 500, 1..=1_000_000) as usize,
        max_bytes: f.size("max_bytes", 1 << 20, 1 << 10..=1 << 30) as usize,
        max_wait: Duration::from_millis(f.int("max_ms", 1000, 1..=3_600_000) as u64),
        respect_source_tx: f.bool("respect_source_tx", true),
        max_inflight: f.int("max_inflight", 2, 1..=64) as usize,
    };
    let mode = f.choice_if_set("commit_policy", MODES, &[]).map(|value| (value, "commit_policy"));
    let mode = mode.and_then(|(value, key)| f.node(key).map(|node| Written { value, span: node.span }));
    let quorum = written_int(&mut f, "quorum");
    f.finish();
    (settings, Older { mode, quorum })
}

fn written_int(f: &mut Fields<'_>, key: &'static str) -> Option<Written<i64>> {
    let span = f.node(key)?.span;
    let errors = f.error_count();
    let value = f.int(key, 0, i64::MIN..=i64::MAX);
    (f.error_count() == errors).then_some(Written { value, span })
}

fn parse_policy(node: &Node, older: Older, sinks: &Sinks, findings: &mut Findings) -> CommitPolicy {
    let mut f = Fields::new(node, "spec.commit_policy", findings);
    let mode = f.choice_if_set("mode", MODES, &[]);
    let mode = mode.and_then(|value| f.node("mode").map(|node| Written { value, span: node.span }));
    if mode.is_none() && older.mode.is_none() && !f.has("mode") {
        f.default("mode", "required");
    }
    let quorum = written_int(&mut f, "quorum");
    f.finish();
    let keys = [
        ("spec.commit_policy.mode", "spec.batch.commit_policy"),
        ("spec.commit_policy.quorum", "spec.batch.quorum"),
    ];
    differ(mode, older.mode, keys[0], findings);
    differ(quorum, older.quorum, keys[1], findings);
    let quorum_key = if quorum.is_some() { keys[1].0 } else { keys[1].1 };
    let mode_at = mode.or(older.mode).map_or(node.span, |mode| mode.span);
    let mode = mode.or(older.mode).map_or("required", |mode| mode.value);
    let quorum = quorum.or(older.quorum);
    let error = |path: &str, span, class, message: String| Finding {
        path: path.into(),
        span,
        class,
        message,
        hint: None,
    };
    match (mode, quorum) {
        ("quorum", None) => {
            let message = "`mode: quorum` needs the number of sinks to wait for".into();
            findings.errors.push(error(keys[1].0, mode_at, FindingClass::Missing, message));
            CommitPolicy::Required
        }
        ("quorum", Some(quorum)) => {
            let most = sinks.written.max(1);
            match usize::try_from(quorum.value) {
                Ok(n) if (1..=most).contains(&n) => CommitPolicy::Quorum(n),
                _ => {
                    let message =
                        format!("expected 1 to the number of sinks, {most}, found {}", quorum.value);
                    findings.errors.push(error(quorum_key, quorum.span, FindingClass::Range, message));
                    CommitPolicy::Required
                }
            }
        }
        (mode, quorum) => {
            if let Some(quorum) = quorum {
                let message = format!("ignored: `mode` is `{mode}`, not `quorum`");
                findings.warnings.push(error(quorum_key, quorum.span, FindingClass::Conflict, message));
            }
            if mode == "all" { CommitPolicy::All } else { required(sinks, mode_at, findings) }
        }
    }
}

/// The `required` policy, with a warning when it waits for nothing.
fn required(sinks: &Sinks, span: Span, findings: &mut Findings) -> CommitPolicy {
    if !sinks.plans.is_empty() && !sinks.plans.iter().any(|plan| plan.required()) {
        findings.warnings.push(Finding {
            path: "spec.commit_policy".into(),
            span,
            class: FindingClass::Conflict,
            message: "no sink is required: checkpoints follow the attempts, delivered or not".into(),
            hint: Some("mark a sink as `required: true`, or use `mode: all`".into()),
        });
    }
    CommitPolicy::Required
}

/// Two spellings of one setting may both be written when they agree. The later one is reported, naming the other.
fn differ<T: PartialEq + std::fmt::Display>(
    a: Option<Written<T>>,
    b: Option<Written<T>>,
    (path_a, path_b): (&str, &str),
    findings: &mut Findings,
) {
    let (Some(a), Some(b)) = (a, b) else { return };
    if a.value == b.value {
        return;
    }
    let a_is_later = (a.span.line, a.span.column) > (b.span.line, b.span.column);
    let (later, earlier) = if a_is_later { ((a, path_a), (b, path_b)) } else { ((b, path_b), (a, path_a)) };
    findings.errors.push(Finding {
        path: later.1.into(),
        span: later.0.span,
        class: FindingClass::Conflict,
        message: format!("`{}` contradicts `{}`, which is `{}`", later.0.value, earlier.1, earlier.0.value),
        hint: Some("they are one setting; keep `spec.commit_policy`".into()),
    });
}

fn parse_limits(node: &Node, ceiling: u64, findings: &mut Findings) -> u64 {
    let mut f = Fields::new(node, "spec.limits", findings);
    let limit = f.size("memory", ceiling, 4 << 20..=1 << 40);
    if limit > ceiling {
        f.warn("memory", format!("above the process ceiling of {}, which holds", size_text(ceiling)), None);
    }
    f.finish();
    limit.min(ceiling)
}
