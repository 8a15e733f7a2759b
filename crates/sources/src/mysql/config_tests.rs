#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in a test, a panic with a clear message is how a failure is reported"
)]

use super::*;
use deltaforge_core::config::{Finding, Findings, Node};
use serde_json::{Value as Json, json};

const DSN: &str = "mysql://cdc:hunter2@db:3307/shop";

/// Parses settings given as JSON, with [`DSN`] unless they have their own.
fn parsed(config: Json) -> (Option<Settings>, Findings) {
    let mut config = config;
    if config.get("dsn").is_none() {
        config["dsn"] = DSN.into();
    }
    let node = Node::from_json(&config);
    let mut findings = Findings::default();
    let mut fields = Fields::new(&node, "", &mut findings);
    let settings = parse(&mut fields, &Names { pipeline: "orders", default_id: "orders-mysql" });
    fields.finish();
    for finding in &findings.errors {
        assert!(!finding.to_string().contains("hunter2"), "{finding}");
    }
    (settings, findings)
}

fn good(config: Json) -> Settings {
    let shown = config.to_string();
    let (settings, findings) = parsed(config);
    assert!(findings.errors.is_empty(), "{shown}: {:?}", findings.errors);
    settings.unwrap()
}

fn bad(config: Json) -> Vec<Finding> {
    let shown = config.to_string();
    let errors = parsed(config).1.errors;
    assert!(!errors.is_empty(), "{shown} has no error");
    errors
}

#[test]
fn defaults_are_those_of_the_specification() {
    let (settings, findings) = parsed(json!({}));
    let settings = settings.unwrap();
    assert_eq!(settings.id, "orders-mysql");
    assert_eq!(settings.server_id, derived_server_id("orders-mysql"));
    assert_eq!(settings.start_position, StartPosition::Latest);
    assert_eq!(settings.zero_date, ZeroDate::Null);
    assert_eq!(settings.target.tls_mode, TlsMode::Prefer);
    let seconds = [
        settings.target.connect_timeout,
        settings.heartbeat,
        settings.read_timeout,
        settings.inactivity_timeout,
    ];
    assert_eq!(seconds.map(|d| d.as_secs()), [30, 15, 90, 60]);
    assert!(!settings.tables_must_exist && settings.tables.is_all());
    let shown =
        |key: &str| findings.defaults.iter().find(|(path, _)| path == key).map(|(_, value)| value.clone());
    for (key, value) in [
        ("tables", json!([])),
        ("start_position", json!("latest")),
        ("server_id", json!(settings.server_id)),
        ("zero_date", json!("null")),
        ("connect_timeout_secs", json!(30)),
        ("heartbeat_secs", json!(15)),
        ("read_timeout_secs", json!(90)),
        ("inactivity_timeout_secs", json!(60)),
        ("missing_tables", json!("warn")),
        ("on_lost_position", json!("fail")),
    ] {
        assert_eq!(shown(key), Some(value), "{key}");
    }
}

#[test]
fn every_key_is_read() {
    let settings = good(json!({
        "id": "x", "tables": ["orders", "a.b_%", "!a.b_tmp"], "missing_tables": "error", "server_id": 4294967295_u32,
        "start_position": "earliest", "zero_date": "error", "connect_timeout_secs": 5, "heartbeat_secs": 1,
        "read_timeout_secs": 2, "inactivity_timeout_secs": 3, "on_lost_position": "fail",
        "retry": {"initial_ms": 1, "max_ms": 2, "jitter": 0, "max_attempts": 3},
        "tls": {"mode": "require"},
    }));
    assert_eq!((settings.id.as_str(), settings.server_id), ("x", u32::MAX));
    assert!(
        settings.captures("shop", "orders")
            && settings.captures("a", "b_1")
            && !settings.captures("a", "b_tmp")
    );
    assert_eq!(settings.start_position, StartPosition::Earliest);
    assert_eq!((settings.zero_date, settings.tables_must_exist), (ZeroDate::Error, true));
    let seconds = [
        settings.target.connect_timeout,
        settings.heartbeat,
        settings.read_timeout,
        settings.inactivity_timeout,
    ];
    assert_eq!(seconds.map(|d| d.as_secs()), [5, 1, 2, 3]);
    assert_eq!((settings.retry.max_attempts, settings.target.tls_mode), (3, TlsMode::Require));
}

