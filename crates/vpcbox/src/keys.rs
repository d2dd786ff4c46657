//! Access keys: the operator's, fixed by the configuration, and those that IMDS hands to instances.

use crate::{config::OperatorKey, imds::ImdsCredentials};
use aws_sigv4::sign::v4::calculate_signature;
use jiff::Timestamp;
use std::{collections::BTreeMap, fmt, time::Duration};

/// How long role credentials live: about what EC2 gives.
const LIFE: Duration = Duration::from_secs(6 * 3600);
/// New credentials are handed out from this long before the old ones end, so that a client that reads late still gets good ones.
const RENEW_BEFORE: Duration = Duration::from_secs(3600);

/// Whose signature it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Somebody with the operator's key; also everybody while signatures are not checked.
    Operator,
    /// An instance, with its role's credentials.
    Instance(String),
}

/// A key that may sign requests.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a> {
    /// Not for logs.
    pub secret: &'a str,
    /// What `X-Amz-Security-Token` must say.
    pub session_token: Option<&'a str>,
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// Who holds it.
    pub holder: &'a Caller,
}

/// All keys. At most two are alive per instance, so the number of instances bounds it.
pub struct Keys {
    operator: Option<OperatorKey>,
    /// By access key id.
    issued: BTreeMap<String, Issued>,
    /// What identity documents are sealed with.
    seal: String,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("operator", &self.operator)
            .field("issued", &self.issued)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Issued {
    credentials: ImdsCredentials,
    holder: Caller,
}

impl Keys {
    /// Knows the operator's key only.
    pub fn new(operator: Option<OperatorKey>) -> Self {
        Self { operator, issued: BTreeMap::new(), seal: random() }
    }

    /// The key of this id, expired ones included for as long as they are remembered.
    pub fn find(&self, id: &str) -> Option<Key<'_>> {
        if let Some(operator) = self.operator.as_ref().filter(|key| key.access_key == id) {
            let secret = &operator.secret_key;
            return Some(Key { secret, session_token: None, expires: None, holder: &Caller::Operator });
        }
        let issued = self.issued.get(id)?;
        Some(Key {
            secret: &issued.credentials.secret_access_key,
            session_token: Some(&issued.credentials.token),
            expires: Some(issued.credentials.expiration),
            holder: &issued.holder,
        })
    }

    /// The signature of an identity document: nobody but this box can make it.
    pub fn seal(&self, document: &str) -> String {
        calculate_signature(&self.seal, document.as_bytes())
    }

    /// Whether an identity document is as this box sealed it.
    pub fn is_sealed(&self, document: &str, signature: &str) -> bool {
        self.seal(document) == signature
    }

    /// Credentials for an instance: the same until they are about to end.
    pub fn issue(&mut self, instance: &str, now: Timestamp) -> ImdsCredentials {
        self.issued.retain(|_, i| i.credentials.expiration > now);
        let holder = Caller::Instance(instance.to_owned());
        let good = self
            .issued
            .values()
            .find(|i| i.holder == holder && i.credentials.expiration > now + RENEW_BEFORE);
        if let Some(issued) = good {
            return issued.credentials.clone();
        }
        let credentials = ImdsCredentials {
            access_key_id: format!("ASIA{}", &random().to_ascii_uppercase()[..16]),
            secret_access_key: format!("{}{}", random(), &random()[..8]),
            token: format!("IQoJb3JpZ2lu{}{}{}{}", random(), random(), random(), random()),
            last_updated: now,
            expiration: now + LIFE,
        };
        let issued = Issued { credentials: credentials.clone(), holder };
        self.issued.insert(credentials.access_key_id.clone(), issued);
        credentials
    }
}

/// 32 hexadecimal digits.
fn random() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_keeps_its_credentials_until_they_are_about_to_end() {
        let start: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let mut keys = Keys::new(None);
        let first = keys.issue("i-1", start);
        assert_eq!(keys.issue("i-1", start + Duration::from_secs(4 * 3600)), first);
        assert_ne!(keys.issue("i-2", start).access_key_id, first.access_key_id);
        let second = keys.issue("i-1", start + Duration::from_secs(5 * 3600 + 1));
        assert_ne!(second.access_key_id, first.access_key_id);
        assert!(keys.find(&first.access_key_id).is_some(), "the old one is good until its end");
        keys.issue("i-1", start + Duration::from_secs(6 * 3600 + 1));
        assert!(keys.find(&first.access_key_id).is_none());
    }
}
