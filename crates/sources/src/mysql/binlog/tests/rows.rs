//! Images of rows.

use super::*;

/// The events with rows of a table, each with the table's description.
fn rows(file: &'static [u8], name: &str) -> Vec<(TableMap<'static>, Rows<'static>)> {
    let (mut maps, mut out) = (HashMap::new(), Vec::new());
    for (_, event) in log(file) {
        match event {
            Event::TableMap(map) => drop(maps.insert(map.table_id, map)),
            Event::Rows(rows) if maps[&rows.table_id].table == name => out.push((maps[&rows.table_id], rows)),
            _ => {}
        }
    }
    out
}

#[test]
fn images_tell_absent_from_null() {
    use Slot::{Absent, Null, Value};
    let all = rows(MYSQL, "types");
    let of = |nth: usize| slots(&all[nth].0, &all[nth].1).unwrap().remove(0);
    assert_eq!(of(1)[1][..3], [Value, Null, Null], "an insert of one column, image FULL");
    let [before, after] = of(4);
    assert_eq!(before.iter().filter(|slot| **slot != Absent).count(), 1, "MINIMAL: the key");
    assert_eq!(after.iter().position(|slot| *slot == Value), Some(8), "MINIMAL: what changed");
    let [before, after] = of(5);
    assert_eq!((before.iter().filter(|slot| **slot == Value).count(), after.len()), (1, 0), "a delete");
    let noblob = rows(MYSQL, "nb");
    let noblob = slots(&noblob[1].0, &noblob[1].1).unwrap();
    assert_eq!(noblob, [[vec![Value, Absent, Value], vec![Value, Absent, Value]]]);
}

#[test]
fn an_insert_of_nothing_is_a_row() {
    let (map, rows) = rows(MYSQL, "dflt")[0];
    assert!(rows.data.is_empty() && !rows.is_empty());
    assert_eq!(slots(&map, &rows), Ok(vec![[vec![], vec![Slot::Absent]]]));
    let (mut end, mut bytes) = (rows, rows);
    end.table_id = Rows::NO_TABLE;
    assert_eq!(slots(&map, &end), Ok(vec![]), "an event that only ends a statement");
    bytes.data = &[0];
    assert!(slots(&map, &bytes).is_err(), "would never end");
}

#[test]
fn changes_of_json_are_told_from_values() {
    use Slot::{Absent, Diff, Value};
    let all = rows(MYSQL, "pj");
    let after = |nth: usize| slots(&all[nth].0, &all[nth].1).unwrap().remove(0)[1].clone();
    assert_eq!(after(0), [Value, Value, Value, Value]);
    assert_eq!(after(1), [Value, Diff, Diff, Value], "the second one has no changes");
    assert_eq!(after(2), [Value, Diff, Diff, Value]);
    assert_eq!(after(3), [Value, Diff, Value, Value]);
    assert_eq!(after(4), [Value, Value, Value, Value]);
    assert_eq!(after(5), [Absent, Absent, Diff, Absent], "MINIMAL: columns that are not there count too");
    assert!(all[1].1.images(1).unwrap().after().is_ok(), "one JSON column fewer");
}

#[test]
fn rows_of_another_layout_are_refused() {
    let body = |extra: &[u8], width: u16| {
        let mut out = vec![1, 0, 0, 0, 0, 0, 1, 0];
        out.extend(extra);
        out.push(252);
        out.extend(width.to_le_bytes());
        out.extend(vec![0xff; usize::from(width).div_ceil(8) * 2]);
        out.extend(b"data");
        out
    };
    let parse = |kind, body: &[u8]| Rows::parse(kind, body).map(|rows| rows.unwrap().data.len());
    assert_eq!(parse(EventType::UpdateRowsV1, &body(&[], 9)), Ok(4));
    assert_eq!(parse(EventType::UpdateRows, &body(&[5, 0, 1, 2, 3], 9)), Ok(4), "extra data is skipped");
    assert!(parse(EventType::UpdateRows, &body(&[1, 0], 9)).is_err(), "a length that does not count itself");
    assert_eq!(parse(EventType::UpdateRowsV1, &body(&[], MAX_COLUMNS as u16)), Ok(4));
    assert!(parse(EventType::UpdateRowsV1, &body(&[], MAX_COLUMNS as u16 + 1)).is_err());
    assert!(parse(EventType::UpdateRowsV1, &body(&[], 0)).is_err());
    assert!(Rows::parse(EventType::Xid, b"").unwrap().is_none());
    let body = body(&[], 9);
    for length in 0..body.len() - 4 {
        assert!(parse(EventType::UpdateRowsV1, &body[..length]).is_err(), "{length}");
    }
}