#[test]
fn the_server_id_is_derived_as_promised() {
    // CRC-32/ISO-HDLC of `123456789` is cbf43926.
    assert_eq!(derived_server_id("123456789"), 1 + 0xcbf4_3926);
    // One above 4000000000: ee6b2800 is 4000000000.
    let wrapped =
        (0..).map(|n| format!("s{n}")).find(|id| crc32fast::hash(id.as_bytes()) >= 4_000_000_000).unwrap();
    assert_eq!(derived_server_id(&wrapped), 1 + (crc32fast::hash(wrapped.as_bytes()) - 4_000_000_000));
}

#[test]
fn system_databases_never_match() {
    let settings = good(json!({"tables": ["%.%", "mysql.user", "/.*/"]}));
    for database in ["mysql", "sys", "information_schema", "INFORMATION_SCHEMA", "performance_schema"] {
        assert!(!settings.captures(database, "user"), "{database}");
    }
    assert!(settings.captures("mysql2", "user") && settings.captures("SYS", "user"));
}

#[test]
fn a_bare_pattern_means_the_database_of_the_dsn() {
    assert!(good(json!({"tables": ["orders"]})).captures("shop", "orders"));
    let errors = bad(json!({"dsn": "mysql://cdc@db", "tables": ["a.b", "orders"]}));
    assert_eq!(errors.len(), 1);
    assert_eq!((errors[0].path.as_str(), errors[0].class), ("tables[1]", FindingClass::Form));
    // What is wrong with the DSN is said once.
    let errors = bad(json!({"dsn": "mysql://db", "tables": ["orders"]}));
    assert_eq!(errors.len(), 1, "{errors:?}");
}

#[test]
fn start_positions() {
    let start = |value: Json| good(json!({"start_position": value})).start_position;
    assert_eq!(start(json!("latest")), StartPosition::Latest);
    assert_eq!(start(json!("earliest")), StartPosition::Earliest);
    let at = StartPosition::At { file: "binlog.000007".into(), pos: 5_000_000_000 };
    assert_eq!(start(json!({"file": "binlog.000007", "pos": 5_000_000_000_u64})), at);
    assert_eq!(
        start(json!({"file": "binlog.000007"})),
        StartPosition::At { file: "binlog.000007".into(), pos: 4 }
    );
    for text in ["3e11fa47-71ca-11e1-9e33-c80aa9429562:1-42", "0-1-42,7-2-5"] {
        let StartPosition::After(set) = start(json!({"gtid": text})) else { panic!("{text}") };
        assert_eq!(set.to_string(), text);
    }
}

#[test]
fn zero_dates_by_word_and_by_a_bare_null() {
    for (value, expected) in [
        (json!("null"), ZeroDate::Null),
        (Json::Null, ZeroDate::Null),
        (json!("string"), ZeroDate::String),
        (json!("error"), ZeroDate::Error),
    ] {
        assert_eq!(good(json!({"zero_date": value})).zero_date, expected, "{value}");
    }
}

#[test]
fn tls_follows_the_scheme_the_mode_and_the_files() {
    use TlsMode::{Disable, Prefer, Require, VerifyCa, VerifyFull};
    let cases = [
        ("mysql://u@h", json!({}), Prefer),
        ("mariadb://u@h", json!({}), Prefer),
        ("mysqls://u@h", json!({}), VerifyFull),
        ("mysqls://u@h", json!({"mode": "verify-ca"}), VerifyCa),
        ("mysqls://u@h?ssl-mode=required", json!({}), Require),
        ("mysql://u@h", json!({"ca_file": "/ca.pem"}), VerifyFull),
        ("mysql://u@h?ssl-ca=/ca.pem", json!({}), VerifyFull),
        ("mysql://u@h?ssl-ca=/ca.pem&ssl-mode=VERIFY_CA", json!({"ca_file": "/ca.pem"}), VerifyCa),
        ("mysql://u@h", json!({"mode": "disable"}), Disable),
    ];
    for (dsn, tls, mode) in cases {
        assert_eq!(good(json!({"dsn": dsn, "tls": tls})).target.tls_mode, mode, "{dsn} {tls}");
    }
    let target = good(json!({"dsn": "mysql://u@h?ssl-cert=/c.pem&ssl-key=/k.pem&connect_timeout=7"})).target;
    assert_eq!(target.tls.cert_file.as_deref(), Some("/c.pem"));
    assert_eq!(target.connect_timeout.as_secs(), 7);
}

