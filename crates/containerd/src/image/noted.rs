//! When the use of an image was last noted on its record: each note is a write to containerd's database, and launches come in hundreds.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// The clean-up reads the notes in steps of hours.
const EVERY: Duration = Duration::from_secs(60);

/// By name of the record. Bounded by the images that are used in a minute.
#[derive(Debug, Default)]
pub(super) struct Noted(Mutex<HashMap<String, Instant>>);

impl Noted {
    /// Whether it is time for another note; if so, it counts as made.
    pub(super) fn is_due(&self, name: &str) -> bool {
        let now = Instant::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, noted| now < *noted + EVERY);
        let due = !all.contains_key(name);
        if due {
            all.insert(name.to_owned(), now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_use_of_an_image_is_noted_once_a_minute() {
        let noted = Noted::default();
        assert!(noted.is_due("web") && noted.is_due("db"));
        assert!(!noted.is_due("web"));
        tokio::time::advance(EVERY).await;
        assert!(noted.is_due("web"));
        assert_eq!(noted.0.lock().unwrap().len(), 1);
    }
}
