//! GTIDs and positions of MySQL and MariaDB.

use deltaforge_core::Position;
use deltaforge_sources::mysql::MySqlPosition;
use deltaforge_sources::mysql::gtid::{Executed, GtidSet, MariaState, MySqlSet};
use std::cmp::Ordering;

/// A set's binary form, its text, or a position as it lies in a state store.
pub fn mysql_gtid(bytes: &[u8]) {
    if let Ok(set) = MySqlSet::decode(bytes) {
        a_set(GtidSet::MySql(set));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(set) = GtidSet::parse(text) {
        a_set(set);
    }
    if let Ok(state) = MariaState::parse(text) {
        a_set(GtidSet::Maria(state.newest()));
    }
    // Stores refuse what is no object before a source sees it.
    if !text.starts_with('{') {
        return;
    }
    let position = Position::from_json(text);
    if MySqlPosition::parse(&position).is_ok() {
        assert_eq!(MySqlPosition::compare(&position, &position), Some(Ordering::Equal));
        let _ = MySqlPosition::number(&position);
    }
}

fn a_set(set: GtidSet) {
    let text = set.to_string();
    assert_eq!(Executed::new(set.clone()).text(), text.as_bytes());
    assert_eq!(set.compare(&set), Some(Ordering::Equal));
    let read = GtidSet::parse(&text).expect("what was printed is read");
    assert_eq!(read.compare(&set), Some(Ordering::Equal), "{text}");
    let Some(set) = set.into_mysql() else { return };
    let encoded = set.encode();
    assert_eq!(MySqlSet::decode(&encoded).as_ref(), Ok(&set));
    // One interval takes at least 16 bytes and what its number and UUID take.
    assert!(text.len() <= 3 * encoded.len(), "{} bytes of text for {}", text.len(), encoded.len());
    assert!(set.subtract(&set).is_empty());
    assert_eq!(set.union(&set), set);
    assert_eq!(set.intersect(&set), set);
}
