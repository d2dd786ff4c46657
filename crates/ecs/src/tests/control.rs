//! A control plane in memory, with ECS's rules as far as an agent meets them, and its bad days.

use crate::{
    failure,
    port::{
        Attachment, ControlPlane, DescribedTask, Descriptions, EcsError, EcsErrorKind, News, Registered,
        Registration, Report,
    },
    tests::definition,
};
use async_trait::async_trait;
use berth_testkit::crash::Crash;
use berth_types::ids::TaskArn;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::time::{Duration, Instant, sleep};

/// One task.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) definition: String,
    pub(crate) desired: &'static str,
    pub(crate) last: String,
    pub(crate) reason: Option<String>,
    pub(crate) code: Option<String>,
    pub(crate) overrides: Option<String>,
    pub(crate) attachment: Option<Attachment>,
}

/// Everything it knows.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) clusters: BTreeSet<String>,
    /// Status by ARN.
    pub(crate) instances: BTreeMap<String, &'static str>,
    /// A registration without an ARN is always a new instance.
    pub(crate) forgetful: bool,
    pub(crate) registrations: Vec<Registration>,
    pub(crate) tasks: BTreeMap<TaskArn, Task>,
    pub(crate) definitions: BTreeMap<String, String>,
    /// Listings show the world as of this moment ago.
    pub(crate) stale: Option<Vec<TaskArn>>,
    /// Of a task that is not known nothing is said, not even that.
    pub(crate) half_answers: bool,
    /// Nothing is answered.
    pub(crate) outage: bool,
    /// Operations that end in this error.
    pub(crate) refused: BTreeMap<&'static str, EcsErrorKind>,
    /// When which call came.
    pub(crate) calls: Vec<(Instant, &'static str)>,
}

/// The control plane of cluster `demo`.
#[derive(Debug)]
pub(crate) struct FakeEcs {
    world: Mutex<World>,
    crash: Arc<Crash>,
    cluster: String,
}

impl FakeEcs {
    pub(crate) fn new(crash: Arc<Crash>) -> Arc<Self> {
        Self::of("demo", crash)
    }

    pub(crate) fn of(cluster: &str, crash: Arc<Crash>) -> Arc<Self> {
        let world = World { clusters: BTreeSet::from(["demo".to_owned()]), ..World::default() };
        Arc::new(Self { world: Mutex::new(world), crash, cluster: cluster.to_owned() })
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Somebody runs a task of the family `web`.
    pub(crate) fn run(&self, task: &TaskArn) {
        self.run_family(task, "web");
    }

    pub(crate) fn run_family(&self, task: &TaskArn, family: &str) {
        let mut world = self.world();
        let name = format!("arn:aws:ecs:us-west-2:111122223333:task-definition/{family}:1");
        world.definitions.entry(name.clone()).or_insert_with(|| definition(family));
        let fresh = Task {
            definition: name,
            desired: "RUNNING",
            last: "PROVISIONING".into(),
            reason: None,
            code: None,
            overrides: None,
            attachment: None,
        };
        world.tasks.insert(task.clone(), fresh);
    }

    /// Somebody stops it.
    pub(crate) fn stop(&self, task: &TaskArn, reason: &str) {
        let mut world = self.world();
        let task = world.tasks.get_mut(task).unwrap();
        (task.desired, task.reason, task.code) =
            ("STOPPED", Some(reason.to_owned()), Some("UserInitiated".to_owned()));
    }

    pub(crate) fn calls(&self, op: &str) -> usize {
        self.world().calls.iter().filter(|(_, called)| *called == op).count()
    }

    /// What every call goes through: it takes its time, and may fail.
    async fn enter(&self, op: &'static str) -> Result<bool, EcsError> {
        let dies = self.crash.enter().await;
        sleep(Duration::from_millis(20)).await;
        let mut world = self.world();
        world.calls.push((Instant::now(), op));
        if world.outage {
            return Err(failure::error(
                op,
                "demo",
                EcsErrorKind::Unavailable("the connection failed".into()),
            ));
        }
        if let Some(kind) = world.refused.get(op) {
            return Err(failure::error(op, "demo", kind.clone()));
        }
        Ok(dies)
    }

    fn describe(arn: &TaskArn, task: &Task) -> DescribedTask {
        DescribedTask {
            arn: arn.clone(),
            cluster_arn: "arn:aws:ecs:us-west-2:111122223333:cluster/demo".into(),
            definition_arn: task.definition.clone(),
            desired_status: task.desired.into(),
            last_status: task.last.clone(),
            group: Some("service:front".into()),
            launch_type: Some("EC2".into()),
            stopped_reason: task.reason.clone(),
            stop_code: task.code.clone(),
            created_at: None,
            overrides: task.overrides.clone().map(String::into_bytes),
            attachment: task.attachment.clone(),
            containers: vec!["app".into()],
        }
    }
}

#[async_trait]
impl ControlPlane for FakeEcs {
    async fn register(&self, registration: &Registration) -> Result<Registered, EcsError> {
        let dies = self.enter("register").await?;
        let result = {
            let mut world = self.world();
            let mut arn = registration.container_instance_arn.clone();
            if !world.clusters.contains(&self.cluster) {
                let kind = EcsErrorKind::ClusterNotFound("Cluster not found.".into());
                return Err(failure::error("register", "demo", kind));
            }
            if let Some(arn) = &arn
                && world.instances.get(arn).is_none_or(|status| *status == "INACTIVE")
            {
                let kind = EcsErrorKind::Refused("ClientException: no such container instance".into());
                return Err(failure::error("register", "demo", kind));
            }
            if !world.forgetful && arn.is_none() {
                arn = world.instances.iter().find(|(_, s)| **s != "INACTIVE").map(|(arn, _)| arn.clone());
            }
            let number = world.instances.len() + 1;
            let arn = arn.unwrap_or_else(|| {
                format!("arn:aws:ecs:us-west-2:111122223333:container-instance/demo/{number}")
            });
            world.instances.entry(arn.clone()).or_insert("ACTIVE");
            world.registrations.push(registration.clone());
            Ok(Registered { container_instance_arn: arn, lost_attributes: Vec::new() })
        };
        self.crash.leave(dies).await;
        result
    }

