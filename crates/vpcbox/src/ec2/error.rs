//! An EC2 error reply: code, message, HTTP status.

use super::xml::Xml;
use crate::world::refusal::Refusal;
use http::StatusCode;
use std::borrow::Cow;

/// What EC2 answers instead of a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// EC2's code.
    pub code: Cow<'static, str>,
    /// For people.
    pub message: String,
}

impl ApiError {
    /// An error with this code.
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }

    /// A parameter with a value that cannot be.
    pub fn bad_value(name: &str, value: &str, expected: &str) -> Self {
        let value: String = value.chars().take(100).collect();
        Self::new(
            "InvalidParameterValue",
            format!("Value ({value}) for parameter {name} is invalid. {expected}"),
        )
    }

    /// The status that goes with the code. Clients decide on retrying by it where they do not know the code.
    pub fn status(&self) -> StatusCode {
        match &*self.code {
            "InternalError" | "InternalFailure" => StatusCode::INTERNAL_SERVER_ERROR,
            "RequestLimitExceeded"
            | "ServiceUnavailable"
            | "Unavailable"
            | "InsufficientInstanceCapacity" => StatusCode::SERVICE_UNAVAILABLE,
            "AuthFailure" => StatusCode::UNAUTHORIZED,
            "UnauthorizedOperation"
            | "SignatureDoesNotMatch"
            | "MissingAuthenticationToken"
            | "InvalidClientTokenId"
            | "OptInRequired" => StatusCode::FORBIDDEN,
            "DryRunOperation" => StatusCode::PRECONDITION_FAILED,
            "RequestEntityTooLarge" => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// The reply's body. Codes are lost to the SDKs in any other shape than this one.
    pub fn body(&self, request_id: &str) -> Vec<u8> {
        let mut xml = Xml::new();
        xml.node("Response", |xml| {
            xml.node("Errors", |xml| {
                xml.node("Error", |xml| {
                    xml.leaf("Code", &self.code);
                    xml.leaf("Message", &self.message);
                });
            });
            // Errors spell it so, results `requestId`.
            xml.leaf("RequestID", request_id);
        });
        xml.into_bytes()
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code(), refusal.to_string())
    }
}
