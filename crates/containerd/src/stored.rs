//! What is kept with each container in containerd itself, so that the agent needs no memory of its own to find it again.
//!
//! Labels carry only what fits surely (containerd refuses a label of more than 4096 bytes, key included); everything else, the
//! user's labels and the engine's record among it, goes into extensions, which have no such limit.

use crate::error::{Fault, Result};
use berth_types::{ids::TaskArn, ports::CreateContainer, task::LogDriver};
use containerd_client::services::v1::Container;
use prost_types::Any;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
};

/// Label with the ARN of the task: what is ours has it.
pub(crate) const LABEL_TASK: &str = "berth.task-arn";
/// Label with the container's name in the task.
const LABEL_NAME: &str = "berth.container-name";
/// Labels of the official agent; readers on the host look for them.
const ECS_LABELS: &str = "com.amazonaws.ecs.";
/// containerd's limit on key and value of a label together.
const MAX_LABEL: usize = 4096;

/// Extension with the engine's record, as the engine gave it.
const RECORD: &str = "berth.record";
/// Extension with [`Stored`].
const STORED: &str = "berth.container";
/// containerd only passes these through; the version is for ourselves.
const RECORD_TYPE: &str = "berth/record.v1";
const STORED_TYPE: &str = "berth/container.v1+json";
/// The specification's type, as containerd's shims look it up.
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// Options of the runc shim.
const RUNC_OPTIONS_TYPE: &str = "containerd.runc.v1.Options";

/// What starting and stopping a container needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    /// Chain id of the image: the parent of the container's snapshot.
    pub(crate) parent: String,
    pub(crate) terminal: bool,
    /// Signal number of the image's STOPSIGNAL.
    pub(crate) stop_signal: u32,
    /// `None`: output goes nowhere.
    pub(crate) log: Option<Log>,
    pub(crate) labels: BTreeMap<String, String>,
}

/// Where output goes, and how much of it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Log {
    pub(crate) path: PathBuf,
    pub(crate) max_size: u64,
    pub(crate) max_files: u32,
}

impl Stored {
    pub(crate) fn new(container: &CreateContainer, parent: &str, stop_signal: Option<&str>) -> Result<Self> {
        let spec = &container.spec;
        let log = match spec.log.driver {
            LogDriver::None => None,
            LogDriver::JsonFile => {
                let limits = crate::logs::Limits::parse(&spec.log.options).map_err(Fault::Invalid)?;
                Some(Log {
                    path: container.log_path.clone(),
                    max_size: limits.max_size,
                    max_files: limits.max_files,
                })
            }
        };
        let stop_signal = match stop_signal {
            None | Some("") => crate::signal::TERM,
            Some(name) => crate::signal::number(name).map_err(Fault::Invalid)?,
        };
        Ok(Self {
            parent: parent.to_owned(),
            terminal: spec.pseudo_terminal,
            stop_signal,
            log,
            labels: container.labels.clone(),
        })
    }
}

/// Which shim runs a container, and with which of its options.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Runtime<'a> {
    pub(crate) name: &'a str,
    pub(crate) systemd_cgroup: bool,
}

/// `containerd.runc.v1.Options`, the one field that we set. The whole message is not part of containerd's published API files.
#[derive(Clone, PartialEq, prost::Message)]
struct RuncOptions {
    #[prost(bool, tag = "9")]
    systemd_cgroup: bool,
}

/// The container's record for containerd.
pub(crate) fn record(
    container: &CreateContainer,
    stored: &Stored,
    spec: &oci_spec::runtime::Spec,
    snapshotter: String,
    runtime: Runtime<'_>,
) -> Result<Container> {
    let json = |e: serde_json::Error| Fault::Broken(format!("write the container's record: {e}"));
    let id = container.id.to_string();
    let any = |type_url: &str, value| Any { type_url: type_url.to_owned(), value };
    let options = runtime.systemd_cgroup.then(|| {
        let bytes = prost::Message::encode_to_vec(&RuncOptions { systemd_cgroup: true });
        any(RUNC_OPTIONS_TYPE, bytes)
    });
    let extensions = HashMap::from([
        (RECORD.to_owned(), any(RECORD_TYPE, container.record.clone())),
        (STORED.to_owned(), any(STORED_TYPE, serde_json::to_vec(stored).map_err(json)?)),
    ]);
    Ok(Container {
        id: id.clone(),
        labels: labels(container),
        image: container.spec.image.clone(),
        runtime: Some(containerd_client::services::v1::container::Runtime {
            name: runtime.name.to_owned(),
            options,
        }),
        spec: Some(any(SPEC_TYPE, serde_json::to_vec(spec).map_err(json)?)),
        snapshotter,
        snapshot_key: id,
        extensions,
        ..Container::default()
    })
}

fn labels(container: &CreateContainer) -> HashMap<String, String> {
    let own = [(LABEL_TASK, container.task.as_str()), (LABEL_NAME, &container.spec.name)];
    let own = own.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned()));
    let ecs = container
        .labels
        .iter()
        .filter(|(key, value)| key.starts_with(ECS_LABELS) && key.len() + value.len() <= MAX_LABEL);
    ecs.map(|(k, v)| (k.clone(), v.clone())).chain(own).collect()
}

/// What a container's record says, read back.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) task: TaskArn,
    pub(crate) name: String,
    pub(crate) record: Vec<u8>,
}

/// `None` for a container that is not ours.
pub(crate) fn found(container: &Container) -> Option<Found> {
    let task = container.labels.get(LABEL_TASK)?.parse().ok()?;
    let name = container.labels.get(LABEL_NAME)?.clone();
    let record = container.extensions.get(RECORD).map(|any| any.value.clone()).unwrap_or_default();
    Some(Found { task, name, record })
}

/// What starting it needs.
pub(crate) fn stored(container: &Container) -> Result<Stored> {
    let any = container.extensions.get(STORED);
    let any =
        any.ok_or_else(|| Fault::Broken(format!("container {} was not made by this agent", container.id)))?;
    serde_json::from_slice(&any.value)
        .map_err(|e| Fault::Broken(format!("container {}: its record does not parse: {e}", container.id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::{container_spec, create};

    #[test]
    fn what_is_stored_with_a_container_is_read_back_and_large_labels_do_not_break_it() {
        let mut container = create(container_spec());
        container.record = vec![1, 2, 3];
        container.labels = BTreeMap::from([
            ("com.amazonaws.ecs.cluster".to_owned(), "demo".to_owned()),
            ("mine".to_owned(), "x".repeat(10_000)),
        ]);
        let stored_in = Stored::new(&container, "sha256:00", Some("SIGINT")).unwrap();
        let runtime = Runtime { name: "r", systemd_cgroup: true };
        let record =
            record(&container, &stored_in, &oci_spec::runtime::Spec::default(), "overlayfs".into(), runtime)
                .unwrap();
        assert!(record.labels.iter().all(|(k, v)| k.len() + v.len() <= MAX_LABEL));
        assert_eq!(record.labels["com.amazonaws.ecs.cluster"], "demo");
        let found = found(&record).unwrap();
        assert_eq!((found.task, found.name.as_str(), found.record), (container.task, "web", vec![1, 2, 3]));
        let back = stored(&record).unwrap();
        assert_eq!(back, stored_in);
        assert_eq!((back.stop_signal, back.labels["mine"].len()), (2, 10_000));
    }
}
