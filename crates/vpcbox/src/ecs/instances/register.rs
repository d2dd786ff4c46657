//! RegisterContainerInstance: an agent says which EC2 instance it runs on, and what tasks can have there.
//!
//! The identity document is what IMDS gave the agent, with the seal that IMDS puts on it. An EC2 instance keeps its ARN for as long
//! as it is registered, however often and with whatever state its agent registers again.

use super::{ContainerInstance, MAX_INSTANCES, Resources, Status};
use crate::{
    ecs::{
        Call, Ecs,
        attributes::{self, Attributes},
        error::ApiError,
        input::Input,
        tags::{self, Tags},
    },
    keys::Caller,
    world::{AMI, ids::InstanceId, state::Instance},
};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Attributes of one registration. A Go agent sends about 70.
const MAX_ATTRIBUTES: usize = 200;

/// What an agent registers, read and checked.
struct Registration {
    cluster: String,
    ec2: String,
    ec2_type: String,
    enis: u32,
    version_info: Value,
    attributes: Attributes,
    resources: Resources,
    tags: Tags,
}

impl Ecs {
    pub(in crate::ecs) fn register_instance(
        &mut self,
        input: &Value,
        call: &mut Call<'_>,
    ) -> Result<Value, ApiError> {
        let input = Input::new(input)?;
        let cluster = self.cluster(input)?;
        let registration = read(input, cluster, call)?;
        let id = match self.registered(input, &registration)? {
            Some(id) => self.register_again(id, registration, call.now),
            None => self.register_new(registration, call.now)?,
        };
        let registered = self.instances.get(&id).map(|i| self.instance_json(i, true, call.now));
        Ok(json!({ "containerInstance": registered }))
    }

    /// The id under which this EC2 instance is registered, if it is.
    fn registered(&self, input: Input<'_>, new: &Registration) -> Result<Option<String>, ApiError> {
        let named = input.text("containerInstanceArn")?.filter(|arn| !arn.is_empty());
        let found = match named {
            Some(reference) => Some(self.active_instance(&new.cluster, reference)?),
            None => self.instances.values().find(|i| i.ec2 == new.ec2 && i.status != Status::Inactive),
        };
        let Some(found) = found else { return Ok(None) };
        if found.cluster != new.cluster {
            let message = format!("Container instance {} is registered in another cluster.", new.ec2);
            return Err(ApiError::client(message));
        }
        if found.ec2 != new.ec2 {
            let message = format!("Container instance {} belongs to another EC2 instance.", found.id);
            return Err(ApiError::client(message));
        }
        if found.ec2_type != new.ec2_type {
            return Err(ApiError::client("Container instance type changes are not supported."));
        }
        Ok(Some(found.id.clone()))
    }

    fn register_again(&mut self, id: String, new: Registration, now: Timestamp) -> String {
        if let Some(instance) = self.instances.get_mut(&id) {
            // What the agent can do may have changed with its version; what operators gave the instance is theirs.
            instance.attributes.retain(|name, _| attributes::is_custom(name));
            instance.attributes.extend(new.attributes);
            instance.resources = new.resources;
            instance.version_info = new.version_info;
            instance.tags.extend(new.tags);
            instance.version += 1;
            instance.heard_at = now;
        }
        id
    }

    fn register_new(&mut self, new: Registration, now: Timestamp) -> Result<String, ApiError> {
        if self.instances.len() >= MAX_INSTANCES {
            let message = format!("You have reached the limit of {MAX_INSTANCES} container instances.");
            return Err(ApiError::limit(message));
        }
        let id = self.names.fresh_id();
        let instance = ContainerInstance {
            id: id.clone(),
            cluster: new.cluster,
            ec2: new.ec2,
            ec2_type: new.ec2_type,
            status: Status::Active,
            heard_at: now,
            registered_at: now,
            ended_at: None,
            version: 1,
            version_info: new.version_info,
            attributes: new.attributes,
            resources: new.resources,
            enis: new.enis,
            tags: new.tags,
        };
        self.instances.insert(id.clone(), instance);
        Ok(id)
    }
}

