//! The server's RSA key, looked at before the library that encrypts with it does: that one panics on a key that is none, and
//! takes as long as it takes for one that is too long.

use crate::shared::transport::der;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";
/// Length of the modulus, bytes: from what the padding needs to what nobody has.
const MODULUS: std::ops::RangeInclusive<usize> = 128..=2048;
/// Longest exponent, bytes.
const EXPONENT: usize = 8;

/// What the padding (PKCS #1 OAEP with SHA-1) takes of the modulus, and one byte more for a modulus of an odd length, bytes.
const PADDING: usize = 43;

/// A key that may be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// As PEM, with nothing around it.
    pub(super) pem: Vec<u8>,
    /// Most bytes that it encrypts.
    pub(super) capacity: usize,
}

/// The key of a PEM text; `None` when it is not one RSA key of a sensible length.
pub(super) fn checked(pem: &[u8]) -> Option<Key> {
    let text = std::str::from_utf8(pem).ok()?;
    let (_, rest) = text.split_once(BEGIN)?;
    let (body, _) = rest.split_once(END)?;
    let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let key = STANDARD.decode(body).ok()?;
    let capacity = modulus_length(&key)? - PADDING;
    Some(Key { pem: format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(key)).into_bytes(), capacity })
}

/// SubjectPublicKeyInfo ::= SEQUENCE { algorithm SEQUENCE { … }, BIT STRING of SEQUENCE { modulus INTEGER, exponent INTEGER } }
fn modulus_length(key: &[u8]) -> Option<usize> {
    let element = |bytes, expected| {
        der(bytes).filter(|(tag, ..)| *tag == expected).map(|(_, content, rest)| (content, rest))
    };
    let (key, after) = element(key, 0x30)?;
    let (_, rest) = element(key, 0x30)?;
    let (bits, end) = element(rest, 0x03)?;
    let (unused, numbers) = bits.split_first()?;
    let (numbers, after_numbers) = element(numbers, 0x30)?;
    let (modulus, rest) = element(numbers, 0x02)?;
    let (exponent, after_exponent) = element(rest, 0x02)?;
    let modulus = modulus.strip_prefix(&[0]).unwrap_or(modulus);
    let whole = [after, end, after_numbers, after_exponent].iter().all(|rest| rest.is_empty());
    let sensible = MODULUS.contains(&modulus.len())
        && modulus.first().is_some_and(|b| *b != 0)
        && modulus.last().is_some_and(|b| b & 1 == 1)
        && (1..=EXPONENT).contains(&exponent.len())
        && exponent.last().is_some_and(|b| b & 1 == 1);
    (whole && *unused == 0 && sensible).then_some(modulus.len())
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "in a test, a panic with a clear message is how a failure is reported"
    )]

    use super::*;
    use mysql_common::crypto::encrypt;

    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag, 0x82, (content.len() >> 8) as u8, content.len() as u8], content].concat()
    }

    fn pem(key: &[u8]) -> Vec<u8> {
        format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(key)).into_bytes()
    }

    fn key(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
        let numbers = tlv(0x30, &[tlv(2, modulus), tlv(2, exponent)].concat());
        let bits = tlv(3, &[&[0][..], &numbers].concat());
        tlv(0x30, &[tlv(0x30, &[5, 0]), bits].concat())
    }

    fn modulus(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i * 7) as u8 | 0x81).collect()
    }

    #[test]
    fn a_key_passes_and_encrypts() {
        let good = checked(&pem(&key(&modulus(256), &[1, 0, 1]))).unwrap();
        assert_eq!(encrypt(b"secret\0", &good.pem).unwrap().len(), 256);
        assert_eq!(encrypt(&vec![7; good.capacity], &good.pem).unwrap().len(), 256);
        // Around it may stand anything, also another key, which is then not there any more.
        let around = [
            b"-----BEGIN RSA PUBLIC KEY-----\nAAAA\n-----END RSA PUBLIC KEY-----\n",
            &pem(&key(&modulus(128), &[3]))[..],
        ]
        .concat();
        assert_eq!(checked(&around).unwrap().pem, pem(&key(&modulus(128), &[3])));
    }

    #[test]
    fn what_is_no_key_is_told_before_it_is_used() {
        let zeros = vec![0; 256];
        let even = [&modulus(255)[..], &[2]].concat();
        let mut trailing = key(&modulus(256), &[1, 0, 1]);
        trailing.push(0);
        let bad = [
            key(&modulus(127), &[3]),
            key(&modulus(2049), &[3]),
            key(&zeros, &[3]),
            key(&even, &[3]),
            key(&modulus(256), &[]),
            key(&modulus(256), &[2]),
            key(&modulus(256), &[1; 9]),
            trailing,
            vec![],
        ];
        for key in bad {
            assert_eq!(checked(&pem(&key)), None, "{key:x?}");
        }
        for text in ["", BEGIN, "-----BEGIN PUBLIC KEY-----!-----END PUBLIC KEY-----"] {
            assert_eq!(checked(text.as_bytes()), None, "{text}");
        }
        assert_eq!(checked(&[0xff, 0xfe]), None);
    }

    #[test]
    fn no_cut_or_flipped_key_makes_the_library_panic() {
        let good = key(&modulus(256), &[1, 0, 1]);
        for end in 0..good.len() {
            assert_eq!(checked(&pem(&good[..end])), None, "{end}");
        }
        for bit in 0..good.len() * 8 {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // The length of the exponent and the last of the modulus cost time, not sense.
            if let Some(key) = checked(&pem(&flipped)).filter(|_| bit % 64 == 0 || bit < 300) {
                let _refused_or_not = encrypt(&vec![7; key.capacity], &key.pem);
            }
        }
    }
}
