//! The command line: `berth agent` is the node agent itself, everything else is a client of its admin API.

mod client;
mod commands;
mod show;

pub(crate) use commands::run;

use berth_types::ids::{SecurityGroupId, SubnetId};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// A node agent that gives every ECS task its own ENI in its own network namespace.
#[derive(Debug, Parser)]
#[command(name = "berth", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the node agent in the foreground
    Agent {
        /// Settings as KEY=VALUE lines; the file of the official agent will do
        #[arg(long, value_name = "FILE", default_value = "/etc/ecs/ecs.config")]
        config: PathBuf,
    },
    /// Run a task definition (the JSON that `aws ecs register-task-definition --cli-input-json` takes)
    Run(RunArgs),
    /// List tasks
    Tasks(ClientArgs),
    /// Show one task in full
    Inspect(TaskArgs),
    /// Stop a task
    Stop(StopArgs),
    /// Forget a stopped task: its record, volumes and logs
    Rm(TaskArgs),
    /// Print the output of a task's containers
    Logs(LogsArgs),
    /// List the ENIs of the pool
    Enis(ClientArgs),
    /// List finished slots: namespace, ENI, addresses, lease
    Slots(ClientArgs),
    /// Show the warm pool, or resize it
    Pool(PoolArgs),
    /// Show the instance, its place in the cluster, and how the agent is
    Status(ClientArgs),
    /// Show what happened lately; with --follow also what happens
    Events(EventsArgs),
    /// Take no new tasks from the cluster; those that run go on
    Drain(DrainArgs),
    /// List images, and pulls that are under way or over
    Images(ClientArgs),
    /// Import an image into containerd, or remove one
    Image {
        #[command(subcommand)]
        command: ImageCommand,
    },
}

/// Where the agent is, and how to print.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClientArgs {
    /// The agent's admin socket
    #[arg(long, value_name = "PATH", env = "BERTH_ADMIN_SOCKET", default_value = "/run/berth/admin.sock")]
    socket: PathBuf,
    /// Print JSON for scripts
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TaskArgs {
    /// A task's id, the beginning of one, or its ARN
    task: String,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The task definition; `-` is standard input
    file: PathBuf,
    /// A subnet other than the pool's
    #[arg(long, value_name = "SUBNET")]
    subnet: Option<SubnetId>,
    /// A security group other than the pool's; may be repeated
    #[arg(long = "security-group", value_name = "GROUP")]
    security_groups: Vec<SecurityGroupId>,
    /// Do not wait until the task runs
    #[arg(long)]
    detach: bool,
    /// Seconds to wait until the task runs
    #[arg(long, value_name = "SECONDS", default_value_t = 240)]
    timeout: u64,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// A task's id, the beginning of one, or its ARN
    task: String,
    /// Shown as the task's stopped reason
    #[arg(long, default_value = "Task stopped by operator")]
    reason: String,
    /// Do not wait until the task has stopped
    #[arg(long)]
    detach: bool,
    /// Seconds to wait until the task has stopped
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// A task's id, the beginning of one, or its ARN
    task: String,
    /// Only this container's output
    #[arg(long)]
    container: Option<String>,
    /// At most so many lines, the newest
    #[arg(long, default_value_t = 100)]
    tail: usize,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PoolArgs {
    /// Keep so many slots warm, until the agent restarts
    #[arg(long)]
    warm: Option<u32>,
    /// Hold at most so many ENIs, until the agent restarts
    #[arg(long)]
    max: Option<u32>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Go on with what happens, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Only events after the one with this number
    #[arg(long, value_name = "SEQ")]
    after: Option<u64>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// Take tasks again
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Import an archive as `docker save`, `ctr image export` or `skopeo` write it
    Import {
        /// The archive
        file: PathBuf,
        /// Name of the image; the archive's own unless given
        #[arg(long, value_name = "REFERENCE")]
        name: Option<String>,
        /// The agent's settings: they say where containerd is
        #[arg(long, value_name = "FILE", default_value = "/etc/ecs/ecs.config")]
        config: PathBuf,
        /// Print JSON for scripts
        #[arg(long)]
        json: bool,
    },
    /// Remove an image that no container is made of
    Rm {
        /// Its name, as `berth images` shows it or as a task definition has it
        name: String,
        #[command(flatten)]
        client: ClientArgs,
    },
}
