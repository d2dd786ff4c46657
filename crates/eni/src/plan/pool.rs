//! The pool's size: what is too much goes, what is missing is created.

use super::{Action, For, Planner};
use crate::{
    config::{CREATORS, FAILED_FILLS, Spec, Want},
    demand::Draft,
    machine::Stage,
};
use berth_types::ids::ClientToken;
use std::{collections::BTreeSet, time::Duration};

impl Planner<'_> {
    /// ENIs that the pool does not need.
    pub(super) fn removals(&mut self) {
        let state = self.state;
        if !state.recovered || !state.cloud.seen || !state.network.seen {
            return;
        }
        for (token, eni) in &state.enis {
            let goes = eni.condemned || self.demand.surplus.contains(token);
            if !goes || eni.busy || self.used.contains(token) || eni.sightings < 2 {
                continue;
            }
            let due = match &eni.stage {
                Stage::Created | Stage::AwaitingLink { .. } | Stage::Ready { .. } => true,
                Stage::Cooling { until, .. } => eni.condemned || self.due(*until),
                // These go when they have come to one of the stages above, or are going already.
                Stage::Attaching { .. }
                | Stage::Building { .. }
                | Stage::Held { .. }
                | Stage::Leased { .. }
                | Stage::Draining { .. }
                | Stage::Detaching { .. }
                | Stage::Deleting
                | Stage::Quarantined { .. } => false,
            };
            if due {
                self.used.insert(token.clone());
                self.act(Action::Retire { token: token.clone() });
            }
        }
        for (token, creating) in &state.creating {
            if !creating.tried && self.demand.surplus.contains(token) {
                self.used.insert(token.clone());
                self.act(Action::Drop { token: token.clone() });
            }
        }
    }

    /// Create calls for ENIs whose intent is made.
    pub(super) fn creates(&mut self) {
        let state = self.state;
        let promised: BTreeSet<ClientToken> = self.demand.promised.values().cloned().collect();
        for (token, creating) in &state.creating {
            if creating.busy || !state.cloud.seen || self.used.contains(token) || self.recording(token) {
                continue;
            }
            let whose = if promised.contains(token) { For::Task } else { For::Pool };
            if self.due(creating.retry.not_before) && self.spend(whose) {
                self.act(Action::Create { token: token.clone() });
            }
        }
    }

    /// ENIs that are missing.
    pub(super) fn drafts(&mut self) {
        let state = self.state;
        if !state.cloud.seen || !state.network.seen {
            return;
        }
        let creators = if state.fill.failures >= FAILED_FILLS { 1 } else { CREATORS };
        let blocked = state.blocked.as_ref().map_or(Duration::ZERO, |(until, _)| *until);
        let mut creating = state.creating.len();
        for Draft { want, task } in std::mem::take(&mut self.demand.drafts) {
            if creating >= creators || !self.due(state.fill.not_before) || !self.due(blocked) {
                break;
            }
            // The pool fills once it is known which slots are in use; a task does not wait for that.
            if task.is_none() && (!state.recovered || !self.due(state.throttle.not_before)) {
                break;
            }
            if let Some(spec) = self.choose(&want) {
                creating += 1;
                self.act(Action::Draft { spec });
            }
        }
    }

    /// The first subnet that has room and that EC2 does not refuse.
    fn choose(&mut self, want: &Want) -> Option<Spec> {
        let state = self.state;
        want.subnets.iter().find_map(|subnet| {
            let spec = Spec { subnet: subnet.clone(), groups: want.groups.clone() };
            let full = state.full_subnets.get(subnet).copied().unwrap_or_default();
            let refused =
                state.refused.iter().find(|r| r.spec == spec).map_or(Duration::ZERO, |r| r.retry.not_before);
            self.due(full.max(refused)).then_some(spec)
        })
    }
}
