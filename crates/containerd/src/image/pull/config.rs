//! Settings of pulls: given by the agent's configuration, fixed for the agent's life.

use super::auth::RegistryAuth;
use std::time::Duration;

/// How images are brought from registries.
#[derive(Debug, Clone)]
pub struct PullConfig {
    /// When a registry is asked.
    pub behavior: PullBehavior,
    /// Credentials of registries.
    pub auth: RegistryAuth,
    /// Registries (`host` or `host:port`) that are spoken to in plain HTTP and only so, as containerd does and unlike Docker, which
    /// tries unverified TLS first: half a protection would look like a whole one. Registries on loopback are always spoken to so,
    /// except on port 443.
    pub insecure_registries: Vec<String>,
    /// How long all of a pull may take, waiting for others included.
    pub pull_timeout: Duration,
    /// How long a registry may send nothing in the middle of a blob.
    pub inactivity_timeout: Duration,
    /// How long a registry may take to say which image a reference means, all tries included.
    pub manifest_timeout: Duration,
    /// Pulls that bring blobs at the same time.
    pub concurrent_pulls: usize,
    /// Blobs of one pull that are brought at the same time.
    pub concurrent_blobs: usize,
    /// What is done about failures that pass.
    pub retries: RetryPolicy,
}

impl Default for PullConfig {
    fn default() -> Self {
        Self {
            behavior: PullBehavior::Default,
            auth: RegistryAuth::default(),
            insecure_registries: Vec::new(),
            // The official agent's ECS_IMAGE_PULL_TIMEOUT, ECS_IMAGE_PULL_INACTIVITY_TIMEOUT and ECS_MANIFEST_PULL_TIMEOUT.
            pull_timeout: Duration::from_secs(2 * 3600),
            inactivity_timeout: Duration::from_secs(60),
            manifest_timeout: Duration::from_secs(60),
            // Docker's max-concurrent-downloads: more share the same bandwidth and finish later.
            concurrent_pulls: 3,
            concurrent_blobs: 3,
            retries: RetryPolicy::default(),
        }
    }
}

/// `ECS_IMAGE_PULL_BEHAVIOR`. A reference with a digest that is here asks no registry in any of them: it cannot mean anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullBehavior {
    /// Each time; if that fails, the image that is here will do.
    #[default]
    Default,
    /// Each time; if that fails, so does the task.
    Always,
    /// Only for an image that this agent has not pulled.
    Once,
    /// Only for an image that is not here.
    PreferCached,
}

/// Failures that pass (a lost connection, a server's error, silence) are met by trying again, each time after twice the pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries in all. A blob that has come a good way since the last one starts to count anew.
    pub tries: u32,
    /// Pause after the first.
    pub first_pause: Duration,
    /// The pauses grow no longer than this.
    pub last_pause: Duration,
}

impl Default for RetryPolicy {
    // A registry's restart takes some seconds: 1 + 2 + 4 + 8 of them are waited for.
    fn default() -> Self {
        Self { tries: 5, first_pause: Duration::from_secs(1), last_pause: Duration::from_secs(16) }
    }
}

impl RetryPolicy {
    /// The pause after so many tries; `None` when there were enough.
    pub(super) fn pause_after(&self, tries: u32) -> Option<Duration> {
        let doubled = self.first_pause.saturating_mul(1 << tries.saturating_sub(1).min(16));
        (tries < self.tries).then(|| doubled.min(self.last_pause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_end() {
        let policy = RetryPolicy { tries: 7, ..RetryPolicy::default() };
        let pauses: Vec<_> = (1..=7).map(|tries| policy.pause_after(tries).map(|p| p.as_secs())).collect();
        assert_eq!(pauses, [Some(1), Some(2), Some(4), Some(8), Some(16), Some(16), None]);
        assert_eq!(RetryPolicy::default().pause_after(5), None);
    }
}
