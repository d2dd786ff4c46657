//! Leads one ENI through its life by the cloud port: create twice with one token, attach, DeleteOnTermination, tag, detach, delete.
//!
//! Run it on an instance, or in one of vpcbox: `vpcbox exec INSTANCE -- target/debug/examples/eni_life [EC2-URL]`. It prints each step with
//! its time and the memory that the process holds, which is what the SDK costs an idle agent.

#![allow(clippy::print_stdout, reason = "a program for people")]

use anyhow::{Context, Result, ensure};
use berth_ec2::{Ec2Cloud, Ec2Config};
use berth_types::{
    Chain, Timestamp,
    eni::{AttachmentStatus, CreateEni, EniFacts, EniStatus},
    ids::{ClientToken, EniId},
    ports::{Cloud, CloudErrorKind, TAG_INSTANCE, TAG_INTENT, TAG_TASK},
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How long a state may take to come.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    step("start", Instant::now());
    let config = Ec2Config { ec2_endpoint: std::env::args().nth(1), ..Ec2Config::default() };
    let cloud = Ec2Cloud::new(config)?;
    let began = Instant::now();
    let me = cloud.instance().await?;
    step(&format!("instance {} {} holds {} ENIs", me.instance_id, me.instance_type, me.max_enis), began);

    let before = cloud.enis().await?;
    println!("ENIs before: {:?}", before.iter().map(|eni| (&eni.id, eni.status)).collect::<Vec<_>>());
    let token = ClientToken::random();
    let tags = [(TAG_INSTANCE, me.instance_id.to_string()), (TAG_INTENT, token.to_string())];
    let spec = CreateEni {
        token,
        subnet: me.subnet.clone(),
        security_groups: me.security_groups.clone(),
        description: format!("berth:{} example {}", me.instance_id, Timestamp::now()),
        tags: tags.into_iter().map(|(key, value)| (key.to_string(), value)).collect(),
        ipv6_addresses: 0,
    };
    let began = Instant::now();
    let eni = cloud.create_eni(&spec).await?;
    step(&format!("created {} {} {:?}", eni.id, eni.mac, eni.ipv4), began);
    let taken =
        |index| before.iter().filter_map(|eni| eni.attachment.as_ref()).any(|one| one.device_index == index);
    let index = (1..me.max_enis).find(|index| !taken(*index)).context("the instance is full")?;
    let life = live(&cloud, &spec, &eni, index).await;
    if life.is_err() {
        println!("cleaning up: {:?}", cloud.delete_eni(&eni.id).await);
    }
    life?;
    ensure!(cloud.enis().await?.len() == before.len(), "an ENI is left");
    step("done", Instant::now());
    Ok(())
}

async fn live(cloud: &Ec2Cloud, spec: &CreateEni, eni: &EniFacts, index: u32) -> Result<()> {
    let again = cloud.create_eni(spec).await?;
    ensure!(again.id == eni.id, "the same token gave {} after {}", again.id, eni.id);
    let other = CreateEni { description: "other".into(), ..spec.clone() };
    expect("other parameters", cloud.create_eni(&other).await, |kind| {
        matches!(kind, CloudErrorKind::TokenMismatch(_))
    })?;

    let began = Instant::now();
    let attachment = cloud.attach_eni(&eni.id, index).await?;
    step("attach taken", began);
    ensure!(cloud.attach_eni(&eni.id, index).await? == attachment, "attach is repeatable");
    expect("index 0", cloud.attach_eni(&eni.id, 0).await, |kind| {
        matches!(kind, CloudErrorKind::InUse(_) | CloudErrorKind::InstanceFull(_))
    })?;
    cloud.set_delete_on_termination(&eni.id, &attachment).await?;
    let attached = wait(cloud, &eni.id, "attached", |eni| {
        eni.attachment
            .as_ref()
            .is_some_and(|now| now.status == AttachmentStatus::Attached && now.delete_on_termination)
    })
    .await?;
    ensure!(
        attached.tags.get(TAG_INTENT).map(String::as_str) == Some(spec.token.as_str()),
        "tags are lost: {:?}",
        attached.tags
    );
    expect("delete while attached", cloud.delete_eni(&eni.id).await, |kind| {
        matches!(kind, CloudErrorKind::InUse(_))
    })?;

    let set =
        BTreeMap::from([(TAG_TASK.to_string(), Some("arn:aws:ecs:r:111122223333:task/c/1".to_string()))]);
    cloud.tag_eni(&eni.id, &set).await?;
    wait(cloud, &eni.id, "tagged", |eni| eni.tags.contains_key(TAG_TASK)).await?;
    cloud.tag_eni(&eni.id, &BTreeMap::from([(TAG_TASK.to_string(), None)])).await?;
    wait(cloud, &eni.id, "untagged", |eni| !eni.tags.contains_key(TAG_TASK)).await?;

    cloud.detach_eni(&attachment).await?;
    cloud.detach_eni(&attachment).await.context("detach what is detaching")?;
    wait(cloud, &eni.id, "available", |eni| eni.status == EniStatus::Available && eni.attachment.is_none())
        .await?;
    cloud.detach_eni(&attachment).await.context("detach what is detached")?;
    cloud.delete_eni(&eni.id).await?;
    cloud.delete_eni(&eni.id).await.context("delete what is deleted")?;
    Ok(())
}

/// The call has to fail in this way.
fn expect<T>(
    what: &str,
    result: Result<T, berth_types::ports::CloudError>,
    right: fn(&CloudErrorKind) -> bool,
) -> Result<()> {
    let error = result.err().with_context(|| format!("{what}: was taken"))?;
    println!("{what}: {}", Chain(&error));
    ensure!(right(&error.kind), "{what}: {:?}", error.kind);
    Ok(())
}

async fn wait(cloud: &Ec2Cloud, id: &EniId, what: &str, right: fn(&EniFacts) -> bool) -> Result<EniFacts> {
    let began = Instant::now();
    loop {
        let found = cloud.enis().await?.into_iter().find(|eni| eni.id == *id);
        match found {
            Some(eni) if right(&eni) => {
                step(what, began);
                return Ok(eni);
            }
            other => ensure!(began.elapsed() < PATIENCE, "{what} did not come: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn step(what: &str, began: Instant) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory: Vec<&str> =
        status.lines().filter(|line| line.starts_with("RssAnon") || line.starts_with("VmRSS")).collect();
    println!("{what} [{:?}] {}", began.elapsed(), memory.join(" ").replace('\t', ""));
}
