//! Tasks and containers: what is to be run, the states they go through, and the snapshot that the engine publishes.

use crate::{
    Timestamp,
    ids::{ContainerId, EndpointId, TaskArn},
    lease::{Lease, LeaseNeeds},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

/// A container's status; the order is the order of life. The words are those of the metadata endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ContainerStatus {
    /// Known, nothing done.
    None,
    /// The image's digest is known.
    ManifestPulled,
    /// The image is here.
    Pulled,
    /// The container exists, no process.
    Created,
    /// The process has started.
    Running,
    /// The process has ended, or never will start.
    Stopped,
}

/// A task's status, the minimum over its containers. The words are those of the metadata endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TaskStatus {
    /// Known, nothing done.
    None,
    /// All digests are known.
    ManifestPulled,
    /// All images are here.
    Pulled,
    /// All containers exist.
    Created,
    /// All containers have started.
    Running,
    /// All containers have ended.
    Stopped,
}

impl ContainerStatus {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::ManifestPulled => "MANIFEST_PULLED",
            Self::Pulled => "PULLED",
            Self::Created => "CREATED",
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
        }
    }
}

impl TaskStatus {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::ManifestPulled => "MANIFEST_PULLED",
            Self::Pulled => "PULLED",
            Self::Created => "CREATED",
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
        }
    }
}

impl fmt::Display for ContainerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a task stopped, in the words of the ECS API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopCode {
    /// It never came to RUNNING.
    TaskFailedToStart,
    /// One of its essential containers ended.
    EssentialContainerExited,
    /// Someone asked for it.
    UserInitiated,
    /// The service scheduler asked for it.
    ServiceSchedulerInitiated,
    /// The instance is being taken away.
    SpotInterruption,
    /// The instance is going down.
    TerminationNotice,
    /// An operator of the node asked for it, past the control plane. ECS has no word for that: whoever shows it says `UserInitiated`.
    OperatorInitiated,
}

impl StopCode {
    /// The same in a word that ECS has.
    #[must_use]
    pub fn in_ecs(self) -> Self {
        match self {
            Self::OperatorInitiated => Self::UserInitiated,
            other => other,
        }
    }
}

/// Why a task stopped that an operator stopped, unless there are words of the operator's own.
pub const STOPPED_BY_OPERATOR: &str = "Task stopped by operator";

/// A task to run: a task definition with its overrides applied, validated, and named. Immutable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Its name.
    pub arn: TaskArn,
    /// The cluster exactly as configured (a name or an ARN), because metadata repeats it so.
    pub cluster: String,
    /// Family of the task definition.
    pub family: String,
    /// Revision of the task definition; a number as text.
    pub revision: String,
    /// `family:NAME` or `service:NAME`.
    pub group: Option<String>,
    /// The service it belongs to.
    pub service_name: Option<String>,
    /// `EC2` or `EXTERNAL`.
    pub launch_type: String,
    /// Task limit in CPU units (1024 = one vCPU).
    pub cpu: Option<u32>,
    /// Task limit in MiB.
    pub memory: Option<u64>,
    /// Volumes that mount points refer to.
    pub volumes: Vec<VolumeSpec>,
    /// Containers in the order of the definition; never empty, names are unique, at least one is essential.
    pub containers: Vec<ContainerSpec>,
    /// What its ENI must be like.
    pub network: LeaseNeeds,
    /// The task's IAM role.
    pub task_role_arn: Option<String>,
    /// The role for pulls, secrets and logs.
    pub execution_role_arn: Option<String>,
    /// Whether tasks may inject faults into their own network.
    pub enable_fault_injection: bool,
    /// When the assignment arrived.
    pub created_at: Timestamp,
    /// Who asked for it. Tasks recorded before there was a control plane are operators'.
    #[serde(default)]
    pub origin: Origin,
}

/// Who asked for a task, and so who hears of what becomes of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// An operator, through the admin API: looks for himself.
    #[default]
    Operator,
    /// The control plane: every change of state is reported until it is acknowledged.
    ControlPlane {
        /// ARN of the ENI attachment that the control plane wants to hear of (`ATTACHED`), if it made one for the task.
        attachment: Option<String>,
    },
}

