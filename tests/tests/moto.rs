//! The agent against a peer that nobody here wrote: moto's server plays EC2, ECS and IAM, with its authorization switched on, and the
//! agent has no other rights than docs/iam-policy.json gives it.
//!
//! What moto does not have is added from outside: links for its ENIs (moto/hardware.py) and a metadata service that a strict client
//! accepts (moto/imds.py). It refuses every Submit call (there is none in moto), so reports stay in the outbox, which is checked too.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use common::{single, sleeper};
use e2e::{
    aws::{Aws, python},
    image,
    lab::{Agent, start_containerd},
    process::{Process, eventually, run},
    sweep,
};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const NAME: &str = "bt-moto";
const MOTO: &str = "http://127.0.0.1:5555";
const IMDS: &str = "http://127.0.0.1:8169";
const REGION: &str = "us-east-1";
/// Calls that moto takes without looking at the signature: they make the two users.
const FREE_CALLS: &str = "6";
const PATIENCE: Duration = Duration::from_secs(60);

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("moto").join(name)
}

/// The namespace that the instance, its EC2 and its ECS share. Removed with everything in it.
struct Node {
    dir: PathBuf,
    tag: String,
}

impl Node {
    fn new() -> Self {
        let node = Self { dir: std::env::temp_dir().join("berth-e2e-moto"), tag: String::new() };
        node.clear();
        fs::create_dir_all(&node.dir).unwrap();
        run(Command::new("ip").args(["netns", "add", NAME])).unwrap();
        run(Command::new("ip").args(["-n", NAME, "link", "set", "lo", "up"])).unwrap();
        node
    }

    fn clear(&self) {
        let tags: Vec<String> = Some(self.tag.clone()).filter(|t| !t.is_empty()).into_iter().collect();
        sweep::sweep(&self.dir, NAME, &tags).unwrap();
        run(Command::new("ip").args(["netns", "del", NAME])).ok();
    }

    fn start(&self, name: &str, command: &[&str], environment: &[(&str, &str)]) -> Process {
        let mut started = Command::new("ip");
        started.args(["netns", "exec", NAME]).args(command).envs(environment.iter().copied());
        // Something that names the directory, so that a test that was killed is swept.
        started.env("BERTH_LAB", &self.dir).current_dir(&self.dir);
        Process::start(name, &mut started, &self.dir.join(format!("{name}.log"))).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in ["moto.log", "hardware.log", "agent.log"] {
                let text = fs::read_to_string(self.dir.join(log)).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                eprintln!("--- end of {log}\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
            }
        }
        self.clear();
    }
}

fn string(value: &Value, pointer: &str) -> String {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no {pointer} in {value}"))
        .to_owned()
}

/// A user with a policy; his keys.
fn user(aws: &Aws, name: &str, policy: &str) -> (String, String) {
    aws.call(&["iam", "create-user", "--user-name", name]).unwrap();
    aws.call(&[
        "iam",
        "put-user-policy",
        "--user-name",
        name,
        "--policy-name",
        "p",
        "--policy-document",
        policy,
    ])
    .unwrap();
    let made = aws.call(&["iam", "create-access-key", "--user-name", name]).unwrap();
    (string(&made, "/AccessKey/AccessKeyId"), string(&made, "/AccessKey/SecretAccessKey"))
}

/// The policy as moto can read it: it knows actions, but neither conditions nor resources of EC2 and ECS.
fn actions_only(policy: &str) -> String {
    let mut policy: Value = serde_json::from_str(policy).unwrap();
    for statement in policy["Statement"].as_array_mut().unwrap() {
        statement.as_object_mut().unwrap().remove("Condition");
        statement["Resource"] = json!("*");
    }
    policy.to_string()
}

/// The instance in moto, and the tree of its metadata service.
fn instance(aws: &Aws, dir: &Path) -> (String, PathBuf) {
    let subnets = aws.call(&["ec2", "describe-subnets"]).unwrap();
    let subnet = string(&subnets, "/Subnets/0/SubnetId");
    let images =
        aws.call(&["ec2", "describe-images", "--filters", "Name=name,Values=amzn2-ami-ecs*"]).unwrap();
    let other = json!({"Images": [{"ImageId": "ami-0b69ea66ff7391e80"}]});
    let image = if images["Images"][0].is_null() {
        string(&other, "/Images/0/ImageId")
    } else {
        string(&images, "/Images/0/ImageId")
    };
    let run = [
        "ec2",
        "run-instances",
        "--image-id",
        &image,
        "--instance-type",
        "m5.large",
        "--subnet-id",
        &subnet,
        "--count",
        "1",
    ];
    let made = aws.call(&run).unwrap();
    let instance = &made["Instances"][0];
    let eni = &instance["NetworkInterfaces"][0];
    let (id, mac) = (string(instance, "/InstanceId"), string(eni, "/MacAddress"));
    let group = string(eni, "/Groups/0/GroupId");
    let address = string(eni, "/PrivateIpAddress");
    let zone = string(instance, "/Placement/AvailabilityZone");
    let document = json!({
        "instanceId": id, "instanceType": "m5.large", "region": REGION, "availabilityZone": zone,
        "accountId": "123456789012", "privateIp": address, "imageId": image, "architecture": "x86_64"
    });
    let macs = format!("/latest/meta-data/network/interfaces/macs/{mac}");
    let tree = json!({
        "/latest/dynamic/instance-identity/document": document.to_string(),
        "/latest/dynamic/instance-identity/signature": "c2ln",
        "/latest/meta-data/mac": mac,
        "/latest/meta-data/instance-id": id,
        "/latest/meta-data/placement/region": REGION,
        "/latest/meta-data/placement/availability-zone": zone,
        (format!("{macs}/vpc-id")): string(eni, "/VpcId"),
        (format!("{macs}/subnet-id")): subnet,
        (format!("{macs}/security-group-ids")): group,
    });
    let file = dir.join("imds.json");
    fs::write(&file, tree.to_string()).unwrap();
    (id, file)
}

