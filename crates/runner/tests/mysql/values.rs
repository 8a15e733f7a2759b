//! Values of every type, as the guide's table has them.

use super::*;
use serde_json::json;

/// Type, value in SQL, value in the event.
fn cases(flavour: Flavour) -> Vec<(&'static str, &'static str, Value)> {
    let mut cases = vec![
        ("tinyint", "-128", json!(-128)),
        ("tinyint unsigned", "255", json!(255)),
        ("smallint unsigned", "65535", json!(65535)),
        ("mediumint", "-8388608", json!(-8_388_608)),
        ("mediumint unsigned", "16777215", json!(16_777_215)),
        ("int", "-2147483648", json!(-2_147_483_648_i64)),
        ("bigint", "-9223372036854775808", json!(i64::MIN)),
        ("bigint unsigned", "18446744073709551615", json!(u64::MAX)),
        ("bool", "true", json!(1)),
        ("decimal(10,2)", "'-1234.5'", json!("-1234.50")),
        ("decimal(65,30)", "'0.1'", json!("0.100000000000000000000000000000")),
        ("double", "0.1", json!(0.1)),
        ("bit(1)", "b'1'", json!(1)),
        ("bit(64)", "b'1111111111111111111111111111111111111111111111111111111111111111'", json!(u64::MAX)),
        ("year", "2025", json!(2025)),
        ("date", "'2025-01-15'", json!("2025-01-15")),
        ("datetime", "'2025-01-15 14:32:01'", json!("2025-01-15T14:32:01")),
        ("datetime(6)", "'2025-01-15 14:32:01.5'", json!("2025-01-15T14:32:01.5")),
        ("timestamp(3)", "'2025-01-15 14:32:01.25'", json!("2025-01-15T08:47:01.25Z")),
        ("time(6)", "'-838:59:58.000001'", json!("-838:59:58.000001")),
        ("time", "'04:05:06'", json!("04:05:06")),
        ("enum('x','ü')", "'ü'", json!("ü")),
        ("set('a','b','c')", "'c,a'", json!("a,c")),
        ("char(5)", "'ab'", json!("ab")),
        ("varchar(300) character set latin1", "'é€'", json!("é€")),
        ("text character set utf8mb4", "'😀'", json!("😀")),
        ("varchar(20) character set utf16", "'añ😀'", json!("añ😀")),
        ("varchar(20) character set sjis", "'日本'", json!("日本")),
        ("varchar(20) character set gbk", "'中文'", json!("中文")),
        ("binary(4)", "'a\\0'", json!({"_base64": "YQAAAA=="})),
        ("varbinary(10)", "x'00ff'", json!({"_base64": "AP8="})),
        ("longblob", "x'01'", json!({"_base64": "AQ=="})),
        ("point", "st_geomfromtext('POINT(1 2)')", json!({"srid": 0, "wkb": "AQEAAAAAAAAAAADwPwAAAAAAAABA"})),
        ("json", "'{\"b\": [1, 2.50, \"x\", null], \"a\": {}}'", Value::Null),
        ("date", "null", Value::Null),
    ];
    let json_at = cases.iter().position(|case| case.0 == "json").unwrap();
    cases[json_at].2 = json!({"a": {}, "b": [1, 2.5, "x", null]});
    match flavour {
        Flavour::MySql => cases.push(("vector(2)", "string_to_vector('[1,2.5]')", json!([1.0, 2.5]))),
        Flavour::MariaDb => {
            cases.push((
                "uuid",
                "'123e4567-e89b-12d3-a456-426655440000'",
                json!("123e4567-e89b-12d3-a456-426655440000"),
            ));
            cases.push(("inet6", "'2001:db8::ff00:42:8329'", json!("2001:db8::ff00:42:8329")));
            cases.push(("inet4", "'192.0.2.146'", json!("192.0.2.146")));
        }
    }
    cases
}

#[test]
fn values_are_those_of_the_guide() {
    for flavour in Flavour::available() {
        let server = own_server(flavour, &["--default-time-zone=+05:45"]);
        let db = server.fresh_db("types");
        let cases = cases(flavour);
        let columns: Vec<_> =
            cases.iter().enumerate().map(|(i, case)| format!("c{i} {} null", case.0)).collect();
        server.sql(&db, &format!("create table t (id int primary key, {}, tail int)", columns.join(", ")));
        let home = home(&server, &db, "");
        let engine = home.start();
        let values: Vec<_> = cases.iter().map(|case| case.1).collect();
        server.sql(&db, &format!("insert into t values (1, {}, 77)", values.join(", ")));
        server.sql(&db, "update t set tail = 78; delete from t");
        let events = home.wait_events(3);
        for image in [&events[0]["after"], &events[1]["before"], &events[1]["after"], &events[2]["before"]] {
            for (i, (ty, value, expected)) in cases.iter().enumerate() {
                assert_eq!(&image[format!("c{i}")], expected, "{}: {ty} {value}", flavour.name());
            }
        }
        assert_eq!(events[1]["after"]["tail"], 78);
        engine.stop();
    }
}

#[test]
fn zero_dates_follow_their_setting() {
    for flavour in Flavour::available() {
        let server = server(flavour);
        for (setting, day, moment) in
            [("'null'", Value::Null, Value::Null), ("string", json!("2024-00-15"), json!("0000-00-00"))]
        {
            let db = server.fresh_db("zero");
            server.sql(
                &db,
                "create table t (id int primary key, d date null, m datetime null, n date not null)",
            );
            let home = home(server, &db, &format!(", zero_date: {setting}"));
            let engine = home.start();
            server.sql(&db, "set sql_mode = ''; insert into t values (1, '2024-00-15', 0, '0000-00-00')");
            let events = home.wait_events(1);
            assert_eq!(
                events[0]["after"],
                json!({"id": 1, "d": day, "m": moment, "n": "0000-00-00"}),
                "{}",
                flavour.name()
            );
            engine.stop();
        }
    }
}
