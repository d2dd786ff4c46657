//! Security groups in the running program: their API under boto3, and two teams' tasks on one instance kept apart.

#![allow(clippy::unwrap_used, reason = "a test helper that fails ends its test")]

mod common;

use berth_netns::ns::Netns;
use common::{Running, element, python, until};
use serde_json::Value;
use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Nobody listens there: a refusal is an answer too.
const PORT: u16 = 4000;
/// A packet that is dropped is waited for as long as this.
const SILENCE: Duration = Duration::from_millis(300);

#[test]
fn boto3_drives_every_action_of_security_groups_and_every_reply_is_as_the_model_says() {
    let running = Running::start(true, 0);
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/boto/groups.py");
    let status = running.file.with_file_name("ready.json");
    let output = Command::new(python()).arg("-B").arg(script).arg(status).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("16 actions"), "{out}");
}

/// A task as an agent makes one: a namespace of its own with an ENI in it.
struct Task {
    netns: Netns,
    eni: String,
    address: IpAddr,
}

fn ip(netns: &Netns, arguments: &str) {
    let run = || Command::new("ip").args(arguments.split(' ')).output().unwrap();
    let output = netns.run(run).unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Task {
    fn start(running: &Running, group: &str, index: u32) -> Self {
        let query = format!(
            "Action=CreateNetworkInterface&SubnetId={}&SecurityGroupId.1={group}",
            running.subnet("a")
        );
        let eni = element(&running.call(&query), "networkInterfaceId");
        let (mac, address) = (running.eni(&eni, "macAddress"), running.eni(&eni, "privateIpAddress"));
        running.attach(&eni, "one", index);
        until("the link is there", || !running.links("one", &mac).is_empty());
        let link = running.links("one", &mac).remove(0);
        let instance = Netns::open(Path::new(&running.instance("one", "netns"))).unwrap();
        let netns = Netns::create().unwrap();
        // `ip` names namespaces by a file; this one has none but that of a thread in it.
        let id = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&netns));
        let path = format!("/proc/{}/fd/{id}", std::process::id());
        ip(&instance, &format!("link set dev {link} netns {path}"));
        ip(&netns, &format!("link set dev {link} name eth0"));
        ip(&netns, &format!("addr add {address}/24 dev eth0"));
        ip(&netns, "link set dev eth0 up");
        let task = Self { netns, eni, address: address.parse().unwrap() };
        until("it reaches the router", || task.reaches("10.0.1.1".parse().unwrap()));
        task
    }

    fn reaches(&self, to: IpAddr) -> bool {
        let target = SocketAddr::new(to, PORT);
        match self.netns.run(|| TcpStream::connect_timeout(&target, SILENCE)).unwrap() {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::ConnectionRefused,
        }
    }
}

fn drops(running: &Running, eni: &str) -> Value {
    let output = running.vpcbox("status", &["--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    let line = status["enis"].as_array().unwrap().iter().find(|line| line["id"] == eni).unwrap().clone();
    line["drops"].clone()
}

#[test]
fn two_teams_on_one_instance_reach_each_other_when_a_rule_says_so_and_only_then() {
    let running = Running::start(false, 0);
    let vpc = running.status["vpc"].as_str().unwrap();
    let group = |name: &str| {
        let query = format!("Action=CreateSecurityGroup&GroupName={name}&GroupDescription=x&VpcId={vpc}");
        element(&running.call(&query), "groupId")
    };
    let (red, blue) = (group("red"), group("blue"));
    let (one, two) = (Task::start(&running, &red, 1), Task::start(&running, &blue, 2));
    assert!(!one.reaches(two.address) && !two.reaches(one.address));
    let seen = drops(&running, &two.eni);
    assert!(seen["denied_in"].as_u64().unwrap() > 0, "a stranger sees what dropped his packets: {seen}");
    assert_eq!((&seen["denied_out"], &seen["spoofed"]), (&0.into(), &0.into()));
    let table = running.vpcbox("status", &[]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("in:"), "and in the table");

    let rule = format!(
        "GroupId={blue}&IpPermissions.1.IpProtocol=tcp&IpPermissions.1.FromPort={PORT}&IpPermissions.1.ToPort={PORT}\
         &IpPermissions.1.Groups.1.GroupId={red}"
    );
    running.call(&format!("Action=AuthorizeSecurityGroupIngress&{rule}"));
    until("the rule is there", || one.reaches(two.address));
    assert!(!two.reaches(one.address), "one direction");

    let change = |eni: &str, group: &str| {
        let call = format!("Action=ModifyNetworkInterfaceAttribute&NetworkInterfaceId={eni}");
        running.call(&format!("{call}&SecurityGroupId.1={group}"));
    };
    change(&one.eni, &blue);
    until("who leaves the group is out", || !one.reaches(two.address));
    change(&one.eni, &red);
    until("who comes back is in", || one.reaches(two.address));
    running.call(&format!("Action=RevokeSecurityGroupIngress&{rule}"));
    until("the rule is gone", || !one.reaches(two.address));
}
