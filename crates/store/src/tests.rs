//! Opening in all its ways, committing, limits, crashes and damage.

use super::*;
use berth_types::{Timestamp, ports::Record};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    sync::Arc,
};
use tempfile::TempDir;

mod damage;

/// Short enough for a test, long enough for a loaded machine.
const TEST_DEADLINES: Deadlines =
    Deadlines { lock: Duration::from_millis(300), open: Duration::from_secs(20) };

fn instance(last: u8) -> InstanceId {
    format!("i-0123456789abcde{last:02x}").parse().unwrap()
}

fn put(table: Table, key: &str, body: impl Into<Vec<u8>>) -> Write {
    Write::Put { table, key: key.into(), record: Record { version: 3, body: body.into() } }
}

fn delete(table: Table, key: &str) -> Write {
    Write::Delete { table, key: key.into() }
}

fn journal_dir() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state").join("journal");
    (dir, path)
}

fn open(path: &Path) -> (SledJournal, OpenReport) {
    SledJournal::open_within(path, Some(&instance(0)), TEST_DEADLINES).unwrap()
}

fn set_aside_reason(report: &OpenReport) -> &SetAsideReason {
    match &report.outcome {
        Outcome::SetAside { to, reason } => {
            assert!(to.exists(), "{to:?} is kept");
            reason
        }
        other => panic!("{other:?} is not set aside"),
    }
}

#[tokio::test]
async fn what_was_committed_is_there_after_reopening() {
    let (_dir, path) = journal_dir();
    let (journal, report) = open(&path);
    assert!(matches!(report.outcome, Outcome::Created));
    let writes = vec![put(Table::Enis, "a", "1"), put(Table::Enis, "b", "2"), put(Table::Tasks, "a", "3")];
    journal.commit(writes, Durability::Intent).await.unwrap();
    journal
        .commit(vec![delete(Table::Enis, "a"), put(Table::Enis, "b", "4")], Durability::Fact)
        .await
        .unwrap();
    drop(journal);

    let (journal, again) = open(&path);
    assert!(matches!(again.outcome, Outcome::Opened));
    assert_eq!(
        (again.records, again.created_at, again.instance_id),
        (2, report.created_at, Some(instance(0)))
    );
    let enis = journal.load(Table::Enis).await.unwrap();
    assert_eq!(enis, [("b".to_string(), Record { version: 3, body: b"4".to_vec() })]);
    assert_eq!(journal.load(Table::Tasks).await.unwrap().len(), 1);
    assert_eq!(journal.load(Table::Leases).await.unwrap(), []);
}

#[tokio::test]
async fn several_writes_to_one_key_in_one_commit_leave_the_last() {
    let (_dir, path) = journal_dir();
    let (journal, _) = open(&path);
    let writes = vec![
        put(Table::Enis, "a", "1"),
        delete(Table::Enis, "a"),
        put(Table::Enis, "a", "2"),
        delete(Table::Enis, "no"),
    ];
    journal.commit(writes, Durability::Intent).await.unwrap();
    drop(journal);
    let (journal, report) = open(&path);
    assert!(matches!(report.outcome, Outcome::Opened), "{report:?}");
    assert_eq!(journal.load(Table::Enis).await.unwrap()[0].1.body, b"2");
}

