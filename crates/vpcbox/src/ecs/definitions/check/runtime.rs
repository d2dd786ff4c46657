//! How a container runs: environment, secrets, logs, health, limits, restarts.

use super::{super::shape::blank, Container, twice};
use crate::ecs::{error::ApiError, input::Input};

/// Environment files of one container: ECS's limit.
const MAX_ENVIRONMENT_FILES: usize = 10;
/// Exit codes that a restart policy may name: ECS's limit.
const MAX_EXIT_CODES: usize = 50;
/// Longest start or stop timeout that ECS keeps, in seconds.
const MAX_TIMEOUT: i64 = 172_800;
#[rustfmt::skip]
const CAPABILITIES: &[&str] = &[
    "ALL", "AUDIT_CONTROL", "AUDIT_WRITE", "BLOCK_SUSPEND", "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID",
    "IPC_LOCK", "IPC_OWNER", "KILL", "LEASE", "LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE", "MKNOD", "NET_ADMIN",
    "NET_BIND_SERVICE", "NET_BROADCAST", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_ADMIN", "SYS_BOOT",
    "SYS_CHROOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO", "SYS_RESOURCE", "SYS_TIME",
    "SYS_TTY_CONFIG", "SYSLOG", "WAKE_ALARM",
];

pub(super) fn check(container: Container<'_>, task: Input<'_>) -> Result<(), ApiError> {
    environment(container)?;
    secrets(container, task)?;
    logs(container)?;
    health(container)?;
    ulimits(container)?;
    linux(container)?;
    restarts(container)
}

fn environment(container: Container<'_>) -> Result<(), ApiError> {
    let mut names = Vec::new();
    for variable in container.input.objects("environment")? {
        let name = variable.text("name")?.filter(|name| !name.is_empty());
        names.push(name.ok_or_else(|| blank("KeyValuePair", "name"))?);
    }
    for secret in container.input.objects("secrets")? {
        names.push(secret.text("name")?.unwrap_or_default());
    }
    let secrets = container.input.list("secrets")?.len();
    // A variable may come twice (the last wins), a secret's name may not.
    let (variables, secrets) = names.split_at(names.len() - secrets);
    let shared = twice(secrets.iter().copied())
        .or_else(|| secrets.iter().copied().find(|secret| variables.contains(secret)));
    if let Some(name) = shared {
        return Err(ApiError::client(format!(
            "The secret name must be unique and not shared with any new or existing environment variables set on the \
             container, such as '{name}'."
        )));
    }
    let files = container.input.objects("environmentFiles")?;
    if files.len() > MAX_ENVIRONMENT_FILES {
        let reason = format!("At most {MAX_ENVIRONMENT_FILES} environment files are allowed.");
        return Err(container.because(&reason));
    }
    for file in files {
        let value = file.text("value")?.unwrap_or_default();
        if !value.starts_with("arn:") || !value.ends_with(".env") {
            let reason =
                format!("Environment file '{value}' must be the ARN of an object whose name ends with .env.");
            return Err(container.because(&reason));
        }
    }
    Ok(())
}

/// Secrets are fetched with the task's execution role, so there must be one.
fn secrets(container: Container<'_>, task: Input<'_>) -> Result<(), ApiError> {
    if task.has("executionRoleArn") {
        return Ok(());
    }
    let log = container.input.object("logConfiguration")?;
    let log = log.map(|log| log.list("secretOptions")).transpose()?.unwrap_or_default();
    let needed = [
        (!container.input.list("secrets")?.is_empty(), "container secrets"),
        (!log.is_empty(), "log configuration secret options"),
        (container.input.has("repositoryCredentials"), "repository credentials"),
    ];
    match needed.iter().find(|(used, _)| *used) {
        None => Ok(()),
        Some((_, what)) => Err(ApiError::client(format!(
            "When you are specifying {what}, you must also specify a value for 'executionRoleArn'."
        ))),
    }
}

