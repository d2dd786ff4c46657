//! The address blocks of subnets. EC2 does not repeat them with each ENI, and they hardly ever change, so they are kept.

use crate::{config::read_overrides, convert, failure};
use aws_sdk_ec2::{Client, types::Filter};
use berth_types::{
    ids::SubnetId,
    ports::{CloudError, CloudErrorKind},
};
use ipnet::{Ipv4Net, Ipv6Net};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};
use tracing::debug;

/// Subnets that are remembered: an instance's ENIs lie in the few subnets of one zone. When there are more, all are forgotten and read
/// again as they are needed.
const REMEMBERED: usize = 64;
/// Values that EC2 takes in one filter.
const FILTER_VALUES: usize = 200;

/// A subnet's blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blocks {
    pub(crate) ipv4: Ipv4Net,
    pub(crate) ipv6: Option<Ipv6Net>,
}

/// A subnet whose blocks are asked for, and whether one of IPv6 is expected: a block can be added to a subnet that we know without one.
pub(crate) type Wanted = BTreeMap<SubnetId, bool>;

/// The blocks that have been read.
#[derive(Debug, Default)]
pub(crate) struct Subnets {
    known: Mutex<BTreeMap<SubnetId, Blocks>>,
}

impl Subnets {
    /// The blocks of these subnets; what is not known is read in one call. A subnet that EC2 does not have is absent.
    pub(crate) async fn blocks(
        &self,
        ec2: &Client,
        wanted: &Wanted,
    ) -> Result<BTreeMap<SubnetId, Blocks>, CloudError> {
        let missing: BTreeSet<SubnetId> = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let fits =
                |id, ipv6: bool| known.get(id).is_some_and(|blocks: &Blocks| blocks.ipv6.is_some() || !ipv6);
            wanted.iter().filter(|(id, ipv6)| !fits(id, **ipv6)).map(|(id, _)| id.clone()).collect()
        };
        let mut read = BTreeMap::new();
        if !missing.is_empty() {
            debug!(subnets = missing.len(), "reading subnets");
            let missing: Vec<SubnetId> = missing.into_iter().collect();
            for chunk in missing.chunks(FILTER_VALUES) {
                read.extend(describe(ec2, chunk).await?);
            }
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let found = |id| read.get(id).or_else(|| known.get(id)).map(|blocks| (SubnetId::clone(id), *blocks));
        let answer = wanted.keys().filter_map(found).collect();
        if known.len() + read.len() > REMEMBERED {
            known.clear();
        }
        known.extend(read.into_iter().take(REMEMBERED));
        Ok(answer)
    }

    /// The blocks of one subnet, which has to exist.
    pub(crate) async fn one(&self, ec2: &Client, subnet: &SubnetId) -> Result<Blocks, CloudError> {
        let blocks = self.blocks(ec2, &Wanted::from([(subnet.clone(), false)])).await?;
        blocks.get(subnet).copied().ok_or_else(|| {
            let text = "InvalidSubnetID.NotFound: EC2 does not know it".to_string();
            failure::error("use subnet", subnet.to_string(), CloudErrorKind::Refused(text))
        })
    }
}

/// Reads subnets by filter: by id, one unknown id would fail the whole call. At most [`FILTER_VALUES`] come back, which is one page.
async fn describe(ec2: &Client, ids: &[SubnetId]) -> Result<BTreeMap<SubnetId, Blocks>, CloudError> {
    let filter = Filter::builder()
        .name("subnet-id")
        .set_values(Some(ids.iter().map(ToString::to_string).collect()))
        .build();
    let target = || ids.iter().map(SubnetId::as_str).collect::<Vec<_>>().join(", ");
    let reply = ec2
        .describe_subnets()
        .filters(filter)
        .customize()
        .config_override(read_overrides())
        .send()
        .await
        .map_err(|error| failure::sort("describe subnets", target(), error))?;
    let subnets = reply.subnets.unwrap_or_default();
    subnets
        .iter()
        .map(convert::subnet)
        .collect::<Result<_, _>>()
        .map_err(|what| failure::unreadable("describe subnets", target(), &what))
}
