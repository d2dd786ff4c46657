//! What RegisterTaskDefinition takes, member by member, as the service's model has it.
//!
//! A table and nothing else: [`super::shape`] reads inputs by it, [`super::check`] says what the model cannot.

use super::shape::{
    Member,
    Shape::{self, Boolean, Integer, List, Structure, Text, Texts, Word},
};

const fn may(name: &'static str, shape: Shape) -> Member {
    Member::new(name, shape)
}

const fn must(name: &'static str, shape: Shape) -> Member {
    Member::required(name, shape)
}

/// Where a definition can run.
pub(super) const COMPATIBILITIES: &[&str] = &["EC2", "FARGATE", "EXTERNAL", "MANAGED_INSTANCES"];
/// Log drivers.
const LOG_DRIVERS: &[&str] =
    &["json-file", "syslog", "journald", "gelf", "fluentd", "awslogs", "splunk", "awsfirelens"];
/// Resource limits.
#[rustfmt::skip]
const ULIMITS: &[&str] = &[
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime",
    "sigpending", "stack",
];
const OPERATING_SYSTEMS: &[&str] = &[
    "WINDOWS_SERVER_2019_FULL",
    "WINDOWS_SERVER_2019_CORE",
    "WINDOWS_SERVER_2016_FULL",
    "WINDOWS_SERVER_2004_CORE",
    "WINDOWS_SERVER_2022_CORE",
    "WINDOWS_SERVER_2022_FULL",
    "WINDOWS_SERVER_2025_CORE",
    "WINDOWS_SERVER_2025_FULL",
    "WINDOWS_SERVER_20H2_CORE",
    "LINUX",
];
const SWITCH: Shape = Word(&["ENABLED", "DISABLED"]);
const TEXT_LIST: Shape = List(&Text);

/// The whole input but its tags, which are no part of the definition.
pub(super) const DEFINITION: &[Member] = &[
    may("family", Text),
    may("taskRoleArn", Text),
    may("executionRoleArn", Text),
    may("networkMode", Word(&["bridge", "host", "awsvpc", "none"])),
    may("containerDefinitions", List(&Structure("Container", CONTAINER))),
    may("volumes", List(&Structure("Volume", VOLUME))),
    may("placementConstraints", List(&Structure("PlacementConstraint", PLACEMENT_CONSTRAINT))),
    may("requiresCompatibilities", List(&Word(COMPATIBILITIES))),
    may("cpu", Text),
    may("memory", Text),
    may("pidMode", Word(&["host", "task"])),
    may("ipcMode", Word(&["host", "task", "none"])),
    may("proxyConfiguration", Structure("ProxyConfiguration", PROXY)),
    may("inferenceAccelerators", List(&Structure("InferenceAccelerator", ACCELERATOR))),
    may("ephemeralStorage", Structure("EphemeralStorage", &[must("sizeInGiB", Integer)])),
    may("runtimePlatform", Structure("RuntimePlatform", PLATFORM)),
    may("enableFaultInjection", Boolean),
    may("trustedExecutionConfiguration", Structure("TrustedExecutionConfiguration", TRUSTED_EXECUTION)),
];

