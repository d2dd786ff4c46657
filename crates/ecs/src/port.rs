//! What this crate asks of the control plane, as a port: [`client`](crate::client) is its real side, tests have fakes with behaviour.
//!
//! Every call is repeatable. Registration and reports are the two that change something there; both say the same thing when they
//! are said twice.

use async_trait::async_trait;
use berth_types::{Class, Timestamp, ids::TaskArn, ports::IdentityDocument};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// The ECS API, as far as an agent that polls needs it.
#[async_trait]
pub(crate) trait ControlPlane: Send + Sync + 'static {
    /// RegisterContainerInstance. With an ARN it is a re-registration, which keeps that ARN.
    async fn register(&self, registration: &Registration) -> Result<Registered, EcsError>;
    /// CreateCluster; answers its name. Only ever called for the default cluster.
    async fn create_cluster(&self, name: &str) -> Result<String, EcsError>;
    /// ListTasks of this container instance with desired status RUNNING, all pages.
    async fn list_tasks(&self, instance: &str) -> Result<Vec<TaskArn>, EcsError>;
    /// ListTasks of this container instance with desired status STOPPED, all pages: those that stopped lately, and those that are to
    /// stop though nobody here has ever heard of them. Answered by the real one; to a fake that stops nothing there is nothing to say.
    async fn list_stopped(&self, _instance: &str) -> Result<Vec<TaskArn>, EcsError> {
        Ok(Vec::new())
    }
    /// DescribeTasks, any number.
    async fn describe_tasks(&self, tasks: &[TaskArn]) -> Result<Descriptions, EcsError>;
    /// DescribeTaskDefinition: the JSON of `taskDefinition`, as it came.
    async fn describe_task_definition(&self, arn: &str) -> Result<Vec<u8>, EcsError>;
    /// DescribeContainerInstances: the instance's `status` (`ACTIVE`, `DRAINING`, `INACTIVE`...), `None` if it is not known.
    async fn describe_instance(&self, instance: &str) -> Result<Option<String>, EcsError>;
    /// UpdateContainerInstancesState: `DRAINING` or `ACTIVE`.
    async fn set_instance_state(&self, instance: &str, draining: bool) -> Result<(), EcsError>;
    /// SubmitTaskStateChange.
    async fn submit(&self, report: &Report) -> Result<(), EcsError>;
}

/// What an instance says of itself.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Registration {
    /// From an earlier registration of this very instance.
    pub(crate) container_instance_arn: Option<String>,
    /// Shows which instance this is.
    pub(crate) identity: IdentityDocument,
    /// Name and value.
    pub(crate) attributes: Vec<(String, Option<String>)>,
    /// CPU units.
    pub(crate) cpu: u32,
    /// MiB.
    pub(crate) memory: u64,
    /// TCP ports of the host that no task may have.
    pub(crate) reserved_ports: Vec<u16>,
    /// The same for UDP.
    pub(crate) reserved_udp_ports: Vec<u16>,
    /// Tags of the container instance.
    pub(crate) tags: Vec<(String, String)>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registered {
    /// The container instance.
    pub(crate) container_instance_arn: String,
    /// Attributes that were sent and came back otherwise.
    pub(crate) lost_attributes: Vec<String>,
}

/// What the control plane says of the tasks that it was asked about. Of one that is in neither list it says nothing.
#[derive(Debug, Default)]
pub(crate) struct Descriptions {
    pub(crate) tasks: Vec<DescribedTask>,
    /// It says that it does not know them.
    pub(crate) missing: BTreeSet<TaskArn>,
}

impl Descriptions {
    /// The tasks of which something is said.
    pub(crate) fn answered(&self) -> BTreeSet<&TaskArn> {
        self.tasks.iter().map(|task| &task.arn).chain(&self.missing).collect()
    }
}

