//! Settings of images: pulls, the credentials of registries, clean-up.

use super::{Source, source::Below};
use berth_containerd::{CleanupConfig, PullBehavior, RegistryAuth};
use std::{path::Path, time::Duration};

/// Settings of images.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ImageSettings {
    pub(crate) behavior: PullBehavior,
    /// `ECS_IMAGE_PULL_TIMEOUT`: for a whole pull.
    pub(crate) pull_timeout: Duration,
    /// `ECS_IMAGE_PULL_INACTIVITY_TIMEOUT`: without a byte.
    pub(crate) inactivity_timeout: Duration,
    /// `ECS_MANIFEST_PULL_TIMEOUT`: until it is known what a reference means.
    pub(crate) manifest_timeout: Duration,
    /// `ECS_ENGINE_AUTH_TYPE` and `ECS_ENGINE_AUTH_DATA`.
    pub(crate) auth: RegistryAuth,
    /// `BERTH_INSECURE_REGISTRIES`: `host` or `host:port` that are asked without TLS.
    pub(crate) insecure_registries: Vec<String>,
    /// `BERTH_CONCURRENT_PULLS`.
    pub(crate) concurrent_pulls: usize,
    /// When unused images go.
    pub(crate) cleanup: CleanupConfig,
}

/// The official agent's names.
const BEHAVIORS: [(&str, PullBehavior); 4] = [
    ("default", PullBehavior::Default),
    ("always", PullBehavior::Always),
    ("once", PullBehavior::Once),
    ("prefer-cached", PullBehavior::PreferCached),
];

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

/// `root` is containerd's.
pub(super) fn read(s: &mut Source, root: &Path) -> ImageSettings {
    let second = Duration::from_secs(1);
    let behavior = behavior(s);
    ImageSettings {
        behavior,
        pull_timeout: s.duration("ECS_IMAGE_PULL_TIMEOUT", minutes(120), second),
        inactivity_timeout: s.official_duration(
            "ECS_IMAGE_PULL_INACTIVITY_TIMEOUT",
            minutes(1),
            minutes(1),
            Below::Least,
        ),
        manifest_timeout: s.official_duration(
            "ECS_MANIFEST_PULL_TIMEOUT",
            minutes(1),
            second * 30,
            Below::Least,
        ),
        auth: auth(s),
        insecure_registries: registries(s),
        // Each holds a few connections and a disk busy; more are not faster.
        concurrent_pulls: s.count("BERTH_CONCURRENT_PULLS", 1, 16).unwrap_or(3),
        cleanup: cleanup(s, behavior, root),
    }
}

/// A word that nobody knows means `default`, as in the official agent.
fn behavior(s: &mut Source) -> PullBehavior {
    const KEY: &str = "ECS_IMAGE_PULL_BEHAVIOR";
    let Some(text) = s.text(KEY) else { return PullBehavior::Default };
    match BEHAVIORS.iter().find(|(name, _)| *name == text) {
        Some((_, behavior)) => *behavior,
        None => {
            let names: Vec<&str> = BEHAVIORS.iter().map(|(name, _)| *name).collect();
            s.warn(format!("{KEY}: `{text}` is taken for `default`; expected one of {}", names.join(", ")));
            PullBehavior::Default
        }
    }
}

fn auth(s: &mut Source) -> RegistryAuth {
    const TYPE: &str = "ECS_ENGINE_AUTH_TYPE";
    const DATA: &str = "ECS_ENGINE_AUTH_DATA";
    let (kind, data) = (s.text(TYPE), s.text(DATA));
    let parsed = match (kind.as_deref(), &data) {
        (None, None) => return RegistryAuth::default(),
        // The error says where, never what.
        (Some(kind @ ("docker" | "dockercfg")), Some(data)) => s.check(DATA, RegistryAuth::parse(kind, data)),
        (Some("docker" | "dockercfg"), None) => {
            s.problem(TYPE, format!("{DATA} beside it, which is not set"));
            None
        }
        (Some(_), _) => {
            s.problem(TYPE, format!("docker or dockercfg, for {DATA}"));
            None
        }
        (None, Some(_)) => {
            s.problem(DATA, format!("{TYPE} beside it, which is not set"));
            None
        }
    };
    parsed.unwrap_or_default()
}

fn registries(s: &mut Source) -> Vec<String> {
    const KEY: &str = "BERTH_INSECURE_REGISTRIES";
    let registries: Vec<String> = s.list(KEY);
    let is_host = |text: &String| text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
    if !registries.iter().all(is_host) {
        s.problem(KEY, "a list of `host` or `host:port`, without scheme and path, divided by commas");
    }
    registries
}

/// Where images are pulled only if they are not here, they are kept: the operator put them there, as the official agent sees it.
fn cleanup(s: &mut Source, behavior: PullBehavior, root: &Path) -> CleanupConfig {
    let (high, low) = ("BERTH_IMAGE_PRESSURE_HIGH", "BERTH_IMAGE_PRESSURE_LOW");
    let pressure_high = s.percent(high, 85);
    let pressure_low = s.percent(low, 80.min(pressure_high));
    if pressure_high > 0 && pressure_low > pressure_high {
        s.problem(low, format!("at most {high}, which is {pressure_high}"));
    }
    let second = Duration::from_secs(1);
    let disabled = s.boolean("ECS_DISABLE_IMAGE_CLEANUP", false);
    CleanupConfig {
        enabled: !disabled && behavior != PullBehavior::PreferCached,
        interval: s.official_duration("ECS_IMAGE_CLEANUP_INTERVAL", minutes(30), minutes(10), Below::Default),
        minimum_age: s.duration("ECS_IMAGE_MINIMUM_CLEANUP_AGE", minutes(60), second),
        per_cycle: s.official_count("ECS_NUM_IMAGES_DELETE_PER_CYCLE", 1000, 5),
        untracked: s.boolean("ECS_ENABLE_UNTRACKED_IMAGE_CLEANUP", false),
        untracked_minimum_age: s.duration("NON_ECS_IMAGE_MINIMUM_CLEANUP_AGE", minutes(60), second),
        exclude: s.list("ECS_EXCLUDE_UNTRACKED_IMAGE"),
        pressure_high: (pressure_high > 0).then_some(pressure_high),
        pressure_low,
        root: root.to_owned(),
    }
}
