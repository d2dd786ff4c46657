//! Signatures of AWS's own signer, and all that may be wrong with one.

use super::*;
use crate::config::OperatorKey;
use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use http::{HeaderName, HeaderValue};
use std::time::SystemTime;

const BODY: &[u8] = b"Action=DescribeInstances&Version=2016-11-15";

fn now() -> Timestamp {
    "2026-11-22T15:42:23Z".parse().unwrap()
}

fn keys() -> Keys {
    let operator = OperatorKey { access_key: "AKIDBOX".into(), secret_key: "secret/with+signs".into() };
    Keys::new(Some(operator))
}

/// Headers of a request signed by the SDK's own signer.
fn signed(key: &str, secret: &str, token: Option<&str>, query: &str, at: Timestamp) -> HeaderMap {
    let identity = Credentials::new(key, secret, token.map(str::to_owned), None, "test").into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region("us-west-2")
        .name("ec2")
        .time(SystemTime::from(at))
        .settings(SigningSettings::default())
        .build()
        .unwrap()
        .into();
    let plain = [
        ("host", "127.0.0.1:4566"),
        ("content-type", "application/x-www-form-urlencoded"),
        ("x-odd", " a   b "),
    ];
    let uri = format!("http://127.0.0.1:4566/{query}");
    let request = SignableRequest::new("POST", uri, plain.into_iter(), SignableBody::Bytes(BODY)).unwrap();
    let (instructions, _) = sign(request, &params).unwrap().into_parts();
    let mut headers = HeaderMap::new();
    for (name, value) in plain.into_iter().chain(instructions.headers()) {
        headers.insert(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn check(
    headers: &HeaderMap,
    query: &str,
    body: &[u8],
    keys: &Keys,
    now: Timestamp,
) -> Result<Caller, AuthError> {
    let request = Signed { method: "POST", path: "/", query, headers, body };
    verify(&request, keys, "us-west-2", "ec2", now)
}

#[test]
fn a_request_signed_by_the_sdk_is_let_in() {
    let headers = signed("AKIDBOX", "secret/with+signs", None, "", now());
    assert_eq!(check(&headers, "", BODY, &keys(), now()), Ok(Caller::Operator));
}

#[test]
fn a_query_is_part_of_what_is_signed() {
    let query = "Filter.1.Value=a%2Fb&Action=x";
    let headers = signed("AKIDBOX", "secret/with+signs", None, &format!("?{query}"), now());
    assert_eq!(check(&headers, query, BODY, &keys(), now()), Ok(Caller::Operator));
    assert_eq!(check(&headers, "Action=x", BODY, &keys(), now()), Err(AuthError::Mismatch));
}

#[test]
fn a_wrong_secret_or_a_changed_body_does_not_match() {
    let headers = signed("AKIDBOX", "another secret", None, "", now());
    assert_eq!(check(&headers, "", BODY, &keys(), now()), Err(AuthError::Mismatch));
    let headers = signed("AKIDBOX", "secret/with+signs", None, "", now());
    assert_eq!(check(&headers, "", b"Action=Other", &keys(), now()), Err(AuthError::Mismatch));
}

#[test]
fn an_unknown_key_is_an_auth_failure() {
    let headers = signed("AKIDOTHER", "secret", None, "", now());
    let error = check(&headers, "", BODY, &keys(), now()).unwrap_err();
    assert_eq!((error.code(), error), ("AuthFailure", AuthError::UnknownKey));
}

#[test]
fn a_clock_five_minutes_off_is_refused() {
    let headers = signed("AKIDBOX", "secret/with+signs", None, "", now());
    for late in [now() + Duration::from_secs(301), now() - Duration::from_secs(301)] {
        let error = check(&headers, "", BODY, &keys(), late).unwrap_err();
        assert!(error.code() == "RequestExpired" && matches!(error, AuthError::Skewed(_)), "{error}");
    }
    assert!(check(&headers, "", BODY, &keys(), now() + Duration::from_secs(299)).is_ok());
}

#[test]
fn issued_keys_need_their_session_token_and_end() {
    let mut keys = keys();
    let issued = keys.issue("i-1", now());
    let (key, secret) = (issued.access_key_id.as_str(), issued.secret_access_key.as_str());
    let good = signed(key, secret, Some(&issued.token), "", now());
    assert_eq!(check(&good, "", BODY, &keys, now()), Ok(Caller::Instance("i-1".into())));
    let without = signed(key, secret, None, "", now());
    assert_eq!(check(&without, "", BODY, &keys, now()), Err(AuthError::BadToken));
    let late = issued.expiration;
    let late_headers = signed(key, secret, Some(&issued.token), "", late);
    assert_eq!(check(&late_headers, "", BODY, &keys, late), Err(AuthError::Expired));
}

#[test]
fn a_request_for_another_region_is_refused() {
    let headers = signed("AKIDBOX", "secret/with+signs", None, "", now());
    let request = Signed { method: "POST", path: "/", query: "", headers: &headers, body: BODY };
    let error = verify(&request, &keys(), "eu-central-1", "ec2", now()).unwrap_err();
    assert_eq!(error.code(), "SignatureDoesNotMatch");
}

#[test]
fn an_unsigned_request_is_told_so() {
    let error = check(&HeaderMap::new(), "", BODY, &keys(), now()).unwrap_err();
    assert_eq!(error.code(), "MissingAuthenticationToken");
}

proptest::proptest! {
    #[test]
    fn any_authorization_header_is_answered_without_panic(text in "\\PC{0,200}") {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(http::header::AUTHORIZATION, value);
        }
        proptest::prop_assert!(check(&headers, &text, BODY, &keys(), now()).is_err());
    }
}
