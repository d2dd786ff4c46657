//! What concerns the task as a whole: family, roles, volumes, sizes, where it can run.

use super::{
    super::{shape::blank, units},
    Container, fargate, is_name,
};
use crate::ecs::{error::ApiError, input::Input};
use std::collections::BTreeSet;

/// Placement constraints of a definition: ECS's limit.
const MAX_CONSTRAINTS: usize = 10;
/// CPU units that a task on EC2 may ask for: 0.125 to 192 vCPU.
const CPU: std::ops::RangeInclusive<u64> = 128..=196_608;
/// The kinds of volumes; a volume is at most one of them.
const VOLUME_KINDS: &[&str] = &[
    "host",
    "dockerVolumeConfiguration",
    "efsVolumeConfiguration",
    "s3filesVolumeConfiguration",
    "fsxWindowsFileServerVolumeConfiguration",
];

pub(super) fn family(input: Input<'_>) -> Result<(), ApiError> {
    match input.text("family")?.unwrap_or_default() {
        "" => Err(ApiError::client("Family can not be blank.")),
        name if !is_name(name) => Err(ApiError::client("Family contains invalid characters.")),
        _ => Ok(()),
    }
}

/// Roles are given by name or by ARN. Secrets need one, which [`super::runtime`] says.
pub(super) fn roles(input: Input<'_>) -> Result<(), ApiError> {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@-_/".contains(&b);
    for member in ["taskRoleArn", "executionRoleArn"] {
        let Some(role) = input.text(member)? else { continue };
        let name = match role.strip_prefix("arn:") {
            None => role,
            Some(arn) => {
                arn.split_once(":iam::").and_then(|(_, r)| r.split_once(":role/")).map_or("", |r| r.1)
            }
        };
        if name.is_empty() || name.len() > 512 || !name.bytes().all(letter) {
            return Err(ApiError::client("Role is not valid"));
        }
    }
    let injects = input.boolean("enableFaultInjection")?.unwrap_or_default();
    if injects && !matches!(input.text("networkMode")?, Some("awsvpc" | "host")) {
        let message = "enableFaultInjection is only supported when networkMode is awsvpc or host.";
        return Err(ApiError::client(message));
    }
    Ok(())
}

/// The names of the volumes.
pub(super) fn volumes(input: Input<'_>) -> Result<BTreeSet<&str>, ApiError> {
    let mut names = BTreeSet::new();
    for volume in input.objects("volumes")? {
        let name = volume.text("name")?.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| blank("Volume", "name"))?;
        if !is_name(name) {
            return Err(ApiError::client("Volume.name contains invalid characters."));
        }
        if VOLUME_KINDS.iter().filter(|kind| volume.has(kind)).count() > 1 {
            let message = format!("Volume '{name}' must have at most one configuration.");
            return Err(ApiError::client(message));
        }
        let host = volume.object("host")?.map(|host| host.text("sourcePath")).transpose()?.flatten();
        if host == Some("") {
            return Err(ApiError::client("host.sourcePath should not be blank."));
        }
        docker_volume(volume)?;
        efs_volume(volume)?;
        if !names.insert(name) {
            let message = format!("Volume names must be unique: '{name}' is used more than once.");
            return Err(ApiError::client(message));
        }
    }
    Ok(names)
}

fn docker_volume(volume: Input<'_>) -> Result<(), ApiError> {
    let Some(docker) = volume.object("dockerVolumeConfiguration")? else { return Ok(()) };
    let shared = docker.text("scope")? == Some("shared");
    if docker.has("autoprovision") && !shared {
        return Err(ApiError::client(
            "Autoprovision is only supported when the scope of the volume is shared.",
        ));
    }
    Ok(())
}

