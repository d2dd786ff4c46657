//! A machine of fakes on which a manager runs, dies and runs again.

use super::witness::Witness;
use crate::{Deps, EniConfig, EniHandle, EniManager};
use berth_testkit::{cloud, cloud::FakeCloud, crash::Crash, journal::FakeJournal, network::FakeNetwork};
use berth_types::{
    eni::{EniFacts, EniPhase, EniSnapshot},
    ids::{SlotId, TaskArn},
    lease::{LISTENER_QUEUE, Lease, LeaseError, LeaseNeeds, ListenerChange},
    ports::{TAG_CLUSTER, TAG_CREATED, TAG_FAMILY, TAG_INSTANCE, TAG_INTENT, TAG_TASK},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Longest wait for a state, in the time of the test.
const PATIENCE: Duration = Duration::from_secs(3600);

pub(super) type Listeners = Arc<Mutex<BTreeMap<SlotId, std::net::TcpListener>>>;

pub(super) struct World {
    pub(super) crash: Arc<Crash>,
    pub(super) cloud: Arc<FakeCloud>,
    pub(super) network: Arc<FakeNetwork>,
    pub(super) journal: Arc<FakeJournal>,
    /// What the witness saw at the cloud port.
    accusations: Arc<Mutex<Vec<String>>>,
    pub(super) config: EniConfig,
    pub(super) max_enis: u32,
}

/// A manager that runs.
pub(super) struct Running {
    pub(super) handle: EniHandle,
    pub(super) listeners: Listeners,
    pub(super) shutdown: CancellationToken,
    manager: JoinHandle<()>,
    endpoint: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.manager.abort();
        self.endpoint.abort();
    }
}

impl World {
    pub(super) fn new(max_enis: u32) -> Self {
        let crash = Arc::new(Crash::default());
        let network = Arc::new(FakeNetwork::new(Arc::clone(&crash)));
        network.set(|knobs| knobs.build_delay = Duration::from_millis(30));
        let instance = cloud::instance(max_enis);
        let cloud = Arc::new(FakeCloud::new(instance, Arc::clone(&network), Arc::clone(&crash)));
        let journal = Arc::new(FakeJournal::new(Arc::clone(&crash)));
        Self {
            crash,
            cloud,
            network,
            journal,
            accusations: Arc::default(),
            config: EniConfig::default(),
            max_enis,
        }
    }

    /// Starts a manager; the engine has nothing to ask for.
    pub(super) async fn start(&self) -> Running {
        let running = self.boot();
        running.handle.lease.recovered().await.unwrap();
        running
    }

    /// Starts a manager whose engine has not said yet what its tasks hold.
    pub(super) fn boot(&self) -> Running {
        let (changes, receiver) = mpsc::channel(LISTENER_QUEUE);
        let deps = Deps {
            cloud: Arc::new(self.witness()),
            network: Arc::clone(&self.network) as _,
            journal: Arc::clone(&self.journal) as _,
            listeners: changes,
            instance: cloud::instance(self.max_enis),
        };
        let (manager, handle) = EniManager::new(self.config.clone(), deps);
        let shutdown = CancellationToken::new();
        let listeners = Listeners::default();
        let endpoint = tokio::spawn(serve(receiver, Arc::clone(&listeners)));
        let manager = tokio::spawn(manager.run(shutdown.clone()));
        Running { handle, listeners, shutdown, manager, endpoint }
    }

    fn witness(&self) -> Witness {
        let (cloud, journal) = (Arc::clone(&self.cloud), Arc::clone(&self.journal));
        Witness { cloud, journal, accusations: Arc::clone(&self.accusations) }
    }

    /// Rules that hold at every moment.
    pub(super) fn check_always(&self) {
        assert_eq!(self.cloud.violations(), Vec::<String>::new());
        assert_eq!(*self.accusations.lock().unwrap(), Vec::<String>::new());
        assert!(self.cloud.most_attached() <= self.max_enis as usize);
    }

    /// ENIs with our tags, whatever became of them.
    pub(super) fn ours(&self) -> Vec<EniFacts> {
        self.cloud.truth().into_iter().filter(|eni| eni.tags.contains_key(TAG_INSTANCE)).collect()
    }

