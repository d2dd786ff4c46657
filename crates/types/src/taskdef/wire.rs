//! The form of `RegisterTaskDefinition`'s input. An unknown field is an error, as it is for the AWS CLI. Fields that Berth does not act
//! on are read as [`Value`], so that [`super::check`] can refuse those that would change what runs.

use super::json::Object;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// A task definition as a user writes it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaskDefinition {
    pub(super) family: String,
    pub(super) container_definitions: Vec<Object<ContainerDefinition>>,
    pub(super) network_mode: Option<String>,
    pub(super) volumes: Option<Vec<Object<Volume>>>,
    pub(super) cpu: Option<String>,
    pub(super) memory: Option<String>,
    pub(super) task_role_arn: Option<String>,
    pub(super) execution_role_arn: Option<String>,
    pub(super) pid_mode: Option<String>,
    pub(super) ipc_mode: Option<String>,
    pub(super) enable_fault_injection: Option<bool>,
    pub(super) runtime_platform: Option<Object<RuntimePlatform>>,
    pub(super) proxy_configuration: Option<Value>,
    pub(super) inference_accelerators: Option<Vec<Value>>,
    // Never written by a user: `super::parse_described` takes it from what ECS answers.
    #[serde(skip)]
    pub(super) revision: Option<u64>,
    // For the control plane alone: they do not change what runs here.
    #[serde(rename = "placementConstraints")]
    _placement_constraints: Option<Vec<Value>>,
    #[serde(rename = "requiresCompatibilities")]
    _requires_compatibilities: Option<Vec<String>>,
    #[serde(rename = "tags")]
    _tags: Option<Vec<Object<Tag>>>,
    #[serde(rename = "ephemeralStorage")]
    _ephemeral_storage: Option<Value>,
}

impl TaskDefinition {
    /// The family, not yet checked.
    pub fn family(&self) -> &str {
        &self.family
    }

    /// The revision that ECS gave it; `None` for one that was not read from an answer of ECS.
    pub fn revision(&self) -> Option<u64> {
        self.revision
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Tag {
    #[serde(rename = "key")]
    _key: String,
    #[serde(rename = "value")]
    _value: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RuntimePlatform {
    pub(super) cpu_architecture: Option<String>,
    pub(super) operating_system_family: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Volume {
    pub(super) name: String,
    pub(super) host: Option<Object<HostVolume>>,
    pub(super) docker_volume_configuration: Option<Value>,
    pub(super) efs_volume_configuration: Option<Value>,
    pub(super) fsx_windows_file_server_volume_configuration: Option<Value>,
    pub(super) s3files_volume_configuration: Option<Value>,
    pub(super) configured_at_launch: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct HostVolume {
    pub(super) source_path: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ContainerDefinition {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) essential: Option<bool>,
    pub(super) cpu: Option<i64>,
    pub(super) memory: Option<i64>,
    pub(super) memory_reservation: Option<i64>,
    pub(super) entry_point: Option<Vec<String>>,
    pub(super) command: Option<Vec<String>>,
    pub(super) environment: Option<Vec<Object<KeyValue>>>,
    pub(super) working_directory: Option<String>,
    pub(super) user: Option<String>,
    pub(super) readonly_root_filesystem: Option<bool>,
    pub(super) privileged: Option<bool>,
    pub(super) linux_parameters: Option<Object<LinuxParameters>>,
    pub(super) ulimits: Option<Vec<Object<Ulimit>>>,
    pub(super) mount_points: Option<Vec<Object<MountPoint>>>,
    pub(super) port_mappings: Option<Vec<Object<PortMapping>>>,
    pub(super) depends_on: Option<Vec<Object<DependsOn>>>,
    pub(super) start_timeout: Option<i64>,
    pub(super) stop_timeout: Option<i64>,
    pub(super) log_configuration: Option<Object<LogConfiguration>>,
    pub(super) docker_labels: Option<BTreeMap<String, String>>,
    pub(super) docker_security_options: Option<Vec<String>>,
    pub(super) pseudo_terminal: Option<bool>,
    pub(super) restart_policy: Option<Object<RestartPolicy>>,
    pub(super) interactive: Option<bool>,
    pub(super) disable_networking: Option<bool>,
    pub(super) health_check: Option<Value>,
    pub(super) volumes_from: Option<Vec<Value>>,
    pub(super) environment_files: Option<Vec<Value>>,
    pub(super) secrets: Option<Vec<Value>>,
    pub(super) repository_credentials: Option<Value>,
    pub(super) links: Option<Vec<String>>,
    pub(super) hostname: Option<String>,
    pub(super) dns_servers: Option<Vec<String>>,
    pub(super) dns_search_domains: Option<Vec<String>>,
    pub(super) extra_hosts: Option<Vec<Value>>,
    pub(super) system_controls: Option<Vec<Value>>,
    pub(super) resource_requirements: Option<Vec<Value>>,
    pub(super) firelens_configuration: Option<Value>,
    pub(super) credential_specs: Option<Vec<String>>,
    // The control plane turns it into a digest; it changes nothing here.
    #[serde(rename = "versionConsistency")]
    _version_consistency: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct KeyValue {
    pub(super) name: String,
    pub(super) value: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RestartPolicy {
    pub(super) enabled: bool,
    #[serde(rename = "ignoredExitCodes")]
    _ignored_exit_codes: Option<Vec<i64>>,
    #[serde(rename = "restartAttemptPeriod")]
    _restart_attempt_period: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LinuxParameters {
    pub(super) capabilities: Option<Object<Capabilities>>,
    pub(super) devices: Option<Vec<Value>>,
    pub(super) init_process_enabled: Option<bool>,
    pub(super) shared_memory_size: Option<i64>,
    pub(super) tmpfs: Option<Vec<Object<Tmpfs>>>,
    pub(super) max_swap: Option<i64>,
    pub(super) swappiness: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Capabilities {
    pub(super) add: Option<Vec<String>>,
    pub(super) drop: Option<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Tmpfs {
    pub(super) container_path: String,
    pub(super) size: i64,
    pub(super) mount_options: Option<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Ulimit {
    pub(super) name: String,
    pub(super) soft_limit: i64,
    pub(super) hard_limit: i64,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct MountPoint {
    pub(super) source_volume: Option<String>,
    pub(super) container_path: Option<String>,
    pub(super) read_only: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PortMapping {
    pub(super) container_port: Option<i64>,
    pub(super) host_port: Option<i64>,
    pub(super) protocol: Option<String>,
    pub(super) container_port_range: Option<String>,
    // Names for Service Connect: nothing here reads them.
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(rename = "appProtocol")]
    _app_protocol: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DependsOn {
    pub(super) container_name: String,
    pub(super) condition: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LogConfiguration {
    pub(super) log_driver: String,
    pub(super) options: Option<BTreeMap<String, String>>,
    pub(super) secret_options: Option<Vec<Value>>,
}
