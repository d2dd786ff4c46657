//! The simulated VPC: what EC2 would know, as one owned value with EC2's rules.
//!
//! The world is pure: no I/O, no clock (`now` comes in), no randomness but that of its seed. It is asked by three neighbours:
//!
//! ```text
//!  ec2/ (API calls) ──► create, attach, detach, ... ──► State ◄── links(now): which links should be where ── links.rs (fabric)
//!                   ──► read(now)  (perhaps stale)        ▲
//!  imds/ ───────────────► imds_instance(now) ─────────────┘
//! ```
//!
//! A simulator has callers on many connections and no planner of its own, so it lies behind one mutex ([`crate::serve`]) that is
//! never held across an await. What the fabric has to do is not an effect of a call but a question, [`World::links`]: the
//! caller compares the answer with what it has plugged, so a lost wake-up or a failed step is made good by asking again.

mod addresses;
mod attach;
mod filter;
pub mod groups;
pub mod ids;
mod imds;
pub use imds::AMI;
pub use tags::resource_type;
mod interfaces;
mod links;
mod private_ips;
pub mod refusal;
pub mod rules;
mod start;
pub mod state;
mod tags;
#[cfg(test)]
mod tests;
pub mod types;

pub use addresses::MAX_ADDRESSES;
pub use interfaces::{Change, CreateEni, MAX_ENIS};
pub use links::{LinkView, WantedLink};
pub use start::StartError;

use crate::config::{Delays, derive_id};
use ids::{EniId, SubnetId};
use interfaces::Token;
use jiff::Timestamp;
use refusal::Refusal;
use state::{Eni, State};
use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

/// Old states that are kept for stale reads. A state is kept per change; a read lag of seconds under a busy agent sees tens of
/// changes, and past this number reads are less stale than asked for, nothing worse.
const MAX_HISTORY: usize = 1024;

/// The simulated VPC.
#[derive(Debug)]
pub struct World {
    state: State,
    delays: Delays,
    /// How far reads lie behind.
    read_lag: Duration,
    /// How many of the next attachments never show a link.
    links_never: u32,
    seed: String,
    serial: u64,
    /// Where the search for a free address goes on.
    cursors: BTreeMap<SubnetId, u32>,
    /// What was created with which client token.
    tokens: BTreeMap<String, Token>,
    /// States as they were, oldest first; empty unless reads lag.
    history: VecDeque<(Timestamp, State)>,
}

impl World {
    /// The state as a describe call sees it: as it is, or as it was `read_lag` ago.
    pub fn read(&mut self, now: Timestamp) -> Cow<'_, State> {
        self.state.settle(now);
        if self.read_lag.is_zero() {
            return Cow::Borrowed(&self.state);
        }
        let then = now - self.read_lag;
        let old = self.history.iter().rev().find(|(at, _)| *at <= then).or_else(|| self.history.front());
        let Some((at, state)) = old else { return Cow::Borrowed(&self.state) };
        let mut state = state.clone();
        state.settle(then.max(*at));
        Cow::Owned(state)
    }

    /// The state as it is, for operators.
    pub fn current(&mut self, now: Timestamp) -> &State {
        self.state.settle(now);
        &self.state
    }

    /// How long attaching, detaching and links take.
    pub fn delays(&self) -> Delays {
        self.delays
    }

    /// Sets how long attaching, detaching and links take from now on; what is under way keeps its times.
    pub fn set_delays(&mut self, delays: Delays) {
        self.delays = delays;
    }

    /// How far reads lie behind.
    pub fn read_lag(&self) -> Duration {
        self.read_lag
    }

    /// Makes reads lie behind by this much.
    pub fn set_read_lag(&mut self, lag: Duration, now: Timestamp) {
        self.read_lag = lag;
        self.history.clear();
        self.record(now);
    }

    /// How many of the next attachments will never show a link.
    pub fn links_never(&self) -> u32 {
        self.links_never
    }

    /// Makes the links of the next attachments never show up.
    pub fn set_links_never(&mut self, attachments: u32) {
        self.links_never = attachments;
    }

    /// Keeps the state for stale reads. Called after every change.
    fn record(&mut self, now: Timestamp) {
        if self.read_lag.is_zero() {
            return;
        }
        let then = now - self.read_lag;
        // The newest state that is old enough answers reads; those before it never will again.
        while self.history.get(1).is_some_and(|(at, _)| *at <= then) || self.history.len() >= MAX_HISTORY {
            self.history.pop_front();
        }
        self.history.push_back((now, self.state.clone()));
    }

    /// An ENI for a call that changes it. One younger than the read lag is not found yet: EC2's own trap after a create.
    fn visible(&self, id: &EniId, now: Timestamp) -> Result<&Arc<Eni>, Refusal> {
        self.state
            .enis
            .get(id)
            .filter(|e| e.created + self.read_lag <= now || e.attachment.is_some())
            .ok_or_else(|| id.not_found())
    }

    /// The ENI to change, which the caller has found before.
    fn eni_mut(&mut self, id: &EniId) -> Result<&mut Eni, Refusal> {
        self.state.enis.get_mut(id).map(Arc::make_mut).ok_or_else(|| id.not_found())
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// A fresh id. It follows from the seed, which differs at every start: an agent's journal of an earlier world must not find
    /// its ids again.
    fn fresh_id(&mut self, kind: &str) -> String {
        let serial = self.next_serial().to_string();
        derive_id(kind, &[&self.seed, &serial])
    }
}
