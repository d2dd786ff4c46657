//! From the file's values to a [`Config`]: ids, references, blocks, each with an error that says what was expected.

use super::{
    Config, Delays, InstanceConfig, OperatorKey, SecurityGroupConfig, SubnetConfig, VpcConfig, derive_id,
    groups,
    raw::{Raw, RawDelays, RawEcs, RawInstance, RawOperator, RawSubnet, RawVpc, Text},
};
use crate::ecs::is_cluster_name;
use ipnet::{Ipv4Net, Ipv6Net};
use std::{collections::BTreeMap, fmt::Display, time::Duration};
use toml::Spanned;

/// What is wrong, and where in the text.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) at: usize,
    pub(super) key: String,
    pub(super) problem: String,
}

pub(super) type Checked<T> = Result<T, Problem>;

/// Longest name: namespace names stay readable in a table (`NAME-i-0123456789abcdef0`).
const MAX_NAME: usize = 32;
/// What a link in the box gets unless the file says otherwise: the container images' world expects no jumbo frames.
const DEFAULT_MTU: u32 = 1500;
/// From the least that IPv6 allows to what a VPC has.
const MTU_RANGE: std::ops::RangeInclusive<u32> = 1280..=9001;
/// AWS takes blocks of this length for VPCs and for subnets.
const IPV4_PREFIXES: std::ops::RangeInclusive<u8> = 16..=28;
/// AWS takes these for a VPC's IPv6 block.
const VPC_IPV6_PREFIXES: std::ops::RangeInclusive<u8> = 44..=60;
/// The network's address, the router's, the name server's, one for later use, the broadcast address.
const RESERVED_ADDRESSES: u64 = 5;
/// No client waits longer for an attachment, so a larger value is a slip of the unit.
const MAX_DELAY: Duration = Duration::from_secs(600);
/// Unless told otherwise everything is visible for a moment and nobody waits long.
const DEFAULT_DELAYS: Delays = Delays {
    attach: Duration::from_millis(500),
    detach: Duration::from_millis(500),
    link: Duration::from_millis(250),
};
/// AWS allows no more groups on an ENI.
const MAX_GROUPS_PER_ENI: usize = 16;

pub(super) fn problem<T>(at: usize, key: impl Display, problem: impl Into<String>) -> Checked<T> {
    Err(Problem { at, key: key.to_string(), problem: problem.into() })
}

pub(super) fn wrong<T>(text: &Text, key: impl Display, expected: impl Display) -> Checked<T> {
    problem(text.span().start, key, format!("{:?}, expected {expected}", text.get_ref()))
}

pub(super) fn check(raw: Raw) -> Checked<Config> {
    let name = check_name(&raw.name)?;
    let region = matching(&raw.region, "region", is_region, "a region such as us-west-2")?;
    let account = matching(
        &raw.account,
        "account",
        |a| a.len() == 12 && a.bytes().all(|b| b.is_ascii_digit()),
        "12 digits",
    )?;
    let listen = parsed(&raw.listen, "listen", "an address and port such as 127.0.0.1:4566")?;
    let auth = raw.auth.as_ref().is_none_or(|a| *a.get_ref());
    let operator = raw.operator.map(check_operator).transpose()?;
    if auth && operator.is_none() {
        let at = raw.auth.map_or(0, |a| a.span().start);
        return problem(at, "operator", "missing, expected access_key and secret_key because auth is on");
    }
    let vpc = check_vpc(raw.vpc, &name)?;
    let subnets = check_subnets(raw.subnet, &name, &region, &vpc)?;
    let security_groups = groups::check_groups(raw.security_group, &name)?;
    let instances = check_instances(raw.instance, &name, &subnets, &security_groups)?;
    let mtu = raw.mtu.as_ref().map_or(DEFAULT_MTU, |m| *m.get_ref());
    if !MTU_RANGE.contains(&mtu) {
        let at = raw.mtu.map_or(0, |m| m.span().start);
        let (low, high) = (MTU_RANGE.start(), MTU_RANGE.end());
        return problem(at, "mtu", format!("{mtu}, expected {low} to {high}"));
    }
    let delays = check_delays(&raw.delays)?;
    let clusters = check_clusters(&raw.ecs)?;
    Ok(Config {
        name,
        region,
        account,
        listen,
        auth,
        operator,
        vpc,
        subnets,
        security_groups,
        instances,
        clusters,
        delays,
        mtu,
    })
}

// ----------------------------------------------------------------------------------------------------------------- values

pub(super) fn matching(
    text: &Text,
    key: impl Display,
    fits: impl Fn(&str) -> bool,
    expected: impl Display,
) -> Checked<String> {
    if fits(text.get_ref()) { Ok(text.get_ref().clone()) } else { wrong(text, key, expected) }
}

