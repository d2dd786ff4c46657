//! How often the control plane is asked: back-off after failures, the interval between polls, and the bucket that caps all polling
//! calls. Pure: time comes in as `now`, chance as a seed. Used by [`registration`](crate::registration) and [`poller`](crate::poller).

use std::time::Duration;

/// Numbers that look random and repeat for the same seed: nodes of one cluster do not ask together, tests do not flicker.
#[derive(Debug, Clone)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// splitmix64: spreads neighbouring seeds over all numbers.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The duration, up to a fifth shorter or longer.
    pub(crate) fn around(&mut self, middle: Duration) -> Duration {
        let middle = u64::try_from(middle.as_millis()).unwrap_or(u64::MAX);
        let span = middle / 5;
        let shift = self.next() % (2 * span + 1);
        Duration::from_millis(middle.saturating_sub(span).saturating_add(shift))
    }
}

/// A back-off that doubles: `(first, longest)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
}

impl Backoff {
    /// The wait after so many failures in a row, before jitter.
    pub(crate) fn after(self, failures: u32) -> Duration {
        let factor = 1u32.checked_shl(failures.saturating_sub(1).min(20)).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.longest)
    }
}

/// Right after a change, unless configured otherwise: a task that was asked for should not wait, and changes come in flocks.
pub const POLL_MIN: Duration = Duration::from_secs(1);
/// While nothing changes, unless configured otherwise: what `aws ecs run-task` may take to reach an idle node.
pub const POLL_MAX: Duration = Duration::from_secs(5);

/// The time between polls: short after a change, half as long again after each poll that brought nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval {
    min: Duration,
    max: Duration,
    now: Duration,
}

impl Interval {
    /// It begins with the shortest; `max` is at least that.
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max: max.max(min), now: min }
    }

    /// Takes the outcome of a poll.
    pub(crate) fn polled(&mut self, changed: bool) {
        self.now = if changed { self.min } else { (self.now * 3 / 2).min(self.max) };
    }

    pub(crate) fn get(self) -> Duration {
        self.now
    }

    /// The longest.
    pub(crate) fn max(self) -> Duration {
        self.max
    }
}

/// The least cap that lets the poller do its work: three calls a minute look after what is there, the rest ask for tasks.
pub const POLLS_PER_MINUTE_MIN: u32 = 10;

/// Thousandths of a call, so that a slow refill is exact.
const MILLI: i64 = 1000;
const MINUTE_MILLIS: i64 = 60_000;

/// A token bucket over the polling calls. A quarter of the cap may come at once, the other three come evenly over a minute, so that
/// no minute, wherever it begins, sees more than the cap.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    burst: i64,
    per_minute: i64,
    milli: i64,
    at: Duration,
}

impl Bucket {
    pub(crate) fn new(polls_per_minute: u32) -> Self {
        let cap = i64::from(polls_per_minute.max(POLLS_PER_MINUTE_MIN));
        let burst = cap / 4;
        Self { burst, per_minute: cap - burst, milli: burst * MILLI, at: Duration::ZERO }
    }

    fn level(&self, now: Duration) -> i64 {
        let passed = i64::try_from(now.saturating_sub(self.at).as_millis()).unwrap_or(i64::MAX);
        let filled = passed.saturating_mul(self.per_minute) * MILLI / MINUTE_MILLIS;
        self.milli.saturating_add(filled).min(self.burst * MILLI)
    }

    /// Takes so many calls, or says how long to wait for them. More calls than the bucket holds are let through when it is full,
    /// and are paid off before the next.
    pub(crate) fn take(&mut self, calls: u32, now: Duration) -> Result<(), Duration> {
        let level = self.level(now);
        let missing = i64::from(calls).min(self.burst) * MILLI - level;
        if missing > 0 {
            let wait = (missing * MINUTE_MILLIS).div_euclid(self.per_minute * MILLI) + 1;
            return Err(Duration::from_millis(u64::try_from(wait).unwrap_or(0)));
        }
        self.spend(calls, now);
        Ok(())
    }

    /// Counts calls that were made already: more pages came than were expected.
    pub(crate) fn spend(&mut self, calls: u32, now: Duration) {
        *self = Self { milli: self.level(now) - i64::from(calls) * MILLI, at: now, ..*self };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_interval_grows_while_nothing_changes_and_falls_back_at_once() {
        let mut interval = Interval::new(POLL_MIN, POLL_MAX);
        (0..20).for_each(|_| interval.polled(false));
        assert_eq!(interval.get(), POLL_MAX);
        interval.polled(true);
        assert_eq!(interval.get(), POLL_MIN);
    }

    #[test]
    fn back_off_doubles_up_to_its_longest() {
        let backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };
        let waits: Vec<u64> = (1..=8).map(|failures| backoff.after(failures).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.after(u32::MAX), Duration::from_secs(60));
    }

    #[test]
    fn a_bucket_that_is_empty_says_when_it_is_not() {
        let mut bucket = Bucket::new(100);
        while bucket.take(1, Duration::ZERO).is_ok() {}
        let wait = bucket.take(1, Duration::ZERO).unwrap_err();
        assert!(bucket.take(1, wait).is_ok());
    }

    proptest! {
        #[test]
        fn no_minute_sees_more_calls_than_the_cap(cap in 10u32..500, steps in prop::collection::vec((0u64..5_000, 1u32..6), 1..400)) {
            let mut bucket = Bucket::new(cap);
            let (mut now, mut made) = (Duration::ZERO, Vec::new());
            for (pause, calls) in steps {
                now += Duration::from_millis(pause);
                if bucket.take(calls, now).is_ok() {
                    // More at once than a bucket of this size holds is let through on credit; the planner never asks for that much.
                    prop_assume!(i64::from(calls) <= i64::from(cap / 4));
                    made.push((now, calls));
                }
            }
            for (begin, _) in &made {
                let minute: u32 = made.iter().filter(|(at, _)| at >= begin && *at < *begin + Duration::from_secs(60)).map(|(_, n)| n).sum();
                prop_assert!(minute <= cap, "{minute} calls in a minute, the cap is {cap}");
            }
        }

        #[test]
        fn jitter_stays_within_a_fifth(seed: u64, millis in 0u64..100_000) {
            let shaken = Jitter::new(seed).around(Duration::from_millis(millis)).as_millis();
            let millis = u128::from(millis);
            prop_assert!(shaken >= millis - millis / 5 && shaken <= millis + millis / 5);
        }
    }
}
