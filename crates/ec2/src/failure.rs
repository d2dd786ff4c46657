//! EC2's error codes, sorted by what to do about them. The text keeps EC2's own code and words.

use aws_config::imds::client::error::ImdsError;
use aws_smithy_runtime_api::client::{
    orchestrator::HttpResponse,
    result::{ConnectorError, SdkError},
};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use berth_types::ports::{CloudError, CloudErrorKind};

/// Longest message of EC2's that an error repeats; encoded authorization messages run to kilobytes.
const MESSAGE_SHOWN: usize = 300;

/// An error of our own making, without a cause.
pub(crate) fn error(op: &'static str, target: impl Into<String>, kind: CloudErrorKind) -> CloudError {
    CloudError { op, target: target.into(), kind, source: None }
}

/// What EC2 sent is not what EC2 sends.
pub(crate) fn unreadable(op: &'static str, target: impl Into<String>, what: &str) -> CloudError {
    error(op, target, CloudErrorKind::OutcomeUnknown(format!("the reply cannot be read: {what}")))
}

/// Sorts an error of the SDK.
pub(crate) fn sort<E>(
    op: &'static str,
    target: impl Into<String>,
    error: SdkError<E, HttpResponse>,
) -> CloudError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let target = target.into();
    let (kind, told) = match &error {
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            (by_code(answer.err().code(), answer.err().message().unwrap_or_default(), status), true)
        }
        SdkError::TimeoutError(_) => (CloudErrorKind::OutcomeUnknown("no answer in time".into()), false),
        SdkError::ResponseError(answer) => {
            let status = answer.raw().status().as_u16();
            (CloudErrorKind::OutcomeUnknown(format!("HTTP {status} with a body that cannot be read")), false)
        }
        SdkError::DispatchFailure(failure) if failure.is_timeout() => {
            (CloudErrorKind::OutcomeUnknown("no answer in time".into()), false)
        }
        SdkError::DispatchFailure(failure) if broken(failure.as_connector_error()).is_some() => {
            let why = broken(failure.as_connector_error()).unwrap_or_default();
            (CloudErrorKind::OutcomeUnknown(format!("the connection failed: {why}")), true)
        }
        // Credentials that cannot be had come this way. IMDS may offer them a moment later, so this is not for good.
        _ => (CloudErrorKind::OutcomeUnknown("the request was not sent".into()), false),
    };
    // What the service said is in the text already.
    let source = if told { None } else { error.into_source().ok() };
    CloudError { op, target, kind, source }
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
fn by_code(code: Option<&str>, message: &str, status: u16) -> CloudErrorKind {
    use CloudErrorKind as Kind;
    let Some(code) = code else {
        let text = format!("HTTP {status} without an error code");
        return if (400..500).contains(&status) { Kind::Refused(text) } else { Kind::OutcomeUnknown(text) };
    };
    let shown: String = message.chars().take(MESSAGE_SHOWN).collect();
    let text = if shown.is_empty() { code.to_string() } else { format!("{code}: {shown}") };
    match code {
        "RequestLimitExceeded"
        | "Client.RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "EC2ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "TooManyRequestsException"
        | "SlowDown" => Kind::Throttled(text),
        "IdempotentParameterMismatch" => Kind::TokenMismatch(text),
        "InvalidNetworkInterfaceID.NotFound"
        | "InvalidAttachmentID.NotFound"
        | "InvalidInstanceID.NotFound" => Kind::NotFound(text),
        "InvalidNetworkInterface.InUse" | "DependencyViolation" => Kind::InUse(text),
        "AttachmentLimitExceeded" => Kind::InstanceFull(text),
        "NetworkInterfaceLimitExceeded" => Kind::QuotaExceeded(text),
        "InsufficientFreeAddressesInSubnet" | "InsufficientCidrBlocks" => Kind::SubnetFull(text),
        "UnauthorizedOperation"
        | "AuthFailure"
        | "AccessDenied"
        | "AccessDeniedException"
        | "OperationNotPermitted"
        | "OptInRequired"
        | "Blocked"
        | "PendingVerification"
        | "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "MissingAuthenticationToken" => Kind::Unauthorized(text),
        // These were not done, but not for a lasting reason: the state is about to change (an attachment on its way), a clock or a
        // role's credentials are being renewed, two writers met on a tag.
        "IncorrectState"
        | "IncorrectInstanceState"
        | "RequestExpired"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "ConcurrentTagAccess"
        | "InternalError"
        | "InternalFailure"
        | "ServiceUnavailable"
        | "Unavailable" => Kind::OutcomeUnknown(text),
        "InvalidParameterValue" | "InvalidParameterCombination" | "InvalidParameter" => {
            by_message(message, text)
        }
        _ if status >= 500 => Kind::OutcomeUnknown(text),
        _ => Kind::Refused(text),
    }
}

/// EC2 uses one code for many refusals and tells them apart in prose.
fn by_message(message: &str, text: String) -> CloudErrorKind {
    let has = |words: &str| message.to_ascii_lowercase().contains(words);
    if has("currently in use") {
        CloudErrorKind::InUse(text)
    } else if has("device index") || has("interface count") {
        CloudErrorKind::InstanceFull(text)
    } else {
        CloudErrorKind::Refused(text)
    }
}

