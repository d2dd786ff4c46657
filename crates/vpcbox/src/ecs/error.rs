//! An ECS error reply: the exception's name, its message, the HTTP status.
//!
//! Every refusal of [`super`] is one of these; [`crate::service`] sends it. The SDKs find the name in the body's `__type` only.

use http::StatusCode;
use serde_json::json;
use std::borrow::Cow;

/// What ECS answers instead of a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// The exception's name, for example `ClientException`.
    pub code: Cow<'static, str>,
    /// For people, in AWS's words.
    pub message: String,
    /// What a `ConflictException` says is there already.
    pub resource_ids: Vec<String>,
}

impl ApiError {
    /// An error of this name.
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), resource_ids: Vec::new() }
    }

    /// `ClientException`: the call cannot be done as things stand.
    pub fn client(message: impl Into<String>) -> Self {
        Self::new("ClientException", message)
    }

    /// `InvalidParameterException`: the call could never be done.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new("InvalidParameterException", message)
    }

    /// `SerializationException`: JSON of another type than the model's.
    pub fn serialization(message: impl Into<String>) -> Self {
        Self::new("SerializationException", message)
    }

    /// `LimitExceededException`: one of the box's bounds.
    pub fn limit(message: impl Into<String>) -> Self {
        Self::new("LimitExceededException", message)
    }

    /// `ClusterNotFoundException`.
    pub fn cluster_not_found() -> Self {
        Self::new("ClusterNotFoundException", "Cluster not found.")
    }

    /// The status that goes with the name.
    pub fn status(&self) -> StatusCode {
        match &*self.code {
            "ServerException" | "InternalFailure" => StatusCode::INTERNAL_SERVER_ERROR,
            "ServiceUnavailable" | "ServiceUnavailableException" => StatusCode::SERVICE_UNAVAILABLE,
            "MissingAuthenticationTokenException" => StatusCode::FORBIDDEN,
            "RequestEntityTooLargeException" => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// The reply's body.
    pub fn body(&self) -> Vec<u8> {
        let mut body = json!({ "__type": self.code, "message": self.message });
        if !self.resource_ids.is_empty() {
            body["resourceIds"] = json!(self.resource_ids);
        }
        body.to_string().into_bytes()
    }
}
