//! What the node says of itself when it registers: attributes by which the control plane places tasks, and resources. Pure.
//!
//! Only what Berth does today is claimed. The control plane derives from each task definition which attributes it needs, so what is
//! missing here (secrets, health checks, EFS, FireLens, task roles, ECR...) keeps a task that would be refused by
//! `berth_types::taskdef` from ever being placed on this node: the user sees `ATTRIBUTE` instead of a task that stops.

use crate::config::{Abilities, EcsConfig, EcsStartError};
use berth_types::eni::InstanceFacts;
use std::collections::BTreeMap;

/// The newest level of Docker's API whose features the node serves, and all below that ECS knows: the control plane asks for a level
/// where a definition uses a feature that came with it (`1.18`: json-file, `1.22`: tmpfs and shared memory). The official agent leaves
/// out the same ones in between.
const DOCKER_LEVELS: [&str; 13] =
    ["1.17", "1.18", "1.19", "1.20", "1.21", "1.22", "1.23", "1.24", "1.25", "1.28", "1.29", "1.30", "1.32"];

/// CPU units of a core.
const UNITS_PER_CORE: u32 = 1024;

/// Name and value.
pub(crate) type Attribute = (String, Option<String>);

/// Attributes of every registration.
pub(crate) fn attributes(abilities: &Abilities, instance: &InstanceFacts) -> Vec<Attribute> {
    let mut names: Vec<String> = vec!["ecs.capability.container-ordering".into()];
    if abilities.privileged {
        names.push("com.amazonaws.ecs.capability.privileged-container".into());
    }
    names.extend(DOCKER_LEVELS.iter().map(|v| format!("com.amazonaws.ecs.capability.docker-remote-api.{v}")));
    let drivers = abilities.log_drivers.iter().map(|driver| driver.as_str());
    names.extend(drivers.map(|d| format!("com.amazonaws.ecs.capability.logging-driver.{d}")));
    names.extend(["task-cpu-mem-limit", "increased-task-cpu-limit", "task-eni"].map(capability));
    if abilities.ipv6 {
        names.push(capability("task-eni.ipv6"));
    }
    if abilities.blocks_imds {
        names.push(capability("task-eni-block-instance-metadata"));
    }
    let valued = [
        ("ecs.vpc-id", instance.vpc.to_string()),
        ("ecs.subnet-id", instance.subnet.to_string()),
        ("ecs.os-type", "linux".into()),
        ("ecs.os-family", "LINUX".into()),
        ("ecs.os-type-detailed", abilities.os_family.clone()),
    ];
    let valued = valued.into_iter().map(|(name, value)| (name.to_owned(), Some(value)));
    names.into_iter().map(|name| (name, None)).chain(valued).collect()
}

fn capability(name: &str) -> String {
    format!("ecs.capability.{name}")
}

/// Attributes of the operator, first in order as the official agent has them. An empty value is none.
pub(crate) fn custom(attributes: &BTreeMap<String, String>) -> Vec<Attribute> {
    let value = |value: &String| Some(value.clone()).filter(|value| !value.is_empty());
    attributes.iter().map(|(name, text)| (name.clone(), value(text))).collect()
}

/// What the kernel says the node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) cores: u32,
    /// MiB.
    pub(crate) memory: u64,
}

/// What tasks may have of it: CPU units and MiB.
pub(crate) fn resources(host: Host, config: &EcsConfig) -> Result<(u32, u64), EcsStartError> {
    let memory = host.memory.checked_sub(config.reserved_memory).filter(|left| *left > 0);
    let memory =
        memory.ok_or(EcsStartError::NothingLeft { reserved: config.reserved_memory, total: host.memory })?;
    Ok((host.cores.saturating_mul(UNITS_PER_CORE), memory))
}

/// Reads what the node has.
pub(crate) fn host() -> Result<Host, EcsStartError> {
    let cores =
        std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
    let text = std::fs::read_to_string("/proc/meminfo").map_err(EcsStartError::UnknownMemory)?;
    let memory = mem_total(&text).ok_or_else(|| {
        EcsStartError::UnknownMemory(std::io::Error::other("/proc/meminfo has no line `MemTotal: N kB`"))
    })?;
    Ok(Host { cores, memory })
}

/// MiB from the text of /proc/meminfo.
fn mem_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::instance;
    use berth_types::task::LogDriver;
    use proptest::prelude::*;

    fn names(abilities: &Abilities) -> Vec<String> {
        attributes(abilities, &instance()).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn only_what_is_switched_on_is_claimed() {
        let none = Abilities {
            privileged: false,
            log_drivers: Vec::new(),
            ipv6: false,
            blocks_imds: false,
            os_family: "LINUX".into(),
        };
        let log_drivers = vec![LogDriver::JsonFile];
        let all = Abilities { privileged: true, log_drivers, ipv6: true, blocks_imds: true, ..none.clone() };
        let switched = [
            "com.amazonaws.ecs.capability.privileged-container",
            "com.amazonaws.ecs.capability.logging-driver.json-file",
            "ecs.capability.task-eni.ipv6",
            "ecs.capability.task-eni-block-instance-metadata",
        ];
        for name in switched {
            assert!(names(&all).iter().any(|n| n == name), "{name}");
            assert!(!names(&none).iter().any(|n| n == name), "{name}");
        }
    }

    #[test]
    fn what_is_refused_when_it_runs_is_not_claimed() {
        let names = names(&EcsConfig::new("x").abilities);
        for missing in [
            "secret",
            "efs",
            "firelens",
            "task-iam-role",
            "health-check",
            "ecr",
            "docker-plugin",
            "port-range",
            "gpu",
        ] {
            assert!(!names.iter().any(|name| name.contains(missing)), "{missing} in {names:?}");
        }
    }

    #[test]
    fn attributes_say_where_the_node_is() {
        let all = attributes(&EcsConfig::new("x").abilities, &instance());
        let value = |name: &str| all.iter().find(|(n, _)| n == name).and_then(|(_, v)| v.clone());
        assert_eq!(value("ecs.vpc-id").as_deref(), Some(instance().vpc.as_str()));
        assert_eq!(value("ecs.os-type-detailed").as_deref(), Some("LINUX"));
    }

    #[test]
    fn more_reserved_memory_than_there_is_is_an_error() {
        let host = Host { cores: 2, memory: 1000 };
        let config = |reserved_memory| EcsConfig { reserved_memory, ..EcsConfig::new("x") };
        assert_eq!(resources(host, &config(100)).unwrap(), (2048, 900));
        let error = resources(host, &config(1000)).unwrap_err().to_string();
        assert_eq!(error, "1000 MiB of memory are reserved, and the node has 1000");
    }

    #[test]
    fn this_host_has_something() {
        let host = host().unwrap();
        assert!(host.cores > 0 && host.memory > 0);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_of_meminfo_panic(text in "(MemTotal:)?\\PC*") {
            mem_total(&text);
        }
    }
}
