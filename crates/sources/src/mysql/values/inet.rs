//! MariaDB's `INET4` and `INET6` as the server prints them.

/// The longest, `0000:0000:0000:0000:0000:ffff:255.255.255.255`, has 45 characters.
pub(super) struct Text {
    bytes: [u8; 48],
    end: usize,
}

impl Text {
    fn new() -> Text {
        Text { bytes: [0; 48], end: 0 }
    }

    /// Never more than fits: see the callers.
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.end) {
            *place = byte;
            self.end += 1;
        }
    }

    fn hex(&mut self, word: u16) {
        let digits = (16 - word.leading_zeros()).div_ceil(4).max(1);
        for i in (0..digits).rev() {
            self.push(b"0123456789abcdef"[usize::from(word >> (4 * i) & 15)]);
        }
    }

    fn quad(&mut self, bytes: [u8; 4]) {
        for (i, byte) in bytes.into_iter().enumerate() {
            if i > 0 {
                self.push(b'.');
            }
            if byte >= 100 {
                self.push(b'0' + byte / 100);
            }
            if byte >= 10 {
                self.push(b'0' + byte / 10 % 10);
            }
            self.push(b'0' + byte % 10);
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.end]
    }
}

/// `192.0.2.1`.
pub(super) fn inet4(address: [u8; 4]) -> Text {
    let mut text = Text::new();
    text.quad(address);
    text
}

/// `2001:db8::1`. Unlike RFC 5952, and unlike Rust, the server shortens also a single zero, and writes the end of every
/// address of the ranges `::/96` and `::ffff:0:0/96` as IPv4.
pub(super) fn inet6(address: [u8; 16]) -> Text {
    let mut words = [0_u16; 8];
    for (word, pair) in words.iter_mut().zip(address.as_chunks().0) {
        *word = u16::from_be_bytes(*pair);
    }
    let gap = longest_zeros(&words);
    let ends_as_v4 = gap == (0..6) || (gap == (0..5) && words[5] == 0xffff);
    let mut text = Text::new();
    let mut i = 0;
    while i < 8 {
        if i == gap.start && !gap.is_empty() {
            if i == 0 {
                text.push(b':');
            }
            text.push(b':');
            i = gap.end;
        } else if i == 6 && ends_as_v4 {
            let [.., a, b, c, d] = address;
            text.quad([a, b, c, d]);
            break;
        } else {
            text.hex(words[i]);
            if i < 7 {
                text.push(b':');
            }
            i += 1;
        }
    }
    text
}

/// The first of the longest runs of zeros; empty when there is none.
fn longest_zeros(words: &[u16; 8]) -> std::ops::Range<usize> {
    let (mut longest, mut start) = (0..0, 0);
    for (i, word) in words.iter().enumerate() {
        if *word != 0 {
            start = i + 1;
        } else if i + 1 - start > longest.len() {
            longest = start..i + 1;
        }
    }
    longest
}
