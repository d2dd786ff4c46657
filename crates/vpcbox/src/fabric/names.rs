//! Names of namespaces and links, all derived from ids, so that whoever comes after a crash finds them again.

use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Where `ip netns` looks for namespaces.
pub(super) const NETNS_DIR: &str = "/run/netns";

/// Longest name of a VPC in a box: what its namespaces are called stays readable in a table.
const MAX_NAME: usize = 32;

/// The group that all VPC ends of ENIs are in, so that one message removes them all, wherever their other ends are. Any number
/// but 0, which is every other link.
pub(super) const LINK_GROUP: u32 = 0xb0c5;

/// Id digits that fit behind a three-letter prefix into the 15 characters of a link's name.
const ID_DIGITS: usize = 12;

pub(super) fn is_box_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

pub(super) fn is_instance_id(id: &str) -> bool {
    id.strip_prefix("i-").is_some_and(|hex| {
        (8..=17).contains(&hex.len()) && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

pub(super) fn vpc_netns(name: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(format!("{name}-vpc"))
}

pub(super) fn instance_netns(name: &str, instance: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(format!("{name}-{instance}"))
}

/// Whether a file under /run/netns is one of this VPC's. Exact, not by prefix: `box` must not take what `box-two` has.
pub(super) fn belongs_to(name: &str, file: &str) -> bool {
    let rest = file.strip_prefix(name).and_then(|r| r.strip_prefix('-'));
    rest.is_some_and(|r| r == "vpc" || is_instance_id(r))
}

/// The bridge of a subnet.
pub(super) fn bridge(subnet: &str) -> String {
    format!("br-{}", tail(subnet))
}

/// The VPC's end of an ENI. The whole id is the link's alias.
pub(super) fn vpc_end(eni: &str) -> String {
    format!("eni{}", tail(eni))
}

fn tail(id: &str) -> String {
    let mut letters: Vec<char> =
        id.chars().rev().filter(char::is_ascii_alphanumeric).take(ID_DIGITS).collect();
    letters.reverse();
    letters.into_iter().collect()
}

/// MAC of a subnet's router: fixed, because a bridge otherwise takes the lowest MAC of its ports and changes it as they come
/// and go, and every neighbour table in the subnet goes stale with it.
pub(super) fn router_mac(subnet: &str) -> [u8; 6] {
    let hash = Sha256::digest(subnet.as_bytes());
    // Locally administered, unicast.
    [0x02, 0xec, hash[0], hash[1], hash[2], hash[3]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_names_belong_to_a_vpc() {
        for mine in ["box-vpc", "box-i-0123456789abcdef0", "box-i-01234567"] {
            assert!(belongs_to("box", mine), "{mine}");
        }
        for other in
            ["box", "box-two-vpc", "box-i-xyz", "box-two-i-01234567", "box-vpc2", "abox-vpc", "box-i-0123"]
        {
            assert!(!belongs_to("box", other), "{other}");
        }
        assert!(belongs_to("box-two", "box-two-i-01234567"));
    }

    #[test]
    fn link_names_fit_into_fifteen_characters() {
        assert_eq!(vpc_end("eni-0123456789abcdef0"), "eni56789abcdef0");
        assert_eq!(bridge("subnet-0123456789abcdef0"), "br-56789abcdef0");
        assert_eq!(vpc_end("eni-1"), "enieni1");
        assert!(vpc_end("eni-0123456789abcdef0").len() <= 15);
    }

    #[test]
    fn router_macs_are_unicast_and_differ_by_subnet() {
        assert_eq!(router_mac("subnet-1")[0] & 1, 0);
        assert_ne!(router_mac("subnet-1"), router_mac("subnet-2"));
    }
}
