//! Character sets of the servers: text as it is stored, turned into UTF-8.
//!
//! The servers are the truth: each set decodes to what `CONVERT(… USING utf8mb4)` gives, and what a server cannot convert
//! (a byte sequence that the set does not have, a code point that it does not assign) is not text. The sets of one byte
//! are tables that a server printed (`single.rs`); those of East Asia are the tables of the WHATWG's encodings as
//! `encoding_rs` has them, with what the servers do differently (`wide.rs`, `differences.rs`). A test compares all of them
//! with live servers, code by code.
//!
//! Where a table comes from a server, it is the answer to
//! `SELECT HEX(CONVERT(CONVERT(X'…' USING cp1250) USING ucs2))` for each code, where `003F` stands for none.

mod differences;
mod single;
mod unicode;
mod wide;

use single::Table;
use std::collections::HashMap;
use std::fmt;
use wide::Wide;

/// A character set, told apart by its name.
#[derive(Clone, Copy)]
pub struct Charset(&'static Definition);

struct Definition {
    name: &'static str,
    /// Bytes of the longest character.
    mbmaxlen: u8,
    form: Form,
}

enum Form {
    Binary,
    Ascii,
    /// UTF-8 with characters of up to three or four bytes.
    Utf8,
    Ucs2,
    Utf16,
    Utf16Le,
    Utf32,
    /// ASCII, and a table for the bytes above it.
    Single(&'static Table),
    /// The letters of Swedish in the place of some signs of ASCII.
    Swe7,
    /// ASCII, and sequences of two to four bytes.
    Wide(&'static Wide),
}

const fn set(name: &'static str, mbmaxlen: u8, form: Form) -> Definition {
    Definition { name, mbmaxlen, form }
}

/// Every character set of MySQL 8.0 to 9 and MariaDB 10.5 to 12.
static SETS: [Definition; 41] = [
    set("utf8mb4", 4, Form::Utf8),
    set("utf8mb3", 3, Form::Utf8),
    set("latin1", 1, Form::Single(&single::LATIN1)),
    set("ascii", 1, Form::Ascii),
    set("binary", 1, Form::Binary),
    set("ucs2", 2, Form::Ucs2),
    set("utf16", 4, Form::Utf16),
    set("utf16le", 4, Form::Utf16Le),
    set("utf32", 4, Form::Utf32),
    set("big5", 2, Form::Wide(&wide::BIG5)),
    set("cp932", 2, Form::Wide(&wide::CP932)),
    set("eucjpms", 3, Form::Wide(&wide::EUCJPMS)),
    set("euckr", 2, Form::Wide(&wide::EUCKR)),
    set("gb18030", 4, Form::Wide(&wide::GB18030)),
    set("gb2312", 2, Form::Wide(&wide::GB2312)),
    set("gbk", 2, Form::Wide(&wide::GBK)),
    set("sjis", 2, Form::Wide(&wide::SJIS)),
    set("ujis", 3, Form::Wide(&wide::UJIS)),
    set("armscii8", 1, Form::Single(&single::ARMSCII8)),
    set("cp1250", 1, Form::Single(&single::CP1250)),
    set("cp1251", 1, Form::Single(&single::CP1251)),
    set("cp1256", 1, Form::Single(&single::CP1256)),
    set("cp1257", 1, Form::Single(&single::CP1257)),
    set("cp850", 1, Form::Single(&single::CP850)),
    set("cp852", 1, Form::Single(&single::CP852)),
    set("cp866", 1, Form::Single(&single::CP866)),
    set("dec8", 1, Form::Single(&single::DEC8)),
    set("geostd8", 1, Form::Single(&single::GEOSTD8)),
    set("greek", 1, Form::Single(&single::GREEK)),
    set("hebrew", 1, Form::Single(&single::HEBREW)),
    set("hp8", 1, Form::Single(&single::HP8)),
    set("keybcs2", 1, Form::Single(&single::KEYBCS2)),
    set("koi8r", 1, Form::Single(&single::KOI8R)),
    set("koi8u", 1, Form::Single(&single::KOI8U)),
    set("latin2", 1, Form::Single(&single::LATIN2)),
    set("latin5", 1, Form::Single(&single::LATIN5)),
    set("latin7", 1, Form::Single(&single::LATIN7)),
    set("macce", 1, Form::Single(&single::MACCE)),
    set("macroman", 1, Form::Single(&single::MACROMAN)),
    set("swe7", 1, Form::Swe7),
    set("tis620", 1, Form::Single(&single::TIS620)),
];

impl Charset {
    /// UTF-8.
    pub const UTF8MB4: Charset = Charset(&SETS[0]);
    /// No text.
    pub const BINARY: Charset = Charset(&SETS[4]);

    /// The character set of a name as the servers print it, also by its old name `utf8`.
    pub fn by_name(name: &str) -> Option<Charset> {
        let name = if name == "utf8" { "utf8mb3" } else { name };
        SETS.iter().find(|set| set.name == name).map(Charset)
    }

    /// Every character set.
    pub fn all() -> impl Iterator<Item = Charset> {
        SETS.iter().map(Charset)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Bytes of its longest character.
    pub fn mbmaxlen(self) -> u8 {
        self.0.mbmaxlen
    }

    /// The text itself where its bytes are the same in UTF-8; where not, it may be text nevertheless, for [`decode`].
    ///
    /// [`decode`]: Charset::decode
    #[inline]
    pub fn as_utf8(self, bytes: &[u8]) -> Option<&str> {
        let same = match self.0.form {
            Form::Utf8 => self.0.mbmaxlen == 4 || bytes.iter().all(|byte| *byte < 0xf0),
            Form::Ascii | Form::Single(_) | Form::Wide(_) => bytes.is_ascii(),
            Form::Binary | Form::Ucs2 | Form::Utf16 | Form::Utf16Le | Form::Utf32 | Form::Swe7 => false,
        };
        if same { simdutf8::basic::from_utf8(bytes).ok() } else { None }
    }

    /// Appends the text in UTF-8. False when the bytes are not text of this character set; then `out` holds a part of it.
    pub fn decode(self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        match &self.0.form {
            Form::Binary => false,
            Form::Utf8 | Form::Ascii => match self.as_utf8(bytes) {
                Some(text) => {
                    out.extend_from_slice(text.as_bytes());
                    true
                }
                None => false,
            },
            Form::Ucs2 => unicode::ucs2(bytes, out),
            Form::Utf16 => unicode::utf16(bytes, u16::from_be_bytes, out),
            Form::Utf16Le => unicode::utf16(bytes, u16::from_le_bytes, out),
            Form::Utf32 => unicode::utf32(bytes, out),
            Form::Single(table) => single::decode(table, bytes, out),
            Form::Swe7 => single::decode_swe7(bytes, out),
            Form::Wide(wide) => wide.decode(bytes, out),
        }
    }
}

impl PartialEq for Charset {
    fn eq(&self, other: &Charset) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Charset {}

impl fmt::Debug for Charset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

/// Appends a character of the basic plane; false for what is none.
#[inline]
fn push(unit: u16, out: &mut Vec<u8>) -> bool {
    let Some(character) = char::from_u32(unit.into()) else { return false };
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    true
}

/// Which character set a collation belongs to, by the collation's number in the log. The server tells: numbers differ
/// between servers and grow with their versions.
#[derive(Clone, Debug, Default)]
pub struct Collations(HashMap<u16, Charset>);

impl Collations {
    /// From the numbers of collations and the names of their character sets. Those of unknown character sets are left out:
    /// a column that has one cannot be read.
    pub fn new<'a>(rows: impl IntoIterator<Item = (u16, &'a str)>) -> Collations {
        let known = |(id, name)| Some((id, Charset::by_name(name)?));
        Collations(rows.into_iter().filter_map(known).collect())
    }

    /// The character set of a collation.
    pub fn charset(&self, collation: u16) -> Option<Charset> {
        self.0.get(&collation).copied()
    }
}

#[cfg(test)]
mod tests;
