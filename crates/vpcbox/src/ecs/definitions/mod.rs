//! Task definitions: registered, described, listed, deregistered, deleted.
//!
//! ```text
//!  input ──shape+model──► what the service's model knows of it ──check──► refused, or
//!        ──fill──► with ECS's defaults ──requires──► with what it requires of instances ──► Definition
//! ```
//!
//! [`Definitions`] is pure: the time and the caller come in. [`super`] gives it the calls; placement asks [`Definitions::find`].

mod check;
mod definition;
mod fill;
mod list;
mod model;
mod reference;
mod requires;
mod shape;
#[cfg(test)]
mod tests;
pub(super) mod units;

pub use definition::{Container, Definition, Status};

use super::{
    epoch,
    error::ApiError,
    input::Input,
    tags::{self, Tags},
};
use jiff::Timestamp;
use reference::Reference;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Families, those of which only the count of revisions is left included: ten times what a local cluster was ever seen with.
const MAX_FAMILIES: usize = 1000;
/// Definitions over all families. At 64 KiB each, the longest that ECS takes, they hold 128 MiB.
const MAX_DEFINITIONS: usize = 2000;
/// Definitions of one DeleteTaskDefinitions call: ECS's limit.
const MAX_DELETED: usize = 10;

/// All task definitions of the account.
#[derive(Debug)]
pub struct Definitions {
    arn_prefix: String,
    families: BTreeMap<String, Family>,
}

/// The definitions of one family.
#[derive(Debug, Default)]
struct Family {
    /// The revision that was given out last. It survives its definition.
    last: u32,
    definitions: BTreeMap<u32, Definition>,
}

impl Definitions {
    /// None yet.
    pub fn new(region: &str, account: &str) -> Self {
        Self {
            arn_prefix: format!("arn:aws:ecs:{region}:{account}:task-definition/"),
            families: BTreeMap::new(),
        }
    }

    /// RegisterTaskDefinition; `caller` is the ARN of who calls.
    pub fn register(&mut self, input: &Value, caller: &str, now: Timestamp) -> Result<Value, ApiError> {
        let input = Input::new(input)?;
        let tags = tags::read(input, "tags")?;
        let tagged = input.has("tags");
        if tagged && tags.is_empty() {
            return Err(ApiError::invalid("Tags can not be empty."));
        }
        let mut document = Value::Object(shape::conform("TaskDefinition", model::DEFINITION, input)?);
        check::check(Input::new(&document)?, document.to_string().len())?;
        if let Value::Object(members) = &mut document {
            fill::fill(members);
        }
        let (family, revision) = self.next_revision(Input::new(&document)?)?;
        let definition = self.definition(document, &family, revision, (caller, now), tags)?;
        let mut reply = json!({ "taskDefinition": definition.document });
        if tagged {
            reply["tags"] = tags::write(&definition.tags);
        }
        let family = self.families.entry(family).or_default();
        family.last = revision;
        family.definitions.insert(revision, definition);
        Ok(reply)
    }

    /// The family of a document and its next revision, when there is room for one.
    fn next_revision(&mut self, document: Input<'_>) -> Result<(String, u32), ApiError> {
        let family = document.text("family")?.unwrap_or_default().to_owned();
        if self.families.len() >= MAX_FAMILIES && !self.families.contains_key(&family) {
            return Err(ApiError::limit(format!("At most {MAX_FAMILIES} families are kept.")));
        }
        let count = |all: &BTreeMap<_, Family>| all.values().map(|f| f.definitions.len()).sum::<usize>();
        if count(&self.families) >= MAX_DEFINITIONS {
            self.forget_deleted();
        }
        if count(&self.families) >= MAX_DEFINITIONS {
            return Err(ApiError::limit(format!("At most {MAX_DEFINITIONS} task definitions are kept.")));
        }
        let last = self.families.get(&family).map_or(0, |family| family.last);
        let exhausted = || ApiError::limit("The family has no revision left.");
        Ok((family, last.checked_add(1).ok_or_else(exhausted)?))
    }

    /// Deleted definitions stay as long as there is room: agents may still ask for those of running tasks.
    fn forget_deleted(&mut self) {
        for family in self.families.values_mut() {
            family.definitions.retain(|_, definition| definition.status != Status::DeleteInProgress);
        }
    }

    fn definition(
        &self,
        mut document: Value,
        family: &str,
        revision: u32,
        (caller, now): (&str, Timestamp),
        tags: Tags,
    ) -> Result<Definition, ApiError> {
        let input = Input::new(&document)?;
        let arn = format!("{}{family}:{revision}", self.arn_prefix);
        let requires = requires::attributes(input)?;
        let compatibilities = requires::compatibilities(input)?;
        let size = |member| Ok::<_, ApiError>(input.text(member)?.and_then(|text| text.parse::<u64>().ok()));
        let (cpu, memory) = (size("cpu")?, size("memory")?);
        let network_mode = input.text("networkMode")?.unwrap_or("bridge").to_owned();
        let containers = Container::all(input)?;
        document["taskDefinitionArn"] = json!(arn);
        document["revision"] = json!(revision);
        document["status"] = json!(Status::Active.as_str());
        document["requiresAttributes"] = requires.iter().map(|name| json!({ "name": name })).collect();
        document["compatibilities"] = json!(compatibilities);
        document["registeredAt"] = epoch(now);
        document["registeredBy"] = json!(caller);
        Ok(Definition {
            arn,
            family: family.to_owned(),
            revision,
            status: Status::Active,
            network_mode,
            cpu: cpu.and_then(|cpu| u32::try_from(cpu).ok()),
            memory,
            containers,
            requires,
            document,
            tags,
        })
    }

