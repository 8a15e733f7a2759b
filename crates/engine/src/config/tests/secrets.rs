//! What is shown, and what comes back.

use super::*;

const SECRETS: &str = "
metadata: { name: shop, annotations: { api-token: canary1, note: '*** three stars ***' } }
spec:
  source:
    type: postgres
    config: { dsn: 'postgres://u:canary2@h/db?sslpassword=canary3', tables: ['${TABLES:-public.%}'] }
  sinks:
    - type: redis
      config:
        uri: '${URI:-redis://:canary4@h}'
        password: '${file:/run/pw}'
        headers: { X-Auth: canary5, X-Kind: 'plain' }
    - { type: redis, required: false, config: { id: second, uri: 'redis://u:${PW}@h', password: 'a${PW:-canary6}b' } }
";

fn secrets() -> Document {
    document(&loader(&[("PW", "canary7")], &[("/run/pw", "canary8\n")]), SECRETS)
}

#[test]
fn no_secret_is_shown_and_references_are_as_written() {
    let shown = secrets().shown;
    assert!(!shown.to_string().contains("canary"), "{shown}");
    let at = |path: &str| shown.pointer(path).cloned().unwrap_or_default();
    assert_eq!(
        at("/metadata/annotations"),
        serde_json::json!({"api-token": "***", "note": "*** three stars ***"})
    );
    assert_eq!(at("/spec/source/config/dsn"), "postgres://u:***@h/db?sslpassword=***");
    assert_eq!(at("/spec/source/config/tables/0"), "${TABLES:-public.%}");
    assert_eq!(at("/spec/sinks/0/config/uri"), "${URI:-redis://:***@h}");
    assert_eq!(at("/spec/sinks/0/config/password"), "***");
    assert_eq!(at("/spec/sinks/0/config/headers"), serde_json::json!({"X-Auth": "***", "X-Kind": "plain"}));
    assert_eq!(at("/spec/sinks/1/config/uri"), "redis://u:${PW}@h");
    assert_eq!(at("/spec/sinks/1/config/password"), "***${PW:-***}***");
}

#[test]
fn no_way_to_log_in_to_nats_is_shown() {
    let yaml = "
metadata: { name: shop }
spec:
  source: { type: postgres, config: { dsn: 'host=h' } }
  sinks:
    - { type: redis, config: { id: a, uri: 'nats://canary1@h:4222,tls://canary2@g', headers: { nkey: canary3 } } }
    - { type: redis, config: { id: b, uri: 'nats://u:canary4@h', headers: { token: canary5, nkey_file: /etc/nkey } } }
    - { type: redis, config: { id: c, uri: 'nats://${TOKEN:-canary6}@h', headers: { nkey: '${file:/run/canary7}' } } }
";
    let shown = document(&loader(&[], &[("/run/canary7", "canary8\n")]), yaml).shown;
    assert!(!shown.to_string().contains("canary"), "{shown}");
    let at = |path: &str| shown.pointer(path).cloned().unwrap_or_default();
    assert_eq!(at("/spec/sinks/0/config/uri"), "nats://***@h:4222,tls://***@g");
    assert_eq!(at("/spec/sinks/1/config/headers/nkey_file"), "/etc/nkey");
}

#[test]
fn what_is_shown_can_be_sent_back() {
    let document = secrets();
    let sent = Node::from_json(&document.shown);
    let merged = patched(&document.written, &sent).unwrap();
    let again = loader(&[("PW", "canary7")], &[("/run/pw", "canary8\n")]).document(&merged, true).unwrap();
    assert_eq!(again.shown, document.shown);
    for canary in (1..=6).map(|n| format!("canary{n}")) {
        assert!(merged.to_json().to_string().contains(&canary), "{canary}: {:?}", merged.to_json());
    }
    assert!(merged.to_json().to_string().contains("${file:/run/pw}"));
}

