//! Damage: whatever happens to the bytes on disk, opening ends, and it ends with good records or with the journal set aside.

use super::*;
use rand_like::Numbers;
use std::collections::BTreeMap;

/// A small generator of repeatable numbers, so that a failing round can be run again by its number.
mod rand_like {
    pub(super) struct Numbers(pub u64);

    impl Numbers {
        /// splitmix64.
        pub(super) fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        pub(super) fn below(&mut self, end: usize) -> usize {
            usize::try_from(self.next() % end.max(1) as u64).unwrap()
        }
    }
}

/// Every state that the sample journal was in after a commit, newest last.
type History = Vec<BTreeMap<String, Vec<u8>>>;

async fn sample(path: &Path) -> History {
    let (journal, _) = open(path);
    let (mut state, mut history) = (BTreeMap::new(), vec![BTreeMap::new()]);
    for i in 0..120_usize {
        let (key, body) = (format!("task-{}", i % 40), vec![u8::try_from(i).unwrap(); 50 + 37 * i]);
        let mut writes = vec![put(Table::Tasks, &key, body.clone())];
        state.insert(key, body);
        if i % 10 == 9 {
            let gone = format!("task-{}", i % 40 - 1);
            writes.push(delete(Table::Tasks, &gone));
            state.remove(&gone);
        }
        journal.commit(writes, Durability::Intent).await.unwrap();
        history.push(state.clone());
    }
    let blob = vec![9; MAX_RECORD_BYTES];
    journal.commit(vec![put(Table::Tasks, "blob", blob.clone())], Durability::Intent).await.unwrap();
    state.insert("blob".into(), blob);
    history.push(state);
    history
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() { found.extend(files(&entry)) } else { found.push(entry) }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Changes a file in one of the ways in which files change; says how.
fn spoil(file: &Path, numbers: &mut Numbers) -> String {
    let mut bytes = fs::read(file).unwrap();
    let (at, kind) = (numbers.below(bytes.len()), numbers.below(5));
    match kind {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << numbers.below(8),
        1 => {
            let end = (at + numbers.below(4096)).min(bytes.len());
            bytes[at..end].iter_mut().for_each(|byte| *byte = u8::try_from(numbers.below(256)).unwrap());
        }
        2 => {
            let end = (at + numbers.below(65536)).min(bytes.len());
            bytes[at..end].fill(0);
        }
        3 => bytes.truncate(at),
        _ => {
            fs::remove_file(file).unwrap();
            return format!("{file:?} removed");
        }
    }
    fs::write(file, bytes).unwrap();
    format!("{file:?} kind {kind} at {at}")
}

/// Opens as an agent does that is started again when it fails; answers the state it ends with, and whether it is the old journal's.
async fn open_in_the_end(path: &Path, what: &str) -> (BTreeMap<String, Vec<u8>>, bool) {
    let (mut attempts, mut set_aside) = (0, false);
    let (journal, report) = loop {
        match SledJournal::open_within(path, Some(&instance(0)), TEST_DEADLINES) {
            Ok(opened) => break opened,
            Err(error) => {
                attempts += 1;
                assert!(attempts < 3, "{what}: {}", berth_types::Chain(&error));
            }
        }
    };
    set_aside |= matches!(report.outcome, Outcome::SetAside { .. });
    let tasks = journal.load(Table::Tasks).await.unwrap();
    journal.commit(vec![put(Table::Leases, "new", "1")], Durability::Intent).await.unwrap();
    let state = tasks.into_iter().map(|(key, record)| (key, record.body)).collect();
    (state, !set_aside && report.damaged.is_empty())
}

#[tokio::test]
async fn a_spoilt_journal_ends_in_good_records_or_set_aside() {
    let (dir, path) = journal_dir();
    let history = sample(&path).await;
    let mut endings = BTreeMap::new();
    for round in 0..60 {
        let mut numbers = Numbers(round);
        let spoilt = dir.path().join(format!("spoilt-{round}")).join("journal");
        copy(&path, &spoilt);
        let all = files(&spoilt);
        let what = format!("round {round}: {}", spoil(&all[numbers.below(all.len())], &mut numbers));
        let (state, whole) = open_in_the_end(&spoilt, &what).await;
        let ending = match (whole, history.iter().rposition(|then| *then == state)) {
            (true, Some(at)) if at + 1 == history.len() => "as it was",
            // sled takes a damaged end of its log for writes that were cut off. It must not get away with it.
            (true, Some(at)) => panic!("{what}: silently rolled back to commit {at}"),
            (true, None) => panic!("{what}: a state that never was, {} records", state.len()),
            (false, _) if state.is_empty() => "set aside",
            (false, _) => "some records skipped",
        };
        *endings.entry(ending).or_insert(0) += 1;
        fs::remove_dir_all(spoilt.parent().unwrap()).unwrap();
    }
    eprintln!("endings: {endings:?}");
    assert!(endings.contains_key("set aside"), "{endings:?}");
}

/// Not a test by itself: an agent as a release build would run it, where a panic in any thread is the end.
#[test]
fn child_that_opens_and_dies_of_any_panic() {
    let Ok(dir) = std::env::var(super::CHILD_DIR) else { return };
    std::panic::set_hook(Box::new(|_| std::process::abort()));
    let (_journal, report) = open(Path::new(&dir));
    println!("opened {:?}", report.outcome);
}

#[tokio::test]
async fn a_spoilt_journal_takes_at_most_two_starts_down() {
    let (dir, path) = journal_dir();
    sample(&path).await;
    let mut deaths = BTreeMap::new();
    for round in 1000..1040 {
        let mut numbers = Numbers(round);
        let spoilt = dir.path().join(format!("spoilt-{round}")).join("journal");
        copy(&path, &spoilt);
        let all = files(&spoilt);
        let what = format!("round {round}: {}", spoil(&all[numbers.below(all.len())], &mut numbers));
        let mut died = 0;
        let start = || {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "tests::damage::child_that_opens_and_dies_of_any_panic", "--nocapture"])
                .env(super::CHILD_DIR, &spoilt)
                .output()
                .unwrap()
        };
        while !start().status.success() {
            died += 1;
            assert!(died <= 2, "{what}: died {died} times");
        }
        *deaths.entry(died).or_insert(0) += 1;
        fs::remove_dir_all(spoilt.parent().unwrap()).unwrap();
    }
    eprintln!("starts that died: {deaths:?}");
}

