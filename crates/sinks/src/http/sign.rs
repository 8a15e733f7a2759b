//! Signatures: HMAC-SHA-256 over the time and the body, so that the receiver knows who sent it and that it is not an old request
//! sent again.

use super::config::Signature;
use deltaforge_core::Fault;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::{HeaderMap, HeaderValue};
use sha2::Sha256;

/// Adds `<header>: sha256=<hex>` and `<header>-timestamp: <seconds>`. Signed is `<seconds>.<body>`.
pub(super) fn sign(
    signature: &Signature,
    unix_secs: i64,
    body: &[u8],
    headers: &mut HeaderMap,
) -> Result<(), Fault> {
    let broken = || Fault::bug("http.signature", "a request cannot be signed");
    let key = signature.secret.expose().as_bytes();
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|_| broken())?;
    let seconds = unix_secs.to_string();
    mac.update(seconds.as_bytes());
    mac.update(b".");
    mac.update(body);
    let mut value = String::from("sha256=");
    for byte in mac.finalize().into_bytes() {
        for digit in [byte >> 4, byte & 15] {
            value.extend(char::from_digit(digit.into(), 16));
        }
    }
    headers.insert(signature.header.clone(), HeaderValue::try_from(value).map_err(|_| broken())?);
    headers.insert(signature.timestamp.clone(), HeaderValue::try_from(seconds).map_err(|_| broken())?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use deltaforge_core::config::Secret;
    use reqwest::header::HeaderName;

    /// The value was made with `printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac hunter2`.
    #[test]
    fn as_openssl_signs() {
        let signature = Signature {
            secret: Secret::new("hunter2"),
            header: HeaderName::from_static("x-s"),
            timestamp: HeaderName::from_static("x-s-timestamp"),
        };
        let mut headers = HeaderMap::new();
        sign(&signature, 1_700_000_000, b"{\"a\":1}", &mut headers).unwrap();
        assert_eq!(headers["x-s"], "sha256=56b25cbf563812b38800e5f4dd1febfde087d36841155e70b3aa285517e1570a");
        assert_eq!(headers["x-s-timestamp"], "1700000000");
    }
}
