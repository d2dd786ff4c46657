//! Settings of the control plane: where it is, how often it may be asked, and what it is told of this instance.

use super::Source;
use berth_types::task::LogDriver;
use std::{collections::BTreeMap, time::Duration};

/// Who gives this node its tasks besides its operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ControlPlane {
    /// ECS.
    Ecs,
    /// Nobody: a node that only its operators use.
    None,
}

/// Settings of the control plane.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ClusterSettings {
    /// `BERTH_CONTROL_PLANE`.
    pub(crate) control_plane: ControlPlane,
    /// `ECS_CLUSTER` is not set: the default cluster is made if there is none. One that was named is never made.
    pub(crate) default_cluster: bool,
    /// `ECS_BACKEND_HOST`: where ECS is; the region's endpoint unless set.
    pub(crate) endpoint: Option<String>,
    /// `ECS_INSTANCE_ATTRIBUTES`.
    pub(crate) attributes: BTreeMap<String, String>,
    /// `ECS_CONTAINER_INSTANCE_TAGS`.
    pub(crate) tags: BTreeMap<String, String>,
    /// `ECS_DETAILED_OS_FAMILY`.
    pub(crate) os_family: String,
    /// `ECS_RESERVED_MEMORY`, MiB that are kept from tasks.
    pub(crate) reserved_memory: u32,
    /// `ECS_RESERVED_PORTS`.
    pub(crate) reserved_ports: Vec<u16>,
    /// `ECS_RESERVED_PORTS_UDP`.
    pub(crate) reserved_udp_ports: Vec<u16>,
    /// `ECS_DISABLE_PRIVILEGED`: privileged containers are refused, and the cluster is not told that they could run here.
    pub(crate) disable_privileged: bool,
    /// `ECS_AVAILABLE_LOGGING_DRIVERS`, those of them that there are.
    pub(crate) log_drivers: Vec<LogDriver>,
    /// `BERTH_POLL_MIN_INTERVAL`.
    pub(crate) poll_min: Duration,
    /// `BERTH_POLL_MAX_INTERVAL`.
    pub(crate) poll_max: Duration,
    /// `BERTH_POLLS_PER_MINUTE`.
    pub(crate) polls_per_minute: u32,
}

/// The names that the official agent takes for `ECS_AVAILABLE_LOGGING_DRIVERS`, with ours where there is one.
const LOG_DRIVERS: [(&str, Option<LogDriver>); 11] = [
    ("json-file", Some(LogDriver::JsonFile)),
    ("none", Some(LogDriver::None)),
    ("awslogs", None),
    ("awsfirelens", None),
    ("fluentd", None),
    ("gelf", None),
    ("journald", None),
    ("logentries", None),
    ("splunk", None),
    ("sumologic", None),
    ("syslog", None),
];

/// Fewest calls a minute that may be set, and so that are made.
const FEWEST_POLLS: u32 = berth_ecs::POLLS_PER_MINUTE_MIN;

/// Most calls a minute that may be set: ECS's own bucket for an account refills with less.
const MOST_POLLS: u32 = 6000;

/// The shortest pause that may be set: more than ten looks a second find nothing new.
const SHORTEST_POLL: Duration = Duration::from_millis(100);

pub(super) fn read(s: &mut Source) -> ClusterSettings {
    let (poll_min, poll_max) = poll_interval(s);
    ClusterSettings {
        control_plane: s.one_of(
            "BERTH_CONTROL_PLANE",
            "ecs",
            &[("ecs", ControlPlane::Ecs), ("none", ControlPlane::None)],
        ),
        default_cluster: !s.has("ECS_CLUSTER"),
        endpoint: s.endpoint("ECS_BACKEND_HOST"),
        attributes: s.json_map("ECS_INSTANCE_ATTRIBUTES"),
        tags: s.json_map("ECS_CONTAINER_INSTANCE_TAGS"),
        os_family: s.word("ECS_DETAILED_OS_FAMILY", "LINUX"),
        // 16 bits, as in the official agent.
        reserved_memory: s.number("ECS_RESERVED_MEMORY", 0, 65_535).unwrap_or(0),
        reserved_ports: s.json_ports("ECS_RESERVED_PORTS", &berth_ecs::RESERVED_PORTS),
        reserved_udp_ports: s.json_ports("ECS_RESERVED_PORTS_UDP", &[]),
        disable_privileged: s.boolean("ECS_DISABLE_PRIVILEGED", false),
        log_drivers: log_drivers(s),
        poll_min,
        poll_max,
        polls_per_minute: s
            .number("BERTH_POLLS_PER_MINUTE", FEWEST_POLLS, MOST_POLLS)
            .unwrap_or(berth_ecs::POLLS_PER_MINUTE),
    }
}

fn poll_interval(s: &mut Source) -> (Duration, Duration) {
    let min = s.duration("BERTH_POLL_MIN_INTERVAL", berth_ecs::POLL_MIN, SHORTEST_POLL);
    let max = s.duration("BERTH_POLL_MAX_INTERVAL", berth_ecs::POLL_MAX.max(min), SHORTEST_POLL);
    if max < min {
        s.problem(
            "BERTH_POLL_MAX_INTERVAL",
            format!("a duration that is not shorter than BERTH_POLL_MIN_INTERVAL, which is {min:?}"),
        );
    }
    (min, max)
}

/// A name that nobody knows is an error, as in the official agent; one that is known and not served here is left out.
fn log_drivers(s: &mut Source) -> Vec<LogDriver> {
    const KEY: &str = "ECS_AVAILABLE_LOGGING_DRIVERS";
    let names: Vec<String> = s.list(KEY);
    if names.is_empty() {
        return vec![LogDriver::JsonFile, LogDriver::None];
    }
    let (mut served, mut left_out) = (Vec::new(), Vec::new());
    for name in &names {
        match LOG_DRIVERS.iter().find(|(known, _)| known == name) {
            Some((_, Some(driver))) if !served.contains(driver) => served.push(*driver),
            Some((_, Some(_))) => {}
            Some((_, None)) => left_out.push(name.as_str()),
            None => {
                let known: Vec<&str> = LOG_DRIVERS.iter().map(|(known, _)| *known).collect();
                s.problem(KEY, format!("a list of some of {}", known.join(", ")));
                return Vec::new();
            }
        }
    }
    if !left_out.is_empty() {
        s.warn(format!("{KEY}: {} not served; the cluster is not told of it", left_out.join(", ")));
    }
    served
}
