//! What parsing accepts and refuses, as the specification has it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::parse;
use serde_json::{Value, json};

fn merged(mut base: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        base[key] = value.clone();
    }
    base
}

/// Each case: settings added to a valid `config`, and the findings: path, class, part of the message.
fn refuse(kind: &str, base: Value, cases: &[(Value, &str, &str, &str)]) {
    parse(kind, base.clone(), None).unwrap();
    for (more, path, class, message) in cases {
        let findings =
            parse(kind, merged(base.clone(), more), None).err().unwrap_or_else(|| panic!("accepted: {more}"));
        let prefix = format!("config.{path}: {class}: ");
        assert!(
            findings.len() == 1 && findings[0].starts_with(&prefix) && findings[0].contains(message),
            "{more}: expected {prefix}…{message}…, found {findings:?}"
        );
    }
}

#[test]
fn common_keys() {
    let cases = [
        (json!({ "id": "a b" }), "id", "form", "letters"),
        (json!({ "filter": { "ops": ["c"] } }), "filter", "unknown", "planned, not in this release"),
        (json!({ "key_change": "split" }), "key_change", "choice", "planned, not in this release"),
        (json!({ "key_change": "x" }), "key_change", "choice", "`x`"),
        (json!({ "retry": { "max_ms": 0 } }), "retry.max_ms", "range", "1 to"),
        (json!({ "retry": { "maxms": 1 } }), "retry.maxms", "unknown", ""),
        (json!({ "required": "yes" }), "required", "type", ""),
        (json!({ "encoding": "avro" }), "encoding", "choice", "planned"),
        (
            json!({ "envelope": { "type": "debezium", "compat": "strict" } }),
            "envelope.compat",
            "choice",
            "planned",
        ),
        (json!({ "brokers": "x" }), "brokers", "unknown", "unknown key"),
    ];
    refuse("redis", json!({ "uri": "redis://h", "stream": "s" }), &cases);
    refuse("file", json!({ "path": "/tmp/x" }), &cases);
    refuse("stdout", json!({}), &cases);
}

#[test]
fn required_and_retry() {
    let plan = |config: Value, beside| parse("stdout", config, beside).unwrap();
    assert!(plan(json!({}), None).required());
    assert!(!plan(json!({ "required": false }), None).required());
    assert!(!plan(json!({}), Some(false)).required());
    assert!(!plan(json!({ "required": false }), Some(false)).required());
    let findings = parse("stdout", json!({ "required": true }), Some(false)).err().unwrap();
    assert!(findings[0].starts_with("config.required: conflict: "), "{findings:?}");
    assert_eq!(plan(json!({}), None).retry(true).max_attempts, 0);
    assert_eq!(plan(json!({}), Some(false)).retry(false).max_attempts, 5);
    // Under the policy `all` it is waited for, whatever its flag says; what is written holds.
    assert_eq!(plan(json!({}), Some(false)).retry(true).max_attempts, 0);
    assert_eq!(plan(json!({ "retry": { "max_attempts": 3 } }), Some(false)).retry(true).max_attempts, 3);
    assert_eq!(plan(json!({ "retry": { "initial_ms": 7 } }), Some(false)).retry(false).initial_ms, 7);
    assert_eq!(plan(json!({}), None).id(), "test-sink");
    assert_eq!(plan(json!({ "id": "mine" }), None).id(), "mine");
}