fn efs_volume(volume: Input<'_>) -> Result<(), ApiError> {
    let Some(efs) = volume.object("efsVolumeConfiguration")? else { return Ok(()) };
    if !efs.text("fileSystemId")?.is_some_and(|id| id.starts_with("fs-")) {
        return Err(ApiError::client("Invalid 'fileSystemId' setting for EFS volume."));
    }
    let encrypted = efs.text("transitEncryption")? == Some("ENABLED");
    if efs.has("transitEncryptionPort") && !encrypted {
        let message = "Transit encryption must be enabled if a transit encryption port is set.";
        return Err(ApiError::client(message));
    }
    let Some(access) = efs.object("authorizationConfig")? else { return Ok(()) };
    let authorised = access.has("accessPointId") || access.text("iam")? == Some("ENABLED");
    if authorised && !encrypted {
        let message =
            "Transit encryption must be enabled if Amazon EFS IAM authorization or an access point is used.";
        return Err(ApiError::client(message));
    }
    let root = efs.text("rootDirectory")?;
    if access.has("accessPointId") && root.is_some_and(|root| root != "/") {
        let message = "The root directory must be omitted or '/' if an EFS access point is used.";
        return Err(ApiError::client(message));
    }
    Ok(())
}

/// The task's own limits, and that its containers fit in them.
pub(super) fn sizes(input: Input<'_>, containers: &[Container<'_>]) -> Result<(), ApiError> {
    let hint = "For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.";
    let bad = |what: &str| ApiError::client(format!("Invalid '{what}' setting for task. {hint}"));
    let cpu =
        input.text("cpu")?.map(|text| units::read(text, "vcpu").ok_or_else(|| bad("cpu"))).transpose()?;
    if cpu.is_some_and(|cpu| !CPU.contains(&cpu)) {
        return Err(bad("cpu"));
    }
    let memory =
        input.text("memory")?.map(|text| units::read(text, "gb").ok_or_else(|| bad("memory"))).transpose()?;
    if memory.is_some_and(|memory| memory < 6 || u32::try_from(memory).is_err()) {
        return Err(bad("memory"));
    }
    let (mut cpus, mut memories) = (0, 0);
    for container in containers {
        cpus += container.input.integer("cpu")?.unwrap_or_default();
        let soft = container.input.integer("memoryReservation")?;
        memories += soft.or(container.input.integer("memory")?).unwrap_or_default();
    }
    for (what, sum, limit) in [("cpu", cpus, cpu), ("memory", memories, memory)] {
        if limit.is_some_and(|limit| sum.unsigned_abs() > limit) {
            return Err(ApiError::client(format!(
                "The sum of all container '{what}' values cannot be greater than the value of the task '{what}'."
            )));
        }
    }
    Ok(())
}

pub(super) fn placement(input: Input<'_>) -> Result<(), ApiError> {
    let constraints = input.objects("placementConstraints")?;
    if constraints.len() > MAX_CONSTRAINTS {
        let message = format!("At most {MAX_CONSTRAINTS} placement constraints are allowed.");
        return Err(ApiError::client(message));
    }
    for constraint in constraints {
        if constraint.text("expression")?.is_none_or(str::is_empty) {
            return Err(blank("PlacementConstraint", "expression"));
        }
    }
    Ok(())
}

pub(super) fn proxy(input: Input<'_>, containers: &[Container<'_>]) -> Result<(), ApiError> {
    let Some(proxy) = input.object("proxyConfiguration")? else { return Ok(()) };
    let name = proxy.text("containerName")?.unwrap_or_default();
    if input.text("networkMode")? != Some("awsvpc") {
        return Err(ApiError::client("proxyConfiguration is only supported when networkMode=awsvpc."));
    }
    if containers.iter().any(|container| container.name == name) {
        return Ok(());
    }
    let message = format!("The container '{name}' of the proxyConfiguration does not exist.");
    Err(ApiError::client(message))
}

/// That the task can run where it says that it does.
pub(super) fn compatible(input: Input<'_>, containers: &[Container<'_>]) -> Result<(), ApiError> {
    let wanted = input.texts("requiresCompatibilities")?;
    if wanted.contains(&"EXTERNAL") && input.text("networkMode")? == Some("awsvpc") {
        return Err(ApiError::client("External launch type does not support networkMode awsvpc."));
    }
    if wanted.contains(&"FARGATE") {
        return fargate::check(input, containers);
    }
    if input.has("ephemeralStorage") {
        return Err(ApiError::client("ephemeralStorage is only supported for Fargate."));
    }
    Ok(())
}
