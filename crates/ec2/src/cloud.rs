//! The port's operations on EC2.

use crate::{
    config::{Ec2Config, read_overrides},
    convert, failure,
    imds::{self, Identity},
    subnets::{Subnets, Wanted},
};
use async_trait::async_trait;
use aws_sdk_ec2::{
    Client,
    types::{
        Filter, InstanceType, NetworkInterface, NetworkInterfaceAttachmentChanges, ResourceType, Tag,
        TagSpecification,
    },
};
use berth_types::{
    eni::{CreateEni, EniFacts, InstanceFacts},
    ids::{AttachmentId, EniId, SecurityGroupId},
    ports::{Cloud, CloudError, CloudErrorKind, IdentityDocument, TAG_INSTANCE},
};
use std::collections::BTreeMap;
use tokio::sync::OnceCell;
use tracing::{debug, warn};

/// ENIs on a page: EC2's own maximum.
const PAGE: i32 = 1000;
/// Pages that are read before something is wrong: an instance has at most 64 ENIs, so even thousands of leaked ones fit.
const PAGES_MAX: usize = 10;

/// EC2 and IMDS, for the instance that the agent runs on. Clients are made at the first call.
#[derive(Debug)]
pub struct Ec2Cloud {
    config: Ec2Config,
    imds: aws_config::imds::Client,
    session: OnceCell<Session>,
    subnets: Subnets,
}

/// What every call needs, and what takes IMDS to know.
#[derive(Debug)]
struct Session {
    identity: Identity,
    ec2: Client,
}

impl Ec2Cloud {
    /// Makes the cloud's handle; talks to nobody yet.
    pub fn new(config: Ec2Config) -> Result<Self, CloudError> {
        config.check()?;
        let imds = config.imds_client()?;
        Ok(Self { config, imds, session: OnceCell::new(), subnets: Subnets::default() })
    }

    async fn session(&self) -> Result<&Session, CloudError> {
        self.session
            .get_or_try_init(|| async {
                let identity = imds::identity(&self.imds).await?;
                let region = self.config.known_region().unwrap_or_else(|| identity.region.clone());
                debug!(instance = %identity.instance_id, region, "EC2 client made");
                let ec2 = self.config.ec2_client(region, self.imds.clone());
                Ok(Session { identity, ec2 })
            })
            .await
    }