#[test]
fn redis() {
    let good = [
        "redis://h",
        "redis://h:1/15",
        "REDIS://u:p@[::1]:1",
        "rediss://:p@h",
        "redis-cluster://a:1,b:2",
        "redis-sentinel://a,b:2/3?master=m",
    ];
    for uri in good {
        parse("redis", json!({ "uri": uri, "stream": "${source.table}", "key": "${after.id}" }), None)
            .unwrap();
    }
    let cases = [
        (json!({ "uri": null }), "uri", "missing", "required"),
        (json!({ "stream": null }), "stream", "missing", "required"),
        (json!({ "uri": "h:6379" }), "uri", "form", "scheme"),
        (json!({ "uri": "http://h" }), "uri", "form", "`http://` is not a scheme of Redis"),
        (json!({ "uri": "redis://" }), "uri", "form", "the host is missing"),
        (json!({ "uri": "redis://a,b" }), "uri", "form", "one host"),
        (json!({ "uri": "redis://h/x" }), "uri", "form", "database number"),
        (json!({ "uri": "redis://h?master=m" }), "uri", "form", "`master` is not a parameter"),
        (json!({ "uri": "redis-cluster://h/1" }), "uri", "form", "only database 0"),
        (json!({ "uri": "redis-sentinel://h" }), "uri", "form", "`master` is missing"),
        (json!({ "uri": "redis-sentinel://h?master=m&x=1" }), "uri", "form", "`x`"),
        (json!({ "stream": "${after" }), "stream", "form", ""),
        (json!({ "key": "${nothing.at.all}" }), "key", "form", ""),
        (json!({ "field": "event_id" }), "field", "conflict", "another field"),
        (json!({ "field": "df-key" }), "field", "conflict", "another field"),
        (json!({ "field": "" }), "field", "form", "empty"),
        (json!({ "maxlen": -1 }), "maxlen", "range", ""),
        (json!({ "send_timeout_secs": 0 }), "send_timeout_secs", "range", "1 to 3600"),
        (json!({ "batch_timeout_secs": 3601 }), "batch_timeout_secs", "range", "1 to 3600"),
        (json!({ "connect_timeout_secs": "x" }), "connect_timeout_secs", "type", ""),
        (json!({ "tls": { "mode": "prefer" } }), "tls.mode", "choice", ""),
        (json!({ "uri": "rediss://h", "tls": { "mode": "disable" } }), "tls", "conflict", "config.uri"),
        (json!({ "tls": { "cert_file": "a", "key_file": "b" } }), "tls", "conflict", "encryption"),
        (json!({ "tls": { "mode": "require", "cert_file": "a" } }), "tls.cert_file", "conflict", "together"),
    ];
    refuse("redis", json!({ "uri": "redis://h", "stream": "s" }), &cases);
}

#[test]
fn kafka() {
    let base = json!({ "brokers": "h:9092", "topic": "t" });
    let good = [
        json!({ "brokers": "a:1, b:2,[::1]:3", "topic": "x.${source.table}", "key": "${after.id}" }),
        json!({ "sasl": { "mechanism": "PLAIN", "username": "u", "password": "p" }, "tls": { "mode": "require" } }),
        json!({ "client_conf": { "linger.ms": 50, "compression.type": "zstd", "socket.keepalive.enable": true } }),
        // Only a warning.
        json!({ "client_conf": { "acks": 1, "enable.idempotence": false } }),
        json!({ "exactly_once": true, "client_conf": { "acks": "all", "enable.idempotence": true } }),
        json!({ "create_topics": { "partitions": 3, "config": { "cleanup.policy": "compact" } }, "tombstones": true }),
        json!({
            "sasl": { "mechanism": "OAUTHBEARER" },
            "client_conf": { "sasl.oauthbearer.token.endpoint.url": "https://h/t", "sasl.oauthbearer.client.id": "i" },
        }),
    ];
    for more in good {
        parse("kafka", merged(base.clone(), &more), None)
            .unwrap_or_else(|findings| panic!("{more}: {findings:?}"));
    }
    let conf = |key: &str, value: Value| json!({ "client_conf": { key: value } });
    let exactly = |key: &str, value: Value| json!({ "exactly_once": true, "client_conf": { key: value } });
    let sasl =
        |mechanism: &str| json!({ "sasl": { "mechanism": mechanism, "username": "u", "password": "p" } });
    let cases = [
        (json!({ "brokers": null }), "brokers", "missing", "required"),
        (json!({ "brokers": "h" }), "brokers", "form", "HOST:PORT"),
        (json!({ "brokers": "h:0" }), "brokers", "form", "HOST:PORT"),
        (json!({ "brokers": "h:1,,g:2" }), "brokers", "form", "HOST:PORT"),
        (json!({ "brokers": "ssl://h:1" }), "brokers", "form", "HOST:PORT"),
        (json!({ "topic": null }), "topic", "missing", "required"),
        (json!({ "topic": "a b" }), "topic", "form", "249"),
        (json!({ "topic": ".." }), "topic", "form", "249"),
        (json!({ "topic": "${x" }), "topic", "form", ""),
        (json!({ "positions_topic": "a/b" }), "positions_topic", "form", "topic"),
        (json!({ "headers": { "df-event-id": "x" } }), "headers", "conflict", "not free"),
        (json!({ "headers": { "x": "${after" } }), "headers", "form", "`x`"),
        (json!({ "send_timeout_secs": 0 }), "send_timeout_secs", "range", "1 to 3600"),
        (json!({ "create_topics": { "partitions": 0 } }), "create_topics.partitions", "range", "1 or more"),
        (json!({ "create_topics": { "replicas": 1 } }), "create_topics.replicas", "unknown", ""),
        (json!({ "sasl": {} }), "sasl.mechanism", "missing", "required"),
        (sasl("GSSAPI"), "sasl.mechanism", "choice", "planned"),
        (sasl("plain"), "sasl.mechanism", "choice", "`plain`"),
        (json!({ "sasl": { "mechanism": "PLAIN", "username": "u" } }), "sasl.password", "missing", "PLAIN"),
        (
            json!({ "sasl": { "mechanism": "OAUTHBEARER" } }),
            "sasl.mechanism",
            "missing",
            "token.endpoint.url",
        ),
        (json!({ "tls": { "mode": "prefer" } }), "tls.mode", "choice", ""),
        (json!({ "tls": { "cert_file": "a", "key_file": "b" } }), "tls", "conflict", "encryption"),
        (
            conf("security.protocol", json!("ssl"))
                .pointer("/client_conf")
                .map(|c| json!({ "tls": { "mode": "disable" }, "client_conf": c }))
                .unwrap(),
            "tls",
            "conflict",
            "security.protocol",
        ),
        (conf("security.protocol", json!("sasl_plaintext")), "sasl", "conflict", "security.protocol"),
        (json!({ "client_conf": "x" }), "client_conf", "type", "map"),
        (conf("linger", json!(5)), "client_conf.linger", "unknown", "no such property"),
        (conf("linger.ms", json!("soon")), "client_conf.linger.ms", "form", "linger.ms"),
        (conf("linger.ms", json!([1])), "client_conf.linger.ms", "type", ""),
        (
            conf("bootstrap.servers", json!("h:1")),
            "client_conf.bootstrap.servers",
            "conflict",
            "setting of its own",
        ),
        (conf("transactional.id", json!("x")), "client_conf.transactional.id", "conflict", "identity"),
        (
            conf("delivery.report.only.error", json!(true)),
            "client_conf.delivery.report.only.error",
            "conflict",
            "delivered",
        ),
        (
            conf("test.mock.num.brokers", json!(3)),
            "client_conf.test.mock.num.brokers",
            "conflict",
            "simulated",
        ),
        (conf("ssl.key.pem", json!("hunter2")), "client_conf.ssl.key.pem", "conflict", "setting of its own"),
        (conf("queue.buffering.max.kbytes", json!(900)), "client_conf", "conflict", "no room in 900 KiB"),
        (exactly("acks", json!(1)), "client_conf.acks", "conflict", "exactly_once"),
        (
            exactly("enable.idempotence", json!(false)),
            "client_conf.enable.idempotence",
            "conflict",
            "exactly_once",
        ),
    ];
    refuse("kafka", base, &cases);
}

