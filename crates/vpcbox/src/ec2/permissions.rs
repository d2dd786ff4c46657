//! `IpPermissions`: the rules of security groups as calls write them, and as replies show them.
//!
//! A permission is a kind of traffic with many peers, a rule has one: a call's permissions become rules, and a reply gathers the
//! rules with the same traffic into one permission.

use super::{
    error::ApiError,
    groups::BY_NAME,
    params::{Params, missing},
    xml::Xml,
};
use crate::{
    fabric::filter::{IcmpKind, Ports, Traffic},
    world::{
        groups::{Peer, Rule, Terms},
        ids::GroupId,
        rules::NewRule,
        state::State,
    },
};
use ipnet::{Ipv4Net, Ipv6Net};
use std::collections::BTreeMap;

/// Longest description of a rule: EC2's limit.
const MAX_DESCRIPTION: usize = 255;

/// Traffic in EC2's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Words {
    /// `tcp`, `-1`, `50`.
    pub(super) protocol: String,
    /// The first port, or the type of ICMP; none for protocols that have neither.
    pub(super) from: Option<i32>,
    /// The last port, or the code of ICMP.
    pub(super) to: Option<i32>,
}

impl Words {
    pub(super) fn of(traffic: Traffic) -> Self {
        let ports = |p: Ports| (Some(i32::from(p.first)), Some(i32::from(p.last)));
        let numbers = |kind: IcmpKind| {
            let (kind, code) = kind.numbers();
            (Some(kind.map_or(-1, i32::from)), Some(code.map_or(-1, i32::from)))
        };
        let (protocol, (from, to)) = match traffic {
            Traffic::Any => ("-1".to_owned(), (None, None)),
            Traffic::Tcp(range) => ("tcp".to_owned(), ports(range)),
            Traffic::Udp(range) => ("udp".to_owned(), ports(range)),
            Traffic::Icmp(kind) => ("icmp".to_owned(), numbers(kind)),
            Traffic::Icmpv6(kind) => ("icmpv6".to_owned(), numbers(kind)),
            Traffic::Protocol(number) => (number.to_string(), (None, None)),
        };
        Self { protocol, from, to }
    }
}

/// The characters that EC2 takes in names and descriptions.
pub(super) fn is_plain(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || ". _-:/()#,@[]+=&;{}!$*".contains(c))
}

// ----------------------------------------------------------------------------------------------------------------- reading

/// The rules of a call: in `IpPermissions`, or spread over the call's own parameters as in old clients.
pub(super) fn take(params: &mut Params) -> Result<Vec<NewRule>, ApiError> {
    let mut rules = Vec::new();
    for index in params.indices("IpPermissions") {
        rules.append(&mut permission(params, &format!("IpPermissions.{index}"))?);
    }
    if let Some(name) = params.text("SourceSecurityGroupName") {
        params.text("SourceSecurityGroupOwnerId");
        return Err(by_name(&name));
    }
    let protocol = params.text("IpProtocol");
    let cidr = params.text("CidrIp");
    let (from, to) = (port(params, "FromPort")?, port(params, "ToPort")?);
    match (rules.is_empty(), protocol) {
        (false, None) if cidr.is_none() => Ok(rules),
        (true, Some(protocol)) => {
            let traffic = traffic(&protocol, from, to)?;
            let cidr = cidr.ok_or_else(|| missing("CidrIp"))?;
            Ok(vec![NewRule { terms: Terms { traffic, peer: Peer::V4(ipv4(&cidr)?) }, description: None }])
        }
        (true, None) => Err(missing("ipPermissions")),
        (false, _) => Err(ApiError::new(
            "InvalidParameterCombination",
            "The parameter 'ipPermissions' may not be used in combination with 'ipProtocol'",
        )),
    }
}

