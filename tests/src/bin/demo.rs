//! `make demo`: an ECS cluster on two instances of a VPC in a box, driven with the AWS CLI. Two tasks of one team reach each other in one hop
//! without address translation and read about themselves; a task of another team on the same instance is kept apart by its security
//! group until a rule lets it in. Prints an account, writes `target/demo/report.json`, leaves nothing.
//!
//! `KEEP=1` leaves everything running and prints commands to try.

use anyhow::{Context, Result, bail, ensure};
use e2e::{
    ecs::{Cluster, container_instance, text},
    image,
    lab::{Agent, Lab, Settings, arn},
    leaks::Belongings,
    process::Process,
};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

/// Prefix of all names of the demo.
const NAME: &str = "berth-demo";

fn main() -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        eprintln!(
            "demo: expected to run as root (or through sudo): it makes network namespaces and containers"
        );
        return ExitCode::FAILURE;
    }
    let result = match std::env::args().nth(1).as_deref() {
        None => demo(),
        Some("down") => settings().and_then(|s| s.sweep()),
        Some(other) => Err(anyhow::anyhow!("`{other}`: expected nothing, or `down`")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ndemo: FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Where everything of the demo lies.
fn target() -> Result<PathBuf> {
    Ok(std::path::absolute("target/demo")?)
}

fn settings() -> Result<Settings> {
    let mut settings = Settings::new(target()?.join("lab"), NAME);
    settings.registry = true;
    Ok(settings)
}

fn demo() -> Result<()> {
    let keep = std::env::var("KEEP").is_ok_and(|v| v == "1");
    let (target, settings) = (target()?, settings()?);
    let start = Instant::now();
    // What a demo that was killed in its middle left goes first, so that it does not count as the machine's own.
    settings.sweep().context("sweep what an earlier demo left")?;
    let before = Belongings::observe(&settings)?;
    let mut report = Report::default();

    step(
        "One VPC with two subnets in two zones, an instance in each, a registry, an ECS cluster, an agent on each instance",
    );
    let mut lab = Lab::start(settings)?;
    match tasks(&mut lab, &mut report) {
        Ok((ecs, network)) if keep => {
            print_keep(&lab, &ecs, &network)?;
            lab.keep();
            return report.write(&target, None);
        }
        Ok((ecs, _)) => {
            step("Stop the tasks through ECS");
            stop_all(&ecs).inspect_err(|_| lab.print_logs())?;
        }
        Err(error) => {
            lab.print_logs();
            return Err(error);
        }
    }

    step("Stop everything, and look for what is left");
    let mut left = lab.stop().inspect_err(|_| lab.print_logs())?;
    // Looked at before the lab's own sweep: what the agents leave is theirs to answer for.
    left.extend(Belongings::observe(&lab.settings)?.since(&before));
    drop(lab);
    report.write(&target, Some(&left))?;
    ensure!(left.is_empty(), "left behind:\n  {}", left.join("\n  "));
    println!("    nothing: no namespace, link, mount, container, process, cgroup, nftables table or ENI");
    println!(
        "\nDone in {:.1} s. The same as JSON: {}",
        start.elapsed().as_secs_f64(),
        target.join("report.json").display()
    );
    Ok(())
}

fn step(text: &str) {
    println!("\n==> {text}");
}

/// The facts and timings of the report.
#[derive(Debug, Default)]
struct Report(serde_json::Map<String, Value>);

impl Report {
    fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.into(), value.into());
    }

    fn write(&mut self, target: &Path, left: Option<&[String]>) -> Result<()> {
        self.set("left_behind", left.map_or(Value::Null, |l| json!(l)));
        std::fs::create_dir_all(target)?;
        std::fs::write(target.join("report.json"), serde_json::to_string_pretty(&self.0)? + "\n")
            .context("write report.json")
    }
}

