//! `vpcbox up` and `vpcbox down`.

use super::{run_file, table};
use crate::{
    config::Config,
    fabric::{Fabric, FabricError},
    serve::{Status, Vpcbox},
};
use anyhow::Context;
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};
use tokio::signal::unix::{SignalKind, signal};

/// How long a running box may take to end: its connections get 5 s, removing hundreds of links takes seconds.
const DOWN_TIMEOUT: Duration = Duration::from_secs(60);
/// How often to look whether it has ended.
const DOWN_POLL: Duration = Duration::from_millis(50);

/// Runs a box in the foreground.
pub(super) async fn up(config: Config, ready_file: Option<&Path>, json: bool) -> anyhow::Result<()> {
    // Before anything is built: a signal that arrives meanwhile must not leave it behind.
    let mut interrupt = signal(SignalKind::interrupt()).context("wait for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
    let keeps_on = ignores_hangup();
    let mut hangup = signal(SignalKind::hangup()).context("wait for SIGHUP")?;
    if let Some(file) = ready_file.filter(|_| Fabric::holder(&config.name).is_none()) {
        // Left by a box that was killed: whoever waits for the file would take it for this one's.
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", file.display()))?;
            }
            _ => {}
        }
    }
    let vpcbox = Vpcbox::up(config).await?;
    let status = vpcbox.status();
    let told = tell(&status, ready_file, json);
    if told.is_ok() {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            // The terminal was closed.
            _ = hangup.recv(), if !keeps_on => {}
        }
    }
    vpcbox.down().await;
    if let Some(file) = ready_file {
        // Nobody may take the file of a box that is gone for one that is ready.
        drop(fs::remove_file(file));
    }
    run_file::remove(&status.name)?;
    told
}

/// Whether the process was started to outlive its terminal (`nohup`). A handler of ours would undo that.
fn ignores_hangup() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // The mask's lowest bit is signal 1.
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

fn tell(status: &Status, ready_file: Option<&Path>, json: bool) -> anyhow::Result<()> {
    run_file::write(status)?;
    if json {
        super::print(&serde_json::to_string(status)?)?;
    } else {
        super::print(&format!("{}\nready; Ctrl-C removes everything", table::status(status)))?;
    }
    ready_file.map_or(Ok(()), |file| run_file::write_whole(file, status))
}

/// Ends a running box, removes what a killed one left. Repeatable.
pub(super) async fn down(name: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + DOWN_TIMEOUT;
    let mut asked = false;
    let removed = loop {
        // Again until it is there to be asked: one that is still coming up has no file yet.
        asked = asked || ask_to_end(name)?;
        match Fabric::remove_leftovers(name).await {
            Err(FabricError::Running(_)) if Instant::now() < deadline => tokio::time::sleep(DOWN_POLL).await,
            other => break other.with_context(|| format!("remove what is left of {name}"))?,
        }
    };
    run_file::remove(name)?;
    if !removed.is_empty() {
        super::print(&format!("removed {}", removed.join(", ")))?;
    }
    super::print(&format!("{name} is down"))
}

/// Asks the box's process to end; whether there was one.
fn ask_to_end(name: &str) -> anyhow::Result<bool> {
    let Some(process) = run_file::find::<run_file::Process>(name)? else { return Ok(false) };
    let pid = i32::try_from(process.pid)?;
    // The process id may have gone to somebody else since the file was written.
    if Fabric::holder(name) != Some(pid) {
        return Ok(false);
    }
    match kill(Pid::from_raw(pid), Signal::SIGTERM) {
        Ok(()) => Ok(true),
        Err(Errno::ESRCH) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("stop process {pid}")),
    }
}
