//! The seccomp filter: moby's default profile, which follows the container's capabilities. The data is `seccomp.json`; this file
//! only picks what applies.

use super::ours;
use crate::error::{Fault, Result};
use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

#[derive(Deserialize)]
struct Profile {
    always: BTreeMap<String, Vec<String>>,
    processors: BTreeMap<String, Processor>,
    capabilities: BTreeMap<String, Vec<String>>,
    arguments: Vec<Argument>,
    new_namespace_flags: u64,
}

#[derive(Deserialize)]
struct Processor {
    architectures: Vec<Arch>,
    names: Vec<String>,
}

#[derive(Deserialize)]
struct Argument {
    name: String,
    index: usize,
    equal: Vec<u64>,
}

static PROFILE: LazyLock<std::result::Result<Profile, serde_json::Error>> =
    LazyLock::new(|| serde_json::from_str(include_str!("seccomp.json")));

/// `EPERM`: what a refused call answers.
const EPERM: u32 = 1;
/// `ENOSYS`: makes the C library fall back from clone3, whose flags a filter cannot see, to clone.
const ENOSYS: u32 = 38;

/// The filter for a container with these capabilities; `None` on a processor that the profile does not describe.
pub(super) fn profile(caps: &Capabilities, arch: &str) -> Result<Option<LinuxSeccomp>> {
    let data = PROFILE
        .as_ref()
        .map_err(|e| Fault::Broken(format!("the built-in seccomp profile does not parse: {e}")))?;
    let Some(processor) = data.processors.get(arch) else { return Ok(None) };
    let granted = |cap: &str| caps.iter().any(|c| c.to_string() == cap);
    // Each name once: libseccomp takes the same rule twice for a mistake.
    let mut names: BTreeSet<&String> = data.always.values().flatten().chain(&processor.names).collect();
    names.extend(data.capabilities.iter().filter(|(cap, _)| granted(cap)).flat_map(|(_, names)| names));
    let mut rules = vec![allow(names.into_iter().cloned().collect())?];
    for argument in &data.arguments {
        for value in &argument.equal {
            rules.push(allow_if(
                &argument.name,
                argument.index,
                LinuxSeccompOperator::ScmpCmpEq,
                *value,
                None,
            )?);
        }
    }
    if !caps.contains(&Capability::SysAdmin) {
        // Threads and processes, but no new namespaces: all of these flags must be zero.
        rules.push(allow_if(
            "clone",
            0,
            LinuxSeccompOperator::ScmpCmpMaskedEq,
            data.new_namespace_flags,
            Some(0),
        )?);
        let clone3 = LinuxSyscallBuilder::default()
            .names(vec!["clone3".to_owned()])
            .action(LinuxSeccompAction::ScmpActErrno)
            .errno_ret(ENOSYS)
            .build();
        rules.push(clone3.map_err(ours)?);
    }
    let filter = LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(EPERM)
        .architectures(processor.architectures.clone())
        .syscalls(rules)
        .build()
        .map_err(ours)?;
    Ok(Some(filter))
}

fn allow(names: Vec<String>) -> Result<LinuxSyscall> {
    LinuxSyscallBuilder::default().names(names).action(LinuxSeccompAction::ScmpActAllow).build().map_err(ours)
}

fn allow_if(
    name: &str,
    index: usize,
    op: LinuxSeccompOperator,
    value: u64,
    second: Option<u64>,
) -> Result<LinuxSyscall> {
    let mut arg = LinuxSeccompArgBuilder::default().index(index).op(op).value(value);
    if let Some(second) = second {
        arg = arg.value_two(second);
    }
    LinuxSyscallBuilder::default()
        .names(vec![name.to_owned()])
        .action(LinuxSeccompAction::ScmpActAllow)
        .args(vec![arg.build().map_err(ours)?])
        .build()
        .map_err(ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(filter: &LinuxSeccomp, name: &str) -> bool {
        let rules = filter.syscalls().as_ref().unwrap();
        rules
            .iter()
            .any(|r| r.action() == LinuxSeccompAction::ScmpActAllow && r.names().iter().any(|n| n == name))
    }

    #[test]
    fn what_makes_namespaces_and_mounts_needs_sys_admin() {
        let plain = profile(&Capabilities::new(), "x86_64").unwrap().unwrap();
        let admin = profile(&Capabilities::from([Capability::SysAdmin]), "x86_64").unwrap().unwrap();
        for name in ["mount", "unshare", "setns", "bpf", "fsopen"] {
            assert!(!allowed(&plain, name) && allowed(&admin, name), "{name}");
        }
        for name in ["keyctl", "kexec_load", "io_uring_setup", "userfaultfd", "add_key"] {
            assert!(!allowed(&plain, name) && !allowed(&admin, name), "{name}");
        }
        for name in ["read", "execve", "socket", "clone", "openat2"] {
            assert!(allowed(&plain, name), "{name}");
        }
    }

    #[test]
    fn each_processor_has_its_own_calls() {
        let none = Capabilities::new();
        assert!(allowed(&profile(&none, "x86_64").unwrap().unwrap(), "arch_prctl"));
        assert!(allowed(&profile(&none, "aarch64").unwrap().unwrap(), "sync_file_range2"));
        assert!(profile(&none, "riscv64").unwrap().is_none());
    }

    #[test]
    fn every_capability_of_the_profile_exists() {
        for name in PROFILE.as_ref().unwrap().capabilities.keys() {
            assert!(name.parse::<Capability>().is_ok(), "{name}");
        }
    }
}
