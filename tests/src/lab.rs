//! A lab: one VPC in a box with two subnets in two zones, an instance in each, an agent on each, and a private containerd. Everything
//! lies in one directory and carries the lab's name, so that nothing of the machine's own is touched and a dead lab can be swept.

use crate::{
    aws::Aws,
    boto::Boto,
    image::{self, Image},
    process::{Process, eventually, program, run},
    registry::Registry,
    sweep,
};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// How long anything in a lab may take to come up: a debug build on a loaded machine of two cores.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a lab is made with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where everything lies; emptied first.
    pub dir: PathBuf,
    /// Prefix of all names; letters, digits and dashes.
    pub name: String,
    /// More lines for `vpc.toml`.
    pub vpc: String,
    /// More lines for the agents' settings.
    pub agent: String,
    /// Whether there is a registry, with the image in it, from which the agents pull. Otherwise the image is imported on each instance.
    pub registry: bool,
}

impl Settings {
    /// A lab of this name in this directory, with quick delays.
    pub fn new(dir: impl Into<PathBuf>, name: &str) -> Self {
        Self {
            dir: dir.into(),
            name: name.into(),
            vpc: "[delays]\nattach_ms = 100\ndetach_ms = 100\nlink_ms = 50\n".into(),
            agent: "BERTH_WARM_SLOTS=1\nBERTH_ENI_COOLDOWN=1s\n".into(),
            registry: false,
        }
    }

    fn instance_id(&self, instance: &str) -> String {
        let digest = hex::encode(Sha256::digest(format!("{}/{instance}", self.name)));
        format!("i-{}", &digest[..17])
    }

    /// What the agents' namespaces are named by: the end of the instances' ids.
    pub fn owner_tags(&self) -> Vec<String> {
        INSTANCES
            .iter()
            .map(|(name, ..)| self.instance_id(name))
            .map(|id| id[id.len() - 8..].to_owned())
            .collect()
    }

    /// Removes what a lab with these settings has left.
    pub fn sweep(&self) -> Result<()> {
        sweep::sweep(&self.dir, &self.name, &self.owner_tags())
    }
}

/// Instances: name, zone letter, subnet, IPv6 subnet.
const INSTANCES: [(&str, &str, &str, &str); 2] =
    [("one", "a", "10.0.1.0/24", "fd00:10:0:1::/64"), ("two", "b", "10.0.2.0/24", "fd00:10:0:2::/64")];

/// The router's address in the first subnet, reached from every instance.
const ROUTER: &str = "10.0.1.1";
/// The box's operator.
const OPERATOR: (&str, &str) = ("AKIAOPERATOR", "operator-secret");

/// A running lab. Dropped, its processes are killed and everything is swept, unless [`Lab::keep`] was called.
#[derive(Debug)]
pub struct Lab {
    /// With what it was made.
    pub settings: Settings,
    /// Its agents, in the order of the instances.
    pub agents: Vec<Agent>,
    /// The box.
    pub vpcbox: Option<Process>,
    containerd: Option<Process>,
    registry: Option<Registry>,
    /// URL of the box's API.
    pub endpoint: String,
    keep: bool,
}

/// An agent on an instance of the box.
#[derive(Debug)]
pub struct Agent {
    /// Name of the instance.
    pub instance: String,
    /// Id of the instance.
    pub instance_id: String,
    /// Its settings.
    pub config: PathBuf,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Its admin socket.
    pub socket: PathBuf,
    /// The agent, while it runs.
    pub process: Option<Process>,
    lab: String,
    log: PathBuf,
}

impl Lab {
    /// Sweeps what a dead lab left, then brings up containerd, the box, the image and the agents, and waits until their pools are warm.
    pub fn start(settings: Settings) -> Result<Self> {
        let mut lab = Self::prepare(settings)?;
        lab.start_agents()?;
        Ok(lab)
    }