    /// The tags of an ENI that a former program made.
    pub(super) fn tags(&self, intent: &str) -> BTreeMap<String, String> {
        let instance = cloud::instance(self.max_enis).instance_id;
        [
            (TAG_INSTANCE, instance.as_str()),
            (TAG_CLUSTER, "default"),
            (TAG_INTENT, intent),
            (TAG_CREATED, "1700000000000"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    /// What must hold at rest: books, EC2 and kernel agree, nothing is left over, nothing is there twice.
    pub(super) fn check(&self, snapshot: &EniSnapshot, wanted_slots: usize) {
        self.check_always();
        let ours = self.ours();
        let known: BTreeSet<_> = snapshot.enis.iter().filter_map(|eni| eni.id.clone()).collect();
        let real: BTreeSet<_> = ours.iter().map(|eni| eni.id.clone()).collect();
        assert_eq!(known, real, "books and EC2 differ: {snapshot:#?}");
        for eni in &ours {
            let attachment =
                eni.attachment.as_ref().unwrap_or_else(|| panic!("{} is attached to nothing", eni.id));
            assert!(attachment.delete_on_termination, "{} outlives the instance", eni.id);
        }
        let kernel = self.network.facts();
        let spaces: BTreeSet<_> = kernel.slots.iter().map(|slot| slot.slot.clone()).collect();
        let slots: BTreeSet<_> = snapshot.slots.iter().map(|slot| slot.facts.slot.clone()).collect();
        assert_eq!(spaces, slots, "books and kernel differ: {snapshot:#?}");
        assert_eq!(slots.len(), wanted_slots, "{snapshot:#?}");
        let macs: Vec<_> =
            kernel.slots.iter().flat_map(|slot| slot.links.iter().map(|link| link.mac)).collect();
        assert_eq!(macs.len(), macs.iter().collect::<BTreeSet<_>>().len(), "a MAC is in two namespaces");
        let tasks: Vec<_> = snapshot.slots.iter().filter_map(|slot| slot.task.clone()).collect();
        assert_eq!(tasks.len(), tasks.iter().collect::<BTreeSet<_>>().len(), "a task has two slots");
        for slot in &snapshot.slots {
            let eni = ours.iter().find(|eni| eni.id == slot.facts.eni).unwrap();
            assert_eq!(
                eni.tags.get(TAG_TASK).cloned(),
                slot.task.as_ref().map(ToString::to_string),
                "{}",
                eni.id
            );
            assert_eq!(eni.tags.contains_key(TAG_FAMILY), slot.task.is_some(), "{}", eni.id);
        }
    }
}

/// The metadata endpoint: keeps listeners until it is told to close them.
async fn serve(mut changes: mpsc::Receiver<ListenerChange>, listeners: Listeners) {
    while let Some(change) = changes.recv().await {
        match change {
            ListenerChange::Open { slot, listener } => drop(listeners.lock().unwrap().insert(slot, listener)),
            ListenerChange::Close { slot, done } => {
                listeners.lock().unwrap().remove(&slot);
                done.send(()).ok();
            }
        }
    }
}

impl Running {
    /// Waits until the snapshot says so.
    pub(super) async fn until(
        &self,
        what: &str,
        condition: impl Fn(&EniSnapshot) -> bool,
    ) -> Arc<EniSnapshot> {
        let mut snapshot = self.handle.snapshot.clone();
        let found = tokio::time::timeout(PATIENCE, snapshot.wait_for(|s| condition(s))).await;
        match found {
            Ok(Ok(found)) => Arc::clone(&found),
            Ok(Err(_)) => panic!("the manager ended while {what} was awaited"),
            Err(_) => panic!("{what} did not come: {:#?}", self.handle.snapshot.borrow()),
        }
    }

    /// Waits until so many slots are warm, so many leased, and nothing is on its way.
    pub(super) async fn rest(&self, warm: u32, leased: u32) -> Arc<EniSnapshot> {
        self.until(&format!("rest with {warm} warm and {leased} leased"), |s| {
            let pool = &s.pool;
            let still = pool.filling + pool.recycling + pool.removing == 0 && pool.waiting.is_empty();
            s.recovered && still && pool.warm == warm && pool.leased == leased
        })
        .await;
        // Tags, labels and records follow behind: two audits later they are done.
        tokio::time::sleep(Duration::from_secs(130)).await;
        let snapshot = Arc::clone(&self.handle.snapshot.borrow());
        assert_eq!((snapshot.pool.warm, snapshot.pool.leased), (warm, leased), "{snapshot:#?}");
        snapshot
    }

    pub(super) async fn lease(&self, task: &TaskArn) -> Result<Lease, LeaseError> {
        self.handle.lease.lease(task, needs(), None).await
    }

    pub(super) async fn held(&self, task: &TaskArn, slot: &SlotId) -> Result<Lease, LeaseError> {
        self.handle.lease.lease(task, needs(), Some(slot.clone())).await
    }

    pub(super) async fn release(&self, task: &TaskArn) {
        self.handle.lease.release(task).await.unwrap();
    }

    /// A lease that waits in a task of its own.
    pub(super) fn asks(&self, task: &TaskArn, needs: LeaseNeeds) -> JoinHandle<Result<Lease, LeaseError>> {
        let (door, task) = (self.handle.lease.clone(), task.clone());
        tokio::spawn(async move { door.lease(&task, needs, None).await })
    }

    /// Waits until the task waits for this reason.
    pub(super) async fn reason(&self, words: &str) -> String {
        let has = |s: &EniSnapshot| {
            s.pool.waiting.iter().find(|w| w.reason.contains(words)).map(|w| w.reason.clone())
        };
        let snapshot = self.until(&format!("the reason `{words}`"), |s| has(s).is_some()).await;
        has(&snapshot).unwrap()
    }
}

pub(super) fn task(number: u32) -> TaskArn {
    format!("arn:aws:ecs:us-west-2:111122223333:task/demo/{number:032x}").parse().unwrap()
}

pub(super) fn needs() -> LeaseNeeds {
    let tags = BTreeMap::from([(TAG_FAMILY.to_owned(), "web".to_owned())]);
    LeaseNeeds { tags, ..LeaseNeeds::default() }
}

/// How many ENIs are in a phase.
pub(super) fn in_phase(snapshot: &EniSnapshot, phase: EniPhase) -> usize {
    snapshot.enis.iter().filter(|eni| eni.phase == phase).count()
}
