//! One container definition, field by field.

use super::{
    mounts::{check_targets, mount_points, tmpfs},
    problems::{NAME_RULE, Problems, is_absolute, is_name, is_some, mib},
    wire,
};
use crate::{
    ids::EndpointId,
    task::{ContainerSpec, DependsCondition, DependsOn, LogDriver, LogSpec, PortMapping, Ulimit, VolumeSpec},
};
use std::collections::BTreeMap;

/// Longest list of anything in a container definition: a bound on what a definition of 64 KiB can make the kernel do.
const MAX_LIST: usize = 512;

/// Largest CPU share value of the kernel; Docker cuts there as well.
const MAX_CPU_SHARES: i64 = 262_144;

/// Docker refuses less: the kernel cannot even set up a process in it.
const MIN_MIB: i64 = 6;

/// A day: nobody waits longer for a container to start or stop by intent.
const MAX_TIMEOUT_SECONDS: i64 = 86_400;

/// Names that `ulimits` takes.
const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Capabilities that the ECS API takes, without `CAP_`.
const CAPABILITIES: [&str; 38] = [
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "SYSLOG",
    "WAKE_ALARM",
];

pub(super) fn check(
    c: &wire::ContainerDefinition,
    at: &str,
    volumes: &[VolumeSpec],
    problems: &mut Problems,
) -> ContainerSpec {
    if !is_name(&c.name) {
        problems.add(format!("{at}.name"), format!("is `{}`; expected {NAME_RULE}", c.name));
    }
    check_image(&c.image, at, problems);
    refuse_unsupported(c, at, problems);
    refuse_overlong(c, at, problems);
    check_texts(c, at, problems);
    check_targets(c, at, problems);
    let linux = c.linux_parameters.as_ref();
    let capability =
        |list: fn(&wire::Capabilities) -> &Option<Vec<String>>, name: &str, problems: &mut Problems| {
            let names =
                linux.and_then(|l| l.capabilities.as_ref()).and_then(|l| list(l).clone()).unwrap_or_default();
            capabilities(names, &format!("{at}.linuxParameters.capabilities.{name}"), problems)
        };
    let memory = mib(c.memory, &format!("{at}.memory"), MIN_MIB, problems);
    let memory_reservation = mib(c.memory_reservation, &format!("{at}.memoryReservation"), MIN_MIB, problems);
    if let (Some(hard), Some(soft)) = (memory, memory_reservation)
        && soft > hard
    {
        problems.add(
            format!("{at}.memoryReservation"),
            format!("is {soft} MiB; expected at most {hard}, the hard limit `memory`"),
        );
    }
    ContainerSpec {
        name: c.name.clone(),
        endpoint_id: EndpointId::random(),
        image: c.image.clone(),
        essential: c.essential.unwrap_or(true),
        cpu: c.cpu.and_then(|v| problems.number(&format!("{at}.cpu"), v, 0, MAX_CPU_SHARES)).unwrap_or(0),
        memory,
        memory_reservation,
        entry_point: c.entry_point.clone().filter(|v| !v.is_empty()),
        command: c.command.clone().filter(|v| !v.is_empty()),
        environment: environment(c, at, problems),
        working_directory: working_directory(c, at, problems),
        user: c.user.clone().filter(|u| !u.is_empty()),
        readonly_root_filesystem: c.readonly_root_filesystem.unwrap_or(false),
        privileged: c.privileged.unwrap_or(false),
        capabilities_add: capability(|l| &l.add, "add", problems),
        capabilities_drop: capability(|l| &l.drop, "drop", problems),
        ulimits: ulimits(c, at, problems),
        shared_memory_size: mib(
            linux.and_then(|l| l.shared_memory_size),
            &format!("{at}.linuxParameters.sharedMemorySize"),
            1,
            problems,
        ),
        tmpfs: tmpfs(c, at, problems),
        mount_points: mount_points(c, at, volumes, problems),
        port_mappings: port_mappings(c, at, problems),
        depends_on: depends_on(c, at, problems),
        start_timeout: c
            .start_timeout
            .and_then(|v| problems.number(&format!("{at}.startTimeout"), v, 1, MAX_TIMEOUT_SECONDS)),
        stop_timeout: c
            .stop_timeout
            .and_then(|v| problems.number(&format!("{at}.stopTimeout"), v, 0, MAX_TIMEOUT_SECONDS)),
        log: log(c, at, problems),
        docker_labels: c.docker_labels.clone().unwrap_or_default(),
        no_new_privileges: c.docker_security_options.iter().flatten().any(|o| is_no_new_privileges(o)),
        pseudo_terminal: c.pseudo_terminal.unwrap_or(false),
    }
}

