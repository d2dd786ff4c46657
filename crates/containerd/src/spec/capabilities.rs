//! Which capabilities a container gets: Docker's fourteen, what the definition adds and drops, and what this host has at all.

use berth_types::task::ContainerSpec;
use oci_spec::runtime::{Capabilities, Capability};

/// Docker's default set.
const DEFAULT: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// All capabilities by their number in the kernel.
const BY_NUMBER: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// The capabilities that a process of this host can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CapabilitySet(Capabilities);

impl CapabilitySet {
    /// From a mask as the kernel prints it, `CapBnd:` of some process.
    pub(crate) fn from_mask(mask: u64) -> Self {
        Self(
            BY_NUMBER
                .iter()
                .enumerate()
                .filter(|(bit, _)| mask >> bit & 1 == 1)
                .map(|(_, cap)| *cap)
                .collect(),
        )
    }

    pub(crate) fn contains(&self, cap: Capability) -> bool {
        self.0.contains(&cap)
    }
}

/// The container's set. `ALL` and privileged mean all that the host has: asking the kernel for more fails.
pub(crate) fn effective(spec: &ContainerSpec, host: &CapabilitySet) -> Result<Capabilities, String> {
    if spec.privileged {
        return Ok(host.0.clone());
    }
    let add = Wish::parse("add", &spec.capabilities_add)?;
    let drop = Wish::parse("drop", &spec.capabilities_drop)?;
    let base: Capabilities = match (add.all, drop.all) {
        // Docker: with both, what is added by `ALL` wins, single drops still count.
        (true, _) => host.0.clone(),
        (false, true) => return Ok(add.named),
        (false, false) => DEFAULT.into_iter().filter(|c| host.contains(*c)).collect(),
    };
    let kept = base.difference(&drop.named).copied();
    Ok(kept.chain(add.named.iter().copied()).collect())
}

struct Wish {
    all: bool,
    named: Capabilities,
}

impl Wish {
    fn parse(list: &str, names: &[String]) -> Result<Self, String> {
        let mut wish = Self { all: false, named: Capabilities::new() };
        for name in names {
            let upper = name.trim().to_ascii_uppercase();
            let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
            if short == "ALL" {
                wish.all = true;
            } else {
                let known = BY_NUMBER.iter().find(|c| c.to_string() == short);
                wish.named.insert(*known.ok_or_else(|| {
                    format!("linuxParameters.capabilities.{list}: there is no capability `{name}`")
                })?);
            }
        }
        Ok(wish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::container_spec;

    fn caps(add: &[&str], drop: &[&str], host: u64) -> Result<Vec<String>, String> {
        let mut spec = container_spec();
        spec.capabilities_add = add.iter().map(|&c| c.to_owned()).collect();
        spec.capabilities_drop = drop.iter().map(|&c| c.to_owned()).collect();
        let set = effective(&spec, &CapabilitySet::from_mask(host))?;
        let mut names: Vec<_> = set.iter().map(ToString::to_string).collect();
        names.sort();
        Ok(names)
    }

    const ALL: u64 = (1 << 41) - 1;

    #[test]
    fn the_default_set_is_dockers_fourteen() {
        assert_eq!(caps(&[], &[], ALL).unwrap().len(), 14);
    }

    #[test]
    fn adding_and_dropping_follow_docker() {
        assert_eq!(caps(&["NET_ADMIN"], &["ALL"], ALL).unwrap(), ["NET_ADMIN"]);
        assert_eq!(caps(&["CAP_SYS_PTRACE"], &[], ALL).unwrap().len(), 15);
        assert!(!caps(&[], &["NET_RAW"], ALL).unwrap().contains(&"NET_RAW".to_owned()));
        assert_eq!(caps(&["ALL"], &["SYS_ADMIN"], ALL).unwrap().len(), 40);
        assert_eq!(caps(&[], &["all"], ALL).unwrap().len(), 0);
    }

    #[test]
    fn all_means_what_the_host_has() {
        let without_sys_resource = ALL & !(1 << 24);
        assert_eq!(caps(&["ALL"], &[], without_sys_resource).unwrap().len(), 40);
    }

    #[test]
    fn an_unknown_capability_is_named() {
        assert!(caps(&["FLY"], &[], ALL).unwrap_err().contains("there is no capability `FLY`"));
    }
}
