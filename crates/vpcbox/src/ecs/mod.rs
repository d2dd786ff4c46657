//! The ECS API: JSON in, JSON out, over one pure state.
//!
//! ```text
//!  service ──(operation, input, Call)──► answer ──► Ecs: clusters, instances, tasks, definitions
//!                                          │          placement: which instance takes a task
//!                                          └────────► World: subnets, groups, instances, and the ENIs that tasks hold
//! ```
//!
//! [`Ecs`] knows no clock and no I/O: the time, the caller and the [`World`] come in with each [`Call`]. It is ECS's back end
//! and nothing more: tasks move only as the reports of agents (`Submit*`) and the calls of operators move them.

mod attributes;
mod clusters;
pub mod definitions;
pub mod error;
pub mod input;
mod instances;
mod names;
mod paging;
mod placement;
mod status;
mod tags;
mod tasks;
#[cfg(test)]
mod tests;

use crate::{
    config::Config,
    keys::{Caller, Keys},
    world::{World, ids::InstanceId},
};
use definitions::Definitions;
use error::ApiError;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

pub use clusters::is_name as is_cluster_name;
pub use status::{ClusterLine, ContainerInstanceLine, EcsInventory, Remaining};
pub use tasks::{ContainerLine, ReportLine, TaskLine};

/// An agent that has made no call for this long counts as disconnected and gets no new tasks. A polling agent calls every few
/// seconds when it is busy and every half minute at rest; three missed polls are no accident.
pub const AGENT_SILENCE: Duration = Duration::from_secs(90);
/// What comes before the operation in `X-Amz-Target`.
pub const TARGET_PREFIX: &str = "AmazonEC2ContainerServiceV20141113.";

/// What an operation needs besides its input.
#[derive(Debug)]
pub struct Call<'a> {
    /// Who calls.
    pub caller: &'a Caller,
    /// Whether it came from inside the VPC, where the agents are.
    pub inside: bool,
    /// What the caller reaches this box by, host and port.
    pub host: &'a str,
    /// EC2's side of the box.
    pub world: &'a mut World,
    /// The keys, one of which seals identity documents.
    pub keys: &'a Keys,
    /// Whether signatures are checked.
    pub auth: bool,
    /// The time.
    pub now: Timestamp,
}

impl Call<'_> {
    /// Whether it may well be the agent of this instance who calls. An operator who looks at an instance's tasks must not bring a
    /// dead agent back to life; without signatures nobody can tell the two apart.
    fn is_of(&self, instance: &instances::ContainerInstance) -> bool {
        match self.caller {
            Caller::Instance(ec2) => instance.ec2 == *ec2,
            Caller::Operator => self.inside || !self.auth,
        }
    }
}

