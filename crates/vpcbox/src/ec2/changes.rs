//! The calls that change ENIs: Create-, Attach-, Detach-, DeleteNetworkInterface, ModifyNetworkInterfaceAttribute,
//! Assign-/UnassignPrivateIpAddresses.

use super::{
    error::ApiError,
    interfaces,
    params::{Params, missing},
    xml::Xml,
};
use crate::world::{
    Change, CreateEni, World,
    ids::{AttachmentId, EniId, GroupId, InstanceId, SubnetId},
    state::Tags,
};
use jiff::Timestamp;
use std::net::{Ipv4Addr, Ipv6Addr};

const IPV4: &str = "Expecting an IPv4 address.";
const IPV6: &str = "Expecting an IPv6 address.";
/// Longest client token: EC2's limit.
const MAX_TOKEN: usize = 64;

/// CreateNetworkInterface.
pub(super) fn create(
    mut params: Params,
    world: &mut World,
    now: Timestamp,
    xml: &mut Xml,
) -> Result<(), ApiError> {
    // A caller without a token gets one, as the real reply shows.
    let token = params.text("ClientToken").unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    if token.is_empty() || token.len() > MAX_TOKEN || !token.is_ascii() {
        return Err(ApiError::bad_value("ClientToken", &token, "Expecting at most 64 ASCII characters."));
    }
    let create = create_params(&mut params)?;
    params.finish()?;
    let eni = world.create(&token, &create, now)?;
    // The current state and not the (perhaps stale) read: EC2 answers a create with what it just made.
    let state = world.current(now);
    let eni = state.enis.get(&eni.id).unwrap_or(&eni);
    xml.node("networkInterface", |xml| interfaces::write(xml, state, eni));
    xml.leaf("clientToken", token);
    Ok(())
}

fn create_params(params: &mut Params) -> Result<CreateEni, ApiError> {
    if let Some(kind) = params.text("InterfaceType").filter(|kind| kind != "interface") {
        return Err(ApiError::bad_value("InterfaceType", &kind, "Only interface is offered here."));
    }
    let subnet = SubnetId::parse(&params.required("SubnetId")?)?;
    let (primary, secondary) = named_addresses(params)?;
    let mut ipv6 = Vec::new();
    for index in params.indices("Ipv6Addresses") {
        ipv6.extend(params.value::<Ipv6Addr>(&format!("Ipv6Addresses.{index}.Ipv6Address"), IPV6)?);
    }
    let create = CreateEni {
        subnet,
        groups: groups(params)?,
        description: params.text("Description").unwrap_or_default(),
        primary,
        secondary,
        secondary_count: count(params, "SecondaryPrivateIpAddressCount")?,
        ipv6,
        ipv6_count: count(params, "Ipv6AddressCount")?,
        tags: tag_specification(params, "network-interface")?,
    };
    if create.secondary_count > 0 && !create.secondary.is_empty() {
        return Err(both("PrivateIpAddresses", "SecondaryPrivateIpAddressCount"));
    }
    if create.ipv6_count > 0 && !create.ipv6.is_empty() {
        return Err(both("Ipv6Addresses", "Ipv6AddressCount"));
    }
    Ok(create)
}

/// The primary address, from either of the two places where it may stand, and the secondary ones.
fn named_addresses(params: &mut Params) -> Result<(Option<Ipv4Addr>, Vec<Ipv4Addr>), ApiError> {
    let mut primary = params.value::<Ipv4Addr>("PrivateIpAddress", IPV4)?;
    let mut secondary = Vec::new();
    for index in params.indices("PrivateIpAddresses") {
        let name = format!("PrivateIpAddresses.{index}.PrivateIpAddress");
        let address = params.value::<Ipv4Addr>(&name, IPV4)?.ok_or_else(|| missing(&name))?;
        if !params.boolean(&format!("PrivateIpAddresses.{index}.Primary"))?.unwrap_or(false) {
            secondary.push(address);
        } else if primary.replace(address).is_some() {
            let message = "Only one primary private IP address can be specified.";
            return Err(ApiError::new("InvalidParameterCombination", message));
        }
    }
    Ok((primary, secondary))
}

fn groups(params: &mut Params) -> Result<Vec<GroupId>, ApiError> {
    Ok(params.list("SecurityGroupId").iter().map(|id| GroupId::parse(id)).collect::<Result<_, _>>()?)
}

fn count(params: &mut Params, name: &str) -> Result<usize, ApiError> {
    let count = params.number(name)?.unwrap_or(0);
    usize::try_from(count).map_err(|_| ApiError::bad_value(name, &count.to_string(), "Expecting less."))
}

fn both(one: &str, other: &str) -> ApiError {
    let message = format!("The parameter {one} cannot be used together with {other}");
    ApiError::new("InvalidParameterCombination", message)
}

/// The tags that a call gives to what it makes, which is of this kind.
pub(super) fn tag_specification(params: &mut Params, of: &str) -> Result<Tags, ApiError> {
    let mut tags = Tags::new();
    for index in params.indices("TagSpecification") {
        let spec = format!("TagSpecification.{index}");
        let kind = params.required(&format!("{spec}.ResourceType"))?;
        if kind != of {
            let message = format!("'{kind}' is not a valid taggable resource type for this operation.");
            return Err(ApiError::new("InvalidParameterValue", message));
        }
        for tag in params.indices(&format!("{spec}.Tag")) {
            let key = params.required(&format!("{spec}.Tag.{tag}.Key"))?;
            let value = params.text(&format!("{spec}.Tag.{tag}.Value")).unwrap_or_default();
            if tags.insert(key, value).is_some() {
                return Err(ApiError::new("InvalidParameterValue", "Duplicate tag keys found."));
            }
        }
    }
    Ok(tags)
}

