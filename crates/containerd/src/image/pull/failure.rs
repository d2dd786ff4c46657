//! What goes wrong between us and a registry, in words for a task's `stoppedReason`, and whether trying again can help.

use crate::error::Fault;
use http::StatusCode;
use serde::Deserialize;
use std::{error::Error, io, sync::Arc, time::Duration};

/// Of what a registry says about a failure, this much is repeated: the reason of a stopped task holds 1024 characters.
const MAX_QUOTE: usize = 300;

/// One failed try.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Failure {
    /// There is no connection: refused, no route, no answer.
    #[error("{0}")]
    NoConnection(String),
    /// The connection was lost in the middle.
    #[error("{0}")]
    Broken(String),
    /// Nothing came for so long.
    #[error("no bytes for {}", spoken(*.0))]
    Stalled(Duration),
    /// The registry said no.
    #[error("{text}")]
    Answer { status: StatusCode, text: String, retry_after: Option<Duration> },
    /// What it sent cannot be used, however often it is sent.
    #[error("{0}")]
    Unusable(String),
    /// Not the registry's: containerd's.
    #[error("{0}")]
    Store(Arc<Fault>),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Store(Arc::new(fault))
    }
}

impl Failure {
    /// Whether the same may work a little later.
    pub(crate) fn passes(&self) -> bool {
        match self {
            Self::NoConnection(_) | Self::Broken(_) | Self::Stalled(_) => true,
            Self::Answer { status, .. } => {
                status.is_server_error()
                    || matches!(*status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
            }
            Self::Unusable(_) | Self::Store(_) => false,
        }
    }

    /// An answer that is not what was asked for.
    pub(crate) fn answer(status: StatusCode, body: &[u8], retry_after: Option<Duration>) -> Self {
        #[derive(Deserialize)]
        struct Answer {
            errors: Vec<Problem>,
        }
        #[derive(Deserialize)]
        struct Problem {
            #[serde(default)]
            code: String,
            #[serde(default)]
            message: String,
        }
        let problem = serde_json::from_slice::<Answer>(body).ok().and_then(|a| a.errors.into_iter().next());
        let text = match problem {
            // As Docker words it; people and the official agent look for these words: `denied: requested access is denied`.
            Some(Problem { code, message }) if !code.is_empty() => {
                legible(&format!("{}: {message}", code.to_lowercase().replace('_', " ")))
            }
            _ => {
                let said = legible(&String::from_utf8_lossy(body));
                let colon = if said.is_empty() { "" } else { ": " };
                format!("the registry answered {status}{colon}{said}")
            }
        };
        Self::Answer { status, text, retry_after }
    }

    /// No connection came about.
    pub(crate) fn connecting(error: &(dyn Error + 'static)) -> Self {
        let cause = Cause::of(error);
        match cause {
            Cause { tls: true, text, .. } if text.contains("InvalidContentType") => Self::Unusable(
                "the registry does not speak TLS (one that shall do without must be set as insecure)"
                    .to_owned(),
            ),
            // Whatever is wrong with a certificate today is wrong with it in a second.
            Cause { tls: true, text, .. } => Self::Unusable(format!("TLS: {text}")),
            // The name service knows that there is no such name; what it does not know it says otherwise.
            Cause { text, .. } if text.contains("Name or service not known") => {
                Self::Unusable("no such host".to_owned())
            }
            Cause { text, .. } => Self::NoConnection(text),
        }
    }

    /// A connection ended in the middle.
    pub(crate) fn broken(error: &(dyn Error + 'static)) -> Self {
        Self::Broken(format!("the connection was lost: {}", Cause::of(error).text))
    }
}

/// What is at the bottom of an error.
struct Cause {
    text: String,
    tls: bool,
}

impl Cause {
    fn of(error: &(dyn Error + 'static)) -> Self {
        let (mut at, mut tls) = (error, false);
        loop {
            tls |= at.is::<rustls::Error>();
            // An io::Error does not name what it was made from as its source.
            let inner = at.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            let inner = inner.map(|e| -> &(dyn Error + 'static) { e });
            match inner.or_else(|| at.source()) {
                Some(next) => at = next,
                None => break,
            }
        }
        let text = match at.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionRefused) => "connection refused".to_owned(),
            Some(io::ErrorKind::ConnectionReset) => "connection reset".to_owned(),
            Some(io::ErrorKind::NetworkUnreachable) => "network is unreachable".to_owned(),
            Some(io::ErrorKind::HostUnreachable) => "no route to host".to_owned(),
            _ => legible(&at.to_string()),
        };
        Self { text, tls }
    }
}

/// A text from outside without line breaks, not too long, and without what URLs may carry of secrets: user, password, query.
pub(crate) fn legible(text: &str) -> String {
    let words = text.split_whitespace().map(|word| match word.split_once("://") {
        Some((scheme, rest)) => {
            let (address, secret) = rest.split_once('?').map_or((rest, ""), |(a, _)| (a, "?..."));
            let (host, path) = address.split_once('/').map_or((address, None), |(h, p)| (h, Some(p)));
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            let path = path.map(|p| format!("/{p}")).unwrap_or_default();
            format!("{scheme}://{host}{path}{secret}")
        }
        None => word.to_owned(),
    });
    let text = words.collect::<Vec<_>>().join(" ");
    text.chars().filter(|c| !c.is_control()).take(MAX_QUOTE).collect()
}

/// A duration as Go prints it, which is how the official agent's users know it: `1m0s`.
pub(crate) fn spoken(time: Duration) -> String {
    let whole = time.as_secs();
    match whole {
        0..60 => format!("{}s", time.as_secs_f64()),
        60..3600 => format!("{}m{}s", whole / 60, whole % 60),
        _ => format!("{}h{}m{}s", whole / 3600, whole / 60 % 60, whole % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: u16, body: &str) -> String {
        Failure::answer(StatusCode::from_u16(status).unwrap(), body.as_bytes(), None).to_string()
    }

    #[test]
    fn a_registrys_own_words_are_repeated_as_docker_does() {
        let denied =
            r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
        assert_eq!(said(403, denied), "denied: requested access to the resource is denied");
        let unknown =
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"1"}}]}"#;
        assert_eq!(said(404, unknown), "manifest unknown: manifest unknown");
        assert_eq!(said(503, ""), "the registry answered 503 Service Unavailable");
        assert_eq!(said(502, "<html>\n  bad"), "the registry answered 502 Bad Gateway: <html> bad");
    }

    #[test]
    fn secrets_of_urls_are_not_repeated() {
        let text = "Get \"https://me:pw@blobs.example/a/b?X-Amz-Signature=abc&x=1\": expired\u{1b}[31m";
        let shown = legible(text);
        assert_eq!(shown, "Get \"https://blobs.example/a/b?... expired[31m");
        assert_eq!(legible(&"x".repeat(1000)).len(), MAX_QUOTE);
    }

    #[test]
    fn only_failures_that_pass_are_tried_again() {
        let answer = |status| Failure::answer(StatusCode::from_u16(status).unwrap(), b"", None).passes();
        assert_eq!([500, 502, 503, 429, 408].map(answer), [true; 5]);
        assert_eq!([400, 401, 403, 404, 416].map(answer), [false; 5]);
        assert!(Failure::Stalled(Duration::from_secs(60)).passes());
        assert!(!Failure::Unusable("x".into()).passes());
        assert_eq!(Failure::Stalled(Duration::from_secs(60)).to_string(), "no bytes for 1m0s");
    }

    #[test]
    fn what_is_at_the_bottom_of_an_error_is_told() {
        let refused = io::Error::other(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert_eq!(Failure::connecting(&refused).to_string(), "connection refused");
        let tls = io::Error::other(io::Error::other(rustls::Error::DecryptError));
        assert!(!Failure::connecting(&tls).passes());
        let plain = io::Error::other(rustls::Error::from(rustls::InvalidMessage::InvalidContentType));
        assert!(Failure::connecting(&plain).to_string().contains("does not speak TLS"));
        let dns = io::Error::other("failed to lookup address information: Name or service not known");
        assert!(!Failure::connecting(&dns).passes());
    }

    proptest::proptest! {
        #[test]
        fn no_query_survives(path in "[a-z/]{0,20}", query in "[a-zA-Z0-9=&]{1,40}", around in "[a-z ]{0,10}") {
            let text = legible(&format!("{around} http://h{path}?Q{query} {around}"));
            let survived = text.contains(&format!("Q{query}"));
            proptest::prop_assert!(!survived);
        }
    }
}