#[test]
fn a_password_is_in_no_finding() {
    for uri in [
        "redis://u:hunter2@h:x",
        "hunter2",
        "redis://u:hunter2",
        "redis://u:hunter2%@h",
        "redis://:hunter2@h/hunter2",
    ] {
        let findings = parse("redis", json!({ "uri": uri, "stream": "s" }), None).err().unwrap();
        assert!(findings.iter().all(|finding| !finding.contains("hunter2")), "{findings:?}");
    }
}

#[test]
fn file_and_stdout() {
    let cases = [
        (json!({ "path": null }), "path", "missing", "required"),
        (json!({ "path": "/tmp/" }), "path", "form", "directory"),
        (json!({ "path": "/tmp/${x" }), "path", "form", ""),
        (json!({ "sync": "always" }), "sync", "choice", ""),
        (json!({ "rotate": { "max_bytes": "x" } }), "rotate.max_bytes", "form", "size"),
        (json!({ "rotate": { "max_age_secs": -1 } }), "rotate.max_age_secs", "range", ""),
        (json!({ "rotate": { "every": 1 } }), "rotate.every", "unknown", ""),
        (json!({ "tls": { "mode": "require" } }), "tls", "unknown", ""),
    ];
    refuse(
        "file",
        json!({ "path": "/tmp/x", "rotate": { "max_bytes": "1 MiB", "max_age_secs": 60 } }),
        &cases,
    );
    refuse("stdout", json!({ "pretty": true }), &[(json!({ "pretty": "x" }), "pretty", "type", "")]);
}

/// Sinks of one envelope share its encoding, whatever they are.
#[test]
fn an_encoding_is_that_of_the_envelope() {
    let redis = json!({ "uri": "redis://h", "stream": "s" });
    let http = json!({ "url": "http://h/x" });
    for (kind, config) in
        [("redis", redis), ("http", http), ("file", json!({ "path": "p" })), ("stdout", json!({}))]
    {
        let plan = parse(kind, config, None).unwrap();
        assert_eq!(plan.encoding().as_deref(), Some("native"), "{kind}");
    }
}

#[test]
fn one_row_per_connector() {
    let kinds = deltaforge_sinks::kinds();
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    assert_eq!(names, ["redis", "kafka", "nats", "http", "file", "stdout"]);
    assert!(deltaforge_sinks::PLANNED.iter().all(|planned| !names.contains(planned)));
    assert!(kinds.iter().all(|kind| !kind.summary().is_empty()));
}

