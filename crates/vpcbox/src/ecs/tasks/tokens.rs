//! Client tokens of RunTask: a call made again with the token of an earlier one finds the tasks of that one.

use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, time::Duration};

/// For how long a token is remembered: ECS's day.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// Tokens at a time; the oldest go first. Every SDK sends one with every RunTask.
const MAX_TOKENS: usize = 10_000;

/// The tokens that were used.
#[derive(Debug, Default)]
pub(in crate::ecs) struct Tokens {
    used: BTreeMap<String, Used>,
}

/// A call that was acted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Used {
    /// Fingerprint of all that the call said.
    pub(super) input: String,
    /// The ids of its tasks.
    pub(super) tasks: Vec<String>,
    /// Why there were not more.
    pub(super) failures: Vec<Value>,
    pub(super) at: Timestamp,
}

impl Tokens {
    pub(super) fn find(&self, cluster: &str, token: &str) -> Option<&Used> {
        self.used.get(&key(cluster, token))
    }

    pub(super) fn remember(&mut self, cluster: &str, token: &str, used: Used) {
        if self.used.len() >= MAX_TOKENS {
            let oldest = self.used.iter().min_by_key(|(_, used)| used.at).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                self.used.remove(&oldest);
            }
        }
        self.used.insert(key(cluster, token), used);
    }

    /// Drops what ECS would not remember any more.
    pub(in crate::ecs) fn forget_old(&mut self, now: Timestamp) {
        self.used.retain(|_, used| used.at + REMEMBERED > now);
    }
}

/// What tells one input from another.
pub(super) fn fingerprint(input: &Value) -> String {
    hex::encode(Sha256::digest(input.to_string()))
}

/// Names of clusters have no blank.
fn key(cluster: &str, token: &str) -> String {
    format!("{cluster} {token}")
}
