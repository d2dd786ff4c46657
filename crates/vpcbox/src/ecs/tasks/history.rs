//! What agents reported of a task and ECS acknowledged, for the operator who asks how a task came to where it is.

use super::ContainerStatus;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Reports of one task that are remembered; the oldest go first. A task needs four; only one that waits for long has more to say.
const MAX_REPORTS: usize = 64;

/// A report that ECS acknowledged. What it did not say is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportLine {
    /// When it came first.
    pub at: Timestamp,
    /// How often it came, one right after the other: agents report at least once.
    pub times: u32,
    /// What the task is said to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the attachment is said to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment: Option<String>,
    /// What its containers are said to be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<ContainerLine>,
}

/// A container in a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerLine {
    /// Its name.
    pub name: String,
    /// What it is said to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// What it exited with.
    #[serde(default, rename = "exitCode", skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// Why it waits, or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl ReportLine {
    pub(super) fn new(at: Timestamp) -> Self {
        Self { at, times: 1, status: None, reason: None, attachment: None, containers: Vec::new() }
    }

    fn says_the_same(&self, other: &Self) -> bool {
        let said = |line: &Self| {
            (line.status.clone(), line.reason.clone(), line.attachment.clone(), line.containers.clone())
        };
        said(self) == said(other)
    }
}

impl ContainerLine {
    pub(super) fn new(
        name: &str,
        status: Option<ContainerStatus>,
        exit_code: Option<i64>,
        reason: Option<&str>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            status: status.map(|status| status.as_str().to_owned()),
            exit_code,
            reason: reason.map(str::to_owned),
        }
    }
}

/// The reports of one task, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct History {
    reports: VecDeque<ReportLine>,
}

impl History {
    pub(super) fn note(&mut self, report: ReportLine) {
        if let Some(last) = self.reports.back_mut().filter(|last| last.says_the_same(&report)) {
            last.times = last.times.saturating_add(1);
            return;
        }
        if self.reports.len() >= MAX_REPORTS {
            self.reports.pop_front();
        }
        self.reports.push_back(report);
    }

    pub(super) fn lines(&self) -> Vec<ReportLine> {
        self.reports.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(second: i64, status: &str) -> ReportLine {
        let at = Timestamp::from_second(second).unwrap();
        ReportLine { status: Some(status.to_owned()), ..ReportLine::new(at) }
    }

    #[test]
    fn a_report_that_is_repeated_is_one_line_and_the_oldest_lines_go_first() {
        let mut history = History::default();
        for (second, status) in [(1, "PENDING"), (2, "PENDING"), (3, "RUNNING"), (4, "PENDING")] {
            history.note(report(second, status));
        }
        let lines: Vec<_> = history.lines().into_iter().map(|l| (l.at.as_second(), l.times)).collect();
        assert_eq!(lines, [(1, 2), (3, 1), (4, 1)]);
        for second in 10..100 {
            history.note(report(second, &second.to_string()));
        }
        let lines = history.lines();
        assert_eq!((lines.len(), lines[0].at.as_second()), (MAX_REPORTS, 36));
    }
}
