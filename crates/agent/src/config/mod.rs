//! The agent's settings: `KEY=VALUE` lines as in `/etc/ecs/ecs.config`, the official agent's names where it has one, `BERTH_` names for
//! the rest. The environment wins over the file.
//!
//! A value that cannot be read is an error that names the key, where it stands and what was expected; all of them are reported at
//! once. [`source`] reads the lines, [`value`] the forms of values.

mod source;
mod value;

pub(crate) use source::{Source, read};

use berth_types::ids::{ClusterName, SecurityGroupId, SubnetId};
use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    /// `ECS_CLUSTER`, a name or an ARN.
    pub(crate) cluster: String,
    /// Its short name.
    pub(crate) cluster_name: ClusterName,
    /// `AWS_DEFAULT_REGION` or `AWS_REGION`; from IMDS unless set.
    pub(crate) region: Option<String>,
    pub(crate) stop_timeout: Duration,
    pub(crate) cleanup_wait: Duration,
    pub(crate) disable_az: bool,
    pub(crate) pool: Pool,
    pub(crate) paths: Paths,
    pub(crate) containerd: ContainerdSettings,
    /// `BERTH_EC2_ENDPOINT`: where EC2 is, for the box.
    pub(crate) ec2_endpoint: Option<String>,
    /// `BERTH_IMDS_ENDPOINT`: where IMDS is, for tests.
    pub(crate) imds_endpoint: Option<String>,
    /// `ECS_LOGLEVEL`.
    pub(crate) log_level: tracing::Level,
    /// `ECS_LOG_OUTPUT_FORMAT` is `json`.
    pub(crate) log_json: bool,
    /// Settings of the official agent that were given and that Berth does not act on.
    pub(crate) unused: Vec<String>,
}

/// Settings of the ENI pool.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pool {
    pub(crate) warm: u32,
    pub(crate) warm_max: Option<u32>,
    pub(crate) max_enis: Option<u32>,
    pub(crate) cooldown: Duration,
    pub(crate) link_timeout: Duration,
    pub(crate) lease_timeout: Duration,
    pub(crate) audit: Duration,
    pub(crate) subnets: Vec<SubnetId>,
    pub(crate) security_groups: Vec<SecurityGroupId>,
    pub(crate) mtu: u32,
    /// `None`: when the instance's own subnet has an IPv6 block.
    pub(crate) ipv6: Option<bool>,
    pub(crate) block_imds: bool,
    pub(crate) dns_servers: Vec<IpAddr>,
    pub(crate) dns_search: Vec<String>,
}

/// Where things lie.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Paths {
    /// Journal, volumes, logs: survives a reboot.
    pub(crate) data_dir: PathBuf,
    /// Slot files, admin socket: does not.
    pub(crate) run_dir: PathBuf,
    pub(crate) netns_dir: PathBuf,
    pub(crate) bpf_dir: PathBuf,
    pub(crate) admin_socket: PathBuf,
}

/// Settings of the container runtime.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ContainerdSettings {
    pub(crate) socket: PathBuf,
    pub(crate) namespace: String,
    pub(crate) snapshotter: String,
    pub(crate) runtime: String,
    pub(crate) logger: PathBuf,
    pub(crate) cgroup_root: String,
}

/// Everything that is wrong with the settings, a line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) struct ConfigError(pub(crate) Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// A VPC's MTU; the box sets 1500.
const VPC_MTU: u32 = 9001;

/// Name of the logger, which lies beside the agent.
const LOGGER: &str = "berth-logger";

impl Config {
    /// Reads the settings from a file and the environment.
    pub(crate) fn load(file: &Path) -> Result<Self, ConfigError> {
        let source = read(Some(file), std::env::vars_os())?;
        Self::from_source(source)
    }

