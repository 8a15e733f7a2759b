//! Routing templates.

use super::fixture::{Row, context, one, one_with_ddl, orders, schema};
use deltaforge_core::value::Date;
use deltaforge_core::{Batch, Class, Op, TableName, Value};
use deltaforge_encode::template::{self, Template};

fn parse(text: &str) -> Template {
    Template::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// (as a route, as a key)
fn fill(text: &str, batch: &Batch) -> (Result<String, String>, Result<String, String>) {
    let event = batch.event(0).expect("an event");
    let run = |json: bool| {
        let mut out = b"kept".to_vec();
        let template = parse(text);
        let result = if json {
            template.render_json(&event, &context(), &mut out)
        } else {
            template.render(&event, &context(), &mut out)
        };
        let out =
            String::from_utf8(out).unwrap().strip_prefix("kept").expect("what was there stays").to_string();
        result.map_err(|e| {
            assert_eq!(out, "", "nothing of a failed template stays");
            e.to_string()
        })?;
        Ok(out)
    };
    (run(false), run(true))
}

const ROW: Row<'static> = &[
    Value::Int(7),
    Value::Text("a/b \"q\""),
    Value::Decimal("99.90"),
    Value::Json(r#"{"k":[1],"s":"x\ny","deep":{"n":1.50,"z":null}}"#),
];

#[test]
fn every_field() {
    let batch = one(orders(), Op::Update, Some(ROW), Some(ROW));
    let event = batch.event(0).expect("an event");
    let id = event.id().to_string();
    let fingerprint = event.table().fingerprint.to_string();
    let version = concat!("deltaforge-", env!("CARGO_PKG_VERSION"));
    let cases = [
        ("plain", "plain"),
        ("", ""),
        ("$ and $x and }", "$ and $x and }"),
        ("a$${x} $$${event.op}$${", "a${x} $${event.op}${"),
        ("${source.version}", version),
        ("${source.connector}.${source.name}", "postgresql.orders"),
        ("cdc.${source.db}.${source.schema}.${source.table}", "cdc.shop.public.orders"),
        ("${source.ts_ms} ${source.ts_us}", "1736951521847 1736951521847123"),
        ("${source.lsn}", "0/16B6C50"),
        ("${source.sequence}", r#"["24023128","24023192"]"#),
        ("${source.txId}", "755"),
        ("${source.snapshot:-false}", "false"),
        ("${event.op}/${event.tenant_id}", "u/acme"),
        ("${event.ts_ms}", "1736951521853"),
        ("${event.event_id}", &id),
        ("${event.schema_version}", &fingerprint),
        ("${event.schema_sequence}", "3"),
        ("${event.transaction.id}-${event.transaction.total_order}", "755-1"),
        ("${event.transaction.data_collection_order}", "1"),
        ("${event.source.table}", "orders"),
        ("${after.id}", "7"),
        ("${before.status}", "a/b \"q\""),
        ("${event.after.total}", "99.90"),
        ("${after.doc.s}", "x\ny"),
        ("${after.doc.deep.n}", "1.50"),
        ("${after.doc.none:-fall:back}", "fall:back"),
        ("${after.doc.deep.z:-}", ""),
    ];
    for (text, expected) in cases {
        let expected = || Ok(expected.to_string());
        assert_eq!(fill(text, &batch), (expected(), expected()), "{text}");
    }
    assert_eq!(parse("plain").is_constant(), Some("plain"));
    assert_eq!(parse("").is_constant(), Some(""));
    assert_eq!(parse("a${event.op}").is_constant(), None);
}

#[test]
fn objects_are_for_keys_only() {
    let batch = one(orders(), Op::Create, None, Some(ROW));
    let object = |name: &str| Err(format!("`${{{name}}}` is an object or list, which names no target"));
    let cases = [
        ("after.doc.k", "[1]"),
        ("after.doc.deep", r#"{"n":1.50,"z":null}"#),
        (
            "event.after",
            r#"{"id":7,"status":"a/b \"q\"","total":"99.90","doc":{"k":[1],"s":"x\ny","deep":{"n":1.50,"z":null}}}"#,
        ),
    ];
    for (name, json) in cases {
        assert_eq!(fill(&format!("${{{name}}}"), &batch), (object(name), Ok(json.to_string())));
    }
    let fallback = fill("${after.doc:-none}", &batch);
    assert_eq!(fallback.0, Ok("none".to_string()));
    assert!(fallback.1.is_ok_and(|json| json.starts_with('{')));
}

#[test]
fn other_values_print_bare() {
    let columns = ["date", "flag", "float", "uuid", "bytes"];
    let row: Row<'_> = &[
        Value::Date(Date { days: 0 }),
        Value::Bool(true),
        Value::Float64(f64::NAN),
        Value::Uuid(&[0xab; 16]),
        Value::Bytes(b"x"),
    ];
    let batch = one(schema(TableName::bare("f", "t"), &columns, &[]), Op::Create, None, Some(row));
    let text = fill("${after.date} ${after.flag} ${after.float} ${after.uuid}", &batch).0;
    assert_eq!(text, Ok("1970-01-01 true NaN abababab-abab-abab-abab-abababababab".into()));
    assert!(fill("${after.bytes}", &batch).0.is_err());
}

#[test]
fn what_an_event_lacks() {
    let row: Row<'_> = &[Value::Int(7), Value::Null, Value::Absent, Value::Json("null")];
    let update = one(orders(), Op::Update, None, Some(row));
    let delete = one(orders(), Op::Delete, Some(ROW), None);
    let read = one(orders(), Op::Read, None, Some(ROW));
    let ddl = one_with_ddl(orders(), Op::Ddl, None, None, Some(r#"{"kind":"alter"}"#));
    let missing = |name: &str| Err(format!("`${{{name}}}` is not in the event"));
    let null = |name: &str| Err(format!("`${{{name}}}` is null in the event"));
    let cases = [
        (&update, "after.status", null("after.status")),
        (&update, "after.total", missing("after.total")),
        (&update, "after.doc", null("after.doc")),
        (&update, "after.region", missing("after.region")),
        (&update, "after.id.x", missing("after.id.x")),
        (&update, "before.id", null("before.id")),
        (&update, "source.snapshot", missing("source.snapshot")),
        (&update, "source.gtid", missing("source.gtid")),
        (&update, "event.ddl", missing("event.ddl")),
        (&delete, "after.id", null("after.id")),
        (&read, "event.transaction.id", missing("event.transaction.id")),
        (&read, "source.sequence", missing("source.sequence")),
        (&read, "source.snapshot", Ok("true".to_string())),
        (&ddl, "event.ddl.kind", Ok("alter".to_string())),
    ];
    for (batch, name, expected) in cases {
        let filled = fill(&format!("x${{{name}}}y"), batch);
        let expected = expected.map(|text| format!("x{text}y"));
        assert_eq!(filled, (expected.clone(), expected), "{name}");
    }
    let event = delete.event(0).expect("an event");
    let error = parse("${after.id}").render(&event, &context(), &mut Vec::new()).unwrap_err();
    let fault = error.fault(event.id());
    assert_eq!(
        (fault.class(), fault.code(), fault.event_id()),
        (Class::Data, "sink.not_routable", Some(event.id().to_string().as_str()))
    );
    assert_eq!(fault.hint_text(), Some("give it a fallback: `${after.id:-text}`"));
}

#[test]
fn bad_templates() {
    let cases = [
        ("a${b", "`${` at character 2 has no closing `}`"),
        ("größe ${after.a}${", "`${` at character 17 has no closing `}`"),
        (
            "${HOME}",
            "`${HOME}` at character 1: expected a name with a dot, such as `source.table` or `after.id`",
        ),
        ("${}", "`${}` at character 1: a name between dots is empty"),
        ("x${after.}", "`${after.}` at character 2: a name between dots is empty"),
        ("${after.a.b.c.d}", "`${after.a.b.c.d}` at character 1: at most 4 names, found 5"),
        (
            "${after.a:b}",
            "`${after.a:b}` at character 1: after the name stands `:-` and a fallback, or nothing",
        ),
        (
            "${afte.a}",
            "`${afte.a}` at character 1: `afte` is not a known root; did you mean `after`? one of before, after, source, event",
        ),
        ("${event.tags}", "`${event.tags}` at character 1: `event.tags` is planned, not in this release"),
        ("${event.source}", "`${event.source}` at character 1: `source` is an object: name a member of it"),
        (
            "${event.transaction}",
            "`${event.transaction}` at character 1: `event.transaction` is an object: name a member of it",
        ),
        ("${event.op.x}", "`${event.op.x}` at character 1: `event.op` has no members"),
        ("${source.table.x}", "`${source.table.x}` at character 1: `source.table` has no members"),
    ];
    for (text, expected) in cases {
        assert_eq!(Template::parse(text).err().as_deref(), Some(expected), "{text}");
    }
    let unknown = Template::parse("${event.opp}").unwrap_err();
    assert!(unknown.contains("did you mean `op`? one of op, ts_ms, event_id"), "{unknown}");
    let unknown = Template::parse("${event.transaction.total}").unwrap_err();
    assert!(unknown.contains("is not a known member of `transaction`"), "{unknown}");
}

#[test]
fn source_names_are_checked_against_the_source() {
    let source = context().source;
    assert_eq!(parse("${source.table}${source.txId}${after.x}").check(&source), Ok(()));
    let error = parse("${source.tabel}").check(&source).unwrap_err();
    assert!(error.starts_with("`${source.tabel}`: `tabel` is not a known member of `source` with connector `postgresql`; did you mean `table`?"), "{error}");
    assert!(parse("${source.gtid}").check(&source).is_err());
}

#[test]
fn filled_in_parts_are_cleaned_and_the_rest_is_not() {
    let batch = one(orders(), Op::Create, None, Some(ROW));
    let event = batch.event(0).expect("an event");
    let run = |text: &str, clean: &dyn Fn(&mut Vec<u8>, usize)| {
        let mut out = Vec::new();
        parse(text).render_clean(&event, &context(), clean, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let path = run("/data/${after.status}.jsonl", &|out, from| template::replace(out, from, |b| b == b'/'));
    assert_eq!(path, "/data/a_b \"q\".jsonl");
    let url = run("https://h/a/${after.status}/ü", &template::percent_encode);
    assert_eq!(url, "https://h/a/a%2Fb%20%22q%22/ü");
}
