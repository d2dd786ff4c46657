//! One container's states. Each variant holds exactly the facts that exist in it, and every transition goes forward: an event
//! that comes late or twice finds a later state and leaves it as it is.
//!
//! This is also the form in which containers are recorded (version 1): a changed variant is a new version in `records`.

use crate::reasons;
use berth_types::{
    Timestamp,
    ports::ImageFacts,
    task::{ContainerStatus, StopCode},
};
use serde::{Deserialize, Serialize};

/// Where a container is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// Nothing is known of its image.
    New,
    /// The image is here.
    Pulled { image: ImageFacts },
    /// The runtime has the container; no process. The image is unknown when the container was found without its record.
    Created { image: Option<ImageFacts>, created_at: Timestamp },
    /// The process runs. `signalled_at` is when the stop signal was sent.
    Running {
        image: Option<ImageFacts>,
        created_at: Timestamp,
        started_at: Timestamp,
        pid: u32,
        signalled_at: Option<Timestamp>,
    },
    /// The process has ended, or never will start.
    Ended { past: Past, end: End, remains: Remains },
}

/// What an ended container has been.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Past {
    pub(crate) image: Option<ImageFacts>,
    pub(crate) created_at: Option<Timestamp>,
    pub(crate) started_at: Option<Timestamp>,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum End {
    /// Its process did.
    Exited { code: u32, at: Timestamp, oom: bool },
    /// A step failed for good, or its dependencies did (then with a code).
    Failed { reason: String, code: Option<u32>, at: Timestamp },
    /// The runtime does not know it any more.
    Vanished { at: Timestamp },
    /// The task was stopped before the container had started.
    Unneeded { at: Timestamp },
}

/// What an ended container may have left in the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Remains {
    /// Nothing: it was never asked for.
    Never,
    /// A container, perhaps. Even a process when a call to start or stop it has failed.
    Maybe,
    /// Nothing any more.
    Gone,
}

/// Why a task is to stop. The code is absent when ECS has no word for it (a running task that lost its slot).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StopWish {
    pub(crate) reason: String,
    pub(crate) code: Option<StopCode>,
}

/// When what happened; recorded as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Times {
    pub(crate) pull_started_at: Option<Timestamp>,
    pub(crate) pull_stopped_at: Option<Timestamp>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) execution_stopped_at: Option<Timestamp>,
    /// How long the lease took; a slot that was taken over after a restart does not count.
    #[serde(default)]
    pub(crate) lease_micros: Option<u64>,
    /// When the task was taken.
    #[serde(default)]
    pub(crate) taken_at: Option<Timestamp>,
}

impl End {
    pub(crate) fn at(&self) -> Timestamp {
        match self {
            Self::Exited { at, .. }
            | Self::Failed { at, .. }
            | Self::Vanished { at }
            | Self::Unneeded { at } => *at,
        }
    }

    pub(crate) fn code(&self) -> Option<u32> {
        match self {
            Self::Exited { code, .. } => Some(*code),
            Self::Failed { code, .. } => *code,
            Self::Vanished { .. } | Self::Unneeded { .. } => None,
        }
    }

    pub(crate) fn reason(&self) -> Option<String> {
        match self {
            Self::Exited { oom: true, .. } => Some(reasons::OUT_OF_MEMORY.to_owned()),
            Self::Exited { oom: false, .. } | Self::Unneeded { .. } => None,
            Self::Failed { reason, .. } => Some(reason.clone()),
            Self::Vanished { .. } => Some(reasons::VANISHED.to_owned()),
        }
    }
}

impl Stage {
    pub(crate) fn status(&self) -> ContainerStatus {
        match self {
            Self::New => ContainerStatus::None,
            Self::Pulled { .. } => ContainerStatus::Pulled,
            Self::Created { .. } => ContainerStatus::Created,
            Self::Running { .. } => ContainerStatus::Running,
            Self::Ended { .. } => ContainerStatus::Stopped,
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        match self {
            Self::Ended { .. } => true,
            Self::New | Self::Pulled { .. } | Self::Created { .. } | Self::Running { .. } => false,
        }
    }

    /// What is known of its past, in any state.
    pub(crate) fn past(&self) -> Past {
        match self {
            Self::New => Past::default(),
            Self::Pulled { image } => Past { image: Some(image.clone()), created_at: None, started_at: None },
            Self::Created { image, created_at } => {
                Past { image: image.clone(), created_at: Some(*created_at), started_at: None }
            }
            Self::Running { image, created_at, started_at, .. } => {
                Past { image: image.clone(), created_at: Some(*created_at), started_at: Some(*started_at) }
            }
            Self::Ended { past, .. } => past.clone(),
        }
    }

    /// The image was found.
    pub(crate) fn pulled(&mut self, image: ImageFacts) {
        match self {
            Self::New => *self = Self::Pulled { image },
            Self::Pulled { .. } | Self::Created { .. } | Self::Running { .. } | Self::Ended { .. } => {}
        }
    }

    /// The runtime has the container.
    pub(crate) fn created(&mut self, at: Timestamp) {
        match self {
            Self::New => *self = Self::Created { image: None, created_at: at },
            Self::Pulled { image } => *self = Self::Created { image: Some(image.clone()), created_at: at },
            Self::Created { .. } | Self::Running { .. } | Self::Ended { .. } => {}
        }
    }

    /// The process started. One that has ended meanwhile learns when it had started.
    pub(crate) fn started(&mut self, pid: u32, at: Timestamp) {
        match self {
            Self::New | Self::Pulled { .. } => {
                self.created(at);
                self.started(pid, at);
            }
            Self::Created { image, created_at } => {
                let (image, created_at) = (image.take(), *created_at);
                *self = Self::Running { image, created_at, started_at: at, pid, signalled_at: None };
            }
            Self::Ended { past, end: End::Exited { at: ended, .. }, .. } => {
                past.started_at = Some(at.min(*ended))
            }
            Self::Running { .. } | Self::Ended { .. } => {}
        }
    }

    /// The stop signal was sent.
    pub(crate) fn signalled(&mut self, at: Timestamp) {
        match self {
            Self::Running { signalled_at, .. } => *signalled_at = signalled_at.or(Some(at)),
            Self::New | Self::Pulled { .. } | Self::Created { .. } | Self::Ended { .. } => {}
        }
    }

    /// The process ended. The start need not have been heard of: a short process may be faster than the answer.
    pub(crate) fn exited(&mut self, code: u32, at: Timestamp, oom: bool) {
        match self {
            Self::New | Self::Pulled { .. } | Self::Created { .. } | Self::Running { .. } => {
                let mut past = self.past();
                past.created_at = past.created_at.or(Some(at));
                // The runtime's clock stands between the two: the answer to a start may come after the end of a short process.
                past.started_at = Some(past.started_at.map_or(at, |started| started.min(at)));
                *self = Self::Ended { past, end: End::Exited { code, at, oom }, remains: Remains::Maybe };
            }
            Self::Ended { .. } => {}
        }
    }

    /// It ended in another way than by its process.
    pub(crate) fn end(&mut self, end: End, remains: Remains) {
        match self {
            Self::New | Self::Pulled { .. } | Self::Created { .. } | Self::Running { .. } => {
                *self = Self::Ended { past: self.past(), end, remains };
            }
            Self::Ended { .. } => {}
        }
    }

    /// Nothing of it is left in the runtime.
    pub(crate) fn gone(&mut self) {
        match self {
            Self::Ended { remains, .. } => *remains = Remains::Gone,
            Self::New | Self::Pulled { .. } | Self::Created { .. } | Self::Running { .. } => {}
        }
    }
}
