//! `[[security_group]]` and the rules in it.

use super::{
    SecurityGroupConfig,
    check::{Checked, Problem, Seen, check_id, is_tag, matching, problem, wrong},
    raw::{RawEgress, RawGroup, RawIngress, Text},
};
use crate::{
    fabric::filter::{Allow, IcmpKind, Peer, Ports, Traffic},
    world::rules::MAX_RULES,
};
use ipnet::IpNet;

/// The protocols that have a name; every other is said by its number.
const PROTOCOLS: &str = "all, tcp, udp, icmp, icmpv6 or a number up to 255";

/// A rule of either direction.
struct RawRule {
    protocol: Option<Text>,
    ports: Option<Text>,
    peers: Vec<Text>,
}

impl From<RawIngress> for RawRule {
    fn from(raw: RawIngress) -> Self {
        Self { protocol: raw.protocol, ports: raw.ports, peers: raw.from }
    }
}

impl From<RawEgress> for RawRule {
    fn from(raw: RawEgress) -> Self {
        Self { protocol: raw.protocol, ports: raw.ports, peers: raw.to }
    }
}

/// Name and id of a group.
type Known = (String, String);

pub(super) fn check_groups(raw: Vec<RawGroup>, box_name: &str) -> Checked<Vec<SecurityGroupConfig>> {
    let (mut names, mut ids) = (Seen::default(), Seen::default());
    let mut known: Vec<Known> = Vec::new();
    // All names first: a rule may name a group that stands further down.
    for (index, raw) in raw.iter().enumerate() {
        let key = format!("security_group[{index}]");
        let at = raw.name.span().start;
        let name = matching(&raw.name, format!("{key}.name"), is_tag, "1 to 255 characters")?;
        names.add(&name, at, format!("{key}.name"))?;
        let id = check_id(raw.id.clone(), &key, "sg", box_name, &name)?;
        ids.add(&id, at, format!("{key}.id"))?;
        known.push((name, id));
    }
    if known.is_empty() {
        return problem(0, "security_group", "missing, expected at least one [[security_group]]");
    }
    let mut groups = Vec::new();
    for (index, raw) in raw.into_iter().enumerate() {
        let key = format!("security_group[{index}]");
        let Some((name, id)) = known.get(index).cloned() else { continue };
        let description = match &raw.description {
            Some(text) => matching(text, format!("{key}.description"), is_tag, "1 to 255 characters")?,
            None => name.clone(),
        };
        let ingress = raw.ingress.map(|rules| check_rules(rules, &format!("{key}.ingress"), "from", &known));
        let egress = raw.egress.map(|rules| check_rules(rules, &format!("{key}.egress"), "to", &known));
        let (ingress, egress) = (ingress.transpose()?, egress.transpose()?);
        groups.push(SecurityGroupConfig { id, name, description, ingress, egress });
    }
    Ok(groups)
}

/// The rules of one direction; `peers` is the key that their other sides stand under.
fn check_rules(raw: Vec<impl Into<RawRule>>, key: &str, peers: &str, known: &[Known]) -> Checked<Vec<Allow>> {
    let mut rules = Vec::new();
    for (index, raw) in raw.into_iter().enumerate() {
        let raw: RawRule = raw.into();
        let key = format!("{key}[{index}]");
        let traffic = check_traffic(&raw, &key)?;
        for (number, text) in raw.peers.iter().enumerate() {
            let key = format!("{key}.{peers}[{number}]");
            let allow = Allow { traffic, peer: check_peer(text, &key, known)? };
            if rules.contains(&allow) {
                return wrong(text, key, "each rule once");
            }
            rules.push(allow);
            if rules.len() > MAX_RULES {
                return wrong(text, key, format!("at most {MAX_RULES} rules, each peer counted"));
            }
        }
    }
    Ok(rules)
}

fn check_peer(text: &Text, key: &str, known: &[Known]) -> Checked<Peer> {
    let value = text.get_ref();
    if let Some((_, id)) = known.iter().find(|(name, id)| name == value || id == value) {
        return Ok(Peer::Group(id.clone()));
    }
    match value.parse() {
        Ok(IpNet::V4(block)) => Ok(Peer::V4(block.trunc())),
        Ok(IpNet::V6(block)) => Ok(Peer::V6(block.trunc())),
        Err(_) => wrong(text, key, "a block such as 10.0.0.0/16, or the name or id of a security group"),
    }
}

fn check_traffic(raw: &RawRule, key: &str) -> Checked<Traffic> {
    let protocol = raw.protocol.as_ref().map_or("all", |text| text.get_ref().as_str());
    let number = match protocol {
        "all" | "-1" => None,
        "tcp" => Some(6),
        "udp" => Some(17),
        "icmp" => Some(1),
        "icmpv6" => Some(58),
        other => match (other.parse::<u8>(), &raw.protocol) {
            (Ok(number), _) => Some(number),
            (Err(_), Some(text)) => return wrong(text, format!("{key}.protocol"), PROTOCOLS),
            (Err(_), None) => None,
        },
    };
    let traffic = match number {
        None => Traffic::Any,
        Some(6) => return Ok(Traffic::Tcp(check_ports(raw.ports.as_ref(), key)?)),
        Some(17) => return Ok(Traffic::Udp(check_ports(raw.ports.as_ref(), key)?)),
        Some(1) => Traffic::Icmp(IcmpKind::Any),
        Some(58) => Traffic::Icmpv6(IcmpKind::Any),
        Some(number) => Traffic::Protocol(number),
    };
    match &raw.ports {
        Some(text) => wrong(text, format!("{key}.ports"), "none: only tcp and udp have ports"),
        None => Ok(traffic),
    }
}

fn check_ports(text: Option<&Text>, key: &str) -> Checked<Ports> {
    let Some(text) = text else { return Ok(Ports::ALL) };
    let value = text.get_ref();
    let (first, last) = value.split_once('-').unwrap_or((value, value));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok(Ports { first, last }),
        _ => Err(Problem {
            at: text.span().start,
            key: format!("{key}.ports"),
            problem: format!("{value:?}, expected a port such as 80, or a range such as 8000-8080"),
        }),
    }
}