fn check_image(image: &str, at: &str, problems: &mut Problems) {
    if image.is_empty() || image.len() > 255 || image.chars().any(|x| x.is_whitespace() || x.is_control()) {
        problems.add(
            format!("{at}.image"),
            format!(
                "is `{}`; expected an image reference such as `busybox:1.36`, 255 characters at most",
                image
            ),
        );
    }
}

/// Text that would go to the kernel or into a record: it cannot hold what ends it there.
fn check_texts(c: &wire::ContainerDefinition, at: &str, problems: &mut Problems) {
    for (name, list) in [("entryPoint", &c.entry_point), ("command", &c.command)] {
        for (i, _) in list.iter().flatten().enumerate().filter(|(_, text)| text.contains('\0')) {
            problems.add(format!("{at}.{name}[{i}]"), "holds a NUL; expected text without");
        }
    }
    if let Some(user) = c.user.as_deref().filter(|u| u.chars().any(|x| x.is_control() || x.is_whitespace())) {
        problems.add(
            format!("{at}.user"),
            format!("is {user:?}; expected a name or a number, or two of them with a colon between"),
        );
    }
    if c.docker_labels.iter().flatten().any(|(key, value)| key.contains('\0') || value.contains('\0')) {
        problems.add(format!("{at}.dockerLabels"), "holds a NUL; expected text without");
    }
}

fn refuse_unsupported(c: &wire::ContainerDefinition, at: &str, problems: &mut Problems) {
    let awsvpc = "no such field: ECS does not take it with networkMode awsvpc";
    let none = "no such field";
    let rows: [(bool, &str, &str); 20] = [
        (c.health_check.is_some(), "healthCheck", none),
        (is_some(&c.volumes_from), "volumesFrom", "`mountPoints` on a volume of the task"),
        (is_some(&c.environment_files), "environmentFiles", "`environment`"),
        (is_some(&c.secrets), "secrets", "`environment`"),
        (c.repository_credentials.is_some(), "repositoryCredentials", none),
        (is_some(&c.links), "links", awsvpc),
        (c.hostname.as_deref().is_some_and(|h| !h.is_empty()), "hostname", awsvpc),
        (is_some(&c.dns_servers), "dnsServers", awsvpc),
        (is_some(&c.dns_search_domains), "dnsSearchDomains", awsvpc),
        (is_some(&c.extra_hosts), "extraHosts", awsvpc),
        (is_some(&c.system_controls), "systemControls", none),
        (is_some(&c.resource_requirements), "resourceRequirements", none),
        (c.firelens_configuration.is_some(), "firelensConfiguration", none),
        (is_some(&c.credential_specs), "credentialSpecs", none),
        (c.restart_policy.as_ref().is_some_and(|r| r.enabled), "restartPolicy.enabled", "false"),
        (c.interactive == Some(true), "interactive", "false"),
        (c.disable_networking == Some(true), "disableNetworking", "false"),
        (c.linux_parameters.as_ref().is_some_and(|l| is_some(&l.devices)), "linuxParameters.devices", none),
        (
            c.linux_parameters.as_ref().is_some_and(|l| l.init_process_enabled == Some(true)),
            "linuxParameters.initProcessEnabled",
            "false",
        ),
        (
            c.linux_parameters.as_ref().is_some_and(|l| l.max_swap.is_some() || l.swappiness.is_some()),
            "linuxParameters.maxSwap",
            none,
        ),
    ];
    for (present, field, instead) in rows {
        problems.unsupported(present, format!("{at}.{field}"), instead);
    }
    for (i, option) in c.docker_security_options.iter().flatten().enumerate() {
        problems.unsupported(
            !is_no_new_privileges(option),
            format!("{at}.dockerSecurityOptions[{i}]"),
            "`no-new-privileges`",
        );
    }
}

