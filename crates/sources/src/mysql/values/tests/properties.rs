//! What holds for all values and for all bytes.

use super::*;
use proptest::prelude::*;

/// Packs the digits of a number as the servers do, group by group from the point outwards.
fn packed(whole: &str, fraction: &str, negative: bool) -> Vec<u8> {
    const BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
    let group = |digits: &str| {
        let number: u32 = if digits.is_empty() { 0 } else { digits.parse().unwrap() };
        number.to_be_bytes()[4 - BYTES[digits.len()]..].to_vec()
    };
    let mut groups = Vec::new();
    let (mut left, mut right) = (whole, fraction);
    while !left.is_empty() {
        let (rest, nine) = left.split_at(left.len().saturating_sub(9));
        groups.insert(0, group(nine));
        left = rest;
    }
    while !right.is_empty() {
        let (nine, rest) = right.split_at(right.len().min(9));
        groups.push(group(nine));
        right = rest;
    }
    let mut bytes = groups.concat();
    bytes[0] ^= 0x80;
    if negative {
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
    }
    bytes
}

/// One column of every type, with metadata and facts that vary.
fn some_codec(ty: u8, meta: u16, number: u8) -> Option<Codec> {
    let labels: Vec<String> = (0..number).map(|i| format!("label {i}")).collect();
    let charsets: Vec<Charset> = Charset::all().collect();
    let declared = ["", "year(2)", "time(3)", "datetime(6)", "uuid", "inet4", "inet6", "vector(3)"];
    let zero_dates = [ZeroDate::Null, ZeroDate::String, ZeroDate::Error];
    let facts = Facts {
        declared: declared[usize::from(number) % declared.len()],
        unsigned: number % 2 == 1,
        charset: charsets[usize::from(number) % charsets.len()],
        labels: &labels,
        json: number.is_multiple_of(5),
        nullable: number.is_multiple_of(3),
        zero_date: zero_dates[usize::from(number) % 3],
    };
    let column = Column { ty: T::from_byte(ty).ok()?, meta, nullable: facts.nullable };
    Codec::new(&column, &facts).ok()
}

proptest! {
    #[test]
    fn decimals_unpack(
        whole in "[0-9]{0,35}",
        fraction in "[0-9]{0,30}",
        negative: bool,
    ) {
        prop_assume!(!whole.is_empty() || !fraction.is_empty());
        let meta = ((whole.len() + fraction.len()) << 8 | fraction.len()) as u16;
        let digits = whole.trim_start_matches('0');
        let mut expected = String::from(if negative { "-" } else { "" });
        expected += if digits.is_empty() { "0" } else { digits };
        if !fraction.is_empty() {
            expected = expected + "." + &fraction;
        }
        let bytes = packed(&whole, &fraction, negative);
        prop_assert_eq!(shown(&codec(T::NewDecimal, meta, &facts()), &bytes), format!("\"{expected}\""));
    }

    #[test]
    fn times_unpack(micros in -3_020_399_999_999_i64..=3_020_399_999_999, digits in 0_u32..=6) {
        let unit = 10_i64.pow(6 - digits);
        let micros = micros / unit * unit;
        let size = digits.div_ceil(2);
        let (seconds, fraction) = (micros.abs() / 1_000_000, micros.abs() % 1_000_000);
        let clock = (seconds / 3600) << 12 | (seconds / 60 % 60) << 6 | (seconds % 60);
        let fraction = fraction / [1_000_000, 10_000, 100, 1][size as usize];
        let number = (clock << (8 * size)) | fraction;
        let number = (0x80_0000 << (8 * size)) + number * micros.signum();
        let bytes = number.to_be_bytes()[5 - size as usize..].to_vec();
        prop_assert_eq!(temporal::time(&bytes, Form::Packed(digits as u8)), Ok(micros));
    }

    #[test]
    fn moments_unpack(
        (year, month, day) in (0_u64..=9999, 0_u64..=12, 0_u64..=31),
        second in 0_u64..86_400,
        micros in 0_u64..1_000_000,
        digits in 0_u32..=6,
    ) {
        let unit = 10_u64.pow(6 - digits);
        let micros = micros / unit * unit;
        let size = digits.div_ceil(2);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let date = (year * 13 + month) << 5 | day;
        let number = 1 << 39 | date << 17 | hour << 12 | minute << 6 | second;
        let number = u128::from(number) << (8 * size) | u128::from(micros / [1_000_000, 10_000, 100, 1][size as usize]);
        let bytes = number.to_be_bytes()[11 - size as usize..].to_vec();
        let mut expected = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}");
        expected.truncate(expected.trim_end_matches('0').len());
        if expected.ends_with('.') {
            expected.pop();
        }
        if !expected.bytes().any(|byte| matches!(byte, b'1'..=b'9')) {
            expected.truncate(10);
        }
        let string = Facts { zero_date: ZeroDate::String, ..facts() };
        let (shown, _) = read(&codec(T::DateTime2, digits as u16, &string), &bytes).unwrap();
        prop_assert_eq!(shown, format!("\"{expected}\""));
    }

    #[test]
    fn any_bytes_of_any_type_are_read_or_refused(
        ty: u8,
        meta in prop_oneof![0_u16..10, 0_u16..70, any::<u16>()],
        number: u8,
        bytes in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let Some(codec) = some_codec(ty, meta, number) else { return Ok(()) };
        let mut skipped = Bytes::new(&bytes);
        let size = codec.skip(&mut skipped).map(|_| bytes.len() - skipped.len());
        let read = read_of(&codec, &bytes, size.unwrap_or_default());
        if size.is_err() {
            prop_assert!(matches!(read, Err(Refused::Malformed(_))));
        }
    }
}