    /// As [`Lab::start`], but the agents are not started.
    pub fn prepare(settings: Settings) -> Result<Self> {
        settings.sweep().context("sweep what an earlier lab left")?;
        fs::create_dir_all(&settings.dir)?;
        let endpoint = String::new();
        let (agents, vpcbox, containerd, registry) = (Vec::new(), None, None, None);
        let mut lab = Self { settings, agents, vpcbox, containerd, registry, endpoint, keep: false };
        lab.containerd = Some(start_containerd(&lab.settings.dir)?);
        lab.start_vpcbox()?;
        if lab.settings.registry {
            let netns = format!("{}-vpc", lab.settings.name);
            let registry = Registry::start(&lab.settings.dir, &netns, ROUTER)?;
            registry.push(&Image::new(0)?, image::REPOSITORY, image::TAG)?;
            lab.registry = Some(registry);
        }
        for (instance, ..) in INSTANCES {
            lab.agents.push(lab.configure_agent(instance)?);
        }
        if lab.settings.registry {
            return Ok(lab);
        }
        let archive = lab.settings.dir.join("image.tar");
        image::write_archive(&archive)?;
        for agent in &lab.agents {
            agent.import(&archive)?;
        }
        Ok(lab)
    }

    /// Starts every agent and waits until each has a warm slot.
    pub fn start_agents(&mut self) -> Result<()> {
        for agent in &mut self.agents {
            agent.start()?;
        }
        self.agents.iter_mut().try_for_each(Agent::wait_warm)
    }

    /// Leaves everything running when the lab is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// The AWS CLI with the operator's keys.
    pub fn aws(&self) -> Result<Aws> {
        Aws::new(&self.endpoint, "us-west-2", OPERATOR.0, OPERATOR.1)
    }

    /// boto3 with the operator's keys.
    pub fn boto(&self) -> Result<Boto> {
        Boto::start(&self.endpoint, "us-west-2", OPERATOR.0, OPERATOR.1)
    }

    /// The lab's registry.
    pub fn registry(&self) -> Result<&Registry> {
        self.registry.as_ref().context("the lab was made without a registry")
    }

    /// The definition with its containers' image taken from the lab's registry.
    pub fn in_registry(&self, mut definition: Value) -> Result<Value> {
        let reference = format!("{}/{}:{}", self.registry()?.host, image::REPOSITORY, image::TAG);
        for container in definition["containerDefinitions"].as_array_mut().into_iter().flatten() {
            container["image"] = reference.clone().into();
        }
        Ok(definition)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.settings.dir.join(name)
    }

    /// Kills containerd -9. Shims, loggers and containers stay.
    pub fn kill_containerd(&mut self) -> Result<()> {
        let mut containerd = self.containerd.take().context("containerd does not run")?;
        containerd.end(Signal::SIGKILL, PATIENCE).map(drop)
    }

    /// Starts containerd again on what a killed one left, and waits until it listens.
    pub fn restart_containerd(&mut self) -> Result<()> {
        self.containerd = Some(start_containerd(&self.settings.dir)?);
        Ok(())
    }

    /// `vpc.toml`: everything given by name, the instances' ids too, so that a dead lab's namespaces are known by name.
    fn vpc_toml(&self) -> Result<String> {
        let s = &self.settings;
        let mut text = format!(
            "name = \"{}\"\nregion = \"us-west-2\"\naccount = \"111122223333\"\nlisten = \"127.0.0.1:0\"\nauth = true\nmtu = 1500\n\
             [operator]\naccess_key = \"{}\"\nsecret_key = \"{}\"\n[ecs]\nclusters = [\"demo\"]\n\
             [vpc]\ncidr = \"10.0.0.0/16\"\nipv6_cidr = \"fd00:10::/56\"\n[[security_group]]\nname = \"default\"\n",
            s.name, OPERATOR.0, OPERATOR.1
        );
        for (name, zone, ipv4, ipv6) in INSTANCES {
            write!(
                text,
                "[[subnet]]\nname = \"{name}\"\nzone = \"us-west-2{zone}\"\ncidr = \"{ipv4}\"\nipv6_cidr = \"{ipv6}\"\n\
                 [[instance]]\nid = \"{}\"\nname = \"{name}\"\ntype = \"m5.xlarge\"\nsubnet = \"{name}\"\n\
                 security_groups = [\"default\"]\nrole = \"node\"\n",
                s.instance_id(name)
            )?;
        }
        Ok(text + &s.vpc)
    }

