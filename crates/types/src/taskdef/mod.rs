//! Task definitions in the JSON that `aws ecs register-task-definition --cli-input-json` takes and that DescribeTaskDefinition
//! answers: [`wire`] is the form, [`overrides`] what a task may have otherwise than its definition says, [`check`] turns both into a
//! [`TaskSpec`](crate::task::TaskSpec) or says which field is wrong and what was expected.

mod check;
mod container;
mod json;
mod mounts;
mod overrides;
mod problems;
mod wire;

pub use check::{Identity, MAX_CONTAINERS, validate, validate_with};
pub use overrides::Overrides;
pub use problems::TaskDefinitionErrors;
pub use wire::TaskDefinition;

use json::Object;
use serde_json::Value;

/// Largest task definition that is read. ECS allows 64 KiB.
pub const MAX_BYTES: usize = 64 * 1024;

/// A task definition that cannot be run, with the field's path as a user would write it: `containerDefinitions[0].memory`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", if field == "." { "task definition" } else { field })]
pub struct TaskDefinitionError {
    /// Path of the field; `.` is the whole document.
    pub field: String,
    /// What is wrong and what was expected.
    pub problem: String,
}

impl TaskDefinitionError {
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

/// Largest answer of ECS that is read: it fills in members that the user left out, and adds some of its own.
const MAX_DESCRIBED_BYTES: usize = 4 * MAX_BYTES;

/// What DescribeTaskDefinition says of a definition beyond what was registered. Nothing of it changes what runs.
const DESCRIPTION: [&str; 8] = [
    "taskDefinitionArn",
    "status",
    "requiresAttributes",
    "compatibilities",
    "registeredAt",
    "registeredBy",
    "deregisteredAt",
    "deleteRequestedAt",
];

/// Reads a task definition. Types are checked here, meaning in [`validate`].
pub fn parse(json: &[u8]) -> Result<TaskDefinition, TaskDefinitionError> {
    check_size(json, MAX_BYTES)?;
    let mut reader = serde_json::Deserializer::from_slice(json);
    let definition: Object<TaskDefinition> = serde_path_to_error::deserialize(&mut reader)
        .map_err(|e| TaskDefinitionError::new(e.path().to_string(), e.inner().to_string()))?;
    reader.end().map_err(|e| TaskDefinitionError::new(".", e.to_string()))?;
    Ok(definition.0)
}

/// Reads the `taskDefinition` that DescribeTaskDefinition answers. Members without a value (null, an empty list, an empty object)
/// say nothing, whatever their names; any other member that is not known is an error, because it could change what runs.
pub fn parse_described(json: &[u8]) -> Result<TaskDefinition, TaskDefinitionError> {
    check_size(json, MAX_DESCRIBED_BYTES)?;
    let mut value = json::read(json)?;
    let mut revision = None;
    if let Value::Object(members) = &mut value {
        members.retain(|name, _| !DESCRIPTION.contains(&name.as_str()));
        if let Some(number) = members.remove("revision") {
            revision = Some(number.as_u64().ok_or_else(|| {
                TaskDefinitionError::new("revision", format!("is {number}; expected a whole number"))
            })?);
        }
    }
    let mut definition: TaskDefinition = json::typed(value)?;
    definition.revision = revision;
    Ok(definition)
}

fn check_size(json: &[u8], most: usize) -> Result<(), TaskDefinitionError> {
    if json.len() > most {
        let problem = format!("is {} bytes long; expected at most {most}", json.len());
        return Err(TaskDefinitionError::new(".", problem));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
