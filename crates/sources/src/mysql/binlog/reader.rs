//! A cursor over borrowed bytes, and bitmaps in them. Every read is checked against what is there.

use super::{Malformed, Result};

/// Takes numbers and bytes off the front of borrowed bytes. Each read names what it reads, for the error.
///
/// Numbers are little-endian unless the name ends in `_be`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes<'a>(&'a [u8]);

/// The reads of numbers, little-endian and big-endian.
macro_rules! numbers {
    ($($le:ident $be:ident $bytes:literal $type:ty,)*) => {$(
        #[doc = concat!("The next ", stringify!($bytes), " bytes as a little-endian number.")]
        ///
        /// # Errors
        /// When there are fewer.
        #[inline]
        pub fn $le(&mut self, what: &'static str) -> Result<$type> {
            let mut wide = [0; size_of::<$type>()];
            wide[..$bytes].copy_from_slice(&self.array::<$bytes>(what)?);
            Ok(<$type>::from_le_bytes(wide))
        }

        #[doc = concat!("The next ", stringify!($bytes), " bytes as a big-endian number.")]
        ///
        /// # Errors
        /// When there are fewer.
        #[inline]
        pub fn $be(&mut self, what: &'static str) -> Result<$type> {
            let mut wide = [0; size_of::<$type>()];
            wide[size_of::<$type>() - $bytes..].copy_from_slice(&self.array::<$bytes>(what)?);
            Ok(<$type>::from_be_bytes(wide))
        }
    )*};
}

