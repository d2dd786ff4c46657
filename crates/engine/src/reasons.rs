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

/// How the official agent begins when it knows what to look at. The apostrophe is its own.
const CANNOT_PULL: &str = "The task can\u{2019}t pull the image.";
const CHECK_ROLE: &str = "Check that the role has the permissions to pull images from the registry.";
const CHECK_IMAGE: &str = "Check whether the image exists.";
const CHECK_NETWORK: &str = "Check your network configuration.";

/// What registries and the network say, in lower case, and what to look at then. The first that fits counts: a registry that does not
/// want to say whether an image exists says that access is denied.
const ADVICE: [(&str, &str); 17] = [
    ("is not authorized to perform", CHECK_ROLE),
    ("requested access to the resource is denied", CHECK_IMAGE),
    ("manifest unknown", CHECK_IMAGE),
    ("name unknown", CHECK_IMAGE),
    ("not found", CHECK_IMAGE),
    ("does not exist", CHECK_IMAGE),
    ("authorization failed", CHECK_ROLE),
    ("authentication required", CHECK_ROLE),
    ("no basic auth credentials", CHECK_ROLE),
    ("unauthorized", CHECK_ROLE),
    ("forbidden", CHECK_ROLE),
    ("request canceled while waiting for connection", CHECK_NETWORK),
    ("connection refused", CHECK_NETWORK),
    ("no such host", CHECK_NETWORK),
    ("i/o timeout", CHECK_NETWORK),
    ("no route to host", CHECK_NETWORK),
    ("network is unreachable", CHECK_NETWORK),
];

fn advice(why: &str) -> Option<&'static str> {
    let why = why.to_ascii_lowercase();
    ADVICE.iter().find(|(sign, _)| why.contains(sign)).map(|(_, advice)| *advice)
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
            format!("{name}: {CANNOT_PULL} {CHECK_IMAGE} {}", Chain(error))
        }
        ContainerErrorKind::CannotResolve(why) => format!("CannotPullImageManifestError: {why}"),
        ContainerErrorKind::CannotPull(why) => match advice(why) {
            Some(advice) => format!("{name}: {CANNOT_PULL} {advice} {why}"),
            None => format!("{name}: {why}"),
        },
        ContainerErrorKind::Invalid(_)
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
    fn a_pull_that_fails_says_where_to_look() {
        let of = |why: &str| failed(Step::Pull, &error(ContainerErrorKind::CannotPull(why.to_owned())));
        let denied = "denied: User: arn:aws:sts::1:assumed-role/x is not authorized to perform: ecr:BatchGetImage on resource: y";
        for (why, advice) in [
            (
                denied,
                "The task can\u{2019}t pull the image. Check that the role has the permissions to pull images from the registry. ",
            ),
            (
                "pull access denied: denied: requested access to the resource is denied",
                "The task can\u{2019}t pull the image. Check whether the image exists. ",
            ),
            (
                "Get \"https://r/v2/\": net/http: request canceled while waiting for connection",
                "The task can\u{2019}t pull the image. Check your network configuration. ",
            ),
            ("the blob's digest is not what the manifest says", ""),
        ] {
            assert_eq!(of(why), format!("CannotPullContainerError: {advice}{why}"));
        }
        let text = failed(Step::Pull, &error(ContainerErrorKind::CannotResolve("no such tag".to_owned())));
        assert_eq!(text, "CannotPullImageManifestError: no such tag");
        let text = failed(Step::Pull, &error(ContainerErrorKind::TimedOut(Duration::from_secs(7200))));
        assert_eq!(
            text,
            "DockerTimeoutError: Could not transition to pulled; timed out after waiting 2h0m0s"
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
