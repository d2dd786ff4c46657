//! The EC2 query API: parameters in, XML out.
//!
//! [`answer`] is the whole of it: it names the action, asks the [`World`], and writes the reply. It knows
//! nothing of sockets, signatures and faults, which are [`crate::service`]'s; one module per family of actions knows their
//! parameters and elements.

mod changes;
pub mod error;
pub mod filters;
mod groups;
mod instances;
mod interfaces;
mod network;
pub mod paging;
pub mod params;
mod permissions;
mod rules;
mod tagging;
#[cfg(test)]
mod tests;
pub mod xml;

use crate::world::World;
use error::ApiError;
use jiff::Timestamp;
use params::Params;
use xml::Xml;

/// Reads its parameters, acts, writes its elements. What it has written is thrown away when it fails.
type Action = fn(Params, &mut World, Timestamp, &mut Xml) -> Result<(), ApiError>;

/// All actions, by name.
const ACTIONS: &[(&str, Action)] = &[
    ("AssignPrivateIpAddresses", changes::assign),
    ("AttachNetworkInterface", changes::attach),
    ("AuthorizeSecurityGroupEgress", rules::authorize_egress),
    ("AuthorizeSecurityGroupIngress", rules::authorize_ingress),
    ("CreateNetworkInterface", changes::create),
    ("CreateSecurityGroup", groups::create),
    ("CreateTags", tagging::create),
    ("DeleteNetworkInterface", changes::delete),
    ("DeleteSecurityGroup", groups::delete),
    ("DeleteTags", tagging::delete),
    ("DescribeInstanceTypes", instances::describe_types),
    ("DescribeInstances", instances::describe),
    ("DescribeNetworkInterfaceAttribute", interfaces::describe_attribute),
    ("DescribeNetworkInterfaces", interfaces::describe),
    ("DescribeSecurityGroupRules", rules::describe),
    ("DescribeSecurityGroups", groups::describe),
    ("DescribeSubnets", network::describe_subnets),
    ("DescribeTags", tagging::describe),
    ("DescribeVpcs", network::describe_vpcs),
    ("DetachNetworkInterface", changes::detach),
    ("ModifyNetworkInterfaceAttribute", changes::modify),
    ("ModifySecurityGroupRules", rules::modify),
    ("RevokeSecurityGroupEgress", rules::revoke_egress),
    ("RevokeSecurityGroupIngress", rules::revoke_ingress),
    ("UnassignPrivateIpAddresses", changes::unassign),
];

/// The name of the action that a request asks for, if it is one of ours.
pub fn action(params: &mut Params) -> Result<&'static str, ApiError> {
    params.text("Version");
    let name = params.text("Action").ok_or_else(|| params::missing("Action"))?;
    let known = ACTIONS.iter().find(|(known, _)| *known == name);
    known.map(|(name, _)| *name).ok_or_else(|| {
        let name: String = name.chars().take(100).collect();
        ApiError::new("InvalidAction", format!("The action {name} is not valid for this web service."))
    })
}

/// Whether the world knows this action.
pub fn is_action(name: &str) -> bool {
    ACTIONS.iter().any(|(known, _)| *known == name)
}

/// Runs an action that [`action`] named.
pub fn answer(
    action: &str,
    params: Params,
    world: &mut World,
    now: Timestamp,
    request_id: &str,
) -> Result<Vec<u8>, ApiError> {
    let mut outcome = Err(ApiError::new("InvalidAction", action));
    let mut xml = Xml::new();
    if let Some((name, run)) = ACTIONS.iter().find(|(name, _)| *name == action) {
        xml.root(&format!("{name}Response"), |xml| {
            xml.leaf("requestId", request_id);
            outcome = run(params, world, now, xml);
        });
    }
    outcome.map(|()| xml.into_bytes())
}
