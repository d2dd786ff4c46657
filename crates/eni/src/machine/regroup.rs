//! Other security groups for a slot that is ready: one call to EC2 instead of a new ENI, which takes seconds.
//!
//! From the moment that the change is announced until EC2 is known to show it, the ENI counts as one whose groups nobody knows, and
//! such a one fits no task: a task must never get a slot with another task's groups.

use super::{Eni, Now, Refusal, Stage, State, results};
use crate::{
    config::{LAG, Spec},
    failure::{Failure, Kind},
    ops::Op,
};
use berth_types::{
    eni::{EniFacts, SlotFacts},
    ids::{ClientToken, SecurityGroupId},
};
use std::{sync::Arc, time::Duration};

impl State {
    pub(super) fn begin_regroup(
        &mut self,
        token: ClientToken,
        groups: Vec<SecurityGroupId>,
        now: Now,
    ) -> Option<Op> {
        let eni = self.enter(&token)?;
        eni.doubt_groups(now);
        let eni = eni.facts.id.clone();
        self.budget.take(now.mono);
        let intent = self.intent(&token);
        Some(Op::Regroup { token, eni, groups, intent })
    }

    pub(super) fn regrouped(
        &mut self,
        token: &ClientToken,
        groups: Vec<SecurityGroupId>,
        result: Result<(), Failure>,
        now: Now,
    ) {
        self.weigh(&result, now);
        let seed = self.draw();
        let Some(eni) = self.settle(token, now) else { return };
        eni.regrouped = Some(now);
        let spec = Spec { subnet: eni.spec.subnet.clone(), groups };
        match result {
            Ok(()) => {
                eni.retry.reset();
                eni.error = None;
                eni.take_groups(spec);
                self.fixed.retain(|r| Some(&r.spec) != self.enis.get(token).map(|eni| &eni.spec));
            }
            Err(failure) => {
                if failure.kind == Kind::Refused {
                    // The group does not exist, or the agent may not change groups: an ENI is created, and what EC2 says to that
                    // is what the task hears.
                    Refusal::note(&mut self.fixed, &spec, &failure, seed, now);
                }
                self.fail(token, &failure, results::RETRY, now);
            }
        }
        self.dirty_enis.insert(token.clone());
    }
}

impl Eni {
    /// Its groups have just been changed, or may have been: what EC2 shows of them may be older.
    pub(crate) fn doubt_groups(&mut self, now: Now) {
        self.spec.groups.clear();
        self.regrouped = Some(now);
    }

    /// Takes the groups that EC2 shows, if it was asked for them late enough after the last change.
    pub(super) fn see_groups(&mut self, facts: &EniFacts, asked_at: Duration) {
        if self.regrouped.is_none_or(|at| at.mono + LAG <= asked_at) {
            self.take_groups(super::spec_of(facts));
        }
    }

    /// Its groups are these now.
    fn take_groups(&mut self, spec: Spec) {
        if self.spec == spec {
            return;
        }
        self.spec = spec;
        if let Stage::Ready { slot, .. } = &mut self.stage {
            slot.facts = Arc::new(SlotFacts {
                security_groups: self.spec.groups.clone(),
                ..SlotFacts::clone(&slot.facts)
            });
        }
    }
}
