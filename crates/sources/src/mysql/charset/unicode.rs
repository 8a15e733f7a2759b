//! The forms of Unicode beside UTF-8.

/// Two bytes a character, the upper one first; surrogates are no characters.
pub(super) fn ucs2(bytes: &[u8], out: &mut Vec<u8>) -> bool {
    let (units, rest) = bytes.as_chunks();
    out.reserve(bytes.len());
    rest.is_empty() && units.iter().all(|unit| super::push(u16::from_be_bytes(*unit), out))
}

/// Two bytes a character, or four for a pair of surrogates.
pub(super) fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16, out: &mut Vec<u8>) -> bool {
    let (units, rest) = bytes.as_chunks();
    out.reserve(bytes.len());
    let mut characters = char::decode_utf16(units.iter().map(|pair| unit(*pair)));
    rest.is_empty() && characters.all(|character| character.is_ok_and(|character| push(character, out)))
}

/// Four bytes a character.
pub(super) fn utf32(bytes: &[u8], out: &mut Vec<u8>) -> bool {
    let (numbers, rest) = bytes.as_chunks();
    out.reserve(bytes.len());
    let character = |number: &[u8; 4]| char::from_u32(u32::from_be_bytes(*number));
    rest.is_empty()
        && numbers.iter().all(|number| character(number).is_some_and(|character| push(character, out)))
}

fn push(character: char, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    true
}
