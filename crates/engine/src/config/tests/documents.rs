//! Expansion, documents, and sets of documents. The forms of errors are in `runner/tests/bad_configs`.

use super::*;
use crate::spec::{BatchSettings, CommitPolicy};
use std::time::Duration;

fn expanded(value: &str, vars: &[(&'static str, &'static str)], template: bool) -> Result<String, String> {
    let key = if template { "stream" } else { "password" };
    let quoted = serde_json::Value::from(value).to_string();
    let yaml = MINIMAL.replace("uri: 'redis://h'", &format!("uri: x, {key}: {quoted}"));
    let (trees, _) = yaml::parse(&yaml);
    let environment = Fixed { vars: vars.iter().copied().collect(), files: [("/f", "in file\n\n")].into() };
    let loader = loader(&[], &[]);
    let is_template = |path: &expand::Path<'_>| document::is_template(&loader.registry, &trees[0], path);
    let options = expand::Options { files: true, allow_unset: false };
    let mut errors = Vec::new();
    let expanded = expand::expand(&trees[0], &environment, options, &is_template, &mut errors);
    if let Some(error) = errors.first() {
        return Err(error.message.clone());
    }
    let json = expanded.tree.to_json();
    Ok(json
        .pointer(&format!("/spec/sinks/0/config/{key}"))
        .and_then(|v| v.as_str())
        .unwrap_or_default()
        .into())
}

#[test]
fn references_expand() {
    let vars = [("A", "1"), ("EMPTY", ""), ("REF", "${A} ${x.y}"), ("_b2", "two")];
    let cases = [
        ("${A}", Ok("1")),
        ("x${A}y${_b2}z", Ok("x1ytwoz")),
        ("${EMPTY}", Ok("")),
        ("${EMPTY:-d}", Ok("d")),
        ("${NONE:-a:-b ${A}", Ok("a:-b ${A")),
        ("${A:-d}", Ok("1")),
        ("${NONE:-}", Ok("")),
        ("${A:?m}", Ok("1")),
        ("${NONE:?say why}", Err("the variable `NONE` is not set or empty: say why")),
        ("${EMPTY:?}", Err("the variable `EMPTY` is not set or empty: ")),
        ("${NONE}", Err("the variable `NONE` is not set")),
        ("${file:/f}", Ok("in file\n")),
        ("${file:/g}", Err("the file `/g` cannot be read: no such file")),
        ("$${A} $A $ $$ $$${A}", Ok("${A} $A $ $$ $${A}")),
        ("${REF}", Ok("${A} ${x.y}")),
        ("${}", Err("`${}` does not name a variable")),
        ("${1A}", Err("`${1A}` does not name a variable")),
        ("${A-b}", Err("`${A-b}` does not name a variable")),
        ("${A:+b}", Err("`${A:+b}` has an unknown form")),
        ("${A", Err("`${` without a closing `}`")),
        ("${source.table}", Err("`${source.table}` is not possible in this field")),
    ];
    for (value, expected) in cases {
        assert_eq!(expanded(value, &vars, false), expected.map(Into::into).map_err(Into::into), "{value}");
    }
}

#[test]
fn templates_keep_dotted_names_and_escapes() {
    let vars = [("A", "1"), ("REF", "${source.table}")];
    let cases = [
        ("t.${A}.${source.table}", "t.1.${source.table}"),
        ("${after.x:-none}", "${after.x:-none}"),
        ("$${A}", "$${A}"),
        ("${REF}", "$${source.table}"),
    ];
    for (value, expected) in cases {
        assert_eq!(expanded(value, &vars, true).as_deref(), Ok(expected), "{value}");
    }
    let headers = MINIMAL.replace("uri:", "headers: { X: '${after.x}' }, uri:");
    assert!(errors(&loader(&[], &[]), &headers).is_empty());
    let elsewhere = MINIMAL.replace("name: shop", "name: shop, annotations: { stream: '${a.b}' }");
    assert_eq!(errors(&loader(&[], &[]), &elsewhere).len(), 1);
}