fn read(input: Input<'_>, cluster: String, call: &mut Call<'_>) -> Result<Registration, ApiError> {
    let document = input.text("instanceIdentityDocument")?.unwrap_or_default();
    let signature = input.text("instanceIdentityDocumentSignature")?.unwrap_or_default();
    if call.auth && !call.keys.is_sealed(document, signature) {
        return Err(ApiError::client("The instance identity document's signature does not verify."));
    }
    let document: Value = serde_json::from_str(document)
        .map_err(|_| ApiError::invalid("The instance identity document is not valid JSON."))?;
    let document = Input::new(&document)?;
    let ec2 = document.required("instanceId", "The instance identity document names no instance.")?;
    if let Caller::Instance(own) = call.caller
        && own != ec2
    {
        return Err(ApiError::client("The instance identity document is another instance's."));
    }
    let state = call.world.current(call.now);
    let found = InstanceId::parse(ec2).ok().and_then(|id| state.site.instances.get(&id));
    let instance = found.ok_or_else(|| ApiError::client(format!("EC2 instance {ec2} does not exist.")))?;
    let zone = state.site.subnets.get(&instance.subnet).map(|s| s.zone.clone()).unwrap_or_default();
    let ec2_type = document.text("instanceType")?.unwrap_or(instance.kind.name).to_owned();
    Ok(Registration {
        cluster,
        ec2: ec2.to_owned(),
        enis: instance.kind.max_enis.saturating_sub(1),
        version_info: version_info(input)?,
        attributes: attributes(input, instance, &ec2_type, zone)?,
        ec2_type,
        resources: resources(input)?,
        tags: tags::read(input, "tags")?,
    })
}

/// What the agent says, and what ECS knows of the EC2 instance.
fn attributes(
    input: Input<'_>,
    instance: &Instance,
    ec2_type: &str,
    zone: String,
) -> Result<Attributes, ApiError> {
    let mut all = attributes::read(input, MAX_ATTRIBUTES)?;
    let known = [
        ("ecs.availability-zone", zone),
        ("ecs.instance-type", ec2_type.to_owned()),
        ("ecs.ami-id", AMI.to_owned()),
        ("ecs.cpu-architecture", instance.kind.architecture.to_owned()),
        ("ecs.os-type", "linux".to_owned()),
    ];
    for (name, value) in known {
        // The agent's own word stands: it compares what comes back with what it sent.
        all.entry(name.to_owned()).or_insert(Some(value));
    }
    Ok(all)
}

fn version_info(input: Input<'_>) -> Result<Value, ApiError> {
    let mut known = json!({});
    if let Some(info) = input.object("versionInfo")? {
        for member in ["agentVersion", "agentHash", "dockerVersion"] {
            if let Some(text) = info.text(member)? {
                known[member] = json!(text);
            }
        }
    }
    Ok(known)
}

fn resources(input: Input<'_>) -> Result<Resources, ApiError> {
    let mut resources = Resources::default();
    for resource in input.objects("totalResources")? {
        let number = resource.integer("integerValue")?.unwrap_or_default();
        let set = || -> Result<Vec<String>, ApiError> {
            Ok(resource.texts("stringSetValue")?.into_iter().map(str::to_owned).collect())
        };
        match resource.required("name", "Resource name can not be blank.")? {
            "CPU" => resources.cpu = number,
            "MEMORY" => resources.memory = number,
            "PORTS" => resources.ports = set()?,
            "PORTS_UDP" => resources.ports_udp = set()?,
            // Devices, which nothing here hands out.
            _ => {}
        }
    }
    if resources.cpu < 0 || resources.memory < 0 {
        return Err(ApiError::invalid("totalResources must not be negative."));
    }
    Ok(resources)
}
