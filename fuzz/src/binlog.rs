//! Events of the binary log.

use deltaforge_sources::mysql::binlog::header::{self, HEADER_BYTES};
use deltaforge_sources::mysql::binlog::{
    Change, Checksum, Column, ColumnType, Event, Format, Image, Inflater, Payload, Rows, Slot, TableMap,
    Unpacker, decode,
};
use std::collections::HashMap;

/// Events one behind the other, without checksums. The first byte says of which server, and whether they come as the events
/// inside a transaction that is one event.
pub fn binlog_events(bytes: &[u8]) {
    let Some((how, bytes)) = bytes.split_first() else { return };
    for checksum in [Checksum::Unknown, Checksum::None, Checksum::Crc32] {
        if let Ok((_, body)) = header::split(bytes, checksum) {
            assert!(body.len() + HEADER_BYTES <= bytes.len());
        }
    }
    let mut log = Log::new(how & 1 != 0);
    if how & 2 != 0 {
        // Compression 255, none, and the size.
        let mut body = vec![2, 3, 252, 255, 0, 1, 9, 254];
        body.extend((bytes.len() as u64).to_le_bytes());
        body.push(0);
        body.extend(bytes);
        log.event(40, &body);
        return;
    }
    let mut rest = bytes;
    while let Some((head, _)) = rest.split_first_chunk::<HEADER_BYTES>() {
        let size = u32::from_le_bytes([head[9], head[10], head[11], head[12]]) as usize;
        let (event, behind) = rest.split_at(size.clamp(HEADER_BYTES, rest.len()));
        log.event(event[4], &event[HEADER_BYTES..]);
        rest = behind;
    }
}

/// What is compressed: by the first byte a transaction of MySQL, or an event of MariaDB.
pub fn binlog_compressed(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else { return };
    if which & 1 == 0 {
        return Log::new(false).event(40, bytes);
    }
    if let Ok(plain) = Inflater::default().inflate(bytes) {
        assert!(plain.len() <= 1100 * bytes.len(), "{} bytes from {}", plain.len(), bytes.len());
    }
}

struct Log {
    format: Format,
    /// The tables described last, as bodies of events.
    tables: HashMap<u64, Vec<u8>>,
    inflater: Inflater,
    depth: usize,
}

impl Log {
    fn new(mariadb: bool) -> Log {
        let format = Format { checksum: Checksum::None, mariadb };
        Log { format, tables: HashMap::new(), inflater: Inflater::default(), depth: 0 }
    }

    fn event(&mut self, kind: u8, body: &[u8]) {
        let mut event = vec![0; HEADER_BYTES];
        event[4] = kind;
        event[9..13].copy_from_slice(&((HEADER_BYTES + body.len()) as u32).to_le_bytes());
        event.extend(body);
        // Of a FORMAT_DESCRIPTION the end is cut off as its checksum.
        let Ok((header, body)) = header::split(&event, Checksum::None) else { return };
        match decode(&header, body, self.format) {
            Ok(Event::TableMap(map)) => {
                a_table(&map, body);
                self.tables.insert(map.table_id, body.to_vec());
            }
            Ok(Event::Rows(rows)) => {
                let Some(table) = self.tables.get(&rows.table_id) else { return };
                let map = TableMap::parse(table, self.format).expect("read before");
                let Ok(columns) = map.columns() else { return };
                if columns.len() != rows.width {
                    return;
                }
                if !rows.compressed {
                    some_rows(&rows, &columns);
                } else if let Ok(images) = self.inflater.inflate(rows.data) {
                    some_rows(&rows.inflated(images), &columns);
                }
            }
            Ok(Event::Payload(payload)) if self.depth == 0 => self.payload(&payload),
            Ok(Event::QueryCompressed(query)) => {
                let _ = self.inflater.inflate(query.sql);
            }
            Ok(Event::GtidList(list)) => assert!(list.entries().count() * 16 <= body.len()),
            _ => {}
        }
    }

    fn payload(&mut self, payload: &Payload<'_>) {
        self.depth += 1;
        let mut unpacker = Unpacker::new().expect("memory");
        let mut unpacked = 0;
        while let Ok(Some(event)) = unpacker.next(payload) {
            unpacked += event.len();
            // A frame may hold any number of times its size; a transaction of some megabytes is enough here.
            if unpacked > 1 << 22 {
                break;
            }
            self.event(event[4], &event[HEADER_BYTES..]);
        }
        self.depth -= 1;
    }
}

fn a_table(map: &TableMap<'_>, body: &[u8]) {
    assert!(map.database.len() + map.table.len() + map.width() < body.len(), "out of nowhere");
    let Ok(columns) = map.columns() else { return };
    assert_eq!(columns.len(), map.width());
    let Ok(metadata) = map.metadata(&columns) else { return };
    assert_eq!(metadata.columns.len(), columns.len());
    let names = metadata.columns.iter().flat_map(|column| &column.name).map(|name| 1 + name.len());
    let labels = metadata.columns.iter().flat_map(|column| column.labels.iter().flatten());
    let used = names.chain(labels.map(|label| 1 + label.len())).sum::<usize>() + metadata.primary_key.len();
    assert!(used <= body.len(), "out of nowhere");
    assert!(metadata.primary_key.iter().all(|part| usize::from(part.column) < columns.len()));
}

/// Reads images, each value as one byte, until they end.
fn some_rows(rows: &Rows<'_>, columns: &[Column]) {
    let json = columns.iter().filter(|column| column.ty == ColumnType::Json).count();
    let Ok(mut images) = rows.images(json) else { return };
    let mut found = 0;
    while images.next_row() {
        found += 1;
        assert!(found <= 1 + rows.data.len(), "rows out of nowhere");
        if rows.change != Change::Insert {
            let Ok(image) = images.before() else { return };
            cells(image, columns, |length| images.data.take(length, "").is_ok());
        }
        if rows.change != Change::Delete {
            let Ok(image) = images.after() else { return };
            cells(image, columns, |length| images.data.take(length, "").is_ok());
        }
    }
}

fn cells(mut image: Image<'_>, columns: &[Column], mut take: impl FnMut(usize) -> bool) {
    for column in columns {
        let there = matches!(image.slot(column.ty), Slot::Value | Slot::Diff);
        if there && !take(1) {
            return;
        }
    }
}
