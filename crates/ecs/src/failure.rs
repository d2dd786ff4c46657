//! ECS's error codes sorted by what to do about them. The clients of the loops see [`EcsErrorKind`] and never a code.

use crate::port::{EcsError, EcsErrorKind};
use aws_sdk_ecs::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::ConnectorError};

/// Longest message of ECS's that an error repeats; encoded authorization messages run to kilobytes.
const MESSAGE_SHOWN: usize = 300;

/// An error of our own making, without a cause.
pub(crate) fn error(op: &'static str, target: impl Into<String>, kind: EcsErrorKind) -> EcsError {
    EcsError { op, target: target.into(), kind, source: None }
}

/// What ECS sent is not what ECS sends.
pub(crate) fn malformed(op: &'static str, target: impl Into<String>, what: impl Into<String>) -> EcsError {
    error(op, target, EcsErrorKind::Malformed(what.into()))
}

/// Sorts an error of the SDK.
pub(crate) fn sort<E>(
    op: &'static str,
    target: impl Into<String>,
    error: SdkError<E, HttpResponse>,
) -> EcsError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let target = target.into();
    let (kind, told) = match &error {
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            (by_code(answer.err().code(), answer.err().message().unwrap_or_default(), status), true)
        }
        SdkError::TimeoutError(_) => (EcsErrorKind::Unavailable("no answer in time".into()), false),
        // Something between us and ECS answered in its place, as proxies do: it may be gone the next time.
        SdkError::ResponseError(answer) => {
            let status = answer.raw().status().as_u16();
            (EcsErrorKind::Unavailable(format!("HTTP {status} with a body that cannot be read")), false)
        }
        SdkError::DispatchFailure(failure) if failure.is_timeout() => {
            (EcsErrorKind::Unavailable("no answer in time".into()), false)
        }
        SdkError::DispatchFailure(failure) if broken(failure.as_connector_error()).is_some() => {
            let why = broken(failure.as_connector_error()).unwrap_or_default();
            (EcsErrorKind::Unavailable(format!("the connection failed: {why}")), true)
        }
        // Credentials that cannot be had come this way. IMDS may offer them a moment later, so this is not for good.
        _ => (EcsErrorKind::Unavailable("the request was not sent".into()), false),
    };
    // What the service said is in the text already.
    let source = if told { None } else { error.into_source().ok() };
    EcsError { op, target, kind, source }
}

/// Why a connection broke or never came to be. The chain of causes begins with words for those who write HTTP clients; the last one is
/// the kernel's or the peer's.
fn broken(error: Option<&ConnectorError>) -> Option<String> {
    let error: &(dyn std::error::Error + 'static) = error?;
    let mut chain: Vec<String> =
        std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string).collect();
    let is_http = chain.iter().any(|text| text.starts_with("client error ("));
    let last = chain.pop().filter(|_| is_http)?;
    // `Connection refused (os error 111)`
    let words = last.split(" (os error").next().unwrap_or_default();
    Some(words.to_lowercase())
}

/// Sorts an error code.
fn by_code(code: Option<&str>, message: &str, status: u16) -> EcsErrorKind {
    use EcsErrorKind as Kind;
    let shown: String = message.chars().take(MESSAGE_SHOWN).collect();
    let Some(code) = code else {
        let text = format!("HTTP {status} without an error code");
        return match status {
            401 | 403 => Kind::Unauthorized(text),
            429 => Kind::Throttled(text),
            400..500 => Kind::Refused(text),
            _ => Kind::Unavailable(text),
        };
    };
    let text = if shown.is_empty() { code.to_string() } else { format!("{code}: {shown}") };
    match code {
        // A limit of the account is treated like a rate: it goes away when others make room, as the official agent has it.
        "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "SlowDown"
        | "LimitExceededException" => Kind::Throttled(text),
        "ClusterNotFoundException" => Kind::ClusterNotFound(text),
        "InvalidParameterException" if message.contains("Cluster not found") => Kind::ClusterNotFound(text),
        "ClientException" if message.contains("Cluster not found") => Kind::ClusterNotFound(text),
        "InvalidParameterException" => Kind::InvalidParameter(text),
        "AccessDenied"
        | "AccessDeniedException"
        | "UnauthorizedOperation"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "OptInRequired"
        | "NotAuthorized" => Kind::Unauthorized(text),
        // Not for a lasting reason: a clock or a role's credentials are being renewed, or the service has trouble of its own.
        "ServerException"
        | "InternalError"
        | "InternalFailure"
        | "InternalServerError"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "Unavailable"
        | "RequestExpired"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestTimeout"
        | "RequestTimeoutException" => Kind::Unavailable(text),
        _ if status >= 500 => Kind::Unavailable(text),
        _ if matches!(status, 401 | 403) => Kind::Unauthorized(text),
        _ => Kind::Refused(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use EcsErrorKind as Kind;

    type Sort = fn(String) -> Kind;

    #[test]
    fn every_known_code_is_sorted_by_what_to_do_about_it() {
        let table: &[(&str, &str, u16, Sort)] = &[
            ("ThrottlingException", "Rate exceeded", 400, Kind::Throttled),
            ("LimitExceededException", "The limit for the resource was exceeded.", 400, Kind::Throttled),
            ("ServerException", "", 500, Kind::Unavailable),
            ("NobodyKnowsThis", "?", 503, Kind::Unavailable),
            ("NobodyKnowsThis", "?", 400, Kind::Refused),
            ("NobodyKnowsThis", "?", 403, Kind::Unauthorized),
            ("ExpiredTokenException", "The security token is expired", 400, Kind::Unavailable),
            ("ClusterNotFoundException", "Cluster not found.", 400, Kind::ClusterNotFound),
            ("ClientException", "Cluster not found.", 400, Kind::ClusterNotFound),
            ("ClientException", "Container instance type changes are not supported.", 400, Kind::Refused),
            ("InvalidParameterException", "Identifier is for cluster x", 400, Kind::InvalidParameter),
            ("AccessDeniedException", "User is not authorized", 400, Kind::Unauthorized),
            ("UnrecognizedClientException", "The security token is invalid.", 400, Kind::Unauthorized),
            ("InvalidSignatureException", "", 403, Kind::Unauthorized),
        ];
        for (code, message, status, sort) in table {
            let text = if message.is_empty() { (*code).into() } else { format!("{code}: {message}") };
            assert_eq!(by_code(Some(code), message, *status), sort(text), "{code} with {status}");
        }
    }

    #[test]
    fn a_reply_without_a_code_is_sorted_by_its_status() {
        assert!(matches!(by_code(None, "", 500), Kind::Unavailable(_)));
        assert!(matches!(by_code(None, "", 403), Kind::Unauthorized(_)));
        assert!(matches!(by_code(None, "", 429), Kind::Throttled(_)));
        assert!(matches!(by_code(None, "", 404), Kind::Refused(_)));
    }

    #[test]
    fn a_message_of_kilobytes_is_cut() {
        let kind = by_code(Some("AccessDeniedException"), &"x".repeat(5000), 400);
        assert!(kind.to_string().len() < 400, "{kind}");
    }
}
