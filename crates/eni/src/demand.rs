//! Who waits for what, what is on its way to whom, what is missing and what is too much. Pure; the planner acts on it and the
//! snapshot explains it to people.

use crate::{
    config::Want,
    machine::{Eni, Presence, Stage, State, Then},
};
use berth_types::ids::{ClientToken, TaskArn};
use std::collections::{BTreeMap, BTreeSet};

/// An ENI that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Draft {
    /// What it is to be like.
    pub(crate) want: Want,
    /// Who waits for it; nobody when it is for the warm pool.
    pub(crate) task: Option<TaskArn>,
}

/// The balance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Demand {
    /// What is on its way to each waiting task.
    pub(crate) promised: BTreeMap<TaskArn, ClientToken>,
    /// What is missing and has room on the instance, tasks first.
    pub(crate) drafts: Vec<Draft>,
    /// Tasks for which there is no room.
    pub(crate) no_room: BTreeSet<TaskArn>,
    /// ENIs to be given back.
    pub(crate) surplus: BTreeSet<ClientToken>,
}

/// How far a supply is from being a slot; `None` for what never comes to be a free one.
fn rank(eni: &Eni) -> Option<u32> {
    if eni.condemned {
        return None;
    }
    match &eni.stage {
        Stage::Ready { .. } => Some(0),
        Stage::Building { past: None, .. } => Some(1),
        Stage::AwaitingLink { .. } => Some(2),
        Stage::Attaching { .. } => Some(3),
        Stage::Created => Some(4),
        Stage::Cooling { .. } => Some(RANK_CREATING + 1),
        Stage::Draining { .. } if eni.presence != Presence::Gone => Some(RANK_CREATING + 2),
        // Found at start: either its task asks for it in a moment, or it becomes a free one, as it is or in a fresh namespace. Making
        // another ENI for the pool meanwhile would be one too many.
        Stage::Building { past: Some(_), .. } | Stage::Held { .. } if eni.presence != Presence::Gone => {
            Some(RANK_CREATING + 3)
        }
        Stage::Building { past: Some(_), .. }
        | Stage::Draining { .. }
        | Stage::Held { .. }
        | Stage::Leased { .. }
        | Stage::Detaching { .. }
        | Stage::Deleting
        | Stage::Quarantined { .. } => None,
    }
}

/// Rank of an ENI whose create call has not answered: nearer than one that rests for half a minute.
const RANK_CREATING: u32 = 5;

/// Whether an ENI takes one of the instance's places.
fn occupies(eni: &Eni) -> bool {
    let gone = matches!(&eni.stage, Stage::Deleting | Stage::Quarantined { then: Then::Delete, .. });
    !gone && eni.presence == Presence::Normal
}

/// ENIs of the pool that take one of the instance's places, or are about to.
pub(crate) fn occupied(state: &State) -> usize {
    state.creating.len() + state.enis.values().filter(|eni| occupies(eni)).count()
}

/// The balance of the state.
pub(crate) fn demand(state: &State) -> Demand {
    let mut demand = Demand::default();
    let mut free: Vec<(u32, ClientToken)> =
        state.enis.iter().filter_map(|(token, eni)| Some((rank(eni)?, token.clone()))).collect();
    free.extend(state.creating.keys().map(|token| (RANK_CREATING, token.clone())));
    free.sort();
    let (mut unserved, mut missing) = (Vec::new(), Vec::new());
    for waiter in state.waiters.iter().filter(|w| w.held.is_none()) {
        if let Some(token) = own(state, &waiter.task) {
            demand.promised.insert(waiter.task.clone(), token);
        } else if let Some(at) = free.iter().position(|(_, token)| fits(state, &waiter.want, token)) {
            let (_, token) = free.remove(at);
            demand.promised.insert(waiter.task.clone(), token);
        } else {
            unserved.push(waiter);
        }
    }
    // After all exact matches: groups can be changed by one call, and nobody should lose what fits him as it is.
    for waiter in unserved {
        if let Some(at) = free.iter().position(|(_, token)| can_become(state, &waiter.want, token)) {
            let (_, token) = free.remove(at);
            demand.promised.insert(waiter.task.clone(), token);
        } else {
            missing.push(Draft { want: waiter.want.clone(), task: Some(waiter.task.clone()) });
        }
    }
    let pool = state.config.pool();
    let (mut kept, strange): (Vec<_>, Vec<_>) =
        free.into_iter().partition(|(_, token)| fits(state, &pool, token) || can_become(state, &pool, token));
    demand.surplus.extend(strange.into_iter().map(|(_, token)| token));
    let warm = state.config.warm as usize;
    let most = state.config.warm_max.map_or(warm, |most| warm.max(most as usize));
    demand.surplus.extend(kept.drain(most.min(kept.len())..).map(|(_, token)| token));
    let short = warm.saturating_sub(kept.len());
    balance(state, &mut demand, missing, kept, short);
    demand
}

/// The slot that a task held before, while it is taken over.
fn own(state: &State, task: &TaskArn) -> Option<ClientToken> {
    let held = |eni: &Eni| eni.stage.past().is_some_and(|past| past.task.as_ref() == Some(task));
    state.enis.iter().find(|(_, eni)| held(eni)).map(|(token, _)| token.clone())
}

fn fits(state: &State, want: &Want, token: &ClientToken) -> bool {
    state.enis.get(token).map_or_else(
        || state.creating.get(token).is_some_and(|creating| want.fits(&creating.spec)),
        |eni| want.fits(&eni.spec),
    )
}

/// Whether an ENI could be made to fit by giving it other groups.
fn can_become(state: &State, want: &Want, token: &ClientToken) -> bool {
    let fixed = state.fixed.iter().any(|refusal| want.fits(&refusal.spec));
    !fixed && state.enis.get(token).is_some_and(|eni| want.fits_place(&eni.spec))
}

/// Sets what is missing against the room that there is, and makes room for tasks by giving back warm slots of another kind.
fn balance(
    state: &State,
    demand: &mut Demand,
    missing: Vec<Draft>,
    mut kept: Vec<(u32, ClientToken)>,
    short: usize,
) {
    let (capacity, occupied) = (state.capacity() as usize, occupied(state));
    let room = capacity.saturating_sub(occupied);
    let leaving =
        demand.surplus.len() + state.enis.values().filter(|eni| eni.stage.leaves() && occupies(eni)).count();
    // Warm slots go for tasks that no room is left for, and for a cap that was lowered.
    let unmet = missing.len().saturating_sub(room);
    let over = occupied.saturating_sub(capacity);
    for _ in 0..(unmet + over).saturating_sub(leaving) {
        if let Some((_, token)) = kept.pop() {
            demand.surplus.insert(token);
        }
    }
    for (at, draft) in missing.into_iter().enumerate() {
        if at < room {
            demand.drafts.push(draft);
        } else {
            demand.no_room.extend(draft.task);
        }
    }
    let warm = short.min(room.saturating_sub(demand.drafts.len()));
    if unmet == 0 {
        demand.drafts.extend((0..warm).map(|_| Draft { want: state.config.pool(), task: None }));
    }
}