fn logs(container: Container<'_>) -> Result<(), ApiError> {
    let Some(log) = container.input.object("logConfiguration")? else { return Ok(()) };
    let options = log.text_map("options")?;
    let needed: &[&str] = match log.text("logDriver")?.unwrap_or_default() {
        "awslogs" => &["awslogs-region", "awslogs-group"],
        "splunk" => &["splunk-url"],
        _ => &[],
    };
    let mut secret = Vec::new();
    for option in log.objects("secretOptions")? {
        secret.push(option.text("name")?.unwrap_or_default());
    }
    let missing = |option: &&&str| !options.contains_key(**option) && !secret.contains(*option);
    let missing: Vec<&str> = needed.iter().filter(missing).copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    let driver = log.text("logDriver")?.unwrap_or_default();
    Err(ApiError::client(format!("Log driver {driver} requires options: {}", missing.join(", "))))
}

/// A log router and the containers that log through it need each other.
pub(super) fn firelens(containers: &[Container<'_>]) -> Result<(), ApiError> {
    let routers = containers.iter().filter(|c| c.input.has("firelensConfiguration")).count();
    let mut users = 0;
    for container in containers {
        let log = container.input.object("logConfiguration")?;
        let driver = log.map(|log| log.text("logDriver")).transpose()?.flatten();
        users += usize::from(driver == Some("awsfirelens"));
    }
    let message = match (routers, users) {
        (0, 0) | (1, 1..) => return Ok(()),
        (0, _) => {
            "When a container is configured with the awsfirelens log driver, one container has to have a \
             firelensConfiguration object."
        }
        (_, 0) => {
            "When a firelensConfiguration object is specified, at least one container has to be configured with the \
             awsfirelens log driver."
        }
        _ => "Only one container can have a firelensConfiguration object.",
    };
    Err(ApiError::client(message))
}

fn health(container: Container<'_>) -> Result<(), ApiError> {
    let Some(health) = container.input.object("healthCheck")? else { return Ok(()) };
    if health.texts("command")?.is_empty() {
        return Err(blank("HealthCheck", "command"));
    }
    container.within(health, "interval", 5..=300)?;
    container.within(health, "timeout", 2..=120)?;
    container.within(health, "retries", 1..=10)?;
    container.within(health, "startPeriod", 0..=300)
}

fn ulimits(container: Container<'_>) -> Result<(), ApiError> {
    let mut names = Vec::new();
    for limit in container.input.objects("ulimits")? {
        let name = limit.text("name")?.unwrap_or_default();
        if limit.integer("softLimit")? > limit.integer("hardLimit")?
            && limit.integer("hardLimit")? != Some(-1)
        {
            let reason =
                format!("The soft limit of ulimit '{name}' must not be greater than its hard limit.");
            return Err(container.because(&reason));
        }
        names.push(name);
    }
    match twice(names) {
        Some(name) => Err(container.because(&format!("Ulimit '{name}' is set more than once."))),
        None => Ok(()),
    }
}

fn linux(container: Container<'_>) -> Result<(), ApiError> {
    let Some(linux) = container.input.object("linuxParameters")? else { return Ok(()) };
    if let Some(capabilities) = linux.object("capabilities")? {
        let all = [capabilities.texts("add")?, capabilities.texts("drop")?].concat();
        if let Some(unknown) = all.iter().find(|name| !CAPABILITIES.contains(name)) {
            return Err(container.because(&format!("Unknown capability '{unknown}'.")));
        }
    }
    container.within(linux, "sharedMemorySize", 0..=i64::from(i32::MAX))?;
    container.within(linux, "maxSwap", 0..=i64::from(i32::MAX))?;
    container.within(linux, "swappiness", 0..=100)?;
    if linux.has("maxSwap") && !container.input.has("memory") {
        return Err(container.because("'maxSwap' requires 'memory'."));
    }
    for tmpfs in linux.objects("tmpfs")? {
        container.within(tmpfs, "size", 1..=i64::from(i32::MAX))?;
    }
    Ok(())
}

fn restarts(container: Container<'_>) -> Result<(), ApiError> {
    container.within(container.input, "startTimeout", 0..=MAX_TIMEOUT)?;
    container.within(container.input, "stopTimeout", 0..=MAX_TIMEOUT)?;
    let Some(policy) = container.input.object("restartPolicy")? else { return Ok(()) };
    container.within(policy, "restartAttemptPeriod", 60..=1800)?;
    if policy.list("ignoredExitCodes")?.len() > MAX_EXIT_CODES {
        let reason = format!("At most {MAX_EXIT_CODES} ignored exit codes are allowed.");
        return Err(container.because(&reason));
    }
    Ok(())
}
