//! The snapshot that the manager publishes, and the reasons that people read in it.

use crate::{
    demand::{Demand, demand, occupied},
    machine::{Creating, Eni, Now, Stage, State, Waiter},
};
use berth_types::{
    eni::{EniPhase, EniSnapshot, EniView, PoolView, SlotView, WaitingLease},
    ids::ClientToken,
};
use std::{sync::Arc, time::Duration};

/// The state as others see it.
pub(crate) fn snapshot(state: &State, version: u64, now: Now) -> EniSnapshot {
    let demand = demand(state);
    let mut enis: Vec<EniView> = state.creating.values().map(creating_view).collect();
    enis.extend(state.enis.values().map(eni_view));
    EniSnapshot {
        version,
        recovered: state.taken_over(),
        enis,
        slots: state.enis.values().filter_map(slot_view).collect(),
        pool: pool_view(state, &demand, now),
    }
}

fn creating_view(creating: &Creating) -> EniView {
    EniView {
        id: None,
        mac: None,
        subnet: creating.spec.subnet.clone(),
        device_index: None,
        ipv4: None,
        phase: EniPhase::Creating,
        slot: None,
        task: None,
        since: creating.since.wall,
        error: creating.error.clone(),
    }
}

fn phase(stage: &Stage) -> EniPhase {
    match stage {
        Stage::Created => EniPhase::Created,
        Stage::Attaching { .. } => EniPhase::Attaching,
        Stage::AwaitingLink { .. } => EniPhase::AwaitingLink,
        Stage::Building { .. } | Stage::Held { .. } => EniPhase::Building,
        Stage::Ready { .. } => EniPhase::Ready,
        Stage::Leased { .. } => EniPhase::Leased,
        Stage::Draining { .. } => EniPhase::Draining,
        Stage::Cooling { .. } => EniPhase::Cooling,
        Stage::Detaching { .. } => EniPhase::Detaching,
        Stage::Deleting => EniPhase::Deleting,
        Stage::Quarantined { .. } => EniPhase::Quarantined,
    }
}

fn eni_view(eni: &Eni) -> EniView {
    EniView {
        id: Some(eni.facts.id.clone()),
        mac: Some(eni.facts.mac),
        subnet: eni.facts.subnet.clone(),
        device_index: eni.device_index(),
        ipv4: eni.facts.ipv4.first().copied(),
        phase: phase(&eni.stage),
        slot: eni.stage.slot().cloned(),
        task: eni.stage.holder().cloned(),
        since: eni.since.wall,
        error: eni.stage.loss().map(str::to_owned).or_else(|| eni.error.clone()),
    }
}

fn slot_view(eni: &Eni) -> Option<SlotView> {
    // One that is held is listed without a task: nobody is answered on it before the engine has asked for it.
    let slot = eni.stage.finished()?;
    Some(SlotView {
        facts: Arc::clone(&slot.facts),
        task: eni.stage.holder().cloned(),
        ready_at: slot.ready_at,
        build_micros: slot.build_micros,
        lost: eni.stage.loss().map(str::to_owned),
    })
}

fn pool_view(state: &State, demand: &Demand, now: Now) -> PoolView {
    let mut pool = PoolView {
        warm_target: state.config.warm,
        max_enis: state.capacity(),
        leases_total: state.leases_total,
        warm_leases_total: state.warm_leases_total,
        filling: u32::try_from(state.creating.len()).unwrap_or(u32::MAX),
        ..PoolView::default()
    };
    for eni in state.enis.values() {
        match &eni.stage {
            Stage::Ready { .. } => pool.warm += 1,
            Stage::Leased { .. } => pool.leased += 1,
            Stage::Draining { .. } | Stage::Cooling { .. } => pool.recycling += 1,
            Stage::Detaching { .. } | Stage::Deleting => pool.removing += 1,
            Stage::Created
            | Stage::Attaching { .. }
            | Stage::AwaitingLink { .. }
            | Stage::Building { .. }
            | Stage::Held { .. } => pool.filling += 1,
            Stage::Quarantined { .. } => {}
        }
    }
    pool.waiting = state
        .waiters
        .iter()
        .map(|w| WaitingLease {
            task: w.task.clone(),
            since: w.since.wall,
            reason: reason(state, demand, w, now),
        })
        .collect();
    pool.problems = problems(state, now);
    pool
}

