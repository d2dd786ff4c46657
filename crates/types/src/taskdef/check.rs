//! From a task definition to a [`TaskSpec`]: every rule of the ECS API that can make a container run differently, and every field that
//! Berth cannot honour. All problems are reported, not the first one.

use super::{
    container,
    json::Object,
    overrides::Overrides,
    problems::{NAME_RULE, Problems, TaskDefinitionErrors, is_absolute, is_name, is_some},
    wire,
};
use crate::{
    Timestamp,
    ids::TaskArn,
    lease::LeaseNeeds,
    task::{ContainerSpec, DependsCondition, Origin, TaskSpec, VolumeSpec},
};
use std::{collections::BTreeSet, path::PathBuf};

/// Containers of a task definition: the limit of the ECS API.
pub const MAX_CONTAINERS: usize = 10;

/// Volumes of a task definition. ECS names no limit; each is a directory and a mount in every container that uses it.
const MAX_VOLUMES: usize = 64;

/// What the definition does not say of the task.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// The task's name.
    pub arn: TaskArn,
    /// The cluster exactly as configured.
    pub cluster: String,
    /// Revision of the definition.
    pub revision: String,
    /// `family:NAME` or `service:NAME`.
    pub group: Option<String>,
    /// `EC2` or `EXTERNAL`.
    pub launch_type: String,
    /// What its ENI must be like.
    pub network: LeaseNeeds,
    /// When the assignment arrived.
    pub created_at: Timestamp,
    /// Who asked for the task.
    pub origin: Origin,
    /// Whether this node runs privileged containers.
    pub privileged: bool,
}

/// Checks a definition and gives the task that it describes.
pub fn validate(
    definition: &wire::TaskDefinition,
    identity: Identity,
) -> Result<TaskSpec, TaskDefinitionErrors> {
    translate(definition, identity, Problems::default())
}

/// The same with what was overridden when the task was started. What is wrong with an override is named where it stands there:
/// `overrides.containerOverrides[0].memory`.
pub fn validate_with(
    definition: &wire::TaskDefinition,
    overrides: &Overrides,
    identity: Identity,
) -> Result<TaskSpec, TaskDefinitionErrors> {
    let mut problems = Problems::default();
    let (merged, places) = overrides.lay_over(definition, &mut problems);
    translate(&merged, identity, problems).map_err(|errors| places.rename(errors))
}

fn translate(
    definition: &wire::TaskDefinition,
    identity: Identity,
    mut problems: Problems,
) -> Result<TaskSpec, TaskDefinitionErrors> {
    check_task_fields(definition, &mut problems);
    let cpu = definition.cpu.as_deref().and_then(|text| task_cpu(text, &mut problems));
    let memory = definition.memory.as_deref().and_then(|text| task_memory(text, &mut problems));
    let volumes = volumes(definition.volumes.as_deref().unwrap_or_default(), &mut problems);
    let containers = containers(definition, memory, &volumes, &mut problems);
    if !identity.privileged {
        refuse_privileged(definition, &mut problems);
    }
    check_totals(&containers, cpu, memory, &mut problems);
    check_dependencies(&containers, &mut problems);
    problems.into_result()?;
    Ok(TaskSpec {
        arn: identity.arn,
        cluster: identity.cluster,
        family: definition.family.clone(),
        revision: identity.revision,
        group: identity.group,
        service_name: None,
        launch_type: identity.launch_type,
        cpu,
        memory,
        volumes,
        containers,
        network: identity.network,
        task_role_arn: definition.task_role_arn.clone().filter(|r| !r.is_empty()),
        execution_role_arn: definition.execution_role_arn.clone().filter(|r| !r.is_empty()),
        enable_fault_injection: definition.enable_fault_injection.unwrap_or(false),
        created_at: identity.created_at,
        origin: identity.origin,
    })
}

