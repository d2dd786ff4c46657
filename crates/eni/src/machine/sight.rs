//! What EC2 and the kernel show, taken into the state.
//!
//! A sighting is believed only for what has not changed since the look began, and an absence only when it is seen twice with
//! [`LAG`] in between: EC2's describes lag by seconds, and nothing is given up for one of them.

use super::{Eni, Now, Orphan, Presence, Reply, Seat, Side, Stage, State, is_task_tag};
use crate::{
    config::{LAG, TOMBSTONE},
    failure::Failure,
    recover,
};
use berth_types::{
    eni::{AttachmentStatus, EniFacts, NetworkFacts},
    ids::{ClientToken, EniId, InstanceId, MacAddr, SlotId},
    ports::{TAG_INSTANCE, TAG_INTENT},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// Where EC2 shows an ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Attached to nothing.
    Free,
    /// On this instance.
    Here { seat: Seat, status: AttachmentStatus },
    /// On another instance, or a service's.
    Elsewhere,
}

/// Where EC2 shows this ENI.
pub(crate) fn place(facts: &EniFacts, instance: &InstanceId) -> Place {
    match &facts.attachment {
        None => Place::Free,
        Some(a) if a.status == AttachmentStatus::Detached => Place::Free,
        Some(a) if a.instance.as_ref() == Some(instance) => {
            Place::Here { seat: Seat { index: a.device_index, attachment: a.id.clone() }, status: a.status }
        }
        Some(_) => Place::Elsewhere,
    }
}

/// The stage of an ENI that is seen at a place for the first time, or anew after it was lost.
pub(crate) fn stage_at(place: &Place) -> Option<Stage> {
    match place {
        Place::Free => Some(Stage::Created),
        Place::Here { seat, status } => Some(match status {
            AttachmentStatus::Attaching => Stage::Attaching { index: seat.index, reply: Reply::Taken },
            AttachmentStatus::Attached => Stage::AwaitingLink { seat: seat.clone() },
            AttachmentStatus::Detaching | AttachmentStatus::Detached => {
                Stage::Detaching { seat: seat.clone(), asked: true }
            }
        }),
        Place::Elsewhere => None,
    }
}

impl State {
    /// Whether an ENI is one of our pool: made by this instance's agent, not a service's, not the primary.
    fn is_ours(&self, facts: &EniFacts) -> bool {
        facts.tags.get(TAG_INSTANCE).map(String::as_str) == Some(self.instance.instance_id.as_str())
            && !facts.requester_managed
            && facts.mac != self.instance.primary_mac
            && facts.attachment.as_ref().is_none_or(|a| a.device_index != 0)
    }

    pub(super) fn cloud_seen(&mut self, began: u64, result: Result<Vec<EniFacts>, Failure>, now: Now) {
        self.weigh_sighting(&result, now);
        self.cloud.busy = false;
        self.cloud.ended_at = now.mono;
        let seen = match result {
            Ok(seen) => seen,
            Err(failure) => return self.blind(&failure, true, now),
        };
        self.cloud.retry.reset();
        self.tombstones.retain(|(_, at)| *at + TOMBSTONE > now.mono);
        let (ours, others): (Vec<_>, Vec<_>) = seen.into_iter().partition(|facts| self.is_ours(facts));
        let here = |facts: &EniFacts| match place(facts, &self.instance.instance_id) {
            Place::Here { seat, .. } => Some((facts.id.clone(), seat.index)),
            Place::Free | Place::Elsewhere => None,
        };
        self.foreign = others.iter().filter_map(here).collect();
        let mut ours: BTreeMap<EniId, EniFacts> =
            ours.into_iter().map(|facts| (facts.id.clone(), facts)).collect();
        let began_at = self.cloud.began_at;
        for token in self.enis.keys().cloned().collect::<Vec<_>>() {
            let Some(eni) = self.enis.get_mut(&token) else { continue };
            let facts = ours.remove(&eni.facts.id);
            if eni.busy || eni.settled > began {
                continue;
            }
            match facts {
                Some(facts) => {
                    eni.see_tags(&facts, began);
                    self.seen(&token, facts, began_at, now);
                }
                None if now.mono >= eni.young_until => self.doubt(&token, Presence::Gone, now),
                None => {}
            }
        }
        for facts in ours.into_values() {
            self.unknown(facts, now);
        }
        self.cloud.answered(now);
        recover::match_orphans(self, now);
    }

    /// An ENI with our tags that is not in the books: a create whose answer was lost, or all of it after the journal was.
    fn unknown(&mut self, facts: EniFacts, now: Now) {
        if self.tombstones.iter().any(|(id, _)| *id == facts.id) {
            return;
        }
        let tag = facts.tags.get(TAG_INTENT).and_then(|tag| tag.parse::<ClientToken>().ok());
        if let Some(token) = &tag
            && let Some(creating) = self.creating.get(token)
        {
            if !creating.busy
                && let Some(creating) = self.creating.remove(token)
            {
                self.exists(token, creating, facts, now);
            }
            return;
        }
        let Some(stage) = stage_at(&place(&facts, &self.instance.instance_id)) else { return };
        // A tag that names another ENI's intent was copied by someone: the id is as good a key.
        let token =
            tag.filter(|token| !self.enis.contains_key(token)).or_else(|| facts.id.as_str().parse().ok());
        let Some(token) = token.filter(|token| !self.enis.contains_key(token)) else { return };
        tracing::info!(eni = %facts.id, stage = stage.word(), "eni with our tags taken over");
        let eni = recover::adopted(&token, facts, stage, now);
        self.enis.insert(token.clone(), eni);
        self.dirty_enis.insert(token);
    }

