//! The program's commands, and what its knobs do to real links.

mod common;

use common::{Running, VPCBOX, config, element, fresh_name, http_post, namespaces, until, vpcbox};
use std::{fs, net::TcpListener, process::Command};

#[test]
fn a_link_shows_up_when_attached_and_goes_when_detached() {
    let running = Running::start(false, 0);
    let eni = running.create("a");
    let mac = running.eni(&eni, "macAddress");
    assert_eq!(running.links("one", &mac), Vec::<String>::new());
    let attachment = running.attach(&eni, "one", 1);
    until("the link is there", || running.links("one", &mac) == ["eth1"]);
    running.call(&format!("Action=DetachNetworkInterface&AttachmentId={attachment}"));
    until("the ENI is free", || running.eni(&eni, "status") == "available");
    assert_eq!(running.links("one", &mac), Vec::<String>::new(), "a free ENI has no link");
    running.attach(&eni, "one", 2);
    until("the link is there again", || !running.links("one", &mac).is_empty());
}

#[test]
fn links_come_late_or_never_and_are_pulled_as_told() {
    let running = Running::start(false, 0);
    let turned = running.vpcbox("knob", &["link-never=1", "attach-ms=0"]);
    assert!(turned.status.success(), "{}", String::from_utf8_lossy(&turned.stderr));
    let (never, late) = (running.create("a"), running.create("a"));
    let (never_mac, late_mac) = (running.eni(&never, "macAddress"), running.eni(&late, "macAddress"));
    running.attach(&never, "one", 1);
    running.vpcbox("knob", &["link-ms=1500"]);
    running.attach(&late, "one", 2);
    assert_eq!(running.eni(&late, "status"), "in-use");
    assert!(running.links("one", &late_mac).is_empty(), "EC2 is ahead of the kernel");
    until("the late link is there", || !running.links("one", &late_mac).is_empty());
    assert!(running.links("one", &never_mac).is_empty());
    assert_eq!(running.eni(&never, "status"), "in-use");
    running.vpcbox("knob", &[&format!("pull={late}")]);
    until("it was pulled", || running.links("one", &late_mac).is_empty());
    assert_eq!(running.eni(&late, "status"), "in-use");
}

#[test]
fn the_router_forgets_an_address_that_leaves_or_comes_to_an_eni_that_stays() {
    let running = Running::start(false, 0);
    let eni = running.create("a");
    running.attach(&eni, "one", 1);
    until("attached", || !running.links("one", &running.eni(&eni, "macAddress")).is_empty());
    let netns = format!("--net={}", running.status["vpc_netns"].as_str().unwrap());
    let subnet = running.subnet("a");
    let bridge = format!("br-{}", &subnet[subnet.len() - 12..]);
    let neighbours = |arguments: &[&str]| {
        let ip = Command::new("nsenter").args([&netns, "ip", "neigh"]).args(arguments).output().unwrap();
        assert!(ip.status.success(), "{}", String::from_utf8_lossy(&ip.stderr));
        String::from_utf8(ip.stdout).unwrap()
    };
    for action in ["Assign", "Unassign", "Assign"] {
        let elsewhere = ["replace", "10.0.1.200", "lladdr", "02:00:00:00:00:99", "nud", "reachable", "dev"];
        neighbours(&[&elsewhere[..], &[&bridge]].concat());
        running.call(&format!(
            "Action={action}PrivateIpAddresses&NetworkInterfaceId={eni}&PrivateIpAddress.1=10.0.1.200"
        ));
        until(action, || !neighbours(&["show"]).contains("02:00:00:00:00:99"));
    }
}

#[test]
fn a_command_runs_in_the_instances_network_and_in_everybodys_mounts() {
    let running = Running::start(false, 0);
    let addresses = running.exec("one", &["ip", "-4", "-o", "addr", "show", "dev", "eth0"]);
    assert!(addresses.contains(&running.instance("one", "ipv4")), "{addresses}");
    let id = running.instance("one", "id");
    let link = |path: &str| fs::read_link(path).unwrap().display().to_string();
    assert_eq!(running.exec(&id, &["readlink", "/proc/self/ns/mnt"]).trim(), link("/proc/self/ns/mnt"));
    assert_ne!(running.exec(&id, &["readlink", "/proc/self/ns/net"]).trim(), link("/proc/self/ns/net"));
    let wrong = running.vpcbox("exec", &["three", "--", "true"]);
    let said = String::from_utf8(wrong.stderr).unwrap();
    assert!(!wrong.status.success() && said.contains("three") && said.contains("one"), "{said}");
    let exit = running.vpcbox("exec", &["one", "--", "sh", "-c", "exit 7"]);
    assert_eq!(exit.status.code(), Some(7));
}

