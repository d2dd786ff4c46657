//! The four ports: all that the agent can do to the world. Real ones live in `ec2`, `netns`, `containerd` and `store`; fakes with
//! behaviour live in `testkit`.
//!
//! Every operation is repeatable: asked for what is already so, it answers as if it had just done it.

use crate::{
    Class, Timestamp,
    eni::{BuiltSlot, CreateEni, EniFacts, InstanceFacts, LinkTable, NetworkFacts, SlotFiles, SlotSpec},
    ids::{AttachmentId, ContainerId, EniId, MacAddr, SecurityGroupId, SlotId, TaskArn},
    task::{ContainerSpec, VolumeView},
};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};

type Source = Box<dyn std::error::Error + Send + Sync>;

// ------------------------------------------------------------------------------------------------------------------ cloud

/// EC2 and IMDS, for this instance.
#[async_trait]
pub trait Cloud: Send + Sync + 'static {
    /// The instance, from IMDS and DescribeInstances/DescribeInstanceTypes.
    async fn instance(&self) -> Result<InstanceFacts, CloudError>;
    /// Every ENI that is attached to this instance (the primary included) or carries this agent's instance tag, all pages.
    async fn enis(&self) -> Result<Vec<EniFacts>, CloudError>;
    /// Creates an ENI; the same token gives the same ENI.
    async fn create_eni(&self, spec: &CreateEni) -> Result<EniFacts, CloudError>;
    /// Attaches it to this instance.
    async fn attach_eni(&self, eni: &EniId, device_index: u32) -> Result<AttachmentId, CloudError>;
    /// Makes EC2 delete the ENI when the instance ends.
    async fn set_delete_on_termination(
        &self,
        eni: &EniId,
        attachment: &AttachmentId,
    ) -> Result<(), CloudError>;
    /// Detaches it, never by force.
    async fn detach_eni(&self, attachment: &AttachmentId) -> Result<(), CloudError>;
    /// Deletes it. One that is not there is deleted.
    async fn delete_eni(&self, eni: &EniId) -> Result<(), CloudError>;
    /// Sets the tags with a value, removes those with `None`.
    async fn tag_eni(&self, eni: &EniId, tags: &BTreeMap<String, Option<String>>) -> Result<(), CloudError>;
    /// Gives it these security groups instead of those it has.
    async fn set_security_groups(&self, eni: &EniId, groups: &[SecurityGroupId]) -> Result<(), CloudError>;
    /// The instance identity document as IMDS gives it, and its signature: what an instance shows to be let into a cluster.
    async fn identity_document(&self) -> Result<IdentityDocument, CloudError>;
}

/// An instance identity document, byte for byte as IMDS gives it: the signature is over these bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityDocument {
    /// JSON text.
    pub document: String,
    /// Base64 text.
    pub signature: String,
}

/// Tag with the id of the instance whose agent made the ENI.
pub const TAG_INSTANCE: &str = "berth:instance-id";
/// Tag with the cluster of that agent.
pub const TAG_CLUSTER: &str = "berth:cluster";
/// Tag with the client token of the create call.
pub const TAG_INTENT: &str = "berth:intent";
/// Tag with the time of creation, Unix milliseconds.
pub const TAG_CREATED: &str = "berth:created-at";
/// Tag with the ARN of the task that leases the ENI.
pub const TAG_TASK: &str = "berth:task-arn";
/// Tag with the family of that task.
pub const TAG_FAMILY: &str = "berth:task-family";

/// A call to EC2 or IMDS that failed: `attach eni-1: AttachmentLimitExceeded: Interface count 4 exceeds the limit`.
#[derive(Debug, thiserror::Error)]
#[error("{op} {target}: {kind}")]
pub struct CloudError {
    /// What was tried: `create ENI in`, `attach`.
    pub op: &'static str,
    /// On what.
    pub target: String,
    /// What EC2 said, sorted by what to do about it.
    pub kind: CloudErrorKind,
    /// The SDK's error.
    #[source]
    pub source: Option<Source>,
}

