//! The one loop: requests, ends of ops, link changes and timers come in; the state takes them; the plan says what to do; ops are
//! started; a snapshot is published.
//!
//! ```text
//!  LeaseHandle ──mpsc──┐                      ┌──► ops (JoinSet) ──► EC2, kernel, journal ──┐
//!  operators ──mpsc────┤                      │                                             │
//!  links ──watch───────┼─► State ─► plan ─► begin                                           │
//!  timer ──────────────┤     ▲                └──► answers to tasks, watch<EniSnapshot>     │
//!                      └─────┴──────────────────────── events ◄─────────────────────────────┘
//! ```
//!
//! A lease of a warm slot is answered in the turn of the loop that receives it: nothing on that path waits.

use crate::{
    config::EniConfig,
    machine::{Answer, Asked, Event, Now, State},
    ops::Ports,
    plan, view,
};
use berth_types::{
    Timestamp,
    eni::{EniSnapshot, InstanceFacts, LinkTable},
    ids::{SlotId, TaskArn},
    lease::{LEASE_QUEUE, Lease, LeaseError, LeaseHandle, LeaseNeeds, LeaseRequest, ListenerChange},
    ports::{Cloud, Journal, Network},
};
use std::{collections::HashMap, fmt, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

/// Operators' requests that may wait: a few people and scripts.
const CONTROL_QUEUE: usize = 8;
/// Askers that may wait for the same task's slot: the engine asks once, and again after it gave up waiting.
const ASKERS: usize = 8;
/// Rounds of planning in one turn: each round acts on what the last one changed, and an ENI has a dozen stages. More is a bug.
const ROUNDS: usize = 64;
/// Ops that run when the agent goes down may end this long.
const SHUTDOWN: Duration = Duration::from_secs(5);
/// The longest the loop sleeps: askers that went away are noticed this late.
const TICK: Duration = Duration::from_secs(10);

type Reply = oneshot::Sender<Result<Lease, LeaseError>>;

/// What the manager acts through.
pub struct Deps {
    /// EC2.
    pub cloud: Arc<dyn Cloud>,
    /// The kernel.
    pub network: Arc<dyn Network>,
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// To the metadata endpoint.
    pub listeners: mpsc::Sender<ListenerChange>,
    /// The instance, as EC2 and IMDS describe it.
    pub instance: InstanceFacts,
}

impl fmt::Debug for Deps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deps").field("instance", &self.instance).finish_non_exhaustive()
    }
}

enum Control {
    Resize { warm: u32, max: Option<u32> },
    Kick,
}

/// The manager did not take an operator's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Too many requests wait.
    #[error("the ENI manager is busy: {CONTROL_QUEUE} requests of operators wait already")]
    Busy,
    /// The agent is going down.
    #[error("the ENI manager has stopped")]
    Stopped,
}

/// The doors to the manager.
#[derive(Clone)]
pub struct EniHandle {
    /// The engine's door.
    pub lease: LeaseHandle,
    /// What the manager publishes.
    pub snapshot: watch::Receiver<Arc<EniSnapshot>>,
    control: mpsc::Sender<Control>,
}

impl fmt::Debug for EniHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EniHandle").finish_non_exhaustive()
    }
}

impl EniHandle {
    /// Sets how many slots are kept ready and how many ENIs the pool may hold (`None`: what the instance can). Idle slots above
    /// `warm` are given back, whatever was configured before: `resize(0, None)` drains the pool.
    pub fn resize(&self, warm: u32, max: Option<u32>) -> Result<(), ControlError> {
        self.send(Control::Resize { warm, max })
    }

    /// Looks at everything now and forgets what EC2 refused: an operator has just changed something.
    pub fn kick(&self) -> Result<(), ControlError> {
        self.send(Control::Kick)
    }

    fn send(&self, control: Control) -> Result<(), ControlError> {
        self.control.try_send(control).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => ControlError::Busy,
            mpsc::error::TrySendError::Closed(_) => ControlError::Stopped,
        })
    }
}

/// The ENI manager. Owns ENIs, slots and leases.
pub struct EniManager {
    state: State,
    ports: Ports,
    requests: mpsc::Receiver<LeaseRequest>,
    control: mpsc::Receiver<Control>,
    links: watch::Receiver<Arc<LinkTable>>,
    snapshot: watch::Sender<Arc<EniSnapshot>>,
    askers: HashMap<TaskArn, Vec<Reply>>,
    ops: JoinSet<Event>,
    started: Instant,
    wake: Option<Duration>,
    version: u64,
}

impl fmt::Debug for EniManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EniManager").field("enis", &self.state.enis.len()).finish_non_exhaustive()
    }
}

impl EniManager {
    /// A manager that has not looked at anything yet, and the doors to it.
    pub fn new(config: EniConfig, deps: Deps) -> (Self, EniHandle) {
        let Deps { cloud, network, journal, listeners, instance } = deps;
        let (lease, requests) = mpsc::channel(LEASE_QUEUE);
        let (control_tx, control) = mpsc::channel(CONTROL_QUEUE);
        let (snapshot, published) = watch::channel(Arc::default());
        let mut links = network.links();
        let mut state = State::new(config, instance);
        state.links = Arc::clone(&links.borrow_and_update());
        let manager = Self {
            state,
            ports: Ports { cloud, network, journal, listeners },
            requests,
            control,
            links,
            snapshot,
            askers: HashMap::new(),
            ops: JoinSet::new(),
            started: Instant::now(),
            wake: None,
            version: 0,
        };
        let handle = EniHandle { lease: LeaseHandle(lease), snapshot: published, control: control_tx };
        (manager, handle)
    }

