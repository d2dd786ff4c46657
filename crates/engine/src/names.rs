//! Every name that the engine gives to the outside, derived from the task: Docker-like names, labels, environment, paths, and the
//! request that makes a container. Pure.

use crate::{config::EngineConfig, volumes};
use berth_types::{
    ids::ContainerId,
    lease::{Lease, LeaseNeeds},
    ports::{CreateContainer, TAG_CLUSTER, TAG_FAMILY, TAG_TASK},
    task::{ContainerSpec, LogDriver, TaskSpec, VolumeView},
};
use std::{collections::BTreeMap, path::PathBuf};

/// Where tasks find the metadata endpoint, in every namespace.
const METADATA: &str = "http://169.254.170.2";
/// Prefix of the labels that the official agent sets.
const LABEL: &str = "com.amazonaws.ecs.";
/// Hexadecimal digits at the end of a Docker-like name, as many as the official agent takes at random.
const NAME_DIGITS: usize = 20;

/// `ecs-FAMILY-REVISION-NAME-HEX`.
pub(crate) fn docker_name(spec: &TaskSpec, name: &str) -> String {
    let plain: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    let id = ContainerId::derive(&spec.arn, name, 0);
    format!("ecs-{}-{}-{plain}-{}", spec.family, spec.revision, &id.as_str()[..NAME_DIGITS])
}

/// The digest that an image reference names, known before anything is pulled.
pub(crate) fn digest(reference: &str) -> Option<&str> {
    reference.split_once('@').map(|(_, digest)| digest)
}

/// The user's labels and the agent's; the agent's win.
pub(crate) fn labels(spec: &TaskSpec, container: &ContainerSpec) -> BTreeMap<String, String> {
    let own = [
        ("cluster", spec.cluster.as_str()),
        ("container-name", &container.name),
        ("task-arn", spec.arn.as_str()),
        ("task-definition-family", &spec.family),
        ("task-definition-version", &spec.revision),
    ];
    let mut labels = container.docker_labels.clone();
    labels.extend(own.map(|(key, value)| (format!("{LABEL}{key}"), value.to_owned())));
    labels
}

/// What is laid over the image's and the task's environment. Of what is here only the metadata URLs may replace a variable that
/// the task sets; the region is left out when the task sets either of its names.
pub(crate) fn environment(config: &EngineConfig, container: &ContainerSpec) -> Vec<(String, String)> {
    let endpoint = &container.endpoint_id;
    let sets = |name: &str| container.environment.iter().any(|(n, _)| n == name);
    let mut injected = vec![
        ("ECS_CONTAINER_METADATA_URI".to_owned(), format!("{METADATA}/v3/{endpoint}")),
        ("ECS_CONTAINER_METADATA_URI_V4".to_owned(), format!("{METADATA}/v4/{endpoint}")),
        ("ECS_AGENT_URI".to_owned(), format!("{METADATA}/api/{endpoint}")),
        ("AWS_EXECUTION_ENV".to_owned(), "AWS_ECS_EC2".to_owned()),
    ];
    if !sets("AWS_REGION") && !sets("AWS_DEFAULT_REGION") {
        injected.extend(
            ["AWS_REGION", "AWS_DEFAULT_REGION"].map(|name| (name.to_owned(), config.region.clone())),
        );
    }
    for (name, value) in &config.environment {
        if !sets(name) && injected.iter().all(|(n, _)| n != name) {
            injected.push((name.clone(), value.clone()));
        }
    }
    injected
}

/// `DATA/logs/TASK/CONTAINER/CONTAINER.log`.
pub(crate) fn log_path(config: &EngineConfig, spec: &TaskSpec, container: &ContainerSpec) -> PathBuf {
    let name = volumes::file_name(&container.name);
    log_directory(config, spec).join(&name).join(format!("{name}.log"))
}

/// The log file that readers are told of: none with the `none` driver.
pub(crate) fn shown_log_path(
    config: &EngineConfig,
    spec: &TaskSpec,
    container: &ContainerSpec,
) -> Option<PathBuf> {
    match container.log.driver {
        LogDriver::JsonFile => Some(log_path(config, spec, container)),
        LogDriver::None => None,
    }
}

/// The directory of all logs of a task.
pub(crate) fn log_directory(config: &EngineConfig, spec: &TaskSpec) -> PathBuf {
    config.data_dir.join("logs").join(spec.arn.id())
}

/// Mounted volumes of a container, each with whether it is read-only. A mount of a volume that the task does not have is left out
/// here; `volumes::wanted` has refused the task before.
pub(crate) fn mounts(
    config: &EngineConfig,
    spec: &TaskSpec,
    container: &ContainerSpec,
) -> Vec<(VolumeView, bool)> {
    let mount = |point: &berth_types::task::MountPoint| {
        let volume = spec.volumes.iter().find(|v| v.name == point.volume)?;
        let (docker_name, source) = match &volume.host_path {
            Some(path) => (volume.name.clone(), path.clone()),
            None => (docker_name(spec, &volume.name), volumes::task_scoped(config, spec, &volume.name)),
        };
        Some((VolumeView { docker_name, source, destination: point.path.clone() }, point.read_only))
    };
    container.mount_points.iter().filter_map(mount).collect()
}

/// What the task asks of the ENI manager: the definition's needs and the tags that name the task on its ENI.
pub(crate) fn lease_needs(spec: &TaskSpec) -> LeaseNeeds {
    let mut needs = spec.network.clone();
    let tags =
        [(TAG_CLUSTER, spec.cluster.as_str()), (TAG_TASK, spec.arn.as_str()), (TAG_FAMILY, &spec.family)];
    needs.tags.extend(tags.map(|(key, value)| (key.to_owned(), value.to_owned())));
    needs
}

/// The request that makes a container; its record is filled in by the op.
pub(crate) fn create_request(
    config: &EngineConfig,
    spec: &TaskSpec,
    container: &crate::machine::Container,
    lease: &Lease,
) -> CreateContainer {
    CreateContainer {
        id: container.id.clone(),
        task: spec.arn.clone(),
        spec: container.spec.clone(),
        injected_environment: environment(config, &container.spec),
        labels: labels(spec, &container.spec),
        netns_path: lease.netns_path.clone(),
        hostname: lease.private_dns_name.clone(),
        files: lease.files.clone(),
        volumes: mounts(config, spec, &container.spec),
        log_path: log_path(config, spec, &container.spec),
        task_cpu: spec.cpu,
        task_memory: spec.memory,
        record: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
