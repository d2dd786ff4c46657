//! CreateNetworkInterface, DeleteNetworkInterface and ModifyNetworkInterfaceAttribute.

use super::{
    World,
    addresses::{MAX_ADDRESSES, check_ipv4, check_ipv6},
    ids::{AttachmentId, EniId, GroupId, SubnetId},
    refusal::Refusal,
    state::{Eni, Subnet, Tags},
    tags::check_tags,
};
use jiff::Timestamp;
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

/// ENIs that the account may have: EC2's default quota per region, and what bounds the world's memory.
pub const MAX_ENIS: usize = 5000;
/// Client tokens that are remembered. EC2 forgets them after a day; a test that makes more than this in a day has no use for
/// the first.
const MAX_TOKENS: usize = 20_000;
/// How long a client token is remembered.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Parameters of CreateNetworkInterface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateEni {
    /// Where.
    pub subnet: SubnetId,
    /// Groups; none means the default group.
    pub groups: Vec<GroupId>,
    /// Free text.
    pub description: String,
    /// The primary address, if the caller names it.
    pub primary: Option<Ipv4Addr>,
    /// Secondary addresses that the caller names.
    pub secondary: Vec<Ipv4Addr>,
    /// Secondary addresses to choose.
    pub secondary_count: usize,
    /// IPv6 addresses that the caller names.
    pub ipv6: Vec<Ipv6Addr>,
    /// IPv6 addresses to choose.
    pub ipv6_count: usize,
    /// Tags of the new ENI.
    pub tags: Tags,
}

/// What a client token made.
#[derive(Debug)]
pub(super) struct Token {
    params: CreateEni,
    /// As it was created: the answer to a repeated call, even when the ENI is gone by then.
    eni: Arc<Eni>,
    at: Timestamp,
}

/// The one change of a ModifyNetworkInterfaceAttribute call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Free text.
    Description(String),
    /// Filtering of packets that are not the ENI's own.
    SourceDestCheck(bool),
    /// All groups.
    Groups(Vec<GroupId>),
    /// Whether the ENI ends with the instance.
    DeleteOnTermination {
        /// The current attachment.
        attachment: AttachmentId,
        /// The new value.
        value: bool,
    },
}

impl World {
    /// CreateNetworkInterface. The same token with the same parameters gives the same ENI.
    pub fn create(&mut self, token: &str, params: &CreateEni, now: Timestamp) -> Result<Arc<Eni>, Refusal> {
        self.state.settle(now);
        self.tokens.retain(|_, known| known.at + TOKEN_LIFE > now);
        if let Some(known) = self.tokens.get(token) {
            return if known.params == *params {
                Ok(Arc::clone(&known.eni))
            } else {
                Err(Refusal::TokenMismatch)
            };
        }
        let eni = self.create_once(params, now)?;
        self.remember(token, params, &eni, now);
        self.record(now);
        Ok(eni)
    }

    fn create_once(&mut self, params: &CreateEni, now: Timestamp) -> Result<Arc<Eni>, Refusal> {
        let site = Arc::clone(&self.state.site);
        let subnet = site.subnets.get(&params.subnet).ok_or_else(|| params.subnet.not_found())?;
        let groups = self.check_groups(&params.groups)?;
        check_tags(&Tags::new(), &params.tags)?;
        if self.state.enis.len() >= MAX_ENIS {
            return Err(Refusal::EniQuota(MAX_ENIS));
        }
        let ipv4 = self.new_ipv4(subnet, params)?;
        let ipv6 = self.new_ipv6(subnet, params)?;
        let id = EniId::parse(&self.fresh_id("eni"))?;
        let eni = Eni {
            mac: self.fresh_mac(&id),
            id: id.clone(),
            subnet: subnet.id.clone(),
            description: params.description.clone(),
            groups,
            ipv4,
            ipv6,
            source_dest_check: true,
            created: now,
            attachment: None,
        };
        self.insert(eni.clone());
        if !params.tags.is_empty() {
            self.state.tags.insert(id.as_str().to_owned(), params.tags.clone());
        }
        Ok(Arc::new(eni))
    }