fn check_task_fields(definition: &wire::TaskDefinition, problems: &mut Problems) {
    if !is_name(&definition.family) {
        problems.add("family", format!("is `{}`; expected {NAME_RULE}", definition.family));
    }
    match definition.network_mode.as_deref() {
        Some("awsvpc") => {}
        Some(other) => problems.add(
            "networkMode",
            format!("is `{other}`; expected `awsvpc`: every task gets an ENI of its own"),
        ),
        None => problems.add(
            "networkMode",
            "is absent, which ECS reads as `bridge`; expected `awsvpc`: every task gets an ENI of its own",
        ),
    }
    problems.unsupported(
        definition.pid_mode.as_deref().is_some_and(|m| !m.is_empty()),
        "pidMode",
        "no such field: each container has its own",
    );
    problems.unsupported(
        definition.ipc_mode.as_deref().is_some_and(|m| !m.is_empty()),
        "ipcMode",
        "no such field: each container has its own",
    );
    problems.unsupported(definition.proxy_configuration.is_some(), "proxyConfiguration", "no such field");
    problems.unsupported(
        is_some(&definition.inference_accelerators),
        "inferenceAccelerators",
        "no such field",
    );
    if let Some(platform) = &definition.runtime_platform {
        let here = if cfg!(target_arch = "aarch64") { "ARM64" } else { "X86_64" };
        if let Some(wanted) = platform.cpu_architecture.as_deref().filter(|wanted| *wanted != here) {
            problems.add(
                "runtimePlatform.cpuArchitecture",
                format!("is `{wanted}`; expected `{here}`, this instance's"),
            );
        }
        if let Some(wanted) = platform.operating_system_family.as_deref().filter(|wanted| *wanted != "LINUX")
        {
            problems.add("runtimePlatform.operatingSystemFamily", format!("is `{wanted}`; expected `LINUX`"));
        }
    }
}

/// `256`, `.25 vCPU`, `1 vcpu`: CPU units.
fn task_cpu(text: &str, problems: &mut Problems) -> Option<u32> {
    let lower = text.trim().to_ascii_lowercase();
    let units = match lower.strip_suffix("vcpu") {
        Some(count) => count.trim().parse::<f64>().ok().map(|v| v * 1024.0),
        None => lower.parse::<u32>().ok().map(f64::from),
    };
    // 128 units (0.125 vCPU) to 192 vCPU: the ECS API's own range for the EC2 launch type.
    match units {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range was just checked"
        )]
        Some(units) if (128.0..=196_608.0).contains(&units) => Some(units as u32),
        _ => {
            problems.add("cpu", format!("is `{text}`; expected CPU units from 128 to 196608, such as \"256\", or vCPUs, such as \".25 vCPU\""));
            None
        }
    }
}

/// `512`, `1GB`, `.5 GB`: MiB.
fn task_memory(text: &str, problems: &mut Problems) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let mib = match lower.strip_suffix("gb") {
        Some(count) => count.trim().parse::<f64>().ok().map(|v| v * 1024.0),
        None => lower.parse::<u32>().ok().map(f64::from),
    };
    match mib {
        // 24 TiB is the largest instance type's memory.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range was just checked"
        )]
        Some(mib) if (6.0..=25_165_824.0).contains(&mib) => Some(mib as u64),
        _ => {
            problems.add(
                "memory",
                format!("is `{text}`; expected MiB, at least 6, such as \"512\", or GB, such as \"1GB\""),
            );
            None
        }
    }
}

fn volumes(list: &[Object<wire::Volume>], problems: &mut Problems) -> Vec<VolumeSpec> {
    if list.len() > MAX_VOLUMES {
        problems.add("volumes", format!("has {} entries; expected at most {MAX_VOLUMES}", list.len()));
    }
    let mut names = BTreeSet::new();
    let mut specs = Vec::new();
    for (i, volume) in list.iter().enumerate() {
        let field = |name: &str| format!("volumes[{i}].{name}");
        if !is_name(&volume.name) {
            problems.add(field("name"), format!("is `{}`; expected {NAME_RULE}", volume.name));
        } else if !names.insert(volume.name.as_str()) {
            problems.add(
                field("name"),
                format!("is `{}`, which another volume has already; expected a name of its own", volume.name),
            );
        }
        let instead = "`host` with or without a sourcePath";
        problems.unsupported(
            volume.docker_volume_configuration.is_some(),
            field("dockerVolumeConfiguration"),
            instead,
        );
        problems.unsupported(
            volume.efs_volume_configuration.is_some(),
            field("efsVolumeConfiguration"),
            instead,
        );
        problems.unsupported(
            volume.fsx_windows_file_server_volume_configuration.is_some(),
            field("fsxWindowsFileServerVolumeConfiguration"),
            instead,
        );
        problems.unsupported(
            volume.s3files_volume_configuration.is_some(),
            field("s3filesVolumeConfiguration"),
            instead,
        );
        problems.unsupported(volume.configured_at_launch == Some(true), field("configuredAtLaunch"), "false");
        let path = volume.host.as_ref().and_then(|h| h.source_path.as_deref()).filter(|p| !p.is_empty());
        if let Some(path) = path.filter(|p| !is_absolute(p)) {
            problems.add(
                field("host.sourcePath"),
                format!("is `{path}`; expected an absolute path without `..`"),
            );
        }
        specs.push(VolumeSpec { name: volume.name.clone(), host_path: path.map(PathBuf::from) });
    }
    specs
}

