//! From a task definition's container to an OCI runtime specification: a pure function, so that every rule that users rely on is a
//! unit test. What it needs to know of the world (the image, the host, the cgroup) comes in as values.
//!
//! [`build`] follows Docker, because task definitions were written for it: [`process`] (program, environment, user, capabilities,
//! limits), [`mounts`], [`seccomp`]. Not taken over: an AppArmor profile (the host's own default applies), and a volume of its own
//! for each VOLUME of the image (those paths live in the container's own layer, which has the same life).

pub(crate) mod capabilities;
mod devices;
mod mounts;
mod process;
pub(crate) mod seccomp;
pub(crate) mod user;

#[cfg(test)]
pub(crate) mod tests;

use crate::error::{Fault, Result};
use berth_types::{ports::CreateContainer, task::ContainerSpec};
use capabilities::CapabilitySet;
use oci_spec::{
    OciSpecError,
    runtime::{
        LinuxBuilder, LinuxCpuBuilder, LinuxDeviceCgroupBuilder, LinuxMemoryBuilder, LinuxNamespace,
        LinuxNamespaceBuilder, LinuxNamespaceType, LinuxResources, LinuxResourcesBuilder, RootBuilder, Spec,
        SpecBuilder,
    },
};
use serde::Deserialize;
use std::{collections::HashMap, path::PathBuf};

/// Everything that shapes a container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub(crate) container: &'a CreateContainer,
    pub(crate) image: &'a ImageSettings,
    /// `/etc/passwd` of the image; empty when it has none.
    pub(crate) passwd: &'a str,
    /// `/etc/group` of the image; empty when it has none.
    pub(crate) group: &'a str,
    pub(crate) host: &'a HostFacts,
    pub(crate) cgroups_path: &'a str,
}

/// `config` of an image: what it says about running it. Null and absent are the same; what is not read here is ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageSettings {
    /// Who runs it.
    pub user: Option<String>,
    /// `NAME=value`.
    pub env: Option<Vec<String>>,
    /// Start of the command line.
    pub entrypoint: Option<Vec<String>>,
    /// Rest of the command line.
    pub cmd: Option<Vec<String>>,
    /// Where it runs.
    pub working_dir: Option<String>,
    /// What asks it to stop.
    pub stop_signal: Option<String>,
}

/// What the host offers, read once.
#[derive(Debug, Clone)]
pub(crate) struct HostFacts {
    /// Processor, in OCI's and Rust's word: `x86_64`, `aarch64`.
    pub(crate) arch: &'static str,
    /// Capabilities that a process of this host can have at all.
    pub(crate) capabilities: CapabilitySet,
    /// Unified hierarchy: containers get a cgroup namespace.
    pub(crate) cgroup_v2: bool,
    /// The kernel counts swap per cgroup.
    pub(crate) swap_limits: bool,
    /// `nofile` of containers that set none.
    pub(crate) nofile: crate::config::Nofile,
}

/// Docker refuses less: the kernel cannot even set up a process in it.
const MIN_MEMORY_MIB: u64 = 6;
/// The kernel's bounds on CPU shares.
const CPU_SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// The specification.
pub(crate) fn build(inputs: &Inputs<'_>) -> Result<Spec> {
    let spec = &*inputs.container.spec;
    let caps = capabilities::effective(spec, &inputs.host.capabilities).map_err(Fault::Invalid)?;
    let process = process::build(inputs, &caps)?;
    let mut linux = LinuxBuilder::default()
        .cgroups_path(inputs.cgroups_path)
        .namespaces(namespaces(inputs).map_err(ours)?)
        .resources(resources(spec, inputs.host)?)
        .sysctl(sysctls())
        .masked_paths(if spec.privileged { Vec::new() } else { paths(&MASKED) })
        .readonly_paths(if spec.privileged { Vec::new() } else { paths(&READONLY) })
        .build()
        .map_err(ours)?;
    if spec.privileged {
        linux.set_devices(Some(devices::of_host()?));
    } else {
        linux.set_seccomp(seccomp::profile(&caps, inputs.host.arch)?);
    }
    let root = RootBuilder::default()
        .path("rootfs")
        .readonly(spec.readonly_root_filesystem)
        .build()
        .map_err(ours)?;
    SpecBuilder::default()
        // The oldest runc in use (1.0) reads this one; nothing newer is needed.
        .version("1.0.2")
        .process(process)
        .root(root)
        .hostname(inputs.container.hostname.clone())
        .mounts(mounts::build(inputs)?)
        .annotations(HashMap::new())
        .linux(linux)
        .build()
        .map_err(ours)
}

