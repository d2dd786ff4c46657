//! What this host offers to containers: read once, when the agent starts.

use crate::{
    cgroup::Cgroups,
    config::{ConfigError, ContainerdConfig, Nofile},
    spec::{HostFacts, capabilities::CapabilitySet},
};
use nix::sys::resource::{Resource, getrlimit};
use oci_spec::runtime::Capability;
use std::{fs, io};

/// Reads it.
pub(crate) fn read(config: &ContainerdConfig, cgroups: &Cgroups) -> Result<HostFacts, ConfigError> {
    // Of process 1 and not our own: the agent's unit confines the agent, not the containers, which containerd starts.
    let status = fs::read_to_string("/proc/1/status").map_err(ConfigError::Host)?;
    let mask = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).map(str::trim);
    let mask = mask.and_then(|hex| u64::from_str_radix(hex, 16).ok());
    let mask = mask.ok_or_else(|| ConfigError::Host(io::Error::other("/proc/1/status has no CapBnd")))?;
    let capabilities = CapabilitySet::from_mask(mask);
    let nofile = if capabilities.contains(Capability::SysResource) {
        config.default_nofile
    } else {
        // Nobody here can raise a hard limit, so a default above it would make every container fail.
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|e| ConfigError::Host(e.into()))?;
        let wanted = config.default_nofile;
        Nofile { soft: wanted.soft.min(hard), hard: wanted.hard.min(hard) }
    };
    Ok(HostFacts {
        arch: std::env::consts::ARCH,
        capabilities,
        cgroup_v2: cgroups.is_v2(),
        swap_limits: cgroups.limits_swap(),
        nofile,
    })
}