    /// Starts the box and waits until it answers.
    pub fn start_vpcbox(&mut self) -> Result<()> {
        let file = self.path("vpc.toml");
        fs::write(&file, self.vpc_toml()?)?;
        let ready = self.path("vpcbox.ready");
        fs::remove_file(&ready).ok();
        let mut command = Command::new(program("vpcbox")?);
        command.arg("up").arg("-f").arg(&file).arg("--ready-file").arg(&ready);
        let mut process = Process::start("vpcbox", &mut command, &self.path("vpcbox.log"))?;
        let answer: Value = eventually("the box to be ready", PATIENCE, || {
            process.must_run()?;
            Ok(fs::read(&ready).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()))
        })?;
        self.endpoint =
            answer["endpoint"].as_str().context("the box's ready file names no endpoint")?.to_owned();
        self.vpcbox = Some(process);
        Ok(())
    }

    /// Turns the box's knobs: delays and faults.
    pub fn knob(&self, knobs: &[&str]) -> Result<()> {
        let mut command = Command::new(program("vpcbox")?);
        command.args(["knob", "--name", &self.settings.name]).args(knobs);
        run(&mut command).map(drop)
    }

    fn configure_agent(&self, instance: &str) -> Result<Agent> {
        let dir = self.path(instance);
        fs::create_dir_all(&dir)?;
        let agent = Agent {
            instance: instance.into(),
            ..Agent::at(&self.settings.name, &self.settings.instance_id(instance), &dir)
        };
        let text = format!(
            "ECS_CLUSTER=demo\nBERTH_DATA_DIR={data}\nBERTH_RUN_DIR={run}\nBERTH_CONTAINERD_SOCKET={socket}\n\
             BERTH_CONTAINERD_NAMESPACE=berth-{instance}\nBERTH_CGROUP_ROOT={cgroup}\nBERTH_EC2_ENDPOINT={endpoint}\nECS_BACKEND_HOST={endpoint}\n\
             BERTH_INSECURE_REGISTRIES={ROUTER}:5000\nECS_IMAGE_PULL_BEHAVIOR={pull}\nBERTH_MTU=1500\n\
             BERTH_DNS_SERVERS=10.0.0.2\nBERTH_DNS_SEARCH=us-west-2.compute.internal\n{more}",
            data = agent.data_dir.display(),
            run = dir.join("run").display(),
            socket = self.path("containerd.sock").display(),
            cgroup = sweep::cgroup_root(&self.settings.name),
            endpoint = self.endpoint,
            // What was imported by hand is in no registry.
            pull = if self.settings.registry { "default" } else { "prefer-cached" },
            more = self.settings.agent,
        );
        fs::write(&agent.config, text)?;
        Ok(agent)
    }

    /// Empties the pools, ends agents, box and containerd in order, and answers which ENIs EC2 still had when the agents had ended: the
    /// instances' primary ones are not counted.
    pub fn stop(&mut self) -> Result<Vec<String>> {
        for agent in &mut self.agents {
            agent.drain()?;
            agent.stop()?;
        }
        let left = enis_in_ec2(&self.settings.name)?;
        if let Some(mut registry) = self.registry.take() {
            registry.process.end(Signal::SIGTERM, PATIENCE)?;
        }
        if let Some(mut vpcbox) = self.vpcbox.take() {
            vpcbox.end(Signal::SIGTERM, PATIENCE)?;
        }
        if let Some(mut containerd) = self.containerd.take() {
            containerd.end(Signal::SIGTERM, PATIENCE)?;
        }
        Ok(left.iter().map(|eni| format!("ENI {}", eni["description"])).collect())
    }
}

