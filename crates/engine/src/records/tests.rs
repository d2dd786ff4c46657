//! Records survive the way to disk and back, and nothing that comes from a disk makes a reader panic.

use super::*;
use crate::{
    machine::{Goal, Slot, Task},
    tests::fixtures::{at, container, task},
};
use berth_types::{ports::ImageFacts, task::StopCode};
use proptest::prelude::*;

fn sample() -> Task {
    let mut sample = Task::new(Arc::new(task("t", vec![container("a"), container("b"), container("c")])));
    let image =
        ImageFacts { reference: "busybox".to_owned(), image_id: "1".to_owned(), digest: "2".to_owned() };
    sample.containers.iter_mut().for_each(|c| c.stage.pulled(image.clone()));
    sample.containers[0].stage.started(7, at(1).wall);
    sample.containers[0].stage.signalled(at(2).wall);
    sample.containers[1].stage.exited(3, at(2).wall, true);
    sample.goal = Goal::Stop(StopWish { reason: "r".to_owned(), code: Some(StopCode::UserInitiated) });
    sample.slot = Slot::Wanted { held: Some("0badcafe-00000001".parse().unwrap()) };
    sample.ledger.changes = 12;
    sample
}

#[test]
fn a_record_comes_back_from_the_journal_and_from_a_container() {
    let record = TaskRecord::of(&sample());
    let Write::Put { key, record: written, .. } = record.write().unwrap() else { panic!("not a put") };
    assert_eq!(TaskRecord::read(&key, &written).unwrap(), record);
    assert_eq!(TaskRecord::from_bytes(&key, &record.to_bytes().unwrap()).unwrap(), record);
}

#[test]
fn a_stop_that_is_only_wished_for_is_recorded_as_a_stop() {
    let mut task = sample();
    task.goal = Goal::Run;
    task.wish = Some((13, StopWish { reason: "w".to_owned(), code: None }));
    assert_eq!(TaskRecord::of(&task).stop.unwrap().reason, "w");
}

#[test]
fn a_record_that_goes_with_a_container_has_it_as_made() {
    let record = TaskRecord::with_container(&sample(), 2, at(5).wall);
    assert!(
        matches!(&record.stages[2], Stage::Created { created_at, image: Some(_) } if *created_at == at(5).wall)
    );
}

#[test]
fn strange_records_are_refused_with_their_reason() {
    let record = TaskRecord::of(&sample());
    let Write::Put { key, record: written, .. } = record.write().unwrap() else { panic!("not a put") };
    let future = Record { version: 9, ..written.clone() };
    assert!(matches!(TaskRecord::read(&key, &future), Err(RecordError::Version(9))));
    assert!(matches!(TaskRecord::read("other", &written), Err(RecordError::Stranger { .. })));
    let short = TaskRecord { stages: Vec::new(), ..record };
    let bytes = short.to_bytes().unwrap();
    assert!(matches!(
        TaskRecord::from_bytes(&key, &bytes),
        Err(RecordError::Containers { found: 0, expected: 3 })
    ));
}

/// The form of version 1, as agents have written it: a change that breaks this needs a new version.
#[test]
fn version_1_is_read_as_it_was_written() {
    let stages = r#"[{"Running":{"image":null,"created_at":"2026-01-01T00:00:01Z","started_at":"2026-01-01T00:00:02Z","pid":7,"signalled_at":null}},
        {"Ended":{"past":{"image":{"reference":"r","image_id":"i","digest":"d"},"created_at":null,"started_at":null},
                  "end":{"Exited":{"code":3,"at":"2026-01-01T00:00:03Z","oom":false}},"remains":"Maybe"}}, "New"]"#;
    let stages: Vec<Stage> = serde_json::from_str(stages).unwrap();
    assert!(
        matches!(stages[0], Stage::Running { pid: 7, .. })
            && stages[1].has_ended()
            && stages[2] == Stage::New
    );
    let stopped: Stopped = serde_json::from_str(r#"{"at":"2026-01-01T00:00:03Z","left":"Files"}"#).unwrap();
    assert_eq!(stopped.left, Left::Files);
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0..4000usize, flip: u8) {
        prop_assert!(TaskRecord::from_bytes("t", &bytes).is_err());
        let mut real = TaskRecord::of(&sample()).to_bytes().unwrap();
        let at = cut % real.len();
        real[at] ^= flip;
        // Read or refused: either will do.
        drop(TaskRecord::from_bytes("arn:aws:ecs:us-west-2:111122223333:task/demo/t", &real));
        real.truncate(at);
        prop_assert!(TaskRecord::from_bytes("t", &real).is_err());
    }
}