    fn remember(&mut self, token: &str, params: &CreateEni, eni: &Arc<Eni>, now: Timestamp) {
        if self.tokens.len() >= MAX_TOKENS {
            let oldest = self.tokens.iter().min_by_key(|(_, t)| t.at).map(|(token, _)| token.clone());
            oldest.and_then(|token| self.tokens.remove(&token));
        }
        self.tokens.insert(token.to_owned(), Token { params: params.clone(), eni: Arc::clone(eni), at: now });
    }

    fn new_ipv4(&mut self, subnet: &Subnet, params: &CreateEni) -> Result<Vec<Ipv4Addr>, Refusal> {
        let mut given = Vec::new();
        let mut taken = BTreeSet::new();
        for address in params.primary.iter().chain(&params.secondary) {
            check_ipv4(&self.state, subnet, *address, None, false)?;
            if !taken.insert(*address) {
                return Err(Refusal::AddressInUse((*address).into()));
            }
            given.push(*address);
        }
        let choose = params.secondary_count + usize::from(params.primary.is_none());
        if given.len() + choose > MAX_ADDRESSES {
            return Err(Refusal::AddressLimit { count: given.len() + choose, limit: MAX_ADDRESSES });
        }
        let mut chosen = self.choose_ipv4(subnet, choose, &taken)?;
        // The primary is always the first of the list.
        if params.primary.is_some() {
            given.append(&mut chosen);
            Ok(given)
        } else {
            chosen.append(&mut given);
            Ok(chosen)
        }
    }

    fn new_ipv6(&mut self, subnet: &Subnet, params: &CreateEni) -> Result<Vec<Ipv6Addr>, Refusal> {
        let count = params.ipv6.len() + params.ipv6_count;
        if count > MAX_ADDRESSES {
            return Err(Refusal::AddressLimit { count, limit: MAX_ADDRESSES });
        }
        for address in &params.ipv6 {
            check_ipv6(&self.state, subnet, *address)?;
        }
        let taken: BTreeSet<_> = params.ipv6.iter().copied().collect();
        if let (true, Some(twice)) = (taken.len() < params.ipv6.len(), params.ipv6.first()) {
            return Err(Refusal::AddressInUse((*twice).into()));
        }
        let mut all = params.ipv6.clone();
        all.append(&mut self.choose_ipv6(subnet, params.ipv6_count, &taken)?);
        Ok(all)
    }

    /// DeleteNetworkInterface.
    pub fn delete(&mut self, id: &EniId, now: Timestamp) -> Result<(), Refusal> {
        self.state.settle(now);
        let eni = Arc::clone(self.visible(id, now)?);
        if eni.attachment.is_some() {
            return Err(Refusal::EniInUse(id.clone()));
        }
        for address in &eni.ipv4 {
            self.state.ipv4.remove(address);
        }
        for address in &eni.ipv6 {
            self.state.ipv6.remove(address);
        }
        self.state.enis.remove(id);
        self.state.tags.remove(id.as_str());
        self.record(now);
        Ok(())
    }

    /// ModifyNetworkInterfaceAttribute.
    pub fn modify(&mut self, id: &EniId, change: Change, now: Timestamp) -> Result<(), Refusal> {
        self.state.settle(now);
        self.visible(id, now)?;
        match change {
            Change::Description(text) => self.eni_mut(id)?.description = text,
            Change::SourceDestCheck(value) => self.eni_mut(id)?.source_dest_check = value,
            Change::Groups(groups) => {
                let groups = self.check_groups(&groups)?;
                self.eni_mut(id)?.groups = groups;
            }
            Change::DeleteOnTermination { attachment, value } => {
                let current = self.eni_mut(id)?.attachment.as_mut();
                let current = current.filter(|a| a.id == attachment).ok_or_else(|| attachment.not_found())?;
                current.delete_on_termination = value;
            }
        }
        self.record(now);
        Ok(())
    }
}
