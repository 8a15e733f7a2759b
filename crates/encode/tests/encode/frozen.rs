//! An event that was kept as a dead letter is sent as the same bytes, in every envelope.

use super::envelopes::plan;
use super::fixture::{Maker, context, orders, text};
use deltaforge_core::batch::{freeze, thaw};
use deltaforge_core::value::{Date, Interval, Moment, TimeTz};
use deltaforge_core::{Batch, Event, Op, Value};
use deltaforge_encode::Encoder;
use deltaforge_encode::template::Template;
use proptest::prelude::*;

const ENVELOPES: [&str; 3] = ["native", "debezium", "cloudevents"];
const TEMPLATES: [&str; 2] = [
    "${source.db}.${source.table}.${event.op}.${transaction.id:-none}",
    "${after.id:-x}/${before.status:-y}",
];

/// Everything that a sink makes of an event.
fn everything(batch: &Batch, event: &Event<'_>) -> Vec<String> {
    let mut all = Vec::new();
    for envelope in ENVELOPES {
        let plan = plan(serde_json::json!({"envelope": {"type": envelope}}));
        let mut encoder = Encoder::new(&plan, &context());
        encoder.prepare(batch);
        all.push(text(|out| encoder.event(event, out)));
        all.push(text(|out| encoder.key(event, out)));
        all.push(text(|out| {
            encoder.old_key(event, out);
        }));
    }
    for template in TEMPLATES {
        let Ok(template) = Template::parse(template) else { continue };
        all.push(text(|out| {
            let _ = template.render(event, &context(), out);
        }));
    }
    all
}

fn check(batch: &Batch) {
    for event in batch.events() {
        let frozen = freeze(batch, event.id()).unwrap();
        let thawed = thaw(&frozen).unwrap();
        assert_eq!((thawed.len(), thawed.end()), (1, None));
        assert_eq!(everything(&thawed, &thawed.event(0).unwrap()), everything(batch, &event));
    }
}

/// A value of any kind that needs no memory beside `words`.
fn value(words: &(String, Vec<u8>), kind: u8, n: i64) -> Value<'_> {
    let moment = Moment { secs: n % 100_000_000_000, nanos: (n.unsigned_abs() % 1_000_000_000) as u32 };
    match kind % 17 {
        0 => Value::Null,
        1 => Value::Absent,
        2 => Value::Bool(n > 0),
        3 => Value::Int(n),
        4 => Value::Uint(n.unsigned_abs()),
        5 => Value::Float32(n as f32 / 3.0),
        6 => Value::Float64(n as f64 / 7.0),
        7 => Value::Decimal("-12.50"),
        8 => Value::Text(&words.0),
        9 => Value::Bytes(&words.1),
        10 => Value::Json(r#"{"k":[1,null]}"#),
        11 => Value::Date(Date { days: (n % 100_000) as i32 }),
        12 => Value::Time(n % 86_400_000_000),
        13 => Value::TimeTz(TimeTz { micros: n.rem_euclid(86_400_000_000), offset_secs: 3600 }),
        14 => Value::DateTime(moment),
        15 => Value::Timestamp(moment),
        _ => Value::Interval(Interval { months: 1, days: -2, micros: n % 1_000_000_000 }),
    }
}

proptest! {
    #[test]
    fn any_event_is_the_same_again(
        words in (".*", proptest::collection::vec(any::<u8>(), 0..40)),
        rows in proptest::collection::vec((0_u8..6, any::<[(u8, i64); 8]>(), any::<bool>()), 1..6),
        transaction in any::<bool>(),
    ) {
        let mut maker = Maker::new(orders());
        if transaction {
            maker.begin("755", 1_736_951_521_847_123);
        }
        for (op, cells, with_ddl) in &rows {
            let ops = [Op::Create, Op::Update, Op::Delete, Op::Read, Op::Truncate, Op::Ddl];
            let op = ops[usize::from(*op)];
            let values: Vec<_> = cells.iter().map(|(kind, n)| value(&words, *kind, *n)).collect();
            let before = matches!(op, Op::Update | Op::Delete).then_some(&values[..4]);
            let after = matches!(op, Op::Create | Op::Update | Op::Read).then_some(&values[4..]);
            let ddl = (*with_ddl || matches!(op, Op::Truncate | Op::Ddl)).then_some(r#"{"sql":"x"}"#);
            maker.event(op, before, after, ddl);
        }
        check(&maker.finish());
    }
}
