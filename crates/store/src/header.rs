//! The journal's header: a small file beside the database that says whose journal this is and in which format, so that a foreign
//! journal is recognised before sled touches a byte of it.
//!
//! Two lines: a JSON object and the SHA-256 of that line. Later formats may change all of it but the first two members and the second line.

use crate::report::SetAsideReason;
use berth_types::{Timestamp, ids::InstanceId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The newest format that this agent reads, and the one it writes.
pub(crate) const FORMAT: u32 = 1;
const MAGIC: &str = "berth-journal";
/// A header is 150 bytes; more than this is something else.
pub(crate) const MAX_HEADER_BYTES: u64 = 4096;

/// Whose journal this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    magic: String,
    format: u32,
    pub(crate) instance_id: Option<InstanceId>,
    pub(crate) created_at: Timestamp,
}

/// The part that every format keeps.
#[derive(Deserialize)]
struct Prefix {
    magic: String,
    format: u32,
}

fn hex_sum(line: &[u8]) -> String {
    Sha256::digest(line).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Header {
    pub(crate) fn new(instance_id: Option<InstanceId>, created_at: Timestamp) -> Self {
        Self { magic: MAGIC.into(), format: FORMAT, instance_id, created_at }
    }

    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let line = serde_json::to_string(self)?;
        Ok(format!("{line}\n{}\n", hex_sum(line.as_bytes())).into_bytes())
    }

    /// Reads a header that was written here, or says why the journal cannot be used.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, SetAsideReason> {
        let damaged = |what: &str| SetAsideReason::Damaged(format!("its header {what}"));
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("is not text"))?;
        let (line, sum) = text.split_once('\n').ok_or_else(|| damaged("is cut off"))?;
        if sum.trim_end() != hex_sum(line.as_bytes()) {
            return Err(damaged("does not match its checksum"));
        }
        let prefix: Prefix = serde_json::from_str(line).map_err(|_| damaged("has no format number"))?;
        if prefix.magic != MAGIC {
            return Err(damaged("is not a journal's"));
        }
        if prefix.format != FORMAT {
            return Err(SetAsideReason::UnknownFormat { found: prefix.format, known: FORMAT });
        }
        serde_json::from_str(line).map_err(|error| damaged(&format!("cannot be read: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header::new(Some("i-0123456789abcdef0".parse().unwrap()), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_header_reads_back_as_it_was_written() {
        assert_eq!(Header::parse(&header().to_bytes().unwrap()), Ok(header()));
    }

    #[test]
    fn a_later_format_is_told_from_damage_even_when_everything_else_changed() {
        let line = r#"{"magic":"berth-journal","format":7,"owner":"x"}"#;
        let bytes = format!("{line}\n{}\n", hex_sum(line.as_bytes()));
        assert_eq!(
            Header::parse(bytes.as_bytes()),
            Err(SetAsideReason::UnknownFormat { found: 7, known: FORMAT })
        );
    }

    proptest! {
        #[test]
        fn a_changed_bit_is_found_wherever_it_is(at: prop::sample::Index, bit in 0..8u8) {
            let mut bytes = header().to_bytes().unwrap();
            // The last byte is the line's end, which says nothing.
            let at = at.index(bytes.len() - 1);
            bytes[at] ^= 1 << bit;
            prop_assert!(Header::parse(&bytes).is_err());
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
            prop_assert!(Header::parse(&bytes).is_err());
        }
    }
}
