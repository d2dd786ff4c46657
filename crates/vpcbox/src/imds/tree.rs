//! The tree of paths, as a value made from an instance's facts. No I/O.

use super::{ImdsCredentials, ImdsInstance, ImdsInterface, mac_text, time_text};
use serde::Serialize;
use std::collections::BTreeMap;

/// A place in the tree.
#[derive(Debug, PartialEq, Eq)]
enum Node {
    Dir(BTreeMap<String, Node>),
    Text(String),
    /// The credentials of the role: made when asked for, not with the tree.
    Credentials,
    /// The signature of the identity document: made by who has the key.
    Signature,
}

/// What is at a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Text(String),
    Credentials,
    /// Of this identity document.
    Signature(String),
}

/// Levels whose listings name directories without a slash: `/` and `/latest`.
const PLAIN_LEVELS: usize = 2;

/// Looks up a decoded path, `/latest/meta-data/mac`.
pub(super) fn find(instance: &ImdsInstance, path: &str) -> Option<Found> {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    let root = root(instance);
    let mut node = &root;
    for part in &parts {
        let Node::Dir(entries) = node else { return None };
        node = entries.get(*part)?;
    }
    match node {
        Node::Dir(entries) => Some(Found::Text(listing(entries, parts.len()))),
        // Also with a slash at the end: botocore asks for `placement/availability-zone/`, and gets it.
        Node::Text(text) => Some(Found::Text(text.clone())),
        Node::Credentials => Some(Found::Credentials),
        Node::Signature => Some(Found::Signature(identity_document(instance))),
    }
}

/// One name on each line, directories with a slash, no newline at the end.
fn listing(entries: &BTreeMap<String, Node>, level: usize) -> String {
    let name = |(name, node): (&String, &Node)| match node {
        Node::Dir(_) if level >= PLAIN_LEVELS => format!("{name}/"),
        _ => name.clone(),
    };
    entries.iter().map(name).collect::<Vec<_>>().join("\n")
}

fn dir(entries: impl IntoIterator<Item = (&'static str, Node)>) -> Node {
    Node::Dir(entries.into_iter().map(|(name, node)| (name.to_owned(), node)).collect())
}

fn text(value: impl ToString) -> Node {
    Node::Text(value.to_string())
}

/// Several values are one on each line. No value: no path, which is how the real service says that an ENI has no IPv6.
fn lines<T: ToString>(values: impl IntoIterator<Item = T>) -> Option<Node> {
    let lines: Vec<String> = values.into_iter().map(|v| v.to_string()).collect();
    (!lines.is_empty()).then(|| Node::Text(lines.join("\n")))
}

fn root(instance: &ImdsInstance) -> Node {
    let identity = dir([("document", text(identity_document(instance))), ("signature", Node::Signature)]);
    let latest =
        dir([("dynamic", dir([("instance-identity", identity)])), ("meta-data", meta_data(instance))]);
    dir([("latest", latest)])
}

fn meta_data(i: &ImdsInstance) -> Node {
    let placement = dir([
        ("availability-zone", text(&i.availability_zone)),
        ("availability-zone-id", text(&i.availability_zone_id)),
        ("region", text(&i.region)),
    ]);
    let macs = i.interfaces.iter().map(|e| (mac_text(e.mac), interface(e))).collect();
    let network = dir([("interfaces", dir([("macs", Node::Dir(macs))]))]);
    let mut entries = vec![
        ("ami-id", text(&i.ami_id)),
        ("hostname", text(&i.hostname)),
        ("instance-id", text(&i.instance_id)),
        ("instance-life-cycle", text("on-demand")),
        ("instance-type", text(&i.instance_type)),
        ("local-hostname", text(&i.hostname)),
        ("local-ipv4", text(i.local_ipv4)),
        ("mac", text(mac_text(i.mac))),
        ("network", network),
        ("placement", placement),
        ("services", dir([("domain", text("amazonaws.com")), ("partition", text("aws"))])),
    ];
    let primary = i.interfaces.iter().find(|e| e.mac == i.mac);
    if let Some(groups) = primary.and_then(|e| lines(e.security_groups.iter().map(|(_, name)| name))) {
        entries.push(("security-groups", groups));
    }
    if let Some(address) = primary.and_then(|e| e.ipv6.first()) {
        entries.push(("ipv6", text(address)));
    }
    if let Some(role) = &i.role {
        let credentials = Node::Dir([(role.clone(), Node::Credentials)].into());
        entries
            .push(("iam", dir([("info", text(role_info(i, role))), ("security-credentials", credentials)])));
    }
    dir(entries)
}

fn interface(e: &ImdsInterface) -> Node {
    let values = [
        ("device-number", Some(text(e.device_number))),
        ("interface-id", Some(text(&e.eni_id))),
        ("ipv6s", lines(&e.ipv6)),
        ("local-hostname", Some(text(&e.hostname))),
        ("local-ipv4s", lines(&e.ipv4)),
        ("mac", Some(text(mac_text(e.mac)))),
        // Types with several cards are not simulated.
        ("network-card", Some(text(0))),
        ("owner-id", Some(text(&e.owner_id))),
        ("security-group-ids", lines(e.security_groups.iter().map(|(id, _)| id))),
        ("security-groups", lines(e.security_groups.iter().map(|(_, name)| name))),
        ("subnet-id", Some(text(&e.subnet_id))),
        ("subnet-ipv4-cidr-block", Some(text(e.subnet_ipv4))),
        ("subnet-ipv6-cidr-blocks", lines(e.subnet_ipv6)),
        ("vpc-id", Some(text(&e.vpc_id))),
        ("vpc-ipv4-cidr-block", e.vpc_ipv4.first().map(text)),
        ("vpc-ipv4-cidr-blocks", lines(&e.vpc_ipv4)),
        ("vpc-ipv6-cidr-blocks", lines(&e.vpc_ipv6)),
    ];
    dir(values.into_iter().filter_map(|(name, node)| Some((name, node?))))
}

// ------------------------------------------------------------------------------------------------------------------- JSON

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Identity<'a> {
    account_id: &'a str,
    architecture: &'a str,
    availability_zone: &'a str,
    billing_products: Option<()>,
    devpay_product_codes: Option<()>,
    marketplace_product_codes: Option<()>,
    image_id: &'a str,
    instance_id: &'a str,
    instance_type: &'a str,
    kernel_id: Option<()>,
    pending_time: String,
    private_ip: String,
    ramdisk_id: Option<()>,
    region: &'a str,
    version: &'a str,
}