#[test]
fn what_is_refused_says_where_and_why() {
    use FindingClass::{Choice, Conflict, Form, Missing, Range, Unknown};
    let cases = [
        (json!({"dsn": ""}), "dsn", Form, "empty"),
        (json!({"dsn": "postgres://u@h/d"}), "dsn", Form, "mysql://"),
        (json!({"dsn": Json::Null}), "dsn", Missing, "required"),
        (json!({"id": "a b"}), "id", Form, "letters"),
        (json!({"server_id": 0}), "server_id", Range, "1 to 4294967295"),
        (json!({"server_id": 4294967296_u64}), "server_id", Range, "1 to 4294967295"),
        (json!({"heartbeat_secs": 0}), "heartbeat_secs", Range, "1 to 3600"),
        (json!({"connect_timeout_secs": 3601}), "connect_timeout_secs", Range, "1 to 3600"),
        (json!({"read_timeout_secs": 15}), "read_timeout_secs", Range, "above `heartbeat_secs` 15"),
        (json!({"heartbeat_secs": 60}), "inactivity_timeout_secs", Range, "`inactivity_timeout_secs` 60"),
        (json!({"zero_date": "epoch"}), "zero_date", Choice, "epoch"),
        (json!({"start_position": "now"}), "start_position", Choice, "now"),
        (json!({"start_position": {"pos": 4}}), "start_position.file", Missing, "required"),
        (json!({"start_position": {}}), "start_position.file", Missing, "required"),
        (json!({"start_position": {"file": "binlog"}}), "start_position.file", Form, "log file"),
        (json!({"start_position": {"file": "b.1", "pos": 3}}), "start_position.pos", Range, "at least 4"),
        (json!({"start_position": {"gtid": "nonsense"}}), "start_position.gtid", Form, ""),
        (
            json!({"start_position": {"gtid": "0-1-2", "file": "b.1"}}),
            "start_position.gtid",
            Conflict,
            "and a place",
        ),
        (json!({"start_position": {"lsn": "0/0"}}), "start_position.lsn", Unknown, "unknown key"),
        (json!({"on_lost_position": "snapshot"}), "on_lost_position", Choice, "planned"),
        (json!({"snapshot": {"mode": "initial"}}), "snapshot", Unknown, "planned"),
        (json!({"missing_tables": "ignore"}), "missing_tables", Choice, "ignore"),
        (json!({"tables": ["a.b.c"]}), "tables[0]", Form, "two parts"),
        (json!({"table": []}), "table", Unknown, "unknown key"),
        (json!({"dsn": "mysqls://u@h", "tls": {"mode": "prefer"}}), "tls", Conflict, "`mysqls://`"),
        (
            json!({"dsn": "mysql://u@h?ssl-mode=required", "tls": {"mode": "disable"}}),
            "tls",
            Conflict,
            "contradicts",
        ),
        (json!({"dsn": "mysql://u@h?ssl-ca=/a", "tls": {"ca_file": "/b"}}), "tls", Conflict, "`ssl-ca`"),
        (json!({"dsn": "mysql://u@h?ssl-cert=/a"}), "dsn", Conflict, "together"),
        (
            json!({"dsn": "mysql://u@h?connect_timeout=3", "connect_timeout_secs": 4}),
            "connect_timeout_secs",
            Conflict,
            "contradicts",
        ),
    ];
    for (config, path, class, message) in cases {
        let shown = config.to_string();
        let errors = bad(config);
        let found = errors.iter().find(|e| e.path == path).unwrap_or_else(|| panic!("{shown}: {errors:?}"));
        assert_eq!(found.class, class, "{shown}: {found}");
        assert!(found.message.contains(message), "{shown}: {found}");
    }
    // One mistake, one finding.
    assert_eq!(bad(json!({"start_position": {"gtid": "0-1-2", "file": "b.1"}})).len(), 1);
}

#[test]
fn both_words_make_a_plan_and_differ_in_what_they_say() {
    let kinds: [&dyn SourceKind; 2] = [&MySqlKind, &MariaDbKind];
    for kind in kinds {
        let node = Node::from_json(&json!({"dsn": DSN}));
        let mut findings = Findings::default();
        let names = Names { pipeline: "orders", default_id: "orders-x" };
        let plan = kind.parse(&mut Fields::new(&node, "", &mut findings), &names).unwrap();
        assert_eq!((plan.info().connector, plan.id()), (kind.name(), "orders-x"));
        assert!(plan.retry() == RetryPolicy::SOURCE);
    }
}
