//! One task's bodies: a task snapshot, the slot it leases and the instance's facts, rendered at the first request for each body and
//! kept as bytes until the task or its lease changes ([`crate::endpoint`] then makes a new `TaskView`).

use crate::{
    config::MetadataConfig,
    gojson::{self, VCpu},
    route::Version,
    shapes::{Container, ContainerLimits, NetworkV3, NetworkV4, Port, TaskLimits, TaskV3, TaskV4, Volume},
};
use berth_types::{
    eni::SlotFacts,
    ids::{ContainerId, TaskArn},
    task::{ContainerSnapshot, ContainerSpec, ContainerStatus, TaskSnapshot, TaskStatus},
};
use bytes::Bytes;
use ipnet::{Ipv4Net, Ipv6Net};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

/// The least CPU shares a container can have; the kernel rounds smaller values up to it, and the official agent shows that.
const MIN_CPU_SHARES: u32 = 2;

/// The official agent derives a dual-stack ENI's IPv6 block with this length, whatever the subnet's own is.
const IPV6_BLOCK: u8 = 64;

/// Rendered once; `None` is a body that could not be rendered.
type Body = OnceLock<Option<Bytes>>;

/// What one task may know of itself, as of one state of it.
#[derive(Debug)]
pub(crate) struct TaskView {
    config: Arc<MetadataConfig>,
    task: Arc<TaskSnapshot>,
    slot: Arc<SlotFacts>,
    bodies: Bodies,
    /// In the order of `task.containers`.
    containers: Vec<Bodies>,
}

#[derive(Debug, Default)]
struct Bodies {
    v3: Body,
    v4: Body,
}

impl Bodies {
    fn of(&self, version: Version) -> &Body {
        match version {
            Version::V3 => &self.v3,
            Version::V4 => &self.v4,
        }
    }
}

impl TaskView {
    pub(crate) fn new(config: Arc<MetadataConfig>, task: Arc<TaskSnapshot>, slot: Arc<SlotFacts>) -> Self {
        let containers = task.containers.iter().map(|_| Bodies::default()).collect();
        Self { config, task, slot, bodies: Bodies::default(), containers }
    }

    /// Whether it was made of these very values. Both are held here, so an address cannot have come to mean another value.
    pub(crate) fn is_of(&self, task: &Arc<TaskSnapshot>, slot: &Arc<SlotFacts>) -> bool {
        Arc::ptr_eq(&self.task, task) && Arc::ptr_eq(&self.slot, slot)
    }

    pub(crate) fn arn(&self) -> &TaskArn {
        &self.task.spec.arn
    }

    /// Position of the container with this endpoint id.
    pub(crate) fn container_at(&self, endpoint_id: &str) -> Option<usize> {
        self.task
            .containers
            .iter()
            .position(|c| self.spec_of(c).is_some_and(|spec| spec.endpoint_id.as_str() == endpoint_id))
    }

    /// The id in containerd of the container at this position, for messages.
    pub(crate) fn docker_id(&self, at: usize) -> &str {
        self.task.containers.get(at).map_or("", docker_id)
    }

    /// The task's body.
    pub(crate) fn task(&self, version: Version) -> Option<Bytes> {
        let body = self.bodies.of(version).get_or_init(|| match version {
            Version::V3 => self.render(&self.task_v3()),
            Version::V4 => self.render(&self.task_v4()),
        });
        body.clone()
    }

    /// The body of the container at this position.
    pub(crate) fn container(&self, version: Version, at: usize) -> Option<Bytes> {
        let (snapshot, bodies) = (self.task.containers.get(at)?, self.containers.get(at)?);
        let spec = self.spec_of(snapshot)?;
        bodies.of(version).get_or_init(|| self.render(&self.container_shape(version, snapshot, spec))).clone()
    }

    fn render<T: Serialize>(&self, shape: &T) -> Option<Bytes> {
        gojson::to_bytes(shape)
            .inspect_err(|error| tracing::error!(task = %self.arn(), %error, "metadata body not rendered"))
            .ok()
    }

    fn spec_of(&self, container: &ContainerSnapshot) -> Option<&ContainerSpec> {
        self.task.spec.containers.get(container.index)
    }

