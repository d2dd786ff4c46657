//! What Fargate would not run. The box has no Fargate, but says as AWS does whether a definition fits there.

use super::{
    super::{requires::from_ecr, units},
    Container, container,
};
use crate::ecs::{error::ApiError, input::Input};

/// Fargate's sizes: CPU units, and the memory in MiB from, to and in steps of.
const FARGATE_SIZES: &[(u64, u64, u64, u64)] = &[
    (256, 512, 1024, 512),
    (256, 2048, 2048, 1024),
    (512, 1024, 4096, 1024),
    (1024, 2048, 8192, 1024),
    (2048, 4096, 16_384, 1024),
    (4096, 8192, 30_720, 1024),
    (8192, 16_384, 61_440, 4096),
    (16_384, 32_768, 122_880, 8192),
];
/// The drivers that Fargate has.
const FARGATE_LOG_DRIVERS: &[&str] = &["awslogs", "splunk", "awsfirelens"];

/// Whether a definition that has been checked could run on Fargate too.
pub(in crate::ecs::definitions) fn fits(input: Input<'_>) -> bool {
    container::named(input).and_then(|containers| check(input, &containers)).is_ok()
}

/// That a definition can run on Fargate.
pub(super) fn check(input: Input<'_>, containers: &[Container<'_>]) -> Result<(), ApiError> {
    let refused = |message: &str| Err(ApiError::client(message));
    if input.text("networkMode")? != Some("awsvpc") {
        return refused("Fargate only supports network mode ‘awsvpc’.");
    }
    for member in ["cpu", "memory"] {
        if !input.has(member) {
            return refused(&format!("Fargate requires that '{member}' be defined at the task level."));
        }
    }
    let cpu = input.text("cpu")?.and_then(|text| units::read(text, "vcpu"));
    let memory = input.text("memory")?.and_then(|text| units::read(text, "gb"));
    let (Some(cpu), Some(memory)) = (cpu, memory) else {
        return refused("No Fargate configuration exists for given values.");
    };
    let fits = |(size, low, high, step): &(u64, u64, u64, u64)| {
        *size == cpu && (*low..=*high).contains(&memory) && (memory - low).is_multiple_of(*step)
    };
    if !FARGATE_SIZES.iter().any(fits) {
        return refused("No Fargate configuration exists for given values.");
    }
    if input.has("ipcMode") {
        return refused("Tasks using the Fargate launch type do not support ipcMode.");
    }
    if input.text("pidMode")? == Some("host") {
        return refused("Tasks using the Fargate launch type do not support pidMode 'host'.");
    }
    if !input.list("placementConstraints")?.is_empty() {
        return refused("Tasks using the Fargate launch type do not support placement constraints.");
    }
    let storage = input.object("ephemeralStorage")?.map(|s| s.integer("sizeInGiB")).transpose()?.flatten();
    if storage.is_some_and(|size| !(21..=200).contains(&size)) {
        return refused("The ephemeral storage size must be between 21 and 200 GiB.");
    }
    for volume in input.objects("volumes")? {
        let host = volume.object("host")?.is_some_and(|host| host.has("sourcePath"));
        if host || volume.has("dockerVolumeConfiguration") {
            return refused(
                "Fargate compatible task definitions do not support host paths and Docker volumes.",
            );
        }
    }
    containers.iter().try_for_each(|container| check_container(*container, input))
}

fn check_container(container: Container<'_>, task: Input<'_>) -> Result<(), ApiError> {
    let refused = |message: &str| Err(ApiError::client(message));
    let role = task.has("executionRoleArn");
    if container.input.boolean("privileged")? == Some(true) {
        return refused("Tasks using the Fargate launch type do not support privileged containers.");
    }
    if !role && from_ecr(container.input.text("image")?.unwrap_or_default()) {
        return refused("Fargate requires task definition to have execution role ARN to support ECR images.");
    }
    container.within(container.input, "stopTimeout", 0..=120)?;
    if let Some(log) = container.input.object("logConfiguration")? {
        let driver = log.text("logDriver")?.unwrap_or_default();
        if !FARGATE_LOG_DRIVERS.contains(&driver) {
            return refused(&format!("Fargate does not support log driver {driver}."));
        }
        if driver == "awslogs" && !role {
            return refused(
                "Fargate requires task definition to have execution role ARN to support log driver awslogs.",
            );
        }
    }
    let Some(linux) = container.input.object("linuxParameters")? else { return Ok(()) };
    for member in ["devices", "sharedMemorySize", "tmpfs", "maxSwap", "swappiness"] {
        if linux.has(member) {
            return refused(&format!("Tasks using the Fargate launch type do not support {member}."));
        }
    }
    Ok(())
}