/// A containerd of the lab's own in this directory; answers when it listens.
pub fn start_containerd(dir: &Path) -> Result<Process> {
    let socket = dir.join("containerd.sock");
    let config = format!(
        "version = 2\nroot = \"{root}\"\nstate = \"{state}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \
         \"io.containerd.internal.v1.opt\"]\n[grpc]\naddress = \"{socket}\"\n[ttrpc]\naddress = \"{socket}.ttrpc\"\n",
        root = dir.join("containerd-root").display(),
        state = dir.join("containerd-state").display(),
        socket = socket.display(),
    );
    let file = dir.join("containerd.toml");
    fs::write(&file, config)?;
    let mut command = Command::new("containerd");
    command.arg("--config").arg(&file);
    let mut process = Process::start("containerd", &mut command, &dir.join("containerd.log"))?;
    eventually("containerd's socket", PATIENCE, || {
        process.must_run()?;
        Ok(std::os::unix::net::UnixStream::connect(&socket).ok())
    })?;
    Ok(process)
}

/// What EC2 knows, whatever the agents believe: every ENI of the box of this name but the instances' primary ones.
fn enis_in_ec2(name: &str) -> Result<Vec<Value>> {
    let text = run(Command::new(program("vpcbox")?).args(["status", "--json", "--name", name]))?;
    let status: Value = serde_json::from_str(&text).context("read the box's status")?;
    let enis = status["enis"].as_array().context("the box's status names no ENIs")?;
    let primaries = enis.iter().filter(|e| is_primary(e)).count();
    ensure!(primaries == INSTANCES.len(), "{primaries} primary ENIs, expected {}: {status}", INSTANCES.len());
    Ok(enis.iter().filter(|e| !is_primary(e)).cloned().collect())
}

/// As the box names them when it makes its instances.
fn is_primary(eni: &Value) -> bool {
    eni["description"] == "Primary network interface"
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.keep {
            for agent in &mut self.agents {
                std::mem::forget(agent.process.take());
            }
            std::mem::forget((self.vpcbox.take(), self.containerd.take(), self.registry.take()));
            return;
        }
        if std::thread::panicking() {
            self.print_logs();
        }
        for agent in &mut self.agents {
            agent.process = None;
        }
        (self.vpcbox, self.containerd, self.registry) = (None, None, None);
        if let Err(error) = self.settings.sweep() {
            eprintln!("sweep of {}: {error:#}", self.settings.name);
        }
    }
}

impl Lab {
    /// The end of every log, for the text of a failure.
    pub fn print_logs(&self) {
        let agents = self.agents.iter().filter_map(|a| a.process.as_ref());
        for process in agents.chain(&self.vpcbox).chain(&self.containerd) {
            eprintln!("--- end of {}\n{}", process.log.display(), process.tail());
        }
    }
}

impl Agent {
    /// An agent whose files lie in this directory: `berth.config`, `data`, `run/admin.sock`, `agent.log`.
    pub fn at(lab: &str, instance_id: &str, dir: &Path) -> Self {
        Self {
            instance: instance_id.into(),
            instance_id: instance_id.into(),
            config: dir.join("berth.config"),
            data_dir: dir.join("data"),
            socket: dir.join("run/admin.sock"),
            process: None,
            lab: lab.into(),
            log: dir.join("agent.log"),
        }
    }

    /// Starts the agent in its instance's network namespace.
    pub fn start(&mut self) -> Result<()> {
        let (vpcbox, lab, id) = (program("vpcbox")?, self.lab.clone(), self.instance_id.clone());
        self.start_with(vpcbox, &["exec", "--name", &lab, &id, "--"], &[])
    }