/// EC2's error codes, sorted by what to do about them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloudErrorKind {
    /// Too many calls: the whole account shares a bucket.
    #[error("EC2 is throttling: {0}")]
    Throttled(String),
    /// A time-out, a lost connection, a 5xx: the act may have been done. Creates are repeated with their token, the rest is
    /// looked at before it is repeated.
    #[error("outcome unknown: {0}")]
    OutcomeUnknown(String),
    /// The object is not there (yet: EC2 is eventually consistent for the first seconds).
    #[error("not found: {0}")]
    NotFound(String),
    /// The ENI is still in use: a detach has not finished.
    #[error("in use: {0}")]
    InUse(String),
    /// The instance holds as many ENIs as its type can, or the device index is taken.
    #[error("the instance is full: {0}")]
    InstanceFull(String),
    /// The account holds as many ENIs as it may.
    #[error("the account's ENI quota is used up: {0}")]
    QuotaExceeded(String),
    /// No free address in the subnet.
    #[error("no free address in the subnet: {0}")]
    SubnetFull(String),
    /// Not allowed.
    #[error("not authorized: {0}")]
    Unauthorized(String),
    /// The token was used before with other parameters: our own mistake.
    #[error("client token used with other parameters: {0}")]
    TokenMismatch(String),
    /// Everything else: a wrong subnet, group or parameter.
    #[error("refused: {0}")]
    Refused(String),
}

impl CloudError {
    /// Whether trying again can help.
    pub fn class(&self) -> Class {
        match &self.kind {
            CloudErrorKind::Throttled(_) | CloudErrorKind::OutcomeUnknown(_) | CloudErrorKind::InUse(_) => {
                Class::Retry
            }
            // The one that is not there may be about to appear; the planner knows how young it is.
            CloudErrorKind::NotFound(_) => Class::Retry,
            // ipamd waits 120 s after this error; the count of free addresses lags anyway.
            CloudErrorKind::SubnetFull(_) => Class::RetryAfter(Duration::from_secs(120)),
            CloudErrorKind::InstanceFull(_) | CloudErrorKind::QuotaExceeded(_) => {
                Class::RetryAfter(Duration::from_secs(60))
            }
            CloudErrorKind::Unauthorized(_) | CloudErrorKind::Refused(_) => Class::Permanent,
            CloudErrorKind::TokenMismatch(_) => Class::Bug,
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------- network

/// The kernel: links and namespaces.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// What is really there.
    async fn observe(&self) -> Result<NetworkFacts, NetworkError>;
    /// Makes the slot so: namespace, link inside, addresses, routes, files, metadata listener; verified by reading back. Adopts
    /// whatever of it exists already. Fails with [`NetworkErrorKind::NoLink`] when the link is neither in the agent's
    /// namespace nor in the slot's.
    async fn build(&self, spec: &SlotSpec) -> Result<BuiltSlot, NetworkError>;
    /// Writes the link's alias, the kernel's copy of who owns it.
    async fn label(&self, slot: &SlotId, alias: &str) -> Result<(), NetworkError>;
    /// Moves the links back to the agent's namespace, then removes the namespace and its files. Every descriptor of the
    /// namespace, the listener's included, must be closed before.
    async fn tear_down(&self, slot: &SlotId) -> Result<(), NetworkError>;
    /// Links of the agent's own namespace as they come and go.
    fn links(&self) -> watch::Receiver<Arc<LinkTable>>;
}

/// A step on the kernel that failed: `move link 02:..:01 into slot 12345678-9abcdef0: no such device`.
#[derive(Debug, thiserror::Error)]
#[error("{op} of slot {slot}: {kind}")]
pub struct NetworkError {
    /// Which step.
    pub op: &'static str,
    /// Which slot, `-` where there is none.
    pub slot: String,
    /// What went wrong.
    pub kind: NetworkErrorKind,
    /// The system's error.
    #[source]
    pub source: Option<Source>,
}

/// What can go wrong with namespaces.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkErrorKind {
    /// No link with this MAC.
    #[error("no link with MAC {0}")]
    NoLink(MacAddr),
    /// Reading back does not show what was written.
    #[error("verification failed: {0}")]
    NotVerified(String),
    /// The kernel refused.
    #[error("{0}")]
    Kernel(String),
    /// The namespace thread died.
    #[error("the namespace thread ended early: {0}")]
    Thread(String),
}

impl NetworkError {
    /// Whether trying again can help.
    pub fn class(&self) -> Class {
        match self.kind {
            NetworkErrorKind::NoLink(_) | NetworkErrorKind::NotVerified(_) | NetworkErrorKind::Kernel(_) => {
                Class::Retry
            }
            NetworkErrorKind::Thread(_) => Class::Bug,
        }
    }
}

// ------------------------------------------------------------------------------------------------------------- containers

/// An image that is here and unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// The reference that was asked for.
    pub reference: String,
    /// Digest of the config: metadata's `ImageID`.
    pub image_id: String,
    /// Digest of the manifest or index.
    pub digest: String,
}

