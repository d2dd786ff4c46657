//! What the end of an op (and every other event) does to the state.

use super::{Creating, Eni, Event, Finished, Now, Presence, Refusal, Reply, Slot, Stage, State, Then};
use crate::{
    address,
    config::{LAG, LOAD_TRIES, QUARANTINE, REFUSED_BASE, REFUSED_CAP, RETRY_BASE, RETRY_CAP, Spec, YOUNG},
    failure::{Failure, Kind},
    records::Memory,
    recover,
};
use berth_types::{
    eni::EniFacts,
    ids::{ClientToken, SlotId, TaskArn},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Back-off of one ENI's acts.
pub(super) const RETRY: (Duration, Duration) = (RETRY_BASE, RETRY_CAP);
/// Back-off of what EC2 refuses outright.
const REFUSED: (Duration, Duration) = (REFUSED_BASE, REFUSED_CAP);

impl State {
    /// Takes an event.
    pub(crate) fn apply(&mut self, event: Event, now: Now) {
        match event {
            Event::Loaded(result) => self.loaded(result, now),
            Event::CloudSeen { began, result } => self.cloud_seen(began, result, now),
            Event::NetworkSeen { began, result } => self.network_seen(began, result, now),
            Event::Links(links) => self.links = links,
            Event::Created { token, result } => self.created(&token, result, now),
            Event::Attached { token, result } => self.attached(&token, result, now),
            Event::Flagged { token, result } => self.flagged(&token, result, now),
            Event::Built { token, slot, result } => self.built(&token, &slot, result, now),
            Event::Regrouped { token, groups, result } => self.regrouped(&token, groups, result, now),
            Event::Labelled { token, task, result } => self.labelled(&token, &task, result, now),
            Event::Tagged { token, tags, result } => self.tagged(&token, tags, result, now),
            Event::TornDown { token, slot, result } => self.torn_down(&token, &slot, result, now),
            Event::OrphanTornDown { slot, result } => self.orphan_torn_down(&slot, result, now),
            Event::Detached { token, result } => self.detached(&token, result, now),
            Event::Deleted { token, result } => self.deleted(&token, result, now),
            Event::Recorded(result) => self.recorded(result, now),
            Event::Recovered => {
                self.recovered = true;
                self.network.kicked = true;
                self.forget_stale_leases();
            }
            Event::Resized { warm, max_enis } => {
                tracing::info!(warm, max_enis, "pool resized");
                (self.config.warm, self.config.max_enis, self.config.warm_max) = (warm, max_enis, None);
            }
            Event::Kicked => {
                (self.cloud.kicked, self.network.kicked) = (true, true);
                self.fill = crate::backoff::Retry::default();
                self.refused.clear();
                self.fixed.clear();
                self.full_subnets.clear();
                self.blocked = None;
            }
            Event::Abandoned(task) => self.abandon(&task, now),
        }
    }

    fn loaded(&mut self, result: Result<Memory, Failure>, now: Now) {
        self.loading.busy = false;
        let memory = match result {
            Ok(memory) => memory,
            Err(failure) => {
                let seed = self.draw();
                self.loading.retry.failed(now.mono, seed, RETRY, Duration::ZERO);
                if self.loading.retry.failures < LOAD_TRIES {
                    tracing::warn!(error = failure.text, "journal not read, trying again");
                    return;
                }
                tracing::error!(
                    error = failure.text,
                    "journal not read, going on from what EC2 and the kernel show"
                );
                Memory::default()
            }
        };
        recover::remember(self, memory, now);
        self.loaded = true;
        self.forget_stale_leases();
    }

    /// Once the engine has asked for all that its tasks hold, leases of others are over.
    fn forget_stale_leases(&mut self) {
        if self.loaded && self.recovered {
            for task in std::mem::take(&mut self.memory).into_keys() {
                if !self.leases.contains_key(&task) {
                    self.dirty_leases.insert(task);
                }
            }
        }
    }

    /// Counts a call's success or throttling for the pool as a whole.
    pub(super) fn weigh<T>(&mut self, result: &Result<T, Failure>, now: Now) {
        match result {
            Ok(_) => self.throttle.reset(),
            Err(failure) if failure.kind == Kind::Throttled => {
                let seed = self.draw();
                self.throttle.failed(now.mono, seed, RETRY, Duration::ZERO);
            }
            Err(_) => {}
        }
    }

    /// An op of an ENI's main way ended.
    pub(super) fn settle(&mut self, token: &ClientToken, now: Now) -> Option<&mut Eni> {
        self.seq += 1;
        let seq = self.seq;
        let eni = self.enis.get_mut(token)?;
        (eni.busy, eni.settled, eni.settled_at) = (false, seq, now.mono);
        Some(eni)
    }

    /// An ENI's act failed: back off, and say so.
    pub(super) fn fail(
        &mut self,
        token: &ClientToken,
        failure: &Failure,
        policy: (Duration, Duration),
        now: Now,
    ) {
        let seed = self.draw();
        let Some(eni) = self.enis.get_mut(token) else { return };
        if eni.retry.failures == 0 {
            tracing::warn!(eni = %eni.facts.id, error = failure.text, "operation failed");
        } else {
            tracing::debug!(eni = %eni.facts.id, error = failure.text, "operation failed again");
        }
        eni.retry.failed(now.mono, seed, policy, failure.named_wait());
        eni.error = Some(failure.text.clone());
    }

    /// Out of use for a while: the error does not go away by itself.
    fn quarantine(&mut self, token: &ClientToken, then: Then, failure: &Failure, now: Now) {
        self.fail(token, failure, REFUSED, now);
        self.turn(token, Stage::Quarantined { then, until: now.mono + QUARANTINE }, now);
    }

    /// EC2 refuses this kind of ENI: tasks that wait for one and nothing else hear of it.
    fn refuse(&mut self, spec: &Spec, failure: &Failure, now: Now) {
        let seed = self.draw();
        Refusal::note(&mut self.refused, spec, failure, seed, now);
    }

    fn created(&mut self, token: &ClientToken, result: Result<Box<EniFacts>, Failure>, now: Now) {
        self.weigh(&result, now);
        self.seq += 1;
        let Some(mut creating) = self.creating.remove(token) else { return };
        creating.busy = false;
        let failure = match result {
            Ok(facts) => {
                self.refused.retain(|r| r.spec != creating.spec);
                return self.exists(token, creating, *facts, now);
            }
            Err(failure) => failure,
        };
        tracing::warn!(token = %token, error = failure.text, "eni not created");
        self.dirty_enis.insert(token.clone());
        match failure.kind {
            // EC2 said no: there is no ENI under this token, and the next one may be asked for elsewhere.
            Kind::SubnetFull => {
                self.full_subnets.insert(creating.spec.subnet.clone(), now.mono + failure.named_wait());
            }
            Kind::InstanceFull | Kind::Quota => {
                self.blocked = Some((now.mono + failure.named_wait(), failure.text))
            }
            Kind::Refused => self.refuse(&creating.spec, &failure, now),
            Kind::Token => {
                // Our own mistake. If there is an ENI under this token, its tags bring it back.
                tracing::error!(token = %token, error = failure.text, "client token used twice");
                self.refuse(&creating.spec, &failure, now);
            }
            Kind::Throttled
            | Kind::Unknown
            | Kind::NotFound
            | Kind::InUse
            | Kind::Journal
            | Kind::NoLink
            | Kind::Kernel => {
                let seed = self.draw();
                creating.retry.failed(now.mono, seed, RETRY, failure.named_wait());
                creating.error = Some(failure.text);
                self.creating.insert(token.clone(), creating);
            }
        }
    }

    /// EC2 answered with the ENI.
    pub(super) fn exists(&mut self, token: &ClientToken, creating: Creating, facts: EniFacts, now: Now) {
        tracing::info!(eni = %facts.id, subnet = %facts.subnet, "eni created");
        let mut eni = Eni::new(creating.request, facts, Stage::Created, now);
        (eni.created_at, eni.settled, eni.young_until) = (creating.created_at, self.seq, now.mono + YOUNG);
        // We made it ourselves: it needs no second look before it may go.
        eni.sightings = 2;
        self.enis.insert(token.clone(), eni);
        self.dirty_enis.insert(token.clone());
    }

    fn attached(&mut self, token: &ClientToken, result: Result<(), Failure>, now: Now) {
        self.weigh(&result, now);
        let Some(eni) = self.settle(token, now) else { return };
        let Stage::Attaching { index, .. } = eni.stage else { return };
        let spec = eni.spec.clone();
        self.cloud.polls = 0;
        let Err(failure) = result else {
            if let Some(eni) = self.enis.get_mut(token) {
                eni.retry.reset();
                eni.error = None;
            }
            return self.turn(token, Stage::Attaching { index, reply: Reply::Taken }, now);
        };
        match failure.kind {
            Kind::Unknown | Kind::InUse => {
                self.fail(token, &failure, RETRY, now);
                self.turn(token, Stage::Attaching { index, reply: Reply::Unknown }, now);
            }
            Kind::Refused => {
                self.refuse(&spec, &failure, now);
                self.quarantine(token, Then::Attach, &failure, now);
            }
            Kind::InstanceFull | Kind::Quota => {
                self.blocked = Some((now.mono + failure.named_wait(), failure.text.clone()));
                self.fail(token, &failure, RETRY, now);
                self.turn(token, Stage::Created, now);
            }
            Kind::NotFound => {
                self.fail(token, &failure, RETRY, now);
                let old = self.enis.get_mut(token).filter(|eni| now.mono >= eni.young_until);
                if let Some(eni) = old {
                    eni.missing.get_or_insert(now.mono);
                }
                self.turn(token, Stage::Created, now);
            }
            Kind::Throttled
            | Kind::SubnetFull
            | Kind::Token
            | Kind::Journal
            | Kind::NoLink
            | Kind::Kernel => {
                self.fail(token, &failure, RETRY, now);
                self.turn(token, Stage::Created, now);
            }
        }
    }

    fn flagged(&mut self, token: &ClientToken, result: Result<(), Failure>, now: Now) {
        self.weigh(&result, now);
        let seed = self.draw();
        let Some(eni) = self.enis.get_mut(token) else { return };
        eni.flag.busy = false;
        match result {
            Ok(()) => {
                eni.flagged = true;
                eni.flag.retry.reset();
            }
            Err(failure) => {
                let policy = if failure.kind == Kind::Refused { REFUSED } else { RETRY };
                eni.flag.retry.failed(now.mono, seed, policy, failure.named_wait());
                eni.error = Some(failure.text);
            }
        }
    }

    fn built(
        &mut self,
        token: &ClientToken,
        slot: &SlotId,
        result: Result<Box<Finished>, Failure>,
        now: Now,
    ) {
        let Some(eni) = self.settle(token, now) else { return };
        let Stage::Building { seat, slot: building, past } = eni.stage.clone() else { return };
        self.network_settled = self.seq;
        if building != *slot {
            return;
        }
        let built = match result {
            Ok(built) => built,
            Err(failure) => {
                self.fail(token, &failure, RETRY, now);
                // Without a link there is nothing in a fresh namespace: wait for the link again, in its own time.
                if failure.kind == Kind::NoLink && past.is_none() {
                    self.drain(token, false, now);
                }
                return;
            }
        };
        let Some(eni) = self.enis.get_mut(token) else { return };
        eni.retry.reset();
        eni.error = None;
        let facts = Arc::new(address::slot_facts(&self.config, eni, &seat, slot, &built));
        let build_micros = built.build_micros;
        tracing::info!(eni = %facts.eni, slot = %slot, build_micros, found = past.is_some(), "slot built");
        let ready = Slot { facts, ready_at: now.wall, build_micros };
        let stage = match past {
            Some(past) => Stage::Held { seat, slot: ready, past, lost: None },
            None => Stage::Ready { seat, slot: ready },
        };
        self.fill.reset();
        self.fill_reason = None;
        self.turn(token, stage, now);
    }

    fn labelled(&mut self, token: &ClientToken, task: &TaskArn, result: Result<(), Failure>, now: Now) {
        let seed = self.draw();
        let Some(eni) = self.enis.get_mut(token) else { return };
        eni.label.busy = false;
        match (result, &mut eni.stage) {
            (Ok(()), Stage::Leased { task: holder, labelled, .. }) if holder == task => {
                *labelled = true;
                eni.label.retry.reset();
            }
            // The lease has ended meanwhile: the label goes with the namespace.
            (Ok(()), _) => eni.label.retry.reset(),
            (Err(failure), _) => eni.label.retry.failed(now.mono, seed, RETRY, failure.named_wait()),
        }
    }

    fn tagged(
        &mut self,
        token: &ClientToken,
        tags: BTreeMap<String, String>,
        result: Result<(), Failure>,
        now: Now,
    ) {
        self.weigh(&result, now);
        let seed = self.draw();
        self.seq += 1;
        let seq = self.seq;
        let Some(eni) = self.enis.get_mut(token) else { return };
        (eni.tag.busy, eni.tag.settled) = (false, seq);
        match result {
            Ok(()) => {
                eni.tagged = tags;
                eni.tag.retry.reset();
                self.dirty_enis.insert(token.clone());
            }
            Err(failure) => {
                let policy = if failure.kind == Kind::Refused { REFUSED } else { RETRY };
                eni.tag.retry.failed(now.mono, seed, policy, failure.named_wait());
                // Half of it may have been done: what was set is to be seen as set, so that it is removed one day.
                eni.tagged.extend(tags.into_keys().map(|key| (key, String::new())));
            }
        }
    }

    fn torn_down(&mut self, token: &ClientToken, slot: &SlotId, result: Result<(), Failure>, now: Now) {
        let Some(eni) = self.settle(token, now) else { return };
        let Stage::Draining { seat, slot: draining, rest } = eni.stage.clone() else { return };
        let presence = eni.presence;
        self.network_settled = self.seq;
        if draining != *slot {
            return;
        }
        if let Err(failure) = result {
            return self.fail(token, &failure, RETRY, now);
        }
        if let Some(eni) = self.enis.get_mut(token).filter(|eni| eni.error.is_none() || rest) {
            // A build that failed keeps its count, so that the same ENI is not tried for ever.
            eni.retry.reset();
        }
        match presence {
            Presence::Gone => self.remove(token, now),
            Presence::Detached => {
                if let Some(eni) = self.enis.get_mut(token) {
                    (eni.presence, eni.missing) = (Presence::Normal, None);
                }
                self.turn(token, Stage::Created, now);
            }
            Presence::Normal => {
                let until = if rest { now.mono + self.config.cooldown } else { now.mono };
                self.turn(token, Stage::Cooling { seat, until }, now);
            }
        }
    }

    fn orphan_torn_down(&mut self, slot: &SlotId, result: Result<(), Failure>, now: Now) {
        self.seq += 1;
        self.network_settled = self.seq;
        let seed = self.draw();
        match result {
            Ok(()) => {
                tracing::info!(slot = %slot, "namespace without an eni removed");
                self.orphans.remove(slot);
            }
            Err(failure) => {
                if let Some(orphan) = self.orphans.get_mut(slot) {
                    orphan.side.busy = false;
                    orphan.side.retry.failed(now.mono, seed, RETRY, failure.named_wait());
                }
            }
        }
    }

    fn detached(&mut self, token: &ClientToken, result: Result<(), Failure>, now: Now) {
        self.weigh(&result, now);
        let Some(eni) = self.settle(token, now) else { return };
        let Stage::Detaching { seat, .. } = eni.stage.clone() else { return };
        self.cloud.polls = 0;
        match result {
            Ok(()) => self.turn(token, Stage::Detaching { seat, asked: true }, now),
            Err(failure) => match failure.kind {
                // It may be under way, or over: a describe will show it.
                Kind::Unknown | Kind::NotFound => {
                    self.fail(token, &failure, RETRY, now);
                    self.turn(token, Stage::Detaching { seat, asked: true }, now);
                }
                Kind::Refused => self.quarantine(token, Then::Detach(seat), &failure, now),
                Kind::Throttled
                | Kind::InUse
                | Kind::InstanceFull
                | Kind::Quota
                | Kind::SubnetFull
                | Kind::Token
                | Kind::Journal
                | Kind::NoLink
                | Kind::Kernel => self.fail(token, &failure, RETRY, now),
            },
        }
    }

    fn deleted(&mut self, token: &ClientToken, result: Result<(), Failure>, now: Now) {
        self.weigh(&result, now);
        if self.settle(token, now).is_none() {
            return;
        }
        match result {
            Ok(()) => self.remove(token, now),
            Err(failure) => match failure.kind {
                Kind::NotFound => self.remove(token, now),
                Kind::Refused => self.quarantine(token, Then::Delete, &failure, now),
                Kind::InUse => {
                    self.cloud.polls = 0;
                    self.cloud.kicked = true;
                    self.fail(token, &failure, RETRY, now);
                }
                Kind::Throttled
                | Kind::Unknown
                | Kind::InstanceFull
                | Kind::Quota
                | Kind::SubnetFull
                | Kind::Token
                | Kind::Journal
                | Kind::NoLink
                | Kind::Kernel => self.fail(token, &failure, RETRY, now),
            },
        }
    }

    fn recorded(&mut self, result: Result<(), Failure>, now: Now) {
        let Some((enis, leases)) = self.recording.take() else { return };
        match result {
            Ok(()) => self.record_retry.reset(),
            Err(failure) => {
                tracing::warn!(error = failure.text, "facts not recorded, trying again");
                let seed = self.draw();
                self.record_retry.failed(now.mono, seed, RETRY, failure.named_wait());
                self.dirty_enis.extend(enis);
                self.dirty_leases.extend(leases);
            }
        }
    }

    /// Looking at the world failed.
    pub(super) fn blind(&mut self, failure: &Failure, cloud: bool, now: Now) {
        let seed = self.draw();
        let watch = if cloud { &mut self.cloud } else { &mut self.network };
        if watch.retry.failures == 0 {
            tracing::warn!(error = failure.text, "observation failed, trying again");
        }
        watch.retry.failed(now.mono, seed, RETRY, failure.named_wait());
    }

    pub(super) fn weigh_sighting<T>(&mut self, result: &Result<T, Failure>, now: Now) {
        self.weigh(result, now);
    }

    /// Whether a describe that began then can show what an ENI's last op did.
    pub(super) fn past_lag(eni: &Eni, began_at: Duration) -> bool {
        eni.settled_at + LAG <= began_at
    }
}
