//! From what the planner decided to what is done: marks the state and gives the op.
//!
//! Intents are part of the op: the record as it will be once the act is under way, made durable by the op before it acts.

use super::{Creating, Eni, Reply, Seat, Stage, State, Then};
use crate::{
    address,
    backoff::Retry,
    config::{FILL_BASE, FILL_CAP, Spec},
    machine::Now,
    ops::Op,
    plan::Action,
    records,
};
use berth_types::{
    eni::CreateEni,
    ids::{ClientToken, SlotId, TaskArn},
    ports::{TAG_CLUSTER, TAG_CREATED, TAG_INSTANCE, TAG_INTENT, Write},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

impl State {
    /// Does what was decided. An action that no longer fits the state is left out: the next plan is made from the state as
    /// it is then.
    pub(crate) fn begin(&mut self, action: Action, now: Now) -> Option<Op> {
        match action {
            Action::Grant { task, token } => self.grant_waiter(&task, &token, now),
            Action::Fail { task, error } => self.fail_waiter(&task, error),
            Action::Offer { token } => self.offer(&token, now),
            Action::Drain { token, rest } => self.drain(&token, rest, now),
            Action::Retire { token } => self.retire(&token, now),
            Action::Condemn { token, reason } => self.condemn(&token, reason, now),
            Action::Reuse { token } => self.reuse(&token, now),
            Action::Resume { token } => self.resume(&token, now),
            Action::Draft { spec } => self.draft(spec, now),
            Action::Drop { token } => {
                self.creating.remove(&token);
                self.dirty_enis.insert(token);
            }
            Action::Load => {
                self.loading.busy = true;
                return Some(Op::Load { instance: self.instance.instance_id.clone() });
            }
            Action::ObserveCloud => {
                self.budget.take(now.mono);
                self.cloud.begin(now);
                return Some(Op::ObserveCloud { began: self.seq });
            }
            Action::ObserveNetwork => {
                self.network.begin(now);
                return Some(Op::ObserveNetwork { began: self.seq });
            }
            Action::Record => return self.begin_record(),
            Action::Create { token } => return self.begin_create(token, now),
            Action::Attach { token, index } => return self.begin_attach(token, index, now),
            Action::Detach { token } => return self.begin_detach(token, now),
            Action::Delete { token } => return self.begin_delete(token, now),
            Action::Build { token } => return self.begin_build(token, now),
            Action::TearDown { token } => return self.begin_tear_down(token),
            Action::TearDownOrphan { slot } => {
                self.orphans.get_mut(&slot)?.side.busy = true;
                return Some(Op::TearDownOrphan { slot });
            }
            Action::Flag { token } => return self.begin_flag(token, now),
            Action::Regroup { token, groups } => return self.begin_regroup(token, groups, now),
            Action::Label { token } => return self.begin_label(token),
            Action::Tag { token } => return self.begin_tag(token, now),
        }
        None
    }

    /// A slot that was found at start and that nobody ever leased joins the warm ones.
    fn offer(&mut self, token: &ClientToken, now: Now) {
        let Some(Stage::Held { seat, slot, .. }) = self.enis.get(token).map(|eni| eni.stage.clone()) else {
            return;
        };
        self.turn(token, Stage::Ready { seat, slot }, now);
    }

    /// A slot goes; what becomes of its ENI is decided when its link is back.
    pub(super) fn drain(&mut self, token: &ClientToken, rest: bool, now: Now) {
        let Some(eni) = self.enis.get(token) else { return };
        let (Some(slot), Some(seat)) = (eni.stage.slot().cloned(), eni.stage.seat().cloned()) else { return };
        self.turn(token, Stage::Draining { seat, slot, rest }, now);
    }

    /// An ENI goes: the next step back from where it is.
    fn retire(&mut self, token: &ClientToken, now: Now) {
        let Some(eni) = self.enis.get(token) else { return };
        let stage = match &eni.stage {
            Stage::Created => Stage::Deleting,
            Stage::AwaitingLink { seat } | Stage::Cooling { seat, .. } => {
                Stage::Detaching { seat: seat.clone(), asked: false }
            }
            Stage::Building { seat, slot, .. } => {
                Stage::Draining { seat: seat.clone(), slot: slot.clone(), rest: false }
            }
            Stage::Ready { seat, slot } | Stage::Held { seat, slot, .. } => {
                Stage::Draining { seat: seat.clone(), slot: slot.facts.slot.clone(), rest: false }
            }
            Stage::Attaching { index, .. } => {
                let Some(attachment) = &eni.facts.attachment else { return };
                Stage::Detaching {
                    seat: Seat { index: *index, attachment: attachment.id.clone() },
                    asked: false,
                }
            }
            Stage::Leased { .. }
            | Stage::Draining { .. }
            | Stage::Detaching { .. }
            | Stage::Deleting
            | Stage::Quarantined { .. } => return,
        };
        self.turn(token, stage, now);
    }

    /// An ENI gave no slot: it is given back, and after some of these in a row the fill slows down.
    fn condemn(&mut self, token: &ClientToken, reason: String, now: Now) {
        let seed = self.draw();
        let Some(eni) = self.enis.get_mut(token) else { return };
        tracing::warn!(eni = %eni.facts.id, reason, "eni gives no slot and is given back");
        eni.condemned = true;
        eni.error = Some(reason.clone());
        self.fill.failures = self.fill.failures.saturating_add(1);
        if self.fill.failures >= crate::config::FAILED_FILLS {
            let excess = self.fill.failures - crate::config::FAILED_FILLS + 1;
            self.fill.not_before = now.mono + crate::backoff::delay(seed, excess, FILL_BASE, FILL_CAP);
        }
        self.fill_reason = Some(reason);
        self.retire(token, now);
    }

    /// An ENI whose rest is over goes into a fresh namespace.
    fn reuse(&mut self, token: &ClientToken, now: Now) {
        let Some(Stage::Cooling { seat, .. }) = self.enis.get(token).map(|eni| eni.stage.clone()) else {
            return;
        };
        self.turn(token, Stage::AwaitingLink { seat }, now);
    }

    /// A quarantine is over.
    fn resume(&mut self, token: &ClientToken, now: Now) {
        let Some(Stage::Quarantined { then, .. }) = self.enis.get(token).map(|eni| eni.stage.clone()) else {
            return;
        };
        let stage = match then {
            Then::Attach => Stage::Created,
            Then::Detach(seat) => Stage::Detaching { seat, asked: false },
            Then::Delete => Stage::Deleting,
        };
        self.turn(token, stage, now);
    }

    /// The intent to have one more ENI.
    fn draft(&mut self, spec: Spec, now: Now) {
        let token = ClientToken::random();
        let instance = &self.instance.instance_id;
        let tags = BTreeMap::from([
            (TAG_INSTANCE.to_owned(), instance.to_string()),
            (TAG_CLUSTER.to_owned(), self.config.cluster.clone()),
            (TAG_INTENT.to_owned(), token.to_string()),
            (TAG_CREATED.to_owned(), now.wall.as_millisecond().to_string()),
        ]);
        let request = CreateEni {
            token: token.clone(),
            subnet: spec.subnet.clone(),
            security_groups: spec.groups.clone(),
            description: format!("berth:{instance}:{token}"),
            tags,
            ipv6_addresses: u32::from(self.config.ipv6),
        };
        let creating = Creating {
            request,
            spec,
            created_at: now.wall,
            since: now,
            retry: Retry::default(),
            busy: false,
            tried: false,
            error: None,
        };
        self.creating.insert(token, creating);
    }

    /// The record of an ENI as it is now, to be made durable by an op.
    pub(super) fn intent(&mut self, token: &ClientToken) -> Vec<Write> {
        self.dirty_enis.remove(token);
        vec![records::write_eni(token, self.record(token).as_ref())]
    }

    fn begin_create(&mut self, token: ClientToken, now: Now) -> Option<Op> {
        let creating = self.creating.get_mut(&token)?;
        (creating.busy, creating.tried) = (true, true);
        let request = creating.request.clone();
        self.budget.take(now.mono);
        let intent = self.intent(&token);
        Some(Op::Create { token, request: Box::new(request), intent })
    }

    fn begin_attach(&mut self, token: ClientToken, index: u32, now: Now) -> Option<Op> {
        self.turn(&token, Stage::Attaching { index, reply: Reply::Awaited }, now);
        let eni = self.enter(&token)?.facts.id.clone();
        self.budget.take(now.mono);
        let intent = self.intent(&token);
        Some(Op::Attach { token, eni, index, intent })
    }

    fn begin_detach(&mut self, token: ClientToken, now: Now) -> Option<Op> {
        let eni = self.enter(&token)?;
        let attachment = eni.stage.seat()?.attachment.clone();
        let eni = eni.facts.id.clone();
        self.budget.take(now.mono);
        let intent = self.intent(&token);
        Some(Op::Detach { token, eni, attachment, intent })
    }

    fn begin_delete(&mut self, token: ClientToken, now: Now) -> Option<Op> {
        let eni = self.enter(&token)?.facts.id.clone();
        self.budget.take(now.mono);
        let intent = self.intent(&token);
        Some(Op::Delete { token, eni, intent })
    }

    /// A namespace is made: a fresh one for a link that waits, the same one again after a failure or for a slot found at start.
    fn begin_build(&mut self, token: ClientToken, now: Now) -> Option<Op> {
        if let Some(Stage::AwaitingLink { seat }) = self.enis.get(&token).map(|eni| eni.stage.clone()) {
            let slot = SlotId::random(&self.instance.instance_id);
            self.turn(&token, Stage::Building { seat, slot, past: None }, now);
        }
        let facts = Arc::clone(&self.enter(&token)?.facts);
        let slot = self.enis.get(&token)?.stage.slot()?.clone();
        Some(Op::Build { token, spec: Box::new(address::slot_spec(&self.config, &facts, &slot)) })
    }

    fn begin_tear_down(&mut self, token: ClientToken) -> Option<Op> {
        let slot = self.enter(&token)?.stage.slot()?.clone();
        Some(Op::TearDown { token, slot })
    }

    fn begin_flag(&mut self, token: ClientToken, now: Now) -> Option<Op> {
        self.budget.take(now.mono);
        let eni = self.enis.get_mut(&token)?;
        let Seat { attachment, .. } = eni.stage.seat()?.clone();
        eni.flag.busy = true;
        Some(Op::Flag { token, eni: eni.facts.id.clone(), attachment })
    }

    fn begin_label(&mut self, token: ClientToken) -> Option<Op> {
        let eni = self.enis.get_mut(&token)?;
        let Stage::Leased { slot, task, .. } = &eni.stage else { return None };
        let (slot, task) = (slot.facts.slot.clone(), task.clone());
        eni.label.busy = true;
        Some(Op::Label { token, slot, task })
    }

    fn begin_tag(&mut self, token: ClientToken, now: Now) -> Option<Op> {
        self.budget.take(now.mono);
        let eni = self.enis.get_mut(&token)?;
        let wanted = eni.wanted_tags();
        let mut change: BTreeMap<String, Option<String>> = BTreeMap::new();
        change.extend(
            eni.tagged.keys().filter(|key| !wanted.contains_key(*key)).map(|key| (key.clone(), None)),
        );
        let set = wanted.iter().filter(|(key, value)| eni.tagged.get(*key) != Some(*value));
        change.extend(set.map(|(key, value)| (key.clone(), Some(value.clone()))));
        eni.tag.busy = true;
        Some(Op::Tag { token, eni: eni.facts.id.clone(), change, tags: wanted })
    }

    /// Facts that changed are written behind, all at once, one op at a time so that they stay in order.
    fn begin_record(&mut self) -> Option<Op> {
        let busy = |token: &ClientToken| {
            self.enis.get(token).is_some_and(|eni| eni.busy)
                || self.creating.get(token).is_some_and(|c| c.busy)
        };
        let enis: BTreeSet<ClientToken> =
            self.dirty_enis.iter().filter(|token| !busy(token)).cloned().collect();
        let leases: BTreeSet<TaskArn> = std::mem::take(&mut self.dirty_leases);
        self.dirty_enis.retain(|token| !enis.contains(token));
        let mut writes: Vec<Write> =
            enis.iter().map(|token| records::write_eni(token, self.record(token).as_ref())).collect();
        writes.extend(leases.iter().map(|task| records::write_lease(task, self.lease_record(task).as_ref())));
        self.recording = Some((enis, leases));
        Some(Op::Record { writes })
    }

    /// An op of the ENI's main way begins.
    pub(super) fn enter(&mut self, token: &ClientToken) -> Option<&mut Eni> {
        let eni = self.enis.get_mut(token)?;
        eni.busy = true;
        Some(eni)
    }
}

impl super::Watch {
    fn begin(&mut self, now: Now) {
        self.busy = true;
        self.kicked = false;
        self.began_at = now.mono;
        self.polls = self.polls.saturating_add(1);
    }

    pub(super) fn answered(&mut self, now: Now) {
        if !self.seen {
            (self.seen, self.seen_at) = (true, now.mono);
        }
    }
}
