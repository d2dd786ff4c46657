//! Task definitions in the JSON that `aws ecs register-task-definition --cli-input-json` takes: [`wire`] is the form, [`check`]
//! turns it into a [`TaskSpec`](crate::task::TaskSpec) or says which field is wrong and what was expected.

mod check;
mod container;
mod wire;

pub use check::{Identity, MAX_CONTAINERS, TaskDefinitionErrors, validate};
pub use wire::TaskDefinition;

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

/// Reads a task definition. Types are checked here, meaning in [`validate`].
pub fn parse(json: &[u8]) -> Result<TaskDefinition, TaskDefinitionError> {
    if json.len() > MAX_BYTES {
        return Err(TaskDefinitionError::new(
            ".",
            format!("is {} bytes long; expected at most {MAX_BYTES}", json.len()),
        ));
    }
    let mut reader = serde_json::Deserializer::from_slice(json);
    let definition = serde_path_to_error::deserialize(&mut reader)
        .map_err(|e| TaskDefinitionError::new(e.path().to_string(), e.inner().to_string()))?;
    reader.end().map_err(|e| TaskDefinitionError::new(".", e.to_string()))?;
    Ok(definition)
}

#[cfg(test)]
mod tests;
