//! Character sets with sequences of two to four bytes: ASCII where the first byte is below 0x80, else a table.
//!
//! A table is made when its set is first met, from the encoding of the WHATWG that is nearest and the list of what the
//! servers do differently; reading is then one look-up a character.

use super::differences::{self as differ, Run};
use encoding_rs::{DecoderResult, Encoding};
use std::sync::OnceLock;

/// Stands for no character: a half of a pair, which no text has alone. (U+FFFF will not do: GB 18030 has a code for it.)
pub(super) const NONE: u16 = 0xd800;

/// A set, and how it is made from an encoding.
pub(super) struct Wide {
    nearest: &'static Encoding,
    /// First bytes of sequences of two.
    leads: (u8, u8),
    /// The lowest second byte of sequences of two.
    trails_from: u8,
    /// What is different among codes of one and two bytes.
    differences: &'static [Run],
    longer: Longer,
    tables: OnceLock<Tables>,
}

/// Sequences of more than two bytes, with what is different among them.
#[derive(Clone, Copy)]
enum Longer {
    None,
    /// Three bytes, the first of which is 0x8F; numbered by the other two.
    Euc(&'static [Run]),
    /// Four bytes, digits in the second and fourth place; those of the basic plane are numbered in order.
    Gb18030,
}

/// Code points by number.
struct Tables {
    /// By the byte or by both bytes.
    short: Box<[u16]>,
    /// Empty where there are none.
    longer: Box<[u16]>,
}

const fn wide(
    nearest: &'static Encoding,
    (from, to, trails_from): (u8, u8, u8),
    differences: &'static [Run],
    longer: Longer,
) -> Wide {
    Wide { nearest, leads: (from, to), trails_from, differences, longer, tables: OnceLock::new() }
}

pub(super) static BIG5: Wide = wide(encoding_rs::BIG5, (0xa1, 0xf9, 0x40), differ::BIG5, Longer::None);
pub(super) static CP932: Wide = wide(encoding_rs::SHIFT_JIS, (0x81, 0xfc, 0x40), differ::CP932, Longer::None);
pub(super) static SJIS: Wide = wide(encoding_rs::SHIFT_JIS, (0x81, 0xfc, 0x40), differ::SJIS, Longer::None);
pub(super) static EUCKR: Wide = wide(encoding_rs::EUC_KR, (0x81, 0xfe, 0x41), &[], Longer::None);
pub(super) static GB2312: Wide = wide(encoding_rs::GBK, (0xa1, 0xf7, 0xa1), differ::GB2312, Longer::None);
pub(super) static GBK: Wide = wide(encoding_rs::GBK, (0x81, 0xfe, 0x40), differ::GBK, Longer::None);
pub(super) static UJIS: Wide =
    wide(encoding_rs::EUC_JP, (0x8e, 0xfe, 0xa1), differ::UJIS, Longer::Euc(differ::UJIS_LONGER));
pub(super) static EUCJPMS: Wide =
    wide(encoding_rs::EUC_JP, (0x8e, 0xfe, 0xa1), differ::EUCJPMS, Longer::Euc(differ::EUCJPMS_LONGER));
pub(super) static GB18030: Wide =
    wide(encoding_rs::GB18030, (0x81, 0xfe, 0x40), differ::GB18030, Longer::Gb18030);

impl Wide {
    /// Appends the text in UTF-8. False when the bytes are not text of this set.
    pub(super) fn decode(&self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        let tables = self.tables.get_or_init(|| self.tables());
        out.reserve(bytes.len() + bytes.len() / 2);
        let mut rest = bytes;
        loop {
            let ascii = rest.iter().take_while(|byte| byte.is_ascii()).count();
            out.extend_from_slice(&rest[..ascii]);
            rest = &rest[ascii..];
            let Some(first) = rest.first() else { return true };
            let alone = tables.short[usize::from(*first)];
            let (unit, length) = match (self.longer, rest) {
                _ if alone != NONE => (alone, 1),
                (Longer::Euc(_), [EUC_THREE, a, b, ..]) => (tables.longer(euc_number(*a, *b)), 3),
                (Longer::Gb18030, [a, b @ b'0'..=b'9', c, d @ b'0'..=b'9', ..]) => {
                    let number = gb18030_number([*a, *b, *c, *d]);
                    if let Some(character) = beyond_the_basic_plane(number) {
                        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                        rest = &rest[4..];
                        continue;
                    }
                    (tables.longer(number), 4)
                }
                (_, [a, b, ..]) => (tables.short[usize::from(u16::from_be_bytes([*a, *b]))], 2),
                _ => return false,
            };
            if unit == NONE || !super::push(unit, out) {
                return false;
            }
            rest = &rest[length..];
        }
    }

