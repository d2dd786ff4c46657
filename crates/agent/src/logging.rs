//! The agent's own log: to standard error, where systemd's journal takes it.

use crate::config::Config;
use tracing_subscriber::{EnvFilter, fmt, prelude::*};

/// Starts logging. `BERTH_LOG` takes a filter (`berth_eni=debug`) for those who look for something.
pub(crate) fn init(config: &Config) {
    let default = format!(
        "warn,berth={level},berth_eni={level},berth_engine={level},berth_netns={level},berth_containerd={level},berth_ec2={level},berth_metadata={level},berth_admin={level},berth_store={level},berth_ecs={level}",
        level = config.log_level
    );
    let filter = std::env::var("BERTH_LOG")
        .ok()
        .and_then(|f| EnvFilter::try_new(f).ok())
        .unwrap_or_else(|| EnvFilter::new(default));
    let layer = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    let registry = tracing_subscriber::registry().with(filter);
    if config.log_json {
        registry.with(layer.json()).init();
    } else {
        registry.with(layer).init();
    }
}
