//! Waiting before the next try, and how many calls EC2 may get at all: pure functions of a seed and of the time.

use crate::config::{BUDGET_BURST, BUDGET_RATE};
use std::time::Duration;

/// The least wait before a retry, so that full jitter never means "at once".
const FLOOR: Duration = Duration::from_millis(100);

/// Exponential back-off with full jitter: anything from [`FLOOR`] to `base * 2^failures`, at most `cap`.
pub(crate) fn delay(seed: u64, failures: u32, base: Duration, cap: Duration) -> Duration {
    let ceiling = base
        .saturating_mul(1u32.checked_shl(failures.saturating_sub(1).min(20)).unwrap_or(u32::MAX))
        .min(cap);
    let span = u64::try_from(ceiling.saturating_sub(FLOOR).as_millis()).unwrap_or(u64::MAX);
    FLOOR + Duration::from_millis(scramble(seed.wrapping_add(u64::from(failures))) % (span + 1))
}

/// splitmix64: spreads neighbouring seeds over all numbers.
fn scramble(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// When the next try may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Retry {
    /// Failures in a row.
    pub(crate) failures: u32,
    /// No try before this.
    pub(crate) not_before: Duration,
}

impl Retry {
    /// Counts a failure and says when to try again; at least after `least`, when the other side named a wait.
    pub(crate) fn failed(
        &mut self,
        now: Duration,
        seed: u64,
        (base, cap): (Duration, Duration),
        least: Duration,
    ) {
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + delay(seed, self.failures, base, cap).max(least);
    }

    /// It worked.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// Milli-calls in a call.
const MILLI: u64 = 1000;

/// A token bucket over all calls to EC2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    milli: u64,
    at: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Self { milli: BUDGET_BURST * MILLI, at: Duration::ZERO }
    }
}

impl Budget {
    fn level(&self, now: Duration) -> u64 {
        let passed = u64::try_from(now.saturating_sub(self.at).as_millis()).unwrap_or(u64::MAX);
        self.milli.saturating_add(passed.saturating_mul(BUDGET_RATE)).min(BUDGET_BURST * MILLI)
    }

    /// Calls that may be made now.
    pub(crate) fn left(&self, now: Duration) -> u64 {
        self.level(now) / MILLI
    }

    /// One call is made.
    pub(crate) fn take(&mut self, now: Duration) {
        *self = Self { milli: self.level(now).saturating_sub(MILLI), at: now };
    }

    /// When there will be so many calls.
    pub(crate) fn when(&self, calls: u64, now: Duration) -> Duration {
        let missing = (calls * MILLI).saturating_sub(self.level(now));
        now + Duration::from_millis(missing.div_ceil(BUDGET_RATE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bucket_never_gives_more_than_its_rate() {
        let mut budget = Budget::default();
        let mut given = 0;
        for millisecond in 0..60_000u64 {
            let now = Duration::from_millis(millisecond);
            while budget.left(now) > 0 {
                budget.take(now);
                given += 1;
            }
        }
        assert!(given <= BUDGET_BURST + 60 * BUDGET_RATE, "{given}");
        assert!(given >= 60 * BUDGET_RATE, "{given}");
    }

    #[test]
    fn a_bucket_knows_when_there_is_a_call_again() {
        let mut budget = Budget::default();
        (0..BUDGET_BURST).for_each(|_| budget.take(Duration::ZERO));
        let when = budget.when(1, Duration::ZERO);
        assert_eq!(budget.left(when - Duration::from_millis(1)), 0);
        assert_eq!(budget.left(when), 1);
    }

    proptest! {
        #[test]
        fn waits_stay_between_the_floor_and_the_cap(seed: u64, failures: u32) {
            let wait = delay(seed, failures, Duration::from_millis(500), Duration::from_secs(60));
            prop_assert!(wait >= FLOOR && wait <= Duration::from_secs(60));
        }
    }
}