const CONTAINER: &[Member] = &[
    may("name", Text),
    may("image", Text),
    may("repositoryCredentials", Structure("RepositoryCredentials", &[must("credentialsParameter", Text)])),
    may("cpu", Integer),
    may("memory", Integer),
    may("memoryReservation", Integer),
    may("links", TEXT_LIST),
    may("portMappings", List(&Structure("PortMapping", PORT_MAPPING))),
    may("essential", Boolean),
    may("restartPolicy", Structure("RestartPolicy", RESTART_POLICY)),
    may("entryPoint", TEXT_LIST),
    may("command", TEXT_LIST),
    may("environment", List(&Structure("KeyValuePair", KEY_VALUE))),
    may("environmentFiles", List(&Structure("EnvironmentFile", ENVIRONMENT_FILE))),
    may("mountPoints", List(&Structure("MountPoint", MOUNT_POINT))),
    may("volumesFrom", List(&Structure("VolumeFrom", VOLUME_FROM))),
    may("linuxParameters", Structure("LinuxParameters", LINUX_PARAMETERS)),
    may("secrets", List(&Structure("Secret", SECRET))),
    may("dependsOn", List(&Structure("ContainerDependency", DEPENDENCY))),
    may("startTimeout", Integer),
    may("stopTimeout", Integer),
    may("versionConsistency", Word(&["enabled", "disabled"])),
    may("hostname", Text),
    may("user", Text),
    may("workingDirectory", Text),
    may("disableNetworking", Boolean),
    may("privileged", Boolean),
    may("readonlyRootFilesystem", Boolean),
    may("dnsServers", TEXT_LIST),
    may("dnsSearchDomains", TEXT_LIST),
    may("extraHosts", List(&Structure("HostEntry", &[must("hostname", Text), must("ipAddress", Text)]))),
    may("dockerSecurityOptions", TEXT_LIST),
    may("interactive", Boolean),
    may("pseudoTerminal", Boolean),
    may("dockerLabels", Texts),
    may("ulimits", List(&Structure("Ulimit", ULIMIT))),
    may("logConfiguration", Structure("LogConfiguration", LOG_CONFIGURATION)),
    may("healthCheck", Structure("HealthCheck", HEALTH_CHECK)),
    may("systemControls", List(&Structure("SystemControl", &[may("namespace", Text), may("value", Text)]))),
    may("resourceRequirements", List(&Structure("ResourceRequirement", RESOURCE))),
    may("firelensConfiguration", Structure("FirelensConfiguration", FIRELENS)),
    may("credentialSpecs", TEXT_LIST),
];

const PLACEMENT_CONSTRAINT: &[Member] = &[may("type", Word(&["memberOf"])), may("expression", Text)];
const PROXY: &[Member] = &[
    may("type", Word(&["APPMESH"])),
    must("containerName", Text),
    may("properties", List(&Structure("KeyValuePair", KEY_VALUE))),
];
const ACCELERATOR: &[Member] = &[must("deviceName", Text), must("deviceType", Text)];
const PLATFORM: &[Member] = &[
    may("cpuArchitecture", Word(&["X86_64", "ARM64"])),
    may("operatingSystemFamily", Word(OPERATING_SYSTEMS)),
];
const TRUSTED_EXECUTION: &[Member] = &[
    must("isolationMode", Word(&["SHARED", "ISOLATED_SANDBOX", "CONFIDENTIAL_SANDBOX"])),
    may("attestationPolicy", Text),
];

const PORT_MAPPING: &[Member] = &[
    may("containerPort", Integer),
    may("hostPort", Integer),
    may("protocol", Word(&["tcp", "udp"])),
    may("name", Text),
    may("appProtocol", Word(&["http", "http2", "grpc"])),
    may("containerPortRange", Text),
];
const RESTART_POLICY: &[Member] = &[
    must("enabled", Boolean),
    may("ignoredExitCodes", List(&Integer)),
    may("restartAttemptPeriod", Integer),
];
const KEY_VALUE: &[Member] = &[may("name", Text), may("value", Text)];
const ENVIRONMENT_FILE: &[Member] = &[must("value", Text), must("type", Word(&["s3"]))];
const MOUNT_POINT: &[Member] =
    &[may("sourceVolume", Text), may("containerPath", Text), may("readOnly", Boolean)];
const VOLUME_FROM: &[Member] = &[may("sourceContainer", Text), may("readOnly", Boolean)];
const SECRET: &[Member] = &[must("name", Text), must("valueFrom", Text)];
const DEPENDENCY: &[Member] =
    &[must("containerName", Text), must("condition", Word(&["START", "COMPLETE", "SUCCESS", "HEALTHY"]))];