    /// Starts the agent by a command that runs another one, with more in its environment.
    pub fn start_with(
        &mut self,
        runner: impl AsRef<std::ffi::OsStr>,
        args: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<()> {
        let mut command = Command::new(runner);
        command.args(args).arg(program("berth")?).envs(environment.iter().copied());
        command.arg("agent").arg("--config").arg(&self.config);
        self.process =
            Some(Process::start(&format!("the agent on {}", self.instance), &mut command, &self.log)?);
        Ok(())
    }

    /// Waits until a slot is warm.
    pub fn wait_warm(&mut self) -> Result<()> {
        self.wait("a warm slot", |agent| {
            let pool = agent.json(&["pool"])?;
            Ok((pool["warm"].as_u64() >= pool["warm_target"].as_u64()
                && pool["warm_target"].as_u64() > Some(0))
            .then_some(()))
        })
    }

    /// Waits for something that a living agent says.
    pub fn wait<T>(&mut self, what: &str, mut look: impl FnMut(&Self) -> Result<Option<T>>) -> Result<T> {
        let what = format!("{what} on {}", self.instance);
        eventually(&what, PATIENCE, || {
            if let Some(process) = &mut self.process {
                process.must_run()?;
            }
            look(self)
        })
    }

    /// A client command of this agent.
    pub fn berth(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(program("berth")?);
        command.args(args).env("BERTH_ADMIN_SOCKET", &self.socket);
        Ok(command)
    }

    /// Runs a client command; its output.
    pub fn text(&self, args: &[&str]) -> Result<String> {
        run(&mut self.berth(args)?)
    }

    /// Runs a client command with `--json`.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.text(&[args, &["--json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("read the output of berth {args:?}: {text}"))
    }

    /// Runs a task definition, waits until it runs; the task as `berth inspect --json` shows it, and the time of the whole command.
    pub fn run(&self, definition: &Value) -> Result<(Value, Duration)> {
        let file = self.config.with_file_name("definition.json");
        fs::write(&file, definition.to_string())?;
        let start = Instant::now();
        let task = self.json(&["run", &file.display().to_string()])?;
        Ok((task, start.elapsed()))
    }

    /// The task as it stands now.
    pub fn inspect(&self, task: &Value) -> Result<Value> {
        self.json(&["inspect", arn(task)?])
    }

    /// What EC2 knows of this agent's ENIs, whatever the agent believes.
    pub fn enis_in_ec2(&self) -> Result<Vec<Value>> {
        let mine = |e: &Value| e["description"].as_str().unwrap_or_default().contains(&self.instance_id);
        Ok(enis_in_ec2(&self.lab)?.into_iter().filter(mine).collect())
    }

    /// Imports an image archive for this agent.
    pub fn import(&self, archive: &Path) -> Result<()> {
        let mut command = Command::new(program("berth")?);
        command
            .args(["image", "import"])
            .arg(archive)
            .args(["--name", image::IMAGE, "--config"])
            .arg(&self.config);
        run(&mut command).map(drop)
    }

    /// Stops all tasks, empties the pool, and waits until no ENI is left.
    pub fn drain(&mut self) -> Result<()> {
        let list = self.json(&["tasks"])?;
        for task in list["tasks"].as_array().context("no tasks in the list")? {
            if task["lastStatus"] != "STOPPED" {
                self.text(&["stop", arn(task)?])?;
            }
        }
        self.text(&["pool", "--warm", "0"])?;
        self.wait("the pool to be empty", |agent| {
            let enis = agent.json(&["enis"])?;
            match enis["enis"].as_array().map(Vec::len) {
                Some(0) => Ok(Some(())),
                _ => bail!("still there: {enis}"),
            }
        })
    }

    /// Ends the agent as systemd does.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        match process.end(Signal::SIGTERM, PATIENCE)? {
            0 => Ok(()),
            code => {
                bail!("the agent on {} ended with {code} after SIGTERM:\n{}", self.instance, process.tail())
            }
        }
    }

    /// Kills the agent -9.
    pub fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the agent does not run")?;
        process.end(Signal::SIGKILL, PATIENCE).map(drop)
    }
}

/// The ARN in a task's JSON.
pub fn arn(task: &Value) -> Result<&str> {
    task["taskArn"].as_str().with_context(|| format!("no taskArn in {task}"))
}
