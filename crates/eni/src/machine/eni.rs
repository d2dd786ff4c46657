//! An ENI in the books: its stages, each with exactly the facts that exist in it, and what follows from them.

use super::{Now, Past, Seat, Slot};
use crate::{
    backoff::Retry,
    config::Spec,
    records::{Course, EniRecord, SlotRecord},
};
use berth_types::{
    Timestamp,
    eni::{CreateEni, EniFacts},
    ids::{SlotId, TaskArn},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// What EC2 said to the attach call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Nothing yet.
    Awaited,
    /// It took the call; the attachment shows in a describe.
    Taken,
    /// Nobody knows: look before repeating.
    Unknown,
}

/// What a quarantined ENI goes on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Then {
    /// Attach it.
    Attach,
    /// Detach it.
    Detach(Seat),
    /// Delete it.
    Delete,
}

/// Where an ENI is on its way; each variant holds what exists in that stage and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Exists, not attached.
    Created,
    /// On its way onto the instance.
    Attaching { index: u32, reply: Reply },
    /// Attached, says EC2; its link is not there (or not looked for yet).
    AwaitingLink { seat: Seat },
    /// Its namespace is being made; `past` is there when the namespace was found at start.
    Building { seat: Seat, slot: SlotId, past: Option<Past> },
    /// Found at start, finished, and perhaps a task's: nobody gets it before the engine has asked for what its tasks hold.
    Held { seat: Seat, slot: Slot, past: Past, lost: Option<String> },
    /// In a warm slot.
    Ready { seat: Seat, slot: Slot },
    /// In a leased slot.
    Leased {
        seat: Seat,
        slot: Slot,
        task: TaskArn,
        tags: BTreeMap<String, String>,
        labelled: bool,
        lost: Option<String>,
    },
    /// Its namespace is being removed; `rest`: it was leased, so it cools down afterwards.
    Draining { seat: Seat, slot: SlotId, rest: bool },
    /// Its link is back, it rests.
    Cooling { seat: Seat, until: Duration },
    /// To be detached; `asked`: EC2 has the call, a describe shows the end.
    Detaching { seat: Seat, asked: bool },
    /// To be deleted.
    Deleting,
    /// Out of use for a while.
    Quarantined { then: Then, until: Duration },
}

/// Whether EC2 still shows the ENI where we put it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It does.
    Normal,
    /// Someone detached it.
    Detached,
    /// It is gone.
    Gone,
}

/// An act beside the main way of an ENI: one at a time, retried by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Side {
    pub(crate) busy: bool,
    pub(crate) retry: Retry,
    /// The state's sequence number when it last ended.
    pub(crate) settled: u64,
}

/// An ENI that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Eni {
    pub(crate) request: CreateEni,
    pub(crate) created_at: Timestamp,
    pub(crate) facts: Arc<EniFacts>,
    pub(crate) spec: Spec,
    pub(crate) stage: Stage,
    pub(crate) since: Now,
    /// The last error on its way.
    pub(crate) error: Option<String>,
    pub(crate) retry: Retry,
    /// An op of its main way is running.
    pub(crate) busy: bool,
    /// The state's sequence number when its last op ended: an observation that began before is out of date.
    pub(crate) settled: u64,
    /// When that was.
    pub(crate) settled_at: Duration,
    /// Until then EC2 may not find it.
    pub(crate) young_until: Duration,
    /// How often EC2 showed it; what was only ever found by its tags is not deleted at first sight.
    pub(crate) sightings: u32,
    /// Since when EC2 does not show it where it should be.
    pub(crate) missing: Option<Duration>,
    pub(crate) presence: Presence,
    /// It gave no slot: to be removed whatever the pool needs.
    pub(crate) condemned: bool,
    /// When it last got other groups, or was about to: what EC2 shows may be older.
    pub(crate) regrouped: Option<Now>,
    /// The slot that the journal remembers it in.
    pub(crate) remembered_slot: Option<SlotRecord>,
    /// DeleteOnTermination is set.
    pub(crate) flagged: bool,
    pub(crate) flag: Side,
    /// Task tags that it carries now.
    pub(crate) tagged: BTreeMap<String, String>,
    pub(crate) tag: Side,
    pub(crate) label: Side,
}

