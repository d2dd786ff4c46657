//! Who this node is. EC2 and IMDS say it; what they said is kept, so that an agent that starts while EC2 is away goes on with its tasks.

use anyhow::{Context, Result};
use berth_types::{Chain, Class, eni::InstanceFacts, ports::Cloud};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};
use tracing::{info, warn};

/// How long the first answer is waited for when there is a kept one: tasks of the past wait for their metadata meanwhile.
const PATIENCE_WITH_COPY: Duration = Duration::from_secs(5);

/// Between two questions: IMDS of a booting instance is there within seconds.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// What is kept, with the boot it was heard in: a disk that was cloned into another instance has been booted again.
#[derive(Debug, Serialize, Deserialize)]
struct Copy {
    boot_id: String,
    instance: InstanceFacts,
}

/// Asks until there is an answer; with a copy of this boot, a few seconds only.
pub(crate) async fn find(cloud: &dyn Cloud, data_dir: &Path) -> Result<InstanceFacts> {
    let file = data_dir.join("instance.json");
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let copy = read_copy(&file, &boot_id);
    let asking = ask(cloud);
    let instance = match copy {
        None => asking.await?,
        Some(copy) => match tokio::time::timeout(PATIENCE_WITH_COPY, asking).await {
            Ok(answer) => answer?,
            Err(_) => {
                warn!(instance = %copy.instance_id, "ec2 does not answer; going on with what it said earlier in this boot");
                return Ok(copy);
            }
        },
    };
    write_copy(&file, &Copy { boot_id, instance: instance.clone() })?;
    info!(instance = %instance.instance_id, kind = instance.instance_type, zone = instance.availability_zone, "this is the instance");
    Ok(instance)
}

async fn ask(cloud: &dyn Cloud) -> Result<InstanceFacts> {
    let mut told = false;
    loop {
        match cloud.instance().await {
            Ok(instance) => return Ok(instance),
            Err(error) if matches!(error.class(), Class::Permanent | Class::Bug) => {
                return Err(anyhow::Error::new(error).context("EC2 refuses to say what this instance is"));
            }
            Err(error) => {
                if told {
                    tracing::debug!(error = %Chain(&error), "no answer yet about this instance");
                } else {
                    warn!(error = %Chain(&error), "no answer yet about this instance; asking again");
                    told = true;
                }
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
    }
}

fn read_copy(file: &Path, boot_id: &str) -> Option<InstanceFacts> {
    let copy: Copy = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    (copy.boot_id == boot_id && !boot_id.is_empty()).then_some(copy.instance)
}

/// Written beside and renamed, so that a reader never sees half of it.
fn write_copy(file: &Path, copy: &Copy) -> Result<()> {
    let beside: PathBuf = file.with_extension("new");
    let mut out = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
    out.write_all(&serde_json::to_vec(copy)?)?;
    fs::rename(&beside, file).with_context(|| format!("write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> InstanceFacts {
        serde_json::from_value(serde_json::json!({
            "instance_id": "i-0123456789abcdef0", "instance_type": "m5.large", "region": "us-west-2", "availability_zone": "us-west-2a",
            "availability_zone_id": null, "account": "111122223333", "vpc": "vpc-12345678", "subnet": "subnet-12345678",
            "security_groups": [], "primary_mac": "02:00:00:00:00:01", "private_ipv4": "10.0.0.4", "max_enis": 3, "max_ipv4_per_eni": 10
        }))
        .unwrap()
    }

    #[test]
    fn a_copy_counts_in_its_own_boot_only() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("instance.json");
        write_copy(&file, &Copy { boot_id: "a".into(), instance: facts() }).unwrap();
        assert_eq!(read_copy(&file, "a"), Some(facts()));
        assert_eq!(read_copy(&file, "b"), None);
        fs::write(&file, "{").unwrap();
        assert_eq!(read_copy(&file, "a"), None);
    }
}
