//! Leases: the only path that a task waits on, so nothing here but memory is touched.

use super::{Answer, Eni, Now, Slot, Stage, State};
use crate::{
    config::{WAITERS, Want},
    records::LeaseRecord,
};
use berth_types::{
    ids::{ClientToken, SlotId, TaskArn},
    lease::{Lease, LeaseError, LeaseNeeds},
    ports::{TAG_CLUSTER, TAG_CREATED, TAG_INSTANCE, TAG_INTENT, TAG_TASK},
};
use std::{collections::BTreeMap, sync::Arc};

/// A task that waits for a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiter {
    pub(crate) task: TaskArn,
    pub(crate) want: Want,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) held: Option<SlotId>,
    pub(crate) since: Now,
}

/// What a request gets at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A slot, or the reason why there will be none.
    Answer(Result<Lease, LeaseError>),
    /// The answer comes through [`State::answers`].
    Waits,
}

/// Tags that say whose the ENI is: no task's tags replace them.
const OWN_TAGS: [&str; 4] = [TAG_INSTANCE, TAG_CLUSTER, TAG_INTENT, TAG_CREATED];

/// Whether a tag is one that leases set: ours by prefix, but not one of those that say whose the ENI is.
pub(crate) fn is_task_tag(key: &str) -> bool {
    key.starts_with("berth:") && !OWN_TAGS.contains(&key)
}

impl State {
    /// A task asks for a slot. Asked twice, it gets the same one.
    pub(crate) fn lease(
        &mut self,
        task: &TaskArn,
        needs: &LeaseNeeds,
        held: Option<SlotId>,
        now: Now,
    ) -> Asked {
        if let Some(eni) = self.leases.get(task).and_then(|token| self.enis.get(token)) {
            return Asked::Answer(same_lease(eni, held));
        }
        if self.waiters.iter().any(|w| w.task == *task) {
            return Asked::Waits;
        }
        let waiter = Waiter {
            task: task.clone(),
            want: self.config.want(needs),
            tags: task_tags(task, needs),
            held,
            since: now,
        };
        if let Some(token) = self.servable(&waiter) {
            // A slot that nobody of the same want waits for: nobody is overtaken.
            self.leases_total += 1;
            self.warm_leases_total += u64::from(waiter.held.is_none());
            return match self.grant(waiter, &token, now) {
                Some(lease) => Asked::Answer(Ok(lease)),
                None => Asked::Answer(Err(LeaseError::Stopped)),
            };
        }
        if self.waiters.len() >= WAITERS {
            return Asked::Answer(Err(LeaseError::Busy));
        }
        self.waiters.push_back(waiter);
        Asked::Waits
    }

    /// The slot that a task can have now: the one that it holds, else the warm one that has been ready longest.
    pub(crate) fn servable(&self, waiter: &Waiter) -> Option<ClientToken> {
        if let Some(slot) = &waiter.held {
            let (token, eni) = self.by_slot(slot)?;
            let free = matches!(eni.stage, Stage::Held { lost: None, .. } | Stage::Ready { .. });
            return free.then(|| token.clone());
        }
        let held = self.held_by(&waiter.task).filter(|(_, eni)| eni.stage.loss().is_none());
        if let Some((token, _)) = held {
            return Some(token.clone());
        }
        let warm = self.enis.iter().filter_map(|(token, eni)| {
            let Stage::Ready { slot, .. } = &eni.stage else { return None };
            (waiter.want.fits(&eni.spec) && !eni.condemned).then_some((slot.ready_at, token))
        });
        warm.min().map(|(_, token)| token.clone())
    }

    /// The finished slot that a task held before the start.
    fn held_by(&self, task: &TaskArn) -> Option<(&ClientToken, &Eni)> {
        let held = |eni: &Eni| {
            let past = eni.stage.past().filter(|_| eni.stage.finished().is_some());
            past.is_some_and(|past| past.task.as_ref() == Some(task))
        };
        self.enis.iter().find(|(_, eni)| held(eni))
    }

