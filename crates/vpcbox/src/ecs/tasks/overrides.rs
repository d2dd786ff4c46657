//! What a call overrides of the task definition: read, checked, and shown again as `overrides`.

use crate::ecs::{definitions::units, error::ApiError, input::Input};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// ECS's limit, in characters of JSON.
const MAX_TEXT: usize = 8192;

/// The overrides of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Overrides {
    /// `cpu`, `memory`, `taskRoleArn` and `executionRoleArn` as given.
    task: Map<String, Value>,
    /// By container: the members of its override as given, its name included.
    containers: BTreeMap<String, Map<String, Value>>,
}

impl Overrides {
    /// Reads `overrides`; `names` are the containers of the definition.
    pub(super) fn read(input: Input<'_>, names: &[&str]) -> Result<Self, ApiError> {
        let mut read = Self::default();
        let Some(given) = input.object("overrides")? else { return Ok(read) };
        if input.get("overrides").is_some_and(|value| value.to_string().len() > MAX_TEXT) {
            return Err(ApiError::invalid(format!("Container Overrides length must be at most {MAX_TEXT}")));
        }
        for member in ["cpu", "memory", "taskRoleArn", "executionRoleArn"] {
            if let Some(text) = given.text(member)? {
                read.task.insert(member.to_owned(), json!(text));
            }
        }
        for member in ["cpu", "memory"] {
            if read.task_number(member).is_none() && read.task.contains_key(member) {
                return Err(ApiError::client(format!("Invalid '{member}' setting for task.")));
            }
        }
        for container in given.objects("containerOverrides")? {
            let name = container.required("name", "Container override name can not be blank.")?;
            if !names.contains(&name) {
                let message =
                    format!("Override for container named {name} is not a container in the TaskDefinition.");
                return Err(ApiError::invalid(message));
            }
            read.containers.insert(name.to_owned(), read_container(container, name)?);
        }
        Ok(read)
    }

    /// An override of the whole task that is a size: CPU units or MiB.
    pub(super) fn task_number(&self, member: &str) -> Option<i64> {
        let unit = if member == "cpu" { "vcpu" } else { "gb" };
        let size = units::read(self.task.get(member)?.as_str()?, unit)?;
        i64::try_from(size).ok().filter(|size| *size > 0)
    }

    /// An override of a container that is a number.
    pub(super) fn container_number(&self, name: &str, member: &str) -> Option<i64> {
        self.containers.get(name)?.get(member)?.as_i64()
    }

    /// As a task shows them: every container is named, overridden or not.
    pub(super) fn json<'a>(&'a self, names: impl Iterator<Item = &'a str>) -> Value {
        let container = |name: &str| match self.containers.get(name) {
            Some(members) => Value::Object(members.clone()),
            None => json!({ "name": name }),
        };
        let mut shown = self.task.clone();
        shown.insert("containerOverrides".to_owned(), names.map(container).collect());
        shown.insert("inferenceAcceleratorOverrides".to_owned(), json!([]));
        Value::Object(shown)
    }
}

fn read_container(input: Input<'_>, name: &str) -> Result<Map<String, Value>, ApiError> {
    let mut members = Map::from_iter([("name".to_owned(), json!(name))]);
    if input.has("command") {
        members.insert("command".to_owned(), json!(input.texts("command")?));
    }
    if input.has("environment") {
        let pairs = input.objects("environment")?.into_iter().map(|pair| {
            let key = pair.required("name", "Environment variable name can not be blank.")?;
            Ok(json!({ "name": key, "value": pair.text("value")?.unwrap_or_default() }))
        });
        members.insert("environment".to_owned(), pairs.collect::<Result<Value, ApiError>>()?);
    }
    for member in ["cpu", "memory", "memoryReservation"] {
        if let Some(number) = input.integer(member)? {
            if number < 0 {
                return Err(ApiError::invalid(format!("Invalid '{member}' setting for container '{name}'.")));
            }
            members.insert(member.to_owned(), json!(number));
        }
    }
    for member in ["environmentFiles", "resourceRequirements"] {
        let pairs = input.objects(member)?.into_iter().map(|pair| {
            let (value, kind) = (pair.text("value")?, pair.required("type", "Type can not be blank.")?);
            Ok(json!({ "value": value.unwrap_or_default(), "type": kind }))
        });
        if input.has(member) {
            members.insert(member.to_owned(), pairs.collect::<Result<Value, ApiError>>()?);
        }
    }
    Ok(members)
}
