//! Images and pulls as operators see them.

use berth_types::image::{ImageView, PullStage, PullView, PullsSnapshot};
use serde::{Deserialize, Serialize};

/// `GET /v1/images`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageList {
    /// Images in the runtime's store.
    pub images: Vec<ImageView>,
    /// Pulls under way, and those that are over.
    pub pulls: PullsSnapshot,
}

/// How far a pull is, for people: `downloading 3/5 blobs, 12.3 of 40.1 MiB`.
pub fn progress(pull: &PullView) -> String {
    let mut text = match pull.stage {
        PullStage::Waiting => "waiting for other pulls".to_owned(),
        PullStage::Resolving => "asking the registry".to_owned(),
        PullStage::Downloading => format!(
            "downloading {}/{} blobs, {} of {} MiB",
            pull.blobs_done,
            pull.blobs,
            mib(pull.bytes_done),
            mib(pull.bytes)
        ),
        // The config is a blob, too.
        PullStage::Unpacking => format!("unpacking {} layers", pull.blobs.saturating_sub(1)),
    };
    if let (1.., Some(problem)) = (pull.failures, &pull.problem) {
        text += &format!(" ({} failed so far, the last one: {problem})", tries(pull.failures));
    }
    text
}

fn tries(failures: u32) -> String {
    if failures == 1 { "1 try".into() } else { format!("{failures} tries") }
}

/// The nearest tenth of a MiB, without going through a float.
fn mib(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10).saturating_add(1 << 19) >> 20;
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_types::Timestamp;

    #[test]
    fn progress_is_a_sentence() {
        let mut pull = PullView {
            reference: "docker.io/library/web:1".into(),
            stage: PullStage::Downloading,
            started_at: Timestamp::UNIX_EPOCH,
            blobs: 5,
            blobs_done: 3,
            bytes: 42_047_897,
            bytes_done: 12_897_485,
            failures: 0,
            problem: None,
        };
        assert_eq!(progress(&pull), "downloading 3/5 blobs, 12.3 of 40.1 MiB");
        (pull.failures, pull.problem) = (1, Some("reset".into()));
        pull.stage = PullStage::Resolving;
        assert_eq!(progress(&pull), "asking the registry (1 try failed so far, the last one: reset)");
    }
}
