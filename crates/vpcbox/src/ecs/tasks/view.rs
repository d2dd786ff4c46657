//! A task as replies show it.

use super::{Container, Task};
use crate::ecs::{epoch, names::Names, tags};
use serde_json::{Map, Value, json};

impl Task {
    /// What is wanted of it.
    pub(super) fn desired(&self) -> &'static str {
        if self.stop_wanted { "STOPPED" } else { "RUNNING" }
    }

    pub(super) fn json(&self, names: &Names, with_tags: bool) -> Value {
        let mut shown = json!({
            "taskArn": self.arn,
            "clusterArn": names.cluster(&self.cluster),
            "containerInstanceArn": names.instance(&self.cluster, &self.instance),
            "taskDefinitionArn": self.definition,
            "group": self.group,
            "launchType": "EC2",
            "lastStatus": self.last.as_str(),
            "desiredStatus": self.desired(),
            "healthStatus": "UNKNOWN",
            "cpu": self.cpu,
            "memory": self.memory,
            "enableExecuteCommand": self.exec,
            "overrides": self.overrides.json(self.containers.iter().map(|c| c.name.as_str())),
            "containers": self.containers.iter().map(|c| self.container_json(c)).collect::<Value>(),
            "attachments": self.attachment.iter().map(|a| a.json(self.network.as_ref())).collect::<Value>(),
            "attributes": self.attributes(),
            "tags": if with_tags { tags::write(&self.tags) } else { json!([]) },
            "version": self.version,
        });
        if let Value::Object(members) = &mut shown {
            members.extend(self.known_times());
            let texts = [
                ("startedBy", self.started_by.as_deref()),
                ("availabilityZone", self.zone.as_deref()),
                ("stopCode", self.stop_code),
                ("stoppedReason", self.stopped_reason.as_deref()),
                ("connectivity", self.times.connectivity.map(|_| "CONNECTED")),
            ];
            let known = texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), json!(text?))));
            members.extend(known);
        }
        shown
    }

    fn known_times(&self) -> Map<String, Value> {
        let times = &self.times;
        let named = [
            ("createdAt", Some(times.created)),
            ("connectivityAt", times.connectivity),
            ("pullStartedAt", times.pull_started),
            ("pullStoppedAt", times.pull_stopped),
            ("startedAt", times.started),
            ("stoppingAt", times.stopping),
            ("executionStoppedAt", times.execution_stopped),
            ("stoppedAt", times.stopped),
        ];
        named.into_iter().filter_map(|(name, time)| Some((name.to_owned(), epoch(time?)))).collect()
    }

    fn attributes(&self) -> Value {
        let architecture = self.architecture.iter();
        architecture.map(|value| json!({ "name": "ecs.cpu-architecture", "value": value })).collect()
    }

    fn container_json(&self, container: &Container) -> Value {
        let interface = self.attachment.as_ref().zip(self.network.as_ref());
        let interfaces: Value = interface.iter().map(|(a, network)| network.interface(&a.id)).collect();
        let mut shown = json!({
            "containerArn": container.arn,
            "taskArn": self.arn,
            "name": container.name,
            "image": container.image,
            "lastStatus": container.status.as_str(),
            "healthStatus": "UNKNOWN",
            "networkBindings": container.network_bindings,
            "networkInterfaces": interfaces,
            "cpu": container.cpu.to_string(),
        });
        let number = |value: Option<i64>| value.map(|value| json!(value.to_string()));
        let known = [
            ("memory", number(container.memory)),
            ("memoryReservation", number(container.memory_reservation)),
            ("exitCode", container.exit_code.map(|code| json!(code))),
            ("reason", container.reason.as_ref().map(|reason| json!(reason))),
            ("runtimeId", container.runtime_id.as_ref().map(|id| json!(id))),
            ("imageDigest", container.image_digest.as_ref().map(|digest| json!(digest))),
        ];
        for (name, value) in known {
            if let Some(value) = value {
                shown[name] = value;
            }
        }
        shown
    }
}
