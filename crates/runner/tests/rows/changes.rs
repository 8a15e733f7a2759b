//! Tables that change their shape while nobody reads, and while somebody does.

use crate::{Case, assert_rows, on_both_versions};
use serde_json::{Value, json};

on_both_versions!(
    each_row_is_read_by_the_shape_it_was_written_under,
    types_that_change_while_they_are_read,
    a_table_dropped_with_its_types,
);

fn each_row_is_read_by_the_shape_it_was_written_under(version: u32) {
    let case = Case::new(
        version,
        "create type mood as enum ('x');
         create table s (id int primary key, a text, b int, m mood);
         create table other (id int primary key);
         create publication df for all tables;",
        "['public.%']",
    );
    let engine = case.home.start();
    case.psql("insert into s values (1, 'first', 10, 'x')");
    assert_rows(&case.rows(), &[json!(["s", "c", null, {"id": 1, "a": "first", "b": 10, "m": "x"}])]);
    engine.stop();

    case.psql(
        "insert into s values (2, 'as before', 20, 'x');
         alter table s add column c int default 7;
         insert into s values (3, 'added', 30, 'x');
         insert into other values (1);
         alter table s rename column a to a2;
         insert into s values (4, 'renamed', 40, 'x');
         alter table s rename column a2 to tmp; alter table s rename column c to a2; alter table s rename column tmp to c;
         insert into s values (5, 'swapped', 50, 'x', 8);
         alter table s drop column b;
         insert into s values (6, 'dropped', 'x', 9);
         begin; insert into s values (7, 'in one', 'x', 9); alter table s alter c type bytea using c::bytea;
           insert into s values (8, '\\x00', 'x', 10); commit;
         alter table s alter a2 type text using a2::text || '!';
         insert into s values (9, '\\x01', 'x', 'number no more');
         insert into other values (2);
         alter type mood add value 'y';
         insert into s values (10, '', 'y', null);
         alter table s rename to was_s;
         insert into was_s values (11, '', 'y', null);
         update was_s set a2 = 'after' where id = 1;
         drop table was_s;
         create table s (z mood, id bigint primary key);
         insert into s values ('y', 1);
         insert into other values (3);
         update s set z = 'x';",
    );
    let engine = case.home.start();
    let row = |table: &str, after: Value| json!([table, "c", null, after]);
    let base64 = |text: &str| json!({"_base64": text});
    let expected = [
        row("s", json!({"id": 2, "a": "as before", "b": 20, "m": "x"})),
        row("s", json!({"id": 3, "a": "added", "b": 30, "m": "x", "c": 7})),
        row("other", json!({"id": 1})),
        row("s", json!({"id": 4, "a2": "renamed", "b": 40, "m": "x", "c": 7})),
        row("s", json!({"id": 5, "c": "swapped", "b": 50, "m": "x", "a2": 8})),
        row("s", json!({"id": 6, "c": "dropped", "m": "x", "a2": 9})),
        row("s", json!({"id": 7, "c": "in one", "m": "x", "a2": 9})),
        row("s", json!({"id": 8, "c": base64("AA=="), "m": "x", "a2": 10})),
        row("s", json!({"id": 9, "c": base64("AQ=="), "m": "x", "a2": "number no more"})),
        row("other", json!({"id": 2})),
        row("s", json!({"id": 10, "c": base64(""), "m": "y", "a2": null})),
        row("was_s", json!({"id": 11, "c": base64(""), "m": "y", "a2": null})),
        json!(["was_s", "u", {"id": 1}, {"id": 1, "c": base64("Zmlyc3Q="), "m": "x", "a2": "after"}]),
        row("s", json!({"z": "y", "id": 1})),
        row("other", json!({"id": 3})),
        json!(["s", "u", {"id": 1}, {"z": "x", "id": 1}]),
    ];
    let events = case.changes();
    let rows: Vec<Value> =
        events.iter().map(|e| json!([e["source"]["table"], e["op"], e["before"], e["after"]])).collect();
    assert_rows(&rows, &expected);

    // Each shape of a table has a version; the number grows where the shape changes, and stays where it does not.
    let shapes: Vec<_> = events
        .iter()
        .filter(|e| e["source"]["table"] != "other")
        .map(|e| (e["schema_sequence"].as_u64(), &e["source"]["table"], &e["schema_version"]))
        .collect();
    for (old, new) in shapes.iter().zip(&shapes[1..]) {
        assert!(old.0.is_some() && old.0 <= new.0, "{shapes:#?}");
        assert_eq!(old.0 == new.0, (old.1, old.2) == (new.1, new.2), "{shapes:#?}");
    }
    engine.stop();
}

/// The log says nothing of a changed composite type: the table of its column is the same.
fn types_that_change_while_they_are_read(version: u32) {
    let case = Case::new(
        version,
        "create type pair as (a int, b text); create type mood as enum ('x');
         create domain word as text;
         create table t (id int primary key, p pair, ps pair[], m mood, w word);",
        "['public.%']",
    );
    let engine = case.home.start();
    case.psql(
        "insert into t values (1, (1, 'one'), array[(1, 'one')::pair], 'x', 'w');
         alter type pair add attribute c numeric;
         insert into t values (2, (2, 'two', 2.0), array[(2, 'two', 2.0)::pair], 'x', 'w');
         alter type mood add value 'y' before 'x';
         insert into t values (3, null, '{}', 'y', 'w');
         alter type mood rename value 'x' to 'z';
         alter domain word rename to term;
         insert into t values (4, null, null, 'z', 'w');",
    );
    let pair = json!({"a": 2, "b": "two", "c": "2.0"});
    let expected = [
        json!(["t", "c", null, {"id": 1, "p": {"a": 1, "b": "one"}, "ps": [{"a": 1, "b": "one"}], "m": "x", "w": "w"}]),
        json!(["t", "c", null, {"id": 2, "p": pair, "ps": [pair], "m": "x", "w": "w"}]),
        json!(["t", "c", null, {"id": 3, "p": null, "ps": [], "m": "y", "w": "w"}]),
        json!(["t", "c", null, {"id": 4, "p": null, "ps": null, "m": "z", "w": "w"}]),
    ];
    assert_rows(&case.rows(), &expected);
    // From here on only what the type is now can be known, so it matters that it is seen at once.
    case.psql("alter type pair drop attribute b; insert into t values (5, (5, 5.0), null, 'z', 'w');");
    let expected =
        [json!(["t", "c", null, {"id": 5, "p": {"a": 5, "c": "5.0"}, "ps": null, "m": "z", "w": "w"}])];
    assert_rows(&case.rows(), &expected);
    engine.stop();
}

/// What a type was is nowhere to be read any more; its values are the server's text, and nothing stops.
fn a_table_dropped_with_its_types(version: u32) {
    let case = Case::new(
        version,
        "create type pair as (a int, b text); create type mood as enum ('x'); create domain word as text;
         create table t (id int primary key, p pair, m mood, w word, n numeric(9,3), ms mood[]);",
        "['public.%']",
    );
    let engine = case.home.start();
    engine.stop();
    case.psql(
        "insert into t values (1, (1, 'o\"ne'), 'x', 'w', 1.5, '{x}');
         drop table t; drop type pair; drop type mood; drop domain word;",
    );
    let engine = case.home.start();
    let after = json!({"id": 1, "p": "(1,\"o\"\"ne\")", "m": "x", "w": "w", "n": "1.500", "ms": "{x}"});
    assert_rows(&case.rows(), &[json!(["t", "c", null, after])]);
    engine.stop();
}