/// One permission: a rule for each of its peers.
fn permission(params: &mut Params, at: &str) -> Result<Vec<NewRule>, ApiError> {
    let protocol = params.required(&format!("{at}.IpProtocol"))?;
    let from = port(params, &format!("{at}.FromPort"))?;
    let to = port(params, &format!("{at}.ToPort"))?;
    let traffic = traffic(&protocol, from, to)?;
    let mut rules = Vec::new();
    let mut add = |peer, description| {
        rules.push(NewRule { terms: Terms { traffic, peer }, description });
    };
    for index in params.indices(&format!("{at}.IpRanges")) {
        let at = format!("{at}.IpRanges.{index}");
        let block = ipv4(&params.required(&format!("{at}.CidrIp"))?)?;
        add(Peer::V4(block), description(params, &at)?);
    }
    for index in params.indices(&format!("{at}.Ipv6Ranges")) {
        let at = format!("{at}.Ipv6Ranges.{index}");
        let block = ipv6(&params.required(&format!("{at}.CidrIpv6"))?)?;
        add(Peer::V6(block), description(params, &at)?);
    }
    for index in params.indices(&format!("{at}.Groups")) {
        let at = format!("{at}.Groups.{index}");
        if let Some(name) = params.text(&format!("{at}.GroupName")) {
            return Err(by_name(&name));
        }
        let id = GroupId::parse(&params.required(&format!("{at}.GroupId"))?)?;
        // There is one account and one VPC here, and a group is found by its id.
        for other in ["UserId", "VpcId"] {
            params.text(&format!("{at}.{other}"));
        }
        add(Peer::Group(id), description(params, &at)?);
    }
    if let Some(index) = params.indices(&format!("{at}.PrefixListIds")).first() {
        let id = params.required(&format!("{at}.PrefixListIds.{index}.PrefixListId"))?;
        let message = format!("The prefix list ID '{id}' does not exist");
        return Err(ApiError::new("InvalidPrefixListID.NotFound", message));
    }
    if rules.is_empty() {
        let message = "A permission must name at least one IP range or security group.";
        return Err(ApiError::new("InvalidPermission.Malformed", message));
    }
    Ok(rules)
}

/// The rule in `at.IpProtocol`, `at.CidrIpv4` and so on: the form of ModifySecurityGroupRules, with one peer.
pub(super) fn one_rule(params: &mut Params, at: &str) -> Result<NewRule, ApiError> {
    let protocol = params.required(&format!("{at}.IpProtocol"))?;
    let from = port(params, &format!("{at}.FromPort"))?;
    let to = port(params, &format!("{at}.ToPort"))?;
    let traffic = traffic(&protocol, from, to)?;
    let v4 = params.text(&format!("{at}.CidrIpv4")).map(|text| ipv4(&text).map(Peer::V4));
    let v6 = params.text(&format!("{at}.CidrIpv6")).map(|text| ipv6(&text).map(Peer::V6));
    let group = params.text(&format!("{at}.ReferencedGroupId"));
    let group = group.map(|id| GroupId::parse(&id).map(Peer::Group).map_err(ApiError::from));
    let mut peers = v4.into_iter().chain(v6).chain(group).collect::<Result<Vec<_>, _>>()?;
    match (peers.pop(), peers.is_empty()) {
        (Some(peer), true) => {
            Ok(NewRule { terms: Terms { traffic, peer }, description: description(params, at)? })
        }
        _ => Err(ApiError::new(
            "InvalidParameterCombination",
            "A rule must have exactly one source or destination.",
        )),
    }
}

fn by_name(name: &str) -> ApiError {
    ApiError::new("InvalidParameterValue", format!("Invalid value '{name}' for groupName. {BY_NAME}"))
}

fn port(params: &mut Params, name: &str) -> Result<Option<i32>, ApiError> {
    params.value(name, "Expecting an integer.")
}

fn description(params: &mut Params, at: &str) -> Result<Option<String>, ApiError> {
    let text = params.text(&format!("{at}.Description")).filter(|text| !text.is_empty());
    match text {
        Some(text) if text.len() > MAX_DESCRIPTION || !is_plain(&text) => Err(ApiError::new(
            "InvalidParameterValue",
            "Invalid rule description. Valid descriptions are strings less than 256 characters from the following \
             set:  a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*",
        )),
        other => Ok(other),
    }
}

/// EC2 cuts the host's bits off, and insists on a prefix length.
fn ipv4(text: &str) -> Result<Ipv4Net, ApiError> {
    text.parse().map(|block: Ipv4Net| block.trunc()).map_err(|_| malformed(text))
}

fn ipv6(text: &str) -> Result<Ipv6Net, ApiError> {
    text.parse().map(|block: Ipv6Net| block.trunc()).map_err(|_| malformed(text))
}

fn malformed(block: &str) -> ApiError {
    let block: String = block.chars().take(100).collect();
    ApiError::new("InvalidParameterValue", format!("CIDR block {block} is malformed"))
}

