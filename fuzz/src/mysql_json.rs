//! JSON columns of MySQL: whole documents and partial updates.

use deltaforge_sources::mysql::json::{Applied, apply_diffs, write_text};
use serde_json::value::RawValue;

/// The bytes as a document; and, split at the length that the first two bytes say, as a document and what changes it.
pub fn mysql_json(bytes: &[u8]) {
    let mut whole = Vec::new();
    let printed = write_text(bytes, &mut whole);
    bounded(&whole, bytes.len());
    if printed.is_ok() {
        a_text(&whole);
        let mut unchanged = Vec::new();
        assert_eq!(apply_diffs(Some(bytes), b"", &mut unchanged), Ok(Applied::Written));
        assert_eq!(unchanged, whole);
    }
    let Some(([low, high], rest)) = bytes.split_first_chunk() else { return };
    let before = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
    let (before, diffs) = rest.split_at(before);
    let mut changed = Vec::new();
    let applied = apply_diffs(Some(before), diffs, &mut changed);
    bounded(&changed, rest.len());
    if applied.is_ok() {
        a_text(&changed);
    }
}

fn bounded(text: &[u8], input: usize) {
    assert!(text.len() <= 6 * input + 4, "{} bytes out of {input}", text.len());
}

/// It is JSON unless a string in it was not UTF-8.
fn a_text(text: &[u8]) {
    if let Ok(text) = std::str::from_utf8(text) {
        serde_json::from_str::<Box<RawValue>>(text).expect("JSON");
    }
}
