//! The walls between the crates, and that the documents name files that exist.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{collections::BTreeSet, fs, path::Path, process::Command};

fn top() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

#[test]
fn the_walls_between_the_crates_hold() {
    let output = Command::new("bash").arg(top().join("scripts/walls.sh")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
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
    let mut documents: Vec<_> =
        ["README.md", "ARCHITECTURE.md", "SPECIFICATION.md"].iter().map(|d| top().join(d)).collect();
    documents.extend(
        fs::read_dir(top().join("docs"))
            .unwrap()
            .flatten()
            .map(|e| e.path())
            .filter(|p| p.extension().is_some_and(|x| x == "md")),
    );
    let mut named = 0;
    for document in documents {
        for path in paths(&fs::read_to_string(&document).unwrap()) {
            // `crates/eni/src/plan.rs::plan` names a function in a file.
            let file = path.split("::").next().unwrap_or(&path);
            assert!(top().join(file).exists(), "{} names {path}, which does not exist", document.display());
            named += 1;
        }
    }
    assert!(named > 20, "only {named} paths found: does the reader of the documents work?");
}