fn parsed<T: std::str::FromStr>(text: &Text, key: impl Display, expected: impl Display) -> Checked<T> {
    text.get_ref().parse().or_else(|_| wrong(text, key, expected))
}

fn check_name(text: &Text) -> Checked<String> {
    let key = "name";
    let name = matching(
        text,
        key,
        is_label,
        format!("1 to {MAX_NAME} lower-case letters, digits and dashes, a letter first"),
    )?;
    // Agents take /run/netns/berth-XXXXXXXX-... for slots of theirs, and would tear ours down as leaks.
    let slot_like = name.strip_prefix("berth-").is_some_and(|rest| {
        let head = rest.split('-').next().unwrap_or_default();
        head.len() == 8 && head.bytes().all(|b| b.is_ascii_hexdigit())
    });
    if slot_like {
        return wrong(text, key, "a name that no agent takes for one of its slots (berth- and 8 digits)");
    }
    Ok(name)
}

fn is_label(text: &str) -> bool {
    text.len() <= MAX_NAME
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Name tags: anything that fits in a table cell.
pub(super) fn is_tag(text: &str) -> bool {
    (1..=255).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn is_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let lower = |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_lowercase());
    match parts.as_slice() {
        [words @ .., number] => {
            words.len() >= 2
                && words.iter().all(|w| lower(w))
                && number.len() == 1
                && number.bytes().all(|b| b.is_ascii_digit())
        }
        [] => false,
    }
}

fn is_instance_type(text: &str) -> bool {
    let word = |p: &str| {
        !p.is_empty() && p.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    text.split_once('.').is_some_and(|(family, size)| word(family) && word(size))
}

fn is_role(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b))
}

/// A given id, or one that is derived from the names, so that the same file gives the same ids at every start.
pub(super) fn check_id(
    given: Option<Text>,
    key: &str,
    kind: &str,
    box_name: &str,
    name: &str,
) -> Checked<String> {
    let Some(text) = given else { return Ok(derive_id(kind, &[box_name, name])) };
    let digits = |id: &str| {
        id.strip_prefix(kind).and_then(|r| r.strip_prefix('-')).is_some_and(|hex| {
            (hex.len() == 8 || hex.len() == 17)
                && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        })
    };
    matching(
        &text,
        format!("{key}.id"),
        digits,
        format!("{kind}- and 17 (or 8) lower-case hexadecimal digits"),
    )
}

/// Sees to it that names, and ids, are given once.
#[derive(Default)]
pub(super) struct Seen(BTreeMap<String, String>);

impl Seen {
    pub(super) fn add(&mut self, value: &str, at: usize, key: String) -> Checked<()> {
        match self.0.insert(value.to_owned(), key.clone()) {
            None => Ok(()),
            Some(first) => {
                problem(at, key, format!("{value:?} is also the value of {first}, expected another"))
            }
        }
    }
}

fn ipv4_block(text: &Text, key: &str) -> Checked<Ipv4Net> {
    let (low, high) = (IPV4_PREFIXES.start(), IPV4_PREFIXES.end());
    let block: Ipv4Net = parsed(text, key, "an IPv4 block such as 10.0.0.0/16")?;
    if !IPV4_PREFIXES.contains(&block.prefix_len()) {
        return wrong(text, key, format!("a prefix length of {low} to {high}"));
    }
    if block.trunc() != block {
        return wrong(text, key, format!("{} (no bits set after the prefix)", block.trunc()));
    }
    Ok(block)
}

fn ipv6_block(text: &Text, key: &str, prefixes: std::ops::RangeInclusive<u8>) -> Checked<Ipv6Net> {
    let block: Ipv6Net = parsed(text, key, "an IPv6 block such as 2001:db8:1::/56")?;
    if !prefixes.contains(&block.prefix_len()) {
        let (low, high) = (prefixes.start(), prefixes.end());
        let range = if low == high { format!("{low}") } else { format!("{low} to {high}") };
        return wrong(text, key, format!("a prefix length of {range}"));
    }
    if block.trunc() != block {
        return wrong(text, key, format!("{} (no bits set after the prefix)", block.trunc()));
    }
    Ok(block)
}

// ----------------------------------------------------------------------------------------------------------------- tables

fn check_operator(raw: RawOperator) -> Checked<OperatorKey> {
    let visible = |t: &str| (1..=128).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_graphic());
    let expected = "1 to 128 visible ASCII characters";
    let access_key = matching(&raw.access_key, "operator.access_key", visible, expected)?;
    // The secret itself must not get into an error message.
    if !visible(raw.secret_key.get_ref()) {
        return problem(raw.secret_key.span().start, "operator.secret_key", format!("expected {expected}"));
    }
    Ok(OperatorKey { access_key, secret_key: raw.secret_key.into_inner() })
}