const ULIMIT: &[Member] =
    &[must("name", Word(ULIMITS)), must("softLimit", Integer), must("hardLimit", Integer)];
const LOG_CONFIGURATION: &[Member] = &[
    must("logDriver", Word(LOG_DRIVERS)),
    may("options", Texts),
    may("secretOptions", List(&Structure("Secret", SECRET))),
];
const HEALTH_CHECK: &[Member] = &[
    must("command", TEXT_LIST),
    may("interval", Integer),
    may("timeout", Integer),
    may("retries", Integer),
    may("startPeriod", Integer),
];
const RESOURCE: &[Member] = &[
    may("value", Text),
    must("type", Word(&["GPU", "InferenceAccelerator", "NeuronDevice"])),
    may("sharingStrategy", Structure("SharingStrategy", &[may("nvidiaMps", NVIDIA_MPS)])),
];
const NVIDIA_MPS: Shape =
    Structure("NvidiaMpsAllocation", &[must("memory", Integer), may("maxComputePercent", Integer)]);
const FIRELENS: &[Member] = &[must("type", Word(&["fluentd", "fluentbit"])), may("options", Texts)];

const LINUX_PARAMETERS: &[Member] = &[
    may("capabilities", Structure("KernelCapabilities", &[may("add", TEXT_LIST), may("drop", TEXT_LIST)])),
    may("devices", List(&Structure("Device", DEVICE))),
    may("initProcessEnabled", Boolean),
    may("sharedMemorySize", Integer),
    may("tmpfs", List(&Structure("Tmpfs", TMPFS))),
    may("maxSwap", Integer),
    may("swappiness", Integer),
];
const DEVICE: &[Member] = &[
    must("hostPath", Text),
    may("containerPath", Text),
    may("permissions", List(&Word(&["read", "write", "mknod"]))),
];
const TMPFS: &[Member] =
    &[must("containerPath", Text), must("size", Integer), may("mountOptions", TEXT_LIST)];

const VOLUME: &[Member] = &[
    may("name", Text),
    may("host", Structure("HostVolumeProperties", &[may("sourcePath", Text)])),
    may("dockerVolumeConfiguration", Structure("DockerVolumeConfiguration", DOCKER_VOLUME)),
    may("efsVolumeConfiguration", Structure("EFSVolumeConfiguration", EFS_VOLUME)),
    may("s3filesVolumeConfiguration", Structure("S3FilesVolumeConfiguration", S3_FILES_VOLUME)),
    may(
        "fsxWindowsFileServerVolumeConfiguration",
        Structure("FSxWindowsFileServerVolumeConfiguration", FSX_VOLUME),
    ),
    may("configuredAtLaunch", Boolean),
];
const DOCKER_VOLUME: &[Member] = &[
    may("scope", Word(&["task", "shared"])),
    may("autoprovision", Boolean),
    may("driver", Text),
    may("driverOpts", Texts),
    may("labels", Texts),
];
const EFS_VOLUME: &[Member] = &[
    must("fileSystemId", Text),
    may("rootDirectory", Text),
    may("transitEncryption", SWITCH),
    may("transitEncryptionPort", Integer),
    may(
        "authorizationConfig",
        Structure("EFSAuthorizationConfig", &[may("accessPointId", Text), may("iam", SWITCH)]),
    ),
];
const S3_FILES_VOLUME: &[Member] = &[
    must("fileSystemArn", Text),
    may("rootDirectory", Text),
    may("transitEncryptionPort", Integer),
    may("accessPointArn", Text),
];
const FSX_VOLUME: &[Member] = &[
    must("fileSystemId", Text),
    must("rootDirectory", Text),
    must(
        "authorizationConfig",
        Structure(
            "FSxWindowsFileServerAuthorizationConfig",
            &[must("credentialsParameter", Text), must("domain", Text)],
        ),
    ),
];
