//! Which images launches are about to use, so that none is removed between the moment a task asks for it and the moment its container
//! holds it.
//!
//! A launch takes a [`Pin`] before it looks whether the image is here, the clean-up a [`Condemned`] before it looks whether the image is
//! used. The two exclude each other per image: a launch that comes while its image is being removed waits until that is done, finds
//! nothing, and pulls.

use crate::reference;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// How long an image stays pinned after it was asked for: from there a task has its slot, its volumes and its other images to wait for
/// before its container is made.
const AFTERWARDS: Duration = Duration::from_secs(10 * 60);

/// The images that are asked for now or were a moment ago. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pins {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Told whenever a condemned image is gone, or is not condemned any more.
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// By full reference.
    asked: HashMap<String, Asked>,
    /// Names and digests that are being removed.
    condemned: HashSet<String>,
}

#[derive(Debug)]
struct Asked {
    /// Calls under way.
    holders: u32,
    last: Instant,
}

impl State {
    fn is_condemned(&self, full: &str) -> bool {
        self.condemned.contains(full)
            || reference::pinned_digest(full).is_some_and(|d| self.condemned.contains(d))
    }

    /// How many calls that ask for the image are under way; `None` if none has asked lately.
    fn holders(&self, names: &[String], digest: &str) -> Option<u32> {
        let is_meant = |full: &str| {
            names.iter().any(|name| name == full) || reference::pinned_digest(full) == Some(digest)
        };
        self.asked
            .iter()
            .filter(|(full, _)| is_meant(full))
            .map(|(_, asked)| asked.holders)
            .reduce(|a, b| a + b)
    }

    /// Drops what is old: also the bound of the map, which then holds what tasks ask for within ten minutes.
    fn prune(&mut self) {
        self.asked.retain(|_, asked| asked.holders > 0 || asked.last.elapsed() < AFTERWARDS);
    }
}

impl Pins {
    /// Pins the image of a reference, while the value lives and for some time afterwards. Waits while it is being removed.
    pub(crate) async fn ask(&self, reference: &str) -> Pin {
        let full = reference::normalize(reference);
        loop {
            let freed = self.shared.freed.notified();
            tokio::pin!(freed);
            // From here on nothing is missed, whatever happens before the wait begins.
            freed.as_mut().enable();
            {
                let mut state = self.lock();
                if !state.is_condemned(&full) {
                    state.prune();
                    let now = Instant::now();
                    let asked = state.asked.entry(full.clone()).or_insert(Asked { holders: 0, last: now });
                    (asked.holders, asked.last) = (asked.holders + 1, now);
                    return Pin { pins: self.clone(), full };
                }
            }
            freed.await;
        }
    }

    /// Whether a launch needs the image that has these names and this digest.
    pub(super) fn is_asked(&self, names: &[String], digest: &str) -> bool {
        let mut state = self.lock();
        state.prune();
        state.holders(names, digest).is_some()
    }

    /// Keeps launches away from an image, unless one needs it.
    pub(super) fn condemn(&self, names: &[String], digest: &str) -> Option<Condemned> {
        let mut state = self.lock();
        state.prune();
        let is_asked = state.holders(names, digest).is_some();
        (!is_asked).then(|| self.put(&mut state, names, digest))
    }

    /// As `condemn`, also if a launch asked for it some minutes ago and is not doing so now: for operators, who know what they do.
    pub(super) fn condemn_now(&self, names: &[String], digest: &str) -> Option<Condemned> {
        let mut state = self.lock();
        let is_held = state.holders(names, digest).is_some_and(|holders| holders > 0);
        (!is_held).then(|| self.put(&mut state, names, digest))
    }

    fn put(&self, state: &mut State, names: &[String], digest: &str) -> Condemned {
        let words: Vec<String> = names.iter().cloned().chain([digest.to_owned()]).collect();
        state.condemned.extend(words.iter().cloned());
        Condemned { pins: self.clone(), words }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half way.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holds an image for a launch.
#[derive(Debug)]
#[must_use = "the image is pinned only while this lives"]
pub(crate) struct Pin {
    pins: Pins,
    full: String,
}

impl Drop for Pin {
    fn drop(&mut self) {
        if let Some(asked) = self.pins.lock().asked.get_mut(&self.full) {
            (asked.holders, asked.last) = (asked.holders.saturating_sub(1), Instant::now());
        }
    }
}

/// Holds launches off an image that is being removed.
#[derive(Debug)]
pub(super) struct Condemned {
    pins: Pins,
    words: Vec<String>,
}

impl Drop for Condemned {
    fn drop(&mut self) {
        let mut state = self.pins.lock();
        for word in &self.words {
            state.condemned.remove(word);
        }
        drop(state);
        self.pins.shared.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use tokio::time::{advance, timeout};

    const DIGEST: &str = "sha256:00";

    fn names() -> Vec<String> {
        vec!["docker.io/library/web:1".into(), "docker.io/library/web@sha256:00".into()]
    }

    #[tokio::test(start_paused = true)]
    async fn an_image_is_pinned_while_it_is_asked_for_and_ten_minutes_longer() {
        let pins = Pins::default();
        let pin = pins.ask("web:1").await;
        // As long as a pull may take.
        advance(Duration::from_secs(7200)).await;
        assert!(pins.condemn(&names(), DIGEST).is_none());
        assert!(pins.condemn_now(&names(), DIGEST).is_none());
        drop(pin);
        assert!(pins.condemn_now(&names(), DIGEST).is_some());
        advance(AFTERWARDS - Duration::from_secs(1)).await;
        assert!(pins.is_asked(&names(), DIGEST));
        advance(Duration::from_secs(1)).await;
        assert!(!pins.is_asked(&names(), DIGEST));
        assert!(pins.condemn(&names(), DIGEST).is_some());
        assert!(pins.lock().asked.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_digest_is_pinned_under_whatever_name_it_is_asked_for() {
        let pins = Pins::default();
        drop(pins.ask("other@sha256:00").await);
        assert!(pins.is_asked(&names(), DIGEST));
        assert!(!pins.is_asked(&names(), "sha256:11"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_launch_waits_while_its_image_is_removed_and_no_other_does() {
        let pins = Pins::default();
        let condemned = pins.condemn(&names(), DIGEST).unwrap();
        let mut by_name = pin!(pins.ask("web:1"));
        let mut by_digest = pin!(pins.ask("other@sha256:00"));
        drop(pins.ask("web:2").await);
        assert!(timeout(Duration::from_secs(1), by_name.as_mut()).await.is_err());
        assert!(timeout(Duration::from_secs(1), by_digest.as_mut()).await.is_err());
        drop(condemned);
        drop((by_name.await, by_digest.await));
    }
}
