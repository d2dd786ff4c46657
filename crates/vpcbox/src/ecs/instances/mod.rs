//! Container instances: what they are, how they are named, found and shown. `register` makes them, `manage` is what operators do
//! with them.

mod manage;
mod register;

use super::{
    Call, Ecs,
    clusters::missing,
    epoch,
    error::ApiError,
    input::Input,
    paging,
    tags::{self, Tags},
    tasks::{Task, TaskStatus},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// Container instances at a time, those included that are remembered after their end. A box with more instances than this would
/// not fit on a machine.
const MAX_INSTANCES: usize = 1000;
/// How long an instance is remembered after it was deregistered; AWS says "a short time".
const REMEMBERED: Duration = Duration::from_secs(3600);
/// ECS's limit.
const MAX_DESCRIBED: usize = 100;

/// Whether an instance takes tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// It takes tasks.
    Active,
    /// It keeps its tasks and takes no new ones.
    Draining,
    /// It was deregistered then.
    Inactive,
}

impl Status {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Draining => "DRAINING",
            Self::Inactive => "INACTIVE",
        }
    }
}

/// An instance in its cluster.
#[derive(Debug)]
pub(super) struct ContainerInstance {
    /// The last part of its ARN.
    pub(super) id: String,
    /// The name of its cluster.
    pub(super) cluster: String,
    /// The EC2 instance.
    pub(super) ec2: String,
    /// Its type when it registered first.
    pub(super) ec2_type: String,
    /// Whether it takes tasks.
    pub(super) status: Status,
    /// When its agent made its last call.
    pub(super) heard_at: Timestamp,
    /// When it registered first.
    pub(super) registered_at: Timestamp,
    /// When it was deregistered.
    pub(super) ended_at: Option<Timestamp>,
    /// Grows with each change.
    pub(super) version: u64,
    /// As its agent said.
    pub(super) version_info: Value,
    /// With or without a value.
    pub(super) attributes: BTreeMap<String, Option<String>>,
    /// What its agent registered.
    pub(super) resources: Resources,
    /// ENIs that tasks can have: what the type holds without the primary.
    pub(super) enis: u32,
    /// Its tags.
    pub(super) tags: Tags,
}

/// What tasks can have of an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Resources {
    /// CPU units, 1024 for each core.
    pub(super) cpu: i64,
    /// MiB.
    pub(super) memory: i64,
    /// TCP ports that tasks cannot have.
    pub(super) ports: Vec<String>,
    /// UDP ports that tasks cannot have.
    pub(super) ports_udp: Vec<String>,
}

impl Resources {
    fn json(&self) -> Value {
        let number = |name: &str, value: i64| {
            json!({
                "name": name,
                "type": "INTEGER",
                "doubleValue": 0.0,
                "longValue": 0,
                "integerValue": value,
            })
        };
        let set = |name: &str, values: &[String]| {
            json!({
                "name": name,
                "type": "STRINGSET",
                "doubleValue": 0.0,
                "longValue": 0,
                "integerValue": 0,
                "stringSetValue": values,
            })
        };
        json!([
            number("CPU", self.cpu),
            number("MEMORY", self.memory),
            set("PORTS", &self.ports),
            set("PORTS_UDP", &self.ports_udp),
        ])
    }
}

impl Ecs {
    /// The ARN of an instance.
    pub(super) fn instance_arn(&self, instance: &ContainerInstance) -> String {
        self.names.instance(&instance.cluster, &instance.id)
    }

    /// The instance of this name in a cluster, whatever its status.
    pub(super) fn find_instance(&self, cluster: &str, reference: &str) -> Option<&ContainerInstance> {
        let reference = self.names.reference("container-instance", reference)?;
        let found = self.instances.get(reference.id).filter(|instance| instance.cluster == cluster)?;
        reference.cluster.is_none_or(|named| named == cluster).then_some(found)
    }

    /// The instance of this name in a cluster.
    pub(super) fn instance(&self, cluster: &str, reference: &str) -> Result<&ContainerInstance, ApiError> {
        self.find_instance(cluster, reference)
            .ok_or_else(|| ApiError::invalid(format!("Referenced container instance {reference} not found.")))
    }

    /// The same, if it has not been deregistered.
    pub(super) fn active_instance(
        &self,
        cluster: &str,
        reference: &str,
    ) -> Result<&ContainerInstance, ApiError> {
        let instance = self.instance(cluster, reference)?;
        if instance.status == Status::Inactive {
            let message = format!("Referenced container instance {reference} is inactive.");
            return Err(ApiError::client(message));
        }
        Ok(instance)
    }

    /// The agent of this instance has called.
    pub(super) fn heard_from(&mut self, id: &str, now: Timestamp) {
        if let Some(instance) = self.instances.get_mut(id) {
            instance.heard_at = instance.heard_at.max(now);
        }
    }

    /// The agent on this EC2 instance has called.
    pub(super) fn heard_from_ec2(&mut self, ec2: &str, now: Timestamp) {
        for instance in self.instances.values_mut().filter(|i| i.ec2 == ec2 && i.status != Status::Inactive) {
            instance.heard_at = instance.heard_at.max(now);
        }
    }