/// A task as the control plane describes it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DescribedTask {
    pub(crate) arn: TaskArn,
    pub(crate) cluster_arn: String,
    pub(crate) definition_arn: String,
    /// `RUNNING` or `STOPPED`.
    pub(crate) desired_status: String,
    /// What the control plane takes for its status.
    pub(crate) last_status: String,
    pub(crate) group: Option<String>,
    pub(crate) launch_type: Option<String>,
    pub(crate) stopped_reason: Option<String>,
    /// One of [`berth_types::task::StopCode`]'s words.
    pub(crate) stop_code: Option<String>,
    pub(crate) created_at: Option<Timestamp>,
    /// JSON of `overrides`, as it came; `None` when there are none.
    pub(crate) overrides: Option<Vec<u8>>,
    /// The attachment of type ElasticNetworkInterface.
    pub(crate) attachment: Option<Attachment>,
    /// Names of its containers.
    pub(crate) containers: Vec<String>,
}

/// An ENI attachment of a task: `id`, status and details, as they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) id: String,
    pub(crate) status: String,
    pub(crate) details: Vec<(String, String)>,
}

/// One report: what SubmitTaskStateChange carries. This is also the form in which it waits in the journal (version 1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The task.
    pub(crate) task: TaskArn,
    /// Its cluster, name or ARN.
    pub(crate) cluster: String,
    /// When what it says came to be.
    pub(crate) at: Timestamp,
    /// What it says.
    pub(crate) news: News,
}

/// What a report says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum News {
    /// The task's ENI is there. Sent alone, as the official agent does.
    Attached {
        /// ARN of the attachment.
        attachment: String,
    },
    /// The task has changed, or one of its containers.
    Task(TaskNews),
}

/// A change of a task's state, in the protocol's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TaskNews {
    /// `PENDING`, `RUNNING` or `STOPPED`.
    pub(crate) status: String,
    /// At most 1024 characters; empty when an essential container has ended: the control plane has its own words for that.
    pub(crate) reason: String,
    pub(crate) pull_started_at: Option<Timestamp>,
    pub(crate) pull_stopped_at: Option<Timestamp>,
    pub(crate) execution_stopped_at: Option<Timestamp>,
    pub(crate) containers: Vec<ContainerNews>,
}

/// The same of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerNews {
    pub(crate) name: String,
    pub(crate) runtime_id: Option<String>,
    pub(crate) image_digest: Option<String>,
    /// `PENDING`, `RUNNING` or `STOPPED`.
    pub(crate) status: String,
    pub(crate) exit_code: Option<u32>,
    /// At most 1024 characters: `CannotPullContainerError: ...`.
    pub(crate) reason: Option<String>,
}

/// A call to the control plane that failed: `submit state of arn:...: ECS is throttling: ThrottlingException: Rate exceeded`.
#[derive(Debug, thiserror::Error)]
#[error("{op} {target}: {kind}")]
pub struct EcsError {
    /// What was tried: `register in`, `list tasks of`.
    pub op: &'static str,
    /// On what.
    pub target: String,
    /// What ECS said, sorted by what to do about it.
    pub kind: EcsErrorKind,
    /// The SDK's error.
    #[source]
    pub source: Option<Source>,
}

/// What ECS says, sorted by what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EcsErrorKind {
    /// Too many calls.
    #[error("ECS is throttling: {0}")]
    Throttled(String),
    /// No answer, or a 5xx: it may have been done.
    #[error("no answer: {0}")]
    Unavailable(String),
    /// The credentials may not do this.
    #[error("not authorized: {0}")]
    Unauthorized(String),
    /// There is no such cluster.
    #[error("no such cluster: {0}")]
    ClusterNotFound(String),
    /// A parameter is not as ECS wants it. Said of a report, it is dropped: the control plane will never take it.
    #[error("invalid parameter: {0}")]
    InvalidParameter(String),
    /// Everything else that ECS refuses.
    #[error("refused: {0}")]
    Refused(String),
    /// An answer that makes no sense.
    #[error("the answer is not as expected: {0}")]
    Malformed(String),
}

impl EcsError {
    /// Whether trying again can help.
    pub fn class(&self) -> Class {
        match self.kind {
            EcsErrorKind::Throttled(_) | EcsErrorKind::Unavailable(_) => Class::Retry,
            EcsErrorKind::Unauthorized(_)
            | EcsErrorKind::ClusterNotFound(_)
            | EcsErrorKind::InvalidParameter(_)
            | EcsErrorKind::Refused(_)
            | EcsErrorKind::Malformed(_) => Class::Permanent,
        }
    }
}