fn check_vpc(raw: RawVpc, box_name: &str) -> Checked<VpcConfig> {
    Ok(VpcConfig {
        id: check_id(raw.id, "vpc", "vpc", box_name, "vpc")?,
        ipv4: ipv4_block(&raw.cidr, "vpc.cidr")?,
        ipv6: raw
            .ipv6_cidr
            .as_ref()
            .map(|t| ipv6_block(t, "vpc.ipv6_cidr", VPC_IPV6_PREFIXES))
            .transpose()?,
    })
}

fn check_subnets(
    raw: Vec<RawSubnet>,
    box_name: &str,
    region: &str,
    vpc: &VpcConfig,
) -> Checked<Vec<SubnetConfig>> {
    let (mut names, mut ids) = (Seen::default(), Seen::default());
    let mut subnets: Vec<SubnetConfig> = Vec::new();
    for (index, raw) in raw.into_iter().enumerate() {
        let key = format!("subnet[{index}]");
        let at = raw.name.span().start;
        let name = matching(&raw.name, format!("{key}.name"), is_tag, "1 to 255 characters")?;
        names.add(&name, at, format!("{key}.name"))?;
        let zone = matching(
            &raw.zone,
            format!("{key}.zone"),
            |z| z.strip_prefix(region).is_some_and(|l| l.len() == 1 && l.as_bytes()[0].is_ascii_lowercase()),
            format!("the region and a letter, such as {region}a"),
        )?;
        let zone_id = match &raw.zone_id {
            Some(text) => matching(text, format!("{key}.zone_id"), is_label, "an id such as usw2-az1")?,
            None => derive_zone_id(region, &zone),
        };
        let ipv4 = subnet_ipv4(&raw.cidr, &format!("{key}.cidr"), vpc, &subnets)?;
        let ipv6 = raw
            .ipv6_cidr
            .as_ref()
            .map(|t| subnet_ipv6(t, &format!("{key}.ipv6_cidr"), vpc, &subnets))
            .transpose()?;
        let id = check_id(raw.id, &key, "subnet", box_name, &name)?;
        ids.add(&id, at, format!("{key}.id"))?;
        subnets.push(SubnetConfig { id, name, zone, zone_id, ipv4, ipv6 });
    }
    if subnets.is_empty() {
        return problem(0, "subnet", "missing, expected at least one [[subnet]]");
    }
    Ok(subnets)
}

fn subnet_ipv4(text: &Text, key: &str, vpc: &VpcConfig, others: &[SubnetConfig]) -> Checked<Ipv4Net> {
    let block = ipv4_block(text, key)?;
    if !vpc.ipv4.contains(&block) {
        return wrong(text, key, format!("a block inside the VPC's {}", vpc.ipv4));
    }
    match others.iter().find(|s| s.ipv4.contains(&block) || block.contains(&s.ipv4)) {
        Some(s) => {
            wrong(text, key, format!("a block that does not overlap {} of subnet {:?}", s.ipv4, s.name))
        }
        None => Ok(block),
    }
}

fn subnet_ipv6(text: &Text, key: &str, vpc: &VpcConfig, others: &[SubnetConfig]) -> Checked<Ipv6Net> {
    let block = ipv6_block(text, key, 64..=64)?;
    let Some(all) = vpc.ipv6 else {
        return wrong(text, key, "no IPv6 block, because the VPC has none (vpc.ipv6_cidr)");
    };
    if !all.contains(&block) {
        return wrong(text, key, format!("a block inside the VPC's {all}"));
    }
    match others.iter().find(|s| s.ipv6 == Some(block)) {
        Some(s) => wrong(text, key, format!("a block that subnet {:?} does not have", s.name)),
        None => Ok(block),
    }
}

/// `us-west-2` and `us-west-2b` give `usw2-az2`, as most accounts see it.
fn derive_zone_id(region: &str, zone: &str) -> String {
    let short: String = region
        .split('-')
        .enumerate()
        .map(|(i, part)| match part {
            _ if i == 0 => part,
            "northeast" => "ne",
            "northwest" => "nw",
            "southeast" => "se",
            "southwest" => "sw",
            _ => &part[..1],
        })
        .collect();
    let letter = zone.bytes().last().unwrap_or(b'a');
    format!("{short}-az{}", letter.saturating_sub(b'a') + 1)
}

