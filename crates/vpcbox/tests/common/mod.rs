//! A running `vpcbox` for tests: the real program with a configuration of its own, ended and removed when the test ends, however
//! it ends.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test helper that fails ends its test")]

use serde_json::Value;
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// Long enough for a machine that compiles something else meanwhile.
const DEADLINE: Duration = Duration::from_secs(60);

/// The program under test.
pub(crate) const VPCBOX: &str = env!("CARGO_BIN_EXE_vpcbox");

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A name that no other test and no other run has.
pub(crate) fn fresh_name() -> String {
    format!("vbt{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A VPC with two zones and two instances; delays as given.
pub(crate) fn config(name: &str, auth: bool, delay_ms: u64) -> String {
    format!(
        r#"
name = "{name}"
region = "us-west-2"
account = "123456789012"
listen = "127.0.0.1:0"
auth = {auth}
[operator]
access_key = "AKIDVPCBOXTEST"
secret_key = "a-secret/with+signs="
[vpc]
cidr = "10.0.0.0/16"
ipv6_cidr = "fd00:ec2:1::/56"
[[subnet]]
name = "a"
zone = "us-west-2a"
cidr = "10.0.1.0/24"
ipv6_cidr = "fd00:ec2:1::/64"
[[subnet]]
name = "tiny"
zone = "us-west-2b"
cidr = "10.0.2.0/28"
[[security_group]]
name = "default"
[[security_group]]
name = "web"
[[instance]]
name = "one"
type = "m5.large"
subnet = "a"
security_groups = ["default"]
role = "node"
[[instance]]
name = "two"
type = "t3.micro"
subnet = "tiny"
security_groups = ["default", "web"]
[ecs]
clusters = ["demo"]
[delays]
attach_ms = {delay_ms}
detach_ms = {delay_ms}
link_ms = {delay_ms}
"#
    )
}

/// A running box.
pub(crate) struct Running {
    pub(crate) name: String,
    pub(crate) status: Value,
    pub(crate) file: PathBuf,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Running {
    /// Starts one and waits until it is ready.
    pub(crate) fn start(auth: bool, delay_ms: u64) -> Self {
        let name = fresh_name();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("vpc.toml");
        fs::write(&file, config(&name, auth, delay_ms)).unwrap();
        let ready = dir.path().join("ready.json");
        let child = Command::new(VPCBOX)
            .args(["up", "--json", "-f"])
            .arg(&file)
            .arg("--ready-file")
            .arg(&ready)
            .env("RUST_LOG", "warn")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut running = Self { name, status: Value::Null, file, child, _dir: dir };
        until("the box is ready", || {
            if let Some(ended) = running.child.try_wait().unwrap() {
                panic!("vpcbox up ended: {ended}");
            }
            ready.exists()
        });
        running.status = serde_json::from_slice(&fs::read(&ready).unwrap()).unwrap();
        running
    }

    pub(crate) fn endpoint(&self) -> &str {
        self.status["endpoint"].as_str().unwrap()
    }

    pub(crate) fn port(&self) -> u64 {
        self.status["port"].as_u64().unwrap()
    }

    /// Something of the instance of this name.
    pub(crate) fn instance(&self, name: &str, key: &str) -> String {
        let all = self.status["instances"].as_array().unwrap();
        all.iter().find(|i| i["name"] == name).unwrap()[key].as_str().unwrap().to_owned()
    }

    /// Id of the subnet of this name.
    pub(crate) fn subnet(&self, name: &str) -> String {
        let all = self.status["subnets"].as_array().unwrap();
        all.iter().find(|s| s["name"] == name).unwrap()["id"].as_str().unwrap().to_owned()
    }

    /// Runs `vpcbox COMMAND --name NAME ARGUMENTS`.
    pub(crate) fn vpcbox(&self, command: &str, arguments: &[&str]) -> Output {
        vpcbox(command, &self.name, arguments)
    }

    /// Runs a command in an instance; its output.
    pub(crate) fn exec(&self, instance: &str, command: &[&str]) -> String {
        let output = self.vpcbox("exec", &[&[instance, "--"], command].concat());
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// An unsigned EC2 call; the whole reply.
    pub(crate) fn call(&self, query: &str) -> String {
        http_post(self.endpoint(), "/", query)
    }

    /// Creates an ENI in a subnet.
    pub(crate) fn create(&self, subnet: &str) -> String {
        let query = format!("Action=CreateNetworkInterface&SubnetId={}", self.subnet(subnet));
        element(&self.call(&query), "networkInterfaceId")
    }

    /// Attaches an ENI; the attachment's id.
    pub(crate) fn attach(&self, eni: &str, instance: &str, index: u32) -> String {
        let instance = self.instance(instance, "id");
        let query = format!(
            "Action=AttachNetworkInterface&NetworkInterfaceId={eni}&InstanceId={instance}&DeviceIndex={index}"
        );
        element(&self.call(&query), "attachmentId")
    }

    /// Something of an ENI.
    pub(crate) fn eni(&self, eni: &str, name: &str) -> String {
        element(&self.call(&format!("Action=DescribeNetworkInterfaces&NetworkInterfaceId.1={eni}")), name)
    }

    /// Names of the links in an instance that have this MAC.
    pub(crate) fn links(&self, instance: &str, mac: &str) -> Vec<String> {
        let all: Value = serde_json::from_str(&self.exec(instance, &["ip", "-j", "link"])).unwrap();
        let all = all.as_array().unwrap().iter().filter(|l| l["address"] == mac);
        all.map(|l| l["ifname"].as_str().unwrap().to_owned()).collect()
    }

    /// Ends the process as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether the process has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let output = self.vpcbox("down", &[]);
        drop(self.child.kill());
        drop(self.child.wait());
        if !std::thread::panicking() {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(namespaces(&self.name), Vec::<String>::new(), "left behind");
        }
    }
}

/// Runs `vpcbox COMMAND --name NAME ARGUMENTS`.
pub(crate) fn vpcbox(command: &str, name: &str, arguments: &[&str]) -> Output {
    Command::new(VPCBOX).args([command, "--name", name]).args(arguments).output().unwrap()
}

/// Namespaces of a box that there are.
pub(crate) fn namespaces(name: &str) -> Vec<String> {
    let Ok(all) = fs::read_dir("/run/netns") else { return Vec::new() };
    let all = all.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    all.filter(|file| file.starts_with(&format!("{name}-"))).collect()
}

/// Waits for a state.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The text of the first element of this name.
pub(crate) fn element(xml: &str, name: &str) -> String {
    let rest = xml.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("no {name} in {xml}")).1;
    rest.split_once('<').unwrap().0.to_owned()
}

/// POST over a connection of its own; the body of the reply.
pub(crate) fn http_post(endpoint: &str, path: &str, body: &str) -> String {
    let host = endpoint.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
}

/// A Python with boto3 and awscli, made under the target directory by the script that the demo uses too. Fails loudly when it cannot be:
/// the wire is not tested without them.
pub(crate) fn python() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/python.sh");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let output = Command::new(script).arg("aws").arg(target).output().unwrap();
    assert!(output.status.success(), "python.sh: {}", String::from_utf8_lossy(&output.stderr));
    Path::new(String::from_utf8(output.stdout).unwrap().trim()).join("python")
}
