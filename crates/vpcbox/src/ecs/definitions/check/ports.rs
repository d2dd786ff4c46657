//! Port mappings, of each container and over the whole task.

use super::{Container, is_name, twice};
use crate::ecs::{error::ApiError, input::Input};
use std::collections::BTreeSet;

/// Mappings of one container: ECS's limit.
const MAX_MAPPINGS: usize = 100;
/// Longest name of a mapping: ECS's limit.
const MAX_NAME: usize = 64;
const PORTS: std::ops::RangeInclusive<i64> = 1..=65535;

pub(super) fn check(task: Input<'_>, containers: &[Container<'_>]) -> Result<(), ApiError> {
    let mode = task.text("networkMode")?.unwrap_or("bridge");
    let mut names = Vec::new();
    let mut taken = BTreeSet::new();
    for container in containers {
        let mappings = container.input.objects("portMappings")?;
        if mappings.len() > MAX_MAPPINGS {
            return Err(container.because(&format!("At most {MAX_MAPPINGS} port mappings are allowed.")));
        }
        for mapping in mappings {
            let protocol = mapping.text("protocol")?.unwrap_or("tcp");
            names.extend(name(*container, mapping)?);
            for port in host_ports(*container, mapping, mode)? {
                if !taken.insert((protocol, port)) {
                    let protocol = protocol.to_uppercase();
                    let message = format!("{protocol} host port '{port}' is mapped multiple times in task.");
                    return Err(ApiError::client(message));
                }
            }
        }
    }
    match twice(names) {
        Some(name) => Err(ApiError::client(format!("Port mapping name '{name}' is used more than once."))),
        None => Ok(()),
    }
}

fn name<'a>(container: Container<'_>, mapping: Input<'a>) -> Result<Option<&'a str>, ApiError> {
    let name = mapping.text("name")?;
    if name.is_some_and(|name| name.is_empty() || name.len() > MAX_NAME || !is_name(name)) {
        return Err(ApiError::client(format!(
            "Port mapping name of container '{}' contains invalid characters.",
            container.name
        )));
    }
    Ok(name)
}

/// The ports of the task's host that a mapping takes: none where the host chooses.
fn host_ports(
    container: Container<'_>,
    mapping: Input<'_>,
    mode: &str,
) -> Result<std::ops::RangeInclusive<i64>, ApiError> {
    let none = std::ops::RangeInclusive::new(1, 0);
    let own = mode == "awsvpc" || mode == "host";
    let host = mapping.integer("hostPort")?;
    if let Some(text) = mapping.text("containerPortRange")? {
        if mapping.has("containerPort") || host.is_some() {
            let reason = "'containerPortRange' excludes 'containerPort' and 'hostPort'.";
            return Err(container.because(reason));
        }
        let range = range(text).ok_or_else(|| container.bad("containerPortRange"))?;
        return Ok(if own { range } else { none });
    }
    let port = mapping.integer("containerPort")?.filter(|port| PORTS.contains(port));
    let port = port.ok_or_else(|| container.bad("containerPort"))?;
    if host.is_some_and(|host| host != 0 && !PORTS.contains(&host)) {
        return Err(container.bad("hostPort"));
    }
    if own && host.is_some_and(|host| host != port) {
        return Err(ApiError::client(format!(
            "When networkMode={mode}, the host ports and container ports in port mappings must match."
        )));
    }
    let host = host.or(own.then_some(port)).filter(|host| *host != 0);
    Ok(host.map_or(none, |host| host..=host))
}

/// `FIRST-LAST`.
fn range(text: &str) -> Option<std::ops::RangeInclusive<i64>> {
    let (first, last) = text.split_once('-')?;
    let port = |text: &str| text.parse().ok().filter(|port| PORTS.contains(port));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some(first..=last)
}
