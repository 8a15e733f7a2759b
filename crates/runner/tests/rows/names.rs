//! Names that are hard to tell apart or to quote, and tables that appear.

use crate::{Case, assert_rows, on_both_versions};
use serde_json::{Value, json};

on_both_versions!(
    names_are_kept_apart_and_quoted,
    a_new_table_is_captured_once_it_appears,
    only_what_the_patterns_match,
    tables_without_columns_and_with_all_that_fit,
);

fn full_names(events: &[Value]) -> Vec<Value> {
    events.iter().map(|e| json!([e["source"]["schema"], e["source"]["table"], e["after"]])).collect()
}

fn names_are_kept_apart_and_quoted(version: u32) {
    let odd_table = r#"x"; DROP TABLE y; --"#;
    let odd_column = "\"; '\\ $1 \n 🙂";
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let (table, column) = (quoted(odd_table), quoted(odd_column));
    let case = Case::new(
        version,
        &format!(
            "create schema a; create schema b; create schema \"A\"; create schema \"a.b\"; create schema \"s'\"\"\";
             create table y (id int primary key);
             create table {table} (id int primary key, {column} text);
             create table a.orders (id int primary key); create table b.orders (id int primary key);
             create table b.\"Orders\" (id int primary key); create table \"A\".orders (id int primary key);
             create table a.\"b.c\" (id int primary key); create table \"a.b\".c (id int primary key);
             create table \"s'\"\"\".\"t'\\\" (\"select\" int primary key);"
        ),
        "[]",
    );
    let engine = case.home.start();
    case.psql(&format!(
        "insert into a.orders values (1); insert into b.orders values (2); insert into b.\"Orders\" values (3);
         insert into \"A\".orders values (4); insert into a.\"b.c\" values (5); insert into \"a.b\".c values (6);
         insert into \"s'\"\"\".\"t'\\\" values (7); insert into {table} values (8, 'odd'); insert into y values (9);"
    ));
    let events = case.changes();
    let mut odd = json!({"id": 8});
    odd[odd_column] = "odd".into();
    let expected = [
        json!(["a", "orders", {"id": 1}]),
        json!(["b", "orders", {"id": 2}]),
        json!(["b", "Orders", {"id": 3}]),
        json!(["A", "orders", {"id": 4}]),
        json!(["a", "b.c", {"id": 5}]),
        json!(["a.b", "c", {"id": 6}]),
        json!(["s'\"", "t'\\", {"select": 7}]),
        json!(["public", odd_table, odd]),
        json!(["public", "y", {"id": 9}]),
    ];
    assert_rows(&full_names(&events), &expected);
    engine.stop();
}

fn a_new_table_is_captured_once_it_appears(version: u32) {
    let case = Case::new(version, "create schema app;", "['public.fence', 'app.log_%', 'app.later']");
    let engine = case.home.start();
    case.psql("create table app.log_1 (id int primary key); create table app.unasked (id int primary key);");
    case.wait_published("log_1");
    case.psql("insert into app.log_1 values (1); insert into app.unasked values (1);");
    assert_rows(&full_names(&case.changes()), &[json!(["app", "log_1", {"id": 1}])]);
    // Also one that appears while nobody is there to see it.
    engine.stop();
    case.psql("create table app.later (id int primary key)");
    let engine = case.home.start();
    case.psql("insert into app.later values (1)");
    assert_rows(&full_names(&case.changes()), &[json!(["app", "later", {"id": 1}])]);
    engine.stop();
}

/// A publication made by somebody else may give more than was asked for.
fn only_what_the_patterns_match(version: u32) {
    let case = Case::new(
        version,
        "create table wanted (id int primary key); create table not_wanted (id int primary key);
         create publication df for all tables;",
        "['public.wanted', 'public.fence']",
    );
    let engine = case.home.start();
    case.psql(
        "insert into not_wanted values (1); begin; insert into wanted values (1); insert into not_wanted values (2);
         insert into wanted values (2); commit; truncate wanted, not_wanted;",
    );
    let events = case.changes();
    let found: Vec<Value> = events
        .iter()
        .map(|e| json!([e["source"]["table"], e["op"], e["after"], e["transaction"]["total_order"]]))
        .collect();
    let expected = [
        json!(["wanted", "c", {"id": 1}, 1]),
        json!(["wanted", "c", {"id": 2}, 2]),
        json!(["wanted", "t", null, 1]),
    ];
    assert_rows(&found, &expected);
    engine.stop();
}

fn tables_without_columns_and_with_all_that_fit(version: u32) {
    let columns = |of: &str| (1..1600).map(|i| format!("c{i}{of}")).collect::<Vec<_>>().join(", ");
    let case = Case::new(
        version,
        &format!(
            "create table none (); create table all_that_fit (id int primary key, {});",
            columns(" bool")
        ),
        "['public.%']",
    );
    let engine = case.home.start();
    case.psql("insert into none default values; insert into all_that_fit values (1, true); update all_that_fit set c1599 = false;");
    let rows = case.rows();
    assert_eq!(rows[0], json!(["none", "c", null, {}]));
    let row = |c1599: Value| {
        let mut row = json!({"id": 1, "c1": true});
        (2..1599).for_each(|i| row[format!("c{i}")] = Value::Null);
        row["c1599"] = c1599;
        row
    };
    let expected = [
        json!(["all_that_fit", "c", null, row(Value::Null)]),
        json!(["all_that_fit", "u", {"id": 1}, row(false.into())]),
    ];
    assert_rows(&rows[1..], &expected);
    engine.stop();
}