/// A volume of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// What mount points call it. Letters, digits, dashes and underscores only.
    pub name: String,
    /// A path on the host; `None` is a task-scoped volume that is made empty and removed with the task.
    pub host_path: Option<PathBuf>,
}

/// A container of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Unique in the task.
    pub name: String,
    /// Its id in metadata URLs.
    pub endpoint_id: EndpointId,
    /// Image reference as the user wrote it.
    pub image: String,
    /// Whether its end is the task's end.
    pub essential: bool,
    /// CPU units (shares); 0 is unset.
    pub cpu: u32,
    /// Hard limit in MiB.
    pub memory: Option<u64>,
    /// Soft limit in MiB.
    pub memory_reservation: Option<u64>,
    /// Replaces the image's entry point (and drops its command).
    pub entry_point: Option<Vec<String>>,
    /// Replaces the image's command.
    pub command: Option<Vec<String>>,
    /// Laid over the image's environment; the last of a name wins.
    pub environment: Vec<(String, String)>,
    /// Replaces the image's working directory.
    pub working_directory: Option<String>,
    /// `user`, `user:group`, `uid`, `uid:gid`, `user:gid` or `uid:group`; replaces the image's.
    pub user: Option<String>,
    /// Root file system is read-only.
    pub readonly_root_filesystem: bool,
    /// All capabilities, all devices, no seccomp.
    pub privileged: bool,
    /// Capabilities added to the default set, without `CAP_`; `ALL` is all.
    pub capabilities_add: Vec<String>,
    /// Capabilities taken from the default set, without `CAP_`; `ALL` is all.
    pub capabilities_drop: Vec<String>,
    /// Resource limits.
    pub ulimits: Vec<Ulimit>,
    /// Size of /dev/shm in MiB; 64 unless set.
    pub shared_memory_size: Option<u64>,
    /// In-memory file systems.
    pub tmpfs: Vec<Tmpfs>,
    /// Volumes to mount.
    pub mount_points: Vec<MountPoint>,
    /// Ports the container says it listens on: with an ENI of its own there is nothing to map.
    pub port_mappings: Vec<PortMapping>,
    /// Containers that must have come so far before this one starts.
    pub depends_on: Vec<DependsOn>,
    /// Seconds that a dependency may take.
    pub start_timeout: Option<u32>,
    /// Seconds between the stop signal and SIGKILL.
    pub stop_timeout: Option<u32>,
    /// Where its output goes.
    pub log: LogSpec,
    /// Labels of the user.
    pub docker_labels: BTreeMap<String, String>,
    /// No new privileges through set-uid programs.
    pub no_new_privileges: bool,
    /// Stdout is a terminal.
    pub pseudo_terminal: bool,
}

/// One `ulimits` entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Lower-case name without RLIMIT_, for example `nofile`.
    pub name: String,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// One `linuxParameters.tmpfs` entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Where in the container.
    pub path: String,
    /// MiB.
    pub size: u64,
    /// Mount options such as `noexec`.
    pub options: Vec<String>,
}

/// One `mountPoints` entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPoint {
    /// Name of a [`VolumeSpec`].
    pub volume: String,
    /// Absolute path in the container.
    pub path: String,
    /// No writing.
    pub read_only: bool,
}

/// One `portMappings` entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// Port.
    pub container_port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
}

/// One `dependsOn` entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DependsOn {
    /// Name of another container of the task.
    pub container: String,
    /// How far it must have come.
    pub condition: DependsCondition,
}

/// `dependsOn.condition`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DependsCondition {
    /// It has started.
    Start,
    /// It has ended.
    Complete,
    /// It has ended with exit code 0.
    Success,
}

/// `logConfiguration`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSpec {
    /// Which driver.
    pub driver: LogDriver,
    /// Its options as the user wrote them: `max-size`, `max-file`.
    pub options: BTreeMap<String, String>,
}

