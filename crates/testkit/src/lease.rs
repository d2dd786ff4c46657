//! The ENI manager as the engine sees it: a number of slots, tasks that wait for one in the order they came, leases that outlive
//! both sides, and a manager that gives back what nobody asks for again.

use berth_types::{
    Timestamp,
    eni::{EniSnapshot, SlotFacts, SlotFiles, SlotView},
    ids::{MacAddr, NetnsId, SlotId, TaskArn},
    lease::{LEASE_QUEUE, Lease, LeaseError, LeaseHandle, LeaseNeeds, LeaseRequest},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{mpsc, oneshot, watch};

/// Why a slot is lost.
const LOSS: &str = "its ENI was detached from outside";

type Reply = oneshot::Sender<Result<Lease, LeaseError>>;

#[derive(Debug, Default)]
struct State {
    /// Slots that nobody holds.
    free: BTreeSet<SlotId>,
    held: BTreeMap<TaskArn, SlotId>,
    /// Held before the manager was started again, and not asked for since.
    unclaimed: BTreeMap<TaskArn, SlotId>,
    waiting: VecDeque<(TaskArn, Reply)>,
    lost: BTreeSet<SlotId>,
    refusal: Option<LeaseError>,
    needs: BTreeMap<TaskArn, LeaseNeeds>,
    recovered: bool,
    next: u8,
    /// What is said of slots, once anyone listens.
    published: Option<watch::Sender<Arc<EniSnapshot>>>,
}

/// The manager.
#[derive(Debug, Clone, Default)]
pub struct FakeLeases(Arc<Mutex<State>>);

impl FakeLeases {
    /// A manager with so many warm slots.
    pub fn new(slots: u8) -> Self {
        let leases = Self::default();
        leases.add_slots(slots);
        leases
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// More slots become ready; tasks that wait get them.
    pub fn add_slots(&self, slots: u8) {
        let mut state = self.state();
        for _ in 0..slots {
            let number = state.next;
            state.next += 1;
            if let Ok(slot) = format!("0badcafe-{number:08x}").parse() {
                state.free.insert(slot);
            }
        }
        state.serve();
    }

    /// From now on new leases are refused with this error, and so are those who wait; `None` ends it.
    pub fn set_refusal(&self, refusal: Option<LeaseError>) {
        let mut state = self.state();
        if let Some(error) = &refusal {
            for (_, reply) in std::mem::take(&mut state.waiting) {
                drop(reply.send(Err(error.clone())));
            }
        }
        state.refusal = refusal;
    }

    /// The slot is gone; who asks for it again is told so, and so is everyone who looks at the slots.
    pub fn lose(&self, slot: &SlotId) {
        let mut state = self.state();
        state.lost.insert(slot.clone());
        state.free.remove(slot);
        state.publish();
    }

    /// What the manager says of its slots.
    pub fn slots(&self) -> watch::Receiver<Arc<EniSnapshot>> {
        let mut state = self.state();
        let slots = state.published.get_or_insert_with(|| watch::channel(Arc::default()).0).subscribe();
        state.publish();
        slots
    }

    /// Who holds what.
    pub fn held(&self) -> BTreeMap<TaskArn, SlotId> {
        self.state().held.clone()
    }

    /// Who waits, first come first.
    pub fn waiting(&self) -> Vec<TaskArn> {
        self.state().waiting.iter().map(|(task, _)| task.clone()).collect()
    }

    /// What a task asked of its ENI.
    pub fn needs_of(&self, task: &TaskArn) -> Option<LeaseNeeds> {
        self.state().needs.get(task).cloned()
    }

    /// Whether the engine has said that it asked for all it held.
    pub fn is_recovered(&self) -> bool {
        self.state().recovered
    }

    /// Starts the manager, or starts it again: what was held is kept until the engine says that it has asked for everything.
    /// It ends with the last clone of the handle.
    pub fn connect(&self) -> LeaseHandle {
        let (requests, mut inbox) = mpsc::channel(LEASE_QUEUE);
        {
            let mut state = self.state();
            let held = std::mem::take(&mut state.held);
            state.unclaimed.extend(held);
            state.waiting.clear();
            state.recovered = false;
        }
        let leases = self.clone();
        tokio::spawn(async move {
            while let Some(request) = inbox.recv().await {
                let mut state = leases.state();
                state.take(request);
                state.publish();
            }
        });
        LeaseHandle(requests)
    }
}

impl State {
    fn take(&mut self, request: LeaseRequest) {
        match request {
            LeaseRequest::Lease { task, needs, held, reply } => {
                self.needs.insert(task.clone(), needs);
                self.lease(task, held, reply);
            }
            LeaseRequest::Release { task, reply } => {
                let slot = self.held.remove(&task).or_else(|| self.unclaimed.remove(&task));
                self.free.extend(slot.filter(|s| !self.lost.contains(s)));
                let (gone, waiting) =
                    std::mem::take(&mut self.waiting).into_iter().partition(|(t, _)| *t == task);
                self.waiting = waiting;
                for (_, reply) in Vec::from(gone) {
                    drop(reply.send(Err(LeaseError::Cancelled)));
                }
                self.serve();
                // Whoever asked may be gone.
                reply.send(()).unwrap_or_default();
            }
            LeaseRequest::Recovered => {
                self.recovered = true;
                let unclaimed = std::mem::take(&mut self.unclaimed);
                self.free.extend(unclaimed.into_values().filter(|s| !self.lost.contains(s)));
                self.serve();
            }
        }
    }

    fn lease(&mut self, task: TaskArn, held: Option<SlotId>, reply: Reply) {
        let known = self.held.get(&task).or_else(|| self.unclaimed.get(&task)).cloned();
        let slot = match (held, known) {
            (Some(slot), _) if self.lost.contains(&slot) => {
                return drop(reply.send(Err(LeaseError::Lost { slot, reason: LOSS.to_owned() })));
            }
            (Some(slot), Some(known)) if slot == known => known,
            (Some(slot), None) if self.free.contains(&slot) => slot,
            (Some(slot), _) => {
                let reason = "another task holds it".to_owned();
                return drop(reply.send(Err(LeaseError::Lost { slot, reason })));
            }
            (None, Some(known)) => known,
            (None, None) => {
                if let Some(error) = &self.refusal {
                    return drop(reply.send(Err(error.clone())));
                }
                self.waiting.push_back((task, reply));
                return self.serve();
            }
        };
        self.give(task, slot, reply);
    }

    fn give(&mut self, task: TaskArn, slot: SlotId, reply: Reply) {
        self.free.remove(&slot);
        self.unclaimed.remove(&task);
        let answer = facts(&slot).map(Arc::new).ok_or(LeaseError::Stopped);
        self.held.insert(task, slot);
        // Whoever asked may be gone: the lease stands, because the request does.
        drop(reply.send(answer));
    }

    /// Slots that are leased, as far as anyone here asks about them.
    fn publish(&self) {
        let Some(published) = &self.published else { return };
        let view = |(task, slot): (&TaskArn, &SlotId)| {
            Some(SlotView {
                facts: Arc::new(facts(slot)?),
                task: Some(task.clone()),
                ready_at: Timestamp::UNIX_EPOCH,
                build_micros: 0,
                lost: self.lost.contains(slot).then(|| LOSS.to_owned()),
            })
        };
        let slots = self.held.iter().filter_map(view).collect();
        published.send_replace(Arc::new(EniSnapshot { slots, ..EniSnapshot::default() }));
    }

    fn serve(&mut self) {
        while let (Some(slot), false) = (self.free.first().cloned(), self.waiting.is_empty()) {
            if let Some((task, reply)) = self.waiting.pop_front() {
                self.give(task, slot, reply);
            }
        }
    }
}

/// A slot's facts, all derived from its number.
fn facts(slot: &SlotId) -> Option<SlotFacts> {
    let number = u8::from_str_radix(&slot.as_str()[15..], 16).ok()?;
    let address = Ipv4Addr::new(10, 0, 1, number.wrapping_add(10));
    Some(SlotFacts {
        slot: slot.clone(),
        eni: format!("eni-000000{number:02x}").parse().ok()?,
        attachment: format!("eni-attach-000000{number:02x}").parse().ok()?,
        mac: MacAddr([2, 0, 0, 0, 1, number]),
        subnet: "subnet-00000001".parse().ok()?,
        security_groups: vec!["sg-00000001".parse().ok()?],
        ipv4: vec![address],
        ipv6: Vec::new(),
        subnet_ipv4: "10.0.1.0/24".parse().ok()?,
        subnet_ipv6: None,
        gateway_ipv4: Ipv4Addr::new(10, 0, 1, 1),
        dns_servers: vec![IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2))],
        dns_search: vec!["us-west-2.compute.internal".to_owned()],
        private_dns_name: format!("ip-10-0-1-{}.us-west-2.compute.internal", number.wrapping_add(10)),
        netns: NetnsId { dev: 4, ino: 4_026_530_000 + u64::from(number) },
        netns_path: PathBuf::from(format!("/run/netns/{}", slot.netns_name())),
        files: SlotFiles {
            resolv_conf: PathBuf::from(format!("/run/berth/{slot}/resolv.conf")),
            hosts: PathBuf::from(format!("/run/berth/{slot}/hosts")),
            hostname: PathBuf::from(format!("/run/berth/{slot}/hostname")),
        },
    })
}
