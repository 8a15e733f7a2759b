//! GTIDs of MySQL: intervals of transaction numbers for each server and tag.

use super::super::binlog::Malformed;
use super::tsid::{Tag, Tsid, write_uuid};
use super::{show, write_number};
use std::cmp::Ordering;
use std::fmt;

/// The highest transaction number.
pub const MAX_NUMBER: u64 = i64::MAX as u64 - 1;

pub(super) const WRONG_TAG: &str = "a GTID tag of other characters than the server allows";
const WRONG_NUMBER: &str = "a GTID whose number is out of range";

/// The identifier of one transaction: `uuid:n` or `uuid:tag:n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MySqlGtid {
    /// `@@server_uuid` of the server that made it, or a group's name.
    pub uuid: [u8; 16],
    /// The tag, when there is one.
    pub tag: Option<Tag>,
    /// Number among those of the UUID and tag, 1 to [`MAX_NUMBER`].
    pub n: u64,
}

impl MySqlGtid {
    /// Takes the parts of an event; `tag` is empty without one.
    ///
    /// # Errors
    /// [`Malformed`] when the tag is none that a server allows, or the number is out of range.
    pub fn new(uuid: [u8; 16], tag: &[u8], n: u64) -> Result<MySqlGtid, Malformed> {
        let tag = if tag.is_empty() { None } else { Some(Tag::new(tag).ok_or(Malformed(WRONG_TAG))?) };
        let gtid = MySqlGtid { uuid, tag, n };
        gtid.in_range().then_some(gtid).ok_or(Malformed(WRONG_NUMBER))
    }

    fn in_range(&self) -> bool {
        (1..=MAX_NUMBER).contains(&self.n)
    }

    /// Appends the text.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.tsid().write(out);
        out.push(b':');
        write_number(out, self.n);
    }

    fn tsid(&self) -> Tsid {
        Tsid { uuid: self.uuid, tag: self.tag }
    }
}

/// Transaction numbers from `start` to `end`, both among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Interval {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Interval {
    /// Appends `5` or `5-7`.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        write_number(out, self.start);
        if self.end > self.start {
            out.push(b'-');
            write_number(out, self.end);
        }
    }
}

/// The numbers of one server and tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) tsid: Tsid,
    /// Sorted, with at least one number missing between two neighbours.
    pub(super) intervals: Vec<Interval>,
}

/// A set of transactions, as `@@gtid_executed` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MySqlSet {
    /// Sorted; none is without intervals.
    pub(super) sources: Vec<Source>,
}

/// What adding one number did.
pub(super) enum Added {
    /// The number was there.
    Nothing,
    /// The first number of a server and tag.
    Source,
    /// Of the intervals of one source, `replaced` (0 to 2) gave way to `interval`, which has `behind` others after it.
    Interval { source: usize, interval: Interval, replaced: usize, behind: usize },
}

impl MySqlSet {
    /// Sorts and joins what may come in any order.
    pub(super) fn collected(mut sources: Vec<Source>) -> MySqlSet {
        sources.sort_by_key(|source| source.tsid);
        sources.dedup_by(|next, kept| {
            let same = next.tsid == kept.tsid;
            if same {
                kept.intervals.append(&mut next.intervals);
            }
            same
        });
        for source in &mut sources {
            source.intervals.sort_unstable();
            source.intervals.dedup_by(|next, kept| {
                let joins = next.start <= kept.end + 1;
                if joins {
                    kept.end = kept.end.max(next.end);
                }
                joins
            });
        }
        sources.retain(|source| !source.intervals.is_empty());
        MySqlSet { sources }
    }

    /// True without transactions.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Adds one transaction. Costs the same for every length of the set when it extends the last interval of its server.
    ///
    /// # Errors
    /// [`Malformed`] when the number is 0 or above [`MAX_NUMBER`].
    pub fn add(&mut self, gtid: &MySqlGtid) -> Result<(), Malformed> {
        self.added(gtid).map(|_| ())
    }

    pub(super) fn added(&mut self, gtid: &MySqlGtid) -> Result<Added, Malformed> {
        if !gtid.in_range() {
            return Err(Malformed(WRONG_NUMBER));
        }
        let n = gtid.n;
        let only = Interval { start: n, end: n };
        let tsid = gtid.tsid();
        let source = match self.sources.binary_search_by(|source| source.tsid.cmp(&tsid)) {
            Ok(found) => found,
            Err(at) => {
                self.sources.insert(at, Source { tsid, intervals: vec![only] });
                return Ok(Added::Source);
            }
        };
        let intervals = &mut self.sources[source].intervals;
        // First interval that does not end before `n`; the usual number follows the last interval.
        let at = match intervals.last() {
            Some(last) if last.end < n => intervals.len(),
            _ => intervals.partition_point(|interval| interval.end < n),
        };
        if intervals.get(at).is_some_and(|next| next.start <= n) {
            return Ok(Added::Nothing);
        }
        let follows = at > 0 && intervals[at - 1].end + 1 == n;
        let precedes = intervals.get(at).is_some_and(|next| next.start == n + 1);
        let (at, replaced) = match (follows, precedes) {
            (true, true) => {
                intervals[at - 1].end = intervals.remove(at).end;
                (at - 1, 2)
            }
            (true, false) => {
                intervals[at - 1].end = n;
                (at - 1, 1)
            }
            (false, true) => {
                intervals[at].start = n;
                (at, 1)
            }
            (false, false) => {
                intervals.insert(at, only);
                (at, 0)
            }
        };
        Ok(Added::Interval { source, interval: intervals[at], replaced, behind: intervals.len() - 1 - at })
    }