fn identity_document(i: &ImdsInstance) -> String {
    json(&Identity {
        account_id: &i.account,
        architecture: architecture(),
        availability_zone: &i.availability_zone,
        billing_products: None,
        devpay_product_codes: None,
        marketplace_product_codes: None,
        image_id: &i.ami_id,
        instance_id: &i.instance_id,
        instance_type: &i.instance_type,
        kernel_id: None,
        pending_time: time_text(i.launched),
        private_ip: i.local_ipv4.to_string(),
        ramdisk_id: None,
        region: &i.region,
        version: "2017-09-30",
    })
}

/// Of the machine that the box runs on, in EC2's words: containers of the other architecture would not run, whatever the
/// instance type says.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        other => other,
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RoleInfo {
    code: &'static str,
    last_updated: String,
    instance_profile_arn: String,
    instance_profile_id: String,
}

fn role_info(i: &ImdsInstance, role: &str) -> String {
    let digits = crate::config::derive_id("profile", &[&i.account, role]);
    json(&RoleInfo {
        code: "Success",
        last_updated: time_text(i.launched),
        instance_profile_arn: format!("arn:aws:iam::{}:instance-profile/{role}", i.account),
        instance_profile_id: digits.replace("profile-", "AIPA").to_uppercase(),
    })
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Credentials<'a> {
    code: &'static str,
    last_updated: String,
    #[serde(rename = "Type")]
    kind: &'static str,
    access_key_id: &'a str,
    secret_access_key: &'a str,
    token: &'a str,
    expiration: String,
}

/// The document at `iam/security-credentials/ROLE`.
pub(super) fn credentials_document(c: &ImdsCredentials) -> String {
    json(&Credentials {
        code: "Success",
        last_updated: time_text(c.last_updated),
        kind: "AWS-HMAC",
        access_key_id: &c.access_key_id,
        secret_access_key: &c.secret_access_key,
        token: &c.token,
        expiration: time_text(c.expiration),
    })
}

/// Structs of strings always make JSON, so the default is never seen.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}