#[test]
fn everything_a_document_says_is_in_the_spec() {
    let yaml = "
apiVersion: deltaforge/v1
kind: Pipeline
metadata: { name: shop, tenant: acme, labels: { a: b } }
spec:
  source: { type: postgres, config: { id: src, dsn: 'host=h' } }
  processors: []
  emit_schema_changes: false
  schema_sensing: { enabled: false }
  dlq: {}
  connection_policy: { default_mode: dedicated }
  sharding: null
  sinks:
    - { type: redis, config: { uri: x } }
    - { type: redis, required: false, config: { id: own, uri: x } }
    - { type: redis, config: { uri: x } }
    - { type: file, config: { uri: x, required: false } }
  batch: { max_events: '${N}', max_bytes: 2KiB, max_ms: 5, respect_source_tx: 'false', max_inflight: 3 }
  commit_policy: { mode: quorum, quorum: 4 }
  limits: { memory: 8 MiB }
";
    let spec = document(&loader(&[("N", "7")], &[]), yaml).spec;
    assert_eq!(
        (spec.name.as_str(), spec.tenant.as_str(), spec.source_type.as_str()),
        ("shop", "acme", "postgres")
    );
    assert_eq!(spec.labels, [("a".to_string(), "b".to_string())]);
    assert_eq!(spec.source.id(), "src");
    let sinks: Vec<_> = spec.sinks.iter().map(|sink| (sink.id(), sink.required())).collect();
    assert_eq!(sinks, [("shop-redis", true), ("own", false), ("shop-redis-3", true), ("shop-file", false)]);
    let batch = BatchSettings {
        max_events: 7,
        max_bytes: 2048,
        max_wait: Duration::from_millis(5),
        respect_source_tx: false,
        max_inflight: 3,
    };
    assert_eq!(
        (spec.batch, spec.commit_policy, spec.memory_limit),
        (batch, CommitPolicy::Quorum(4), 8 << 20)
    );
    let spec = document(&loader(&[], &[]), MINIMAL).spec;
    assert_eq!((spec.batch, spec.commit_policy), (BatchSettings::default(), CommitPolicy::Required));
    assert_eq!(spec.memory_limit, 256 << 20);
}

#[test]
fn the_older_spelling_of_the_policy_agrees_or_conflicts() {
    let with = |keys: &str| format!("{MINIMAL}{keys}");
    let loader = loader(&[], &[]);
    let policy = |keys: &str| document(&loader, &with(keys)).spec.commit_policy;
    assert_eq!(policy("  batch: { commit_policy: all }"), CommitPolicy::All);
    assert_eq!(policy("  batch: { commit_policy: quorum, quorum: 1 }"), CommitPolicy::Quorum(1));
    assert_eq!(
        policy("  batch: { quorum: 1 }\n  commit_policy: { mode: quorum, quorum: 1 }"),
        CommitPolicy::Quorum(1)
    );
    let found =
        errors(&loader, &with("  batch: { commit_policy: all }\n  commit_policy: { mode: required }"));
    let expected = "p.yaml:8:26: spec.commit_policy.mode: `required` contradicts `spec.batch.commit_policy`, which is `all`\n  \
                    hint: they are one setting; keep `spec.commit_policy`";
    assert_eq!(found, [expected]);
    let found =
        errors(&loader, &with("  commit_policy: { mode: required }\n  batch: { commit_policy: all }"));
    assert!(
        found[0].contains("spec.batch.commit_policy: `all` contradicts `spec.commit_policy.mode`"),
        "{found:?}"
    );
    let loaded = loader.texts(&[text("p.yaml", &with("  commit_policy: { mode: all, quorum: 9 }"))]);
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings, ["p.yaml:7:39: spec.commit_policy.quorum: ignored: `mode` is `all`, not `quorum`"]);
    let optional = MINIMAL.replace("type: redis,", "type: redis, required: false,");
    assert_eq!(loader.texts(&[text("p.yaml", &optional)]).warnings.len(), 1);
}

