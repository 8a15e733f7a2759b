//! What was read so far, with its text always at hand.

use super::super::binlog::Malformed;
use super::mysql::{Added, MySqlSet};
use super::{Gtid, GtidSet, MariaSet};

/// A set of transactions that grows while the log is read, and its text.
///
/// Every position holds the whole text, and there is one position for each transaction. So the text is not made anew: adding
/// the next number writes over its digits, and [`text`](Self::text) is there to be copied.
///
/// Nothing enters by itself: the caller adds a transaction once its end was read, and leaves out one that is prepared but
/// neither committed nor rolled back (XA).
#[derive(Clone, Debug)]
pub struct Executed {
    set: GtidSet,
    text: Vec<u8>,
    /// Where in the text each server and tag, or each domain, ends.
    ends: Vec<usize>,
}

impl Executed {
    /// Begins with what was read before.
    pub fn new(set: GtidSet) -> Executed {
        let mut executed = Executed { set, text: Vec::new(), ends: Vec::new() };
        executed.rewrite();
        executed
    }

    /// The set's text, on one line; ASCII without any character that JSON escapes.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The set.
    pub fn set(&self) -> &GtidSet {
        &self.set
    }

    /// Adds a transaction whose end was read. One that is in a set of MySQL already changes nothing.
    ///
    /// # Errors
    /// [`Malformed`] when the number is out of range, or when the identifier is one of the other server.
    pub fn add(&mut self, gtid: &Gtid) -> Result<(), Malformed> {
        match (&mut self.set, gtid) {
            (GtidSet::MySql(set), Gtid::MySql(gtid)) => match set.added(gtid)? {
                Added::Nothing => {}
                Added::Source => self.rewrite(),
                Added::Interval { source, interval, replaced, behind } => {
                    // Intervals change near the end, so they are counted from there. A colon stands before each.
                    let end = self.colons_before(self.ends[source], behind);
                    let start = self.colons_before(end, replaced);
                    let mut new = Scratch::default();
                    new.byte(b':');
                    new.number(interval.start);
                    if interval.end > interval.start {
                        new.byte(b'-');
                        new.number(interval.end);
                    }
                    self.replace(source, start, end, new.bytes());
                }
            },
            (GtidSet::Maria(set), Gtid::Maria(gtid)) => match set.advanced(gtid) {
                (_, true) => self.rewrite(),
                (at, false) => {
                    // Behind the comma after the domain before.
                    let start = at.checked_sub(1).map_or(0, |before| self.ends[before] + 1);
                    let mut new = Scratch::default();
                    new.number(gtid.domain);
                    new.byte(b'-');
                    new.number(gtid.server);
                    new.byte(b'-');
                    new.number(gtid.n);
                    self.replace(at, start, self.ends[at], new.bytes());
                }
            },
            // An empty set has no flavour of its own.
            (set, Gtid::MySql(_)) if set.is_empty() => {
                *set = GtidSet::MySql(MySqlSet::default());
                return self.add(gtid);
            }
            (set, Gtid::Maria(_)) if set.is_empty() => {
                *set = GtidSet::Maria(MariaSet::default());
                return self.add(gtid);
            }
            _ => return Err(Malformed("a GTID of another kind of server than those before")),
        }
        Ok(())
    }

    /// Writes the whole text, for a server or domain that was not in it.
    fn rewrite(&mut self) {
        self.text.clear();
        self.ends.clear();
        match &self.set {
            GtidSet::MySql(set) => set.write_noting(&mut self.text, |end| self.ends.push(end)),
            GtidSet::Maria(set) => set.write_noting(&mut self.text, |end| self.ends.push(end)),
        }
    }

    /// The place of the `count`th colon before `end`.
    fn colons_before(&self, mut end: usize, count: usize) -> usize {
        for _ in 0..count {
            end = self.text[..end].iter().rposition(|b| *b == b':').unwrap_or(0);
        }
        end
    }

    /// Replaces a part of the text that belongs to entry `entry`.
    fn replace(&mut self, entry: usize, start: usize, end: usize, new: &[u8]) {
        if new.len() == end - start {
            self.text[start..end].copy_from_slice(new);
            return;
        }
        let tail = self.text.len() - end;
        let moved_to = start + new.len();
        self.text.resize(self.text.len().max(moved_to + tail), 0);
        self.text.copy_within(end..end + tail, moved_to);
        self.text[start..moved_to].copy_from_slice(new);
        self.text.truncate(moved_to + tail);
        for place in &mut self.ends[entry..] {
            *place = *place - end + moved_to;
        }
    }
}

/// Room for an interval, or for an identifier of MariaDB: two numbers of 20 digits and two marks, two of 10, one of 20 and two.
struct Scratch {
    bytes: [u8; 42],
    len: usize,
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch { bytes: [0; 42], len: 0 }
    }
}

impl Scratch {
    fn byte(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn number(&mut self, number: impl itoa::Integer) {
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(number).as_bytes();
        self.bytes[self.len..self.len + digits.len()].copy_from_slice(digits);
        self.len += digits.len();
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
