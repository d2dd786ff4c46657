//! What the metadata endpoint is told at start: facts of the instance that bodies repeat, and the limits of the server.

use berth_types::ids::VpcId;
use std::time::Duration;

/// Facts of the instance, and limits.
#[derive(Debug, Clone)]
pub struct MetadataConfig {
    /// The cluster exactly as configured, a name or an ARN: bodies repeat it as it stands.
    pub cluster: String,
    /// The VPC of the instance.
    pub vpc: VpcId,
    /// `None` leaves the key out (the official agent has a switch for that).
    pub availability_zone: Option<String>,
    /// `None` leaves the key out: instance metadata of old hosts does not name it.
    pub availability_zone_id: Option<String>,
    /// Limits of the server.
    pub limits: MetadataLimits,
}

/// What keeps one task's callers from hurting another task's endpoint, or the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetadataLimits {
    /// Connections that one slot's callers may hold open. The next ones wait in the kernel's accept queue.
    pub connections_per_listener: usize,
    /// Connections of all slots together, beyond the first of each: that one is the slot's own.
    pub connections_total: usize,
    /// How long a caller may take to send a request's head or body, and how long a connection may be idle.
    pub read_timeout: Duration,
    /// How long a caller may leave our bytes unread.
    pub write_timeout: Duration,
    /// How long a request made before recovery has ended may wait for its task to be known again.
    pub recovery_wait: Duration,
    /// Requests per second that the rate-limit headers name.
    pub steady_rate: u32,
}

impl Default for MetadataLimits {
    fn default() -> Self {
        Self {
            // A few SDK clients and a collector for each of ten containers; an idle connection costs about 11 KB.
            connections_per_listener: 64,
            // 64 hostile tasks before it is reached, 45 MB at the very most; the largest instances hold 120 slots.
            connections_total: 4096,
            // Both as the official agent has them.
            read_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(5),
            // Callers know the official agent's write timeout of 5 s: an answer has to come before that.
            recovery_wait: Duration::from_secs(4),
            // The official agent's default.
            steady_rate: 40,
        }
    }
}