    /// Binds a slot to a task. Label, tags and record follow behind.
    fn grant(&mut self, waiter: Waiter, token: &ClientToken, now: Now) -> Option<Lease> {
        let stage = &self.enis.get(token)?.stage;
        let (Stage::Ready { seat, slot } | Stage::Held { seat, slot, .. }) = stage else { return None };
        let (seat, slot) = (seat.clone(), slot.clone());
        let lease = Arc::clone(&slot.facts);
        let Waiter { task, tags, .. } = waiter;
        tracing::info!(task = %task, slot = %lease.slot, eni = %lease.eni, "slot leased");
        self.leases.insert(task.clone(), token.clone());
        self.dirty_leases.insert(task.clone());
        self.turn(token, Stage::Leased { seat, slot, task, tags, labelled: false, lost: None }, now);
        Some(lease)
    }

    pub(super) fn grant_waiter(&mut self, task: &TaskArn, token: &ClientToken, now: Now) {
        let Some(at) = self.waiters.iter().position(|w| w.task == *task) else { return };
        let Some(waiter) = self.waiters.get(at).cloned() else { return };
        let held = waiter.held.is_some();
        if let Some(lease) = self.grant(waiter, token, now) {
            self.waiters.remove(at);
            self.leases_total += 1;
            self.answers.push(Answer { task: task.clone(), held, result: Ok(lease) });
        }
    }

    pub(super) fn fail_waiter(&mut self, task: &TaskArn, error: LeaseError) {
        let Some(at) = self.waiters.iter().position(|w| w.task == *task) else { return };
        if let Some(waiter) = self.waiters.remove(at) {
            tracing::warn!(task = %task, error = %error, "task gets no slot");
            self.answers.push(Answer { task: waiter.task, held: waiter.held.is_some(), result: Err(error) });
        }
    }

    /// A task is done with its slot, or no longer waits for one.
    pub(crate) fn release(&mut self, task: &TaskArn, now: Now) {
        self.fail_waiter(task, LeaseError::Cancelled);
        if let Some(token) = self.leases.remove(task) {
            self.dirty_leases.insert(task.clone());
            tracing::info!(task = %task, "slot released");
            self.drain(&token, true, now);
            return;
        }
        // Before it asked for its slot again: what the journal or the kernel says about it no longer holds.
        if self.memory.remove(task).is_some() {
            self.dirty_leases.insert(task.clone());
        }
        if let Some(token) = self.held_by(task).map(|(token, _)| token.clone()) {
            self.drain(&token, true, now);
        }
    }

    /// Nobody listens for the task's answer any more: it waits no longer, and a slot that it was given just now goes back. What
    /// it held in the past stays as it is, because its containers may be running.
    pub(super) fn abandon(&mut self, task: &TaskArn, now: Now) {
        self.fail_waiter(task, LeaseError::Cancelled);
        if let Some(token) = self.leases.remove(task) {
            self.dirty_leases.insert(task.clone());
            self.drain(&token, true, now);
        }
    }

    pub(super) fn lease_record(&self, task: &TaskArn) -> Option<LeaseRecord> {
        let eni = self.leases.get(task).and_then(|token| self.enis.get(token))?;
        let Stage::Leased { slot: Slot { facts, .. }, tags, .. } = &eni.stage else { return None };
        let (slot, eni) = (facts.slot.clone(), facts.eni.clone());
        Some(LeaseRecord { task: task.clone(), slot, eni, tags: tags.clone() })
    }
}

/// The answer to a task that holds a slot already.
fn same_lease(eni: &Eni, held: Option<SlotId>) -> Result<Lease, LeaseError> {
    let Stage::Leased { slot, lost, .. } = &eni.stage else { return Err(LeaseError::Stopped) };
    let lease = &slot.facts;
    match (lost, held) {
        (Some(reason), _) => Err(LeaseError::Lost { slot: lease.slot.clone(), reason: reason.clone() }),
        (None, Some(other)) if other != lease.slot => {
            Err(LeaseError::Lost { slot: other, reason: format!("the task leases slot {}", lease.slot) })
        }
        (None, Some(_) | None) => Ok(Arc::clone(lease)),
    }
}

/// The tags of the ENI while the task holds it.
fn task_tags(task: &TaskArn, needs: &LeaseNeeds) -> BTreeMap<String, String> {
    let mut tags = needs.tags.clone();
    tags.retain(|key, _| !OWN_TAGS.contains(&key.as_str()));
    tags.insert(TAG_TASK.to_owned(), task.to_string());
    tags
}