#[tokio::test]
async fn a_damaged_record_is_skipped_and_kept_and_the_others_stay() {
    let (_dir, path) = journal_dir();
    let (journal, _) = open(&path);
    let writes = vec![
        put(Table::Tasks, "good", "1"),
        put(Table::Tasks, "bad", "2"),
        put(Table::Leases, "swapped", "3"),
    ];
    journal.commit(writes, Durability::Intent).await.unwrap();
    let database = path.join("db");
    drop(journal);
    let raw = sled::open(&database).unwrap();
    let records = raw.open_tree("records").unwrap();
    records.insert("Tbad", "not a record").unwrap();
    records.insert("Lswapped", records.get("Tgood").unwrap().unwrap()).unwrap();
    raw.flush().unwrap();
    drop((records, raw));

    let (journal, report) = open(&path);
    let found: Vec<_> = report
        .damaged
        .iter()
        .map(|record| (record.table.as_str(), record.key.as_str(), record.kept))
        .collect();
    assert_eq!(found, [("leases", "swapped", true), ("tasks", "bad", true)]);
    assert_eq!(journal.load(Table::Tasks).await.unwrap().len(), 1);
    drop(journal);
    let (journal, report) = open(&path);
    assert!(matches!(report.outcome, Outcome::Opened) && report.damaged.is_empty(), "told once: {report:?}");
    drop(journal);
    let kept = sled::open(&database).unwrap().open_tree("damaged").unwrap();
    assert_eq!(kept.get("Tbad").unwrap().unwrap(), b"not a record");
}

#[tokio::test]
async fn a_record_that_went_missing_whole_is_noticed() {
    let (_dir, path) = journal_dir();
    let (journal, _) = open(&path);
    journal
        .commit(vec![put(Table::Tasks, "a", "1"), put(Table::Tasks, "b", "2")], Durability::Intent)
        .await
        .unwrap();
    let database = path.join("db");
    drop(journal);
    let raw = sled::open(&database).unwrap();
    raw.open_tree("records").unwrap().remove("Ta").unwrap();
    drop(raw);
    let reason = SetAsideReason::Damaged("records are missing or out of date".into());
    assert_eq!(set_aside_reason(&open(&path).1), &reason);
}

/// A file system of a few megabytes, unmounted when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new() -> Self {
        let disk = Self(tempfile::tempdir().unwrap());
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=3m", "berth-store-test"])
            .arg(disk.0.path())
            .status();
        assert!(mounted.unwrap().success(), "needs root to mount a tmpfs");
        disk
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

#[tokio::test]
async fn a_full_disk_fails_the_commit_and_once_emptied_lets_the_next_one_pass() {
    let disk = SmallDisk::new();
    let path = disk.0.path().join("journal");
    let (journal, _) = open(&path);
    journal.commit(vec![put(Table::Tasks, "before", "1")], Durability::Intent).await.unwrap();
    let ballast = disk.0.path().join("ballast");
    // Fills the disk to the last page; the write is meant to fail.
    assert!(fs::write(&ballast, vec![1; 4 << 20]).is_err());
    let mut acked = vec!["before".to_string()];
    let error = loop {
        let key = format!("filler-{}", acked.len());
        match journal.commit(vec![put(Table::Tasks, &key, vec![5; 100_000])], Durability::Intent).await {
            Ok(()) => acked.push(key),
            Err(error) => break error,
        }
        assert!(acked.len() < 100, "the disk never filled");
    };
    let text = berth_types::Chain(&error).to_string();
    assert!(text.contains("No space left") || text.contains("os error 28"), "{text}");
    fs::remove_file(&ballast).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while let Err(error) = journal.commit(vec![put(Table::Tasks, "after", "1")], Durability::Intent).await {
        assert!(std::time::Instant::now() < deadline, "{}", berth_types::Chain(&error));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    acked.push("after".into());
    let found: Vec<String> =
        journal.load(Table::Tasks).await.unwrap().into_iter().map(|(key, _)| key).collect();
    for key in &acked {
        assert!(found.contains(key), "{key} was acknowledged; found {found:?}");
    }
    drop(journal);
}
