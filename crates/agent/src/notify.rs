//! What systemd is told: READY once recovery is over, STATUS, and the watchdog's beat while the owners publish.

use berth_types::{eni::EniSnapshot, task::EngineSnapshot};
use sd_notify::NotifyState;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

/// A beat when systemd names no watchdog: nothing is sent, the loop only waits for the end.
const IDLE: Duration = Duration::from_secs(3600);

/// Says READY when both owners have taken over what was there, then keeps the watchdog fed until the shutdown.
pub(crate) async fn ready(
    mut engine: watch::Receiver<Arc<EngineSnapshot>>,
    mut enis: watch::Receiver<Arc<EniSnapshot>>,
    begin: Instant,
    shutdown: CancellationToken,
) {
    let recovered = async {
        // An owner that is gone ends the agent through its own task.
        let pool = enis.wait_for(|s| s.recovered).await.is_ok();
        let both = engine.wait_for(|s| s.recovered).await.is_ok() && pool;
        let tasks = engine.borrow().tasks.len();
        info!(tasks, millis = begin.elapsed().as_millis(), recovered = both, "ready");
        say(&[NotifyState::Ready, NotifyState::Status(&format!("{tasks} tasks taken over"))]);
    };
    let beat = sd_notify::watchdog_enabled().map_or(IDLE, |limit| limit / 3);
    tokio::select! {
        // Cut off by the shutdown only, when READY no longer matters.
        () = recovered => {}
        () = shutdown.cancelled() => return,
    }
    loop {
        tokio::select! {
            // Both are cancel-safe: neither holds anything.
            () = tokio::time::sleep(beat) => say(&[NotifyState::Watchdog]),
            () = shutdown.cancelled() => break,
        }
    }
    say(&[NotifyState::Stopping]);
}

fn say(state: &[NotifyState<'_>]) {
    // Without systemd there is no socket, and that is fine.
    if let Err(error) = sd_notify::notify(state) {
        debug!(%error, "systemd was not told");
    }
}
