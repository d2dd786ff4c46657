//! What a container may do and how much it may use, seen from inside it.

use crate::rig::Rig;
use berth_types::task::{Tmpfs, Ulimit};

#[tokio::test(flavor = "multi_thread")]
async fn users_and_capabilities_are_as_docker_gives_them() {
    let mut rig = Rig::start().await;
    let status = "id -u; id -g; id -G; grep -E '^(CapBnd|CapEff|CapInh|Seccomp|NoNewPrivs):' /proc/self/status | tr -d '\\t '";
    let root = rig.sh(status).await.stdout;
    assert!(root.starts_with("0\n0\n0\n"), "{root}");
    // CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW SYS_CHROOT MKNOD AUDIT_WRITE SETFCAP.
    assert!(
        root.contains("CapBnd:00000000a80425fb\n") && root.contains("CapEff:00000000a80425fb\n"),
        "{root}"
    );
    assert!(
        root.contains("CapInh:0000000000000000\n")
            && root.contains("Seccomp:2\n")
            && root.contains("NoNewPrivs:0\n"),
        "{root}"
    );
    let web = rig.sh_with(status, |spec| spec.user = Some("web".into())).await.stdout;
    assert!(web.starts_with("1000\n1001\n1001 2000\n") && web.contains("CapEff:0000000000000000\n"), "{web}");
    let numbers = rig.sh_with(status, |spec| spec.user = Some("12:34".into())).await.stdout;
    assert!(numbers.starts_with("12\n34\n34\n"), "{numbers}");
    let changed = rig
        .sh_with(status, |spec| {
            spec.capabilities_drop = vec!["ALL".into()];
            spec.capabilities_add = vec!["CHOWN".into()];
            spec.no_new_privileges = true;
        })
        .await
        .stdout;
    assert!(changed.contains("CapBnd:0000000000000001\n") && changed.contains("NoNewPrivs:1\n"), "{changed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn seccomp_refuses_what_reaches_out_and_lets_programs_run() {
    let mut rig = Rig::start().await;
    // SYS_ADMIN would allow it; the filter and the missing capability both refuse.
    let script = "unshare -n true 2>&1; mount -t tmpfs x /tmp 2>&1; chroot / true && echo chroot; \
                  ls / >/dev/null && date >/dev/null && echo works";
    let plain = rig.sh(script).await.stdout;
    assert_eq!(
        plain.matches("Operation not permitted").count() + plain.matches("permission denied").count(),
        2,
        "{plain}"
    );
    assert!(plain.ends_with("chroot\nworks\n"), "{plain}");
    let admin = rig.sh_with(script, |spec| spec.capabilities_add = vec!["SYS_ADMIN".into()]).await.stdout;
    assert_eq!(admin, "chroot\nworks\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn file_systems_are_as_docker_mounts_them() {
    let mut rig = Rig::start().await;
    let script = "(echo x > /file) 2>&1; (echo 1 > /proc/sys/kernel/domainname) 2>&1; cat /proc/kcore | wc -c; \
                  grep -E ' /(dev/shm|scratch|sys|dev/mqueue) ' /proc/mounts; ls -l /dev/null /dev/ptmx | wc -l; (mknod /sys/x p) 2>&1";
    let exit = rig
        .sh_with(script, |spec| {
            spec.readonly_root_filesystem = true;
            spec.shared_memory_size = Some(8);
            spec.tmpfs = vec![Tmpfs { path: "/scratch".into(), size: 3, options: vec!["exec".into()] }];
        })
        .await
        .stdout;
    assert!(exit.starts_with("sh: can't create /file: Read-only file system\n"), "{exit}");
    assert!(exit.contains("domainname: Read-only file system\n0\n"), "{exit}");
    let mount =
        |place: &str| exit.lines().find(|l| l.contains(&format!(" {place} "))).unwrap_or_default().to_owned();
    assert!(mount("/dev/shm").contains("noexec") && mount("/dev/shm").contains("size=8192k"), "{exit}");
    assert!(!mount("/scratch").contains("noexec") && mount("/scratch").contains("size=3072k"), "{exit}");
    assert!(mount("/sys").contains("ro,") && mount("/dev/mqueue").contains("mqueue"), "{exit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_and_a_memory_kill_is_told_from_other_kills() {
    let mut rig = Rig::start().await;
    let exit = rig
        .sh_with("ulimit -Sn; ulimit -Hn; ulimit -c", |spec| {
            spec.ulimits = vec![
                Ulimit { name: "nofile".into(), soft: 100, hard: 200 },
                Ulimit { name: "core".into(), soft: 0, hard: 0 },
            ];
        })
        .await;
    assert_eq!(exit.stdout, "100\n200\n0\n");
    let hungry =
        rig.sh_with("exec dd if=/dev/zero of=/dev/null bs=200M count=1", |spec| spec.memory = Some(32)).await;
    assert_eq!((hungry.code, hungry.oom), (137, true), "{}", hungry.stderr);
    // The limit of the task counts as well: the kernel kills in the container that shares it.
    let mut shared = rig.container("shared", |spec| {
        spec.command =
            Some(vec!["sh".into(), "-c".into(), "exec dd if=/dev/zero of=/dev/null bs=200M count=1".into()]);
    });
    (shared.task_memory, shared.task_cpu) = (Some(48), Some(512));
    let shared = rig.run(&shared).await;
    assert_eq!((shared.code, shared.oom), (137, true), "{}", shared.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_privileged_container_is_not_confined() {
    let mut rig = Rig::start().await;
    let script = "mount -t tmpfs x /tmp && echo mounted; grep Seccomp: /proc/self/status | tr -d '\\t'; ls /dev | wc -l";
    let exit = rig.sh_with(script, |spec| spec.privileged = true).await;
    assert!(exit.stdout.starts_with("mounted\nSeccomp:0\n"), "{} {}", exit.stdout, exit.stderr);
}