fn refuse_overlong(c: &wire::ContainerDefinition, at: &str, problems: &mut Problems) {
    bounded(&c.environment, &format!("{at}.environment"), problems);
    bounded(&c.mount_points, &format!("{at}.mountPoints"), problems);
    bounded(&c.port_mappings, &format!("{at}.portMappings"), problems);
    bounded(&c.command, &format!("{at}.command"), problems);
}

fn bounded<T>(list: &Option<Vec<T>>, field: &str, problems: &mut Problems) {
    if let Some(list) = list.as_ref().filter(|l| l.len() > MAX_LIST) {
        problems.add(field, format!("has {} entries; expected at most {MAX_LIST}", list.len()));
    }
}

fn is_no_new_privileges(option: &str) -> bool {
    matches!(option, "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true")
}

fn environment(c: &wire::ContainerDefinition, at: &str, problems: &mut Problems) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for (i, pair) in c.environment.iter().flatten().enumerate() {
        let value = pair.value.clone().unwrap_or_default();
        if pair.name.is_empty() || pair.name.contains(['=', '\0']) || value.contains('\0') {
            problems.add(
                format!("{at}.environment[{i}].name"),
                format!("is `{}`; expected a name without `=` or NUL", pair.name),
            );
        }
        pairs.push((pair.name.clone(), value));
    }
    pairs
}

fn working_directory(c: &wire::ContainerDefinition, at: &str, problems: &mut Problems) -> Option<String> {
    let directory = c.working_directory.clone().filter(|d| !d.is_empty())?;
    if !is_absolute(&directory) {
        problems.add(
            format!("{at}.workingDirectory"),
            format!("is `{directory}`; expected an absolute path without `..`"),
        );
    }
    Some(directory)
}

fn capabilities(names: Vec<String>, field: &str, problems: &mut Problems) -> Vec<String> {
    for (i, name) in names.iter().enumerate() {
        if !CAPABILITIES.contains(&name.as_str()) {
            problems.add(
                format!("{field}[{i}]"),
                format!(
                    "is `{name}`; expected a capability's name without `CAP_`, such as `NET_ADMIN`, or `ALL`"
                ),
            );
        }
    }
    names
}

fn ulimits(c: &wire::ContainerDefinition, at: &str, problems: &mut Problems) -> Vec<Ulimit> {
    let mut limits: Vec<Ulimit> = Vec::new();
    for (i, limit) in c.ulimits.iter().flatten().enumerate() {
        let field = format!("{at}.ulimits[{i}]");
        if !ULIMITS.contains(&limit.name.as_str()) {
            problems.add(
                format!("{field}.name"),
                format!("is `{}`; expected one of {}", limit.name, ULIMITS.join(", ")),
            );
        }
        if limits.iter().any(|l| l.name == limit.name) {
            problems.add(
                format!("{field}.name"),
                format!("is `{}`, which is set already; expected each limit once", limit.name),
            );
        }
        // -1 is unlimited, as for Docker.
        let value = |v: i64| if v == -1 { Some(u64::MAX) } else { u64::try_from(v).ok() };
        match (value(limit.soft_limit), value(limit.hard_limit)) {
            (Some(soft), Some(hard)) if soft <= hard => {
                limits.push(Ulimit { name: limit.name.clone(), soft, hard })
            }
            (Some(soft), Some(hard)) => problems.add(
                format!("{field}.softLimit"),
                format!("is {soft}; expected at most {hard}, the hard limit"),
            ),
            _ => problems.add(field, "has a negative limit; expected 0 or more, or -1 for unlimited"),
        }
    }
    limits
}

