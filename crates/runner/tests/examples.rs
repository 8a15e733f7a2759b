//! Every example that somebody may copy is one that works: the files of `examples/` and the YAML blocks of `docs/`.

#![allow(clippy::unwrap_used, clippy::panic)]

use deltaforge_core::config::{Key, Node, Raw};
use deltaforge_engine::config::{ConfigText, Environment, Loader, Registry, one_tree, patched};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An environment in which nothing is set.
struct Nothing;

impl Environment for Nothing {
    fn var(&self, _: &str) -> Option<String> {
        None
    }

    fn file(&self, _: &str) -> Result<String, String> {
        Err("no such file".into())
    }
}

fn loader() -> Loader {
    let registry = Registry {
        sources: deltaforge_sources::kinds(),
        sinks: deltaforge_sinks::kinds(),
        planned_sources: deltaforge_sources::PLANNED,
        planned_sinks: deltaforge_sinks::PLANNED,
        render_event: None,
        planned_processors: &[],
    };
    Loader::new(Arc::new(registry), Arc::new(Nothing), 256 << 20).allow_unset()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// What is wrong with a text of documents.
fn errors(name: &str, text: &str) -> Vec<String> {
    let loaded = loader().texts(&[ConfigText { file: name.into(), text: text.into() }]);
    loaded.errors.iter().map(ToString::to_string).collect()
}

#[test]
fn example_files_validate() {
    let examples = files(&root().join("examples"), "yaml");
    assert!(!examples.is_empty());
    for path in examples {
        let found = errors(&path.display().to_string(), &std::fs::read_to_string(&path).unwrap());
        assert!(found.is_empty(), "{found:#?}");
    }
}

/// A document into which a part of one is put to be checked.
const FRAME: &str = "
metadata: { name: frame }
spec:
  source: { type: postgres, config: { dsn: 'postgres://u@h/d', slot: s, publication: p, tables: [] } }
  sinks: [ { type: stdout } ]
";
const SPEC_KEYS: [&str; 11] = [
    "source",
    "sinks",
    "processors",
    "batch",
    "commit_policy",
    "limits",
    "dlq",
    "sharding",
    "connection_policy",
    "schema_sensing",
    "emit_schema_changes",
];

/// The YAML blocks of a page, each with the line on which it begins.
fn blocks(page: &str) -> Vec<(usize, String)> {
    let mut blocks: Vec<(usize, String)> = Vec::new();
    let mut inside = false;
    for (number, line) in page.lines().enumerate() {
        match (inside, line.trim()) {
            (false, "```yaml") => {
                inside = true;
                blocks.push((number + 2, String::new()));
            }
            (true, "```") => inside = false,
            (true, _) => {
                if let Some((_, text)) = blocks.last_mut() {
                    text.push_str(line);
                    text.push('\n');
                }
            }
            _ => {}
        }
    }
    blocks
}

/// What is wrong with a block: a document, a part of one (keys of `spec`, or of the top), or other YAML, which only has to parse.
fn block_errors(place: &str, text: &str) -> Vec<String> {
    if text.lines().any(|line| line == "spec:" || line.starts_with("metadata:")) {
        return errors(place, text);
    }
    let tree = match one_tree(text) {
        Ok(tree) => tree,
        Err(findings) => return findings.iter().map(|finding| format!("{place}: {finding}")).collect(),
    };
    let Raw::Map(entries) = &tree.value else { return Vec::new() };
    if !entries.iter().all(|(key, _)| SPEC_KEYS.contains(&key.name.as_str())) {
        return Vec::new();
    }
    let key = Key { name: "spec".into(), span: tree.span };
    let part = Node::new(Raw::Map(vec![(key, tree.clone())]));
    let mut frame = one_tree(FRAME).unwrap();
    if entries.iter().any(|(key, _)| key.name == "source") {
        // Another type's keys would stay beside those of the block.
        frame = patched(&frame, &one_tree("spec: { source: null }").unwrap()).unwrap();
    }
    let whole = patched(&frame, &part).unwrap();
    errors(place, &whole.to_json().to_string())
}

#[test]
fn yaml_blocks_of_the_documentation_validate() {
    let docs = root().join("docs/src");
    for path in files(&docs, "md").into_iter().chain([root().join("README.md")]).filter(|path| path.exists())
    {
        for (line, text) in blocks(&std::fs::read_to_string(&path).unwrap()) {
            let place = format!("{}, block at line {line}", path.display());
            let found = block_errors(&place, &text);
            assert!(found.is_empty(), "{place}:\n{}", found.join("\n"));
        }
    }
}

/// The document with one letter more in one key, for every key whose names are not the user's own; with the path of that key.
fn misspelt(node: &Node, path: &str, found: &mut Vec<(String, Node)>) {
    match &node.value {
        Raw::Map(_) if path.ends_with("labels") || path.ends_with("annotations") => {}
        Raw::Map(entries) => {
            for (i, (key, child)) in entries.iter().enumerate() {
                let below = if path.is_empty() { key.name.clone() } else { format!("{path}.{}", key.name) };
                let replace = |key: Key, child: Node| {
                    let mut entries = entries.clone();
                    entries[i] = (key, child);
                    Node { value: Raw::Map(entries), ..node.clone() }
                };
                found.push((
                    format!("{below}x"),
                    replace(Key { name: format!("{}x", key.name), span: key.span }, child.clone()),
                ));
                let mut inner = Vec::new();
                misspelt(child, &below, &mut inner);
                found.extend(inner.into_iter().map(|(path, child)| (path, replace(key.clone(), child))));
            }
        }
        Raw::List(items) => {
            for (i, item) in items.iter().enumerate() {
                let mut inner = Vec::new();
                misspelt(item, &format!("{path}[{i}]"), &mut inner);
                let replace = |item: Node| {
                    let mut items = items.clone();
                    items[i] = item;
                    Node { value: Raw::List(items), ..node.clone() }
                };
                found.extend(inner.into_iter().map(|(path, item)| (path, replace(item))));
            }
        }
        _ => {}
    }
}

/// Every key that this release knows, with a value.
const EVERYTHING: &str = "
apiVersion: deltaforge/v1
kind: Pipeline
metadata: { name: shop, tenant: acme, labels: { team: a }, annotations: { b: c } }
spec:
  source:
    type: postgres
    config:
      id: src
      dsn: postgres://u@h/d
      tls: { mode: verify-full, ca_file: ca.pem, cert_file: c.pem, key_file: k.pem }
      slot: s
      publication: p
      tables: [ public.orders ]
      start_position: { lsn: 0/16B6C50 }
      missing_tables: error
      create_slot: false
      create_publication: false
      replica_identity: full
      status_interval_secs: 3
      on_lost_position: fail
      retry: { initial_ms: 10, max_ms: 100, jitter: 0.1, max_attempts: 4 }
  sinks:
    - type: redis
      config:
        uri: rediss://h
        tls: { mode: verify-full, ca_file: ca.pem, cert_file: c.pem, key_file: k.pem }
        stream: ${source.table}
        key: ${after.id}
        field: event
        maxlen: 1000
        send_timeout_secs: 1
        batch_timeout_secs: 2
        connect_timeout_secs: 3
        envelope: { type: debezium }
        encoding: json
        key_change: update
        retry: { initial_ms: 10 }
    - type: file
      required: false
      config: { id: f, path: out.jsonl, sync: none, rotate: { max_bytes: 1MiB, max_age_secs: 60 }, encoding: { type: json } }
    - { type: stdout, config: { required: false, pretty: true } }
    - type: http
      config:
        url: https://h/${source.table}
        method: PUT
        key: ${after.id}
        batch_mode: false
        send_timeout_secs: 1
        connect_timeout_secs: 2
        tls: { mode: require }
        signature: { secret: s, header: x-s, algorithm: sha256 }
  processors: []
  emit_schema_changes: false
  batch: { max_events: 1, max_bytes: 1KiB, max_ms: 1, respect_source_tx: false, max_inflight: 1, commit_policy: quorum, quorum: 1 }
  commit_policy: { mode: quorum, quorum: 1 }
  limits: { memory: 4MiB }
  dlq: { enabled: true, max_entries: 5, max_age_secs: 60, max_event_bytes: 1KiB, overflow: drop_oldest }
";

#[test]
fn one_typo_in_any_key_is_found_and_named() {
    assert_eq!(errors("p.yaml", EVERYTHING), Vec::<String>::new());
    let mut documents = Vec::new();
    misspelt(&one_tree(EVERYTHING).unwrap(), "", &mut documents);
    assert!(documents.len() > 70, "{}", documents.len());
    for (path, document) in documents {
        let found = loader().document(&document, true).map(|_| ()).unwrap_err();
        let typo = found.iter().find(|finding| finding.path == path);
        assert!(typo.is_some_and(|f| f.message == "unknown key" && f.hint.is_some()), "{path}: {found:#?}");
    }
}

#[test]
fn answers_show_the_defaults_of_every_connector() {
    let yaml = "
metadata: { name: shop }
spec:
  source: { type: postgres, config: { dsn: 'postgres://u@h/d', slot: s, publication: p, tables: [] } }
  sinks:
    - { type: redis, config: { uri: redis://h, stream: shop } }
    - { type: file, required: false, config: { path: out.jsonl } }
    - { type: stdout }
    - { type: http, config: { url: 'https://h/x', signature: { secret: s } } }
";
    let document = loader().document(&one_tree(yaml).unwrap(), true).unwrap_or_else(|e| panic!("{e:?}"));
    let spec = &document.shown["spec"];
    let retry = |initial: u64, max: u64, attempts: u64| serde_json::json!({"initial_ms": initial, "max_ms": max, "jitter": 0.2, "max_attempts": attempts});
    let source = serde_json::json!({
        "dsn": "postgres://u@h/d", "slot": "s", "publication": "p", "tables": [], "id": "shop-postgres",
        "start_position": "earliest", "missing_tables": "warn", "create_slot": true, "create_publication": true,
        "replica_identity": "keep", "status_interval_secs": 5, "on_lost_position": "fail", "retry": retry(1000, 60000, 0),
    });
    assert_eq!(spec["source"]["config"], source);
    let redis = serde_json::json!({
        "uri": "redis://h", "stream": "shop", "id": "shop-redis", "field": "df-event", "maxlen": 0, "exactly_once": false, "send_timeout_secs": 5,
        "batch_timeout_secs": 30, "connect_timeout_secs": 10, "envelope": {"type": "native"}, "encoding": "json",
        "key_change": "update", "retry": retry(100, 10000, 0),
    });
    assert_eq!(spec["sinks"][0], serde_json::json!({"type": "redis", "config": redis, "required": true}));
    let file = serde_json::json!({
        "path": "out.jsonl", "id": "shop-file", "sync": "batch", "rotate": {"max_bytes": 0, "max_age_secs": 0},
        "envelope": {"type": "native"}, "encoding": "json", "key_change": "update", "retry": retry(100, 10000, 5),
    });
    assert_eq!(spec["sinks"][1], serde_json::json!({"type": "file", "config": file, "required": false}));
    let http = &spec["sinks"][3]["config"];
    let keys = ["method", "batch_mode", "send_timeout_secs", "connect_timeout_secs"];
    assert_eq!(
        keys.map(|key| http[key].clone()),
        [serde_json::json!("POST"), serde_json::json!(false), serde_json::json!(10), serde_json::json!(5)]
    );
    let signature =
        serde_json::json!({"secret": "***", "header": "x-deltaforge-signature", "algorithm": "sha256"});
    assert_eq!(http["signature"], signature);
    // Sent back whole, it is the same document.
    let again =
        loader().document(&Node::from_json(&document.shown), false).unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(again.shown, document.shown);
}
