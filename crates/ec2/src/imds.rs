//! Who we are: the instance identity document and the tree of the primary interface, by IMDSv2.

use crate::failure;
use aws_config::imds::Client;
use berth_types::{
    ids::{InstanceId, MacAddr, SecurityGroupId, SubnetId, VpcId},
    ports::{CloudError, CloudErrorKind, IdentityDocument},
};
use serde::Deserialize;
use std::{net::Ipv4Addr, str::FromStr};

/// What the instance identity document says; EC2 adds members freely.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Identity {
    pub(crate) instance_id: InstanceId,
    pub(crate) instance_type: String,
    pub(crate) region: String,
    pub(crate) availability_zone: String,
    pub(crate) account_id: String,
    pub(crate) private_ip: Ipv4Addr,
}

/// What IMDS says about the primary interface.
#[derive(Debug)]
pub(crate) struct PrimaryEni {
    pub(crate) mac: MacAddr,
    pub(crate) vpc: VpcId,
    pub(crate) subnet: SubnetId,
    pub(crate) security_groups: Vec<SecurityGroupId>,
}

const IDENTITY: &str = "/latest/dynamic/instance-identity/document";
const SIGNATURE: &str = "/latest/dynamic/instance-identity/signature";
const META: &str = "/latest/meta-data";

/// Reads the identity document.
pub(crate) async fn identity(imds: &Client) -> Result<Identity, CloudError> {
    let text = get(imds, IDENTITY).await?;
    serde_json::from_str(&text)
        .map_err(|error| failure::unreadable("read IMDS", IDENTITY, &error.to_string()))
}

/// Reads the identity document and its signature as they are: the signature is over the document's bytes.
pub(crate) async fn identity_document(imds: &Client) -> Result<IdentityDocument, CloudError> {
    Ok(IdentityDocument { document: get(imds, IDENTITY).await?, signature: get(imds, SIGNATURE).await? })
}

/// Reads the zone's id, which hosts of an old kind do not know.
pub(crate) async fn availability_zone_id(imds: &Client) -> Result<Option<String>, CloudError> {
    match get(imds, &format!("{META}/placement/availability-zone-id")).await {
        Ok(id) => Ok(Some(id).filter(|id| !id.is_empty())),
        Err(CloudError { kind: CloudErrorKind::NotFound(_), .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the primary interface's part of the tree.
pub(crate) async fn primary_eni(imds: &Client) -> Result<PrimaryEni, CloudError> {
    let mac: MacAddr = get_parsed(imds, &format!("{META}/mac")).await?;
    let base = format!("{META}/network/interfaces/macs/{mac}");
    let groups_path = format!("{base}/security-group-ids");
    let (vpc, subnet, groups) =
        (format!("{base}/vpc-id"), format!("{base}/subnet-id"), get(imds, &groups_path).await?);
    let security_groups = groups
        .lines()
        .map(|line| line.trim().parse())
        .collect::<Result<Vec<SecurityGroupId>, _>>()
        .map_err(|error| failure::unreadable("read IMDS", &groups_path, &error.to_string()))?;
    Ok(PrimaryEni {
        mac,
        vpc: get_parsed(imds, &vpc).await?,
        subnet: get_parsed(imds, &subnet).await?,
        security_groups,
    })
}

async fn get_parsed<T>(imds: &Client, path: &str) -> Result<T, CloudError>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    let text = get(imds, path).await?;
    text.parse().map_err(|error: T::Err| failure::unreadable("read IMDS", path, &error.to_string()))
}

async fn get(imds: &Client, path: &str) -> Result<String, CloudError> {
    let text = imds.get(path).await.map_err(|error| failure::sort_imds(path, error))?;
    let text: &str = text.as_ref();
    Ok(text.trim().to_string())
}
