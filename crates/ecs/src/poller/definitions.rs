//! Task definitions that were read lately. One that is registered never changes, so nothing here grows old; the bound keeps a node
//! that runs a thousand families from holding them all.

use berth_types::taskdef::{self, TaskDefinition, TaskDefinitionError};
use std::{collections::VecDeque, sync::Arc};

/// Definitions that are kept: more families than a node runs at a time (120 tasks at most); one of the largest takes some 200 KiB.
const KEPT: usize = 64;

/// A definition, or why it cannot be read: that does not change either.
pub(crate) type Read = Result<Arc<TaskDefinition>, TaskDefinitionError>;

/// The cache. The one used last is in front.
#[derive(Debug, Default)]
pub(crate) struct Definitions(VecDeque<(String, Read)>);

impl Definitions {
    /// The definition, if it is here.
    pub(crate) fn get(&mut self, arn: &str) -> Option<Read> {
        let at = self.0.iter().position(|(known, _)| known == arn)?;
        let entry = self.0.remove(at)?;
        let read = entry.1.clone();
        self.0.push_front(entry);
        Some(read)
    }

    /// Reads and keeps one.
    pub(crate) fn insert(&mut self, arn: &str, json: &[u8]) -> Read {
        let read = taskdef::parse_described(json).map(Arc::new);
        self.0.retain(|(known, _)| known != arn);
        self.0.push_front((arn.to_owned(), read.clone()));
        self.0.truncate(KEPT);
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_used_definition_goes_first() {
        let mut cache = Definitions::default();
        for i in 0..KEPT {
            assert!(cache.insert(&format!("d{i}"), b"{").is_err());
        }
        assert!(cache.get("d0").is_some());
        assert!(cache.insert("one more", b"{").is_err());
        assert!(cache.get("d0").is_some() && cache.get("d1").is_none());
        assert_eq!(cache.0.len(), KEPT);
    }
}
