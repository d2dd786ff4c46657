//! The `berth` binary: the node agent, and the command line that operates it.
//!
//! This crate alone sees all others. [`config`] reads the settings, [`wire`] constructs every component, top to bottom in one
//! place, [`backend`] joins the admin API to the owners, [`cli`] is the client.

mod backend;
mod cli;
mod config;
mod identity;
mod logging;
mod notify;
mod wire;

use clap::Parser;
use std::{process::ExitCode, time::Duration};

/// Exit code for settings that cannot be read, and for an agent that must not be restarted: the official agent's, which
/// the unit names in RestartPreventExitStatus.
const EXIT_TERMINAL: u8 = 5;

/// How long blocking work that is still under way may hold up the end of the process.
const BLOCKING_DEADLINE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let command = cli::Cli::parse().command;
    let result = match command {
        cli::Command::Agent { config } => return agent(&config),
        command => runtime(1).and_then(|rt| rt.block_on(cli::run(command))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn agent(file: &std::path::Path) -> ExitCode {
    let config = match config::Config::load(file) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("berth: the settings cannot be read:\n{error}");
            return ExitCode::from(EXIT_TERMINAL);
        }
    };
    logging::init(&config);
    // Two workers: the owners' loops and the metadata endpoint; namespace and journal work has threads of its own.
    let result = runtime(2).and_then(|rt| {
        let result = rt.block_on(wire::agent(config));
        rt.shutdown_timeout(BLOCKING_DEADLINE);
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "agent stopped");
            eprintln!("berth: {error:#}");
            if wire::is_terminal(&error) { ExitCode::from(EXIT_TERMINAL) } else { ExitCode::FAILURE }
        }
    }
}

fn runtime(workers: usize) -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = match workers {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if workers > 1 {
        builder.worker_threads(workers);
    }
    Ok(builder.enable_all().build()?)
}
