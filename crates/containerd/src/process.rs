//! Times of processes: from containerd's messages, and from the kernel for a process that was started before we looked.

use berth_types::Timestamp;
use nix::unistd::{SysconfVar, sysconf};
use std::fs;

/// containerd's time; `None` for the zero time, which it sends for "not yet".
pub(crate) fn time(time: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    let time = time.filter(|t| t.seconds > 0)?;
    Timestamp::new(time.seconds, time.nanos).ok()
}

/// When a process started, to the hundredth of a second. `None` when it has gone.
pub(crate) fn started_at(pid: u32) -> Option<Timestamp> {
    let ticks = start_ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let boot: i64 = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().filter(|n| *n > 0)?;
    let nanos = i32::try_from(ticks % per_second * (1_000_000_000 / per_second)).ok()?;
    Timestamp::new(boot + ticks / per_second, nanos).ok()
}

/// Field 22. The second field is the program's name, which may hold blanks and parentheses, so the count starts after the last one.
fn start_ticks(stat: &str) -> Option<i64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processs_start_is_read_from_the_kernel() {
        let started = started_at(std::process::id()).unwrap();
        let age = Timestamp::now().duration_since(started);
        assert!(age.as_secs() > -3 && age.as_secs() < 3600, "{age}");
        assert_eq!(
            start_ticks("1 (a) b (x)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20"),
            Some(4242)
        );
        assert_eq!(started_at(u32::MAX), None);
    }
}
