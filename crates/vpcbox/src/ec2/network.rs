//! DescribeVpcs, DescribeSubnets: what the configuration fixes.

use super::{error::ApiError, filters::Filters, paging::Page, params::Params, xml::Xml};
use crate::{
    config::derive_id,
    world::{
        World,
        ids::{SubnetId, VpcId},
        state::{State, Subnet},
    },
};
use jiff::Timestamp;

const VPC_FILTERS: &[&str] = &["cidr", "is-default", "owner-id", "state", "vpc-id"];
/// EC2 takes several spellings of the same filter here.
const SUBNET_FILTERS: &[&str] = &[
    "availability-zone",
    "availability-zone-id",
    "availabilityZone",
    "available-ip-address-count",
    "cidr",
    "cidr-block",
    "cidrBlock",
    "default-for-az",
    "owner-id",
    "state",
    "subnet-id",
    "vpc-id",
];
/// Largest page of each of the two.
const MAX_PAGE: u32 = 1000;

/// DescribeVpcs.
pub(super) fn describe_vpcs(
    mut params: Params,
    world: &mut World,
    now: Timestamp,
    xml: &mut Xml,
) -> Result<(), ApiError> {
    let ids = params.list("VpcId");
    let ids = ids.iter().map(|id| VpcId::parse(id)).collect::<Result<Vec<_>, _>>()?;
    let filters = Filters::take(&mut params, VPC_FILTERS)?;
    let page = Page::take(&mut params, MAX_PAGE, !ids.is_empty())?;
    params.finish()?;
    let state = world.read(now);
    let vpc = &state.site.vpc;
    if let Some(unknown) = ids.iter().find(|id| **id != vpc.id) {
        return Err(unknown.not_found().into());
    }
    let values = |filter: &str| match filter {
        "cidr" => vec![vpc.ipv4.to_string()],
        "is-default" => vec!["false".to_owned()],
        "owner-id" => vec![state.site.account.clone()],
        "state" => vec!["available".to_owned()],
        "vpc-id" => vec![vpc.id.to_string()],
        _ => Vec::new(),
    };
    let found = [()].into_iter().filter(|()| filters.pass(state.tags_of(vpc.id.as_str()), values)).collect();
    let (found, next) = page.cut(found, |()| vpc.id.to_string());
    xml.set("vpcSet", found, |xml, ()| write_vpc(xml, &state));
    if let Some(next) = next {
        xml.leaf("nextToken", next);
    }
    Ok(())
}

fn write_vpc(xml: &mut Xml, state: &State) {
    let vpc = &state.site.vpc;
    xml.leaf("vpcId", &vpc.id);
    xml.leaf("ownerId", &state.site.account);
    xml.leaf("state", "available");
    xml.leaf("cidrBlock", vpc.ipv4);
    xml.leaf("dhcpOptionsId", derive_id("dopt", &[vpc.id.as_str()]));
    xml.leaf("instanceTenancy", "default");
    xml.leaf("isDefault", false);
    xml.set("cidrBlockAssociationSet", [vpc.ipv4], |xml, block| {
        xml.leaf("associationId", derive_id("vpc-cidr-assoc", &[vpc.id.as_str()]));
        xml.leaf("cidrBlock", block);
        xml.node("cidrBlockState", |xml| xml.leaf("state", "associated"));
    });
    xml.set("ipv6CidrBlockAssociationSet", vpc.ipv6, |xml, block| {
        xml.leaf("associationId", derive_id("vpc-cidr-assoc", &[vpc.id.as_str(), "6"]));
        xml.leaf("ipv6CidrBlock", block);
        xml.node("ipv6CidrBlockState", |xml| xml.leaf("state", "associated"));
    });
    xml.tags(state.tags_of(vpc.id.as_str()));
}

/// DescribeSubnets.
pub(super) fn describe_subnets(
    mut params: Params,
    world: &mut World,
    now: Timestamp,
    xml: &mut Xml,
) -> Result<(), ApiError> {
    let ids = params.list("SubnetId");
    let ids = ids.iter().map(|id| SubnetId::parse(id)).collect::<Result<Vec<_>, _>>()?;
    let filters = Filters::take(&mut params, SUBNET_FILTERS)?;
    let page = Page::take(&mut params, MAX_PAGE, !ids.is_empty())?;
    params.finish()?;
    let state = world.read(now);
    if let Some(unknown) = ids.iter().find(|id| !state.site.subnets.contains_key(*id)) {
        return Err(unknown.not_found().into());
    }
    let found = state
        .site
        .subnets
        .values()
        .filter(|s| ids.is_empty() || ids.contains(&s.id))
        .filter(|s| filters.pass(state.tags_of(s.id.as_str()), |name| subnet_values(&state, s, name)))
        .collect();
    let (found, next) = page.cut(found, |s| s.id.to_string());
    xml.set("subnetSet", found, |xml, subnet| write_subnet(xml, &state, subnet));
    if let Some(next) = next {
        xml.leaf("nextToken", next);
    }
    Ok(())
}

fn subnet_values(state: &State, subnet: &Subnet, filter: &str) -> Vec<String> {
    match filter {
        "availability-zone" | "availabilityZone" => vec![subnet.zone.clone()],
        "availability-zone-id" => vec![subnet.zone_id.clone()],
        "available-ip-address-count" => vec![state.free_addresses(subnet).to_string()],
        "cidr" | "cidr-block" | "cidrBlock" => vec![subnet.ipv4.to_string()],
        "default-for-az" => vec!["false".to_owned()],
        "owner-id" => vec![state.site.account.clone()],
        "state" => vec!["available".to_owned()],
        "subnet-id" => vec![subnet.id.to_string()],
        "vpc-id" => vec![state.site.vpc.id.to_string()],
        _ => Vec::new(),
    }
}

fn write_subnet(xml: &mut Xml, state: &State, subnet: &Subnet) {
    let site = &state.site;
    xml.leaf("subnetId", &subnet.id);
    xml.leaf("subnetArn", format!("arn:aws:ec2:{}:{}:subnet/{}", site.region, site.account, subnet.id));
    xml.leaf("state", "available");
    xml.leaf("vpcId", &site.vpc.id);
    xml.leaf("ownerId", &site.account);
    xml.leaf("cidrBlock", subnet.ipv4);
    xml.set("ipv6CidrBlockAssociationSet", subnet.ipv6, |xml, block| {
        xml.leaf("associationId", derive_id("subnet-cidr-assoc", &[subnet.id.as_str()]));
        xml.leaf("ipv6CidrBlock", block);
        xml.node("ipv6CidrBlockState", |xml| xml.leaf("state", "associated"));
    });
    xml.leaf("availableIpAddressCount", state.free_addresses(subnet));
    xml.leaf("availabilityZone", &subnet.zone);
    xml.leaf("availabilityZoneId", &subnet.zone_id);
    xml.leaf("defaultForAz", false);
    xml.leaf("mapPublicIpOnLaunch", false);
    xml.leaf("mapCustomerOwnedIpOnLaunch", false);
    xml.leaf("assignIpv6AddressOnCreation", false);
    xml.leaf("enableDns64", false);
    xml.leaf("ipv6Native", false);
    xml.tags(state.tags_of(subnet.id.as_str()));
}