    /// DescribeTaskDefinition.
    pub fn describe(&self, input: &Value) -> Result<Value, ApiError> {
        let input = Input::new(input)?;
        let unknown = || ApiError::client("Unable to describe task definition.");
        let definition = self.look_up(named(input)?)?.ok_or_else(unknown)?;
        let mut reply = json!({ "taskDefinition": definition.document });
        for field in input.texts("include")? {
            if field != "TAGS" {
                return Err(ApiError::invalid("include should be one of [TAGS]."));
            }
            reply["tags"] = tags::write(&definition.tags);
        }
        Ok(reply)
    }

    /// DeregisterTaskDefinition. Done twice it changes nothing.
    pub fn deregister(&mut self, input: &Value, now: Timestamp) -> Result<Value, ApiError> {
        let reference = Reference::parse(named(Input::new(input)?)?, &self.arn_prefix)?;
        if reference.revision.is_none() {
            return Err(ApiError::client("Task definition revision must be specified."));
        }
        let missing = || ApiError::client("The specified task definition does not exist.");
        let definition = self.at(&reference).ok_or_else(missing)?;
        if definition.status == Status::Active {
            definition.turn(Status::Inactive, "deregisteredAt", now);
        }
        Ok(json!({ "taskDefinition": definition.document }))
    }

    /// DeleteTaskDefinitions: of those that are deregistered.
    pub fn delete(&mut self, input: &Value, now: Timestamp) -> Result<Value, ApiError> {
        let wanted = Input::new(input)?.texts("taskDefinitions")?;
        if wanted.is_empty() {
            return Err(ApiError::invalid("taskDefinitions can not be empty."));
        }
        if wanted.len() > MAX_DELETED {
            let message = format!("At most {MAX_DELETED} task definitions can be deleted at once.");
            return Err(ApiError::invalid(message));
        }
        let (mut deleted, mut failures) = (Vec::new(), Vec::new());
        for reference in wanted {
            match self.delete_one(reference, now) {
                Ok(document) => deleted.push(document),
                Err(reason) => failures.push(json!({ "arn": reference, "reason": reason })),
            }
        }
        Ok(json!({ "taskDefinitions": deleted, "failures": failures }))
    }

    /// The deleted definition's document, or why it cannot be deleted.
    fn delete_one(&mut self, reference: &str, now: Timestamp) -> Result<Value, &'static str> {
        const INVALID: &str =
            "The specified task definition identifier is invalid. Specify a valid name or ARN and try again.";
        const MISSING: &str = "The specified task definition does not exist. Specify a valid account, family, revision \
                               and try again.";
        const ACTIVE: &str = "The specified task definition is still in ACTIVE status. Please deregister the target and try again.";
        let reference = Reference::parse(reference, &self.arn_prefix).map_err(|_| INVALID)?;
        if reference.revision.is_none() {
            return Err(INVALID);
        }
        let definition = self.at(&reference).ok_or(MISSING)?;
        match definition.status {
            Status::Active => return Err(ACTIVE),
            Status::Inactive => definition.turn(Status::DeleteInProgress, "deleteRequestedAt", now),
            Status::DeleteInProgress => {}
        }
        Ok(definition.document.clone())
    }

    /// The definition to start a task from: a family's latest active one, or the one of a revision or ARN.
    pub fn find(&self, reference: &str) -> Result<&Definition, ApiError> {
        let missing = || ApiError::client("TaskDefinition not found.");
        let definition = self.look_up(reference)?.ok_or_else(missing)?;
        match definition.status {
            Status::Active => Ok(definition),
            Status::Inactive => Err(ApiError::client("TaskDefinition is inactive")),
            Status::DeleteInProgress => Err(missing()),
        }
    }

    /// The tags of the definition of this ARN.
    pub fn tags_mut(&mut self, arn: &str) -> Option<&mut Tags> {
        let reference = Reference::parse(arn, &self.arn_prefix).ok()?;
        self.at(&reference).map(|definition| &mut definition.tags)
    }

    /// A definition in whatever status; of a family alone, the latest active one.
    fn look_up(&self, reference: &str) -> Result<Option<&Definition>, ApiError> {
        let reference = Reference::parse(reference, &self.arn_prefix)?;
        let Some(family) = self.families.get(&reference.family) else { return Ok(None) };
        Ok(match reference.revision {
            Some(revision) => family.definitions.get(&revision),
            None => family.definitions.values().rev().find(|d| d.status == Status::Active),
        })
    }

    /// The definition of a reference that names a revision.
    fn at(&mut self, reference: &Reference) -> Option<&mut Definition> {
        self.families.get_mut(&reference.family)?.definitions.get_mut(&reference.revision?)
    }
}

fn named(input: Input<'_>) -> Result<&str, ApiError> {
    let blank = || ApiError::client("Task definition can not be blank.");
    input.text("taskDefinition")?.filter(|text| !text.is_empty()).ok_or_else(blank)
}