/// Where a container's output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogDriver {
    /// A file of JSON lines, rotated by size.
    JsonFile,
    /// Nowhere.
    None,
}

impl LogDriver {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JsonFile => "json-file",
            Self::None => "none",
        }
    }
}

/// A mounted volume as metadata and operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeView {
    /// Docker-like name; metadata's `DockerName`.
    pub docker_name: String,
    /// Path on the host.
    pub source: PathBuf,
    /// Path in the container.
    pub destination: String,
}

/// A container as it stands now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerSnapshot {
    /// Position in [`TaskSpec::containers`].
    pub index: usize,
    /// Its name, repeated for readers.
    pub name: String,
    /// Its id in containerd, once the engine has decided on it.
    pub id: Option<ContainerId>,
    /// Docker-like name: `ecs-FAMILY-REVISION-NAME-HEX`.
    pub docker_name: String,
    /// Digest of the image's config.
    pub image_id: Option<String>,
    /// Digest of the image's manifest.
    pub image_digest: Option<String>,
    /// Where it is to go.
    pub desired: ContainerStatus,
    /// Where it is.
    pub known: ContainerStatus,
    /// Its process in the host's pid namespace.
    pub pid: Option<u32>,
    /// Exit code of its process; 128+N when signal N ended it.
    pub exit_code: Option<u32>,
    /// `ErrorName: text` when it failed, in the official agent's words.
    pub reason: Option<String>,
    /// Container made.
    pub created_at: Option<Timestamp>,
    /// Process started.
    pub started_at: Option<Timestamp>,
    /// Process ended.
    pub finished_at: Option<Timestamp>,
    /// Mounted volumes.
    pub volumes: Vec<VolumeView>,
    /// Log file, with the json-file driver.
    pub log_path: Option<PathBuf>,
}

/// A task as it stands now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskSnapshot {
    /// What it was asked to be.
    pub spec: Arc<TaskSpec>,
    /// Where it is to go.
    pub desired: TaskStatus,
    /// Where it is.
    pub known: TaskStatus,
    /// In the order of the spec.
    pub containers: Vec<ContainerSnapshot>,
    /// Its slot, from the lease to the release.
    pub lease: Option<Lease>,
    /// What it waits for now, for people; `None` when it waits for nothing.
    pub waiting: Option<String>,
    /// Why it stopped (or is to stop), for people.
    pub stopped_reason: Option<String>,
    /// Why it stopped (or is to stop), for programs.
    pub stop_code: Option<StopCode>,
    /// How long the lease took, in microseconds; `None` until there was one, and when the slot was taken over after a restart.
    pub lease_micros: Option<u64>,
    /// When this agent took the task: a task of the control plane is created before an agent hears of it.
    pub taken_at: Option<Timestamp>,
    /// First look at an image.
    pub pull_started_at: Option<Timestamp>,
    /// All images here.
    pub pull_stopped_at: Option<Timestamp>,
    /// All containers started.
    pub started_at: Option<Timestamp>,
    /// First essential container ended.
    pub execution_stopped_at: Option<Timestamp>,
    /// All containers ended.
    pub stopped_at: Option<Timestamp>,
    /// Counts changes of this task.
    pub version: u64,
}

impl TaskSnapshot {
    /// The word that `aws ecs describe-tasks` would show as `lastStatus`.
    pub fn last_status(&self) -> &'static str {
        match (self.known, self.desired) {
            (TaskStatus::Stopped, _) => "STOPPED",
            (_, TaskStatus::Stopped) => "STOPPING",
            (TaskStatus::Running, _) => "RUNNING",
            _ if self.lease.is_none() => "PROVISIONING",
            _ => "PENDING",
        }
    }
}

/// What the engine publishes after every change.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct EngineSnapshot {
    /// Counts changes.
    pub version: u64,
    /// False until what was found at start has been taken over.
    pub recovered: bool,
    /// Whether containerd answers.
    pub runtime_ok: bool,
    /// All tasks the engine knows, stopped ones included until they are cleaned up.
    pub tasks: BTreeMap<TaskArn, Arc<TaskSnapshot>>,
}
