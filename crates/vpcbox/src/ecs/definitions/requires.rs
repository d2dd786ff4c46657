//! What a definition requires of the instance that runs it (`requiresAttributes`), and where it could run (`compatibilities`).
//!
//! The attributes are those that agents register as their capabilities; a task is placed where all of them are.

use super::check;
use crate::ecs::{error::ApiError, input::Input};
use std::collections::BTreeSet;

/// Capabilities of Docker's time.
const DOCKER: &str = "com.amazonaws.ecs.capability.";
/// Later capabilities.
const ECS: &str = "ecs.capability.";

/// Names of attributes.
type Names = BTreeSet<String>;

/// The attributes that a definition requires, sorted.
pub(super) fn attributes(task: Input<'_>) -> Result<Vec<String>, ApiError> {
    let mut names = Names::new();
    of_task(task, &mut names)?;
    for container in task.objects("containerDefinitions")? {
        of_container(container, &mut names)?;
        of_image_and_logs(container, task.has("executionRoleArn"), &mut names)?;
        of_secrets(container, &mut names)?;
    }
    for volume in task.objects("volumes")? {
        of_volume(volume, &mut names)?;
    }
    Ok(names.into_iter().collect())
}

/// Where a definition could run.
pub(super) fn compatibilities(task: Input<'_>) -> Result<Vec<&'static str>, ApiError> {
    let mut all = vec!["EC2"];
    if task.text("networkMode")? != Some("awsvpc") {
        all.insert(0, "EXTERNAL");
    }
    if check::fits_fargate(task) {
        all.push("FARGATE");
    }
    Ok(all)
}

/// Whether an image comes from Amazon's own registry, for which there are credentials.
pub(super) fn from_ecr(image: &str) -> bool {
    let host = image.split('/').next().unwrap_or_default();
    host.contains(".dkr.ecr.") && host.contains(".amazonaws.com")
}

fn ecs(names: &mut Names, capability: &str) {
    names.insert(format!("{ECS}{capability}"));
}

fn docker(names: &mut Names, capability: &str) {
    names.insert(format!("{DOCKER}{capability}"));
}

/// The version of Docker's API that brought a feature.
fn api(names: &mut Names, minor: u32) {
    docker(names, &format!("docker-remote-api.1.{minor}"));
}

fn of_task(task: Input<'_>, names: &mut Names) -> Result<(), ApiError> {
    let mode = task.text("networkMode")?;
    if mode == Some("awsvpc") {
        ecs(names, "task-eni");
        api(names, 18);
    }
    if task.has("taskRoleArn") {
        docker(names, if mode == Some("host") { "task-iam-role-network-host" } else { "task-iam-role" });
        api(names, 19);
    }
    if task.has("pidMode") || task.has("ipcMode") {
        ecs(names, "pid-ipc-namespace-sharing");
    }
    if task.has("proxyConfiguration") {
        ecs(names, "aws-appmesh");
    }
    if task.boolean("enableFaultInjection")? == Some(true) {
        ecs(names, "fault-injection");
    }
    Ok(())
}

fn of_container(container: Input<'_>, names: &mut Names) -> Result<(), ApiError> {
    let some = |member: &str| Ok::<_, ApiError>(!container.list(member)?.is_empty());
    if some("dependsOn")? || container.has("startTimeout") || container.has("stopTimeout") {
        ecs(names, "container-ordering");
    }
    if container.has("healthCheck") {
        ecs(names, "container-health-check");
        api(names, 24);
    }
    if container.object("healthCheck")?.is_some_and(|health| health.has("startPeriod")) {
        api(names, 29);
    }
    if container.boolean("privileged")? == Some(true) {
        docker(names, "privileged-container");
    }
    if container.object("restartPolicy")?.map(|p| p.boolean("enabled")).transpose()?.flatten() == Some(true) {
        ecs(names, "container-restart-policy");
    }
    if container.objects("portMappings")?.iter().any(|mapping| mapping.has("containerPortRange")) {
        ecs(names, "network.container-port-range");
    }
    if some("environmentFiles")? {
        ecs(names, "env-files.s3");
    }
    if container.has("memoryReservation") {
        api(names, 21);
    }
    if some("ulimits")? {
        api(names, 18);
    }
    if some("systemControls")? {
        api(names, 24);
    }
    if let Some(linux) = container.object("linuxParameters")? {
        if linux.has("sharedMemorySize") || linux.has("tmpfs") {
            api(names, 22);
        }
        if linux.boolean("initProcessEnabled")? == Some(true) {
            api(names, 25);
        }
    }
    for option in container.texts("dockerSecurityOptions")? {
        match option.split([':', '=']).next() {
            Some("label") => docker(names, "selinux"),
            Some("apparmor") => docker(names, "apparmor"),
            _ => {}
        }
    }
    Ok(())
}

fn of_image_and_logs(container: Input<'_>, role: bool, names: &mut Names) -> Result<(), ApiError> {
    if from_ecr(container.text("image")?.unwrap_or_default()) {
        docker(names, "ecr-auth");
        api(names, 19);
        if role {
            ecs(names, "execution-role-ecr-pull");
        }
    }
    if container.has("repositoryCredentials") {
        ecs(names, "private-registry-authentication.secretsmanager");
    }
    if let Some(router) = container.object("firelensConfiguration")? {
        ecs(names, &format!("firelens.{}", router.text("type")?.unwrap_or_default()));
        match router.text_map("options")?.get("config-file-type") {
            Some(&"s3") => ecs(names, "firelens.options.config.s3"),
            Some(&"file") => ecs(names, "firelens.options.config.file"),
            _ => {}
        }
    }
    let Some(log) = container.object("logConfiguration")? else { return Ok(()) };
    let driver = log.text("logDriver")?.unwrap_or_default();
    docker(names, &format!("logging-driver.{driver}"));
    match driver {
        "awslogs" => api(names, 19),
        "json-file" | "syslog" => api(names, 18),
        "journald" | "gelf" | "fluentd" => api(names, 20),
        "splunk" => api(names, 22),
        _ => {}
    }
    if driver == "awslogs" && role {
        ecs(names, "execution-role-awslogs");
    }
    Ok(())
}

/// Secrets come from Secrets Manager when the ARN says so, else from the parameter store.
fn of_secrets(container: Input<'_>, names: &mut Names) -> Result<(), ApiError> {
    let log = container.object("logConfiguration")?;
    let log = log.map(|log| log.objects("secretOptions")).transpose()?.unwrap_or_default();
    let sources = [(container.objects("secrets")?, "environment-variables"), (log, "bootstrap.log-driver")];
    for (secrets, target) in sources {
        for secret in secrets {
            let from = secret.text("valueFrom")?.unwrap_or_default();
            let store = if from.contains(":secretsmanager:") { "asm" } else { "ssm" };
            ecs(names, &format!("secrets.{store}.{target}"));
        }
    }
    Ok(())
}

fn of_volume(volume: Input<'_>, names: &mut Names) -> Result<(), ApiError> {
    if let Some(configuration) = volume.object("dockerVolumeConfiguration")? {
        let driver = configuration.text("driver")?.unwrap_or("local");
        ecs(names, &format!("docker-plugin.{}", driver.replace(':', ".")));
        api(names, 25);
    }
    if let Some(efs) = volume.object("efsVolumeConfiguration")? {
        ecs(names, "efs");
        api(names, 25);
        if efs.has("authorizationConfig") || efs.text("transitEncryption")? == Some("ENABLED") {
            ecs(names, "efsAuth");
        }
    }
    if volume.has("s3filesVolumeConfiguration") {
        ecs(names, "storage.s3-files");
    }
    if volume.boolean("configuredAtLaunch")? == Some(true) {
        ecs(names, "storage.ebs-task-volume-attach");
    }
    Ok(())
}
