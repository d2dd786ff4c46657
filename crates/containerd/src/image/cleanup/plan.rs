//! Which images go now, and in which order: decided from what was read, without I/O and without a clock.

use super::CleanupConfig;
use crate::reference;
use berth_types::Timestamp;
use std::time::Duration;

/// An image of the store: all names with one digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) digest: String,
    pub(super) names: Vec<String>,
    /// Snapshots that containers on it are made on.
    pub(super) chains: Vec<String>,
    pub(super) bytes: u64,
    /// When this agent pulled it the last time; `None` if any of its names is not ours, because somebody else wants it here then.
    pub(super) pulled_at: Option<Timestamp>,
    /// When a task last asked for it.
    pub(super) used_at: Option<Timestamp>,
    /// When the youngest of its names was made.
    pub(super) created_at: Option<Timestamp>,
    pub(super) containers: u32,
    /// A launch is about to use it.
    pub(super) asked: bool,
}

impl Candidate {
    fn is_free(&self, config: &CleanupConfig) -> bool {
        self.containers == 0 && !self.asked && !self.names.iter().any(|name| is_excluded(name, config))
    }

    /// Since when it is here, and how long that must be. `None`: not ours to remove.
    fn age(&self, config: &CleanupConfig) -> Option<(Timestamp, Duration)> {
        match self.pulled_at {
            Some(pulled) => Some((pulled, config.minimum_age)),
            None if config.untracked => {
                self.created_at.map(|created| (created, config.untracked_minimum_age))
            }
            None => None,
        }
    }

    fn last_use(&self) -> Option<Timestamp> {
        self.used_at.max(self.pulled_at).or(self.created_at)
    }
}

/// The setting names images as users do; the store has them in full.
fn is_excluded(name: &str, config: &CleanupConfig) -> bool {
    config.exclude.iter().any(|excluded| excluded == name || reference::normalize(excluded) == name)
}

/// What a regular cycle removes: unused for long enough, least recently used first, a few at a time.
pub(super) fn by_age<'a>(
    images: &'a [Candidate],
    config: &CleanupConfig,
    now: Timestamp,
) -> Vec<&'a Candidate> {
    let old = |image: &Candidate| {
        // An image from the future, as after the clock was set back, is young.
        let age = |since: Timestamp| Duration::try_from(now.duration_since(since)).unwrap_or_default();
        image.age(config).is_some_and(|(since, minimum)| age(since) >= minimum)
    };
    let mut going = removable(images, config);
    going.retain(|image| old(image));
    going.truncate(config.per_cycle);
    going
}

/// What may go while the disk is full, in the order in which it goes: the caller stops as soon as there is room.
pub(super) fn by_pressure<'a>(images: &'a [Candidate], config: &CleanupConfig) -> Vec<&'a Candidate> {
    removable(images, config)
}

fn removable<'a>(images: &'a [Candidate], config: &CleanupConfig) -> Vec<&'a Candidate> {
    let may_go = |image: &&Candidate| image.is_free(config) && image.age(config).is_some();
    let mut going: Vec<&Candidate> = images.iter().filter(may_go).collect();
    // Of two that were used in the same moment the larger first, then by digest: the same plan every time.
    going.sort_by(|a, b| (a.last_use(), b.bytes, &a.digest).cmp(&(b.last_use(), a.bytes, &b.digest)));
    going
}