/// Reads its input, acts, gives its output. When it fails, nothing is changed but that the caller was heard.
type Operation = fn(&mut Ecs, &Value, &mut Call<'_>) -> Result<Value, ApiError>;

/// All operations by name, and whether an instance's role may call them; operators may call all.
const OPERATIONS: &[(&str, bool, Operation)] = &[
    ("CreateCluster", true, Ecs::create_cluster),
    ("DeleteAttributes", false, Ecs::delete_attributes),
    ("DeleteCluster", false, Ecs::delete_cluster),
    ("DeleteTaskDefinitions", false, |ecs, input, call| ecs.definitions.delete(input, call.now)),
    ("DeregisterContainerInstance", true, Ecs::deregister_instance),
    ("DeregisterTaskDefinition", false, |ecs, input, call| ecs.definitions.deregister(input, call.now)),
    ("DescribeClusters", true, Ecs::describe_clusters),
    ("DescribeContainerInstances", true, Ecs::describe_instances),
    ("DescribeTaskDefinition", true, |ecs, input, _| ecs.definitions.describe(input)),
    ("DescribeTasks", true, Ecs::describe_tasks),
    ("DiscoverPollEndpoint", true, Ecs::discover_poll_endpoint),
    ("ListAttributes", true, Ecs::list_attributes),
    ("ListClusters", true, Ecs::list_clusters),
    ("ListContainerInstances", true, Ecs::list_instances),
    ("ListTagsForResource", true, Ecs::list_tags),
    ("ListTaskDefinitionFamilies", false, |ecs, input, _| ecs.definitions.list_families(input)),
    ("ListTaskDefinitions", false, |ecs, input, _| ecs.definitions.list(input)),
    ("ListTasks", true, Ecs::list_tasks),
    ("PutAttributes", true, Ecs::put_attributes),
    ("RegisterContainerInstance", true, Ecs::register_instance),
    ("RegisterTaskDefinition", false, |ecs, input, call| {
        let caller = ecs.caller_arn(call);
        ecs.definitions.register(input, &caller, call.now)
    }),
    ("RunTask", false, Ecs::run_task),
    ("StartTask", false, Ecs::start_task),
    ("StopTask", false, Ecs::stop_task),
    ("SubmitAttachmentStateChanges", true, Ecs::submit_attachments),
    ("SubmitContainerStateChange", true, Ecs::submit_container),
    ("SubmitTaskStateChange", true, Ecs::submit_task),
    ("TagResource", true, Ecs::tag_resource),
    ("UntagResource", false, Ecs::untag_resource),
    ("UpdateContainerInstancesState", true, Ecs::update_instances_state),
];

/// All that ECS knows.
#[derive(Debug)]
pub struct Ecs {
    names: names::Names,
    /// By name.
    clusters: BTreeMap<String, clusters::Cluster>,
    /// By id.
    instances: BTreeMap<String, instances::ContainerInstance>,
    /// By id.
    tasks: BTreeMap<String, tasks::Task>,
    definitions: Definitions,
    tokens: tasks::Tokens,
    agent_silence: Duration,
}

impl Ecs {
    /// The state at the beginning. Ids that it gives out follow from `seed`.
    pub fn new(config: &Config, seed: &str) -> Self {
        let mut ecs = Self {
            names: names::Names::new(&config.region, &config.account, seed),
            clusters: BTreeMap::new(),
            instances: BTreeMap::new(),
            tasks: BTreeMap::new(),
            definitions: Definitions::new(&config.region, &config.account),
            tokens: tasks::Tokens::default(),
            agent_silence: AGENT_SILENCE,
        };
        ecs.found_clusters(&config.clusters);
        ecs
    }

    /// How long an agent may be silent before it counts as disconnected.
    pub fn agent_silence(&self) -> Duration {
        self.agent_silence
    }

    /// Sets how long an agent may be silent before it counts as disconnected.
    pub fn set_agent_silence(&mut self, silence: Duration) {
        self.agent_silence = silence;
    }

    /// Runs an operation that [`operation`] named.
    pub fn answer(&mut self, operation: &str, input: &Value, call: &mut Call<'_>) -> Result<Value, ApiError> {
        self.let_time_pass(call.now);
        let found = OPERATIONS.iter().find(|(name, _, _)| *name == operation);
        let Some((name, for_agents, run)) = found else { return Err(unknown_operation()) };
        if let Caller::Instance(id) = call.caller {
            if !for_agents {
                let caller = self.caller_arn(call);
                let message = format!(
                    "User: {caller} is not authorized to perform: ecs:{name} because no identity-based policy \
                     allows the ecs:{name} action"
                );
                return Err(ApiError::new("AccessDeniedException", message));
            }
            self.heard_from_ec2(id, call.now);
        }
        run(self, input, call)
    }

    /// The caller as IAM names it.
    fn caller_arn(&self, call: &mut Call<'_>) -> String {
        let account = self.names.account();
        let Caller::Instance(id) = call.caller else {
            return format!("arn:aws:iam::{account}:user/operator");
        };
        let state = call.world.current(call.now);
        let instance = InstanceId::parse(id).ok().and_then(|id| state.site.instances.get(&id));
        let role = instance.and_then(|instance| instance.role.as_deref()).unwrap_or("none");
        format!("arn:aws:sts::{account}:assumed-role/{role}/{id}")
    }

    fn discover_poll_endpoint(&mut self, input: &Value, call: &mut Call<'_>) -> Result<Value, ApiError> {
        let input = input::Input::new(input)?;
        if let Some(reference) = input.text("containerInstance")?.filter(|text| !text.is_empty()) {
            let cluster = self.cluster(input)?;
            let instance = self.active_instance(&cluster, reference)?;
            if call.is_of(instance) {
                let id = instance.id.clone();
                self.heard_from(&id, call.now);
            }
        }
        let host = call.host;
        let mut reply = json!({
            "endpoint": format!("http://{host}/ecs/acs/"),
            "telemetryEndpoint": format!("http://{host}/ecs/tcs/"),
            "serviceConnectEndpoint": format!("http://{host}/ecs/sc/"),
        });
        // The agent's own client knows these two members, the public model does not.
        if input.text("zoneId")?.is_some_and(|zone| !zone.is_empty()) {
            reply["systemLogsEndpoint"] = json!(format!("http://{host}/ecs/logs/"));
        }
        Ok(reply)
    }

    /// Does what nobody has to ask for.
    fn let_time_pass(&mut self, now: Timestamp) {
        self.end_untaken_tasks(now);
        self.forget_stopped_tasks(now);
        self.forget_inactive_instances(now);
        self.tokens.forget_old(now);
    }
}

/// The operation that an `X-Amz-Target` asks for, if it is one of ours.
pub fn operation(target: &str) -> Option<&'static str> {
    let name = target.strip_prefix(TARGET_PREFIX)?;
    OPERATIONS.iter().map(|(known, _, _)| *known).find(|known| *known == name)
}

/// Whether ECS has an operation of this name here.
pub fn is_operation(name: &str) -> bool {
    OPERATIONS.iter().any(|(known, _, _)| *known == name)
}

/// What is answered to an operation that is not there.
pub fn unknown_operation() -> ApiError {
    ApiError::new("UnknownOperationException", "vpcbox does not serve this operation")
}

/// A time as replies have it: seconds since 1970 with milliseconds.
fn epoch(time: Timestamp) -> Value {
    // Milliseconds of this century are far below the 53 bits that a double holds exactly.
    json!(time.as_millisecond() as f64 / 1000.0)
}
