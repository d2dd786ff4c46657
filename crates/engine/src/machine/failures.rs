//! What a failed act means: whether it is tried again, and what becomes of the container and the task if it is not.

use super::{Slot, Task};
use crate::{
    backoff::Now,
    config::Rules,
    op::{Act, OpError},
    reasons::{self, Step},
    stage::Remains,
};
use berth_types::{Chain, Class, lease::LeaseError, ports::ContainerError, task::StopCode};

/// Failures after which what the containers shared is left behind: a cgroup that cannot be removed must not keep an ENI.
const MAX_SHARED_FAILURES: u32 = 5;
/// Failures after which a task is forgotten although files are left: they are logged, and a full table would be worse.
const MAX_CLEANUP_FAILURES: u32 = 5;

impl Task {
    /// An act failed. Answers whether the task is to be forgotten.
    pub(super) fn act_failed(&mut self, act: Act, error: &OpError, now: Now, rules: &Rules) -> bool {
        if let (Act::Lease, OpError::Lease(error)) = (act, error) {
            self.lease_failed(error, now);
            return false;
        }
        if let OpError::Unwanted = error {
            return false;
        }
        let failures = self.failed(act, Chain(error).to_string(), now);
        let retries = match error.class() {
            Class::Retry | Class::RetryAfter(_) => true,
            Class::Permanent | Class::Bug => false,
        };
        match (act, error) {
            // Removing is repeated until it works: the slot must not be given back before.
            (Act::Lease | Act::Release | Act::Remove(_), _) => {}
            (Act::RemoveShared, _) if failures >= MAX_SHARED_FAILURES => self.shared_removed(),
            (Act::CleanUp, _) if failures >= MAX_CLEANUP_FAILURES => return self.cleaned_up(now),
            (Act::RemoveShared | Act::CleanUp, _) => {}
            _ if retries => {}
            (Act::Signal(index), _) => {
                self.retries.remove(&act);
                self.signalled(index, now, rules);
            }
            (Act::Volumes, error) => {
                self.retries.remove(&act);
                self.stop(reasons::volume(error), Some(StopCode::TaskFailedToStart));
            }
            (Act::Image(index), OpError::Runtime(error)) => self.step_failed(Step::Pull, index, error, now),
            (Act::Create(index), OpError::Runtime(error)) => {
                self.step_failed(Step::Create, index, error, now)
            }
            (Act::Start(index), OpError::Runtime(error)) => self.step_failed(Step::Start, index, error, now),
            (Act::Image(_) | Act::Create(_) | Act::Start(_), _) => {
                self.stop(Chain(error).to_string(), Some(StopCode::TaskFailedToStart));
            }
        }
        false
    }

    fn step_failed(&mut self, step: Step, index: usize, error: &ContainerError, now: Now) {
        let reason = reasons::failed(step, error);
        let remains = match step {
            Step::Pull => Remains::Never,
            Step::Create | Step::Start | Step::Stop => Remains::Maybe,
        };
        self.retries.retain(|act, _| {
            *act != Act::Create(index) && *act != Act::Start(index) && *act != Act::Image(index)
        });
        if self.is_stopping() && step == Step::Pull {
            return;
        }
        self.fail_container(index, reason.clone(), remains, now);
        if step == Step::Pull {
            // Whatever the container's worth: the definition is wrong, and a task that runs without a part of it hides that.
            self.stop(reason, Some(StopCode::TaskFailedToStart));
        }
    }

    fn lease_failed(&mut self, error: &LeaseError, now: Now) {
        match error {
            // A manager that has stopped is the agent going down: the next life asks again.
            LeaseError::Busy | LeaseError::Stopped => {
                self.failed(Act::Lease, error.to_string(), now);
            }
            LeaseError::TimedOut { .. }
            | LeaseError::Failed { .. }
            | LeaseError::Lost { .. }
            | LeaseError::Cancelled => {
                self.retries.remove(&Act::Lease);
                self.slot = match std::mem::replace(&mut self.slot, Slot::GivenBack) {
                    Slot::Wanted { held: Some(slot) } | Slot::Lost(slot) => Slot::Lost(slot),
                    Slot::Wanted { held: None } | Slot::Held(_) | Slot::GivenBack => Slot::GivenBack,
                };
                self.lost(error);
            }
        }
    }

    /// There is no slot, or none any more. ECS has no word for a running task that loses its network.
    pub(super) fn lost(&mut self, error: &LeaseError) {
        let code = self.times.started_at.is_none().then_some(StopCode::TaskFailedToStart);
        self.stop(error.to_string(), code);
    }
}