/// The node's operator has switched them off.
fn refuse_privileged(definition: &wire::TaskDefinition, problems: &mut Problems) {
    for (i, container) in definition.container_definitions.iter().enumerate() {
        if container.privileged == Some(true) {
            let problem =
                "is true; privileged containers are switched off on this node (ECS_DISABLE_PRIVILEGED)";
            problems.add(format!("containerDefinitions[{i}].privileged"), problem);
        }
    }
}

fn containers(
    definition: &wire::TaskDefinition,
    task_memory: Option<u64>,
    volumes: &[VolumeSpec],
    problems: &mut Problems,
) -> Vec<ContainerSpec> {
    let list = &definition.container_definitions;
    if list.is_empty() || list.len() > MAX_CONTAINERS {
        problems.add(
            "containerDefinitions",
            format!("has {} entries; expected 1 to {MAX_CONTAINERS}", list.len()),
        );
    }
    let mut names = BTreeSet::new();
    let mut specs = Vec::new();
    for (i, entry) in list.iter().enumerate().take(MAX_CONTAINERS) {
        let at = format!("containerDefinitions[{i}]");
        if !names.insert(entry.name.as_str()) {
            problems.add(
                format!("{at}.name"),
                format!(
                    "is `{}`, which another container has already; expected a name of its own",
                    entry.name
                ),
            );
        }
        if task_memory.is_none() && entry.memory.is_none() && entry.memory_reservation.is_none() {
            problems.add(
                &at,
                "has no memory limit; expected `memory` or `memoryReservation` here, or `memory` of the task",
            );
        }
        specs.push(container::check(entry, &at, volumes, problems));
    }
    if !specs.is_empty() && !specs.iter().any(|c| c.essential) {
        problems.add("containerDefinitions", "has no essential container; expected at least one");
    }
    specs
}

fn check_totals(
    containers: &[ContainerSpec],
    cpu: Option<u32>,
    memory: Option<u64>,
    problems: &mut Problems,
) {
    let asked: u64 = containers.iter().map(|c| u64::from(c.cpu)).sum();
    if let Some(cpu) = cpu.filter(|cpu| asked > u64::from(*cpu)) {
        problems.add(
            "cpu",
            format!("is {cpu} units, but the containers ask for {asked}; expected at least their sum"),
        );
    }
    for (i, container) in containers.iter().enumerate() {
        if let (Some(own), Some(task)) = (container.memory.or(container.memory_reservation), memory)
            && own > task
        {
            problems.add(
                format!("containerDefinitions[{i}].memory"),
                format!("is {own} MiB; expected at most {task}, the task's"),
            );
        }
    }
    // A container's soft limit is what ECS sets aside for it, its hard limit where there is no soft one.
    let reserved: u64 = containers.iter().filter_map(|c| c.memory_reservation.or(c.memory)).sum();
    if let Some(memory) = memory.filter(|memory| reserved > *memory) {
        problems.add(
            "memory",
            format!(
                "is {memory} MiB, but {reserved} are reserved for the containers; expected at least their sum"
            ),
        );
    }
}

fn check_dependencies(containers: &[ContainerSpec], problems: &mut Problems) {
    for (i, container) in containers.iter().enumerate() {
        for (j, edge) in container.depends_on.iter().enumerate() {
            let field = format!("containerDefinitions[{i}].dependsOn[{j}]");
            match containers.iter().find(|c| c.name == edge.container) {
                None => problems.add(format!("{field}.containerName"), format!("is `{}`; expected another container of the task", edge.container)),
                Some(target) if target.essential && edge.condition != DependsCondition::Start => problems.add(
                    format!("{field}.condition"),
                    format!("waits for the end of `{}`, whose end is the task's end; expected a container that is not essential", target.name),
                ),
                Some(_) => {}
            }
        }
    }
    // Containers whose dependencies are all sorted come next; what is left over is a cycle.
    let mut sorted: BTreeSet<&str> = BTreeSet::new();
    loop {
        let next: Vec<&str> = containers
            .iter()
            .filter(|c| !sorted.contains(c.name.as_str()))
            .filter(|c| {
                c.depends_on.iter().all(|d| {
                    sorted.contains(d.container.as_str()) || !containers.iter().any(|o| o.name == d.container)
                })
            })
            .map(|c| c.name.as_str())
            .collect();
        if next.is_empty() {
            break;
        }
        sorted.extend(next);
    }
    let rest: Vec<&str> =
        containers.iter().map(|c| c.name.as_str()).filter(|n| !sorted.contains(n)).collect();
    if !rest.is_empty() {
        problems.add(
            "containerDefinitions",
            format!(
                "dependsOn goes round in a circle: {}; expected an order in which they can start",
                rest.join(", ")
            ),
        );
    }
}
