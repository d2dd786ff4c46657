//! What is written, and what is left alone.

use super::*;
use std::os::unix::fs::MetadataExt;

fn spec() -> SlotSpec {
    SlotSpec {
        slot: "01234567-89abcdef".parse().unwrap(),
        eni: "eni-0123456789abcdef0".parse().unwrap(),
        mac: MacAddr([2, 0, 0, 0, 0, 1]),
        addresses: vec!["10.0.1.7/24".parse().unwrap(), "fd00::7/64".parse().unwrap()],
        gateway_ipv4: [10, 0, 1, 1].into(),
        gateway_ipv6: None,
        mtu: 9001,
        block_imds: true,
        hostname: "ip-10-0-1-7.ec2.internal".into(),
        dns_servers: vec!["10.0.0.2".parse().unwrap(), "fd00:ec2::253".parse().unwrap()],
        dns_search: vec!["ec2.internal".into(), "example.com".into()],
    }
}

#[test]
fn servers_and_search_list_are_written_as_resolvers_read_them() {
    assert_eq!(
        resolv_conf(&spec()),
        "nameserver 10.0.0.2\nnameserver fd00:ec2::253\nsearch ec2.internal example.com\n"
    );
    assert_eq!(hosts(&spec()), "127.0.0.1 localhost\n10.0.1.7 ip-10-0-1-7.ec2.internal\n");
}

#[test]
fn a_task_with_ipv6_alone_has_its_localhost_there() {
    let only = SlotSpec { addresses: vec!["fd00::7/64".parse().unwrap()], ..spec() };
    assert_eq!(hosts(&only), "::1 localhost\nfd00::7 ip-10-0-1-7.ec2.internal\n");
}

#[test]
fn a_file_that_is_right_keeps_its_inode_and_a_wrong_one_gets_another() {
    let dir = tempfile::tempdir().unwrap();
    let files = write(dir.path(), &spec()).unwrap();
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    let before = (inode(&files.hosts), inode(&files.hostname));
    write(dir.path(), &SlotSpec { hostname: "ip-10-0-1-7.ec2.internal".into(), ..spec() }).unwrap();
    assert_eq!(before, (inode(&files.hosts), inode(&files.hostname)));
    let mounted = fs::File::open(&files.hostname).unwrap();
    write(dir.path(), &SlotSpec { hostname: "other".into(), ..spec() }).unwrap();
    assert_eq!(fs::read_to_string(&files.hostname).unwrap(), "other\n");
    assert_eq!(mounted.metadata().unwrap().ino(), before.1, "who has it mounted keeps the old one");
}

#[test]
fn the_hosts_stub_resolver_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let (stub, real) = (dir.path().join("stub"), dir.path().join("real"));
    fs::write(&stub, "# systemd-resolved\nnameserver 127.0.0.53\noptions edns0\n").unwrap();
    assert_eq!(host_resolv_conf(&[&stub, &real]), fs::read_to_string(&stub).unwrap(), "better than nothing");
    fs::write(&real, "nameserver 10.0.0.2\nsearch ec2.internal\n").unwrap();
    assert_eq!(host_resolv_conf(&[&stub, &real]), fs::read_to_string(&real).unwrap());
    assert_eq!(host_resolv_conf(&[dir.path().join("none")]), "");
}

#[test]
fn the_record_of_the_link_survives_and_damage_reads_as_nothing() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &spec()).unwrap();
    assert_eq!(recorded_mac(dir.path()), Some(spec().mac));
    fs::write(dir.path().join(RECORD), "{\"eni\":").unwrap();
    assert_eq!(recorded_mac(dir.path()), None);
    remove(dir.path()).unwrap();
    remove(dir.path()).unwrap();
    assert_eq!(recorded_mac(dir.path()), None);
}
