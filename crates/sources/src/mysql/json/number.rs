//! Doubles as the server prints them.

use super::{Malformed, Result};

/// Appends a double: the fewest digits that read back to it, laid out as `my_gcvt` does.
///
/// With the decimal point at `p` places right of the first digit: plain for −14 ≤ p ≤ 15, and beyond that while digits follow
/// the point; otherwise with an exponent, without a plus or padding. `.0` marks what would look like an integer.
///
/// # Errors
/// Infinities and NaN, which JSON has no words for and the server never stores.
pub(super) fn double(v: f64, out: &mut Vec<u8>) -> Result<()> {
    if !v.is_finite() {
        return Err(Malformed("JSON: a double that is no number"));
    }
    // Ryu has the same digits. Its layouts differ in two spans only.
    let mut buffer = ryu::Buffer::new();
    let text = buffer.format_finite(v).as_bytes();
    let size = v.abs();
    match text.strip_suffix(b".0") {
        Some(whole) if (1e15..1e16).contains(&size) => with_exponent(whole, out),
        _ if (1e-15..1e-5).contains(&size) => plain(text, out),
        _ => out.extend_from_slice(text),
    }
    Ok(())
}

/// The sixteen digits of `1200000000000000` as `1.2e15`.
fn with_exponent(mut digits: &[u8], out: &mut Vec<u8>) {
    while let Some(shorter) = digits.strip_suffix(b"0") {
        digits = shorter;
    }
    let (first, rest) = digits.split_at(1 + usize::from(digits.starts_with(b"-")));
    out.extend_from_slice(first);
    if !rest.is_empty() {
        out.push(b'.');
        out.extend_from_slice(rest);
    }
    out.extend_from_slice(b"e15");
}

/// `1.2e-7` as `0.00000012`.
fn plain(text: &[u8], out: &mut Vec<u8>) {
    let minus = text.iter().rposition(|b| *b == b'-').unwrap_or(0);
    let places = text[minus + 1..].iter().fold(0, |n, digit| n * 10 + usize::from(digit & 0xf));
    if text.starts_with(b"-") {
        out.push(b'-');
    }
    out.extend_from_slice(b"0.");
    out.extend(std::iter::repeat_n(b'0', places.saturating_sub(1)));
    out.extend(text[..minus].iter().filter(|b| b.is_ascii_digit()));
}
