//! Each row of the mapping from a container definition to a runtime specification.

use super::*;
use crate::config::Nofile;
use berth_testkit::samples;
use berth_types::{
    eni::SlotFiles,
    ids::ContainerId,
    ports::CreateContainer,
    task::{ContainerSpec, Tmpfs, Ulimit, VolumeView},
};
use oci_spec::runtime::{Mount, PosixRlimitType};
use std::{collections::BTreeMap, path::Path, sync::Arc};

pub(crate) fn container_spec() -> ContainerSpec {
    samples::container("web", "busybox")
}

fn image() -> ImageSettings {
    ImageSettings {
        env: Some(vec!["PATH=/bin".into(), "A=image".into(), "B=image".into()]),
        entrypoint: Some(vec!["/entry".into()]),
        cmd: Some(vec!["cmd".into()]),
        working_dir: Some("/srv".into()),
        ..ImageSettings::default()
    }
}

fn host() -> HostFacts {
    HostFacts {
        arch: "x86_64",
        capabilities: CapabilitySet::from_mask((1 << 41) - 1),
        cgroup_v2: false,
        swap_limits: true,
        nofile: Nofile::default(),
    }
}

pub(crate) fn create(spec: ContainerSpec) -> CreateContainer {
    let task = "arn:aws:ecs:us-west-2:111122223333:task/demo/0123abcd".parse().unwrap();
    CreateContainer {
        id: ContainerId::derive(&task, &spec.name, 0),
        task,
        spec: Arc::new(spec),
        injected_environment: vec![("ECS_AGENT_URI".into(), "http://169.254.170.2/api/x".into())],
        labels: BTreeMap::new(),
        netns_path: "/run/netns/berth-1".into(),
        hostname: "ip-10-0-0-7".into(),
        files: SlotFiles {
            resolv_conf: "/s/resolv.conf".into(),
            hosts: "/s/hosts".into(),
            hostname: "/s/hostname".into(),
        },
        volumes: vec![],
        log_path: "/l/web.log".into(),
        task_cpu: None,
        task_memory: None,
        record: vec![],
    }
}

fn try_built(container: &CreateContainer, image: &ImageSettings, host: &HostFacts) -> Result<Spec> {
    build(&Inputs {
        container,
        image,
        passwd: "web:x:7:8::/:/bin/sh",
        group: "",
        host,
        cgroups_path: "/berth/t/c",
    })
}

fn built(change: impl FnOnce(&mut ContainerSpec)) -> Spec {
    let mut spec = container_spec();
    change(&mut spec);
    try_built(&create(spec), &image(), &host()).unwrap()
}

fn refused(change: impl FnOnce(&mut ContainerSpec)) -> String {
    let mut spec = container_spec();
    change(&mut spec);
    try_built(&create(spec), &image(), &host()).unwrap_err().to_string()
}

fn args(spec: &Spec) -> Vec<String> {
    spec.process().as_ref().unwrap().args().clone().unwrap()
}

fn words(text: &str) -> Option<Vec<String>> {
    Some(text.split_whitespace().map(str::to_owned).collect())
}

fn mount_at(spec: &Spec, destination: &str) -> Mount {
    let mut found = spec.mounts().iter().flatten().filter(|m| m.destination().to_str() == Some(destination));
    let mount = found.next().unwrap_or_else(|| panic!("nothing at {destination}"));
    assert!(found.next().is_none(), "two mounts at {destination}");
    mount.clone()
}

fn options(mount: &Mount) -> String {
    mount.options().clone().unwrap_or_default().join(",")
}

#[test]
fn entry_point_and_command_combine_as_in_docker() {
    assert_eq!(args(&built(|_| ())), ["/entry", "cmd"]);
    assert_eq!(args(&built(|s| s.command = words("x y"))), ["/entry", "x", "y"]);
    assert_eq!(args(&built(|s| s.entry_point = words("sh -c"))), ["sh", "-c"]);
    assert_eq!(
        args(&built(|s| {
            s.entry_point = words("sh -c");
            s.command = words("date");
        })),
        ["sh", "-c", "date"]
    );
    assert_eq!(args(&built(|s| s.entry_point = Some(vec![]))), ["/entry", "cmd"]);
    let none = |s: &mut ContainerSpec| s.entry_point = Some(vec![String::new()]);
    assert!(refused(none).contains("nothing to run"));
}

