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
    fs,
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
    let vpcbox = Vpcbox::up(config).await?;
    let status = vpcbox.status();
    let told = tell(&status, ready_file, json);
    if told.is_ok() {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
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

fn tell(status: &Status, ready_file: Option<&Path>, json: bool) -> anyhow::Result<()> {
    run_file::write(status)?;
    if json {
        println!("{}", serde_json::to_string(status)?);
    } else {
        table::print_status(status);
        println!("ready; Ctrl-C removes everything");
    }
    ready_file.map_or(Ok(()), |file| run_file::write_whole(file, status))
}

/// Ends a running box, removes what a killed one left. Repeatable.
pub(super) async fn down(name: &str) -> anyhow::Result<()> {
    if let Some(status) = run_file::find(name)? {
        ask_to_end(&status)?;
    }
    let deadline = Instant::now() + DOWN_TIMEOUT;
    let removed = loop {
        match Fabric::remove_leftovers(name).await {
            Err(FabricError::Running(_)) if Instant::now() < deadline => tokio::time::sleep(DOWN_POLL).await,
            other => break other.with_context(|| format!("remove what is left of {name}"))?,
        }
    };
    run_file::remove(name)?;
    if !removed.is_empty() {
        println!("removed {}", removed.join(", "));
    }
    println!("{name} is down");
    Ok(())
}

/// Asks the box's process to end, if it is still there.
fn ask_to_end(status: &Status) -> anyhow::Result<()> {
    // The process id may have gone to somebody else since the file was written.
    let program = fs::read_to_string(format!("/proc/{}/comm", status.pid)).unwrap_or_default();
    if program.trim() != "vpcbox" {
        return Ok(());
    }
    match kill(Pid::from_raw(i32::try_from(status.pid)?), Signal::SIGTERM) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("stop process {}", status.pid)),
    }
}
