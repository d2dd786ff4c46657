//! DescribeNetworkInterfaces, and how an ENI is written wherever one appears.

use super::{error::ApiError, filters::Filters, paging::Page, params::Params, xml::Xml};
use crate::world::{
    World,
    ids::{EniId, GroupId},
    state::{Attachment, Eni, State},
};
use jiff::Timestamp;
use std::net::Ipv4Addr;

/// Filters that the call knows.
const FILTERS: &[&str] = &[
    "addresses.primary",
    "addresses.private-ip-address",
    "attachment.attachment-id",
    "attachment.delete-on-termination",
    "attachment.device-index",
    "attachment.instance-id",
    "attachment.instance-owner-id",
    "attachment.network-card-index",
    "attachment.status",
    "availability-zone",
    "availability-zone-id",
    "description",
    "group-id",
    "group-name",
    "interface-type",
    "ipv6-addresses.ipv6-address",
    "mac-address",
    "network-interface-id",
    "operator.managed",
    "owner-id",
    "private-dns-name",
    "private-ip-address",
    "requester-managed",
    "source-dest-check",
    "status",
    "subnet-id",
    "vpc-id",
];

/// Largest page.
const MAX_PAGE: u32 = 1000;

/// DescribeNetworkInterfaces.
pub(super) fn describe(
    mut params: Params,
    world: &mut World,
    now: Timestamp,
    xml: &mut Xml,
) -> Result<(), ApiError> {
    let ids = params.list("NetworkInterfaceId");
    let ids = ids.iter().map(|id| EniId::parse(id)).collect::<Result<Vec<_>, _>>()?;
    let filters = Filters::take(&mut params, FILTERS)?;
    let page = Page::take(&mut params, MAX_PAGE, !ids.is_empty())?;
    params.boolean("IncludeManagedResources")?;
    params.finish()?;
    let state = world.read(now);
    // One unknown id fails the whole call: a trap of EC2 that clients have to know.
    if let Some(unknown) = ids.iter().find(|id| !state.enis.contains_key(*id)) {
        return Err(unknown.not_found().into());
    }
    let found = state
        .enis
        .values()
        .filter(|eni| ids.is_empty() || ids.contains(&eni.id))
        .filter(|eni| filters.pass(state.tags_of(eni.id.as_str()), |name| values(&state, eni, name)))
        .collect();
    let (found, next) = page.cut(found, |eni| eni.id.to_string());
    xml.set("networkInterfaceSet", found, |xml, eni| write(xml, &state, eni));
    if let Some(next) = next {
        xml.leaf("nextToken", next);
    }
    Ok(())
}

/// DescribeNetworkInterfaceAttribute: one attribute of one ENI.
pub(super) fn describe_attribute(
    mut params: Params,
    world: &mut World,
    now: Timestamp,
    xml: &mut Xml,
) -> Result<(), ApiError> {
    let id = EniId::parse(&params.required("NetworkInterfaceId")?)?;
    let attribute = params.required("Attribute")?;
    params.finish()?;
    let state = world.read(now);
    let eni = state.enis.get(&id).ok_or_else(|| id.not_found())?;
    xml.leaf("networkInterfaceId", &eni.id);
    match attribute.as_str() {
        "attachment" => {
            if let Some(attachment) = &eni.attachment {
                xml.node("attachment", |xml| write_bound(xml, &state, attachment));
            }
        }
        "description" => xml.node("description", |xml| xml.leaf("value", &eni.description)),
        "groupSet" => write_groups(xml, &state, &eni.groups),
        "sourceDestCheck" => xml.node("sourceDestCheck", |xml| xml.leaf("value", eni.source_dest_check)),
        other => {
            return Err(ApiError::bad_value(
                "Attribute",
                other,
                "Expecting attachment, description, groupSet or sourceDestCheck.",
            ));
        }
    }
    Ok(())
}

