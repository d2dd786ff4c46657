//! Good files, and a table of bad ones with what is said about each.

use super::*;
use crate::fabric::filter::{Peer, Ports, Traffic};
use proptest::prelude::*;

const GOOD: &str = r#"
name = "box"
region = "us-west-2"
account = "111122223333"
listen = "127.0.0.1:0"
auth = true
mtu = 1500
[operator]
access_key = "AKIAX"
secret_key = "s3cret"
[vpc]
cidr = "10.0.0.0/16"
ipv6_cidr = "2001:db8:1::/56"
[[subnet]]
name = "a"
zone = "us-west-2a"
cidr = "10.0.1.0/24"
ipv6_cidr = "2001:db8:1:1::/64"
[[subnet]]
name = "b"
zone = "us-west-2b"
cidr = "10.0.2.0/24"
[[security_group]]
name = "default"
[[instance]]
name = "one"
type = "m5.large"
subnet = "a"
security_groups = ["default"]
role = "node"
[delays]
attach_ms = 100
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("vpc.toml"))
}

#[test]
fn a_good_file_gives_ids_that_stay_the_same() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config, parse(GOOD).unwrap());
    assert_eq!(config.instances[0].subnet, config.subnets[0].id);
    assert_eq!(config.instances[0].security_groups, [config.security_groups[0].id.clone()]);
    assert_eq!(config.subnets[1].zone_id, "usw2-az2");
    assert_eq!(config.delays.attach, Duration::from_millis(100));
    for (id, prefix) in
        [(&config.vpc.id, "vpc-"), (&config.instances[0].id, "i-"), (&config.subnets[0].id, "subnet-")]
    {
        assert!(id.starts_with(prefix) && id.len() == prefix.len() + 17, "{id}");
    }
    let other = parse(&GOOD.replace("\"box\"", "\"box-two\"")).unwrap();
    assert_ne!(
        config.instances[0].id, other.instances[0].id,
        "two boxes on one machine have different instances"
    );
}

#[test]
fn given_ids_are_kept_and_can_be_referred_to() {
    let text = GOOD
        .replace("[[subnet]]\nname = \"a\"", "[[subnet]]\nid = \"subnet-0123456789abcdef0\"\nname = \"a\"")
        .replace("subnet = \"a\"", "subnet = \"subnet-0123456789abcdef0\"");
    assert_eq!(parse(&text).unwrap().instances[0].subnet, "subnet-0123456789abcdef0");
}