    /// Whether a transaction is in the set.
    pub fn contains(&self, gtid: &MySqlGtid) -> bool {
        let n = gtid.n;
        self.intervals(&gtid.tsid()).binary_search_by(|interval| overlap(interval, n)).is_ok()
    }

    /// Whether every transaction of this set is in `other`.
    pub fn is_subset(&self, other: &MySqlSet) -> bool {
        self.sources.iter().all(|source| {
            let others = other.intervals(&source.tsid);
            source.intervals.iter().all(|interval| {
                let found = others.binary_search_by(|other| overlap(other, interval.start));
                found.is_ok_and(|i| interval.end <= others[i].end)
            })
        })
    }

    /// Orders two sets by inclusion; `None` when neither holds the other.
    pub fn compare(&self, other: &MySqlSet) -> Option<Ordering> {
        match (self.is_subset(other), other.is_subset(self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Less),
            (false, true) => Some(Ordering::Greater),
            (false, false) => None,
        }
    }

    /// The transactions of this set or of `other`.
    pub fn union(&self, other: &MySqlSet) -> MySqlSet {
        MySqlSet::collected(self.sources.iter().chain(&other.sources).cloned().collect())
    }

    /// The transactions of this set that are not in `other`.
    pub fn subtract(&self, other: &MySqlSet) -> MySqlSet {
        self.map(other, |intervals, others, out| {
            let mut others = others.iter().peekable();
            for interval in intervals {
                let mut start = interval.start;
                while let Some(other) = others.peek().filter(|other| other.start <= interval.end) {
                    if other.start > start {
                        out.push(Interval { start, end: other.start - 1 });
                    }
                    start = start.max(other.end + 1);
                    if other.end > interval.end {
                        break;
                    }
                    others.next();
                }
                if start <= interval.end {
                    out.push(Interval { start, end: interval.end });
                }
            }
        })
    }

    /// The transactions that are in this set and in `other`.
    pub fn intersect(&self, other: &MySqlSet) -> MySqlSet {
        self.map(other, |intervals, others, out| {
            let (mut a, mut b) = (0, 0);
            while let (Some(left), Some(right)) = (intervals.get(a), others.get(b)) {
                let (start, end) = (left.start.max(right.start), left.end.min(right.end));
                if start <= end {
                    out.push(Interval { start, end });
                }
                if left.end <= right.end {
                    a += 1;
                } else {
                    b += 1;
                }
            }
        })
    }

    /// For each server and tag what `keep` pushes of its intervals and those of `other`.
    fn map(&self, other: &MySqlSet, keep: impl Fn(&[Interval], &[Interval], &mut Vec<Interval>)) -> MySqlSet {
        let mut sources = Vec::new();
        for source in &self.sources {
            let mut intervals = Vec::new();
            keep(&source.intervals, other.intervals(&source.tsid), &mut intervals);
            if !intervals.is_empty() {
                sources.push(Source { tsid: source.tsid, intervals });
            }
        }
        MySqlSet { sources }
    }

    fn intervals(&self, tsid: &Tsid) -> &[Interval] {
        let found = self.sources.binary_search_by(|source| source.tsid.cmp(tsid));
        found.map_or(&[], |i| &self.sources[i].intervals)
    }

    /// Appends the text as the server prints it, without its line breaks.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.write_noting(out, |_| ());
    }

    /// Appends the text; tells after each server and tag how long `out` is.
    pub(super) fn write_noting(&self, out: &mut Vec<u8>, mut note: impl FnMut(usize)) {
        let mut uuid = None;
        for source in &self.sources {
            if uuid != Some(&source.tsid.uuid) {
                if uuid.is_some() {
                    out.push(b',');
                }
                write_uuid(out, &source.tsid.uuid);
                uuid = Some(&source.tsid.uuid);
            }
            if let Some(tag) = &source.tsid.tag {
                out.push(b':');
                out.extend_from_slice(tag.as_bytes());
            }
            for interval in &source.intervals {
                out.push(b':');
                interval.write(out);
            }
            note(out.len());
        }
    }
}

impl fmt::Display for MySqlSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, |out| self.write(out))
    }
}

/// Where an interval lies as seen from a number.
fn overlap(interval: &Interval, n: u64) -> Ordering {
    if interval.end < n {
        Ordering::Less
    } else if interval.start > n {
        Ordering::Greater
    } else {
        Ordering::Equal
    }
}