/// What an ENI has under the name of a filter.
fn values(state: &State, eni: &Eni, filter: &str) -> Vec<String> {
    let subnet = state.site.subnets.get(&eni.subnet);
    let attachment = |get: fn(&Attachment) -> String| eni.attachment.as_ref().map(get).into_iter().collect();
    let one = |text: String| vec![text];
    match filter {
        "attachment.attachment-id" => attachment(|a| a.id.to_string()),
        "attachment.delete-on-termination" => attachment(|a| a.delete_on_termination.to_string()),
        "attachment.device-index" => attachment(|a| a.device_index.to_string()),
        "attachment.instance-id" => attachment(|a| a.instance.to_string()),
        "attachment.network-card-index" => attachment(|_| "0".to_owned()),
        "attachment.status" => attachment(|a| a.status().to_owned()),
        "attachment.instance-owner-id" => eni.attachment.iter().map(|_| state.site.account.clone()).collect(),
        "addresses.primary" => (0..eni.ipv4.len()).map(|i| (i == 0).to_string()).collect(),
        "addresses.private-ip-address" => eni.ipv4.iter().map(ToString::to_string).collect(),
        "private-ip-address" => one(eni.primary_ipv4().to_string()),
        "private-dns-name" => one(state.dns_name(eni.primary_ipv4())),
        "ipv6-addresses.ipv6-address" => eni.ipv6.iter().map(ToString::to_string).collect(),
        "availability-zone" => subnet.map(|s| s.zone.clone()).into_iter().collect(),
        "availability-zone-id" => subnet.map(|s| s.zone_id.clone()).into_iter().collect(),
        "description" => one(eni.description.clone()),
        "group-id" => eni.groups.iter().map(ToString::to_string).collect(),
        "group-name" => eni.groups.iter().filter_map(|g| Some(state.groups.get(g)?.name.clone())).collect(),
        "interface-type" => one("interface".to_owned()),
        "mac-address" => one(eni.mac.to_string()),
        "network-interface-id" => one(eni.id.to_string()),
        "owner-id" => one(state.site.account.clone()),
        // Nothing here is made by another AWS service.
        "operator.managed" | "requester-managed" => one("false".to_owned()),
        "source-dest-check" => one(eni.source_dest_check.to_string()),
        "status" => one(eni.status().to_owned()),
        "subnet-id" => one(eni.subnet.to_string()),
        "vpc-id" => one(state.site.vpc.id.to_string()),
        _ => Vec::new(),
    }
}

/// The elements of one ENI.
pub(super) fn write(xml: &mut Xml, state: &State, eni: &Eni) {
    xml.leaf("networkInterfaceId", &eni.id);
    xml.leaf("subnetId", &eni.subnet);
    xml.leaf("vpcId", &state.site.vpc.id);
    if let Some(subnet) = state.site.subnets.get(&eni.subnet) {
        xml.leaf("availabilityZone", &subnet.zone);
        xml.leaf("availabilityZoneId", &subnet.zone_id);
    }
    xml.leaf("description", &eni.description);
    xml.leaf("ownerId", &state.site.account);
    xml.leaf("requesterManaged", false);
    xml.leaf("status", eni.status());
    xml.leaf("macAddress", eni.mac);
    xml.leaf("privateIpAddress", eni.primary_ipv4());
    xml.leaf("privateDnsName", state.dns_name(eni.primary_ipv4()));
    xml.leaf("sourceDestCheck", eni.source_dest_check);
    write_groups(xml, state, &eni.groups);
    if let Some(attachment) = &eni.attachment {
        xml.node("attachment", |xml| write_bound(xml, state, attachment));
    }
    xml.tags(state.tags_of(eni.id.as_str()));
    write_addresses(xml, state, eni);
    xml.leaf("interfaceType", "interface");
    xml.node("operator", |xml| xml.leaf("managed", false));
}

/// The elements of an attachment as ENIs show it.
fn write_bound(xml: &mut Xml, state: &State, attachment: &Attachment) {
    write_attachment(xml, attachment);
    xml.leaf("instanceId", &attachment.instance);
    xml.leaf("instanceOwnerId", &state.site.account);
}

/// The elements of an attachment that instances and ENIs share.
pub(super) fn write_attachment(xml: &mut Xml, attachment: &Attachment) {
    xml.leaf("attachmentId", &attachment.id);
    xml.leaf("deviceIndex", attachment.device_index);
    xml.leaf("networkCardIndex", 0);
    xml.leaf("status", attachment.status());
    xml.time("attachTime", attachment.since);
    xml.leaf("deleteOnTermination", attachment.delete_on_termination);
}

/// `groupSet`.
pub(super) fn write_groups(xml: &mut Xml, state: &State, groups: &[GroupId]) {
    xml.set("groupSet", groups.iter().filter_map(|g| state.groups.get(g)), |xml, group| {
        xml.leaf("groupId", &group.id);
        xml.leaf("groupName", &group.name);
    });
}

/// `privateIpAddressesSet` and `ipv6AddressesSet`.
pub(super) fn write_addresses(xml: &mut Xml, state: &State, eni: &Eni) {
    let first: Ipv4Addr = eni.primary_ipv4();
    xml.set("privateIpAddressesSet", &eni.ipv4, |xml, address| {
        xml.leaf("privateIpAddress", address);
        xml.leaf("privateDnsName", state.dns_name(*address));
        xml.leaf("primary", *address == first);
    });
    xml.set("ipv6AddressesSet", &eni.ipv6, |xml, address| {
        xml.leaf("ipv6Address", address);
        xml.leaf("isPrimaryIpv6", false);
    });
}
