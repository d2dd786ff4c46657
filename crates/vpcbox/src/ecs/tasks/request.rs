//! What RunTask and StartTask have in common: the definition that is named, and everything else that a call says about its
//! tasks, read and checked before anything is made.

use super::{network::Configuration, overrides::Overrides};
use crate::ecs::{
    Call, Ecs,
    definitions::Definition,
    error::ApiError,
    input::Input,
    placement::Needs,
    tags::{self, Tags},
};

/// ECS's limits.
const MAX_STARTED_BY: usize = 128;
const MAX_GROUP: usize = 255;
const MAX_REFERENCE_ID: usize = 1024;

/// The tasks that a call asks for.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) cluster: String,
    pub(super) definition: Blueprint,
    pub(super) overrides: Overrides,
    pub(super) network: Option<Configuration>,
    pub(super) group: String,
    pub(super) started_by: Option<String>,
    pub(super) tags: Tags,
    pub(super) exec: bool,
}

/// What a task takes from its definition.
#[derive(Debug)]
pub(super) struct Blueprint {
    pub(super) arn: String,
    pub(super) family: String,
    cpu: Option<i64>,
    memory: Option<i64>,
    requires: Vec<String>,
    pub(super) containers: Vec<ContainerPlan>,
}

/// A container of the definition.
#[derive(Debug)]
pub(super) struct ContainerPlan {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) essential: bool,
    pub(super) cpu: i64,
    pub(super) memory: Option<i64>,
    pub(super) memory_reservation: Option<i64>,
}

impl Blueprint {
    fn new(definition: &Definition) -> Self {
        let number = |value: Option<u64>| value.and_then(|value| i64::try_from(value).ok());
        let containers = definition.containers.iter().map(|container| ContainerPlan {
            name: container.name.clone(),
            image: container.image.clone(),
            essential: container.essential,
            cpu: i64::from(container.cpu),
            memory: number(container.memory),
            memory_reservation: number(container.memory_reservation),
        });
        Self {
            arn: definition.arn.clone(),
            family: definition.family.clone(),
            cpu: definition.cpu.map(i64::from),
            memory: number(definition.memory),
            requires: definition.requires.clone(),
            containers: containers.collect(),
        }
    }
}

impl Request {
    /// What a task takes of its instance.
    pub(super) fn needs(&self) -> Needs {
        let overridden = |c: &ContainerPlan, member: &str, plan: Option<i64>| {
            self.overrides.container_number(&c.name, member).or(plan)
        };
        let cpu = self.overrides.task_number("cpu").or(self.definition.cpu);
        let memory = self.overrides.task_number("memory").or(self.definition.memory);
        let containers = &self.definition.containers;
        let cpu_sum = || containers.iter().filter_map(|c| overridden(c, "cpu", Some(c.cpu))).sum();
        // A reservation is what a container is placed by; its limit is only what it may grow to.
        let reserved = |c: &ContainerPlan| {
            overridden(c, "memoryReservation", c.memory_reservation)
                .or_else(|| overridden(c, "memory", c.memory))
        };
        let memory_sum = || containers.iter().filter_map(reserved).sum();
        let mut attributes = self.definition.requires.clone();
        if self.exec {
            attributes.push("ecs.capability.execute-command".to_owned());
        }
        Needs {
            cpu: cpu.unwrap_or_else(cpu_sum),
            memory: memory.unwrap_or_else(memory_sum),
            enis: u32::from(self.network.is_some()),
            attributes,
            zones: self.network.as_ref().map(Configuration::zones),
        }
    }
}

impl Ecs {
    /// Reads everything but where the tasks are to run.
    pub(super) fn read_request(&self, input: Input<'_>, call: &mut Call<'_>) -> Result<Request, ApiError> {
        let reference = input.required("taskDefinition", "TaskDefinition can not be blank.")?;
        let cluster = self.cluster(input)?;
        let definition = self.definitions.find(reference)?;
        if definition.document["placementConstraints"].as_array().is_some_and(|all| !all.is_empty()) {
            let message =
                "vpcbox does not evaluate cluster query expressions: placement constraint memberOf.";
            return Err(ApiError::invalid(message));
        }
        if !input.list("volumeConfigurations")?.is_empty() {
            return Err(ApiError::invalid("vpcbox has no volumes that are configured at launch."));
        }
        let blueprint = Blueprint::new(definition);
        let names: Vec<&str> = blueprint.containers.iter().map(|c| c.name.as_str()).collect();
        let overrides = Overrides::read(input, &names)?;
        let is_awsvpc = definition.network_mode == "awsvpc";
        let network = Configuration::read(input, is_awsvpc, call.world, call.now)?;
        let group = text_within(input, "group", MAX_GROUP)?;
        text_within(input, "referenceId", MAX_REFERENCE_ID)?;
        Ok(Request {
            overrides,
            network,
            group: group.unwrap_or_else(|| format!("family:{}", blueprint.family)),
            started_by: text_within(input, "startedBy", MAX_STARTED_BY)?,
            tags: self.read_task_tags(input, &cluster, definition)?,
            exec: input.boolean("enableExecuteCommand")?.unwrap_or(false),
            definition: blueprint,
            cluster,
        })
    }

    fn read_task_tags(
        &self,
        input: Input<'_>,
        cluster: &str,
        definition: &Definition,
    ) -> Result<Tags, ApiError> {
        let given = tags::read(input, "tags")?;
        let mut all = match input.one_of("propagateTags", &["TASK_DEFINITION", "SERVICE", "NONE"])? {
            Some("TASK_DEFINITION") => definition.tags.clone(),
            Some("SERVICE") => {
                return Err(ApiError::invalid("Tags can be propagated from a service only by the service."));
            }
            _ => Tags::new(),
        };
        all.extend(given);
        if input.boolean("enableECSManagedTags")?.unwrap_or(false) {
            all.insert("aws:ecs:clusterName".to_owned(), cluster.to_owned());
        }
        Ok(all)
    }
}

fn text_within(input: Input<'_>, member: &str, max: usize) -> Result<Option<String>, ApiError> {
    let text = input.text(member)?.filter(|text| !text.is_empty());
    if text.is_some_and(|text| text.chars().count() > max) {
        return Err(ApiError::invalid(format!("{member} can have at most {max} characters.")));
    }
    Ok(text.map(str::to_owned))
}
