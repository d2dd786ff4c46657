//! The walls between the crates, that the documents name files that exist, and what no running program shows: the unit.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn top() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

#[test]
fn the_walls_between_the_crates_hold() {
    let output = Command::new("bash").arg(top().join("scripts/walls.sh")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What people read.
fn documents() -> Vec<PathBuf> {
    let at_the_top = ["README.md", "ARCHITECTURE.md", "SPECIFICATION.md", "CHANGELOG.md"];
    let docs = fs::read_dir(top().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = docs.filter(|path| path.extension().is_some_and(|x| x == "md"));
    at_the_top.iter().map(|name| top().join(name)).chain(pages).collect()
}

/// Words in backticks that look like a path of this checkout.
fn paths(text: &str) -> BTreeSet<String> {
    let words = text.split('`').skip(1).step_by(2);
    let roots = ["crates/", "docs/", "tests/", "scripts/", "systemd/", "fuzz/", ".ci/"];
    words
        .filter(|w| roots.iter().any(|r| w.starts_with(r)) && !w.contains(['*', ' ', '<', '{']))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_path_that_the_documents_name_exists() {
    let mut named = 0;
    for document in documents() {
        for path in paths(&fs::read_to_string(&document).unwrap()) {
            // `crates/eni/src/plan.rs::plan` names a function in a file.
            let (file, function) = path.split_once("::").unwrap_or((&path, ""));
            assert!(top().join(file).exists(), "{} names {path}, which does not exist", document.display());
            let text = || fs::read_to_string(top().join(file)).unwrap();
            let is_there = function.is_empty() || text().contains(&format!("fn {function}("));
            assert!(is_there, "{} names {path}: no such function in the file", document.display());
            named += 1;
        }
    }
    assert!(named > 20, "only {named} paths found: does the reader of the documents work?");
}

#[test]
fn every_document_that_a_document_links_to_exists() {
    let mut followed = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://") && !link.starts_with('#')) {
            let file = document.parent().unwrap().join(link.split('#').next().unwrap());
            assert!(file.exists(), "{} links to {link}, which does not exist", document.display());
            followed += 1;
        }
    }
    assert!(followed > 10, "only {followed} links found: does the reader of the documents work?");
}

/// Settings that make systemd give a unit a mount namespace of its own, whose mounts the host does not see (systemd.exec(5), PrivateMounts=).
const OWN_MOUNTS: [&str; 28] = [
    "BindPaths",
    "BindReadOnlyPaths",
    "ExecPaths",
    "ExtensionDirectories",
    "ExtensionImages",
    "InaccessiblePaths",
    "MountAPIVFS",
    "MountFlags",
    "MountImages",
    "NoExecPaths",
    "PrivateDevices",
    "PrivateIPC",
    "PrivateMounts",
    "PrivateNetwork",
    "PrivateTmp",
    "PrivateUsers",
    "ProcSubset",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectProc",
    "ProtectSystem",
    "ReadOnlyPaths",
    "ReadWritePaths",
    "TemporaryFileSystem",
];

#[test]
fn the_unit_leaves_the_agent_in_the_hosts_mount_and_network_namespaces() {
    let unit = fs::read_to_string(top().join("systemd/berth.service")).unwrap();
    let settings = unit.lines().filter_map(|line| line.split_once('=')).map(|(key, _)| key);
    let found: Vec<&str> = settings.filter(|key| OWN_MOUNTS.contains(key)).collect();
    assert!(found.is_empty(), "containerd would not see the tasks' namespaces: {found:?}");
}

#[test]
fn systemd_does_not_start_an_agent_again_that_an_operator_must_help_first() {
    let unit = fs::read_to_string(top().join("systemd/berth.service")).unwrap();
    let main = fs::read_to_string(top().join("crates/agent/src/main.rs")).unwrap();
    let code =
        main.split("const EXIT_TERMINAL: u8 = ").nth(1).and_then(|rest| rest.split(';').next()).unwrap();
    assert!(unit.lines().any(|line| line == format!("RestartPreventExitStatus={code}")), "{unit}");
}
