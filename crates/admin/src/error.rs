//! Errors of the API: an HTTP status, a code for programs, a message for people.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// For programs: `NotFound`, `InvalidTaskDefinition`.
    pub code: String,
    /// For people; several problems are a line each.
    pub message: String,
}

/// An answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The body or the query is not what was expected; the text names the field.
    #[error("{0}")]
    BadRequest(String),
    /// The task definition cannot be run; a line for each problem, each with its field.
    #[error("{0}")]
    InvalidTaskDefinition(String),
    /// No such task, container or route.
    #[error("{0}")]
    NotFound(String),
    /// The method is not for this route.
    #[error("{0}")]
    MethodNotAllowed(String),
    /// Not possible as things stand.
    #[error("{0}")]
    Conflict(String),
    /// A queue is full or the agent is still recovering: try again.
    #[error("{0}")]
    Unavailable(String),
    /// Our own mistake or the machine's.
    #[error("{0}")]
    Internal(String),
}

impl ApiError {
    fn parts(&self) -> (StatusCode, &'static str) {
        match self {
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "BadRequest"),
            Self::InvalidTaskDefinition(_) => (StatusCode::BAD_REQUEST, "InvalidTaskDefinition"),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "NotFound"),
            Self::MethodNotAllowed(_) => (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
            Self::Conflict(_) => (StatusCode::CONFLICT, "Conflict"),
            Self::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "Unavailable"),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "Internal"),
        }
    }
}

/// What the agent did not do for the API, with the reason for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not possible as things stand.
    #[error("{0}")]
    Conflict(String),
    /// Whoever was asked does not answer: it may work when it is tried again.
    #[error("{0}")]
    Unavailable(String),
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Conflict(reason) => Self::Conflict(reason),
            Refusal::Unavailable(reason) => Self::Unavailable(reason),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code) = self.parts();
        let body = ErrorBody { error: ErrorDetail { code: code.into(), message: self.to_string() } };
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(http::header::RETRY_AFTER, http::HeaderValue::from_static("1"));
        }
        response
    }
}

/// Reads a JSON body and names the field that is wrong.
pub(crate) fn parse_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|e| ApiError::BadRequest(format!("request body: {e}")))
}