#[tokio::test]
async fn what_is_too_big_is_refused_whole_and_the_journal_goes_on() {
    let (_dir, path) = journal_dir();
    let (journal, _) = open(&path);
    let big = vec![0; MAX_RECORD_BYTES + 1];
    let refused = [
        vec![put(Table::Tasks, "small", "1"), put(Table::Tasks, "big", big)],
        vec![put(Table::Tasks, &"k".repeat(MAX_KEY_BYTES + 1), "1")],
        vec![put(Table::Tasks, "", "1")],
        (0..=MAX_WRITES).map(|i| put(Table::Tasks, &i.to_string(), "1")).collect(),
        (0..17).map(|i| put(Table::Tasks, &i.to_string(), vec![0; MAX_RECORD_BYTES])).collect(),
    ];
    for writes in refused {
        let error = journal.commit(writes, Durability::Intent).await.unwrap_err();
        assert!(
            error.to_string().contains("limit is") || error.to_string().contains("allowed are"),
            "{error}"
        );
    }
    assert_eq!(journal.load(Table::Tasks).await.unwrap(), []);
    let largest = vec![7; MAX_RECORD_BYTES];
    journal.commit(vec![put(Table::Tasks, "largest", largest.clone())], Durability::Intent).await.unwrap();
    drop(journal);
    let (journal, _) = open(&path);
    assert_eq!(journal.load(Table::Tasks).await.unwrap()[0].1.body, largest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixteen_writers_at_once_do_not_deadlock() {
    let (_dir, path) = journal_dir();
    let (journal, _) = open(&path);
    let journal = Arc::new(journal);
    let writers = (0..16).map(|writer| {
        let journal = Arc::clone(&journal);
        tokio::spawn(async move {
            for i in 0..50 {
                let durability = if i % 5 == 0 { Durability::Fact } else { Durability::Intent };
                let key = format!("{writer}-{}", i % 10);
                journal.commit(vec![put(Table::Tasks, &key, vec![1; 1000])], durability).await.unwrap();
            }
        })
    });
    let all = async {
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("no deadlock");
    assert_eq!(journal.load(Table::Tasks).await.unwrap().len(), 160);
}

#[tokio::test]
async fn a_journal_of_another_instance_is_set_aside_untouched() {
    let (_dir, path) = journal_dir();
    let (journal, _) = open(&path);
    journal.commit(vec![put(Table::Enis, "theirs", "1")], Durability::Intent).await.unwrap();
    drop(journal);

    let (journal, report) = SledJournal::open(&path, Some(&instance(1))).unwrap();
    let reason = SetAsideReason::ForeignInstance { journal: instance(0), ours: instance(1) };
    assert_eq!(set_aside_reason(&report), &reason);
    assert_eq!(journal.load(Table::Enis).await.unwrap(), []);
    drop(journal);

    let Outcome::SetAside { to, .. } = report.outcome else { unreachable!() };
    let (theirs, _) = open(&to);
    assert_eq!(theirs.load(Table::Enis).await.unwrap().len(), 1);
}

#[test]
fn a_journal_made_before_the_instance_was_known_gets_its_owner_later() {
    let (_dir, path) = journal_dir();
    let (journal, report) = SledJournal::open(&path, None).unwrap();
    assert_eq!(report.instance_id, None);
    drop(journal);
    assert_eq!(open(&path).1.instance_id, Some(instance(0)));
    // Unknown again at the next start: the journal says who we were.
    assert_eq!(SledJournal::open(&path, None).unwrap().1.instance_id, Some(instance(0)));
}

#[test]
fn a_journal_of_a_later_format_is_set_aside() {
    let (_dir, path) = journal_dir();
    drop(open(&path));
    let line = r#"{"magic":"berth-journal","format":2,"created_at":"2030-01-01T00:00:00Z"}"#;
    let sum: String =
        <sha2::Sha256 as sha2::Digest>::digest(line).iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(path.join("header"), format!("{line}\n{sum}\n")).unwrap();
    assert_eq!(set_aside_reason(&open(&path).1), &SetAsideReason::UnknownFormat { found: 2, known: 1 });
    assert!(matches!(open(&path).1.outcome, Outcome::Opened));
}

#[test]
fn only_three_journals_that_were_set_aside_are_kept() {
    let (_dir, path) = journal_dir();
    drop(open(&path));
    let mut last = None;
    for _ in 0..5 {
        fs::write(path.join("header"), "broken").unwrap();
        let (_, report) = open(&path);
        if let Outcome::SetAside { to, .. } = report.outcome {
            last = Some(to);
        }
    }
    let names = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.filter(|name| name.to_string_lossy().starts_with("journal.set-aside-")).count(), 3);
    assert!(last.unwrap().exists(), "the newest is among them");
}

#[test]
fn a_journal_that_took_two_starts_down_is_set_aside_by_the_third() {
    let (_dir, path) = journal_dir();
    drop(open(&path));
    fs::write(path.join("opening"), "1\n").unwrap();
    let (journal, report) = open(&path);
    assert!(
        matches!(report.outcome, Outcome::Opened) && report.aborted_opens == 1,
        "one may be bad luck: {report:?}"
    );
    drop(journal);
    assert!(!path.join("opening").exists());
    fs::write(path.join("opening"), "2\n").unwrap();
    assert_eq!(set_aside_reason(&open(&path).1), &SetAsideReason::AbortedOpens(2));
    assert_eq!(open(&path).1.aborted_opens, 0);
}

#[test]
fn a_second_opening_names_the_holder_and_gives_up() {
    let (_dir, path) = journal_dir();
    let _first = open(&path);
    let error = SledJournal::open_within(&path, Some(&instance(0)), TEST_DEADLINES).unwrap_err();
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
}

#[test]
fn a_directory_that_is_no_journal_is_left_alone() {
    let (_dir, path) = journal_dir();
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("precious"), "x").unwrap();
    let error = SledJournal::open(&path, None).unwrap_err();
    assert!(error.to_string().contains("not a journal: it holds `precious`"), "{error}");
    assert!(path.join("precious").exists());
    assert!(SledJournal::open(Path::new("/"), None).is_err());
}

#[tokio::test]
async fn nobody_but_the_owner_can_read_the_journal() {
    let (_dir, path) = journal_dir();
    let (journal, _) = open(&path);
    journal
        .commit(vec![put(Table::Tasks, "a", vec![1; MAX_RECORD_BYTES])], Durability::Intent)
        .await
        .unwrap();
    drop(journal);
    drop(open(&path));
    let mut seen = 0;
    let mut rest = vec![path.clone()];
    while let Some(next) = rest.pop() {
        let meta = fs::metadata(&next).unwrap();
        let wanted = if meta.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(meta.permissions().mode() & 0o777, wanted, "{next:?}");
        seen += 1;
        if meta.is_dir() {
            rest.extend(fs::read_dir(&next).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    assert!(seen > 5, "{seen} files and directories");
}

#[tokio::test]
async fn facts_reach_the_disk_by_themselves_after_a_while() {
    let (_dir, path) = journal_dir();
    let (journal, _) = open(&path);
    journal.commit(vec![put(Table::Tasks, "marked", "find me on disk")], Durability::Fact).await.unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let file = path.join("db").join("db");
    while !fs::read(&file).unwrap().windows(15).any(|window| window == b"find me on disk") {
        assert!(std::time::Instant::now() < deadline, "the fact is not in {file:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Names the directory to the writing child; its absence makes the child's test a bystander.
const CHILD_DIR: &str = "BERTH_STORE_TEST_CHILD_DIR";

/// Not a test by itself: the process that the next test kills. Prints each acknowledged number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_writes_until_it_is_killed() {
    use std::io::Write as _;
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let (journal, report) = SledJournal::open(Path::new(&dir), Some(&instance(0))).unwrap();
    assert!(!matches!(report.outcome, Outcome::SetAside { .. }), "{report:?}");
    let journal = Arc::new(journal);
    let first = journal.load(Table::Tasks).await.unwrap().len();
    let writers = (0..4).map(|writer| {
        let journal = Arc::clone(&journal);
        tokio::spawn(async move {
            for i in first.. {
                // Two records that must come and go together, and one that is overwritten for ever.
                let (key, body) = (format!("{i}-{writer}"), vec![b'x'; i % 3000]);
                let writes = vec![
                    put(Table::Tasks, &key, body.clone()),
                    put(Table::Leases, &key, body),
                    put(Table::Enis, "one", key.as_str()),
                ];
                journal.commit(writes, Durability::Intent).await.unwrap();
                let mut out = std::io::stdout().lock();
                writeln!(out, "acked {key}").and_then(|()| out.flush()).unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn every_acknowledged_intent_survives_kill_9() {
    use std::io::{BufRead, BufReader};
    let (_dir, path) = journal_dir();
    let mut acked = Vec::new();
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::child_that_writes_until_it_is_killed", "--nocapture"])
            .env(CHILD_DIR, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut count = 0;
        for line in out.lines() {
            // The test harness writes its own line first, and the kill may cut the last one.
            if let Some((_, key)) = line.unwrap().split_once("acked ") {
                acked.push(key.to_string());
                count += 1;
                if count == 40 + 37 * round {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        assert!(count >= 40 + 37 * round, "the child wrote {count}");
    }
    // A line that the kill cut short names no key.
    let cut = |key: &&String| key.split_once('-').is_none_or(|(_, writer)| writer.is_empty());
    let (journal, report) = open(&path);
    assert!(matches!(report.outcome, Outcome::Opened) && report.damaged.is_empty(), "{report:?}");
    let tasks = journal.load(Table::Tasks).await.unwrap();
    let found: std::collections::BTreeSet<&str> = tasks.iter().map(|(key, _)| key.as_str()).collect();
    for key in acked.iter().filter(|key| !cut(key)) {
        assert!(
            found.contains(key.as_str()),
            "{key} was acknowledged and is gone; {} of {}",
            found.len(),
            acked.len()
        );
    }
    assert_eq!(journal.load(Table::Leases).await.unwrap(), tasks, "both halves of each commit or none");
}

#[test]
fn the_report_is_dated() {
    let (_dir, path) = journal_dir();
    let before = Timestamp::now();
    let (_journal, report) = open(&path);
    assert!(report.created_at >= before && report.created_at <= Timestamp::now());
}