    /// ENIs that match a filter, all pages.
    async fn describe(
        &self,
        ec2: &Client,
        name: &str,
        value: &str,
    ) -> Result<Vec<NetworkInterface>, CloudError> {
        const OP: &str = "describe ENIs with";
        let filter = Filter::builder().name(name).values(value).build();
        let (mut found, mut next) = (Vec::new(), None);
        for _ in 0..PAGES_MAX {
            let page = ec2
                .describe_network_interfaces()
                .filters(filter.clone())
                .max_results(PAGE)
                .set_next_token(next)
                .customize()
                .config_override(read_overrides())
                .send()
                .await
                .map_err(|error| failure::sort(OP, format!("{name}={value}"), error))?;
            found.extend(page.network_interfaces.unwrap_or_default());
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(found);
            }
        }
        // Half a list would let the rest pass for deleted.
        Err(failure::unreadable(OP, format!("{name}={value}"), &format!("more than {PAGES_MAX} pages")))
    }

    /// Reads described ENIs into facts, with the blocks of their subnets.
    async fn facts(
        &self,
        ec2: &Client,
        described: Vec<NetworkInterface>,
    ) -> Result<Vec<EniFacts>, CloudError> {
        let mut wanted = Wanted::new();
        for eni in &described {
            match convert::subnet_of(eni) {
                Ok(subnet) => *wanted.entry(subnet).or_default() |= convert::has_ipv6(eni),
                Err(wrong) => return Err(unreadable_eni(eni, &wrong)),
            }
        }
        let blocks = self.subnets.blocks(ec2, &wanted).await?;
        let mut facts = Vec::with_capacity(described.len());
        for eni in described {
            let subnet = convert::subnet_of(&eni).map_err(|wrong| unreadable_eni(&eni, &wrong))?;
            let Some(blocks) = blocks.get(&subnet) else {
                return Err(unreadable_eni(&eni, &format!("its subnet {subnet} is not described")));
            };
            match convert::eni(&eni, *blocks) {
                Ok(read) => facts.push(read),
                // An interface of a kind that we do not know (a service's attachment has an id of another form) must not keep the agent
                // from its own ENIs; those are told from it by our tag.
                Err(wrong) if !is_ours(&eni) => {
                    warn!(
                        eni = eni.network_interface_id().unwrap_or("?"),
                        reason = wrong,
                        "foreign ENI cannot be read, left out"
                    );
                }
                Err(wrong) => return Err(unreadable_eni(&eni, &wrong)),
            }
        }
        Ok(facts)
    }

    /// The attachment to this instance at this index, if that is how the ENI is.
    async fn attached_here(
        &self,
        session: &Session,
        eni: &EniId,
        index: u32,
    ) -> Result<Option<AttachmentId>, CloudError> {
        let described = self.describe(&session.ec2, "network-interface-id", eni.as_str()).await?;
        let facts = self.facts(&session.ec2, described).await?;
        let attachment = facts.into_iter().find(|facts| facts.id == *eni).and_then(|facts| facts.attachment);
        let here = |attachment: &berth_types::eni::AttachmentFacts| {
            use berth_types::eni::AttachmentStatus::{Attached, Attaching};
            attachment.instance.as_ref() == Some(&session.identity.instance_id)
                && attachment.device_index == index
                && matches!(attachment.status, Attaching | Attached)
        };
        Ok(attachment.filter(here).map(|attachment| attachment.id))
    }

    /// Whether an attachment to this instance is being undone, or is gone.
    async fn on_its_way_off(&self, session: &Session, id: &AttachmentId) -> Result<bool, CloudError> {
        let me = session.identity.instance_id.as_str();
        let attached = self.describe(&session.ec2, "attachment.instance-id", me).await?;
        let found = attached
            .iter()
            .filter_map(NetworkInterface::attachment)
            .find(|one| one.attachment_id() == Some(id.as_str()));
        Ok(found
            .and_then(|one| one.status())
            .is_none_or(|status| matches!(status.as_str(), "detaching" | "detached")))
    }

    async fn limits(&self, session: &Session) -> Result<(u32, u32), CloudError> {
        const OP: &str = "describe instance type";
        let name = &session.identity.instance_type;
        let reply = session
            .ec2
            .describe_instance_types()
            .instance_types(InstanceType::from(name.as_str()))
            .customize()
            .config_override(read_overrides())
            .send()
            .await
            .map_err(|error| failure::sort(OP, name, error))?;
        let described = reply.instance_types.unwrap_or_default().into_iter().next();
        let info = described
            .and_then(|described| described.network_info)
            .ok_or_else(|| failure::unreadable(OP, name, "networkInfo is missing"))?;
        convert::limits(&info).map_err(|wrong| failure::unreadable(OP, name, &wrong))
    }
}

fn is_ours(eni: &NetworkInterface) -> bool {
    eni.tag_set().iter().any(|tag| tag.key() == Some(TAG_INSTANCE))
}

fn unreadable_eni(eni: &NetworkInterface, wrong: &str) -> CloudError {
    failure::unreadable("describe ENI", eni.network_interface_id().unwrap_or("?"), wrong)
}

/// EC2 numbers devices with a signed integer.
fn device_number(eni: &EniId, index: u32) -> Result<i32, CloudError> {
    i32::try_from(index).map_err(|_| {
        failure::error("attach", eni.to_string(), CloudErrorKind::Refused(format!("device index {index}")))
    })
}