fn configure(dir: &Path, instance_id: &str) -> Agent {
    let config = dir.join("berth.config");
    let text = format!(
        "ECS_CLUSTER=demo\nBERTH_DATA_DIR={dir}/data\nBERTH_RUN_DIR={dir}/run\nBERTH_CONTAINERD_SOCKET={dir}/containerd.sock\n\
         BERTH_CONTAINERD_NAMESPACE=berth-moto\nBERTH_CGROUP_ROOT={cgroup}\nBERTH_EC2_ENDPOINT={MOTO}\nECS_BACKEND_HOST={MOTO}\n\
         BERTH_IMDS_ENDPOINT={IMDS}\nBERTH_MTU=1500\nBERTH_IPV6=false\nBERTH_WARM_SLOTS=1\nBERTH_ENI_COOLDOWN=1s\n\
         ECS_IMAGE_PULL_BEHAVIOR=prefer-cached\n",
        dir = dir.display(),
        cgroup = sweep::cgroup_root(NAME),
    );
    fs::write(&config, text).unwrap();
    Agent::at(NAME, instance_id, dir)
}

#[test]
fn a_task_of_motos_ecs_runs_with_an_eni_of_motos_ec2_and_no_more_rights_than_the_policy_gives() {
    let _single = single();
    let mut node = Node::new();
    let dir = node.dir.clone();
    let moto = python("moto").unwrap();
    let environment = [("INITIAL_NO_AUTH_ACTION_COUNT", FREE_CALLS)];
    let server = moto.join("moto_server");
    let mut server =
        node.start("moto", &[server.to_str().unwrap(), "-H", "127.0.0.1", "-p", "5555"], &environment);
    let aws = Aws::new(MOTO, REGION, "nobody", "nothing").unwrap().within(NAME);
    // Its own pages are not counted as calls.
    let ready = format!("{MOTO}/moto-api/data.json");
    eventually("moto to answer", PATIENCE, || {
        server.must_run()?;
        Ok(run(Command::new("ip").args(["netns", "exec", NAME, "curl", "-sf", &ready, "-o", "/dev/null"]))
            .ok())
    })
    .unwrap();

    let all =
        json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]})
            .to_string();
    let policy =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/iam-policy.json")).unwrap();
    let (admin_key, admin_secret) = user(&aws, "admin", &all);
    let (agent_key, agent_secret) = user(&aws, "agent", &actions_only(&policy));
    let admin = aws.with_keys(&admin_key, &admin_secret);
    let as_agent = aws.with_keys(&agent_key, &agent_secret);
    // Moto does look: a right that the policy does not give is refused, and so is a wrong secret.
    let refused = as_agent.refused(&["ecs", "delete-cluster", "--cluster", "demo"]).unwrap();
    assert!(refused.contains("AccessDenied"), "{refused}");
    let refused = as_agent.refused(&["ec2", "describe-volumes"]).unwrap();
    assert!(refused.contains("AccessDenied") || refused.contains("UnauthorizedOperation"), "{refused}");
    let refused =
        aws.with_keys(&agent_key, "wrong").refused(&["ec2", "describe-network-interfaces"]).unwrap();
    assert!(refused.contains("AuthFailure"), "{refused}");

    let (instance_id, tree) = instance(&admin, &dir);
    node.tag = instance_id[instance_id.len() - 8..].to_owned();
    admin.call(&["ecs", "create-cluster", "--cluster-name", "demo"]).unwrap();
    let definition = sleeper("peer").to_string();
    admin.call(&["ecs", "register-task-definition", "--cli-input-json", &definition]).unwrap();
    // Moto's tasks wither away by being looked at, unless told otherwise.
    let pinned = r#"{"model_name":"ecs::task","transition":{"progression":"manual","times":1000000}}"#;
    let url = format!("{MOTO}/moto-api/state-manager/set-transition");
    run(Command::new("ip").args(["netns", "exec", NAME, "curl", "-sf", "-X", "POST", "-d", pinned, &url]))
        .unwrap();

    let python = moto.join("python");
    let python = python.to_str().unwrap();
    let _imds = node.start(
        "imds",
        &[python, "-B", script("imds.py").to_str().unwrap(), "8169", tree.to_str().unwrap()],
        &[],
    );
    let keys = [("AWS_ACCESS_KEY_ID", admin_key.as_str()), ("AWS_SECRET_ACCESS_KEY", admin_secret.as_str())];
    let _hardware = node.start(
        "hardware",
        &[python, "-B", script("hardware.py").to_str().unwrap(), MOTO, &instance_id],
        &keys,
    );
    let _containerd = start_containerd(&dir).unwrap();
    let mut agent = configure(&dir, &instance_id);
    let archive = dir.join("image.tar");
    image::write_archive(&archive).unwrap();
    agent.import(&archive).unwrap();
    let keys = [("AWS_ACCESS_KEY_ID", agent_key.as_str()), ("AWS_SECRET_ACCESS_KEY", agent_secret.as_str())];
    // Not `ip netns exec`: in a mount namespace of its own the agent's namespaces would be hidden from containerd.
    agent.start_with("nsenter", &[&format!("--net=/run/netns/{NAME}")], &keys).unwrap();
    agent.wait_warm().unwrap();
    lives(&mut agent, &admin);
}