fn check_instances(
    raw: Vec<RawInstance>,
    box_name: &str,
    subnets: &[SubnetConfig],
    groups: &[SecurityGroupConfig],
) -> Checked<Vec<InstanceConfig>> {
    let (mut names, mut ids) = (Seen::default(), Seen::default());
    let mut in_subnet: BTreeMap<String, u64> = BTreeMap::new();
    let mut instances = Vec::new();
    for (index, raw) in raw.into_iter().enumerate() {
        let key = format!("instance[{index}]");
        let at = raw.name.span().start;
        let name = matching(&raw.name, format!("{key}.name"), is_tag, "1 to 255 characters")?;
        names.add(&name, at, format!("{key}.name"))?;
        let id = check_id(raw.id, &key, "i", box_name, &name)?;
        ids.add(&id, at, format!("{key}.id"))?;
        let instance_type =
            matching(&raw.instance_type, format!("{key}.type"), is_instance_type, "a type such as m5.large")?;
        let subnet = find_subnet(&raw.subnet, &format!("{key}.subnet"), subnets)?;
        let hosts = (1u64 << (32 - u32::from(subnet.ipv4.prefix_len()))) - RESERVED_ADDRESSES;
        let count = in_subnet.entry(subnet.id.clone()).or_default();
        *count += 1;
        if *count > hosts {
            return wrong(
                &raw.subnet,
                format!("{key}.subnet"),
                format!("a subnet with a free address ({} has {hosts}, all taken)", subnet.ipv4),
            );
        }
        let subnet = subnet.id.clone();
        let security_groups = find_groups(&raw.security_groups, &format!("{key}.security_groups"), groups)?;
        let role = raw
            .role
            .as_ref()
            .map(|r| matching(r, format!("{key}.role"), is_role, "1 to 64 letters, digits and +=,.@_-"))
            .transpose()?;
        instances.push(InstanceConfig { id, name, instance_type, subnet, security_groups, role });
    }
    Ok(instances)
}

fn find_subnet<'a>(text: &Text, key: &str, subnets: &'a [SubnetConfig]) -> Checked<&'a SubnetConfig> {
    let wanted = text.get_ref();
    let found = subnets.iter().find(|s| s.name == *wanted || s.id == *wanted);
    let known = || subnets.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
    found.map_or_else(|| wrong(text, key, format!("the name or id of a subnet ({})", known())), Ok)
}

fn find_groups(list: &Spanned<Vec<Text>>, key: &str, groups: &[SecurityGroupConfig]) -> Checked<Vec<String>> {
    let at = list.span().start;
    let wanted = list.get_ref();
    if !(1..=MAX_GROUPS_PER_ENI).contains(&wanted.len()) {
        return problem(at, key, format!("{} groups, expected 1 to {MAX_GROUPS_PER_ENI}", wanted.len()));
    }
    let known = || groups.iter().map(|g| g.name.as_str()).collect::<Vec<_>>().join(", ");
    let mut seen = Seen::default();
    let mut ids = Vec::new();
    for (index, text) in wanted.iter().enumerate() {
        let key = format!("{key}[{index}]");
        let Some(group) = groups.iter().find(|g| g.name == *text.get_ref() || g.id == *text.get_ref()) else {
            return wrong(text, key, format!("the name or id of a security group ({})", known()));
        };
        seen.add(&group.id, text.span().start, key)?;
        ids.push(group.id.clone());
    }
    Ok(ids)
}

fn check_clusters(raw: &RawEcs) -> Checked<Vec<String>> {
    let mut names = Seen::default();
    let mut clusters = Vec::new();
    for (index, text) in raw.clusters.iter().enumerate() {
        let key = format!("ecs.clusters[{index}]");
        let expected = "1 to 255 letters, digits, dashes and underscores";
        let name = matching(text, &key, is_cluster_name, expected)?;
        names.add(&name, text.span().start, key)?;
        clusters.push(name);
    }
    Ok(clusters)
}

fn check_delays(raw: &RawDelays) -> Checked<Delays> {
    let delay = |value: &Option<Spanned<u64>>, key: &str, default: Duration| {
        let Some(value) = value else { return Ok(default) };
        let duration = Duration::from_millis(*value.get_ref());
        if duration > MAX_DELAY {
            let most = MAX_DELAY.as_millis();
            return problem(value.span().start, key, format!("{}, expected at most {most}", value.get_ref()));
        }
        Ok(duration)
    };
    Ok(Delays {
        attach: delay(&raw.attach_ms, "delays.attach_ms", DEFAULT_DELAYS.attach)?,
        detach: delay(&raw.detach_ms, "delays.detach_ms", DEFAULT_DELAYS.detach)?,
        link: delay(&raw.link_ms, "delays.link_ms", DEFAULT_DELAYS.link)?,
    })
}
