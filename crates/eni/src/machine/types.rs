//! The nouns of the state machine that are not ENIs: time, slots, looks at the world, namespaces without an ENI.

use crate::{
    backoff::Retry,
    config::{REFUSED_BASE, REFUSED_CAP, Spec, WAITERS},
    failure::Failure,
    machine::Side,
};
use berth_types::{
    Timestamp,
    eni::LinkFacts,
    ids::{AttachmentId, NetnsId, TaskArn},
    lease::{Lease, LeaseError},
};
use std::time::Duration;

/// A point in time: one clock that never jumps, for decisions, and one for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    /// Since the manager started.
    pub(crate) mono: Duration,
    /// The wall clock.
    pub(crate) wall: Timestamp,
}

/// Where an ENI sits on the instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seat {
    /// Device index.
    pub(crate) index: u32,
    /// Attachment.
    pub(crate) attachment: AttachmentId,
}

/// A finished slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slot {
    /// What its lease holder gets.
    pub(crate) facts: Lease,
    /// When it became ready.
    pub(crate) ready_at: Timestamp,
    /// How long its build took.
    pub(crate) build_micros: u64,
}

/// What is known of the past of a slot that was found at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Past {
    /// Who leased it, says the journal or the kernel.
    pub(crate) task: Option<TaskArn>,
    /// The journal proves that nobody ever leased it.
    pub(crate) proven_warm: bool,
}

/// A namespace of ours that belongs to no ENI we know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Orphan {
    pub(crate) netns: Option<NetnsId>,
    pub(crate) links: Vec<LinkFacts>,
    pub(crate) sightings: u32,
    pub(crate) side: Side,
}

/// One kind of looking at the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Watch {
    pub(crate) busy: bool,
    /// It has answered at least once.
    pub(crate) seen: bool,
    /// When it first did.
    pub(crate) seen_at: Duration,
    /// When it was last begun.
    pub(crate) began_at: Duration,
    /// When it last ended.
    pub(crate) ended_at: Duration,
    pub(crate) retry: Retry,
    /// Polls since the last change; they grow apart.
    pub(crate) polls: u32,
    /// Someone asked for it now.
    pub(crate) kicked: bool,
}

/// What EC2 refuses for a kind of ENI, until when, and how often it did so in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) spec: Spec,
    pub(crate) reason: String,
    pub(crate) retry: Retry,
}

impl Refusal {
    /// Remembers that EC2 refuses a kind of ENI, and for how long it is not asked again.
    pub(super) fn note(list: &mut Vec<Self>, spec: &Spec, failure: &Failure, seed: u64, now: Now) {
        let at = list.iter().position(|r| r.spec == *spec).unwrap_or_else(|| {
            list.push(Self { spec: spec.clone(), reason: String::new(), retry: Retry::default() });
            list.len() - 1
        });
        if let Some(refusal) = list.get_mut(at) {
            refusal.reason.clone_from(&failure.text);
            refusal.retry.failed(now.mono, seed, (REFUSED_BASE, REFUSED_CAP), Duration::ZERO);
        }
        // Kinds of ENI that tasks asked for once: more than waiters there cannot be at a time.
        if list.len() > WAITERS {
            list.remove(0);
        }
    }
}

/// The answer to a task that waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) task: TaskArn,
    /// It asked for the slot that it holds.
    pub(crate) held: bool,
    pub(crate) result: Result<Lease, LeaseError>,
}