/// A container to make. What the image brings (entry point, environment, user) is merged by the runtime's side of the port.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateContainer {
    /// Its id.
    pub id: ContainerId,
    /// Its task.
    pub task: TaskArn,
    /// What it is to be.
    pub spec: Arc<ContainerSpec>,
    /// Laid over image environment and `spec.environment`: the metadata URLs, the region.
    pub injected_environment: Vec<(String, String)>,
    /// Docker-like labels: the user's and `com.amazonaws.ecs.*`.
    pub labels: BTreeMap<String, String>,
    /// The namespace to join.
    pub netns_path: PathBuf,
    /// Host name in the container.
    pub hostname: String,
    /// resolv.conf, hosts, hostname to mount.
    pub files: SlotFiles,
    /// Volumes to mount; the sources exist.
    pub volumes: Vec<(VolumeView, bool)>,
    /// Log file for the json-file driver.
    pub log_path: PathBuf,
    /// Task limits in CPU units and MiB, set on the cgroup that the task's containers share.
    pub task_cpu: Option<u32>,
    /// See `task_cpu`.
    pub task_memory: Option<u64>,
    /// The engine's record of the task, kept with the container so that a lost journal can be rebuilt. Opaque here.
    pub record: Vec<u8>,
}

/// Which signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// The image's STOPSIGNAL, SIGTERM unless set, to the container's first process.
    Stop,
    /// SIGKILL to all its processes.
    Kill,
}

/// What the runtime says a container is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuntimeState {
    /// Made, never started (or started before a reboot: nothing is known of its process).
    Created,
    /// Running.
    Running {
        /// Its process.
        pid: u32,
    },
    /// Ended.
    Exited {
        /// Exit code; 128+N when signal N ended it.
        code: u32,
        /// When.
        at: Timestamp,
        /// Whether the kernel killed it for want of memory.
        oom: bool,
    },
    /// The runtime cannot say: what looks after the process does not answer. Nothing may be concluded, least of all an end.
    Unknown,
}

/// A container of ours as found in the runtime.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedContainer {
    /// Its id.
    pub id: ContainerId,
    /// Its task.
    pub task: TaskArn,
    /// Its name in the task.
    pub name: String,
    /// What it is doing.
    pub state: RuntimeState,
    /// [`CreateContainer::record`].
    pub record: Vec<u8>,
}

/// A hint from the runtime. Lost ones cost latency only: the engine lists again on `Resync`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerEvent {
    /// A container's process ended.
    Exited {
        /// Its id.
        id: ContainerId,
        /// Exit code; 128+N when signal N ended it.
        code: u32,
        /// When.
        at: Timestamp,
        /// Whether the kernel killed it for want of memory.
        oom: bool,
    },
    /// Look at everything again: the connection was lost, or events were dropped.
    Resync,
    /// The runtime does not answer; `Resync` follows when it is back.
    Disconnected,
}

/// Hints that may wait: one exit for each container on a full instance (120 tasks of a few containers). When the queue is full the
/// sender drops the hint and sends `Resync` as soon as there is room.
pub const CONTAINER_EVENT_QUEUE: usize = 512;

/// The container runtime.
#[async_trait]
pub trait Containers: Send + Sync + 'static {
    /// Brings an image by the reference the user wrote: pulls it if the configured behaviour asks for that, unpacks it, and answers
    /// when containers can be made of it. Calls for the same image share one pull.
    async fn image(&self, reference: &str) -> Result<ImageFacts, ContainerError>;
    /// Makes the container and its root file system; starts nothing. One that exists is left as it is.
    async fn create(&self, container: &CreateContainer) -> Result<Timestamp, ContainerError>;
    /// Starts its process; answers the process and when it started. One that runs is left as it is.
    async fn start(&self, id: &ContainerId) -> Result<(u32, Timestamp), ContainerError>;
    /// Sends a signal. A container that has ended or is not there takes it in silence.
    async fn signal(&self, id: &ContainerId, signal: Signal) -> Result<(), ContainerError>;
    /// Removes process record, container and root file system. What is not there is removed. Logs stay.
    async fn remove(&self, id: &ContainerId) -> Result<(), ContainerError>;
    /// Every container of ours.
    async fn list(&self) -> Result<Vec<ObservedContainer>, ContainerError>;
    /// Hints from now on; the first is `Resync`. Called once.
    fn events(&self) -> mpsc::Receiver<ContainerEvent>;
    /// Removes what the task's containers shared (its cgroup). Called when all of them are removed.
    async fn remove_task(&self, task: &TaskArn) -> Result<(), ContainerError>;
}