/// Runs the tasks; the cluster, and the network configuration of team red on instance two.
fn tasks(lab: &mut Lab, report: &mut Report) -> Result<(Cluster, String)> {
    for agent in &lab.agents {
        print!("{}", indent(&agent.text(&["slots"])?));
        let slots = agent.json(&["slots"])?;
        let micros = slots["slots"][0]["build_micros"].as_u64().context("no slot")?;
        report.set(&format!("cold_slot_build_micros_{}", agent.instance), micros);
        println!("    {}: cold slot build {}", agent.instance, millis(micros));
    }

    step(
        "The cluster has two container instances; two teams get a security group each, and `red` may talk to itself",
    );
    let ecs = Cluster::new(lab.aws()?, "demo")?;
    for agent in &lab.agents {
        println!("    {}: {}", agent.instance, container_instance(agent)?);
    }
    let (red, blue) = (ecs.group("red")?, ecs.group("blue")?);
    let allow = ["ec2", "authorize-security-group-ingress", "--group-id", &red];
    aws(&ecs, &[&allow[..], &["--protocol", "all", "--source-group", &red]].concat())?;
    let definitions = lab.settings.dir.clone();
    let register = |name: &str| -> Result<String> {
        let file = definitions.join(name);
        std::fs::write(&file, serde_json::to_vec_pretty(&lab.in_registry(example(name)?)?)?)?;
        let input = format!("file://{}", file.display());
        let made = aws(&ecs, &["ecs", "register-task-definition", "--cli-input-json", &input])?;
        text(&made, "/taskDefinition/taskDefinitionArn")
    };
    let (web_definition, probe_definition) = (register("web.json")?, register("probe.json")?);

    step(
        "Run `web` of team red on instance one: busybox httpd on port 80 of its own ENI, its image from a registry in the VPC",
    );
    let web =
        launch(&ecs, &lab.agents[0], &web_definition, &ecs.network("us-west-2a", &[&red])?, None, report)?;
    let web_ip = ip(&web)?;

    step("Run `probe` of team red on instance two: it fetches the page from web's ENI address");
    let red_on_two = ecs.network("us-west-2b", &[&red])?;
    let probe = launch(&ecs, &lab.agents[1], &probe_definition, &red_on_two, Some(&web_ip), report)?;
    let probe_ip = ip(&probe)?;

    step("What they say");
    let said = wait_for_output(&mut lab.agents[1], &probe, &["page: ", "ttl=", "metadata: {"])?;
    let page = after(&said, "page: ")?;
    ensure!(format!("{page}\n") == image::PAGE, "the page is `{page}`, expected `{}`", image::PAGE.trim());
    println!("    probe got the page: {page}");
    report.set("page", page);

    let ttl: u32 =
        after(&said, "ttl=")?.split(' ').next().unwrap_or_default().parse().context("read the TTL")?;
    // Linux sends with 64; each router on the way takes one.
    let hops =
        64_u32.checked_sub(ttl).with_context(|| format!("a TTL of {ttl} arrives, expected at most 64"))?;
    ensure!(hops == 1, "{hops} hops between the tasks, expected 1");
    println!("    {hops} hop between the tasks (TTL {ttl} of 64 arrives)");
    report.set("hops", hops);

    let seen = wait_for_output(&mut lab.agents[0], &web, &["url:/"])?;
    let line = seen.lines().find(|l| l.contains("url:/")).context("web logged no request")?;
    let peer = line.trim_start_matches('[').trim_start_matches("::ffff:");
    ensure!(
        peer.strip_prefix(&*probe_ip).is_some_and(|rest| rest.starts_with([']', ':'])),
        "web saw its peer as `{line}`, expected {probe_ip}: addresses were translated"
    );
    println!("    no address translation: web saw its peer as {probe_ip}, probe's own ENI address");
    report.set("peer_seen_by_web", probe_ip.clone());
    own_metadata(lab, &said, (&web, &web_ip), (&probe, &probe_ip), report)?;

    let network = ecs.network("us-west-2a", &[&blue])?;
    teams(lab, &ecs, (&red, &blue), &probe_definition, &network, &web_ip, report)?;
    Ok((ecs, red_on_two))
}

/// Another team's task on the same instance as `web`: no way in, until a rule says so.
fn teams(
    lab: &mut Lab,
    ecs: &Cluster,
    (red, blue): (&str, &str),
    probe: &str,
    network: &str,
    web_ip: &str,
    report: &mut Report,
) -> Result<()> {
    step("Run `probe` of team blue on instance one, beside web: no rule lets it in");
    let task = launch(ecs, &lab.agents[0], probe, network, Some(web_ip), report)?;
    let said = wait_for_output(&mut lab.agents[0], &task, &["page: ", "metadata: {"])?;
    ensure!(after(&said, "page: ")?.is_empty() && !said.contains("ttl="), "team blue reached web: {said}");
    println!("    no page, no echo: web's security group drops what is not from team red");

    step("Let blue in, and ask once more");
    let allow = ["ec2", "authorize-security-group-ingress", "--group-id", red];
    aws(ecs, &[&allow[..], &["--protocol", "tcp", "--port", "80", "--source-group", blue]].concat())?;
    ecs.stop(arn(&task)?)?;
    let task = launch(ecs, &lab.agents[0], probe, network, Some(web_ip), report)?;
    let said = wait_for_output(&mut lab.agents[0], &task, &["page: ", "metadata: {"])?;
    let page = after(&said, "page: ")?;
    ensure!(format!("{page}\n") == image::PAGE, "team blue got `{page}`, expected the page");
    ensure!(!said.contains("ttl="), "the rule is for port 80, and an echo came back: {said}");
    println!("    blue got the page: {page} (port 80 only: still no echo)");
    report.set("teams_kept_apart", true);
    Ok(())
}

