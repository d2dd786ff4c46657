//! The program and its pins on the real kernel, without the rest of a slot.

use super::*;

fn slot() -> SlotId {
    "01234567-89abcdef".parse().unwrap()
}

#[test]
fn the_kernel_takes_both_forms_of_the_program() {
    let map = sys::sockmap_create().unwrap();
    for device in [Device::LoOnly, Device::Any] {
        sys::sk_lookup_load(&program(&map, device)).unwrap_or_else(|e| panic!("{device:?}: {e}"));
    }
}

#[test]
fn pins_are_found_again_and_leave_no_mount_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bpf");
    let netns = Netns::create().unwrap();
    let listen = || netns.run(|| TcpListener::bind("0.0.0.0:0")).unwrap().unwrap();

    let first = listen();
    Pins::new(path.clone()).steer(&slot(), &netns, &first).unwrap();
    let inode = |file: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path.join(file)).unwrap());
    let before = (inode("01234567-89abcdef-map"), inode("01234567-89abcdef-link"));
    drop(first);

    let again = Pins::new(path.clone());
    again.steer(&slot(), &netns, &listen()).unwrap();
    assert_eq!(before, (inode("01234567-89abcdef-map"), inode("01234567-89abcdef-link")));
    assert_eq!(again.slots(), [slot()]);

    again.forget(&slot()).unwrap();
    again.forget(&slot()).unwrap();
    assert!(!is_bpffs(&path));
}

#[test]
fn a_link_to_a_namespace_that_is_gone_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let pins = Pins::new(dir.path().join("bpf"));
    let steer_in_a_fresh_one = || {
        let netns = Netns::create().unwrap();
        let listener = netns.run(|| TcpListener::bind("0.0.0.0:0")).unwrap().unwrap();
        pins.steer(&slot(), &netns, &listener).unwrap();
        (netns, listener)
    };
    drop(steer_in_a_fresh_one());
    let (netns, listener) = steer_in_a_fresh_one();
    assert!(is_attached(&pins.paths(&slot()).1, &netns).unwrap());
    drop(listener);
    pins.forget(&slot()).unwrap();
}

#[test]
fn closing_the_listener_empties_the_map() {
    let map = sys::sockmap_create().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    sys::sockmap_set(&map, &listener).unwrap();
    assert_eq!(sys::sockmap_cookie(&map).unwrap(), Some(sys::socket_cookie(&listener).unwrap()));
    drop(listener);
    assert_eq!(sys::sockmap_cookie(&map).unwrap(), None);
}

fn ip(netns: &Netns, args: &str) {
    let out = netns.run(|| std::process::Command::new("ip").args(args.split(' ')).output()).unwrap().unwrap();
    assert!(out.status.success(), "ip {args}: {}", String::from_utf8_lossy(&out.stderr));
}

/// A task's namespace and a neighbour in its subnet who has a route for 169.254.170.2 to it.
fn neighbours() -> (Netns, Netns) {
    use std::os::fd::{AsFd, AsRawFd};
    let (task, neighbour) = (Netns::create().unwrap(), Netns::create().unwrap());
    let other = format!("/proc/{}/fd/{}", std::process::id(), neighbour.as_fd().as_raw_fd());
    ip(&task, &format!("link add v0 type veth peer name v1 netns {other}"));
    for setting in [
        "link set lo up",
        "address add 169.254.170.2/32 dev lo",
        "address add 10.9.0.1/24 dev v0",
        "link set v0 up",
    ] {
        ip(&task, setting);
    }
    for setting in
        ["address add 10.9.0.2/24 dev v1", "link set v1 up", "route add 169.254.170.2 via 10.9.0.1"]
    {
        ip(&neighbour, setting);
    }
    (task, neighbour)
}

#[test]
fn neither_form_of_the_program_lets_a_neighbour_in() {
    use std::{net::TcpStream, time::Duration};
    for device in [Device::LoOnly, Device::Any] {
        let (task, neighbour) = neighbours();
        let listener = task.run(crate::listener::open).unwrap().unwrap();
        let map = sys::sockmap_create().unwrap();
        sys::sockmap_set(&map, &listener).unwrap();
        let program = sys::sk_lookup_load(&program(&map, device)).unwrap();
        let _link = sys::sk_lookup_attach(&program, &task).unwrap();
        let connect = |netns: &Netns| {
            let to = (crate::METADATA_IP, 80).into();
            netns.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(1))).unwrap()
        };
        assert!(connect(&task).is_ok(), "{device:?}");
        assert!(connect(&neighbour).is_err(), "{device:?}");
    }
}