#[test]
fn a_region_that_the_image_names_is_left_alone() {
    let regions = |image: &[&str]| {
        let mut s = container_spec();
        s.command = words("x");
        let mut container = create(s);
        let region = |name: &str| (name.to_owned(), "agent".to_owned());
        container.injected_environment = vec![region("AWS_REGION"), region("AWS_DEFAULT_REGION")];
        let env = image.iter().map(|line| (*line).to_owned()).collect();
        let image = ImageSettings { env: Some(env), ..ImageSettings::default() };
        let spec = try_built(&container, &image, &host()).unwrap();
        let all = spec.process().as_ref().unwrap().env().clone().unwrap();
        all.into_iter().filter(|line| line.starts_with("AWS_")).collect::<Vec<_>>()
    };
    assert_eq!(regions(&["A=1"]), ["AWS_REGION=agent", "AWS_DEFAULT_REGION=agent"]);
    assert_eq!(regions(&["AWS_DEFAULT_REGION=image"]), ["AWS_DEFAULT_REGION=image"]);
}

#[test]
fn the_last_of_an_environment_name_wins() {
    let env = |spec: Spec| spec.process().as_ref().unwrap().env().clone().unwrap();
    let spec =
        built(|s| s.environment = vec![("A".into(), "task".into()), ("ECS_AGENT_URI".into(), "fake".into())]);
    assert_eq!(
        env(spec),
        [
            "PATH=/bin",
            "HOSTNAME=ip-10-0-0-7",
            "A=task",
            "B=image",
            "ECS_AGENT_URI=http://169.254.170.2/api/x"
        ]
    );
    let bare = try_built(
        &create({
            let mut s = container_spec();
            s.command = words("x");
            s
        }),
        &ImageSettings::default(),
        &host(),
    );
    assert!(env(bare.unwrap())[0].starts_with("PATH=/usr/local/sbin:"));
    assert!(env(built(|s| s.pseudo_terminal = true)).contains(&"TERM=xterm".to_owned()));
}

#[test]
fn the_working_directory_is_the_definitions_then_the_images() {
    let cwd = |spec: Spec| spec.process().as_ref().unwrap().cwd().clone();
    assert_eq!(cwd(built(|_| ())).to_str(), Some("/srv"));
    assert_eq!(cwd(built(|s| s.working_directory = Some("/tmp/x".into()))).to_str(), Some("/tmp/x"));
    assert!(refused(|s| s.working_directory = Some("x".into())).contains("not an absolute path"));
}

#[test]
fn the_user_is_looked_up_in_the_image() {
    let spec = built(|s| s.user = Some("web".into()));
    let user = spec.process().as_ref().unwrap().user().clone();
    assert_eq!((user.uid(), user.gid()), (7, 8));
    assert_eq!(refused(|s| s.user = Some("x".into())), "user x is not in the image's /etc/passwd");
}

#[test]
fn cpu_is_shares_of_at_least_two() {
    let shares = |cpu| {
        let spec = built(|s| s.cpu = cpu);
        spec.linux().as_ref().unwrap().resources().as_ref().unwrap().cpu().as_ref().unwrap().shares()
    };
    assert_eq!(
        (shares(0), shares(1), shares(512), shares(u32::MAX)),
        (Some(2), Some(2), Some(512), Some(262_144))
    );
}

#[test]
fn memory_is_in_mib_and_has_dockers_floor() {
    let memory = |spec: Spec| *spec.linux().as_ref().unwrap().resources().as_ref().unwrap().memory();
    let both = memory(built(|s| {
        s.memory = Some(64);
        s.memory_reservation = Some(32);
    }))
    .unwrap();
    assert_eq!(
        (both.limit(), both.swap(), both.reservation()),
        (Some(64 << 20), Some(128 << 20), Some(32 << 20))
    );
    assert_eq!(memory(built(|s| s.memory_reservation = Some(32))).unwrap().limit(), None);
    assert_eq!(memory(built(|_| ())), None);
    assert!(refused(|s| s.memory = Some(5)).contains("memory is 5 MiB"));
    assert!(refused(|s| s.memory = Some(u64::MAX)).contains("more than any machine has"));
}

#[test]
fn ulimits_are_named_in_lower_case_and_nofile_has_a_default() {
    let limits = |spec: Spec| spec.process().as_ref().unwrap().rlimits().clone().unwrap();
    let all = limits(built(|s| s.ulimits = vec![Ulimit { name: "core".into(), soft: 0, hard: 1 }]));
    assert_eq!(all.len(), 2);
    assert_eq!((all[0].typ(), all[0].soft(), all[0].hard()), (PosixRlimitType::RlimitCore, 0, 1));
    assert_eq!((all[1].typ(), all[1].soft(), all[1].hard()), (PosixRlimitType::RlimitNofile, 32_768, 65_536));
    let own = limits(built(|s| s.ulimits = vec![Ulimit { name: "nofile".into(), soft: 10, hard: 20 }]));
    assert_eq!((own.len(), own[0].hard()), (1, 20));
    assert!(
        refused(|s| s.ulimits = vec![Ulimit { name: "fun".into(), soft: 0, hard: 1 }])
            .contains("no resource limit `fun`")
    );
    assert!(
        refused(|s| s.ulimits = vec![Ulimit { name: "core".into(), soft: 2, hard: 1 }])
            .contains("above hard limit")
    );
}