impl<'a> Bytes<'a> {
    /// Reads from the front of `bytes`.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Bytes<'a> {
        Bytes(bytes)
    }

    /// How many bytes are left.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True at the end.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is left, without taking it.
    #[inline]
    pub fn peek(&self) -> &'a [u8] {
        self.0
    }

    /// Takes all that is left.
    #[inline]
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Takes `length` bytes.
    ///
    /// # Errors
    /// When there are fewer.
    #[inline]
    pub fn take(&mut self, length: usize, what: &'static str) -> Result<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(Malformed(what))?;
        self.0 = rest;
        Ok(head)
    }

    /// Takes `N` bytes.
    ///
    /// # Errors
    /// When there are fewer.
    #[inline]
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed(what))?;
        self.0 = rest;
        Ok(*head)
    }

    numbers! {
        u16 u16_be 2 u16,
        u24 u24_be 3 u32,
        u32 u32_be 4 u32,
        u40 u40_be 5 u64,
        u48 u48_be 6 u64,
        u56 u56_be 7 u64,
        u64 u64_be 8 u64,
    }

    /// The next byte.
    ///
    /// # Errors
    /// At the end.
    #[inline]
    pub fn u8(&mut self, what: &'static str) -> Result<u8> {
        Ok(self.array::<1>(what)?[0])
    }

    /// The next `length` bytes as a little-endian number.
    ///
    /// # Errors
    /// When there are fewer, or `length` is above 8.
    #[inline]
    pub fn uint(&mut self, length: usize, what: &'static str) -> Result<u64> {
        let mut wide = [0; 8];
        wide.get_mut(..length).ok_or(Malformed(what))?.copy_from_slice(self.take(length, what)?);
        Ok(u64::from_le_bytes(wide))
    }

    /// The next `length` bytes as a big-endian number.
    ///
    /// # Errors
    /// When there are fewer, or `length` is above 8.
    #[inline]
    pub fn uint_be(&mut self, length: usize, what: &'static str) -> Result<u64> {
        let mut wide = [0; 8];
        let start = wide.len().checked_sub(length).ok_or(Malformed(what))?;
        wide[start..].copy_from_slice(self.take(length, what)?);
        Ok(u64::from_be_bytes(wide))
    }

    /// A length-encoded ("packed") integer of 1, 3, 4 or 9 bytes.
    ///
    /// # Errors
    /// When it is cut off, or its first byte is one that no number begins with (251 and 255).
    #[inline]
    pub fn lenenc(&mut self, what: &'static str) -> Result<u64> {
        match self.u8(what)? {
            252 => self.u16(what).map(u64::from),
            253 => self.u24(what).map(u64::from),
            254 => self.u64(what),
            251 | 255 => Err(Malformed(what)),
            small => Ok(u64::from(small)),
        }
    }

    /// A length-encoded integer that must be at most the number of bytes left: a length, or a count of things that take at
    /// least a byte each.
    ///
    /// # Errors
    /// When it is cut off or larger.
    #[inline]
    pub fn length(&mut self, what: &'static str) -> Result<usize> {
        let length = self.lenenc(what)?;
        usize::try_from(length).ok().filter(|length| *length <= self.0.len()).ok_or(Malformed(what))
    }

    /// Bytes behind their length-encoded length.
    ///
    /// # Errors
    /// When they are cut off.
    #[inline]
    pub fn lenenc_bytes(&mut self, what: &'static str) -> Result<&'a [u8]> {
        let length = self.length(what)?;
        self.take(length, what)
    }

    /// Bytes up to a zero byte, which is taken too.
    ///
    /// # Errors
    /// When there is none.
    pub fn until_zero(&mut self, what: &'static str) -> Result<&'a [u8]> {
        let end = self.0.iter().position(|b| *b == 0).ok_or(Malformed(what))?;
        let text = self.take(end, what)?;
        self.take(1, what)?;
        Ok(text)
    }

    /// A bitmap of `bits` bits in whole bytes.
    ///
    /// # Errors
    /// When it is cut off.
    #[inline]
    pub fn bits(&mut self, bits: usize, what: &'static str) -> Result<Bits<'a>> {
        Ok(Bits { bytes: self.take(bits.div_ceil(8), what)?, len: bits })
    }

    /// Everything must have been read.
    ///
    /// # Errors
    /// When something is left.
    #[inline]
    pub fn end(&self, what: &'static str) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed(what)) }
    }
}

/// Borrowed bits, the first the least significant of the first byte. What fills up the last byte does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Bits<'a> {
    bytes: &'a [u8],
    len: usize,
}

impl<'a> Bits<'a> {
    /// Number of bits.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without bits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether bit `i` is set; false beyond the end.
    #[inline]
    pub fn get(&self, i: usize) -> bool {
        i < self.len && self.bytes.get(i / 8).is_some_and(|byte| byte >> (i % 8) & 1 != 0)
    }

    /// How many bits are set.
    #[inline]
    pub fn ones(&self) -> usize {
        let Some((last, whole)) = self.bytes.split_last() else { return 0 };
        let mask = if self.len.is_multiple_of(8) { 0xff } else { (1 << (self.len % 8)) - 1 };
        let ones: u32 = whole.iter().map(|byte| byte.count_ones()).sum();
        (ones + (last & mask).count_ones()) as usize
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "in a test, a panic with a clear message is how a failure is reported"
    )]

    use super::*;

    #[test]
    fn numbers_are_read_in_their_byte_order() {
        let bytes: Vec<u8> = (1..=64).collect();
        let mut r = Bytes::new(&bytes);
        assert_eq!(r.u8(""), Ok(1));
        assert_eq!(r.u16(""), Ok(0x0302));
        assert_eq!(r.u16_be(""), Ok(0x0405));
        assert_eq!(r.u24(""), Ok(0x0008_0706));
        assert_eq!(r.u24_be(""), Ok(0x0009_0a0b));
        assert_eq!(r.u48(""), Ok(0x1110_0f0e_0d0c));
        assert_eq!(r.u40_be(""), Ok(0x12_1314_1516));
        assert_eq!(r.uint(3, ""), Ok(0x19_1817));
        assert_eq!(r.uint_be(3, ""), Ok(0x1a_1b1c));
        assert_eq!(r.uint(0, ""), Ok(0));
        assert_eq!(r.uint(9, "too wide"), Err(Malformed("too wide")));
        assert_eq!(r.len(), 64 - 28);
        assert_eq!(r.rest()[0], 29);
        assert!(r.end("").is_ok());
    }

    #[test]
    fn a_number_that_is_cut_off_takes_nothing() {
        let mut r = Bytes::new(&[1, 2, 3]);
        assert_eq!(r.u32("four"), Err(Malformed("four")));
        assert_eq!(r.take(4, "four"), Err(Malformed("four")));
        assert_eq!(r.u24(""), Ok(0x03_0201));
    }

    #[test]
    fn packed_integers_have_four_lengths() {
        for (bytes, number) in [
            (&[250][..], 250),
            (&[252, 251, 0], 251),
            (&[253, 0, 0, 1], 65_536),
            (&[254, 1, 2, 3, 4, 5, 6, 7, 8], 0x0807_0605_0403_0201),
        ] {
            let mut r = Bytes::new(bytes);
            assert_eq!(r.lenenc(""), Ok(number));
            assert!(r.is_empty());
            assert!(Bytes::new(&bytes[..bytes.len() - 1]).lenenc("").is_err());
        }
        assert!(Bytes::new(&[251]).lenenc("").is_err(), "NULL is no number");
        assert!(Bytes::new(&[255]).lenenc("").is_err());
        assert_eq!(
            Bytes::new(&[254, 255, 255, 255, 255, 255, 255, 255, 255]).length("x"),
            Err(Malformed("x"))
        );
        assert_eq!(Bytes::new(&[2, 7]).lenenc_bytes("x"), Err(Malformed("x")));
        assert_eq!(Bytes::new(&[1, 7]).lenenc_bytes("x"), Ok(&[7][..]));
    }

    #[test]
    fn bits_count_from_the_lowest_and_ignore_what_fills_up() {
        let mut r = Bytes::new(&[0b1000_0001, 0xff]);
        let bits = r.bits(10, "").unwrap();
        assert_eq!((bits.len(), bits.ones()), (10, 4));
        assert_eq!((0..16).filter(|i| bits.get(*i)).collect::<Vec<_>>(), [0, 7, 8, 9]);
        assert!(Bytes::new(&[0]).bits(9, "").is_err());
        assert_eq!(Bits::default().ones(), 0);
        assert_eq!(Bytes::new(&[0xff]).bits(8, "").unwrap().ones(), 8);
    }

    #[test]
    fn text_ends_at_a_zero() {
        let mut r = Bytes::new(b"ab\0c");
        assert_eq!(r.until_zero(""), Ok(&b"ab"[..]));
        assert_eq!(r.until_zero("zero"), Err(Malformed("zero")));
        assert_eq!(r.peek(), b"c");
    }
}