#[test]
fn nats() {
    let base = json!({ "url": "nats://h", "subject": "shop.${source.table}", "stream": "S" });
    let cases = [
        (json!({ "url": "http://u:canary@h" }), "url", "form", "not a scheme of NATS"),
        (json!({ "url": "nats://u:canary@" }), "url", "form", ""),
        (json!({ "url": "nats://h/x" }), "url", "form", "nothing else"),
        (json!({ "url": "nats://u:p@h", "token": "canary" }), "url", "conflict", "another login"),
        (json!({ "url": "tls://h", "tls": { "mode": "disable" } }), "tls", "conflict", "contradicts"),
        (json!({ "subject": "shop.*" }), "subject", "form", "wildcard"),
        (json!({ "subject": "shop.>" }), "subject", "form", "wildcard"),
        (json!({ "subject": "shop orders" }), "subject", "form", "blank"),
        (json!({ "subject": "shop..orders" }), "subject", "form", "empty"),
        (json!({ "subject": "$JS.x" }), "subject", "form", "server's own"),
        (json!({ "stream": "a.b" }), "stream", "form", ""),
        (json!({ "stream": null, "exactly_once": true }), "exactly_once", "conflict", "needs JetStream"),
        (json!({ "stream": null, "create_stream": {} }), "create_stream", "conflict", "needs JetStream"),
        (json!({ "create_stream": { "replicas": 6 } }), "create_stream.replicas", "range", ""),
        (
            json!({ "create_stream": { "subjects": ["a..b"] } }),
            "create_stream.subjects",
            "form",
            "empty tokens",
        ),
        (
            json!({ "create_stream": { "subjects": ["a.>.b"] } }),
            "create_stream.subjects",
            "form",
            "last token",
        ),
        (
            json!({ "create_stream": { "subjects": ["shop.a b"] } }),
            "create_stream.subjects",
            "form",
            "blanks",
        ),
        (json!({ "create_stream": { "subjects": ["store.>"] } }), "create_stream", "conflict", "take none"),
        (json!({ "create_stream": { "storage": "tape" } }), "create_stream.storage", "choice", ""),
        (
            json!({ "create_stream": { "max_age_secs": 60 } }),
            "create_stream.duplicate_window_secs",
            "conflict",
            "",
        ),
        (json!({ "username": "u" }), "username", "conflict", "together"),
        (json!({ "password": "canary" }), "password", "conflict", "together"),
        (json!({ "token": "canary", "credentials_file": "f" }), "credentials_file", "conflict", "two ways"),
        (json!({ "token": "canary", "nkey_file": "f" }), "nkey_file", "conflict", "two ways"),
        (json!({ "nkey": "canary" }), "nkey", "form", "no seed"),
        (json!({ "headers": { "Nats-Rollup": "x" } }), "headers", "conflict", "written by"),
        (json!({ "headers": { "a b": "x" } }), "headers", "form", "visible"),
        (json!({ "headers": { "a": "${nope.x}" } }), "headers", "form", "a: "),
        (json!({ "send_timeout_secs": 0 }), "send_timeout_secs", "range", ""),
    ];
    refuse("nats", base, &cases);
    for url in ["nats://a,b:1", "nats://a, tls://b", "tls://u:p@a:1,nats://b", "nats://token@h"] {
        parse("nats", json!({ "url": url, "subject": "a" }), None).unwrap();
    }
    let exactly = json!({ "url": "nats://h", "subject": "a", "stream": "S", "exactly_once": true });
    assert!(parse("nats", exactly, None).unwrap().exactly_once());
}

#[test]
fn http() {
    let base = json!({ "url": "https://h/x" });
    let cases = [
        (json!({ "url": "https://h/../${source.table}" }), "url", "form", "no parts of a path"),
        (json!({ "url": "https://h/%2E/${source.table}" }), "url", "form", "no parts of a path"),
        (json!({ "url": "https://h${source.table}/x" }), "url", "form", "must be written out"),
        (
            json!({ "signature": { "secret": "canary", "header": "DF-Key" } }),
            "signature.header",
            "conflict",
            "`df-key` is a header",
        ),
        (
            json!({ "signature": { "secret": "canary", "header": "content-length" } }),
            "signature.header",
            "conflict",
            "`content-length` is a header",
        ),
        (
            json!({ "url": "https://u:canary@h", "signature": { "secret": "canary", "header": "Authorization" } }),
            "signature",
            "conflict",
            "contradicts",
        ),
        (
            json!({ "headers": { "X-Signed": "a" }, "signature": { "secret": "canary", "header": "x-signed" } }),
            "headers",
            "conflict",
            "`x-signed` is a header",
        ),
    ];
    refuse("http", base, &cases);
}
