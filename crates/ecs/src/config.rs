//! What the ECS client is configured with, and what keeps it from starting.

use crate::{
    pacing::{POLL_MAX, POLL_MIN, POLLS_PER_MINUTE_MIN},
    port::EcsError,
};
use berth_types::{Timestamp, ports::JournalError, task::LogDriver};
use std::{collections::BTreeMap, time::Duration};

/// Where the time of day is read. Deadlines do not come from here: they are counted by a clock that never jumps.
pub type Clock = fn() -> Timestamp;

/// The most polling calls in a minute, unless configured otherwise. ECS gives an account about 20 reads a second in each region,
/// shared by its whole fleet and its operators: at 100 a minute a busy node takes a twelfth of that, an idle one a hundredth. The second
/// attempt that the SDK makes when a connection broke is not counted.
pub const POLLS_PER_MINUTE: u32 = 100;

/// TCP ports that the official agent keeps from tasks: ssh, Docker's two, introspection, metadata.
pub const RESERVED_PORTS: [u16; 5] = [22, 2375, 2376, 51678, 51679];

/// The cluster when none is configured.
pub const DEFAULT_CLUSTER: &str = "default";

/// Settings of the ECS client.
#[derive(Debug, Clone)]
pub struct EcsConfig {
    /// Name or ARN, as configured (ECS_CLUSTER).
    pub cluster: String,
    /// None was configured: `default` is made if it is not there. A cluster that was named is never made.
    pub create_cluster: bool,
    /// ECS's URL (ECS_BACKEND_HOST), `https://` if it has no scheme; the region's public endpoint unless given.
    pub endpoint: Option<String>,
    /// IMDS's URL, for credentials; found as the AWS SDKs find it unless given.
    pub imds_endpoint: Option<String>,
    /// The region; `AWS_REGION`, `AWS_DEFAULT_REGION`, else the instance's own unless given.
    pub region: Option<String>,
    /// Attributes of the operator (ECS_INSTANCE_ATTRIBUTES), sent at the first registration only, as the official agent does.
    pub attributes: BTreeMap<String, String>,
    /// Tags of the container instance (ECS_CONTAINER_INSTANCE_TAGS).
    pub tags: BTreeMap<String, String>,
    /// MiB that tasks do not get (ECS_RESERVED_MEMORY).
    pub reserved_memory: u64,
    /// TCP ports that tasks do not get (ECS_RESERVED_PORTS).
    pub reserved_ports: Vec<u16>,
    /// UDP ports that tasks do not get (ECS_RESERVED_PORTS_UDP).
    pub reserved_udp_ports: Vec<u16>,
    /// What the node can do as far as it is a matter of settings.
    pub abilities: Abilities,
    /// The most polling calls in a minute, at least [`POLLS_PER_MINUTE_MIN`]. Reports are not among them.
    pub polls_per_minute: u32,
    /// Between two polls right after a change.
    pub poll_min: Duration,
    /// Between two polls while nothing changes; at least as long.
    pub poll_max: Duration,
    /// Different on each node, so that the nodes of a cluster do not ask together.
    pub seed: u64,
    /// The time of day.
    pub clock: Clock,
}

/// What the node can do as far as it is a matter of settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abilities {
    /// Privileged containers (not ECS_DISABLE_PRIVILEGED). A task that has one in spite of that is refused.
    pub privileged: bool,
    /// Where containers' output may go (ECS_AVAILABLE_LOGGING_DRIVERS).
    pub log_drivers: Vec<LogDriver>,
    /// Tasks get an IPv6 address.
    pub ipv6: bool,
    /// Tasks cannot reach the instance's metadata (ECS_AWSVPC_BLOCK_IMDS).
    pub blocks_imds: bool,
    /// ECS_DETAILED_OS_FAMILY.
    pub os_family: String,
}

impl EcsConfig {
    /// The defaults of the official agent.
    pub fn new(cluster: impl Into<String>) -> Self {
        Self {
            cluster: cluster.into(),
            create_cluster: false,
            endpoint: None,
            imds_endpoint: None,
            region: None,
            attributes: BTreeMap::new(),
            tags: BTreeMap::new(),
            reserved_memory: 0,
            reserved_ports: RESERVED_PORTS.to_vec(),
            reserved_udp_ports: Vec::new(),
            abilities: Abilities {
                privileged: true,
                log_drivers: vec![LogDriver::JsonFile, LogDriver::None],
                ipv6: false,
                blocks_imds: false,
                os_family: "LINUX".into(),
            },
            polls_per_minute: POLLS_PER_MINUTE,
            poll_min: POLL_MIN,
            poll_max: POLL_MAX,
            seed: 0,
            clock: Timestamp::now,
        }
    }

    pub(crate) fn cap(&self) -> u32 {
        self.polls_per_minute.max(POLLS_PER_MINUTE_MIN)
    }
}

/// Why the ECS client cannot start. None of these goes away by itself.
#[derive(Debug, thiserror::Error)]
pub enum EcsStartError {
    /// The node was registered in another cluster. Its tasks are that cluster's: an operator must decide.
    #[error(
        "this node is registered in cluster {saved}, and {configured} is configured; stop its tasks and remove the journal to move it"
    )]
    ClusterChanged {
        /// Where it is registered.
        saved: String,
        /// What is configured.
        configured: String,
    },
    /// More memory is reserved than there is.
    #[error("{reserved} MiB of memory are reserved, and the node has {total}")]
    NothingLeft {
        /// As configured.
        reserved: u64,
        /// As the kernel has it.
        total: u64,
    },
    /// The kernel does not say how much memory there is.
    #[error("read the size of the memory")]
    UnknownMemory(#[source] std::io::Error),
    /// A setting of the client that cannot be.
    #[error("make the ECS client")]
    Client(#[source] EcsError),
    /// What was kept of the registration cannot be read.
    #[error("read what is kept of the registration")]
    Journal(#[source] JournalError),
}
