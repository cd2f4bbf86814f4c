//! Signature version 4 of AWS, as part of a URL.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use std::fmt::Write as _;
use std::time::Duration;

use bellwether_base::{Error, Result};
use chrono::DateTime;
use hmac::{Hmac, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

/// Everything but the characters that RFC 3986 leaves alone.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A credential of IAM.
pub(crate) struct Credential<'a> {
    pub(crate) id: &'a str,
    pub(crate) key: &'a str,
    /// Token of a session, if the credential is temporary.
    pub(crate) token: Option<&'a str>,
}

/// Percent-encodes a text for a query.
pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Returns the URL of a GET request to `host` with `query`, signed for a service in a region. It is valid from `at_micros`
/// (microseconds since the epoch) for the time `valid`. The names in `query` must sort before `X-Amz-`.
///
/// # Errors
/// `Bug` if the time is outside the range of dates.
pub(crate) fn presigned(
    host: &str,
    query: &[(&str, &str)],
    (service, region): (&str, &str),
    credential: &Credential<'_>,
    (at_micros, valid): (i64, Duration),
) -> Result<String> {
    let at = DateTime::from_timestamp_micros(at_micros).ok_or_else(|| Error::bug("the time is no date"))?;
    let (day, time) = (at.format("%Y%m%d").to_string(), at.format("%Y%m%dT%H%M%SZ").to_string());
    let scope = format!("{day}/{region}/{service}/aws4_request");
    let (who, seconds) = (format!("{}/{scope}", credential.id), valid.as_secs().to_string());
    let mut parts = query.to_vec();
    parts.extend([
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
        ("X-Amz-Credential", &who),
        ("X-Amz-Date", &time),
        ("X-Amz-Expires", &seconds),
    ]);
    parts.extend(credential.token.map(|token| ("X-Amz-Security-Token", token)));
    parts.push(("X-Amz-SignedHeaders", "host"));
    let parts: Vec<String> =
        parts.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    let query = parts.join("&");
    let request = format!("GET\n/\n{query}\nhost:{host}\n\nhost\n{}", hex(&Sha256::digest(b"")));
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(request.as_bytes())));
    let key = [day.as_str(), region, service, "aws4_request"]
        .iter()
        .fold(format!("AWS4{}", credential.key).into_bytes(), |key, part| mac(&key, part));
    Ok(format!("https://{host}/?{query}&X-Amz-Signature={}", hex(&mac(&key, &text))))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("an HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("strings take text");
        text
    })
}
