//! Every value of every type, through the real binary, compared with what the server that stores it says.
//!
//! Each case is inserted and updated in two databases. One is as `initdb` made it; in the other everything that changes how
//! values print is set to something else, for the database and for the role. Both must give the same bytes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "in a test, a panic with a clear message is how a failure is reported"
)]

#[path = "../support/mod.rs"]
mod support;

mod cases;
mod encodings;

use cases::{PINNED, SETUP, TYPES, Type};
use deltaforge_testkit::servers::{PgOptions, PgVersion, Postgres};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use support::{Home, pipeline, source};

/// A table of cases.
struct Table {
    name: String,
    of: String,
    /// SQL for the JSON text of `t.v`.
    oracle: String,
    /// SQL for each value; a NULL is added to them.
    values: Vec<String>,
    float: bool,
}

/// The tables of a version: one per type, one per array type, a composite with all types as members, and its array.
fn tables(version: u32) -> Vec<Table> {
    let types: Vec<&Type> = TYPES.iter().filter(|of| of.since <= version).collect();
    let own = |(i, of): (usize, &&Type)| Table {
        name: format!("g{i}"),
        of: of.name.into(),
        oracle: of.oracle.into(),
        values: of.values.iter().map(|value| format!("({value})::{}", of.name)).collect(),
        float: of.float,
    };
    let mut tables: Vec<Table> = types.iter().enumerate().map(own).collect();
    let nesting = || types.iter().enumerate().filter(|(_, of)| of.nests);
    let members: Vec<String> = nesting()
        .map(|(i, of)| {
            format!("'\"m{i}\":' || (select {} from (select (o.v).m{i} as v) t)", or_null(of.oracle))
        })
        .collect();
    // The server's functions take 100 arguments and no more, `||` takes any number.
    let everything = format!("(select '{{' || {} || '}}' from (select v) o)", members.join(" || ',' || "));
    let of_row = |n: usize| {
        let members: Vec<String> =
            nesting().map(|(i, _)| format!("(select v from g{i} where n = {n})")).collect();
        format!("row({})::everything", members.join(", "))
    };
    let values = (1..=4).map(of_row).collect();
    tables.push(Table { name: "e".into(), of: "everything".into(), oracle: everything, values, float: true });
    let arrays: Vec<Table> = tables
        .iter()
        .enumerate()
        .filter(|(i, table)| types.get(*i).is_none_or(|of| of.nests) && !table.values.is_empty())
        .map(|(_, table)| array(table))
        .collect();
    tables.extend(arrays);
    tables
}

/// An oracle that knows NULL. `IS NULL` would also be true of a composite whose members are all null.
fn or_null(oracle: &str) -> String {
    format!("case when num_nulls(v) = 0 then {oracle} else 'null' end")
}

/// The arrays over the values of a table: all of them with a NULL, none, and twice all of them in two dimensions.
fn array(of: &Table) -> Table {
    let Table { name, of: element, oracle, .. } = of;
    let all = format!("(select array_agg(v order by n) from {name})");
    let values = [all.clone(), "'{}'".into(), format!("(select array[x, x] from (select {all}) s(x))")];
    let list = |dimension: u32, item: &str, i: &str| {
        format!(
            "'[' || (select string_agg({item}, ',' order by {i}) from generate_subscripts(a.v, {dimension}) {i}) || ']'"
        )
    };
    let item =
        |subscripts: &str| format!("(select {} from (select a.v{subscripts} as v) t)", or_null(oracle));
    let oracle = format!(
        "(select case when array_ndims(v) is null then '[]' when array_ndims(v) = 1 then {} \
         else {} end from (select t.v) a)",
        list(1, &item("[i]"), "i"),
        list(1, &list(2, &item("[i][j]"), "j"), "i"),
    );
    Table {
        name: format!("a_{name}"),
        of: format!("{element}[]"),
        oracle,
        values: values.map(|value| format!("{value}::{element}[]")).into(),
        float: of.float,
    }
}

