//! The link watcher: the links of the agent's own namespace, published on a `watch` as they come and go.
//!
//! ```text
//!  kernel ──RTNLGRP_LINK──► "something changed" ──► dump ──► watch<Arc<LinkTable>>
//!                   30 s tick ─────────────────────┘
//! ```
//!
//! A notification is only a reason to look: what is published comes from a dump, always. So a lost notification costs at most a tick, an
//! overrun of the socket is no special case, and a burst of notifications ends in one dump. The subscription comes before the first dump,
//! else a link could arrive unseen between the two. Notification and dump have a socket each: an overrun would lose the answers of a dump on
//! the same one. A dump costs 24 us with few links and 7 ms with 200.

use crate::{
    kernel,
    ns::{Netns, NsError},
};
use berth_types::{Chain, eni::LinkTable};
use futures::{FutureExt, StreamExt};
use rtnetlink::MulticastGroup;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The longest that a lost notification can cost.
const TICK: Duration = Duration::from_secs(30);

/// Pause before the sockets are opened anew after one of them failed, which has no known cause: slow enough not to spin.
const REOPEN: Duration = Duration::from_secs(1);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error("open the link watcher's sockets")]
    Open(#[source] NsError),
    #[error("dump the links")]
    Dump(#[source] rtnetlink::Error),
    #[error("the link notifications ended")]
    Ended,
}

/// Starts the watcher; the receiver holds the links of the first dump, or nothing if that failed.
pub(crate) async fn start(
    home: Netns,
    tracker: &TaskTracker,
    stop: CancellationToken,
) -> watch::Receiver<Arc<LinkTable>> {
    let (publish, links) = watch::channel(Arc::new(LinkTable::new()));
    let mut first = links.clone();
    tracker.spawn(async move { follow(&home, &publish, &stop).await });
    // Marked as changed by the first dump, or closed by a stop: in both cases there is nothing more to wait for.
    drop(tokio::time::timeout(REOPEN, first.changed()).await);
    links
}

async fn follow(home: &Netns, publish: &watch::Sender<Arc<LinkTable>>, stop: &CancellationToken) {
    while let Some(Err(error)) = stop.run_until_cancelled(session(home, publish)).await {
        tracing::warn!(error = %Chain(&error), "link watcher starts anew");
        if stop.run_until_cancelled(sleep(REOPEN)).await.is_none() {
            return;
        }
    }
}

/// Follows the links until a socket fails. May be dropped at any await: it holds nothing but its sockets.
async fn session(home: &Netns, publish: &watch::Sender<Arc<LinkTable>>) -> Result<(), WatchError> {
    let mut changes = home.netlink_with(&[MulticastGroup::Link]).map_err(WatchError::Open)?;
    let dump = home.netlink().map_err(WatchError::Open)?;
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut first = true;
    loop {
        // Both arms are cancel-safe: a stream's next and a timer's tick lose nothing.
        tokio::select! {
            change = changes.events.next() => { change.ok_or(WatchError::Ended)?; }
            _ = tick.tick() => {}
        }
        // Whatever else has come in is answered by the same dump.
        while let Some(Some(_)) = changes.events.next().now_or_never() {}
        let table = kernel::table(kernel::links(&dump).await.map_err(WatchError::Dump)?);
        publish.send_if_modified(|now| {
            let changed = std::mem::take(&mut first) || **now != table;
            if changed {
                *now = Arc::new(table);
            }
            changed
        });
    }
}
