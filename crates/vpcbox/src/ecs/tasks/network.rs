//! The network of awsvpc tasks: what a call may ask for, and which ENI a task turned out to have.
//!
//! The box does not choose the ENI, as ECS would: the agent leases one of its own and tags it with the task's ARN. So a task is
//! born with an attachment that names the subnet and the groups that were asked for, and the ENI is looked up when the task is
//! described.

use crate::{
    ecs::{error::ApiError, input::Input},
    world::{
        World,
        ids::{GroupId, InstanceId, SubnetId},
        state::State,
    },
};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// ECS's limits.
const MAX_SUBNETS: usize = 16;
const MAX_GROUPS: usize = 5;

/// What a call says in `networkConfiguration`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Configuration {
    /// Subnets and their zones.
    subnets: Vec<(String, String)>,
    groups: Vec<String>,
}

impl Configuration {
    /// Reads what an awsvpc task needs; other tasks must not have it.
    pub(super) fn read(
        input: Input<'_>,
        is_awsvpc: bool,
        world: &mut World,
        now: Timestamp,
    ) -> Result<Option<Self>, ApiError> {
        let given = input.object("networkConfiguration")?.map(|n| n.object("awsvpcConfiguration"));
        let given = match (is_awsvpc, given.transpose()?.flatten()) {
            (true, Some(given)) => given,
            (true, None) => {
                let message =
                    "Network Configuration must be provided when networkMode 'awsvpc' is specified.";
                return Err(ApiError::invalid(message));
            }
            (false, None) => return Ok(None),
            (false, Some(_)) => {
                let message =
                    "Network Configuration is not valid for the given networkMode of this task definition.";
                return Err(ApiError::invalid(message));
            }
        };
        let (subnets, groups) = (given.texts("subnets")?, given.texts("securityGroups")?);
        check_lengths(&subnets, &groups)?;
        if given.one_of("assignPublicIp", &["ENABLED", "DISABLED"])? == Some("ENABLED") {
            return Err(ApiError::invalid("Assign public IP is not supported for this launch type."));
        }
        let state = world.current(now);
        let subnets = subnets.into_iter().map(|id| subnet(state, id)).collect::<Result<_, _>>()?;
        let groups = groups.into_iter().map(|id| group(state, id)).collect::<Result<Vec<_>, _>>()?;
        let default = || vec![state.site.default_group.to_string()];
        Ok(Some(Self { subnets, groups: if groups.is_empty() { default() } else { groups } }))
    }

    /// The zones that the subnets are in.
    pub(super) fn zones(&self) -> BTreeSet<String> {
        self.subnets.iter().map(|(_, zone)| zone.clone()).collect()
    }

    /// What a task on an instance of this zone gets.
    pub(super) fn attachment(&self, id: String, zone: Option<&str>) -> TaskAttachment {
        let fitting = self.subnets.iter().find(|(_, of)| Some(of.as_str()) == zone);
        let subnet = fitting.or(self.subnets.first()).map(|(id, _)| id.clone()).unwrap_or_default();
        TaskAttachment { id, status: "PRECREATED".to_owned(), subnet, groups: self.groups.clone() }
    }
}

fn check_lengths(subnets: &[&str], groups: &[&str]) -> Result<(), ApiError> {
    if subnets.is_empty() {
        return Err(ApiError::invalid("subnets can not be empty."));
    }
    if subnets.len() > MAX_SUBNETS {
        return Err(ApiError::invalid(format!("subnets can have at most {MAX_SUBNETS} items.")));
    }
    if groups.len() > MAX_GROUPS {
        return Err(ApiError::invalid(format!("securityGroups can have at most {MAX_GROUPS} items.")));
    }
    Ok(())
}

fn subnet(state: &State, id: &str) -> Result<(String, String), ApiError> {
    let found = SubnetId::parse(id).and_then(|parsed| {
        state.site.subnets.get(&parsed).map(|s| s.zone.clone()).ok_or_else(|| parsed.not_found())
    });
    found.map(|zone| (id.to_owned(), zone)).map_err(|refusal| {
        ApiError::invalid(format!(
            "Error retrieving subnet information for [{id}]: {refusal} (ErrorCode: {})",
            refusal.code()
        ))
    })
}

fn group(state: &State, id: &str) -> Result<String, ApiError> {
    let found = GroupId::parse(id)
        .and_then(|parsed| if state.groups.contains_key(&parsed) { Ok(()) } else { Err(parsed.not_found()) });
    found.map(|()| id.to_owned()).map_err(|refusal| {
        ApiError::invalid(format!(
            "Error retrieving security group information for [{id}]: {refusal} (ErrorCode: {})",
            refusal.code()
        ))
    })
}

/// The `ElasticNetworkInterface` attachment of a task.
#[derive(Debug)]
pub(super) struct TaskAttachment {
    /// A UUID, the last part of its ARN.
    pub(super) id: String,
    pub(super) status: String,
    subnet: String,
    groups: Vec<String>,
}

impl TaskAttachment {
    pub(super) fn end(&mut self) {
        "DELETED".clone_into(&mut self.status);
    }

    pub(super) fn json(&self, network: Option<&Network>) -> Value {
        let mut details = vec![("subnetId", self.subnet.clone()), ("securityGroups", self.groups.join(","))];
        if let Some(network) = network {
            details.push(("networkInterfaceId", network.eni.clone()));
            details.push(("macAddress", network.mac.clone()));
            details.push(("privateDnsName", network.dns_name.clone()));
            details.push(("privateIPv4Address", network.ipv4.clone()));
            if let Some(ipv6) = &network.ipv6 {
                details.push(("ipv6Address", ipv6.clone()));
            }
        }
        let details: Value =
            details.into_iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        json!({
            "id": self.id,
            "type": "ElasticNetworkInterface",
            "status": self.status,
            "details": details,
        })
    }
}

/// The ENI that a task has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) eni: String,
    mac: String,
    dns_name: String,
    pub(super) ipv4: String,
    ipv6: Option<String>,
}

impl Network {
    /// The ENI on this EC2 instance that some tag gives to the task. Agents choose the tag's key.
    pub(super) fn find(state: &State, ec2: &str, task: &str) -> Option<Self> {
        let instance = InstanceId::parse(ec2).ok()?;
        let attached = state.attached_to(&instance);
        let (eni, _) = attached
            .into_iter()
            .find(|(eni, _)| state.tags_of(eni.id.as_str()).any(|(_, value)| value == task))?;
        Some(Self {
            eni: eni.id.to_string(),
            mac: eni.mac.to_string(),
            dns_name: state.dns_name(eni.primary_ipv4()),
            ipv4: eni.primary_ipv4().to_string(),
            ipv6: eni.ipv6.first().map(ToString::to_string),
        })
    }

    /// As containers show it.
    pub(super) fn interface(&self, attachment: &str) -> Value {
        let mut shown = json!({ "attachmentId": attachment, "privateIpv4Address": self.ipv4 });
        if let Some(ipv6) = &self.ipv6 {
            shown["ipv6Address"] = json!(ipv6);
        }
        shown
    }
}
