//! An op's error as the state machine reads it: a kind to decide by, a class, and a text for people.

use berth_types::{
    Chain, Class,
    ports::{CloudError, CloudErrorKind, JournalError, NetworkError, NetworkErrorKind},
};
use std::time::Duration;

/// What failed, sorted by what the state machine does about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// EC2 is throttling.
    Throttled,
    /// The act may have been done.
    Unknown,
    /// Not there, or not yet.
    NotFound,
    /// A detach has not finished, or it is attached already.
    InUse,
    /// No room on the instance, or the device index is taken.
    InstanceFull,
    /// No room in the account.
    Quota,
    /// No room in the subnet.
    SubnetFull,
    /// Not allowed, or wrong.
    Refused,
    /// The token was used with other parameters.
    Token,
    /// The intent could not be made durable, so nothing was done.
    Journal,
    /// The link is not there.
    NoLink,
    /// The kernel refused, or read-back showed something else.
    Kernel,
}

/// A failed op.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) class: Class,
    pub(crate) text: String,
}

impl Failure {
    /// A failure of the op's own, for which no port has an error.
    pub(crate) fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, class: Class::Retry, text: text.into() }
    }

    /// The wait that the other side named.
    pub(crate) fn named_wait(&self) -> Duration {
        match self.class {
            Class::RetryAfter(wait) => wait,
            Class::Retry | Class::Permanent | Class::Bug => Duration::ZERO,
        }
    }
}

impl From<&CloudError> for Failure {
    fn from(error: &CloudError) -> Self {
        let kind = match &error.kind {
            CloudErrorKind::Throttled(_) => Kind::Throttled,
            CloudErrorKind::OutcomeUnknown(_) => Kind::Unknown,
            CloudErrorKind::NotFound(_) => Kind::NotFound,
            CloudErrorKind::InUse(_) => Kind::InUse,
            CloudErrorKind::InstanceFull(_) => Kind::InstanceFull,
            CloudErrorKind::QuotaExceeded(_) => Kind::Quota,
            CloudErrorKind::SubnetFull(_) => Kind::SubnetFull,
            CloudErrorKind::Unauthorized(_) | CloudErrorKind::Refused(_) => Kind::Refused,
            CloudErrorKind::TokenMismatch(_) => Kind::Token,
        };
        // The SDK's source repeats the service's text at length; kind holds all that people need.
        Self { kind, class: error.class(), text: error.to_string() }
    }
}

impl From<&NetworkError> for Failure {
    fn from(error: &NetworkError) -> Self {
        let kind = match &error.kind {
            NetworkErrorKind::NoLink(_) => Kind::NoLink,
            NetworkErrorKind::NotVerified(_) | NetworkErrorKind::Kernel(_) | NetworkErrorKind::Thread(_) => {
                Kind::Kernel
            }
        };
        Self { kind, class: error.class(), text: Chain(error).to_string() }
    }
}

impl From<&JournalError> for Failure {
    fn from(error: &JournalError) -> Self {
        Self { kind: Kind::Journal, class: error.class(), text: Chain(error).to_string() }
    }
}