fn port_mappings(c: &wire::ContainerDefinition, at: &str, problems: &mut Problems) -> Vec<PortMapping> {
    let mut ports = Vec::new();
    for (i, mapping) in c.port_mappings.iter().flatten().enumerate() {
        let field = |name: &str| format!("{at}.portMappings[{i}].{name}");
        problems.unsupported(
            mapping.container_port_range.is_some(),
            field("containerPortRange"),
            "`containerPort`",
        );
        let Some(port) = mapping.container_port else {
            problems.add(field("containerPort"), "is absent; expected a port");
            continue;
        };
        let protocol = mapping.protocol.clone().unwrap_or_else(|| "tcp".into());
        if protocol != "tcp" && protocol != "udp" {
            problems.add(field("protocol"), format!("is `{protocol}`; expected `tcp` or `udp`"));
        }
        if let Some(host) = mapping.host_port.filter(|host| *host != 0 && *host != port) {
            problems.add(field("hostPort"), format!("is {host}; expected {port}, the container's, or no such field: with an ENI of its own nothing is mapped"));
        }
        if let Some(container_port) = problems.number(&field("containerPort"), port, 1, 65_535) {
            ports.push(PortMapping { container_port, protocol });
        }
    }
    ports
}

fn depends_on(c: &wire::ContainerDefinition, at: &str, problems: &mut Problems) -> Vec<DependsOn> {
    let mut edges = Vec::new();
    for (i, edge) in c.depends_on.iter().flatten().enumerate() {
        let condition = match edge.condition.as_str() {
            "START" => Some(DependsCondition::Start),
            "COMPLETE" => Some(DependsCondition::Complete),
            "SUCCESS" => Some(DependsCondition::Success),
            other => {
                let why = if other == "HEALTHY" { ", which this agent does not support" } else { "" };
                problems.add(
                    format!("{at}.dependsOn[{i}].condition"),
                    format!("is `{other}`{why}; expected START, COMPLETE or SUCCESS"),
                );
                None
            }
        };
        edges.extend(
            condition.map(|condition| DependsOn { container: edge.container_name.clone(), condition }),
        );
    }
    edges
}

fn log(c: &wire::ContainerDefinition, at: &str, problems: &mut Problems) -> LogSpec {
    let Some(log) = &c.log_configuration else {
        return LogSpec { driver: LogDriver::JsonFile, options: BTreeMap::new() };
    };
    let field = |name: &str| format!("{at}.logConfiguration.{name}");
    let driver = match log.log_driver.as_str() {
        "json-file" => LogDriver::JsonFile,
        "none" => LogDriver::None,
        other => {
            problems.add(
                field("logDriver"),
                format!("is `{other}`, which this agent does not have; expected `json-file` or `none`"),
            );
            LogDriver::None
        }
    };
    problems.unsupported(is_some(&log.secret_options), field("secretOptions"), "no such field");
    let options = log.options.clone().unwrap_or_default();
    for (key, value) in &options {
        let fits = match key.as_str() {
            "max-size" => is_size(value),
            "max-file" => value.parse::<u32>().is_ok_and(|n| (1..=100).contains(&n)),
            _ => false,
        };
        if !fits && driver == LogDriver::JsonFile {
            problems.add(
                format!("{}.{key}", field("options")),
                format!(
                    "is `{value}`; expected max-size such as `10m` (at least 1k) or max-file from 1 to 100"
                ),
            );
        }
    }
    LogSpec { driver, options }
}

/// Docker's sizes: a whole number and k, m or g.
fn is_size(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let digits = lower.strip_suffix(['k', 'm', 'g']).unwrap_or("");
    digits.parse::<u32>().is_ok_and(|n| (1..=1_048_576).contains(&n))
}
