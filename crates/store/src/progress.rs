//! How far the journal has got, in a small file beside the database.
//!
//! sled takes damage near the end of its log for writes that a crash cut off, and goes back to the last good state without a word (seen
//! in nearly half of all damaged journals). So after every flush the number of commits that it carried is written here: a database
//! that knows fewer has lost some that were acknowledged.
//!
//! Sixteen bytes, written in place by one system call: a SIGKILL leaves the old ones or the new ones. After a power loss the file may be
//! ahead of the database or behind it; ahead is what it is for.

use sha2::{Digest, Sha256};
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

/// The open file.
#[derive(Debug)]
pub(crate) struct Progress {
    file: File,
}

fn encode(commits: u64) -> [u8; 16] {
    let number = commits.to_be_bytes();
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number);
    bytes[8..].copy_from_slice(&Sha256::digest(number)[..8]);
    bytes
}

impl Progress {
    /// Makes the file of a new journal.
    pub(crate) fn create(path: &Path) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all_at(&encode(0), 0)?;
        file.sync_all()
    }

    /// Opens the file and answers the number in it; `None` when it is not one that was written here.
    pub(crate) fn open(path: &Path) -> io::Result<Option<(Self, u64)>> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = [0; 16];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let commits = bytes.first_chunk().map_or(0, |number| u64::from_be_bytes(*number));
        Ok((bytes == encode(commits)).then_some((Self { file }, commits)))
    }

    /// These commits have left the process.
    pub(crate) fn write(&self, commits: u64) -> io::Result<()> {
        self.file.write_all_at(&encode(commits), 0)
    }
}
