//! One task definition: the document that callers get, and what placement reads from it.

use crate::ecs::{epoch, error::ApiError, input::Input, tags::Tags};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Where a definition is in its life. It never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// Tasks can be started from it.
    Active,
    /// Deregistered: no new tasks.
    Inactive,
    /// To be forgotten.
    DeleteInProgress,
}

impl Status {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Inactive => "INACTIVE",
            Self::DeleteInProgress => "DELETE_IN_PROGRESS",
        }
    }
}

/// A registered task definition.
#[derive(Debug, Clone)]
pub struct Definition {
    /// `arn:aws:ecs:REGION:ACCOUNT:task-definition/FAMILY:REVISION`.
    pub arn: String,
    /// The family.
    pub family: String,
    /// Counted in the family from 1; never used twice.
    pub revision: u32,
    /// Where it is in its life.
    pub status: Status,
    /// `awsvpc`, `host`, `none`, or `bridge` when none was given.
    pub network_mode: String,
    /// The task's limit in CPU units.
    pub cpu: Option<u32>,
    /// The task's limit in MiB.
    pub memory: Option<u64>,
    /// Its containers, in the order of the document.
    pub containers: Vec<Container>,
    /// Names of the attributes that an instance must have to run it.
    pub requires: Vec<String>,
    /// What DescribeTaskDefinition gives as `taskDefinition`.
    pub document: Value,
    /// Its tags.
    pub tags: Tags,
}

impl Definition {
    /// Takes a step of its life and notes when.
    pub(super) fn turn(&mut self, status: Status, member: &str, now: Timestamp) {
        self.status = status;
        self.document["status"] = json!(status.as_str());
        self.document[member] = epoch(now);
    }
}

/// A container of a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// Whether its end is the task's end.
    pub essential: bool,
    /// CPU units; 0 when not given.
    pub cpu: u32,
    /// Hard limit in MiB.
    pub memory: Option<u64>,
    /// Soft limit in MiB.
    pub memory_reservation: Option<u64>,
}

impl Container {
    /// All containers of a document.
    pub(super) fn all(document: Input<'_>) -> Result<Vec<Self>, ApiError> {
        let number = |container: Input<'_>, member| {
            Ok::<_, ApiError>(container.integer(member)?.and_then(|n| u64::try_from(n).ok()))
        };
        let read = |container: Input<'_>| {
            Ok(Self {
                name: container.text("name")?.unwrap_or_default().to_owned(),
                image: container.text("image")?.unwrap_or_default().to_owned(),
                essential: container.boolean("essential")?.unwrap_or(true),
                cpu: number(container, "cpu")?.and_then(|cpu| u32::try_from(cpu).ok()).unwrap_or_default(),
                memory: number(container, "memory")?,
                memory_reservation: number(container, "memoryReservation")?,
            })
        };
        document.objects("containerDefinitions")?.into_iter().map(read).collect()
    }
}