    fn tables(&self) -> Tables {
        let mut short = vec![NONE; 1 << 16];
        for byte in 0x80..=u8::MAX {
            short[usize::from(byte)] = self.unit(&[byte]);
        }
        for lead in self.leads.0..=self.leads.1 {
            for trail in self.trails_from..=u8::MAX {
                short[usize::from(u16::from_be_bytes([lead, trail]))] = self.unit(&[lead, trail]);
            }
        }
        differ::apply(self.differences, &mut short);
        let mut longer = Vec::new();
        match self.longer {
            Longer::None => {}
            Longer::Euc(differences) => {
                longer.resize(1 << 16, NONE);
                for a in 0xa1..=0xfe {
                    for b in 0xa1..=0xfe {
                        longer[euc_number(a, b)] = self.unit(&[EUC_THREE, a, b]);
                    }
                }
                differ::apply(differences, &mut longer);
            }
            Longer::Gb18030 => {
                longer.extend((0..BASIC_PLANE).map(|number| self.unit(&gb18030_code(number))));
            }
        }
        Tables { short: short.into(), longer: longer.into() }
    }

    /// What the encoding has for one code: a character of the basic plane, or none.
    fn unit(&self, code: &[u8]) -> u16 {
        let mut text = [0; 16];
        let mut decoder = self.nearest.new_decoder_without_bom_handling();
        let (result, read, written) = decoder.decode_to_utf8_without_replacement(code, &mut text, true);
        let mut characters = std::str::from_utf8(&text[..written]).unwrap_or_default().chars();
        match (result, characters.next(), characters.next()) {
            (DecoderResult::InputEmpty, Some(character), None) if read == code.len() => {
                u16::try_from(u32::from(character)).unwrap_or(NONE)
            }
            _ => NONE,
        }
    }
}

impl Tables {
    #[inline]
    fn longer(&self, number: usize) -> u16 {
        self.longer.get(number).copied().unwrap_or(NONE)
    }
}

/// The first byte of the sequences of three of EUC.
const EUC_THREE: u8 = 0x8f;

#[inline]
fn euc_number(a: u8, b: u8) -> usize {
    usize::from(u16::from_be_bytes([a, b]))
}

/// How many sequences of four bytes stand for characters of the basic plane: they fill what two bytes leave.
const BASIC_PLANE: usize = 39_420;

/// The number of a sequence of four bytes, the second and fourth of which are digits; huge when the others are none that
/// it may have.
#[inline]
fn gb18030_number([a, b, c, d]: [u8; 4]) -> usize {
    let (Some(a), Some(c @ 0..126)) = (a.checked_sub(0x81), c.checked_sub(0x81)) else { return usize::MAX };
    let digit = |digit: u8| usize::from(digit - b'0');
    ((usize::from(a) * 10 + digit(b)) * 126 + usize::from(c)) * 10 + digit(d)
}

fn gb18030_code(number: usize) -> [u8; 4] {
    let [a, b, c, d] = [number / 12_600, number / 1260 % 10, number / 10 % 126, number % 10];
    [0x81 + a as u8, b'0' + b as u8, 0x81 + c as u8, b'0' + d as u8]
}

/// Characters from U+10000 lie in order from 0x90308130.
fn beyond_the_basic_plane(number: usize) -> Option<char> {
    const FIRST: usize = 15 * 12_600;
    char::from_u32(u32::try_from(number.checked_sub(FIRST)?).ok()?.checked_add(0x10000)?)
}
