//! Whole logs of real servers (`fixtures`, each beside the statements that made it), and what must hold of damaged ones.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test, a panic with a clear message is how a failure is reported"
)]

mod events;
mod rows;
mod tables;
mod transactions;

use super::*;
use std::collections::{HashMap, HashSet};

pub(super) const MYSQL: &[u8] = include_bytes!("../fixtures/mysql.bin");
pub(super) const MARIADB: &[u8] = include_bytes!("../fixtures/mariadb.bin");

/// A file's events: offset, bytes.
pub(super) fn events(file: &'static [u8]) -> Vec<(usize, &'static [u8])> {
    assert_eq!(&file[..4], b"\xfebin");
    let (mut events, mut at) = (Vec::new(), 4);
    while at < file.len() {
        let header = Header::parse(file[at..].first_chunk().unwrap()).unwrap();
        let end = at + header.size as usize;
        events.push((at, &file[at..end]));
        at = end;
    }
    events
}

/// The same, decoded.
pub(super) fn log(file: &'static [u8]) -> Vec<(Header, Event<'static>)> {
    let mut format = Format { checksum: Checksum::Unknown, mariadb: false };
    let mut log = Vec::new();
    for (at, event) in events(file) {
        let (header, body) = header::split(event, format.checksum).unwrap();
        assert_eq!(header.end_pos as usize, at + event.len());
        let event =
            decode(&header, body, format).unwrap_or_else(|e| panic!("{at} {}: {e}", header.kind.name()));
        if let Event::FormatDescription(description) = event {
            format = description.format;
        }
        log.push((header, event));
    }
    log
}

fn json_columns(columns: &[Column]) -> usize {
    columns.iter().filter(|column| column.ty == ColumnType::Json).count()
}

/// Reads over a cell.
fn skip(column: Column, r: &mut Bytes<'_>) -> Result<()> {
    use ColumnType::*;
    let meta = usize::from(column.meta);
    let fraction = meta.div_ceil(2);
    let length = match column.ty {
        Tiny | Year => 1,
        Short => 2,
        Int24 | Date | NewDate | Time => 3,
        Long | Float | Timestamp => 4,
        LongLong | Double | DateTime => 8,
        Time2 => 3 + fraction,
        Timestamp2 => 4 + fraction,
        DateTime2 => 5 + fraction,
        Enum | Set => meta,
        Bit => meta.div_ceil(8),
        VarChar | VarCharCompressed | VarString | String => r.uint(1 + usize::from(meta > 255), "")? as usize,
        Blob | BlobCompressed | Json | Vector | Geometry => r.uint(meta, "")? as usize,
        NewDecimal => {
            let packed = |digits: usize| digits / 9 * 4 + [0, 1, 1, 2, 2, 3, 3, 4, 4][digits % 9];
            packed(meta / 256 - meta % 256) + packed(meta % 256)
        }
        ty => panic!("{ty:?}"),
    };
    r.take(length, "a cell").map(drop)
}

fn image(mut image: Image<'_>, columns: &[Column], r: &mut Bytes<'_>) -> Result<Vec<Slot>> {
    let slots = columns.iter().map(|column| {
        let slot = image.slot(column.ty);
        match slot {
            Slot::Value => skip(*column, r)?,
            // Changes of JSON come behind a length of four bytes.
            Slot::Diff => drop(r.u32("").and_then(|length| r.take(length as usize, ""))?),
            Slot::Absent | Slot::Null => {}
        }
        Ok(slot)
    });
    slots.collect()
}

/// What the images of an event's rows have: before and after, for each row.
fn slots(map: &TableMap<'_>, rows: &Rows<'_>) -> Result<Vec<[Vec<Slot>; 2]>> {
    let columns = map.columns()?;
    assert_eq!(rows.width, columns.len());
    let mut images = rows.images(json_columns(&columns))?;
    let mut out = Vec::new();
    while images.next_row() {
        let mut row = [Vec::new(), Vec::new()];
        if rows.change != Change::Insert {
            let before = images.before()?;
            row[0] = image(before, &columns, &mut images.data)?;
        }
        if rows.change != Change::Delete {
            let after = images.after()?;
            row[1] = image(after, &columns, &mut images.data)?;
        }
        out.push(row);
    }
    Ok(out)
}

#[test]
fn every_event_of_a_log_is_read_to_its_end() {
    for (file, expected) in [(MYSQL, 28), (MARIADB, 22)] {
        let (mut maps, mut found, mut inflater) = (HashMap::new(), 0, Inflater::default());
        for (header, event) in log(file) {
            match event {
                Event::TableMap(map) => {
                    map.metadata(&map.columns().unwrap()).unwrap();
                    maps.insert(map.table_id, map);
                }
                Event::Rows(rows) => {
                    let rows = match rows.compressed {
                        true => rows.inflated(inflater.inflate(rows.data).unwrap()),
                        false => rows,
                    };
                    found += slots(&maps[&rows.table_id], &rows).unwrap().len();
                }
                Event::Undecodable(_) | Event::Ignored(_) => panic!("{header:?}"),
                _ => {}
            }
        }
        assert_eq!(found, expected, "rows");
    }
}

#[test]
fn damaged_events_are_refused_or_read_within_bounds() {
    let mut inflater = Inflater::default();
    let mut unpacker = Unpacker::new().unwrap();
    for (file, mariadb) in [(MYSQL, false), (MARIADB, true)] {
        let format = Format { checksum: Checksum::None, mariadb };
        let (mut maps, mut seen) = (HashMap::new(), HashSet::new());
        for (_, event) in events(file) {
            let (header, body) = header::split(event, Checksum::Crc32).unwrap();
            if let Ok(Event::TableMap(map)) = decode(&header, body, format) {
                maps.insert(map.table_id, map);
            }
            if !seen.insert((header.kind, body.len())) {
                continue;
            }
            let mut run = |body: &[u8]| match decode(&header, body, format) {
                Ok(Event::TableMap(map)) => {
                    let columns = map.columns();
                    let metadata = columns.and_then(|columns| map.metadata(&columns));
                    let labels =
                        metadata.iter().flat_map(|m| &m.columns).flat_map(|c| c.labels.iter().flatten());
                    assert!(labels.map(|label| 1 + label.len()).sum::<usize>() <= body.len());
                }
                Ok(Event::Rows(rows)) => {
                    let Some(map) = maps.get(&rows.table_id).filter(|map| map.width() == rows.width) else {
                        return;
                    };
                    let rows = match rows.compressed {
                        true => match inflater.inflate(rows.data) {
                            Ok(data) => rows.inflated(data),
                            Err(_) => return,
                        },
                        false => rows,
                    };
                    let _ = slots(map, &rows);
                }
                Ok(Event::Payload(payload)) => {
                    unpacker.begin().unwrap();
                    while let Ok(Some(_)) = unpacker.next(&payload) {}
                }
                _ => {}
            };
            for length in 0..body.len() {
                run(&body[..length]);
            }
            let mut flipped = body.to_vec();
            for bit in 0..body.len() * 8 {
                flipped[bit / 8] ^= 1 << (bit % 8);
                run(&flipped);
                flipped[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}