/// An ENI that is to be: the intent is made, EC2 has not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Creating {
    pub(crate) request: CreateEni,
    pub(crate) spec: Spec,
    pub(crate) created_at: Timestamp,
    pub(crate) since: Now,
    pub(crate) retry: Retry,
    pub(crate) busy: bool,
    /// The call was made at least once, so the ENI may exist.
    pub(crate) tried: bool,
    pub(crate) error: Option<String>,
}

impl Stage {
    /// Its name in logs.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Attaching { .. } => "attaching",
            Self::AwaitingLink { .. } => "awaiting link",
            Self::Building { .. } => "building",
            Self::Held { .. } => "held",
            Self::Ready { .. } => "ready",
            Self::Leased { .. } => "leased",
            Self::Draining { .. } => "draining",
            Self::Cooling { .. } => "cooling",
            Self::Detaching { .. } => "detaching",
            Self::Deleting => "deleting",
            Self::Quarantined { .. } => "quarantined",
        }
    }

    /// Its slot.
    pub(crate) fn slot(&self) -> Option<&SlotId> {
        match self {
            Self::Building { slot, .. } | Self::Draining { slot, .. } => Some(slot),
            Self::Held { slot, .. } | Self::Ready { slot, .. } | Self::Leased { slot, .. } => {
                Some(&slot.facts.slot)
            }
            Self::Created
            | Self::Attaching { .. }
            | Self::AwaitingLink { .. }
            | Self::Cooling { .. }
            | Self::Detaching { .. }
            | Self::Deleting
            | Self::Quarantined { .. } => None,
        }
    }

    /// Where it sits.
    pub(crate) fn seat(&self) -> Option<&Seat> {
        match self {
            Self::AwaitingLink { seat }
            | Self::Building { seat, .. }
            | Self::Held { seat, .. }
            | Self::Ready { seat, .. }
            | Self::Leased { seat, .. }
            | Self::Draining { seat, .. }
            | Self::Cooling { seat, .. }
            | Self::Detaching { seat, .. }
            | Self::Quarantined { then: Then::Detach(seat), .. } => Some(seat),
            Self::Created
            | Self::Attaching { .. }
            | Self::Deleting
            | Self::Quarantined { then: Then::Attach | Then::Delete, .. } => None,
        }
    }

    pub(super) fn seat_mut(&mut self) -> Option<&mut Seat> {
        match self {
            Self::AwaitingLink { seat }
            | Self::Building { seat, .. }
            | Self::Held { seat, .. }
            | Self::Ready { seat, .. }
            | Self::Leased { seat, .. }
            | Self::Draining { seat, .. }
            | Self::Cooling { seat, .. }
            | Self::Detaching { seat, .. }
            | Self::Quarantined { then: Then::Detach(seat), .. } => Some(seat),
            Self::Created
            | Self::Attaching { .. }
            | Self::Deleting
            | Self::Quarantined { then: Then::Attach | Then::Delete, .. } => None,
        }
    }

    /// Its slot, once that is finished and until it is torn down.
    pub(crate) fn finished(&self) -> Option<&Slot> {
        if let Self::Held { slot, .. } | Self::Ready { slot, .. } | Self::Leased { slot, .. } = self {
            Some(slot)
        } else {
            None
        }
    }

    /// What is known of its slot's past, while nobody may have it.
    pub(crate) fn past(&self) -> Option<&Past> {
        if let Self::Building { past: Some(past), .. } | Self::Held { past, .. } = self {
            Some(past)
        } else {
            None
        }
    }

    /// The lease holder.
    pub(crate) fn holder(&self) -> Option<&TaskArn> {
        if let Self::Leased { task, .. } = self { Some(task) } else { None }
    }

    /// Why its slot is of no use any more.
    pub(crate) fn loss(&self) -> Option<&str> {
        if let Self::Leased { lost, .. } | Self::Held { lost, .. } = self { lost.as_deref() } else { None }
    }

    /// Whether it is on its way out.
    pub(crate) fn leaves(&self) -> bool {
        match self {
            Self::Detaching { .. } | Self::Deleting => true,
            Self::Quarantined { then, .. } => *then != Then::Attach,
            Self::Created
            | Self::Attaching { .. }
            | Self::AwaitingLink { .. }
            | Self::Building { .. }
            | Self::Held { .. }
            | Self::Ready { .. }
            | Self::Leased { .. }
            | Self::Draining { .. }
            | Self::Cooling { .. } => false,
        }
    }
}

