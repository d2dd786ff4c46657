//! The state machine: every ENI's stage, every lease, every waiting task, and how events change them.
//!
//! ```text
//!  Creating ─► Created ─► Attaching ─► AwaitingLink ─► Building ─► Ready ─► Leased ─► Draining ─► Cooling
//!                 │                         ▲   │          │                              │          │
//!                 │                         │   │          └──► Held (found at start) ────┘          │
//!                 ▼                         └───┼────────────────────────────────────────────────────┘
//!              Deleting ◄──────────────── Detaching
//! ```
//!
//! Pure: no async, no clock, no I/O. Time comes in as [`Now`]. Events come in through [`State::apply`], requests through
//! [`State::lease`] and [`State::release`]; `plan` reads the state and says what is to be done; [`State::begin`] marks an act as
//! begun and gives the op that does it. Answers to tasks collect in [`State::answers`].

mod begin;
mod eni;
mod event;
mod lease;
mod regroup;
mod results;
mod sight;
mod types;

pub(crate) use eni::{Creating, Eni, Presence, Reply, Side, Stage, Then, spec_of};
pub(crate) use event::{Event, Finished};
pub(crate) use lease::{Asked, Waiter, is_task_tag};
pub(crate) use types::{Answer, Now, Orphan, Past, Refusal, Seat, Slot, Watch};

use crate::{
    backoff::{Budget, Retry},
    config::{EniConfig, TOMBSTONES},
    records::{Course, EniRecord, LeaseRecord},
};
use berth_types::{
    eni::{InstanceFacts, LinkTable},
    ids::{ClientToken, EniId, SlotId, SubnetId, TaskArn},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

/// The whole state.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) config: EniConfig,
    pub(crate) instance: InstanceFacts,
    pub(crate) creating: BTreeMap<ClientToken, Creating>,
    pub(crate) enis: BTreeMap<ClientToken, Eni>,
    pub(crate) leases: BTreeMap<TaskArn, ClientToken>,
    pub(crate) waiters: VecDeque<Waiter>,
    /// Answers to waiting tasks, to be sent by the loop.
    pub(crate) answers: Vec<Answer>,
    pub(crate) orphans: BTreeMap<SlotId, Orphan>,
    pub(crate) links: Arc<LinkTable>,
    /// Device indexes that ENIs of others occupy on this instance.
    pub(crate) foreign: BTreeMap<EniId, u32>,
    pub(crate) loaded: bool,
    pub(crate) loading: Side,
    /// Leases that the journal remembers.
    pub(crate) memory: BTreeMap<TaskArn, LeaseRecord>,
    /// The engine has asked for all that its tasks hold.
    pub(crate) recovered: bool,
    pub(crate) cloud: Watch,
    pub(crate) network: Watch,
    /// Sequence number: counts ended ops.
    pub(crate) seq: u64,
    /// The sequence number when a namespace was last made or removed.
    pub(crate) network_settled: u64,
    pub(crate) dirty_enis: BTreeSet<ClientToken>,
    pub(crate) dirty_leases: BTreeSet<TaskArn>,
    /// What the running record op writes; `None` when none runs.
    pub(crate) recording: Option<(BTreeSet<ClientToken>, BTreeSet<TaskArn>)>,
    pub(crate) record_retry: Retry,
    pub(crate) budget: Budget,
    pub(crate) throttle: Retry,
    /// ENIs in a row that gave no slot.
    pub(crate) fill: Retry,
    pub(crate) fill_reason: Option<String>,
    pub(crate) full_subnets: BTreeMap<SubnetId, Duration>,
    /// Instance or account is full: until when, and what EC2 said.
    pub(crate) blocked: Option<(Duration, String)>,
    pub(crate) refused: Vec<Refusal>,
    /// Kinds that EC2 does not let an ENI be changed to: those are created.
    pub(crate) fixed: Vec<Refusal>,
    pub(crate) tombstones: VecDeque<(EniId, Duration)>,
    pub(crate) leases_total: u64,
    pub(crate) warm_leases_total: u64,
    draws: u64,
}

