//! What tasks ask: the task metadata endpoint v3 and v4 on a listener in each namespace.
//!
//! ```text
//!  eni manager ──mpsc<ListenerChange>──► listeners ──► connection (hyper) ──► route ──► endpoint ──► answer
//!              ──watch<EniSnapshot>──────────────────────────────────────────────────────┤  slot -> lease holder
//!  engine ─────watch<EngineSnapshot>─────────────────────────────────────────────────────┘  task -> documents (bytes)
//! ```
//!
//! A request is answered for the task that leases the slot whose listener it came through, and for no other: the endpoint id in the
//! path must belong to that very task, else it is an unknown id. There is nothing to spoof, because callers do not say who they
//! are. The wire is that of the official agent; `docs/metadata.md` says route by route what is the same, better, or not served.
//!
//! [`Metadata::run`] spawns on the runtime it is polled on: give it one of its own to keep a flood of requests away from the
//! owners' loops.

mod answer;
mod config;
mod connection;
mod documents;
mod endpoint;
mod gojson;
mod listeners;
mod patience;
mod route;
mod shapes;

#[cfg(test)]
#[path = "../tests/common/sample.rs"]
mod sample;

pub use config::{MetadataConfig, MetadataLimits};

use berth_types::{eni::EniSnapshot, lease::ListenerChange, task::EngineSnapshot};
use endpoint::Sources;
use listeners::Listeners;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// The metadata endpoint of all slots of this agent.
#[derive(Debug)]
pub struct Metadata {
    sources: Sources,
}

impl Metadata {
    /// An endpoint that reads these snapshots and serves nothing yet.
    pub fn new(
        config: MetadataConfig,
        engine: watch::Receiver<Arc<EngineSnapshot>>,
        enis: watch::Receiver<Arc<EniSnapshot>>,
    ) -> Self {
        Self { sources: Sources { config: Arc::new(config), engine, enis } }
    }

    /// Serves on the listeners that `listeners` brings, until `shutdown`. When it returns, every socket is closed.
    pub async fn run(self, listeners: mpsc::Receiver<ListenerChange>, shutdown: CancellationToken) {
        Listeners::new(self.sources).run(listeners, shutdown).await;
    }
}