    /// Whether the agent of an instance has called lately.
    pub(super) fn is_connected(&self, instance: &ContainerInstance, now: Timestamp) -> bool {
        instance.status != Status::Inactive && instance.heard_at + self.agent_silence > now
    }

    /// Tasks of an instance that have not stopped.
    pub(super) fn tasks_on<'a>(&'a self, instance: &'a str) -> impl Iterator<Item = &'a Task> {
        self.tasks.values().filter(move |task| task.instance == instance && task.last != TaskStatus::Stopped)
    }

    /// What an instance has left for new tasks.
    pub(super) fn remaining(&self, instance: &ContainerInstance) -> Resources {
        let mut left = instance.resources.clone();
        for task in self.tasks_on(&instance.id) {
            left.cpu -= task.needs.cpu;
            left.memory -= task.needs.memory;
        }
        left
    }

    /// ENIs that an instance has left for new tasks.
    pub(super) fn enis_left(&self, instance: &ContainerInstance) -> u32 {
        let held: u32 = self.tasks_on(&instance.id).map(|task| task.needs.enis).sum();
        instance.enis.saturating_sub(held)
    }

    /// How many instances of a cluster are registered.
    pub(super) fn registered_in(&self, cluster: &str) -> usize {
        let registered = |i: &&ContainerInstance| i.cluster == cluster && i.status != Status::Inactive;
        self.instances.values().filter(registered).count()
    }

    pub(super) fn describe_instances(
        &mut self,
        input: &Value,
        call: &mut Call<'_>,
    ) -> Result<Value, ApiError> {
        let input = Input::new(input)?;
        let cluster = self.cluster(input)?;
        let references = input.texts("containerInstances")?;
        let with_tags = input.includes("include", &["CONTAINER_INSTANCE_HEALTH", "TAGS"], "TAGS")?;
        if references.is_empty() {
            return Err(ApiError::invalid("Container instances cannot be empty."));
        }
        if references.len() > MAX_DESCRIBED {
            let message = format!("instanceIds can have at most {MAX_DESCRIBED} items.");
            return Err(ApiError::invalid(message));
        }
        let (mut found, mut failures) = (Vec::new(), Vec::new());
        for reference in references {
            match self.find_instance(&cluster, reference) {
                Some(instance) => found.push(self.instance_json(instance, with_tags, call.now)),
                None => failures.push(self.missing_instance(&cluster, reference)),
            }
        }
        Ok(json!({ "containerInstances": found, "failures": failures }))
    }

    pub(super) fn list_instances(&mut self, input: &Value, _call: &mut Call<'_>) -> Result<Value, ApiError> {
        let input = Input::new(input)?;
        let cluster = self.cluster(input)?;
        let allowed = ["ACTIVE", "DRAINING", "REGISTERING", "DEREGISTERING", "REGISTRATION_FAILED"];
        let status = input.one_of("status", &allowed)?;
        if input.text("filter")?.is_some_and(|filter| !filter.is_empty()) {
            return Err(ApiError::invalid("vpcbox does not evaluate cluster query expressions: filter."));
        }
        let wanted = |instance: &&ContainerInstance| {
            instance.cluster == cluster
                && instance.status != Status::Inactive
                && status.is_none_or(|status| instance.status.as_str() == status)
        };
        let arns = self.instances.values().filter(wanted).map(|i| self.instance_arn(i)).collect();
        paging::page(input, "containerInstanceArns", arns)
    }

    /// What is said of an instance that is not there.
    pub(super) fn missing_instance(&self, cluster: &str, reference: &str) -> Value {
        if reference.starts_with("arn:") {
            return missing(reference);
        }
        missing(&self.names.instance(cluster, reference))
    }

    pub(super) fn instance_json(
        &self,
        instance: &ContainerInstance,
        with_tags: bool,
        now: Timestamp,
    ) -> Value {
        let running = self.tasks_on(&instance.id).filter(|task| task.last.counts_as_running()).count();
        let pending = self.tasks_on(&instance.id).filter(|task| task.last.counts_as_pending()).count();
        json!({
            "containerInstanceArn": self.instance_arn(instance),
            "ec2InstanceId": instance.ec2,
            "version": instance.version,
            "versionInfo": instance.version_info,
            "remainingResources": self.remaining(instance).json(),
            "registeredResources": instance.resources.json(),
            "status": instance.status.as_str(),
            "agentConnected": self.is_connected(instance, now),
            "runningTasksCount": running,
            "pendingTasksCount": pending,
            "attributes": instance.attributes.iter().map(attribute_json).collect::<Value>(),
            "registeredAt": epoch(instance.registered_at),
            "attachments": [],
            "tags": if with_tags { tags::write(&instance.tags) } else { json!([]) },
        })
    }

    /// Drops instances that ended long ago.
    pub(super) fn forget_inactive_instances(&mut self, now: Timestamp) {
        self.instances.retain(|_, instance| instance.ended_at.is_none_or(|end| end + REMEMBERED > now));
    }
}

fn attribute_json((name, value): (&String, &Option<String>)) -> Value {
    match value {
        Some(value) => json!({ "name": name, "value": value }),
        None => json!({ "name": name }),
    }
}