impl State {
    /// The state before anything is known.
    pub(crate) fn new(config: EniConfig, instance: InstanceFacts) -> Self {
        let config = config.resolved(&instance);
        Self {
            config,
            instance,
            creating: BTreeMap::new(),
            enis: BTreeMap::new(),
            leases: BTreeMap::new(),
            waiters: VecDeque::new(),
            answers: Vec::new(),
            orphans: BTreeMap::new(),
            links: Arc::default(),
            foreign: BTreeMap::new(),
            loaded: false,
            loading: Side::default(),
            memory: BTreeMap::new(),
            recovered: false,
            cloud: Watch::default(),
            network: Watch::default(),
            seq: 0,
            network_settled: 0,
            dirty_enis: BTreeSet::new(),
            dirty_leases: BTreeSet::new(),
            recording: None,
            record_retry: Retry::default(),
            budget: Budget::default(),
            throttle: Retry::default(),
            fill: Retry::default(),
            fill_reason: None,
            full_subnets: BTreeMap::new(),
            blocked: None,
            refused: Vec::new(),
            fixed: Vec::new(),
            tombstones: VecDeque::new(),
            leases_total: 0,
            warm_leases_total: 0,
            draws: 0,
        }
    }

    /// A fresh seed for jitter.
    fn draw(&mut self) -> u64 {
        self.draws += 1;
        self.config.seed.wrapping_mul(0x9e37_79b9).wrapping_add(self.draws << 8)
    }

    /// ENIs that the pool may hold on this instance now: what the type can hold, less the primary and those of others.
    pub(crate) fn capacity(&self) -> u32 {
        let foreign =
            u32::try_from(self.foreign.values().filter(|index| **index != 0).count()).unwrap_or(u32::MAX);
        let own = self.instance.max_enis.saturating_sub(1).saturating_sub(foreign);
        self.config.max_enis.map_or(own, |cap| cap.min(own))
    }

    /// Moves an ENI to another stage.
    fn turn(&mut self, token: &ClientToken, stage: Stage, now: Now) {
        if let Some(eni) = self.enis.get_mut(token) {
            tracing::debug!(eni = %eni.facts.id, from = eni.stage.word(), to = stage.word(), "eni changes stage");
            eni.stage = stage;
            eni.since = now;
            self.dirty_enis.insert(token.clone());
        }
    }

    /// Takes an ENI out of the books.
    fn remove(&mut self, token: &ClientToken, now: Now) {
        let Some(eni) = self.enis.remove(token) else { return };
        tracing::info!(eni = %eni.facts.id, "eni is gone");
        self.dirty_enis.insert(token.clone());
        if self.tombstones.len() == TOMBSTONES {
            self.tombstones.pop_front();
        }
        self.tombstones.push_back((eni.facts.id.clone(), now.mono));
    }

    /// The ENI whose slot this is, from the build to the tear-down.
    pub(crate) fn by_slot(&self, slot: &SlotId) -> Option<(&ClientToken, &Eni)> {
        self.enis.iter().find(|(_, eni)| eni.stage.slot() == Some(slot))
    }

    /// Whether all that was found at start has been taken over.
    pub(crate) fn taken_over(&self) -> bool {
        let past =
            |eni: &Eni| matches!(eni.stage, Stage::Held { .. } | Stage::Building { past: Some(_), .. });
        self.recovered && self.loaded && self.network.seen && !self.enis.values().any(past)
    }

    /// The record of an ENI as it is now; `None` when it is gone.
    fn record(&self, token: &ClientToken) -> Option<EniRecord> {
        if let Some(creating) = self.creating.get(token) {
            return Some(EniRecord {
                request: creating.request.clone(),
                created_at: creating.created_at,
                course: Course::Keep,
                facts: None,
                device_index: None,
                attachment: None,
                slot: None,
                regrouped_at: None,
                task_tags: Vec::new(),
            });
        }
        self.enis.get(token).map(Eni::record)
    }
}
