//! How containers refer to each other: dependsOn, links, volumesFrom.

use super::{Container, twice};
use crate::ecs::error::ApiError;
use std::collections::{BTreeMap, BTreeSet};

/// Containers by name, each with those that it refers to.
type Edges<'a> = BTreeMap<&'a str, Vec<&'a str>>;

pub(super) fn check(containers: &[Container<'_>]) -> Result<(), ApiError> {
    let by_name: BTreeMap<_, _> = containers.iter().map(|c| (c.name, *c)).collect();
    dependencies(containers, &by_name)?;
    links(containers, &by_name)?;
    volumes_from(containers, &by_name)
}

fn dependencies<'a>(
    containers: &[Container<'a>],
    by_name: &BTreeMap<&'a str, Container<'a>>,
) -> Result<(), ApiError> {
    let mut edges = Edges::new();
    for container in containers {
        for dependency in container.input.objects("dependsOn")? {
            let name = dependency.text("containerName")?.unwrap_or_default();
            // The plus sign is AWS's.
            let missing = || {
                ApiError::client(format!("Cannot depend on container + '{name}' because it does not exist"))
            };
            let target = by_name.get(name).ok_or_else(missing)?;
            if name == container.name {
                return Err(container.because("A container cannot depend on itself."));
            }
            condition(dependency.text("condition")?.unwrap_or_default(), *target)?;
            edges.entry(container.name).or_default().push(name);
        }
    }
    acyclic(&edges, "Container dependencies should not have a cycle")
}

fn condition(condition: &str, target: Container<'_>) -> Result<(), ApiError> {
    match condition {
        "COMPLETE" | "SUCCESS" if target.essential()? => Err(ApiError::client(
            "A dependency container with SUCCESS or COMPLETE condition cannot be an essential container",
        )),
        "HEALTHY" if !target.input.has("healthCheck") => Err(ApiError::client(format!(
            "A dependency container with HEALTHY condition must have a healthCheck: '{}'",
            target.name
        ))),
        _ => Ok(()),
    }
}

/// Links are `CONTAINER` or `CONTAINER:ALIAS`.
fn links<'a>(
    containers: &[Container<'a>],
    by_name: &BTreeMap<&'a str, Container<'a>>,
) -> Result<(), ApiError> {
    let mut edges = Edges::new();
    for container in containers {
        for link in container.input.texts("links")? {
            let name = link.split_once(':').map_or(link, |(name, _)| name);
            if !by_name.contains_key(name) {
                let message = format!("Cannot link to container '{name}' because it does not exist");
                return Err(ApiError::client(message));
            }
            edges.entry(container.name).or_default().push(name);
        }
    }
    acyclic(&edges, "Container links should not have a cycle")
}

fn volumes_from<'a>(
    containers: &[Container<'a>],
    by_name: &BTreeMap<&'a str, Container<'a>>,
) -> Result<(), ApiError> {
    let mut edges = Edges::new();
    for container in containers {
        let mut sources = Vec::new();
        for from in container.input.objects("volumesFrom")? {
            let name = from.text("sourceContainer")?.unwrap_or_default();
            if !by_name.contains_key(name) {
                return Err(ApiError::client(format!("Unknown container '{name}' in volumesFrom.")));
            }
            sources.push(name);
        }
        if let Some(name) = twice(sources.iter().copied()) {
            return Err(container.because(&format!("volumesFrom names container '{name}' more than once.")));
        }
        edges.insert(container.name, sources);
    }
    acyclic(&edges, "Container volumesFrom should not have a cycle")
}

/// Takes away containers that refer to nothing left, until none is left; a cycle is what never goes away.
fn acyclic(edges: &Edges<'_>, message: &str) -> Result<(), ApiError> {
    let mut left: BTreeSet<&str> = edges.keys().copied().collect();
    loop {
        let stuck = |name: &&str| edges.get(name).is_some_and(|to| to.iter().any(|t| left.contains(t)));
        let still: BTreeSet<&str> = left.iter().copied().filter(stuck).collect();
        if still.is_empty() {
            return Ok(());
        }
        if still.len() == left.len() {
            return Err(ApiError::client(message));
        }
        left = still;
    }
}
