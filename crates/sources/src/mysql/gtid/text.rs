//! Sets of MySQL as text.

use super::mysql::{Interval, MAX_NUMBER, MySqlSet, Source};
use super::tsid::{Tag, Tsid, parse_uuid};

impl MySqlSet {
    /// Reads a set's text: what the server prints, and what it takes beside that. White space may stand between all parts,
    /// letters may be of upper case, intervals may come in any order and overlap, and empty parts between commas count for
    /// nothing. Unlike the server, an interval that ends before it starts and a number that begins with 0 (which the server
    /// takes for octal) are refused: they are slips of the hand.
    ///
    /// # Errors
    /// A sentence that says what is wrong and where.
    pub fn parse(text: &str) -> Result<MySqlSet, String> {
        let mut reader = Reader { bytes: text.as_bytes(), at: 0 };
        let mut sources: Vec<Source> = Vec::new();
        while !reader.at_end() {
            if reader.take(b',') {
                continue;
            }
            let mut tsid = Tsid { uuid: reader.uuid()?, tag: None };
            let mut intervals = Vec::new();
            while reader.take(b':') {
                match reader.tag()? {
                    None => intervals.push(reader.interval()?),
                    Some(tag) => {
                        let done = Source { tsid, intervals: std::mem::take(&mut intervals) };
                        sources.extend((!done.intervals.is_empty()).then_some(done));
                        tsid.tag = Some(tag);
                    }
                }
            }
            let done = Source { tsid, intervals };
            sources.extend((!done.intervals.is_empty()).then_some(done));
            if !reader.at_end() && !reader.take(b',') {
                return Err(reader.wrong("`:`, `,` or the end was expected"));
            }
        }
        Ok(MySqlSet::collected(sources))
    }
}

/// Splits a set's text; white space is passed over in front of everything.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&mut self) -> Option<u8> {
        // With the vertical tab, which Rust's `is_ascii_whitespace` leaves out and C's `isspace` does not.
        let space = |b: &u8| b.is_ascii_whitespace() || *b == 0x0b;
        self.at += self.bytes[self.at..].iter().take_while(|b| space(b)).count();
        self.bytes.get(self.at).copied()
    }

    fn at_end(&mut self) -> bool {
        self.peek().is_none()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn wrong(&self, what: &str) -> String {
        format!("byte {} of the GTID set: {what}", self.at)
    }

    fn uuid(&mut self) -> Result<[u8; 16], String> {
        self.peek();
        let uuid = self.bytes[self.at..].first_chunk().and_then(parse_uuid);
        let uuid = uuid.ok_or_else(|| self.wrong("a UUID was expected"))?;
        self.at += 36;
        Ok(uuid)
    }

    /// A tag, unless a digit stands here.
    fn tag(&mut self) -> Result<Option<Tag>, String> {
        if self.peek().is_some_and(|b| b.is_ascii_digit()) {
            return Ok(None);
        }
        let word = |b: &&u8| b.is_ascii_alphanumeric() || **b == b'_';
        let length = self.bytes[self.at..].iter().take_while(word).count();
        let tag = Tag::new(&self.bytes[self.at..self.at + length]);
        let tag = tag.ok_or_else(|| {
            self.wrong("a number, or a tag of at most 32 letters, digits and `_`, was expected")
        })?;
        self.at += length;
        Ok(Some(tag))
    }

    fn interval(&mut self) -> Result<Interval, String> {
        let start = self.number()?;
        let end = if self.take(b'-') { self.number()? } else { start };
        if end < start {
            return Err(self.wrong("an interval ends before it starts"));
        }
        Ok(Interval { start, end })
    }

    fn number(&mut self) -> Result<u64, String> {
        self.peek();
        let rest = &self.bytes[self.at..];
        let digits = &rest[..rest.iter().take_while(|b| b.is_ascii_digit()).count()];
        let number = std::str::from_utf8(digits).ok().and_then(|d| d.parse().ok());
        match number {
            Some(n) if digits[0] != b'0' && n <= MAX_NUMBER => {
                self.at += digits.len();
                Ok(n)
            }
            _ => Err(self.wrong("a number from 1 to 9223372036854775806 was expected")),
        }
    }
}
