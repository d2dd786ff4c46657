//! Tags of clusters, container instances, tasks and task definitions: read from a call under ECS's rules, written into a reply,
//! and changed by TagResource and UntagResource.

use super::{Call, Ecs, error::ApiError, input::Input};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Tags by key.
pub(super) type Tags = BTreeMap<String, String>;

/// ECS's limits.
const MAX_TAGS: usize = 50;
const MAX_KEY: usize = 128;
const MAX_VALUE: usize = 256;

/// The tags in a member of a call.
pub(super) fn read(input: Input<'_>, member: &str) -> Result<Tags, ApiError> {
    let mut tags = Tags::new();
    for tag in input.objects(member)? {
        let key = tag.required("key", "Tag key can not be blank.")?;
        let value = tag.text("value")?.unwrap_or_default();
        if key.chars().count() > MAX_KEY || value.chars().count() > MAX_VALUE {
            let message = format!("Tag keys have at most {MAX_KEY} characters, tag values {MAX_VALUE}.");
            return Err(ApiError::invalid(message));
        }
        if let Some(wrong) = [key, value].into_iter().find(|text| !text.chars().all(is_allowed)) {
            let message = format!("Tag {wrong:?} contains invalid characters.");
            return Err(ApiError::invalid(message));
        }
        if key.to_ascii_lowercase().starts_with("aws:") {
            return Err(ApiError::invalid("Tag keys that begin with 'aws:' are reserved for internal use."));
        }
        if tags.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(ApiError::invalid(format!("Duplicate tag keys found: {key}")));
        }
    }
    within_limit(&tags)?;
    Ok(tags)
}

/// Letters, blanks, numbers and a few signs.
fn is_allowed(c: char) -> bool {
    c.is_alphanumeric() || (c.is_whitespace() && !c.is_control()) || "_.:/=+-@".contains(c)
}

/// Tags as replies have them.
pub(super) fn write(tags: &Tags) -> Value {
    tags.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect()
}

fn within_limit(tags: &Tags) -> Result<(), ApiError> {
    if tags.len() <= MAX_TAGS {
        return Ok(());
    }
    Err(ApiError::invalid(format!("The maximum number of tags per resource is {MAX_TAGS}.")))
}

impl Ecs {
    pub(super) fn tag_resource(&mut self, input: &Value, _call: &mut Call<'_>) -> Result<Value, ApiError> {
        let input = Input::new(input)?;
        let new = read(input, "tags")?;
        let arn = input.required("resourceArn", "ResourceArn can not be blank.")?;
        let tags = self.tags_of(arn)?;
        let mut all = tags.clone();
        all.extend(new);
        within_limit(&all)?;
        *tags = all;
        Ok(json!({}))
    }

    pub(super) fn untag_resource(&mut self, input: &Value, _call: &mut Call<'_>) -> Result<Value, ApiError> {
        let input = Input::new(input)?;
        let keys = input.texts("tagKeys")?;
        let arn = input.required("resourceArn", "ResourceArn can not be blank.")?;
        let tags = self.tags_of(arn)?;
        tags.retain(|key, _| !keys.contains(&key.as_str()));
        Ok(json!({}))
    }

    pub(super) fn list_tags(&mut self, input: &Value, _call: &mut Call<'_>) -> Result<Value, ApiError> {
        let input = Input::new(input)?;
        let arn = input.required("resourceArn", "ResourceArn can not be blank.")?;
        // The one operation of the three that has no name for a resource that is not there.
        let tags = self.tags_of(arn).map_err(|error| ApiError::invalid(error.message))?;
        Ok(json!({ "tags": write(tags) }))
    }

    /// The tags of whatever has this ARN.
    fn tags_of(&mut self, arn: &str) -> Result<&mut Tags, ApiError> {
        let missing =
            || ApiError::new("ResourceNotFoundException", "The specified resource could not be found.");
        let kind = arn.splitn(6, ':').nth(5).and_then(|rest| rest.split_once('/')).map(|(kind, _)| kind);
        let named = kind.and_then(|kind| self.names.reference(kind, arn));
        let is_of = |cluster: &str| named.is_some_and(|n| n.cluster.is_none_or(|named| named == cluster));
        let id = || named.map(|named| named.id.to_owned()).ok_or_else(missing);
        match kind {
            Some("cluster") => {
                let name = id()?;
                self.clusters.get_mut(&name).filter(|c| c.active).map(|c| &mut c.tags).ok_or_else(|| {
                    ApiError::invalid(
                        "The specified cluster is inactive. Specify an active cluster and try again.",
                    )
                })
            }
            Some("container-instance") => {
                let found = self.instances.get_mut(&id()?).filter(|i| is_of(&i.cluster));
                found.map(|i| &mut i.tags).ok_or_else(missing)
            }
            Some("task") => {
                let found = self.tasks.get_mut(&id()?).filter(|t| is_of(&t.cluster));
                found.map(|t| &mut t.tags).ok_or_else(missing)
            }
            Some("task-definition") => self.definitions.tags_mut(arn).ok_or_else(missing),
            _ => Err(ApiError::invalid("Invalid arn syntax.")),
        }
    }
}
