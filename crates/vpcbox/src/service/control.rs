//! The operator's side door: how the box stands (`GET /_vpcbox/status`), and its knobs (`GET`, `POST /_vpcbox/knobs`).

use super::{Service, reply_with};
use crate::{
    ecs::EcsInventory,
    fabric::filter::Drops,
    knobs::{KnobError, Knobs},
};
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Paths that are not EC2's.
pub(super) const PREFIX: &str = "/_vpcbox/";
/// Where the knobs are.
pub const KNOBS: &str = "/_vpcbox/knobs";
/// Where the status is.
pub const STATUS: &str = "/_vpcbox/status";

/// What the world holds, for people and tests. [`crate::serve`] adds where it listens and where the namespaces are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// The VPC's id.
    pub vpc: String,
    /// Its subnets.
    pub subnets: Vec<SubnetLine>,
    /// Its instances.
    pub instances: Vec<InstanceLine>,
    /// All ENIs.
    pub enis: Vec<EniLine>,
    /// ECS's side.
    pub ecs: EcsInventory,
    /// How the knobs stand.
    pub knobs: Knobs,
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetLine {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// IPv4 block.
    pub ipv4: String,
    /// IPv6 block.
    pub ipv6: Option<String>,
    /// Addresses left.
    pub free: usize,
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceLine {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Subnet of its primary ENI.
    pub subnet: String,
    /// Its zone.
    pub zone: String,
    /// Its address.
    pub ipv4: String,
    /// Its namespace; known once the fabric is up.
    pub netns: Option<PathBuf>,
}

/// An ENI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EniLine {
    /// Its id.
    pub id: String,
    /// Its MAC.
    pub mac: String,
    /// `available`, `attaching`, `in-use` or `detaching`.
    pub status: String,
    /// Where it is attached.
    pub instance: Option<String>,
    /// At which index.
    pub device_index: Option<u32>,
    /// Its subnet.
    pub subnet: String,
    /// Its addresses, the primary first.
    pub addresses: Vec<String>,
    /// Names of its security groups.
    pub groups: Vec<String>,
    /// Its description.
    pub description: String,
    /// What its security groups and its source/destination check dropped; read from the kernel by `vpcbox status`, as root.
    pub drops: Option<Drops>,
}

impl Service {
    /// What the world holds now.
    pub fn inventory(&self) -> Inventory {
        let inner = &mut *self.lock();
        let knobs = inner.faults.knobs(&inner.world, &inner.ecs);
        let now = Timestamp::now();
        let state = inner.world.current(now);
        let ecs = inner.ecs.inventory(state, now);
        let site = &state.site;
        let name =
            |id: &str| state.tags_of(id).find(|(k, _)| *k == "Name").map_or("-", |(_, v)| v).to_owned();
        Inventory {
            vpc: site.vpc.id.to_string(),
            subnets: site
                .subnets
                .values()
                .map(|s| SubnetLine {
                    id: s.id.to_string(),
                    name: name(s.id.as_str()),
                    zone: s.zone.clone(),
                    ipv4: s.ipv4.to_string(),
                    ipv6: s.ipv6.map(|net| net.to_string()),
                    free: state.free_addresses(s),
                })
                .collect(),
            instances: site
                .instances
                .values()
                .map(|i| InstanceLine {
                    id: i.id.to_string(),
                    name: i.name.clone(),
                    kind: i.kind.name.to_owned(),
                    subnet: i.subnet.to_string(),
                    zone: site.subnets.get(&i.subnet).map(|s| s.zone.clone()).unwrap_or_default(),
                    ipv4: state
                        .enis
                        .get(&i.primary)
                        .map(|e| e.primary_ipv4().to_string())
                        .unwrap_or_default(),
                    netns: None,
                })
                .collect(),
            enis: state
                .enis
                .values()
                .map(|e| EniLine {
                    id: e.id.to_string(),
                    mac: e.mac.to_string(),
                    status: e.status().to_owned(),
                    instance: e.attachment.as_ref().map(|a| a.instance.to_string()),
                    device_index: e.attachment.as_ref().map(|a| a.device_index),
                    subnet: e.subnet.to_string(),
                    addresses: e.addresses().map(|a| a.to_string()).collect(),
                    groups: e.groups.iter().filter_map(|g| Some(state.groups.get(g)?.name.clone())).collect(),
                    description: e.description.clone(),
                    drops: None,
                })
                .collect(),
            ecs,
            knobs,
        }
    }

    /// How the knobs stand.
    fn knobs(&self) -> Knobs {
        let inner = &*self.lock();
        inner.faults.knobs(&inner.world, &inner.ecs)
    }

    /// Turns knobs; gives back how they stand then.
    pub fn turn(&self, knobs: &Knobs) -> Result<Knobs, KnobError> {
        let now = Timestamp::now();
        let inner = &mut *self.lock();
        inner.faults.turn(&mut inner.world, &mut inner.ecs, knobs, now)?;
        let turned = inner.faults.knobs(&inner.world, &inner.ecs);
        self.changed.notify_one();
        Ok(turned)
    }

    pub(super) fn control(&self, method: &Method, path: &str, body: &[u8]) -> Response<Full<Bytes>> {
        let answer = match (method, path) {
            (&Method::GET, STATUS) => serde_json::to_vec_pretty(&self.inventory()),
            (&Method::GET, KNOBS) => serde_json::to_vec_pretty(&self.knobs()),
            (&Method::POST, KNOBS) => {
                let turned = serde_json::from_slice::<Knobs>(body)
                    .map_err(|e| e.to_string())
                    .and_then(|knobs| self.turn(&knobs).map_err(|e| e.to_string()));
                match turned {
                    Ok(turned) => serde_json::to_vec_pretty(&turned),
                    Err(problem) => return refusal(StatusCode::BAD_REQUEST, &problem),
                }
            }
            _ => return refusal(StatusCode::NOT_FOUND, "expected GET status, GET knobs or POST knobs"),
        };
        match answer {
            Ok(body) => reply_with(StatusCode::OK, "application/json", body, "-"),
            Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }
}

fn refusal(status: StatusCode, problem: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({ "error": problem }).to_string().into_bytes();
    reply_with(status, "application/json", body, "-")
}