#[test]
fn documents_are_compared_with_each_other() {
    let loader = loader(&[], &[]);
    let source_id = |name: &str, id: &str| {
        MINIMAL.replace("name: shop", &format!("name: {name}")).replace("dsn:", &format!("id: {id}, dsn:"))
    };
    let texts = [
        text("a.yaml", &format!("{}\n---\n{}", source_id("one", "x"), source_id("two", "y"))),
        text("b.yaml", &format!("{}\n---\n{}", source_id("one", "z"), source_id("three", "y"))),
    ];
    let loaded = loader.texts(&texts);
    let found: Vec<_> =
        loaded.errors.iter().map(|problem| problem.to_string().lines().next().unwrap().to_string()).collect();
    assert_eq!(
        found,
        [
            "b.yaml:2:19: metadata.name: `one` is already the name of the pipeline at a.yaml:2:19",
            "b.yaml:12:43: spec.source.config.id: `y` is already the source id of the pipeline `two`",
        ]
    );
    assert_eq!(loaded.names, ["one", "two", "one", "three"]);
}

#[test]
fn all_errors_are_found_in_one_run_in_the_order_of_the_text() {
    let yaml = "
kind: Pipe
metadata: { name: '-x', tenants: a }
spec:
  sinks: []
  sorce: {}
  batch: { max_evnts: 1, max_events: 0 }
---
metadata: { name: b }
spec: { source: { type: mysql }, sinks: [ { type: reddis }, { config: {} }, 3 ] }
";
    let found: Vec<_> =
        errors(&loader(&[], &[]), yaml).iter().map(|e| e.lines().next().unwrap().to_string()).collect();
    assert_eq!(
        found,
        [
            "p.yaml:2:7: kind: `Pipe` is not a known kind",
            "p.yaml:3:19: metadata.name: expected 1 to 128 letters, digits, `.`, `_` or `-`, the first a letter or digit",
            "p.yaml:3:25: metadata.tenants: unknown key",
            "p.yaml:5:3: spec.source: a source is required",
            "p.yaml:5:10: spec.sinks: at least one sink is required",
            "p.yaml:6:3: spec.sorce: unknown key",
            "p.yaml:7:12: spec.batch.max_evnts: unknown key",
            "p.yaml:7:38: spec.batch.max_events: expected 1 to 1000000, found 0",
            "p.yaml:10:25: spec.source.type: source type `mysql` is planned, not in this release",
            "p.yaml:10:51: spec.sinks[0].type: `reddis` is not a known sink type",
            "p.yaml:10:61: spec.sinks[1].type: the type of sink is required",
            "p.yaml:10:77: spec.sinks[2]: expected a map, found the number 3",
        ]
    );
}

#[test]
fn unset_variables_may_be_allowed() {
    let yaml = "
metadata: { name: 'shop-${STAGE}' }
spec:
  source: { type: postgres, config: { dsn: '${DSN}', port: '${PORT}', tables: ['${T}'] } }
  batch: { max_events: '${N}', max_ms: 0 }
  sinks: [ { type: redis, config: { uri: '${file:/none}' } } ]
";
    let strict = errors(&loader(&[], &[]), yaml);
    assert_eq!(strict.len(), 7, "{strict:?}");
    let loaded = loader(&[], &[]).allow_unset().texts(&[text("p.yaml", yaml)]);
    let found: Vec<_> = loaded.errors.iter().map(ToString::to_string).collect();
    assert_eq!(found, ["p.yaml:5:40: spec.batch.max_ms: expected 1 to 3600000, found 0"]);
    assert_eq!(loaded.names, ["shop-STAGE"]);
    assert!(loaded.documents.is_empty());
}

#[test]
fn a_document_of_the_api_reads_no_file() {
    let tree = one_tree(&MINIMAL.replace("redis://h", "${file:/f}")).unwrap();
    let loader = loader(&[], &[("/f", "x")]);
    let found = loader.document(&tree, false).map(|_| ()).unwrap_err();
    assert_eq!((found.len(), found[0].path.as_str()), (1, "spec.sinks[0].config.uri"));
    assert!(loader.document(&tree, true).is_ok());
}

#[test]
fn scripts_are_left_as_they_are() {
    let yaml = format!(
        "{MINIMAL}  processors: [ {{ type: javascript, inline: '`${{NOT_SET}} ${{a.b}} $${{`' }} ]\n"
    );
    let found = errors(&loader(&[], &[]), &yaml);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("processor type `javascript` is planned, not in this release"), "{found:?}");
}