impl Eni {
    /// An ENI at a stage, seen or made just now.
    pub(crate) fn new(request: CreateEni, facts: EniFacts, stage: Stage, now: Now) -> Self {
        let spec = spec_of(&facts);
        let flagged = facts.attachment.as_ref().is_some_and(|a| a.delete_on_termination);
        Self {
            request,
            created_at: now.wall,
            facts: Arc::new(facts),
            spec,
            stage,
            since: now,
            error: None,
            retry: Retry::default(),
            busy: false,
            settled: 0,
            settled_at: now.mono,
            young_until: now.mono,
            sightings: 1,
            missing: None,
            presence: Presence::Normal,
            condemned: false,
            regrouped: None,
            remembered_slot: None,
            flagged,
            flag: Side::default(),
            tagged: BTreeMap::new(),
            tag: Side::default(),
            label: Side::default(),
        }
    }

    /// The device index that it has or has been promised.
    pub(crate) fn device_index(&self) -> Option<u32> {
        if let Stage::Attaching { index, .. } = &self.stage {
            return Some(*index);
        }
        self.stage.seat().filter(|_| self.presence == Presence::Normal).map(|seat| seat.index)
    }

    /// Task tags that it should carry.
    pub(crate) fn wanted_tags(&self) -> BTreeMap<String, String> {
        if let Stage::Leased { tags, .. } = &self.stage { tags.clone() } else { BTreeMap::new() }
    }

    pub(super) fn record(&self) -> EniRecord {
        let used = match &self.stage {
            Stage::Ready { .. } => Some(false),
            Stage::Building { past: Some(past), .. } | Stage::Held { past, .. } => Some(!past.proven_warm),
            Stage::Leased { .. } | Stage::Draining { .. } => Some(true),
            // A build that was cut off proves nothing, so its slot is not recorded.
            Stage::Building { past: None, .. }
            | Stage::Created
            | Stage::Attaching { .. }
            | Stage::AwaitingLink { .. }
            | Stage::Cooling { .. }
            | Stage::Detaching { .. }
            | Stage::Deleting
            | Stage::Quarantined { .. } => None,
        };
        let slot = self.stage.slot().zip(used).map(|(slot, used)| SlotRecord { slot: slot.clone(), used });
        EniRecord {
            request: self.request.clone(),
            created_at: self.created_at,
            course: if self.condemned || self.stage.leaves() { Course::Remove } else { Course::Keep },
            facts: Some(EniFacts::clone(&self.facts)),
            device_index: self.device_index(),
            attachment: self.stage.seat().map(|seat| seat.attachment.clone()),
            slot,
            regrouped_at: self.regrouped.map(|at| at.wall),
            task_tags: self.tagged.keys().chain(self.wanted_tags().keys()).cloned().collect(),
        }
    }
}

/// What an ENI is like.
pub(crate) fn spec_of(facts: &EniFacts) -> Spec {
    let mut groups = facts.security_groups.clone();
    groups.sort();
    groups.dedup();
    Spec { subnet: facts.subnet.clone(), groups }
}
