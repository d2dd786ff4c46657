//! `vpcbox exec`: becomes a command in the network namespace of an instance.
//!
//! `ip netns exec` would also make a new mount namespace, in which nothing that the command mounts (an agent's namespaces under
//! /run/netns above all) can be seen from outside. Here only the network namespace changes.

use crate::serve::Status;
use anyhow::Context;
use nix::sched::{CloneFlags, setns};
use std::{ffi::OsString, fs::File, os::unix::process::CommandExt, process::Command};

/// Comes back only with an error.
pub(super) fn exec(status: &Status, instance: &str, command: &[OsString]) -> anyhow::Result<()> {
    let all = &status.inventory.instances;
    let known = || all.iter().map(|i| format!("{} ({})", i.id, i.name)).collect::<Vec<_>>().join(", ");
    let found = all.iter().find(|i| i.id == instance || i.name == instance);
    let found = found.with_context(|| format!("no instance {instance}, expected one of {}", known()))?;
    let netns = found.netns.as_ref().with_context(|| format!("the namespace of {instance} is not known"))?;
    let (program, arguments) = command.split_first().context("expected a command")?;
    let file =
        File::open(netns).with_context(|| format!("open {}: is {} up?", netns.display(), status.name))?;
    #[expect(
        clippy::disallowed_methods,
        reason = "no runtime here: the only thread of the process becomes the command"
    )]
    setns(&file, CloneFlags::CLONE_NEWNET).with_context(|| format!("enter {}", netns.display()))?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("run {}", program.display()))
}
