//! Who we are to a registry: the challenge of its 401, Basic credentials, and bearer tokens from the place that it names.

use crate::image::pull::auth::Login;
use http::{HeaderMap, HeaderValue, Uri, header::WWW_AUTHENTICATE, uri::Scheme};
use serde::Deserialize;
use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Authorizations remembered: one for each repository that is pulled from, of which a machine has dozens.
const MAX_REMEMBERED: usize = 64;
/// A token that does not say how long it lasts does so for a minute, by the protocol.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// A token is given up so long before its end, because the request that carries it takes time too.
const SLACK: Duration = Duration::from_secs(10);
/// A token that says it lasts longer is asked for again all the same: some registries let everything last for ever.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Credentials do not end; they are asked for again now and then all the same.
const BASIC_LIFE: Duration = Duration::from_secs(3600);

/// What a registry wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// The challenge that we can meet, of all that an answer has; Bearer before Basic.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let mut found = None;
        for challenge in texts.flat_map(|text| http_auth::parse_challenges(text).unwrap_or_default()) {
            let parameter = |name: &str| {
                let value = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                value.map(|(_, value)| value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("bearer") {
                if let Some(realm) = parameter("realm") {
                    return Some(Self::Bearer {
                        realm,
                        service: parameter("service"),
                        scope: parameter("scope"),
                    });
                }
            } else if challenge.scheme.eq_ignore_ascii_case("basic") {
                found = Some(Self::Basic);
            }
        }
        found
    }
}

/// Where to ask for a token; an error is a text for people.
pub(super) fn address(
    realm: &str,
    service: Option<&str>,
    scope: &str,
    registry_is_plain: bool,
) -> Result<Uri, &'static str> {
    let base: Uri = realm.parse().map_err(|_| "the registry names no valid address for tokens")?;
    if base.scheme() != Some(&Scheme::HTTPS) && !(registry_is_plain && base.scheme() == Some(&Scheme::HTTP)) {
        return Err("the registry wants credentials sent to an address without TLS");
    }
    let mut query = form_urlencoded::Serializer::new(String::new());
    if let Some(service) = service {
        query.append_pair("service", service);
    }
    query.append_pair("scope", scope);
    let joint = if base.query().is_some() { '&' } else { '?' };
    format!("{realm}{joint}{}", query.finish())
        .parse()
        .map_err(|_| "the registry names no valid address for tokens")
}

/// A token service's answer.
#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// An authorization and how long it is good for.
pub(super) type Lasting = (HeaderValue, Duration);

/// Reads a token service's answer.
pub(super) fn read(body: &[u8]) -> Option<Lasting> {
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let token = answer.token.filter(|t| !t.is_empty()).or(answer.access_token)?;
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    let life =
        answer.expires_in.map_or(DEFAULT_LIFE, |seconds| Duration::from_secs(seconds).min(LONGEST_LIFE));
    Some((value, life))
}

/// Credentials as they are.
pub(super) fn basic(login: &Login) -> Option<Lasting> {
    login.basic().map(|value| (value, BASIC_LIFE))
}

/// Authorizations that worked, by repository. The values are marked sensitive: their `Debug` shows nothing.
#[derive(Debug, Default)]
pub(super) struct Remembered(Mutex<VecDeque<(String, HeaderValue, Instant)>>);

impl Remembered {
    pub(super) fn get(&self, repository: &str) -> Option<HeaderValue> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, _, until)| *until > Instant::now());
        all.iter().find(|(key, _, _)| key == repository).map(|(_, value, _)| value.clone())
    }

    pub(super) fn put(&self, repository: &str, (value, life): Lasting) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(key, _, _)| key != repository);
        if all.len() == MAX_REMEMBERED {
            all.pop_front();
        }
        all.push_back((repository.to_owned(), value, Instant::now() + life.saturating_sub(SLACK)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(texts: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for text in texts {
            headers.append(WWW_AUTHENTICATE, text.parse().unwrap());
        }
        Challenge::of(&headers)
    }

    #[test]
    fn docker_hubs_challenge_is_understood() {
        let text = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/busybox:pull""#;
        let Some(Challenge::Bearer { realm, service, scope }) = challenge(&[text]) else { panic!("{text}") };
        let address = address(&realm, service.as_deref(), &scope.unwrap(), false).unwrap();
        assert_eq!(
            address.to_string(),
            "https://auth.docker.io/token?service=registry.docker.io&scope=repository%3Alibrary%2Fbusybox%3Apull"
        );
    }

    #[test]
    fn bearer_is_preferred_and_what_is_unknown_is_passed_over() {
        assert_eq!(challenge(&[r#"Basic realm="x""#]), Some(Challenge::Basic));
        let both = [r#"Negotiate, Basic realm="x""#, r#"bearer realm="https://t""#];
        let bearer = Challenge::Bearer { realm: "https://t".into(), service: None, scope: None };
        assert_eq!(challenge(&both), Some(bearer));
        assert_eq!(challenge(&["Negotiate"]), None);
        assert_eq!(challenge(&[]), None);
    }

    #[test]
    fn credentials_are_not_sent_without_tls_to_the_token_service_of_a_registry_that_has_it() {
        assert!(address("http://auth.example/token", None, "s", false).is_err());
        assert!(address("http://auth.example/token", None, "s", true).is_ok());
        assert!(address("file:///etc/passwd", None, "s", true).is_err());
        assert_eq!(address("https://a/t?x=1", None, "s", false).unwrap().query(), Some("x=1&scope=s"));
    }

    #[test]
    fn a_token_is_read_from_either_field() {
        assert_eq!(read(br#"{"token":"a","expires_in":300}"#).unwrap().1, Duration::from_secs(300));
        assert_eq!(read(br#"{"access_token":"b"}"#).unwrap().0.to_str().unwrap(), "Bearer b");
        assert!(read(b"{}").is_none() && read(b"<html>").is_none());
        // A life that no clock can hold.
        let for_ever = read(br#"{"token":"a","expires_in":18446744073709551615}"#).unwrap();
        assert_eq!(for_ever.1, LONGEST_LIFE);
        assert!(read(b"{\"token\":\"a\\r\\nX: y\"}").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_authorization_is_forgotten_in_time() {
        let remembered = Remembered::default();
        remembered.put("web", read(br#"{"token":"a","expires_in":60}"#).unwrap());
        assert!(remembered.get("web").is_some() && remembered.get("db").is_none());
        assert!(!format!("{remembered:?}").contains("Bearer a"));
        tokio::time::advance(Duration::from_secs(51)).await;
        assert!(remembered.get("web").is_none());
    }

    proptest::proptest! {
        #[test]
        fn no_header_makes_it_panic(text in "[ -~]{0,120}", body in proptest::collection::vec(0u8.., 0..80)) {
            drop(challenge(&[&text]));
            drop(read(&body));
        }
    }
}
