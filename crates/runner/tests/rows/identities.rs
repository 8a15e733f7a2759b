//! How much of the old row there is, under every replica identity; and that publishing a table never breaks the application.

use crate::{Case, assert_rows, on_both_versions};
use deltaforge_testkit::wait_for;
use serde_json::json;

on_both_versions!(
    every_identity_gives_its_old_rows,
    identity_columns_stored_out_of_line_are_in_both_images,
    tables_without_identity_stay_usable,
    full_identity_is_set_where_it_is_asked_for,
    a_table_that_gains_an_identity_is_captured_whole,
);

fn every_identity_gives_its_old_rows(version: u32) {
    let case = Case::new(
        version,
        "create table d (id int primary key, x text, y int);
         create table f (id int primary key, x text, y int);
         alter table f replica identity full;
         create table keyless_full (id int, x text);
         alter table keyless_full replica identity full;
         create table i (id int primary key, k int not null unique, x text);
         alter table i replica identity using index i_k_key;
         create table two (a int, x text, b int, primary key (b, a));",
        "['public.%']",
    );
    let engine = case.home.start();

    case.psql("insert into d values (1, 'a', 10); update d set x = 'b'; update d set id = 2; delete from d;");
    let d = [
        json!(["d", "c", null, {"id": 1, "x": "a", "y": 10}]),
        json!(["d", "u", {"id": 1}, {"id": 1, "x": "b", "y": 10}]),
        json!(["d", "u", {"id": 1}, {"id": 2, "x": "b", "y": 10}]),
        json!(["d", "d", {"id": 2}, null]),
    ];
    assert_rows(&case.rows(), &d);

    case.psql(
        "insert into f values (1, 'a', null); update f set x = null; update f set id = 2; delete from f;",
    );
    let f = [
        json!(["f", "c", null, {"id": 1, "x": "a", "y": null}]),
        json!(["f", "u", {"id": 1, "x": "a", "y": null}, {"id": 1, "x": null, "y": null}]),
        json!(["f", "u", {"id": 1, "x": null, "y": null}, {"id": 2, "x": null, "y": null}]),
        json!(["f", "d", {"id": 2, "x": null, "y": null}, null]),
    ];
    assert_rows(&case.rows(), &f);

    case.psql(
        "insert into keyless_full values (1, 'a'), (1, 'a'); update keyless_full set x = 'b'; delete from keyless_full;",
    );
    let (a, b) = (json!({"id": 1, "x": "a"}), json!({"id": 1, "x": "b"}));
    let inserted = json!(["keyless_full", "c", null, a]);
    let updated = json!(["keyless_full", "u", a, b]);
    let deleted = json!(["keyless_full", "d", b, null]);
    let expected = [&inserted, &inserted, &updated, &updated, &deleted, &deleted].map(Clone::clone);
    assert_rows(&case.rows(), &expected);

    case.psql(
        "insert into i values (1, 100, 'a'); update i set x = 'b'; update i set id = 2; update i set k = 200; delete from i;",
    );
    let i = [
        json!(["i", "c", null, {"id": 1, "k": 100, "x": "a"}]),
        json!(["i", "u", {"k": 100}, {"id": 1, "k": 100, "x": "b"}]),
        json!(["i", "u", {"k": 100}, {"id": 2, "k": 100, "x": "b"}]),
        json!(["i", "u", {"k": 100}, {"id": 2, "k": 200, "x": "b"}]),
        json!(["i", "d", {"k": 200}, null]),
    ];
    assert_rows(&case.rows(), &i);

    case.psql(
        "insert into two values (1, 'a', 2); update two set x = 'b'; update two set b = 3; delete from two;",
    );
    let two = [
        json!(["two", "c", null, {"a": 1, "x": "a", "b": 2}]),
        json!(["two", "u", {"a": 1, "b": 2}, {"a": 1, "x": "b", "b": 2}]),
        json!(["two", "u", {"a": 1, "b": 2}, {"a": 1, "x": "b", "b": 3}]),
        json!(["two", "d", {"a": 1, "b": 3}, null]),
    ];
    assert_rows(&case.rows(), &two);
    engine.stop();
}

