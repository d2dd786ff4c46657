//! The agent's settings: `KEY=VALUE` lines as in `/etc/ecs/ecs.config`, the official agent's names where it has one, `BERTH_` names for
//! the rest. The environment wins over the file.
//!
//! A value that cannot be read is an error that names the key, where it stands and what was expected; all of them are reported at
//! once. A secret is never repeated, neither in an error nor in a log. [`source`] reads the lines, [`value`] the forms of values; a
//! module for each group of settings says what there is.

mod cluster;
mod images;
mod places;
mod pool;
mod source;
mod value;

pub(crate) use cluster::{ClusterSettings, ControlPlane};
pub(crate) use images::ImageSettings;
pub(crate) use places::{ContainerdSettings, Paths};
pub(crate) use pool::Pool;
pub(crate) use source::{Source, read};

use berth_types::ids::ClusterName;
use source::Below;
use std::{fmt, path::Path, time::Duration};

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    /// `ECS_CLUSTER`, a name or an ARN.
    pub(crate) cluster: String,
    /// Its short name.
    pub(crate) cluster_name: ClusterName,
    /// The control plane, and what it is told of this instance.
    pub(crate) control: ClusterSettings,
    /// `AWS_DEFAULT_REGION` or `AWS_REGION`; from IMDS unless set.
    pub(crate) region: Option<String>,
    pub(crate) stop_timeout: Duration,
    pub(crate) cleanup_wait: Duration,
    pub(crate) disable_az: bool,
    pub(crate) pool: Pool,
    pub(crate) paths: Paths,
    pub(crate) containerd: ContainerdSettings,
    pub(crate) images: ImageSettings,
    /// `BERTH_EC2_ENDPOINT`: where EC2 is, for the box.
    pub(crate) ec2_endpoint: Option<String>,
    /// `BERTH_IMDS_ENDPOINT`: where IMDS is, for tests.
    pub(crate) imds_endpoint: Option<String>,
    /// `ECS_LOGLEVEL`.
    pub(crate) log_level: tracing::Level,
    /// `ECS_LOG_OUTPUT_FORMAT` is `json`.
    pub(crate) log_json: bool,
    /// Settings of the official agent that were given and that Berth does not act on.
    pub(crate) unused: Vec<String>,
    /// What was taken, but not as it stands there: logged once at start.
    pub(crate) warnings: Vec<String>,
}

/// Everything that is wrong with the settings, a line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) struct ConfigError(pub(crate) Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl Config {
    /// Reads the settings from a file and the environment.
    pub(crate) fn load(file: &Path) -> Result<Self, ConfigError> {
        let source = read(Some(file), std::env::vars_os())?;
        Self::from_source(source)
    }

    /// Reads the settings out of their texts.
    pub(crate) fn from_source(mut s: Source) -> Result<Self, ConfigError> {
        let cluster = s.text("ECS_CLUSTER").unwrap_or_else(|| "default".into());
        let cluster_name = s.check("ECS_CLUSTER", value::cluster(&cluster));
        let control = cluster::read(&mut s);
        let pool = pool::read(&mut s);
        let paths = places::paths(&mut s);
        let containerd = places::containerd(&mut s);
        let images = images::read(&mut s, &containerd.root);
        let region = s.text("AWS_DEFAULT_REGION").or_else(|| s.text("AWS_REGION"));
        let seconds = Duration::from_secs;
        let stop_timeout =
            s.official_duration("ECS_CONTAINER_STOP_TIMEOUT", seconds(30), seconds(1), Below::Least);
        let cleanup_wait = s.official_duration(
            "ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION",
            seconds(3 * 3600),
            seconds(1),
            Below::Default,
        );
        let disable_az = s.boolean("ECS_DISABLE_TASK_METADATA_AZ", false);
        let ec2_endpoint = s.url("BERTH_EC2_ENDPOINT");
        let imds_endpoint = s.url("BERTH_IMDS_ENDPOINT");
        let log_level = s.one_of("ECS_LOGLEVEL", "info", &value::LEVELS);
        let log_json = s.one_of("ECS_LOG_OUTPUT_FORMAT", "logfmt", &[("logfmt", false), ("json", true)]);
        let rest = s.finish()?;
        let Some(cluster_name) = cluster_name else {
            return Err(ConfigError(vec!["ECS_CLUSTER: missing".into()]));
        };
        Ok(Self {
            cluster,
            cluster_name,
            control,
            region,
            stop_timeout,
            cleanup_wait,
            disable_az,
            pool,
            paths,
            containerd,
            images,
            ec2_endpoint,
            imds_endpoint,
            log_level,
            log_json,
            unused: rest.unused,
            warnings: rest.warnings,
        })
    }
}

#[cfg(test)]
mod tests;