    fn task_v3(&self) -> TaskV3<'_> {
        let (task, spec) = (&*self.task, &*self.task.spec);
        TaskV3 {
            cluster: &self.config.cluster,
            task_arn: spec.arn.as_str(),
            family: &spec.family,
            revision: &spec.revision,
            desired_status: desired(task.desired == TaskStatus::Stopped),
            known_status: task.known.as_str(),
            containers: self.container_shapes(Version::V3),
            limits: self.task_limits(),
            pull_started_at: task.pull_started_at,
            pull_stopped_at: task.pull_stopped_at,
            execution_stopped_at: task.execution_stopped_at,
            availability_zone: self.config.availability_zone.as_deref(),
        }
    }

    fn task_v4(&self) -> TaskV4<'_> {
        let (task, spec) = (&*self.task, &*self.task.spec);
        TaskV4 {
            cluster: &self.config.cluster,
            task_arn: spec.arn.as_str(),
            family: &spec.family,
            revision: &spec.revision,
            desired_status: desired(task.desired == TaskStatus::Stopped),
            known_status: task.known.as_str(),
            limits: self.task_limits(),
            pull_started_at: task.pull_started_at,
            pull_stopped_at: task.pull_stopped_at,
            execution_stopped_at: task.execution_stopped_at,
            availability_zone: self.config.availability_zone.as_deref(),
            launch_type: &spec.launch_type,
            containers: self.container_shapes(Version::V4),
            vpc_id: self.config.vpc.as_str(),
            service_name: non_empty(spec.service_name.as_deref()),
            group: non_empty(spec.group.as_deref()),
            fault_injection_enabled: spec.enable_fault_injection,
            availability_zone_id: self.config.availability_zone_id.as_deref(),
        }
    }

    fn task_limits(&self) -> Option<TaskLimits> {
        let cpu = self.task.spec.cpu.filter(|&units| units > 0).map(VCpu);
        let memory = self.task.spec.memory.unwrap_or(0);
        (cpu.is_some() || memory > 0).then_some(TaskLimits { cpu, memory })
    }

    fn container_shapes(&self, version: Version) -> Vec<Container<'_>> {
        let known = self.task.containers.iter().filter_map(|c| Some((c, self.spec_of(c)?)));
        known.map(|(c, spec)| self.container_shape(version, c, spec)).collect()
    }

    fn container_shape<'a>(
        &'a self,
        version: Version,
        container: &'a ContainerSnapshot,
        spec: &'a ContainerSpec,
    ) -> Container<'a> {
        let v4 = version == Version::V4;
        let port = |p: &'a berth_types::task::PortMapping| Port {
            container_port: p.container_port,
            protocol: &p.protocol,
            host_port: p.container_port,
        };
        let volume = |v: &'a berth_types::task::VolumeView| Volume {
            docker_name: &v.docker_name,
            source: v.source.to_string_lossy(),
            destination: &v.destination,
        };
        Container {
            docker_id: docker_id(container),
            name: &spec.name,
            docker_name: &container.docker_name,
            image: &spec.image,
            image_id: container.image_id.as_deref().unwrap_or_default(),
            ports: spec.port_mappings.iter().map(port).collect(),
            labels: self.labels(spec),
            desired_status: desired(container.desired == ContainerStatus::Stopped),
            known_status: container.known.as_str(),
            exit_code: container.exit_code,
            limits: ContainerLimits { cpu: spec.cpu.max(MIN_CPU_SHARES), memory: spec.memory.unwrap_or(0) },
            created_at: container.created_at,
            started_at: container.started_at,
            finished_at: container.finished_at,
            kind: "NORMAL",
            networks_v3: (!v4).then(|| [self.network_v3()]),
            volumes: container.volumes.iter().map(volume).collect(),
            log_driver: v4.then(|| spec.log.driver.as_str()),
            log_options: (v4 && !spec.log.options.is_empty()).then_some(&spec.log.options),
            container_arn: v4.then(|| container_arn(self.arn(), &spec.name)),
            networks_v4: v4.then(|| [self.network_v4()]),
        }
    }

    /// The user's labels, with those that the agent sets laid over them.
    fn labels<'a>(&'a self, container: &'a ContainerSpec) -> BTreeMap<&'a str, &'a str> {
        let task = &*self.task.spec;
        let users = container.docker_labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let agents = [
            ("com.amazonaws.ecs.cluster", task.cluster.as_str()),
            ("com.amazonaws.ecs.container-name", &container.name),
            ("com.amazonaws.ecs.task-arn", task.arn.as_str()),
            ("com.amazonaws.ecs.task-definition-family", &task.family),
            ("com.amazonaws.ecs.task-definition-version", &task.revision),
        ];
        users.chain(agents).collect()
    }

    fn network_v3(&self) -> NetworkV3<'_> {
        NetworkV3 { network_mode: "awsvpc", ipv4_addresses: &self.slot.ipv4, ipv6_addresses: &self.slot.ipv6 }
    }

    fn network_v4(&self) -> NetworkV4<'_> {
        let slot = &*self.slot;
        let block = |address| Ipv6Net::new(address, IPV6_BLOCK).ok().map(|net| net.trunc().to_string());
        NetworkV4 {
            network_mode: "awsvpc",
            ipv4_addresses: &slot.ipv4,
            ipv6_addresses: &slot.ipv6,
            // A task has one ENI.
            attachment_index: 0,
            mac_address: slot.mac.to_string(),
            ipv4_subnet_cidr_block: slot.subnet_ipv4.trunc().to_string(),
            ipv6_subnet_cidr_block: slot.ipv6.first().copied().and_then(block),
            domain_name_servers: &slot.dns_servers,
            domain_name_search_list: &slot.dns_search,
            private_dns_name: &slot.private_dns_name,
            subnet_gateway_ipv4_address: gateway_with_prefix(slot),
        }
    }
}

/// The ARN of a task's container. The agent names containers itself and ECS has no say in it yet, so it is derived from what
/// does not change in the container's life: a restart that makes a new container keeps the ARN.
fn container_arn(task: &TaskArn, container: &str) -> String {
    let id = ContainerId::derive(task, container, 0);
    let hex = id.as_str();
    // The digits of version (8: of our own making) and variant, so that UUID parsers take it.
    let uuid = format!("{}-{}-8{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32]);
    let (head, tail) = task.as_str().split_once(":task/").unwrap_or((task.as_str(), ""));
    format!("{head}:container/{tail}/{uuid}")
}

/// Empty until the container exists: its id is decided on earlier, but nothing answers to it yet.
fn docker_id(container: &ContainerSnapshot) -> &str {
    let exists = container.created_at.is_some()
        || matches!(container.known, ContainerStatus::Created | ContainerStatus::Running);
    container.id.as_ref().filter(|_| exists).map_or("", ContainerId::as_str)
}

fn desired(stopped: bool) -> &'static str {
    if stopped { "STOPPED" } else { "RUNNING" }
}

fn non_empty(text: Option<&str>) -> Option<&str> {
    text.filter(|t| !t.is_empty())
}

fn gateway_with_prefix(slot: &SlotFacts) -> String {
    let prefix = Ipv4Net::prefix_len(&slot.subnet_ipv4);
    format!("{}/{prefix}", slot.gateway_ipv4)
}

#[cfg(test)]
mod tests;