    /// EC2 shows an ENI of ours.
    fn seen(&mut self, token: &ClientToken, facts: EniFacts, began_at: Duration, now: Now) {
        let place = place(&facts, &self.instance.instance_id);
        let Some(eni) = self.enis.get_mut(token) else { return };
        eni.sightings = eni.sightings.saturating_add(1);
        eni.flagged = facts.attachment.as_ref().is_some_and(|a| a.delete_on_termination);
        eni.see_groups(&facts, began_at);
        if *eni.facts != facts {
            eni.facts = Arc::new(facts);
            self.dirty_enis.insert(token.clone());
        }
        match &eni.stage {
            Stage::Created => match &place {
                Place::Free => eni.missing = None,
                Place::Here { .. } => self.place_anew(token, &place, now),
                Place::Elsewhere => self.forget(token, now),
            },
            Stage::Attaching { index, reply } => match &place {
                Place::Free if Self::past_lag(eni, began_at) => {
                    tracing::warn!(eni = %eni.facts.id, index, reply = ?reply, "attach had no effect");
                    self.turn(token, Stage::Created, now);
                }
                Place::Free => {}
                Place::Here { status: AttachmentStatus::Attaching, seat } if seat.index == *index => {
                    let index = *index;
                    if *reply != Reply::Taken {
                        self.turn(token, Stage::Attaching { index, reply: Reply::Taken }, now);
                    }
                }
                Place::Here { .. } => self.place_anew(token, &place, now),
                Place::Elsewhere => self.forget(token, now),
            },
            Stage::Detaching { seat, asked } => match &place {
                Place::Free => self.turn(token, Stage::Deleting, now),
                Place::Here { status: AttachmentStatus::Attached | AttachmentStatus::Attaching, .. }
                    if *asked && Self::past_lag(eni, began_at) =>
                {
                    let seat = seat.clone();
                    self.turn(token, Stage::Detaching { seat, asked: false }, now);
                }
                Place::Here { status: AttachmentStatus::Detaching | AttachmentStatus::Detached, .. }
                    if !*asked =>
                {
                    let seat = seat.clone();
                    self.turn(token, Stage::Detaching { seat, asked: true }, now);
                }
                Place::Here { .. } => {}
                Place::Elsewhere => self.forget(token, now),
            },
            Stage::Deleting => match place {
                Place::Free => {}
                Place::Here { seat, .. } => self.turn(token, Stage::Detaching { seat, asked: false }, now),
                Place::Elsewhere => self.forget(token, now),
            },
            Stage::Quarantined { .. } => {}
            Stage::AwaitingLink { .. }
            | Stage::Building { .. }
            | Stage::Held { .. }
            | Stage::Ready { .. }
            | Stage::Leased { .. }
            | Stage::Draining { .. }
            | Stage::Cooling { .. } => self.seen_seated(token, place, now),
        }
    }

    /// EC2 shows an ENI that should be attached.
    fn seen_seated(&mut self, token: &ClientToken, place: Place, now: Now) {
        match place {
            Place::Here { seat, status: AttachmentStatus::Attached | AttachmentStatus::Attaching } => {
                let Some(eni) = self.enis.get_mut(token) else { return };
                (eni.missing, eni.presence) = (None, Presence::Normal);
                if let Some(known) = eni.stage.seat_mut().filter(|known| **known != seat) {
                    *known = seat;
                    self.dirty_enis.insert(token.clone());
                }
            }
            Place::Here { status: AttachmentStatus::Detaching | AttachmentStatus::Detached, .. }
            | Place::Free
            | Place::Elsewhere => self.doubt(token, Presence::Detached, now),
        }
    }

    /// The stage that goes with where it is seen now.
    fn place_anew(&mut self, token: &ClientToken, place: &Place, now: Now) {
        let Some(stage) = stage_at(place) else { return };
        if let Some(eni) = self.enis.get_mut(token) {
            eni.missing = None;
            eni.retry.reset();
            eni.error = None;
        }
        self.turn(token, stage, now);
    }

    /// It is another instance's now: not ours to touch.
    fn forget(&mut self, token: &ClientToken, now: Now) {
        if let Some(eni) = self.enis.get(token) {
            tracing::warn!(eni = %eni.facts.id, "eni was attached to another instance and is no longer ours");
        }
        self.remove(token, now);
    }