/// A call to the runtime that failed.
#[derive(Debug, thiserror::Error)]
#[error("{op} {target}: {kind}")]
pub struct ContainerError {
    /// What was tried: `create container`.
    pub op: &'static str,
    /// On what: a container's short id, an image reference.
    pub target: String,
    /// What the runtime said.
    pub kind: ContainerErrorKind,
    /// The transport's error.
    #[source]
    pub source: Option<Source>,
}

/// What can go wrong in the runtime.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContainerErrorKind {
    /// The image is not in the runtime's store.
    #[error("the image is not there: {0}")]
    ImageNotFound(String),
    /// The registry was asked which image a tag means (or whether a digest is there), and that failed.
    #[error("{0}")]
    CannotResolve(String),
    /// The image could not be brought from its registry, and there is none here that would do.
    #[error("{0}")]
    CannotPull(String),
    /// The definition asks for something that the image or the host does not have (a user, a path, a program).
    #[error("{0}")]
    Invalid(String),
    /// The runtime does not answer.
    #[error("containerd does not answer: {0}")]
    Unavailable(String),
    /// The call took longer than it may.
    #[error("timed out after {0:?}")]
    TimedOut(Duration),
    /// The runtime refused.
    #[error("{0}")]
    Runtime(String),
}

impl ContainerError {
    /// Whether trying again can help.
    pub fn class(&self) -> Class {
        match self.kind {
            ContainerErrorKind::Unavailable(_) => Class::Retry,
            ContainerErrorKind::ImageNotFound(_)
            | ContainerErrorKind::CannotResolve(_)
            | ContainerErrorKind::CannotPull(_)
            | ContainerErrorKind::Invalid(_)
            | ContainerErrorKind::TimedOut(_)
            | ContainerErrorKind::Runtime(_) => Class::Permanent,
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------- journal

/// Which kind of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// ENIs by client token (the ENI manager's).
    Enis,
    /// Leases by task ARN (the ENI manager's).
    Leases,
    /// Tasks by ARN (the engine's).
    Tasks,
    /// What the control plane said of this container instance, by name (the ECS client's).
    Registration,
    /// The outbox: reports of task state that the control plane has not acknowledged, by task ARN (the reporter's).
    Reports,
}

/// A record: the version says which decoder reads the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Version of the body's form; old versions keep a decoder in the crate that owns the table.
    pub version: u16,
    /// The owner's bytes.
    pub body: Vec<u8>,
}

/// A change to the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets a record.
    Put {
        /// Where.
        table: Table,
        /// Under which key.
        key: String,
        /// What.
        record: Record,
    },
    /// Removes a record.
    Delete {
        /// Where.
        table: Table,
        /// Under which key.
        key: String,
    },
}

/// When a commit may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Only when the bytes survive the death of this process: before an act on the outside world.
    Intent,
    /// As soon as they are taken: for what can be observed again.
    Fact,
}

/// The journal: intents and facts on disk.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// Applies all writes or none.
    async fn commit(&self, writes: Vec<Write>, durability: Durability) -> Result<(), JournalError>;
    /// All records of a table, by key.
    async fn load(&self, table: Table) -> Result<Vec<(String, Record)>, JournalError>;
}

/// A journal operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("{op} the journal at {path}: {reason}")]
pub struct JournalError {
    /// What was tried.
    pub op: &'static str,
    /// Which journal.
    pub path: PathBuf,
    /// Why it failed.
    pub reason: String,
    /// The store's error.
    #[source]
    pub source: Option<Source>,
}

impl JournalError {
    /// A disk that is full or slow may recover.
    pub fn class(&self) -> Class {
        Class::Retry
    }
}