    async fn create_cluster(&self, name: &str) -> Result<String, EcsError> {
        let dies = self.enter("create_cluster").await?;
        self.world().clusters.insert(name.to_owned());
        self.crash.leave(dies).await;
        Ok(name.to_owned())
    }

    async fn list_tasks(&self, instance: &str) -> Result<Vec<TaskArn>, EcsError> {
        let dies = self.enter("list_tasks").await?;
        let listed = {
            let world = self.world();
            if !world.instances.contains_key(instance) {
                let kind = EcsErrorKind::InvalidParameter("no such container instance".into());
                return Err(failure::error("list tasks of", instance, kind));
            }
            let now =
                || world.tasks.iter().filter(|(_, t)| t.desired == "RUNNING").map(|(arn, _)| arn.clone());
            world.stale.clone().unwrap_or_else(|| now().collect())
        };
        self.crash.leave(dies).await;
        Ok(listed)
    }

    async fn list_stopped(&self, _instance: &str) -> Result<Vec<TaskArn>, EcsError> {
        let dies = self.enter("list_stopped").await?;
        let world_tasks = self.world().tasks.clone();
        self.crash.leave(dies).await;
        Ok(world_tasks.into_iter().filter(|(_, t)| t.desired == "STOPPED").map(|(arn, _)| arn).collect())
    }

    async fn describe_tasks(&self, tasks: &[TaskArn]) -> Result<Descriptions, EcsError> {
        let dies = self.enter("describe_tasks").await?;
        let (known, forgetful) = {
            let world = self.world();
            (world.tasks.clone(), world.half_answers)
        };
        self.crash.leave(dies).await;
        let missing = tasks.iter().filter(|arn| !forgetful && !known.contains_key(*arn)).cloned().collect();
        let tasks = tasks.iter().filter_map(|arn| Some(Self::describe(arn, known.get(arn)?))).collect();
        Ok(Descriptions { tasks, missing })
    }

    async fn describe_task_definition(&self, arn: &str) -> Result<Vec<u8>, EcsError> {
        let dies = self.enter("describe_task_definition").await?;
        let definition = self.world().definitions.get(arn).cloned();
        self.crash.leave(dies).await;
        let kind = EcsErrorKind::Refused("ClientException: Unable to describe task definition.".into());
        definition.map(String::into_bytes).ok_or_else(|| failure::error("describe", arn, kind))
    }

    async fn describe_instance(&self, instance: &str) -> Result<Option<String>, EcsError> {
        let dies = self.enter("describe_instance").await?;
        let status = self.world().instances.get(instance).map(|status| (*status).to_owned());
        self.crash.leave(dies).await;
        Ok(status)
    }

    async fn set_instance_state(&self, instance: &str, draining: bool) -> Result<(), EcsError> {
        self.enter("set_instance_state").await?;
        let status = if draining { "DRAINING" } else { "ACTIVE" };
        self.world().instances.insert(instance.to_owned(), status);
        Ok(())
    }

    async fn submit(&self, report: &Report) -> Result<(), EcsError> {
        let dies = self.enter("submit").await?;
        if let (News::Task(news), Some(task)) = (&report.news, self.world().tasks.get_mut(&report.task)) {
            task.last.clone_from(&news.status);
            if news.status == "STOPPED" {
                task.desired = "STOPPED";
            }
        }
        self.crash.leave(dies).await;
        Ok(())
    }
}
