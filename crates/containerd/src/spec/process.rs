//! The process of a container: program, environment, directory, user, capabilities, limits.

use super::{Inputs, ours, path, user};
use crate::error::{Fault, Result};
use berth_types::task::{ContainerSpec, Ulimit};
use oci_spec::runtime::{
    Capabilities, LinuxCapabilitiesBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process,
    ProcessBuilder, UserBuilder,
};

/// Docker's PATH for containers whose image sets none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn build(inputs: &Inputs<'_>, caps: &Capabilities) -> Result<Process> {
    let spec = &*inputs.container.spec;
    let sets = LinuxCapabilitiesBuilder::default()
        .bounding(caps.clone())
        .effective(caps.clone())
        .permitted(caps.clone())
        // Inheritable and ambient capabilities would survive the switch to another user.
        .inheritable(Capabilities::new())
        .ambient(Capabilities::new())
        .build()
        .map_err(ours)?;
    let wanted = spec.user.as_deref().or(inputs.image.user.as_deref()).unwrap_or_default();
    let who = user::resolve(wanted, inputs.passwd, inputs.group).map_err(Fault::Invalid)?;
    let user = UserBuilder::default()
        .uid(who.uid)
        .gid(who.gid)
        .additional_gids(who.additional_gids)
        .build()
        .map_err(ours)?;
    ProcessBuilder::default()
        .terminal(spec.pseudo_terminal)
        .user(user)
        .args(arguments(inputs)?)
        .env(environment(inputs))
        .cwd(path(&directory(inputs)?))
        .capabilities(sets)
        .rlimits(rlimits(spec, inputs)?)
        .no_new_privileges(spec.no_new_privileges)
        // Without it a container would inherit the shim's, which the kernel almost never kills.
        .oom_score_adj(0)
        .build()
        .map_err(ours)
}

/// The command line: a new entry point drops the image's command, a new command does not touch the image's entry point.
fn arguments(inputs: &Inputs<'_>) -> Result<Vec<String>> {
    let spec = &*inputs.container.spec;
    let given = |list: &Option<Vec<String>>| list.clone().filter(|l| !l.is_empty());
    let entry = given(&spec.entry_point);
    let command =
        given(&spec.command).or_else(|| if entry.is_none() { given(&inputs.image.cmd) } else { None });
    let mut args = entry.or_else(|| given(&inputs.image.entrypoint)).unwrap_or_default();
    // `entryPoint: [""]` is Docker's way of saying: none, not even the image's.
    if args.first().is_some_and(String::is_empty) {
        args.clear();
    }
    args.extend(command.unwrap_or_default());
    if args.is_empty() || args.iter().any(|a| a.contains('\0')) {
        return Err(Fault::Invalid(
            "nothing to run: neither the definition nor the image names a program".into(),
        ));
    }
    Ok(args)
}

/// The region is a default: ECS leaves it alone when the task or the image names one under either name.
const REGION: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];

/// Image, then definition, then what the agent injects; the last of a name wins and keeps the place of the first.
fn environment(inputs: &Inputs<'_>) -> Vec<String> {
    let container = inputs.container;
    let mut all: Vec<(String, String)> =
        vec![("PATH".into(), DEFAULT_PATH.into()), ("HOSTNAME".into(), container.hostname.clone())];
    if container.spec.pseudo_terminal {
        all.push(("TERM".into(), "xterm".into()));
    }
    let image = inputs.image.env.iter().flatten().filter_map(|line| line.split_once('='));
    let image: Vec<(String, String)> =
        image.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let own_region = image.iter().any(|(name, _)| REGION.contains(&name.as_str()));
    let injected = container.injected_environment.iter().cloned();
    let rest = image
        .into_iter()
        .chain(container.spec.environment.iter().cloned())
        .chain(injected.filter(|(name, _)| !(own_region && REGION.contains(&name.as_str()))));
    for (name, value) in rest {
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some(entry) => entry.1 = value,
            None => all.push((name, value)),
        }
    }
    all.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// runc makes the directory if it is missing, as Docker does.
fn directory(inputs: &Inputs<'_>) -> Result<String> {
    let spec = &*inputs.container.spec;
    let wanted = spec.working_directory.as_deref().or(inputs.image.working_dir.as_deref());
    match wanted.filter(|d| !d.is_empty()) {
        None => Ok("/".into()),
        Some(dir) if dir.starts_with('/') => Ok(dir.into()),
        Some(dir) => Err(Fault::Invalid(format!("workingDirectory `{dir}` is not an absolute path"))),
    }
}

fn rlimits(spec: &ContainerSpec, inputs: &Inputs<'_>) -> Result<Vec<PosixRlimit>> {
    let mut all = spec.ulimits.iter().map(rlimit).collect::<Result<Vec<_>>>()?;
    if !spec.ulimits.iter().any(|u| u.name == "nofile") {
        let nofile = inputs.host.nofile;
        let ulimit = Ulimit { name: "nofile".into(), soft: nofile.soft, hard: nofile.hard };
        all.push(rlimit(&ulimit)?);
    }
    Ok(all)
}

fn rlimit(ulimit: &Ulimit) -> Result<PosixRlimit> {
    let name = format!("RLIMIT_{}", ulimit.name.to_ascii_uppercase());
    let typ: PosixRlimitType =
        name.parse().map_err(|_| Fault::Invalid(format!("there is no resource limit `{}`", ulimit.name)))?;
    if ulimit.soft > ulimit.hard {
        let text =
            format!("ulimit {}: soft limit {} is above hard limit {}", ulimit.name, ulimit.soft, ulimit.hard);
        return Err(Fault::Invalid(text));
    }
    PosixRlimitBuilder::default().typ(typ).soft(ulimit.soft).hard(ulimit.hard).build().map_err(ours)
}
