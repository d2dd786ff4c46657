//! What is to be done now: a pure function of the state and the time.
//!
//! The plan is a list of actions (decisions and acts) and the time at which to plan again if nothing happens before. Acts on the
//! cloud pass three gates: the back-off of their ENI, the back-off of the pool while EC2 is throttling (warm fill, tags and audits
//! only: releases and launches go on), and a budget of calls with a reserve for releases and launches.

mod looks;
mod pool;
mod steps;
mod waiters;

use crate::{
    config::{BUDGET_RESERVE, Spec},
    demand::{Demand, demand},
    machine::{Eni, Now, Stage, State},
};
use berth_types::{
    ids::{ClientToken, SecurityGroupId, SlotId, TaskArn},
    lease::LeaseError,
};
use std::{collections::BTreeSet, time::Duration};

/// A decision or an act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// A waiting task gets this slot.
    Grant {
        task: TaskArn,
        token: ClientToken,
    },
    /// A waiting task gets no slot.
    Fail {
        task: TaskArn,
        error: LeaseError,
    },
    /// A slot found at start is nobody's and clean.
    Offer {
        token: ClientToken,
    },
    /// A slot goes, its ENI may stay.
    Drain {
        token: ClientToken,
        rest: bool,
    },
    /// An ENI goes.
    Retire {
        token: ClientToken,
    },
    /// An ENI gave no slot and goes.
    Condemn {
        token: ClientToken,
        reason: String,
    },
    /// An ENI is rested.
    Reuse {
        token: ClientToken,
    },
    /// A quarantine is over.
    Resume {
        token: ClientToken,
    },
    /// One more ENI is to be.
    Draft {
        spec: Spec,
    },
    /// An ENI that was to be is not needed any more, and nothing was asked of EC2.
    Drop {
        token: ClientToken,
    },
    Load,
    ObserveCloud,
    ObserveNetwork,
    Record,
    Create {
        token: ClientToken,
    },
    Attach {
        token: ClientToken,
        index: u32,
    },
    Detach {
        token: ClientToken,
    },
    Delete {
        token: ClientToken,
    },
    Build {
        token: ClientToken,
    },
    TearDown {
        token: ClientToken,
    },
    TearDownOrphan {
        slot: SlotId,
    },
    Flag {
        token: ClientToken,
    },
    /// A free slot gets the security groups that a waiting task wants.
    Regroup {
        token: ClientToken,
        groups: Vec<SecurityGroupId>,
    },
    Label {
        token: ClientToken,
    },
    Tag {
        token: ClientToken,
    },
}

/// What is to be done, and when to look again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    pub(crate) wake: Option<Duration>,
}

/// Who a call to EC2 is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    /// A release or a launch.
    Task,
    /// The warm pool, tags, audits.
    Pool,
}

/// Says what is to be done now.
pub(crate) fn plan(state: &State, now: Now) -> Plan {
    let mut planner = Planner {
        state,
        now,
        demand: demand(state),
        left: state.budget.left(now.mono),
        builders: state
            .enis
            .values()
            .filter(|eni| eni.busy && matches!(eni.stage, Stage::Building { .. }))
            .count(),
        used: BTreeSet::new(),
        indexes: state
            .foreign
            .values()
            .copied()
            .chain(state.enis.values().filter_map(Eni::device_index))
            .collect(),
        plan: Plan::default(),
    };
    if !state.loaded {
        if !state.loading.busy && planner.due(state.loading.retry.not_before) {
            planner.act(Action::Load);
        }
        planner.waiters();
        return planner.plan;
    }
    planner.waiters();
    planner.removals();
    planner.enis();
    planner.sides();
    planner.creates();
    planner.drafts();
    planner.observations();
    planner.orphans();
    planner.records();
    planner.plan
}

struct Planner<'a> {
    state: &'a State,
    now: Now,
    demand: Demand,
    /// Calls to EC2 that are left.
    left: u64,
    builders: usize,
    /// ENIs that this plan has decided on already.
    used: BTreeSet<ClientToken>,
    /// Device indexes that are taken.
    indexes: BTreeSet<u32>,
    plan: Plan,
}

impl Planner<'_> {
    fn act(&mut self, action: Action) {
        self.plan.actions.push(action);
    }

    /// Whether the time has come; if not, the plan is made again when it does.
    fn due(&mut self, at: Duration) -> bool {
        if at <= self.now.mono {
            return true;
        }
        self.plan.wake = Some(self.plan.wake.map_or(at, |wake| wake.min(at)));
        false
    }

    /// Takes a call to EC2 out of the budget.
    fn spend(&mut self, whose: For) -> bool {
        let reserve = match whose {
            For::Task => 0,
            For::Pool => BUDGET_RESERVE,
        };
        if whose == For::Pool && !self.due(self.state.throttle.not_before) {
            return false;
        }
        if self.left > reserve {
            self.left -= 1;
            return true;
        }
        let at = self.state.budget.when(reserve + 1, self.now.mono);
        // Calls that this plan has made already are not in the budget's books yet.
        self.due(at.max(self.now.mono + Duration::from_millis(1)));
        false
    }

    /// Whether the record of an ENI is being written right now: its intent must not be overtaken by an older fact.
    fn recording(&self, token: &ClientToken) -> bool {
        self.state.recording.as_ref().is_some_and(|(enis, _)| enis.contains(token))
    }

    fn records(&mut self) {
        let state = self.state;
        let idle = |token: &ClientToken| {
            !state.enis.get(token).is_some_and(|eni| eni.busy)
                && !state.creating.get(token).is_some_and(|c| c.busy)
        };
        let dirty = !state.dirty_leases.is_empty() || state.dirty_enis.iter().any(idle);
        if dirty && state.recording.is_none() && self.due(state.record_retry.not_before) {
            self.act(Action::Record);
        }
    }
}