#[test]
fn the_api_is_inside_the_vpc_too_but_not_its_knobs() {
    let running = Running::start(false, 0);
    let inside = |url: &str, body: &str| {
        let url = format!("http://{url}:{}/", running.port());
        running.exec("two", &["curl", "-s", "-m", "20", "--data", body, &url])
    };
    for place in ["127.0.0.1", "10.0.2.1"] {
        let reply = inside(place, "Action=DescribeVpcs");
        assert_eq!(element(&reply, "vpcId"), running.status["vpc"].as_str().unwrap(), "at {place}");
    }
    let url = format!("http://127.0.0.1:{}/_vpcbox/knobs", running.port());
    let reply = running.exec("two", &["curl", "-s", "-m", "20", "--data", r#"{"throttle":5}"#, &url]);
    assert!(reply.contains("InvalidAction"), "{reply}");
    let knobs = http_post(running.endpoint(), "/_vpcbox/knobs", "{}");
    assert!(knobs.contains(r#""throttle": 0"#), "{knobs}");
}

#[test]
fn status_shows_what_there_is_and_knobs_that_cannot_be_are_refused() {
    let running = Running::start(false, 0);
    let eni = running.create("a");
    let table = String::from_utf8(running.vpcbox("status", &[]).stdout).unwrap();
    for part in [&running.name, &eni, "m5.large", "us-west-2b", "10.0.2.0/28"] {
        assert!(table.contains(part), "{part} is not in {table}");
    }
    let gone = format!("{VPCBOX} status --name {} | true; exit ${{PIPESTATUS[0]}}", running.name);
    let gone = Command::new("bash").args(["-c", &gone]).output().unwrap();
    assert!(gone.status.success() && gone.stderr.is_empty(), "a reader that goes is no error: {gone:?}");
    let json = running.vpcbox("status", &["--json"]).stdout;
    let status: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(status["enis"].as_array().unwrap().len(), 3);
    let refused = running.vpcbox("knob", &["fail=MakeCoffee:Teapot"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("MakeCoffee"), "{said}");
}

#[test]
fn down_ends_a_running_box_and_may_be_repeated() {
    let mut running = Running::start(false, 0);
    let eni = running.create("a");
    running.attach(&eni, "one", 1);
    assert!(running.vpcbox("down", &[]).status.success());
    until("the process has ended", || running.has_ended());
    assert_eq!(namespaces(&running.name), Vec::<String>::new());
    assert!(running.vpcbox("down", &[]).status.success());
}

#[test]
fn down_ends_a_box_that_another_version_of_the_program_brought_up() {
    let running = Running::start(true, 0);
    let file = format!("/run/vpcbox/{}.json", running.name);
    let pid = running.status["pid"].as_u64().unwrap();
    fs::write(file, format!(r#"{{"name":"{}","pid":{pid},"written_by":"another"}}"#, running.name)).unwrap();
    let down = running.vpcbox("down", &[]);
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    assert!(namespaces(&running.name).is_empty());
}

#[test]
fn down_removes_what_a_killed_box_left_and_up_starts_over_it() {
    let mut running = Running::start(false, 0);
    running.kill();
    assert_eq!(namespaces(&running.name).len(), 3, "a kill leaves everything");
    let ready = running.file.with_file_name("again.json");
    let mut again = Command::new(VPCBOX)
        .args(["up", "--json", "-f"])
        .arg(&running.file)
        .arg("--ready-file")
        .arg(&ready)
        .env("RUST_LOG", "warn")
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    until("the second box is ready", || again.try_wait().unwrap().is_none() && ready.exists());
    again.kill().unwrap();
    again.wait().unwrap();
    let down = running.vpcbox("down", &[]);
    assert!(String::from_utf8(down.stdout).unwrap().contains("removed"));
    assert_eq!(namespaces(&running.name), Vec::<String>::new());
}

#[test]
fn down_asks_nobody_to_end_but_the_box_itself() {
    let mut running = Running::start(false, 0);
    let other = fresh_name();
    // As if this box had been given the process id of a killed one.
    let mut file = running.status.clone();
    file["name"] = other.clone().into();
    fs::write(format!("/run/vpcbox/{other}.json"), file.to_string()).unwrap();
    fs::write(format!("/run/vpcbox/{other}.json.new"), "{").unwrap();
    assert!(vpcbox("down", &other, &[]).status.success());
    assert!(!running.has_ended());
    let left = fs::read_dir("/run/vpcbox").unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert_eq!(left.filter(|file| file.starts_with(&other)).count(), 0);
}

#[test]
fn an_up_that_fails_says_why_and_leaves_nothing_not_even_an_older_ready_file() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (name, dir) = (fresh_name(), tempfile::tempdir().unwrap());
    let (file, ready) = (dir.path().join("vpc.toml"), dir.path().join("ready.json"));
    let address = taken.local_addr().unwrap().to_string();
    fs::write(&file, config(&name, false, 0).replace("127.0.0.1:0", &address)).unwrap();
    fs::write(&ready, "of a box that was killed").unwrap();
    let up = Command::new(VPCBOX).args(["up", "-f"]).arg(&file).arg("--ready-file").arg(&ready).output();
    let up = up.unwrap();
    let said = String::from_utf8(up.stderr).unwrap();
    assert!(!up.status.success() && said.contains(&address) && said.contains("in use"), "{said}");
    assert!(!said.contains('\u{1b}'), "no colours where there is no terminal: {said}");
    assert!(!ready.exists());
    assert_eq!(namespaces(&name), Vec::<String>::new());
}

#[test]
fn a_closed_terminal_ends_a_box_as_ctrl_c_does() {
    let mut running = Running::start(false, 0);
    let pid = running.status["pid"].to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    until("the process has ended", || running.has_ended());
    assert_eq!(namespaces(&running.name), Vec::<String>::new());
}

#[test]
fn a_second_box_of_the_same_name_is_refused_and_harms_nothing() {
    let running = Running::start(false, 0);
    let second = Command::new(VPCBOX).args(["up", "-f"]).arg(&running.file).output().unwrap();
    assert!(!second.status.success());
    assert!(String::from_utf8(second.stderr).unwrap().contains(&running.name));
    let reply = running.call("Action=DescribeVpcs");
    assert_eq!(element(&reply, "vpcId"), running.status["vpc"].as_str().unwrap());
    assert!(running.exec("one", &["true"]).is_empty());
}

#[test]
fn what_is_not_up_is_said_to_be_so() {
    let name = fresh_name();
    for command in ["status", "knob"] {
        let output = vpcbox(command, &name, &[]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(&format!("{name} is not up")), "{said}");
    }
}
