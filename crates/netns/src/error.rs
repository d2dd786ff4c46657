//! A failed step, before it is known to the outside as [`NetworkError`] of some slot.

use berth_types::{
    Chain,
    ids::SlotId,
    ports::{NetworkError, NetworkErrorKind},
};
use std::io;

/// A failed step: [`NetworkError`] without the slot, which the steps do not know.
#[derive(Debug)]
pub(crate) struct Fail {
    op: &'static str,
    kind: NetworkErrorKind,
}

impl Fail {
    pub(crate) fn new(op: &'static str, kind: NetworkErrorKind) -> Self {
        Self { op, kind }
    }

    /// The kernel refused.
    pub(crate) fn kernel(op: &'static str, text: impl Into<String>) -> Self {
        Self::new(op, NetworkErrorKind::Kernel(text.into()))
    }

    /// A file could not be read or written.
    pub(crate) fn io(op: &'static str, error: &io::Error) -> Self {
        Self::kernel(op, error.to_string())
    }

    /// A step with causes of its own: all of them go into the text, because [`NetworkErrorKind`] shows nothing else.
    pub(crate) fn caused(op: &'static str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::kernel(op, Chain(error).to_string())
    }

    pub(crate) fn of(self, slot: Option<&SlotId>) -> NetworkError {
        let slot = slot.map_or_else(|| "-".to_owned(), ToString::to_string);
        NetworkError { op: self.op, slot, kind: self.kind, source: None }
    }
}
