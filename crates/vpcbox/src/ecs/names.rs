//! What things are called: ARNs, short ids, and which of the two a caller means.

use super::error::ApiError;
use sha2::{Digest, Sha256};

/// Hexadecimal digits of a task's or container instance's id.
const ID_DIGITS: usize = 32;

/// Makes the names of one account in one region.
#[derive(Debug)]
pub(super) struct Names {
    region: String,
    account: String,
    seed: String,
    serial: u64,
}

/// A resource as a caller names it, by its ARN or by its id alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reference<'a> {
    /// The cluster that the ARN names; ARNs of the old form name none.
    pub(super) cluster: Option<&'a str>,
    /// The id.
    pub(super) id: &'a str,
}

impl Names {
    /// Ids follow from the seed, which differs at every start.
    pub(super) fn new(region: &str, account: &str, seed: &str) -> Self {
        Self { region: region.to_owned(), account: account.to_owned(), seed: seed.to_owned(), serial: 0 }
    }

    /// The account, 12 digits.
    pub(super) fn account(&self) -> &str {
        &self.account
    }

    /// `arn:aws:ecs:REGION:ACCOUNT:` and the rest.
    pub(super) fn arn(&self, rest: &str) -> String {
        format!("arn:aws:ecs:{}:{}:{rest}", self.region, self.account)
    }

    /// The ARN of a cluster.
    pub(super) fn cluster(&self, name: &str) -> String {
        self.arn(&format!("cluster/{name}"))
    }

    /// The ARN of a container instance.
    pub(super) fn instance(&self, cluster: &str, id: &str) -> String {
        self.arn(&format!("container-instance/{cluster}/{id}"))
    }

    /// The ARN of a task.
    pub(super) fn task(&self, cluster: &str, id: &str) -> String {
        self.arn(&format!("task/{cluster}/{id}"))
    }

    /// The ARN of a container.
    pub(super) fn container(&self, cluster: &str, task: &str, id: &str) -> String {
        self.arn(&format!("container/{cluster}/{task}/{id}"))
    }

    /// A fresh id: 32 hexadecimal digits.
    pub(super) fn fresh_id(&mut self) -> String {
        self.serial += 1;
        let mut digits = hex::encode(Sha256::digest(format!("ecs {} {}", self.seed, self.serial)));
        digits.truncate(ID_DIGITS);
        digits
    }

    /// A fresh id in the form of a UUID.
    pub(super) fn fresh_uuid(&mut self) -> String {
        let id = self.fresh_id();
        let parts = [id.get(..8), id.get(8..12), id.get(12..16), id.get(16..20), id.get(20..)];
        parts.into_iter().flatten().collect::<Vec<_>>().join("-")
    }

    /// The next number of a sequence that looks random: for the placement strategy `random`.
    pub(super) fn dice(&mut self) -> u64 {
        let id = self.fresh_id();
        id.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or_default()
    }

    /// The part of an ARN of this account after its kind (`cluster`, `task`...); `None` when it is of another kind, account
    /// or region.
    pub(super) fn after<'a>(&self, kind: &str, arn: &'a str) -> Option<&'a str> {
        arn.strip_prefix(&self.arn(kind))?.strip_prefix('/')
    }

    /// The name of a cluster that a caller names.
    pub(super) fn cluster_name<'a>(&self, reference: &'a str) -> Result<&'a str, ApiError> {
        if !reference.starts_with("arn:") {
            return Ok(reference);
        }
        self.after("cluster", reference).ok_or_else(|| {
            let other = reference.split(':').nth(4).filter(|account| *account != self.account);
            other.map_or_else(
                || ApiError::invalid("Invalid arn syntax."),
                |other| {
                    let own = &self.account;
                    ApiError::invalid(format!(
                        "Invalid identifier: Identifier is for {other}. Your accountId is {own}"
                    ))
                },
            )
        })
    }

    /// The resource that a caller names; `None` when it cannot be one of this account.
    pub(super) fn reference<'a>(&self, kind: &str, reference: &'a str) -> Option<Reference<'a>> {
        if !reference.starts_with("arn:") {
            return Some(Reference { cluster: None, id: reference });
        }
        let rest = self.after(kind, reference)?;
        match rest.split_once('/') {
            Some((cluster, id)) => Some(Reference { cluster: Some(cluster), id }),
            None => Some(Reference { cluster: None, id: rest }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_found_by_its_arn_of_either_form_and_by_its_id() {
        let names = Names::new("us-west-2", "123456789012", "seed");
        let full = names.task("demo", "abc");
        let expected = Reference { cluster: Some("demo"), id: "abc" };
        assert_eq!(names.reference("task", &full), Some(expected));
        let bare = Reference { cluster: None, id: "abc" };
        assert_eq!(names.reference("task", &names.arn("task/abc")), Some(bare));
        assert_eq!(names.reference("task", "abc"), Some(bare));
        assert_eq!(names.reference("task", &names.cluster("demo")), None);
        assert_eq!(names.reference("task", "arn:aws:ecs:us-west-2:999999999999:task/demo/abc"), None);
    }

    #[test]
    fn fresh_ids_differ_and_follow_from_the_seed() {
        let mut names = Names::new("us-west-2", "123456789012", "seed");
        let (first, uuid) = (names.fresh_id(), names.fresh_uuid());
        assert_eq!(first.len(), ID_DIGITS);
        assert!(uuid::Uuid::parse_str(&uuid).is_ok(), "{uuid}");
        let mut again = Names::new("us-west-2", "123456789012", "seed");
        assert_eq!((again.fresh_id(), again.fresh_uuid()), (first, uuid));
    }

    #[test]
    fn a_cluster_of_another_account_is_refused_in_so_many_words() {
        let names = Names::new("us-west-2", "123456789012", "seed");
        assert_eq!(names.cluster_name(&names.cluster("demo")), Ok("demo"));
        let error = names.cluster_name("arn:aws:ecs:us-west-2:999999999999:cluster/demo").unwrap_err();
        assert!(error.message.contains("Identifier is for 999999999999"), "{error}");
    }
}
