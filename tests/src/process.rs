//! Child processes with a log file each, and waiting for a state with a deadline.

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How often a state is looked at while it is waited for.
const POLL: Duration = Duration::from_millis(20);

/// A child process of the lab. Dropped, it is killed: what must outlive the lab is swept by directory instead.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// What it printed.
    pub log: PathBuf,
}

impl Process {
    /// Starts a command with its output appended to `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("open {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("start {name}: {command:?}"))?;
        Ok(Self { name: name.into(), child, log: log.into() })
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its exit code when it has ended (128+N for signal N).
    pub fn ended(&mut self) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt;
        let status = self.child.try_wait().ok().flatten()?;
        status.code().or_else(|| status.signal().map(|s| 128 + s))
    }

    /// Sends a signal and waits for the end.
    pub fn end(&mut self, signal: Signal, deadline: Duration) -> Result<i32> {
        if self.ended().is_none() {
            kill(Pid::from_raw(self.child.id().cast_signed()), signal)
                .with_context(|| format!("signal {}", self.name))?;
        }
        let what = format!("{} to end after {signal}", self.name);
        eventually(&what, deadline, || Ok(self.ended()))
    }

    /// The end of its log, for an error's text.
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// An error if it has ended.
    pub fn must_run(&mut self) -> Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(code) => Err(anyhow::Error::new(Ended {
                name: self.name.clone(),
                code,
                log: self.log.clone(),
                tail: self.tail(),
            })),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// A process ended that was to go on: there is no use in waiting for what it should bring.
#[derive(Debug)]
struct Ended {
    name: String,
    code: i32,
    log: PathBuf,
    tail: String,
}

impl std::error::Error for Ended {}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ended with {}; the end of {}:\n{}", self.name, self.code, self.log.display(), self.tail)
    }
}

/// Looks again until there is an answer, or fails with what it waited for.
pub fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let failure = match look() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => None,
            Err(error) if error.is::<Ended>() => return Err(error.context(format!("wait for {what}"))),
            Err(error) => Some(error),
        };
        if start.elapsed() > deadline {
            let waited = format!("waited {deadline:?} for {what}");
            return Err(match failure {
                Some(error) => error.context(waited),
                None => anyhow::anyhow!(waited),
            });
        }
        std::thread::sleep(POLL);
    }
}

/// Runs a command to its end; fails with its error output.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{command:?} failed ({}): {}{}",
            output.status,
            text.trim(),
            String::from_utf8_lossy(&output.stdout).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A program of this workspace: beside the test's or demo's own binary.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("find the own program")?;
    let found = own.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.with_context(|| {
        format!("no program `{name}` beside {}; build the workspace first (make build)", own.display())
    })
}
