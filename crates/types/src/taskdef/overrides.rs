//! What RunTask may say otherwise than the definition, in the form in which DescribeTasks answers it. The overrides are laid over the
//! definition before it is checked, so that every rule holds for what really runs.

use super::{
    TaskDefinitionError, TaskDefinitionErrors,
    json::{self, Object},
    problems::{Problems, is_some},
    wire,
};
use serde::Deserialize;
use serde_json::Value;

/// Largest text of overrides that is read. ECS allows 8192 characters.
const MAX_OVERRIDES_BYTES: usize = 64 * 1024;

/// The `overrides` of a task.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Overrides {
    container_overrides: Option<Vec<Object<ContainerOverride>>>,
    cpu: Option<String>,
    memory: Option<String>,
    task_role_arn: Option<String>,
    execution_role_arn: Option<String>,
    inference_accelerator_overrides: Option<Vec<Value>>,
    // Of Fargate alone: it changes nothing here.
    #[serde(rename = "ephemeralStorage")]
    _ephemeral_storage: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ContainerOverride {
    name: Option<String>,
    command: Option<Vec<String>>,
    environment: Option<Vec<Object<wire::KeyValue>>>,
    cpu: Option<i64>,
    memory: Option<i64>,
    memory_reservation: Option<i64>,
    environment_files: Option<Vec<Value>>,
    resource_requirements: Option<Vec<Value>>,
}

/// Where the fields of a merged definition come from when they come from an override.
#[derive(Debug, Default)]
pub(super) struct Places(Vec<(String, String)>);

impl Places {
    fn note(&mut self, merged: String, written: String) {
        self.0.push((merged, written));
    }

    /// Names problems where the user wrote their cause. Of two overrides of one field the later one counts.
    pub(super) fn rename(&self, errors: TaskDefinitionErrors) -> TaskDefinitionErrors {
        let rename = |error: TaskDefinitionError| {
            let written = self.0.iter().rev().find_map(|(merged, written)| {
                let rest = error.field.strip_prefix(merged.as_str())?;
                (rest.is_empty() || rest.starts_with(['.', '['])).then(|| format!("{written}{rest}"))
            });
            TaskDefinitionError { field: written.unwrap_or(error.field), problem: error.problem }
        };
        TaskDefinitionErrors(errors.0.into_iter().map(rename).collect())
    }
}

impl Overrides {
    /// Reads the `overrides` of a task. Members without a value say nothing; any other that is not known is an error.
    pub fn parse(json: &[u8]) -> Result<Self, TaskDefinitionError> {
        super::check_size(json, MAX_OVERRIDES_BYTES)
            .and_then(|()| json::read(json))
            .and_then(json::typed)
            .map_err(|e| match e.field.as_str() {
                "." => TaskDefinitionError::new("overrides", e.problem),
                field => TaskDefinitionError::new(format!("overrides.{field}"), e.problem),
            })
    }

    /// The definition with everything replaced that is overridden.
    pub(super) fn lay_over(
        &self,
        definition: &wire::TaskDefinition,
        problems: &mut Problems,
    ) -> (wire::TaskDefinition, Places) {
        let (mut merged, mut places) = (definition.clone(), Places::default());
        for (name, written, member) in [
            ("cpu", &self.cpu, &mut merged.cpu),
            ("memory", &self.memory, &mut merged.memory),
            ("taskRoleArn", &self.task_role_arn, &mut merged.task_role_arn),
            ("executionRoleArn", &self.execution_role_arn, &mut merged.execution_role_arn),
        ] {
            if let Some(value) = written.as_ref().filter(|v| !v.is_empty()) {
                *member = Some(value.clone());
                places.note(name.to_owned(), format!("overrides.{name}"));
            }
        }
        problems.unsupported(
            is_some(&self.inference_accelerator_overrides),
            "overrides.inferenceAcceleratorOverrides",
            "no such field",
        );
        for (i, entry) in self.container_overrides.iter().flatten().enumerate() {
            let at = format!("overrides.containerOverrides[{i}]");
            entry.lay_over(&mut merged.container_definitions, &at, &mut places, problems);
        }
        (merged, places)
    }
}

impl ContainerOverride {
    fn lay_over(
        &self,
        containers: &mut [Object<wire::ContainerDefinition>],
        at: &str,
        places: &mut Places,
        problems: &mut Problems,
    ) {
        let found = containers.iter_mut().enumerate().find(|(_, c)| Some(&c.name) == self.name.as_ref());
        let Some((index, Object(container))) = found else {
            match &self.name {
                Some(name) => problems.add(
                    format!("{at}.name"),
                    format!("is `{name}`; expected the name of a container of the definition"),
                ),
                None if self.says_nothing() => {}
                None => problems.add(format!("{at}.name"), "is absent; expected a container's name"),
            }
            return;
        };
        let none = "no such field";
        problems.unsupported(
            is_some(&self.environment_files),
            format!("{at}.environmentFiles"),
            "`environment`",
        );
        problems.unsupported(
            is_some(&self.resource_requirements),
            format!("{at}.resourceRequirements"),
            none,
        );
        let merged = format!("containerDefinitions[{index}]");
        if let Some(command) = self.command.clone().filter(|c| !c.is_empty()) {
            container.command = Some(command);
            places.note(format!("{merged}.command"), format!("{at}.command"));
        }
        for (name, written, member) in [
            ("cpu", self.cpu, &mut container.cpu),
            ("memory", self.memory, &mut container.memory),
            ("memoryReservation", self.memory_reservation, &mut container.memory_reservation),
        ] {
            if written.is_some() {
                *member = written;
                places.note(format!("{merged}.{name}"), format!("{at}.{name}"));
            }
        }
        for (j, pair) in self.environment.iter().flatten().enumerate() {
            let list = container.environment.get_or_insert_default();
            // Of a name that is there twice the last one wins when the container is made.
            let place = list.iter().rposition(|own| own.name == pair.name).unwrap_or(list.len());
            match list.get_mut(place) {
                Some(own) => own.clone_from(pair),
                None => list.push(pair.clone()),
            }
            places.note(format!("{merged}.environment[{place}]"), format!("{at}.environment[{j}]"));
        }
    }

    fn says_nothing(&self) -> bool {
        let Self {
            name: _,
            command,
            environment,
            cpu,
            memory,
            memory_reservation,
            environment_files,
            resource_requirements,
        } = self;
        !is_some(command)
            && !is_some(environment)
            && !is_some(environment_files)
            && !is_some(resource_requirements)
            && cpu.is_none()
            && memory.is_none()
            && memory_reservation.is_none()
    }
}
