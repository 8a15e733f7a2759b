//! Images with values that the log does not carry, and tables that are emptied.

use crate::{Case, assert_rows, on_both_versions};
use serde_json::{Value, json};

on_both_versions!(
    large_values_that_did_not_change,
    truncates,
    generated_columns,
    generated_columns_of_a_publication_made_by_hand,
);

const LARGE: &str = "
create table t (id int primary key, n int, s text, b bytea, j jsonb, a text[]);
alter table t alter s set storage external, alter b set storage external, alter j set storage external,
  alter a set storage external;
";
const FILL: &str = "insert into t values (1, 10, repeat('s', 100000), decode(repeat('00ff', 50000), 'hex'),
  to_jsonb(repeat('j', 100000)), array[repeat('a', 50000), null])";

fn large_values_that_did_not_change(version: u32) {
    for full in [false, true] {
        let identity = if full { "alter table t replica identity full" } else { "" };
        let case = Case::new(version, &format!("{LARGE} {identity}"), "['public.%']");
        let engine = case.home.start();
        case.psql(FILL);
        let inserted = case.changes().remove(0)["after"].clone();
        assert_eq!(inserted["s"].as_str().unwrap().len(), 100_000);

        case.psql("update t set n = 11; update t set id = 2; update t set s = 'small'; delete from t;");
        let row = |changes: &[(&str, Value)]| {
            let mut row = inserted.clone();
            changes.iter().for_each(|(name, value)| row[*name] = value.clone());
            row
        };
        let gone = json!({"_unchanged": true});
        let left: &[(&str, Value)] =
            &[("s", gone.clone()), ("b", gone.clone()), ("j", gone.clone()), ("a", gone.clone())];
        let with = |own: &[(&str, Value)], unchanged: usize| {
            let own = [own, if full { &[] } else { &left[4 - unchanged..] }].concat();
            row(&own)
        };
        let before = |own: &[(&str, Value)]| if full { row(own) } else { json!({"id": row(own)["id"]}) };
        let done = [("n", json!(11)), ("id", json!(2)), ("s", json!("small"))];
        let expected = [
            json!(["t", "u", before(&[]), with(&done[..1], 4)]),
            json!(["t", "u", before(&done[..1]), with(&done[..2], 4)]),
            json!(["t", "u", before(&done[..2]), with(&done, 3)]),
            json!(["t", "d", before(&done), null]),
        ];
        assert_rows(&case.rows(), &expected);
        engine.stop();
    }
}

fn truncates(version: u32) {
    let case = Case::new(
        version,
        "create table a (id serial primary key); create table b (id int primary key);
         create table c (id int references a); create table elsewhere (id int references b);",
        "['public.%', '!public.elsewhere']",
    );
    let engine = case.home.start();
    case.psql("truncate a, b restart identity cascade; truncate c;");
    let events = case.changes();
    let ddl = |table: &str, cascade: bool, restart: bool| {
        json!({"kind": "truncate", "sql": "TRUNCATE", "database": case.db, "tables": [format!("public.{table}")],
            "cascade": cascade, "restart_identity": restart})
    };
    let found: Vec<Value> = events
        .iter()
        .map(|e| json!([e["source"]["table"], e["op"], e["before"], e["after"], e["ddl"]]))
        .collect();
    let truncated = |table: &str, cascade: bool, restart: bool| {
        json!([table, "t", null, null, ddl(table, cascade, restart)])
    };
    let mut together = found[..3].to_vec();
    together.sort_by_key(|event| event[0].to_string());
    let expected = [truncated("a", true, true), truncated("b", true, true), truncated("c", true, true)];
    assert_rows(&together, &expected);
    assert_rows(&found[3..], &[truncated("c", false, false)]);
    // One statement, several events: each has an id of its own.
    let mut ids: Vec<String> = events.iter().map(|e| e["event_id"].to_string()).collect();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    engine.stop();
}

const GENERATED: &str =
    "create table g (id int primary key, s int generated always as (id * 2) stored, x text);";

/// Before 18 the log has no generated columns. From 18 on it has the stored ones if the publication says so, which one of
/// ours does: without it the server would refuse updates of such a table under FULL.
fn generated_columns(version: u32) {
    for full in [false, true] {
        let identity = if full { "alter table g replica identity full;" } else { "" };
        let case = Case::new(version, &format!("{GENERATED} {identity}"), "['public.%']");
        let engine = case.home.start();
        case.psql("insert into g (id, x) values (1, 'a'); update g set x = 'b'; delete from g;");
        let row =
            |x: &str| if version >= 18 { json!({"id": 1, "s": 2, "x": x}) } else { json!({"id": 1, "x": x}) };
        let before = |x: &str| if full { row(x) } else { json!({"id": 1}) };
        let expected = [
            json!(["g", "c", null, row("a")]),
            json!(["g", "u", before("a"), row("b")]),
            json!(["g", "d", before("b"), null]),
        ];
        assert_rows(&case.rows(), &expected);
        engine.stop();
    }
}

/// One that exists decides itself what it publishes.
fn generated_columns_of_a_publication_made_by_hand(version: u32) {
    let case =
        Case::new(version, &format!("{GENERATED} create publication df for table g, fence;"), "['public.%']");
    let engine = case.home.start();
    case.psql("insert into g (id, x) values (1, 'a'); update g set x = 'b';");
    let expected =
        [json!(["g", "c", null, {"id": 1, "x": "a"}]), json!(["g", "u", {"id": 1}, {"id": 1, "x": "b"}])];
    assert_rows(&case.rows(), &expected);
    engine.stop();
}
