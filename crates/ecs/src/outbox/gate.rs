//! Whether the control plane takes reports at all: one gate for all tasks, so that hundreds of them do not knock at a door that does not
//! open. While it is closed one report at a time goes as a probe; as soon as one gets through, all go. Pure.

use super::Tick;
use crate::pacing::Jitter;
use std::time::Duration;

/// The official agent's back-off between tries: 1 s, growing by 1.3 up to 30 s.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
const FACTOR: f64 = 1.3;
/// Powers of 1.3 from 1 s to beyond 30 s.
const MAX_POWER: i32 = 13;
/// Between probes of a control plane that does not answer at all. Nobody is there who could be overrun, one call for a whole node is
/// little when it comes back, and what happened meanwhile is to be told within seconds.
const LONGEST_AWAY: Duration = Duration::from_secs(5);
/// Between probes when the credentials may not report: someone must mend a policy, and is not helped by being asked often.
const UNAUTHORIZED: Duration = Duration::from_secs(60);

/// The wait after so many failures in a row, before jitter.
pub(super) fn backoff(failures: u32) -> Duration {
    let power = i32::try_from(failures.saturating_sub(1)).unwrap_or(MAX_POWER).min(MAX_POWER);
    FIRST.mul_f64(FACTOR.powi(power)).min(LONGEST)
}

/// What is wrong with the control plane, rather than with a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It throttles, or makes no sense.
    Busy,
    /// It does not answer.
    Away,
    /// It does not let us.
    Unauthorized,
}

impl Trouble {
    /// The wait after so many failures in a row, before jitter.
    pub(super) fn wait(self, failures: u32) -> Duration {
        match self {
            Self::Busy => backoff(failures),
            Self::Away => backoff(failures).min(LONGEST_AWAY),
            Self::Unauthorized => UNAUTHORIZED,
        }
    }
}

/// The gate.
#[derive(Debug, Default)]
pub(super) struct Gate(Option<Closed>);

#[derive(Debug)]
struct Closed {
    failures: u32,
    until: Tick,
    probing: bool,
}

/// Whether a report may go now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    Go,
    /// One may, and no other until it is heard of.
    Probe,
    Wait(Tick),
    /// Until the probe that is under way is heard of.
    Probing,
}

impl Gate {
    pub(super) fn leave(&self, now: Tick) -> Leave {
        match &self.0 {
            None => Leave::Go,
            Some(Closed { probing: true, .. }) => Leave::Probing,
            Some(Closed { until, .. }) if *until > now => Leave::Wait(*until),
            Some(_) => Leave::Probe,
        }
    }

    /// A probe goes.
    pub(super) fn probe(&mut self) {
        if let Some(closed) = &mut self.0 {
            closed.probing = true;
        }
    }

    /// The control plane was heard again by others: the next probe need not wait.
    pub(super) fn knock(&mut self, now: Tick) {
        if let Some(closed) = &mut self.0 {
            closed.until = closed.until.min(now);
        }
    }

    /// The control plane has answered. Says whether it had not before.
    pub(super) fn open(&mut self) -> bool {
        self.0.take().is_some()
    }

    /// A report came back. Those that went before the gate closed say nothing new. Answers whether it has closed just now.
    pub(super) fn failed(&mut self, trouble: Trouble, probe: bool, now: Tick, jitter: &mut Jitter) -> bool {
        let failures = match &self.0 {
            None => 1,
            Some(closed) if probe => closed.failures.saturating_add(1),
            Some(_) => return false,
        };
        let until = now + jitter.around(trouble.wait(failures));
        self.0 = Some(Closed { failures, until, probing: false });
        failures == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_as_the_official_agents_do() {
        let waits: Vec<u64> = (1..=20).map(|n| u64::try_from(backoff(n).as_millis()).unwrap_or(0)).collect();
        assert_eq!(waits[..4], [1000, 1300, 1690, 2197]);
        assert!(waits.is_sorted() && waits[19] == 30_000);
        assert_eq!(backoff(u32::MAX), LONGEST);
        assert_eq!(Trouble::Away.wait(u32::MAX), LONGEST_AWAY);
    }

    #[test]
    fn the_next_probe_goes_at_once_when_others_have_heard_the_control_plane() {
        let (mut gate, mut jitter) = (Gate::default(), Jitter::new(1));
        let second = Duration::from_secs;
        gate.failed(Trouble::Unauthorized, false, second(0), &mut jitter);
        assert!(matches!(gate.leave(second(1)), Leave::Wait(_)));
        gate.knock(second(1));
        assert_eq!(gate.leave(second(1)), Leave::Probe);
        gate.probe();
        gate.knock(second(2));
        assert_eq!(gate.leave(second(2)), Leave::Probing);
    }

    #[test]
    fn while_it_is_closed_one_report_goes_at_a_time_and_one_answer_opens_it() {
        let (mut gate, mut jitter) = (Gate::default(), Jitter::new(1));
        let second = Duration::from_secs;
        assert_eq!(gate.leave(second(0)), Leave::Go);
        assert!(gate.failed(Trouble::Busy, false, second(0), &mut jitter));
        assert!(!gate.failed(Trouble::Busy, false, second(0), &mut jitter), "it went before the gate closed");
        assert!(matches!(gate.leave(second(0)), Leave::Wait(until) if until <= Duration::from_millis(1200)));
        assert_eq!(gate.leave(second(2)), Leave::Probe);
        gate.probe();
        assert_eq!(gate.leave(second(9)), Leave::Probing);
        gate.failed(Trouble::Unauthorized, true, second(9), &mut jitter);
        assert!(matches!(gate.leave(second(40)), Leave::Wait(_)));
        assert!(gate.open() && !gate.open());
        assert_eq!(gate.leave(second(40)), Leave::Go);
    }
}