/// Runs the AWS CLI, and shows what was typed.
fn aws(ecs: &Cluster, args: &[&str]) -> Result<Value> {
    println!("    $ aws {}", args.join(" "));
    ecs.aws.call(args)
}

fn stop_all(ecs: &Cluster) -> Result<()> {
    let listed = ecs.ecs("list-tasks", &[])?;
    let tasks: Vec<&str> =
        listed["taskArns"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for task in &tasks {
        ecs.stop(task)?;
    }
    for task in &tasks {
        let seen = ecs.until(task, "STOPPED")?;
        println!(
            "    {} {}: {}",
            text(&seen, "/group")?.trim_start_matches("family:"),
            text(&seen, "/lastStatus")?,
            text(&seen, "/stoppedReason")?
        );
    }
    Ok(())
}

/// What each task reads about itself: probe printed it, web is asked from within its namespace.
fn own_metadata(
    lab: &mut Lab,
    said: &str,
    web: (&Value, &str),
    probe: (&Value, &str),
    report: &mut Report,
) -> Result<()> {
    let probe_metadata: Value =
        serde_json::from_str(&after(said, "metadata: ")?).context("read probe's metadata")?;
    let namespace = web.0["network"]["netnsPath"].as_str().context("web has no namespace")?;
    let path = web.0["containers"][0]["metadataPath"].as_str().context("web has no metadata path")?;
    let body = e2e::process::run(
        std::process::Command::new("nsenter")
            .arg(format!("--net={namespace}"))
            .args(["timeout", "5", "busybox", "wget", "-q", "-O", "-"])
            .arg(format!("http://169.254.170.2{path}/task")),
    )?;
    let web_metadata: Value = serde_json::from_str(&body).context("read web's metadata")?;
    for (name, metadata, (task, address)) in [("web", web_metadata, web), ("probe", probe_metadata, probe)] {
        ensure!(metadata["TaskARN"] == task["taskArn"], "{name} reads another task's metadata: {metadata}");
        let network = &metadata["Containers"][0]["Networks"][0];
        ensure!(network["IPv4Addresses"] == json!([address]), "{name} reads another address: {network}");
        println!(
            "    {name} about itself: {} {}:{}, {} in {}, {}",
            metadata["Cluster"].as_str().unwrap_or_default(),
            metadata["Family"].as_str().unwrap_or_default(),
            metadata["Revision"].as_str().unwrap_or_default(),
            address,
            metadata["AvailabilityZone"].as_str().unwrap_or_default(),
            network["MACAddress"].as_str().unwrap_or_default(),
        );
        report.set(&format!("metadata_{name}"), metadata);
    }
    lab.agents.iter_mut().filter_map(|a| a.process.as_mut()).try_for_each(Process::must_run)
}

/// Starts a task through ECS, waits until ECS says RUNNING, and shows where the time went. Answers the task as its agent has it.
fn launch(
    ecs: &Cluster,
    agent: &Agent,
    definition: &str,
    network: &str,
    web: Option<&str>,
    report: &mut Report,
) -> Result<Value> {
    let environment = json!([{"name": "WEB_ADDRESS", "value": web}]);
    let overrides =
        json!({"containerOverrides": [{"name": "client", "environment": environment}]}).to_string();
    let more = if web.is_some() { vec!["--overrides", &overrides] } else { Vec::new() };
    println!(
        "    $ aws ecs start-task --task-definition {} --network-configuration {network} ...",
        definition.rsplit('/').next().unwrap_or_default()
    );
    let start = Instant::now();
    let task = ecs.start(agent, definition, network, &more)?;
    ecs.until(&task, "RUNNING")?;
    let command = start.elapsed();
    let task = agent.json(&["inspect", &task])?;
    let definition = text(&task, "/taskDefinition")?;
    let family = definition.split(':').next().unwrap_or_default();
    let micros = task["launchMicros"].as_u64().context("the task has no launch time")?;
    let lease = task["leaseMicros"].as_u64();
    report.set(&format!("assignment_to_running_micros_{family}"), micros);
    report.set(&format!("lease_micros_{family}"), lease);
    print!("{}", indent(&agent.text(&["tasks"])?));
    println!(
        "    {family}: from the command to RUNNING in ECS {:.1} s, polling and the CLI included; of this the agent took {}, its lease {}",
        command.as_secs_f64(),
        millis(micros),
        lease.map_or("-".into(), millis),
    );
    Ok(task)
}

fn example(name: &str) -> Result<Value> {
    let path = PathBuf::from("docs/examples").join(name);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("read {} (run from the top of the checkout)", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))
}

