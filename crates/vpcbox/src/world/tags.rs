//! CreateTags and DeleteTags, and EC2's rules for tags.

use super::{
    World,
    ids::{EniId, GroupId, InstanceId, RuleId, SubnetId, VpcId},
    refusal::Refusal,
    state::{State, Tags},
};
use jiff::Timestamp;

/// Tags that a resource may have: EC2's limit.
const MAX_TAGS: usize = 50;
/// Longest key in characters: EC2's limit.
const MAX_KEY: usize = 127;
/// Longest value in characters: EC2's limit.
const MAX_VALUE: usize = 256;

/// Checks that `new` tags may join the `old` ones of a resource.
pub(super) fn check_tags(old: &Tags, new: &Tags) -> Result<(), Refusal> {
    for (key, value) in new {
        if key.is_empty() || key.chars().count() > MAX_KEY {
            return Err(Refusal::BadTag("Tag key must be 1 to 127 characters long"));
        }
        if value.chars().count() > MAX_VALUE {
            return Err(Refusal::BadTag("Tag value exceeds the maximum length of 256 characters"));
        }
        if key.to_ascii_lowercase().starts_with("aws:") {
            return Err(Refusal::BadTag("Tag keys starting with 'aws:' are reserved for internal use"));
        }
    }
    let count = old.len() + new.keys().filter(|k| !old.contains_key(*k)).count();
    if count > MAX_TAGS { Err(Refusal::TooManyTags) } else { Ok(()) }
}

/// `resourceType` of a resource that can carry tags here, by its id alone.
pub fn resource_type(id: &str) -> Option<&'static str> {
    // `i-` is a prefix of no other; the order does not matter.
    let kinds = [
        ("eni-", "network-interface"),
        ("subnet-", "subnet"),
        ("sg-", "security-group"),
        ("sgr-", "security-group-rule"),
        ("vpc-", "vpc"),
        ("i-", "instance"),
    ];
    kinds.into_iter().find(|(prefix, _)| id.starts_with(prefix)).map(|(_, kind)| kind)
}

/// Whether there is such a resource.
fn check_resource(state: &State, id: &str) -> Result<(), Refusal> {
    let exists = |there: bool, refusal: Refusal| if there { Ok(()) } else { Err(refusal) };
    match resource_type(id) {
        Some("network-interface") => {
            let id = EniId::parse(id)?;
            exists(state.enis.contains_key(&id), id.not_found())
        }
        Some("subnet") => {
            let id = SubnetId::parse(id)?;
            exists(state.site.subnets.contains_key(&id), id.not_found())
        }
        Some("security-group") => {
            let id = GroupId::parse(id)?;
            exists(state.groups.contains_key(&id), id.not_found())
        }
        Some("security-group-rule") => {
            let id = RuleId::parse(id)?;
            exists(state.rule(&id).is_some(), id.not_found())
        }
        Some("vpc") => {
            let id = VpcId::parse(id)?;
            exists(state.site.vpc.id == id, id.not_found())
        }
        Some("instance") => {
            let id = InstanceId::parse(id)?;
            exists(state.site.instances.contains_key(&id), id.not_found())
        }
        _ => Err(Refusal::NotTaggable(id.chars().take(100).collect())),
    }
}

impl World {
    /// CreateTags: all resources or none.
    pub fn create_tags(&mut self, resources: &[String], tags: &Tags, now: Timestamp) -> Result<(), Refusal> {
        self.state.settle(now);
        let none = Tags::new();
        for id in resources {
            check_resource(&self.state, id)?;
            check_tags(self.state.tags.get(id).unwrap_or(&none), tags)?;
        }
        for id in resources {
            let of = self.state.tags.entry(id.clone()).or_default();
            of.extend(tags.iter().map(|(k, v)| (k.clone(), v.clone())));
        }
        self.record(now);
        Ok(())
    }

    /// DeleteTags. A pair with a value is removed only if the value is the same; no pair at all means all tags.
    pub fn delete_tags(
        &mut self,
        resources: &[String],
        tags: &[(String, Option<String>)],
        now: Timestamp,
    ) -> Result<(), Refusal> {
        self.state.settle(now);
        for id in resources {
            check_resource(&self.state, id)?;
        }
        for id in resources {
            let Some(of) = self.state.tags.get_mut(id) else { continue };
            if tags.is_empty() {
                of.clear();
            }
            for (key, value) in tags {
                if value.is_none() || of.get(key) == value.as_ref() {
                    of.remove(key);
                }
            }
            if of.is_empty() {
                self.state.tags.remove(id);
            }
        }
        self.record(now);
        Ok(())
    }
}
