//! EC2's words into ours. Every function answers either the whole or what is wrong with it.

use crate::subnets::Blocks;
use aws_sdk_ec2::types::{self as ec2, NetworkInfo, NetworkInterface, NetworkInterfaceAttachment, Subnet};
use berth_types::{
    eni::{AttachmentFacts, AttachmentStatus, EniFacts, EniStatus},
    ids::SubnetId,
};
use std::{fmt::Display, net::Ipv4Addr, str::FromStr};

/// What is wrong with a reply.
pub(crate) type Wrong = String;

fn required<T>(value: Option<T>, name: &str) -> Result<T, Wrong> {
    value.ok_or_else(|| format!("{name} is missing"))
}

fn parse<T>(value: Option<&str>, name: &str) -> Result<T, Wrong>
where
    T: FromStr,
    T::Err: Display,
{
    required(value, name)?.parse().map_err(|error| format!("{name}: {error}"))
}

fn parse_all<'a, T>(values: impl Iterator<Item = Option<&'a str>>, name: &str) -> Result<Vec<T>, Wrong>
where
    T: FromStr,
    T::Err: Display,
{
    values.map(|value| parse(value, name)).collect()
}

/// The subnet of an ENI.
pub(crate) fn subnet_of(eni: &NetworkInterface) -> Result<SubnetId, Wrong> {
    parse(eni.subnet_id(), "subnetId")
}

/// Whether an ENI has IPv6 addresses.
pub(crate) fn has_ipv6(eni: &NetworkInterface) -> bool {
    !eni.ipv6_addresses().is_empty()
}

/// One ENI.
pub(crate) fn eni(eni: &NetworkInterface, blocks: Blocks) -> Result<EniFacts, Wrong> {
    let attachment = eni.attachment().map(attachment).transpose()?;
    let tags = eni
        .tag_set()
        .iter()
        .filter_map(|tag| Some((tag.key()?.to_string(), tag.value().unwrap_or_default().to_string())));
    Ok(EniFacts {
        id: parse(eni.network_interface_id(), "networkInterfaceId")?,
        mac: parse(eni.mac_address(), "macAddress")?,
        subnet: subnet_of(eni)?,
        status: status(eni.status(), attachment.as_ref()),
        ipv4: ipv4(eni)?,
        ipv6: parse_all(eni.ipv6_addresses().iter().map(|entry| entry.ipv6_address()), "ipv6Address")?,
        subnet_ipv4: blocks.ipv4,
        subnet_ipv6: blocks.ipv6,
        private_dns_name: eni.private_dns_name().filter(|name| !name.is_empty()).map(Into::into),
        security_groups: parse_all(eni.groups().iter().map(|group| group.group_id()), "groupId")?,
        tags: tags.collect(),
        description: eni.description().unwrap_or_default().into(),
        // Managed by an operator is the newer word for the same: hands off.
        requester_managed: eni.requester_managed().unwrap_or_default()
            || eni.operator().and_then(|operator| operator.managed()).unwrap_or_default(),
        attachment,
    })
}

/// An ENI's IPv4 addresses, the primary first. An ENI of an IPv6-only subnet has none.
fn ipv4(eni: &NetworkInterface) -> Result<Vec<Ipv4Addr>, Wrong> {
    let mut entries: Vec<_> = eni.private_ip_addresses().iter().collect();
    entries.sort_by_key(|entry| !entry.primary().unwrap_or_default());
    if entries.is_empty() {
        return eni
            .private_ip_address()
            .into_iter()
            .map(|address| parse(Some(address), "privateIpAddress"))
            .collect();
    }
    parse_all(entries.into_iter().map(|entry| entry.private_ip_address()), "privateIpAddress")
}

fn status(status: Option<&ec2::NetworkInterfaceStatus>, attachment: Option<&AttachmentFacts>) -> EniStatus {
    match status.map(ec2::NetworkInterfaceStatus::as_str) {
        Some("available") => EniStatus::Available,
        Some("associated") => EniStatus::Associated,
        Some("attaching") => EniStatus::Attaching,
        Some("in-use") => EniStatus::InUse,
        Some("detaching") => EniStatus::Detaching,
        // The reply to a create says `pending`, which no model lists.
        Some("pending") | None if attachment.is_none() => EniStatus::Available,
        // A word we do not know: whoever uses the ENI, it is not free.
        _ => EniStatus::InUse,
    }
}

fn attachment(attachment: &NetworkInterfaceAttachment) -> Result<AttachmentFacts, Wrong> {
    let index = attachment.device_index().unwrap_or_default();
    Ok(AttachmentFacts {
        id: parse(attachment.attachment_id(), "attachmentId")?,
        instance: attachment.instance_id().map(|id| parse(Some(id), "instanceId")).transpose()?,
        device_index: u32::try_from(index).map_err(|_| format!("deviceIndex is {index}"))?,
        status: match required(attachment.status(), "attachment.status")?.as_str() {
            "attaching" => AttachmentStatus::Attaching,
            "attached" => AttachmentStatus::Attached,
            "detaching" => AttachmentStatus::Detaching,
            "detached" => AttachmentStatus::Detached,
            other => return Err(format!("attachment.status is `{other}`")),
        },
        delete_on_termination: attachment.delete_on_termination().unwrap_or_default(),
    })
}

