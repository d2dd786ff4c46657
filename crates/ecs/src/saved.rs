//! What is kept of the registration over restarts: one record in the journal's table of registrations.

use crate::config::EcsStartError;
use berth_types::{
    ids::InstanceId,
    ports::{Durability, Journal, JournalError, Record, Table, Write},
};
use serde::{Deserialize, Serialize};
use tracing::warn;

/// The record's key; there is one.
const KEY: &str = "container-instance";
/// The form that is written.
const VERSION: u16 = 1;

/// The registration of an earlier start. [`check_saved`] makes it, [`Ecs::new`](crate::Ecs::new) wants it: nobody can start to talk to
/// a cluster before it is certain that the node belongs to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Saved {
    pub(crate) container_instance_arn: Option<String>,
}

/// Version 1.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordV1 {
    instance_id: InstanceId,
    cluster: String,
    container_instance_arn: String,
}

/// Reads the registration of an earlier start, and refuses to go on if it was in another cluster. One of another instance (a cloned
/// disk) counts as none.
pub async fn check_saved(
    journal: &dyn Journal,
    cluster: &str,
    instance: &InstanceId,
) -> Result<Saved, EcsStartError> {
    let records = journal.load(Table::Registration).await.map_err(EcsStartError::Journal)?;
    let Some((_, record)) = records.into_iter().find(|(key, _)| key == KEY) else {
        return Ok(Saved::default());
    };
    let Some(record) = decode(&record) else {
        warn!(version = record.version, "what is kept of the registration cannot be read; registering anew");
        return Ok(Saved::default());
    };
    if record.instance_id != *instance {
        warn!(instance = %record.instance_id, "the kept registration is another instance's; registering anew");
        return Ok(Saved::default());
    }
    if !same_cluster(&record.cluster, cluster) {
        return Err(EcsStartError::ClusterChanged { saved: record.cluster, configured: cluster.to_owned() });
    }
    Ok(Saved { container_instance_arn: Some(record.container_instance_arn) })
}

fn decode(record: &Record) -> Option<RecordV1> {
    (record.version == VERSION).then(|| serde_json::from_slice(&record.body).ok()).flatten()
}

/// Keeps the registration.
pub(crate) async fn save(
    journal: &dyn Journal,
    cluster: &str,
    instance: &InstanceId,
    arn: &str,
) -> Result<(), JournalError> {
    let record = RecordV1 {
        instance_id: instance.clone(),
        cluster: cluster.to_owned(),
        container_instance_arn: arn.to_owned(),
    };
    // Strings and nothing else: this cannot fail.
    let body = serde_json::to_vec(&record).unwrap_or_default();
    let put = Write::Put {
        table: Table::Registration,
        key: KEY.to_owned(),
        record: Record { version: VERSION, body },
    };
    journal.commit(vec![put], Durability::Intent).await
}

/// Whether two ways to name a cluster mean the same one: ARNs are compared whole, a name with an ARN's last part.
fn same_cluster(one: &str, other: &str) -> bool {
    let is_arn = |text: &str| text.starts_with("arn:");
    if is_arn(one) && is_arn(other) {
        return one == other;
    }
    let name = |text: &str| text.rsplit('/').next().unwrap_or_default().to_owned();
    name(one) == name(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_testkit::journal::FakeJournal;

    const ARN: &str = "arn:aws:ecs:us-west-2:111122223333:container-instance/demo/1";

    fn id(text: &str) -> InstanceId {
        text.parse().unwrap()
    }

    async fn saved_in(cluster: &str) -> FakeJournal {
        let journal = FakeJournal::default();
        save(&journal, cluster, &id("i-11111111"), ARN).await.unwrap();
        assert!(journal.is_durable(Table::Registration, KEY));
        journal
    }

    #[tokio::test]
    async fn a_registration_is_found_again_under_the_clusters_name_or_arn() {
        let journal = saved_in("demo").await;
        for cluster in ["demo", "arn:aws:ecs:us-west-2:111122223333:cluster/demo"] {
            let saved = check_saved(&journal, cluster, &id("i-11111111")).await.unwrap();
            assert_eq!(saved.container_instance_arn.as_deref(), Some(ARN));
        }
    }

    #[tokio::test]
    async fn a_changed_cluster_stops_the_start_and_names_both() {
        let journal = saved_in("arn:aws:ecs:us-west-2:111122223333:cluster/demo").await;
        for cluster in ["other", "arn:aws:ecs:us-east-1:111122223333:cluster/demo"] {
            let error = check_saved(&journal, cluster, &id("i-11111111")).await.unwrap_err();
            let text = error.to_string();
            assert!(text.contains("cluster/demo") && text.contains(cluster), "{text}");
        }
    }

    #[tokio::test]
    async fn another_instance_starts_afresh_whatever_its_cluster() {
        let journal = saved_in("demo").await;
        assert_eq!(check_saved(&journal, "other", &id("i-22222222")).await.unwrap(), Saved::default());
    }

    #[tokio::test]
    async fn a_damaged_record_counts_as_none() {
        for (version, body) in [(1, "{"), (2, "{}"), (1, "")] {
            let journal = FakeJournal::default();
            journal.put(Table::Registration, KEY, Record { version, body: body.into() });
            assert_eq!(check_saved(&journal, "demo", &id("i-11111111")).await.unwrap(), Saved::default());
        }
    }

    #[tokio::test]
    async fn a_journal_that_cannot_be_read_is_told() {
        let journal = FakeJournal::default();
        journal.set_broken(true);
        assert!(matches!(
            check_saved(&journal, "demo", &id("i-11111111")).await,
            Err(EcsStartError::Journal(_))
        ));
    }
}