/// A builder's refusal: a field that we left out, so our own mistake.
fn ours(error: OciSpecError) -> Fault {
    Fault::Broken(format!("the specification could not be built: {error}"))
}

fn namespaces(inputs: &Inputs<'_>) -> std::result::Result<Vec<LinuxNamespace>, OciSpecError> {
    let private = |typ| LinuxNamespaceBuilder::default().typ(typ).build();
    let network = LinuxNamespaceBuilder::default()
        .typ(LinuxNamespaceType::Network)
        .path(inputs.container.netns_path.clone())
        .build();
    let mut all = vec![
        private(LinuxNamespaceType::Pid)?,
        private(LinuxNamespaceType::Ipc)?,
        private(LinuxNamespaceType::Uts)?,
        private(LinuxNamespaceType::Mount)?,
        network?,
    ];
    if inputs.host.cgroup_v2 {
        all.push(private(LinuxNamespaceType::Cgroup)?);
    }
    Ok(all)
}

fn resources(spec: &ContainerSpec, host: &HostFacts) -> Result<LinuxResources> {
    // runc itself adds the devices that every container may use; this line only closes the rest.
    let devices =
        LinuxDeviceCgroupBuilder::default().allow(spec.privileged).access("rwm").build().map_err(ours)?;
    // Zero and unset are two shares, as on ECS: such a container gets what the others leave.
    let shares = u64::from(spec.cpu).clamp(*CPU_SHARES.start(), *CPU_SHARES.end());
    let cpu = LinuxCpuBuilder::default().shares(shares).build().map_err(ours)?;
    let mut resources =
        LinuxResourcesBuilder::default().devices(vec![devices]).cpu(cpu).build().map_err(ours)?;
    if spec.memory.is_some() || spec.memory_reservation.is_some() {
        let mut memory = LinuxMemoryBuilder::default().build().map_err(ours)?;
        let hard = spec.memory.map(|mib| limit("memory", mib)).transpose()?;
        memory.set_limit(hard);
        // Docker's rule: as much swap as memory, so twice the memory in sum.
        memory.set_swap(hard.filter(|_| host.swap_limits).map(|bytes| bytes.saturating_mul(2)));
        memory
            .set_reservation(spec.memory_reservation.map(|mib| limit("memoryReservation", mib)).transpose()?);
        resources.set_memory(Some(memory));
    }
    Ok(resources)
}

/// MiB to bytes, with Docker's lower bound.
fn limit(field: &str, mib: u64) -> Result<i64> {
    if mib < MIN_MEMORY_MIB {
        return Err(Fault::Invalid(format!(
            "{field} is {mib} MiB, the least a container can run in is {MIN_MEMORY_MIB} MiB"
        )));
    }
    i64::try_from(mib)
        .ok()
        .and_then(|m| m.checked_mul(1 << 20))
        .ok_or_else(|| Fault::Invalid(format!("{field} is {mib} MiB, more than any machine has")))
}

/// What Docker sets in the namespaces it makes: a task that does not run as root may still serve on port 80, and may ping.
fn sysctls() -> HashMap<String, String> {
    HashMap::from([
        ("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned()),
        ("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned()),
    ])
}

fn paths(list: &[&str]) -> Vec<String> {
    list.iter().map(|&p| p.to_owned()).collect()
}

/// Docker's list: files that tell about the host or let a container act on it.
const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Docker's list: kernel settings of the whole host.
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The specification's path type from text.
fn path(text: &str) -> PathBuf {
    PathBuf::from(text)
}