/// Sorts an error of the IMDS client.
pub(crate) fn sort_imds(path: &str, error: ImdsError) -> CloudError {
    let kind = match &error {
        ImdsError::ErrorResponse(answer) => match answer.response().status().as_u16() {
            404 => CloudErrorKind::NotFound(path.into()),
            403 => CloudErrorKind::Unauthorized("IMDS is switched off for this instance".into()),
            status => CloudErrorKind::OutcomeUnknown(format!("IMDS answers HTTP {status}")),
        },
        ImdsError::FailedToLoadToken(_) => {
            CloudErrorKind::OutcomeUnknown("IMDS gives no session token".into())
        }
        _ => CloudErrorKind::OutcomeUnknown("IMDS does not answer".into()),
    };
    // The client prints the whole response with its headers.
    let source = if matches!(error, ImdsError::ErrorResponse(_)) { None } else { Some(error.into()) };
    CloudError { op: "read IMDS", target: path.into(), kind, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use CloudErrorKind as Kind;

    type Sort = fn(String) -> Kind;

    #[test]
    fn every_known_code_is_sorted_by_what_to_do_about_it() {
        let table: &[(&str, &str, u16, Sort)] = &[
            ("RequestLimitExceeded", "Request limit exceeded.", 503, Kind::Throttled),
            ("RequestLimitExceeded", "Request limit exceeded.", 400, Kind::Throttled),
            ("Throttling", "Rate exceeded", 400, Kind::Throttled),
            ("ThrottlingException", "Rate exceeded", 400, Kind::Throttled),
            ("InternalError", "An internal error has occurred", 500, Kind::OutcomeUnknown),
            ("InternalFailure", "", 500, Kind::OutcomeUnknown),
            ("ServiceUnavailable", "Try later", 503, Kind::OutcomeUnknown),
            ("Unavailable", "Overloaded", 503, Kind::OutcomeUnknown),
            ("NobodyKnowsThis", "?", 502, Kind::OutcomeUnknown),
            ("NobodyKnowsThis", "?", 400, Kind::Refused),
            ("IdempotentParameterMismatch", "other parameters", 400, Kind::TokenMismatch),
            ("InvalidNetworkInterfaceID.NotFound", "eni-1 does not exist", 400, Kind::NotFound),
            ("InvalidAttachmentID.NotFound", "eni-attach-1 does not exist", 400, Kind::NotFound),
            ("InvalidNetworkInterface.InUse", "eni-1 is in use", 400, Kind::InUse),
            ("InvalidParameterValue", "Network interface 'eni-1' is currently in use.", 400, Kind::InUse),
            (
                "InvalidParameterValue",
                "already has an interface attached at device index '1'.",
                400,
                Kind::InstanceFull,
            ),
            (
                "InvalidParameterValue",
                "Interface count 4 exceeds the limit for m5.large",
                400,
                Kind::InstanceFull,
            ),
            ("InvalidParameterValue", "Value (x) for parameter y is invalid.", 400, Kind::Refused),
            (
                "AttachmentLimitExceeded",
                "Interface count 4 exceeds the limit for m5.large",
                400,
                Kind::InstanceFull,
            ),
            ("NetworkInterfaceLimitExceeded", "limit of 5000", 400, Kind::QuotaExceeded),
            ("InsufficientFreeAddressesInSubnet", "not enough", 400, Kind::SubnetFull),
            ("InsufficientCidrBlocks", "not enough", 400, Kind::SubnetFull),
            ("IncorrectState", "is not attached", 400, Kind::OutcomeUnknown),
            ("InvalidSubnetID.NotFound", "subnet-1 does not exist", 400, Kind::Refused),
            ("InvalidGroup.NotFound", "sg-1 does not exist", 400, Kind::Refused),
            ("SecurityGroupLimitExceeded", "too many", 400, Kind::Refused),
            ("PrivateIpAddressLimitExceeded", "too many", 400, Kind::Refused),
            ("UnauthorizedOperation", "You are not authorized", 403, Kind::Unauthorized),
            ("AuthFailure", "could not validate", 401, Kind::Unauthorized),
            ("OperationNotPermitted", "managed", 400, Kind::Unauthorized),
            ("RequestExpired", "Request has expired.", 400, Kind::OutcomeUnknown),
        ];
        for (code, message, status, sort) in table {
            let text = if message.is_empty() { (*code).into() } else { format!("{code}: {message}") };
            assert_eq!(by_code(Some(code), message, *status), sort(text), "{code} with {status}");
        }
    }

    #[test]
    fn a_reply_without_a_code_is_sorted_by_its_status() {
        assert!(matches!(by_code(None, "", 500), Kind::OutcomeUnknown(_)));
        assert!(matches!(by_code(None, "", 200), Kind::OutcomeUnknown(_)));
        assert!(matches!(by_code(None, "", 404), Kind::Refused(_)));
    }

    #[test]
    fn a_message_of_kilobytes_is_cut() {
        let kind = by_code(Some("UnauthorizedOperation"), &"x".repeat(5000), 403);
        assert!(kind.to_string().len() < 400, "{kind}");
    }
}
