//! The engine's side of the ENI manager, and the metadata endpoint's: the messages on the two channels.

use crate::{
    Class,
    eni::SlotFacts,
    ids::{SecurityGroupId, SlotId, SubnetId, TaskArn},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::{mpsc, oneshot};

/// Requests that may wait in the ENI manager's queue: one lease and one release for each task that an instance can hold
/// (120 branch ENIs is the most any type has), so a full queue means that the manager hangs.
pub const LEASE_QUEUE: usize = 256;

/// What a task asks of its ENI.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LeaseNeeds {
    /// A subnet other than the pool's.
    pub subnet: Option<SubnetId>,
    /// Groups other than the pool's; empty means the pool's.
    pub security_groups: Vec<SecurityGroupId>,
    /// Tags that the ENI carries while the task holds it (cluster, task ARN, family).
    pub tags: BTreeMap<String, String>,
}

/// A slot, bound to one task.
pub type Lease = Arc<SlotFacts>;

/// Why a task does not get a slot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// The manager's queue is full.
    #[error("the ENI manager is busy: {LEASE_QUEUE} requests wait already")]
    Busy,
    /// The manager is gone: the agent is going down.
    #[error("the ENI manager has stopped")]
    Stopped,
    /// No slot within the time a task may wait. `reason` says what was in the way last.
    #[error("Timeout waiting for network interface provisioning to complete: {reason}")]
    TimedOut {
        /// For people.
        reason: String,
    },
    /// No slot, and waiting does not help.
    #[error("network interface provisioning failed: {reason}")]
    Failed {
        /// For people.
        reason: String,
    },
    /// The slot that the task held is gone (its ENI was detached from outside, or its namespace was removed).
    #[error("the task's slot {slot} is gone: {reason}")]
    Lost {
        /// The slot.
        slot: SlotId,
        /// For people.
        reason: String,
    },
    /// The task was released while it waited.
    #[error("released before a slot was found")]
    Cancelled,
}

impl LeaseError {
    /// Whether asking again can help.
    pub fn class(&self) -> Class {
        match self {
            Self::Busy => Class::Retry,
            Self::Stopped
            | Self::TimedOut { .. }
            | Self::Failed { .. }
            | Self::Lost { .. }
            | Self::Cancelled => Class::Permanent,
        }
    }
}

/// A request to the ENI manager.
#[derive(Debug)]
pub enum LeaseRequest {
    /// Give this task a slot. Idempotent by task: asked again, it answers with the same slot.
    Lease {
        /// Who asks.
        task: TaskArn,
        /// What it needs.
        needs: LeaseNeeds,
        /// At recovery: the slot in which the task's containers were found or recorded. No other will do.
        held: Option<SlotId>,
        /// Answered when there is a slot, or when there will be none.
        reply: oneshot::Sender<Result<Lease, LeaseError>>,
    },
    /// The task is done with its slot (or no longer waits for one). Unknown tasks are fine.
    Release {
        /// Who held it.
        task: TaskArn,
        /// Answered once the slot can no longer be reached under this task; the tear-down goes on behind it.
        reply: oneshot::Sender<()>,
    },
    /// The engine has asked again for all that its tasks hold: slots that nobody asked for may be given back.
    Recovered,
}

/// The engine's door to the ENI manager.
#[derive(Debug, Clone)]
pub struct LeaseHandle(pub mpsc::Sender<LeaseRequest>);

impl LeaseHandle {
    /// Asks for a slot and waits for it. Dropping the future does not cancel the request; [`LeaseHandle::release`] does.
    pub async fn lease(
        &self,
        task: &TaskArn,
        needs: LeaseNeeds,
        held: Option<SlotId>,
    ) -> Result<Lease, LeaseError> {
        let (reply, answer) = oneshot::channel();
        self.send(LeaseRequest::Lease { task: task.clone(), needs, held, reply })?;
        answer.await.unwrap_or(Err(LeaseError::Stopped))
    }

    /// Gives the slot back.
    pub async fn release(&self, task: &TaskArn) -> Result<(), LeaseError> {
        let (reply, answer) = oneshot::channel();
        self.send(LeaseRequest::Release { task: task.clone(), reply })?;
        answer.await.map_err(|_| LeaseError::Stopped)
    }

    /// Says that every task of the past has asked for its slot.
    pub async fn recovered(&self) -> Result<(), LeaseError> {
        self.0.send(LeaseRequest::Recovered).await.map_err(|_| LeaseError::Stopped)
    }

    fn send(&self, request: LeaseRequest) -> Result<(), LeaseError> {
        self.0.try_send(request).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => LeaseError::Busy,
            mpsc::error::TrySendError::Closed(_) => LeaseError::Stopped,
        })
    }
}

/// Changes that may wait for the metadata endpoint: an open and a close for each slot an instance can hold.
pub const LISTENER_QUEUE: usize = 256;

/// A metadata listener came or is to go. The ENI manager sends, the metadata endpoint serves.
#[derive(Debug)]
pub enum ListenerChange {
    /// Serve on this listener. Replaces one of the same slot.
    Open {
        /// The slot: who asks through this listener is the slot's lease holder, whatever it claims.
        slot: SlotId,
        /// Bound in the slot's namespace, non-blocking.
        listener: std::net::TcpListener,
    },
    /// Stop serving, close listener and connections: an open socket pins the namespace, and with it the ENI's link.
    Close {
        /// The slot.
        slot: SlotId,
        /// Answered when every descriptor of the namespace is closed.
        done: oneshot::Sender<()>,
    },
}