fn traffic(protocol: &str, from: Option<i32>, to: Option<i32>) -> Result<Traffic, ApiError> {
    let number = match protocol.to_ascii_lowercase().as_str() {
        "-1" | "all" => return Ok(Traffic::Any),
        "tcp" => 6,
        "udp" => 17,
        "icmp" => 1,
        "icmpv6" => 58,
        other => other.parse::<u8>().map_err(|_| {
            let shown: String = protocol.chars().take(100).collect();
            let message = format!("Invalid value '{shown}' for IP protocol. Unknown protocol.");
            ApiError::new("InvalidParameterValue", message)
        })?,
    };
    match number {
        6 => Ok(Traffic::Tcp(ports(from, to)?)),
        17 => Ok(Traffic::Udp(ports(from, to)?)),
        1 => Ok(Traffic::Icmp(icmp(from, to, "ICMP")?)),
        // Its type and code may be left out.
        58 => Ok(Traffic::Icmpv6(icmp(from.or(Some(-1)), to.or(Some(-1)), "ICMPv6")?)),
        other => Ok(Traffic::Protocol(other)),
    }
}

fn ports(from: Option<i32>, to: Option<i32>) -> Result<Ports, ApiError> {
    let refused = |message: String| ApiError::new("InvalidParameterValue", message);
    let (Some(from), Some(to)) = (from, to) else {
        let message = "Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange.";
        return Err(refused(message.to_owned()));
    };
    let port = |number: i32| {
        u16::try_from(number).map_err(|_| refused(format!("TCP/UDP port ({number}) out of range")))
    };
    let (first, last) = (port(from)?, port(to)?);
    if first > last {
        return Err(refused(format!("Invalid TCP/UDP port range ({first}:{last})")));
    }
    Ok(Ports { first, last })
}

fn icmp(kind: Option<i32>, code: Option<i32>, name: &str) -> Result<IcmpKind, ApiError> {
    let refused = |message: String| ApiError::new("InvalidParameterValue", message);
    let (Some(kind), Some(code)) = (kind, code) else {
        let message = format!("Invalid value 'Must specify both type and code with {name}.' for portRange.");
        return Err(refused(message));
    };
    let number = |what: &str, number: i32| match number {
        -1 => Ok(None),
        _ => u8::try_from(number)
            .map(Some)
            .map_err(|_| refused(format!("{name} {what} ({number}) out of range"))),
    };
    match (number("type", kind)?, number("code", code)?) {
        (None, None) => Ok(IcmpKind::Any),
        (Some(kind), None) => Ok(IcmpKind::Type(kind)),
        (Some(kind), Some(code)) => Ok(IcmpKind::Code(kind, code)),
        (None, Some(code)) => Err(refused(format!("{name} code ({code}) must be -1 if the type is -1"))),
    }
}

// ----------------------------------------------------------------------------------------------------------------- writing

/// Rules as permissions: one for each kind of traffic.
pub(super) fn write<'r>(xml: &mut Xml, name: &str, state: &State, rules: impl Iterator<Item = &'r Rule>) {
    let mut by_traffic: BTreeMap<Traffic, Vec<&Rule>> = BTreeMap::new();
    for rule in rules {
        by_traffic.entry(rule.terms.traffic).or_default().push(rule);
    }
    xml.set(name, by_traffic, |xml, (traffic, rules)| {
        write_traffic(xml, traffic);
        let all = |of: fn(&Peer) -> bool| rules.iter().filter(move |rule| of(&rule.terms.peer));
        xml.set("groups", all(|peer| matches!(peer, Peer::Group(_))), |xml, rule| {
            xml.leaf("userId", &state.site.account);
            write_peer(xml, rule, ["", "", "groupId"]);
        });
        xml.set("ipRanges", all(|peer| matches!(peer, Peer::V4(_))), |xml, rule| {
            write_peer(xml, rule, ["cidrIp", "", ""]);
        });
        xml.set("ipv6Ranges", all(|peer| matches!(peer, Peer::V6(_))), |xml, rule| {
            write_peer(xml, rule, ["", "cidrIpv6", ""]);
        });
        xml.set("prefixListIds", Vec::<()>::new(), |_, ()| {});
    });
}

/// Protocol and ports; `-1` and plain protocols have no ports in a permission.
fn write_traffic(xml: &mut Xml, traffic: Traffic) {
    let words = Words::of(traffic);
    xml.leaf("ipProtocol", words.protocol);
    if let (Some(from), Some(to)) = (words.from, words.to) {
        xml.leaf("fromPort", from);
        xml.leaf("toPort", to);
    }
}

/// The peer of a rule under the name for its kind (IPv4, IPv6, group), and the rule's description.
pub(super) fn write_peer(xml: &mut Xml, rule: &Rule, [v4, v6, group]: [&str; 3]) {
    match &rule.terms.peer {
        Peer::V4(block) => xml.leaf(v4, block),
        Peer::V6(block) => xml.leaf(v6, block),
        Peer::Group(id) => xml.leaf(group, id),
    }
    if let Some(description) = &rule.description {
        xml.leaf("description", description);
    }
}

#[cfg(test)]
mod tests;