    /// Reads the settings out of their texts.
    pub(crate) fn from_source(mut s: Source) -> Result<Self, ConfigError> {
        let cluster = s.text("ECS_CLUSTER").unwrap_or_else(|| "default".into());
        let cluster_name = s.check("ECS_CLUSTER", value::cluster(&cluster));
        let pool = pool(&mut s);
        let paths = paths(&mut s);
        let containerd = containerd(&mut s);
        let region = s.text("AWS_DEFAULT_REGION").or_else(|| s.text("AWS_REGION"));
        let stop_timeout =
            s.duration("ECS_CONTAINER_STOP_TIMEOUT", Duration::from_secs(30), Duration::from_secs(1));
        let cleanup_wait = s.duration(
            "ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION",
            Duration::from_secs(3 * 3600),
            Duration::from_secs(1),
        );
        let disable_az = s.boolean("ECS_DISABLE_TASK_METADATA_AZ", false);
        let ec2_endpoint = s.url("BERTH_EC2_ENDPOINT");
        let imds_endpoint = s.url("BERTH_IMDS_ENDPOINT");
        let log_level = s.one_of("ECS_LOGLEVEL", "info", &value::LEVELS);
        let log_json = s.one_of("ECS_LOG_OUTPUT_FORMAT", "logfmt", &[("logfmt", false), ("json", true)]);
        let unused = s.finish()?;
        let Some(cluster_name) = cluster_name else {
            return Err(ConfigError(vec!["ECS_CLUSTER: missing".into()]));
        };
        Ok(Self {
            cluster,
            cluster_name,
            region,
            stop_timeout,
            cleanup_wait,
            disable_az,
            pool,
            paths,
            containerd,
            ec2_endpoint,
            imds_endpoint,
            log_level,
            log_json,
            unused,
        })
    }
}

fn pool(s: &mut Source) -> Pool {
    let seconds = Duration::from_secs;
    Pool {
        warm: s.number("BERTH_WARM_SLOTS", 0, 120).unwrap_or(1),
        warm_max: s.number("BERTH_WARM_MAX", 0, 120),
        max_enis: s.number("BERTH_MAX_ENIS", 1, 120),
        cooldown: s.duration("BERTH_ENI_COOLDOWN", seconds(30), Duration::ZERO),
        link_timeout: s.duration("BERTH_LINK_TIMEOUT", seconds(60), seconds(1)),
        lease_timeout: s.duration("BERTH_LEASE_TIMEOUT", seconds(180), seconds(1)),
        audit: s.duration("BERTH_AUDIT_INTERVAL", seconds(60), seconds(1)),
        subnets: s.list("BERTH_SUBNETS"),
        security_groups: s.list("BERTH_SECURITY_GROUPS"),
        mtu: s.number("BERTH_MTU", 1280, 9001).unwrap_or(VPC_MTU),
        ipv6: s.one_of("BERTH_IPV6", "auto", &[("auto", None), ("true", Some(true)), ("false", Some(false))]),
        // The official agent leaves IMDS open unless told otherwise; a task that reads the instance's role by accident is worse
        // than one that must be told the address.
        block_imds: s.boolean("ECS_AWSVPC_BLOCK_IMDS", true),
        dns_servers: s.list("BERTH_DNS_SERVERS"),
        dns_search: s.list("BERTH_DNS_SEARCH"),
    }
}

fn paths(s: &mut Source) -> Paths {
    let run_dir = s.path("BERTH_RUN_DIR", "/run/berth");
    let admin_socket = s.path("BERTH_ADMIN_SOCKET", &run_dir.join("admin.sock").to_string_lossy());
    let bpf_dir = s.path("BERTH_BPF_DIR", &run_dir.join("bpf").to_string_lossy());
    Paths {
        data_dir: s.path("BERTH_DATA_DIR", "/var/lib/berth"),
        run_dir,
        netns_dir: s.path("BERTH_NETNS_DIR", "/run/netns"),
        bpf_dir,
        admin_socket,
    }
}

fn containerd(s: &mut Source) -> ContainerdSettings {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(LOGGER)));
    let logger = beside.unwrap_or_else(|| PathBuf::from("/usr/bin").join(LOGGER));
    ContainerdSettings {
        socket: s.path("BERTH_CONTAINERD_SOCKET", "/run/containerd/containerd.sock"),
        namespace: s.word("BERTH_CONTAINERD_NAMESPACE", "berth"),
        snapshotter: s.word("BERTH_SNAPSHOTTER", "overlayfs"),
        runtime: s.word("BERTH_CONTAINERD_RUNTIME", "io.containerd.runc.v2"),
        logger: s.path("BERTH_LOGGER", &logger.to_string_lossy()),
        cgroup_root: s.word("BERTH_CGROUP_ROOT", "berth"),
    }
}

#[cfg(test)]
mod tests;
