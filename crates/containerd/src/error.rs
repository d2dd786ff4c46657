//! What goes wrong between us and containerd, sorted for the port: every inner function answers [`Fault`], and only the methods of
//! the port turn it into a [`ContainerError`] with the operation's name and target.

use berth_types::ports::{ContainerError, ContainerErrorKind};
use std::{fmt::Display, future::Future, io, time::Duration};
use tonic::{Code, Status};

pub(crate) type Result<T> = std::result::Result<T, Fault>;

/// One failed step inside an operation.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// A call that containerd refused or did not answer.
    #[error("{call}: {}", status.message())]
    Rpc { call: &'static str, status: Box<Status> },
    /// The definition asks for what cannot be.
    #[error("{0}")]
    Invalid(String),
    /// No such image.
    #[error("{0}")]
    ImageNotFound(String),
    /// A registry did not say which image a reference means.
    #[error("{0}")]
    CannotResolve(String),
    /// A registry did not give the image.
    #[error("{0}")]
    CannotPull(String),
    /// Something in containerd's store is not what it must be.
    #[error("{0}")]
    Broken(String),
    /// A file of ours or of the kernel's.
    #[error("{what}")]
    Io { what: String, source: io::Error },
    /// A worker thread ended early.
    #[error("a worker thread ended early")]
    Thread(#[source] tokio::task::JoinError),
    /// The shim of a container does not answer: whether its process runs cannot be said.
    #[error("the container's shim does not answer")]
    NoAnswer,
    /// Took too long.
    #[error("timed out after {0:?}")]
    TimedOut(Duration),
}

impl Fault {
    pub(crate) fn io(what: impl Display) -> impl FnOnce(io::Error) -> Self {
        let what = what.to_string();
        move |source| Self::Io { what, source }
    }

    /// For `map_err` after a call.
    pub(crate) fn rpc(call: &'static str) -> impl FnOnce(Status) -> Self {
        move |status| Self::Rpc { call, status: Box::new(status) }
    }

    /// The same for another who waited for the same operation.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Rpc { call, status } => Self::Rpc { call, status: status.clone() },
            Self::Invalid(text) => Self::Invalid(text.clone()),
            Self::ImageNotFound(text) => Self::ImageNotFound(text.clone()),
            Self::CannotResolve(text) => Self::CannotResolve(text.clone()),
            Self::CannotPull(text) => Self::CannotPull(text.clone()),
            Self::Broken(text) => Self::Broken(text.clone()),
            Self::Io { what, source } => {
                Self::Io { what: what.clone(), source: io::Error::new(source.kind(), source.to_string()) }
            }
            Self::Thread(_) => Self::Broken(self.to_string()),
            Self::NoAnswer => Self::NoAnswer,
            Self::TimedOut(after) => Self::TimedOut(*after),
        }
    }

    pub(crate) fn code(&self) -> Option<Code> {
        match self {
            Self::Rpc { status, .. } => Some(status.code()),
            _ => None,
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.code() == Some(Code::NotFound)
    }

    pub(crate) fn is_already_exists(&self) -> bool {
        self.code() == Some(Code::AlreadyExists)
    }

    /// Names the operation and its target.
    pub(crate) fn of(self, op: &'static str, target: impl Into<String>) -> ContainerError {
        let target = target.into();
        let (kind, source): (_, Option<Box<dyn std::error::Error + Send + Sync>>) = match self {
            Self::Rpc { call, status } if lost_connection(&status) => {
                // The status' own text only says "transport error"; the reason is its source, which the chain prints.
                (ContainerErrorKind::Unavailable(call.into()), Some(status))
            }
            Self::Rpc { call, status } => (runtime_kind(call, status.message()), None),
            Self::Invalid(text) => (ContainerErrorKind::Invalid(text), None),
            Self::ImageNotFound(text) => (ContainerErrorKind::ImageNotFound(text), None),
            Self::CannotResolve(text) => (ContainerErrorKind::CannotResolve(text), None),
            Self::CannotPull(text) => (ContainerErrorKind::CannotPull(text), None),
            Self::Broken(text) => (ContainerErrorKind::Runtime(text), None),
            Self::Io { what, source } => (ContainerErrorKind::Runtime(what), Some(source.into())),
            Self::Thread(source) => {
                (ContainerErrorKind::Runtime("a worker thread ended early".into()), Some(source.into()))
            }
            Self::NoAnswer => (ContainerErrorKind::Unavailable(self.to_string()), None),
            Self::TimedOut(after) => (ContainerErrorKind::TimedOut(after), None),
        };
        ContainerError { op, target, kind, source }
    }
}

/// Whether the call never reached containerd or its answer never came back. A status that containerd itself sent has no source.
pub(crate) fn lost_connection(status: &Status) -> bool {
    status.code() == Code::Unavailable || std::error::Error::source(status).is_some()
}

/// Layers of wrapping that containerd, its shim and runc put around the one sentence that matters.
const WRAPPINGS: [&str; 6] = [
    "failed to create shim task: ",
    "OCI runtime create failed: ",
    "OCI runtime start failed: ",
    "runc create failed: ",
    "unable to start container process: ",
    "error during container init: ",
];

/// The sentence inside runc's error, and whether it is the definition's fault.
fn runtime_kind(call: &'static str, message: &str) -> ContainerErrorKind {
    let mut text = message;
    while let Some(inner) = WRAPPINGS.iter().find_map(|w| text.strip_prefix(w)) {
        text = inner;
    }
    text = text.strip_suffix(": unknown").unwrap_or(text);
    let definition =
        text.starts_with("exec: ") || text.starts_with("exec /") || text.starts_with("chdir to cwd");
    if definition {
        ContainerErrorKind::Invalid(text.to_owned())
    } else if text.len() < message.len() {
        ContainerErrorKind::Runtime(text.to_owned())
    } else {
        ContainerErrorKind::Runtime(format!("{call}: {text}"))
    }
}

/// Runs an operation's body with the operation's deadline.
pub(crate) async fn within<T>(limit: Duration, body: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(limit, body).await.unwrap_or(Err(Fault::TimedOut(limit)))
}

/// Runs file work on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(Fault::Thread)?
}

/// "Not there" as an answer instead of an error.
pub(crate) trait OrAbsent<T> {
    fn or_absent(self) -> Result<Option<T>>;
}

impl<T> OrAbsent<T> for Result<T> {
    fn or_absent(self) -> Result<Option<T>> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(fault) if fault.is_not_found() => Ok(None),
            Err(fault) => Err(fault),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_the_definitions_fault_and_reads_as_one_sentence() {
        let message = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: \
                       exec: \"nope\": executable file not found in $PATH: unknown";
        let fault = Fault::rpc("create task")(Status::new(Code::Unknown, message));
        let error = fault.of("start container", "0123");
        assert_eq!(
            error.kind,
            ContainerErrorKind::Invalid("exec: \"nope\": executable file not found in $PATH".into())
        );
        assert_eq!(
            error.to_string(),
            "start container 0123: exec: \"nope\": executable file not found in $PATH"
        );
    }

    #[test]
    fn what_containerd_refuses_is_permanent_and_what_it_does_not_hear_is_not() {
        let refused = Fault::rpc("prepare snapshot")(Status::new(Code::Unknown, "disk is full"))
            .of("create container", "0123");
        assert_eq!(refused.kind, ContainerErrorKind::Runtime("prepare snapshot: disk is full".into()));
        let away = Fault::rpc("prepare snapshot")(Status::unavailable("gone")).of("create container", "0123");
        assert!(matches!(away.kind, ContainerErrorKind::Unavailable(_)));
    }
}
