//! A container runtime in memory with the rules of the real one: nothing starts that was not made, what exists is left as it is,
//! a dead runtime answers nothing and forgets to send its events, and containers outlive whoever watches them.
//!
//! What a container does is in its command, as with a real one: `exit N`, `oom`, `stubborn` (ignores the stop signal), `immortal`
//! (ignores SIGKILL as well), `refuse-create`, `refuse-start`; everything else runs until it is told to stop.

use crate::crash::Crash;
use async_trait::async_trait;
use berth_types::{
    Timestamp,
    ids::{ContainerId, TaskArn},
    ports::{
        CONTAINER_EVENT_QUEUE, ContainerError, ContainerErrorKind, ContainerEvent, Containers,
        CreateContainer, ImageFacts, ObservedContainer, RuntimeState, Signal,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{mpsc, watch};

/// 2026-01-01T00:00:00Z: when fake time begins.
const EPOCH: i64 = 1_767_225_600;

/// The time of day that goes with tokio's clock, so that pausing the one pauses the other.
pub fn clock() -> Timestamp {
    static FIRST: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
    let first = *FIRST;
    let passed = tokio::time::Instant::now().into_std().saturating_duration_since(first);
    let epoch = Timestamp::from_second(EPOCH).unwrap_or(Timestamp::UNIX_EPOCH);
    epoch.checked_add(jiff::SignedDuration::try_from(passed).unwrap_or_default()).unwrap_or(epoch)
}

/// How often what was called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContainerCalls {
    /// [`Containers::image`].
    pub image: u64,
    /// [`Containers::create`].
    pub create: u64,
    /// [`Containers::start`].
    pub start: u64,
    /// [`Containers::signal`].
    pub signal: u64,
    /// [`Containers::remove`].
    pub remove: u64,
    /// [`Containers::list`].
    pub list: u64,
    /// [`Containers::remove_task`].
    pub remove_task: u64,
}

#[derive(Debug)]
struct Made {
    request: CreateContainer,
    state: RuntimeState,
    signals: Vec<Signal>,
}

#[derive(Debug, Default)]
struct State {
    images: BTreeSet<String>,
    /// Images whose registry refuses.
    refused: BTreeMap<String, ContainerErrorKind>,
    made: BTreeMap<ContainerId, Made>,
    /// Containers whose process was ever started: none may be started again.
    ran: BTreeSet<ContainerId>,
    /// In the order of their starts.
    started: Vec<String>,
    stopped: Vec<String>,
    down: bool,
    deaf: bool,
    /// Containers that nothing can be said of.
    silent: BTreeSet<ContainerId>,
    latency: Duration,
    events: Option<mpsc::Sender<ContainerEvent>>,
    calls: ContainerCalls,
    next_pid: u32,
    violations: Vec<String>,
}

/// The runtime.
#[derive(Debug)]
pub struct FakeContainers {
    state: Mutex<State>,
    /// Images whose registry says nothing.
    stalled: watch::Sender<BTreeSet<String>>,
    crash: Arc<Crash>,
}

impl FakeContainers {
    /// A runtime that holds the image `busybox` and dies with the others of this crash point.
    pub fn new(crash: Arc<Crash>) -> Self {
        let state =
            State { images: BTreeSet::from(["busybox".to_owned()]), next_pid: 100, ..State::default() };
        Self { state: Mutex::new(state), stalled: watch::Sender::default(), crash }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings an image in, or takes it away.
    pub fn set_image(&self, reference: &str, here: bool) {
        let mut state = self.state();
        if here {
            state.images.insert(reference.to_owned());
        } else {
            state.images.remove(reference);
        }
    }

    /// While true, bringing this image takes for ever.
    pub fn set_stalled(&self, reference: &str, stalled: bool) {
        self.stalled.send_modify(|all| {
            if stalled {
                all.insert(reference.to_owned());
            } else {
                all.remove(reference);
            }
        });
    }

    /// From now on the image's registry answers this.
    pub fn refuse_image(&self, reference: &str, kind: ContainerErrorKind) {
        self.state().refused.insert(reference.to_owned(), kind);
    }

    /// Stops or starts the runtime itself; containers do not notice.
    pub fn set_down(&self, down: bool) {
        let mut state = self.state();
        if state.down != down {
            state.down = down;
            let event = if down { ContainerEvent::Disconnected } else { ContainerEvent::Resync };
            state.send(event);
        }
    }

    /// While true, events are lost without anyone noticing.
    pub fn set_deaf(&self, deaf: bool) {
        self.state().deaf = deaf;
    }

    /// Whether what looks after the container answers.
    pub fn set_silent(&self, id: &ContainerId, silent: bool) {
        let mut state = self.state();
        if silent {
            state.silent.insert(id.clone());
        } else {
            state.silent.remove(id);
        }
    }

    /// How long every call takes.
    pub fn set_latency(&self, latency: Duration) {
        self.state().latency = latency;
    }

    /// A container's process ends by itself. Answers whether it ran.
    pub fn exit(&self, id: &ContainerId, code: u32) -> bool {
        self.state().exit(id, code, false)
    }

    /// Someone removed the container behind the agent's back.
    pub fn vanish(&self, id: &ContainerId) {
        self.state().made.remove(id);
    }

    /// The machine was started again: containers are there, processes are not.
    pub fn reboot(&self) {
        for made in self.state().made.values_mut() {
            if let RuntimeState::Running { .. } = made.state {
                made.state = RuntimeState::Created;
            }
        }
    }

    /// Spoils the record that a container carries.
    pub fn spoil_record(&self, id: &ContainerId) {
        if let Some(made) = self.state().made.get_mut(id) {
            made.request.record = b"not a record".to_vec();
        }
    }

    /// What a container is doing; `None` when there is no such container.
    pub fn state_of(&self, id: &ContainerId) -> Option<RuntimeState> {
        self.state().made.get(id).map(|m| m.state.clone())
    }

    /// What a container was made of.
    pub fn request_of(&self, id: &ContainerId) -> Option<CreateContainer> {
        self.state().made.get(id).map(|m| m.request.clone())
    }

    /// Signals that a container was sent.
    pub fn signals_of(&self, id: &ContainerId) -> Vec<Signal> {
        self.state().made.get(id).map(|m| m.signals.clone()).unwrap_or_default()
    }

    /// All containers there are.
    pub fn ids(&self) -> Vec<ContainerId> {
        self.state().made.keys().cloned().collect()
    }

    /// Names of containers in the order in which they were started.
    pub fn started(&self) -> Vec<String> {
        self.state().started.clone()
    }

    /// Names of containers in the order in which they were told to stop.
    pub fn stopped(&self) -> Vec<String> {
        self.state().stopped.clone()
    }

    /// How often what was called.
    pub fn calls(&self) -> ContainerCalls {
        self.state().calls
    }

    /// What was done that must never be done: a process started twice, a container made anew after it ran.
    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    async fn call<T>(
        &self,
        op: &'static str,
        target: &str,
        effect: impl FnOnce(&mut State) -> Result<T, ContainerErrorKind> + Send,
    ) -> Result<T, ContainerError> {
        let latency = self.state().latency;
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let dies = self.crash.enter().await;
        let result = {
            let mut state = self.state();
            if state.down {
                Err(ContainerErrorKind::Unavailable("connection refused".to_owned()))
            } else {
                effect(&mut state)
            }
        };
        self.crash.leave(dies).await;
        result.map_err(|kind| ContainerError { op, target: target.to_owned(), kind, source: None })
    }
}

impl State {
    fn send(&self, event: ContainerEvent) {
        let deaf = self.deaf && matches!(event, ContainerEvent::Exited { .. });
        if let Some(events) = self.events.as_ref().filter(|_| !deaf) {
            // A full queue or a dead reader loses the hint, as it may be lost.
            drop(events.try_send(event));
        }
    }

    fn exit(&mut self, id: &ContainerId, code: u32, oom: bool) -> bool {
        let at = clock();
        match self.made.get_mut(id) {
            Some(made) if matches!(made.state, RuntimeState::Running { .. }) => {
                made.state = RuntimeState::Exited { code, at, oom };
                if !self.down {
                    self.send(ContainerEvent::Exited { id: id.clone(), code, at, oom });
                }
                true
            }
            Some(_) | None => false,
        }
    }

    fn create(&mut self, request: &CreateContainer) -> Result<Timestamp, ContainerErrorKind> {
        self.calls.create += 1;
        if words(request).first() == Some(&"refuse-create") {
            return Err(ContainerErrorKind::Invalid(
                "user nobody2 is not in the image's /etc/passwd".to_owned(),
            ));
        }
        if self.ran.contains(&request.id) && !self.made.contains_key(&request.id) {
            self.violations.push(format!(
                "container {} of {} was made again after it ran",
                request.spec.name, request.task
            ));
        }
        let twin = self.made.values().any(|m| {
            m.request.id != request.id
                && m.request.task == request.task
                && m.request.spec.name == request.spec.name
        });
        if twin {
            self.violations.push(format!("container {} of {} exists twice", request.spec.name, request.task));
        }
        let made = Made { request: request.clone(), state: RuntimeState::Created, signals: Vec::new() };
        self.made.entry(request.id.clone()).or_insert(made);
        Ok(clock())
    }

    fn start(&mut self, id: &ContainerId) -> Result<(u32, Timestamp), ContainerErrorKind> {
        self.calls.start += 1;
        let at = clock();
        let Some(made) = self.made.get_mut(id) else {
            return Err(ContainerErrorKind::Runtime("no such container".to_owned()));
        };
        let name = made.request.spec.name.clone();
        let script: Vec<String> = words(&made.request).iter().map(|w| (*w).to_owned()).collect();
        match made.state {
            RuntimeState::Running { pid } => return Ok((pid, at)),
            RuntimeState::Exited { .. } => {
                self.violations.push(format!("container {name} was started after it had ended"));
                return Err(ContainerErrorKind::Runtime("it has ended".to_owned()));
            }
            RuntimeState::Created => {}
            RuntimeState::Unknown => {
                return Err(ContainerErrorKind::Unavailable(
                    "the container's shim does not answer".to_owned(),
                ));
            }
        }
        if script.first().is_some_and(|w| w == "refuse-start") {
            let text = "exec: \"nope\": executable file not found in $PATH".to_owned();
            return Err(ContainerErrorKind::Invalid(text));
        }
        let pid = self.next_pid;
        made.state = RuntimeState::Running { pid };
        self.next_pid += 1;
        if !self.ran.insert(id.clone()) {
            self.violations.push(format!("container {name} was started twice"));
        }
        self.started.push(name);
        match script.first().map(String::as_str) {
            Some("exit") => {
                self.exit(id, script.get(1).and_then(|c| c.parse().ok()).unwrap_or(0), false);
            }
            Some("oom") => {
                self.exit(id, 137, true);
            }
            Some(_) | None => {}
        }
        Ok((pid, at))
    }

    fn signal(&mut self, id: &ContainerId, signal: Signal) {
        self.calls.signal += 1;
        let Some(made) = self.made.get_mut(id) else { return };
        made.signals.push(signal);
        let name = made.request.spec.name.clone();
        let first = words(&made.request).first().map(|w| (*w).to_owned());
        match (signal, first.as_deref()) {
            (_, Some("immortal")) | (Signal::Stop, Some("stubborn")) => {}
            (Signal::Stop, _) => {
                self.exit(id, 143, false);
            }
            (Signal::Kill, _) => {
                self.exit(id, 137, false);
            }
        }
        if signal == Signal::Stop {
            self.stopped.push(name);
        }
    }
}

fn words(request: &CreateContainer) -> Vec<&str> {
    request.spec.command.iter().flatten().map(String::as_str).collect()
}

#[async_trait]
impl Containers for FakeContainers {
    async fn image(&self, reference: &str) -> Result<ImageFacts, ContainerError> {
        let mut stalled = self.stalled.subscribe();
        if stalled.wait_for(|all| !all.contains(reference)).await.is_err() {
            // The sender lives in self.
            std::future::pending::<()>().await;
        }
        self.call("find image", reference, |state| {
            state.calls.image += 1;
            if let Some(kind) = state.refused.get(reference) {
                return Err(kind.clone());
            }
            if !state.images.contains(reference) {
                let text = format!("image {reference} is not in containerd's store");
                return Err(ContainerErrorKind::ImageNotFound(text));
            }
            let digest = |of: &str| format!("sha256:{of}-of-{reference}");
            Ok(ImageFacts {
                reference: reference.to_owned(),
                image_id: digest("config"),
                digest: digest("manifest"),
            })
        })
        .await
    }

    async fn create(&self, container: &CreateContainer) -> Result<Timestamp, ContainerError> {
        self.call("create container", container.id.short(), |state| state.create(container)).await
    }

    async fn start(&self, id: &ContainerId) -> Result<(u32, Timestamp), ContainerError> {
        self.call("start container", id.short(), |state| state.start(id)).await
    }

    async fn signal(&self, id: &ContainerId, signal: Signal) -> Result<(), ContainerError> {
        self.call("signal container", id.short(), |state| {
            state.signal(id, signal);
            Ok(())
        })
        .await
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), ContainerError> {
        self.call("remove container", id.short(), |state| {
            state.calls.remove += 1;
            let immortal = |m: &Made| words(&m.request).first() == Some(&"immortal");
            match state.made.get(id) {
                Some(made) if immortal(made) && matches!(made.state, RuntimeState::Running { .. }) => {
                    Err(ContainerErrorKind::Runtime("the process does not end".to_owned()))
                }
                Some(_) | None => {
                    state.made.remove(id);
                    Ok(())
                }
            }
        })
        .await
    }

    async fn list(&self) -> Result<Vec<ObservedContainer>, ContainerError> {
        self.call("list containers of", "berth", |state| {
            state.calls.list += 1;
            let observed = |m: &Made| ObservedContainer {
                id: m.request.id.clone(),
                task: m.request.task.clone(),
                name: m.request.spec.name.clone(),
                state: match state.silent.contains(&m.request.id) {
                    true => RuntimeState::Unknown,
                    false => m.state.clone(),
                },
                record: m.request.record.clone(),
            };
            Ok(state.made.values().map(observed).collect())
        })
        .await
    }

    fn events(&self) -> mpsc::Receiver<ContainerEvent> {
        let (events, receiver) = mpsc::channel(CONTAINER_EVENT_QUEUE);
        let mut state = self.state();
        state.events = Some(events);
        if !state.down {
            state.send(ContainerEvent::Resync);
        }
        receiver
    }

    async fn remove_task(&self, task: &TaskArn) -> Result<(), ContainerError> {
        self.call("remove cgroup of", task.id(), |state| {
            state.calls.remove_task += 1;
            if state.made.values().any(|m| m.request.task == *task) {
                state.violations.push(format!("cgroup of {task} was removed before its containers"));
            }
            Ok(())
        })
        .await
    }
}
