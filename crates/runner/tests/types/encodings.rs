//! Databases whose encoding is not UTF-8.

use crate::support::Home;
use deltaforge_testkit::servers::{PgOptions, PgVersion, Postgres};
use serde_json::{Value, json};

/// A database without an encoding holds any bytes. What is UTF-8 is text, anything else is given as bytes, and the stream
/// goes on.
fn without_an_encoding(version: PgVersion) {
    let postgres = Postgres::start(version, &PgOptions::default()).unwrap();
    let create = "create database bytes template template0 encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C'";
    postgres.psql("postgres", create);
    postgres.psql("bytes", "create table t (id int primary key, v text, a text[], j json, h varchar(9))");
    let home = Home::to_file(&postgres.dsn("bytes"), "['public.%']");
    let engine = home.start();
    postgres.psql(
        "bytes",
        r#"set client_encoding = 'SQL_ASCII';
        insert into t values (1, 'grüße', '{ä}', '{"k": "ö"}', 'x');
        insert into t values (2, E'caf\xe9', array[E'\xe9', 'ok'], E'"\xe9"', E'\xff');
        update t set v = 'after' where id = 2;
        delete from t where id = 1;"#,
    );
    let events = home.wait_events(4);
    let bytes = |base64: &str| json!({"_base64": base64});
    let first = json!({"id": 1, "v": "grüße", "a": ["ä"], "j": {"k": "ö"}, "h": "x"});
    let (array, json, word) = (json!([bytes("6Q=="), "ok"]), bytes("Iuki"), bytes("/w=="));
    let second = json!({"id": 2, "v": bytes("Y2Fm6Q=="), "a": array, "j": json, "h": word});
    let mut third = second.clone();
    third["v"] = "after".into();
    assert_eq!([&events[0]["after"], &events[1]["after"], &events[2]["after"]], [&first, &second, &third]);
    assert_eq!((&events[3]["op"], &events[3]["after"]), (&json!("d"), &Value::Null));
    assert_eq!(engine.status("p")["phase"], "streaming");
    engine.stop();
}

/// Any other encoding is converted by the server.
fn latin1(version: PgVersion) {
    let postgres = Postgres::start(version, &PgOptions::default()).unwrap();
    let create = "create database latin template template0 encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'";
    postgres.psql("postgres", create);
    postgres.psql(
        "latin",
        "set client_encoding = 'UTF8'; create table \"tään\" (id int primary key, \"größe\" text, j jsonb)",
    );
    let home = Home::to_file(&postgres.dsn("latin"), "['public.%']");
    let engine = home.start();
    let insert = "set client_encoding = 'UTF8'; insert into \"tään\" values (1, 'café ÿ', '{\"é\": \"ß\"}')";
    postgres.psql("latin", insert);
    let events = home.wait_events(1);
    assert_eq!(events[0]["after"], json!({"id": 1, "größe": "café ÿ", "j": {"é": "ß"}}));
    assert_eq!(events[0]["source"]["table"], "tään");
    engine.stop();
}

#[test]
fn bytes_without_an_encoding_15() {
    without_an_encoding(PgVersion::V15);
}

#[test]
fn bytes_without_an_encoding_18() {
    without_an_encoding(PgVersion::V18);
}

#[test]
fn latin1_becomes_utf8_15() {
    latin1(PgVersion::V15);
}

#[test]
fn latin1_becomes_utf8_18() {
    latin1(PgVersion::V18);
}
