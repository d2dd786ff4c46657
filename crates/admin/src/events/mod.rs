//! What happens on this node, as a stream: the snapshots of all owners, compared one with the next.
//!
//! ```text
//!  watch<EngineSnapshot> ──┐
//!  watch<EniSnapshot> ─────┤            ┌──────┐ news ┌─────┐──► the latest, for whoever looks back
//!  watch<ClusterSnapshot> ─┼─► recorder │ diff │─────►│ log │
//!  watch<ReportsSnapshot> ─┤            └──────┘      └─────┘──► broadcast ──► followers
//!  watch<PullsSnapshot> ───┘
//! ```
//!
//! Owners publish states, not events, and a watch shows the newest one only: [`diff`] says what must have happened in between. So an
//! event is for people and dashboards; a program that must not miss a state reads the state. [`log`] keeps the latest and hands
//! them on; nothing here can hold up an owner.

mod diff;
mod log;
mod recorder;

pub(crate) use log::{EventLog, MAX_FOLLOWERS, line};
pub(crate) use recorder::record;

use berth_types::{
    Timestamp,
    ids::{EniId, SlotId, TaskArn},
};
use serde::{Deserialize, Serialize};

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EventKind {
    /// The agent has taken over what it found at its start.
    Recovered,
    /// A task has come to another status.
    Task,
    /// A task waits, or waits for something else.
    TaskWaiting,
    /// A stopped task has been cleaned up.
    TaskForgotten,
    /// A task of the control plane cannot run here.
    TaskRefused,
    /// A container has come to another status.
    Container,
    /// A task has been given its slot.
    Lease,
    /// A task has given its slot back.
    Release,
    /// A slot is ready for a task.
    SlotReady,
    /// A slot was taken away under its task.
    SlotLost,
    /// A pull has come further.
    Pull,
    /// A pull is over.
    PullEnded,
    /// The container instance has another status in its cluster.
    Instance,
    /// The control plane cannot be heard, or can again.
    ControlPlane,
    /// A report could not be delivered, and waits.
    Report,
    /// containerd does not answer, or does again.
    Runtime,
    /// Of this stream: events that are no longer kept, or that this client was too slow for.
    Missed,
    /// Of this stream: it ends here.
    End,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Counts events from the agent's start; `after=SEQ` goes on behind it.
    pub seq: u64,
    /// When it was seen.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub news: News,
}

/// An event before it is numbered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct News {
    /// What it is about.
    pub kind: EventKind,
    /// Which task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskArn>,
    /// Which of its containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Which slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotId>,
    /// Which ENI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eni: Option<EniId>,
    /// Which image, in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The status that was come to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// All of it for people.
    pub text: String,
}

impl News {
    fn new(kind: EventKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            task: None,
            container: None,
            slot: None,
            eni: None,
            image: None,
            status: None,
            text: text.into(),
        }
    }

    fn task(self, task: &TaskArn) -> Self {
        Self { task: Some(task.clone()), ..self }
    }

    fn status(self, status: impl Into<String>) -> Self {
        Self { status: Some(status.into()), ..self }
    }

    fn image(self, image: &str) -> Self {
        Self { image: Some(image.to_owned()), ..self }
    }
}
