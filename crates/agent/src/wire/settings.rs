//! From the agent's settings to those of each part. What is decided here is only which setting goes where.

use crate::config::Config;
use anyhow::Result;
use berth_containerd::{Containerd, ContainerdConfig, PullConfig};
use berth_ec2::{Ec2Cloud, Ec2Config};
use berth_ecs::{Abilities, EcsConfig};
use berth_engine::EngineConfig;
use berth_eni::EniConfig;
use berth_metadata::{MetadataConfig, MetadataLimits};
use berth_types::{Timestamp, eni::InstanceFacts, ports::Cloud};
use tracing::warn;

pub(super) fn ec2(config: &Config) -> Result<Ec2Cloud> {
    let ec2 = Ec2Config {
        ec2_endpoint: config.ec2_endpoint.clone(),
        imds_endpoint: config.imds_endpoint.clone(),
        region: config.region.clone(),
        ..Ec2Config::default()
    };
    Ok(Ec2Cloud::new(ec2)?)
}

/// The client of containerd; the CLI imports images with it too. Connects when it is first used.
pub(crate) fn containerd(config: &Config) -> Result<Containerd> {
    let (settings, images) = (&config.containerd, &config.images);
    let mut containerd = ContainerdConfig::new(&settings.socket, &settings.logger);
    containerd.namespace.clone_from(&settings.namespace);
    containerd.snapshotter.clone_from(&settings.snapshotter);
    containerd.runtime.clone_from(&settings.runtime);
    containerd.cgroup_root.clone_from(&settings.cgroup_root);
    containerd.pull = PullConfig {
        behavior: images.behavior,
        auth: images.auth.clone(),
        insecure_registries: images.insecure_registries.clone(),
        pull_timeout: images.pull_timeout,
        inactivity_timeout: images.inactivity_timeout,
        manifest_timeout: images.manifest_timeout,
        concurrent_pulls: images.concurrent_pulls,
        ..PullConfig::default()
    };
    Ok(Containerd::connect(containerd)?)
}

pub(super) async fn eni(config: &Config, instance: &InstanceFacts, cloud: &dyn Cloud) -> EniConfig {
    let pool = &config.pool;
    EniConfig {
        cluster: config.cluster.clone(),
        warm: pool.warm,
        max_enis: pool.max_enis,
        warm_max: pool.warm_max,
        cooldown: pool.cooldown,
        subnets: pool.subnets.clone(),
        security_groups: pool.security_groups.clone(),
        mtu: pool.mtu,
        block_imds: pool.block_imds,
        dns_servers: pool.dns_servers.clone(),
        dns_search: pool.dns_search.clone(),
        link_timeout: pool.link_timeout,
        lease_timeout: pool.lease_timeout,
        audit: pool.audit,
        ipv6: match pool.ipv6 {
            Some(ipv6) => ipv6,
            None => subnet_has_ipv6(instance, cloud).await,
        },
        seed: seed(instance),
    }
}

/// Whether the instance's own subnet has an IPv6 block: then tasks get an IPv6 address too.
async fn subnet_has_ipv6(instance: &InstanceFacts, cloud: &dyn Cloud) -> bool {
    match cloud.enis().await {
        Ok(enis) => enis.iter().any(|e| e.mac == instance.primary_mac && e.subnet_ipv6.is_some()),
        Err(error) => {
            warn!(error = %berth_types::Chain(&error), "cannot see whether the subnet has ipv6; new enis get none until the next start");
            false
        }
    }
}

/// Different on every instance, so that they do not retry together.
fn seed(instance: &InstanceFacts) -> u64 {
    u64::from_str_radix(&instance.instance_id.owner_tag(), 16).unwrap_or_default()
}

pub(super) fn engine(config: &Config, instance: &InstanceFacts) -> EngineConfig {
    EngineConfig {
        stop_timeout: config.stop_timeout,
        cleanup_wait: config.cleanup_wait,
        ..EngineConfig::new(&instance.region, &config.paths.data_dir)
    }
}

/// `ipv6`: tasks get an IPv6 address.
pub(super) fn ecs(config: &Config, instance: &InstanceFacts, ipv6: bool) -> EcsConfig {
    let control = &config.control;
    EcsConfig {
        cluster: config.cluster.clone(),
        create_cluster: control.default_cluster,
        endpoint: control.endpoint.clone(),
        imds_endpoint: config.imds_endpoint.clone(),
        region: config.region.clone(),
        attributes: control.attributes.clone(),
        tags: control.tags.clone(),
        reserved_memory: control.reserved_memory.into(),
        reserved_ports: control.reserved_ports.clone(),
        reserved_udp_ports: control.reserved_udp_ports.clone(),
        abilities: Abilities {
            privileged: !control.disable_privileged,
            log_drivers: control.log_drivers.clone(),
            ipv6,
            blocks_imds: config.pool.block_imds,
            os_family: control.os_family.clone(),
        },
        polls_per_minute: control.polls_per_minute,
        poll_min: control.poll_min,
        poll_max: control.poll_max,
        seed: seed(instance),
        clock: Timestamp::now,
    }
}

pub(super) fn metadata(config: &Config, instance: &InstanceFacts) -> MetadataConfig {
    let zone = (!config.disable_az).then_some(());
    MetadataConfig {
        cluster: config.cluster.clone(),
        vpc: instance.vpc.clone(),
        availability_zone: zone.map(|()| instance.availability_zone.clone()),
        availability_zone_id: zone.and(instance.availability_zone_id.clone()),
        limits: MetadataLimits::default(),
    }
}
