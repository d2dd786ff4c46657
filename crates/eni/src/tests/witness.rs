//! A cloud port that checks what the manager owes it: every act that creates or loses something was announced in the journal,
//! durably, before the call.

use berth_testkit::{cloud::FakeCloud, journal::FakeJournal};
use berth_types::{
    eni::{CreateEni, EniFacts, InstanceFacts},
    ids::{AttachmentId, EniId, SecurityGroupId},
    ports::{Cloud, CloudError, IdentityDocument, Table},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

pub(super) struct Witness {
    pub(super) cloud: Arc<FakeCloud>,
    pub(super) journal: Arc<FakeJournal>,
    pub(super) accusations: Arc<Mutex<Vec<String>>>,
}

impl Witness {
    /// The ENI's record has this field with this value, and would survive death now.
    fn announced(&self, act: &str, is_it: impl Fn(&serde_json::Value) -> bool) {
        let records = self.journal.records(Table::Enis).into_iter();
        let announced =
            records.filter(|(key, _)| self.journal.is_durable(Table::Enis, key)).any(|(_, record)| {
                let record: serde_json::Value = serde_json::from_slice(&record.body).unwrap();
                is_it(&record)
            });
        if !announced {
            self.accusations.lock().unwrap().push(format!("{act} without an intent"));
        }
    }
}

#[async_trait::async_trait]
impl Cloud for Witness {
    async fn instance(&self) -> Result<InstanceFacts, CloudError> {
        self.cloud.instance().await
    }

    async fn enis(&self) -> Result<Vec<EniFacts>, CloudError> {
        self.cloud.enis().await
    }

    async fn create_eni(&self, spec: &CreateEni) -> Result<EniFacts, CloudError> {
        self.announced("create", |record| record["request"]["token"] == spec.token.as_str());
        self.cloud.create_eni(spec).await
    }

    async fn attach_eni(&self, eni: &EniId, device_index: u32) -> Result<AttachmentId, CloudError> {
        self.announced("attach", |record| {
            record["facts"]["id"] == eni.as_str() && record["device_index"] == device_index
        });
        self.cloud.attach_eni(eni, device_index).await
    }

    async fn set_delete_on_termination(
        &self,
        eni: &EniId,
        attachment: &AttachmentId,
    ) -> Result<(), CloudError> {
        self.cloud.set_delete_on_termination(eni, attachment).await
    }

    async fn detach_eni(&self, attachment: &AttachmentId) -> Result<(), CloudError> {
        self.announced("detach", |record| {
            record["attachment"] == attachment.as_str() && record["course"] == "remove"
        });
        self.cloud.detach_eni(attachment).await
    }

    async fn delete_eni(&self, eni: &EniId) -> Result<(), CloudError> {
        self.announced("delete", |record| {
            record["facts"]["id"] == eni.as_str() && record["course"] == "remove"
        });
        self.cloud.delete_eni(eni).await
    }

    async fn set_security_groups(&self, eni: &EniId, groups: &[SecurityGroupId]) -> Result<(), CloudError> {
        self.cloud.set_security_groups(eni, groups).await
    }

    async fn identity_document(&self) -> Result<IdentityDocument, CloudError> {
        self.cloud.identity_document().await
    }

    async fn tag_eni(&self, eni: &EniId, tags: &BTreeMap<String, Option<String>>) -> Result<(), CloudError> {
        self.cloud.tag_eni(eni, tags).await
    }
}