    /// EC2 does not show an ENI where it should be. The second time, [`LAG`] later, it is believed.
    fn doubt(&mut self, token: &ClientToken, presence: Presence, now: Now) {
        let Some(eni) = self.enis.get_mut(token) else { return };
        let since = *eni.missing.get_or_insert(now.mono);
        // Even one that is being deleted: it may be younger than what a lagging describe shows.
        let sure = now.mono >= since + LAG;
        if !sure || eni.presence == presence {
            return;
        }
        eni.presence = presence;
        let reason = match presence {
            Presence::Gone => format!("{} was deleted from outside", eni.facts.id),
            Presence::Detached | Presence::Normal => format!("{} was detached from outside", eni.facts.id),
        };
        self.lost(token, reason, now);
    }

    /// An ENI is not where it should be any more.
    fn lost(&mut self, token: &ClientToken, reason: String, now: Now) {
        let Some(eni) = self.enis.get_mut(token) else { return };
        let presence = eni.presence;
        tracing::warn!(eni = %eni.facts.id, stage = eni.stage.word(), reason, "eni lost");
        eni.error = Some(reason.clone());
        match &mut eni.stage {
            Stage::Leased { lost, .. } | Stage::Held { lost, .. } => {
                *lost = Some(reason);
            }
            // Its past is unknown: it goes once the engine has asked for what its tasks hold.
            Stage::Building { past: Some(_), .. } | Stage::Draining { .. } => {}
            Stage::Building { past: None, .. } | Stage::Ready { .. } => self.drain(token, false, now),
            Stage::AwaitingLink { .. } | Stage::Cooling { .. } if presence == Presence::Detached => {
                (eni.presence, eni.missing) = (Presence::Normal, None);
                self.turn(token, Stage::Created, now);
            }
            Stage::AwaitingLink { .. }
            | Stage::Cooling { .. }
            | Stage::Created
            | Stage::Attaching { .. }
            | Stage::Detaching { .. }
            | Stage::Deleting
            | Stage::Quarantined { .. } => self.remove(token, now),
        }
    }

    pub(super) fn network_seen(&mut self, began: u64, result: Result<NetworkFacts, Failure>, now: Now) {
        self.network.busy = false;
        self.network.ended_at = now.mono;
        let facts = match result {
            Ok(facts) => facts,
            Err(failure) => return self.blind(&failure, false, now),
        };
        self.network.retry.reset();
        if self.network_settled > began {
            // A namespace was made or removed while we looked: what we saw is neither before nor after. The next audit looks
            // again; before the first look nothing is made, so it is never lost here.
            return;
        }
        self.links = Arc::new(facts.links);
        let slots: BTreeMap<SlotId, _> =
            facts.slots.into_iter().map(|slot| (slot.slot.clone(), slot)).collect();
        for token in self.enis.keys().cloned().collect::<Vec<_>>() {
            let Some(eni) = self.enis.get(&token).filter(|eni| !eni.busy) else { continue };
            let Some(kept) = eni.stage.finished().map(|slot| &slot.facts) else { continue };
            let reason = match slots.get(&kept.slot) {
                None => "its namespace was removed",
                Some(seen) if seen.netns != Some(kept.netns) => "its namespace was replaced",
                Some(seen) if !seen.links.iter().any(|link| link.mac == kept.mac) => {
                    "its link left the namespace"
                }
                Some(_) => continue,
            };
            if eni.stage.loss().is_none() {
                let reason = format!("slot {}: {reason}", kept.slot);
                self.lost(&token, reason, now);
            }
        }
        let referenced: BTreeSet<SlotId> =
            self.enis.values().filter_map(|eni| eni.stage.slot().cloned()).collect();
        let mut before = std::mem::take(&mut self.orphans);
        for (slot, seen) in slots.into_iter().filter(|(slot, _)| !referenced.contains(slot)) {
            let old = before.remove(&slot);
            let (sightings, side) = old.map_or((0, Side::default()), |old| (old.sightings, old.side));
            let orphan = Orphan { netns: seen.netns, links: seen.links, sightings: sightings + 1, side };
            self.orphans.insert(slot, orphan);
        }
        // One that is being torn down right now may not show any more, and its op still reports.
        self.orphans.extend(before.into_iter().filter(|(_, orphan)| orphan.side.busy));
        self.network.answered(now);
        recover::match_orphans(self, now);
    }

    /// The slot that holds the link of an ENI, among those that belong to nobody yet.
    pub(crate) fn orphan_with(&self, mac: MacAddr) -> Option<SlotId> {
        let holds = |orphan: &Orphan| {
            orphan.netns.is_some() && !orphan.side.busy && orphan.links.iter().any(|link| link.mac == mac)
        };
        self.orphans.iter().find(|(_, orphan)| holds(orphan)).map(|(slot, _)| slot.clone())
    }
}

impl Eni {
    /// Task tags are what EC2 shows, not what we remember: the record of a tag that was set may have been lost.
    fn see_tags(&mut self, facts: &EniFacts, began: u64) {
        if self.tag.busy || self.tag.settled > began {
            return;
        }
        let ours = |key: &String| is_task_tag(key) || self.tagged.contains_key(key);
        let shown =
            facts.tags.iter().filter(|(key, _)| ours(key)).map(|(key, value)| (key.clone(), value.clone()));
        self.tagged = shown.collect();
    }
}
