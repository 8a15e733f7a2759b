//! `DECIMAL` as it is packed: nine digits in four bytes, the digits left over at either end in as few bytes as hold them,
//! the first bit turned over, and all bits turned over when the number is negative.
//!
//! Source: MySQL's `strings/decimal.cc`, `decimal2bin`.

use super::Malformed;
use deltaforge_core::row::CellWriter;
use deltaforge_core::value::Value;

/// A declared precision and scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    precision: u8,
    scale: u8,
}

/// Bytes that hold a number of digits, 0 to 9.
const BYTES: [u8; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];

/// The first number with one digit more, for 0 to 9 digits.
const LIMIT: [u32; 10] =
    [1, 10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

/// 65 digits, a sign, a point, and the zero before a point without digits of its own.
const LONGEST: usize = 68;

impl Decimal {
    /// From the metadata: the precision in the upper byte, the scale in the lower one.
    pub(super) fn new(meta: u16) -> Result<Decimal, &'static str> {
        let [precision, scale] = meta.to_be_bytes();
        if precision == 0 || precision > 65 || scale > precision {
            return Err("a DECIMAL with an impossible precision or scale");
        }
        Ok(Decimal { precision, scale })
    }

    /// Bytes of a value.
    #[inline]
    pub(super) fn size(self) -> usize {
        let part = |digits: u8| usize::from(digits / 9) * 4 + usize::from(BYTES[usize::from(digits % 9)]);
        part(self.precision - self.scale) + part(self.scale)
    }

    /// Writes the cell of a value of exactly [`Decimal::size`] bytes.
    pub(super) fn write(self, raw: &[u8], cell: &mut CellWriter<'_>) -> Result<(), Malformed> {
        let mut text = Text { bytes: [0; LONGEST], end: 1 };
        let mut packed = Packed::new(raw)?;
        let whole = self.precision - self.scale;
        packed.digits(whole % 9, &mut text)?;
        for _ in 0..whole / 9 {
            packed.digits(9, &mut text)?;
        }
        if whole == 0 {
            text.push(b'0');
        }
        let zeros = text.bytes[1..text.end - 1].iter().take_while(|digit| **digit == b'0').count();
        let mut start = 1 + zeros;
        if packed.negative {
            start -= 1;
            text.bytes[start] = b'-';
        }
        if self.scale > 0 {
            text.push(b'.');
            for _ in 0..self.scale / 9 {
                packed.digits(9, &mut text)?;
            }
            packed.digits(self.scale % 9, &mut text)?;
        }
        let digits = std::str::from_utf8(&text.bytes[start..text.end]);
        cell.put(Value::Decimal(digits.map_err(|_| MALFORMED)?));
        Ok(())
    }
}

const MALFORMED: Malformed = Malformed("a DECIMAL with digits beyond its precision");

/// Digits so far, after a place for the sign.
struct Text {
    bytes: [u8; LONGEST],
    end: usize,
}

impl Text {
    #[inline]
    fn push(&mut self, byte: u8) {
        self.bytes[self.end] = byte;
        self.end += 1;
    }
}

struct Packed<'a> {
    rest: &'a [u8],
    negative: bool,
    /// Turns the next byte's bits back; the first byte has one more turned.
    flip: u8,
    first: u8,
}

impl<'a> Packed<'a> {
    fn new(rest: &'a [u8]) -> Result<Packed<'a>, Malformed> {
        let negative = rest.first().ok_or(MALFORMED)? & 0x80 == 0;
        Ok(Packed { rest, negative, flip: if negative { 0xff } else { 0 }, first: 0x80 })
    }

    #[inline]
    fn digits(&mut self, count: u8, text: &mut Text) -> Result<(), Malformed> {
        let count = usize::from(count);
        let (group, rest) = self.rest.split_at_checked(usize::from(BYTES[count])).ok_or(MALFORMED)?;
        self.rest = rest;
        let mut number = 0;
        for byte in group {
            number = number << 8 | u32::from(byte ^ self.flip ^ std::mem::take(&mut self.first));
        }
        if number >= LIMIT[count] {
            return Err(MALFORMED);
        }
        let place = text.bytes.get_mut(text.end..text.end + count).ok_or(MALFORMED)?;
        for digit in place.iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        text.end += count;
        Ok(())
    }
}
