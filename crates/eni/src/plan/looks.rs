//! When to look at the world again, and what is done about namespaces that no ENI belongs to.

use super::{Action, For, Planner};
use crate::{
    config::{POLL_CAP, POLL_FIRST},
    machine::{Presence, Reply, Stage},
};
use std::time::Duration;

/// A second look at namespaces without an ENI comes this soon: the first one may have met a build half way.
const SECOND_LOOK: Duration = Duration::from_secs(1);

impl Planner<'_> {
    pub(super) fn observations(&mut self) {
        let state = self.state;
        let cloud = &state.cloud;
        if !cloud.busy && self.due(cloud.retry.not_before) {
            let poll = cloud.ended_at + poll_interval(cloud.polls);
            if !cloud.seen || cloud.kicked || self.unfinished() && self.due(poll) {
                if self.spend(For::Task) {
                    self.act(Action::ObserveCloud);
                }
            } else if self.due(cloud.ended_at + state.config.audit) && self.spend(For::Pool) {
                self.act(Action::ObserveCloud);
            }
        }
        let network = &state.network;
        if !network.busy && self.due(network.retry.not_before) {
            let once = state.recovered && state.orphans.values().any(|orphan| orphan.sightings < 2);
            let second = once && self.due(network.ended_at + SECOND_LOOK);
            if !network.seen || network.kicked || second || self.due(network.ended_at + state.config.audit) {
                self.act(Action::ObserveNetwork);
            }
        }
    }

    /// Whether EC2 is finishing something whose end only a describe shows.
    fn unfinished(&self) -> bool {
        self.state.enis.iter().any(|(token, eni)| {
            let changing = match &eni.stage {
                Stage::Attaching { reply, .. } => *reply != Reply::Awaited,
                Stage::Detaching { asked, .. } => *asked,
                Stage::Deleting => eni.sightings < 2,
                Stage::Created | Stage::AwaitingLink { .. } | Stage::Ready { .. } | Stage::Cooling { .. } => {
                    eni.sightings < 2 && self.demand.surplus.contains(token)
                }
                Stage::Building { .. }
                | Stage::Held { .. }
                | Stage::Leased { .. }
                | Stage::Draining { .. }
                | Stage::Quarantined { .. } => false,
            };
            !eni.busy && changing || eni.missing.is_some() && eni.presence == Presence::Normal
        })
    }

    /// Namespaces of ours that no ENI belongs to, seen twice.
    pub(super) fn orphans(&mut self) {
        let state = self.state;
        if !state.recovered || !state.cloud.seen || !state.network.seen {
            return;
        }
        for (slot, orphan) in &state.orphans {
            let asked = state.waiters.iter().any(|w| w.held.as_ref() == Some(slot));
            if orphan.side.busy || orphan.sightings < 2 || asked {
                continue;
            }
            if self.due(orphan.side.retry.not_before) {
                self.act(Action::TearDownOrphan { slot: slot.clone() });
            }
        }
    }
}

/// Polls grow apart by half.
fn poll_interval(polls: u32) -> Duration {
    // Past ten polls the cap is reached, and the power stays small.
    let grown = POLL_FIRST.saturating_mul(3u32.pow(polls.min(10))) / 2u32.pow(polls.min(10));
    grown.min(POLL_CAP)
}