/// A subnet's blocks.
pub(crate) fn subnet(subnet: &Subnet) -> Result<(SubnetId, Blocks), Wrong> {
    let live = |state: &str| matches!(state, "associated" | "associating");
    let ipv6 = subnet.ipv6_cidr_block_association_set().iter().find(|block| {
        block.ipv6_cidr_block_state().and_then(|state| state.state()).is_none_or(|state| live(state.as_str()))
    });
    let blocks = Blocks {
        ipv4: parse(subnet.cidr_block(), "cidrBlock")?,
        ipv6: ipv6.map(|block| parse(block.ipv6_cidr_block(), "ipv6CidrBlock")).transpose()?,
    };
    Ok((parse(subnet.subnet_id(), "subnetId")?, blocks))
}

/// How many ENIs an instance type holds on its default network card, and how many IPv4 addresses on each.
pub(crate) fn limits(info: &NetworkInfo) -> Result<(u32, u32), Wrong> {
    let default_card = info.default_network_card_index().unwrap_or_default();
    let card = info.network_cards().iter().find(|card| card.network_card_index() == Some(default_card));
    // The type's own number is the sum over all cards; it is right only where no cards are listed.
    let enis = card.and_then(|card| card.maximum_network_interfaces()).or(info.maximum_network_interfaces());
    let positive = |value: Option<i32>, name: &str| {
        let value = required(value, name)?;
        u32::try_from(value).ok().filter(|value| *value > 0).ok_or_else(|| format!("{name} is {value}"))
    };
    Ok((
        positive(enis, "maximumNetworkInterfaces")?,
        positive(info.ipv4_addresses_per_interface(), "ipv4AddressesPerInterface")?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::types::{
        AttachmentStatus as Ec2AttachmentStatus, NetworkCardInfo, NetworkInterfacePrivateIpAddress,
        NetworkInterfaceStatus, OperatorResponse, Tag,
    };

    fn blocks() -> Blocks {
        Blocks { ipv4: "10.0.1.0/24".parse().unwrap(), ipv6: None }
    }

    fn described() -> ec2::builders::NetworkInterfaceBuilder {
        let address = |text: &str, primary| {
            NetworkInterfacePrivateIpAddress::builder().private_ip_address(text).primary(primary).build()
        };
        NetworkInterface::builder()
            .network_interface_id("eni-0123456789abcdef0")
            .mac_address("02:00:00:00:00:01")
            .subnet_id("subnet-0123456789abcdef0")
            .status(NetworkInterfaceStatus::Available)
            .private_ip_addresses(address("10.0.1.9", false))
            .private_ip_addresses(address("10.0.1.7", true))
            .tag_set(Tag::builder().key("berth:intent").value("t").build())
    }

    fn attached(status: &str) -> NetworkInterfaceAttachment {
        NetworkInterfaceAttachment::builder()
            .attachment_id("eni-attach-0123456789abcdef0")
            .instance_id("i-0123456789abcdef0")
            .device_index(2)
            .status(Ec2AttachmentStatus::from(status))
            .build()
    }

    #[test]
    fn an_eni_is_read_with_its_primary_address_first() {
        let facts = eni(&described().build(), blocks()).unwrap();
        assert_eq!(facts.ipv4, ["10.0.1.7".parse::<Ipv4Addr>().unwrap(), "10.0.1.9".parse().unwrap()]);
        assert_eq!((facts.status, facts.attachment), (EniStatus::Available, None));
        assert_eq!(facts.tags["berth:intent"], "t");
        assert!(!facts.requester_managed);
    }

    #[test]
    fn an_attachment_is_read_with_its_index() {
        let facts = eni(
            &described().status(NetworkInterfaceStatus::InUse).attachment(attached("attaching")).build(),
            blocks(),
        );
        let attachment = facts.unwrap().attachment.unwrap();
        assert_eq!((attachment.device_index, attachment.status), (2, AttachmentStatus::Attaching));
        assert!(!attachment.delete_on_termination);
    }

    #[test]
    fn a_status_that_nobody_knows_is_never_taken_for_free() {
        let read = |status: &str| eni(&described().status(status.into()).build(), blocks()).unwrap().status;
        assert_eq!(read("pending"), EniStatus::Available);
        assert_eq!(read("quarantined"), EniStatus::InUse);
    }

    #[test]
    fn an_eni_that_an_operator_manages_counts_as_managed() {
        let operator = OperatorResponse::builder().managed(true).build();
        assert!(eni(&described().operator(operator).build(), blocks()).unwrap().requester_managed);
    }

    #[test]
    fn what_is_missing_or_broken_is_named() {
        let wrong = |built: NetworkInterface| eni(&built, blocks()).unwrap_err();
        assert_eq!(wrong(described().set_mac_address(None).build()), "macAddress is missing");
        assert!(
            wrong(described().network_interface_id("eni-x").build())
                .starts_with("networkInterfaceId: `eni-x`")
        );
        assert_eq!(
            wrong(described().attachment(attached("floating")).build()),
            "attachment.status is `floating`"
        );
    }

    #[test]
    fn limits_are_those_of_the_default_card() {
        let card = |index, enis| {
            NetworkCardInfo::builder().network_card_index(index).maximum_network_interfaces(enis).build()
        };
        let info = NetworkInfo::builder()
            .maximum_network_interfaces(60)
            .network_cards(card(0, 15))
            .network_cards(card(1, 14))
            .default_network_card_index(0)
            .ipv4_addresses_per_interface(50);
        assert_eq!(limits(&info.clone().build()), Ok((15, 50)));
        assert_eq!(limits(&info.set_network_cards(None).maximum_network_interfaces(3).build()), Ok((3, 50)));
        assert!(limits(&NetworkInfo::builder().build()).is_err());
    }
}
