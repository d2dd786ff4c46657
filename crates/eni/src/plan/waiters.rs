//! Tasks that wait: who is served now, and who will not be.

use super::{Action, For, Planner};
use crate::{
    machine::{Refusal, Stage, Waiter},
    view,
};
use berth_types::{
    ids::{ClientToken, SlotId},
    lease::LeaseError,
};

impl Planner<'_> {
    pub(super) fn waiters(&mut self) {
        let state = self.state;
        for waiter in &state.waiters {
            if let Some(token) = state.servable(waiter).filter(|token| !self.used.contains(token)) {
                self.used.insert(token.clone());
                self.act(Action::Grant { task: waiter.task.clone(), token });
            } else if let Some(token) = self.regroupable(waiter) {
                self.used.insert(token.clone());
                self.act(Action::Regroup { token, groups: waiter.want.groups.clone() });
            } else if let Some(error) = self.verdict(waiter) {
                self.act(Action::Fail { task: waiter.task.clone(), error });
            }
        }
    }

    /// The finished slot that is promised to a task but still has other groups.
    fn regroupable(&mut self, waiter: &Waiter) -> Option<ClientToken> {
        let state = self.state;
        if waiter.held.is_some() || !state.cloud.seen {
            return None;
        }
        let token = self.demand.promised.get(&waiter.task)?.clone();
        let eni = state.enis.get(&token)?;
        let free = matches!(eni.stage, Stage::Ready { .. }) && !eni.busy && !waiter.want.fits(&eni.spec);
        let can = free && !self.used.contains(&token) && !self.recording(&token);
        (can && self.due(eni.retry.not_before) && self.spend(For::Task)).then_some(token)
    }

    /// Why a waiting task will not be served, if so.
    fn verdict(&mut self, waiter: &Waiter) -> Option<LeaseError> {
        if let Some(slot) = &waiter.held {
            let reason = self.lost(waiter, slot)?;
            return Some(LeaseError::Lost { slot: slot.clone(), reason });
        }
        if let Some(reason) = self.refusal(waiter) {
            return Some(LeaseError::Failed { reason });
        }
        let over = self.due(waiter.since.mono + self.state.config.lease_timeout);
        over.then(|| LeaseError::TimedOut {
            reason: view::reason(self.state, &self.demand, waiter, self.now),
        })
    }

    /// Why the slot that a task holds will not be given to it, if so. The task may be running, so nothing counts as lost
    /// before the kernel, and where the kernel alone cannot tell EC2, has been looked at; time-outs start only then.
    fn lost(&mut self, waiter: &Waiter, slot: &SlotId) -> Option<String> {
        let (state, timeout) = (self.state, self.state.config.lease_timeout);
        if let Some((_, eni)) = state.by_slot(slot) {
            if let Some(reason) = eni.stage.loss() {
                return Some(reason.to_owned());
            }
            if let Some(holder) = eni.stage.holder() {
                return Some(format!("it is leased by {holder}"));
            }
            if matches!(eni.stage, Stage::Draining { .. }) {
                return Some("it was given back".to_owned());
            }
            let over = self.due(eni.since.mono.max(waiter.since.mono) + timeout);
            return over
                .then(|| eni.error.clone().unwrap_or_else(|| "it was not taken over in time".to_owned()));
        }
        if !state.loaded || !state.network.seen {
            return None;
        }
        let Some(orphan) = state.orphans.get(slot) else {
            return Some("there is no such namespace".to_owned());
        };
        if orphan.netns.is_none() || orphan.links.is_empty() {
            return Some("its namespace has no link any more".to_owned());
        }
        // Only EC2 can say which ENI it is; a running task is not given up because EC2 is down.
        if !state.cloud.seen {
            return None;
        }
        let coming = state.enis.values().any(|eni| orphan.links.iter().any(|link| link.mac == eni.facts.mac));
        let over = self.due(state.cloud.seen_at.max(waiter.since.mono) + timeout);
        (over || !coming).then(|| "no ENI of this instance belongs to its link".to_owned())
    }

    /// What EC2 said to the kind of ENI that a task waits for, when nothing is on its way to it.
    fn refusal(&self, waiter: &Waiter) -> Option<String> {
        if self.demand.promised.contains_key(&waiter.task) {
            return None;
        }
        let refused = |r: &&Refusal| waiter.want.fits(&r.spec) && r.retry.not_before > self.now.mono;
        self.state.refused.iter().find(refused).map(|r| r.reason.clone())
    }
}
