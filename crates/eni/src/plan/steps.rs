//! The next step of every ENI: on its main way, and beside it.

use super::{Action, For, Planner};
use crate::{
    config::{ATTACH_TIMEOUT, BUILD_TRIES, BUILDERS},
    machine::{Eni, Presence, Reply, Stage, Waiter},
};
use berth_types::ids::ClientToken;
use std::{collections::BTreeSet, time::Duration};

impl Planner<'_> {
    /// The next step of every ENI on its main way.
    pub(super) fn enis(&mut self) {
        let state = self.state;
        // Slots that a task may be in come first, then those that a task waits for.
        let promised: BTreeSet<&ClientToken> = self.demand.promised.values().collect();
        let mut order: Vec<(u32, &ClientToken, &Eni)> = state
            .enis
            .iter()
            .map(|(token, eni)| match (eni.stage.past(), promised.contains(token)) {
                (Some(_), _) => (0, token, eni),
                (None, true) => (1, token, eni),
                (None, false) => (2, token, eni),
            })
            .collect();
        order.sort_by_key(|(first, token, _)| (*first, *token));
        for (_, token, eni) in order {
            if eni.busy || self.used.contains(token) {
                continue;
            }
            if let Some(action) = self.step(token, eni) {
                self.act(action);
            }
        }
    }

    fn step(&mut self, token: &ClientToken, eni: &Eni) -> Option<Action> {
        let state = self.state;
        let token = token.clone();
        match &eni.stage {
            Stage::Created => self.attach(token, eni),
            Stage::Attaching { reply, .. } => {
                let shown = *reply == Reply::Taken && eni.facts.attachment.is_some() && state.cloud.seen;
                let stuck = shown && self.due(eni.since.mono + ATTACH_TIMEOUT);
                let reason =
                    || format!("{} was not attached within {} s", eni.facts.id, ATTACH_TIMEOUT.as_secs());
                stuck.then(|| Action::Condemn { token, reason: reason() })
            }
            Stage::Ready { .. } | Stage::Leased { .. } => None,
            Stage::AwaitingLink { .. } => self.link(token, eni),
            Stage::Building { past, .. } => self.build(token, eni, past.is_some()),
            Stage::Held { past, lost, .. } => {
                let offered = past.proven_warm && lost.is_none();
                state.recovered.then_some(if offered {
                    Action::Offer { token }
                } else {
                    Action::Drain { token, rest: true }
                })
            }
            Stage::Draining { .. } => {
                let ready = state.network.seen && !eni.label.busy && self.due(eni.retry.not_before);
                ready.then_some(Action::TearDown { token })
            }
            Stage::Cooling { until, .. } => {
                if eni.retry.failures >= BUILD_TRIES && state.cloud.seen {
                    return Some(Action::Condemn { token, reason: eni.error.clone().unwrap_or_default() });
                }
                let due = self.due((*until).max(eni.retry.not_before));
                (due && !self.demand.surplus.contains(&token) && !eni.condemned)
                    .then_some(Action::Reuse { token })
            }
            Stage::Detaching { asked: true, .. } => None,
            Stage::Detaching { asked: false, .. } => {
                let ready = state.cloud.seen && !self.recording(&token) && self.due(eni.retry.not_before);
                (ready && self.spend(For::Task)).then_some(Action::Detach { token })
            }
            Stage::Deleting => {
                // A tag that arrives after the delete would only raise an error.
                let ready =
                    state.cloud.seen && eni.sightings >= 2 && !eni.tag.busy && !self.recording(&token);
                (ready && self.due(eni.retry.not_before) && self.spend(For::Task))
                    .then_some(Action::Delete { token })
            }
            Stage::Quarantined { until, .. } => self.due(*until).then_some(Action::Resume { token }),
        }
    }

    fn attach(&mut self, token: ClientToken, eni: &Eni) -> Option<Action> {
        let state = self.state;
        if !state.cloud.seen
            || self.recording(&token)
            || self.demand.surplus.contains(&token)
            || eni.condemned
        {
            return None;
        }
        let blocked = state.blocked.as_ref().map_or(Duration::ZERO, |(until, _)| *until);
        if !self.due(eni.retry.not_before) || !self.due(blocked) {
            return None;
        }
        // Index 0 is the primary's even where it is not in the books.
        self.indexes.insert(0);
        if self.indexes.len() >= state.instance.max_enis as usize {
            return None;
        }
        let index = (1..=u32::from(u8::MAX)).find(|index| !self.indexes.contains(index))?;
        if !self.spend(For::Task) {
            return None;
        }
        self.indexes.insert(index);
        Some(Action::Attach { token, index })
    }

    fn link(&mut self, token: ClientToken, eni: &Eni) -> Option<Action> {
        let state = self.state;
        if !state.network.seen || self.demand.surplus.contains(&token) && state.recovered || eni.condemned {
            return None;
        }
        if eni.retry.failures >= BUILD_TRIES && state.cloud.seen && state.recovered {
            return Some(Action::Condemn { token, reason: eni.error.clone().unwrap_or_default() });
        }
        if state.links.contains_key(&eni.facts.mac) {
            return self.builder(eni).then_some(Action::Build { token });
        }
        let timeout = state.config.link_timeout;
        if !state.cloud.seen || !state.recovered || !self.due(eni.since.mono + timeout) {
            return None;
        }
        let reason = format!("the link of {} did not show up within {} s", eni.facts.id, timeout.as_secs());
        Some(Action::Condemn { token, reason })
    }

    fn build(&mut self, token: ClientToken, eni: &Eni, found: bool) -> Option<Action> {
        let state = self.state;
        if !found && eni.retry.failures >= BUILD_TRIES {
            return Some(Action::Condemn { token, reason: eni.error.clone().unwrap_or_default() });
        }
        if found && state.recovered && eni.retry.failures > 0 {
            let asked = |w: &Waiter| w.held.as_ref() == eni.stage.slot();
            let promised = self.demand.promised.values().any(|promised| *promised == token);
            if !promised && !state.waiters.iter().any(asked) {
                return Some(Action::Drain { token, rest: true });
            }
        }
        (state.network.seen && self.builder(eni)).then_some(Action::Build { token })
    }

    /// Takes a builder.
    fn builder(&mut self, eni: &Eni) -> bool {
        let free = self.builders < BUILDERS && self.due(eni.retry.not_before);
        self.builders += usize::from(free);
        free
    }

    /// Flags, labels and tags.
    pub(super) fn sides(&mut self) {
        let state = self.state;
        for (token, eni) in &state.enis {
            if eni.presence != Presence::Normal || eni.stage.leaves() {
                continue;
            }
            if let Stage::Leased { labelled: false, lost: None, .. } = eni.stage
                && !eni.label.busy
                && self.due(eni.label.retry.not_before)
            {
                self.act(Action::Label { token: token.clone() });
            }
            if !state.cloud.seen {
                continue;
            }
            let unflagged = !eni.flagged && !eni.flag.busy && eni.stage.seat().is_some();
            if unflagged && self.due(eni.flag.retry.not_before) && self.spend(For::Task) {
                self.act(Action::Flag { token: token.clone() });
            }
            let past = matches!(eni.stage, Stage::Held { .. } | Stage::Building { past: Some(_), .. });
            let untagged = !past && !eni.tag.busy && eni.tagged != eni.wanted_tags();
            if untagged && self.due(eni.tag.retry.not_before) && self.spend(For::Pool) {
                self.act(Action::Tag { token: token.clone() });
            }
        }
    }
}