/// The server sends such a key with the old row, and marks it as unchanged in the new one.
fn identity_columns_stored_out_of_line_are_in_both_images(version: u32) {
    let case = Case::new(
        version,
        "create table t (k text primary key, n int, big text) with (toast_tuple_target = 128);
         alter table t alter k set storage external;
         alter table t alter big set storage external;",
        "['public.%']",
    );
    let engine = case.home.start();
    case.psql(
        "insert into t values (repeat('k', 2000), 1, repeat('b', 5000)); update t set n = 2; delete from t;",
    );
    let (k, big) = ("k".repeat(2000), "b".repeat(5000));
    let expected = [
        json!(["t", "c", null, {"k": k, "n": 1, "big": big}]),
        json!(["t", "u", {"k": k}, {"k": k, "n": 2, "big": {"_unchanged": true}}]),
        json!(["t", "d", {"k": k}, null]),
    ];
    assert_rows(&case.rows(), &expected);
    engine.stop();
}

/// Tables whose updates the server would refuse to run while it publishes them.
fn tables_without_identity_stay_usable(version: u32) {
    let case = Case::new(
        version,
        "create table keyless (id int, x text);
         create table nothing (id int primary key, x text);
         alter table nothing replica identity nothing;
         create table deferred (id int primary key deferrable, x text);
         create table parted (id int, x text) partition by list (id);
         alter table parted replica identity full;
         create table parted_1 partition of parted for values in (1);
         create table parent (id int primary key, x text);
         -- Inherits the columns, but not the key.
         create table child () inherits (parent);",
        "['public.%']",
    );
    if version == 18 {
        case.psql(
            "create table virtual (id int primary key, x text, v int generated always as (id + 1) virtual);
             alter table virtual replica identity full;",
        );
    }
    let engine = case.home.start();
    let mut tables = vec!["keyless", "nothing", "deferred", "parted", "child"];
    if version == 18 {
        tables.push("virtual");
    }
    for table in &tables {
        case.psql(&format!(
            "insert into {table} values (1, 'a'); update {table} set x = 'b'; delete from {table}; truncate {table};"
        ));
        let mut rows = case.rows();
        let truncated = rows.pop().unwrap();
        assert_eq!([&truncated[0], &truncated[1]], [&json!(table), &json!("t")]);
        assert_rows(&rows, &[json!([table, "c", null, {"id": 1, "x": "a"}])]);
    }
    let log = engine.log();
    let finding = log.lines().find(|line| line.contains("no replica identity")).unwrap();
    for table in tables {
        assert!(finding.contains(&format!("\\\"{table}\\\"")), "{table} is not named: {finding}");
    }
    engine.stop();
}

fn full_identity_is_set_where_it_is_asked_for(version: u32) {
    let case = Case::new(
        version,
        "create table keyless (id int, x text);
         create table keyed (id int primary key, x text);
         create table parted (id int, x text) partition by list (id);
         create table parted_1 partition of parted for values in (1);",
        "['public.%'], replica_identity: full",
    );
    let engine = case.home.start();
    for table in ["keyless", "keyed", "parted"] {
        case.psql(&format!(
            "insert into {table} values (1, 'a'); update {table} set x = 'b'; delete from {table};"
        ));
        let (a, b) = (json!({"id": 1, "x": "a"}), json!({"id": 1, "x": "b"}));
        let expected =
            [json!([table, "c", null, a]), json!([table, "u", a, b]), json!([table, "d", b, null])];
        assert_rows(&case.rows(), &expected);
    }
    // One that appears later is altered before it is published.
    case.psql("create table late (id int, x text)");
    let identity = "select relreplident from pg_class where relname = 'late'";
    wait_for("the new table to get its identity", crate::PATIENCE, || case.psql(identity) == "f");
    case.wait_published("late");
    case.psql("insert into late values (1, 'a'); update late set x = 'b';");
    let (a, b) = (json!({"id": 1, "x": "a"}), json!({"id": 1, "x": "b"}));
    assert_rows(&case.rows(), &[json!(["late", "c", null, a]), json!(["late", "u", a, b])]);
    engine.stop();
}

/// A table moves from the publication for inserts to the other one by itself.
fn a_table_that_gains_an_identity_is_captured_whole(version: u32) {
    let case = Case::new(version, "create table t (id int not null, x text);", "['public.%']");
    let engine = case.home.start();
    case.psql("insert into t values (1, 'a'); update t set x = 'b';");
    assert_rows(&case.rows(), &[json!(["t", "c", null, {"id": 1, "x": "a"}])]);
    case.psql("alter table t add primary key (id)");
    let published = "select count(*) from pg_publication_tables where pubname = 'df' and tablename = 't'";
    wait_for("the table to be published for updates", crate::PATIENCE, || case.psql(published) == "1");
    case.psql("update t set x = 'c'; delete from t;");
    let expected = [json!(["t", "u", {"id": 1}, {"id": 1, "x": "c"}]), json!(["t", "d", {"id": 1}, null])];
    assert_rows(&case.rows(), &expected);
    engine.stop();
}
