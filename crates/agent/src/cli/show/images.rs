//! Images and pulls.

use super::{age, finish, or_dash, table};
use berth_admin::view::{ImageList, progress};
use berth_types::{
    Timestamp,
    image::{ImageView, PullEnd, PullView},
};

/// Digits of a digest that tell images apart, with its `sha256:`.
const DIGEST: usize = 7 + 12;

pub(in crate::cli) fn images(list: &ImageList, now: Timestamp) -> String {
    let mut out = table_of_images(&list.images, now);
    if !list.pulls.active.is_empty() {
        out += &format!("\n{}", active(&list.pulls.active, now));
    }
    if !list.pulls.ended.is_empty() {
        out += &format!("\n{}", ended(&list.pulls.ended, now));
    }
    out
}

fn table_of_images(images: &[ImageView], now: Timestamp) -> String {
    let ago = |at: Option<Timestamp>| or_dash(at.map(|at| age(at, now)));
    let mut rows = table(&["IMAGE", "DIGEST", "MIB", "CONTAINERS", "PULLED", "USED"]);
    for image in images {
        rows.add_row([
            image.name.clone(),
            image.digest.chars().take(DIGEST).collect(),
            (image.bytes >> 20).to_string(),
            image.containers.to_string(),
            ago(image.pulled_at),
            ago(image.used_at),
        ]);
    }
    finish(rows)
}

fn active(pulls: &[PullView], now: Timestamp) -> String {
    let mut rows = table(&["PULLING", "SINCE", "STATE"]);
    for pull in pulls {
        rows.add_row([pull.reference.clone(), age(pull.started_at, now), progress(pull)]);
    }
    finish(rows)
}

fn ended(pulls: &[PullEnd], now: Timestamp) -> String {
    let mut rows = table(&["PULLED", "ENDED", "TOOK", "MIB", "RESULT"]);
    for pull in pulls {
        let result = match (&pull.problem, &pull.digest) {
            (Some(problem), _) => format!("failed: {problem}"),
            (None, Some(digest)) => digest.chars().take(DIGEST).collect(),
            (None, None) => "-".into(),
        };
        rows.add_row([
            pull.reference.clone(),
            age(pull.finished_at, now),
            age(pull.started_at, pull.finished_at),
            (pull.bytes >> 20).to_string(),
            result,
        ]);
    }
    finish(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_types::image::PullsSnapshot;

    #[test]
    fn images_come_before_pulls_and_empty_tables_are_left_out() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let mut list = ImageList {
            images: vec![ImageView {
                name: "docker.io/library/web:1".into(),
                digest: format!("sha256:{}", "ab".repeat(32)),
                bytes: 5 << 20,
                pulled_at: Some(at(0)),
                used_at: None,
                containers: 2,
            }],
            pulls: PullsSnapshot::default(),
        };
        let text = images(&list, at(60));
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("sha256:abababababab  5    2           1m      -"), "{text}");
        list.pulls.ended.push(PullEnd {
            reference: "docker.io/library/gone:1".into(),
            started_at: at(0),
            finished_at: at(2),
            bytes: 0,
            digest: None,
            problem: Some("manifest unknown".into()),
        });
        assert!(images(&list, at(60)).contains("failed: manifest unknown"));
    }
}