fn create(tables: &[Table]) -> String {
    let mut sql = SETUP.to_owned();
    for table in tables {
        if table.name == "e" {
            let members = TYPES.len();
            let member = |i: usize| {
                let of = tables.iter().find(|t| t.name == format!("g{i}"))?;
                table.oracle.contains(&format!("m{i}\"")).then(|| format!("m{i} {}", of.of))
            };
            let members: Vec<String> = (0..members).filter_map(member).collect();
            write!(sql, "create type everything as ({});", members.join(", ")).unwrap();
        }
        // What stands before and after the value must not be touched by how the value is read.
        write!(
            sql,
            "create table {0} (n int primary key, a int not null default 7701, v {1}, z text not null default 'sentinel');
             alter table {0} replica identity full;\n",
            table.name, table.of
        )
        .unwrap();
    }
    sql
}

fn fill(tables: &[Table]) -> String {
    let mut sql = PINNED.replace("pg_catalog", "public");
    for Table { name, values, .. } in tables {
        let rows = values.iter().map(String::as_str).chain(["null"]).enumerate();
        let rows: Vec<String> = rows.map(|(i, value)| format!("({}, {value})", i + 1)).collect();
        writeln!(sql, "insert into {name} (n, v) values {};", rows.join(", ")).unwrap();
        writeln!(sql, "update {name} set a = 7702;").unwrap();
    }
    sql
}

/// What the server says of each value, by table and row.
fn expected(postgres: &Postgres, db: &str, tables: &[Table]) -> BTreeMap<(String, u32), String> {
    let mut sql = PINNED.to_owned();
    for Table { name, oracle, .. } in tables {
        // Hexadecimal, because values hold whatever psql separates rows and columns by.
        let json = or_null(oracle);
        writeln!(sql, "select '{name}', n, encode(convert_to({json}, 'UTF8'), 'hex') from public.{name} t;")
            .unwrap();
    }
    let answer = postgres.psql(db, &sql);
    let row = |line: &str| {
        let mut parts = line.split('|');
        let mut next = || parts.next().unwrap().to_owned();
        ((next(), next().parse().unwrap()), String::from_utf8(unhex(&next())).unwrap())
    };
    answer.lines().map(row).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    text.as_bytes().chunks(2).map(byte).collect()
}

/// A JSON object with its members as they were written.
type Object = BTreeMap<String, Box<RawValue>>;

fn object(text: &str) -> Object {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:.300}"))
}

/// Checks every event of one database; gives the images by table, row and operation, and what is wrong.
fn check(
    lines: &[String],
    expected: &BTreeMap<(String, u32), String>,
    tables: &[Table],
) -> (Vec<String>, Vec<String>) {
    let (mut images, mut wrong) = (Vec::new(), Vec::new());
    for line in lines {
        let event = object(line);
        let (source, op) = (object(event["source"].get()), event["op"].get());
        let name: String = serde_json::from_str(source["table"].get()).unwrap();
        let table = tables.iter().find(|table| table.name == name).unwrap();
        images.push(format!("{name} {op} {} {}", event["before"].get(), event["after"].get()));
        let (before, after) = match op {
            "\"c\"" => (None, "7701"),
            "\"u\"" => (Some("7701"), "7702"),
            other => panic!("op {other}"),
        };
        assert_eq!(event["before"].get() == "null", before.is_none(), "{line:.300}");
        for (member, marker) in [("before", before), ("after", Some(after))] {
            let Some(marker) = marker else { continue };
            let row = object(event[member].get());
            let n = row["n"].get().parse().unwrap();
            let expected = &expected[&(name.clone(), n)];
            let value = row["v"].get();
            let same = if table.float { normal(value) == normal(expected) } else { value == expected };
            if !same {
                wrong.push(format!(
                    "{} row {n}, {member} of {op}:\n  {value:.400}\nserver:\n  {expected:.400}",
                    table.of
                ));
            }
            assert_eq!(
                (row["a"].get(), row["z"].get()),
                (marker, "\"sentinel\""),
                "beside {} row {n}",
                table.of
            );
        }
    }
    (images, wrong)
}

fn first(wrong: &[String]) -> String {
    wrong.iter().take(20).map(String::as_str).collect::<Vec<_>>().join("\n")
}

/// Every number of a JSON text as sign, digits and power of ten, so that equal numbers are equal texts.
fn normal(json: &str) -> String {
    let (mut out, mut rest) = (String::new(), json);
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => string_length(rest),
            '-' | '0'..='9' => rest.find(|c: char| !"+-.eE0123456789".contains(c)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        out.push_str(&if length > 0 && first != '"' && (first == '-' || first.is_ascii_digit()) {
            number(token)
        } else {
            token.into()
        });
        rest = after;
    }
    out
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    end.unwrap().0 + 1
}

