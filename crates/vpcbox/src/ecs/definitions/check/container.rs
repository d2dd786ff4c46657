//! A container's name, image, memory and mounts.

use super::{super::shape::blank, Container, is_name, twice};
use crate::ecs::{error::ApiError, input::Input};
use std::collections::BTreeSet;

/// Containers of a definition: ECS's limit.
const MAX_CONTAINERS: usize = 10;
/// Longest image reference: ECS's limit.
const MAX_IMAGE: usize = 255;
/// Least hard or soft memory limit in MiB: what ECS takes for Linux.
const MIN_MEMORY: i64 = 6;

/// The containers, each with a name of its own, one of them essential.
pub(super) fn named(input: Input<'_>) -> Result<Vec<Container<'_>>, ApiError> {
    let containers = input.objects("containerDefinitions")?;
    if containers.is_empty() {
        return Err(ApiError::client("Container list cannot be empty."));
    }
    if containers.len() > MAX_CONTAINERS {
        let message = format!("A task definition can have at most {MAX_CONTAINERS} containers.");
        return Err(ApiError::client(message));
    }
    let mut all = Vec::new();
    let mut essential = false;
    for input in containers {
        let name = input.text("name")?.filter(|name| !name.is_empty());
        let container = Container { name: name.ok_or_else(|| blank("Container", "name"))?, input };
        if !is_name(container.name) {
            return Err(ApiError::client("Container.name contains invalid characters."));
        }
        essential |= container.essential()?;
        all.push(container);
    }
    if let Some(name) = twice(all.iter().map(|c| c.name)) {
        let message = format!("Container names must be unique: '{name}' is used more than once.");
        return Err(ApiError::client(message));
    }
    if !essential {
        return Err(ApiError::client("A task definition must have at least one essential container."));
    }
    Ok(all)
}

/// What concerns the container alone, and the network that it gets from its task.
pub(super) fn check(container: Container<'_>, task: Input<'_>) -> Result<(), ApiError> {
    image(container)?;
    memory(container, task)?;
    network(container, task.text("networkMode")?.unwrap_or("bridge"))
}

fn image(container: Container<'_>) -> Result<(), ApiError> {
    let image = container.input.text("image")?.filter(|image| !image.is_empty());
    let image = image.ok_or_else(|| blank("Container", "image"))?;
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"-_:./#@+".contains(&b);
    if image.len() > MAX_IMAGE || !image.bytes().all(letter) {
        return Err(ApiError::client("Container.image contains invalid characters."));
    }
    Ok(())
}

fn memory(container: Container<'_>, task: Input<'_>) -> Result<(), ApiError> {
    let hard = container.input.integer("memory")?;
    let soft = container.input.integer("memoryReservation")?;
    if hard.is_none() && soft.is_none() && !task.has("memory") {
        return Err(container.because("At least one of 'memory' or 'memoryReservation' must be specified."));
    }
    if hard.is_some_and(|memory| memory < MIN_MEMORY) {
        return Err(container.because(&format!("'memory' must be at least {MIN_MEMORY} MiB.")));
    }
    if soft.is_some_and(|memory| memory < MIN_MEMORY) {
        return Err(container.because(&format!("'memoryReservation' must be at least {MIN_MEMORY} MiB.")));
    }
    if let (Some(hard), Some(soft)) = (hard, soft)
        && soft > hard
    {
        return Err(container.because("'memory' must be greater than or equal to 'memoryReservation'."));
    }
    if container.input.integer("cpu")?.is_some_and(|cpu| cpu < 0) {
        return Err(container.bad("cpu"));
    }
    Ok(())
}

/// Members that make no sense, or are not the container's to say, in some network modes.
fn network(container: Container<'_>, mode: &str) -> Result<(), ApiError> {
    let some = |member: &str| Ok::<_, ApiError>(!container.input.list(member)?.is_empty());
    let refused =
        |what: &str| Err(ApiError::client(format!("{what} are not supported when networkMode={mode}.")));
    if mode != "bridge" && some("links")? {
        return refused("Links");
    }
    if mode == "none" && some("portMappings")? {
        return refused("Port mappings");
    }
    if mode == "awsvpc" {
        if some("extraHosts")? {
            return refused("Extra hosts");
        }
        if some("dnsServers")? || some("dnsSearchDomains")? {
            return refused("DNS servers and search domains");
        }
        if container.input.has("hostname") {
            return refused("Hostnames");
        }
    }
    for control in container.input.objects("systemControls")? {
        let name = control.text("namespace")?.unwrap_or_default();
        if mode == "host" && name.starts_with("net.") {
            return refused("System controls of the network");
        }
    }
    Ok(())
}

/// Mount points name volumes of the task.
pub(super) fn mounts(container: Container<'_>, volumes: &BTreeSet<&str>) -> Result<(), ApiError> {
    let mut paths = Vec::new();
    for mount in container.input.objects("mountPoints")? {
        let volume = mount.text("sourceVolume")?.unwrap_or("null");
        if !volumes.contains(volume) {
            return Err(ApiError::client(format!("Unknown volume '{volume}'.")));
        }
        let path = mount.text("containerPath")?.filter(|path| !path.is_empty());
        paths.push(path.ok_or_else(|| blank("MountPoint", "containerPath"))?);
    }
    match twice(paths) {
        Some(path) => Err(container.because(&format!("Container path '{path}' is mounted more than once."))),
        None => Ok(()),
    }
}
