//! As much of a binlog file as the rows of one table `(id INT UNSIGNED NOT NULL, j JSON)` need. Written apart from the
//! decoder under test on purpose.

use std::collections::HashSet;

/// One row of an event: the column `j` before and after, `None` for NULL and for what is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: u32,
    /// Whether the before image has the column `j`.
    pub(crate) before_has_column: bool,
    pub(crate) before: Option<Vec<u8>>,
    pub(crate) after: Option<Vec<u8>>,
    /// Whether `after` is a list of diffs.
    pub(crate) partial: bool,
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(count);
        self.0 = rest;
        head
    }

    fn number(&mut self, bytes: usize) -> u64 {
        self.take(bytes).iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte))
    }

    fn packed(&mut self) -> u64 {
        match self.number(1) {
            252 => self.number(2),
            253 => self.number(3),
            254 => self.number(8),
            small => small,
        }
    }
}

/// The rows of a table in a binlog file, in order. Events have checksums, and the file is neither compressed nor encrypted.
pub(crate) fn rows(file: &[u8], table: &str) -> Vec<Row> {
    let mut file = Cursor(file.strip_prefix(b"\xfebin").expect("a binlog file"));
    let (mut rows, mut ids) = (Vec::new(), HashSet::new());
    while !file.0.is_empty() {
        let kind = file.0[4];
        let size = u32::from_le_bytes(file.0[9..13].try_into().unwrap());
        let event = file.take(size as usize);
        let mut body = Cursor(&event[19..event.len() - 4]);
        if !matches!(kind, 19 | 30..=32 | 39) {
            continue;
        }
        let id = body.number(6);
        body.take(2);
        if kind == 19 {
            for expected in [false, true] {
                let length = body.number(1) as usize;
                if expected && body.0[..length] == *table.as_bytes() {
                    ids.insert(id);
                }
                body.take(length + 1);
            }
        } else if ids.contains(&id) {
            let extra = body.number(2) as usize;
            body.take(extra - 2);
            assert_eq!(body.packed(), 2, "columns");
            let before = if kind == 30 { 0 } else { body.number(1) };
            let after = if kind == 32 { 0 } else { body.number(1) };
            while !body.0.is_empty() {
                let mut row = Row {
                    id: 0,
                    before_has_column: before & 2 != 0,
                    before: None,
                    after: None,
                    partial: false,
                };
                if kind != 30 {
                    row.before = image(&mut body, before, &mut row.id);
                }
                if kind == 39 {
                    let options = body.packed();
                    row.partial = options & 1 != 0 && after & 2 != 0 && body.number(1) & 1 != 0;
                }
                if kind != 32 {
                    row.after = image(&mut body, after, &mut row.id);
                }
                rows.push(row);
            }
        }
    }
    rows
}

fn image(body: &mut Cursor<'_>, columns: u64, id: &mut u32) -> Option<Vec<u8>> {
    let mut nulls = body.number(1);
    if columns & 1 != 0 {
        *id = body.number(4) as u32;
        nulls >>= 1;
    }
    if columns & 2 == 0 || nulls & 1 != 0 {
        return None;
    }
    let length = body.number(4) as usize;
    Some(body.take(length).to_vec())
}