fn number(token: &str) -> String {
    let (mantissa, exponent) = token.split_once(['e', 'E']).unwrap_or((token, "0"));
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let kept = digits.trim_end_matches('0');
    let power = exponent.parse::<i64>().unwrap() - fraction.len() as i64 + (digits.len() - kept.len()) as i64;
    if kept.is_empty() { format!("{sign}0") } else { format!("{sign}{kept}e{power}") }
}

/// Settings that change how values print, for the database and for the role.
const HOSTILE: &str = "
create role hostile superuser replication login;
alter role hostile set datestyle = 'SQL, DMY';
alter role hostile set intervalstyle = 'postgres_verbose';
alter role hostile set timezone = 'Asia/Kathmandu';
alter role hostile set bytea_output = 'escape';
alter role hostile set extra_float_digits = -15;
alter role hostile set client_encoding = 'LATIN1';
alter role hostile set search_path = 'other, public';
alter role hostile set quote_all_identifiers = on;
alter role hostile set statement_timeout = '1s';
alter role hostile set standard_conforming_strings = off;
";
const HOSTILE_DATABASE: &str = "
alter database $DB set datestyle = 'German';
alter database $DB set intervalstyle = 'sql_standard';
alter database $DB set timezone = 'America/St_Johns';
alter database $DB set bytea_output = 'escape';
alter database $DB set extra_float_digits = -10;
alter database $DB set xmlbinary = 'hex';
";

fn every_type(version: PgVersion, number: u32) {
    let postgres = Postgres::start(version, &PgOptions::default()).unwrap();
    let tables = tables(number);
    let (plain, hostile) = (postgres.fresh_db("plain"), postgres.fresh_db("hostile"));
    for db in [&plain, &hostile] {
        postgres.psql(db, &create(&tables));
    }
    postgres.psql(&hostile, &format!("{HOSTILE}{}", HOSTILE_DATABASE.replace("$DB", &hostile)));
    let document = |name: &str, dsn: &str| {
        let source = source(dsn, "['public.%']").replace("slot: df", &format!("slot: df_{name}"));
        pipeline(name, &source, &[&format!("{{ type: file, config: {{ path: '$HOME/{name}.jsonl' }} }}")])
    };
    let hostile_dsn = postgres.dsn(&hostile).replace("postgres@", "hostile@");
    let home = Home::new(&[
        ("plain.yaml", &document("plain", &postgres.dsn(&plain))),
        ("hostile.yaml", &document("hostile", &hostile_dsn)),
    ]);
    let engine = home.start();
    for db in [&plain, &hostile] {
        postgres.psql(db, &fill(&tables));
    }

    let expected = expected(&postgres, &plain, &tables);
    let cases = expected.len();
    let lines = home.wait_lines("plain.jsonl", cases * 2);
    let (images, wrong) = check(&lines, &expected, &tables);
    assert!(wrong.is_empty(), "{} images are wrong\n{}", wrong.len(), first(&wrong));
    assert_eq!(images.len(), cases * 2, "each row once inserted and once updated");
    let (hostile_images, wrong) = check(&home.wait_lines("hostile.jsonl", cases * 2), &expected, &tables);
    assert!(wrong.is_empty(), "under hostile settings {} images are wrong\n{}", wrong.len(), first(&wrong));
    assert!(images == hostile_images, "settings of the role or the database have changed what is written");
    let metrics = engine.get("/metrics").1;
    let fallbacks: Vec<&str> =
        metrics.lines().filter(|line| line.starts_with("deltaforge_value_fallbacks_total{")).collect();
    assert!(
        fallbacks.iter().all(|line| line.ends_with(" 0")),
        "values that did not read as their type: {fallbacks:?}"
    );
    println!("PostgreSQL {number}: {cases} type cases, {} images compared", cases * 2 * 3);
    engine.stop();
}

#[test]
fn every_type_of_postgresql_15() {
    every_type(PgVersion::V15, 15);
}

#[test]
fn every_type_of_postgresql_18() {
    every_type(PgVersion::V18, 18);
}
