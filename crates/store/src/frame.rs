//! The bytes of one record in sled, and the sum over all of them.
//!
//! ```text
//! key    table letter, the owner's key
//! value  "BJ"  frame version: u8  record version: u16  checksum: 16 bytes  body
//! ```
//!
//! The checksum covers the key too, so a value that turns up under another key is found.

use berth_types::ports::{Record, Table};
use sha2::{Digest, Sha256};

const MAGIC: [u8; 2] = *b"BJ";
/// Version of the frame. The header's format number rises with it, so an agent never meets a later one in a journal it accepts.
const FRAME_VERSION: u8 = 1;
const CHECKSUM_AT: usize = 5;
const BODY_AT: usize = CHECKSUM_AT + 16;

/// Sixteen bytes of SHA-256 over a record's key, version and body. A CRC would find accidents as well; XOR over many CRCs, which are
/// linear, would not.
pub(crate) type Checksum = u128;

/// Why a value cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("{0} bytes are too few for a record")]
    TooShort(usize),
    #[error("it does not begin like a record")]
    Magic,
    #[error("frame version {0} is not known")]
    Version(u8),
    #[error("its checksum does not match")]
    Checksum,
}

/// The letter that a table's keys begin with. Never reuse one.
pub(crate) fn table_letter(table: Table) -> u8 {
    match table {
        Table::Enis => b'E',
        Table::Leases => b'L',
        Table::Tasks => b'T',
        Table::Registration => b'R',
        Table::Reports => b'O',
    }
}

/// A table's name for logs, from the first byte of a key that may be damaged.
pub(crate) fn table_name(letter: Option<u8>) -> String {
    match letter {
        Some(b'E') => "enis".into(),
        Some(b'L') => "leases".into(),
        Some(b'T') => "tasks".into(),
        Some(other) => format!("unknown ({other:#04x})"),
        None => "unknown".into(),
    }
}

/// The key in sled.
pub(crate) fn full_key(table: Table, key: &str) -> Vec<u8> {
    let mut full = Vec::with_capacity(1 + key.len());
    full.push(table_letter(table));
    full.extend_from_slice(key.as_bytes());
    full
}

fn checksum(full_key: &[u8], version: u16, body: &[u8]) -> Checksum {
    let mut hash = Sha256::new();
    // The length keeps key and body apart: the end of one cannot pass for the start of the other.
    hash.update((full_key.len() as u64).to_be_bytes());
    hash.update(full_key);
    hash.update([FRAME_VERSION]);
    hash.update(version.to_be_bytes());
    hash.update(body);
    let hash = hash.finalize();
    let mut first = [0; 16];
    first.copy_from_slice(&hash[..16]);
    u128::from_be_bytes(first)
}

/// The value in sled, and its checksum.
pub(crate) fn encode(full_key: &[u8], record: &Record) -> (Vec<u8>, Checksum) {
    let sum = checksum(full_key, record.version, &record.body);
    let mut bytes = Vec::with_capacity(BODY_AT + record.body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.push(FRAME_VERSION);
    bytes.extend_from_slice(&record.version.to_be_bytes());
    bytes.extend_from_slice(&sum.to_be_bytes());
    bytes.extend_from_slice(&record.body);
    (bytes, sum)
}

/// Reads a value back.
pub(crate) fn decode(full_key: &[u8], bytes: &[u8]) -> Result<(Record, Checksum), FrameError> {
    let (Some((head, rest)), true) = (bytes.split_first_chunk::<CHECKSUM_AT>(), bytes.len() >= BODY_AT)
    else {
        return Err(FrameError::TooShort(bytes.len()));
    };
    let [m0, m1, frame_version, v0, v1] = *head;
    if [m0, m1] != MAGIC {
        return Err(FrameError::Magic);
    }
    if frame_version != FRAME_VERSION {
        return Err(FrameError::Version(frame_version));
    }
    let Some((sum, body)) = rest.split_first_chunk::<16>() else {
        return Err(FrameError::TooShort(bytes.len()));
    };
    let (version, sum) = (u16::from_be_bytes([v0, v1]), u128::from_be_bytes(*sum));
    if checksum(full_key, version, body) != sum {
        return Err(FrameError::Checksum);
    }
    Ok((Record { version, body: body.to_vec() }, sum))
}

/// The sum over all records: their count, their checksums XORed, and how many commits led to it. It is written in the same batch as the
/// records it covers, so that pages that sled lost or rolled back one by one do not pass for a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Total {
    commits: u64,
    count: u64,
    xor: Checksum,
}

impl Total {
    pub(crate) fn add(&mut self, sum: Checksum) {
        self.count = self.count.wrapping_add(1);
        self.xor ^= sum;
    }

    pub(crate) fn remove(&mut self, sum: Checksum) {
        self.count = self.count.wrapping_sub(1);
        self.xor ^= sum;
    }

    /// Commits since the journal was made.
    pub(crate) fn commits(self) -> u64 {
        self.commits
    }

    /// The same records, one commit later.
    pub(crate) fn next(self) -> Self {
        Self { commits: self.commits.saturating_add(1), ..self }
    }

    /// The same records, after so many commits.
    pub(crate) fn after(self, commits: u64) -> Self {
        Self { commits, ..self }
    }

    pub(crate) fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.commits.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.count.to_be_bytes());
        bytes[16..].copy_from_slice(&self.xor.to_be_bytes());
        bytes
    }

    /// `None` unless the length is right; what the bytes say is compared with the records.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (commits, rest) = bytes.split_first_chunk()?;
        let (count, rest) = rest.split_first_chunk()?;
        let xor = rest.try_into().ok()?;
        Some(Self {
            commits: u64::from_be_bytes(*commits),
            count: u64::from_be_bytes(*count),
            xor: u128::from_be_bytes(xor),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_reads_back_as_it_was_written(key: String, version: u16, body: Vec<u8>) {
            let (key, record) = (full_key(Table::Tasks, &key), Record { version, body });
            let (bytes, sum) = encode(&key, &record);
            prop_assert_eq!(decode(&key, &bytes), Ok((record, sum)));
        }

        #[test]
        fn a_changed_bit_is_found_wherever_it_is(body: Vec<u8>, at: prop::sample::Index, bit in 0..8u8) {
            let key = full_key(Table::Leases, "key");
            let (mut bytes, _) = encode(&key, &Record { version: 1, body });
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(&key, &bytes).is_err());
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(key: Vec<u8>, bytes: Vec<u8>) {
            prop_assert!(decode(&key, &bytes).is_err());
        }
    }

    #[test]
    fn a_value_under_another_key_is_found() {
        let (bytes, _) = encode(&full_key(Table::Enis, "a"), &Record { version: 1, body: b"x".to_vec() });
        assert_eq!(decode(&full_key(Table::Enis, "b"), &bytes), Err(FrameError::Checksum));
        assert_eq!(decode(&full_key(Table::Leases, "a"), &bytes), Err(FrameError::Checksum));
    }
}