    /// Runs until `shutdown`. Slots stay as they are: tasks keep running in them.
    pub async fn run(mut self, shutdown: CancellationToken) {
        self.turn();
        loop {
            let tick = self.now().mono + TICK;
            let wake = self.started + self.wake.map_or(tick, |wake| wake.min(tick));
            // Every arm is cancel safe: receives and joins take nothing before they are ready, the rest are pure waits.
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(request) = self.requests.recv() => self.request(request),
                Some(ended) = self.ops.join_next() => self.ended(ended),
                Some(control) = self.control.recv() => self.control(&control),
                Ok(()) = self.links.changed() => self.linked(),
                () = sleep_until(wake) => self.tick(),
            }
            self.turn();
        }
        self.finish().await;
    }

    fn now(&self) -> Now {
        Now { mono: self.started.elapsed(), wall: Timestamp::now() }
    }

    fn apply(&mut self, event: Event) {
        let now = self.now();
        self.state.apply(event, now);
    }

    fn request(&mut self, request: LeaseRequest) {
        let now = self.now();
        match request {
            LeaseRequest::Lease { task, needs, held, reply } => self.lease(task, &needs, held, reply, now),
            LeaseRequest::Release { task, reply } => {
                self.state.release(&task, now);
                self.publish(now);
                // Nobody need wait for it.
                reply.send(()).ok();
            }
            LeaseRequest::Recovered => self.apply(Event::Recovered),
        }
    }

    fn lease(&mut self, task: TaskArn, needs: &LeaseNeeds, held: Option<SlotId>, reply: Reply, now: Now) {
        let fresh = held.is_none() && !self.state.leases.contains_key(&task);
        match self.state.lease(&task, needs, held, now) {
            Asked::Answer(answer) => {
                // The snapshot comes first: a container that starts on this answer finds its task in the metadata.
                self.publish(now);
                if let Err(Ok(_)) = reply.send(answer)
                    && fresh
                {
                    self.apply(Event::Abandoned(task));
                }
            }
            Asked::Waits => {
                let askers = self.askers.entry(task).or_default();
                askers.retain(|asker| !asker.is_closed());
                if askers.len() < ASKERS {
                    askers.push(reply);
                } else {
                    reply.send(Err(LeaseError::Busy)).ok();
                }
            }
        }
    }

    fn ended(&mut self, ended: Result<Event, tokio::task::JoinError>) {
        match ended {
            Ok(event) => self.apply(event),
            // Release builds abort on a panic; in tests it must not go unseen.
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => tracing::error!(%error, "an op was cancelled"),
            },
        }
    }

    fn control(&mut self, control: &Control) {
        match *control {
            Control::Resize { warm, max } => self.apply(Event::Resized { warm, max_enis: max }),
            Control::Kick => self.apply(Event::Kicked),
        }
    }

    fn linked(&mut self) {
        let links = Arc::clone(&self.links.borrow_and_update());
        self.apply(Event::Links(links));
    }

    /// Waiting tasks whose askers are all gone wait no more.
    fn tick(&mut self) {
        self.askers.retain(|_, askers| {
            askers.retain(|asker| !asker.is_closed());
            !askers.is_empty()
        });
        let gone: Vec<TaskArn> = self
            .state
            .waiters
            .iter()
            .map(|w| &w.task)
            .filter(|task| !self.askers.contains_key(task))
            .cloned()
            .collect();
        for task in gone {
            self.apply(Event::Abandoned(task));
        }
    }

    /// Plans until nothing is left to decide, starts the ops, answers, publishes.
    fn turn(&mut self) {
        let now = self.now();
        for round in 0.. {
            let plan = plan::plan(&self.state, now);
            self.wake = plan.wake;
            if plan.actions.is_empty() {
                break;
            }
            if round == ROUNDS {
                tracing::error!(actions = ?plan.actions, "the plan does not come to rest");
                break;
            }
            for action in plan.actions {
                if let Some(op) = self.state.begin(action, now) {
                    tracing::trace!(?op, "op begins");
                    self.ops.spawn(self.ports.clone().run(op));
                }
            }
        }
        self.publish(now);
        self.answer();
    }

    fn answer(&mut self) {
        for Answer { task, held, result } in std::mem::take(&mut self.state.answers) {
            let given = result.is_ok();
            let mut heard = false;
            for asker in self.askers.remove(&task).unwrap_or_default() {
                heard |= asker.send(result.clone()).is_ok();
            }
            if given && !heard && !held {
                // Whoever asked is gone. If it still wants a slot, it asks again and gets the next one.
                self.apply(Event::Abandoned(task));
            }
        }
    }

    /// Publishes the state, unless nothing has changed in it.
    fn publish(&mut self, now: Now) {
        let fresh = view::snapshot(&self.state, self.version, now);
        if **self.snapshot.borrow() == fresh {
            return;
        }
        self.version += 1;
        self.snapshot.send_replace(Arc::new(EniSnapshot { version: self.version, ..fresh }));
    }

    /// Lets running ops end, so that fewer outcomes are unknown at the next start.
    async fn finish(mut self) {
        let ends = async { while self.ops.join_next().await.is_some() {} };
        if timeout(SHUTDOWN, ends).await.is_err() {
            tracing::info!(ops = self.ops.len(), "ops cut off by shutdown");
        }
    }
}