/// A task that wants another security group gets a warm ENI with that group.
fn regroups(agent: &mut Agent, admin: &Aws, vpc: &Value) {
    let made = ["ec2", "create-security-group", "--group-name", "team", "--description", "team", "--vpc-id"];
    let made = admin.call(&[&made[..], &[vpc.as_str().unwrap()]].concat()).unwrap();
    let group = string(&made, "/GroupId");
    agent.wait_warm().unwrap();
    let file = agent.config.with_file_name("team.json");
    fs::write(&file, sleeper("team").to_string()).unwrap();
    let task = agent.json(&["run", file.to_str().unwrap(), "--security-group", &group]).unwrap();
    let address = string(&task, "/network/ipv4/0");
    let filter = format!("Name=private-ip-address,Values={address}");
    let seen = admin.call(&["ec2", "describe-network-interfaces", "--filters", &filter]).unwrap();
    assert_eq!(seen["NetworkInterfaces"][0]["Groups"][0]["GroupId"], group.as_str(), "{seen}");
}

/// The agent registers, runs the task that moto gives it, hears of its stop, and gives every ENI back.
fn lives(agent: &mut Agent, admin: &Aws) {
    let listed = || admin.call(&["ecs", "list-container-instances", "--cluster", "demo"]);
    eventually("the registration", PATIENCE, || {
        Ok(listed()?["containerInstanceArns"][0].is_string().then_some(()))
    })
    .unwrap();
    let eni = admin
        .call(&["ec2", "describe-network-interfaces", "--filters", "Name=tag-key,Values=berth:instance-id"])
        .unwrap();
    let eni = &eni["NetworkInterfaces"][0];
    let (subnet, group) = (string(eni, "/SubnetId"), string(eni, "/Groups/0/GroupId"));
    let network = format!("awsvpcConfiguration={{subnets=[{subnet}],securityGroups=[{group}]}}");
    let made = admin
        .call(&[
            "ecs",
            "run-task",
            "--cluster",
            "demo",
            "--task-definition",
            "peer",
            "--network-configuration",
            &network,
        ])
        .unwrap();
    let task = string(&made, "/tasks/0/taskArn");
    let running = agent
        .wait("the task to run", |a| {
            let task = a.json(&["inspect", &task])?;
            Ok((task["lastStatus"] == "RUNNING").then_some(task))
        })
        .unwrap();
    assert_eq!(running["network"]["ipv4"][0], eni["PrivateIpAddress"], "{running}");
    let reports = agent
        .wait("its reports to be kept", |a| {
            let waiting = a.json(&["status"])?["cluster"]["reports"].clone();
            Ok(waiting.as_array().and_then(|w| {
                w.iter().find(|w| w["task"] == task.as_str() && w["problem"].is_string()).cloned()
            }))
        })
        .unwrap();
    assert!(reports["reports"].as_u64().unwrap() >= 1, "{reports}");
    admin.call(&["ecs", "stop-task", "--cluster", "demo", "--task", &task, "--reason", "enough"]).unwrap();
    agent
        .wait("the task to stop", |a| {
            Ok((a.json(&["inspect", &task])?["lastStatus"] == "STOPPED").then_some(()))
        })
        .unwrap();
    regroups(agent, admin, &eni["VpcId"]);
    agent.drain().unwrap();
    let left = admin
        .call(&["ec2", "describe-network-interfaces", "--filters", "Name=tag-key,Values=berth:instance-id"])
        .unwrap();
    assert_eq!(left["NetworkInterfaces"], json!([]), "an ENI was left in moto");
    agent.stop().unwrap();
}
