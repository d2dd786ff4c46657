//! Reasons in the official agent's words: `ErrorName: text`. People and log parsers search for them, so the names are exact.

use berth_types::{
    Chain,
    ids::TaskArn,
    ports::{ContainerError, ContainerErrorKind},
};
use std::{fmt, time::Duration};

/// What the backend of ECS writes when an essential container has ended.
pub(crate) const ESSENTIAL_EXITED: &str = "Essential container in task exited";
/// A container that the runtime no longer knows.
pub(crate) const VANISHED: &str = "ContainerVanishedError: No container matching saved ID found";
/// A container whose exit came with an OOM kill.
pub(crate) const OUT_OF_MEMORY: &str = "OutOfMemoryError: Container killed due to memory usage";
/// Exit code of a container that never ran because its dependencies did not come so far.
pub(crate) const DEPENDENCY_EXIT_CODE: u32 = 143;

/// Which step of a container failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Pull,
    Create,
    Start,
    Stop,
}

impl Step {
    fn error_name(self) -> &'static str {
        match self {
            Self::Pull => "CannotPullContainerError",
            Self::Create => "CannotCreateContainerError",
            Self::Start => "CannotStartContainerError",
            Self::Stop => "CannotStopContainerError",
        }
    }

    fn goal(self) -> &'static str {
        match self {
            Self::Pull => "pulled",
            Self::Create => "created",
            Self::Start => "started",
            Self::Stop => "stopped",
        }
    }
}

/// The reason of a container whose step failed.
pub(crate) fn failed(step: Step, error: &ContainerError) -> String {
    let name = step.error_name();
    match &error.kind {
        ContainerErrorKind::TimedOut(after) => {
            format!(
                "DockerTimeoutError: Could not transition to {}; timed out after waiting {}",
                step.goal(),
                GoDuration(*after)
            )
        }
        ContainerErrorKind::ImageNotFound(_) => {
            format!(
                "{name}: The task can\u{2019}t pull the image. Check whether the image exists. {}",
                Chain(error)
            )
        }
        ContainerErrorKind::CannotResolve(why) => format!("CannotPullImageManifestError: {why}"),
        ContainerErrorKind::CannotPull(_)
        | ContainerErrorKind::Invalid(_)
        | ContainerErrorKind::Unavailable(_)
        | ContainerErrorKind::Runtime(_) => {
            format!("{name}: {}", Chain(error))
        }
    }
}

/// The reason of a container that SIGKILL does not end.
pub(crate) fn unkillable(times: u32) -> String {
    format!("{}: the process is still there after {times} SIGKILLs", Step::Stop.error_name())
}

/// The reason of a container whose dependencies did not come so far.
pub(crate) fn dependency(why: &str) -> String {
    format!("{}: dependency graph: {why}", Step::Start.error_name())
}

/// The reason of a task whose volumes could not be made.
pub(crate) fn volume(error: &(dyn std::error::Error + 'static)) -> String {
    format!("CannotCreateVolumeError: {}", Chain(error))
}

/// The reason of a task whose `dependsOn` names a stranger or goes in a circle.
pub(crate) fn unresolvable(task: &TaskArn, why: &str) -> String {
    format!("TaskDependencyError: Task dependencies cannot be resolved, taskArn: {task}: {why}")
}

/// A duration as Go prints it: `4m0s`, `30s`, `1.5s`.
struct GoDuration(Duration);

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0.as_secs();
        let (hours, minutes) = (whole / 3600, whole / 60 % 60);
        let seconds = self.0.saturating_sub(Duration::from_secs(whole - whole % 60)).as_secs_f64();
        match (hours, minutes) {
            (0, 0) => write!(f, "{seconds}s"),
            (0, _) => write!(f, "{minutes}m{seconds}s"),
            (_, _) => write!(f, "{hours}h{minutes}m{seconds}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: ContainerErrorKind) -> ContainerError {
        ContainerError { op: "find image", target: "nope:1".to_owned(), kind, source: None }
    }

    #[test]
    fn a_missing_image_is_named_in_the_words_users_search_for() {
        let text =
            failed(Step::Pull, &error(ContainerErrorKind::ImageNotFound("not in the store".to_owned())));
        assert_eq!(
            text,
            "CannotPullContainerError: The task can\u{2019}t pull the image. Check whether the image exists. \
             find image nope:1: the image is not there: not in the store"
        );
    }

    #[test]
    fn a_time_out_has_the_name_of_its_own_and_gos_duration() {
        let text = failed(Step::Create, &error(ContainerErrorKind::TimedOut(Duration::from_secs(240))));
        assert_eq!(text, "DockerTimeoutError: Could not transition to created; timed out after waiting 4m0s");
        assert_eq!(GoDuration(Duration::from_millis(1500)).to_string(), "1.5s");
        assert_eq!(GoDuration(Duration::from_secs(3723)).to_string(), "1h2m3s");
    }
}
