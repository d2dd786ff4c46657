//! What calls may say of rules, and that what replies say of them is read as the same.

use super::*;
use proptest::prelude::*;

fn read(query: &str) -> Result<Vec<NewRule>, ApiError> {
    let mut params = Params::parse(query.as_bytes())?;
    let rules = take(&mut params)?;
    params.finish()?;
    Ok(rules)
}

fn read_one(query: &str) -> Terms {
    let mut rules = read(query).unwrap();
    assert_eq!(rules.len(), 1);
    rules.remove(0).terms
}

const FROM_ALL: &str = "&IpPermissions.1.IpRanges.1.CidrIp=0.0.0.0/0";

#[test]
fn the_old_flat_form_and_the_new_one_say_the_same() {
    let old = read_one("IpProtocol=tcp&FromPort=80&ToPort=81&CidrIp=10.0.7.9/16");
    let new = "IpPermissions.1.IpProtocol=6&IpPermissions.1.FromPort=80&IpPermissions.1.ToPort=81\
               &IpPermissions.1.IpRanges.1.CidrIp=10.0.0.0/16";
    assert_eq!(old, read_one(new), "by name or number, and without the host's bits");
    let ports = Ports { first: 80, last: 81 };
    assert_eq!(old, Terms { traffic: Traffic::Tcp(ports), peer: Peer::V4("10.0.0.0/16".parse().unwrap()) });
}

#[test]
fn a_permission_is_a_rule_for_each_of_its_peers() {
    let rules = read(
        "IpPermissions.1.IpProtocol=-1&IpPermissions.1.FromPort=-1&IpPermissions.1.ToPort=-1\
         &IpPermissions.1.IpRanges.1.CidrIp=10.0.0.0/8&IpPermissions.1.IpRanges.1.Description=in+house\
         &IpPermissions.1.IpRanges.2.CidrIp=192.168.0.0/16&IpPermissions.1.Ipv6Ranges.1.CidrIpv6=::/0\
         &IpPermissions.1.Groups.1.GroupId=sg-0123456789abcdef0&IpPermissions.1.Groups.1.UserId=123456789012\
         &IpPermissions.2.IpProtocol=icmpv6&IpPermissions.2.Ipv6Ranges.1.CidrIpv6=::/0",
    );
    let rules = rules.unwrap();
    assert_eq!(rules.iter().filter(|rule| rule.terms.traffic == Traffic::Any).count(), 4);
    assert_eq!(rules[0].description.as_deref(), Some("in house"));
    assert_eq!(rules[4].terms.traffic, Traffic::Icmpv6(IcmpKind::Any), "type and code may be left out");
}

#[test]
fn what_cannot_be_is_refused_with_ec2s_code() {
    let long = format!("{FROM_ALL}&IpPermissions.1.IpRanges.1.Description={}", "x".repeat(256));
    let table = [
        ("", "MissingParameter"),
        ("IpProtocol=tcp&FromPort=1&ToPort=2", "MissingParameter"),
        ("IpProtocol=tcp&CidrIp=0.0.0.0/0", "InvalidParameterValue"),
        ("IpProtocol=tcp&FromPort=2&ToPort=1&CidrIp=0.0.0.0/0", "InvalidParameterValue"),
        ("IpProtocol=tcp&FromPort=-1&ToPort=-1&CidrIp=0.0.0.0/0", "InvalidParameterValue"),
        ("IpProtocol=udp&FromPort=1&ToPort=65536&CidrIp=0.0.0.0/0", "InvalidParameterValue"),
        ("IpProtocol=udp&FromPort=x&ToPort=1&CidrIp=0.0.0.0/0", "InvalidParameterValue"),
        ("IpProtocol=icmp&FromPort=-1&ToPort=0&CidrIp=0.0.0.0/0", "InvalidParameterValue"),
        ("IpProtocol=icmp&FromPort=256&ToPort=0&CidrIp=0.0.0.0/0", "InvalidParameterValue"),
        ("IpProtocol=icmp&CidrIp=0.0.0.0/0", "InvalidParameterValue"),
        ("IpProtocol=tpc&FromPort=1&ToPort=1&CidrIp=0.0.0.0/0", "InvalidParameterValue"),
        ("IpProtocol=256&CidrIp=0.0.0.0/0", "InvalidParameterValue"),
        ("IpProtocol=-1&CidrIp=10.0.0.1", "InvalidParameterValue"),
        ("IpProtocol=-1&CidrIp=10.0.0.0/33", "InvalidParameterValue"),
        ("SourceSecurityGroupName=web", "InvalidParameterValue"),
        ("IpPermissions.1.IpProtocol=-1", "InvalidPermission.Malformed"),
        ("IpPermissions.1.IpRanges.1.CidrIp=0.0.0.0/0", "MissingParameter"),
        ("IpPermissions.1.IpProtocol=-1&IpPermissions.1.Groups.1.GroupName=web", "InvalidParameterValue"),
        ("IpPermissions.1.IpProtocol=-1&IpPermissions.1.Groups.1.GroupId=web", "InvalidGroupId.Malformed"),
        (
            "IpPermissions.1.IpProtocol=-1&IpPermissions.1.PrefixListIds.1.PrefixListId=pl-1",
            "InvalidPrefixListID.NotFound",
        ),
        (
            "IpProtocol=-1&IpPermissions.1.IpProtocol=-1&IpPermissions.1.IpRanges.1.CidrIp=0.0.0.0/0",
            "InvalidParameterCombination",
        ),
    ];
    for (query, code) in table {
        assert_eq!(read(query).expect_err(query).code, code, "{query}");
    }
    let described = format!("IpPermissions.1.IpProtocol=-1{long}");
    assert_eq!(read(&described).unwrap_err().code, "InvalidParameterValue");
}

fn some_traffic() -> impl Strategy<Value = Traffic> {
    let ports = || (any::<u16>(), any::<u16>()).prop_map(|(a, b)| Ports { first: a.min(b), last: a.max(b) });
    let kind = || {
        prop_oneof![
            Just(IcmpKind::Any),
            any::<u8>().prop_map(IcmpKind::Type),
            any::<(u8, u8)>().prop_map(|(kind, code)| IcmpKind::Code(kind, code)),
        ]
    };
    let numbered = any::<u8>().prop_filter("has a name", |n| ![1, 6, 17, 58].contains(n));
    prop_oneof![
        Just(Traffic::Any),
        ports().prop_map(Traffic::Tcp),
        ports().prop_map(Traffic::Udp),
        kind().prop_map(Traffic::Icmp),
        kind().prop_map(Traffic::Icmpv6),
        numbered.prop_map(Traffic::Protocol),
    ]
}

proptest! {
    #[test]
    fn traffic_is_read_back_from_its_words(traffic in some_traffic()) {
        let words = Words::of(traffic);
        prop_assert_eq!(super::traffic(&words.protocol, words.from, words.to).unwrap(), traffic);
    }

    #[test]
    fn no_words_make_it_panic(protocol in ".{0,12}", from in any::<Option<i32>>(), to in any::<Option<i32>>()) {
        drop(super::traffic(&protocol, from, to));
        drop(ipv4(&protocol));
        drop(ipv6(&protocol));
    }
}