#[test]
fn masks_find_their_secret_by_place_or_id() {
    let document = secrets();
    let patch = |json: serde_json::Value| {
        patched(&document.written, &Node::from_json(&json)).map(|node| node.to_json())
    };
    let moved =
        patch(serde_json::json!({"spec": {"source": {"config": {"dsn": "postgres://u:***@other/db"}}}}));
    assert!(moved.is_err(), "two secrets are stored, one is sent");
    let moved = patch(
        serde_json::json!({"spec": {"source": {"config": {"dsn": "postgres://u:***@other/db?sslpassword=***"}}}}),
    );
    let dsn = moved.unwrap().pointer("/spec/source/config/dsn").cloned().unwrap();
    assert_eq!(dsn, "postgres://u:canary2@other/db?sslpassword=canary3");

    let only_second = serde_json::json!({"spec": {"sinks": [
        {"type": "redis", "config": {"id": "second", "uri": "redis://h", "password": "***${PW:-***}***"}}]}});
    let password = patch(only_second).unwrap().pointer("/spec/sinks/0/config/password").cloned().unwrap();
    assert_eq!(password, "a${PW:-canary6}b");

    let stranger = serde_json::json!({"spec": {"sinks": [
        {"type": "file", "config": {"uri": "file://u:***@h", "password": "***"}}]}});
    let errors = patch(stranger).unwrap_err();
    let shown: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown[0].lines().next(),
        Some("spec.sinks[0].config.uri: `***` stands for a stored secret, and none is stored here")
    );
    assert_eq!(shown.len(), 2, "{shown:?}");
}

#[test]
fn defaults_are_filled_in() {
    let shown = document(&loader(&[], &[]), MINIMAL).shown;
    let expected = serde_json::json!({
        "metadata": {"name": "shop", "tenant": "default", "labels": {}, "annotations": {}},
        "spec": {
            "source": {"type": "postgres", "config": {
                "dsn": "host=h", "id": "shop-postgres", "port": 5432,
                "retry": {"initial_ms": 1000, "max_ms": 60000, "jitter": 0.2, "max_attempts": 0}}},
            "sinks": [{"type": "redis", "config": {"uri": "redis://h", "id": "shop-redis"}, "required": true}],
            "emit_schema_changes": false,
            "processors": [],
            "batch": {"max_events": 500, "max_bytes": 1048576, "max_ms": 1000, "respect_source_tx": true, "max_inflight": 2},
            "commit_policy": {"mode": "required"},
            "dlq": {"enabled": false, "max_entries": 10000, "max_age_secs": 604_800, "max_event_bytes": 262_144, "overflow": "block"},
            "limits": {"memory": 268435456}
        },
        "apiVersion": "deltaforge/v1", "kind": "Pipeline"
    });
    assert_eq!(shown, expected);
    // The filled document means the same.
    let again = loader(&[], &[]).document(&Node::from_json(&shown), false).unwrap();
    assert_eq!(again.shown, shown);
}

#[test]
fn values_of_variables_stay_out_of_errors() {
    let loader = loader(&[("AWS_SECRET", "canary-in-env"), ("N", "0")], &[("/f", "canary-in-file")]);
    let yaml = "
apiVersion: ${AWS_SECRET}
metadata: { name: shop }
spec:
  source: { type: '${AWS_SECRET}', config: {} }
  batch: { max_events: '${N}', max_ms: '${AWS_SECRET}', max_bytes: '${file:/f}' }
  sinks:
    - { type: redis, required: '${AWS_SECRET}', config: { uri: x } }
    - { type: 'redis://u:canary-literal@h', config: {} }
";
    let found = errors(&loader, yaml).join("\n");
    assert!(!found.contains("canary"), "{found}");
    assert!(found.contains("expected 1 to 1000000, found ${N}"), "{found}");
    assert!(found.contains("`${AWS_SECRET}` is not a known apiVersion"), "{found}");
    let dsn = MINIMAL.replace("'host=h'", "'${AWS_SECRET}'");
    let found = errors(&loader, &dsn).join("\n");
    assert!(found.ends_with("spec.source.config.dsn: `${AWS_SECRET}` is no DSN"), "{found}");
}
