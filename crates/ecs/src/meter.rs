//! Counts the calls to the control plane, whoever makes them: a layer over the port that operators read in the cluster's snapshot.

use crate::port::{ControlPlane, Descriptions, EcsError, Registered, Registration, Report};
use async_trait::async_trait;
use berth_types::ids::TaskArn;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);
/// Calls that are remembered: more in a minute than the poller's cap and the outbox's rate allow together.
const REMEMBERED: usize = 2048;

/// The port, with a counter. Cheap to clone; all clones share the counter.
#[derive(Clone)]
pub(crate) struct Metered {
    inner: Arc<dyn ControlPlane>,
    calls: Arc<Mutex<VecDeque<Instant>>>,
}

impl Metered {
    pub(crate) fn new(inner: Arc<dyn ControlPlane>) -> Self {
        Self { inner, calls: Arc::default() }
    }

    fn count(&self) -> &dyn ControlPlane {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if calls.len() == REMEMBERED {
            calls.pop_front();
        }
        calls.push_back(Instant::now());
        &*self.inner
    }

    /// Calls of the last minute.
    pub(crate) fn last_minute(&self) -> u32 {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        while calls.front().is_some_and(|at| at.elapsed() >= MINUTE) {
            calls.pop_front();
        }
        u32::try_from(calls.len()).unwrap_or(u32::MAX)
    }
}

#[async_trait]
impl ControlPlane for Metered {
    async fn register(&self, registration: &Registration) -> Result<Registered, EcsError> {
        self.count().register(registration).await
    }

    async fn create_cluster(&self, name: &str) -> Result<String, EcsError> {
        self.count().create_cluster(name).await
    }

    async fn list_tasks(&self, instance: &str) -> Result<Vec<TaskArn>, EcsError> {
        self.count().list_tasks(instance).await
    }

    async fn list_stopped(&self, instance: &str) -> Result<Vec<TaskArn>, EcsError> {
        self.count().list_stopped(instance).await
    }

    async fn describe_tasks(&self, tasks: &[TaskArn]) -> Result<Descriptions, EcsError> {
        self.count().describe_tasks(tasks).await
    }

    async fn describe_task_definition(&self, arn: &str) -> Result<Vec<u8>, EcsError> {
        self.count().describe_task_definition(arn).await
    }

    async fn describe_instance(&self, instance: &str) -> Result<Option<String>, EcsError> {
        self.count().describe_instance(instance).await
    }

    async fn set_instance_state(&self, instance: &str, draining: bool) -> Result<(), EcsError> {
        self.count().set_instance_state(instance, draining).await
    }

    async fn submit(&self, report: &Report) -> Result<(), EcsError> {
        self.count().submit(report).await
    }
}
