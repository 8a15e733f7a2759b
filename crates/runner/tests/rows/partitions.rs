//! Partitioned tables: one table to the consumer, whatever happens to its parts.

use crate::{Case, assert_rows, on_both_versions};
use serde_json::json;

on_both_versions!(parts_carry_the_name_of_the_root, parts_come_and_go);

fn parts_carry_the_name_of_the_root(version: u32) {
    let case = Case::new(
        version,
        "create table root (id int, region text, x text, primary key (id, region)) partition by list (region);
         create table root_eu partition of root for values in ('eu') partition by range (id);
         create table root_eu_1 partition of root_eu for values from (0) to (100);
         -- Columns in another order, and one that was dropped: the row has to be the root's all the same.
         create table root_us (gone int, x text, region text not null, id int not null, primary key (id, region));
         alter table root_us drop column gone;
         alter table root attach partition root_us for values in ('us');
         create table root_default partition of root default;",
        "['public.%']",
    );
    let engine = case.home.start();
    case.psql(
        "insert into root values (1, 'eu', 'a'), (2, 'us', 'b'), (3, 'xx', 'c');
         insert into root_eu_1 values (4, 'eu', 'direct');
         update root set x = 'new' where id = 2;
         update root set region = 'us' where id = 1;
         delete from root where id = 3;
         truncate root;",
    );
    let mut rows = case.rows();
    let truncated = rows.pop().unwrap();
    assert_eq!(truncated[1], "t");
    assert_eq!(truncated[0], "root");
    let row = |id: i32, region: &str, x: &str| json!({"id": id, "region": region, "x": x});
    let key = |id: i32, region: &str| json!({"id": id, "region": region});
    let expected = [
        json!(["root", "c", null, row(1, "eu", "a")]),
        json!(["root", "c", null, row(2, "us", "b")]),
        json!(["root", "c", null, row(3, "xx", "c")]),
        json!(["root", "c", null, row(4, "eu", "direct")]),
        json!(["root", "u", key(2, "us"), row(2, "us", "new")]),
        // A row that moves to another part is deleted here and inserted there, also for the server.
        json!(["root", "d", key(1, "eu"), null]),
        json!(["root", "c", null, row(1, "us", "a")]),
        json!(["root", "d", key(3, "xx"), null]),
    ];
    assert_rows(&rows, &expected);
    engine.stop();
}

fn parts_come_and_go(version: u32) {
    let case = Case::new(
        version,
        "create table root (id int primary key, x text) partition by range (id);
         create table low partition of root for values from (0) to (10);
         create table high (id int primary key, x text);",
        "['public.%']",
    );
    let engine = case.home.start();
    case.psql(
        "insert into low values (1, 'part'); insert into high values (11, 'alone');
         begin; alter table root attach partition high for values from (10) to (20); insert into high values (12, 'part'); commit;
         insert into root values (13, 'part');
         alter table root detach partition high;",
    );
    let expected = [
        json!(["root", "c", null, {"id": 1, "x": "part"}]),
        json!(["high", "c", null, {"id": 11, "x": "alone"}]),
        json!(["root", "c", null, {"id": 12, "x": "part"}]),
        json!(["root", "c", null, {"id": 13, "x": "part"}]),
    ];
    assert_rows(&case.rows(), &expected);

    // A part that was made as such and then detached is a table that has appeared.
    case.psql("alter table root detach partition low");
    case.wait_published("low");
    case.psql("insert into low values (2, 'alone'); insert into high values (14, 'alone');");
    let expected = [
        json!(["low", "c", null, {"id": 2, "x": "alone"}]),
        json!(["high", "c", null, {"id": 14, "x": "alone"}]),
    ];
    assert_rows(&case.rows(), &expected);
    engine.stop();
}