#[async_trait]
impl Cloud for Ec2Cloud {
    async fn instance(&self) -> Result<InstanceFacts, CloudError> {
        let session = self.session().await?;
        let (max_enis, max_ipv4_per_eni) = self.limits(session).await?;
        let primary = imds::primary_eni(&self.imds).await?;
        let identity = session.identity.clone();
        Ok(InstanceFacts {
            instance_id: identity.instance_id,
            instance_type: identity.instance_type,
            region: identity.region,
            availability_zone: identity.availability_zone,
            availability_zone_id: imds::availability_zone_id(&self.imds).await?,
            account: identity.account_id,
            vpc: primary.vpc,
            subnet: primary.subnet,
            security_groups: primary.security_groups,
            primary_mac: primary.mac,
            private_ipv4: identity.private_ip,
            max_enis,
            max_ipv4_per_eni,
        })
    }

    /// Two filtered calls instead of one with ids: an unknown id fails the whole call, and EC2 has no "or" between filters. An ENI that
    /// moves between the two calls is in at least one of them; where both have it, the later one is newer.
    async fn enis(&self) -> Result<Vec<EniFacts>, CloudError> {
        let Session { identity, ec2 } = self.session().await?;
        let me = identity.instance_id.as_str();
        let tagged = self.describe(ec2, &format!("tag:{TAG_INSTANCE}"), me).await?;
        let attached = self.describe(ec2, "attachment.instance-id", me).await?;
        let by_id: BTreeMap<_, _> =
            tagged.into_iter().chain(attached).map(|eni| (eni.network_interface_id.clone(), eni)).collect();
        self.facts(ec2, by_id.into_values().collect()).await
    }

    async fn create_eni(&self, spec: &CreateEni) -> Result<EniFacts, CloudError> {
        const OP: &str = "create ENI in";
        let ec2 = &self.session().await?.ec2;
        // First, because what the reply lacks must not be missing when there is an ENI already.
        let blocks = self.subnets.one(ec2, &spec.subnet).await?;
        let tags =
            spec.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect();
        let tags = TagSpecification::builder()
            .resource_type(ResourceType::NetworkInterface)
            .set_tags(Some(tags))
            .build();
        let ipv6 = i32::try_from(spec.ipv6_addresses).ok().filter(|count| *count > 0);
        let reply = ec2
            .create_network_interface()
            .client_token(spec.token.as_str())
            .subnet_id(spec.subnet.as_str())
            .set_groups(Some(spec.security_groups.iter().map(ToString::to_string).collect()))
            .description(&spec.description)
            .set_tag_specifications((!spec.tags.is_empty()).then(|| vec![tags]))
            .set_ipv6_address_count(ipv6)
            .send()
            .await
            .map_err(|error| failure::sort(OP, spec.subnet.to_string(), error))?;
        let eni = reply
            .network_interface
            .ok_or_else(|| failure::unreadable(OP, spec.subnet.to_string(), "networkInterface is missing"))?;
        convert::eni(&eni, blocks).map_err(|wrong| unreadable_eni(&eni, &wrong))
    }

    async fn attach_eni(&self, eni: &EniId, device_index: u32) -> Result<AttachmentId, CloudError> {
        let session = self.session().await?;
        let reply = session
            .ec2
            .attach_network_interface()
            .network_interface_id(eni.as_str())
            .instance_id(session.identity.instance_id.as_str())
            .device_index(device_number(eni, device_index)?)
            .send()
            .await;
        match reply {
            Ok(reply) => reply
                .attachment_id
                .ok_or_else(|| failure::unreadable("attach", eni.to_string(), "attachmentId is missing"))?
                .parse()
                .map_err(|error| {
                    failure::unreadable("attach", eni.to_string(), &format!("attachmentId: {error}"))
                }),
            Err(error) => {
                let error = failure::sort("attach", eni.to_string(), error);
                // EC2 refuses what is already so: the same call, done before, in use by us or with its index taken by itself.
                if !matches!(error.kind, CloudErrorKind::InUse(_) | CloudErrorKind::InstanceFull(_)) {
                    return Err(error);
                }
                self.attached_here(session, eni, device_index).await?.ok_or(error)
            }
        }
    }

