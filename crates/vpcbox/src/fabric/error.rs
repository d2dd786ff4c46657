//! What can go wrong with the fabric.

use berth_netns::ns::NsError;
use std::{io, path::PathBuf};

/// Why the fabric could not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FabricError {
    /// The specification cannot be built.
    #[error("{what} {value:?}: {expected}")]
    Spec {
        /// Which part.
        what: &'static str,
        /// Its value.
        value: String,
        /// What was expected.
        expected: &'static str,
    },
    /// A fabric of this name is alive.
    #[error("vpc {0} is running already")]
    Running(String),
    /// It cannot be told whether a fabric of this name is alive.
    #[error("claim the name {name}")]
    Claim {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The fabric's thread could not be started.
    #[error("start the fabric's thread")]
    Thread(#[source] io::Error),
    /// The namespaces cannot be listed.
    #[error("list {}", dir.display())]
    List {
        /// Which directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An operation on a namespace failed.
    #[error("{op} {name}")]
    Namespace {
        /// Which operation.
        op: &'static str,
        /// The namespace.
        name: String,
        /// Why.
        #[source]
        source: NsError,
    },
    /// A kernel setting was refused.
    #[error("set {setting} in {name}")]
    Setting {
        /// Path below /proc/sys/net.
        setting: String,
        /// The namespace.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A netlink request was refused.
    #[error("{op} {what}")]
    Link {
        /// Which operation.
        op: &'static str,
        /// On which link, address or route.
        what: String,
        /// Why.
        #[source]
        source: rtnetlink::Error,
    },
    /// A link that was just there, or just made, is gone.
    #[error("link {0} has vanished")]
    Vanished(String),
    /// The link was made and configured, but did not come up.
    #[error("link of {eni} did not come up within {millis} ms")]
    NoCarrier {
        /// Which ENI.
        eni: String,
        /// How long it was given.
        millis: u128,
    },
    /// The link was given its addresses, but did not take them.
    #[error("link {link} did not take its addresses within {millis} ms")]
    NotHeard {
        /// Which link.
        link: String,
        /// How long it was given.
        millis: u128,
    },
    /// The fabric has no such instance.
    #[error("the fabric has no instance {0}")]
    NoSuchInstance(String),
    /// The fabric has no such subnet.
    #[error("the fabric has no subnet {0}")]
    NoSuchSubnet(String),
    /// The subnet's bridge takes no more ports.
    #[error("subnet {subnet} is full: a bridge takes {limit} ports")]
    SubnetFull {
        /// Which.
        subnet: String,
        /// The limit.
        limit: usize,
    },
    /// The ENI is plugged in somewhere else, or with other values, and must be unplugged first.
    #[error("{eni} is plugged into {instance} already, with other values")]
    PluggedOtherwise {
        /// Which ENI.
        eni: String,
        /// Where it is.
        instance: String,
    },
    /// A link of the name is there already and belongs to something else.
    #[error("the name {name} for a link of {eni} is taken")]
    NameTaken {
        /// Which ENI.
        eni: String,
        /// Which name.
        name: String,
    },
    /// The program that filters packets is not installed.
    #[error("nft is not there: install the package nftables")]
    NoNft(#[source] io::Error),
    /// It could not be run.
    #[error("run nft")]
    Nft(#[source] io::Error),
    /// It took longer than it ever should.
    #[error("nft did not end within {seconds} s")]
    NftSlow {
        /// How long it was given.
        seconds: u64,
    },
    /// It refused the rules; nothing was changed.
    #[error("nft refused the rules: {0}")]
    NftRefused(String),
    /// It printed something else than was asked for.
    #[error("read what nft counts")]
    NftReply(#[source] serde_json::Error),
    /// The fabric was taken down.
    #[error("the fabric is down")]
    Down,
}
