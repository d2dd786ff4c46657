//! The commands: `up`, `down`, `exec`, `status`, `knob`.
//!
//! A running box is found by its name: `up` writes `/run/vpcbox/NAME.json` ([`Status`]), the others read it. Only `up` has a
//! runtime of several threads; `exec` has none at all, because a process must be single-threaded to change its namespace as a
//! whole before it becomes another program.

mod client;
mod ecs;
mod exec;
mod knob;
mod run_file;
mod table;
mod up;

use crate::{config::Config, fabric::filter, serve::Status};
use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use std::{
    ffi::OsString,
    io::{ErrorKind, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};
use tracing_subscriber::EnvFilter;

#[derive(Debug, Parser)]
#[command(
    name = "vpcbox",
    version,
    about = "A VPC in a box: EC2, ECS and IMDS over a fabric of real network devices"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the VPC and serve it until SIGINT or SIGTERM, then remove it
    Up(UpArgs),
    /// Stop a running VPC; remove what a killed one left
    Down(Which),
    /// Run a command in the network namespace of an instance
    Exec {
        #[command(flatten)]
        which: Which,
        /// Id or name of the instance
        instance: String,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Show what there is
    Status {
        #[command(flatten)]
        which: Which,
        /// As JSON, for scripts
        #[arg(long)]
        json: bool,
    },
    /// Make it behave badly: attach-ms=N detach-ms=N link-ms=N read-lag-ms=N call-ms=N link-never=N throttle=N
    /// fail=ACTION:CODE:TIMES fail-after=ACTION:CODE:TIMES lose-reply=ACTION:TIMES (:TIMES may be left out) pull=ENI reset
    Knob {
        #[command(flatten)]
        which: Which,
        /// KEY=VALUE; without any, the knobs are shown as they stand
        knobs: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct UpArgs {
    /// What the VPC is made of
    #[arg(short = 'f', long = "file", value_name = "VPC.TOML")]
    file: PathBuf,
    /// Where to write the status, as JSON, once everything is ready
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Print the status as one line of JSON instead of tables
    #[arg(long)]
    json: bool,
}

/// Which box.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The file that it was made from
    #[arg(short = 'f', long = "file", value_name = "VPC.TOML")]
    file: Option<PathBuf>,
    /// Its name
    #[arg(long)]
    name: Option<String>,
}

impl Which {
    fn name(&self) -> anyhow::Result<String> {
        match (&self.name, &self.file) {
            (Some(name), _) => Ok(name.clone()),
            (None, Some(file)) => Ok(Config::load(file)?.name),
            (None, None) => anyhow::bail!("expected -f VPC.TOML or --name NAME"),
        }
    }
}

/// Runs the command of the process's arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With all its causes on one line, as the agent's logs have it.
            eprintln!("vpcbox: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(args) => {
            let config = Config::load(&args.file)?;
            must_be_root()?;
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
            runtime.context("start the runtime")?.block_on(up::up(
                config,
                args.ready_file.as_deref(),
                args.json,
            ))
        }
        Command::Down(which) => {
            must_be_root()?;
            small_runtime()?.block_on(up::down(&which.name()?))
        }
        Command::Exec { which, instance, command } => {
            must_be_root()?;
            exec::exec(&run_file::read(&which.name()?)?, &instance, &command)
        }
        Command::Status { which, json } => {
            let status = small_runtime()?.block_on(current_status(&which.name()?))?;
            if json {
                print(&serde_json::to_string(&status)?)
            } else {
                let (enis, ecs) = (&status.inventory.enis, &status.inventory.ecs);
                print(&format!("{}\n{}\n\n{}", table::status(&status), table::enis(enis), ecs::table(ecs)))
            }
        }
        Command::Knob { which, knobs } => {
            let status = run_file::read(&which.name()?)?;
            print(&small_runtime()?.block_on(knob::turn(&status, &knobs))?)
        }
    }
}

/// Prints a line or more. A reader that has gone (`| head`) has seen enough: no reason to fail, least of all for `up`.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("write to stdout"),
        _ => Ok(()),
    }
}

/// What a running box says now. The file knows what never changes, the box the rest.
async fn current_status(name: &str) -> anyhow::Result<Status> {
    let written = run_file::read(name)?;
    let body = client::get(&written.endpoint, crate::service::control::STATUS).await?;
    let mut status =
        Status { inventory: serde_json::from_slice(&body).context("read the status")?, ..written.clone() };
    for instance in &mut status.inventory.instances {
        let before = written.inventory.instances.iter().find(|i| i.id == instance.id);
        instance.netns = before.and_then(|i| i.netns.clone());
    }
    // The kernel tells nobody else.
    if nix::unistd::geteuid().is_root() {
        let enis = &mut status.inventory.enis;
        let mut drops = filter::drops(&written.vpc_netns, enis.iter().map(|e| e.id.as_str())).await?;
        for eni in enis {
            eni.drops = drops.remove(&eni.id);
        }
    }
    Ok(status)
}

fn small_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")
}

fn must_be_root() -> anyhow::Result<()> {
    anyhow::ensure!(nix::unistd::geteuid().is_root(), "network namespaces need root: run it through sudo");
    Ok(())
}