    async fn set_delete_on_termination(
        &self,
        eni: &EniId,
        attachment: &AttachmentId,
    ) -> Result<(), CloudError> {
        let ec2 = &self.session().await?.ec2;
        let change = NetworkInterfaceAttachmentChanges::builder()
            .attachment_id(attachment.as_str())
            .delete_on_termination(true)
            .build();
        let call =
            ec2.modify_network_interface_attribute().network_interface_id(eni.as_str()).attachment(change);
        call.send()
            .await
            .map_err(|error| failure::sort("set DeleteOnTermination of", eni.to_string(), error))?;
        Ok(())
    }

    /// Without force: that leaves the guest's device in an undefined state.
    async fn detach_eni(&self, attachment: &AttachmentId) -> Result<(), CloudError> {
        let session = self.session().await?;
        let reply = session.ec2.detach_network_interface().attachment_id(attachment.as_str()).send().await;
        let detached = gone_is_fine(
            reply.map(|_| ()).map_err(|error| failure::sort("detach", attachment.to_string(), error)),
        );
        match detached {
            // Detaching already, or still on its way on: the code says no more.
            Err(CloudError { kind: CloudErrorKind::OutcomeUnknown(text), .. })
                if text.starts_with("IncorrectState") && self.on_its_way_off(session, attachment).await? =>
            {
                Ok(())
            }
            other => other,
        }
    }

    async fn delete_eni(&self, eni: &EniId) -> Result<(), CloudError> {
        let ec2 = &self.session().await?.ec2;
        let reply = ec2.delete_network_interface().network_interface_id(eni.as_str()).send().await;
        gone_is_fine(reply.map(|_| ()).map_err(|error| failure::sort("delete", eni.to_string(), error)))
    }

    async fn set_security_groups(&self, eni: &EniId, groups: &[SecurityGroupId]) -> Result<(), CloudError> {
        let ec2 = &self.session().await?.ec2;
        let groups = groups.iter().map(ToString::to_string).collect();
        let call = ec2
            .modify_network_interface_attribute()
            .network_interface_id(eni.as_str())
            .set_groups(Some(groups));
        call.send().await.map(drop).map_err(|error| failure::sort("set groups of", eni.to_string(), error))
    }

    async fn identity_document(&self) -> Result<IdentityDocument, CloudError> {
        imds::identity_document(&self.imds).await
    }

    async fn tag_eni(&self, eni: &EniId, tags: &BTreeMap<String, Option<String>>) -> Result<(), CloudError> {
        let ec2 = &self.session().await?.ec2;
        let (set, removed): (Vec<_>, Vec<_>) = tags.iter().partition(|(_, value)| value.is_some());
        let tag = |(key, value): (&String, &Option<String>)| {
            Tag::builder().key(key).set_value(value.clone()).build()
        };
        if !set.is_empty() {
            let call =
                ec2.create_tags().resources(eni.as_str()).set_tags(Some(set.into_iter().map(tag).collect()));
            call.send().await.map_err(|error| failure::sort("tag", eni.to_string(), error))?;
        }
        if !removed.is_empty() {
            // Without a value, EC2 removes the tag whatever its value is.
            let call = ec2
                .delete_tags()
                .resources(eni.as_str())
                .set_tags(Some(removed.into_iter().map(tag).collect()));
            call.send().await.map_err(|error| failure::sort("untag", eni.to_string(), error))?;
        }
        Ok(())
    }
}

/// What was to go away and is not there has gone away.
fn gone_is_fine(result: Result<(), CloudError>) -> Result<(), CloudError> {
    match result {
        Err(CloudError { kind: CloudErrorKind::NotFound(_), .. }) => Ok(()),
        other => other,
    }
}