fn ip(task: &Value) -> Result<String> {
    Ok(task["network"]["ipv4"][0].as_str().with_context(|| format!("no address in {task}"))?.to_owned())
}

/// The task's output once it holds all of these texts.
fn wait_for_output(agent: &mut Agent, task: &Value, texts: &[&str]) -> Result<String> {
    agent.wait("the task's output", |agent| {
        let output = agent.text(&["logs", arn(task)?])?;
        if let Some(missing) = texts.iter().find(|t| !output.contains(**t)) {
            bail!("no `{missing}` in the output of {}:\n{output}", arn(task)?);
        }
        Ok(Some(output))
    })
}

/// The rest of the line behind a text.
fn after(output: &str, text: &str) -> Result<String> {
    let (_, rest) = output.split_once(text).with_context(|| format!("no `{text}` in:\n{output}"))?;
    Ok(rest.lines().next().unwrap_or_default().to_owned())
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

fn millis(micros: u64) -> String {
    let duration = Duration::from_micros(micros);
    if micros < 1000 { format!("{micros} us") } else { format!("{:.1} ms", duration.as_secs_f64() * 1e3) }
}

/// Commands that a stranger can paste into a shell.
fn print_keep(lab: &Lab, ecs: &Cluster, network: &str) -> Result<()> {
    let show = |title: &str, lines: &[String]| println!("\n  {title}\n    {}", lines.join("\n    "));
    let cluster = format!("--cluster {}", ecs.name);
    let run = |family: &str| {
        format!(
            r#"task=$(aws ecs run-task {cluster} --task-definition {family} --network-configuration "$network" --query 'tasks[0].taskArn' --output text)"#
        )
    };
    println!("\nEverything is left running (KEEP=1). To try, in another shell:");
    show("the AWS CLI, for this VPC (no root needed):", &ecs.aws.exports()?);
    show(
        "run one more task of team red, look at it, stop it:",
        &[
            format!("network='{network}'"),
            run("web"),
            format!("aws ecs wait tasks-running {cluster} --tasks $task"),
            format!(
                "aws ecs describe-tasks {cluster} --tasks $task --query 'tasks[0].[lastStatus,attachments[0].details]'"
            ),
            format!("aws ecs stop-task {cluster} --task $task --query task.desiredStatus"),
            format!("aws ecs wait tasks-stopped {cluster} --tasks $task"),
        ],
    );
    let missing = format!(r#"[{{"name":"app","image":"{}/no/such","memory":64}}]"#, lab.registry()?.host);
    show(
        "why does a task not run? one whose image does not exist:",
        &[
            format!(
                "aws ecs register-task-definition --family broken --network-mode awsvpc --container-definitions '{missing}' --query taskDefinition.status"
            ),
            run("broken"),
            format!("aws ecs wait tasks-stopped {cluster} --tasks $task"),
            format!(
                "aws ecs describe-tasks {cluster} --tasks $task --query 'tasks[].[lastStatus,stoppedReason,containers[].reason]'"
            ),
        ],
    );
    let agent = &lab.agents[0];
    show(
        "on the instances (as root, after the first line above):",
        &[
            format!("export BERTH_ADMIN_SOCKET={}    # instance {}", agent.socket.display(), agent.instance),
            "berth status; berth tasks; berth slots; berth images; berth events".into(),
            format!("vpcbox status --name {NAME}"),
            format!("vpcbox exec --name {NAME} {} -- ip addr", agent.instance),
            "ip netns".into(),
        ],
    );
    println!("\nThe next `make demo` (or `make demo-down`) removes it all.");
    Ok(())
}
