//! Checks SigV4 signatures of requests as AWS does it: from the headers that the client says it signed, the body it sent, and
//! the secret that belongs to its key.
//!
//! The canonical request is built here by AWS's description, on purpose not by the code that the Rust SDK signs with; key
//! derivation and HMAC are `aws-sigv4`'s.

use crate::keys::{Caller, Key, Keys};
use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use http::HeaderMap;
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use sha2::{Digest, Sha256};
use std::{fmt::Write, time::Duration};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// How far the client's clock may be off.
const MAX_SKEW: Duration = Duration::from_secs(300);
/// Everything but unreserved characters is encoded in canonical queries.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A request to check.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// `POST`.
    pub method: &'a str,
    /// As sent, still encoded.
    pub path: &'a str,
    /// As sent, without `?`.
    pub query: &'a str,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The whole body.
    pub body: &'a [u8],
}

/// Why a request is not let in. The texts are AWS's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No `Authorization` header.
    #[error("Request is missing Authentication Token")]
    Missing,
    /// A header that cannot be read.
    #[error("Authorization header is incomplete: {0}")]
    Incomplete(&'static str),
    /// A key that nobody has.
    #[error("AWS was not able to validate the provided access credentials")]
    UnknownKey,
    /// A session token that does not belong to the key.
    #[error("The security token included in the request is invalid")]
    BadToken,
    /// Credentials that have ended.
    #[error("Request has expired.")]
    Expired,
    /// A clock that is off, here or there; when the request was signed.
    #[error("Signature not current: {0} is more than 5 minutes off")]
    Skewed(String),
    /// Signed for another region, service or day.
    #[error("Credential should be scoped to {0}")]
    Scope(String),
    /// The wrong secret, or another request than the one that was signed.
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key \
         and signing method. Consult the service documentation for details."
    )]
    Mismatch,
}

impl AuthError {
    /// The code that AWS answers.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "MissingAuthenticationToken",
            Self::Incomplete(_) => "IncompleteSignature",
            Self::UnknownKey | Self::BadToken => "AuthFailure",
            Self::Expired | Self::Skewed(_) => "RequestExpired",
            Self::Scope(_) | Self::Mismatch => "SignatureDoesNotMatch",
        }
    }
}

/// The parts of the `Authorization` header.
struct Authorization<'a> {
    key: &'a str,
    date: &'a str,
    region: &'a str,
    service: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

/// Whose request it is, if it is anybody's.
pub fn verify(
    request: &Signed<'_>,
    keys: &Keys,
    region: &str,
    service: &str,
    now: Timestamp,
) -> Result<Caller, AuthError> {
    let header = request.headers.get(http::header::AUTHORIZATION).ok_or(AuthError::Missing)?;
    let auth = parse(header.to_str().map_err(|_| AuthError::Incomplete("not ASCII"))?)?;
    let key = keys.find(auth.key).ok_or(AuthError::UnknownKey)?;
    check_token(&key, request.headers)?;
    let stamp = text(request.headers, "x-amz-date").ok_or(AuthError::Incomplete("no X-Amz-Date"))?;
    let signed_at = timestamp(stamp).ok_or(AuthError::Incomplete("X-Amz-Date is not a time"))?;
    let too_old = signed_at + MAX_SKEW < now || now + MAX_SKEW < signed_at;
    if too_old {
        return Err(AuthError::Skewed(stamp.to_owned()));
    }
    if key.expires.is_some_and(|end| end <= now) {
        return Err(AuthError::Expired);
    }
    if auth.region != region || auth.service != service || !stamp.starts_with(auth.date) {
        return Err(AuthError::Scope(format!("a valid day, region {region} and service {service}")));
    }
    let canonical = canonical_request(request, auth.signed_headers)?;
    let scope = format!("{}/{}/{}/aws4_request", auth.date, auth.region, auth.service);
    let to_sign = format!("{ALGORITHM}\n{stamp}\n{scope}\n{}", sha256(canonical.as_bytes()));
    let signing_key = generate_signing_key(key.secret, signed_at.into(), auth.region, auth.service);
    let expected = calculate_signature(signing_key, to_sign.as_bytes());
    if expected == auth.signature { Ok(key.holder.clone()) } else { Err(AuthError::Mismatch) }
}

fn check_token(key: &Key<'_>, headers: &HeaderMap) -> Result<(), AuthError> {
    if key.session_token == text(headers, "x-amz-security-token") { Ok(()) } else { Err(AuthError::BadToken) }
}

/// `AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/SERVICE/aws4_request, SignedHeaders=A;B, Signature=HEX`.
fn parse(header: &str) -> Result<Authorization<'_>, AuthError> {
    let rest = header.strip_prefix(ALGORITHM).ok_or(AuthError::Incomplete("unknown algorithm"))?;
    let field =
        |name: &str| rest.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
    let credential = field("Credential").ok_or(AuthError::Incomplete("no Credential"))?;
    let signed_headers = field("SignedHeaders").ok_or(AuthError::Incomplete("no SignedHeaders"))?;
    let signature = field("Signature").ok_or(AuthError::Incomplete("no Signature"))?;
    let parts: Vec<_> = credential.split('/').collect();
    let [key, date, region, service, "aws4_request"] = parts[..] else {
        return Err(AuthError::Incomplete("Credential is not KEY/DATE/REGION/SERVICE/aws4_request"));
    };
    Ok(Authorization { key, date, region, service, signed_headers, signature })
}

/// A header that occurs once.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// `20261122T154223Z`.
fn timestamp(stamp: &str) -> Option<Timestamp> {
    let time = DateTime::strptime("%Y%m%dT%H%M%SZ", stamp).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The request as the client must have seen it when it signed.
fn canonical_request(request: &Signed<'_>, signed_headers: &str) -> Result<String, AuthError> {
    let mut headers = String::new();
    let mut has_host = false;
    for name in signed_headers.split(';') {
        has_host |= name == "host";
        let values = request.headers.get_all(name);
        let values = values.iter().map(|v| v.to_str().map(normalised)).collect::<Result<Vec<_>, _>>();
        let values = values.map_err(|_| AuthError::Incomplete("a signed header is not ASCII"))?;
        if values.is_empty() {
            return Err(AuthError::Mismatch);
        }
        // Writing to a String cannot fail.
        let _infallible = writeln!(headers, "{name}:{}", values.join(","));
    }
    // Without it, a request signed for another host would pass.
    if !has_host {
        return Err(AuthError::Incomplete("host must be among SignedHeaders"));
    }
    let body = sha256(request.body);
    if text(request.headers, "x-amz-content-sha256").is_some_and(|claimed| claimed != body) {
        return Err(AuthError::Mismatch);
    }
    let Signed { method, path, query, .. } = request;
    Ok(format!("{method}\n{path}\n{}\n{headers}\n{signed_headers}\n{body}", canonical_query(query)))
}

/// Blanks at the ends go, runs of them in the middle become one.
fn normalised(value: &str) -> String {
    value.split(' ').filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Decoded, encoded again by the one rule, sorted.
fn canonical_query(query: &str) -> String {
    let encode = |text: &str| {
        let decoded: Vec<u8> = percent_decode_str(text).collect();
        percent_encode(&decoded, ENCODED).to_string()
    };
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (encode(name), encode(value)))
        .collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests;