#[test]
fn the_example_file_is_good() {
    let config = Config::load(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples/vpc.toml")).unwrap();
    assert_eq!((config.name.as_str(), config.subnets.len(), config.instances.len()), ("berth-demo", 2, 2));
    assert!(config.auth && config.subnets[0].zone != config.subnets[1].zone);
    assert_eq!(
        config.fabric_spec().instances,
        [config.instances[0].id.clone(), config.instances[1].id.clone()]
    );
}

/// What is replaced, by what, and the message that the operator gets.
const BAD: &[(&str, &str, &str)] = &[
    ("name = \"box\"", "", "vpc.toml:1: name: missing, expected a value"),
    (
        "\"box\"",
        "\"Box\"",
        "vpc.toml:2: name: \"Box\", expected 1 to 32 lower-case letters, digits and dashes, a letter first",
    ),
    (
        "\"box\"",
        "\"berth-deadbeef\"",
        "vpc.toml:2: name: \"berth-deadbeef\", expected a name that no agent takes for one of its slots (berth- and 8 digits)",
    ),
    ("\"us-west-2\"", "\"west\"", "vpc.toml:3: region: \"west\", expected a region such as us-west-2"),
    ("\"111122223333\"", "\"12\"", "vpc.toml:4: account: \"12\", expected 12 digits"),
    (
        "\"127.0.0.1:0\"",
        "\"localhost\"",
        "vpc.toml:5: listen: \"localhost\", expected an address and port such as 127.0.0.1:4566",
    ),
    ("auth = true", "auth = 1", "vpc.toml:6: auth: invalid type: integer `1`, expected a boolean"),
    ("mtu = 1500", "mtu = \"big\"", "vpc.toml:7: mtu: invalid type: string \"big\", expected u32"),
    ("mtu = 1500", "mtu = 100", "vpc.toml:7: mtu: 100, expected 1280 to 9001"),
    (
        "[operator]\naccess_key = \"AKIAX\"\nsecret_key = \"s3cret\"",
        "",
        "vpc.toml:6: operator: missing, expected access_key and secret_key because auth is on",
    ),
    (
        "secret_key = \"s3cret\"",
        "secret_key = \"s3 cret\"",
        "vpc.toml:10: operator.secret_key: expected 1 to 128 visible ASCII characters",
    ),
    (
        "10.0.0.0/16",
        "10.0.0.0/8",
        "vpc.toml:12: vpc.cidr: \"10.0.0.0/8\", expected a prefix length of 16 to 28",
    ),
    (
        "10.0.0.0/16",
        "10.0.3.0/16",
        "vpc.toml:12: vpc.cidr: \"10.0.3.0/16\", expected 10.0.0.0/16 (no bits set after the prefix)",
    ),
    (
        "2001:db8:1::/56",
        "10.1.0.0/16",
        "vpc.toml:13: vpc.ipv6_cidr: \"10.1.0.0/16\", expected an IPv6 block such as 2001:db8:1::/56",
    ),
    ("cidr = \"10.0.1.0/24\"", "", "vpc.toml:14: subnet[0].cidr: missing, expected a value"),
    (
        "10.0.1.0/24",
        "10.1.1.0/24",
        "vpc.toml:17: subnet[0].cidr: \"10.1.1.0/24\", expected a block inside the VPC's 10.0.0.0/16",
    ),
    (
        "10.0.2.0/24",
        "10.0.0.0/23",
        "vpc.toml:22: subnet[1].cidr: \"10.0.0.0/23\", expected a block that does not overlap 10.0.1.0/24 of subnet \"a\"",
    ),
    (
        "2001:db8:1:1::/64",
        "2001:db8:2:1::/64",
        "vpc.toml:18: subnet[0].ipv6_cidr: \"2001:db8:2:1::/64\", expected a block inside the VPC's 2001:db8:1::/56",
    ),
    (
        "us-west-2b",
        "us-east-1b",
        "vpc.toml:21: subnet[1].zone: \"us-east-1b\", expected the region and a letter, such as us-west-2a",
    ),
    (
        "name = \"b\"",
        "name = \"a\"",
        "vpc.toml:20: subnet[1].name: \"a\" is also the value of subnet[0].name, expected another",
    ),
    (
        "name = \"one\"",
        "name = \"one\"\nid = \"i-xyz\"",
        "vpc.toml:27: instance[0].id: \"i-xyz\", expected i- and 17 (or 8) lower-case hexadecimal digits",
    ),
    (
        "subnet = \"a\"",
        "subnet = \"c\"",
        "vpc.toml:28: instance[0].subnet: \"c\", expected the name or id of a subnet (a, b)",
    ),
    (
        "[\"default\"]",
        "[\"default\", \"web\"]",
        "vpc.toml:29: instance[0].security_groups[1]: \"web\", expected the name or id of a security group (default)",
    ),
    ("[\"default\"]", "[]", "vpc.toml:29: instance[0].security_groups: 0 groups, expected 1 to 16"),
    (
        "\"m5.large\"",
        "\"large\"",
        "vpc.toml:27: instance[0].type: \"large\", expected a type such as m5.large",
    ),
    (
        "attach_ms = 100",
        "attach_ms = 3600000",
        "vpc.toml:32: delays.attach_ms: 3600000, expected at most 600000",
    ),
    (
        "attach_ms = 100",
        "attach_s = 1",
        "vpc.toml:32: delays.attach_s: unknown field `attach_s`, expected one of `attach_ms`, `detach_ms`, `link_ms`",
    ),
    ("[delays]", "[delays", "vpc.toml:31: TOML syntax: "),
];

#[test]
fn errors_name_the_line_the_key_and_what_was_expected() {
    for (good, bad, message) in BAD {
        assert!(GOOD.contains(good), "the table is out of date: {good}");
        let error = parse(&GOOD.replacen(good, bad, 1)).unwrap_err().to_string();
        assert!(error.starts_with(message), "\n     got {error}\nexpected {message}");
        assert!(!error.contains("s3cret"), "a secret in {error}");
    }
}

#[test]
fn a_subnet_takes_as_many_instances_as_it_has_addresses() {
    let mut text = GOOD.replace("10.0.1.0/24", "10.0.1.0/28");
    for n in 2..=12 {
        text = text.replace(
            "[delays]",
            &format!("[[instance]]\nname = \"n{n}\"\ntype = \"m5.large\"\nsubnet = \"a\"\nsecurity_groups = [\"default\"]\n[delays]"),
        );
        let result = parse(&text);
        if n <= 11 {
            assert_eq!(result.unwrap().instances.len(), n);
        } else {
            let error = result.unwrap_err().to_string();
            assert!(error.contains("10.0.1.0/28 has 11, all taken"), "{error}");
        }
    }
}

#[test]
fn a_file_that_is_not_there_or_too_large_is_named() {
    let missing = Config::load("/nonexistent/vpc.toml").unwrap_err();
    assert_eq!(missing.to_string(), "read /nonexistent/vpc.toml");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vpc.toml");
    std::fs::write(&path, "#".repeat(1024 * 1024 + 1)).unwrap();
    assert!(matches!(Config::load(&path), Err(ConfigError::TooLarge { .. })));
}

#[test]
fn debug_output_holds_no_secret() {
    assert!(!format!("{:?}", parse(GOOD).unwrap()).contains("s3cret"));
}

proptest! {
    #[test]
    fn no_text_makes_the_loader_panic(text in "\\PC{0,200}") {
        drop(parse(&text));
    }

    #[test]
    fn no_value_in_any_place_makes_the_loader_panic(line in 0usize..33, value in "(\"\\PC{0,12}\"|-?[0-9]{1,22}|\\[\\]|true|\\{\\}|[0-9./:-]{1,12})") {
        let mut lines: Vec<String> = GOOD.lines().map(str::to_owned).collect();
        if let Some(text) = lines.get_mut(line) && let Some((key, _)) = text.clone().split_once('=') {
            *text = format!("{key}= {value}");
        }
        drop(parse(&lines.join("\n")));
    }
}

#[test]
fn security_groups_have_the_rules_that_the_file_gives_them() {
    let rules = r#"
[[security_group]]
name = "web"
description = "in front"
egress = []
[[security_group.ingress]]
protocol = "tcp"
ports = "8000-8080"
from = ["10.0.7.1/16", "db", "::/0"]
[[security_group.ingress]]
protocol = "50"
from = ["default"]
[[security_group]]
name = "db"
"#;
    let config = crate::samples::config(
        &crate::samples::ONE_INSTANCE.replace("[[instance]]", &format!("{rules}\n[[instance]]")),
    );
    let [default, web, db] = config.security_groups.as_slice() else { panic!("{config:?}") };
    assert_eq!((default.ingress.as_ref(), db.ingress.as_ref(), db.egress.as_ref()), (None, None, None));
    assert_eq!((web.description.as_str(), web.egress.as_deref()), ("in front", Some(&[][..])));
    let range = Traffic::Tcp(Ports { first: 8000, last: 8080 });
    let allow = |traffic, peer| Allow { traffic, peer };
    assert_eq!(
        web.ingress.as_deref(),
        Some(
            &[
                allow(range, Peer::V4("10.0.0.0/16".parse().unwrap())),
                allow(range, Peer::Group(db.id.clone())),
                allow(range, Peer::V6("::/0".parse().unwrap())),
                allow(Traffic::Protocol(50), Peer::Group(default.id.clone())),
            ][..]
        )
    );
}

#[test]
fn a_wrong_rule_is_named_with_what_was_expected() {
    let table = [
        ("protocol = \"tpc\"\nfrom = []", "ingress[0].protocol: \"tpc\", expected all, tcp, udp"),
        ("protocol = \"tcp\"\nports = \"90-80\"\nfrom = []", "ingress[0].ports: \"90-80\", expected a port"),
        ("protocol = \"icmp\"\nports = \"8\"\nfrom = []", "ingress[0].ports: \"8\", expected none"),
        ("from = [\"elsewhere\"]", "ingress[0].from[0]: \"elsewhere\", expected a block"),
        ("from = [\"default\", \"default\"]", "ingress[0].from[1]: \"default\", expected each rule once"),
        ("ports = \"80\"", "ingress[0].from: missing"),
    ];
    for (rule, expected) in table {
        let text = crate::samples::ONE_INSTANCE
            .replace("[[instance]]", &format!("[[security_group.ingress]]\n{rule}\n[[instance]]"));
        let error = Config::parse(&text, Path::new("vpc.toml")).unwrap_err().to_string();
        assert!(error.contains(&format!("security_group[0].{expected}")), "{error}");
    }
}

#[test]
fn clusters_have_names_that_ecs_would_take_and_each_its_own() {
    let with = |clusters: &str| {
        crate::samples::ONE_INSTANCE.replace("[delays]", &format!("[ecs]\nclusters = {clusters}\n[delays]"))
    };
    assert_eq!(crate::samples::config(&with(r#"["demo", "other_2"]"#)).clusters, ["demo", "other_2"]);
    assert_eq!(crate::samples::config(crate::samples::ONE_INSTANCE).clusters, Vec::<String>::new());
    for (clusters, expected) in [
        (r#"["demo", "demo"]"#, "ecs.clusters[1]: \"demo\" is also the value of ecs.clusters[0]"),
        (r#"["no blanks"]"#, "ecs.clusters[0]: \"no blanks\", expected 1 to 255 letters"),
    ] {
        let error = Config::parse(&with(clusters), Path::new("vpc.toml")).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