/// AttachNetworkInterface.
pub(super) fn attach(
    mut params: Params,
    world: &mut World,
    now: Timestamp,
    xml: &mut Xml,
) -> Result<(), ApiError> {
    let eni = EniId::parse(&params.required("NetworkInterfaceId")?)?;
    let instance = InstanceId::parse(&params.required("InstanceId")?)?;
    let index = params.number("DeviceIndex")?.ok_or_else(|| missing("DeviceIndex"))?;
    let card = params.number("NetworkCardIndex")?.unwrap_or(0);
    params.finish()?;
    xml.leaf("attachmentId", world.attach(&eni, &instance, index, card, now)?);
    xml.leaf("networkCardIndex", card);
    Ok(())
}

/// DetachNetworkInterface. `Force` makes no difference: nothing in here needs it.
pub(super) fn detach(
    mut params: Params,
    world: &mut World,
    now: Timestamp,
    xml: &mut Xml,
) -> Result<(), ApiError> {
    let attachment = AttachmentId::parse(&params.required("AttachmentId")?)?;
    params.boolean("Force")?;
    params.finish()?;
    world.detach(&attachment, now)?;
    xml.leaf("return", true);
    Ok(())
}

/// DeleteNetworkInterface.
pub(super) fn delete(
    mut params: Params,
    world: &mut World,
    now: Timestamp,
    xml: &mut Xml,
) -> Result<(), ApiError> {
    let eni = EniId::parse(&params.required("NetworkInterfaceId")?)?;
    params.finish()?;
    world.delete(&eni, now)?;
    xml.leaf("return", true);
    Ok(())
}

/// ModifyNetworkInterfaceAttribute: one kind of attribute per call.
pub(super) fn modify(
    mut params: Params,
    world: &mut World,
    now: Timestamp,
    xml: &mut Xml,
) -> Result<(), ApiError> {
    let eni = EniId::parse(&params.required("NetworkInterfaceId")?)?;
    let mut changes = Vec::new();
    changes.extend(params.text("Description.Value").map(Change::Description));
    changes.extend(params.boolean("SourceDestCheck.Value")?.map(Change::SourceDestCheck));
    let groups = groups(&mut params)?;
    changes.extend((!groups.is_empty()).then_some(Change::Groups(groups)));
    let attachment = params.text("Attachment.AttachmentId");
    let value = params.boolean("Attachment.DeleteOnTermination")?;
    match (attachment, value) {
        (Some(attachment), Some(value)) => {
            let attachment = AttachmentId::parse(&attachment)?;
            changes.push(Change::DeleteOnTermination { attachment, value });
        }
        (None, Some(_)) => return Err(missing("Attachment.AttachmentId")),
        (Some(_), None) => return Err(missing("Attachment.DeleteOnTermination")),
        (None, None) => {}
    }
    params.finish()?;
    let change = changes.pop().ok_or_else(|| no_single_change("No attributes specified."))?;
    if !changes.is_empty() {
        return Err(no_single_change("Fields for multiple attribute types specified"));
    }
    world.modify(&eni, change, now)?;
    xml.leaf("return", true);
    Ok(())
}

fn no_single_change(message: &str) -> ApiError {
    ApiError::new("InvalidParameterCombination", message)
}

/// AssignPrivateIpAddresses. The reply lists the new addresses only.
pub(super) fn assign(
    mut params: Params,
    world: &mut World,
    now: Timestamp,
    xml: &mut Xml,
) -> Result<(), ApiError> {
    let eni = EniId::parse(&params.required("NetworkInterfaceId")?)?;
    let named = params.values::<Ipv4Addr>("PrivateIpAddress", IPV4)?;
    let count = count(&mut params, "SecondaryPrivateIpAddressCount")?;
    let take_over = params.boolean("AllowReassignment")?.unwrap_or(false);
    params.finish()?;
    if named.is_empty() && count == 0 {
        return Err(missing("PrivateIpAddress or SecondaryPrivateIpAddressCount"));
    }
    if !named.is_empty() && count > 0 {
        return Err(both("PrivateIpAddress", "SecondaryPrivateIpAddressCount"));
    }
    let assigned = world.assign(&eni, &named, count, take_over, now)?;
    xml.leaf("networkInterfaceId", &eni);
    xml.set("assignedPrivateIpAddressesSet", assigned, |xml, a| xml.leaf("privateIpAddress", a));
    Ok(())
}

/// UnassignPrivateIpAddresses.
pub(super) fn unassign(
    mut params: Params,
    world: &mut World,
    now: Timestamp,
    xml: &mut Xml,
) -> Result<(), ApiError> {
    let eni = EniId::parse(&params.required("NetworkInterfaceId")?)?;
    let addresses = params.values::<Ipv4Addr>("PrivateIpAddress", IPV4)?;
    params.finish()?;
    if addresses.is_empty() {
        return Err(missing("PrivateIpAddress"));
    }
    world.unassign(&eni, &addresses, now)?;
    xml.leaf("return", true);
    Ok(())
}
