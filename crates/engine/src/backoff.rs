//! When a failed act is tried again. Pure: the wait depends on the number of failures only. There is no jitter, because every
//! act of the engine goes to a neighbour on the same machine that nobody else shares.

use std::time::Duration;

/// Time since the engine's start. It does not jump when the clock is set, so deadlines are kept in it.
pub(crate) type Tick = Duration;

/// An instant, on both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// For records and people.
    pub(crate) wall: berth_types::Timestamp,
    /// For deadlines.
    pub(crate) tick: Tick,
}

impl Now {
    /// The tick at which something that began at `since` and may take `span` is over. Clocks may have been set in between, so the
    /// answer lies between now and now + span.
    pub(crate) fn due(&self, since: berth_types::Timestamp, span: Duration) -> Tick {
        let spent = Duration::try_from(self.wall.duration_since(since)).unwrap_or(Duration::ZERO);
        self.tick + span.saturating_sub(spent)
    }
}

/// First wait: the time in which a busy containerd usually recovers from a hiccup.
const FIRST: Duration = Duration::from_millis(100);
/// Longest wait: what an operator who has repaired the cause is willing to watch.
const LONGEST: Duration = Duration::from_secs(15);

/// A failed act: how often it failed in a row, and when it may be tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Retry {
    pub(crate) failures: u32,
    pub(crate) not_before: Tick,
    /// The last failure, for people.
    pub(crate) problem: String,
}

impl Retry {
    /// The next failure after `before`, if there was one.
    pub(crate) fn after(before: Option<&Self>, problem: String, now: Now) -> Self {
        let failures = before.map_or(0, |r| r.failures).saturating_add(1);
        let wait = FIRST.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST);
        Self { failures, not_before: now.tick + wait, problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_types::Timestamp;

    #[test]
    fn waits_double_up_to_a_limit() {
        let now = Now { wall: Timestamp::UNIX_EPOCH, tick: Duration::from_secs(5) };
        let mut retry = Retry::after(None, String::new(), now);
        let mut waits = Vec::new();
        for _ in 0..40 {
            waits.push(retry.not_before - now.tick);
            retry = Retry::after(Some(&retry), String::new(), now);
        }
        assert_eq!(waits[..3], [FIRST, FIRST * 2, FIRST * 4]);
        assert!(waits.is_sorted() && waits[39] == LONGEST);
    }

    #[test]
    fn a_clock_that_was_set_neither_skips_nor_doubles_a_deadline() {
        let now = Now { wall: Timestamp::from_second(1000).unwrap(), tick: Duration::from_secs(7) };
        let span = Duration::from_secs(30);
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(now.due(at(990), span), Duration::from_secs(7 + 20));
        assert_eq!(now.due(at(0), span), now.tick);
        assert_eq!(now.due(at(9_999), span), now.tick + span);
    }
}