/// What keeps the pool from its target.
fn problems(state: &State, now: Now) -> Vec<String> {
    let mut problems = Vec::new();
    let later = |until: Duration| until.saturating_sub(now.mono).as_secs();
    if state.fill.failures > 0
        && let Some(reason) = &state.fill_reason
    {
        let next = match later(state.fill.not_before) {
            0 => String::new(),
            seconds => format!(", next try in {seconds} s"),
        };
        problems.push(format!("{} ENIs in a row gave no slot: {reason}{next}", state.fill.failures));
    }
    if let Some((until, reason)) = state.blocked.as_ref().filter(|(until, _)| *until > now.mono) {
        problems.push(format!("{reason}, next try in {} s", later(*until)));
    }
    let refused = state.refused.iter().filter(|r| r.retry.not_before > now.mono);
    problems.extend(
        refused.map(|r| format!("EC2 refuses: {}, next try in {} s", r.reason, later(r.retry.not_before))),
    );
    let full = state.full_subnets.iter().filter(|(_, until)| **until > now.mono);
    problems
        .extend(full.map(|(s, until)| format!("no free address in {s}, next try in {} s", later(*until))));
    if state.throttle.failures > 0 {
        problems.push("EC2 is throttling: the pool fills slowly".to_owned());
    }
    if state.cloud.retry.failures > 0 {
        problems.push(format!("EC2 could not be described {} times in a row", state.cloud.retry.failures));
    }
    if state.network.retry.failures > 0 {
        problems.push(format!(
            "the kernel could not be observed {} times in a row",
            state.network.retry.failures
        ));
    }
    if state.record_retry.failures > 0 {
        problems
            .push(format!("the journal could not be written {} times in a row", state.record_retry.failures));
    }
    for eni in state.enis.values() {
        if let Stage::Quarantined { until, .. } = &eni.stage {
            let error = eni.error.as_deref().unwrap_or_default();
            problems.push(format!("{} is out of use for {} s: {error}", eni.facts.id, later(*until)));
        }
    }
    problems
}

/// Why a task is not served yet.
pub(crate) fn reason(state: &State, demand: &Demand, waiter: &Waiter, now: Now) -> String {
    if let Some(slot) = &waiter.held {
        return if state.cloud.seen || state.by_slot(slot).is_some() {
            format!("taking over slot {slot}")
        } else {
            format!("taking over slot {slot}: EC2 has not answered yet")
        };
    }
    if let Some(token) = demand.promised.get(&waiter.task) {
        return on_its_way(state, token, now);
    }
    if !state.cloud.seen {
        return "EC2 has not answered yet".to_owned();
    }
    if let Some(refusal) = state.refused.iter().find(|r| waiter.want.fits(&r.spec)) {
        return format!("EC2 refuses: {}", refusal.reason);
    }
    let full = |subnet| state.full_subnets.get(subnet).is_some_and(|until| *until > now.mono);
    if waiter.want.subnets.iter().all(full) {
        let names: Vec<&str> = waiter.want.subnets.iter().map(|subnet| subnet.as_str()).collect();
        return format!("no free address in {}", names.join(", "));
    }
    if demand.no_room.contains(&waiter.task) {
        return no_room(state);
    }
    if let Some((_, reason)) = state.blocked.as_ref().filter(|(until, _)| *until > now.mono) {
        return reason.clone();
    }
    if let Some(reason) = state.fill_reason.as_ref().filter(|_| state.fill.not_before > now.mono) {
        let seconds = state.fill.not_before.saturating_sub(now.mono).as_secs();
        return format!(
            "{} ENIs in a row gave no slot: {reason}; next try in {seconds} s",
            state.fill.failures
        );
    }
    "creating an ENI".to_owned()
}

fn no_room(state: &State) -> String {
    let (used, kind) = (occupied(state), &state.instance.instance_type);
    let beside = state.instance.max_enis.saturating_sub(1);
    let others = state.foreign.values().filter(|index| **index != 0).count();
    match state.config.max_enis {
        Some(cap) if cap < beside => format!("all {cap} ENIs that the pool may hold are in use"),
        Some(_) | None if others > 0 => format!(
            "all {beside} ENIs that {kind} can hold beside its primary are in use: {used} by the pool, {others} by others"
        ),
        Some(_) | None => format!("all {beside} ENIs that {kind} can hold beside its primary are in use"),
    }
}

/// What the ENI that is promised to a task is doing.
fn on_its_way(state: &State, token: &ClientToken, now: Now) -> String {
    let because = |text: String, error: &Option<String>| match error {
        Some(error) => format!("{text}: {error}"),
        None => text,
    };
    let Some(eni) = state.enis.get(token) else {
        return match state.creating.get(token) {
            Some(creating) => {
                because(format!("creating an ENI in {}", creating.spec.subnet), &creating.error)
            }
            None => "creating an ENI".to_owned(),
        };
    };
    let (id, ago) = (&eni.facts.id, now.mono.saturating_sub(eni.since.mono).as_secs());
    match &eni.stage {
        Stage::Created => because(format!("attaching {id}"), &eni.error),
        Stage::Attaching { .. } => because(format!("attaching {id} (since {ago} s)"), &eni.error),
        Stage::AwaitingLink { .. } => format!("waiting for the link of {id} (attached {ago} s ago)"),
        Stage::Building { .. } | Stage::Held { .. } => {
            because(format!("building the namespace of {id}"), &eni.error)
        }
        Stage::Draining { .. } => because(format!("removing the last namespace of {id}"), &eni.error),
        Stage::Cooling { until, .. } => {
            format!(
                "{id} rests for another {} s after its last task",
                until.saturating_sub(now.mono).as_secs()
            )
        }
        Stage::Ready { .. }
        | Stage::Leased { .. }
        | Stage::Detaching { .. }
        | Stage::Deleting
        | Stage::Quarantined { .. } => format!("{id} is {}", eni.stage.word()),
    }
}