#[test]
fn the_kernels_file_systems_are_mounted_as_docker_mounts_them() {
    let spec = built(|_| ());
    assert_eq!(options(&mount_at(&spec, "/dev/shm")), "nosuid,noexec,nodev,mode=1777,size=64m");
    assert!(options(&mount_at(&spec, "/sys")).ends_with(",ro"));
    assert!(options(&mount_at(&spec, "/sys/fs/cgroup")).ends_with(",ro"));
    assert_eq!(mount_at(&spec, "/etc/hosts").source().as_deref().and_then(Path::to_str), Some("/s/hosts"));
    for place in ["/proc", "/dev", "/dev/pts", "/dev/mqueue", "/etc/resolv.conf", "/etc/hostname"] {
        mount_at(&spec, place);
    }
    assert!(options(&mount_at(&built(|s| s.shared_memory_size = Some(8)), "/dev/shm")).ends_with("size=8m"));
}

#[test]
fn volumes_and_tmpfs_replace_defaults_and_come_after_their_parents() {
    let mut spec = container_spec();
    spec.tmpfs =
        vec![Tmpfs { path: "/dev/shm".into(), size: 3, options: vec!["exec".into(), "mode=755".into()] }];
    let mut container = create(spec);
    let volume = |source: &str, destination: &str| VolumeView {
        docker_name: "v".into(),
        source: source.into(),
        destination: destination.into(),
    };
    container.volumes = vec![(volume("/a", "/data/inner"), true), (volume("/b", "/data"), false)];
    let spec = try_built(&container, &image(), &host()).unwrap();
    assert_eq!(options(&mount_at(&spec, "/dev/shm")), "nosuid,nodev,exec,mode=755,size=3m");
    assert_eq!(options(&mount_at(&spec, "/data/inner")), "rbind,rprivate,ro");
    assert_eq!(options(&mount_at(&spec, "/data")), "rbind,rprivate,rw");
    let order: Vec<_> =
        spec.mounts().iter().flatten().map(|m| m.destination().components().count()).collect();
    assert!(order.is_sorted(), "{order:?}");
    container.volumes = vec![(volume("/a", "data"), true)];
    assert!(
        try_built(&container, &image(), &host()).unwrap_err().to_string().contains("not an absolute path")
    );
}

#[test]
fn a_container_joins_the_slots_network_and_has_the_rest_for_itself() {
    let all = |v2| {
        let host = HostFacts { cgroup_v2: v2, ..host() };
        let spec = try_built(&create(container_spec()), &image(), &host).unwrap();
        spec.linux().as_ref().unwrap().namespaces().clone().unwrap()
    };
    let network = all(false).into_iter().find(|n| n.typ() == LinuxNamespaceType::Network).unwrap();
    assert_eq!(network.path().as_deref().and_then(Path::to_str), Some("/run/netns/berth-1"));
    assert_eq!(all(false).iter().filter(|n| n.path().is_none()).count(), 4);
    assert!(all(true).iter().any(|n| n.typ() == LinuxNamespaceType::Cgroup));
}

#[test]
fn privileged_lifts_what_confines() {
    let spec = built(|s| s.privileged = true);
    let linux = spec.linux().as_ref().unwrap();
    assert!(linux.seccomp().is_none() && linux.masked_paths().as_ref().is_none_or(Vec::is_empty));
    assert!(linux.devices().as_ref().unwrap().iter().any(|d| d.path().to_str() == Some("/dev/null")));
    assert!(linux.resources().as_ref().unwrap().devices().as_ref().unwrap()[0].allow());
    assert!(options(&mount_at(&spec, "/sys")).ends_with(",rw"));
    let caps = spec.process().as_ref().unwrap().capabilities().clone().unwrap();
    assert_eq!(caps.bounding().as_ref().unwrap().len(), 41);
}

#[test]
fn an_ordinary_container_is_confined() {
    let spec = built(|s| {
        s.no_new_privileges = true;
        s.readonly_root_filesystem = true;
    });
    let linux = spec.linux().as_ref().unwrap();
    assert!(linux.seccomp().is_some());
    assert_eq!(linux.masked_paths().as_ref().unwrap().len(), 11);
    assert!(!linux.resources().as_ref().unwrap().devices().as_ref().unwrap()[0].allow());
    let process = spec.process().as_ref().unwrap();
    assert_eq!((process.no_new_privileges(), process.oom_score_adj()), (Some(true), Some(0)));
    assert_eq!(spec.root().as_ref().unwrap().readonly(), Some(true));
    assert!(process.capabilities().as_ref().unwrap().inheritable().as_ref().unwrap().is_empty());
}
