//! The `envelope` and `encoding` keys.

use deltaforge_core::config::{Fields, Findings, Node};
use deltaforge_encode::EnvelopePlan;
use serde_json::json;

fn findings(settings: &serde_json::Value) -> Vec<String> {
    let node = Node::from_json(settings);
    let mut findings = Findings::default();
    let mut fields = Fields::new(&node, "config", &mut findings);
    EnvelopePlan::parse(&mut fields);
    fields.finish();
    let show =
        |f: &deltaforge_core::config::Finding| format!("{} {}: {}", f.class.as_str(), f.path, f.message);
    findings.errors.iter().map(show).collect()
}

#[test]
fn good_settings() {
    let cases = [
        (json!({}), "application/json"),
        (json!({"envelope": null, "encoding": null}), "application/json"),
        (json!({"envelope": {"type": "native"}, "encoding": "json"}), "application/json"),
        (
            json!({"envelope": {"type": "debezium", "compat": "wrapper"}, "encoding": {"type": "json"}}),
            "application/json",
        ),
        (
            json!({"envelope": {"type": "cloudevents", "type_prefix": "com.acme-x_1"}, "encoding": {}}),
            "application/cloudevents+json",
        ),
    ];
    for (settings, content_type) in cases {
        assert_eq!(findings(&settings), Vec::<String>::new(), "{settings}");
        assert_eq!(super::envelopes::plan(settings).content_type(), content_type);
    }
}

#[test]
fn bad_settings() {
    let strict = |more: serde_json::Value| {
        let mut envelope = json!({"type": "debezium", "compat": "strict"});
        envelope.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"envelope": envelope})
    };
    let planned = "choice config.envelope.compat: compat `strict` is planned, not in this release";
    let needs_strict = |key: &str| {
        format!(
            "conflict config.envelope.{key}: `{key}` applies to `type: debezium` with `compat: strict` only"
        )
    };
    let cases: Vec<(serde_json::Value, Vec<String>)> = vec![
        (json!({"envelope": "native"}), vec!["type config.envelope: expected a map, found the text `native`".into()]),
        (json!({"envelope": {"type": "debezum"}}), vec!["choice config.envelope.type: `debezum` is not a known type".into()]),
        (json!({"envelope": {"tpye": "native"}}), vec!["unknown config.envelope.tpye: unknown key".into()]),
        (
            json!({"envelope": {"type_prefix": "x"}}),
            vec!["conflict config.envelope.type_prefix: `type_prefix` applies to `type: cloudevents` only".into()],
        ),
        (
            json!({"envelope": {"type": "cloudevents", "type_prefix": "a b"}}),
            vec!["form config.envelope.type_prefix: the prefix holds a character that an event type may not have, or nothing".into()],
        ),
        (strict(json!({})), vec![planned.into()]),
        (strict(json!({"schemas": "inline", "decimal.handling.mode": "double"})), vec![planned.into()]),
        (
            strict(json!({"schemas": "maybe", "decimal_handling_mode": "x"})),
            vec![
                planned.into(),
                "choice config.envelope.schemas: `maybe` is not a known schemas".into(),
                "choice config.envelope.decimal_handling_mode: `x` is not a known decimal_handling_mode".into(),
            ],
        ),
        (json!({"envelope": {"type": "debezium", "compat": "loose"}}), vec!["choice config.envelope.compat: `loose` is not a known compat".into()]),
        (
            json!({"envelope": {"compat": "strict"}}),
            vec!["conflict config.envelope.compat: `compat` applies to `type: debezium` only".into()],
        ),
        (
            json!({"envelope": {"type": "debezium", "schemas": "none", "topic.prefix": "x", "tombstones_on_delete": true}}),
            vec![needs_strict("schemas"), needs_strict("topic.prefix"), needs_strict("tombstones_on_delete")],
        ),
        (json!({"encoding": "avro"}), vec!["choice config.encoding: encoding `avro` is planned, not in this release".into()]),
        (
            json!({"encoding": {"type": "protobuf", "schema_registry_url": "http://r"}}),
            vec!["choice config.encoding.type: type `protobuf` is planned, not in this release".into()],
        ),
        (json!({"encoding": "xml"}), vec!["choice config.encoding: `xml` is not a known encoding".into()]),
        (json!({"encoding": 3}), vec!["type config.encoding: expected `json` or a map, found the number 3".into()]),
        (
            json!({"encoding": {"username": "x"}}),
            vec!["unknown config.encoding.username: `username` is planned, not in this release".into()],
        ),
        (
            json!({"envelope": {"type": "cloudevents"}, "encoding": {"type": "avro"}}),
            vec!["conflict config.encoding: `envelope.type: cloudevents` is written as JSON only".into()],
        ),
    ];
    for (settings, expected) in cases {
        assert_eq!(findings(&settings), expected, "{settings}");
    }
}
